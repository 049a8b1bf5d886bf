/** @file reference_file.h
 *  What another implementation computed, in an HDF5 file (docs/verify.md): read, and written in the
 *  same layout. Nothing here is collective.
 */
#ifndef FN_RUN_REFERENCE_FILE_H
#define FN_RUN_REFERENCE_FILE_H

#include <fieldnet/network.h>

typedef struct fn_reference fn_reference;

/** One dataset, read whole. */
typedef struct fn_reference_tensor {
  const char *name; /**< last part of its path; NULL: not in the file */
  fn_shape shape;   /**< ndim 0: a scalar */
  int64_t count;
  double *value;  /**< shape [count], C order */
  double err_max; /**< attribute err_max; NaN when absent */
  bool noise;     /**< attribute noise: rounding only, compare magnitudes */
} fn_reference_tensor;

/** Tensors live as long as the file is open. FN_ERR_DATA when it cannot be opened. */
fn_status fn_reference_open(const char *path, fn_reference **reference);
void fn_reference_close(fn_reference *reference);

/** All datasets of a group in the order in which they were made; *count is 0 when there is no such
 *  group. FN_ERR_DATA for what cannot be read as numbers. */
fn_status fn_reference_group(fn_reference *reference, const char *group,
                             fn_reference_tensor **tensors, int *count);
/** One dataset by path; tensor->name is NULL when there is none. */
fn_status fn_reference_read(fn_reference *reference, const char *path, fn_reference_tensor *tensor);
/** Text of a root attribute, or NULL. */
const char *fn_reference_text(fn_reference *reference, const char *attribute);

/* ---- writing ------------------------------------------------------------------------------- */

typedef struct fn_reference_writer fn_reference_writer;

/** Start a file with attributes, inputs, targets, weights and buffers of `source`. It is built in
 *  memory; nothing is on disk before fn_reference_write_finish(). */
fn_status fn_reference_write_start(fn_reference *source, fn_reference_writer **writer);
/** Add one float32 dataset; groups of the path are made as needed. */
fn_status fn_reference_write_tensor(fn_reference_writer *writer, const char *path,
                                    const fn_shape *shape, const float *values, bool noise);
/** Write to `path`, which must not exist. */
fn_status fn_reference_write_finish(fn_reference_writer *writer, const char *path);
void fn_reference_writer_destroy(fn_reference_writer *writer);

#endif
