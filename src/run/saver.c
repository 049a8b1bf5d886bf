#include "run/saver.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "run/snapshot.h"
#include "run/starts.h"

typedef enum phase {
  IDLE,   // nothing to write
  ASKED,  // a snapshot waits for the thread
  WRITES, // the thread reads the snapshot
  FAILED  // the snapshot is kept for another try
} phase;

struct fn_saver {
  const fn_run *run;
  fn_save_told told;
  void *user;
  fn_snapshot *snapshot; // NULL: no thread
  int64_t index;
  bool best;
  pthread_t thread;
  bool started;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  // Guarded by lock.
  phase phase;
  bool quit, news;
  double since, retry_at, longest; // fn_clock() of the write's start and of the next try; seconds
  fn_save_result result;
};

/** Whether a write is under way. The lock is held. */
static bool is_busy(const fn_saver *s) {
  return s->phase == ASKED || s->phase == WRITES;
}

/* ---- writing --------------------------------------------------------------------------------- */

static fn_status write_files(const fn_saver *s, const fn_state *state) {
  const fn_run *run = s->run;
  char name[64];
  snprintf(name, sizeof name, "state_%lld.h5", (long long)s->index);
  FN_TRY(fn_checkpoint_save(run->folder, s->index, state));
  fn_starts_forget(run->folder);
  if (s->best) FN_TRY(fn_checkpoint_link(run->folder, "best.h5", name));
  if (state->progress->stretches > 0) return FN_OK;
  return fn_checkpoint_retain(run->folder, run->checkpoint.keep_last, run->checkpoint.keep_every);
}

/** Write without the lock, which is held before and after. */
static void write_state(fn_saver *s, const fn_state *state) {
  s->phase = WRITES;
  s->since = fn_clock();
  pthread_mutex_unlock(&s->lock);
  const fn_status status = write_files(s, state);
  pthread_mutex_lock(&s->lock);
  const double now = fn_clock();
  s->result.status = status;
  s->result.seconds = now - s->since;
  s->result.retry_in = s->run->checkpoint.retry_seconds;
  snprintf(s->result.message, sizeof s->result.message, "%s",
           status == FN_OK ? "" : fn_error_message());
  s->longest = fmax(s->longest, s->result.seconds);
  s->retry_at = now + s->result.retry_in;
  s->phase = status == FN_OK ? IDLE : FAILED;
  s->news = true;
  pthread_cond_broadcast(&s->changed);
}

static void *write_snapshots(void *argument) {
  fn_saver *s = argument;
  fn_thread_unpin();
  pthread_mutex_lock(&s->lock);
  for (;;) {
    if (s->phase == ASKED || (s->phase == FAILED && !s->quit && fn_clock() >= s->retry_at))
      write_state(s, fn_snapshot_state(s->snapshot));
    else if (s->quit)
      break;
    else if (s->phase == FAILED)
      fn_cond_wait_until(&s->changed, &s->lock, s->retry_at);
    else
      pthread_cond_wait(&s->changed, &s->lock);
  }
  pthread_mutex_unlock(&s->lock);
  return NULL;
}

static fn_status start_thread(fn_saver *s) {
  const int error = fn_thread_start(&s->thread, write_snapshots, s);
  FN_CHECK(!error, FN_ERR_MEMORY, "cannot start the thread that writes states: %s",
           strerror(error));
  s->started = true;
  return FN_OK;
}

/* ---- creation -------------------------------------------------------------------------------- */

fn_status fn_saver_create(const fn_run *run, const fn_state *state, bool background,
                          fn_save_told told, void *user, fn_saver **saver) {
  *saver = NULL;
  fn_saver *s = calloc(1, sizeof *s);
  FN_CHECK(s, FN_ERR_MEMORY, "out of memory");
  s->run = run;
  s->told = told;
  s->user = user;
  pthread_mutex_init(&s->lock, NULL);
  fn_cond_init(&s->changed);
  fn_status status = background ? fn_snapshot_create(run, state, &s->snapshot) : FN_OK;
  if (status == FN_OK && background) status = start_thread(s);
  if (status != FN_OK) {
    fn_saver_destroy(s);
    return status;
  }
  *saver = s;
  return FN_OK;
}

/** Tell the news, if any. The lock is held before and after. */
static void tell(fn_saver *s) {
  if (!s->news) return;
  s->news = false;
  const fn_save_result result = s->result;
  pthread_mutex_unlock(&s->lock);
  if (s->told) s->told(s->user, &result);
  pthread_mutex_lock(&s->lock);
}

static void wait_for_writer(fn_saver *s) {
  while (is_busy(s))
    pthread_cond_wait(&s->changed, &s->lock);
}

void fn_saver_destroy(fn_saver *saver) {
  if (!saver) return;
  pthread_mutex_lock(&saver->lock);
  saver->quit = true;
  pthread_cond_broadcast(&saver->changed);
  if (saver->started) wait_for_writer(saver);
  tell(saver);
  pthread_mutex_unlock(&saver->lock);
  if (saver->started) pthread_join(saver->thread, NULL);
  fn_snapshot_destroy(saver->snapshot);
  pthread_cond_destroy(&saver->changed);
  pthread_mutex_destroy(&saver->lock);
  free(saver);
}

/* ---- saving ---------------------------------------------------------------------------------- */

void fn_saver_save(fn_saver *saver, const fn_state *state, int64_t index, bool best) {
  const double start = fn_clock();
  pthread_mutex_lock(&saver->lock);
  wait_for_writer(saver);
  if (saver->phase == FAILED && saver->best && !best)
    fn_log(FN_WARN,
           "%s, the best state so far, could not be written and is given up for a newer "
           "one; best.h5 stays as it was",
           saver->result.path);
  saver->phase = IDLE; // ends the tries of the one before: its snapshot may be overwritten
  tell(saver);
  const double ready = fn_clock();
  if (saver->snapshot) fn_snapshot_take(saver->snapshot, state);
  saver->index = index;
  saver->best = best;
  saver->result = (fn_save_result){.waited = ready - start, .snapshot = fn_clock() - ready};
  snprintf(saver->result.path, sizeof saver->result.path, "%s/state_%lld.h5", saver->run->folder,
           (long long)index);
  if (saver->snapshot) {
    saver->phase = ASKED;
    saver->since = fn_clock();
    pthread_cond_broadcast(&saver->changed);
  } else {
    write_state(saver, state);
    tell(saver);
  }
  pthread_mutex_unlock(&saver->lock);
}

void fn_saver_poll(fn_saver *saver) {
  pthread_mutex_lock(&saver->lock);
  tell(saver);
  pthread_mutex_unlock(&saver->lock);
}

fn_status fn_saver_wait(fn_saver *saver) {
  pthread_mutex_lock(&saver->lock);
  wait_for_writer(saver);
  const bool failed = saver->phase == FAILED; // while it is told, the thread may try again
  const fn_save_result result = saver->result;
  tell(saver);
  pthread_mutex_unlock(&saver->lock);
  return failed ? fn_error_set(result.status, __FILE__, __LINE__, "%s", result.message) : FN_OK;
}

bool fn_saver_retry_due(const fn_saver *saver) {
  return !saver->snapshot && saver->phase == FAILED && fn_clock() >= saver->retry_at;
}

double fn_saver_foretell(fn_saver *saver) {
  pthread_mutex_lock(&saver->lock);
  const bool busy = is_busy(saver);
  const double longest = fmax(saver->longest, busy ? fn_clock() - saver->since : 0);
  pthread_mutex_unlock(&saver->lock);
  return (busy ? 3 : 2) * longest;
}
