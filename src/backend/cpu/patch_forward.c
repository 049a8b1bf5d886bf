/* Forward convolution over patches:
 *   y[k, o] = leaky(bias[k] + sum over runs r and their elements i of w[k, r, i] x[patch o, r, i]).
 * A register tile is CELLS patches times 16 channels of y; x is read where it lies. oneDNN (3.2)
 * reaches about half of the processor's rate on AVX2 here, this four fifths. */
#include <omp.h>

#include "backend/cpu/patch.h"
#include "base/system.h"

enum { CELLS = PATCH_TILE, PIECE = 48 };

typedef struct forward_state {
  fn_cpu_state base;
  fn_patches p;
  int64_t groups; /**< of 16 channels of y */
  int threads;
  size_t weights_at; /**< float [groups][runs][length][16] */
  size_t copy_at;    /**< float [threads][PIECE][runs][length] */
  int64_t offset[];  /**< [runs]: fn_patch_run() */
} forward_state;

bool fn_cpu_patch_forward_fits(const fn_node *node) {
  if (node->op != &fn_op_conv || node->input_count > 3) return false;
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  // With AVX-512 oneDNN's kernels are the better ones.
  // One to three channels are plain in memory and their runs too short for this.
  return fn_cpu_block() == 8 && v.x->shape.dim[1] >= 4 && v.x->dtype == FN_F32 &&
         v.y->dtype == FN_F32 &&
         fn_cpu_patches_fit(&v, &((const fn_conv_attrs *)node->attrs)->geometry);
}

static void pack(const forward_state *s, const float *w, float *packed) {
  const fn_patches *p = &s->p;
  const int64_t one = p->x_channels * p->kernel[0] * p->kernel[1] * p->kernel[2];
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t g = 0; g < s->groups; g++) {
    for (int64_t r = 0; r < p->runs; r++) {
      float *to = packed + (g * p->runs + r) * p->length * FN_LANES;
      for (int64_t i = 0; i < p->length; i++) {
        const int64_t from = fn_patch_weight(p, r, i);
        for (int64_t l = 0; l < FN_LANES; l++) {
          const int64_t k = g * FN_LANES + l;
          to[i * FN_LANES + l] = from < 0 || k >= p->y_channels ? 0 : w[k * one + from];
        }
      }
    }
  }
}

/** What one piece of cells, of neighbouring samples counted through, shares. */
typedef struct piece_job {
  const float *x;   /**< patches, one after the other, in whole tiles */
  int64_t count;    /**< cells */
  float *y[PIECE];  /**< cells, channel block 0 */
  int64_t y_stride; /**< between channel blocks of y */
  int64_t y_block, y_blocks;
  float slope;
} piece_job;

static void group_of_piece(const forward_state *s, const piece_job *job, const float *packed,
                           int64_t group, const float *start) {
  const fn_patches *p = &s->p;
  const float *w = packed + group * p->runs * p->length * FN_LANES;
  int64_t at[2];
  for (int64_t h = 0; h < 2; h++) {
    const int64_t c = group * FN_LANES + h * 8, k = c / job->y_block;
    at[h] = k < job->y_blocks ? k * job->y_stride + c % job->y_block : -1;
  }
  for (int64_t from = 0; from < job->count; from += CELLS) {
    fn_lane8 acc[CELLS][2];
    fn_patch_multiply_tile(job->x + from * p->runs * p->length, p->runs * p->length, w, start, acc);
    const int64_t count = fn_min_of(CELLS, job->count - from);
    for (int64_t i = 0; i < count; i++) {
      if (job->slope != 1) {
        fn_lane8_leaky(&acc[i][0], job->slope);
        fn_lane8_leaky(&acc[i][1], job->slope);
      }
      float *y = job->y[from + i];
      *(fn_lane8 *)(y + at[0]) = acc[i][0];
      if (at[1] >= 0) *(fn_lane8 *)(y + at[1]) = acc[i][1];
    }
  }
}

/** Patches from where they lie to one after the other. */
static void copy_patches(const forward_state *s, const float *sample, const int64_t *corner,
                         int64_t count, float *copy) {
  const int64_t length = s->p.length;
  for (int64_t i = 0; i < count; i++)
    for (int64_t r = 0; r < s->p.runs; r++, copy += length) {
      const float *from = sample + corner[i] + s->offset[r];
      for (int64_t l = 0; l < length; l += 8)
        *(fn_lane8 *)(copy + l) = *(const fn_lane8 *)(from + l);
    }
}

static void multiply_piece(const forward_state *s, const fn_tensor *x, const fn_tensor *y,
                           const float *bias, float slope, const float *packed, int64_t item,
                           float *copy) {
  const fn_patches *p = &s->p;
  const int64_t first = item * PIECE;
  piece_job job = {.x = copy,
                   .count = fn_min_of(PIECE, x->shape.dim[0] * p->cells - first),
                   .y_stride = p->cells * y->block,
                   .y_block = y->block,
                   .y_blocks = fn_ceil_div(p->y_channels, y->block),
                   .slope = slope};
  for (int64_t i = 0; i < job.count;) {
    const int64_t n = (first + i) / p->cells, cell = (first + i) % p->cells;
    const int64_t here = fn_min_of(p->cells - cell, job.count - i);
    int64_t corner[PIECE];
    fn_patch_corners(p, cell, here, corner);
    copy_patches(s, (const float *)x->data + n * x->batch_stride, corner, here,
                 copy + i * p->runs * p->length);
    for (int64_t j = 0; j < here; j++, i++)
      job.y[i] = (float *)y->data + n * y->batch_stride + (cell + j) * y->block;
  }
  for (int64_t g = 0; g < s->groups; g++) {
    float start[FN_LANES] = {0};
    if (bias) fn_pattern(bias, p->y_channels, g, FN_LANES, start);
    group_of_piece(s, &job, packed, g, start);
  }
}

static fn_status multiply(const fn_kernel *kernel, void *workspace) {
  const forward_state *s = kernel->state;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const float *bias = kernel->node->input_count > 2 ? kernel->input[2].data : NULL;
  const float slope = (float)((const fn_conv_attrs *)kernel->node->attrs)->slope;
  const float *packed = (const float *)((const char *)workspace + s->weights_at);
  const int64_t items = fn_ceil_div(x->shape.dim[0] * s->p.cells, PIECE);
  float *copies = (float *)((char *)workspace + s->copy_at);
  const int64_t patch = PIECE * s->p.runs * s->p.length;
#pragma omp parallel num_threads(s->threads)
  {
    float *copy = copies + omp_get_thread_num() * patch;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < items; i++)
      multiply_piece(s, x, y, bias, slope, packed, i, copy);
  }
  return FN_OK;
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  forward_state *s = kernel->state;
  s->base.workspace = context->workspace;
  pack(s, kernel->input[1].data, (float *)((char *)context->workspace + s->weights_at));
  return multiply(kernel, context->workspace);
}

fn_status fn_cpu_patch_forward_prepare(fn_kernel *kernel) {
  const fn_patches p =
      fn_cpu_patches_of(&kernel->input[0], &kernel->output[0], &kernel->input[1].shape);
  forward_state *s = NULL;
  FN_TRY(
      fn_cpu_state_create(kernel, sizeof *s + (size_t)p.runs * sizeof s->offset[0], (void **)&s));
  s->p = p;
  for (int64_t r = 0; r < p.runs; r++)
    s->offset[r] = fn_patch_run(&p, r);
  s->groups = fn_ceil_div(p.y_channels, FN_LANES);
  s->weights_at =
      fn_cpu_carve(kernel, (size_t)(s->groups * p.runs * p.length * FN_LANES) * sizeof(float));
  s->threads = fn_threads_get();
  s->copy_at =
      fn_cpu_carve(kernel, (size_t)(s->threads * PIECE * p.runs * p.length) * sizeof(float));
  s->base.time_library = fn_cpu_conv_time_library;
  kernel->run = run;
  return FN_OK;
}
