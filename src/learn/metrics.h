/** @file metrics.h
 *  How well two classes are told apart by a score: counts, ratios, ROC, calibration.
 *  Specification: cubes page, section 3.4 and Appendix A.4. No function here reads or writes files.
 *
 *  The positive class (label 1) is general relativity. A score is a logit; a sample is called
 *  positive when sigmoid(logit) >= 1/2, that is logit >= 0. A ratio of 0/0 counts as 0.
 */
#ifndef FN_LEARN_METRICS_H
#define FN_LEARN_METRICS_H

#include <fieldnet/fieldnet.h>

/** Confusion matrix, exact. */
typedef struct fn_counts {
  int64_t true_positive, true_negative, false_positive, false_negative;
} fn_counts;

/** Count one sample. */
void fn_counts_add(fn_counts *counts, double logit, int label);
/** Add `from` to `to`, `times` over. */
void fn_counts_merge(fn_counts *to, const fn_counts *from, int64_t times);

typedef struct fn_ratios {
  double accuracy, precision, recall, f1;
  double fpr;      /**< false positives of all negatives; the true positive rate is the recall */
  double balanced; /**< mean of recall and 1 - fpr */
} fn_ratios;
void fn_ratios_compute(const fn_counts *counts, fn_ratios *ratios);

/** 1 / (1 + exp(-logit)), without overflow. */
double fn_probability(double logit);
/** Binary cross-entropy of a logit, max(x, 0) - x y + ln(1 + exp(-|x|)). */
double fn_logit_loss(double logit, double label);

/* ---- scores in order --------------------------------------------------------------------------
 */

typedef struct fn_scored {
  double score;
  int32_t group; /**< index of the seed: what a bootstrap draws */
  uint8_t label;
} fn_scored;

/** Highest score first; equal ones by group, then label. */
void fn_scored_sort(fn_scored *samples, int64_t count);

/** Probability that a positive sample scores above a negative one, ties counting half (Hanley &
 *  McNeil 1982): the area under the ROC curve. `weight` [groups]: how often each group counts,
 * NULL: once. NaN when one class has no sample. */
double fn_auc(const fn_scored *sorted, int64_t count, const int32_t *weight);

/** True against false positive rate as the threshold sinks; from (0, 0) to (1, 1). Samples of equal
 *  score enter together. */
typedef struct fn_roc {
  int64_t points;
  double *threshold; /**< [points] lowest score called positive; the first is +infinity */
  double *fpr, *tpr; /**< [points] */
} fn_roc;
/** At most `most` points (>= 2; of more, every k-th is kept and the last). Rates of an absent class
 *  are 0. Free with fn_roc_free. */
fn_status fn_roc_create(const fn_scored *sorted, int64_t count, int64_t most, fn_roc *roc);
void fn_roc_free(fn_roc *roc);

/** The threshold and sign that tell the classes of these samples apart best: positive when
 *  sign * (score - threshold) >= 0. Largest balanced accuracy; of equal ones the middle of the
 *  widest gap between neighbouring scores. */
typedef struct fn_threshold {
  double value;
  int sign;        /**< 1 or -1 */
  double balanced; /**< balanced accuracy on these samples */
} fn_threshold;
void fn_threshold_fit(const fn_scored *sorted, int64_t count, fn_threshold *threshold);

/* ---- calibration ------------------------------------------------------------------------------
 */

enum { FN_CALIBRATION_BINS = 10 };
/** Are probabilities what they say? Bins of equal width in the probability of the positive class,
 *  [b/10, (b+1)/10), the last one closed. */
typedef struct fn_calibration {
  int64_t count[FN_CALIBRATION_BINS];
  double probability[FN_CALIBRATION_BINS]; /**< mean predicted; sums until finished */
  double fraction[FN_CALIBRATION_BINS];    /**< of positive samples; sums until finished */
  double expected_error; /**< mean over samples of |fraction - probability| of their bin */
  double largest_error;
  double brier; /**< mean of (probability - label)^2 */
} fn_calibration;
/** Zero-initialise, add every sample, finish once. Empty bins are NaN after. */
void fn_calibration_add(fn_calibration *calibration, double logit, int label);
void fn_calibration_finish(fn_calibration *calibration);

#endif
