/** @file random.h
 *  Counter-based random numbers: every draw is a pure function of (seed, purpose, indices), so that
 *  nothing depends on the number of ranks, threads, or on what was drawn before.
 *  Generator: Philox4x32-10, Salmon et al. 2011, table 2 and section 5.
 */
#ifndef FN_BASE_RANDOM_H
#define FN_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/** What a stream of draws is for; part of the key, so streams never overlap. */
typedef enum fn_purpose {
  FN_RANDOM_INIT = 1,    /**< initial weights; index = hash of the parameter's name */
  FN_RANDOM_ORDER = 2,   /**< sample order of an epoch */
  FN_RANDOM_AUGMENT = 3, /**< augmentation of one sample */
  FN_RANDOM_DROPOUT = 4,
  FN_RANDOM_NOISE = 5,
  FN_RANDOM_SYNTH = 6, /**< generated fields */
  FN_RANDOM_TEST = 7,
  FN_RANDOM_SWEEP = 8, /**< settings of trials; a = setting, b = hash of the parameter's name */
} fn_purpose;

/** A stream; copy it to fork it. */
typedef struct fn_random {
  uint32_t key[2];
  uint32_t counter[4]; /**< counter[0] counts blocks, the rest is (a, b) */
  uint32_t block[4];
  int used; /**< words of block already handed out; 4 = none left */
} fn_random;

/** The bare generator: out = Philox4x32-10(counter, key). */
void fn_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/** Stream of (seed, purpose) at indices a (e.g. epoch; 32 bits are used) and b (e.g. sample). */
fn_random fn_random_stream(uint64_t seed, fn_purpose purpose, uint32_t a, uint64_t b);
/** Go to absolute block `block` of four words; the next draw starts there. */
void fn_random_seek(fn_random *random, uint32_t block);
uint32_t fn_random_word(fn_random *random);
/** Uniform in [0, 1), 53 bits, two words. */
double fn_random_uniform(fn_random *random);
/** Uniform integer in [0, bound), unbiased (Lemire 2019). */
uint64_t fn_random_below(fn_random *random, uint64_t bound);
/** Standard normal, Box & Muller 1958: two uniforms, the cosine branch only. */
double fn_random_normal(fn_random *random);
/** Fisher-Yates shuffle of n indices. */
void fn_random_shuffle(fn_random *random, int64_t *index, int64_t n);
/** FNV-1a hash of text, for stream indices from names. */
uint64_t fn_hash_text(const char *text);
/** FNV-1a, 64 bits, continued from `hash`; start with FN_HASH_START. */
uint64_t fn_hash_bytes(uint64_t hash, const void *bytes, size_t count);
#define FN_HASH_START 0xCBF29CE484222325u

#endif
