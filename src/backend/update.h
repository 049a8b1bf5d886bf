/** @file update.h
 *  How one weight is updated: the arithmetic that optimizers share on host and device.
 *
 *  PyTorch's definitions (torch.optim, single-tensor float32 path): every product and sum is
 *  float32, factors that depend on the step alone were computed in double before. src/learn says
 *  where each formula comes from and fills fn_update.
 */
#ifndef FN_BACKEND_UPDATE_H
#define FN_BACKEND_UPDATE_H

#include <fieldnet/device.h>

#include "backend/gpu/code.h"

/** a + weight (b - a), in the form that PyTorch's lerp uses on either side of one half. */
FN_DEVICE float fn_update_lerp(float a, float b, float weight) {
  return weight < 0.5f ? a + weight * (b - a) : b - (b - a) * (1.0f - weight);
}

/** The gradient as every rule sees it: clipped, with weight decay. */
FN_DEVICE float fn_update_gradient(const fn_update *u, float weight, float gradient) {
  return u->by.scale * gradient + u->by.decay * weight;
}

/** has_buffer: momentum_buffer. Returns the new weight, as all functions here. */
FN_DEVICE float fn_update_sgd(const fn_update *u, float weight, float gradient) {
  return weight - u->by.rate * fn_update_gradient(u, weight, gradient);
}

FN_DEVICE float fn_update_sgd_momentum(const fn_update *u, float weight, float gradient,
                                       float *buffer) {
  const float g = fn_update_gradient(u, weight, gradient);
  const float m = u->momentum * *buffer + u->by.blend * g;
  *buffer = m;
  return weight - u->by.rate * (u->nesterov ? g + u->momentum * m : m);
}

/** highest: max_exp_avg_sq, used with amsgrad only. */
FN_DEVICE float fn_update_adam(const fn_update *u, float weight, float gradient, float *first,
                               float *second, float *highest) {
  const float w = u->by.shrink * weight, g = fn_update_gradient(u, weight, gradient);
  const float m = fn_update_lerp(*first, g, u->blend1);
  float v = *second * u->keep2 + u->blend2 * (g * g);
  *first = m;
  *second = v;
  if (u->amsgrad) {
    v = v > *highest ? v : *highest;
    *highest = v;
  }
  return w - u->by.rate * (m / (sqrtf(v) / u->by.divisor + u->eps));
}

FN_DEVICE float fn_update_nadam(const fn_update *u, float weight, float gradient, float *first,
                                float *second) {
  const float g = fn_update_gradient(u, weight, gradient);
  const float m = fn_update_lerp(*first, g, u->blend1);
  const float v = *second * u->keep2 + u->blend2 * (g * g);
  const float root = sqrtf(v / u->by.divisor) + u->eps;
  *first = m;
  *second = v;
  return weight - u->by.rate * (g / root) - u->by.rate2 * (m / root);
}

/** keep2, blend2: alpha and 1 - alpha. mean is used when centered, buffer with has_buffer. */
FN_DEVICE float fn_update_rmsprop(const fn_update *u, float weight, float gradient, float *square,
                                  float *mean, float *buffer) {
  const float g = fn_update_gradient(u, weight, gradient);
  const float s = *square * u->keep2 + u->blend2 * (g * g);
  float variance = s;
  *square = s;
  if (u->centered) {
    const float m = fn_update_lerp(*mean, g, u->blend2);
    *mean = m;
    variance = s - m * m;
  }
  float update = g / (sqrtf(variance) + u->eps);
  if (u->has_buffer) {
    update = u->momentum * *buffer + update;
    *buffer = update;
  }
  return weight - u->by.rate * update;
}

/** keep2, blend2: rho and 1 - rho. */
FN_DEVICE float fn_update_adadelta(const fn_update *u, float weight, float gradient, float *square,
                                   float *moved) {
  const float g = fn_update_gradient(u, weight, gradient);
  const float s = *square * u->keep2 + u->blend2 * (g * g);
  const float delta = sqrtf(*moved + u->eps) / sqrtf(s + u->eps) * g;
  *square = s;
  *moved = *moved * u->keep2 + u->blend2 * (delta * delta);
  return weight - u->by.rate * delta;
}

FN_DEVICE float fn_update_adagrad(const fn_update *u, float weight, float gradient, float *sum) {
  const float g = fn_update_gradient(u, weight, gradient);
  const float s = *sum + g * g;
  *sum = s;
  return weight - u->by.rate * (g / (sqrtf(s) + u->eps));
}

/** Places of states that exist under some settings only; without them the first state, which the
 *  rules then do not touch a second time. */
FN_DEVICE int fn_update_adam_highest(const fn_update *u) {
  return u->amsgrad ? 2 : 0;
}
FN_DEVICE int fn_update_rmsprop_mean(const fn_update *u) {
  return u->centered ? 1 : 0;
}
FN_DEVICE int fn_update_rmsprop_buffer(const fn_update *u) {
  return u->has_buffer ? 1 + fn_update_rmsprop_mean(u) : 0;
}

/** Element i of the arrays of `of`, by the factors of u: a copy with another scale, which stays in
 *  registers as long as nothing is indexed in it. */
FN_DEVICE void fn_update_element(const fn_update *u, const fn_update *of, int64_t i) {
  float *w = of->weight + i;
  const float g = of->gradient[i];
  float *const *s = of->state;
  switch (u->rule) {
    case FN_UPDATE_SGD:
      *w = u->has_buffer ? fn_update_sgd_momentum(u, *w, g, s[0] + i) : fn_update_sgd(u, *w, g);
      break;
    case FN_UPDATE_ADAM:
      *w = fn_update_adam(u, *w, g, s[0] + i, s[1] + i, s[fn_update_adam_highest(u)] + i);
      break;
    case FN_UPDATE_NADAM: *w = fn_update_nadam(u, *w, g, s[0] + i, s[1] + i); break;
    case FN_UPDATE_RMSPROP:
      *w = fn_update_rmsprop(u, *w, g, s[0] + i, s[fn_update_rmsprop_mean(u)] + i,
                             s[fn_update_rmsprop_buffer(u)] + i);
      break;
    case FN_UPDATE_ADADELTA: *w = fn_update_adadelta(u, *w, g, s[0] + i, s[1] + i); break;
    case FN_UPDATE_ADAGRAD: *w = fn_update_adagrad(u, *w, g, s[0] + i); break;
  }
}

#endif
