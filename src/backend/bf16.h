/** @file bf16.h
 *  bfloat16 as bits: the upper half of a float32.
 */
#ifndef FN_BACKEND_BF16_H
#define FN_BACKEND_BF16_H

#include <stdint.h>
#include <string.h>

static inline float fn_bf16_to_f32(uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float x;
  memcpy(&x, &wide, sizeof x);
  return x;
}

/** Round to nearest even; NaN stays NaN. Without branches, so that loops over it become vectors. */
static inline uint16_t fn_bf16_from_f32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
  const uint32_t quiet = bits >> 16 | 0x40u;
  return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : rounded);
}

#endif
