/** @file patch.h
 *  Convolutions whose windows do not overlap (kernel = stride, no padding): matrix products between
 *  patches of x and the channels of y. A patch is read and written in runs, the pieces of it that
 *  lie together in memory: one kernel row of one channel block.
 */
#ifndef FN_BACKEND_CPU_PATCH_H
#define FN_BACKEND_CPU_PATCH_H

#include "backend/cpu/conv.h"

/** Axes are padded in front with ones. */
typedef struct fn_patches {
  int64_t x_dim[FN_MAX_SPATIAL], y_dim[FN_MAX_SPATIAL], kernel[FN_MAX_SPATIAL];
  int64_t block;      /**< of x */
  int64_t x_channels; /**< without padding */
  int64_t y_channels;
  int64_t cells;  /**< of y, i.e. patches per sample */
  int64_t runs;   /**< of a patch */
  int64_t length; /**< elements of a run: kernel row times block */
} fn_patches;

/** Whether kernel and geometry make patches; 1x1 kernels do not count. */
bool fn_cpu_patches_fit(const conv_values *v, const fn_conv_geometry *geometry);
fn_patches fn_cpu_patches_of(const fn_tensor *x, const fn_tensor *y, const fn_shape *w);

enum { PATCH_TILE = 6 };

/** sum[i] = start + w x[i] for the rows i of a tile, each `length` floats (a multiple of 4), one
 *  after the other; w [length][16], start [16]. A function of its own: inlined, gcc keeps some of
 *  the sums in memory, which halves the speed. */
void fn_patch_multiply_tile(const float *x, int64_t length, const float *w, const float *start,
                            fn_lane8 (*sum)[2]);

/** First elements of the patches of cells [first, first + count), in elements from the start of the
 *  sample of x. */
static inline void fn_patch_corners(const fn_patches *p, int64_t first, int64_t count,
                                    int64_t *corner) {
  int64_t w = first % p->y_dim[2], h = first / p->y_dim[2] % p->y_dim[1];
  int64_t d = first / p->y_dim[2] / p->y_dim[1];
  for (int64_t i = 0; i < count;) {
    int64_t at = (d * p->kernel[0] * p->x_dim[1] + h * p->kernel[1]) * p->x_dim[2] * p->block;
    const int64_t step = p->kernel[2] * p->block;
    for (at += w * step; w < p->y_dim[2] && i < count; w++, at += step)
      corner[i++] = at;
    w = 0;
    if (++h == p->y_dim[1]) h = 0, d++;
  }
}

/** Distance of run `run` from the patch's first element. */
static inline int64_t fn_patch_run(const fn_patches *p, int64_t run) {
  const int64_t h = run % p->kernel[1], d = run / p->kernel[1] % p->kernel[0];
  const int64_t c = run / p->kernel[1] / p->kernel[0];
  const int64_t plane = p->x_dim[0] * p->x_dim[1] * p->x_dim[2];
  return (c * plane + (d * p->x_dim[1] + h) * p->x_dim[2]) * p->block;
}

/** Position in the plain weights of one output channel, [C][kernel cells], of element `i` of run
 *  `run`; -1 in the padding of the last channel block. */
static inline int64_t fn_patch_weight(const fn_patches *p, int64_t run, int64_t i) {
  const int64_t rows = p->kernel[0] * p->kernel[1];
  const int64_t c = run / rows * p->block + i % p->block;
  if (c >= p->x_channels) return -1;
  return (c * rows + run % rows) * p->kernel[2] + i / p->block;
}

static inline void fn_lane8_leaky(fn_lane8 *value, float slope) {
  for (int i = 0; i < 8; i++)
    (*value)[i] = (*value)[i] > 0 ? (*value)[i] : slope * (*value)[i];
}

#endif
