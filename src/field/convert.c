/* Values of every numeric type and byte order to native float32. */
#include <string.h>

#include "base/bf16.h"
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
  static void name(const unsigned char *in, int64_t count, void *out, int64_t stride) {            \
    float *to = out;                                                                               \
    for (int64_t i = 0; i < count; i++) {                                                          \
      uint##bits##_t raw;                                                                          \
      memcpy(&raw, in + i * (bits / 8), bits / 8);                                                 \
      to[i * stride] = (value);                                                                    \
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
CONVERT(bf2, 16, fn_bf16_to_f32(raw))

static void f4_native(const unsigned char *in, int64_t count, void *out, int64_t stride) {
  if (stride == 1) {
    memcpy(out, in, (size_t)count * sizeof(float));
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

/* ---- numbers that stay as they are ------------------------------------------------------------
 */

#define MOVE(name, bits, value)                                                                    \
  static void name(const unsigned char *in, int64_t count, void *out, int64_t stride) {            \
    uint##bits##_t *to = out;                                                                      \
    for (int64_t i = 0; i < count; i++) {                                                          \
      uint##bits##_t raw;                                                                          \
      memcpy(&raw, in + i * (bits / 8), bits / 8);                                                 \
      to[i * stride] = (value);                                                                    \
    }                                                                                              \
  }
#define MOVE_NATIVE(bits)                                                                          \
  MOVE(move##bits##_apart, bits, raw)                                                              \
  static void move##bits(const unsigned char *in, int64_t count, void *out, int64_t stride) {      \
    if (stride == 1) {                                                                             \
      memcpy(out, in, (size_t)count *(bits / 8));                                                  \
    } else {                                                                                       \
      move##bits##_apart(in, count, out, stride);                                                  \
    }                                                                                              \
  }
MOVE_NATIVE(8)
MOVE_NATIVE(16)
MOVE_NATIVE(32)
MOVE_NATIVE(64)
MOVE(move16_swapped, 16, swap16(raw))
MOVE(move32_swapped, 32, swap32(raw))
MOVE(move64_swapped, 64, swap64(raw))
MOVE(move_bool, 8, raw ? 1 : 0)

static const struct {
  char kind;
  int item;
  fn_raw_type type;
  const char *name;
} raw_types[] = {
    {'b', 1, FN_RAW_U8, "bool"},       {'i', 1, FN_RAW_I8, "int8"},
    {'u', 1, FN_RAW_U8, "uint8"},      {'i', 2, FN_RAW_I16, "int16"},
    {'i', 4, FN_RAW_I32, "int32"},     {'i', 8, FN_RAW_I64, "int64"},
    {'u', 2, FN_RAW_U16, "uint16"},    {'u', 4, FN_RAW_U32, "uint32"},
    {'u', 8, FN_RAW_U64, "uint64"},    {'f', 2, FN_RAW_F16, "float16"},
    {'f', 4, FN_RAW_F32, "float32"},   {'f', 8, FN_RAW_F64, "float64"},
    {' ', 2, FN_RAW_BF16, "bfloat16"},
};

fn_convert fn_convert_find_raw(char kind, int item, bool swap, fn_raw_type *type) {
  *type = FN_RAW_NONE;
  for (size_t i = 0; i < sizeof raw_types / sizeof raw_types[0]; i++)
    if (raw_types[i].kind == kind && raw_types[i].item == item) *type = raw_types[i].type;
  if (*type == FN_RAW_NONE) return NULL;
  if (kind == 'b') return move_bool;
  switch (item) {
    case 1: return move8;
    case 2: return swap ? move16_swapped : move16;
    case 4: return swap ? move32_swapped : move32;
    default: return swap ? move64_swapped : move64;
  }
}

fn_convert fn_convert_of_raw(fn_raw_type type) {
  if (type == FN_RAW_BF16) return bf2;
  for (size_t i = 1; i < sizeof raw_types / sizeof raw_types[0]; i++) // 0 is uint8's other name
    if (raw_types[i].type == type)
      return fn_convert_find(raw_types[i].kind, raw_types[i].item, false);
  return NULL;
}

const char *fn_raw_name(fn_raw_type type) {
  for (size_t i = 1; i < sizeof raw_types / sizeof raw_types[0]; i++) // 0 is uint8's other name
    if (raw_types[i].type == type) return raw_types[i].name;
  return "no number type";
}
