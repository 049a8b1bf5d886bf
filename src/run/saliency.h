/** @file saliency.h
 *  What the logit depends on: |d logit / d cell| of single samples, and signed gradients of all
 *  slices of a cube summed where they lie in it (cubes page, section 6).
 */
#ifndef FN_RUN_SALIENCY_H
#define FN_RUN_SALIENCY_H

#include "run/classify.h"
#include "run/engine.h"

/** Maps of test.saliency samples of each class, spread evenly over the data set; on rank 0 into
 *  result->map and <folder>/saliency.h5. Collective. */
fn_status fn_saliency_maps(const fn_run *run, const fn_dist *dist, fn_engine *engine,
                           fn_dataset *dataset, const char *folder, fn_class_result *result);

/** For both cubes of every seed of test.saliency_seeds: <folder>/saliency_<cube>.h5 with `gradient`
 *  [D, H, W], the sum of the gradients of all its slices, and `logit` [slices]. Each cube is one
 *  rank's. Collective. */
fn_status fn_saliency_cubes(const fn_run *run, const fn_dist *dist, fn_engine *engine,
                            fn_dataset *dataset, const char *folder);

/** Names of the files that fn_saliency_cubes() would write, without folder; text in the arena.
 *  FN_ERR_CONFIG when a seed is not among the test's. */
fn_status fn_saliency_files(const fn_run *run, const fn_dataset *dataset, fn_arena *arena,
                            const char ***name, int64_t *count);

#endif
