/** @file logits.h
 *  What a two-class network says about every sample of a data set, computed by all ranks.
 */
#ifndef FN_RUN_LOGITS_H
#define FN_RUN_LOGITS_H

#include "run/engine.h"

/** Logits of all samples, each computed exactly once, on rank 0: *logit [samples], malloc'ed; NULL
 *  on other ranks. Ranks take slices of the samples (fn_rank_slice) in batches of train.batch. The
 *  network's output must be one number per sample. Collective. */
fn_status fn_logits_compute(const fn_run *run, const fn_dist *dist, fn_engine *engine,
                            fn_dataset *dataset, float **logit);

/** Bring the slices of all ranks, divided by fn_rank_slice, together on rank 0. `part` [count of
 *  this rank], `whole` [samples] on rank 0, unused elsewhere. Any number of samples. Collective. */
fn_status fn_logits_gather(const fn_dist *dist, int64_t samples, const float *part, float *whole);

/** FN_ERR_CONFIG unless the output has one value per sample. */
fn_status fn_logits_check(const fn_run *run, const fn_program *program, int64_t batch);

#endif
