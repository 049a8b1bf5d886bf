/* Weight gradient of a convolution over patches:
 *   dw[k, r, i] = sum over samples and cells o of dy[k, o] x[patch o, r, i], dbias[k] = sum of dy.
 * The batch is cut in a number of slots that depends on the shapes alone, whose sums are added in
 * order: the result does not depend on the number of threads. Within a slot, stretches of cells are
 * copied together, dy once and the patches panel by panel of 32 elements, their runs one after the
 * other; a register tile is a panel times ROWS channels of dy, summed over a stretch. */
#include "backend/cpu/patch.h"
#include "base/system.h"

enum { ROWS = 3, PANEL = 32, STRETCH = 128, SLOT_LEAST = 2048, SLOTS_MOST = 16, GROUP = 8 };
enum { LENGTH_MOST = 512 };

typedef struct weight_state {
  fn_cpu_state base;
  fn_patches p;
  int64_t panels; /**< of a patch */
  int64_t halves; /**< groups of 8 channels of y */
  int64_t rows;   /**< channels of y in whole tiles */
  int64_t slots;  /**< parts of the batch */
  int64_t
      parts; /**< of the panels, to have enough for all threads; any number gives the same sums */
  size_t sums_at; /**< float [slots][panels][rows][PANEL] */
  size_t copy_at; /**< float [slots * parts][STRETCH][PANEL + 8 halves] */
  size_t bias_at; /**< float [slots][halves][8] */
  int64_t to[];   /**< [panels][PANEL]: fn_patch_weight(), -1 past the last run */
} weight_state;

bool fn_cpu_patch_weight_fits(const fn_node *node) {
  if (node->op != &fn_op_conv_weight) return false;
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  if (fn_cpu_block() != 8 || v.x->dtype != FN_F32 || v.y->dtype != FN_F32) return false;
  return v.w->shape.dim[v.w->shape.ndim - 1] * 8 <= LENGTH_MOST &&
         fn_cpu_patches_fit(&v, &((const fn_conv_attrs *)node->attrs)->geometry);
}

/** sum[r][l] += dy[r][8 cell] x[cell][l] over the cells of a stretch. The next tile's sums are
 * asked for meanwhile. */
static __attribute__((noinline, aligned(64))) void
add_tile(const float *x, const float *const dy[ROWS], int64_t cells, float *sum) {
  fn_lane8 acc[ROWS][PANEL / 8];
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int l = 0; l < PANEL / 8; l++)
      acc[r][l] = *(const fn_lane8 *)(sum + r * PANEL + 8 * l);
#pragma GCC unroll 8
  for (int i = 0; i < ROWS * PANEL; i += 16)
    __builtin_prefetch(sum + ROWS * PANEL + i, 1);
  const float *dy0 = dy[0], *dy1 = dy[1], *dy2 = dy[2];
  for (int64_t i = 0; i < cells; i++, x += PANEL, dy0 += 8, dy1 += 8, dy2 += 8) {
#pragma GCC unroll 4
    for (int l = 0; l < PANEL / 8; l++) {
      fn_lane8 value = *(const fn_lane8 *)(x + 8 * l);
      FN_KEEP(value);
      acc[0][l] += value * *dy0;
      acc[1][l] += value * *dy1;
      acc[2][l] += value * *dy2;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
    for (int l = 0; l < PANEL / 8; l++)
      *(fn_lane8 *)(sum + r * PANEL + 8 * l) = acc[r][l];
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

/** Floats from each of `count` patches to a panel, the rest of whose row is another's. */
static void copy_piece(const float *data, const int64_t *corner, int64_t count, int64_t length,
                       float *copy) {
  for (int64_t i = 0; i < count; i++, copy += PANEL) {
    const float *from = data + corner[i];
    int64_t l = 0;
    for (; l + 8 <= length; l += 8)
      *(fn_lane8 *)(copy + l) = *(const fn_lane8 *)(from + l);
    for (; l < length; l++)
      copy[l] = from[l];
  }
}

/** One panel of the patches of a stretch, [count][PANEL]; zeros past the last run. */
static void copy_panel(const weight_state *s, const fn_tensor *x, int64_t panel,
                       const int64_t *corner, int64_t count, float *copy) {
  const int64_t length = s->p.length;
  for (int64_t l = 0; l < PANEL;) {
    const int64_t run = (panel * PANEL + l) / length, first = (panel * PANEL + l) % length;
    if (run >= s->p.runs) {
      for (int64_t i = 0; i < count; i++)
        memset(copy + i * PANEL + l, 0, (size_t)(PANEL - l) * sizeof *copy);
      return;
    }
    const int64_t here = fn_min_of(length - first, PANEL - l);
    copy_piece((const float *)x->data + fn_patch_run(&s->p, run) + first, corner, count, here,
               copy + l);
    l += here;
  }
}

/** dy of 8 channels from cell `first` of sample n on. */
static const float *half_of(const fn_patches *p, const fn_tensor *y, int64_t n, int64_t first,
                            int64_t half) {
  const int64_t c = half * 8;
  return (const float *)y->data + n * y->batch_stride +
         (c / y->block * p->cells + first) * y->block + c % y->block;
}

/** dy of a stretch as [halves][STRETCH][8], and its sums over the cells to bias [halves][8] unless
 *  that is NULL. */
static void copy_dy(const weight_state *s, const fn_tensor *y, stretch part, float *copy,
                    float *bias) {
  for (int64_t half = 0; half < s->halves; half++) {
    float *to = copy + half * STRETCH * 8;
    fn_lane8 sum[2] = {{0}, {0}};
    for (int64_t i = 0; i < part.count;) {
      const int64_t n = (part.first + i) / s->p.cells, cell = (part.first + i) % s->p.cells;
      const float *from = half_of(&s->p, y, n, cell, half);
      const int64_t here = fn_min_of(s->p.cells - cell, part.count - i);
      int64_t j = 0;
      for (; j + 2 <= here; j += 2) {
        const fn_lane8 a = *(const fn_lane8 *)(from + j * y->block);
        const fn_lane8 b = *(const fn_lane8 *)(from + (j + 1) * y->block);
        sum[0] += a, sum[1] += b;
        *(fn_lane8 *)(to + (i + j) * 8) = a;
        *(fn_lane8 *)(to + (i + j) * 8 + 8) = b;
      }
      for (; j < here; j++) {
        sum[0] += *(const fn_lane8 *)(from + j * y->block);
        *(fn_lane8 *)(to + (i + j) * 8) = *(const fn_lane8 *)(from + j * y->block);
      }
      i += here;
    }
    if (bias) *(fn_lane8 *)(bias + half * 8) += sum[0] + sum[1];
  }
}

/** Ask for the patches [first, last) of a stretch, at `data` from their corners. */
static void fetch(const float *data, const int64_t *corner, int64_t first, int64_t last) {
  for (int64_t i = first; i < last; i++) {
    __builtin_prefetch(data + corner[i], 0, 2);
    __builtin_prefetch(data + corner[i] + 16, 0, 2);
  }
}

/** One panel of a stretch against all channels of dy; `next`: where the next panel of the same
 *  patches begins. */
static void add_panel(const weight_state *s, const float *copy, const float *dy, int64_t count,
                      const float *next, const int64_t *corner, float *sum) {
  const int64_t tiles = s->rows / ROWS, fetched = fn_ceil_div(count, tiles);
  for (int64_t t = 0; t < tiles; t++, sum += ROWS * PANEL) {
    const float *row[ROWS];
    for (int64_t r = 0; r < ROWS; r++) { // past the last channel it again: sums that nobody reads
      const int64_t k = fn_min_of(t * ROWS + r, s->p.y_channels - 1);
      row[r] = dy + k / 8 * STRETCH * 8 + k % 8;
    }
    fetch(next, corner, t * fetched, fn_min_of((t + 1) * fetched, count));
    add_tile(copy, row, count, sum);
  }
}

/** Panels [first, last) over the samples of one slot. sums, bias: of the slot; bias may be NULL. */
static void sum_panels(const weight_state *s, const fn_tensor *x, const fn_tensor *y, int64_t slot,
                       int64_t first, int64_t last, float *copy, float *sums, float *bias) {
  const int64_t batch = x->shape.dim[0], one = s->rows * PANEL;
  const int64_t end = batch * (slot + 1) / s->slots * s->p.cells;
  float *dy = copy + STRETCH * PANEL;
  memset(sums + first * one, 0, (size_t)((last - first) * one) * sizeof *sums);
  if (bias) memset(bias, 0, (size_t)s->halves * 8 * sizeof *bias);
  stretch part = {.first = batch * slot / s->slots * s->p.cells};
  for (; part.first < end; part.first += part.count) {
    part.count = fn_min_of(STRETCH, end - part.first);
    int64_t corner[STRETCH];
    find_corners(s, x, part, corner);
    copy_dy(s, y, part, dy, bias);
    for (int64_t q = first; q < last; q++) {
      copy_panel(s, x, q, corner, part.count, copy);
      const int64_t next = (q + 1 < last ? q + 1 : first) * PANEL;
      add_panel(s, copy, dy, part.count,
                (const float *)x->data + fn_patch_run(&s->p, next / s->p.length) +
                    next % s->p.length,
                corner, sums + q * one);
    }
  }
}

static int64_t copy_size(const weight_state *s) {
  return STRETCH * (PANEL + s->halves * 8);
}

static fn_status accumulate(const fn_kernel *kernel, void *workspace) {
  const weight_state *s = kernel->state;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->input[1];
  float *sums = (float *)((char *)workspace + s->sums_at);
  float *copies = (float *)((char *)workspace + s->copy_at);
  float *bias = (float *)((char *)workspace + s->bias_at);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < s->slots * s->parts; i++) {
    const int64_t slot = i / s->parts, part = i % s->parts;
    const bool sum_bias = part == 0 && kernel->output[1].data;
    sum_panels(s, x, y, slot, s->panels * part / s->parts, s->panels * (part + 1) / s->parts,
               copies + i * copy_size(s), sums + slot * s->panels * s->rows * PANEL,
               sum_bias ? bias + slot * s->halves * 8 : NULL);
  }
  return FN_OK;
}

/** Add the slots up, some channels at a time, whose sums lie together; dw is plain, [K][C][kernel
 *  cells]. */
static void finish_weights(const weight_state *s, const float *sums, float *dw) {
  const fn_patches *p = &s->p;
  const int64_t one = p->x_channels * p->kernel[0] * p->kernel[1] * p->kernel[2];
  const int64_t slot_size = s->panels * s->rows * PANEL;
#pragma omp parallel for schedule(static)
  for (int64_t first = 0; first < p->y_channels; first += GROUP) {
    const int64_t last = fn_min_of(first + GROUP, p->y_channels);
    for (int64_t q = 0; q < s->panels; q++) {
      const int64_t *to = s->to + q * PANEL;
      for (int64_t k = first; k < last; k++) {
        const float *from = sums + (q * s->rows + k) * PANEL;
        double sum[PANEL] = {0};
        for (int64_t slot = 0; slot < s->slots; slot++, from += slot_size)
          for (int64_t l = 0; l < PANEL; l++)
            sum[l] += (double)from[l];
        for (int64_t l = 0; l < PANEL; l++)
          if (to[l] >= 0) dw[k * one + to[l]] = (float)sum[l];
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
      sum += (double)bias[slot * s->halves * 8 + k];
    dbias[k] = (float)sum;
  }
  return FN_OK;
}

fn_status fn_cpu_patch_weight_prepare(fn_kernel *kernel) {
  const fn_patches p =
      fn_cpu_patches_of(&kernel->input[0], &kernel->input[1], &kernel->output[0].shape);
  const int64_t panels = fn_ceil_div(p.runs * p.length, PANEL);
  weight_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s + (size_t)(panels * PANEL) * sizeof s->to[0],
                             (void **)&s));
  s->p = p;
  s->panels = panels;
  for (int64_t e = 0; e < panels * PANEL; e++)
    s->to[e] = e < p.runs * p.length ? fn_patch_weight(&p, e / p.length, e % p.length) : -1;
  s->halves = fn_ceil_div(p.y_channels, 8);
  s->rows = fn_ceil_div(p.y_channels, ROWS) * ROWS;
  // Every slot has its own sums, which are as large as the weights.
  const int64_t batch = kernel->input[0].shape.dim[0];
  s->slots = fn_min_of(fn_min_of(batch, SLOTS_MOST), fn_ceil_div(batch * p.cells, SLOT_LEAST));
  s->parts = fn_min_of(panels, fn_ceil_div(4 * fn_threads_get(), s->slots));
  s->sums_at = fn_cpu_carve(kernel, (size_t)(s->slots * panels * s->rows * PANEL) * sizeof(float));
  s->copy_at = fn_cpu_carve(kernel, (size_t)(s->slots * s->parts * copy_size(s)) * sizeof(float));
  s->bias_at = fn_cpu_carve(kernel, (size_t)(s->slots * s->halves * 8) * sizeof(float));
  s->base.time_library = fn_cpu_conv_time_library;
  kernel->run = run;
  return FN_OK;
}
