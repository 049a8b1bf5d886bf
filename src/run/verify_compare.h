/** @file verify_compare.h
 *  Inside verify only: the rule of comparison and its table.
 */
#ifndef FN_RUN_VERIFY_COMPARE_H
#define FN_RUN_VERIFY_COMPARE_H

#include "base/text.h"
#include "run/reference_file.h"
#include "run/verify.h"

/** The worst tensor of the running group. */
typedef struct fn_verify_group {
  const char *name; /**< NULL: no group is open */
  int tensors, over;
  char worst[256];
  double error, limit, share; /**< of the worst: share = error / limit */
} fn_verify_group;

typedef struct fn_verify_tally {
  const fn_verify_options *options;
  fn_reference *reference;
  fn_reference_writer *writer; /**< NULL: nothing is written */
  FILE *out;
  double rtol;  /**< used where the rule of err_max is not */
  double noise; /**< what a gradient that is rounding only may amount to */
  fn_verify_group group;
  int groups, tensors, over;
} fn_verify_tally;

/** Whether the rule is the reference's own error, or a relative tolerance. */
bool fn_verify_uses_error(const fn_verify_tally *tally);

/** Largest absolute value. */
double fn_verify_largest(const fn_reference_tensor *tensor);

void fn_verify_begin(fn_verify_tally *tally, const char *group);
/** Compare `values` with dataset group/name, or with dataset group when name is "". `slack` is
 * added to the limit of tensors that the reference marks as noise. FN_ERR_VERIFY when the dataset
 * is missing or has another shape. */
fn_status fn_verify_tensor(fn_verify_tally *tally, const char *name, const fn_shape *shape,
                           const float *values, double slack);
/** Print the group's line. */
void fn_verify_end(fn_verify_tally *tally);

#endif
