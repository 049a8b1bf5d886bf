/** @file timeline.h
 *  What happened when, on the threads of all ranks: events for a trace.
 */
#ifndef FN_RUN_TIMELINE_H
#define FN_RUN_TIMELINE_H

#include "dist/dist.h"

/** Rows of a rank in a trace. */
enum {
  FN_TIMELINE_MAIN = 0,      /**< steps, their phases, kernels */
  FN_TIMELINE_REDUCTION = 1, /**< + bucket modulo 4: buckets under way at once */
  FN_TIMELINE_READER = 8,    /**< + reading thread */
};

typedef struct fn_timeline_event {
  char name[112];
  char category[16];
  int rank, thread;
  double start, seconds; /**< start: since the timeline's zero */
} fn_timeline_event;

typedef struct fn_timeline fn_timeline;

/** Zero is now, on all ranks at once: clocks of different nodes need not agree. Collective. */
fn_status fn_timeline_create(const fn_dist *dist, fn_timeline **timeline);
void fn_timeline_destroy(fn_timeline *timeline);
/** start and end are times of fn_clock(). Thread-safe. Drops the event when memory is out. NULL
 * timeline: nothing. */
void fn_timeline_add(fn_timeline *timeline, int thread, const char *category, double start,
                     double end, const char *format, ...) __attribute__((format(printf, 6, 7)));
/** Bring the events of all ranks to rank 0. Collective. */
fn_status fn_timeline_gather(fn_timeline *timeline);
int64_t fn_timeline_count(const fn_timeline *timeline);
const fn_timeline_event *fn_timeline_at(const fn_timeline *timeline, int64_t index);

#endif
