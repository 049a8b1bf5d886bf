/* Raw cubes of simulations, and differences of two redshifts. */
#include "data/cube_source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "field/array.h"
#include "field/hdf5.h"

const char *fn_theory_name(int theory) {
  return theory == FN_GR ? "gr" : "newton";
}

int64_t fn_cube_source_cells(const fn_cube_source *source) {
  return source->size[0] * source->size[1] * source->size[2];
}

fn_status fn_cube_source_measure(fn_cube_source *source, int64_t seed) {
  int64_t bytes;
  char text[128];
  FN_TRY(source->shape(source, seed, FN_GR, source->size));
  FN_CHECK(fn_dims_bytes(3, source->size, 8, &bytes) && bytes > 0, FN_ERR_DATA,
           "cubes of shape %s cannot be read", fn_dims_text(3, source->size, text, sizeof text));
  return FN_OK;
}

fn_status fn_cube_source_check(fn_cube_source *source, int64_t seed, int theory) {
  int64_t size[3];
  return source->shape(source, seed, theory, size);
}

void fn_cube_source_destroy(fn_cube_source *source) {
  if (source) source->destroy(source);
}

/* ---- paths -------------------------------------------------------------------------------------
 */

typedef struct raw_source {
  fn_cube_source source;
  fn_raw_cubes raw;
  double *other; // cells of the second snapshot, or NULL
} raw_source;

/** Text of the placeholder in braces that starts at `open`; returns its end, NULL if there is no
 *  such one. */
static const char *placeholder(const char *open, const char *snap, int64_t seed, int theory,
                               char *text, size_t size) {
  int digits = 4, used = 0;
  if (sscanf(open, "{seed:%2d}%n", &digits, &used) == 1 && used > 0 && digits >= 0) {
    snprintf(text, size, "%0*lld", digits, (long long)seed);
    return open + used;
  }
  if (strncmp(open, "{seed}", 6) == 0) {
    snprintf(text, size, "%04lld", (long long)seed);
    return open + 6;
  }
  if (strncmp(open, "{theory}", 8) == 0) {
    snprintf(text, size, "%s", fn_theory_name(theory));
    return open + 8;
  }
  if (strncmp(open, "{snap}", 6) == 0) {
    snprintf(text, size, "%s", snap);
    return open + 6;
  }
  return NULL;
}

fn_status fn_raw_cubes_path(const fn_raw_cubes *raw, const char *snap, int64_t seed, int theory,
                            char *path, size_t size) {
  size_t used = (size_t)snprintf(path, size, "%s/", raw->folder);
  for (const char *at = raw->pattern; *at;) {
    char text[256] = {*at, '\0'};
    const char *next = at + 1;
    if (*at == '{') {
      next = placeholder(at, snap, seed, theory, text, sizeof text);
      FN_CHECK(next, FN_ERR_CONFIG,
               "pattern '%s': expected {seed}, {seed:DIGITS}, {theory} or {snap}, found '%.20s'",
               raw->pattern, at);
    }
    if (used < size) used += (size_t)snprintf(path + used, size - used, "%s", text);
    at = next;
  }
  FN_CHECK(used < size, FN_ERR_CONFIG, "path too long: %.200s...", path);
  return FN_OK;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

typedef struct open_cube {
  hid_t file, dataset, type;
  int64_t size[3];
} open_cube;

static void close_cube(open_cube *c) {
  if (c->type >= 0) H5Tclose(c->type);
  if (c->dataset >= 0) H5Dclose(c->dataset);
  if (c->file >= 0) H5Fclose(c->file);
}

/** Lock held; the caller closes, whatever is returned. */
static fn_status open_raw(const char *path, const char *dataset, open_cube *c) {
  *c = (open_cube){-1, -1, -1, {0}};
  FN_TRY(fn_hdf5_open_file(path, &c->file));
  c->dataset = H5Dopen2(c->file, dataset, H5P_DEFAULT);
  FN_CHECK(c->dataset >= 0, FN_ERR_DATA, "%s holds no dataset %s", path, dataset);
  c->type = H5Dget_type(c->dataset);
  char name[32] = "unreadable", text[256];
  const bool number = c->type >= 0 && fn_hdf5_type_name(c->type, name, sizeof name);
  FN_CHECK(number && H5Tget_class(c->type) == H5T_FLOAT && H5Tget_size(c->type) <= 8, FN_ERR_DATA,
           "%s:%s: expected floating point numbers of at most 64 bits, found type %s", path,
           dataset, name);
  const hid_t space = H5Dget_space(c->dataset);
  hsize_t dim[H5S_MAX_RANK] = {0};
  const int ndim = space >= 0 ? H5Sget_simple_extent_dims(space, dim, NULL) : -1;
  if (space >= 0) H5Sclose(space);
  int64_t found[H5S_MAX_RANK];
  for (int i = 0; i < ndim; i++)
    found[i] = (int64_t)dim[i];
  FN_CHECK(ndim == 3, FN_ERR_DATA, "%s:%s: expected a cube of three axes, found shape %s", path,
           dataset, fn_dims_text(ndim < 0 ? 0 : ndim, found, text, sizeof text));
  memcpy(c->size, found, sizeof c->size);
  return FN_OK;
}

static fn_status same_shape(const fn_cube_source *source, const char *path, const char *dataset,
                            const int64_t size[3]) {
  char expected[128], found[128];
  FN_CHECK(source->size[0] == 0 || memcmp(size, source->size, sizeof source->size) == 0,
           FN_ERR_DATA, "%s:%s: expected shape %s, that of the first cube, found %s", path, dataset,
           fn_dims_text(3, source->size, expected, sizeof expected),
           fn_dims_text(3, size, found, sizeof found));
  return FN_OK;
}

static fn_status raw_shape(fn_cube_source *source, int64_t seed, int theory, int64_t size[3]) {
  const raw_source *r = (const raw_source *)source;
  char path[4096];
  for (int i = 0; i < 2 && r->raw.snap[i]; i++) {
    open_cube c;
    FN_TRY(fn_raw_cubes_path(&r->raw, r->raw.snap[i], seed, theory, path, sizeof path));
    fn_hdf5_lock();
    const fn_status status = open_raw(path, r->raw.dataset, &c);
    close_cube(&c);
    fn_hdf5_unlock();
    FN_TRY(status);
    FN_TRY(same_shape(source, path, r->raw.dataset, c.size));
    memcpy(size, c.size, sizeof c.size);
  }
  return FN_OK;
}

/** The stored bytes of a cube into `cells`, and the type they have. */
static fn_status read_bytes(const raw_source *r, const char *path, double *cells, hid_t *type,
                            size_t *item) {
  open_cube c;
  char reason[512] = "";
  fn_hdf5_lock();
  fn_status status = open_raw(path, r->raw.dataset, &c);
  if (status == FN_OK) status = same_shape(&r->source, path, r->raw.dataset, c.size);
  if (status == FN_OK &&
      H5Dread(c.dataset, c.type, H5S_ALL, H5S_ALL, H5P_DEFAULT, (void *)cells) < 0) {
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot read %s:%s: %s", path,
                          r->raw.dataset, fn_hdf5_reason(reason, sizeof reason));
  }
  *type = status == FN_OK ? H5Tcopy(c.type) : -1;
  *item = status == FN_OK ? H5Tget_size(c.type) : 0;
  close_cube(&c);
  fn_hdf5_unlock();
  return status;
}

static fn_status to_double(const char *path, hid_t type, int64_t count, double *cells) {
  fn_hdf5_lock();
  const bool good =
      H5Tequal(type, H5T_NATIVE_DOUBLE) > 0 ||
      H5Tconvert(type, H5T_NATIVE_DOUBLE, (size_t)count, cells, NULL, H5P_DEFAULT) >= 0;
  H5Tclose(type);
  fn_hdf5_unlock();
  FN_CHECK(good, FN_ERR_DATA, "%s: values cannot be converted to float64", path);
  return FN_OK;
}

static fn_status check_finite(const char *path, const int64_t size[3], const double *cells) {
  const int64_t plane = size[1] * size[2], count = size[0] * plane;
  for (int64_t i = 0; i < count; i++) {
    FN_CHECK(isfinite(cells[i]), FN_ERR_DATA, "%s: the value of cell [%lld, %lld, %lld] is %g",
             path, (long long)(i / plane), (long long)(i % plane / size[2]),
             (long long)(i % size[2]), cells[i]);
  }
  return FN_OK;
}

static fn_status read_raw(const raw_source *r, const char *snap, int64_t seed, int theory,
                          double *cells, uint64_t *hash) {
  char path[4096];
  hid_t type;
  size_t item;
  const int64_t count = fn_cube_source_cells(&r->source);
  FN_TRY(fn_raw_cubes_path(&r->raw, snap, seed, theory, path, sizeof path));
  FN_TRY(read_bytes(r, path, cells, &type, &item));
  *hash = fn_hash_bytes(*hash, cells, (size_t)count * item);
  FN_TRY(to_double(path, type, count, cells));
  return check_finite(path, r->source.size, cells);
}

static fn_status raw_read(fn_cube_source *source, int64_t seed, int theory, double *cells,
                          uint64_t *checksum) {
  raw_source *r = (raw_source *)source;
  const int64_t count = fn_cube_source_cells(source);
  *checksum = FN_HASH_START;
  FN_TRY(read_raw(r, r->raw.snap[0], seed, theory, cells, checksum));
  if (!r->raw.snap[1]) return FN_OK;
  if (!r->other) r->other = malloc(sizeof *r->other * (size_t)count);
  FN_CHECK(r->other, FN_ERR_MEMORY, "no memory for a second cube");
  FN_TRY(read_raw(r, r->raw.snap[1], seed, theory, r->other, checksum));
  for (int64_t i = 0; i < count; i++)
    cells[i] = cells[i] / r->raw.growth[0] - r->other[i] / r->raw.growth[1];
  return FN_OK;
}

static void raw_describe(const fn_cube_source *source, fn_text *text) {
  const fn_raw_cubes *raw = &((const raw_source *)source)->raw;
  fn_text_add(text, "pattern: %s\ndataset: %s\nsnap: %s\n", raw->pattern, raw->dataset,
              raw->snap[0]);
  if (raw->snap[1])
    fn_text_add(text, "minus snap: %s\ngrowth: %.17g, %.17g\n", raw->snap[1], raw->growth[0],
                raw->growth[1]);
}

bool fn_raw_cubes_recall(fn_raw_cubes *raw, const char *description, char **memory) {
  *memory = strdup(description);
  if (!*memory || strncmp(*memory, "pattern: ", 9) != 0) return false;
  const char *second = NULL, *snap = NULL;
  for (char *line = *memory, *next; line; line = next) {
    next = strchr(line, '\n');
    if (next) *next++ = '\0';
    char *value = strstr(line, ": ");
    if (!value) continue;
    *value = '\0';
    value += 2;
    if (strcmp(line, "pattern") == 0 && !raw->pattern) raw->pattern = value;
    if (strcmp(line, "dataset") == 0 && !raw->dataset) raw->dataset = value;
    if (strcmp(line, "snap") == 0) snap = value;
    if (strcmp(line, "minus snap") == 0) second = value;
    if (strcmp(line, "growth") == 0 && raw->growth[0] <= 0)
      sscanf(value, "%lf, %lf", &raw->growth[0], &raw->growth[1]);
  }
  if (!raw->snap[0]) {
    raw->snap[0] = snap;
    raw->snap[1] = second;
  }
  return raw->pattern && raw->dataset && raw->snap[0];
}

static void raw_destroy(fn_cube_source *source) {
  raw_source *r = (raw_source *)source;
  free(r->other);
  free(r);
}

fn_status fn_raw_cubes_create(const fn_raw_cubes *raw, bool many_seeds, fn_cube_source **source) {
  char path[4096];
  *source = NULL;
  FN_TRY(fn_raw_cubes_path(raw, raw->snap[0], 0, FN_GR, path, sizeof path));
  FN_CHECK(strstr(raw->pattern, "{theory}"), FN_ERR_CONFIG,
           "pattern '%s': {theory} is missing: the cubes of a seed could not be told apart",
           raw->pattern);
  FN_CHECK(!many_seeds || strstr(raw->pattern, "{seed"), FN_ERR_CONFIG,
           "pattern '%s': {seed} is missing, but there are several seeds", raw->pattern);
  FN_CHECK(!raw->snap[1] || strstr(raw->pattern, "{snap}"), FN_ERR_CONFIG,
           "pattern '%s': {snap} is missing, but differences of snaps are wanted", raw->pattern);
  raw_source *r = calloc(1, sizeof *r);
  FN_CHECK(r, FN_ERR_MEMORY, "no memory");
  r->raw = *raw;
  r->source = (fn_cube_source){
      .shape = raw_shape, .read = raw_read, .describe = raw_describe, .destroy = raw_destroy};
  *source = &r->source;
  return FN_OK;
}

/* ---- moments -----------------------------------------------------------------------------------
 */

/** Sum with the rounding errors summed beside it (Neumaier 1974). */
typedef struct long_sum {
  double sum, lost;
} long_sum;

static void add(long_sum *s, double value) {
  const double sum = s->sum + value;
  s->lost += fabs(s->sum) >= fabs(value) ? s->sum - sum + value : value - sum + s->sum;
  s->sum = sum;
}

enum { BLOCK = 512, LANES = 8 };

/** Sum of (cell - shift)^power, power 1 or 2, over at most BLOCK cells. */
static double block_sum(const double *cells, int64_t count, double shift, bool squared) {
  double lane[LANES] = {0};
  int64_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    for (int l = 0; l < LANES; l++) {
      const double value = cells[i + l] - shift;
      lane[l] += squared ? value * value : value;
    }
  }
  for (int l = 0; i < count; i++, l++) {
    const double value = cells[i] - shift;
    lane[l] += squared ? value * value : value;
  }
  return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

void fn_cube_moments(const double *cells, int64_t count, double *mean, double *squares) {
  long_sum first = {0, 0}, second = {0, 0};
  for (int64_t i = 0; i < count; i += BLOCK)
    add(&first, block_sum(cells + i, count - i < BLOCK ? count - i : BLOCK, 0, false));
  *mean = (first.sum + first.lost) / (double)count;
  for (int64_t i = 0; i < count; i += BLOCK)
    add(&second, block_sum(cells + i, count - i < BLOCK ? count - i : BLOCK, *mean, true));
  *squares = second.sum + second.lost;
}
