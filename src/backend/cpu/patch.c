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

/** Element i + e of the patches of a tile; spelled out because gcc's own unrolling mixes the steps
 *  and runs out of registers. */
#define ADD_ELEMENT(e)                                                                             \
  do {                                                                                             \
    fn_lane8 w0 = *(const fn_lane8 *)(w + (e)*FN_LANES);                                           \
    fn_lane8 w1 = *(const fn_lane8 *)(w + (e)*FN_LANES + 8);                                       \
    FN_KEEP(w0);                                                                                   \
    FN_KEEP(w1);                                                                                   \
    acc[0][0] += w0 * x[e], acc[0][1] += w1 * x[e];                                                \
    acc[1][0] += w0 * x1[e], acc[1][1] += w1 * x1[e];                                              \
    acc[2][0] += w0 * x2[e], acc[2][1] += w1 * x2[e];                                              \
    acc[3][0] += w0 * x3[e], acc[3][1] += w1 * x3[e];                                              \
    acc[4][0] += w0 * x4[e], acc[4][1] += w1 * x4[e];                                              \
    acc[5][0] += w0 * x5[e], acc[5][1] += w1 * x5[e];                                              \
  } while (0)

__attribute__((aligned(64))) void fn_patch_multiply_tile(const float *x, int64_t length,
                                                         const float *w, const float *start,
                                                         fn_lane8 (*sum)[2]) {
  fn_lane8 acc[PATCH_TILE][2];
#pragma GCC unroll 8
  for (int i = 0; i < PATCH_TILE; i++) {
    acc[i][0] = *(const fn_lane8 *)start;
    acc[i][1] = *(const fn_lane8 *)(start + 8);
  }
  const float *x1 = x + length, *x2 = x1 + length, *x3 = x2 + length, *x4 = x3 + length,
              *x5 = x4 + length;
  for (int64_t i = 0; i < length; i += 4) {
    ADD_ELEMENT(0);
    ADD_ELEMENT(1);
    ADD_ELEMENT(2);
    ADD_ELEMENT(3);
    w += 4 * FN_LANES, x += 4, x1 += 4, x2 += 4, x3 += 4, x4 += 4, x5 += 4;
  }
#pragma GCC unroll 8
  for (int i = 0; i < PATCH_TILE; i++)
    sum[i][0] = acc[i][0], sum[i][1] = acc[i][1];
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
