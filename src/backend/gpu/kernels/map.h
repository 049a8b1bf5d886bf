/** @file map.h
 *  Elementwise kernels: copies and functions of one operand, arithmetic of two with broadcasting.
 */
#ifndef FN_BACKEND_GPU_KERNELS_MAP_H
#define FN_BACKEND_GPU_KERNELS_MAP_H

#include "backend/gpu/kernels/loop.h"
#include "ops/ops.h"

/** What fn_unary has not: every element b. There is no operand x then. */
enum { FN_MAP_FILL = FN_CAST + 1 };

FN_DEVICE float fn_unary_value(int kind, float a, float b, float x) {
  switch (kind) {
    case FN_AFFINE: return a * x + b;
    case FN_LEAKY: return x > 0 ? x : a * x;
    case FN_SIGMOID: return x >= 0 ? 1 / (1 + expf(-x)) : expf(x) / (1 + expf(x));
    case FN_TANH: return tanhf(x);
    case FN_EXP: return expf(x);
    case FN_LOG: return logf(x);
    case FN_SQRT: return sqrtf(x);
    case FN_SQUARE: return x * x;
    case FN_ABS: return fabsf(x);
    case FN_STEP: return x > 0 ? 1.0f : 0.0f;
    case FN_SIGN: return x > 0 ? 1.0f : x < 0 ? -1.0f : 0.0f;
    case FN_SOFTPLUS: return (x > 0 ? x : 0) + log1pf(expf(-fabsf(x)));
    case FN_RECIPROCAL: return 1 / x;
    case FN_MAP_FILL: return b;
    default: return x;
  }
}

/** What fn_binary has not: y > 0 ? dy : slope dy. */
enum { FN_MAP_LEAKY_GRAD = FN_GREATER + 1 };

FN_DEVICE float fn_binary_value(int kind, float slope, float a, float b) {
  switch (kind) {
    case FN_ADD: return a + b;
    case FN_SUB: return a - b;
    case FN_MUL: return a * b;
    case FN_DIV: return a / b;
    case FN_MIN: return b < a ? b : a;
    case FN_MAX: return b > a ? b : a;
    case FN_GREATER: return a > b ? 1.0f : a == b ? 0.5f : 0.0f;
    default: return b > 0 ? a : slope * a;
  }
}

/** y = f(x); operands y, x. x may be NULL. */
typedef struct fn_map_args {
  void *y;
  const void *x;
  int y_dtype, x_dtype;
  int kind; /**< fn_unary */
  float a, b;
  fn_loop loop;
} fn_map_args;

/** Turns a thread has under way at the same time. */
enum { FN_MAP_TURNS = 2 };

FN_DEVICE void fn_map_body(const fn_map_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  const int64_t stride = fn_thread_stride(t), count = a->loop.count;
  for (int64_t i = fn_thread_first(t); i < count; i += FN_MAP_TURNS * stride) {
    fn_offsets o[FN_MAP_TURNS];
    fn_bits x[FN_MAP_TURNS];
    for (int k = 0; k < FN_MAP_TURNS; k++) {
      o[k] = fn_loop_at(&a->loop, 2, i + k * stride < count ? i + k * stride : i);
      if (a->x)
        x[k] = fn_loop_fetch(&a->loop, 1, a->x, a->x_dtype, o[k].at[1]);
      else
        x[k].word[0] = x[k].word[1] = x[k].word[2] = x[k].word[3] = 0;
    }
    for (int k = 0; k < FN_MAP_TURNS; k++) {
      float v[4];
      fn_loop_unpack(&a->loop, 1, &x[k], a->x_dtype, v);
      for (int j = 0; j < 4; j++)
        v[j] = fn_unary_value(a->kind, a->a, a->b, v[j]);
      if (i + k * stride < count) fn_write_wide(a->y, a->y_dtype, o[k].at[0], a->loop.width, v);
    }
  }
}

/** y = f(a, b); operands y, a, b. */
typedef struct fn_map2_args {
  void *y;
  const void *a, *b;
  int y_dtype, a_dtype, b_dtype;
  int kind; /**< fn_binary or FN_MAP_LEAKY_GRAD */
  float slope;
  fn_loop loop;
} fn_map2_args;

FN_DEVICE void fn_map2_body(const fn_map2_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  const int64_t stride = fn_thread_stride(t), count = a->loop.count;
  for (int64_t i = fn_thread_first(t); i < count; i += FN_MAP_TURNS * stride) {
    fn_offsets o[FN_MAP_TURNS];
    fn_bits x[FN_MAP_TURNS], y[FN_MAP_TURNS];
    for (int k = 0; k < FN_MAP_TURNS; k++) {
      o[k] = fn_loop_at(&a->loop, 3, i + k * stride < count ? i + k * stride : i);
      x[k] = fn_loop_fetch(&a->loop, 1, a->a, a->a_dtype, o[k].at[1]);
      y[k] = fn_loop_fetch(&a->loop, 2, a->b, a->b_dtype, o[k].at[2]);
    }
    for (int k = 0; k < FN_MAP_TURNS; k++) {
      float v[4], w[4];
      fn_loop_unpack(&a->loop, 1, &x[k], a->a_dtype, v);
      fn_loop_unpack(&a->loop, 2, &y[k], a->b_dtype, w);
      for (int j = 0; j < 4; j++)
        v[j] = fn_binary_value(a->kind, a->slope, v[j], w[j]);
      if (i + k * stride < count) fn_write_wide(a->y, a->y_dtype, o[k].at[0], a->loop.width, v);
    }
  }
}

#endif
