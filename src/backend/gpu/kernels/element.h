/** @file element.h
 *  Elements in memory for kernels of host and device: every dtype is read and written as float.
 */
#ifndef FN_BACKEND_GPU_KERNELS_ELEMENT_H
#define FN_BACKEND_GPU_KERNELS_ELEMENT_H

#include <string.h>

#include "backend/gpu/code.h"
#include "base/bf16.h"

/** Values of fn_dtype, usable in device code. */
enum { FN_GPU_F32 = 0, FN_GPU_BF16 = 1, FN_GPU_F16 = 3 };

/** IEEE binary16, subnormal numbers included. */
FN_DEVICE float fn_from_f16(uint16_t half) {
#ifdef __CUDA_ARCH__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
#else
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = half >> 10 & 31u,
                 fraction = half & 0x3ffu;
  if (exponent == 31) return fn_bits_to_float(sign | 0x7f800000u | fraction << 13);
  if (exponent > 0) return fn_bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
  const float small = (float)fraction * 0x1p-24f;
  return sign ? -small : small;
#endif
}
FN_DEVICE uint16_t fn_to_f16(float value) {
#ifdef __CUDA_ARCH__
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
#else
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
#endif
}

FN_DEVICE float fn_read(const void *data, int dtype, int64_t index) {
  switch (dtype) {
    case FN_GPU_BF16: return fn_bf16_to_f32(((const uint16_t *)data)[index]);
    case FN_GPU_F16: return fn_from_f16(((const uint16_t *)data)[index]);
    default: return ((const float *)data)[index];
  }
}
FN_DEVICE void fn_write(void *data, int dtype, int64_t index, float value) {
  switch (dtype) {
    case FN_GPU_BF16: ((uint16_t *)data)[index] = fn_bf16_from_f32(value); break;
    case FN_GPU_F16: ((uint16_t *)data)[index] = fn_to_f16(value); break;
    default: ((float *)data)[index] = value;
  }
}

/** What a thread handles at once: one element, or four neighbours whose address is a multiple of
 *  their size. */
enum { FN_GPU_WIDTH = 4 };

/** One or four elements as they came from memory. A kernel that needs several fetches all of them
 *  before it unpacks the first: then they are on their way together. */
typedef struct fn_bits {
  uint32_t word[4];
} fn_bits;

FN_DEVICE fn_bits fn_fetch(const void *data, int dtype, int64_t index, int width) {
  fn_bits bits;
  bits.word[0] = bits.word[1] = bits.word[2] = bits.word[3] = 0;
  if (width == 1) {
    if (dtype == FN_GPU_F32)
      bits.word[0] = ((const uint32_t *)data)[index];
    else
      bits.word[0] = ((const uint16_t *)data)[index];
    return bits;
  }
#ifdef __CUDA_ARCH__
  if (dtype == FN_GPU_F32) {
    const uint4 four = *(const uint4 *)((const uint32_t *)data + index);
    bits.word[0] = four.x;
    bits.word[1] = four.y;
    bits.word[2] = four.z;
    bits.word[3] = four.w;
  } else {
    const uint2 two = *(const uint2 *)((const uint16_t *)data + index);
    bits.word[0] = two.x;
    bits.word[1] = two.y;
  }
#else
  if (dtype == FN_GPU_F32)
    memcpy(bits.word, (const uint32_t *)data + index, 16);
  else
    memcpy(bits.word, (const uint16_t *)data + index, 8);
#endif
  return bits;
}

/** As floats; beyond the width zeros. */
FN_DEVICE void fn_unpack(const fn_bits *bits, int dtype, float v[4]) {
  const uint32_t *w = bits->word;
  if (dtype == FN_GPU_F32) {
    for (int j = 0; j < 4; j++)
      v[j] = fn_bits_to_float(w[j]);
  } else if (dtype == FN_GPU_BF16) {
    v[0] = fn_bits_to_float(w[0] << 16);
    v[1] = fn_bits_to_float(w[0] & 0xffff0000u);
    v[2] = fn_bits_to_float(w[1] << 16);
    v[3] = fn_bits_to_float(w[1] & 0xffff0000u);
  } else {
    v[0] = fn_from_f16((uint16_t)w[0]);
    v[1] = fn_from_f16((uint16_t)(w[0] >> 16));
    v[2] = fn_from_f16((uint16_t)w[1]);
    v[3] = fn_from_f16((uint16_t)(w[1] >> 16));
  }
}

FN_DEVICE void fn_write4(void *data, int dtype, int64_t index, const float v[4]) {
#ifdef __CUDA_ARCH__
  if (dtype == FN_GPU_F32)
    *(float4 *)((float *)data + index) = make_float4(v[0], v[1], v[2], v[3]);
  else if (dtype == FN_GPU_BF16)
    *(ushort4 *)((uint16_t *)data + index) =
        make_ushort4(fn_bf16_from_f32(v[0]), fn_bf16_from_f32(v[1]), fn_bf16_from_f32(v[2]),
                     fn_bf16_from_f32(v[3]));
  else
    *(ushort4 *)((uint16_t *)data + index) =
        make_ushort4(fn_to_f16(v[0]), fn_to_f16(v[1]), fn_to_f16(v[2]), fn_to_f16(v[3]));
#else
  for (int j = 0; j < 4; j++)
    fn_write(data, dtype, index + j, v[j]);
#endif
}

/** `width` (1 or 4) neighbours; what is not read is zero. */
FN_DEVICE void fn_read_wide(const void *data, int dtype, int64_t index, int width, float v[4]) {
  const fn_bits bits = fn_fetch(data, dtype, index, width);
  fn_unpack(&bits, dtype, v);
}
FN_DEVICE void fn_write_wide(void *data, int dtype, int64_t index, int width, const float v[4]) {
  if (width == FN_GPU_WIDTH)
    fn_write4(data, dtype, index, v);
  else
    fn_write(data, dtype, index, v[0]);
}

#endif
