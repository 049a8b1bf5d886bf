/* Values of every numeric type and byte order to native float32. */
#include <string.h>

#include "field/array.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the readers assume a little-endian host");

static inline float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float double_of(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return (float)value;
}

/** IEEE 754 binary16 to binary32, exact; NaN payloads are kept. */
static inline float half_of(uint16_t bits) {
  const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 31u, fraction = bits & 1023u;
  if (exponent == 31) return float_of(sign | 0x7f800000u | fraction << 13);
  if (exponent != 0) return float_of(sign | (exponent + 112) << 23 | fraction << 13);
  const float subnormal = (float)fraction * 0x1p-24f;
  return sign ? -subnormal : subnormal;
}

#define CONVERT(name, bits, value)                                                                 \
  static void name(const unsigned char *in, int64_t count, float *out, int64_t stride) {           \
    for (int64_t i = 0; i < count; i++) {                                                          \
      uint##bits##_t raw;                                                                          \
      memcpy(&raw, in + i * (bits / 8), bits / 8);                                                 \
      out[i * stride] = (value);                                                                   \
    }                                                                                              \
  }
#define swap16(raw) __builtin_bswap16(raw)
#define swap32(raw) __builtin_bswap32(raw)
#define swap64(raw) __builtin_bswap64(raw)
#define BOTH_ORDERS(name, bits, function)                                                          \
  CONVERT(name##_native, bits, function(raw))                                                      \
  CONVERT(name##_swapped, bits, function(swap##bits(raw)))

#define i8_of(raw) ((float)(int8_t)(raw))
#define i16_of(raw) ((float)(int16_t)(raw))
#define i32_of(raw) ((float)(int32_t)(raw))
#define i64_of(raw) ((float)(int64_t)(raw))
#define u_of(raw) ((float)(raw))

CONVERT(b1, 8, raw ? 1.0f : 0.0f)
CONVERT(i1, 8, i8_of(raw))
CONVERT(u1, 8, u_of(raw))
BOTH_ORDERS(i2, 16, i16_of)
BOTH_ORDERS(i4, 32, i32_of)
BOTH_ORDERS(i8, 64, i64_of)
BOTH_ORDERS(u2, 16, u_of)
BOTH_ORDERS(u4, 32, u_of)
BOTH_ORDERS(u8, 64, u_of)
BOTH_ORDERS(f2, 16, half_of)
BOTH_ORDERS(f4_any, 32, float_of)
BOTH_ORDERS(f8, 64, double_of)

static void f4_native(const unsigned char *in, int64_t count, float *out, int64_t stride) {
  if (stride == 1) {
    memcpy(out, in, (size_t)count * sizeof *out);
  } else {
    f4_any_native(in, count, out, stride);
  }
}

fn_convert fn_convert_find(char kind, int item, bool swap) {
  static const struct {
    char kind;
    int item;
    fn_convert native, swapped;
  } table[] = {
      {'b', 1, b1, b1},
      {'i', 1, i1, i1},
      {'u', 1, u1, u1},
      {'i', 2, i2_native, i2_swapped},
      {'i', 4, i4_native, i4_swapped},
      {'i', 8, i8_native, i8_swapped},
      {'u', 2, u2_native, u2_swapped},
      {'u', 4, u4_native, u4_swapped},
      {'u', 8, u8_native, u8_swapped},
      {'f', 2, f2_native, f2_swapped},
      {'f', 4, f4_native, f4_any_swapped},
      {'f', 8, f8_native, f8_swapped},
  };
  for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
    if (table[i].kind == kind && table[i].item == item)
      return swap ? table[i].swapped : table[i].native;
  }
  return NULL;
}
