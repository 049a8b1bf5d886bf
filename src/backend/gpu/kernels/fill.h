/** @file fill.h
 *  Every element equal to a constant.
 */
#ifndef FN_BACKEND_GPU_KERNELS_FILL_H
#define FN_BACKEND_GPU_KERNELS_FILL_H

#include "backend/gpu/kernels/element.h"

typedef struct fn_fill_args {
  void *y;
  int dtype;
  float value;
  int64_t count;
} fn_fill_args;

FN_DEVICE void fn_fill_body(const fn_fill_args *a, fn_thread t, void *shared, int phase) {
  (void)shared;
  (void)phase;
  for (int64_t i = fn_thread_first(t); i < a->count; i += fn_thread_stride(t))
    fn_write(a->y, a->dtype, i, a->value);
}

#endif
