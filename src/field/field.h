/** @file field.h
 *  Fields on disk behind one hyperslab reader: npy and HDF5.
 *
 *  A path is a file, or file.h5:/group/dataset. A file.h5 without a dataset must hold exactly one.
 */
#ifndef FN_FIELD_FIELD_H
#define FN_FIELD_FIELD_H

#include <fieldnet/device.h>
#include <fieldnet/network.h>

#include "base/arena.h"

typedef struct fn_field fn_field;

/** What the header says: shape [channels, spatial...]. */
typedef struct fn_field_info {
  int64_t channels;
  int spatial;               /**< number of spatial axes */
  int64_t size[FN_MAX_DIMS]; /**< cells per spatial axis */
  char type[16];             /**< e.g. "<f4", ">f8", "<i2" */
  fn_raw_type raw;           /**< what fn_field_read_raw() hands out; FN_RAW_NONE: it cannot */
  bool fortran;              /**< axis order on disk reversed (npy) */
  int64_t packed;            /**< samples in a packed dataset [sample, channel, spatial...] */
  int64_t bytes;             /**< of the array on disk */
} fn_field_info;

/** Open for reading. `packed` says that axis 0 counts samples; then `sample` selects one.
 *  Not collective. FN_ERR_DATA when missing, unreadable, truncated, not numeric. */
fn_status fn_field_open(const char *path, bool packed, fn_field **field);
void fn_field_close(fn_field *field);
const fn_field_info *fn_field_get_info(const fn_field *field);
const char *fn_field_path(const fn_field *field);

/** Read one block of one field, wrapping periodically.
 *
 *  Not collective; thread-safe for different fields (HDF5 is serialised inside).
 *
 *  @param[in]  sample  index in a packed dataset; else 0
 *  @param[in]  start   first cell per spatial axis; any integer, wrapped to the field
 *  @param[in]  extent  block size per spatial axis, cells; may exceed the field
 *  @param[out] out     float32, shape [channels, extent...], C order, units of the file
 *  @return FN_OK; FN_ERR_DATA when the file turns out truncated or unreadable
 */
fn_status fn_field_read(fn_field *field, int64_t sample, const int64_t *start,
                        const int64_t *extent, float *out);

/** The same with the numbers of the file, in the byte order of the machine.
 *  @param[out] out  info.raw, shape [channels, extent...], C order, aligned for its type */
fn_status fn_field_read_raw(fn_field *field, int64_t sample, const int64_t *start,
                            const int64_t *extent, void *out);

/** "float16" */
const char *fn_raw_name(fn_raw_type type);

/** Number of samples a path stands for: axis 0 of a packed dataset, else 1. `spatial` (> 0) tells
 *  how many spatial axes are expected, which decides between the two; 0: unpacked. */
fn_status fn_field_samples(const char *path, int spatial, int64_t *samples);

/** Write shape[ndim] float32 values as npy (format 1.0, C order, little-endian), safely: temporary
 *  name, flush, rename. */
fn_status fn_npy_write(const char *path, const float *values, int ndim, const int64_t *shape);
/** Write one dataset into a new HDF5 file, safely as above. */
fn_status fn_hdf5_write(const char *path, const char *dataset, const float *values, int ndim,
                        const int64_t *shape);

/** A field written block by block, so that it need not fit in memory: as npy, or as one dataset of
 * a new HDF5 file. The file appears under its name when it is committed. */
typedef struct fn_field_writer fn_field_writer;

/** Reserve the file under a temporary name; cells that are never written are 0.
 *  @param[in] dataset  NULL: npy
 *  @param[in] size     cells per spatial axis
 *  @return FN_ERR_DATA when the disk has no room for it or the file cannot be made */
fn_status fn_field_writer_create(const char *path, const char *dataset, int64_t channels,
                                 int spatial, const int64_t *size, fn_field_writer **writer);
/** Write one block.
 *  @param[in] start   first cell per spatial axis; any integer, wrapped to the field
 *  @param[in] extent  cells per spatial axis; later blocks replace earlier ones
 *  @param[in] values  [channels, extent...] */
fn_status fn_field_writer_put(fn_field_writer *writer, const int64_t *start, const int64_t *extent,
                              const float *values);
/** Flush to disk and rename. */
fn_status fn_field_writer_commit(fn_field_writer *writer);
/** Without a commit before it nothing is left of the file. NULL is fine. */
void fn_field_writer_destroy(fn_field_writer *writer);

/** Tell that what was read will not be read again soon: mapped pages of the file stop counting as
 *  memory of this process. */
void fn_field_forget(fn_field *field);

/** Paths matching a glob (or file.h5:/dataset with a glob in the file part, or a glob over dataset
 *  names after the colon), sorted bytewise. FN_ERR_DATA naming the pattern when nothing matches. */
fn_status fn_field_glob(struct fn_arena *arena, const char *pattern, const char ***paths,
                        int *count);

#endif
