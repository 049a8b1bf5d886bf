/* Prepared files of cubes: made with room for all, filled at known places, completed. */
#include "data/cube_write.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "base/system.h"
#include "field/hdf5.h"
#include "field/safe_write.h"

/* ---- attributes --------------------------------------------------------------------------------
 */

/** Write an attribute, made if need be. Only values change when it is there already, so a file in
 *  which this is interrupted stays readable. */
static bool put_attribute(hid_t object, const char *name, hid_t type, int count,
                          const void *value) {
  hid_t attribute = -1;
  if (H5Aexists(object, name) > 0) {
    attribute = H5Aopen(object, name, H5P_DEFAULT);
  } else {
    const hsize_t dim = (hsize_t)count;
    const hid_t space = count > 1 ? H5Screate_simple(1, &dim, NULL) : H5Screate(H5S_SCALAR);
    attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    H5Sclose(space);
  }
  const bool good = attribute >= 0 && H5Awrite(attribute, type, value) >= 0;
  if (attribute >= 0) H5Aclose(attribute);
  return good;
}

static bool put_text(hid_t object, const char *name, const char *text) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, strlen(text) + 1);
  const bool good = put_attribute(object, name, type, 1, text);
  H5Tclose(type);
  return good;
}

static bool put_real(hid_t object, const char *name, double value) {
  return isnan(value) || put_attribute(object, name, H5T_NATIVE_DOUBLE, 1, &value);
}

static bool put_attributes(const fn_cube_plan *p, hid_t file) {
  const int version = 1, complete = 0, removed = p->remove_mean;
  bool good = put_text(file, "layout", p->packed ? "packed" : "original") &&
              put_attribute(file, "version", H5T_NATIVE_INT, 1, &version) &&
              put_attribute(file, "complete", H5T_NATIVE_INT, 1, &complete) &&
              put_attribute(file, "remove_mean", H5T_NATIVE_INT, 1, &removed) &&
              put_real(file, "box", p->box) && put_real(file, "A_s", p->amplitude) &&
              put_text(file, "origin", p->origin);
  if (good && p->has_statistics)
    good = put_real(file, "mean", p->mean) && put_real(file, "std", p->std) &&
           put_real(file, "variance", p->variance);
  if (good && p->has_statistics && p->statistics)
    good = put_text(file, "statistics_seeds", p->statistics);
  if (good && p->growth[0] > 0)
    good = put_attribute(file, "growth", H5T_NATIVE_DOUBLE, 2, p->growth) &&
           put_attribute(file, "difference_redshift", H5T_NATIVE_DOUBLE, 2, p->redshift);
  else if (good)
    good = put_real(file, "redshift", p->redshift[0]);
  return good;
}

/* ---- datasets ----------------------------------------------------------------------------------
 */

/** A dataset whose room in the file is taken now, without being written. */
static bool make_dataset(hid_t file, const char *name, hid_t type, int ndim, const hsize_t *dim,
                         const hsize_t *chunk, int compress, hid_t *made) {
  const hid_t space = H5Screate_simple(ndim, dim, NULL), create = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_alloc_time(create, compress ? H5D_ALLOC_TIME_INCR : H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
  H5Pset_attr_phase_change(create, 64, 32);
  H5Pset_obj_track_times(create, false); // the same bytes whenever it is made
  if (chunk) H5Pset_chunk(create, ndim, chunk);
  if (compress) H5Pset_shuffle(create);
  if (compress) H5Pset_deflate(create, (unsigned)compress);
  *made = H5Dcreate2(file, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
  H5Pclose(create);
  H5Sclose(space);
  return *made >= 0;
}

static hid_t cell_type(const fn_cube_plan *plan) {
  return plan->item == 4 ? H5T_NATIVE_FLOAT : H5T_NATIVE_DOUBLE;
}

/** One value per cube. */
static bool make_column(hid_t file, const char *name, hid_t type, int64_t count,
                        const void *values) {
  hid_t set;
  const hsize_t dim = (hsize_t)count;
  if (!make_dataset(file, name, type, 1, &dim, NULL, 0, &set)) return false;
  const bool good = H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
  H5Dclose(set);
  return good;
}

static bool make_packed(const fn_cube_plan *p, hid_t file, hid_t *cubes) {
  const hsize_t dim[4] = {(hsize_t)p->cubes, (hsize_t)p->size[0], (hsize_t)p->size[1],
                          (hsize_t)p->size[2]};
  const hsize_t chunk[4] = {(hsize_t)p->chunk[0], (hsize_t)p->chunk[1], (hsize_t)p->chunk[2],
                            (hsize_t)p->chunk[3]};
  uint64_t *zeros = calloc((size_t)p->cubes, sizeof *zeros);
  const bool good = zeros && make_column(file, "seed", H5T_NATIVE_INT64, p->cubes, p->seed) &&
                    make_column(file, "theory", H5T_NATIVE_UINT8, p->cubes, p->theory) &&
                    make_column(file, "source_checksum", H5T_NATIVE_UINT64, p->cubes, zeros) &&
                    make_column(file, "checksum", H5T_NATIVE_UINT64, p->cubes, zeros) &&
                    make_dataset(file, "cubes", cell_type(p), 4, dim, p->chunk[0] ? chunk : NULL,
                                 p->compress, cubes);
  free(zeros);
  return good;
}

static bool make_original(const fn_cube_plan *p, hid_t file) {
  const hsize_t dim[3] = {(hsize_t)p->size[0], (hsize_t)p->size[1], (hsize_t)p->size[2]};
  const uint64_t zero = 0;
  for (int64_t i = 0; i < p->cubes; i++) {
    char name[64];
    hid_t set;
    fn_cube_name(p->seed[i], p->theory[i], name, sizeof name);
    if (!make_dataset(file, name, cell_type(p), 3, dim, NULL, 0, &set)) return false;
    const bool good = put_attribute(set, "source_checksum", H5T_NATIVE_UINT64, 1, &zero) &&
                      put_attribute(set, "checksum", H5T_NATIVE_UINT64, 1, &zero);
    H5Dclose(set);
    if (!good) return false;
  }
  return true;
}

/* ---- room on disk ------------------------------------------------------------------------------
 */

/** Take `bytes` on disk for the file. HDF5 must not meet a full disk, which it does not survive. */
static fn_status reserve(const char *path, int64_t bytes) {
  struct rlimit limit;
  char text[32];
  fn_text_bytes((double)bytes, text, sizeof text);
  FN_CHECK(getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
               (uint64_t)bytes <= limit.rlim_cur,
           FN_ERR_DATA, "no room for %s in %s: files may not be that large here (ulimit -f)", text,
           path);
  const int fd = open(path, O_RDWR | O_CLOEXEC);
  FN_CHECK(fd >= 0, FN_ERR_DATA, "cannot open %s: %s", path, strerror(errno));
  int failed, reason;
  do {
    failed = fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, bytes);
    reason = failed ? errno : 0;
  } while (reason == EINTR);
  close(fd);
  // Other reasons: a file system that cannot reserve.
  FN_CHECK(reason != ENOSPC && reason != EDQUOT && reason != EFBIG, FN_ERR_DATA,
           "no room for %s in %s: %s", text, path, strerror(reason));
  return FN_OK;
}

static hid_t write_access(void) {
  const hid_t access = fn_hdf5_read_access();
  H5Pset_alignment(access, 1 << 16, 4096); // pages of the cache, blocks of the disk
  return access;
}

/** An empty HDF5 file with room for `bytes`, opened. Lock held. */
static fn_status create_reserved(const char *path, int64_t bytes, hid_t *file) {
  hid_t image = -1;
  char reason[512] = "";
  *file = -1;
  FN_TRY(fn_hdf5_image_create(0, &image));
  fn_status status = fn_hdf5_image_write(image, path, false);
  H5Fclose(image);
  FN_TRY(status);
  FN_TRY(reserve(path, bytes));
  const hid_t access = write_access();
  *file = H5Fopen(path, H5F_ACC_RDWR, access);
  if (*file < 0) fn_hdf5_reason(reason, sizeof reason);
  H5Pclose(access);
  FN_CHECK(*file >= 0, FN_ERR_DATA, "cannot make %s: %s", path, reason);
  return FN_OK;
}

/** Upper bound of what describes the cubes, in bytes. */
static int64_t metadata_bytes(const fn_cube_plan *plan) {
  int64_t number[3];
  const int64_t chunks = plan->cubes * fn_cube_chunks(plan, number);
  return (1 << 20) + 8192 * plan->cubes + (plan->chunk[0] ? 256 * chunks : 0);
}

static int64_t chunk_bytes(const fn_cube_plan *plan) {
  if (plan->chunk[0] == 0) return plan->size[0] * plan->size[1] * plan->size[2] * plan->item;
  return plan->chunk[0] * plan->chunk[1] * plan->chunk[2] * plan->chunk[3] * plan->item;
}

static int64_t rows_of_chunks(const fn_cube_plan *plan) {
  return plan->chunk[0] ? (plan->cubes + plan->chunk[0] - 1) / plan->chunk[0] : plan->cubes;
}

int64_t fn_cube_place_count(const fn_cube_plan *plan) {
  int64_t number[3];
  return plan->compress ? 0 : rows_of_chunks(plan) * fn_cube_chunks(plan, number);
}

static fn_status failed(const char *doing, const char *path) {
  char reason[512];
  return fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot %s %s: %s", doing, path,
                      fn_hdf5_reason(reason, sizeof reason));
}

/** Close, with what that says; flushed to disk. */
static fn_status close_written(hid_t file, const char *path, fn_status status) {
  if (file >= 0 && H5Fclose(file) < 0 && status == FN_OK) status = failed("write", path);
  return status == FN_OK ? fn_file_sync(path) : status;
}

static fn_status make_file(const fn_cube_plan *plan, const char *path) {
  hid_t file, cubes = -1;
  const int64_t bytes = fn_cube_place_count(plan) * (chunk_bytes(plan) + 4096);
  fn_hdf5_lock();
  fn_status status = create_reserved(path, bytes + metadata_bytes(plan), &file);
  if (status == FN_OK &&
      !(put_attributes(plan, file) &&
        (plan->packed ? make_packed(plan, file, &cubes) : make_original(plan, file))))
    status = failed("make", path);
  if (cubes >= 0) H5Dclose(cubes);
  status = close_written(file, path, status);
  fn_hdf5_unlock();
  return status;
}

static void new_name(const char *path, char *name, size_t size) {
  snprintf(name, size, "%s.new", path);
}

fn_status fn_cube_file_create(const fn_cube_plan *plan, const char *path) {
  char made[4200];
  new_name(path, made, sizeof made);
  if (plan->compress) {
    snprintf(made, sizeof made, "%s.parts", path);
    const fn_status status = fn_make_directories(made);
    return status == FN_OK ? FN_OK : FN_ERR_DATA;
  }
  const fn_status status = make_file(plan, made);
  if (status != FN_OK) unlink(made);
  return status == FN_OK ? fn_commit_file(made, path) : status;
}

/* ---- places ------------------------------------------------------------------------------------
 */

static bool fits(hid_t set, int ndim, const hsize_t *dim, int item) {
  hsize_t found[H5S_MAX_RANK] = {0};
  const hid_t space = H5Dget_space(set), type = H5Dget_type(set);
  bool good = H5Sget_simple_extent_ndims(space) == ndim && H5Tget_size(type) == (size_t)item;
  if (good) H5Sget_simple_extent_dims(space, found, NULL);
  for (int i = 0; i < ndim; i++)
    good = good && found[i] == dim[i];
  H5Sclose(space);
  H5Tclose(type);
  return good;
}

static bool original_places(const fn_cube_plan *p, hid_t file, int64_t *places) {
  const hsize_t dim[3] = {(hsize_t)p->size[0], (hsize_t)p->size[1], (hsize_t)p->size[2]};
  for (int64_t i = 0; i < p->cubes; i++) {
    char name[64];
    fn_cube_name(p->seed[i], p->theory[i], name, sizeof name);
    const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    if (set < 0) return false;
    const haddr_t at = H5Dget_offset(set);
    const bool good = fits(set, 3, dim, p->item) && at != HADDR_UNDEF;
    places[i] = (int64_t)at;
    H5Dclose(set);
    if (!good) return false;
  }
  return true;
}

static bool chunk_places(const fn_cube_plan *p, hid_t set, int64_t *places) {
  int64_t number[3];
  const int64_t chunks = fn_cube_chunks(p, number), rows = rows_of_chunks(p);
  for (int64_t row = 0; row < rows; row++) {
    for (int64_t i = 0; i < chunks; i++) {
      const hsize_t at[4] = {(hsize_t)(row * p->chunk[0]),
                             (hsize_t)(i / number[2] / number[1] * p->chunk[1]),
                             (hsize_t)(i / number[2] % number[1] * p->chunk[2]),
                             (hsize_t)(i % number[2] * p->chunk[3])};
      unsigned mask = 0;
      haddr_t address = HADDR_UNDEF;
      hsize_t bytes = 0;
      if (H5Dget_chunk_info_by_coord(set, at, &mask, &address, &bytes) < 0 ||
          address == HADDR_UNDEF || bytes != (hsize_t)chunk_bytes(p))
        return false;
      places[row * chunks + i] = (int64_t)address;
    }
  }
  return true;
}

static bool packed_places(const fn_cube_plan *p, hid_t file, int64_t *places) {
  const hsize_t dim[4] = {(hsize_t)p->cubes, (hsize_t)p->size[0], (hsize_t)p->size[1],
                          (hsize_t)p->size[2]};
  const hid_t set = H5Dopen2(file, "cubes", H5P_DEFAULT);
  if (set < 0) return false;
  bool good = fits(set, 4, dim, p->item);
  if (good && p->chunk[0]) {
    good = chunk_places(p, set, places);
  } else if (good) {
    const haddr_t at = H5Dget_offset(set);
    good = at != HADDR_UNDEF;
    for (int64_t i = 0; i < p->cubes; i++)
      places[i] = (int64_t)at + i * chunk_bytes(p);
  }
  H5Dclose(set);
  return good;
}

fn_status fn_cube_places(const fn_cube_plan *plan, const char *path, int64_t *places) {
  if (plan->compress) return FN_OK;
  hid_t file = -1;
  fn_hdf5_lock();
  fn_status status = fn_hdf5_open_file(path, &file);
  if (status == FN_OK &&
      !(plan->packed ? packed_places(plan, file, places) : original_places(plan, file, places)))
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__,
                          "%s is not the file whose writing was begun: its datasets differ; "
                          "--force starts over",
                          path);
  if (file >= 0) H5Fclose(file);
  fn_hdf5_unlock();
  return status;
}

/* ---- cells -------------------------------------------------------------------------------------
 */

struct fn_cube_writer {
  const fn_cube_plan *plan;
  const int64_t *places;
  const char *path;
  int file;
  void *chunk; // cells of one cube in one chunk
  int64_t chunks, bytes, part;
};

fn_status fn_cube_writer_open(const fn_cube_plan *plan, const char *path, const int64_t *places,
                              fn_cube_writer **writer) {
  int64_t number[3];
  *writer = NULL;
  fn_cube_writer *w = calloc(1, sizeof *w);
  FN_CHECK(w, FN_ERR_MEMORY, "no memory");
  *w = (fn_cube_writer){.plan = plan, .path = path, .places = places, .file = -1};
  w->chunks = fn_cube_chunks(plan, number);
  w->bytes = plan->size[0] * plan->size[1] * plan->size[2] * plan->item;
  w->part = plan->chunk[0] ? chunk_bytes(plan) / plan->chunk[0] : w->bytes;
  w->chunk = malloc((size_t)w->part);
  fn_status status = FN_OK;
  if (!w->chunk) status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for a chunk");
  if (status == FN_OK && !plan->compress) {
    w->file = open(path, O_RDWR | O_CLOEXEC);
    if (w->file < 0)
      status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot open %s: %s", path,
                            strerror(errno));
  }
  if (status != FN_OK)
    fn_cube_writer_close(w);
  else
    *writer = w;
  return status;
}

void fn_cube_writer_close(fn_cube_writer *writer) {
  if (!writer) return;
  if (writer->file >= 0) close(writer->file);
  free(writer->chunk);
  free(writer);
}

/** Read or write all bytes at an offset. */
static fn_status transfer(const fn_cube_writer *w, bool writing, void *bytes, int64_t count,
                          int64_t offset) {
  for (char *at = bytes; count > 0;) {
    const size_t part = count < 1 << 30 ? (size_t)count : 1 << 30;
    const ssize_t done =
        writing ? pwrite(w->file, at, part, offset) : pread(w->file, at, part, offset);
    if (done < 0 && errno == EINTR) continue;
    FN_CHECK(done > 0, FN_ERR_DATA, "cannot %s %s: %s", writing ? "write" : "read", w->path,
             done < 0 ? strerror(errno) : "end of file");
    at += done;
    offset += done;
    count -= done;
  }
  return FN_OK;
}

static int64_t place_of(const fn_cube_writer *w, int64_t cube, int64_t chunk) {
  if (w->plan->chunk[0] == 0) return w->places[cube];
  const int64_t row = cube / w->plan->chunk[0], inside = cube % w->plan->chunk[0];
  return w->places[row * w->chunks + chunk] + inside * w->part;
}

fn_status fn_cube_writer_put(fn_cube_writer *writer, int64_t cube, const void *cells,
                             uint64_t *checksum) {
  *checksum = fn_hash_bytes(FN_HASH_START, cells, (size_t)writer->bytes);
  if (writer->plan->compress) return fn_cube_part_write(writer->plan, writer->path, cube, cells);
  if (writer->plan->chunk[0] == 0)
    return transfer(writer, true, (void *)cells, writer->bytes, place_of(writer, cube, 0));
  for (int64_t i = 0; i < writer->chunks; i++) {
    fn_cube_gather(writer->plan, cells, i, writer->chunk);
    FN_TRY(transfer(writer, true, writer->chunk, writer->part, place_of(writer, cube, i)));
  }
  return FN_OK;
}

fn_status fn_cube_writer_sync(fn_cube_writer *writer) {
  if (writer->file < 0) return FN_OK; // parts are joined before anything depends on them
  FN_CHECK(fsync(writer->file) == 0, FN_ERR_DATA, "cannot flush %s to disk: %s", writer->path,
           strerror(errno));
  return FN_OK;
}

fn_status fn_cube_writer_check(fn_cube_writer *w, int64_t cube, uint64_t checksum, bool *good) {
  *good = false;
  if (w->plan->compress) return fn_cube_part_check(w->path, cube, good);
  char *cells = malloc((size_t)w->bytes);
  FN_CHECK(cells, FN_ERR_MEMORY, "no memory for a cube");
  fn_status status = FN_OK;
  if (w->plan->chunk[0] == 0) {
    status = transfer(w, false, cells, w->bytes, place_of(w, cube, 0));
  } else {
    for (int64_t i = 0; i < w->chunks && status == FN_OK; i++) {
      status = transfer(w, false, w->chunk, w->part, place_of(w, cube, i));
      fn_cube_scatter(w->plan, w->chunk, i, cells);
    }
  }
  *good = status == FN_OK && fn_hash_bytes(FN_HASH_START, cells, (size_t)w->bytes) == checksum;
  free(cells);
  return status;
}

/* ---- completion --------------------------------------------------------------------------------
 */

/** Overwrite a column made before. */
static bool fill_column(hid_t file, const char *name, const uint64_t *values) {
  const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
  const bool good =
      set >= 0 && H5Dwrite(set, H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
  if (set >= 0) H5Dclose(set);
  return good;
}

static bool put_checksums(const fn_cube_plan *p, hid_t file, const uint64_t *source,
                          const uint64_t *checksum) {
  if (p->packed)
    return fill_column(file, "source_checksum", source) && fill_column(file, "checksum", checksum);
  for (int64_t i = 0; i < p->cubes; i++) {
    char name[64];
    fn_cube_name(p->seed[i], p->theory[i], name, sizeof name);
    const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    const bool good = set >= 0 &&
                      put_attribute(set, "source_checksum", H5T_NATIVE_UINT64, 1, &source[i]) &&
                      put_attribute(set, "checksum", H5T_NATIVE_UINT64, 1, &checksum[i]);
    if (set >= 0) H5Dclose(set);
    if (!good) return false;
  }
  return true;
}

/** Chunks of one part, as they are, into the dataset. */
static fn_status join_part(const fn_cube_plan *p, const char *path, int64_t cube, hid_t set) {
  char *bytes;
  const char *data;
  const int64_t *sizes;
  int64_t number[3];
  const int64_t chunks = fn_cube_chunks(p, number);
  FN_TRY(fn_cube_part_read(p, path, cube, &bytes, &sizes, &data));
  bool good = true;
  for (int64_t i = 0; i < chunks && good; i++) {
    const hsize_t at[4] = {(hsize_t)cube, (hsize_t)(i / number[2] / number[1] * p->chunk[1]),
                           (hsize_t)(i / number[2] % number[1] * p->chunk[2]),
                           (hsize_t)(i % number[2] * p->chunk[3])};
    good = H5Dwrite_chunk(set, H5P_DEFAULT, 0, at, (size_t)sizes[i], data) >= 0;
    data += sizes[i];
  }
  free(bytes);
  return good ? FN_OK : failed("write", path);
}

static fn_status join_parts(const fn_cube_plan *p, const char *path, const char *made,
                            const uint64_t *source, const uint64_t *checksum) {
  hid_t file = -1, set = -1;
  int64_t bytes, number[3];
  FN_TRY(fn_cube_parts_bytes(p, path, &bytes));
  // Alignment may cost each chunk a page.
  bytes += 4096 * p->cubes * fn_cube_chunks(p, number) + metadata_bytes(p);
  fn_hdf5_lock();
  fn_status status = create_reserved(made, bytes, &file);
  if (status == FN_OK && !(put_attributes(p, file) && make_packed(p, file, &set) &&
                           put_checksums(p, file, source, checksum)))
    status = failed("make", path);
  for (int64_t i = 0; i < p->cubes && status == FN_OK; i++)
    status = join_part(p, path, i, set);
  if (set >= 0) H5Dclose(set);
  status = close_written(file, made, status);
  fn_hdf5_unlock();
  return status;
}

/** Attributes and checksums, or the sign that all is there. Two steps: the sign must not reach the
 *  disk before the rest. */
static fn_status amend(const fn_cube_plan *p, const char *path, const uint64_t *source,
                       const uint64_t *checksum, int complete) {
  fn_hdf5_lock();
  const hid_t access = write_access(), file = H5Fopen(path, H5F_ACC_RDWR, access);
  fn_status status = FN_OK;
  const bool good =
      file >= 0 && (complete ? put_attribute(file, "complete", H5T_NATIVE_INT, 1, &complete)
                             : put_checksums(p, file, source, checksum));
  if (!good) status = failed("complete", path);
  status = close_written(file, path, status);
  H5Pclose(access);
  fn_hdf5_unlock();
  return status;
}

fn_status fn_cube_file_complete(const fn_cube_plan *plan, const char *path, const uint64_t *source,
                                const uint64_t *checksum) {
  if (!plan->compress) {
    FN_TRY(fn_file_sync(path)); // the cells
    FN_TRY(amend(plan, path, source, checksum, 0));
    return amend(plan, path, source, checksum, 1);
  }
  char made[4200];
  new_name(path, made, sizeof made);
  fn_status status = join_parts(plan, path, made, source, checksum);
  if (status == FN_OK) status = amend(plan, made, source, checksum, 1);
  if (status != FN_OK) unlink(made);
  return status == FN_OK ? fn_commit_file(made, path) : status;
}

void fn_cube_file_clean(const char *path) {
  char made[4200];
  new_name(path, made, sizeof made);
  unlink(made);
  fn_cube_parts_remove(path);
}
