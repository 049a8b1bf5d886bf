#include "learn/metrics.h"

#include <math.h>
#include <stdlib.h>

void fn_counts_add(fn_counts *counts, double logit, int label) {
  const bool positive = logit >= 0;
  if (label) {
    counts->true_positive += positive;
    counts->false_negative += !positive;
  } else {
    counts->false_positive += positive;
    counts->true_negative += !positive;
  }
}

void fn_counts_merge(fn_counts *to, const fn_counts *from, int64_t times) {
  to->true_positive += times * from->true_positive;
  to->true_negative += times * from->true_negative;
  to->false_positive += times * from->false_positive;
  to->false_negative += times * from->false_negative;
}

static double ratio(double part, double whole) {
  return whole > 0 ? part / whole : 0;
}

void fn_ratios_compute(const fn_counts *c, fn_ratios *r) {
  const double tp = (double)c->true_positive, tn = (double)c->true_negative;
  const double fp = (double)c->false_positive, fn = (double)c->false_negative;
  r->accuracy = ratio(tp + tn, tp + tn + fp + fn);
  r->precision = ratio(tp, tp + fp);
  r->recall = ratio(tp, tp + fn);
  r->f1 = ratio(2 * tp, 2 * tp + fp + fn); // = 2 P R / (P + R), also where both are 0
  r->fpr = ratio(fp, fp + tn);
  r->balanced = (r->recall + ratio(tn, fp + tn)) / 2;
}

double fn_probability(double logit) {
  const double e = exp(-fabs(logit));
  return logit >= 0 ? 1 / (1 + e) : e / (1 + e);
}

double fn_logit_loss(double logit, double label) {
  return fmax(logit, 0) - logit * label + log1p(exp(-fabs(logit)));
}

/* ---- scores in order ---------------------------------------------------------------------------
 */

static int compare(const void *left, const void *right) {
  const fn_scored *a = left, *b = right;
  if (a->score != b->score) return a->score > b->score ? -1 : 1;
  if (a->group != b->group) return a->group < b->group ? -1 : 1;
  return (int)a->label - (int)b->label;
}

void fn_scored_sort(fn_scored *samples, int64_t count) {
  qsort(samples, (size_t)count, sizeof *samples, compare);
}

double fn_auc(const fn_scored *sorted, int64_t count, const int32_t *weight) {
  double positives = 0, negatives = 0, area = 0;
  for (int64_t i = 0; i < count;) {
    const double score = sorted[i].score;
    double tied_positives = 0, tied_negatives = 0;
    for (; i < count && sorted[i].score == score; i++) {
      const double w = weight ? weight[sorted[i].group] : 1;
      if (sorted[i].label) {
        tied_positives += w;
      } else {
        tied_negatives += w;
      }
    }
    area += tied_negatives * (positives + tied_positives / 2);
    positives += tied_positives;
    negatives += tied_negatives;
  }
  return positives > 0 && negatives > 0 ? area / (positives * negatives) : (double)NAN;
}

static int64_t distinct_scores(const fn_scored *sorted, int64_t count) {
  int64_t distinct = count > 0;
  for (int64_t i = 1; i < count; i++)
    distinct += sorted[i].score != sorted[i - 1].score;
  return distinct;
}

static void count_classes(const fn_scored *samples, int64_t count, int64_t total[2]) {
  total[0] = total[1] = 0;
  for (int64_t i = 0; i < count; i++)
    total[samples[i].label != 0]++;
}

fn_status fn_roc_create(const fn_scored *sorted, int64_t count, int64_t most, fn_roc *roc) {
  *roc = (fn_roc){0};
  FN_CHECK(most >= 2, FN_ERR_INTERNAL, "a ROC curve of %lld points", (long long)most);
  const int64_t distinct = distinct_scores(sorted, count);
  const int64_t every =
      (distinct + most - 2) / (most - 1) > 1 ? (distinct + most - 2) / (most - 1) : 1;
  const size_t room = (size_t)(distinct / every + 2);
  double *block = malloc(3 * room * sizeof *block);
  FN_CHECK(block, FN_ERR_MEMORY, "no memory for a ROC curve of %zu points", room);
  roc->threshold = block;
  roc->fpr = block + room;
  roc->tpr = block + 2 * room;
  int64_t total[2], seen[2] = {0, 0}, point = 1;
  count_classes(sorted, count, total);
  roc->threshold[0] = INFINITY;
  roc->fpr[0] = roc->tpr[0] = 0;
  for (int64_t i = 0, score = 1; i < count; score++) {
    const double threshold = sorted[i].score;
    for (; i < count && sorted[i].score == threshold; i++)
      seen[sorted[i].label != 0]++;
    if (score % every != 0 && i < count) continue;
    roc->threshold[point] = threshold;
    roc->fpr[point] = ratio((double)seen[0], (double)total[0]);
    roc->tpr[point++] = ratio((double)seen[1], (double)total[1]);
  }
  roc->points = point;
  return FN_OK;
}

void fn_roc_free(fn_roc *roc) {
  free(roc->threshold);
  *roc = (fn_roc){0};
}

void fn_threshold_fit(const fn_scored *sorted, int64_t count, fn_threshold *best) {
  int64_t total[2], above[2] = {0, 0};
  count_classes(sorted, count, total);
  // Everything on one side, whatever the sign: half of the samples are right.
  *best = (fn_threshold){.value = count > 0 ? sorted[0].score : 0, .sign = 1, .balanced = 0.5};
  double widest = 0;
  for (int64_t i = 0; i + 1 < count; i++) {
    above[sorted[i].label != 0]++;
    const double gap = sorted[i].score - sorted[i + 1].score;
    if (!(gap > 0)) continue;
    const double recall = ratio((double)above[1], (double)total[1]);
    const double fpr = ratio((double)above[0], (double)total[0]);
    const double plus = (recall + 1 - fpr) / 2, better = fmax(plus, 1 - plus);
    if (better < best->balanced || (better == best->balanced && gap <= widest)) continue;
    *best = (fn_threshold){
        .value = sorted[i + 1].score + gap / 2, .sign = plus >= 0.5 ? 1 : -1, .balanced = better};
    widest = gap;
  }
}

/* ---- calibration -------------------------------------------------------------------------------
 */

void fn_calibration_add(fn_calibration *c, double logit, int label) {
  const double p = fn_probability(logit);
  int bin = (int)(p * FN_CALIBRATION_BINS);
  if (bin >= FN_CALIBRATION_BINS) bin = FN_CALIBRATION_BINS - 1;
  c->count[bin]++;
  c->probability[bin] += p;
  c->fraction[bin] += label != 0;
  c->brier += (p - (label != 0)) * (p - (label != 0));
}

// Guo et al. 2017, equations 3 and 5, for the probability of the positive class
void fn_calibration_finish(fn_calibration *c) {
  double samples = 0;
  for (int b = 0; b < FN_CALIBRATION_BINS; b++)
    samples += (double)c->count[b];
  c->expected_error = c->largest_error = 0;
  for (int b = 0; b < FN_CALIBRATION_BINS; b++) {
    const double count = (double)c->count[b];
    c->probability[b] = count > 0 ? c->probability[b] / count : (double)NAN;
    c->fraction[b] = count > 0 ? c->fraction[b] / count : (double)NAN;
    if (!(count > 0)) continue;
    const double error = fabs(c->fraction[b] - c->probability[b]);
    c->expected_error += error * count / samples;
    c->largest_error = fmax(c->largest_error, error);
  }
  c->brier = ratio(c->brier, samples);
}
