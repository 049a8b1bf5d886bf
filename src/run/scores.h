/** @file scores.h
 *  Scores on disk: per sample, per cube, per seed. Rank 0 only.
 */
#ifndef FN_RUN_SCORES_H
#define FN_RUN_SCORES_H

#include "run/classify.h"

/** scores.h5: columns seed, theory, cube, axis, position, transform, label, logit, probability
 *  [samples], and logit_no_mean if `no_mean` is not NULL; attributes say from which state.
 *  scores.csv: the same. cubes.csv and seeds.csv: a row per cube, per seed. `folder` exists.
 *  @param[in] logit    [samples]
 *  @param[in] no_mean  [samples] with cube means removed, or NULL */
fn_status fn_scores_write(const char *folder, const fn_dataset *dataset,
                          const fn_class_result *result, const float *logit, const float *no_mean);

#endif
