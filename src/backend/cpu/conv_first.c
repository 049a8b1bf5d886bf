/* Weight gradient of a convolution that reads few channels, e.g. the first one of a network:
 *   dw[k, c, t] = sum over samples and cells o of dy[k, o] x[c, stride o + dilation t - pad].
 * Where oneDNN would have x padded to whole channel blocks (AVX2: eight times the memory of an
 * image of one channel), this reads x as it is and dy in its blocks. Rows of dy are cut in a fixed
 * number of pieces whose sums are added in order: the result does not depend on the number of
 * threads. */
#include "backend/cpu/conv.h"
#include "backend/cpu/patch.h"

enum { PIECES = 128, TILE = 4, HALF = 8, KERNEL_MOST = 64 };

typedef struct first_state {
  fn_cpu_state base;
  int64_t pieces;
  int64_t x_dim[FN_MAX_SPATIAL], y_dim[FN_MAX_SPATIAL], kernel[FN_MAX_SPATIAL];
  int64_t stride[FN_MAX_SPATIAL], pad[FN_MAX_SPATIAL], dilation[FN_MAX_SPATIAL]; /**< in front: 1 */
  int64_t taps;   /**< kernel cells times channels of x */
  int64_t halves; /**< groups of 8 channels of y */
  size_t sums_at; /**< float [pieces][halves][taps + 1][8]; the last tap is the bias */
} first_state;

/** Channels of x of which reading it as it is pays: of half an AVX2 block oneDNN's kernel makes no
 *  good use either, that over patches does. */
static bool few_channels(const fn_node *node, int64_t channels) {
  const int64_t half = fn_cpu_block() / 2;
  return channels < half || (channels <= 4 && !fn_cpu_patch_weight_fits(node));
}

bool fn_cpu_conv_first_fits(const fn_node *node) {
  if (node->op != &fn_op_conv_weight) return false;
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  const fn_conv_geometry *g = &((const fn_conv_attrs *)node->attrs)->geometry;
  return g->groups == 1 && v.w->shape.dim[v.w->shape.ndim - 1] <= KERNEL_MOST &&
         few_channels(node, v.x->shape.dim[1]) && v.x->dtype == FN_F32 && v.y->dtype == FN_F32;
}

/** Sums of `taps` neighbouring taps over one row of cells, two groups of channels of dy at once. */
static inline void row_tile(int taps, const float *x, int64_t stride, int64_t dilation,
                            const float *dy0, const float *dy1, int64_t block, int64_t cells,
                            fn_lane8 (*sum)[2]) {
  fn_lane8 acc[TILE][2];
#pragma GCC unroll 4
  for (int t = 0; t < taps; t++)
    acc[t][0] = sum[t][0], acc[t][1] = sum[t][1];
  for (int64_t i = 0; i < cells; i++) {
    fn_lane8 a = *(const fn_lane8 *)(dy0 + i * block), b = *(const fn_lane8 *)(dy1 + i * block);
    FN_KEEP(a);
    FN_KEEP(b);
#pragma GCC unroll 4
    for (int t = 0; t < taps; t++) {
      const float value = x[i * stride + t * dilation];
      acc[t][0] += a * value;
      acc[t][1] += b * value;
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < taps; t++)
    sum[t][0] = acc[t][0], sum[t][1] = acc[t][1];
}

/** One row of dy against one row of x. */
typedef struct row_job {
  const float *x;            /**< first cell of the row */
  const float *dy0, *dy1;    /**< first cells of the row, two groups of 8 channels */
  int64_t block;             /**< between cells of dy */
  int64_t x_cells, dy_cells; /**< lengths of the rows */
  int64_t stride, pad, dilation, kernel;
} row_job;

/** Cells of dy [*from, *to) for which tap t lies inside the row of x. */
static void inside(const row_job *job, int64_t t, int64_t *from, int64_t *to) {
  const int64_t first = job->pad - t * job->dilation; // x index of cell i: stride i - first
  *from = first > 0 ? fn_ceil_div(first, job->stride) : 0;
  const int64_t last = job->x_cells - 1 + first;
  *to = last < 0 ? 0 : fn_min_of(job->dy_cells, last / job->stride + 1);
}

static void cells_of_taps(const row_job *job, int taps, int64_t t, int64_t from, int64_t to,
                          fn_lane8 (*sum)[2]) {
  if (from >= to) return;
  const float *x = job->x + from * job->stride - job->pad + t * job->dilation;
  const float *dy0 = job->dy0 + from * job->block, *dy1 = job->dy1 + from * job->block;
  const int64_t cells = to - from;
  switch (taps) { // constants, for the compiler to keep the sums in registers
    case 1: row_tile(1, x, job->stride, job->dilation, dy0, dy1, job->block, cells, sum); break;
    case 2: row_tile(2, x, job->stride, job->dilation, dy0, dy1, job->block, cells, sum); break;
    case 3: row_tile(3, x, job->stride, job->dilation, dy0, dy1, job->block, cells, sum); break;
    default: row_tile(4, x, job->stride, job->dilation, dy0, dy1, job->block, cells, sum); break;
  }
}

/** All taps of a kernel row; the cells where they are not all inside come one tap at a time.
 *  sum0, sum1 [kernel][8]: sums of the two groups. */
static void row_taps(const row_job *job, float *sum0, float *sum1) {
  for (int64_t t = 0; t < job->kernel; t += TILE) {
    const int taps = (int)fn_min_of(TILE, job->kernel - t);
    fn_lane8 sum[TILE][2];
    int64_t from[TILE], to[TILE], low = 0, high = job->dy_cells;
    for (int i = 0; i < taps; i++) {
      memcpy(&sum[i][0], sum0 + (t + i) * HALF, sizeof sum[i][0]);
      memcpy(&sum[i][1], sum1 + (t + i) * HALF, sizeof sum[i][1]);
      inside(job, t + i, &from[i], &to[i]);
      if (from[i] > low) low = from[i];
      if (to[i] < high) high = to[i];
    }
    cells_of_taps(job, taps, t, low, high, sum);
    for (int i = 0; i < taps; i++) {
      cells_of_taps(job, 1, t + i, from[i], fn_min_of(low, to[i]), &sum[i]);
      const int64_t rest = high > low ? high : low;
      cells_of_taps(job, 1, t + i, from[i] > rest ? from[i] : rest, to[i], &sum[i]);
      memcpy(sum1 + (t + i) * HALF, &sum[i][1], sizeof sum[i][1]);
      memcpy(sum0 + (t + i) * HALF, &sum[i][0], sizeof sum[i][0]);
    }
  }
}

/** Ask for the next row of dy, the part of it that belongs to taps [t, t + kernel). */
static void fetch_row(const first_state *s, const row_job *job, int64_t t) {
  const int64_t row = job->dy_cells * job->block;
  for (int64_t i = row * t / s->taps; i < row * (t + job->kernel) / s->taps; i += 16) {
    __builtin_prefetch(job->dy0 + row + i);
    __builtin_prefetch(job->dy1 + row + i);
  }
}

/** Row `row` of all rows of dy: every kernel row of every channel of x, all channels of dy. */
static void add_row(const first_state *s, const fn_tensor *x, const fn_tensor *y, int64_t row,
                    float *sums) {
  const int64_t h = row % s->y_dim[1], d = row / s->y_dim[1] % s->y_dim[0];
  const int64_t n = row / s->y_dim[1] / s->y_dim[0];
  const int64_t x_plane = s->x_dim[0] * s->x_dim[1] * s->x_dim[2];
  const int64_t y_plane = fn_space(&y->shape) * y->block;
  const float *dy =
      (const float *)y->data + n * y->batch_stride + (d * s->y_dim[1] + h) * s->y_dim[2] * y->block;
  row_job job = {.block = y->block,
                 .x_cells = s->x_dim[2],
                 .dy_cells = s->y_dim[2],
                 .stride = s->stride[2],
                 .pad = s->pad[2],
                 .dilation = s->dilation[2],
                 .kernel = s->kernel[2]};
  for (int64_t half = 0; half < s->halves; half += 2) {
    const int64_t other = fn_min_of(half + 1, s->halves - 1);
    job.dy0 = dy + half * HALF / y->block * y_plane + half * HALF % y->block;
    job.dy1 = dy + other * HALF / y->block * y_plane + other * HALF % y->block;
    float unused[KERNEL_MOST * HALF] = {0}; // an odd last group comes in both places
    float *sum0 = sums + half * (s->taps + 1) * HALF;
    float *sum1 = other > half ? sums + other * (s->taps + 1) * HALF : NULL;
    for (int64_t t = 0; t < s->taps; t += s->kernel[2]) {
      const int64_t kh = t / s->kernel[2] % s->kernel[1];
      const int64_t kd = t / s->kernel[2] / s->kernel[1] % s->kernel[0];
      const int64_t c = t / s->kernel[2] / s->kernel[1] / s->kernel[0];
      const int64_t xd = d * s->stride[0] - s->pad[0] + kd * s->dilation[0];
      const int64_t xh = h * s->stride[1] - s->pad[1] + kh * s->dilation[1];
      if (xd < 0 || xd >= s->x_dim[0] || xh < 0 || xh >= s->x_dim[1]) continue;
      job.x = (const float *)x->data + n * x->batch_stride + c * x_plane +
              (xd * s->x_dim[1] + xh) * s->x_dim[2];
      fetch_row(s, &job, t);
      row_taps(&job, sum0 + t * HALF, sum1 ? sum1 + t * HALF : unused);
    }
  }
}

/** The bias: row sums of dy. */
static void add_bias(const first_state *s, const fn_tensor *y, int64_t row, float *sums) {
  const int64_t rows = s->y_dim[0] * s->y_dim[1], y_plane = fn_space(&y->shape) * y->block;
  const float *dy =
      (const float *)y->data + row / rows * y->batch_stride + row % rows * s->y_dim[2] * y->block;
  for (int64_t half = 0; half < s->halves; half++) {
    const float *from = dy + half * HALF / y->block * y_plane + half * HALF % y->block;
    float *to = sums + (half * (s->taps + 1) + s->taps) * HALF;
    // Four sums, for one would wait for itself at every cell.
    fn_lane8 sum[4] = {*(const fn_lane8 *)to};
    int64_t i = 0;
    for (; i + 4 <= s->y_dim[2]; i += 4)
      for (int64_t j = 0; j < 4; j++)
        sum[j] += *(const fn_lane8 *)(from + (i + j) * y->block);
    for (; i < s->y_dim[2]; i++)
      sum[0] += *(const fn_lane8 *)(from + i * y->block);
    *(fn_lane8 *)to = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
}

static fn_status accumulate(const fn_kernel *kernel, void *workspace) {
  const first_state *s = kernel->state;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->input[1];
  const int64_t rows = x->shape.dim[0] * s->y_dim[0] * s->y_dim[1];
  const int64_t length = s->halves * (s->taps + 1) * HALF;
  float *all = (float *)((char *)workspace + s->sums_at);
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < s->pieces; p++) {
    float *sums = all + p * length;
    memset(sums, 0, (size_t)length * sizeof *sums);
    for (int64_t row = rows * p / s->pieces; row < rows * (p + 1) / s->pieces; row++) {
      add_row(s, x, y, row, sums);
      if (kernel->output[1].data) add_bias(s, y, row, sums);
    }
  }
  return FN_OK;
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  first_state *s = kernel->state;
  s->base.workspace = context->workspace;
  FN_TRY(accumulate(kernel, context->workspace));
  const float *all = (const float *)((const char *)context->workspace + s->sums_at);
  const int64_t length = s->halves * (s->taps + 1) * HALF;
  const int64_t k_count = kernel->output[0].shape.dim[0];
  float *dw = kernel->output[0].data, *bias = kernel->output[1].data;
  for (int64_t k = 0; k < k_count; k++) {
    for (int64_t t = 0; t <= s->taps; t++) {
      double sum = 0;
      for (int64_t p = 0; p < s->pieces; p++)
        sum += (double)all[p * length + (k / HALF * (s->taps + 1) + t) * HALF + k % HALF];
      if (t < s->taps && dw) dw[k * s->taps + t] = (float)sum;
      if (t == s->taps && bias) bias[k] = (float)sum;
    }
  }
  return FN_OK;
}

fn_status fn_cpu_conv_first_prepare(fn_kernel *kernel) {
  first_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  const fn_conv_geometry *g = &((const fn_conv_attrs *)kernel->node->attrs)->geometry;
  const fn_shape *x = &kernel->input[0].shape, *y = &kernel->input[1].shape;
  const fn_shape *w = &kernel->output[0].shape;
  const int spatial = x->ndim - 2;
  s->taps = x->dim[1];
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    const int axis = d - (FN_MAX_SPATIAL - spatial);
    const bool real = axis >= 0;
    s->x_dim[d] = real ? x->dim[2 + axis] : 1;
    s->y_dim[d] = real ? y->dim[2 + axis] : 1;
    s->kernel[d] = real ? w->dim[2 + axis] : 1;
    s->stride[d] = real ? g->stride[axis] : 1;
    s->pad[d] = real ? g->pad_low[axis] : 0;
    s->dilation[d] = real ? g->dilation[axis] : 1;
    s->taps *= s->kernel[d];
  }
  s->halves = fn_ceil_div(y->dim[1], HALF);
  s->pieces = fn_min_of(PIECES, x->dim[0] * s->y_dim[0] * s->y_dim[1]);
  s->sums_at = fn_cpu_carve(kernel, (size_t)(s->pieces * s->halves * (s->taps + 1) * HALF) * 4);
  s->base.time_library = fn_cpu_conv_time_library;
  kernel->run = run;
  return FN_OK;
}
