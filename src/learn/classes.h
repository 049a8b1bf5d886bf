/** @file classes.h
 *  Scores of slices put together per cube and per seed, with confidence intervals over seeds.
 *  Specification: cubes page, W-14 and W-15.
 *
 *  A cube is called by its mean logit, or by vote: positive when at least half of its slices are. A
 *  seed has a pair of cubes from the same initial conditions; the pair is right when the positive
 *  cube scores above the negative one (by mean logit), or when most of its pairs of slices at the
 *  same place do (by vote). Ties count half.
 */
#ifndef FN_LEARN_CLASSES_H
#define FN_LEARN_CLASSES_H

#include "learn/metrics.h"

typedef struct fn_cube_score {
  int64_t seed;
  int label;
  int32_t group;    /**< index of its seed in fn_classes.seed */
  int64_t slices;   /**< scored */
  int64_t positive; /**< of those, called positive */
  double mean;      /**< logit */
  double deviation; /**< of the logits about their mean (divided by their number) */
} fn_cube_score;

typedef struct fn_seed_score {
  int64_t seed;
  int64_t cube[2];         /**< of label 0, 1; -1: the seed has none */
  fn_counts slices;        /**< of both cubes */
  double loss;             /**< sum over slices */
  int64_t pairs;           /**< pairs of slices; 0 unless the seed has both cubes */
  double pairs_right;      /**< of those, ties half */
  double by_mean, by_vote; /**< the pair of cubes: 1 right, 0.5 tie, 0 wrong; NaN: no pair */
} fn_seed_score;

typedef struct fn_classes {
  int64_t samples, cubes, seeds;
  fn_cube_score *cube; /**< [cubes] */
  fn_seed_score *seed; /**< [seeds] ascending */
  fn_scored *slice;    /**< [samples] sorted by logit */
  fn_scored *by_mean;  /**< [cubes] sorted by mean logit */
  fn_scored *by_vote;  /**< [cubes] sorted by the fraction of positive slices */
} fn_classes;

/** From the logits of all samples, those of one cube together and in the same order of slices.
 *  @param[in] logit  [cubes][per_cube]
 *  @param[in] seed   [cubes], at most one cube per seed and label
 *  @param[in] label  [cubes], 0 or 1
 *  FN_ERR_DIVERGED for a logit that is not finite (named), FN_ERR_DATA, FN_ERR_MEMORY. */
fn_status fn_classes_create(const float *logit, int64_t cubes, int64_t per_cube,
                            const int64_t *seed, const int *label, fn_classes **classes);
void fn_classes_destroy(fn_classes *classes);

/** What is reported, in this order; fn_statistic_name() gives "slice.accuracy", ... */
typedef enum fn_statistic {
  FN_SLICE_ACCURACY,
  FN_SLICE_PRECISION,
  FN_SLICE_RECALL,
  FN_SLICE_F1,
  FN_SLICE_FPR,
  FN_SLICE_AUC,
  FN_CUBE_ACCURACY, /**< by mean logit */
  FN_CUBE_PRECISION,
  FN_CUBE_RECALL,
  FN_CUBE_F1,
  FN_CUBE_FPR,
  FN_CUBE_AUC,
  FN_VOTE_ACCURACY, /**< cubes by vote */
  FN_VOTE_PRECISION,
  FN_VOTE_RECALL,
  FN_VOTE_F1,
  FN_VOTE_FPR,
  FN_VOTE_AUC,
  FN_PAIR_MEAN,
  FN_PAIR_VOTE,
  FN_PAIR_SLICES,
  FN_LOSS, /**< mean binary cross-entropy of slices, hard labels */
  FN_STATISTICS
} fn_statistic;
const char *fn_statistic_name(fn_statistic statistic);

/** All statistics; `weight` [seeds]: how often each seed counts, NULL: once. NaN where there is
 *  nothing to count. */
void fn_classes_summarise(const fn_classes *classes, const int32_t *weight,
                          double value[FN_STATISTICS]);
/** Confusion matrices of slices, cubes by mean logit and cubes by vote. */
void fn_classes_confusion(const fn_classes *classes, fn_counts counts[3]);

/** Percentile intervals (Efron & Tibshirani 1993, 13.3) of every statistic: seeds, both their cubes
 *  with all slices, are drawn with replacement `replicates` times. A pure function of its
 * arguments. NaN where fewer than two seeds leave nothing to draw. */
fn_status fn_classes_bootstrap(const fn_classes *classes, int64_t replicates, double confidence,
                               uint64_t random_seed, double low[FN_STATISTICS],
                               double high[FN_STATISTICS]);

#endif
