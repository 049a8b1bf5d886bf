/** @file bf16.h
 *  bfloat16: the upper half of a float32.
 */
#ifndef FN_BASE_BF16_H
#define FN_BASE_BF16_H

#include <stdint.h>

#include "base/shared_code.h"

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

FN_DEVICE float fn_bf16_to_f32(uint16_t half) {
  return fn_bits_to_float((uint32_t)half << 16);
}
/** Round to nearest, ties to even; NaN stays NaN. Without branches, so that loops over it become
 *  vectors. */
FN_DEVICE uint16_t fn_bf16_from_f32(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint16_t half;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
#else
  const uint32_t bits = fn_float_to_bits(value);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16, quiet = bits >> 16 | 0x40u;
  return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
#endif
}

#endif
