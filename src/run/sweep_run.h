/** @file sweep_run.h
 *  Trials of a sweep trained by this job: its ranks part into groups, each of which trains one
 * trial after another.
 */
#ifndef FN_RUN_SWEEP_RUN_H
#define FN_RUN_SWEEP_RUN_H

#include "dist/dist.h"
#include "run/observer.h"
#include "run/sweep_plan.h"

typedef struct fn_sweep_work {
  int64_t group;         /**< ranks of each group; the job's are a multiple of it */
  const int64_t *trials; /**< only these, shape [trial_count] */
  int64_t trial_count;   /**< 0: all that are not done */
  /** What reports a trial, made and destroyed by the leader of its group. */
  fn_status (*observe)(const fn_run *run, fn_observer *observer);
  void (*unobserve)(fn_observer *observer);
} fn_sweep_work;

/** Train trials until none is left, or the job is to stop: by signal, by the run's time limit, by
 *  the run's halt file in the sweep's folder or that of a trial. A trial that fails is recorded
 * with its message and the group goes on; one whose job was killed is found by a later start, which
 *  resumes it. What a trial has to say goes into trial.log in its folder; a line for its start and
 *  one for its end to standard output.
 *
 *  Collective over the job.
 *  @return FN_OK when all is done that this job can do; FN_INTERRUPTED or FN_HALTED when stopped
 * with trials left to go on with, or when the trials named are others' to finish; the failure of
 *  the last trial when every one failed; FN_ERR_CONFIG, FN_ERR_CHECKPOINT of the sweep itself */
fn_status fn_sweep_train(const fn_sweep *sweep, const fn_dist *dist, const fn_sweep_work *work);

#endif
