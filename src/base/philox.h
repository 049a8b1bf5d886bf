/** @file philox.h
 *  The generator of random.h for host and device: Philox4x32-10, Salmon et al. 2011, table 2 and
 *  section 5, and the keys of its streams.
 */
#ifndef FN_BASE_PHILOX_H
#define FN_BASE_PHILOX_H

#include <stdint.h>

#include "base/shared_code.h"

/** Where a stream starts: its key, and the counter whose word 0 counts blocks. */
typedef struct fn_philox_stream {
  uint32_t key[2], counter[4];
} fn_philox_stream;

/** out = Philox4x32-10(counter, key): multipliers and Weyl constants of the paper, ten rounds. */
FN_DEVICE void fn_philox_block(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
    const uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/** splitmix64 finaliser (Steele et al. 2014): spreads seed and purpose over the key. */
FN_DEVICE uint64_t fn_philox_mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/** The stream of (seed, purpose) at indices a and b; purpose is an fn_purpose. */
FN_DEVICE fn_philox_stream fn_philox_start(uint64_t seed, int purpose, uint32_t a, uint64_t b) {
  const uint64_t key = fn_philox_mix(fn_philox_mix(seed) ^ (uint64_t)purpose);
  fn_philox_stream stream;
  stream.key[0] = (uint32_t)key;
  stream.key[1] = (uint32_t)(key >> 32);
  stream.counter[0] = 0;
  stream.counter[1] = a;
  stream.counter[2] = (uint32_t)b;
  stream.counter[3] = (uint32_t)(b >> 32);
  return stream;
}

#endif
