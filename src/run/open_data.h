/** @file open_data.h
 *  Data sets opened by all ranks of a job together.
 */
#ifndef FN_RUN_OPEN_DATA_H
#define FN_RUN_OPEN_DATA_H

#include "data/dataset.h"
#include "dist/dist.h"

/** The stage's data set, checked. Fields are looked at by every rank; of cubes rank 0 reads the
 *  file's metadata and shares them, or `sibling` (another stage's data set, or NULL) has them, and
 *  the ranks then read together, see fn_dataset_join(). Collective; errors are agreed. */
fn_status fn_data_open(const fn_run *run, fn_stage stage, const fn_dist *dist, fn_dataset *sibling,
                       fn_dataset **dataset);
/** Every cube of one file, to be predicted: FN_STAGE_PREDICT of a file without labels. Read as the
 *  run's own. Collective; errors are agreed. */
fn_status fn_data_open_unlabelled(const fn_run *run, const char *path, const fn_dist *dist,
                                  fn_dataset **dataset);

#endif
