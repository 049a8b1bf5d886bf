#include "dist/watchdog.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "dist/mpi_status.h"

enum { HOST = 64, TAG = 1, NAMED_MOST = 8 };

/** What a rank tells its watcher. */
typedef struct beat {
  int64_t step, phase, moves; /**< moves: how often the rank entered a phase */
  char host[HOST];
} beat;

/** What the watcher knows of a rank. */
typedef struct patient {
  beat last;
  double heard, moved; /**< fn_clock() of the last message, and of the last with new moves */
} patient;

struct fn_watchdog {
  const fn_dist *dist;
  MPI_Comm comm;
  double timeout, interval;
  _Atomic int64_t step, phase, moves;
  pthread_t thread;
  bool has_thread;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  bool stop; /**< guarded by lock */
  MPI_Request sending;
  beat outgoing;
  patient *patient; /**< shape [size] on rank 0, [1] (rank 0) on rank 1, else NULL */
  int patients;
};

const char *fn_phase_name(fn_phase phase) {
  static const char *const names[FN_PHASE_COUNT] = {"starting",
                                                    "waiting for input",
                                                    "computing gradients",
                                                    "summing gradients over ranks",
                                                    "agreeing on the step",
                                                    "validating",
                                                    "saving a state"};
  return names[phase];
}

void fn_watchdog_enter(fn_watchdog *w, fn_phase phase, int64_t step) {
  if (!w) return;
  atomic_store_explicit(&w->step, step, memory_order_relaxed);
  atomic_store_explicit(&w->phase, phase, memory_order_relaxed);
  atomic_fetch_add_explicit(&w->moves, 1, memory_order_release);
}

static beat current(fn_watchdog *w) {
  beat b = {.moves = atomic_load_explicit(&w->moves, memory_order_acquire),
            .step = atomic_load_explicit(&w->step, memory_order_relaxed),
            .phase = atomic_load_explicit(&w->phase, memory_order_relaxed)};
  snprintf(b.host, sizeof b.host, "%s", fn_host_name());
  return b;
}

static int watcher_of(int rank) {
  return rank == 0 ? 1 : 0;
}

/** Send where the last message has left; a watcher that does not take messages is not waited for.
 */
static void report(fn_watchdog *w) {
  int done = 1;
  if (w->sending != MPI_REQUEST_NULL) MPI_Test(&w->sending, &done, MPI_STATUS_IGNORE);
  if (!done) return;
  w->outgoing = current(w);
  MPI_Isend(&w->outgoing, sizeof w->outgoing, MPI_BYTE, watcher_of(w->dist->rank), TAG, w->comm,
            &w->sending);
}

static void note(patient *p, const beat *b) {
  p->heard = fn_clock();
  if (b->moves != p->last.moves) p->moved = p->heard;
  p->last = *b;
}

static void listen(fn_watchdog *w) {
  for (int waiting = 1; waiting;) {
    MPI_Status status;
    beat b;
    MPI_Iprobe(MPI_ANY_SOURCE, TAG, w->comm, &waiting, &status);
    if (!waiting) break;
    MPI_Recv(&b, sizeof b, MPI_BYTE, status.MPI_SOURCE, TAG, w->comm, MPI_STATUS_IGNORE);
    note(&w->patient[w->dist->rank == 0 ? status.MPI_SOURCE : 0], &b);
  }
  if (w->dist->rank == 0) { // itself: it hears of itself without a message
    const beat b = current(w);
    note(&w->patient[0], &b);
  }
}

/** Steps and phases in one number: who has the smallest is furthest behind. */
static int64_t place(const beat *b) {
  return b->step * FN_PHASE_COUNT + b->phase;
}

static void describe(const patient *p, int rank, double now, double timeout, fn_text *text) {
  char silent[32], still[32];
  fn_text_add(text, "\n  rank %d on %s, step %lld, %s: ", rank,
              p->last.host[0] ? p->last.host : "?", (long long)p->last.step,
              fn_phase_name((fn_phase)p->last.phase));
  if (now - p->heard > timeout)
    fn_text_add(text, "not heard of for %s", fn_text_duration(now - p->heard, silent, 32));
  else
    fn_text_add(text, "no further for %s", fn_text_duration(now - p->moved, still, 32));
}

/** Whether rank `i` of the patients is one that the others wait for: silent, or furthest behind. */
static bool guilty(const fn_watchdog *w, int i, double now, bool any_silent) {
  const patient *p = &w->patient[i];
  if (any_silent) return now - p->heard > w->timeout;
  int64_t last = INT64_MAX;
  for (int k = 0; k < w->patients; k++)
    if (place(&w->patient[k].last) < last) last = place(&w->patient[k].last);
  return place(&p->last) == last && now - p->moved > w->timeout;
}

/** All ranks have a tale to tell only when one of them stands still: print and end the job. */
static void judge(fn_watchdog *w) {
  const double now = fn_clock();
  bool still = false, silent = false;
  for (int i = 0; i < w->patients; i++) {
    still |= now - w->patient[i].moved > w->timeout;
    silent |= now - w->patient[i].heard > w->timeout;
  }
  if (!still && !silent) return;
  fn_text text = {0};
  int named = 0, more = 0;
  for (int i = 0; i < w->patients; i++) {
    if (!guilty(w, i, now, silent)) continue;
    if (named++ < NAMED_MOST)
      describe(&w->patient[i], i, now, w->timeout, &text);
    else
      more++;
  }
  if (named == 0) { // somebody ahead stands still while those behind get on: not yet a hang
    fn_text_free(&text);
    return;
  }
  if (more) fn_text_add(&text, "\n  and %d more", more);
  fn_error_set(FN_ERR_LOST, __FILE__, __LINE__,
               "the job does not get on (run.hang_timeout: %g s). The others wait for:%s\nStart "
               "again to go on from the last state",
               w->timeout, text.data ? text.data : "");
  fn_text_free(&text);
  fn_dist_abort(w->dist, FN_ERR_LOST);
}

/** A watcher that was itself stopped for a while cannot accuse the others of silence. */
static void forgive(fn_watchdog *w) {
  const double now = fn_clock();
  for (int i = 0; i < w->patients; i++)
    w->patient[i].heard = w->patient[i].moved = now;
}

static void *watch(void *argument) {
  fn_watchdog *w = argument;
  double round = fn_clock();
  pthread_mutex_lock(&w->lock);
  while (!w->stop) {
    pthread_mutex_unlock(&w->lock);
    report(w);
    if (w->patients > 0) {
      listen(w);
      if (fn_clock() - round > w->timeout / 2) forgive(w);
      judge(w);
    }
    round = fn_clock();
    pthread_mutex_lock(&w->lock);
    if (!w->stop) fn_cond_wait_until(&w->wake, &w->lock, round + w->interval);
  }
  pthread_mutex_unlock(&w->lock);
  return NULL;
}

static fn_watchdog *allocate(const fn_dist *dist, double timeout) {
  fn_watchdog *w = calloc(1, sizeof *w);
  if (!w) return NULL;
  *w = (fn_watchdog){.dist = dist,
                     .comm = MPI_COMM_NULL,
                     .timeout = timeout,
                     .interval = timeout / 8 < 1 ? timeout / 8 : 1,
                     .sending = MPI_REQUEST_NULL,
                     .patients = dist->rank == 0 ? dist->size : dist->rank == 1};
  w->patient = calloc((size_t)w->patients + 1, sizeof *w->patient);
  if (w->patient) return w;
  free(w);
  return NULL;
}

static fn_status release(fn_watchdog *w, fn_status status) {
  if (w) free(w->patient);
  free(w);
  return status;
}

fn_status fn_watchdog_start(const fn_dist *dist, double timeout, fn_watchdog **watchdog) {
  *watchdog = NULL;
  if (timeout <= 0 || dist->size == 1) return FN_OK;
  if (!dist->threads_multiple) {
    fn_log(FN_WARN, "run.hang_timeout needs MPI_THREAD_MULTIPLE: nobody watches over the ranks");
    return FN_OK;
  }
  fn_watchdog *w = allocate(dist, timeout);
  fn_status status =
      w ? FN_OK : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for the watchdog");
  status = fn_dist_agree(dist, status);
  if (status == FN_OK)
    status =
        fn_mpi_status(MPI_Comm_dup(dist->comm, &w->comm), "making the watchdog's communicator");
  if (status != FN_OK) return release(w, status);
  // A message to a rank that is gone must not end this one before it has said who it is.
  MPI_Comm_set_errhandler(w->comm, MPI_ERRORS_RETURN);
  forgive(w);
  pthread_mutex_init(&w->lock, NULL);
  fn_cond_init(&w->wake);
  *watchdog = w; // also without a thread: those of other ranks are stopped together with it
  w->has_thread = fn_thread_start(&w->thread, watch, w) == 0;
  if (!w->has_thread)
    status = fn_error_set(FN_ERR_INTERNAL, __FILE__, __LINE__, "no thread for the watchdog");
  return fn_dist_agree(dist, status);
}

/** Take in what was sent and not yet read, so that the senders' requests complete. */
static void drain(fn_watchdog *w) {
  int sent = 0, all = 0;
  MPI_Request barrier = MPI_REQUEST_NULL;
  for (bool mine = false; !all;) {
    if (w->patients > 0) listen(w);
    if (!sent) MPI_Test(&w->sending, &sent, MPI_STATUS_IGNORE);
    if (sent && !mine) {
      MPI_Ibarrier(w->comm, &barrier);
      mine = true;
    }
    if (mine) MPI_Test(&barrier, &all, MPI_STATUS_IGNORE);
  }
}

void fn_watchdog_stop(fn_watchdog *w) {
  if (!w) return;
  pthread_mutex_lock(&w->lock);
  w->stop = true;
  pthread_cond_signal(&w->wake);
  pthread_mutex_unlock(&w->lock);
  if (w->has_thread) pthread_join(w->thread, NULL);
  drain(w);
  MPI_Comm_free(&w->comm);
  pthread_mutex_destroy(&w->lock);
  pthread_cond_destroy(&w->wake);
  release(w, FN_OK);
}
