/** @file walk.h
 *  Visiting the cells of a tensor in C order while following offsets into others. For reference
 *  kernels, which are meant to be read, not to be fast.
 */
#ifndef FN_OPS_WALK_H
#define FN_OPS_WALK_H

#include <fieldnet/backend.h>

/** Position in a loop over `shape` and the matching offsets into two other tensors. */
typedef struct fn_walk {
  fn_shape shape;
  int64_t index[FN_MAX_DIMS];
  int64_t stride[2][FN_MAX_DIMS]; /**< elements per step along an axis */
  int64_t offset[2];              /**< elements */
} fn_walk;

/** Strides in elements of a dense C-order tensor. */
static inline void fn_dense_strides(const fn_shape *shape, int64_t *stride) {
  int64_t step = 1;
  for (int a = shape->ndim - 1; a >= 0; a--) {
    stride[a] = step;
    step *= shape->dim[a];
  }
}

/** Strides that read a tensor of shape `from` as if broadcast to `to` (numpy's rule). */
static inline void fn_broadcast_strides(const fn_shape *from, const fn_shape *to, int64_t *stride) {
  int64_t dense[FN_MAX_DIMS] = {0};
  fn_dense_strides(from, dense);
  for (int a = 0; a < to->ndim; a++) {
    const int b = a - (to->ndim - from->ndim);
    stride[a] = b >= 0 && from->dim[b] != 1 ? dense[b] : 0;
  }
}

/** Step to the next cell in C order; false after the last one. */
static inline bool fn_walk_next(fn_walk *walk) {
  for (int a = walk->shape.ndim - 1; a >= 0; a--) {
    walk->offset[0] += walk->stride[0][a];
    walk->offset[1] += walk->stride[1][a];
    if (++walk->index[a] < walk->shape.dim[a]) return true;
    walk->offset[0] -= walk->stride[0][a] * walk->index[a];
    walk->offset[1] -= walk->stride[1][a] * walk->index[a];
    walk->index[a] = 0;
  }
  return false;
}

/** Flops of an operator that only moves values. */
static inline double fn_flops_none(const fn_node *node) {
  (void)node;
  return 0;
}

#endif
