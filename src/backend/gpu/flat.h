/** @file flat.h
 *  Arguments and grids of the kernels that a device runs outside of programs: over gradients and
 *  weights, and from a file's numbers to an input.
 */
#ifndef FN_BACKEND_GPU_FLAT_H
#define FN_BACKEND_GPU_FLAT_H

#include "backend/gpu/kernels.h"

fn_add_scaled_args fn_gpu_add_scaled_args(float *sum, const float *x, float keep, float factor,
                                          int64_t count);
fn_scale_args fn_gpu_scale_args(void *y, fn_dtype y_dtype, const void *x, fn_dtype x_dtype,
                                float factor, int64_t count);
int64_t fn_gpu_flat_blocks(int64_t count);

/** A sum of squares takes two kernels and `partial` [FN_SQUARES_BLOCKS] doubles of scratch. */
enum { FN_SQUARES_BLOCKS = 2048 };
int64_t fn_gpu_squares_blocks(int64_t count);
fn_sum_squares_args fn_gpu_sum_squares_args(const float *x, int64_t count, double *partial);
/** For one block. */
fn_sum_squares_finish_args fn_gpu_sum_squares_finish_args(int64_t count, const double *partial,
                                                          double *result);

/** Arguments to fill the channels [first, first + FN_CONVERT_CHANNELS) of `raw`; they become
 * channels `at + first`... of row n of y [N, C, s...]. Blocks: fn_gpu_flat_blocks(args->count). */
fn_status fn_gpu_convert_args(const fn_raw_field *raw, int64_t first, const fn_tensor *y, int64_t n,
                              int64_t at, fn_convert_args *args);

#endif
