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

/** Round to nearest even; NaN stays NaN. */
static inline uint16_t fn_bf16_from_f32(float x) {
  uint32_t wide;
  memcpy(&wide, &x, sizeof wide);
  if ((wide & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)(wide >> 16 | 0x40u);
  return (uint16_t)((wide + 0x7FFFu + (wide >> 16 & 1u)) >> 16);
}

#endif
