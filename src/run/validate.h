/** @file validate.h
 *  Validation after an epoch, and the figures of both sets.
 */
#ifndef FN_RUN_VALIDATE_H
#define FN_RUN_VALIDATE_H

#include "run/session.h"

typedef struct fn_validation {
  double loss;
  double accuracy, auc, f1; /**< of two classes, against hard labels; NaN for fields */
} fn_validation;

/** Mean loss over all validation samples, each evaluated exactly once. A loss that is not finite is
 *  FN_ERR_DIVERGED, naming the first bad sample; with train.on_nan skip a warning, and the loss is
 * not finite. Collective. */
fn_status fn_validate(fn_session *session, fn_validation *result);
/** Hand the last training batch of rank 0 to the observer as a figure, after reading its samples
 *  once more. Not collective. */
void fn_draw_training(fn_session *session);

#endif
