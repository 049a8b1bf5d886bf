/* Weight gradients by minimal filtering: elements of x and of the gradient of y are multiplied and
 * summed over all tiles, then transformed to the kernel.
 *
 * Tiles are taken in blocks of a fixed number, and several blocks at a time where many threads
 * would else wait for each other too often: first all threads transform, then each takes some
 * elements and adds the blocks' products to their sums. So every sum is taken in the order of the
 * tiles and their blocks, whatever the number of threads. */
#include "backend/cpu/winograd.h"

enum {
  TILES = 48,            // per block
  ROWS = 4 * WINO_ROWS,  // of the sums, per piece of work
  THREADS_OF_A_BLOCK = 4 // whose work on a block is long beside a barrier
};

typedef struct wino_weight_state {
  fn_cpu_state base;
  winograd w;
  int64_t in_spread, out_spread, sum_spread; /**< floats between elements */
  int64_t blocks;                            /**< at a time */
  size_t in_at, out_at, sum_at, cells_at, bias_at;
} wino_weight_state;

/** Everything run() needs, by address. */
typedef struct job {
  const wino_weight_state *s;
  const fn_tensor *x, *y;
  float *in, *out; /**< of each block all elements */
  float *sum;
  float *cells; /**< [blocks][TILES][out_width]: sums of the cells of a tile */
  float *bias;  /**< [out_width] */
} job;

/** Piece `item` of transforming `count` tiles from `first` on: one tile of a channel group of x, or
 *  of y. Neighbouring tiles follow one another, for they share cells; two groups fill a cache line
 *  of the matrices. */
static void transform(const job *j, int64_t first, int64_t count, int64_t item) {
  const winograd *w = &j->s->w;
  const int64_t tile = item / 2 % count, i = item / 2 / count * 2 + item % 2;
  const int64_t block = tile / TILES, t = tile % TILES;
  wino_place at;
  fn_wino_place(w, 0, first + tile, &at);
  const int64_t in_groups = w->in_width / WINO_LANES;
  if (i < in_groups) {
    float *in = j->in + block * w->elements * j->s->in_spread;
    fn_wino_read(w, j->x, &at, i, in + t * w->in_phases * w->in_width + i * WINO_LANES,
                 j->s->in_spread);
    return;
  }
  float *out = j->out + block * w->elements * j->s->out_spread;
  float *cells = j->cells + block * TILES * w->out_width;
  const int64_t g = i - in_groups, column = t * w->out_width + g * WINO_LANES;
  if (g * WINO_LANES >= w->out_width) return; // the other half of an odd pair
  if (g * WINO_LANES < w->out_channels) {
    fn_wino_read_back(w, j->y, &at, g, out + column, j->s->out_spread, cells + column);
    return;
  }
  for (int e = 0; e < w->elements; e++) // the matrices are wider than y
    *(wino_vec *)(out + column + e * j->s->out_spread) = (wino_vec){0};
  *(wino_vec *)(cells + column) = (wino_vec){0};
}

/** `rows` rows, if there are as many, of the sums of element e, from `count` tiles. */
static void add_products(const job *j, int64_t count, int64_t e, int64_t row, int64_t rows) {
  const winograd *w = &j->s->w;
  const int64_t in_spread = j->s->in_spread, out_spread = j->s->out_spread;
  for (int64_t first = 0; first < count; first += TILES) {
    const int64_t element = first / TILES * w->elements + e;
    fn_wino_product_back(fn_min_of(rows, w->rows - row), w->out_width,
                         fn_min_of(TILES, count - first), j->in + element * in_spread + row,
                         w->in_phases * w->in_width, j->out + element * out_spread, w->out_width,
                         j->sum + e * j->s->sum_spread + row * w->out_width, w->out_width,
                         in_spread, out_spread);
  }
}

static void add_cells(const job *j, int64_t count) {
  const int64_t width = j->s->w.out_width;
  for (int64_t first = 0; first < count; first += TILES) {
    for (int64_t k = 0; k < width; k += WINO_LANES) {
      wino_vec sum = {0};
      for (int64_t t = first; t < fn_min_of(first + TILES, count); t++)
        sum += *(const wino_vec *)(j->cells + t * width + k);
      *(wino_vec *)(j->bias + k) += sum;
    }
  }
}

static void add_all(const job *j) {
  const winograd *w = &j->s->w;
  const int64_t total = w->samples * w->tiles;
  const int64_t pairs = fn_ceil_div((w->in_width + w->out_width) / WINO_LANES, 2);
  // With few threads whole elements, of which the next one is fetched ahead.
  const bool whole = w->elements >= 8 * fn_threads_get();
  const int64_t rows = whole ? w->rows : ROWS;
  const int64_t pieces = fn_ceil_div(w->rows, rows), most = j->s->blocks * TILES;
#pragma omp parallel
  for (int64_t first = 0; first < total; first += most) {
    const int64_t count = fn_min_of(most, total - first);
#pragma omp for schedule(dynamic, 16)
    for (int64_t i = 0; i < 2 * pairs * count; i++)
      transform(j, first, count, i);
#pragma omp for schedule(guided)
    for (int64_t i = 0; i <= w->elements * pieces; i++) {
      if (i == w->elements * pieces)
        add_cells(j, count);
      else
        add_products(j, count, i / pieces, i % pieces * rows, rows);
    }
  }
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  wino_weight_state *s = kernel->state;
  const winograd *w = &s->w;
  char *memory = s->base.workspace = context->workspace;
  const job j = {.s = s,
                 .x = &kernel->input[0],
                 .y = &kernel->input[1],
                 .in = (float *)(memory + s->in_at),
                 .out = (float *)(memory + s->out_at),
                 .sum = (float *)(memory + s->sum_at),
                 .cells = (float *)(memory + s->cells_at),
                 .bias = (float *)(memory + s->bias_at)};
#pragma omp parallel for schedule(static)
  for (int e = 0; e < w->elements; e++)
    memset(j.sum + e * s->sum_spread, 0, (size_t)s->sum_spread * sizeof(float));
  memset(j.bias, 0, (size_t)w->out_width * sizeof(float));
  add_all(&j);
  if (kernel->output[0].data) {
    const wino_weights plain = {.data = kernel->output[0].data,
                                .in_stride = w->kernel,
                                .out_stride = w->in_channels * w->kernel};
    fn_wino_weights_back(w, j.sum, s->sum_spread, &plain);
  }
  if (kernel->output[1].data)
    memcpy(kernel->output[1].data, j.bias, (size_t)w->out_channels * sizeof(float));
  return FN_OK;
}

fn_status fn_wino_prepare_weight(fn_kernel *kernel, const winograd *shape) {
  wino_weight_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  s->w = *shape;
  const winograd *w = &s->w;
  s->in_spread = TILES * w->in_phases * w->in_width + WINO_SPREAD;
  s->out_spread = TILES * w->out_width + WINO_SPREAD;
  s->sum_spread = w->rows * w->out_width + WINO_SPREAD;
  s->blocks = fn_ceil_div(fn_threads_get(), THREADS_OF_A_BLOCK);
  const size_t elements = (size_t)(s->blocks * w->elements) * sizeof(float);
  s->in_at = fn_cpu_carve(kernel, elements * (size_t)s->in_spread);
  s->out_at = fn_cpu_carve(kernel, elements * (size_t)s->out_spread);
  s->sum_at = fn_cpu_carve(kernel, (size_t)(w->elements * s->sum_spread) * sizeof(float));
  s->cells_at = fn_cpu_carve(kernel, (size_t)(s->blocks * TILES * w->out_width) * sizeof(float));
  s->bias_at = fn_cpu_carve(kernel, (size_t)w->out_width * sizeof(float));
  kernel->run = run;
  return FN_OK;
}
