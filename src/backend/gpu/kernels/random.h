/** @file random.h
 *  Standard normals and dropout masks: the values of src/ops/random.h. Masks have the same bits on
 *  every device; normals too where logarithm, sine and cosine round alike (they are taken in double
 *  precision and rounded once, so that a difference is rare).
 */
#ifndef FN_BACKEND_GPU_KERNELS_RANDOM_H
#define FN_BACKEND_GPU_KERNELS_RANDOM_H

#include "backend/gpu/kernels/loop.h"
#include "ops/random.h"

typedef struct fn_draw_args {
  void *y;
  int dtype;
  bool normal;
  int index;
  double p;
  const int64_t *context;     /**< an fn_gpu_context: seed, epoch, samples */
  int64_t count, elements;    /**< pairs of all rows; elements of a row */
  fn_divider pairs, cells;    /**< of a row; of a channel */
  fn_divider channels;        /**< of a pair's place when `across` */
  bool across;                /**< neighbouring threads take neighbouring channels */
  int64_t row, channel, cell; /**< elements of y per step */
} fn_draw_args;

FN_DEVICE void fn_draw_body(const fn_draw_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < a->count; i += fn_thread_stride(t)) {
    const int64_t n = fn_divide(&a->pairs, i);
    int64_t pair = i - n * a->pairs.by;
    if (a->across) { // the pairs of a channel are cells / 2 neighbours
      const int64_t place = fn_divide(&a->channels, pair);
      pair = (pair - place * a->channels.by) * (a->cells.by / 2) + place;
    }
    const fn_philox_stream stream =
        fn_random_element_stream_of((uint64_t)a->context[0], a->context[1], a->context[2 + n],
                                    a->normal ? FN_RANDOM_NOISE : FN_RANDOM_DROPOUT, a->index);
    double two[2];
    if (a->normal)
      fn_random_element_normals(&stream, (uint32_t)pair, two);
    else
      fn_random_element_masks(&stream, (uint32_t)pair, a->p, two);
    for (int k = 0; k < 2; k++) {
      const int64_t e = 2 * pair + k;
      if (e >= a->elements) continue;
      const int64_t c = fn_divide(&a->cells, e), cell = e - c * a->cells.by;
      fn_write(a->y, a->dtype, n * a->row + c * a->channel + cell * a->cell, (float)two[k]);
    }
  }
}

#endif
