/** @file watchdog.h
 *  Names the rank that does not get on, and ends the job, which would otherwise wait for ever.
 *
 *  A thread of each rank reports what its training thread does to rank 0 (rank 0's goes to rank 1),
 *  by messages on a communicator of its own. When some rank has stood in one place longer than the
 *  limit, those that are furthest behind are the ones all others wait for.
 */
#ifndef FN_DIST_WATCHDOG_H
#define FN_DIST_WATCHDOG_H

#include "dist/dist.h"

typedef struct fn_watchdog fn_watchdog;

/** What a rank can be waiting in, in the order of a step. */
typedef enum fn_phase {
  FN_PHASE_START,
  FN_PHASE_INPUT,
  FN_PHASE_COMPUTE,
  FN_PHASE_GRADIENTS,
  FN_PHASE_AGREE,
  FN_PHASE_VALIDATE,
  FN_PHASE_SAVE,
  FN_PHASE_COUNT
} fn_phase;
const char *fn_phase_name(fn_phase phase);

/** Watch over the ranks of the job; with timeout <= 0 or one rank *watchdog is NULL, which all
 *  functions here accept. Without MPI_THREAD_MULTIPLE a warning, and NULL. Collective; a failure is
 *  every rank's, and *watchdog, where it is set, is to be stopped all the same. */
fn_status fn_watchdog_start(const fn_dist *dist, double timeout, fn_watchdog **watchdog);
/** Collective, after the last step. */
void fn_watchdog_stop(fn_watchdog *watchdog);
/** This rank enters `phase` of step `step` (counted over the run). Cheap; one thread. */
void fn_watchdog_enter(fn_watchdog *watchdog, fn_phase phase, int64_t step);

#endif
