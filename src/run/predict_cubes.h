/** @file predict_cubes.h
 *  What a trained network says of cubes without labels: `fieldnet predict` with data.kind: cubes.
 *  Specification: cubes page, 3.4, W-14, W-15: mean logit and vote of a cube's slices.
 */
#ifndef FN_RUN_PREDICT_CUBES_H
#define FN_RUN_PREDICT_CUBES_H

#include "data/dataset.h"
#include "dist/dist.h"

typedef struct fn_predicted_cube {
  int32_t file;     /**< index into fn_prediction.file */
  int64_t cube;     /**< index in its file: row, or place among its datasets */
  int64_t seed;     /**< -1: the file does not tell */
  const char *name; /**< of its dataset; owned by the prediction's arena */
  int64_t positive; /**< outputs that are at least 0 */
  double mean;      /**< of its outputs */
  double deviation; /**< of the outputs about their mean (divided by their number) */
} fn_predicted_cube;

/** Values on rank 0 only; the rest is zero elsewhere. */
typedef struct fn_prediction {
  bool classes; /**< outputs are logits of GR, see fn_run_has_logits(); else values */
  int64_t files;
  const char **file; /**< [files] paths as given */
  int64_t cubes;
  fn_predicted_cube *cube; /**< [cubes] by file, then as in the file or as the seeds are listed */
  int64_t samples;         /**< per cube: its slices, or 1 */
  float *output;           /**< [cubes][samples] */
  int8_t *axis;            /**< [samples] normal of each slice; -1: the whole cube */
  int32_t *position;       /**< [samples] its first plane */
  char *state;             /**< path of the state used */
  int64_t epoch;           /**< of that state */
  struct fn_arena *arena;
} fn_prediction;
void fn_prediction_free(fn_prediction *prediction);

/** Every cube of data.cubes.predict, else of data.cubes.test_seeds, else of data.cubes.file,
 * through the network of the run's state: each slice once, on whichever rank. Writes
 * predictions.csv and predictions.h5 below test.output; nothing is replaced without test.overwrite.
 * Collective. */
fn_status fn_predict_cubes(const fn_run *run, fn_dist *dist, fn_prediction *result);

/** Look at the files of data.cubes.predict without predicting: all there, cubes of one shape, the
 *  same as `train` (NULL: unknown). *cubes: in all files. Collective; errors are agreed. */
fn_status fn_predict_cubes_check(const fn_run *run, fn_dist *dist, const fn_dataset_info *train,
                                 int64_t *files, int64_t *cubes);

/** predictions.csv, a row per cube, and predictions.h5, the same by columns and with every output,
 *  below `folder`, which exists. Rank 0 only. FN_ERR_DATA. */
fn_status fn_prediction_write(const char *folder, const fn_prediction *prediction);

#endif
