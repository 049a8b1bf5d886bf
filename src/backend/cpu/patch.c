/* What the convolutions over patches share, and the pass that finishes a convolution. */
#include "backend/cpu/patch.h"

bool fn_cpu_patches_fit(const conv_values *v, const fn_conv_geometry *g) {
  const int spatial = v->x->shape.ndim - 2;
  if (spatial < 1 || spatial > FN_MAX_SPATIAL || g->groups != 1) return false;
  int64_t cells = 1;
  for (int d = 0; d < spatial; d++) {
    const int64_t k = v->w->shape.dim[2 + d];
    if (g->stride[d] != k || g->pad_low[d] != 0 || g->pad_high[d] != 0 || g->dilation[d] != 1)
      return false;
    cells *= k;
  }
  return cells > 1;
}

fn_patches fn_cpu_patches_of(const fn_tensor *x, const fn_tensor *y, const fn_shape *w) {
  const int spatial = x->shape.ndim - 2;
  fn_patches p = {.block = x->block,
                  .x_channels = x->shape.dim[1],
                  .y_channels = y->shape.dim[1],
                  .cells = fn_space(&y->shape)};
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    const int axis = d - (FN_MAX_SPATIAL - spatial);
    p.x_dim[d] = axis < 0 ? 1 : x->shape.dim[2 + axis];
    p.y_dim[d] = axis < 0 ? 1 : y->shape.dim[2 + axis];
    p.kernel[d] = axis < 0 ? 1 : w->dim[2 + axis];
  }
  p.runs = fn_ceil_div(p.x_channels, p.block) * p.kernel[0] * p.kernel[1];
  p.length = p.kernel[2] * p.block;
  return p;
}

void fn_cpu_conv_finish(const fn_tensor *to, const fn_tensor *from, const float *bias,
                        double slope) {
  const fn_rows rows = fn_rows_of(&to->shape, to->block);
  const int64_t channels = fn_channels(&to->shape);
  const float a = (float)slope;
#pragma omp parallel for schedule(static) if (rows.items > 1)
  for (int64_t i = 0; i < rows.items; i++) {
    const fn_item it = fn_item_at(&rows, i);
    float pattern[FN_LANES] = {0}, scratch_in[FN_CHUNK], scratch_out[FN_CHUNK];
    if (bias) fn_pattern(bias, channels, it.k, rows.block, pattern);
    const float *in = fn_load(from, fn_offset(from, &it), it.count, scratch_in);
    float *out = fn_target(to, fn_offset(to, &it), scratch_out);
    int64_t e = 0;
    for (; e + FN_LANES <= it.count; e += FN_LANES) {
#pragma omp simd
      for (int l = 0; l < FN_LANES; l++) {
        const float v = in[e + l] + pattern[l];
        out[e + l] = v > 0 ? v : a * v;
      }
    }
    for (int l = 0; e < it.count; e++, l++) {
      const float v = in[e] + pattern[l];
      out[e] = v > 0 ? v : a * v;
    }
    fn_store(to, fn_offset(to, &it), it.count, out);
  }
}
