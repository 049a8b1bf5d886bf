/** @file loop.h
 *  From the number of a thread's turn to addresses: divisions by sizes that are known before, loops
 *  over axes with strides, and cells of channels-last tensors.
 */
#ifndef FN_BACKEND_GPU_KERNELS_LOOP_H
#define FN_BACKEND_GPU_KERNELS_LOOP_H

#include "backend/gpu/kernels/element.h"

/** Division by a known number: a product and a shift where the dividend is below 2^31 (Granlund &
 *  Montgomery 1994, figure 4.1). Made by fn_gpu_divider(). */
typedef struct fn_divider {
  int64_t by;
  uint32_t multiplier;
  int shift; /**< -1: by is too large */
} fn_divider;

FN_DEVICE int64_t fn_divide(const fn_divider *d, int64_t n) {
  if (d->shift >= 0 && n < 0x80000000LL) {
    const uint32_t low = (uint32_t)n, high = (uint32_t)((uint64_t)low * d->multiplier >> 32);
    return (int64_t)((high + low) >> d->shift);
  }
  return n / d->by;
}

enum { FN_LOOP_AXES = 6, FN_LOOP_OPERANDS = 3 };

/** A loop over the elements of some axes, and where operands lie meanwhile. Axis 0 is the fastest.
 *  With width 4 a turn handles four neighbours of axis 0; operands move there by one element or,
 *  when repeated along it, by none. Made by fn_gpu_loop(). */
typedef struct fn_loop {
  int64_t count; /**< turns */
  int axes, width;
  fn_divider size[FN_LOOP_AXES];                  /**< axis 0: in turns */
  int64_t stride[FN_LOOP_OPERANDS][FN_LOOP_AXES]; /**< elements per step of an axis */
  bool repeated[FN_LOOP_OPERANDS];                /**< one element for all four */
} fn_loop;

typedef struct fn_offsets {
  int64_t at[FN_LOOP_OPERANDS]; /**< elements */
} fn_offsets;

/** Where turn `turn` is, for the first `operands` operands. */
FN_DEVICE fn_offsets fn_loop_at(const fn_loop *loop, int operands, int64_t turn) {
  fn_offsets offsets;
  for (int k = 0; k < FN_LOOP_OPERANDS; k++)
    offsets.at[k] = 0;
  for (int a = 0; a < FN_LOOP_AXES; a++) {
    if (a >= loop->axes) break;
    int64_t index = turn;
    if (a + 1 < loop->axes) {
      turn = fn_divide(&loop->size[a], index);
      index -= turn * loop->size[a].by;
    }
    for (int k = 0; k < FN_LOOP_OPERANDS; k++)
      if (k < operands) offsets.at[k] += index * loop->stride[k][a];
  }
  return offsets;
}

/** What operand k has at a turn. */
FN_DEVICE fn_bits fn_loop_fetch(const fn_loop *loop, int k, const void *data, int dtype,
                                int64_t at) {
  return fn_fetch(data, dtype, at, loop->repeated[k] ? 1 : loop->width);
}
FN_DEVICE void fn_loop_unpack(const fn_loop *loop, int k, const fn_bits *bits, int dtype,
                              float v[4]) {
  fn_unpack(bits, dtype, v);
  if (loop->repeated[k]) v[1] = v[2] = v[3] = v[0];
}

/** A tensor [N, C, up to three spatial axes] whose channels are neighbours: element (n, c, cell)
 *  lies at n row + cell pitch + c. */
typedef struct fn_view {
  void *data;
  int dtype;
  int64_t row, pitch;
  int64_t size[3]; /**< spatial sizes, missing ones in front are 1 */
} fn_view;

/** Where a cell starts. */
FN_DEVICE int64_t fn_view_at(const fn_view *t, int64_t n, const int64_t cell[3]) {
  return n * t->row + ((cell[0] * t->size[1] + cell[1]) * t->size[2] + cell[2]) * t->pitch;
}

/** A loop over all elements of such a tensor, `width` channels at once. */
typedef struct fn_cell_loop {
  int64_t count;
  int width;
  fn_divider channels, size[3]; /**< channels in turns */
} fn_cell_loop;

typedef struct fn_cell {
  int64_t n, c, at[3];
} fn_cell;

FN_DEVICE fn_cell fn_cell_loop_at(const fn_cell_loop *loop, int64_t turn) {
  fn_cell cell;
  int64_t rest = fn_divide(&loop->channels, turn);
  cell.c = (turn - rest * loop->channels.by) * loop->width;
  for (int d = 2; d >= 0; d--) {
    const int64_t next = fn_divide(&loop->size[d], rest);
    cell.at[d] = rest - next * loop->size[d].by;
    rest = next;
  }
  cell.n = rest;
  return cell;
}

#endif
