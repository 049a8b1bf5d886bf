/* Logits of the test cubes by all ranks; on rank 0 what they amount to. */
#include "run/classify.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "run/cube_means.h"
#include "run/engine.h"
#include "run/logits.h"
#include "run/open_data.h"
#include "run/saliency.h"
#include "run/scores.h"
#include "run/trained.h"

typedef struct tester {
  const fn_run *run;
  fn_dist *dist;
  fn_dataset *dataset;
  fn_engine *engine;
  char folder[4096]; /**< of what is written */
  float *logit[2];   /**< [samples] with cube means, without; rank 0, or NULL */
} tester;

const char *fn_judged_name(fn_judged judged) {
  static const char *const names[FN_JUDGED] = {"network", "network, cube means removed",
                                               "cube mean", "cube mean, when removed"};
  return names[judged];
}

void fn_class_result_free(fn_class_result *r) {
  for (int j = 0; j < FN_JUDGED; j++)
    fn_classes_destroy(r->by[j].classes);
  for (int64_t i = 0; i < r->maps; i++)
    free(r->map[i].input);
  free(r->map);
  free(r->cube_mean);
  free(r->state);
  *r = (fn_class_result){0};
}

/* ---- start -------------------------------------------------------------------------------------
 */

static fn_status refuse_to_replace(const tester *t, const char *name) {
  char path[4200];
  snprintf(path, sizeof path, "%s/%s", t->folder, name);
  if (!fn_file_exists(path)) return FN_OK;
  return fn_run_fail(t->run, "test.overwrite",
                     "%s exists and would be replaced: set test.overwrite to true, or choose "
                     "another folder",
                     path);
}

/** Rank 0: nothing is overwritten without being asked, found out before the work. */
static fn_status check_outputs(const tester *t) {
  static const char *const names[] = {
      "report.json",   "scores.h5",  "scores.csv",      "cubes.csv",   "seeds.csv",   "roc.png",
      "confusion.png", "scores.png", "calibration.png", "saliency.h5", "saliency.png"};
  if (t->run->test.overwrite) return FN_OK;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    FN_TRY(refuse_to_replace(t, names[i]));
  return FN_OK;
}

/** Also finds seeds of test.saliency_seeds that the test does not have. */
static fn_status check_cube_outputs(const tester *t) {
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  const char **name = NULL;
  int64_t count = 0;
  fn_status status = fn_saliency_files(t->run, t->dataset, arena, &name, &count);
  if (status == FN_OK && count > 0 && t->run->data.cubes.compat)
    status =
        fn_run_fail(t->run, "test.saliency_seeds",
                    "test.saliency_seeds: the slices of data.cubes.compat do not cover a cube");
  for (int64_t i = 0; i < count && status == FN_OK && !t->run->test.overwrite; i++)
    status = refuse_to_replace(t, name[i]);
  fn_arena_destroy(arena);
  return status;
}

static fn_status prepare_folder(tester *t) {
  FN_TRY(check_outputs(t));
  FN_TRY(check_cube_outputs(t));
  return fn_make_directories(t->folder);
}

static fn_status start(tester *t, fn_class_result *r) {
  fn_progress progress = {0};
  char *path = NULL;
  const bool root = t->dist->rank == 0;
  const int length = snprintf(t->folder, sizeof t->folder, "%s/test", t->run->folder);
  FN_CHECK((size_t)length + 64 < sizeof t->folder, FN_ERR_CONFIG, "path too long: %s",
           t->run->folder);
  fn_status status =
      fn_dist_agree(t->dist, root ? fn_trained_find(t->run, &path, &progress) : FN_OK);
  if (status == FN_OK) status = fn_data_open(t->run, FN_STAGE_TEST, t->dist, NULL, &t->dataset);
  if (status == FN_OK) status = fn_dist_agree(t->dist, root ? prepare_folder(t) : FN_OK);
  if (status == FN_OK)
    status = fn_dist_agree(
        t->dist, fn_engine_create(t->run, t->dist, fn_dataset_get_info(t->dataset), &t->engine));
  if (status == FN_OK)
    status = fn_trained_load(t->run, t->dist, path, fn_engine_parameters(t->engine));
  r->state = path;
  r->epoch = progress.epoch;
  return status;
}

/* ---- the network -------------------------------------------------------------------------------
 */

/** The same run, but for one key. */
static fn_status vary(const fn_run *run, const char *set, fn_run **varied) {
  char *errors = NULL;
  const fn_status status =
      fn_run_parse(run->resolved, run->path, &set, 1, FN_COMMAND_TEST, varied, &errors);
  if (status != FN_OK && errors)
    fn_error_set(status, __FILE__, __LINE__, "with %s: %s", set, errors);
  free(errors);
  return status;
}

/** The test's cubes with their means taken away, by the same weights. */
static fn_status compute_without_mean(tester *t) {
  fn_run *run = NULL;
  fn_dataset *dataset = NULL;
  fn_status status = fn_dist_agree(t->dist, vary(t->run, "data.cubes.remove_mean=true", &run));
  if (status == FN_OK) status = fn_data_open(run, FN_STAGE_TEST, t->dist, t->dataset, &dataset);
  if (status == FN_OK) status = fn_logits_compute(run, t->dist, t->engine, dataset, &t->logit[1]);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
  return status;
}

static fn_status bootstrap(const tester *t, fn_verdict *v) {
  fn_classes_summarise(v->classes, NULL, v->value);
  return fn_classes_bootstrap(v->classes, t->run->test.bootstrap, 0.95, t->run->seed, v->low,
                              v->high);
}

/** Rank 0. */
static fn_status judge_logits(const tester *t, const float *logit, fn_verdict *v) {
  const fn_dataset_info *info = fn_dataset_get_info(t->dataset);
  int64_t *seed = malloc((size_t)info->files * sizeof *seed);
  int *label = malloc((size_t)info->files * sizeof *label);
  fn_status status =
      seed && label ? FN_OK : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  for (int64_t c = 0; c < info->files && status == FN_OK; c++) {
    fn_sample_key key;
    fn_dataset_key(t->dataset, c * info->crops, &key);
    seed[c] = key.seed;
    label[c] = key.label;
  }
  if (status == FN_OK)
    status = fn_classes_create(logit, info->files, info->crops, seed, label, &v->classes);
  free(seed);
  free(label);
  FN_TRY(status);
  for (int64_t i = 0; i < v->classes->samples; i++)
    fn_calibration_add(&v->calibration, v->classes->slice[i].score, v->classes->slice[i].label);
  fn_calibration_finish(&v->calibration);
  return bootstrap(t, v);
}

static fn_status judge_network(tester *t, fn_class_result *r) {
  const bool twice = t->run->test.without_mean && !r->mean_removed;
  FN_TRY(fn_logits_compute(t->run, t->dist, t->engine, t->dataset, &t->logit[0]));
  if (twice) FN_TRY(compute_without_mean(t));
  fn_status status = FN_OK;
  if (t->dist->rank == 0) status = judge_logits(t, t->logit[0], &r->by[FN_NETWORK]);
  if (t->dist->rank == 0 && twice && status == FN_OK)
    status = judge_logits(t, t->logit[1], &r->by[FN_NETWORK_NO_MEAN]);
  return fn_dist_agree(t->dist, status);
}

/* ---- the baseline ------------------------------------------------------------------------------
 */

/** Rank 0: fit a threshold to the training cubes, call the test cubes. */
static fn_status judge_means(const tester *t, const fn_cube_means *train, const double *train_value,
                             const fn_cube_means *test, const double *value, fn_verdict *v) {
  FN_TRY(fn_cube_means_fit(train, train_value, &v->threshold));
  float *logit = malloc((size_t)test->cubes * sizeof *logit);
  FN_CHECK(logit, FN_ERR_MEMORY, "out of memory");
  for (int64_t c = 0; c < test->cubes; c++)
    logit[c] = (float)(v->threshold.sign * (value[c] - v->threshold.value));
  const fn_status status =
      fn_classes_create(logit, test->cubes, 1, test->seed, test->label, &v->classes);
  free(logit);
  FN_TRY(status);
  return bootstrap(t, v);
}

static fn_status judge_both_means(const tester *t, const fn_cube_means *train, fn_cube_means *test,
                                  fn_class_result *r) {
  if (t->dist->rank != 0) return FN_OK;
  FN_TRY(judge_means(t, train, train->mean, test, test->mean, &r->by[FN_BASELINE]));
  FN_TRY(judge_means(t, train, train->rest, test, test->rest, &r->by[FN_BASELINE_NO_MEAN]));
  r->baseline_cubes = train->cubes;
  r->cube_mean = test->mean; // kept for the table of cubes
  test->mean = NULL;
  return FN_OK;
}

static fn_status judge_baseline(tester *t, fn_class_result *r) {
  if (t->run->test.baseline_seeds == 0) return FN_OK;
  if (!fn_run_has_data(t->run, "train", false)) {
    fn_log(FN_INFO, "no baseline: data.cubes.train_seeds names no seeds to fit it to");
    return FN_OK;
  }
  fn_dataset *training = NULL;
  fn_cube_means train = {0}, test = {0};
  fn_status status = fn_data_open(t->run, FN_STAGE_TRAIN, t->dist, t->dataset, &training);
  if (status == FN_OK)
    status = fn_cube_means_compute(t->run, t->dist, training, t->run->test.baseline_seeds, &train);
  if (status == FN_OK) status = fn_cube_means_compute(t->run, t->dist, t->dataset, 0, &test);
  if (status == FN_OK) status = fn_dist_agree(t->dist, judge_both_means(t, &train, &test, r));
  fn_cube_means_free(&train);
  fn_cube_means_free(&test);
  fn_dataset_destroy(training);
  return status;
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static fn_status write(const tester *t, const fn_class_result *r) {
  if (t->dist->rank != 0) return FN_OK;
  FN_TRY(fn_scores_write(t->folder, t->dataset, r, t->logit[0], t->logit[1]));
  fn_log(FN_INFO, "scores of %lld samples written below %s",
         (long long)fn_dataset_get_info(t->dataset)->samples, t->folder);
  return FN_OK;
}

static fn_status classify(tester *t, fn_class_result *r) {
  FN_TRY(start(t, r));
  r->mean_removed = t->run->data.cubes.remove_mean ||
                    fn_cube_file_get_info(fn_dataset_cube_file(t->dataset))->mean_removed;
  FN_TRY(judge_network(t, r));
  FN_TRY(judge_baseline(t, r));
  FN_TRY(fn_dist_agree(t->dist, write(t, r)));
  if (t->run->test.saliency > 0)
    FN_TRY(fn_saliency_maps(t->run, t->dist, t->engine, t->dataset, t->folder, r));
  if (t->run->test.saliency_seeds.count > 0)
    FN_TRY(fn_saliency_cubes(t->run, t->dist, t->engine, t->dataset, t->folder));
  return FN_OK;
}

fn_status fn_classify(const fn_run *run, fn_dist *dist, fn_class_result *result) {
  tester t = {.run = run, .dist = dist};
  *result = (fn_class_result){0};
  const fn_status status = classify(&t, result);
  fn_engine_destroy(t.engine);
  fn_dataset_destroy(t.dataset);
  free(t.logit[0]);
  free(t.logit[1]);
  return status;
}
