#include "run/timeline.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "dist/mpi_status.h"

struct fn_timeline {
  const fn_dist *dist;
  double zero; /**< fn_clock() */
  pthread_mutex_t lock;
  fn_timeline_event *event; /**< shape [capacity] */
  int64_t count, capacity;
};

fn_status fn_timeline_create(const fn_dist *dist, fn_timeline **timeline) {
  *timeline = NULL;
  fn_timeline *t = calloc(1, sizeof *t);
  // All ranks leave this call at about the same time.
  FN_TRY(fn_dist_agree(dist, t ? FN_OK
                               : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory")));
  fn_dist_max(dist, 0);
  t->dist = dist;
  t->zero = fn_clock();
  pthread_mutex_init(&t->lock, NULL);
  *timeline = t;
  return FN_OK;
}

void fn_timeline_destroy(fn_timeline *timeline) {
  if (!timeline) return;
  pthread_mutex_destroy(&timeline->lock);
  free(timeline->event);
  free(timeline);
}

/** Room for one more; lock held. */
static fn_timeline_event *append(fn_timeline *t) {
  if (t->count == t->capacity) {
    const int64_t capacity = t->capacity ? 2 * t->capacity : 1024;
    fn_timeline_event *event = realloc(t->event, (size_t)capacity * sizeof *event);
    if (!event) return NULL;
    t->event = event;
    t->capacity = capacity;
  }
  return &t->event[t->count++];
}

void fn_timeline_add(fn_timeline *t, int thread, const char *category, double start, double end,
                     const char *format, ...) {
  if (!t) return;
  va_list arguments;
  va_start(arguments, format);
  pthread_mutex_lock(&t->lock);
  fn_timeline_event *event = append(t);
  if (event) {
    *event = (fn_timeline_event){
        .rank = t->dist->rank, .thread = thread, .start = start - t->zero, .seconds = end - start};
    vsnprintf(event->name, sizeof event->name, format, arguments);
    snprintf(event->category, sizeof event->category, "%s", category);
  }
  pthread_mutex_unlock(&t->lock);
  va_end(arguments);
}

/** Rank 0 takes what rank `from` sends. */
static fn_status receive(fn_timeline *t, int from, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    fn_timeline_event event;
    FN_TRY_MPI(
        MPI_Recv(&event, (int)sizeof event, MPI_BYTE, from, 0, t->dist->comm, MPI_STATUS_IGNORE),
        "gathering a timeline");
    fn_timeline_event *to = append(t);
    if (to) *to = event;
  }
  return FN_OK;
}

fn_status fn_timeline_gather(fn_timeline *t) {
  const fn_dist *dist = t->dist;
  if (dist->rank != 0) {
    FN_TRY_MPI(MPI_Send(&t->count, 1, MPI_INT64_T, 0, 0, dist->comm), "gathering a timeline");
    for (int64_t i = 0; i < t->count; i++)
      FN_TRY_MPI(MPI_Send(&t->event[i], (int)sizeof *t->event, MPI_BYTE, 0, 0, dist->comm),
                 "gathering a timeline");
    return FN_OK;
  }
  for (int from = 1; from < dist->size; from++) {
    int64_t count;
    FN_TRY_MPI(MPI_Recv(&count, 1, MPI_INT64_T, from, 0, dist->comm, MPI_STATUS_IGNORE),
               "gathering a timeline");
    FN_TRY(receive(t, from, count));
  }
  return FN_OK;
}

int64_t fn_timeline_count(const fn_timeline *timeline) {
  return timeline->count;
}

const fn_timeline_event *fn_timeline_at(const fn_timeline *timeline, int64_t index) {
  return &timeline->event[index];
}
