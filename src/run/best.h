/** @file best.h
 *  What checkpoint.best watches: which epoch is the best, and when training has done enough.
 */
#ifndef FN_RUN_BEST_H
#define FN_RUN_BEST_H

#include "run/checkpoint.h"
#include "run/validate.h"

/** The watched number of an epoch: a loss or a metric. NaN: none, it does not count. */
double fn_best_value(const fn_run *run, const fn_progress *progress,
                     const fn_validation *validation);
/** Take the epoch just completed (progress->epoch) into progress->best_metric and best_epoch; true
 *  when it is the best so far: losses go down, metrics up. */
bool fn_best_update(const fn_run *run, double value, fn_progress *progress);
/** Early stopping, train.stop_patience and train.stop_threshold: a pure function of what is in a
 *  state, so that every rank decides alike and a resumed run goes on counting. `why` says it in
 *  words when true. */
bool fn_best_suffices(const fn_run *run, const fn_progress *progress, char *why, size_t size);

#endif
