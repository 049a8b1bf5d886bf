/* Cells of cube files, and their metadata as bytes. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "field/array.h"
#include "field/cube_read.h"

/** Bytes per system call: small enough that the check afterwards finds them in the cache of the
 *  core. From a disk large pieces, or telling the system the next cube (POSIX_FADV_WILLNEED), were
 *  no faster: it reads ahead by itself. */
enum { PIECE = 1 << 17 };

/* ---- checks ------------------------------------------------------------------------------------
 */

/* True when one of `count` numbers is infinite or not a number: all bits of the exponent set.
 * Without a way out of the loop, so that it becomes vector code. */
#define ANY_NOT_FINITE(name, bits_type)                                                            \
  static bool name(const char *cells, int64_t count, bits_type exponent) {                         \
    bits_type found = 0;                                                                           \
    for (int64_t i = 0; i < count; i++) {                                                          \
      bits_type bits;                                                                              \
      memcpy(&bits, cells + i * (int64_t)sizeof bits, sizeof bits);                                \
      found |= (bits & exponent) == exponent;                                                      \
    }                                                                                              \
    return found != 0;                                                                             \
  }
ANY_NOT_FINITE(any_not_finite_16, uint16_t)
ANY_NOT_FINITE(any_not_finite_32, uint32_t)

static bool any_not_finite(fn_raw_type type, const void *cells, int64_t count) {
  switch (type) {
    case FN_RAW_F32: return any_not_finite_32(cells, count, 0x7f800000u);
    case FN_RAW_F16: return any_not_finite_16(cells, count, 0x7c00u);
    case FN_RAW_BF16: return any_not_finite_16(cells, count, 0x7f80u);
    default: return false;
  }
}

int64_t fn_cube_file_bytes(const fn_cube_file *file) {
  return file->cells * (int64_t)fn_raw_bytes(file->info.type);
}

void fn_cube_file_widen(const fn_cube_file *file, const void *cells, int64_t count, float *out) {
  fn_convert_of_raw(file->info.type)(cells, count, out, 1);
}

fn_status fn_cube_check_cells(const fn_cube_file *file, int64_t cube, int64_t first,
                              const void *cells, int64_t count) {
  const fn_cube_file_info *info = &file->info;
  if (!any_not_finite(info->type, cells, count)) return FN_OK;
  float value = 0;
  int64_t i = -1;
  do
    fn_cube_file_widen(file, (const char *)cells + ++i * (int64_t)fn_raw_bytes(info->type), 1,
                       &value);
  while (isfinite(value));
  const int64_t cell = first + i, plane = info->size[1] * info->size[2];
  FN_FAIL(FN_ERR_DATA, "%s: cube %s is not finite: cell [%lld, %lld, %lld] is %g", info->path,
          info->cube[cube].name, (long long)(cell / plane),
          (long long)(cell / info->size[2] % info->size[1]), (long long)(cell % info->size[2]),
          (double)value);
}

/** Open the file once, for positioned reads and to ask for its length. */
static fn_status descriptor(fn_cube_file *file, int *fd) {
  pthread_mutex_lock(&file->lock);
  if (file->fd < 0) file->fd = open(file->info.path, O_RDONLY | O_CLOEXEC);
  const int error = errno;
  *fd = file->fd;
  pthread_mutex_unlock(&file->lock);
  FN_CHECK(*fd >= 0, FN_ERR_DATA, "cannot open %s: %s", file->info.path, strerror(error));
  return FN_OK;
}

fn_status fn_cube_check_length(fn_cube_file *file) {
  int fd;
  struct stat now;
  FN_TRY(descriptor(file, &fd));
  FN_CHECK(fstat(fd, &now) == 0, FN_ERR_DATA, "cannot read %s: %s", file->info.path,
           strerror(errno));
  FN_CHECK(now.st_size >= file->bytes, FN_ERR_DATA,
           "%s: truncated while open: expected %lld bytes, found %lld", file->info.path,
           (long long)file->bytes, (long long)now.st_size);
  return FN_OK;
}

/* ---- positioned reads --------------------------------------------------------------------------
 */

static fn_status read_piece(const fn_cube_file *file, int fd, int64_t cube, int64_t offset,
                            char *bytes, size_t count) {
  while (count > 0) {
    const ssize_t done = pread(fd, bytes, count, offset);
    if (done < 0 && errno == EINTR) continue;
    FN_CHECK(done >= 0, FN_ERR_DATA, "cannot read cube %s of %s: %s", file->info.cube[cube].name,
             file->info.path, strerror(errno));
    FN_CHECK(done > 0, FN_ERR_DATA,
             "%s: truncated while open: cube %s needs %zu bytes at byte %lld", file->info.path,
             file->info.cube[cube].name, count, (long long)offset);
    bytes += done;
    offset += done;
    count -= (size_t)done;
  }
  return FN_OK;
}

fn_status fn_cube_read_direct(fn_cube_file *file, int64_t cube, void *cells) {
  const int64_t offset = file->info.cube[cube].offset, total = fn_cube_file_bytes(file);
  const int64_t item = (int64_t)fn_raw_bytes(file->info.type);
  int fd;
  FN_CHECK(offset >= 0, FN_ERR_INTERNAL, "cube %s of %s has no place of its own in the file",
           file->info.cube[cube].name, file->info.path);
  FN_TRY(descriptor(file, &fd));
  for (int64_t at = 0; at < total; at += PIECE) {
    const int64_t count = total - at < PIECE ? total - at : PIECE;
    char *piece = (char *)cells + at;
    FN_TRY(read_piece(file, fd, cube, offset + at, piece, (size_t)count));
    FN_TRY(fn_cube_check_cells(file, cube, at / item, piece, count / item));
  }
  return FN_OK;
}

/* ---- through HDF5 ------------------------------------------------------------------------------
 */

hid_t fn_cube_dataset_access(const fn_cube_file_info *info) {
  const hid_t access = H5Pcreate(H5P_DATASET_ACCESS);
  if (!info->packed || info->chunk[0] == 0) return access;
  // Cubes are read whole: a chunk is wanted once, and a cache would only copy it, unless it holds
  // parts of several cubes. Then all chunks of such a group of cubes should stay.
  size_t bytes = 0;
  if (info->chunk[0] > 1) {
    const size_t most = (size_t)256 << 20;
    bytes = sizeof(double) * (size_t)info->chunk[0];
    for (int i = 1; i < 4; i++) {
      const int64_t chunk = info->chunk[i], size = info->size[i - 1];
      bytes *= (size_t)((size + chunk - 1) / chunk * chunk);
    }
    if (bytes > most) bytes = most;
  }
  H5Pset_chunk_cache(access, 12421, bytes, 1);
  return access;
}

hid_t fn_cube_memory_type(const fn_cube_file_info *info, hid_t dataset) {
  if (info->type == FN_RAW_F32) return H5Tcopy(H5T_NATIVE_FLOAT);
  const hid_t stored = H5Dget_type(dataset), type = H5Tcopy(stored);
  H5Tclose(stored);
  if (type >= 0) H5Tset_order(type, H5T_ORDER_LE);
  return type;
}

static fn_status open_hdf5(fn_cube_file *file) {
  if (file->hdf5 < 0) FN_TRY(fn_hdf5_open_file(file->info.path, &file->hdf5));
  if (!file->info.packed || file->dataset >= 0) return FN_OK;
  char why[512];
  const hid_t access = fn_cube_dataset_access(&file->info);
  file->dataset = H5Dopen2(file->hdf5, "cubes", access);
  if (file->dataset < 0) fn_hdf5_reason(why, sizeof why);
  H5Pclose(access);
  FN_CHECK(file->dataset >= 0, FN_ERR_DATA, "cannot open %s:/cubes: %s", file->info.path, why);
  return FN_OK;
}

/** Read with the lock held; `text`: reason of a failure. */
static herr_t read_locked(const fn_cube_file *file, const fn_cube *cube, void *cells, char *text,
                          size_t size) {
  herr_t result = -1;
  const hid_t dataset =
      file->info.packed ? file->dataset : H5Dopen2(file->hdf5, cube->name, H5P_DEFAULT);
  const hid_t space = dataset >= 0 ? H5Dget_space(dataset) : -1;
  const hsize_t count[4] = {1, (hsize_t)file->info.size[0], (hsize_t)file->info.size[1],
                            (hsize_t)file->info.size[2]};
  const hsize_t start[4] = {(hsize_t)cube->row, 0, 0, 0};
  const hid_t memory = H5Screate_simple(3, count + 1, NULL);
  const hid_t type = dataset >= 0 ? fn_cube_memory_type(&file->info, dataset) : -1;
  if (space >= 0 && memory >= 0 && type >= 0) {
    result = file->info.packed
                 ? H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL)
                 : 0;
    if (result >= 0) result = H5Dread(dataset, type, memory, space, H5P_DEFAULT, cells);
  }
  if (result < 0) fn_hdf5_reason(text, size);
  if (type >= 0) H5Tclose(type);
  if (memory >= 0) H5Sclose(memory);
  if (space >= 0) H5Sclose(space);
  if (dataset >= 0 && !file->info.packed) H5Dclose(dataset);
  return result;
}

fn_status fn_cube_read_hdf5(fn_cube_file *file, int64_t cube, void *cells) {
  char why[512] = "";
  fn_hdf5_lock();
  const fn_status opened = open_hdf5(file);
  const bool failed =
      opened == FN_OK && read_locked(file, &file->info.cube[cube], cells, why, sizeof why) < 0;
  fn_hdf5_unlock();
  FN_TRY(opened);
  FN_TRY(fn_cube_check_length(file));
  FN_CHECK(!failed, FN_ERR_DATA, "cannot read cube %s of %s: %s", file->info.cube[cube].name,
           file->info.path, why);
  return fn_cube_check_cells(file, cube, 0, cells, file->cells);
}

fn_status fn_cube_file_read_raw(fn_cube_file *file, int64_t cube, void *cells) {
  FN_CHECK(cube >= 0 && cube < file->info.cubes, FN_ERR_INTERNAL, "%s has no cube number %lld",
           file->info.path, (long long)cube);
  return file->info.cube[cube].offset >= 0 ? fn_cube_read_direct(file, cube, cells)
                                           : fn_cube_read_hdf5(file, cube, cells);
}

fn_status fn_cube_file_read(fn_cube_file *file, int64_t cube, float *cells) {
  // Cells that are narrower than float32 are widened from the end of their room, front to back.
  char *raw = (char *)cells + file->cells * (int64_t)sizeof *cells - fn_cube_file_bytes(file);
  FN_TRY(fn_cube_file_read_raw(file, cube, raw));
  if (file->info.type != FN_RAW_F32) fn_cube_file_widen(file, raw, file->cells, cells);
  return FN_OK;
}

void fn_cube_file_close(fn_cube_file *file) {
  if (!file) return;
  fn_hdf5_lock();
  if (file->dataset >= 0) H5Dclose(file->dataset);
  if (file->hdf5 >= 0) H5Fclose(file->hdf5);
  fn_hdf5_unlock();
  if (file->fd >= 0) close(file->fd);
  pthread_mutex_destroy(&file->lock);
  fn_arena_destroy(file->arena);
  free(file);
}

/* ---- metadata as bytes -------------------------------------------------------------------------
 */

/** Followed by path, filter and the names of all cubes, each with its NUL, and the cubes before
 *  them. For programs of one job only: sizes and byte order are the machine's. */
typedef struct head {
  uint64_t magic;
  fn_cube_file_info info; // pointers without meaning
  int64_t cells, bytes;
  uint64_t texts; // bytes of all texts
} head;

static const uint64_t magic = 0x66746263756265ull;

fn_status fn_cube_file_pack(const fn_cube_file *file, void **bytes, size_t *size) {
  const fn_cube_file_info *info = &file->info;
  const size_t cubes = (size_t)info->cubes * sizeof *info->cube;
  fn_text texts = {0};
  fn_text_add_bytes(&texts, info->path, strlen(info->path) + 1);
  fn_text_add_bytes(&texts, info->filter, strlen(info->filter) + 1);
  for (int64_t i = 0; i < info->cubes; i++)
    fn_text_add_bytes(&texts, info->cube[i].name, strlen(info->cube[i].name) + 1);
  head h;
  memset(&h, 0, sizeof h);
  h.magic = magic;
  h.info = *info;
  h.info.path = h.info.filter = NULL;
  h.info.cube = NULL;
  h.cells = file->cells;
  h.bytes = file->bytes;
  h.texts = texts.length;
  *size = sizeof h + cubes + texts.length;
  char *all = malloc(*size);
  if (all) {
    memcpy(all, &h, sizeof h);
    memcpy(all + sizeof h, info->cube, cubes);
    memcpy(all + sizeof h + cubes, texts.data, texts.length);
  }
  fn_text_free(&texts);
  *bytes = all;
  FN_CHECK(all, FN_ERR_MEMORY, "out of memory sharing what %s holds", info->path);
  return FN_OK;
}

fn_status fn_cube_file_unpack(const void *bytes, size_t size, fn_cube_file **file) {
  head h;
  *file = NULL;
  FN_CHECK(size >= sizeof h, FN_ERR_INTERNAL, "metadata of a cube file are too short");
  memcpy(&h, bytes, sizeof h);
  const size_t cubes = (size_t)h.info.cubes * sizeof(fn_cube);
  FN_CHECK(h.magic == magic && size == sizeof h + cubes + h.texts && h.texts > 0, FN_ERR_INTERNAL,
           "metadata of a cube file are damaged");
  const char *text = (const char *)bytes + sizeof h + cubes;
  fn_cube_file *made = fn_cube_file_new(text);
  FN_CHECK(made, FN_ERR_MEMORY, "out of memory opening %s", text);
  const char *path = made->info.path;
  text += strlen(text) + 1;
  made->info = h.info;
  made->info.path = path;
  made->info.filter = fn_arena_text(made->arena, text);
  made->cells = h.cells;
  made->bytes = h.bytes;
  fn_cube *cube = fn_arena_take(made->arena, cubes);
  memcpy(cube, (const char *)bytes + sizeof h, cubes);
  for (int64_t i = 0; i < h.info.cubes; i++) {
    text += strlen(text) + 1;
    cube[i].name = fn_arena_text(made->arena, text);
  }
  made->info.cube = cube;
  *file = made;
  return FN_OK;
}
