/** @file cells.h
 *  For operators that visit neighbouring cells: one cell is the `block` channels of one position.
 */
#ifndef FN_BACKEND_CPU_CELLS_H
#define FN_BACKEND_CPU_CELLS_H

#include "backend/cpu/internal.h"
#include "ops/geometry.h"

/** Offset of cell 0 of plane p = n * blocks + k, elements. */
static inline int64_t fn_plane_at(const fn_tensor *t, int64_t plane) {
  const int64_t blocks = fn_ceil_div(fn_channels(&t->shape), t->block);
  return plane / blocks * t->batch_stride + plane % blocks * fn_space(&t->shape) * t->block;
}

static inline int64_t fn_planes(const fn_tensor *t) {
  return fn_batch(&t->shape) * fn_ceil_div(fn_channels(&t->shape), t->block);
}

/** A gradient that is scattered needs f32 to add to: the output itself, or a copy in the workspace
 *  when the output is bf16. */
typedef struct fn_scatter {
  fn_cpu_state base;
  size_t copy_at;
} fn_scatter;

fn_status fn_cpu_scatter_prepare(fn_kernel *kernel);
/** Zeroed f32 tensor to add to. */
fn_tensor fn_cpu_scatter_begin(const fn_kernel *kernel, const fn_run_context *context);
void fn_cpu_scatter_end(const fn_kernel *kernel, const fn_tensor *sums);

/** Elementwise copy between tensors of one shape and block; types and strides may differ. */
void fn_cpu_copy(const fn_tensor *to, const fn_tensor *from);

/** Plan: the layout of the inputs, kept in the output. */
void fn_cpu_plan_cells(const fn_node *node, const int64_t *current, fn_node_plan *plan);

#endif
