/** @file conv.h
 *  Convolution and its adjoints without a library: for geometries that no engine of the library
 *  takes (padding of different width on both sides, say). Right, deterministic and slow.
 */
#ifndef FN_BACKEND_GPU_KERNELS_CONV_H
#define FN_BACKEND_GPU_KERNELS_CONV_H

#include "backend/gpu/kernels/cells.h"

/** y [n, o, k] = sum over taps t and j of x [n, o stride - pad + t dilation, group(k) + j]
 *  w [k, j, t]; spatial axes right-aligned, missing ones 1. Any one of the three is the result. */
typedef struct fn_conv_args {
  fn_cells x, y;
  const float *w; /**< shape [out_channels, group_in, taps], plain; NULL: it is the result */
  float *dw;
  fn_cells residual;
  const float *bias;
  float slope;
  int64_t batch, in_channels, out_channels, group_in, group_out;
  int64_t s[3], k[3], o[3], stride[3], pad[3], dilation[3];
} fn_conv_args;

/** Add, activate and write one element of the result. */
FN_DEVICE void fn_conv_finish(const fn_conv_args *p, const fn_cells *result, int64_t n,
                              int64_t cell, int64_t c, float v) {
  if (p->bias) v += p->bias[c];
  if (p->residual.data) v += fn_cells_read(&p->residual, n, cell, c);
  fn_cells_write(result, n, cell, c, v > 0 ? v : p->slope * v);
}

/** Cell of x under position `at` (all axes) of y and tap t; -1 in the padding. */
FN_DEVICE int64_t fn_conv_cell(const fn_conv_args *p, int64_t at, int64_t t) {
  const int64_t o[3] = {at / (p->o[1] * p->o[2]), at / p->o[2] % p->o[1], at % p->o[2]};
  const int64_t k[3] = {t / (p->k[1] * p->k[2]), t / p->k[2] % p->k[1], t % p->k[2]};
  int64_t cell = 0;
  for (int d = 0; d < 3; d++) {
    const int64_t i = o[d] * p->stride[d] - p->pad[d] + k[d] * p->dilation[d];
    if (i < 0 || i >= p->s[d]) return -1;
    cell = cell * p->s[d] + i;
  }
  return cell;
}

/** Position of y whose tap t lies on cell `at` of x; -1: there is none. */
FN_DEVICE int64_t fn_conv_position(const fn_conv_args *p, int64_t at, int64_t t) {
  const int64_t s[3] = {at / (p->s[1] * p->s[2]), at / p->s[2] % p->s[1], at % p->s[2]};
  const int64_t k[3] = {t / (p->k[1] * p->k[2]), t / p->k[2] % p->k[1], t % p->k[2]};
  int64_t position = 0;
  for (int d = 0; d < 3; d++) {
    const int64_t i = s[d] + p->pad[d] - k[d] * p->dilation[d];
    if (i < 0 || i % p->stride[d] != 0 || i / p->stride[d] >= p->o[d]) return -1;
    position = position * p->o[d] + i / p->stride[d];
  }
  return position;
}

/** One thread per element of y. */
FN_DEVICE void fn_conv_forward_body(const fn_conv_args *p, fn_thread thread, void *shared,
                                    int phase) {
  (void)shared;
  (void)phase;
  const int64_t cells = p->o[0] * p->o[1] * p->o[2], taps = p->k[0] * p->k[1] * p->k[2];
  const int64_t count = p->batch * cells * p->out_channels;
  for (int64_t i = fn_thread_first(thread); i < count; i += fn_thread_stride(thread)) {
    const int64_t c = i % p->out_channels, cell = i / p->out_channels % cells,
                  n = i / p->out_channels / cells;
    const int64_t first = c / p->group_out * p->group_in;
    float sum = 0;
    for (int64_t t = 0; t < taps; t++) {
      const int64_t from = fn_conv_cell(p, cell, t);
      for (int64_t j = 0; from >= 0 && j < p->group_in; j++)
        sum += fn_cells_read(&p->x, n, from, first + j) * p->w[(c * p->group_in + j) * taps + t];
    }
    fn_conv_finish(p, &p->y, n, cell, c, sum);
  }
}

/** One thread per element of x. */
FN_DEVICE void fn_conv_backward_body(const fn_conv_args *p, fn_thread thread, void *shared,
                                     int phase) {
  (void)shared;
  (void)phase;
  const int64_t cells = p->s[0] * p->s[1] * p->s[2], taps = p->k[0] * p->k[1] * p->k[2];
  const int64_t count = p->batch * cells * p->in_channels;
  for (int64_t i = fn_thread_first(thread); i < count; i += fn_thread_stride(thread)) {
    const int64_t c = i % p->in_channels, cell = i / p->in_channels % cells,
                  n = i / p->in_channels / cells;
    const int64_t first = c / p->group_in * p->group_out, j = c % p->group_in;
    float sum = 0;
    for (int64_t t = 0; t < taps; t++) {
      const int64_t from = fn_conv_position(p, cell, t);
      for (int64_t k = first; from >= 0 && k < first + p->group_out; k++)
        sum += fn_cells_read(&p->y, n, from, k) * p->w[(k * p->group_in + j) * taps + t];
    }
    fn_conv_finish(p, &p->x, n, cell, c, sum);
  }
}

/** One block per element of w; its threads share the cells. */
FN_DEVICE void fn_conv_filter_body(const fn_conv_args *p, fn_thread thread, void *shared,
                                   int phase) {
  float *sums = (float *)shared;
  const int64_t cells = p->o[0] * p->o[1] * p->o[2], taps = p->k[0] * p->k[1] * p->k[2];
  const int64_t t = thread.block % taps, j = thread.block / taps % p->group_in,
                k = thread.block / taps / p->group_in;
  const int64_t c = k / p->group_out * p->group_in + j;
  if (phase == 0) {
    float sum = 0;
    for (int64_t i = thread.index; i < p->batch * cells; i += thread.count) {
      const int64_t n = i / cells, from = fn_conv_cell(p, i % cells, t);
      if (from >= 0)
        sum += fn_cells_read(&p->x, n, from, c) * fn_cells_read(&p->y, n, i % cells, k);
    }
    sums[thread.index] = sum;
  } else if (thread.index == 0) {
    float sum = 0;
    for (int i = 0; i < thread.count; i++)
      sum += sums[i];
    p->dw[thread.block] = sum;
  }
}

typedef fn_conv_args fn_conv_forward_args;
typedef fn_conv_args fn_conv_backward_args;
typedef fn_conv_args fn_conv_filter_args;

#endif
