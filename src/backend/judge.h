/** @file judge.h
 *  What becomes of a training step: the arithmetic that host and device share.
 */
#ifndef FN_BACKEND_JUDGE_H
#define FN_BACKEND_JUDGE_H

#include <fieldnet/device.h>

#include "backend/gpu/code.h"

/** Norms count by being finite or not, so that they may be those of scaled gradients. */
FN_DEVICE fn_step_verdict fn_judge_verdict(const fn_step_facts *facts, double norm) {
  if (facts->bad || (facts->loss && !isfinite(*facts->loss))) return FN_STEP_BAD;
  if (isfinite(norm)) return FN_STEP_TAKEN;
  return facts->lowers ? FN_STEP_LEFT_OUT : FN_STEP_BAD;
}

/** torch.nn.utils.clip_grad_norm_: scale by max_norm / (norm + 1e-6) when above. */
FN_DEVICE double fn_judge_clip(double clip, double norm) {
  return clip > 0 && norm > clip ? clip / (norm + 1e-6) : 1;
}

/** All but squares and bad; `norm` is that of the gradients as they are. */
FN_DEVICE void fn_judge_decide(const fn_step_facts *facts, double norm, fn_judgement *judgement) {
  const fn_step_verdict verdict = fn_judge_verdict(facts, norm);
  judgement->norm = norm / facts->loss_scale;
  judgement->loss = facts->loss ? (double)*facts->loss : 0;
  judgement->scale = (float)(fn_judge_clip(facts->clip, judgement->norm) / facts->loss_scale);
  judgement->next_scale = facts->next_scale[verdict];
  judgement->verdict = verdict;
}

#endif
