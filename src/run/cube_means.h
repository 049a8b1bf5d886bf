/** @file cube_means.h
 *  The classifier that a network must beat: a threshold on the mean of a cube (cubes page, 2.11 and
 *  W-18; the mean of phi alone tells GR from Newton).
 */
#ifndef FN_RUN_CUBE_MEANS_H
#define FN_RUN_CUBE_MEANS_H

#include "data/cubes.h"
#include "dist/dist.h"
#include "learn/metrics.h"

/** Means of the cubes of a data set, the same on all ranks; data.cubes.newton_augmentation applied
 *  first, so that they are of what a network sees. */
typedef struct fn_cube_means {
  int64_t cubes;
  int64_t *seed; /**< [cubes] */
  int *label;    /**< [cubes] */
  double *mean;  /**< [cubes] standardised units, as in the file */
  double *rest; /**< [cubes] mean of the float32 cells after the cube's mean was taken away, rounded
                     to a millionth of a standard deviation: the noise of f32 is no cue */
} fn_cube_means;

/** Read whole cubes, divided over the ranks, of at most `most_seeds` seeds spread evenly over the
 *  data set (0: all). Collective. FN_ERR_DATA. */
fn_status fn_cube_means_compute(const fn_run *run, const fn_dist *dist, fn_dataset *dataset,
                                int64_t most_seeds, fn_cube_means *means);
void fn_cube_means_free(fn_cube_means *means);

/** The best threshold for telling labels apart by `value` [means->cubes] (mean or rest). */
fn_status fn_cube_means_fit(const fn_cube_means *means, const double *value,
                            fn_threshold *threshold);

#endif
