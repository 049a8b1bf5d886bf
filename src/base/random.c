#include "base/random.h"

#include <math.h>
#include <string.h>

#include "base/philox.h"

void fn_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
  fn_philox_block(counter, key, out);
}

fn_random fn_random_stream(uint64_t seed, fn_purpose purpose, uint32_t a, uint64_t b) {
  const fn_philox_stream start = fn_philox_start(seed, (int)purpose, a, b);
  fn_random random = {.used = 4};
  memcpy(random.key, start.key, sizeof random.key);
  memcpy(random.counter, start.counter, sizeof random.counter);
  return random;
}

void fn_random_seek(fn_random *random, uint32_t block) {
  random->counter[0] = block;
  random->used = 4;
}

uint32_t fn_random_word(fn_random *random) {
  if (random->used == 4) {
    fn_philox(random->counter, random->key, random->block);
    random->counter[0]++;
    random->used = 0;
  }
  return random->block[random->used++];
}

static uint64_t word64(fn_random *random) {
  const uint64_t high = fn_random_word(random);
  return high << 32 | fn_random_word(random);
}

double fn_random_uniform(fn_random *random) {
  return (double)(word64(random) >> 11) * 0x1p-53;
}

uint64_t fn_random_below(fn_random *random, uint64_t bound) {
  if (bound == 0) return 0;
  const uint64_t floor = -bound % bound; // rejected remainder, Lemire 2019, algorithm 5
  for (;;) {
    const unsigned __int128 product = (unsigned __int128)word64(random) * bound;
    if ((uint64_t)product >= floor) return (uint64_t)(product >> 64);
  }
}

double fn_random_normal(fn_random *random) {
  const double u = 1.0 - fn_random_uniform(random), v = fn_random_uniform(random);
  return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

void fn_random_shuffle(fn_random *random, int64_t *index, int64_t n) {
  for (int64_t i = n - 1; i > 0; i--) {
    const int64_t j = (int64_t)fn_random_below(random, (uint64_t)i + 1);
    const int64_t swap = index[i];
    index[i] = index[j];
    index[j] = swap;
  }
}

uint64_t fn_hash_bytes(uint64_t hash, const void *bytes, size_t count) {
  // Fowler, Noll & Vo, FNV-1a, 64 bits.
  const unsigned char *at = bytes;
  for (size_t i = 0; i < count; i++)
    hash = (hash ^ at[i]) * 0x100000001B3u;
  return hash;
}

uint64_t fn_hash_text(const char *text) {
  return fn_hash_bytes(FN_HASH_START, text, strlen(text));
}
