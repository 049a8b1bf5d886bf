/** @file convert.h
 *  From the numbers of a file to a network's input: type, normalisation, symmetry, random factors.
 *  The order of operations is that of src/data/sample.c.
 */
#ifndef FN_BACKEND_GPU_KERNELS_CONVERT_H
#define FN_BACKEND_GPU_KERNELS_CONVERT_H

#include <fieldnet/device.h>

#include "backend/gpu/kernels/loop.h"

FN_DEVICE float fn_raw_read(const void *data, int type, int64_t index) {
  switch (type) {
    case FN_RAW_F64: return (float)((const double *)data)[index];
    case FN_RAW_F16: return fn_from_f16(((const uint16_t *)data)[index]);
    case FN_RAW_BF16: return fn_bf16_to_f32(((const uint16_t *)data)[index]);
    case FN_RAW_I8: return (float)((const int8_t *)data)[index];
    case FN_RAW_U8: return (float)((const uint8_t *)data)[index];
    case FN_RAW_I16: return (float)((const int16_t *)data)[index];
    case FN_RAW_U16: return (float)((const uint16_t *)data)[index];
    case FN_RAW_I32: return (float)((const int32_t *)data)[index];
    case FN_RAW_U32: return (float)((const uint32_t *)data)[index];
    case FN_RAW_I64: return (float)((const int64_t *)data)[index];
    case FN_RAW_U64: return (float)((const uint64_t *)data)[index];
    default: return ((const float *)data)[index];
  }
}

/** Formulas of src/data/norms.c. */
FN_DEVICE float fn_raw_normalise(float value, int norm, double factor, double shift) {
  const double x = (double)value;
  switch (norm) {
    case FN_RAW_EXP: return (float)exp(x);
    case FN_RAW_EXPM1: return (float)expm1(x);
    case FN_RAW_LOG: return (float)log(x + shift);
    case FN_RAW_LOG1P: return (float)log1p(x + shift);
    default: return (float)(x * factor + shift);
  }
}

/** What becomes of one channel: sign norm(x), then + add, then times mul; every step is rounded to
 *  float. */
typedef struct fn_convert_channel {
  int64_t from; /**< channel of the file */
  float sign, add, mul;
} fn_convert_channel;

enum { FN_CONVERT_CHANNELS = 64 };

/** Some samples, `channels` channels at a time. Axes of the result, fastest last. */
typedef struct fn_convert_args {
  const void *raw;
  void *y;
  int raw_type, y_dtype, norm;
  double factor, shift;
  int64_t raw_start, raw_channel,
      raw_stride[3];            /**< elements; a stride is negative where flipped */
  int64_t y_channel, y_cell;    /**< elements */
  int64_t raw_sample, y_sample; /**< from one to the next */
  int64_t count;
  bool across; /**< channels are the fastest axis of y */
  fn_divider sample, channels, cells, size[3];
  fn_convert_channel channel[FN_CONVERT_CHANNELS];
} fn_convert_args;

FN_DEVICE void fn_convert_body(const fn_convert_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < a->count; i += fn_thread_stride(t)) {
    const fn_divider *fast = a->across ? &a->channels : &a->cells;
    const int64_t n = fn_divide(&a->sample, i), own = i - n * a->sample.by;
    const int64_t slow = fn_divide(fast, own), rest = own - slow * fast->by;
    const int64_t c = a->across ? rest : slow, cell = a->across ? slow : rest;
    const fn_convert_channel *k = &a->channel[c];
    int64_t from = n * a->raw_sample + a->raw_start + k->from * a->raw_channel, left = cell;
    for (int d = 2; d >= 0; d--) {
      const int64_t next = fn_divide(&a->size[d], left);
      from += (left - next * a->size[d].by) * a->raw_stride[d];
      left = next;
    }
    float v = fn_raw_read(a->raw, a->raw_type, from);
    v = fn_raw_normalise(v, a->norm, a->factor, a->shift);
    v = k->sign * v;
    v = v + k->add;
    v = v * k->mul;
    fn_write(a->y, a->y_dtype, n * a->y_sample + c * a->y_channel + cell * a->y_cell, v);
  }
}

#endif
