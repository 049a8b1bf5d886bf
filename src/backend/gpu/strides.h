/** @file strides.h
 *  Arguments of kernels made from tensors: loops, cells, copies.
 */
#ifndef FN_BACKEND_GPU_STRIDES_H
#define FN_BACKEND_GPU_STRIDES_H

#include "backend/gpu/kernels.h"

/** A tensor as a loop sees it: where its first element lies and how far apart elements are. */
typedef struct fn_operand {
  void *data;
  fn_dtype dtype;
  int64_t stride[FN_MAX_DIMS]; /**< elements, per axis of the loop; 0: repeated */
} fn_operand;

fn_divider fn_gpu_divider(int64_t by);

/** Whether fours of the dtype can be moved at once from here on. */
bool fn_gpu_aligned(const void *data, fn_dtype dtype);

/** A tensor over its own axes. */
fn_operand fn_gpu_operand(const fn_tensor *tensor);
/** The same repeated up to `shape`, numpy's rule. */
fn_operand fn_gpu_operand_broadcast(const fn_tensor *tensor, const fn_shape *shape);
/** Move to the element `start` [axes]. */
void fn_gpu_operand_move(fn_operand *operand, int axes, const int64_t *start);

/** Loop over `shape` in the order of operand 0; four neighbours at a time where `wide` and all
 *  operands allow it. */
fn_loop fn_gpu_loop(const fn_shape *shape, int operands, const fn_operand *operand, bool wide);

/** A tensor [N, C, s...] (or [N, C]) that lies channels-last, as the plans of the operators that
 * use this demand. */
fn_view fn_gpu_view(const fn_tensor *tensor);
/** Whether four neighbouring channels of the tensor can be moved at once. */
bool fn_gpu_view_wide(const fn_tensor *tensor);
/** Loop over the elements of `shape` [N, C, s...]. */
fn_cell_loop fn_gpu_cell_loop(const fn_shape *shape, bool wide);

/** A copy with any change of strides and dtype. */
typedef struct fn_gpu_copy_plan {
  bool tiled;
  int64_t blocks;
  fn_map_args map;
  fn_transpose_args tile;
} fn_gpu_copy_plan;
fn_gpu_copy_plan fn_gpu_copy_make(const fn_shape *shape, const fn_operand *y, const fn_operand *x);
fn_status fn_gpu_copy_run(fn_gpu_platform *platform, const fn_gpu_copy_plan *copy);

/** Whether input i may be overwritten by output o: the same shape and dtype. */
bool fn_gpu_same(const fn_node *node, int i, int o);

/** Take `bytes` of the workspace, 64-byte aligned; returns their offset. */
size_t fn_gpu_carve(fn_kernel *kernel, size_t bytes);

#endif
