/* Data gradient of a convolution whose kernel equals its stride, e.g. the 2x up-sampling of a UNet:
 *   x[c, stride o + t] = leaky(bias[c] + sum over k of w[k, c, t] y[k, o])
 * i.e. one matrix product per kernel cell t. A register tile is CELLS cells of y times 16 channels
 * of x; oneDNN (3.2) has only its reference implementation for this on AVX2 in the blocked layout.
 */
#include "backend/cpu/conv.h"

enum { CELLS = 6, PIECE = 48 };

typedef struct patch_state {
  fn_cpu_state base;
  size_t weights_at, copy_at[2]; /**< in the workspace */
  bool convert[2];               /**< x, y: bf16 through f32 copies */
  int spatial;
  int64_t stride[FN_MAX_SPATIAL]; /**< padded in front with ones */
  int64_t y_dim[FN_MAX_SPATIAL];  /**< padded in front with ones */
  int64_t taps, groups;           /**< kernel cells; groups of 16 channels of x */
} patch_state;

bool fn_cpu_conv_patch_fits(const fn_node *node) {
  if (node->op != &fn_op_conv_data) return false;
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  const fn_conv_geometry *g = &((const fn_conv_attrs *)node->attrs)->geometry;
  const int spatial = v.x->shape.ndim - 2;
  if (spatial < 1 || spatial > FN_MAX_SPATIAL || g->groups != 1) return false;
  int64_t taps = 1;
  for (int d = 0; d < spatial; d++) {
    const int64_t k = v.w->shape.dim[2 + d];
    if (g->stride[d] != k || g->pad_low[d] != 0 || g->dilation[d] != 1) return false;
    if (v.x->shape.dim[2 + d] != v.y->shape.dim[2 + d] * k) return false;
    taps *= k;
  }
  return taps > 1;
}

/** w [K, C, taps] -> packed [taps][C / 16][K][16], zeros past C. */
static void pack(const float *w, int64_t k_count, int64_t c_count, int64_t taps, float *packed) {
  const int64_t groups = fn_ceil_div(c_count, FN_LANES);
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t t = 0; t < taps; t++) {
    for (int64_t g = 0; g < groups; g++) {
      float *to = packed + (t * groups + g) * k_count * FN_LANES;
      for (int64_t k = 0; k < k_count; k++) {
        for (int64_t i = 0; i < FN_LANES; i++) {
          const int64_t c = g * FN_LANES + i;
          to[k * FN_LANES + i] = c < c_count ? w[(k * c_count + c) * taps + t] : 0;
        }
      }
    }
  }
}

/** sum[i][h] = start[h] + sum over k of w[k][8 h...] y[k, cell i]; the cells lie `block` apart and
 *  the channel blocks of y `y_stride` apart. */
static inline void product(const float *y, int64_t y_stride, int64_t block, int64_t k_count,
                           const float *w, const fn_lane8 *start, fn_lane8 (*sum)[2]) {
  fn_lane8 acc[CELLS][2];
#pragma GCC unroll 8
  for (int i = 0; i < CELLS; i++)
    acc[i][0] = start[0], acc[i][1] = start[1];
  for (int64_t k0 = 0; k0 < k_count; k0 += block, y += y_stride) {
    const int64_t last = fn_min_of(block, k_count - k0);
    for (int64_t k = 0; k < last; k++, w += FN_LANES) {
      const fn_lane8 w0 = *(const fn_lane8 *)w, w1 = *(const fn_lane8 *)(w + 8);
#pragma GCC unroll 8
      for (int i = 0; i < CELLS; i++) {
        const float value = y[i * block + k];
        acc[i][0] += w0 * value;
        acc[i][1] += w1 * value;
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < CELLS; i++)
    sum[i][0] = acc[i][0], sum[i][1] = acc[i][1];
}

/** Some cells of one sample of y, and where their patches go. */
typedef struct piece_job {
  const float *y;   /**< cell 0 of the sample, channel block 0 */
  int64_t y_stride; /**< between channel blocks */
  int64_t k_count, block;
  float *x;         /**< the sample, channel block 0 */
  int64_t x_stride; /**< between channel blocks of x */
  int64_t blocks;   /**< channel blocks of x */
  float slope;
} piece_job;

/** Cell of x under tap 0 of cell `cell` of y. */
static int64_t corner(const patch_state *s, int64_t cell) {
  const int64_t w = cell % s->y_dim[2], h = cell / s->y_dim[2] % s->y_dim[1];
  const int64_t d = cell / s->y_dim[2] / s->y_dim[1];
  const int64_t height = s->y_dim[1] * s->stride[1], width = s->y_dim[2] * s->stride[2];
  return (d * s->stride[0] * height + h * s->stride[1]) * width + w * s->stride[2];
}

/** Distance of a tap from tap 0, in cells of x. */
static int64_t tap_offset(const patch_state *s, int64_t tap) {
  const int64_t t2 = tap % s->stride[2], t1 = tap / s->stride[2] % s->stride[1];
  const int64_t t0 = tap / s->stride[2] / s->stride[1];
  const int64_t height = s->y_dim[1] * s->stride[1], width = s->y_dim[2] * s->stride[2];
  return (t0 * height + t1) * width + t2;
}

/** leaky(sum) -> 8 channels of one cell of x. */
static inline void put(float *to, const fn_lane8 *sum, float slope) {
  *(fn_lane8 *)to = *sum;
  if (slope == 1) return;
#pragma omp simd
  for (int i = 0; i < 8; i++)
    to[i] = to[i] > 0 ? to[i] : slope * to[i];
}

/** The products of fewer cells than a tile. */
static void product_few(const piece_job *job, int64_t first, int64_t cells, const float *w,
                        const fn_lane8 *start, fn_lane8 (*sum)[2]) {
  for (int64_t i = 0; i < cells; i++) {
    const float *y = job->y + (first + i) * job->block;
    sum[i][0] = start[0], sum[i][1] = start[1];
    for (int64_t k = 0; k < job->k_count; k++) {
      const float value = y[k / job->block * job->y_stride + k % job->block];
      sum[i][0] += *(const fn_lane8 *)(w + k * FN_LANES) * value;
      sum[i][1] += *(const fn_lane8 *)(w + k * FN_LANES + 8) * value;
    }
  }
}

/** Cells [first, first + cells) against the weights of one tap and 16 channels; to [cells]: where
 *  tap 0 of each goes, tap: how far from there this one is. */
static void panel(const piece_job *job, const float *w, int64_t group, int64_t tap,
                  const float *start16, int64_t first, int64_t cells, const int64_t *to) {
  fn_lane8 start[2], sum[CELLS][2];
  memcpy(start, start16, sizeof start);
  float *x[2];
  for (int64_t h = 0; h < 2; h++) {
    const int64_t c = group * FN_LANES + h * 8, k = c / job->block;
    x[h] = k < job->blocks ? job->x + k * job->x_stride + tap * job->block + c % job->block : NULL;
  }
  const int64_t tile = fn_min_of(cells, CELLS);
  for (int64_t s = 0; s < cells; s += tile) {
    // The last tile steps back to stay inside; some cells are computed twice.
    const int64_t from = fn_min_of(s, cells - tile);
    const float *y = job->y + (first + from) * job->block;
    if (tile < CELLS)
      product_few(job, first, cells, w, start, sum);
    else if (job->block == 8) // a constant is worth a tenth
      product(y, job->y_stride, 8, job->k_count, w, start, sum);
    else
      product(y, job->y_stride, job->block, job->k_count, w, start, sum);
    for (int64_t i = 0; i < tile; i++) {
      put(x[0] + to[from + i] * job->block, &sum[i][0], job->slope);
      if (x[1]) put(x[1] + to[from + i] * job->block, &sum[i][1], job->slope);
    }
  }
}

/** Pieces of cells small enough for y and its patches to stay in the cache while the weights pass
 *  by. */
static void multiply(const patch_state *s, const fn_tensor *x, const fn_tensor *y,
                     const float *packed, const float *bias, double slope) {
  const int64_t block = y->block, c_count = x->shape.dim[1], k_count = y->shape.dim[1];
  const int64_t cells = fn_space(&y->shape), pieces = fn_ceil_div(cells, PIECE);
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t n = 0; n < y->shape.dim[0]; n++) {
    for (int64_t p = 0; p < pieces; p++) {
      const piece_job job = {.y = (const float *)y->data + n * y->batch_stride,
                             .y_stride = cells * block,
                             .k_count = k_count,
                             .block = block,
                             .x = (float *)x->data + n * x->batch_stride,
                             .x_stride = fn_space(&x->shape) * block,
                             .blocks = fn_ceil_div(c_count, block),
                             .slope = (float)slope};
      const int64_t first = p * PIECE, count = fn_min_of(PIECE, cells - first);
      int64_t to[PIECE];
      for (int64_t i = 0; i < count; i++)
        to[i] = corner(s, first + i);
      for (int64_t t = 0; t < s->taps; t++) {
        const int64_t offset = tap_offset(s, t);
        for (int64_t g = 0; g < s->groups; g++) {
          float start[FN_LANES] = {0};
          if (bias) fn_pattern(bias, c_count, g, FN_LANES, start);
          panel(&job, packed + (t * s->groups + g) * k_count * FN_LANES, g, offset, start, first,
                count, to);
        }
      }
    }
  }
}

static const float *bias_of(const fn_kernel *kernel) {
  return kernel->node->input_count > 2 ? kernel->input[2].data : NULL;
}

static fn_tensor in_f32(const fn_tensor *t, bool convert, char *copy) {
  fn_tensor view = *t;
  if (!convert) return view;
  view.dtype = FN_F32;
  view.data = copy;
  view.batch_stride = fn_tensor_sample_count(&t->shape, t->block);
  return view;
}

/** The product alone, on the f32 copies that run() makes. */
static fn_status multiply_all(const fn_kernel *kernel, void *workspace) {
  const patch_state *s = kernel->state;
  const fn_conv_attrs *attrs = kernel->node->attrs;
  char *memory = workspace;
  const fn_tensor x = in_f32(&kernel->output[0], s->convert[0], memory + s->copy_at[0]);
  const fn_tensor y = in_f32(&kernel->input[0], s->convert[1], memory + s->copy_at[1]);
  multiply(s, &x, &y, (const float *)(memory + s->weights_at), bias_of(kernel), attrs->slope);
  return FN_OK;
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  patch_state *s = kernel->state;
  char *memory = s->base.workspace = context->workspace;
  const fn_tensor *y = &kernel->input[0], *x = &kernel->output[0];
  pack(kernel->input[1].data, y->shape.dim[1], x->shape.dim[1], s->taps,
       (float *)(memory + s->weights_at));
  const fn_tensor y32 = in_f32(y, s->convert[1], memory + s->copy_at[1]);
  if (s->convert[1]) fn_cpu_conv_finish(&y32, y, NULL, 1);
  FN_TRY(multiply_all(kernel, memory));
  const fn_tensor x32 = in_f32(x, s->convert[0], memory + s->copy_at[0]);
  if (s->convert[0]) fn_cpu_conv_finish(x, &x32, NULL, 1);
  return FN_OK;
}

fn_status fn_cpu_conv_patch_prepare(fn_kernel *kernel) {
  patch_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  const fn_conv_geometry *g = &((const fn_conv_attrs *)kernel->node->attrs)->geometry;
  const fn_tensor *tensor[2] = {&kernel->output[0], &kernel->input[0]};
  s->spatial = tensor[0]->shape.ndim - 2;
  s->taps = 1;
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    const int axis = d - (FN_MAX_SPATIAL - s->spatial);
    s->stride[d] = axis < 0 ? 1 : g->stride[axis];
    s->y_dim[d] = axis < 0 ? 1 : tensor[1]->shape.dim[2 + axis];
    s->taps *= s->stride[d];
  }
  const int64_t k_count = tensor[1]->shape.dim[1];
  s->groups = fn_ceil_div(tensor[0]->shape.dim[1], FN_LANES);
  s->weights_at = fn_cpu_carve(kernel, (size_t)(s->taps * s->groups * k_count * FN_LANES) * 4);
  for (int a = 0; a < 2; a++) {
    const fn_tensor *t = tensor[a];
    s->convert[a] = t->dtype == FN_BF16;
    if (!s->convert[a]) continue;
    const int64_t count = t->shape.dim[0] * fn_tensor_sample_count(&t->shape, t->block);
    s->copy_at[a] = fn_cpu_carve(kernel, (size_t)count * 4);
  }
  s->base.primitive = multiply_all;
  kernel->run = run;
  return FN_OK;
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
