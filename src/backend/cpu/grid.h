/** @file grid.h
 *  Several tensors walked together, whatever their layouts: loops over memory axes, of which a
 *  blocked tensor has one more (the channel inside the block). Strides of repeated axes are 0.
 */
#ifndef FN_BACKEND_CPU_GRID_H
#define FN_BACKEND_CPU_GRID_H

#include "backend/cpu/internal.h"

enum { FN_GRID_AXES = FN_MAX_DIMS + 1, FN_GRID_TENSORS = 3 };

typedef struct fn_grid {
  int ndim, tensors;
  int64_t dim[FN_GRID_AXES];
  int64_t stride[FN_GRID_TENSORS][FN_GRID_AXES]; /**< elements */
  int64_t outer;                                 /**< product of all axes but the last */
  int64_t chunks;                                /**< pieces of the last axis */
  int64_t items;
} fn_grid;

/** Elements per step along axis a of a tensor in memory; the block lane has step 1. */
int64_t fn_cpu_axis_stride(const fn_tensor *t, int axis);

/** Loops over tensor 0; the others are repeated along axes where they have size 1 or none. Axes
 * that continue one another are joined. */
fn_grid fn_cpu_grid(const fn_tensor *const *tensor, int tensors);

/** Join axes and count chunks of a grid whose ndim, tensors, dim and stride are set. */
void fn_cpu_grid_finish(fn_grid *grid);

/** Chunk `index`: offset of its first element in each tensor; returns the elements of it. */
int64_t fn_cpu_grid_at(const fn_grid *grid, int64_t index, int64_t *offset);

/** As fn_load for elements `stride` apart. */
const float *fn_cpu_load_strided(const fn_tensor *t, int64_t offset, int64_t stride, int64_t count,
                                 float *scratch);

/** Whether operand `part` can be read by a grid over `whole` in layout `block` without reordering
 * it first, and in *part_block the layout it must have. */
bool fn_cpu_grid_fits(const fn_shape *whole, const fn_shape *part, int64_t block,
                      int64_t *part_block);

#endif
