/** @file sweep_queue.h
 *  How groups of ranks in one job get their trials: the leader of a group (its rank 0) asks rank 0
 *  of the job, which alone speaks to the store.
 *
 *  A thread of rank 0 answers while rank 0 itself trains, so that a group that is done takes the
 *  next trial at once, whoever else is busy. One process per job writes to the store: no file locks
 *  are needed between the groups, and what a job holds is given up together when it dies. Without
 *  MPI_THREAD_MULTIPLE no thread can answer; then each leader opens the store by itself, which is
 *  made for that.
 */
#ifndef FN_RUN_SWEEP_QUEUE_H
#define FN_RUN_SWEEP_QUEUE_H

#include "dist/dist.h"
#include "run/run_loop.h"
#include "run/sweep_store.h"

typedef struct fn_sweep_queue fn_sweep_queue;

/** What a group is to do next. */
typedef enum fn_sweep_order {
  FN_SWEEP_WORK,
  FN_SWEEP_WAIT, /**< nothing is free now, but that may change: ask again a little later */
  FN_SWEEP_LEAVE
} fn_sweep_order;

/** A trial for a group. The same bytes on all its ranks. */
typedef struct fn_sweep_task {
  fn_sweep_order order;
  fn_claim claim;
  int set_count;   /**< of a trial that came from outside; 0: the plan knows it */
  char set[16384]; /**< "path=value" texts, each with its NUL */
} fn_sweep_task;

typedef struct fn_sweep_queue_options {
  int group;             /**< ranks of each group */
  const int64_t *trials; /**< to work on, shape [trial_count]; only these */
  int64_t trial_count;   /**< 0: all */
  const char *halt;      /**< path of a file that stops all groups when it appears */
  bool quiet;            /**< no lines on standard output */
} fn_sweep_queue_options;

/** Open the store and start to answer. `sweep` and `options` must outlive the queue. Collective
 *  over the job. */
fn_status fn_sweep_queue_create(const fn_sweep *sweep, const fn_dist *dist,
                                const fn_sweep_queue_options *options, fn_sweep_queue **queue);
/** Wait, without keeping the core busy, until all groups have left; then *status is that of the
 *  whole: FN_INTERRUPTED or FN_HALTED when stopped with trials left, a failure of the store, the
 *  last failure when every trial failed, else FN_OK. Prints a summary. Collective over the job. */
void fn_sweep_queue_destroy(fn_sweep_queue *queue, fn_status *status);

/* ---- leaders of groups only ------------------------------------------------------------------ */

/** The next trial. `stop`: this group was asked to stop; then all are. A failure is one of the
 *  queue itself, after which the group leaves. */
fn_status fn_sweep_queue_take(fn_sweep_queue *queue, bool stop, fn_sweep_task *task);
fn_status fn_sweep_queue_report(fn_sweep_queue *queue, const fn_claim *claim, int64_t epoch,
                                double value, fn_report_answer *answer);
/** Whether all groups are to stop. Cheap; asks at most twice a second. */
bool fn_sweep_queue_stopping(fn_sweep_queue *queue);
/** A trial came to its end: FN_OK complete, FN_INTERRUPTED or FN_HALTED to be gone on with,
 * FN_ERR_LOST somebody else writes in its folder and it is given back (this waits a little), else
 * it failed with the recorded message. Not for trials that a report's answer ended. */
fn_status fn_sweep_queue_end(fn_sweep_queue *queue, const fn_claim *claim, fn_status status,
                             const fn_train_result *result, double seconds);
/** This group wants no more trials; after it, nothing but destroy. */
void fn_sweep_queue_leave(fn_sweep_queue *queue);

#endif
