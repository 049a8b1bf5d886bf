/** @file raw.h
 *  Samples on their way to a device as their files have them: what is gathered, and how the device
 *  makes of it what fn_dataset_sample() would have made.
 */
#ifndef FN_DATA_RAW_H
#define FN_DATA_RAW_H

#include "data/cubes.h"
#include "data/ring.h"

/** What is the same for all samples and one field. */
typedef struct fn_raw_way {
  size_t offset; /**< of the field in the row of a sample */
  size_t item;   /**< most bytes of a number */
  bool norm_on_host;
  fn_raw_norm norm; /**< of the device; no change when the host normalises */
  double factor, shift;
} fn_raw_way;

/** A row holds the fields of one sample, input fields first, each from a multiple of 64 bytes on.
 */
typedef struct fn_raw_layout {
  int inputs, fields;
  fn_raw_way *way; /**< shape [fields] */
  size_t row;      /**< bytes */
  size_t own;      /**< offset of the input's fn_raw_own in the row; 0: there is none */
  int factors;     /**< random summands of a sample, and as many factors; 0: neither */
} fn_raw_layout;

/** Layout of the data set's samples; `way` is malloc'ed. */
fn_status fn_raw_layout_make(const fn_dataset *dataset, fn_raw_layout *layout);
void fn_raw_layout_free(fn_raw_layout *layout);

/** Gather one sample. Thread-safe.
 *  @param[out] row      layout->row bytes
 *  @param[out] field    shape [layout->fields]; data points into row, add and mul into random
 *  @param[out] random   shape [2 layout->factors] */
fn_status fn_raw_sample(fn_dataset *dataset, const fn_raw_layout *layout, int64_t epoch,
                        int64_t sample, char *row, fn_raw_field *field, float *random);
/** For cubes: where in a row the parts of a sample go, and what the device makes of it then. */
fn_cube_room fn_raw_cube_room(const fn_raw_layout *layout, char *row);
void fn_raw_describe_cube(const fn_dataset *dataset, const fn_raw_layout *layout, const char *row,
                          fn_raw_field *field);
/** Layout of samples that are complete, as float32 in one input field and one target field: those
 * of a plan without data. */
fn_status fn_raw_layout_plain(const fn_dataset_info *info, fn_raw_layout *layout);
void fn_raw_describe_plain(const fn_dataset_info *info, const fn_raw_layout *layout,
                           const char *row, fn_raw_field *field);

/** A batch in a slot of a ring; see fn_batch. */
struct fn_raw_batch {
  fn_ring *ring;
  int64_t slot;
  const fn_raw_layout *layout;
  fn_raw_field *field; /**< shape [samples, layout->fields], data in the slot */
  float *random;       /**< shape [samples, 2 layout->factors] */
};

#endif
