/* Groups of ranks that train different things at the same time, many times in one process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>

#include "base/log.h"
#include "base/system.h"
#include "data/synth.h"
#include "mpi_test.h"
#include "run/run_loop.h"

enum { EPOCHS = 3 };
static char folder[64];

/** What was seen of one training: losses of all epochs as told to the caller. */
typedef struct trained {
  fn_status status;
  fn_train_result result;
  int told;                  /**< epochs */
  double loss[2][EPOCHS];    /**< training, validation */
  int enough_at, stop_after; /**< epoch; questions; 0: never */
  int asked;
} trained;

static fn_status on_epoch(void *self, const fn_epoch_event *event, bool *enough) {
  trained *t = self;
  t->loss[0][event->epoch - 1] = event->train_loss;
  t->loss[1][event->epoch - 1] = event->validation_loss;
  t->told++;
  *enough = event->epoch == t->enough_at;
  return FN_OK;
}

static bool on_stop(void *self) {
  trained *t = self;
  return ++t->asked == t->stop_after;
}

/** The run of group `which`: another network, seed and learning rate for each. */
static fn_run *make_run(int which, const char *name) {
  char text[2048];
  const bool few_states = strncmp(name, "trial", 5) == 0; // of many, which would keep the disk busy
  snprintf(text, sizeof text,
           "seed: %d\n"
           "folder: %s/%s\n"
           "model: {layers: [conv: {channels: %d, kernel: 3}, batch_norm, leaky_relu: 0.1, "
           "conv: {channels: out, kernel: 3}]}\n"
           "data:\n"
           "  train: {input: '%s/data/lin/00*.npy', target: '%s/data/lpt2/00*.npy'}\n"
           "  validation: {input: '%s/data/lin/000.npy', target: '%s/data/lpt2/000.npy'}\n"
           "  crop: 8\n"
           "  input_pad: 2\n"
           "train: {epochs: %d, batch: 2, log_interval: 1}\n"
           "optimizer: {name: adam, lr: %g}\n"
           "compute: {threads: 1}\n"
           "run: {hang_timeout: 60}\n"
           "checkpoint: {every_epochs: %d, best: %s}\n"
           "report: {plots: false, tensorboard: false}\n",
           7 + which, folder, name, 4 + which, folder, folder, folder, folder, EPOCHS,
           1e-3 * (1 + which), few_states ? EPOCHS : 1, few_states ? "null" : "validation");
  fn_run *run = NULL;
  char *errors = NULL;
  if (fn_run_parse(text, "run.yaml", NULL, 0, FN_COMMAND_TRAIN, &run, &errors) != FN_OK)
    fail_msg("%s\n%s", errors ? errors : fn_error_message(), text);
  return run;
}

static void train(fn_dist *group, int which, const char *name, trained *t) {
  fn_run *run = make_run(which, name);
  const fn_train_options options = {
      .self = t, .deadline = INFINITY, .stop = on_stop, .epoch = on_epoch};
  fn_log_identify(group->rank, group->size);
  t->status = fn_train_with(run, group, NULL, &options, &t->result);
  if (t->status != FN_OK && t->status != FN_INTERRUPTED) print_error("%s\n", fn_error_message());
  fn_log_identify(dist.rank, dist.size);
  fn_run_destroy(run);
}

/** Two groups where there are ranks for two: 0 1 | 2 3. */
static int color(void) {
  return dist.rank >= (dist.size + 1) / 2;
}

static void groups_by_color_and_key(void **state) {
  (void)state;
  fn_dist group, reversed;
  assert_int_equal(fn_dist_split(&dist, color(), dist.rank, &group), FN_OK);
  const int first = color() ? (dist.size + 1) / 2 : 0;
  const int size = color() ? dist.size - first : (dist.size + 1) / 2;
  assert_int_equal(group.rank, dist.rank - first);
  assert_int_equal(group.size, size);
  assert_int_equal(group.cores, dist.cores); // its own, also of the device: all groups run at once
  assert_int_equal(group.node_rank, dist.node_rank);
  double sum = dist.rank + 1, expected = 0;
  for (int r = first; r < first + size; r++)
    expected += r + 1;
  assert_int_equal(group.collectives.sum(group.collectives.self, &sum, 1), FN_OK);
  assert_true(sum == expected);
  assert_int_equal(fn_dist_split(&dist, 0, -dist.rank, &reversed), FN_OK);
  assert_int_equal(reversed.rank, dist.size - 1 - dist.rank);
  assert_int_equal(reversed.size, dist.size);
  // What one group agrees on is no matter of the other's.
  const fn_status mine = color() ? fn_error_set(FN_ERR_DATA, "x.c", 1, "bad") : FN_OK;
  assert_int_equal(fn_dist_agree(&group, mine), color() ? FN_ERR_DATA : FN_OK);
  assert_int_equal(fn_dist_max(&group, dist.rank), first + size - 1);
  fn_dist_release(&reversed);
  fn_dist_release(&group);
  assert_true(group.comm == MPI_COMM_NULL && group.gradient_comm == MPI_COMM_NULL);
  assert_int_equal(fn_dist_max(&dist, dist.rank), dist.size - 1);
}

static void assert_same(const fn_dist *group, const trained *a, const trained *b) {
  assert_int_equal(a->status, FN_OK);
  assert_int_equal(b->status, FN_OK);
  assert_int_equal(a->result.end, FN_TRAIN_EPOCHS);
  assert_int_equal(a->result.steps, b->result.steps);
  assert_memory_equal(&a->result.best_metric, &b->result.best_metric, sizeof(double));
  assert_memory_equal(&a->result.train_loss, &b->result.train_loss, sizeof(double));
  assert_memory_equal(a->loss, b->loss, sizeof a->loss);
  assert_int_equal(a->told, group->rank == 0 ? EPOCHS : 0);
  if (group->rank == 0) assert_true(a->loss[0][EPOCHS - 1] < a->loss[0][0]);
}

static void together_as_alone(void **state) {
  (void)state;
  fn_dist group;
  assert_int_equal(fn_dist_split(&dist, color(), dist.rank, &group), FN_OK);
  trained alone = {0}, together = {0};
  for (int turn = 0; turn < 2; turn++) {
    if (turn == color()) train(&group, color(), color() ? "alone1" : "alone0", &alone);
    MPI_Barrier(dist.comm);
  }
  train(&group, color(), color() ? "together1" : "together0", &together);
  assert_same(&group, &together, &alone);
  fn_dist_release(&group);
}

static void caller_ends_and_stops(void **state) {
  (void)state;
  fn_dist group;
  assert_int_equal(fn_dist_split(&dist, color(), dist.rank, &group), FN_OK);
  const char *name = color() ? "stopped1" : "stopped0";
  trained whole = {0}, stopped = {.stop_after = 4}, rest = {0}, enough = {.enough_at = 2};
  train(&group, color(), color() ? "whole1" : "whole0", &whole);
  train(&group, color(), name, &stopped);
  assert_int_equal(stopped.status, FN_INTERRUPTED);
  assert_int_equal(stopped.result.end, FN_TRAIN_UNFINISHED);
  assert_true(stopped.result.steps < whole.result.steps);
  train(&group, color(), name, &rest);
  assert_int_equal(rest.status, FN_OK);
  assert_memory_equal(&rest.result.best_metric, &whole.result.best_metric, sizeof(double));
  train(&group, color(), color() ? "enough1" : "enough0", &enough);
  assert_int_equal(enough.status, FN_OK);
  assert_int_equal(enough.result.end, FN_TRAIN_TOLD);
  assert_int_equal(enough.result.epochs, 2);
  if (group.rank == 0) assert_memory_equal(&enough.loss[0], &whole.loss[0], 2 * sizeof(double));
  fn_dist_release(&group);
}

/** Threads and open files of this process. */
static int entries_of(const char *path) {
  DIR *dir = opendir(path);
  int count = 0;
  assert_non_null(dir);
  while (readdir(dir))
    count++;
  closedir(dir);
  return count;
}

static void twenty_trials_leave_nothing(void **state) {
  (void)state;
  enum { TRIALS = 20, SETTLED = 6 };
  fn_dist group;
  assert_int_equal(fn_dist_split(&dist, color(), dist.rank, &group), FN_OK);
  size_t memory = 0;
  int files = 0, threads = 0;
  for (int i = 0; i < TRIALS; i++) {
    trained t = {0};
    char name[32];
    snprintf(name, sizeof name, "trial%d.%d", color(), i);
    train(&group, color(), name, &t);
    assert_int_equal(t.status, FN_OK);
    if (i != SETTLED) continue;
    memory = fn_memory_now();
    files = entries_of("/proc/self/fd");
    threads = entries_of("/proc/self/task");
  }
  const size_t after = fn_memory_now();
  printf("rank %d: %.1f MB after %d trials, %.1f MB after %d, %d files, %d threads\n", dist.rank,
         1e-6 * (double)memory, SETTLED + 1, 1e-6 * (double)after, TRIALS, files, threads);
  assert_int_equal(entries_of("/proc/self/fd"), files);
  assert_int_equal(entries_of("/proc/self/task"), threads);
  assert_true(after < memory + 1000000);
  fn_dist_release(&group);
}

int main(int argc, char **argv) {
  if (!join_job(&argc, &argv)) return 2;
  fn_log_set_level(FN_ERROR);
  if (dist.rank == 0) {
    strcpy(folder, "/tmp/fieldnet_split_XXXXXX");
    char data[80];
    snprintf(data, sizeof data, "%s/data", mkdtemp(folder));
    fn_synth_options options = fn_synth_defaults();
    options.folder = data;
    options.files = 2;
    options.edge = 16;
    options.box = 50;
    if (fn_synth_displacement(&options) != FN_OK) fprintf(stderr, "%s\n", fn_error_message());
  }
  MPI_Bcast(folder, sizeof folder, MPI_BYTE, 0, dist.comm);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(groups_by_color_and_key),
      cmocka_unit_test(together_as_alone),
      cmocka_unit_test(caller_ends_and_stops),
      cmocka_unit_test(twenty_trials_leave_nothing),
  };
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  MPI_Barrier(dist.comm);
  if (dist.rank == 0) {
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    if (system(command) != 0) fprintf(stderr, "%s is left\n", folder);
  }
  fn_dist_finalize(&dist);
  return failed;
}
