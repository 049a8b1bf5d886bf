/** @file validate_labels.h
 *  Metrics of two classes after an epoch.
 */
#ifndef FN_RUN_VALIDATE_LABELS_H
#define FN_RUN_VALIDATE_LABELS_H

#include "run/validate.h"

/** Accuracy, area under the ROC curve and F1 of all validation samples against hard labels, the
 *  same bits on every rank; NaN when a logit is not finite.
 *  @param[in] part  logits of this rank's slice (fn_rank_slice)
 *  Collective. */
fn_status fn_validate_labels(const fn_session *session, const float *part, fn_validation *result);

#endif
