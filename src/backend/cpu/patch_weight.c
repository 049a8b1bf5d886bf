/* Weight gradient of a convolution over patches:
 *   dw[k, r, i] = sum over samples and cells o of dy[k, o] x[patch o, r, i], dbias[k] = sum of dy.
 * The batch is cut in a number of slots that depends on the shapes alone, whose sums are added in
 * order: the result does not depend on the number of threads. Within a slot, stretches of cells are
 * copied together, dy once and the patches run by run; a register tile is ROWS elements of a run
 * times 16 channels of dy, summed over a stretch. */
#include "backend/cpu/patch.h"
#include "base/system.h"

enum { ROWS = 4, STRETCH = 64, SLOT_LEAST = 1024, SLOTS_MOST = 16, LENGTH_MOST = 512 };

typedef struct weight_state {
  fn_cpu_state base;
  fn_patches p;
  int64_t groups; /**< of 16 channels of y */
  int64_t rows;   /**< length in whole tiles */
  int64_t slots;  /**< parts of the batch */
  int64_t parts; /**< of the runs, to have enough for all threads; any number gives the same sums */
  size_t sums_at; /**< float [slots][runs][groups][rows][16] */
  size_t copy_at; /**< float [slots * parts][STRETCH][rows + 16 groups] */
  size_t bias_at; /**< float [slots][groups][16] */
} weight_state;

bool fn_cpu_patch_weight_fits(const fn_node *node) {
  if (node->op != &fn_op_conv_weight) return false;
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  if (fn_cpu_block() != 8 || v.x->dtype != FN_F32 || v.y->dtype != FN_F32) return false;
  return v.w->shape.dim[v.w->shape.ndim - 1] * 8 <= LENGTH_MOST &&
         fn_cpu_patches_fit(&v, &((const fn_conv_attrs *)node->attrs)->geometry);
}

/** sum[row][h] += x[cell][row] dy[cell][h] over the cells of a stretch. */
static __attribute__((noinline)) void add_tile(const float *x, int64_t stride, const float *dy,
                                               int64_t cells, float *sum) {
  fn_lane8 acc[ROWS][2];
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; r++) {
    acc[r][0] = *(const fn_lane8 *)(sum + r * FN_LANES);
    acc[r][1] = *(const fn_lane8 *)(sum + r * FN_LANES + 8);
  }
  for (int64_t i = 0; i < cells; i++, x += stride, dy += FN_LANES) {
    fn_lane8 a = *(const fn_lane8 *)dy, b = *(const fn_lane8 *)(dy + 8);
    FN_KEEP(a);
    FN_KEEP(b);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      acc[r][0] += a * x[r];
      acc[r][1] += b * x[r];
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; r++) {
    *(fn_lane8 *)(sum + r * FN_LANES) = acc[r][0];
    *(fn_lane8 *)(sum + r * FN_LANES + 8) = acc[r][1];
  }
}

/** Cells of neighbouring samples, counted through. */
typedef struct stretch {
  int64_t first, count;
} stretch;

/** First elements of a stretch's patches. */
static void find_corners(const weight_state *s, const fn_tensor *x, stretch part, int64_t *corner) {
  for (int64_t i = 0; i < part.count;) {
    const int64_t n = (part.first + i) / s->p.cells, cell = (part.first + i) % s->p.cells;
    const int64_t here = fn_min_of(s->p.cells - cell, part.count - i);
    fn_patch_corners(&s->p, cell, here, corner + i);
    for (const int64_t end = i + here; i < end; i++)
      corner[i] += n * x->batch_stride;
  }
}

/** Run `run` of the patches of a stretch, one after the other, in whole tiles. */
static void copy_run(const weight_state *s, const fn_tensor *x, int64_t run, const int64_t *corner,
                     int64_t count, float *copy) {
  const int64_t length = s->p.length, rows = s->rows;
  const float *data = (const float *)x->data + fn_patch_run(&s->p, run);
  for (int64_t i = 0; i < count; i++) {
    const float *from = data + corner[i];
    float *to = copy + i * rows;
    int64_t l = 0;
    for (; l + 8 <= length; l += 8)
      *(fn_lane8 *)(to + l) = *(const fn_lane8 *)(from + l);
    for (; l < length; l++)
      to[l] = from[l];
    for (; l < rows; l++)
      to[l] = 0;
  }
}

/** dy of 8 channels from cell `first` of sample n on; past the last block the last one again, whose
 *  sums nobody reads. */
static const float *half_of(const fn_patches *p, const fn_tensor *y, int64_t n, int64_t first,
                            int64_t half) {
  const int64_t last = fn_ceil_div(p->y_channels, y->block) * y->block / 8 - 1;
  const int64_t c = fn_min_of(half, last) * 8;
  return (const float *)y->data + n * y->batch_stride +
         (c / y->block * p->cells + first) * y->block + c % y->block;
}

/** dy of a stretch as [groups][STRETCH][16]. */
static void copy_dy(const weight_state *s, const fn_tensor *y, stretch part, float *copy) {
  for (int64_t half = 0; half < 2 * s->groups; half++) {
    float *to = copy + half / 2 * STRETCH * FN_LANES + half % 2 * 8;
    for (int64_t i = 0; i < part.count;) {
      const int64_t n = (part.first + i) / s->p.cells, cell = (part.first + i) % s->p.cells;
      const float *from = half_of(&s->p, y, n, cell, half);
      const int64_t here = fn_min_of(s->p.cells - cell, part.count - i);
      for (int64_t j = 0; j < here; j++, i++)
        *(fn_lane8 *)(to + i * FN_LANES) = *(const fn_lane8 *)(from + j * y->block);
    }
  }
}

/** Runs [first, last) over the samples of one slot. */
static void sum_runs(const weight_state *s, const fn_tensor *x, const fn_tensor *y, int64_t slot,
                     int64_t first, int64_t last, float *copy, float *sums) {
  const int64_t batch = x->shape.dim[0], tiles = s->groups * s->rows * FN_LANES;
  const int64_t end = batch * (slot + 1) / s->slots * s->p.cells;
  float *dy = copy + STRETCH * s->rows;
  memset(sums + first * tiles, 0, (size_t)((last - first) * tiles) * sizeof *sums);
  stretch part = {.first = batch * slot / s->slots * s->p.cells};
  for (; part.first < end; part.first += part.count) {
    part.count = fn_min_of(STRETCH, end - part.first);
    int64_t corner[STRETCH];
    find_corners(s, x, part, corner);
    copy_dy(s, y, part, dy);
    for (int64_t r = first; r < last; r++) {
      copy_run(s, x, r, corner, part.count, copy);
      for (int64_t g = 0; g < s->groups; g++)
        for (int64_t l = 0; l < s->rows; l += ROWS)
          add_tile(copy + l, s->rows, dy + g * STRETCH * FN_LANES, part.count,
                   sums + r * tiles + (g * s->rows + l) * FN_LANES);
    }
  }
}

static void sum_bias(const weight_state *s, const fn_tensor *y, int64_t slot, float *sums) {
  const int64_t batch = y->shape.dim[0];
  for (int64_t half = 0; half < 2 * s->groups; half++) {
    fn_lane8 sum = {0};
    for (int64_t n = batch * slot / s->slots; n < batch * (slot + 1) / s->slots; n++) {
      const float *dy = half_of(&s->p, y, n, 0, half);
      for (int64_t i = 0; i < s->p.cells; i++)
        sum += *(const fn_lane8 *)(dy + i * y->block);
    }
    memcpy(sums + half * 8, &sum, sizeof sum);
  }
}

static fn_status accumulate(const fn_kernel *kernel, void *workspace) {
  const weight_state *s = kernel->state;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->input[1];
  const int64_t runs = s->p.runs, tiles = s->groups * s->rows * FN_LANES;
  const int64_t copy = STRETCH * (s->rows + s->groups * FN_LANES);
  float *sums = (float *)((char *)workspace + s->sums_at);
  float *copies = (float *)((char *)workspace + s->copy_at);
  float *bias = (float *)((char *)workspace + s->bias_at);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < s->slots * s->parts; i++) {
    const int64_t slot = i / s->parts, part = i % s->parts;
    sum_runs(s, x, y, slot, runs * part / s->parts, runs * (part + 1) / s->parts, copies + i * copy,
             sums + slot * runs * tiles);
  }
  if (!kernel->output[1].data) return FN_OK;
#pragma omp parallel for schedule(static)
  for (int64_t slot = 0; slot < s->slots; slot++)
    sum_bias(s, y, slot, bias + slot * s->groups * FN_LANES);
  return FN_OK;
}

/** Add the slots up; dw is plain, [K][C][kernel cells]. */
static void finish_weights(const weight_state *s, const float *sums, float *dw) {
  const fn_patches *p = &s->p;
  const int64_t one = p->x_channels * p->kernel[0] * p->kernel[1] * p->kernel[2];
  const int64_t tiles = s->groups * s->rows * FN_LANES;
#pragma omp parallel for schedule(static)
  for (int64_t k = 0; k < p->y_channels; k++) {
    for (int64_t r = 0; r < p->runs; r++) {
      for (int64_t i = 0; i < p->length; i++) {
        const int64_t to = fn_patch_weight(p, r, i);
        if (to < 0) continue;
        const float *from =
            sums + r * tiles + (k / FN_LANES * s->rows + i) * FN_LANES + k % FN_LANES;
        double sum = 0;
        for (int64_t slot = 0; slot < s->slots; slot++)
          sum += (double)from[slot * p->runs * tiles];
        dw[k * one + to] = (float)sum;
      }
    }
  }
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  weight_state *s = kernel->state;
  s->base.workspace = context->workspace;
  FN_TRY(accumulate(kernel, context->workspace));
  float *dw = kernel->output[0].data, *dbias = kernel->output[1].data;
  if (dw) finish_weights(s, (const float *)((char *)context->workspace + s->sums_at), dw);
  const float *bias = (const float *)((char *)context->workspace + s->bias_at);
  for (int64_t k = 0; dbias && k < s->p.y_channels; k++) {
    double sum = 0;
    for (int64_t slot = 0; slot < s->slots; slot++)
      sum += (double)bias[slot * s->groups * FN_LANES + k];
    dbias[k] = (float)sum;
  }
  return FN_OK;
}

fn_status fn_cpu_patch_weight_prepare(fn_kernel *kernel) {
  weight_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  s->p = fn_cpu_patches_of(&kernel->input[0], &kernel->input[1], &kernel->output[0].shape);
  s->groups = fn_ceil_div(s->p.y_channels, FN_LANES);
  s->rows = fn_ceil_div(s->p.length, ROWS) * ROWS;
  // Every slot has its own sums, which are as large as the weights.
  const int64_t batch = kernel->input[0].shape.dim[0];
  s->slots = fn_min_of(fn_min_of(batch, SLOTS_MOST), fn_ceil_div(batch * s->p.cells, SLOT_LEAST));
  s->parts = fn_min_of(s->p.runs, fn_ceil_div(4 * fn_threads_get(), s->slots));
  const int64_t tiles = s->groups * s->rows * FN_LANES;
  const int64_t copy = STRETCH * (s->rows + s->groups * FN_LANES);
  s->sums_at = fn_cpu_carve(kernel, (size_t)(s->slots * s->p.runs * tiles) * sizeof(float));
  s->copy_at = fn_cpu_carve(kernel, (size_t)(s->slots * s->parts * copy) * sizeof(float));
  s->bias_at = fn_cpu_carve(kernel, (size_t)(s->slots * s->groups * FN_LANES) * sizeof(float));
  s->base.primitive = accumulate;
  kernel->run = run;
  return FN_OK;
}
