/* Everything that can be known without running: each part that can be looked at is looked at, and
 * all problems are printed together. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/system.h"
#include "base/text.h"
#include "cli/session.h"
#include "run/checkpoint.h"
#include "run/cost.h"
#include "run/open_data.h"
#include "run/predict_cubes.h"
#include "run/session.h"

typedef struct check {
  const fn_run *run;
  fn_dist *dist;
  bool print; /**< rank 0 */
  int problems;
  fn_status first; /**< status of the first problem: the exit code */
  fn_text text;    /**< all problems */
  fn_dataset *train, *validation, *test;
  fn_engine *engine;
  int64_t checkpoint_bytes;
} check;

/** Agree on a result and note its message. Collective. */
static bool passes(check *c, fn_status status) {
  status = fn_dist_agree(c->dist, status);
  if (status == FN_OK) return true;
  if (c->first == FN_OK) c->first = status;
  c->problems++;
  fn_text_add(&c->text, "problem %d: %s\n", c->problems, fn_error_message());
  fn_error_clear();
  return false;
}

/* ---- data --------------------------------------------------------------------------------------
 */

static void check_stage(check *c, fn_stage stage, const char *name, const char *title,
                        fn_dataset **dataset) {
  if (!fn_run_has_data(c->run, name, false)) return;
  const bool good = passes(c, fn_data_open(c->run, stage, c->dist, c->train, dataset));
  if (!good) {
    fn_dataset_destroy(*dataset); // those of ranks that had no problem
    *dataset = NULL;
  } else if (c->print) {
    fn_dataset_print(*dataset, title);
    printf("\n");
  }
}

/** Two stages must feed one network. */
static fn_status same_sizes(const check *c, const fn_dataset *other, const char *key,
                            bool extents) {
  if (!c->train || !other) return FN_OK;
  return fn_sizes_agree(c->run, fn_dataset_get_info(c->train), fn_dataset_get_info(other), key,
                        extents);
}

static fn_status enough_samples(const check *c) {
  const int64_t samples = fn_dataset_epoch_samples(c->train);
  const char *key = fn_run_has_cubes(c->run) ? "data.cubes.train_seeds" : "data.train.input";
  FN_CHECK(samples >= c->dist->size, FN_ERR_CONFIG,
           "%s: %lld samples are fewer than %d ranks; start fewer ranks", fn_run_where(c->run, key),
           (long long)samples, c->dist->size);
  return FN_OK;
}

static void print_steps(const check *c) {
  fn_cost cost;
  fn_cost_steps(c->run, c->train, c->dist->size, &cost);
  printf("ranks              %d\n", c->dist->size);
  printf("samples per rank   %lld of %lld", (long long)cost.rank_samples, (long long)cost.samples);
  const int64_t unused = cost.samples - cost.rank_samples * c->dist->size;
  if (unused > 0) printf(" (%lld unused in each epoch)", (long long)unused);
  printf("\nsteps per epoch    %lld of %lld x %lld samples\nsteps of the run   %.0f\n",
         (long long)cost.steps, (long long)cost.step_samples, (long long)c->dist->size,
         (double)cost.steps * (double)c->run->train.epochs);
}

/** Cubes without labels. */
static void check_predicted(check *c) {
  int64_t files, cubes;
  if (!fn_run_has_cubes(c->run) || c->run->data.cubes.predict.count == 0) return;
  const fn_dataset_info *train = c->train ? fn_dataset_get_info(c->train) : NULL;
  if (passes(c, fn_predict_cubes_check(c->run, c->dist, train, &files, &cubes)) && c->print)
    printf("to be predicted: %lld cube%s in %lld file%s\n\n", (long long)cubes,
           cubes == 1 ? "" : "s", (long long)files, files == 1 ? "" : "s");
}

static void check_data(check *c) {
  const fn_run *run = c->run;
  const fn_stage last = fn_run_has_data(run, "test", true) ? FN_STAGE_TEST : FN_STAGE_PREDICT;
  check_stage(c, FN_STAGE_TRAIN, "train", "training data", &c->train);
  check_stage(c, FN_STAGE_VALIDATION, "validation", "validation data", &c->validation);
  check_stage(c, last, "test", "test data", &c->test);
  check_predicted(c);
  passes(c, same_sizes(c, c->validation, "data.validation.input", true));
  passes(c, same_sizes(c, c->test, "data.test.input", false));
  if (c->train && passes(c, enough_samples(c)) && c->print) print_steps(c);
}

/* ---- network ------------------------------------------------------------------------------------
 */

static void print_network(const check *c, const fn_cost *cost) {
  const fn_run *run = c->run;
  const fn_network_totals *t = &cost->totals;
  printf("\nnetwork            %s, %lld parameters, %d kernels per step\n",
         run->model.layers ? "layers" : run->model.name, (long long)t->parameters, t->kernels);
  printf("GFLOP per step     %.2f forward, %.2f with gradients, per rank\n",
         t->forward_flops * 1e-9, t->training_flops * 1e-9);
  if (t->repeats > 0)
    printf("computed twice     %s: about %.1f %% more time (compute.recompute)\n", t->repeated,
           100 * t->extra);
  char text[32];
  printf("memory per rank\n");
  for (int i = 0; i < cost->parts; i++)
    printf("  %-18s %s\n", cost->part[i].name,
           fn_text_bytes(cost->part[i].bytes, text, sizeof text));
  printf("  %-18s %s, and scratch of library primitives\n", "together",
         fn_text_bytes(cost->memory, text, sizeof text));
  printf("checkpoint         %s each, %lld kept%s\n",
         fn_text_bytes((double)cost->checkpoint_bytes, text, sizeof text),
         (long long)run->checkpoint.keep_last, run->checkpoint.keep_last == 0 ? " (0: all)" : "");
}

static fn_status plan_network(check *c) {
  const fn_run *run = c->run;
  fn_cost cost;
  FN_TRY(fn_engine_create(run, c->dist, fn_dataset_get_info(c->train), &c->engine));
  FN_TRY(fn_engine_warn_narrow(c->engine));
  fn_cost_steps(run, c->train, c->dist->size, &cost);
  FN_TRY(fn_engine_plan_batches(c->engine, cost.rank_samples, true));
  FN_TRY(fn_cost_find(run, c->train, c->engine, c->dist->size, &cost));
  c->checkpoint_bytes = cost.checkpoint_bytes;
  if (!c->print) return FN_OK;
  print_network(c, &cost);
  const double limit = (double)fn_memory_limit();
  char text[2][32];
  FN_CHECK(
      cost.memory <= limit, FN_ERR_MEMORY,
      "%s: a rank needs %s (%.0f bytes), but no more than %s can be had here; docs/memory.md tells "
      "what helps",
      fn_run_where(run, "train.batch"), fn_text_bytes(cost.memory, text[0], sizeof text[0]),
      cost.memory, fn_text_bytes(limit, text[1], sizeof text[1]));
  return FN_OK;
}

/** How gradients will be summed; also whether the ranks of a node can share memory. */
static fn_status plan_reduction(check *c) {
  fn_parameters *p = fn_engine_parameters(c->engine);
  fn_reducer *reducer = NULL;
  FN_TRY(fn_reducer_create(c->dist, p, c->run->train.first_bucket_bytes,
                           fn_reducer_bucket_bytes(p, c->run->train.bucket_bytes),
                           fn_reduction_of(c->run), &reducer));
  char text[400];
  fn_reducer_describe(reducer, text, sizeof text);
  const size_t name = strlen("gradients: ");
  if (c->print && strlen(text) > name) printf("gradients          %s\n", text + name);
  fn_reducer_destroy(reducer);
  return FN_OK;
}

static void check_network(check *c) {
  if (c->train && passes(c, plan_network(c))) passes(c, plan_reduction(c));
}

/* ---- run folder ---------------------------------------------------------------------------------
 */

/** The nearest folder above `path` that exists. */
static void existing_folder(const char *path, char *folder, size_t size) {
  snprintf(folder, size, "%s", path);
  while (folder[0] && !fn_file_exists(folder)) {
    char *slash = strrchr(folder, '/');
    if (!slash) {
      snprintf(folder, size, ".");
    } else {
      slash[slash == folder] = '\0';
    }
  }
}

static fn_status check_folder(const check *c) {
  char folder[4096], need[32], free_text[32];
  struct statvfs disk;
  existing_folder(c->run->folder, folder, sizeof folder);
  FN_CHECK(fn_is_directory(folder) && access(folder, W_OK | X_OK) == 0, FN_ERR_CHECKPOINT,
           "%s: run folder %s cannot be written: %s", fn_run_where(c->run, "folder"),
           c->run->folder, fn_is_directory(folder) ? strerror(errno) : "not a folder");
  FN_CHECK(statvfs(folder, &disk) == 0, FN_ERR_CHECKPOINT, "%s: %s", folder, strerror(errno));
  const double available = (double)disk.f_bavail * (double)disk.f_frsize;
  fn_text_bytes(available, free_text, sizeof free_text);
  printf("run folder         %s, %s free\n", c->run->folder, free_text);
  // A state is complete before an old one is removed: there must be room for one more.
  const int64_t kept = c->run->checkpoint.keep_last > 0 ? c->run->checkpoint.keep_last : 1;
  const double wanted = (double)c->checkpoint_bytes * (double)(kept + 1);
  FN_CHECK(available > 0 && available >= wanted, FN_ERR_CHECKPOINT,
           "%s: %s free, but %lld states need %s", folder, free_text, (long long)(kept + 1),
           fn_text_bytes(wanted, need, sizeof need));
  return FN_OK;
}

static fn_status check_start(const check *c) {
  char *path = NULL;
  fn_parameters *parameters = c->engine ? fn_engine_parameters(c->engine) : NULL;
  FN_TRY(fn_start_check(c->run, parameters, &path));
  printf("start              from %s\n", path ? path : "the beginning");
  free(path);
  return FN_OK;
}

/* ---- all of it ----------------------------------------------------------------------------------
 */

static fn_status conclude(check *c) {
  fn_error_clear();
  if (c->problems == 0) {
    if (c->print) printf("\nno problems: the run can start\n");
    return FN_OK;
  }
  if (c->print) {
    fflush(stdout);
    fprintf(stderr, "\n%s\n%d problem%s: the run cannot start\n", c->text.data, c->problems,
            c->problems > 1 ? "s" : "");
  }
  return c->first;
}

static fn_status work(const fn_command_line *line, const fn_run *run, fn_dist *dist) {
  (void)line;
  check c = {.run = run, .dist = dist, .print = dist->rank == 0};
  check_data(&c);
  check_network(&c);
  passes(&c, c.print ? check_folder(&c) : FN_OK);
  passes(&c, c.print ? check_start(&c) : FN_OK);
  const fn_status status = conclude(&c);
  fn_engine_destroy(c.engine);
  fn_dataset_destroy(c.test);
  fn_dataset_destroy(c.validation);
  fn_dataset_destroy(c.train);
  fn_text_free(&c.text);
  return status;
}

fn_status fn_command_check(const fn_command_line *line) {
  return fn_cli_run(line, FN_COMMAND_CHECK, work);
}
