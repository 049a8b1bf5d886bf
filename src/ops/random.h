/** @file random.h
 *  Values of the random operators at one element, for every backend: pure functions of
 *  (seed, epoch, sample, node, element), so that an element may be drawn alone and in any order.
 */
#ifndef FN_OPS_RANDOM_H
#define FN_OPS_RANDOM_H

#include <fieldnet/backend.h>
#include <math.h>

#include "base/philox.h"
#include "base/random.h"

/** Stream of a row of the random node number `index`; sample: global index of the row. */
FN_DEVICE fn_philox_stream fn_random_element_stream_of(uint64_t seed, int64_t epoch, int64_t sample,
                                                       int purpose, int index) {
  return fn_philox_start(seed, purpose, (uint32_t)epoch,
                         (uint64_t)sample * 4096u + (uint64_t)index);
}

/** Stream of row `row` (index along axis 0). */
static inline fn_philox_stream fn_random_element_stream(const fn_run_context *context,
                                                        fn_purpose purpose, int64_t row,
                                                        int index) {
  const int64_t sample = context->sample ? context->sample[row] : row;
  return fn_random_element_stream_of(context->seed, context->epoch, sample, (int)purpose, index);
}

/** The two uniforms in [0, 1) of block `block`: elements 2 block and 2 block + 1. */
FN_DEVICE void fn_random_element_uniforms(const fn_philox_stream *stream, uint32_t block,
                                          double u[2]) {
  const uint32_t counter[4] = {block, stream->counter[1], stream->counter[2], stream->counter[3]};
  uint32_t word[4];
  fn_philox_block(counter, stream->key, word);
  for (int i = 0; i < 2; i++)
    u[i] = (double)(((uint64_t)word[2 * i] << 32 | word[2 * i + 1]) >> 11) * 0x1p-53;
}

/** The two standard normals of block `block`: Box & Muller 1958, both branches. */
FN_DEVICE void fn_random_element_normals(const fn_philox_stream *stream, uint32_t block,
                                         double z[2]) {
  double u[2];
  fn_random_element_uniforms(stream, block, u);
  const double radius = sqrt(-2.0 * log(1.0 - u[0])), angle = 6.283185307179586 * u[1];
  z[0] = radius * cos(angle);
  z[1] = radius * sin(angle);
}

/** The two values of a dropout mask: 0 with probability p, else 1 / (1 - p). */
FN_DEVICE void fn_random_element_masks(const fn_philox_stream *stream, uint32_t block, double p,
                                       double mask[2]) {
  double u[2];
  fn_random_element_uniforms(stream, block, u);
  for (int i = 0; i < 2; i++)
    mask[i] = u[i] < p ? 0 : 1 / (1 - p);
}

#endif
