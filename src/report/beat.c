#include "report/beat.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "report/sinks.h"

enum { PATH_SIZE = 4096, MESSAGE_SIZE = 1024 };

struct fn_beat {
  char path[PATH_SIZE], temporary[PATH_SIZE];
  double interval;
  int ranks;
  int64_t epochs, resumed_step;
  double started; // seconds since 1970, as all times in the file
  char machine[64], job[128];
  pthread_t thread;
  pthread_mutex_t lock; // of what follows
  pthread_cond_t wake;
  bool stop;
  fn_progress_event progress;
  double stepped; // when the last step ended
  double loss, lr, samples_per_second, train_loss, validation_loss;
  int64_t warnings;
  char message[MESSAGE_SIZE];
  const char *state;
  int exit_code; // -1: none yet
};

/* ---- the file -------------------------------------------------------------------------------- */

static void add_integer(fn_text *text, const char *key, int64_t value) {
  fn_text_add(text, "  \"%s\": %" PRId64 ",\n", key, value);
}

static void add_number(fn_text *text, const char *key, double value) {
  char number[40];
  fn_text_add(text, "  \"%s\": %s,\n", key,
              isfinite(value) ? fn_report_number(value, number, sizeof number) : "null");
}

static void add_time(fn_text *text, const char *key, double value) {
  fn_text_add(text, "  \"%s\": %.3f,\n", key, value);
}

static void add_words(fn_text *text, const char *key, const char *words) {
  fn_text_add(text, "  \"%s\": ", key);
  if (words[0])
    fn_text_add_json_utf8(text, words); // the file is read back as YAML, which refuses some bytes
  else
    fn_text_add(text, "null");
  fn_text_add(text, ",\n");
}

/** With the lock held. */
static void compose(const fn_beat *b, fn_text *text) {
  fn_text_add(text, "{\n");
  add_words(text, "state", b->state);
  add_words(text, "host", fn_host_name());
  add_words(text, "machine", b->machine);
  add_integer(text, "pid", getpid());
  add_words(text, "job", b->job);
  add_integer(text, "ranks", b->ranks);
  add_words(text, "version", fn_version());
  add_time(text, "started", b->started);
  add_time(text, "updated", fn_time_now());
  add_number(text, "interval", b->interval);
  add_integer(text, "resumed_step", b->resumed_step);
  add_integer(text, "epochs", b->epochs);
  add_integer(text, "epochs_done", b->progress.epochs_done);
  add_integer(text, "step", b->progress.step);
  add_integer(text, "epoch_step", b->progress.epoch_step);
  add_integer(text, "epoch_steps", b->progress.epoch_steps);
  if (b->stepped > 0) add_time(text, "stepped", b->stepped);
  add_number(text, "loss", b->loss);
  add_number(text, "train_loss", b->train_loss);
  add_number(text, "validation_loss", b->validation_loss);
  add_number(text, "lr", b->lr);
  add_number(text, "samples_per_second", b->samples_per_second);
  add_integer(text, "warnings", b->warnings);
  add_words(text, "message", b->message);
  if (b->exit_code >= 0) add_integer(text, "exit_code", b->exit_code);
  fn_text_cut(text, text->length - 2); // the last comma
  fn_text_add(text, "\n}\n");
}

/** The temporary names are fixed: only this process, which has the folder's lock, writes here, and
 *  what a kill leaves of one is overwritten by the next start. */
static fn_status replace(const fn_beat *b, const char *temporary, const fn_text *text) {
  FN_CHECK(!text->incomplete, FN_ERR_MEMORY, "out of memory for %s", b->path);
  const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  FN_CHECK(fd >= 0, FN_ERR_DATA, "cannot create %s: %s", temporary, strerror(errno));
  size_t done = 0;
  while (done < text->length) {
    const ssize_t n = write(fd, text->data + done, text->length - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    done += (size_t)n;
  }
  const int reason = errno;
  const bool whole = close(fd) == 0 && done == text->length;
  if (!whole) unlink(temporary);
  FN_CHECK(whole, FN_ERR_DATA, "cannot write %s: %s", temporary, strerror(reason));
  FN_CHECK(rename(temporary, b->path) == 0, FN_ERR_DATA, "cannot rename %s: %s", temporary,
           strerror(errno));
  return FN_OK;
}

/** Trouble is told once, and tried again the next time. */
static void put(const fn_beat *b, const fn_text *text) {
  if (replace(b, b->temporary, text) == FN_OK) return;
  fn_log_once(FN_WARN, "the run cannot be watched for now: %s", fn_error_message());
  fn_error_clear();
}

static void *beat(void *argument) {
  fn_beat *b = argument;
  fn_thread_unpin();
  pthread_mutex_lock(&b->lock);
  while (!b->stop) {
    fn_text text = {0};
    compose(b, &text);
    pthread_mutex_unlock(&b->lock);
    put(b, &text);
    fn_text_free(&text);
    pthread_mutex_lock(&b->lock);
    if (!b->stop) fn_cond_wait_until(&b->wake, &b->lock, fn_clock() + b->interval);
  }
  pthread_mutex_unlock(&b->lock);
  return NULL;
}

/* ---- notes ----------------------------------------------------------------------------------- */

static void find_job(char *text, size_t size) {
  const char *const variables[] = {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"};
  const char *id = NULL;
  for (size_t i = 0; i < sizeof variables / sizeof variables[0] && !id; i++)
    id = getenv(variables[i]);
  snprintf(text, size, "%s", id ? id : "");
}

fn_status fn_beat_start(const fn_run *run, double interval, int ranks, int64_t resumed_step,
                        int64_t warnings, fn_beat **out) {
  *out = NULL;
  fn_beat *b = calloc(1, sizeof *b);
  FN_CHECK(b, FN_ERR_MEMORY, "out of memory");
  snprintf(b->path, sizeof b->path, "%s/" FN_BEAT_FILE, run->folder);
  snprintf(b->temporary, sizeof b->temporary, "%s/.status.json.new", run->folder);
  b->interval = interval > 0 ? interval : 5;
  b->ranks = ranks;
  b->epochs = run->train.epochs;
  b->resumed_step = resumed_step;
  b->progress.step = resumed_step;
  b->started = fn_time_now();
  b->warnings = warnings;
  fn_boot_id(b->machine, sizeof b->machine);
  find_job(b->job, sizeof b->job);
  b->loss = b->lr = b->samples_per_second = b->train_loss = b->validation_loss = (double)NAN;
  b->state = "running";
  b->exit_code = -1;
  pthread_mutex_init(&b->lock, NULL);
  fn_cond_init(&b->wake);
  if (fn_thread_start(&b->thread, beat, b) != 0) {
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->wake);
    free(b);
    FN_FAIL(FN_ERR_INTERNAL, "no thread to write status.json");
  }
  *out = b;
  return FN_OK;
}

void fn_beat_progress(fn_beat *b, const fn_progress_event *event) {
  if (!b) return;
  pthread_mutex_lock(&b->lock);
  if (event->step > b->progress.step) b->stepped = fn_time_now();
  b->progress = *event;
  pthread_mutex_unlock(&b->lock);
}

void fn_beat_step(fn_beat *b, const fn_step_event *event) {
  if (!b) return;
  pthread_mutex_lock(&b->lock);
  b->loss = event->loss;
  b->lr = event->lr;
  b->samples_per_second =
      event->seconds > 0 ? (double)event->samples / event->seconds : (double)NAN;
  pthread_mutex_unlock(&b->lock);
}

void fn_beat_epoch(fn_beat *b, const fn_epoch_event *event) {
  if (!b) return;
  pthread_mutex_lock(&b->lock);
  b->progress.epochs_done = event->epoch;
  b->progress.epoch_step = 0;
  b->train_loss = event->train_loss;
  b->validation_loss = event->validation_loss;
  pthread_mutex_unlock(&b->lock);
}

void fn_beat_message(fn_beat *b, const char *text, bool final) {
  if (!b) return;
  fn_text file = {0};
  pthread_mutex_lock(&b->lock);
  b->warnings += !final;
  snprintf(b->message, sizeof b->message, "%s", text);
  if (final) compose(b, &file);
  pthread_mutex_unlock(&b->lock);
  // By a name of its own, for the thread may be writing; without a message, for the caller is the
  // log; and the message that ends the run must stay.
  if (final) {
    char message[MESSAGE_SIZE], temporary[PATH_SIZE + 8];
    snprintf(message, sizeof message, "%s", fn_error_message());
    snprintf(temporary, sizeof temporary, "%s.end", b->temporary);
    if (replace(b, temporary, &file) != FN_OK)
      fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "%s", message);
  }
  fn_text_free(&file);
}

void fn_beat_stop(fn_beat *b, bool ended, fn_status status, const char *message) {
  if (!b) return;
  pthread_mutex_lock(&b->lock);
  b->stop = true;
  pthread_cond_signal(&b->wake);
  pthread_mutex_unlock(&b->lock);
  pthread_join(b->thread, NULL);
  if (ended) {
    fn_text text = {0};
    b->state = status == FN_OK ? "finished" : fn_is_stop(status) ? "stopped" : "failed";
    b->exit_code = (int)status;
    if (status != FN_OK && !fn_is_stop(status))
      snprintf(b->message, sizeof b->message, "%s", message);
    compose(b, &text);
    put(b, &text);
    fn_text_free(&text);
  }
  pthread_mutex_destroy(&b->lock);
  pthread_cond_destroy(&b->wake);
  free(b);
}
