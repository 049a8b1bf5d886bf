/* Batch norm with fixed statistics as part of the convolution before it (Jacob et al. 2018,
 * section 3.2): scale (w x + b - mean) / sqrt(var + eps) + shift is a convolution, too. */
#include <math.h>

#include "ops/geometry.h"
#include "ops/ops.h"

enum { WEIGHT, BIAS, SCALE, SHIFT, MEAN, VAR };

void fn_fold_factors(const fn_fold_attrs *attrs, double bias, double scale, double shift,
                     double mean, double var, double *factor, double *folded_bias) {
  *factor = scale / sqrt(var + attrs->eps);
  *folded_bias = (bias - mean) * *factor + shift;
}

int64_t fn_fold_channel(const fn_fold_attrs *attrs, const fn_shape *w, int64_t row,
                        int64_t column) {
  if (!attrs->transposed) return row;
  return row / (w->dim[0] / attrs->groups) * w->dim[1] + column;
}

static fn_status infer(const fn_node *node, fn_shape *shape) {
  const char *what = "folded batch norm";
  const fn_fold_attrs *attrs = node->attrs;
  const fn_shape *w = &node->input[WEIGHT]->shape;
  const int64_t groups = attrs->groups;
  FN_CHECK(w->ndim >= 3 && groups >= 1 && w->dim[0] % groups == 0, FN_ERR_INTERNAL,
           "%s: a kernel of %d axes in %lld groups", what, w->ndim, (long long)groups);
  const int64_t channels = attrs->transposed ? w->dim[1] * groups : w->dim[0];
  static const char *const name[] = {"kernel", "bias", "scale", "shift", "mean", "variance"};
  for (int i = BIAS; i <= VAR; i++)
    if (node->input[i])
      FN_TRY(fn_shape_check(what, name[i], &node->input[i]->shape, &(fn_shape){1, {channels}}));
  shape[0] = *w;
  shape[1] = (fn_shape){1, {channels}};
  return FN_OK;
}

static fn_status reference(const fn_node *node, const double *const *in, double *const *out,
                           const fn_run_context *context) {
  (void)context;
  const fn_fold_attrs *attrs = node->attrs;
  const fn_shape *w = &node->input[WEIGHT]->shape;
  const int64_t taps = fn_shape_count(w) / (w->dim[0] * w->dim[1]);
  for (int64_t row = 0; row < w->dim[0]; row++) {
    for (int64_t column = 0; column < w->dim[1]; column++) {
      const int64_t c = fn_fold_channel(attrs, w, row, column);
      const int64_t at = (row * w->dim[1] + column) * taps;
      double factor;
      fn_fold_factors(attrs, in[BIAS] ? in[BIAS][c] : 0, in[SCALE][c], in[SHIFT][c], in[MEAN][c],
                      in[VAR][c], &factor, &out[1][c]);
      for (int64_t t = 0; t < taps; t++)
        out[0][at + t] = in[WEIGHT][at + t] * factor;
    }
  }
  return FN_OK;
}

const fn_op fn_op_fold_norm = {
    .name = "fold_norm",
    .attrs_size = sizeof(fn_fold_attrs),
    .infer = infer,
    .reference = reference,
};
