/* CRC-32 of large buffers: states are covered by checksums several times when they are written,
 * beside the training. */
#include <zlib.h>

#include "base/system.h"

static uint32_t by_zlib(uint32_t crc, const unsigned char *bytes, size_t count) {
  while (count > 0) {
    const uInt part = count > (1u << 30) ? (1u << 30) : (uInt)count;
    crc = (uint32_t)crc32(crc, bytes, part);
    bytes += part;
    count -= part;
  }
  return crc;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

enum { LEAST = 64, BLOCK = 16 };

/** a moved on by the distance of the constants k, in front of b. */
__attribute__((target("pclmul,sse4.1"))) static inline __m128i fold(__m128i a, __m128i k,
                                                                    __m128i b) {
  const __m128i low = _mm_clmulepi64_si128(a, k, 0x00), high = _mm_clmulepi64_si128(a, k, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), b);
}

/** Of `count` bytes, a multiple of 16 and at least 64; ~crc in and out. Gopal et al. 2009, "Fast
 * CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", with the constants of its
 *  appendix for the reflected polynomial 0xedb88320: four lanes of 128 bits are folded forward,
 * then into one, then reduced to 64 bits and, after Barrett, to 32. */
__attribute__((target("pclmul,sse4.1"))) static uint32_t
by_folding(uint32_t inverse, const unsigned char *bytes, size_t count) {
  const __m128i by_four = _mm_set_epi64x(0x1c6e41596, 0x154442bd4),
                by_one = _mm_set_epi64x(0x0ccaa009e, 0x1751997d0),
                to_64 = _mm_set_epi64x(0, 0x163cd6124),
                barrett = _mm_set_epi64x(0x1f7011641, 0x1db710641),
                words = _mm_set_epi32(0, -1, 0, -1);
  const __m128i *at = (const __m128i *)(const void *)bytes, *end = at + count / BLOCK;
  __m128i lane[4];
  for (int i = 0; i < 4; i++)
    lane[i] = _mm_loadu_si128(at++);
  lane[0] = _mm_xor_si128(lane[0], _mm_cvtsi32_si128((int)inverse));
  for (; end - at >= 4; at += 4)
    for (int i = 0; i < 4; i++)
      lane[i] = fold(lane[i], by_four, _mm_loadu_si128(at + i));
  __m128i x = lane[0];
  for (int i = 1; i < 4; i++)
    x = fold(x, by_one, lane[i]);
  for (; at < end; at++)
    x = fold(x, by_one, _mm_loadu_si128(at));
  x = _mm_xor_si128(_mm_srli_si128(x, 8), _mm_clmulepi64_si128(x, by_one, 0x10));
  x = _mm_xor_si128(_mm_srli_si128(x, 4),
                    _mm_clmulepi64_si128(_mm_and_si128(x, words), to_64, 0x00));
  __m128i quotient = _mm_clmulepi64_si128(_mm_and_si128(x, words), barrett, 0x10);
  quotient = _mm_clmulepi64_si128(_mm_and_si128(quotient, words), barrett, 0x00);
  return (uint32_t)_mm_extract_epi32(_mm_xor_si128(x, quotient), 1);
}

uint32_t fn_crc32(uint32_t crc, const void *bytes, size_t count) {
  const unsigned char *at = bytes;
  if (count >= LEAST && __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) {
    const size_t whole = count / BLOCK * BLOCK;
    crc = ~by_folding(~crc, at, whole);
    at += whole;
    count -= whole;
  }
  return by_zlib(crc, at, count);
}

#else

uint32_t fn_crc32(uint32_t crc, const void *bytes, size_t count) {
  return by_zlib(crc, bytes, count);
}

#endif
