/* Metadata of prepared cube files: both layouts recognised by content and checked. */
#include "field/cube_file.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/text.h"
#include "field/array.h"
#include "field/cube_read.h"

enum { CUBE_DIMS = 4, NEWEST_VERSION = 1 };

/** What describes one dataset. */
typedef struct layout {
  int ndim;
  int64_t dim[CUBE_DIMS];
  char stored[16];  // name of the type
  fn_raw_type type; // of the cells in memory
  bool converted;   // from another one
  int64_t offset;   // of contiguous cells as they are in memory, or -1
  int64_t chunk[CUBE_DIMS];
  char filter[64];
} layout;

/** A file while its metadata are read. */
typedef struct reading {
  fn_cube_file *file;
  fn_cube *cube; // by order of the file, sorted at the end
  int64_t capacity;
  hid_t id;         // of the file
  fn_text others;   // names of datasets that are no cubes
  fn_status status; // of the walk over names
  bool several_types;
} reading;

/* ---- one dataset ------------------------------------------------------------------------------
 */

/** "gzip", "shuffle+gzip", ... FN_ERR_DATA when a filter is not there to undo it. */
static fn_status describe_filters(const char *path, const char *name, hid_t create, layout *l) {
  const int count = H5Pget_nfilters(create);
  size_t used = 0;
  snprintf(l->filter, sizeof l->filter, "none");
  for (int i = 0; i < count && used < sizeof l->filter; i++) {
    unsigned flags, config;
    size_t values = 0;
    char text[64] = "";
    const H5Z_filter_t id =
        H5Pget_filter2(create, (unsigned)i, &flags, &values, NULL, sizeof text, text, &config);
    const char *shown = id == H5Z_FILTER_DEFLATE      ? "gzip"
                        : id == H5Z_FILTER_SHUFFLE    ? "shuffle"
                        : id == H5Z_FILTER_FLETCHER32 ? "fletcher32"
                        : id == H5Z_FILTER_SZIP       ? "szip"
                                                      : text;
    FN_CHECK(H5Zfilter_avail(id) > 0, FN_ERR_DATA,
             "%s:/%s is compressed with filter %d (%s), which this HDF5 library does not have",
             path, name, (int)id, shown);
    used +=
        (size_t)snprintf(l->filter + used, sizeof l->filter - used, "%s%s", i ? "+" : "", shown);
  }
  return FN_OK;
}

/** Datasets that are created and never written read as zeros: find them here. */
static fn_status check_written(const char *path, const char *name, hid_t dataset, hid_t space,
                               const layout *l) {
  H5D_space_status_t allocated = H5D_SPACE_STATUS_ALLOCATED;
  H5Dget_space_status(dataset, &allocated);
  FN_CHECK(allocated != H5D_SPACE_STATUS_NOT_ALLOCATED, FN_ERR_DATA,
           "%s:/%s was created but never written", path, name);
  if (l->chunk[0] == 0) return FN_OK;
#if H5_VERSION_GE(1, 10, 5)
  hsize_t found = 0, expected = 1;
  for (int i = 0; i < l->ndim; i++)
    expected *= (hsize_t)((l->dim[i] + l->chunk[i] - 1) / l->chunk[i]);
  FN_CHECK(H5Dget_num_chunks(dataset, space, &found) < 0 || found >= expected, FN_ERR_DATA,
           "%s:/%s holds %llu of its %llu chunks: not all of it was written", path, name,
           (unsigned long long)found, (unsigned long long)expected);
#else
  (void)space;
#endif
  return FN_OK;
}

static fn_status describe_storage(const char *path, const char *name, hid_t dataset, hid_t type,
                                  hid_t create, layout *l) {
  hsize_t chunk[H5S_MAX_RANK];
  const H5D_layout_t stored = H5Pget_layout(create);
  FN_TRY(describe_filters(path, name, create, l));
  l->offset = -1;
  if (stored == H5D_CHUNKED && H5Pget_chunk(create, H5S_MAX_RANK, chunk) == l->ndim)
    for (int i = 0; i < l->ndim; i++)
      l->chunk[i] = (int64_t)chunk[i];
  if (stored == H5D_CONTIGUOUS && H5Pget_external_count(create) == 0 &&
      fn_hdf5_raw(type) == l->type &&
      (H5Tget_size(type) == 1 || H5Tget_order(type) == H5T_ORDER_LE)) {
    const haddr_t offset = H5Dget_offset(dataset);
    if (offset != HADDR_UNDEF) l->offset = (int64_t)offset;
  }
  return FN_OK;
}

/** Shape, type and storage of a dataset of `ndim` axes of numbers. */
static fn_status describe_open(const char *path, const char *name, int ndim, hid_t dataset,
                               hid_t type, hid_t space, hid_t create, layout *l) {
  hsize_t dim[H5S_MAX_RANK];
  char text[128];
  FN_CHECK(type >= 0 && space >= 0 && create >= 0, FN_ERR_DATA, "%s:/%s cannot be read", path,
           name);
  fn_hdf5_type_name(type, text, sizeof text);
  const H5T_class_t class = H5Tget_class(type);
  FN_CHECK(class == H5T_FLOAT || class == H5T_INTEGER, FN_ERR_DATA,
           "%s:/%s: expected numbers, found type %s", path, name, text);
  const int found = H5Sget_simple_extent_ndims(space);
  FN_CHECK(found == ndim && H5Sget_simple_extent_dims(space, dim, NULL) == ndim, FN_ERR_DATA,
           "%s:/%s: expected %d axes, %s, found %d", path, name, ndim,
           ndim == 3 ? "[D, H, W]" : "[cube, D, H, W]", found);
  *l = (layout){.ndim = ndim, .type = fn_hdf5_raw(type)};
  // Wider numbers are rounded when they are read: more bytes bring a network nothing.
  if (l->type == FN_RAW_NONE || fn_raw_bytes(l->type) > sizeof(float)) l->type = FN_RAW_F32;
  l->converted = l->type != fn_hdf5_raw(type);
  fn_hdf5_type_name(type, l->stored, sizeof l->stored);
  for (int i = 0; i < ndim; i++)
    l->dim[i] = (int64_t)dim[i];
  int64_t bytes;
  FN_CHECK(fn_dims_bytes(ndim, l->dim, (int64_t)sizeof(float), &bytes) && bytes > 0, FN_ERR_DATA,
           "%s:/%s: shape %s holds no cells or too many", path, name,
           fn_dims_text(ndim, l->dim, text, sizeof text));
  FN_TRY(describe_storage(path, name, dataset, type, create, l));
  return check_written(path, name, dataset, space, l);
}

static fn_status describe(const reading *r, const char *name, int ndim, layout *l) {
  const char *path = r->file->info.path;
  char why[512];
  const hid_t dataset = H5Dopen2(r->id, name, H5P_DEFAULT);
  FN_CHECK(dataset >= 0, FN_ERR_DATA, "cannot open dataset %s:/%s: %s", path, name,
           fn_hdf5_reason(why, sizeof why));
  const hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset),
              create = H5Dget_create_plist(dataset);
  const fn_status status = describe_open(path, name, ndim, dataset, type, space, create, l);
  if (type >= 0) H5Tclose(type);
  if (space >= 0) H5Sclose(space);
  if (create >= 0) H5Pclose(create);
  H5Dclose(dataset);
  return status;
}

/** The bytes of a contiguous dataset lie inside the file; HDF5 says so of the file as a whole only.
 */
static fn_status check_inside(const fn_cube_file *file, const char *name, int64_t offset,
                              int64_t cells) {
  const int64_t end = offset + cells * (int64_t)fn_raw_bytes(file->info.type);
  FN_CHECK(offset < 0 || end <= file->bytes, FN_ERR_DATA,
           "%s:/%s ends at byte %lld, the file at byte %lld: it was cut short", file->info.path,
           name, (long long)end, (long long)file->bytes);
  return FN_OK;
}

/* ---- attributes --------------------------------------------------------------------------------
 */

/** A root attribute of one number; *value stays as it is when there is none. */
static fn_status read_number(const reading *r, const char *name, bool *found, double *value) {
  if (found) *found = false;
  if (H5Aexists(r->id, name) <= 0) return FN_OK;
  const hid_t attribute = H5Aopen(r->id, name, H5P_DEFAULT);
  const hid_t type = attribute >= 0 ? H5Aget_type(attribute) : -1;
  const hid_t space = attribute >= 0 ? H5Aget_space(attribute) : -1;
  const H5T_class_t class = type >= 0 ? H5Tget_class(type) : H5T_NO_CLASS;
  const bool good = space >= 0 && (class == H5T_FLOAT || class == H5T_INTEGER) &&
                    H5Sget_simple_extent_npoints(space) == 1 &&
                    H5Aread(attribute, H5T_NATIVE_DOUBLE, value) >= 0;
  if (type >= 0) H5Tclose(type);
  if (space >= 0) H5Sclose(space);
  if (attribute >= 0) H5Aclose(attribute);
  FN_CHECK(good, FN_ERR_DATA, "%s: attribute %s is not one number", r->file->info.path, name);
  if (found) *found = true;
  return FN_OK;
}

static fn_status read_attributes(const reading *r) {
  fn_cube_file_info *info = &r->file->info;
  double version = NEWEST_VERSION, complete = 1, removed = 0;
  bool has_mean, has_std;
  info->redshift = info->box = (double)NAN;
  FN_TRY(read_number(r, "version", NULL, &version));
  FN_CHECK(version <= NEWEST_VERSION, FN_ERR_DATA,
           "%s: version %g of cube files, this program knows up to %d", info->path, version,
           NEWEST_VERSION);
  FN_TRY(read_number(r, "complete", NULL, &complete));
  FN_CHECK(complete != 0, FN_ERR_DATA,
           "%s is incomplete: it is still being written, or writing was interrupted (start it "
           "again to go on)",
           info->path);
  FN_TRY(read_number(r, "mean", &has_mean, &info->mean));
  FN_TRY(read_number(r, "std", &has_std, &info->std));
  FN_TRY(read_number(r, "redshift", NULL, &info->redshift));
  FN_TRY(read_number(r, "box", NULL, &info->box));
  FN_TRY(read_number(r, "remove_mean", NULL, &removed));
  info->mean_removed = removed != 0;
  info->has_statistics = has_mean && has_std;
  FN_CHECK(!info->has_statistics || (isfinite(info->mean) && info->std > 0 && isfinite(info->std)),
           FN_ERR_DATA, "%s: statistics mean %g, std %g make no sense", info->path, info->mean,
           info->std);
  return FN_OK;
}

static void set_type(fn_cube_file *file, const layout *l) {
  file->info.type = l->type;
  file->info.converted = l->converted;
  memcpy(file->info.stored, l->stored, sizeof l->stored);
}

/* ---- the packed layout -------------------------------------------------------------------------
 */

/** The `count` integers of a dataset beside the cubes, as int64. */
static fn_status read_integers(const reading *r, const char *name, int64_t count, int64_t *values) {
  const char *path = r->file->info.path;
  const hid_t dataset = H5Dopen2(r->id, name, H5P_DEFAULT);
  FN_CHECK(dataset >= 0, FN_ERR_DATA,
           "%s holds a dataset cubes but no dataset %s beside it; cubes without labels can be "
           "predicted only (data.cubes.predict)",
           path, name);
  const hid_t type = H5Dget_type(dataset), space = H5Dget_space(dataset);
  const bool integer = type >= 0 && H5Tget_class(type) == H5T_INTEGER;
  const int64_t found = space >= 0 ? (int64_t)H5Sget_simple_extent_npoints(space) : -1;
  const bool read = integer && found == count &&
                    H5Dread(dataset, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
  char why[512];
  if (!read) fn_hdf5_reason(why, sizeof why);
  if (type >= 0) H5Tclose(type);
  if (space >= 0) H5Sclose(space);
  H5Dclose(dataset);
  FN_CHECK(integer && found == count, FN_ERR_DATA,
           "%s:/%s: expected %lld integers, one per cube, found %lld %s", path, name,
           (long long)count, (long long)found, integer ? "of them" : "values of another type");
  FN_CHECK(read, FN_ERR_DATA, "cannot read %s:/%s: %s", path, name, why);
  return FN_OK;
}

static fn_status fill_rows(reading *r, const layout *l, const int64_t *seed,
                           const int64_t *theory) {
  fn_cube_file *file = r->file;
  const bool labelled = !file->info.unlabelled;
  const int64_t bytes = fn_cube_file_bytes(file);
  for (int64_t row = 0; row < file->info.cubes; row++) {
    const int64_t label = labelled ? theory[row] : FN_UNLABELLED;
    FN_CHECK(!labelled || label == FN_GR || label == FN_NEWTON, FN_ERR_DATA,
             "%s:/theory[%lld] is %lld, expected 0 (Newton) or 1 (GR)", file->info.path,
             (long long)row, (long long)label);
    r->cube[row] =
        (fn_cube){.seed = seed[row],
                  .theory = (int)label,
                  .row = row,
                  .offset = l->offset < 0 ? -1 : l->offset + row * bytes,
                  .name = labelled ? fn_cube_make_name(file->arena, seed[row], (int)label)
                                   : fn_arena_format(file->arena, "cubes[%lld]", (long long)row)};
  }
  return check_inside(file, "cubes", l->offset, file->info.cubes * file->cells);
}

/** What stands beside the rows. Cubes without labels have none, and perhaps no seeds. */
static fn_status read_keys(const reading *r, int64_t *seed, int64_t *theory) {
  const int64_t cubes = r->file->info.cubes;
  const bool unlabelled = r->file->info.unlabelled;
  if (unlabelled && H5Lexists(r->id, "seed", H5P_DEFAULT) <= 0)
    for (int64_t i = 0; i < cubes; i++)
      seed[i] = -1;
  else
    FN_TRY(read_integers(r, "seed", cubes, seed));
  return unlabelled ? FN_OK : read_integers(r, "theory", cubes, theory);
}

static fn_status read_packed(reading *r) {
  fn_cube_file *file = r->file;
  layout l;
  FN_TRY(describe(r, "cubes", 4, &l));
  file->info.packed = true;
  file->info.cubes = l.dim[0];
  set_type(file, &l);
  file->cells = l.dim[1] * l.dim[2] * l.dim[3];
  for (int i = 0; i < 3; i++)
    file->info.size[i] = l.dim[i + 1];
  for (int i = 0; i < 4; i++)
    file->info.chunk[i] = l.chunk[i];
  file->info.filter = fn_arena_text(file->arena, l.filter);
  const size_t count = (size_t)file->info.cubes;
  r->cube = fn_arena_take(file->arena, count * sizeof *r->cube);
  int64_t *seed = calloc(2 * count, sizeof *seed), *theory = seed + count;
  FN_CHECK(seed, FN_ERR_MEMORY, "out of memory opening %s", file->info.path);
  fn_status status = read_keys(r, seed, theory);
  if (status == FN_OK) status = fill_rows(r, &l, seed, theory);
  free(seed);
  return status;
}

/* ---- the original layout -----------------------------------------------------------------------
 */

/** Seed and theory of "gr_seed0007" or "newton_seed0007"; false when it is another name. */
static bool parse_name(const char *name, int64_t *seed, int *theory) {
  const char *digits = NULL;
  if (fn_text_starts(name, "gr_seed")) {
    *theory = FN_GR;
    digits = name + 7;
  } else if (fn_text_starts(name, "newton_seed")) {
    *theory = FN_NEWTON;
    digits = name + 11;
  }
  if (!digits || !*digits || strlen(digits) > 18) return false;
  *seed = 0;
  for (; isdigit((unsigned char)*digits); digits++)
    *seed = 10 * *seed + (*digits - '0');
  return *digits == '\0';
}

static void add_cube(reading *r, fn_cube cube) {
  if (r->file->info.cubes == r->capacity) {
    r->capacity = r->capacity ? 2 * r->capacity : 256;
    fn_cube *grown = fn_arena_take(r->file->arena, (size_t)r->capacity * sizeof *grown);
    if (r->file->info.cubes) memcpy(grown, r->cube, (size_t)r->file->info.cubes * sizeof *grown);
    r->cube = grown;
  }
  r->cube[r->file->info.cubes++] = cube;
}

static herr_t note_name(hid_t group, const char *name, const H5L_info_t *link, void *user) {
  (void)group;
  (void)link;
  reading *r = user;
  fn_cube cube = {.row = -1, .offset = -1};
  if (parse_name(name, &cube.seed, &cube.theory)) {
    cube.name = fn_arena_text(r->file->arena, name);
    add_cube(r, cube);
  } else if (fn_text_starts(name, "gr_seed") || fn_text_starts(name, "newton_seed")) {
    r->status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__,
                             "%s:/%s: expected a name like gr_seed0007 or newton_seed0007",
                             r->file->info.path, name);
    return -1;
  } else if (r->others.length < 200) {
    fn_text_add(&r->others, "%s/%s", r->others.length ? ", " : "", name);
  }
  return 0;
}

/** Whether `name` is a dataset of three axes. */
static bool is_block(hid_t group, const char *name) {
  const hid_t object = H5Oopen(group, name, H5P_DEFAULT);
  const hid_t space = object >= 0 && H5Iget_type(object) == H5I_DATASET ? H5Dget_space(object) : -1;
  const bool block = space >= 0 && H5Sget_simple_extent_ndims(space) == 3;
  if (space >= 0) H5Sclose(space);
  if (object >= 0) H5Oclose(object);
  return block;
}

/** As note_name(), for cubes under any names. */
static herr_t note_any_name(hid_t group, const char *name, const H5L_info_t *link, void *user) {
  (void)link;
  reading *r = user;
  if (is_block(group, name)) {
    fn_cube cube = {.row = -1, .offset = -1, .name = fn_arena_text(r->file->arena, name)};
    int theory;
    if (!parse_name(name, &cube.seed, &theory)) cube.seed = -1;
    cube.theory = FN_UNLABELLED;
    add_cube(r, cube);
  } else if (r->others.length < 200) {
    fn_text_add(&r->others, "%s/%s", r->others.length ? ", " : "", name);
  }
  return 0;
}

static fn_status list_cubes(reading *r) {
  const char *path = r->file->info.path;
  const bool unlabelled = r->file->info.unlabelled;
  char why[512];
  if (H5Literate(r->id, H5_INDEX_NAME, unlabelled ? H5_ITER_INC : H5_ITER_NATIVE, NULL,
                 unlabelled ? note_any_name : note_name, r) < 0) {
    FN_TRY(r->status);
    FN_FAIL(FN_ERR_DATA, "cannot list the datasets of %s: %s", path,
            fn_hdf5_reason(why, sizeof why));
  }
  FN_CHECK(r->file->info.cubes > 0, FN_ERR_DATA,
           "%s is no file of cubes: expected a dataset cubes, or datasets %s; it holds %s", path,
           unlabelled ? "[D, H, W]" : "gr_seed0000, newton_seed0000, ...",
           r->others.length ? r->others.data : "nothing");
  return FN_OK;
}

static fn_status describe_cube(reading *r, fn_cube *cube, bool first) {
  fn_cube_file *file = r->file;
  layout l;
  char here[64], there[64];
  FN_TRY(describe(r, cube->name, 3, &l));
  if (first) {
    for (int i = 0; i < 3; i++)
      file->info.size[i] = l.dim[i];
    file->cells = l.dim[0] * l.dim[1] * l.dim[2];
    file->info.filter = fn_arena_text(file->arena, l.filter);
    set_type(file, &l);
  } else if (strcmp(file->info.stored, l.stored) != 0 || file->info.type != l.type) {
    r->several_types |= file->info.type != l.type;
    file->info.converted |= l.converted || r->several_types;
    snprintf(file->info.stored, sizeof file->info.stored, "several");
  }
  const int64_t *size = file->info.size;
  FN_CHECK(l.dim[0] == size[0] && l.dim[1] == size[1] && l.dim[2] == size[2], FN_ERR_DATA,
           "%s:/%s has shape %s, %s has %s", file->info.path, cube->name,
           fn_dims_text(3, l.dim, here, sizeof here), r->cube[0].name,
           fn_dims_text(3, size, there, sizeof there));
  cube->offset = l.offset;
  if (r->several_types) return FN_OK;
  return check_inside(file, cube->name, l.offset, file->cells);
}

static fn_status read_original(reading *r) {
  FN_TRY(list_cubes(r));
  for (int64_t i = 0; i < r->file->info.cubes; i++)
    FN_TRY(describe_cube(r, &r->cube[i], i == 0));
  if (!r->several_types) return FN_OK;
  // One type for all in memory, to which HDF5 converts.
  r->file->info.type = FN_RAW_F32;
  for (int64_t i = 0; i < r->file->info.cubes; i++)
    r->cube[i].offset = -1;
  return FN_OK;
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

const char *fn_cube_make_name(fn_arena *arena, int64_t seed, int theory) {
  return fn_arena_format(arena, "%s_seed%04lld", theory == FN_GR ? "gr" : "newton",
                         (long long)seed);
}

static int by_seed(const void *a, const void *b) {
  const fn_cube *x = a, *y = b;
  if (x->seed != y->seed) return x->seed < y->seed ? -1 : 1;
  return y->theory - x->theory; // GR before Newton
}

static fn_status finish(reading *r) {
  fn_cube_file_info *info = &r->file->info;
  if (!info->unlabelled) qsort(r->cube, (size_t)info->cubes, sizeof *r->cube, by_seed);
  info->direct = true;
  for (int64_t i = 0; i < info->cubes; i++) {
    const fn_cube *cube = &r->cube[i];
    info->direct = info->direct && cube->offset >= 0;
    FN_CHECK(info->unlabelled || i == 0 || by_seed(cube - 1, cube) != 0, FN_ERR_DATA,
             "%s holds the %s cube of seed %lld twice (%s and %s)", info->path,
             cube->theory == FN_GR ? "GR" : "Newton", (long long)cube->seed, cube[-1].name,
             cube->name);
  }
  info->cube = r->cube;
  return FN_OK;
}

static fn_status read_all(reading *r) {
  FN_TRY(fn_hdf5_open_file(r->file->info.path, &r->id));
  struct stat status;
  if (stat(r->file->info.path, &status) == 0) r->file->bytes = status.st_size;
  FN_TRY(read_attributes(r));
  if (H5Lexists(r->id, "cubes", H5P_DEFAULT) > 0) {
    FN_TRY(read_packed(r));
  } else {
    FN_TRY(read_original(r));
  }
  return finish(r);
}

fn_cube_file *fn_cube_file_new(const char *path) {
  fn_cube_file *file = calloc(1, sizeof *file);
  if (!file) return NULL;
  file->fd = -1;
  file->hdf5 = file->dataset = -1;
  file->info.filter = "none";
  pthread_mutex_init(&file->lock, NULL);
  file->arena = fn_arena_create();
  if (!file->arena) {
    fn_cube_file_close(file);
    return NULL;
  }
  file->info.path = fn_arena_text(file->arena, path);
  return file;
}

static fn_status open_file(const char *path, bool unlabelled, fn_cube_file **file) {
  *file = NULL;
  reading r = {.id = -1, .file = fn_cube_file_new(path)};
  FN_CHECK(r.file, FN_ERR_MEMORY, "out of memory opening %s", path);
  r.file->info.unlabelled = unlabelled;
  fn_hdf5_lock();
  const fn_status status = read_all(&r);
  if (r.id >= 0) H5Fclose(r.id);
  fn_hdf5_unlock();
  fn_text_free(&r.others);
  if (status == FN_OK) {
    *file = r.file;
  } else {
    fn_cube_file_close(r.file);
  }
  return status;
}

fn_status fn_cube_file_open(const char *path, fn_cube_file **file) {
  return open_file(path, false, file);
}

fn_status fn_cube_file_open_unlabelled(const char *path, fn_cube_file **file) {
  return open_file(path, true, file);
}

const fn_cube_file_info *fn_cube_file_get_info(const fn_cube_file *file) {
  return &file->info;
}

int64_t fn_cube_file_find(const fn_cube_file *file, int64_t seed, int theory) {
  const fn_cube wanted = {.seed = seed, .theory = theory};
  const fn_cube *found =
      bsearch(&wanted, file->info.cube, (size_t)file->info.cubes, sizeof *file->info.cube, by_seed);
  return found ? found - file->info.cube : -1;
}
