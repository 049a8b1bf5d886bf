/** @file saliency_program.h
 *  The gradient of a network's output with respect to its input, d logit / d cell.
 */
#ifndef FN_RUN_SALIENCY_PROGRAM_H
#define FN_RUN_SALIENCY_PROGRAM_H

#include "run/engine.h"

typedef struct fn_saliency_program fn_saliency_program;

/** A program in evaluation mode for up to `batch` samples, always in f32 whatever the run's
 *  precision: gradients of small signals are wanted. The engine must outlive it. Not collective. */
fn_status fn_saliency_program_create(const fn_run *run, fn_engine *engine,
                                     const fn_dataset_info *info, int64_t batch,
                                     fn_saliency_program **program);
void fn_saliency_program_destroy(fn_saliency_program *program);

/** Gradients of `count` <= batch samples. Each sample's gradient is of the sum of its own outputs:
 *  of its logit, when there is one; samples do not depend on each other in evaluation mode.
 *  @param[in]  input     [count][input_channels, input_extent...]
 *  @param[in]  sample    [count] global sample numbers
 *  @param[out] logit     [count]
 *  @param[out] gradient  shaped as input */
fn_status fn_saliency_run(fn_saliency_program *program, const float *input, int64_t count,
                          const int64_t *sample, float *logit, float *gradient);

#endif
