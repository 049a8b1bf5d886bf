/* Data gradient of a convolution over patches, e.g. the 2x up-sampling of a UNet:
 *   x[patch o, r, i] = leaky(bias[c] + sum over k of w[k, r, i] y[k, o]).
 * A register tile is CELLS patches times 16 elements of a run (whole cache lines), on copies of y
 * with the channels of a cell one after the other; oneDNN (3.2) has only its reference
 * implementation for this on AVX2 in the blocked layout. */
#include <omp.h>

#include "backend/cpu/patch.h"
#include "base/system.h"

enum { CELLS = PATCH_TILE, PIECE = 48 };

typedef struct data_state {
  fn_cpu_state base;
  fn_patches p;
  size_t weights_at, copy_at[2]; /**< in the workspace */
  size_t cells_at;               /**< float [threads][PIECE][depth] */
  int threads;
  int64_t depth;   /**< channels of y in steps of a tile */
  bool convert[2]; /**< x, y: bf16 through f32 copies */
  int64_t panels;  /**< of 16 elements, of a run */
  int64_t from[];  /**< [runs][panels][16]: fn_patch_weight(), -1 past the run */
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

/** w [K, C, cells] -> packed [runs][panels][depth][16], zeros outside. */
static void pack(const data_state *s, const float *w, float *packed) {
  const fn_patches *p = &s->p;
  const int64_t one = p->x_channels * p->kernel[0] * p->kernel[1] * p->kernel[2];
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < s->depth; k++) {
    for (int64_t q = 0; q < p->runs * s->panels; q++) {
      const int64_t *from = s->from + q * FN_LANES;
      float *to = packed + (q * s->depth + k) * FN_LANES;
      for (int64_t l = 0; l < FN_LANES; l++)
        to[l] = from[l] < 0 || k >= p->y_channels ? 0 : w[k * one + from[l]];
    }
  }
}

/** Some cells, of neighbouring samples counted through, and where their patches go. */
typedef struct piece_job {
  const float *y; /**< [cells][depth] */
  int64_t depth, cells;
  float *x[PIECE]; /**< patches */
  float slope;
  bool stream; /**< x goes past the caches */
} piece_job;

/** All cells of a piece against the weights of 16 elements of a run, `offset` from the start of
 * each patch; halves: 2, or 1 where the run ends after 8 of them. */
static void panel(const piece_job *job, const float *w, int halves, int64_t offset,
                  const float *start) {
  for (int64_t from = 0; from < job->cells; from += CELLS) {
    fn_lane8 sum[CELLS][2];
    fn_patch_multiply_tile(job->y + from * job->depth, job->depth, w, start, sum);
    const int64_t tile = fn_min_of(CELLS, job->cells - from);
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

/** Channels of `count` cells of a sample of y, block by block, to [count][depth]. */
static void copy_cells(const data_state *s, const fn_tensor *y, const float *from, int64_t count,
                       float *copy) {
  const int64_t block = y->block, channels = s->p.y_channels;
  for (int64_t k = 0; k < channels; k += block, from += s->p.cells * block) {
    const int64_t here = fn_min_of(block, channels - k);
    for (int64_t i = 0; i < count; i++) {
      float *to = copy + i * s->depth + k;
      if (here == 8)
        *(fn_lane8 *)to = *(const fn_lane8 *)(from + i * 8);
      else
        memcpy(to, from + i * block, (size_t)here * sizeof *to);
    }
  }
  for (int64_t i = 0; i < count && channels < s->depth; i++)
    memset(copy + i * s->depth + channels, 0, (size_t)(s->depth - channels) * sizeof *copy);
}

/** Pieces of cells small enough for y and its patches to stay in the cache while the weights pass
 *  by. copy: float [PIECE][depth]. */
static void multiply_piece(const data_state *s, const fn_tensor *x, const fn_tensor *y,
                           const float *packed, const float *bias, double slope, bool stream,
                           int64_t item, float *copy) {
  const fn_patches *p = &s->p;
  const int64_t first = item * PIECE;
  piece_job job = {.y = copy,
                   .depth = s->depth,
                   .cells = fn_min_of(PIECE, y->shape.dim[0] * p->cells - first),
                   .slope = (float)slope,
                   .stream = stream};
  for (int64_t i = 0; i < job.cells;) {
    const int64_t n = (first + i) / p->cells, cell = (first + i) % p->cells;
    const int64_t here = fn_min_of(p->cells - cell, job.cells - i);
    copy_cells(s, y, (const float *)y->data + n * y->batch_stride + cell * y->block, here,
               copy + i * s->depth);
    int64_t corner[PIECE];
    fn_patch_corners(p, cell, here, corner);
    for (int64_t j = 0; j < here; j++, i++)
      job.x[i] = (float *)x->data + n * x->batch_stride + corner[j];
  }
  for (int64_t r = 0; r < p->runs; r++) {
    const int64_t run = fn_patch_run(p, r);
    for (int64_t q = 0; q < s->panels; q++) {
      float start[FN_LANES];
      start_of(s, bias, r, q, start);
      panel(&job, packed + (r * s->panels + q) * s->depth * FN_LANES,
            p->length - q * FN_LANES > 8 ? 2 : 1, run + q * FN_LANES, start);
    }
  }
}

static void multiply(const data_state *s, const fn_tensor *x, const fn_tensor *y,
                     const float *packed, const float *bias, double slope, float *copies) {
  const int64_t items = fn_ceil_div(y->shape.dim[0] * s->p.cells, PIECE);
  const bool stream = !s->convert[0] && fn_cpu_streams(x); // a copy is read again at once
#pragma omp parallel num_threads(s->threads)
  {
    float *copy = copies + omp_get_thread_num() * PIECE * s->depth;
#pragma omp for schedule(static) nowait
    for (int64_t i = 0; i < items; i++)
      multiply_piece(s, x, y, packed, bias, slope, stream, i, copy);
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
  multiply(s, &x, &y, (const float *)(memory + s->weights_at), bias_of(kernel), attrs->slope,
           (float *)(memory + s->cells_at));
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
  const fn_tensor *tensor[2] = {&kernel->output[0], &kernel->input[0]};
  const fn_patches p = fn_cpu_patches_of(tensor[0], tensor[1], &kernel->input[1].shape);
  const int64_t panels = fn_ceil_div(p.length, FN_LANES), packed = p.runs * panels * FN_LANES;
  data_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s + (size_t)packed * sizeof s->from[0], (void **)&s));
  s->p = p;
  s->panels = panels;
  for (int64_t e = 0; e < packed; e++) {
    const int64_t i = e % (panels * FN_LANES);
    s->from[e] = i < p.length ? fn_patch_weight(&p, e / (panels * FN_LANES), i) : -1;
  }
  s->depth = fn_ceil_div(p.y_channels, 4) * 4;
  s->threads = fn_threads_get();
  s->weights_at = fn_cpu_carve(kernel, (size_t)(packed * s->depth) * sizeof(float));
  s->cells_at = fn_cpu_carve(kernel, (size_t)(s->threads * PIECE * s->depth) * sizeof(float));
  for (int a = 0; a < 2; a++) {
    const fn_tensor *t = tensor[a];
    s->convert[a] = t->dtype == FN_BF16;
    if (!s->convert[a]) continue;
    const int64_t count = t->shape.dim[0] * fn_tensor_sample_count(&t->shape, t->block);
    s->copy_at[a] = fn_cpu_carve(kernel, (size_t)count * 4);
  }
  s->base.time_library = fn_cpu_conv_time_library;
  kernel->run = run;
  return FN_OK;
}
