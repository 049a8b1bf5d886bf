/* What saving a state costs the training that goes on beside it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "run/bench_internal.h"
#include "run/saver.h"

/** Rank 0's side: states of the network and its optimizer, in a folder of their own inside the run
 *  folder, which is on the file system that matters. */
typedef struct saving {
  fn_run run; // the run, with that folder
  char folder[4096];
  bool made_parent;
  fn_schedule schedule;
  fn_progress progress;
  float *ema;
  size_t ema_bytes;
  fn_state state;
  fn_saver *saver;
  fn_save_result last;
  int64_t index;
} saving;

static void keep_result(void *user, const fn_save_result *result) {
  saving *s = user;
  s->last = *result;
}

static fn_status open_saving(bench *b, saving *s) {
  const char *parent = b->run->folder;
  s->run = *b->run;
  const int length =
      snprintf(s->folder, sizeof s->folder, "%s/bench-checkpoint.%ld", parent, (long)getpid());
  FN_CHECK(length < (int)sizeof s->folder, FN_ERR_CONFIG, "path too long: %s", parent);
  s->made_parent = !fn_file_exists(parent);
  FN_TRY(fn_make_directories(s->folder));
  s->run.folder = s->folder;
  s->run.checkpoint.keep_last = 1;
  s->run.checkpoint.keep_every = 0;
  s->run.checkpoint.retry_seconds = 1e9; // a failure ends the measurement
  if (b->run->train.ema_decay > 0) {
    s->ema_bytes = (size_t)b->parameters->count * sizeof(float);
    FN_TRY(fn_pages_allocate(s->ema_bytes, (void **)&s->ema));
  }
  fn_schedule_init(b->run, &s->schedule);
  s->state = (fn_state){.parameters = b->parameters,
                        .optimizer = b->optimizer,
                        .ema = s->ema,
                        .schedule = &s->schedule,
                        .progress = &s->progress,
                        .configuration = b->run->resolved};
  return fn_saver_create(&s->run, &s->state, b->run->checkpoint.background, keep_result, s,
                         &s->saver);
}

static void close_saving(const bench *b, saving *s) {
  char path[4200];
  fn_saver_destroy(s->saver);
  if (s->ema) fn_pages_free(s->ema, s->ema_bytes);
  snprintf(path, sizeof path, "%s/state_%lld.h5", s->folder, (long long)s->index);
  unlink(path);
  snprintf(path, sizeof path, "%s/checkpoint.h5", s->folder);
  unlink(path);
  if (s->folder[0]) rmdir(s->folder);
  if (s->made_parent) rmdir(b->run->folder);
}

/** A turn: with `s`, a save, then `steps` steps. *first: seconds of the save and the first step. */
static fn_status take_turn(bench *b, saving *s, int64_t steps, double *first, double *all) {
  fn_dist_max(b->dist, 0); // all ranks begin together
  const double start = fn_clock();
  if (s) fn_saver_save(s->saver, &s->state, ++s->index, false);
  for (int64_t i = 0; i < steps; i++) {
    FN_TRY(fn_bench_one_step(b));
    if (i == 0) *first = fn_clock() - start;
  }
  *all = fn_clock() - start;
  return FN_OK;
}

static fn_status on_disk(const bench *b, saving *s) {
  return fn_dist_agree(b->dist, b->dist->rank == 0 ? fn_saver_wait(s->saver) : FN_OK);
}

/** Steps of a turn: enough for the write, which is slower while they go on, to end within it. */
static fn_status choose_steps(bench *b, saving *s, int64_t *steps) {
  double first = 0, alone, write;
  for (int64_t i = 0; i < b->options->warmup; i++)
    FN_TRY(take_turn(b, NULL, 1, &first, &alone));
  FN_TRY(take_turn(b, NULL, 1, &first, &alone));
  FN_TRY(take_turn(b, b->dist->rank == 0 ? s : NULL, 1, &first, &write));
  FN_TRY(on_disk(b, s));
  const double most = 1000;
  *steps = (int64_t)fmin(most, 1 + ceil(2 * s->last.seconds / alone));
  return fn_dist_broadcast(b->dist, steps, sizeof *steps);
}

typedef struct samples {
  double *step, *saving_step, *extra, *snapshot, *write; // shape [rounds] each
} samples;

static fn_status run_turns(bench *b, saving *s, const samples *t) {
  bench_checkpoint *c = &b->checkpoint;
  FN_TRY(choose_steps(b, s, &c->steps));
  for (int64_t i = 0; i < c->rounds; i++) {
    double first = 0, without, saved_first = 0, with;
    FN_TRY(take_turn(b, NULL, c->steps, &first, &without));
    FN_TRY(take_turn(b, b->dist->rank == 0 ? s : NULL, c->steps, &saved_first, &with));
    FN_TRY(on_disk(b, s));
    t->step[i] = without / (double)c->steps;
    t->saving_step[i] = saved_first;
    t->extra[i] = with - without;
    t->snapshot[i] = s->last.snapshot;
    t->write[i] = s->last.seconds;
  }
  return FN_OK;
}

static void conclude(bench *b, const samples *t) {
  bench_checkpoint *c = &b->checkpoint;
  c->step = fn_bench_median(t->step, c->rounds);
  c->saving_step = fn_bench_median(t->saving_step, c->rounds);
  c->extra = fn_bench_median(t->extra, c->rounds);
  c->snapshot = fn_bench_median(t->snapshot, c->rounds);
  c->write = fn_bench_median(t->write, c->rounds);
  c->background = b->run->checkpoint.background;
  c->measured = true;
}

static fn_status count_bytes(bench *b, const saving *s) {
  char path[4200];
  struct stat info;
  snprintf(path, sizeof path, "%s/state_%lld.h5", s->folder, (long long)s->index);
  FN_CHECK(stat(path, &info) == 0, FN_ERR_CHECKPOINT, "%s is gone", path);
  b->checkpoint.bytes = (int64_t)info.st_size;
  return FN_OK;
}

static fn_status measure(bench *b, saving *s, double *values) {
  const int64_t rounds = b->checkpoint.rounds;
  const samples t = {values, values + rounds, values + 2 * rounds, values + 3 * rounds,
                     values + 4 * rounds};
  const bool root = b->dist->rank == 0;
  fn_status status = fn_dist_agree(b->dist, root ? open_saving(b, s) : FN_OK);
  if (status == FN_OK) status = run_turns(b, s, &t);
  if (status == FN_OK) status = fn_dist_agree(b->dist, root ? count_bytes(b, s) : FN_OK);
  if (status == FN_OK) conclude(b, &t);
  if (root) close_saving(b, s);
  return status;
}

fn_status fn_bench_saves(bench *b) {
  const int64_t rounds = b->checkpoint.rounds = b->options->steps;
  saving *s = calloc(1, sizeof *s);
  double *values = calloc((size_t)rounds * 5, sizeof *values);
  fn_status status =
      s && values ? FN_OK : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  status = fn_dist_agree(b->dist, status);
  if (status == FN_OK) status = measure(b, s, values);
  free(values);
  free(s);
  return status;
}

void fn_bench_print_saves(const bench *b) {
  const bench_checkpoint *c = &b->checkpoint;
  if (!b->out || !c->measured) return;
  char bytes[32];
  const double rate = 1e-9 * (double)c->bytes, steps = c->extra / c->step;
  fprintf(b->out, "\ncheckpoint: %lld turns of %lld steps without and with a save, %s\n",
          (long long)c->rounds, (long long)c->steps,
          c->background ? "written while they go on" : "which they wait for");
  fprintf(b->out, "state        %10s\n", fn_text_bytes((double)c->bytes, bytes, sizeof bytes));
  if (c->background)
    fprintf(b->out, "copy         %10.2f ms   %.2f GB/s, training waits\n", 1e3 * c->snapshot,
            rate / c->snapshot);
  fprintf(b->out,
          "write        %10.2f ms   %.2f GB/s: built, flushed to disk, read back, renamed\n",
          1e3 * c->write, rate / c->write);
  fprintf(b->out, "step         %10.2f ms   the one after a save with it %.2f\n", 1e3 * c->step,
          1e3 * c->saving_step);
  fprintf(b->out, "stall        %10.2f ms   that a save costs in all: %.3f of a step\n",
          1e3 * c->extra, steps);
  fprintf(b->out, "at most one step of stall: %s\n", steps <= 1 ? "yes" : "no");
}
