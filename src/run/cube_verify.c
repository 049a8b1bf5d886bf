/* A prepared file compared with the raw cubes it was made from, or with its own checksums. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "field/hdf5.h"
#include "run/cube_jobs.h"

/** What is found out about one cube; all doubles, so that they can be summed over ranks. */
typedef struct finding {
  double cells, first, largest; // that differ, number of the first, greatest difference
  double source_changed, bytes_changed;
} finding;

enum { FINDING = sizeof(finding) / sizeof(double), SHOWN = 20 };

typedef struct verifying {
  const fn_dist *dist;
  const fn_verify_job *job;
  fn_cube_file *file;
  const fn_cube_file_info *info;
  fn_cube_plan plan;           // as far as cells depend on it
  uint64_t *source, *checksum; // [cubes] of the file, 0: none
  int64_t items;
  double *raw;  // [cells]
  void *wanted; // [cells] of plan.item bytes
  void *found;
  finding *findings; // [items]
} verifying;

/* ---- what the file says ------------------------------------------------------------------------
 */

static bool read_column(hid_t file, const char *name, const fn_cube_file_info *info,
                        uint64_t *values) {
  if (H5Lexists(file, name, H5P_DEFAULT) <= 0) return true;
  uint64_t *rows = calloc((size_t)info->cubes, sizeof *rows);
  const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
  const hid_t space = set >= 0 ? H5Dget_space(set) : -1;
  const bool good = rows && space >= 0 && H5Sget_simple_extent_npoints(space) == info->cubes &&
                    H5Dread(set, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows) >= 0;
  for (int64_t i = 0; i < info->cubes && good; i++)
    values[i] = rows[info->cube[i].row];
  if (space >= 0) H5Sclose(space);
  if (set >= 0) H5Dclose(set);
  free(rows);
  return good;
}

static bool read_attribute(hid_t object, const char *name, hid_t type, void *value) {
  if (H5Aexists(object, name) <= 0) return true;
  const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
  const bool good = attribute >= 0 && H5Aread(attribute, type, value) >= 0;
  if (attribute >= 0) H5Aclose(attribute);
  return good;
}

static bool read_checksums(verifying *v, hid_t file) {
  if (v->info->packed)
    return read_column(file, "source_checksum", v->info, v->source) &&
           read_column(file, "checksum", v->info, v->checksum);
  for (int64_t i = 0; i < v->info->cubes; i++) {
    const hid_t set = H5Dopen2(file, v->info->cube[i].name, H5P_DEFAULT);
    const bool good = set >= 0 &&
                      read_attribute(set, "source_checksum", H5T_NATIVE_UINT64, &v->source[i]) &&
                      read_attribute(set, "checksum", H5T_NATIVE_UINT64, &v->checksum[i]);
    if (set >= 0) H5Dclose(set);
    if (!good) return false;
  }
  return true;
}

static bool read_item(verifying *v, hid_t file) {
  const hid_t set = H5Dopen2(file, v->info->packed ? "cubes" : v->info->cube[0].name, H5P_DEFAULT);
  if (set < 0) return false;
  const hid_t type = H5Dget_type(set);
  v->plan.item = H5Tget_size(type) == 8 ? 8 : 4;
  H5Tclose(type);
  H5Dclose(set);
  return true;
}

/** Rank 0: what fn_cube_file does not keep. */
static fn_status read_details(verifying *v) {
  hid_t file = -1;
  char reason[512];
  fn_hdf5_lock();
  fn_status status = fn_hdf5_open_file(v->job->path, &file);
  if (status == FN_OK && !(read_checksums(v, file) && read_item(v, file)))
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot read checksums of %s: %s",
                          v->job->path, fn_hdf5_reason(reason, sizeof reason));
  if (file >= 0) H5Fclose(file);
  fn_hdf5_unlock();
  return status;
}

/** Cells of one cube in the type that the file has. */
static fn_status read_prepared(const verifying *v, const fn_cube *cube) {
  hid_t file = -1, set = -1, space = -1, memory = -1;
  char reason[512] = "";
  const hsize_t size[4] = {1, (hsize_t)v->info->size[0], (hsize_t)v->info->size[1],
                           (hsize_t)v->info->size[2]};
  const hsize_t start[4] = {(hsize_t)(cube->row < 0 ? 0 : cube->row), 0, 0, 0};
  fn_hdf5_lock();
  fn_status status = fn_hdf5_open_file(v->job->path, &file);
  if (status == FN_OK) {
    set = H5Dopen2(file, v->info->packed ? "cubes" : cube->name, H5P_DEFAULT);
    space = set >= 0 ? H5Dget_space(set) : -1;
    memory =
        v->info->packed ? H5Screate_simple(4, size, NULL) : H5Screate_simple(3, size + 1, NULL);
    if (v->info->packed && space >= 0)
      H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, size, NULL);
    const hid_t type = v->plan.item == 8 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT;
    if (space < 0 || H5Dread(set, type, memory, space, H5P_DEFAULT, v->found) < 0)
      status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot read %s of %s: %s", cube->name,
                            v->job->path, fn_hdf5_reason(reason, sizeof reason));
  }
  if (memory >= 0) H5Sclose(memory);
  if (space >= 0) H5Sclose(space);
  if (set >= 0) H5Dclose(set);
  if (file >= 0) H5Fclose(file);
  fn_hdf5_unlock();
  return status;
}

/* ---- comparison --------------------------------------------------------------------------------
 */

static int64_t cube_of(const verifying *v, int64_t item) {
  return (int64_t)((__int128)item * v->info->cubes / v->items);
}

static double cell_of(const void *cells, int item, int64_t i) {
  return item == 8 ? ((const double *)cells)[i] : (double)((const float *)cells)[i];
}

static void compare_cells(const verifying *v, int64_t count, finding *f) {
  for (int64_t i = 0; i < count; i++) {
    const double difference =
        fabs(cell_of(v->found, v->plan.item, i) - cell_of(v->wanted, v->plan.item, i));
    if (difference <= v->job->tolerance) continue; // NaN goes on
    if (f->cells++ == 0) f->first = (double)i;
    f->largest = difference > f->largest || isnan(difference) ? difference : f->largest;
  }
}

static fn_status verify_cube(void *user, int64_t item) {
  verifying *v = user;
  finding *f = &v->findings[item];
  const int64_t index = cube_of(v, item);
  const fn_cube *cube = &v->info->cube[index];
  const int64_t count = v->info->size[0] * v->info->size[1] * v->info->size[2];
  FN_TRY(read_prepared(v, cube));
  const uint64_t bytes = fn_hash_bytes(FN_HASH_START, v->found, (size_t)(count * v->plan.item));
  f->bytes_changed = v->checksum[index] != 0 && v->checksum[index] != bytes;
  if (!v->job->source) return FN_OK;
  uint64_t source;
  FN_TRY(v->job->source->read(v->job->source, cube->seed, cube->theory, v->raw, &source));
  f->source_changed = v->source[index] != 0 && v->source[index] != source;
  FN_TRY(fn_cube_standardise(&v->plan, v->raw, v->wanted));
  compare_cells(v, count, f);
  return FN_OK;
}

static void describe_finding(const verifying *v, int64_t item, fn_text *text) {
  const finding *f = &v->findings[item];
  const int64_t first = (int64_t)f->first, *size = v->info->size;
  fn_text_add(text, "\n  %s:", v->info->cube[cube_of(v, item)].name);
  if (f->cells > 0)
    fn_text_add(text, " %.0f cells differ, the first at [%lld, %lld, %lld], by up to %.3g;",
                f->cells, (long long)(first / size[2] / size[1]),
                (long long)(first / size[2] % size[1]), (long long)(first % size[2]), f->largest);
  if (f->bytes_changed > 0)
    fn_text_add(text, " the cells are not those that were written (checksum);");
  if (f->source_changed > 0)
    fn_text_add(text, " the raw cube is not the one that was packed (checksum);");
  fn_text_cut(text, text->length - 1); // the last semicolon
}

/** The same on every rank. */
static fn_status judge(const verifying *v, fn_verify_figures *figures) {
  fn_text text = {0};
  for (int64_t i = 0; i < v->items; i++) {
    const finding *f = &v->findings[i];
    if (f->cells > 0 && !(f->largest <= figures->largest)) figures->largest = f->largest;
    if (f->cells + f->bytes_changed + f->source_changed <= 0) continue;
    if (figures->differing++ < SHOWN) describe_finding(v, i, &text);
  }
  figures->cubes = v->items;
  if (figures->differing > SHOWN)
    fn_text_add(&text, "\n  and %lld more", (long long)(figures->differing - SHOWN));
  fn_status status = FN_OK;
  if (figures->differing > 0)
    status = fn_error_set(FN_ERR_VERIFY, __FILE__, __LINE__, "%s: %lld of %lld cubes differ:%s",
                          v->job->path, (long long)figures->differing, (long long)v->items,
                          text.data ? text.data : "");
  fn_text_free(&text);
  return status;
}

/* ---- all together ------------------------------------------------------------------------------
 */

/** Metadata, read by rank 0. */
static fn_status share_file(verifying *v) {
  void *bytes = NULL;
  size_t size = 0;
  fn_status status = FN_OK;
  if (v->dist->rank == 0) {
    status = fn_cube_file_open(v->job->path, &v->file);
    if (status == FN_OK) status = fn_cube_file_pack(v->file, &bytes, &size);
  }
  status = fn_dist_agree(v->dist, status);
  if (status == FN_OK) status = fn_dist_broadcast(v->dist, &size, sizeof size);
  if (status == FN_OK && v->dist->rank != 0) {
    bytes = malloc(size);
    if (!bytes) status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory");
  }
  status = fn_dist_agree(v->dist, status);
  if (status == FN_OK) status = fn_dist_broadcast(v->dist, bytes, (int64_t)size);
  if (status == FN_OK && v->dist->rank != 0) status = fn_cube_file_unpack(bytes, size, &v->file);
  free(bytes);
  return fn_dist_agree(v->dist, status);
}

static fn_status allocate(verifying *v) {
  v->info = fn_cube_file_get_info(v->file);
  const int64_t cubes = v->info->cubes;
  v->items = v->job->sample > 0 && v->job->sample < cubes ? v->job->sample : cubes;
  v->plan = (fn_cube_plan){.has_statistics = v->info->has_statistics,
                           .mean = v->info->mean,
                           .std = v->info->std,
                           .remove_mean = v->info->mean_removed};
  memcpy(v->plan.size, v->info->size, sizeof v->plan.size);
  const size_t cells = (size_t)(v->info->size[0] * v->info->size[1] * v->info->size[2]);
  v->source = calloc((size_t)cubes, sizeof *v->source);
  v->checksum = calloc((size_t)cubes, sizeof *v->checksum);
  v->findings = calloc((size_t)v->items, sizeof *v->findings);
  v->raw = malloc(cells * sizeof(double));
  v->wanted = malloc(cells * sizeof(double));
  v->found = malloc(cells * sizeof(double));
  FN_CHECK(v->source && v->checksum && v->findings && v->raw && v->wanted && v->found,
           FN_ERR_MEMORY, "no memory for a cube of %zu cells", cells);
  if (v->job->source) memcpy(v->job->source->size, v->info->size, sizeof v->info->size);
  return FN_OK;
}

static fn_status verify(verifying *v, const fn_ticker *ticker, fn_verify_figures *figures) {
  const fn_dist *dist = v->dist;
  FN_TRY(share_file(v));
  FN_TRY(fn_dist_agree(dist, allocate(v)));
  FN_TRY(fn_dist_agree(dist, dist->rank == 0 ? read_details(v) : FN_OK));
  const int64_t bytes = v->info->cubes * (int64_t)sizeof(uint64_t);
  FN_TRY(fn_dist_broadcast(dist, v->source, bytes));
  FN_TRY(fn_dist_broadcast(dist, v->checksum, bytes));
  FN_TRY(fn_dist_broadcast(dist, &v->plan.item, sizeof v->plan.item));
  bool any = v->job->source != NULL;
  for (int64_t i = 0; i < v->info->cubes; i++)
    any = any || v->checksum[i] != 0;
  FN_CHECK(any, FN_ERR_CONFIG, "%s holds no checksums: name the folder of its raw cubes",
           v->job->path);
  FN_TRY(fn_cube_rounds(dist, "cubes", v->items, verify_cube, v, ticker));
  FN_TRY(fn_dist_sum(dist, &v->findings[0].cells, FINDING * v->items));
  return judge(v, figures);
}

fn_status fn_cube_verify(const fn_dist *dist, const fn_verify_job *job, const fn_ticker *ticker,
                         fn_verify_figures *figures) {
  verifying v = {.dist = dist, .job = job};
  *figures = (fn_verify_figures){0};
  const fn_status status = verify(&v, ticker, figures);
  fn_cube_file_close(v.file);
  free(v.source);
  free(v.checksum);
  free(v.findings);
  free(v.raw);
  free(v.wanted);
  free(v.found);
  return status;
}
