#include "learn/classes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

void fn_classes_destroy(fn_classes *c) {
  if (!c) return;
  free(c->cube);
  free(c->seed);
  free(c->slice);
  free(c->by_mean);
  free(c->by_vote);
  free(c);
}

static int compare_seeds(const void *left, const void *right) {
  const int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
  return a < b ? -1 : a > b;
}

/** The table of seeds: each once, ascending, with its cubes. */
static fn_status list_seeds(fn_classes *c, const int64_t *seed, const int *label) {
  int64_t *list = malloc((size_t)(c->cubes + 1) * sizeof *list);
  FN_CHECK(list, FN_ERR_MEMORY, "no memory for %lld seeds", (long long)c->cubes);
  memcpy(list, seed, (size_t)c->cubes * sizeof *list);
  qsort(list, (size_t)c->cubes, sizeof *list, compare_seeds);
  for (int64_t i = 0; i < c->cubes; i++)
    if (i == 0 || list[i] != list[i - 1]) list[c->seeds++] = list[i];
  fn_status status = FN_OK;
  for (int64_t s = 0; s < c->seeds; s++)
    c->seed[s] = (fn_seed_score){.seed = list[s], .cube = {-1, -1}, .by_mean = NAN, .by_vote = NAN};
  for (int64_t i = 0; i < c->cubes && status == FN_OK; i++) {
    const int64_t *found = bsearch(&seed[i], list, (size_t)c->seeds, sizeof *list, compare_seeds);
    c->cube[i] =
        (fn_cube_score){.seed = seed[i], .label = label[i] != 0, .group = (int32_t)(found - list)};
    int64_t *place = &c->seed[found - list].cube[label[i] != 0];
    if (*place >= 0)
      status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "seed %lld has two cubes of label %d",
                            (long long)seed[i], label[i]);
    *place = i;
  }
  free(list);
  return status;
}

static fn_status score_cube(fn_classes *c, int64_t cube, const float *logit, int64_t count) {
  fn_cube_score *k = &c->cube[cube];
  fn_seed_score *s = &c->seed[k->group];
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < count; i++) {
    const double x = (double)logit[i];
    FN_CHECK(isfinite(x), FN_ERR_DIVERGED,
             "the logit of sample %lld of the cube of seed %lld, label %d, is not finite",
             (long long)i, (long long)k->seed, k->label);
    k->positive += x >= 0;
    sum += x;
    fn_counts_add(&s->slices, x, k->label);
    s->loss += fn_logit_loss(x, k->label);
    c->slice[cube * count + i] =
        (fn_scored){.score = x, .group = k->group, .label = (uint8_t)k->label};
  }
  k->slices = count;
  k->mean = sum / (double)count;
  for (int64_t i = 0; i < count; i++)
    squares += ((double)logit[i] - k->mean) * ((double)logit[i] - k->mean);
  k->deviation = sqrt(squares / (double)count);
  c->by_mean[cube] = (fn_scored){.score = k->mean, .group = k->group, .label = (uint8_t)k->label};
  c->by_vote[cube] = (fn_scored){
      .score = (double)k->positive / (double)count, .group = k->group, .label = (uint8_t)k->label};
  return FN_OK;
}

static double above(double a, double b) {
  return a > b ? 1 : a == b ? 0.5 : 0;
}

static void score_pair(const fn_classes *c, fn_seed_score *s, const float *logit,
                       int64_t per_cube) {
  if (s->cube[0] < 0 || s->cube[1] < 0) return;
  const float *negative = logit + s->cube[0] * per_cube, *positive = logit + s->cube[1] * per_cube;
  for (int64_t i = 0; i < per_cube; i++)
    s->pairs_right += above((double)positive[i], (double)negative[i]);
  s->pairs = per_cube;
  s->by_mean = above(c->cube[s->cube[1]].mean, c->cube[s->cube[0]].mean);
  s->by_vote = above(s->pairs_right, (double)per_cube - s->pairs_right);
}

fn_status fn_classes_create(const float *logit, int64_t cubes, int64_t per_cube,
                            const int64_t *seed, const int *label, fn_classes **classes) {
  *classes = NULL;
  FN_CHECK(cubes > 0 && per_cube > 0 && cubes <= INT32_MAX, FN_ERR_DATA,
           "%lld cubes of %lld samples cannot be scored", (long long)cubes, (long long)per_cube);
  fn_classes *c = calloc(1, sizeof *c);
  FN_CHECK(c, FN_ERR_MEMORY, "out of memory");
  c->cubes = cubes;
  c->samples = cubes * per_cube;
  c->cube = calloc((size_t)cubes, sizeof *c->cube);
  c->seed = calloc((size_t)cubes, sizeof *c->seed);
  c->slice = calloc((size_t)c->samples, sizeof *c->slice);
  c->by_mean = calloc((size_t)cubes, sizeof *c->by_mean);
  c->by_vote = calloc((size_t)cubes, sizeof *c->by_vote);
  fn_status status = FN_OK;
  if (!c->cube || !c->seed || !c->slice || !c->by_mean || !c->by_vote)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for %lld scores",
                          (long long)c->samples);
  if (status == FN_OK) status = list_seeds(c, seed, label);
  for (int64_t i = 0; i < cubes && status == FN_OK; i++)
    status = score_cube(c, i, logit + i * per_cube, per_cube);
  if (status != FN_OK) {
    fn_classes_destroy(c);
    return status;
  }
  for (int64_t s = 0; s < c->seeds; s++)
    score_pair(c, &c->seed[s], logit, per_cube);
  fn_scored_sort(c->slice, c->samples);
  fn_scored_sort(c->by_mean, cubes);
  fn_scored_sort(c->by_vote, cubes);
  *classes = c;
  return FN_OK;
}

/* ---- statistics --------------------------------------------------------------------------------
 */

const char *fn_statistic_name(fn_statistic statistic) {
  static const char *const names[FN_STATISTICS] = {
      "slice.accuracy", "slice.precision", "slice.recall", "slice.f1",  "slice.fpr", "slice.auc",
      "cube.accuracy",  "cube.precision",  "cube.recall",  "cube.f1",   "cube.fpr",  "cube.auc",
      "vote.accuracy",  "vote.precision",  "vote.recall",  "vote.f1",   "vote.fpr",  "vote.auc",
      "pair.mean",      "pair.vote",       "pair.slices",  "slice.loss"};
  return names[statistic];
}

static void put_ratios(const fn_counts *counts, double auc, double *value) {
  fn_ratios r;
  fn_ratios_compute(counts, &r);
  value[0] = r.accuracy;
  value[1] = r.precision;
  value[2] = r.recall;
  value[3] = r.f1;
  value[4] = r.fpr;
  value[5] = auc;
}

static void confusion(const fn_classes *c, const int32_t *weight, fn_counts counts[3]) {
  memset(counts, 0, 3 * sizeof *counts);
  for (int64_t s = 0; s < c->seeds; s++)
    fn_counts_merge(&counts[0], &c->seed[s].slices, weight ? weight[s] : 1);
  for (int64_t i = 0; i < c->cubes; i++) {
    const fn_cube_score *k = &c->cube[i];
    fn_counts mean = {0}, vote = {0};
    fn_counts_add(&mean, k->mean, k->label);
    fn_counts_add(&vote, 2 * k->positive >= k->slices ? 1 : -1, k->label);
    fn_counts_merge(&counts[1], &mean, weight ? weight[k->group] : 1);
    fn_counts_merge(&counts[2], &vote, weight ? weight[k->group] : 1);
  }
}

void fn_classes_confusion(const fn_classes *c, fn_counts counts[3]) {
  confusion(c, NULL, counts);
}

void fn_classes_summarise(const fn_classes *c, const int32_t *weight, double value[FN_STATISTICS]) {
  fn_counts counts[3];
  confusion(c, weight, counts);
  put_ratios(&counts[0], fn_auc(c->slice, c->samples, weight), value + FN_SLICE_ACCURACY);
  put_ratios(&counts[1], fn_auc(c->by_mean, c->cubes, weight), value + FN_CUBE_ACCURACY);
  put_ratios(&counts[2], fn_auc(c->by_vote, c->cubes, weight), value + FN_VOTE_ACCURACY);
  double loss = 0, samples = 0, mean = 0, vote = 0, both = 0, right = 0, pairs = 0;
  for (int64_t s = 0; s < c->seeds; s++) {
    const fn_seed_score *seed = &c->seed[s];
    const fn_counts *n = &seed->slices;
    const double w = weight ? weight[s] : 1;
    loss += w * seed->loss;
    samples +=
        w * (double)(n->true_positive + n->true_negative + n->false_positive + n->false_negative);
    if (seed->pairs == 0) continue;
    both += w;
    mean += w * seed->by_mean;
    vote += w * seed->by_vote;
    right += w * seed->pairs_right;
    pairs += w * (double)seed->pairs;
  }
  value[FN_PAIR_MEAN] = both > 0 ? mean / both : (double)NAN;
  value[FN_PAIR_VOTE] = both > 0 ? vote / both : (double)NAN;
  value[FN_PAIR_SLICES] = pairs > 0 ? right / pairs : (double)NAN;
  value[FN_LOSS] = samples > 0 ? loss / samples : (double)NAN;
}

/* ---- bootstrap ---------------------------------------------------------------------------------
 */

static int compare_values(const void *left, const void *right) {
  const double a = *(const double *)left, b = *(const double *)right;
  return a < b ? -1 : a > b;
}

/** Linear between neighbours: Hyndman & Fan 1996, definition 7. */
static double percentile(const double *sorted, int64_t count, double p) {
  if (count == 0) return NAN;
  const double at = p * (double)(count - 1);
  const int64_t below = (int64_t)floor(at);
  if (below + 1 >= count) return sorted[count - 1];
  return sorted[below] + (at - (double)below) * (sorted[below + 1] - sorted[below]);
}

/** Replicate r: how often each seed was drawn. */
static void draw_weights(const fn_classes *c, uint64_t random_seed, int64_t r, int32_t *weight) {
  memset(weight, 0, (size_t)c->seeds * sizeof *weight);
  fn_random random = fn_random_stream(random_seed, FN_RANDOM_TEST, 0, (uint64_t)r);
  for (int64_t s = 0; s < c->seeds; s++)
    weight[fn_random_below(&random, (uint64_t)c->seeds)]++;
}

/** values [FN_STATISTICS][replicates] */
static bool draw_replicates(const fn_classes *c, int64_t replicates, uint64_t random_seed,
                            double *values) {
  bool enough = true;
#pragma omp parallel reduction(&& : enough)
  {
    int32_t *weight = malloc((size_t)c->seeds * sizeof *weight);
    enough = weight != NULL;
#pragma omp for schedule(static)
    for (int64_t r = 0; r < replicates; r++) {
      if (!enough) continue;
      double value[FN_STATISTICS];
      draw_weights(c, random_seed, r, weight);
      fn_classes_summarise(c, weight, value);
      for (int i = 0; i < FN_STATISTICS; i++)
        values[i * replicates + r] = value[i];
    }
    free(weight);
  }
  return enough;
}

fn_status fn_classes_bootstrap(const fn_classes *c, int64_t replicates, double confidence,
                               uint64_t random_seed, double low[FN_STATISTICS],
                               double high[FN_STATISTICS]) {
  for (int i = 0; i < FN_STATISTICS; i++)
    low[i] = high[i] = NAN;
  if (c->seeds < 2 || replicates < 1) return FN_OK;
  double *values = malloc((size_t)(FN_STATISTICS * replicates) * sizeof *values);
  const bool enough = values && draw_replicates(c, replicates, random_seed, values);
  for (int i = 0; i < FN_STATISTICS && enough; i++) {
    double *row = values + i * replicates;
    int64_t count = 0; // a class may be missing from a replicate: then there is no area
    for (int64_t r = 0; r < replicates; r++)
      if (isfinite(row[r])) row[count++] = row[r];
    qsort(row, (size_t)count, sizeof *row, compare_values);
    low[i] = percentile(row, count, (1 - confidence) / 2);
    high[i] = percentile(row, count, (1 + confidence) / 2);
  }
  free(values);
  FN_CHECK(enough, FN_ERR_MEMORY, "no memory for %lld bootstrap replicates", (long long)replicates);
  return FN_OK;
}
