/* Writing fields: npy and HDF5, each complete under its name or absent. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/system.h"
#include "field/array.h"
#include "field/hdf5.h"
#include "field/safe_write.h"

fn_status fn_temporary_name(const char *path, char *temporary, size_t size) {
  const int length = snprintf(temporary, size, "%s.%ld.tmp", path, (long)getpid());
  FN_CHECK(length > 0 && (size_t)length < size, FN_ERR_DATA, "path too long: %s", path);
  return FN_OK;
}

void fn_folder_of(const char *path, char *folder, size_t size) {
  snprintf(folder, size, "%s", path);
  char *slash = strrchr(folder, '/');
  if (!slash) {
    snprintf(folder, size, ".");
  } else {
    slash[slash == folder] = '\0';
  }
}

fn_status fn_commit_file(const char *temporary, const char *path) {
  fn_status status = fn_file_sync(temporary);
  if (status == FN_OK && rename(temporary, path) != 0)
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot rename %s to %s: %s", temporary,
                          path, strerror(errno));
  if (status != FN_OK) {
    unlink(temporary);
    return status;
  }
  char folder[4096];
  fn_folder_of(path, folder, sizeof folder);
  return fn_file_sync(folder);
}

static fn_status write_bytes(int fd, const char *path, const void *bytes, size_t count) {
  const char *at = bytes;
  while (count > 0) {
    const ssize_t done = write(fd, at, count < (1u << 30) ? count : (1u << 30));
    if (done < 0 && errno == EINTR) continue;
    FN_CHECK(done > 0, FN_ERR_DATA, "cannot write %s: %s", path, strerror(errno));
    at += done;
    count -= (size_t)done;
  }
  return FN_OK;
}

size_t fn_npy_header_text(char *text, size_t size, int ndim, const int64_t *shape) {
  char dims[256];
  int used = 0;
  for (int i = 0; i < ndim; i++)
    used += snprintf(dims + used, sizeof dims - (size_t)used, "%s%lld", i ? ", " : "",
                     (long long)shape[i]);
  if (ndim == 1) snprintf(dims + used, sizeof dims - (size_t)used, ",");
  if (ndim == 0) dims[0] = '\0';
  const int length = snprintf(text + 10, size - 10,
                              "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", dims);
  size_t total = 10 + (size_t)length + 1;
  const size_t padded = (total + 63) / 64 * 64;
  memset(text + 10 + length, ' ', padded - total);
  text[padded - 1] = '\n';
  memcpy(text, "\x93NUMPY\x01\x00", 8);
  text[8] = (char)((padded - 10) & 255);
  text[9] = (char)((padded - 10) >> 8);
  return padded;
}

static fn_status check_shape(const char *path, int ndim, const int64_t *shape, int64_t *bytes) {
  char text[256];
  FN_CHECK(ndim >= 0 && ndim <= FN_ARRAY_DIMS && fn_dims_bytes(ndim, shape, 4, bytes),
           FN_ERR_INTERNAL, "cannot write %s: bad shape %s", path,
           fn_dims_text(ndim, shape, text, sizeof text));
  return FN_OK;
}

fn_status fn_npy_write(const char *path, const float *values, int ndim, const int64_t *shape) {
  char temporary[4096], header[512];
  int64_t bytes;
  FN_TRY(check_shape(path, ndim, shape, &bytes));
  FN_TRY(fn_temporary_name(path, temporary, sizeof temporary));
  const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  FN_CHECK(fd >= 0, FN_ERR_DATA, "cannot create %s: %s", path, strerror(errno));
  fn_status status =
      write_bytes(fd, path, header, fn_npy_header_text(header, sizeof header, ndim, shape));
  if (status == FN_OK) status = write_bytes(fd, path, values, (size_t)bytes);
  if (close(fd) != 0 && status == FN_OK)
    status =
        fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot write %s: %s", path, strerror(errno));
  if (status != FN_OK) {
    unlink(temporary);
    return status;
  }
  return fn_commit_file(temporary, path);
}

/* ---- HDF5 files through an image in memory ----------------------------------------------- */

fn_status fn_hdf5_image_create(size_t increment, hid_t *file) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_fapl_core(access, increment < 65536 ? 65536 : increment, false);
  *file = H5Fcreate("image.h5", H5F_ACC_TRUNC, H5P_DEFAULT, access);
  H5Pclose(access);
  char text[512];
  FN_CHECK(*file >= 0, FN_ERR_MEMORY, "cannot create an HDF5 image in memory: %s",
           fn_hdf5_reason(text, sizeof text));
  return FN_OK;
}

/** Where HDF5 keeps the image, and how much of it is file. */
static fn_status image_bytes(hid_t file, const void **bytes, size_t *count) {
  char text[512];
  void *handle = NULL;
  ssize_t size = -1;
  if (H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0 && H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0)
    size = H5Fget_file_image(file, NULL, 0);
  FN_CHECK(size > 0 && handle, FN_ERR_MEMORY, "cannot finish an HDF5 image in memory: %s",
           fn_hdf5_reason(text, sizeof text));
  *bytes = *(void **)handle; // the core driver hands out the address of its buffer's pointer
  *count = (size_t)size;
  return FN_OK;
}

/** The last 16 bytes of a sealed file: this text, then the CRC-32 of all bytes before the seal. */
static const char seal_text[12] = "fieldnetseal";
enum { SEAL_BYTES = 16 };

static fn_status write_image(const char *path, const void *bytes, size_t count, bool sealed) {
  char seal[SEAL_BYTES];
  const uint32_t crc = sealed ? fn_crc32(0, bytes, count) : 0;
  memcpy(seal, seal_text, sizeof seal_text);
  memcpy(seal + sizeof seal_text, &crc, sizeof crc);
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  FN_CHECK(fd >= 0, FN_ERR_DATA, "cannot create %s: %s", path, strerror(errno));
  fn_status status = write_bytes(fd, path, bytes, count);
  if (status == FN_OK && sealed) status = write_bytes(fd, path, seal, sizeof seal);
  if (status == FN_OK && fsync(fd) != 0)
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot flush %s to disk: %s", path,
                          strerror(errno));
  if (close(fd) != 0 && status == FN_OK)
    status =
        fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot write %s: %s", path, strerror(errno));
  if (status != FN_OK) unlink(path);
  return status;
}

fn_status fn_hdf5_image_write(hid_t file, const char *path, bool sealed) {
  const void *bytes;
  size_t count;
  FN_TRY(image_bytes(file, &bytes, &count));
  // The image stays where it is: nobody else knows the file, and HDF5 touches it only when called.
  fn_hdf5_unlock();
  const fn_status status = write_image(path, bytes, count, sealed);
  fn_hdf5_lock();
  return status;
}

/** CRC-32 of the first `count` bytes of an open file. */
static fn_status crc_of(FILE *file, const char *path, int64_t count, uint32_t *crc) {
  enum { CHUNK = 1 << 20 };
  unsigned char *chunk = malloc(CHUNK);
  FN_CHECK(chunk, FN_ERR_MEMORY, "out of memory reading %s", path);
  *crc = 0;
  while (count > 0) {
    const size_t got = fread(chunk, 1, count < CHUNK ? (size_t)count : CHUNK, file);
    if (got == 0) break;
    *crc = fn_crc32(*crc, chunk, got);
    count -= (int64_t)got;
  }
  free(chunk);
  FN_CHECK(count == 0, FN_ERR_DATA, "cannot read %s: %s", path,
           ferror(file) ? strerror(errno) : "it became shorter");
  return FN_OK;
}

fn_status fn_hdf5_check_seal(const char *path, bool *sealed) {
  *sealed = false;
  FILE *file = fopen(path, "rb");
  FN_CHECK(file, FN_ERR_DATA, "cannot open %s: %s", path, strerror(errno));
  char seal[SEAL_BYTES];
  uint32_t stored, found = 0;
  fn_status status = FN_OK;
  if (fseeko(file, -SEAL_BYTES, SEEK_END) == 0) {
    const int64_t count = ftello(file);
    *sealed = fread(seal, 1, sizeof seal, file) == sizeof seal &&
              memcmp(seal, seal_text, sizeof seal_text) == 0;
    memcpy(&stored, seal + sizeof seal_text, sizeof stored);
    rewind(file);
    if (*sealed) status = crc_of(file, path, count, &found);
    if (status == FN_OK && *sealed && found != stored)
      status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__,
                            "%s: the checksum of the file is %08x, stored is %08x: bytes changed",
                            path, found, stored);
  }
  fclose(file);
  return status;
}

static fn_status write_dataset(hid_t file, const char *dataset, const float *values, int ndim,
                               const int64_t *shape) {
  char text[512] = "";
  hsize_t dim[FN_ARRAY_DIMS];
  for (int i = 0; i < ndim; i++)
    dim[i] = (hsize_t)shape[i];
  const hid_t links = H5Pcreate(H5P_LINK_CREATE), space = H5Screate_simple(ndim, dim, NULL);
  H5Pset_create_intermediate_group(links, 1);
  const hid_t set =
      H5Dcreate2(file, dataset, H5T_IEEE_F32LE, space, links, H5P_DEFAULT, H5P_DEFAULT);
  bool good =
      set >= 0 && H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
  if (!good) fn_hdf5_reason(text, sizeof text);
  if (set >= 0) H5Dclose(set);
  H5Sclose(space);
  H5Pclose(links);
  FN_CHECK(good, FN_ERR_DATA, "cannot make dataset %s: %s", dataset, text);
  return FN_OK;
}

fn_status fn_hdf5_write(const char *path, const char *dataset, const float *values, int ndim,
                        const int64_t *shape) {
  char temporary[4096];
  int64_t bytes;
  hid_t file = -1;
  FN_TRY(check_shape(path, ndim, shape, &bytes));
  FN_TRY(fn_temporary_name(path, temporary, sizeof temporary));
  fn_hdf5_lock();
  fn_status status = fn_hdf5_image_create((size_t)bytes + 65536, &file);
  if (status == FN_OK) status = write_dataset(file, dataset, values, ndim, shape);
  if (status == FN_OK) status = fn_hdf5_image_write(file, temporary, false);
  if (file >= 0) H5Fclose(file);
  fn_hdf5_unlock();
  if (status != FN_OK) return fn_error_context(status, "writing %s", path);
  return fn_commit_file(temporary, path);
}
