/* checkpoint: what is saved comes back bit by bit, what is damaged is refused, and whatever happens
 * during a save, an older state is still there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <hdf5.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/random.h"
#include "base/system.h"
#include "run/checkpoint.h"
#include "run/folder_lock.h"

static char folder[256];
static int folders;

/** A fresh run folder per test. */
static int make_folder(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/fieldnet_checkpoint_%ld_%d", (long)getpid(), folders++);
  return mkdir(folder, 0755);
}

static int remove_folder(void **state) {
  (void)state;
  char command[300];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command);
}

static const char *at(const char *name) {
  static char path[4][512];
  static int next;
  next = (next + 1) % 4;
  snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
  return path[next];
}

/* ---- a model: two layers with batch norm, gaps of the flat buffer included ------------------ */

enum { ENTRIES = 6, VALUES = 3 * 2 * 27 + 6 + 16 + 3 + 13 + 4000, BUFFERS = 3 + 1 };

typedef struct model {
  fn_tensor_entry entry[ENTRIES];
  fn_parameters parameters;
  float values[VALUES], gradients[VALUES], buffers[BUFFERS];
  double values64[VALUES], buffers64[BUFFERS];
  float ema[VALUES];
  fn_schedule schedule;
  fn_progress progress;
  fn_optimizer *optimizer;
  fn_state state;
} model;

static bool is_gap(const model *m, int i) {
  for (int e = 0; e < ENTRIES; e++) {
    const fn_tensor_entry *entry = &m->entry[e];
    if (!entry->is_buffer && i >= entry->offset && i < entry->offset + entry->count) return false;
  }
  return true;
}

/** Layout as fn_parameters_create makes it: parameters in reverse, aligned to 16 elements. */
static model *model_create(const char *optimizer, double momentum) {
  model *m = calloc(1, sizeof *m);
  const fn_tensor_entry entry[ENTRIES] = {
      {"conv_l0.convs.0.weight", {5, {3, 2, 3, 3, 3}}, FN_ROLE_WEIGHT, {0}, 16, 162, false},
      {"conv_l0.convs.1.weight", {1, {3}}, FN_ROLE_NORM_SCALE, {0}, 0, 3, false},
      {"conv_l0.convs.1.running_mean", {1, {3}}, FN_ROLE_NORM_SCALE, {0}, 0, 3, true},
      {"conv_l0.convs.1.num_batches_tracked", {0, {0}}, FN_ROLE_NORM_SCALE, {0}, 3, 1, true},
      {"head.weight", {2, {400, 10}}, FN_ROLE_WEIGHT, {0}, 192, 4000, false},
      {"head.bias", {1, {3}}, FN_ROLE_BIAS, {0}, 178, 3, false},
  };
  memcpy(m->entry, entry, sizeof entry);
  m->parameters = (fn_parameters){.dtype = FN_F32,
                                  .entry_count = ENTRIES,
                                  .entry = m->entry,
                                  .count = VALUES,
                                  .buffer_count = BUFFERS,
                                  .parameter_total = 4168,
                                  .values = m->values,
                                  .gradients = m->gradients,
                                  .buffers = m->buffers};
  fn_run run = {0};
  run.optimizer.name = optimizer;
  run.optimizer.lr = 1e-3;
  run.optimizer.eps = run.optimizer.weight_decay = -1;
  run.optimizer.betas[0] = 0.9;
  run.optimizer.betas[1] = 0.999;
  run.optimizer.momentum = momentum;
  run.optimizer.momentum_decay = 4e-3;
  assert_int_equal(fn_optimizer_create(&run, &m->parameters, &m->optimizer), FN_OK);
  m->state = (fn_state){&m->parameters, m->optimizer, m->ema, &m->schedule, &m->progress, NULL};
  return m;
}

static void model_destroy(model *m) {
  fn_optimizer_destroy(m->optimizer);
  free(m);
}

/** Everything random, a few optimizer steps done. */
static void model_fill(model *m, uint64_t seed) {
  fn_random random = fn_random_stream(seed, FN_RANDOM_TEST, 0, 0);
  for (int step = 0; step < 3; step++) {
    for (int i = 0; i < VALUES; i++)
      m->gradients[i] = is_gap(m, i) ? 0 : (float)fn_random_normal(&random);
    fn_optimizer_step(m->optimizer, 0.01, 1);
  }
  for (int i = 0; i < VALUES; i++)
    m->ema[i] = is_gap(m, i) ? 0 : (float)fn_random_normal(&random);
  for (int i = 0; i < BUFFERS; i++)
    m->buffers[i] = (float)fn_random_normal(&random);
  m->buffers[0] = -0.0f;
  m->ema[16] = 1e-42f; // denormal
  m->schedule = (fn_schedule){1e-4, 2.5e-5, 0.1 + (double)seed, 3, 1, 2};
  m->progress = (fn_progress){.epoch = 7,
                              .step = 1234,
                              .epoch_step = 11,
                              .samples = 99999999999,
                              .stretch = {{4, 2, 10}, {3, 1, 5}},
                              .stretches = 2,
                              .target_fields = 2,
                              .target_field_channels = {3, 1},
                              .loss_sum = 1.0 / 3,
                              .loss_count = 77,
                              .best_metric = NAN,
                              .best_epoch = -1,
                              .train_loss = INFINITY,
                              .validation_loss = 1e-300};
}

static void assert_same(model *a, model *b) {
  assert_memory_equal(a->values, b->values, sizeof a->values);
  assert_memory_equal(a->buffers, b->buffers, sizeof a->buffers);
  assert_memory_equal(a->ema, b->ema, sizeof a->ema);
  assert_memory_equal(&a->schedule, &b->schedule, sizeof a->schedule);
  assert_memory_equal(&a->progress, &b->progress, sizeof a->progress);
  assert_int_equal(fn_optimizer_steps(a->optimizer), fn_optimizer_steps(b->optimizer));
  for (int i = 0; i < fn_optimizer_state_count(a->optimizer); i++)
    assert_memory_equal(fn_optimizer_state(a->optimizer, i), fn_optimizer_state(b->optimizer, i),
                        sizeof a->values);
  for (int i = 0; i < fn_optimizer_scalar_count(a->optimizer); i++) {
    const char *name;
    assert_memory_equal(fn_optimizer_scalar(a->optimizer, i, &name),
                        fn_optimizer_scalar(b->optimizer, i, &name), sizeof(double));
  }
}

static void expect(fn_status status, fn_status wanted, const char *part) {
  assert_int_equal(status, wanted);
  if (!strstr(fn_error_message(), part)) fail_msg("\"%s\" lacks \"%s\"", fn_error_message(), part);
}

static int count_files(void) {
  char command[300];
  snprintf(command, sizeof command, "ls -A %s | wc -l", folder);
  FILE *pipe = popen(command, "r");
  int count = -1;
  assert_int_equal(fscanf(pipe, "%d", &count), 1);
  pclose(pipe);
  return count;
}

static const char *link_target(const char *link) {
  static char target[256];
  const ssize_t length = readlink(at(link), target, sizeof target - 1);
  target[length < 0 ? 0 : length] = '\0';
  return target;
}

static void write_file(const char *path, const char *bytes, size_t count) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, count, file), count);
  fclose(file);
}

/* ---- tests ------------------------------------------------------------------------------- */

static void round_trip_is_exact(void **state) {
  (void)state;
  const char *optimizers[] = {"adam", "nadam", "sgd"};
  for (int o = 0; o < 3; o++) {
    model *a = model_create(optimizers[o], o == 2 ? 0.9 : 0);
    model *b = model_create(optimizers[o], o == 2 ? 0.9 : 0);
    model_fill(a, 1);
    model_fill(b, 2);
    memset(&b->progress, 0x5a, sizeof b->progress);
    const char *yaml = "seed: 1\n# ein Kommentar: \xc3\xa4\n";
    a->state.configuration = yaml;
    assert_int_equal(fn_checkpoint_save(folder, o, &a->state), FN_OK);
    assert_int_equal(fn_checkpoint_verify(at("checkpoint.h5")), FN_OK);
    char *configuration;
    assert_int_equal(fn_checkpoint_load(at("checkpoint.h5"), true, &b->state, &configuration),
                     FN_OK);
    assert_same(a, b);
    assert_string_equal(configuration, yaml);
    free(configuration);
    model_destroy(a);
    model_destroy(b);
  }
  assert_int_equal(count_files(), 4);
}

static void weights_only_and_double(void **state) {
  (void)state;
  model *a = model_create("adam", 0), *b = model_create("adam", 0);
  model_fill(a, 3);
  for (int i = 0; i < VALUES; i++)
    a->values64[i] = is_gap(a, i) ? 0 : 1.0 / (1 + i);
  a->buffers64[3] = 12345678901.0;
  a->parameters.dtype = b->parameters.dtype = FN_F64;
  a->parameters.values = a->values64;
  b->parameters.values = b->values64;
  a->parameters.buffers = a->buffers64;
  b->parameters.buffers = b->buffers64;
  const fn_state weights = {.parameters = &a->parameters};
  assert_int_equal(fn_checkpoint_save(folder, 0, &weights), FN_OK);
  fn_state loaded = {.parameters = &b->parameters};
  char *configuration;
  assert_int_equal(fn_checkpoint_load(at("state_0.h5"), true, &loaded, &configuration), FN_OK);
  assert_null(configuration);
  assert_memory_equal(a->values64, b->values64, sizeof a->values64);
  assert_memory_equal(a->buffers64, b->buffers64, sizeof a->buffers64);
  // The same file into a run that wants more than weights.
  model *c = model_create("adam", 0);
  expect(fn_checkpoint_load(at("state_0.h5"), true, &c->state, NULL), FN_ERR_CHECKPOINT,
         "it lacks optimizer/exp_avg/*, optimizer/exp_avg_sq/*, optimizer/step, /schedule, "
         "/progress");
  assert_int_equal(fn_checkpoint_load(at("state_0.h5"), false, &c->state, NULL), FN_OK);
  assert_true(c->values[16] == (float)(1.0 / 17));
  assert_true(c->ema[16] == c->values[16]); // averaging starts from the weights
  model_destroy(a);
  model_destroy(b);
  model_destroy(c);
}

static void truncated_is_refused(void **state) {
  (void)state;
  model *m = model_create("adam", 0);
  model_fill(m, 4);
  assert_int_equal(fn_checkpoint_save(folder, 1, &m->state), FN_OK);
  char *bytes;
  size_t count;
  assert_int_equal(fn_file_read(at("state_1.h5"), &bytes, &count), FN_OK);
  assert_true(count > 60000);
  for (size_t size = 0; size < count; size += 1000) {
    write_file(at("cut.h5"), bytes, size);
    assert_int_equal(fn_checkpoint_verify(at("cut.h5")), FN_ERR_CHECKPOINT);
    assert_int_equal(fn_checkpoint_load(at("cut.h5"), false, &m->state, NULL), FN_ERR_CHECKPOINT);
  }
  assert_non_null(strstr(fn_error_message(), "truncated file"));
  free(bytes);
  model_destroy(m);
}

static void flipped_bits_are_refused(void **state) {
  (void)state;
  model *m = model_create("adam", 0);
  model_fill(m, 5);
  assert_int_equal(fn_checkpoint_save(folder, 1, &m->state), FN_OK);
  char *bytes;
  size_t count;
  assert_int_equal(fn_file_read(at("state_1.h5"), &bytes, &count), FN_OK);
  fn_random random = fn_random_stream(6, FN_RANDOM_TEST, 0, 0);
  for (int round = 0; round < 300; round++) {
    const size_t place =
        round < 16 ? count - 4 + (size_t)round % 4 : fn_random_below(&random, count - 16);
    const char flip = (char)(1 << fn_random_below(&random, 8));
    bytes[place] ^= flip;
    write_file(at("flip.h5"), bytes, count);
    bytes[place] ^= flip;
    expect(fn_checkpoint_load(at("flip.h5"), false, &m->state, NULL), FN_ERR_CHECKPOINT,
           "checksum of the file");
  }
  free(bytes);
  model_destroy(m);
}

/** Flip one byte of a dataset of a state whose seal another program has dropped. */
static void flip_in_dataset(const char *bytes, size_t count, const char *dataset) {
  const hid_t file = H5Fopen(at("state_1.h5"), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t set = H5Dopen2(file, dataset, H5P_DEFAULT);
  const haddr_t offset = H5Dget_offset(set);
  assert_true(set >= 0 && offset != HADDR_UNDEF);
  H5Dclose(set);
  H5Fclose(file);
  char *copy = malloc(count);
  memcpy(copy, bytes, count);
  copy[offset] ^= 4;
  write_file(at("flip.h5"), copy, count - 16);
  free(copy);
}

static void checksums_inside_name_the_damage(void **state) {
  (void)state;
  model *m = model_create("adam", 0);
  model_fill(m, 6);
  m->state.configuration = "seed: 1\n";
  assert_int_equal(fn_checkpoint_save(folder, 1, &m->state), FN_OK);
  char *bytes;
  size_t count;
  assert_int_equal(fn_file_read(at("state_1.h5"), &bytes, &count), FN_OK);
  write_file(at("unsealed.h5"), bytes, count - 16);
  assert_int_equal(fn_checkpoint_verify(at("unsealed.h5")), FN_OK);
  const char *datasets[] = {"/model/head.bias", "/model/conv_l0.convs.1.num_batches_tracked",
                            "/optimizer/exp_avg_sq/conv_l0.convs.0.weight", "/ema/head.weight",
                            "/configuration"};
  for (int i = 0; i < 5; i++) {
    flip_in_dataset(bytes, count, datasets[i]);
    char part[128];
    snprintf(part, sizeof part, "%s: its checksum is", datasets[i]);
    expect(fn_checkpoint_load(at("flip.h5"), true, &m->state, NULL), FN_ERR_CHECKPOINT, part);
  }
  // A changed attribute and a removed dataset, made by HDF5 itself.
  for (int change = 0; change < 2; change++) {
    write_file(at("changed.h5"), bytes, count - 16);
    const hid_t file = H5Fopen(at("changed.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
    if (change == 0) {
      const int64_t epoch = 8;
      const hid_t group = H5Gopen2(file, "progress", H5P_DEFAULT);
      const hid_t a = H5Aopen(group, "epoch", H5P_DEFAULT);
      assert_true(H5Awrite(a, H5T_NATIVE_INT64, &epoch) >= 0);
      H5Gclose(group);
      H5Aclose(a);
    } else {
      assert_true(H5Ldelete(file, "/ema/head.bias", H5P_DEFAULT) >= 0);
    }
    H5Fclose(file);
    expect(fn_checkpoint_verify(at("changed.h5")), FN_ERR_CHECKPOINT,
           change == 0 ? "/progress: its checksum" : "/ema: its checksum");
  }
  free(bytes);
  model_destroy(m);
}

static void links_are_relative_and_replaced(void **state) {
  (void)state;
  model *m = model_create("adam", 0);
  model_fill(m, 7);
  for (int64_t i = 1; i <= 2; i++) {
    assert_int_equal(fn_checkpoint_save(folder, i, &m->state), FN_OK);
    assert_string_equal(link_target("checkpoint.h5"), i == 1 ? "state_1.h5" : "state_2.h5");
  }
  assert_int_equal(fn_checkpoint_link(folder, "best.h5", "state_1.h5"), FN_OK);
  assert_string_equal(link_target("best.h5"), "state_1.h5");
  write_file(at("plain.h5"), "x", 1);
  expect(fn_checkpoint_link(folder, "plain.h5", "state_1.h5"), FN_ERR_CHECKPOINT,
         "exists and is not a symbolic link");
  // The folder can be moved: links do not hold its name.
  char moved[300];
  snprintf(moved, sizeof moved, "%s_moved", folder);
  assert_int_equal(rename(folder, moved), 0);
  char *path;
  assert_int_equal(fn_checkpoint_find(moved, &path), FN_OK);
  assert_non_null(strstr(path, "_moved/state_2.h5"));
  free(path);
  assert_int_equal(rename(moved, folder), 0);
  model_destroy(m);
}

static void find_goes_back_to_a_good_state(void **state) {
  (void)state;
  model *m = model_create("adam", 0);
  model_fill(m, 8);
  char *path;
  assert_int_equal(fn_checkpoint_find(folder, &path), FN_OK);
  assert_null(path);
  assert_int_equal(fn_checkpoint_find(at("none"), &path), FN_OK);
  assert_null(path);
  for (int64_t i = 8; i <= 11; i++)
    assert_int_equal(fn_checkpoint_save(folder, i, &m->state), FN_OK);
  assert_int_equal(fn_checkpoint_link(folder, "checkpoint.h5", "state_10.h5"), FN_OK);
  // In turn: the link's; the one below it; one further; the one above; none.
  const char *good[] = {"state_10.h5", "state_9.h5", "state_8.h5", "state_11.h5"};
  for (int i = 0; i < 4; i++) {
    assert_int_equal(fn_checkpoint_find(folder, &path), FN_OK);
    assert_string_equal(path, at(good[i]));
    free(path);
    if (i == 1) {
      unlink(at(good[i]));
    } else {
      assert_int_equal(truncate(at(good[i]), 5000), 0);
    }
  }
  expect(fn_checkpoint_find(folder, &path), FN_ERR_CHECKPOINT, "none of the 3 states in");
  assert_null(path);
  model_destroy(m);
}

/* A full disk: old states and link stay, no rubbish, a message that tells the reason. */
static void full_disk_keeps_the_old_state(void **state) {
  (void)state;
  model *m = model_create("adam", 0), *b = model_create("adam", 0);
  model_fill(m, 9);
  assert_int_equal(fn_checkpoint_save(folder, 1, &m->state), FN_OK);
  struct rlimit old, small;
  getrlimit(RLIMIT_FSIZE, &old);
  for (rlim_t limit = 0; limit < 60000; limit += 12000) {
    small = old;
    small.rlim_cur = limit;
    setrlimit(RLIMIT_FSIZE, &small); // SIGXFSZ keeps its deadly default here
    const fn_status status = fn_checkpoint_save(folder, limit % 24000 ? 1 : 2, &m->state);
    setrlimit(RLIMIT_FSIZE, &old);
    expect(status, FN_ERR_CHECKPOINT, "File too large");
    assert_non_null(strstr(fn_error_message(), "kB needed, "));
    assert_int_equal(count_files(), 2);
    assert_string_equal(link_target("checkpoint.h5"), "state_1.h5");
    assert_int_equal(fn_checkpoint_load(at("checkpoint.h5"), true, &b->state, NULL), FN_OK);
    assert_same(m, b);
  }
  assert_int_equal(fn_checkpoint_save(folder, 2, &m->state), FN_OK);
  struct sigaction action;
  sigaction(SIGXFSZ, NULL, &action);
  assert_true(action.sa_handler == SIG_DFL);
  expect(fn_checkpoint_save(at("none"), 1, &m->state), FN_ERR_CHECKPOINT,
         "No such file or directory");
  model_destroy(m);
  model_destroy(b);
}

static void unwritable_folder(void **state) {
  (void)state;
  model *m = model_create("adam", 0);
  model_fill(m, 10);
  assert_int_equal(fn_checkpoint_save(folder, 1, &m->state), FN_OK);
  assert_int_equal(chmod(folder, 0555), 0);
  const bool root = geteuid() == 0;
  if (root) assert_int_equal(seteuid(65534), 0);
  const fn_status status = fn_checkpoint_save(folder, 2, &m->state);
  if (root) assert_int_equal(seteuid(0), 0);
  assert_int_equal(chmod(folder, 0755), 0);
  expect(status, FN_ERR_CHECKPOINT, "Permission denied");
  assert_int_equal(count_files(), 2);
  model_destroy(m);
}

static void leftovers_are_removed(void **state) {
  (void)state;
  model *m = model_create("adam", 0);
  model_fill(m, 11);
  const char *ours[] = {"state_3.h5.123.tmp",       "checkpoint.h5.9.tmp",
                        "best.h5.77.tmp",           ".steps.csv.ahead.1.tmp",
                        ".metrics.csv.ahead.1.tmp", ".metrics.jsonl.ahead.1.tmp"};
  const char *theirs[] = {"state_3.h5.tmp", "notes.123.tmp", "state_x.h5.1.tmp",
                          "state_3.h5.1.tmp.gz"};
  enum { OURS = sizeof ours / sizeof ours[0], THEIRS = sizeof theirs / sizeof theirs[0] };
  for (int i = 0; i < OURS; i++)
    write_file(at(ours[i]), "x", 1);
  for (int i = 0; i < THEIRS; i++)
    write_file(at(theirs[i]), "x", 1);
  assert_int_equal(fn_checkpoint_save(folder, 1, &m->state), FN_OK);
  for (int i = 0; i < OURS; i++)
    assert_false(fn_file_exists(at(ours[i])));
  for (int i = 0; i < THEIRS; i++)
    assert_true(fn_file_exists(at(theirs[i])));
  model_destroy(m);
}

/** In another process, for a process never locks itself out: the status of taking the lock of
 *  `path`; holds it until `release` can be read when that is not negative. */
static pid_t lock_elsewhere(const char *path, int told, int release) {
  const pid_t child = fork();
  if (child != 0) return child;
  fn_folder_lock *lock;
  char status = (char)fn_folder_lock_take(path, &lock), byte;
  char message[512] = {status};
  snprintf(message + 1, sizeof message - 1, "%s", fn_error_message());
  if (write(told, message, sizeof message) != sizeof message) _exit(1);
  if (release >= 0 && read(release, &byte, 1) < 0) _exit(1);
  if (status == FN_OK) fn_folder_lock_give(lock);
  _exit(0);
}

static void one_run_per_folder(void **state) {
  (void)state;
  int told[2], release[2], ended;
  assert_int_equal(pipe(told), 0);
  assert_int_equal(pipe(release), 0);
  const char *path = at("new/run");
  for (int killed = 0; killed < 2; killed++) {
    char message[512], process[64];
    const pid_t child = lock_elsewhere(path, told[1], release[0]);
    assert_true(child > 0);
    assert_int_equal(read(told[0], message, sizeof message), sizeof message);
    assert_int_equal(message[0], FN_OK);
    fn_folder_lock *lock;
    assert_int_equal(fn_folder_lock_take(path, &lock), FN_ERR_CONFIG);
    assert_null(lock);
    snprintf(process, sizeof process, "%s, process %ld)", fn_host_name(), (long)child);
    assert_non_null(strstr(fn_error_message(), process));
    assert_non_null(strstr(fn_error_message(), path));
    if (killed) kill(child, SIGKILL);
    if (!killed) assert_int_equal(write(release[1], "x", 1), 1);
    waitpid(child, &ended, 0);
    // Given back, nothing is left; of a killed holder the file is, without the lock.
    assert_int_equal(fn_file_exists(at("new/run/.lock")), killed);
    assert_int_equal(fn_file_exists(at("new")), killed);
    assert_int_equal(fn_folder_lock_take(path, &lock), FN_OK);
    const pid_t third = lock_elsewhere(path, told[1], -1);
    assert_int_equal(read(told[0], message, sizeof message), sizeof message);
    waitpid(third, &ended, 0);
    assert_int_equal(message[0], FN_ERR_CONFIG);
    snprintf(process, sizeof process, "%s, process %ld)", fn_host_name(), (long)getpid());
    assert_non_null(strstr(message + 1, process));
    fn_folder_lock_give(lock);
    assert_int_equal(fn_file_exists(at("new/run/.lock")), false);
    assert_int_equal(fn_file_exists(at("new/run")), killed); // it was there before
  }
  write_file(at("plain"), "x", 1);
  fn_folder_lock *lock;
  expect(fn_folder_lock_take(at("plain/run"), &lock), FN_ERR_CHECKPOINT, "plain");
  assert_null(lock);
}

static void retention(void **state) {
  (void)state;
  model *m = model_create("sgd", 0);
  model_fill(m, 12);
  m->progress.stretches = 0;
  for (int64_t i = 1; i <= 12; i++) {
    m->progress.epoch = i;
    m->progress.epoch_step = i == 10 ? 3 : 0; // state 10 was written inside an epoch
    assert_int_equal(fn_checkpoint_save(folder, i, &m->state), FN_OK);
  }
  assert_int_equal(fn_checkpoint_link(folder, "best.h5", "state_3.h5"), FN_OK);
  assert_int_equal(fn_checkpoint_link(folder, "checkpoint.h5", "state_7.h5"), FN_OK);
  assert_int_equal(fn_checkpoint_retain(folder, 0, 0), FN_OK);
  assert_int_equal(count_files(), 14);
  assert_int_equal(fn_checkpoint_retain(folder, 2, 5), FN_OK);
  // The newest two up to 7, a multiple of 5, the best, and whatever lies above 7, uncounted.
  const bool kept[13] = {[3] = true, [5] = true,  [6] = true,  [7] = true, [8] = true,
                         [9] = true, [10] = true, [11] = true, [12] = true};
  for (int i = 1; i <= 12; i++) {
    char name[32];
    snprintf(name, sizeof name, "state_%d.h5", i);
    assert_int_equal(fn_file_exists(at(name)), kept[i]);
  }
  assert_int_equal(fn_checkpoint_link(folder, "checkpoint.h5", "state_12.h5"), FN_OK);
  assert_int_equal(fn_checkpoint_retain(folder, 2, 5), FN_OK);
  // State 10 was written inside an epoch, so that keep_every does not keep it.
  const bool then[13] = {[3] = true, [5] = true, [11] = true, [12] = true};
  for (int i = 1; i <= 12; i++) {
    char name[32];
    snprintf(name, sizeof name, "state_%d.h5", i);
    assert_int_equal(fn_file_exists(at(name)), then[i]);
  }
  model_destroy(m);
}

/* Going back from damaged states with keep_last = 1 keeps the good state gone back to. */
static void damaged_states_do_not_count(void **state) {
  (void)state;
  model *m = model_create("sgd", 0);
  model_fill(m, 17);
  for (int64_t i = 1; i <= 6; i++)
    assert_int_equal(fn_checkpoint_save(folder, i, &m->state), FN_OK);
  for (int64_t i = 3; i <= 6; i++) {
    char name[32];
    snprintf(name, sizeof name, "state_%lld.h5", (long long)i);
    assert_int_equal(truncate(at(name), 5000), 0);
  }
  char *path;
  assert_int_equal(fn_checkpoint_find(folder, &path), FN_OK);
  assert_string_equal(path, at("state_2.h5"));
  assert_string_equal(fn_error_message(), ""); // what was refused was a warning
  free(path);
  assert_int_equal(fn_checkpoint_save(folder, 3, &m->state), FN_OK);
  assert_int_equal(fn_checkpoint_retain(folder, 2, 0), FN_OK);
  assert_false(fn_file_exists(at("state_1.h5")));
  // The next save fails half-way: what is left to go back to are 3 and 2.
  assert_int_equal(truncate(at("state_3.h5"), 5000), 0);
  assert_int_equal(fn_checkpoint_find(folder, &path), FN_OK);
  assert_string_equal(path, at("state_2.h5"));
  free(path);
  model_destroy(m);
}

static void misfits_are_named(void **state) {
  (void)state;
  model *a = model_create("adam", 0), *b = model_create("adam", 0);
  model_fill(a, 13);
  assert_int_equal(fn_checkpoint_save(folder, 1, &a->state), FN_OK);
  // A renamed parameter: one missing, one unexpected, in the model and everything parallel to it.
  b->entry[5].name = "tail.bias";
  b->values[178] = 42;
  expect(fn_checkpoint_load(at("state_1.h5"), true, &b->state, NULL), FN_ERR_CHECKPOINT,
         "it lacks model/tail.bias, optimizer/exp_avg/tail.bias, optimizer/exp_avg_sq/tail.bias, "
         "ema/tail.bias; it holds unexpected model/head.bias, ");
  assert_true(b->values[16] == 0); // nothing was touched
  assert_int_equal(fn_checkpoint_load(at("state_1.h5"), false, &b->state, NULL), FN_OK);
  assert_true(b->values[178] == 42);
  assert_true(b->values[16] == a->values[16] && b->values[200] == a->values[200]);
  // A shape that differs is refused either way.
  b->entry[5].name = "head.bias";
  b->entry[4].shape = (fn_shape){2, {10, 400}};
  memset(b->values, 0, sizeof b->values);
  expect(fn_checkpoint_load(at("state_1.h5"), false, &b->state, NULL), FN_ERR_CHECKPOINT,
         "model/head.weight is [400, 10], expected [10, 400]");
  assert_true(b->values[16] == 0);
  // Another optimizer.
  model *c = model_create("sgd", 0.9);
  expect(fn_checkpoint_load(at("state_1.h5"), true, &c->state, NULL), FN_ERR_CHECKPOINT,
         "it lacks optimizer/momentum_buffer/*; it holds unexpected optimizer/exp_avg, "
         "optimizer/exp_avg_sq");
  expect(fn_checkpoint_load(at("none.h5"), true, &c->state, NULL), FN_ERR_CHECKPOINT,
         "none.h5: No such file");
  write_file(at("text.h5"), "no HDF5 file", 12);
  expect(fn_checkpoint_load(at("text.h5"), true, &c->state, NULL), FN_ERR_CHECKPOINT,
         "not a complete HDF5 file");
  model_destroy(a);
  model_destroy(b);
  model_destroy(c);
}

static void check_size(const fn_state *state, int arrays) {
  assert_int_equal(fn_checkpoint_save(folder, 1, state), FN_OK);
  struct stat info;
  assert_int_equal(stat(at("state_1.h5"), &info), 0);
  const int64_t foretold = fn_checkpoint_bytes(state->parameters, arrays, state->ema != NULL);
  print_message("foretold %lld, found %lld\n", (long long)foretold, (long long)info.st_size);
  assert_true(foretold >= info.st_size && foretold < info.st_size + info.st_size / 4);
}

static void size_is_foretold(void **state) {
  (void)state;
  model *m = model_create("adam", 0);
  model_fill(m, 14);
  check_size(&m->state, 2);
  // Hundreds of small tensors: what a dataset costs besides its values.
  enum { MANY = 400 };
  static fn_tensor_entry entry[MANY];
  static char name[MANY][64];
  for (int i = 0; i < MANY; i++) {
    snprintf(name[i], sizeof name[i], "encoder.level_%d.block_%d.convs.0.weight", i / 20, i % 20);
    entry[i] =
        (fn_tensor_entry){.name = name[i], .shape = {3, {2, 2, 2}}, .offset = 8 * i, .count = 8};
  }
  fn_parameters many = m->parameters;
  many.entry = entry;
  many.entry_count = MANY;
  check_size(&(fn_state){.parameters = &many}, 0);
  model_destroy(m);
}

/** Save for ever, telling each finished index. */
static void save_until_killed(model *m, int told) {
  for (int64_t i = 1;; i++) {
    for (int k = 0; k < VALUES; k++)
      m->values[k] = is_gap(m, k) ? 0 : (float)i;
    m->progress.step = i;
    if (fn_checkpoint_save(folder, i, &m->state) != FN_OK ||
        fn_checkpoint_retain(folder, 3, 0) != FN_OK || write(told, &i, sizeof i) != sizeof i)
      _exit(1);
  }
}

static void killed_at_any_moment(void **state) {
  (void)state;
  fn_random random = fn_random_stream(15, FN_RANDOM_TEST, 0, 0);
  model *m = model_create("adam", 0);
  model_fill(m, 15);
  for (int round = 0; round < 20; round++) {
    int told[2];
    assert_int_equal(pipe(told), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) save_until_killed(m, told[1]);
    close(told[1]);
    int64_t newest, next;
    assert_int_equal(read(told[0], &newest, sizeof newest), sizeof newest);
    usleep((useconds_t)fn_random_below(&random, 30000));
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    while (read(told[0], &next, sizeof next) == sizeof next)
      newest = next;
    close(told[0]);
    char *path;
    assert_int_equal(fn_checkpoint_find(folder, &path), FN_OK);
    assert_non_null(path);
    assert_int_equal(fn_checkpoint_load(path, true, &m->state, NULL), FN_OK);
    // What was told is there; the one after it may be, whole.
    assert_true(m->progress.step >= newest && m->progress.step <= newest + 1);
    for (int k = 0; k < VALUES; k++)
      assert_true(is_gap(m, k) || m->values[k] == (float)m->progress.step);
    free(path);
    char command[600];
    snprintf(command, sizeof command, "rm -f %s/state_*.h5 %s/checkpoint.h5", folder, folder);
    assert_int_equal(system(command), 0);
  }
  model_destroy(m);
}

static void h5py_opens_it(void **state) {
  (void)state;
  if (system("python3 -c 'import h5py' 2>/dev/null") != 0) {
    print_message("skipped: python3 with h5py is not available\n");
    skip();
  }
  model *m = model_create("nadam", 0);
  model_fill(m, 16);
  m->state.configuration = "seed: 1\n";
  assert_int_equal(fn_checkpoint_save(folder, 5, &m->state), FN_OK);
  char command[1600];
  snprintf(
      command, sizeof command,
      "cd %s && python3 -c \"\n"
      "import h5py, numpy as np, zlib\n"
      "f = h5py.File('checkpoint.h5', 'r')\n"
      "w = f['model/conv_l0.convs.0.weight']\n"
      "assert w.shape == (3, 2, 3, 3, 3) and w.dtype == np.float32\n"
      "assert w.attrs['crc32'] == zlib.crc32(w[()].tobytes())\n"
      "assert f['model/conv_l0.convs.1.num_batches_tracked'].shape == ()\n"
      "assert set(f['optimizer']) == {'exp_avg', 'exp_avg_sq'}\n"
      "assert f['optimizer'].attrs['step'] == 3 and 0 < f['optimizer'].attrs['mu_product'] < 1\n"
      "assert f['progress'].attrs['samples'] == 99999999999\n"
      "assert f['progress'].attrs['stretches'].tolist() == [[4, 2, 10], [3, 1, 5]]\n"
      "assert f['configuration'][()] == b'seed: 1\\n'\n"
      "assert f['version'].attrs['format'] == 1\n"
      "print({k: f['version'].attrs[k] for k in f['version'].attrs})\n"
      "\"",
      folder);
  assert_int_equal(system(command), 0);
  model_destroy(m);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)
  const struct CMUnitTest tests[] = {
      TEST(round_trip_is_exact),
      TEST(weights_only_and_double),
      TEST(truncated_is_refused),
      TEST(flipped_bits_are_refused),
      TEST(checksums_inside_name_the_damage),
      TEST(links_are_relative_and_replaced),
      TEST(find_goes_back_to_a_good_state),
      TEST(full_disk_keeps_the_old_state),
      TEST(unwritable_folder),
      TEST(leftovers_are_removed),
      TEST(one_run_per_folder),
      TEST(retention),
      TEST(damaged_states_do_not_count),
      TEST(misfits_are_named),
      TEST(size_is_foretold),
      TEST(killed_at_any_moment),
      TEST(h5py_opens_it),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
