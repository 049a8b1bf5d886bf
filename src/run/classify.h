/** @file classify.h
 *  Test of a network that tells two classes of cubes apart: `fieldnet test` with data.kind: cubes.
 *  Specification: cubes page, 3.3, 3.4, W-14, W-15, W-18.
 */
#ifndef FN_RUN_CLASSIFY_H
#define FN_RUN_CLASSIFY_H

#include "data/cubes.h"
#include "dist/dist.h"
#include "learn/classes.h"

/** Who is judged, on the same test cubes. */
typedef enum fn_judged {
  FN_NETWORK,          /**< on cubes as in training */
  FN_NETWORK_NO_MEAN,  /**< the same weights, each cube's mean taken away */
  FN_BASELINE,         /**< threshold on the cube mean */
  FN_BASELINE_NO_MEAN, /**< the same on what rounding leaves of the mean when it is taken away */
  FN_JUDGED
} fn_judged;

typedef struct fn_verdict {
  fn_classes *classes;                                                  /**< NULL: not judged */
  double value[FN_STATISTICS], low[FN_STATISTICS], high[FN_STATISTICS]; /**< 95 %, NaN: none */
  fn_calibration calibration;                                           /**< of slices */
  fn_threshold threshold;                                               /**< of a baseline */
} fn_verdict;

/** One sample and what the logit depends on in it. */
typedef struct fn_saliency_map {
  fn_sample_key key;
  float logit;
  float *input;    /**< [channels, extent...] */
  float *gradient; /**< d logit / d input, same shape; in one allocation with input */
} fn_saliency_map;

/** Values on rank 0 only; the rest is zero elsewhere. */
typedef struct fn_class_result {
  fn_verdict by[FN_JUDGED];
  bool mean_removed;      /**< the network sees cubes without their means already */
  int64_t baseline_cubes; /**< training cubes that the baseline was fitted to */
  double *cube_mean;      /**< [cubes] of the test; NULL without baseline */
  char *state;            /**< path of the state tested */
  int64_t epoch;          /**< of that state */
  int64_t maps;
  fn_saliency_map *map; /**< [maps] by sample; test.saliency */
  int spatial;
  int64_t channels, extent[FN_MAX_SPATIAL]; /**< of a sample */
} fn_class_result;
void fn_class_result_free(fn_class_result *result);

/** Judge the network of the run's state on data.cubes.test_seeds. Writes, below <folder>/test:
 *  scores.h5 and scores.csv (per sample), cubes.csv, seeds.csv, and what test.saliency and
 *  test.saliency_seeds ask for. Nothing is replaced without test.overwrite. Collective. */
fn_status fn_classify(const fn_run *run, fn_dist *dist, fn_class_result *result);

/** Name for tables: "network", ... */
const char *fn_judged_name(fn_judged judged);

#endif
