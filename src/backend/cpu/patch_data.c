/* Data gradient of a convolution over patches, e.g. the 2x up-sampling of a UNet:
 *   x[patch o, r, i] = leaky(bias[c] + sum over k of w[k, r, i] y[k, o]).
 * A register tile is CELLS patches times 16 elements of a run (whole cache lines); oneDNN (3.2) has
 * only its reference implementation for this on AVX2 in the blocked layout. */
#include "backend/cpu/patch.h"

enum { CELLS = 6, PIECE = 48 };

typedef struct data_state {
  fn_cpu_state base;
  fn_patches p;
  size_t weights_at, copy_at[2]; /**< in the workspace */
  bool convert[2];               /**< x, y: bf16 through f32 copies */
  int64_t panels;                /**< of 16 elements, of a run */
} data_state;

bool fn_cpu_patch_data_fits(const fn_node *node) {
  if (node->op != &fn_op_conv_data) return false;
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  const fn_conv_geometry *g = &((const fn_conv_attrs *)node->attrs)->geometry;
  if (!fn_cpu_patches_fit(&v, g)) return false;
  for (int d = 2; d < v.x->shape.ndim; d++) // every cell of x must lie in a patch
    if (v.x->shape.dim[d] != v.y->shape.dim[d] * v.w->shape.dim[d]) return false;
  return true;
}

/** w [K, C, cells] -> packed [runs][panels][K][16], zeros outside. */
static void pack(const data_state *s, const float *w, float *packed) {
  const fn_patches *p = &s->p;
  const int64_t one = p->x_channels * p->kernel[0] * p->kernel[1] * p->kernel[2];
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t r = 0; r < p->runs; r++) {
    for (int64_t q = 0; q < s->panels; q++) {
      float *to = packed + (r * s->panels + q) * p->y_channels * FN_LANES;
      for (int64_t l = 0; l < FN_LANES; l++) {
        const int64_t i = q * FN_LANES + l;
        const int64_t from = i < p->length ? fn_patch_weight(p, r, i) : -1;
        for (int64_t k = 0; k < p->y_channels; k++)
          to[k * FN_LANES + l] = from < 0 ? 0 : w[k * one + from];
      }
    }
  }
}

/** sum[i][h] = start[h] + sum over k of w[k][8 h...] y[k, cell i]; the cells lie `block` apart and
 *  the channel blocks of y `y_stride` apart. */
static __attribute__((noinline)) void product(const float *y, int64_t y_stride, int64_t block,
                                              int64_t k_count, const float *w,
                                              const fn_lane8 *start, fn_lane8 (*sum)[2]) {
  fn_lane8 acc[CELLS][2];
#pragma GCC unroll 8
  for (int i = 0; i < CELLS; i++)
    acc[i][0] = start[0], acc[i][1] = start[1];
  for (int64_t k0 = 0; k0 < k_count; k0 += block, y += y_stride) {
    const int64_t last = fn_min_of(block, k_count - k0);
    for (int64_t k = 0; k < last; k++, w += FN_LANES) {
      fn_lane8 w0 = *(const fn_lane8 *)w, w1 = *(const fn_lane8 *)(w + 8);
      FN_KEEP(w0);
      FN_KEEP(w1);
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
  const float *y;   /**< first cell, channel block 0 */
  int64_t y_stride; /**< between channel blocks */
  int64_t k_count, block;
  int64_t cells;
  float *x[PIECE]; /**< patches */
  float slope;
  bool stream; /**< x goes past the caches */
} piece_job;

/** The products of fewer cells than a tile. */
static void product_few(const piece_job *job, const float *w, const fn_lane8 *start,
                        fn_lane8 (*sum)[2]) {
  for (int64_t i = 0; i < job->cells; i++) {
    const float *y = job->y + i * job->block;
    sum[i][0] = start[0], sum[i][1] = start[1];
    for (int64_t k = 0; k < job->k_count; k++) {
      const float value = y[k / job->block * job->y_stride + k % job->block];
      sum[i][0] += *(const fn_lane8 *)(w + k * FN_LANES) * value;
      sum[i][1] += *(const fn_lane8 *)(w + k * FN_LANES + 8) * value;
    }
  }
}

/** All cells of a piece against the weights of 16 elements of a run, `offset` from the start of
 * each patch; halves: 2, or 1 where the run ends after 8 of them. */
static void panel(const piece_job *job, const float *w, int halves, int64_t offset,
                  const float *start16) {
  fn_lane8 start[2], sum[CELLS][2];
  memcpy(start, start16, sizeof start);
  const int64_t tile = fn_min_of(job->cells, CELLS);
  for (int64_t s = 0; s < job->cells; s += tile) {
    // The last tile steps back to stay inside; some cells are computed twice.
    const int64_t from = fn_min_of(s, job->cells - tile);
    const float *y = job->y + from * job->block;
    if (tile < CELLS)
      product_few(job, w, start, sum);
    else if (job->block == 8) // a constant is worth a tenth
      product(y, job->y_stride, 8, job->k_count, w, start, sum);
    else
      product(y, job->y_stride, job->block, job->k_count, w, start, sum);
    for (int64_t i = 0; i < tile; i++)
      for (int h = 0; h < halves; h++) {
        if (job->slope != 1) fn_lane8_leaky(&sum[i][h], job->slope);
        fn_lane8_put(job->x[from + i] + offset + 8 * h, &sum[i][h], job->stream);
      }
  }
}

/** Bias of the 16 elements of a panel. */
static void start_of(const data_state *s, const float *bias, int64_t run, int64_t panel_,
                     float *start) {
  const fn_patches *p = &s->p;
  const int64_t rows = p->kernel[0] * p->kernel[1];
  memset(start, 0, FN_LANES * sizeof *start);
  for (int64_t l = 0; bias && l < FN_LANES; l++) {
    const int64_t c = run / rows * p->block + (panel_ * FN_LANES + l) % p->block;
    start[l] = c < p->x_channels ? bias[c] : 0;
  }
}

/** Pieces of cells small enough for y and its patches to stay in the cache while the weights pass
 *  by. */
static void multiply_piece(const data_state *s, const fn_tensor *x, const fn_tensor *y,
                           const float *packed, const float *bias, double slope, int64_t item) {
  const fn_patches *p = &s->p;
  const int64_t pieces = fn_ceil_div(p->cells, PIECE), n = item / pieces;
  const int64_t first = item % pieces * PIECE;
  piece_job job = {.y = (const float *)y->data + n * y->batch_stride + first * y->block,
                   .y_stride = p->cells * y->block,
                   .k_count = p->y_channels,
                   .block = y->block,
                   .cells = fn_min_of(PIECE, p->cells - first),
                   .slope = (float)slope,
                   .stream = fn_cpu_streams(x)};
  int64_t corner[PIECE];
  fn_patch_corners(p, first, job.cells, corner);
  for (int64_t i = 0; i < job.cells; i++)
    job.x[i] = (float *)x->data + n * x->batch_stride + corner[i];
  for (int64_t r = 0; r < p->runs; r++) {
    const int64_t run = fn_patch_run(p, r);
    for (int64_t q = 0; q < s->panels; q++) {
      float start[FN_LANES];
      start_of(s, bias, r, q, start);
      panel(&job, packed + (r * s->panels + q) * p->y_channels * FN_LANES,
            p->length - q * FN_LANES > 8 ? 2 : 1, run + q * FN_LANES, start);
    }
  }
}

static void multiply(const data_state *s, const fn_tensor *x, const fn_tensor *y,
                     const float *packed, const float *bias, double slope) {
  const int64_t items = y->shape.dim[0] * fn_ceil_div(s->p.cells, PIECE);
#pragma omp parallel
  {
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < items; i++)
      multiply_piece(s, x, y, packed, bias, slope, i);
    fn_stream_fence();
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
  const data_state *s = kernel->state;
  const fn_conv_attrs *attrs = kernel->node->attrs;
  char *memory = workspace;
  const fn_tensor x = in_f32(&kernel->output[0], s->convert[0], memory + s->copy_at[0]);
  const fn_tensor y = in_f32(&kernel->input[0], s->convert[1], memory + s->copy_at[1]);
  multiply(s, &x, &y, (const float *)(memory + s->weights_at), bias_of(kernel), attrs->slope);
  return FN_OK;
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  data_state *s = kernel->state;
  char *memory = s->base.workspace = context->workspace;
  const fn_tensor *y = &kernel->input[0], *x = &kernel->output[0];
  pack(s, kernel->input[1].data, (float *)(memory + s->weights_at));
  const fn_tensor y32 = in_f32(y, s->convert[1], memory + s->copy_at[1]);
  if (s->convert[1]) fn_cpu_conv_finish(&y32, y, NULL, 1);
  FN_TRY(multiply_all(kernel, memory));
  const fn_tensor x32 = in_f32(x, s->convert[0], memory + s->copy_at[0]);
  if (s->convert[0]) fn_cpu_conv_finish(x, &x32, NULL, 1);
  return FN_OK;
}

fn_status fn_cpu_patch_data_prepare(fn_kernel *kernel) {
  data_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  const fn_tensor *tensor[2] = {&kernel->output[0], &kernel->input[0]};
  s->p = fn_cpu_patches_of(tensor[0], tensor[1], &kernel->input[1].shape);
  s->panels = fn_ceil_div(s->p.length, FN_LANES);
  s->weights_at = fn_cpu_carve(
      kernel, (size_t)(s->p.runs * s->panels * s->p.y_channels * FN_LANES) * sizeof(float));
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
