/** @file cubes.h
 *  Samples of cubes with two classes: slices or whole cubes, their order, their keys.
 *  Specification: cubes page, sections 2.5 to 2.10 with the fixes W-2, W-5 to W-8, W-18.
 *
 *  Sample number = (cube * slices + slice) * transforms + transform, where `cube` counts the
 *  stage's cubes by seed, GR before Newton, `slice` counts axes, then positions along the axis
 *  (size / stride each), and `transforms` is 8 when the symmetry group is taken in sequence,
 * else 1.
 */
#ifndef FN_DATA_CUBES_H
#define FN_DATA_CUBES_H

#include "data/dataset.h"
#include "field/cube_file.h"

/** What sample number s is. */
typedef struct fn_sample_key {
  int64_t seed;
  int label;    /**< 1 = GR, 0 = Newton; before label smoothing. FN_UNLABELLED in predictions */
  int64_t cube; /**< of the stage */
  int64_t file_cube; /**< index into the file's cubes */
  int axis;          /**< normal of the slice; -1: whole cube */
  int64_t position;  /**< first plane along that axis; 0 for whole cubes */
  int transform;     /**< 0..7 in sequence mode; 0 otherwise (random ones depend on the epoch) */
} fn_sample_key;

/** Where a sample is put: finished, or its cells as the cube has them, for a device to finish. */
typedef struct fn_cube_room {
  float *input;    /**< float32, finished; NULL: `raw` */
  void *raw;       /**< cells of the file's info.type, planes of a slice [stride, n, n] with their
                        axes in the cube's order */
  fn_raw_own *own; /**< what is to become of `raw` */
  float *target;   /**< NULL: not wanted */
} fn_cube_room;

/** Only for data sets of cubes; see fn_dataset_info.cubes. */
void fn_dataset_key(const fn_dataset *dataset, int64_t sample, fn_sample_key *key);
fn_cube_file *fn_dataset_cube_file(fn_dataset *dataset);

/** As fn_dataset_create() with data.kind: cubes, but from a file that is open already; takes it
 *  over, also on failure. FN_STAGE_PREDICT: of a file opened without labels every cube, in the
 *  file's order; else the test's seeds, whose labels are not looked at. */
fn_status fn_dataset_create_cubes(const fn_run *run, fn_stage stage, fn_cube_file *file,
                                  fn_dataset **dataset);

/** Group element 0..7 of sample `sample` in `epoch` (random symmetry): pure function. */
int fn_cube_symmetry(uint64_t seed, int64_t epoch, int64_t sample);
/** Source index map of the 8 elements (identity, rotations by 90, 180, 270 degrees
 * counter-clockwise, horizontal flip, then the same rotations of the flipped): out[i][j] = in of
 * edge n at returned flat index. */
int64_t fn_square_index(int element, int64_t n, int64_t i, int64_t j);

/** Order of an epoch: seeds shuffled as files are (fn_epoch_order's rule), taken up to `window`
 *  cubes at a time (both theories of a seed together, window even, in as few windows as there can
 *  be, which differ by one seed at most), `per_cube` slices of each cube drawn without repetition
 *  (0: all), and all of a window shuffled together. Pure function of its arguments.
 *  @param[out] order  sample numbers; *count of them */
typedef struct fn_cube_order_options {
  uint64_t seed;
  int64_t epoch, cubes, slices, transforms;
  int64_t window, per_cube;
  bool shuffle;
} fn_cube_order_options;
int64_t fn_cube_order_count(const fn_cube_order_options *options);
fn_status fn_cube_order(const fn_cube_order_options *options, int64_t *order);
/** Cubes that a rank must be able to hold for `ranks` ranks to take this order in equal parts,
 *  `batch` samples at a time and in step, while all read round by round together: those from the
 *  oldest that any rank still needs at a batch to the newest that any needs, counted by whole
 *  windows, so that it is the same in every epoch. */
int64_t fn_cube_order_held(const fn_cube_order_options *options, int ranks, int64_t batch);

#endif
