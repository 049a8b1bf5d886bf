/* Fields written block by block. Both formats keep the values as one array in C order behind a
 * header; HDF5 makes the header, the values are written without it: a full disk then is an error of
 * ours (HDF5 does not survive one, see hdf5.h), and no buffer of HDF5's lies in between. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "field/array.h"
#include "field/hdf5.h"
#include "field/safe_write.h"

struct fn_field_writer {
  char path[4096], temporary[4096];
  int fd;
  int64_t offset; /**< of the first value in the file, bytes */
  int64_t channels;
  int spatial;
  int64_t size[FN_MAX_SPATIAL];
  bool committed;
};

static fn_status write_at(const fn_field_writer *w, const void *bytes, size_t count,
                          int64_t offset) {
  const char *from = bytes;
  while (count > 0) {
    const ssize_t done = pwrite(w->fd, from, count, offset);
    if (done < 0 && errno == EINTR) continue;
    FN_CHECK(done > 0, FN_ERR_DATA, "cannot write %s: %s", w->path, strerror(errno));
    from += done;
    offset += done;
    count -= (size_t)done;
  }
  return FN_OK;
}

static fn_status open_file(fn_field_writer *w, int flags) {
  w->fd = open(w->temporary, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0666);
  FN_CHECK(w->fd >= 0, FN_ERR_DATA, "cannot create %s: %s", w->path, strerror(errno));
  return FN_OK;
}

/** Room on the disk for `bytes`, now and not after hours of computing. */
static fn_status reserve(const fn_field_writer *w, int64_t bytes) {
  const int reason = posix_fallocate(w->fd, 0, bytes);
  if (reason == 0) return FN_OK;
  // Some file systems cannot promise; a hole will do there.
  const bool cannot = reason == EINVAL || reason == EOPNOTSUPP || reason == ENOSYS;
  FN_CHECK(cannot && ftruncate(w->fd, bytes) == 0, FN_ERR_DATA,
           "cannot reserve %lld bytes for %s: %s", (long long)bytes, w->path,
           strerror(cannot ? errno : reason));
  return FN_OK;
}

static fn_status start_npy(fn_field_writer *w, int ndim, const int64_t *shape, int64_t bytes) {
  char header[512];
  w->offset = (int64_t)fn_npy_header_text(header, sizeof header, ndim, shape);
  FN_TRY(open_file(w, O_TRUNC));
  FN_TRY(reserve(w, w->offset + bytes));
  return write_at(w, header, (size_t)w->offset, 0);
}

/** A file with one contiguous dataset whose values have a place but are not written. Lock held. */
static fn_status make_hdf5(const fn_field_writer *w, const char *dataset, int ndim,
                           const int64_t *shape, int64_t *offset) {
  char text[512] = "";
  hsize_t dim[FN_ARRAY_DIMS];
  for (int i = 0; i < ndim; i++)
    dim[i] = (hsize_t)shape[i];
  const hid_t file = H5Fcreate(w->temporary, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  FN_CHECK(file >= 0, FN_ERR_DATA, "cannot create %s: %s", w->path,
           fn_hdf5_reason(text, sizeof text));
  const hid_t links = H5Pcreate(H5P_LINK_CREATE), layout = H5Pcreate(H5P_DATASET_CREATE);
  const hid_t space = H5Screate_simple(ndim, dim, NULL);
  H5Pset_create_intermediate_group(links, 1);
  H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER);
  const hid_t set = H5Dcreate2(file, dataset, H5T_IEEE_F32LE, space, links, layout, H5P_DEFAULT);
  const haddr_t address = set >= 0 ? H5Dget_offset(set) : HADDR_UNDEF;
  if (address == HADDR_UNDEF) fn_hdf5_reason(text, sizeof text);
  if (set >= 0) H5Dclose(set);
  H5Sclose(space);
  H5Pclose(layout);
  H5Pclose(links);
  const bool closed = H5Fclose(file) >= 0;
  FN_CHECK(address != HADDR_UNDEF && closed, FN_ERR_DATA, "cannot make dataset %s of %s: %s",
           dataset, w->path, text);
  *offset = (int64_t)address;
  return FN_OK;
}

static fn_status start_hdf5(fn_field_writer *w, const char *dataset, int ndim, const int64_t *shape,
                            int64_t bytes) {
  // HDF5 writes its few kilobytes where there was room a moment ago.
  enum { HEADER_ROOM = 1 << 16 };
  FN_TRY(open_file(w, O_TRUNC));
  FN_TRY(reserve(w, bytes + HEADER_ROOM));
  close(w->fd);
  w->fd = -1;
  fn_hdf5_lock();
  const fn_status status = make_hdf5(w, dataset, ndim, shape, &w->offset);
  fn_hdf5_unlock();
  FN_TRY(status);
  FN_TRY(open_file(w, 0));
  return reserve(w, w->offset + bytes);
}

fn_status fn_field_writer_create(const char *path, const char *dataset, int64_t channels,
                                 int spatial, const int64_t *size, fn_field_writer **writer) {
  *writer = NULL;
  int64_t shape[1 + FN_MAX_SPATIAL] = {channels}, bytes;
  char text[128];
  FN_CHECK(spatial >= 1 && spatial <= FN_MAX_SPATIAL, FN_ERR_INTERNAL,
           "cannot write %s: %d spatial axes", path, spatial);
  for (int d = 0; d < spatial; d++)
    shape[1 + d] = size[d];
  FN_CHECK(fn_dims_bytes(1 + spatial, shape, sizeof(float), &bytes) && bytes > 0, FN_ERR_INTERNAL,
           "cannot write %s: bad shape %s", path,
           fn_dims_text(1 + spatial, shape, text, sizeof text));
  fn_field_writer *w = calloc(1, sizeof *w);
  FN_CHECK(w, FN_ERR_MEMORY, "out of memory");
  w->fd = -1;
  w->channels = channels;
  w->spatial = spatial;
  memcpy(w->size, size, (size_t)spatial * sizeof *size);
  snprintf(w->path, sizeof w->path, "%s", path);
  fn_status status = fn_temporary_name(path, w->temporary, sizeof w->temporary);
  if (status == FN_OK)
    status = dataset ? start_hdf5(w, dataset, 1 + spatial, shape, bytes)
                     : start_npy(w, 1 + spatial, shape, bytes);
  if (status != FN_OK) {
    fn_field_writer_destroy(w);
    return status;
  }
  *writer = w;
  return FN_OK;
}

/** One row of a block, cut where it wraps. `row`: first value of the row in the file. */
static fn_status put_row(const fn_field_writer *w, int64_t row, int64_t start, int64_t count,
                         int64_t size, const float *values) {
  int64_t at = fn_wrap(start, size);
  while (count > 0) {
    const int64_t piece = count < size - at ? count : size - at;
    FN_TRY(write_at(w, values, (size_t)piece * sizeof *values,
                    w->offset + (row + at) * (int64_t)sizeof *values));
    values += piece;
    count -= piece;
    at = 0;
  }
  return FN_OK;
}

fn_status fn_field_writer_put(fn_field_writer *writer, const int64_t *start, const int64_t *extent,
                              const float *values) {
  // Missing axes in front count as one cell.
  int64_t size[3] = {1, 1, 1}, first[3] = {0, 0, 0}, length[3] = {1, 1, 1};
  const int lead = 3 - writer->spatial;
  for (int d = 0; d < writer->spatial; d++) {
    size[lead + d] = writer->size[d];
    first[lead + d] = start[d];
    length[lead + d] = extent[d];
  }
  // Whole rows that follow one another are one.
  const bool joined = first[2] == 0 && length[2] == size[2];
  const int64_t lines = joined ? 1 : length[1], line = joined ? length[1] * size[2] : length[2];
  for (int64_t c = 0; c < writer->channels; c++) {
    for (int64_t i = 0; i < length[0]; i++) {
      const int64_t plane = (c * size[0] + fn_wrap(first[0] + i, size[0])) * size[1];
      for (int64_t j = 0; j < lines; j++, values += line) {
        const int64_t row = (plane + fn_wrap(first[1] + j, size[1])) * size[2];
        FN_TRY(joined ? put_row(writer, plane * size[2], first[1] * size[2], line,
                                size[1] * size[2], values)
                      : put_row(writer, row, first[2], line, size[2], values));
      }
    }
  }
  return FN_OK;
}

fn_status fn_field_writer_commit(fn_field_writer *writer) {
  const int failed = close(writer->fd) != 0 ? errno : 0;
  writer->fd = -1;
  FN_CHECK(!failed, FN_ERR_DATA, "cannot write %s: %s", writer->path, strerror(failed));
  writer->committed = true; // fn_commit_file removes what it cannot rename
  return fn_commit_file(writer->temporary, writer->path);
}

void fn_field_writer_destroy(fn_field_writer *writer) {
  if (!writer) return;
  if (writer->fd >= 0) close(writer->fd);
  if (!writer->committed) unlink(writer->temporary);
  free(writer);
}
