/** @file judge.h
 *  The kernel that ends a training step's gradients and begins its update.
 */
#ifndef FN_BACKEND_GPU_KERNELS_JUDGE_H
#define FN_BACKEND_GPU_KERNELS_JUDGE_H

#include "backend/judge.h"

/** One block. The gradients are looked at only where the step is bad for their sake. */
typedef struct fn_judge_args {
  const fn_step_facts *facts;
  const float *gradient; /**< of all parameters */
  int64_t count;
  fn_judgement *judgement; /**< [in] squares [out] the rest */
} fn_judge_args;

FN_DEVICE void fn_judge_body(const fn_judge_args *a, fn_thread t, void *shared, int phase) {
  int64_t *last = (int64_t *)shared;
  const double norm = sqrt(a->judgement->squares[0]);
  if (phase == 0) {
    last[t.index] = -1;
    if (isfinite(norm) || fn_judge_verdict(a->facts, norm) != FN_STEP_BAD) return;
    for (int64_t i = t.index; i < a->count; i += t.count)
      if (!isfinite(a->gradient[i])) last[t.index] = i;
  } else if (t.index == 0) {
    int64_t bad = -1;
    for (int i = 0; i < t.count; i++)
      if (last[i] > bad) bad = last[i];
    a->judgement->bad = bad;
    fn_judge_decide(a->facts, norm, a->judgement);
  }
}

#endif
