/* saver: what is written beside training is what there was when it was asked for; what could not be
 * written is tried again; readers of data get in between; starts that died are counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/system.h"
#include "field/hdf5.h"
#include "run/saver.h"
#include "run/starts.h"

enum { ENTRIES = 40, EACH = 65536, BUFFERS = 16 };

static char folder[256];
static int folders;

/** A network of equal tensors and one buffer, its optimizer, and the results of its saves. */
typedef struct training {
  fn_run run;
  fn_tensor_entry entry[ENTRIES + 1];
  char name[ENTRIES][32];
  fn_parameters parameters;
  float *values, *gradients, buffers[BUFFERS], *ema;
  fn_optimizer *optimizer;
  fn_schedule schedule;
  fn_progress progress;
  fn_state state;
  fn_saver *saver;
  int good, failed;
  fn_save_result last;
} training;

static void count(void *user, const fn_save_result *result) {
  training *t = user;
  t->last = *result;
  if (result->status == FN_OK)
    t->good++;
  else
    t->failed++;
}

static void set_all(training *t, float value) {
  for (int64_t i = 0; i < t->parameters.count; i++)
    t->values[i] = t->ema[i] = fn_optimizer_state(t->optimizer, 0)[i] = value;
  t->buffers[0] = value;
  fn_optimizer_set_steps(t->optimizer, (int64_t)value);
  const char *name;
  *fn_optimizer_scalar(t->optimizer, 0, &name) = (double)value;
  t->schedule.current = (double)value;
  t->progress.step = (int64_t)value;
}

static training *create(bool background) {
  training *t = calloc(1, sizeof *t);
  const int64_t elements = (int64_t)ENTRIES * EACH;
  for (int i = 0; i < ENTRIES; i++) {
    snprintf(t->name[i], sizeof t->name[i], "layer_%d.weight", i);
    t->entry[i] = (fn_tensor_entry){.name = t->name[i],
                                    .shape = {2, {EACH / 64, 64}},
                                    .offset = (int64_t)i * EACH,
                                    .count = EACH};
  }
  t->entry[ENTRIES] =
      (fn_tensor_entry){.name = "norm.mean", .shape = {1, {1}}, .count = 1, .is_buffer = true};
  t->values = calloc((size_t)elements, sizeof *t->values);
  t->gradients = calloc((size_t)elements, sizeof *t->gradients);
  t->ema = calloc((size_t)elements, sizeof *t->ema);
  t->parameters = (fn_parameters){.dtype = FN_F32,
                                  .entry_count = ENTRIES + 1,
                                  .entry = t->entry,
                                  .count = elements,
                                  .buffer_count = BUFFERS,
                                  .parameter_total = elements,
                                  .values = t->values,
                                  .gradients = t->gradients,
                                  .buffers = t->buffers};
  t->run.folder = folder;
  t->run.optimizer.name = "nadam";
  t->run.optimizer.eps = t->run.optimizer.weight_decay = -1;
  t->run.checkpoint.retry_seconds = 0.05;
  t->run.checkpoint.fall_back_after = 2;
  assert_int_equal(fn_optimizer_create(&t->run, &t->parameters, &t->optimizer), FN_OK);
  t->state =
      (fn_state){&t->parameters, t->optimizer, t->ema, &t->schedule, &t->progress, "seed: 1\n"};
  assert_int_equal(fn_saver_create(&t->run, &t->state, background, count, t, &t->saver), FN_OK);
  return t;
}

static void destroy(training *t) {
  fn_saver_destroy(t->saver);
  fn_optimizer_destroy(t->optimizer);
  free(t->values);
  free(t->gradients);
  free(t->ema);
  free(t);
}

static const char *at(const char *name) {
  static char path[2][512];
  static int next;
  next = !next;
  snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
  return path[next];
}

/** Load a state over `t` and demand that all of it is `value`. */
static void holds(training *t, const char *name, float value) {
  set_all(t, -1);
  assert_int_equal(fn_checkpoint_load(at(name), true, &t->state, NULL), FN_OK);
  for (int64_t i = 0; i < t->parameters.count; i++) {
    if (t->values[i] != value || t->ema[i] != value ||
        fn_optimizer_state(t->optimizer, 0)[i] != value)
      fail_msg("element %lld of %s", (long long)i, name);
  }
  const char *scalar;
  assert_true(t->buffers[0] == value && t->schedule.current == (double)value);
  assert_true(*fn_optimizer_scalar(t->optimizer, 0, &scalar) == (double)value);
  assert_int_equal(fn_optimizer_steps(t->optimizer), (int64_t)value);
  assert_int_equal(t->progress.step, (int64_t)value);
}

/* Training overwrites everything at once: the file has what there was. */
static void states_are_of_their_moment(void **state) {
  (void)state;
  training *t = create(true);
  for (int i = 1; i <= 3; i++) {
    set_all(t, (float)i);
    fn_saver_save(t->saver, &t->state, i, i == 2);
    set_all(t, 100);
  }
  assert_int_equal(fn_saver_wait(t->saver), FN_OK);
  assert_int_equal(t->good, 3);
  assert_string_equal(t->last.path, at("state_3.h5"));
  assert_true(t->last.seconds > 0 && t->last.snapshot > 0);
  holds(t, "state_1.h5", 1);
  holds(t, "state_3.h5", 3);
  holds(t, "checkpoint.h5", 3);
  holds(t, "best.h5", 2);
  destroy(t);
}

static void rest(double seconds) {
  const struct timespec pause = {0, (long)(1e9 * seconds)};
  nanosleep(&pause, NULL);
}

/* A folder where the state's name is taken by a folder: nothing can be renamed to it. */
static void failures_are_tried_again(void **state) {
  (void)state;
  training *t = create(true);
  set_all(t, 1);
  fn_saver_save(t->saver, &t->state, 1, false);
  assert_int_equal(mkdir(at("state_2.h5"), 0755), 0);
  set_all(t, 2);
  fn_saver_save(t->saver, &t->state, 2, true);
  set_all(t, 100);
  assert_int_equal(fn_saver_wait(t->saver), FN_ERR_CHECKPOINT);
  assert_non_null(strstr(fn_error_message(), "cannot save state"));
  for (int i = 0; i < 3000 && t->failed < 3; i++) {
    rest(0.02);
    fn_saver_poll(t->saver);
  }
  assert_true(t->failed >= 3);
  assert_int_equal(t->good, 1);
  char target[64] = "";
  assert_true(readlink(at("checkpoint.h5"), target, sizeof target - 1) > 0);
  assert_string_equal(target, "state_1.h5");
  assert_false(fn_file_exists(at("best.h5")));
  assert_int_equal(rmdir(at("state_2.h5")), 0);
  for (int i = 0; i < 3000 && t->good < 2; i++) {
    rest(0.02);
    fn_saver_poll(t->saver);
  }
  assert_int_equal(t->good, 2); // by itself
  assert_int_equal(fn_saver_wait(t->saver), FN_OK);
  holds(t, "checkpoint.h5", 2);
  holds(t, "best.h5", 2);
  destroy(t);
}

/* Without a thread the state is there on return; a failed one is asked for again. */
static void without_a_thread(void **state) {
  (void)state;
  training *t = create(false);
  set_all(t, 1);
  fn_saver_save(t->saver, &t->state, 1, true);
  assert_int_equal(t->good, 1);
  assert_int_equal(mkdir(at("state_2.h5"), 0755), 0);
  fn_saver_save(t->saver, &t->state, 2, false);
  assert_int_equal(t->failed, 1);
  assert_int_equal(fn_saver_wait(t->saver), FN_ERR_CHECKPOINT);
  rest(0.06);
  assert_true(fn_saver_retry_due(t->saver));
  assert_int_equal(rmdir(at("state_2.h5")), 0);
  set_all(t, 3);
  fn_saver_save(t->saver, &t->state, 2, false);
  assert_false(fn_saver_retry_due(t->saver));
  assert_int_equal(fn_saver_wait(t->saver), FN_OK);
  holds(t, "checkpoint.h5", 3);
  destroy(t);
}

/** A thread that wants the HDF5 lock all the time. */
typedef struct reader {
  atomic_bool stop;
  atomic_long turns;
} reader;

static void *take_turns(void *argument) {
  reader *r = argument;
  while (!r->stop) {
    fn_hdf5_lock();
    r->turns++;
    fn_hdf5_unlock();
  }
  return NULL;
}

/** Turns that a thread gets while a state is written. */
static long turns_during_a_save(training *t, int64_t index) {
  reader r = {.turns = 0};
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, take_turns, &r), 0);
  while (r.turns == 0)
    rest(0.001);
  const long before = r.turns;
  fn_saver_save(t->saver, &t->state, index, false);
  assert_int_equal(fn_saver_wait(t->saver), FN_OK);
  const long turns = r.turns - before;
  r.stop = true;
  pthread_join(thread, NULL);
  return turns;
}

/* Every dataset of a state lets in whoever waits: values of 40 parameters, two moments, average.
 * (A busy machine may keep the other thread from its turns, but not in every save.) */
static void readers_get_in_between(void **state) {
  (void)state;
  training *t = create(true);
  set_all(t, 1);
  long turns = 0;
  for (int64_t i = 1; i <= 20 && turns < 4 * ENTRIES; i++)
    turns = turns_during_a_save(t, i);
  assert_true(turns >= 4 * ENTRIES);
  destroy(t);
}

/* ---- starts ------------------------------------------------------------------------------- */

/** The state that a start from the newest one takes. */
static int64_t chosen(const fn_run *run) {
  char *path, newest[64] = "";
  long long index = -1;
  assert_true(readlink(at("checkpoint.h5"), newest, sizeof newest - 1) > 0);
  path = strdup(at(newest));
  assert_int_equal(fn_starts_choose(run, &path), FN_OK);
  sscanf(strrchr(path, '/'), "/state_%lld.h5", &index);
  free(path);
  return index;
}

static void starts_that_died_count(void **state) {
  (void)state;
  training *t = create(false);
  for (int i = 1; i <= 3; i++)
    fn_saver_save(t->saver, &t->state, i, false);
  char three[512], two[512];
  snprintf(three, sizeof three, "%s/state_3.h5", folder);
  snprintf(two, sizeof two, "%s/state_2.h5", folder);
  assert_int_equal(chosen(&t->run), 3);
  assert_int_equal(fn_starts_note(folder, three), FN_OK);
  assert_int_equal(chosen(&t->run), 3);
  assert_int_equal(fn_starts_note(folder, three), FN_OK);
  assert_int_equal(chosen(&t->run), 2);
  fn_starts_settle(folder, three); // that one was no crash
  assert_int_equal(chosen(&t->run), 3);
  assert_int_equal(fn_starts_note(folder, three), FN_OK);
  for (int i = 0; i < 2; i++)
    assert_int_equal(fn_starts_note(folder, two), FN_OK);
  assert_int_equal(chosen(&t->run), 1);
  t->run.checkpoint.fall_back_after = 0;
  assert_int_equal(chosen(&t->run), 3);
  t->run.checkpoint.fall_back_after = 2;
  // a damaged state is no state to go back to
  assert_int_equal(truncate(at("state_1.h5"), 5000), 0);
  assert_int_equal(chosen(&t->run), 3);
  // a later state, here of the same name, is another one, and ends the count
  fn_saver_save(t->saver, &t->state, 3, false);
  assert_int_equal(chosen(&t->run), 3);
  assert_false(fn_file_exists(at("starts.txt")));
  // rubbish in the file counts nothing
  assert_int_equal(fn_file_replace(at("starts.txt"), "state_3.h5 x\n\n\xff", 15), FN_OK);
  assert_int_equal(chosen(&t->run), 3);
  destroy(t);
}

/* The file has room for 64 states: the one that was started from longest ago makes room. */
static void latest_starts_are_kept(void **state) {
  (void)state;
  enum { ROOM = 64 };
  training *t = create(false);
  char name[64], paths[ROOM + 1][512];
  for (int i = 0; i <= ROOM; i++) {
    snprintf(name, sizeof name, "state_%d.h5", i);
    snprintf(paths[i], sizeof paths[i], "%s", at(name));
    assert_int_equal(fn_file_replace(paths[i], "", 0), FN_OK);
    if (i < ROOM) assert_int_equal(fn_starts_note(folder, paths[i]), FN_OK);
  }
  fn_starts_settle(folder, paths[ROOM - 2]); // second in the file
  assert_int_equal(fn_starts_note(folder, paths[ROOM]), FN_OK);
  assert_int_equal(fn_starts_note(folder, paths[ROOM - 2]), FN_OK); // one too many
  char *text;
  assert_int_equal(fn_file_read(at("starts.txt"), &text, NULL), FN_OK);
  assert_null(strstr(text, "state_0.h5 "));
  assert_non_null(strstr(text, "state_1.h5 "));
  free(text);
  destroy(t);
}

static int make_folder(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/fieldnet_saver_%ld_%d", (long)getpid(), folders++);
  return mkdir(folder, 0755);
}

static int remove_folder(void **state) {
  (void)state;
  char command[300];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
  const struct CMUnitTest tests[] = {
      TEST(states_are_of_their_moment), TEST(failures_are_tried_again),
      TEST(without_a_thread),           TEST(readers_get_in_between),
      TEST(starts_that_died_count),     TEST(latest_starts_are_kept),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
