/** @file transpose.h
 *  Copies whose source and target have different fastest axes: through a tile in shared memory, so
 *  that neighbouring threads read and write neighbouring elements.
 */
#ifndef FN_BACKEND_GPU_KERNELS_TRANSPOSE_H
#define FN_BACKEND_GPU_KERNELS_TRANSPOSE_H

#include "backend/gpu/kernels/loop.h"

enum { FN_TILE_ELEMENTS = 1024, FN_TILE_SHARED = 1536 };

/** Axis p is the fastest of x, axis q that of y. A block moves one tile of tile_p x tile_q
 * elements; tiles are numbered p first, then q, then the turns of `outer` (operands y, x; width 1).
 */
typedef struct fn_transpose_args {
  void *y;
  const void *x;
  int y_dtype, x_dtype;
  int64_t p, q;       /**< sizes of the axes */
  int64_t x_step;     /**< elements of x per step of q; one per step of p */
  int64_t y_step;     /**< elements of y per step of p; one per step of q */
  int tile_p, tile_q; /**< at most FN_TILE_ELEMENTS elements together */
  fn_divider tiles_p, tiles_q;
  fn_loop outer;
} fn_transpose_args;

FN_DEVICE void fn_transpose_body(const fn_transpose_args *a, fn_thread t, void *shared, int phase) {
  float *tile = (float *)shared; // [tile_q][tile_p], rows padded to an odd length
  const int pitch = a->tile_p | 1;
  int64_t rest = fn_divide(&a->tiles_p, t.block);
  const int64_t p0 = (t.block - rest * a->tiles_p.by) * a->tile_p;
  const int64_t outer = fn_divide(&a->tiles_q, rest);
  const int64_t q0 = (rest - outer * a->tiles_q.by) * a->tile_q;
  const int np = (int)(a->p - p0 < a->tile_p ? a->p - p0 : a->tile_p);
  const int nq = (int)(a->q - q0 < a->tile_q ? a->q - q0 : a->tile_q);
  const fn_offsets o = fn_loop_at(&a->outer, 2, outer);
  for (int e = t.index; e < np * nq; e += t.count) {
    if (phase == 0) {
      const int j = e / np, i = e - j * np;
      tile[j * pitch + i] = fn_read(a->x, a->x_dtype, o.at[1] + p0 + i + (q0 + j) * a->x_step);
    } else {
      const int i = e / nq, j = e - i * nq;
      fn_write(a->y, a->y_dtype, o.at[0] + q0 + j + (p0 + i) * a->y_step, tile[j * pitch + i]);
    }
  }
}

#endif
