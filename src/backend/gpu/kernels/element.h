/** @file element.h
 *  Elements in memory for kernels of host and device: every dtype is read and written as float.
 */
#ifndef FN_BACKEND_GPU_KERNELS_ELEMENT_H
#define FN_BACKEND_GPU_KERNELS_ELEMENT_H

#include "backend/gpu/code.h"

/** Values of fn_dtype, usable in device code. */
enum { FN_GPU_F32 = 0, FN_GPU_BF16 = 1, FN_GPU_F16 = 3 };

FN_DEVICE float fn_bits_to_float(uint32_t bits) {
  union {
    uint32_t bits;
    float value;
  } u = {bits};
  return u.value;
}
FN_DEVICE uint32_t fn_float_to_bits(float value) {
  union {
    float value;
    uint32_t bits;
  } u = {value};
  return u.bits;
}

FN_DEVICE float fn_from_bf16(uint16_t half) {
  return fn_bits_to_float((uint32_t)half << 16);
}
/** Round to nearest, ties to even; NaN stays NaN. */
FN_DEVICE uint16_t fn_to_bf16(float value) {
  const uint32_t bits = fn_float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
  return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/** IEEE binary16, subnormal numbers included. */
FN_DEVICE float fn_from_f16(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u,
                 fraction = half & 0x3ffu;
  if (exponent == 31) return fn_bits_to_float(sign | 0x7f800000u | fraction << 13);
  if (exponent > 0) return fn_bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
  const float small = (float)fraction * 0x1p-24f;
  return sign ? -small : small;
}
FN_DEVICE uint16_t fn_to_f16(float value) {
  const uint32_t bits = fn_float_to_bits(value), sign = bits >> 16 & 0x8000u,
                 rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
  if (rest >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); // rounds to infinity
  if (rest < 0x38800000u) {                                   // subnormal: a multiple of 2^-24
    const float scaled = fn_bits_to_float(rest) * 0x1p24f;
    return (uint16_t)(sign | (uint32_t)rintf(scaled));
  }
  const uint32_t rounded = rest + 0xfffu + (rest >> 13 & 1u);
  return (uint16_t)(sign | (rounded - 0x38000000u) >> 13);
}

FN_DEVICE float fn_read(const void *data, int dtype, int64_t index) {
  switch (dtype) {
    case FN_GPU_BF16: return fn_from_bf16(((const uint16_t *)data)[index]);
    case FN_GPU_F16: return fn_from_f16(((const uint16_t *)data)[index]);
    default: return ((const float *)data)[index];
  }
}
FN_DEVICE void fn_write(void *data, int dtype, int64_t index, float value) {
  switch (dtype) {
    case FN_GPU_BF16: ((uint16_t *)data)[index] = fn_to_bf16(value); break;
    case FN_GPU_F16: ((uint16_t *)data)[index] = fn_to_f16(value); break;
    default: ((float *)data)[index] = value;
  }
}

#endif
