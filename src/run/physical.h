/** @file physical.h
 *  Fields back in the units of their files, and the run's loss there.
 */
#ifndef FN_RUN_PHYSICAL_H
#define FN_RUN_PHYSICAL_H

#include "data/dataset.h"

/** Undo the target norms on values [target_channels, cells] in place. field_channels has one entry
 *  per target field. */
fn_status fn_undo_target_norms(const fn_run *run, const fn_dataset_info *info,
                               const int64_t *field_channels, float *values, int64_t cells);
/** Undo the input norms on values [input_channels, cells] in place. */
fn_status fn_undo_input_norms(const fn_run *run, const fn_dataset_info *info, float *values,
                              int64_t cells);

/** The run's loss as a program of its own, for one window [target_channels, window...]. */
typedef struct fn_physical fn_physical;
fn_status fn_physical_create(const fn_run *run, const fn_dataset_info *info, const int64_t *window,
                             fn_physical **physical);
void fn_physical_destroy(fn_physical *physical);
/** Loss of x against target, both [target_channels, window...]. */
fn_status fn_physical_loss(fn_physical *physical, const float *x, const float *target,
                           double *loss);

#endif
