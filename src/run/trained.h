/** @file trained.h
 *  The weights that a test or a prediction uses: which state, and into the network on every rank.
 */
#ifndef FN_RUN_TRAINED_H
#define FN_RUN_TRAINED_H

#include "dist/dist.h"
#include "run/checkpoint.h"

/** The state of test.state, else the newest of the run folder; its progress. Warns of settings that
 *  give the network's numbers another meaning than in training. *path malloc'ed. Rank 0 only.
 *  FN_ERR_CHECKPOINT when there is none. */
fn_status fn_trained_find(const fn_run *run, char **path, fn_progress *progress);
/** Weights of `path` (looked at on rank 0 only), averaged ones with test.use_ema, on every rank.
 *  Collective. */
fn_status fn_trained_load(const fn_run *run, const fn_dist *dist, const char *path,
                          fn_parameters *parameters);

#endif
