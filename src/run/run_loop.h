/** @file run_loop.h
 *  Training, evaluation and inference of one run. Collective over the job.
 */
#ifndef FN_RUN_RUN_LOOP_H
#define FN_RUN_RUN_LOOP_H

#include "dist/dist.h"
#include "run/observer.h"

/** Train or go on training. FN_OK when all epochs are done, FN_INTERRUPTED when stopped by a signal
 *  (state saved), FN_ERR_DIVERGED, or another error agreed over all ranks. observer may be NULL. */
fn_status fn_train(const fn_run *run, fn_dist *dist, const fn_observer *observer);

/** Evaluate on data.test with targets (`predict` false) or write outputs only (true). */
fn_status fn_evaluate(const fn_run *run, fn_dist *dist, bool predict);

/** From a signal handler: stop at the next step boundary, save, return FN_INTERRUPTED. */
void fn_request_stop(void);
/** Save a state at the next step boundary and go on. */
void fn_request_save(void);

#endif
