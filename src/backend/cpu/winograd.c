/* Forward convolutions and data gradients by minimal filtering: which ones, and how they run.
 *
 * Tiles are taken in blocks that one thread transforms, multiplies and transforms back, so that the
 * elements stay in its cache. Every result is the sum of the same numbers in the same order,
 * whatever the blocks and threads. */
#include "backend/cpu/winograd.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>

#include "base/log.h"
#include "ops/geometry.h"

/* ---- shapes ------------------------------------------------------------------------------------
 */

/* Measured on AVX2 beside oneDNN 3.2, 16 to 128 channels in 2 and 3 dimensions: where a product of
 * oneDNN's forward convolution costs 1, an element costs C K + 17 (C + K) or a little more, C and K
 * the channels of all phases. Its weight gradient is slower. Only what saves a seventh and more is
 * taken from oneDNN; wider vectors, not measured so closely, shall save more. */
enum {
  TRANSFORM = 17,               /**< cost of transforming one element, in products */
  FEWEST_CHANNELS = 16,         /**< of x and of y */
  SCRATCH = 3 << 17,            /**< bytes of the elements of a block of tiles */
  FEWEST_TILES = 2 * WINO_ROWS, /**< of a block: weights are read once for all of them */
};
// of the direct sum's products
static const double worth_sum = WINO_LANES > 8 ? 0.6 : 0.85;
static const double worth_weight = WINO_LANES > 8 ? 0.8 : 0.95;

/** Cost of the whole convolution, transforms included, in products of two numbers. */
static double cost_of(const winograd *w) {
  const double in = (double)(w->in_phases * w->in_width), out = (double)w->columns;
  const double tile = in * out + TRANSFORM * (in + out);
  return w->groups * w->elements * ((double)(w->samples * w->tiles) * tile + TRANSFORM * in * out);
}

static const struct filter {
  int points, step;
} filters[] = {
    [WINO_NONE] = {1, 1}, [WINO_2_3] = {4, 2}, [WINO_4_3] = {6, 4},
    [WINO_3_2] = {4, 3},  [WINO_4_2] = {5, 4},
};

static bool strided(const wino_axis *a) {
  return a->in_stride > 1 || a->out_stride > 1;
}

/** Phase q of the results: those in out begin with *first and end before *last. */
static void results_of(const wino_axis *a, int q, int64_t *first, int64_t *last) {
  *first = fn_ceil_div(a->out_pad - q, a->out_stride);
  *last = fn_ceil_div(a->out + a->out_pad - q, a->out_stride);
}

static void set_axis(wino_axis *a, wino_filter filter, bool apart) {
  a->filter = filter;
  a->points = filters[filter].points;
  a->step = filters[filter].step;
  a->apart = apart;
  int64_t first[2], last[2];
  for (int q = 0; q < 2; q++)
    results_of(a, q < a->out_stride ? q : 0, &first[q], &last[q]);
  if (!apart) {
    first[0] = first[1] = fn_min_of(first[0], first[1]);
    last[0] = last[1] = last[0] > last[1] ? last[0] : last[1];
  }
  a->tiles = 1;
  for (int q = 0; q < 2; q++) {
    a->first[q] = first[q];
    const int64_t tiles = fn_ceil_div(last[q] - first[q], a->step);
    if (tiles > a->tiles) a->tiles = tiles;
  }
}

/** Way `way` (0..3) to filter an axis; false when there is none. */
static bool set_way(wino_axis *a, bool data, int way) {
  const wino_filter narrow = a->taps == 1 ? WINO_NONE : a->taps == 2 ? WINO_3_2 : WINO_2_3;
  if (way % 2 && a->taps == 1) return false;
  if (way / 2 && !(data && strided(a))) return false;
  set_axis(a, narrow + way % 2, way / 2);
  return true;
}

static void number_phases(winograd *w) {
  for (int g = 0; g < w->groups; g++) {
    for (int q = 0; q < w->in_phases * w->out_phases; q++) {
      int left[] = {q, g};
      for (int d = FN_MAX_SPATIAL; d-- > 0;) {
        const wino_axis *a = &w->axis[d];
        w->phase[g * w->out_phases + q][d] = strided(a) ? left[a->apart] % 2 : 0;
        if (strided(a)) left[a->apart] /= 2;
      }
    }
  }
}

static bool set_ways(winograd *w, bool data, int ways) {
  w->elements = w->in_phases = w->out_phases = w->groups = 1;
  w->tiles = 1;
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    wino_axis *a = &w->axis[d];
    if (!set_way(a, data, ways >> 2 * d & 3)) return false;
    w->elements *= a->points;
    w->tiles *= a->tiles;
    w->in_phases *= a->in_stride;
    *(a->apart ? &w->groups : &w->out_phases) *= a->out_stride;
  }
  w->rows = w->in_phases == 1 ? w->in_channels : w->in_phases * w->in_width;
  w->columns = w->out_phases * w->out_width;
  number_phases(w);
  return true;
}

/** Fill everything from the operator's shapes and geometry. Chooses the filters of the axes. */
static void find_shape(winograd *w, const conv_values *v, const fn_conv_geometry *geometry) {
  const bool data = v->role == CONV_DATA;
  const fn_shape *in = data ? &v->y->shape : &v->x->shape;
  const fn_shape *out = data ? &v->x->shape : &v->y->shape;
  *w = (winograd){.kernel = 1, .samples = in->dim[0]};
  w->in_channels = in->dim[1];
  w->out_channels = out->dim[1];
  w->in_width = fn_ceil_div(w->in_channels, WINO_LANES) * WINO_LANES;
  w->out_width = fn_ceil_div(w->out_channels, WINO_PANEL) * WINO_PANEL;
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    const int axis = d - (FN_MAX_SPATIAL - (in->ndim - 2));
    const int cells = axis < 0 ? 1 : (int)v->w->shape.dim[2 + axis];
    const int stride = axis < 0 ? 1 : (int)geometry->stride[axis];
    const int64_t pad = axis < 0 ? 0 : geometry->pad_low[axis];
    wino_axis *a = &w->axis[d];
    a->taps = cells / stride;
    a->in = axis < 0 ? 1 : in->dim[2 + axis];
    a->out = axis < 0 ? 1 : out->dim[2 + axis];
    a->in_stride = data ? 1 : stride;
    a->out_stride = data ? stride : 1;
    // The data gradient is a convolution of y with the kernel turned round and other padding.
    a->in_pad = !data ? pad : a->taps - 1 - (stride > 1 ? 0 : pad);
    a->out_pad = data && stride > 1 ? pad : 0;
    w->kernel *= cells;
  }
  int best = 0;
  double least = (double)INFINITY;
  for (int ways = 0; ways < 1 << 2 * FN_MAX_SPATIAL; ways++) {
    if (!set_ways(w, data, ways) || cost_of(w) >= least) continue;
    least = cost_of(w);
    best = ways;
  }
  set_ways(w, data, best);
}

void fn_wino_place(const winograd *w, int group, int64_t tile, wino_place *at) {
  const wino_axis *a = w->axis;
  const int *phase = w->phase[group * w->out_phases];
  at->group = group;
  at->sample = tile / w->tiles;
  uint32_t t = (uint32_t)(tile % w->tiles); // short divisions: they count
  for (int d = FN_MAX_SPATIAL; d-- > 0;) {
    const uint32_t tiles = (uint32_t)a[d].tiles;
    at->cell[d] = a[d].first[phase[d]] + (int64_t)(t % tiles) * a[d].step;
    t /= tiles;
  }
}

/* ---- which convolutions ------------------------------------------------------------------------
 */

static fn_winograd_mode the_mode = FN_WINOGRAD_AUTO;

void fn_cpu_set_winograd(fn_winograd_mode mode) {
  the_mode = mode;
}

static bool possible(const conv_values *v, const fn_conv_geometry *g) {
  const int spatial = v->x->shape.ndim - 2;
  if (g->groups != 1 || spatial < 1 || spatial > FN_MAX_SPATIAL) return false;
  if (v->x->dtype != FN_F32 || v->y->dtype != FN_F32 || v->w->dtype != FN_F32) return false;
  bool filtered = false;
  for (int d = 0; d < spatial; d++) {
    const int64_t k = v->w->shape.dim[2 + d];
    const bool phases = k == 4 && g->stride[d] == 2;
    if (!phases && (g->stride[d] != 1 || (k != 1 && k != 3))) return false;
    if (k > 1 && g->dilation[d] != 1) return false;
    filtered |= k > 1;
  }
  return filtered && fn_cpu_block() % WINO_LANES == 0;
}

static void shape_of(const fn_node *node, winograd *w) {
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  find_shape(w, &v, &((const fn_conv_attrs *)node->attrs)->geometry);
}

bool fn_cpu_winograd_fits(const fn_node *node) {
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  const fn_conv_geometry *g = &((const fn_conv_attrs *)node->attrs)->geometry;
  if (the_mode == FN_WINOGRAD_NO || !possible(&v, g)) return false;
  if (the_mode == FN_WINOGRAD_ALWAYS) return true;
#if !defined(__AVX512F__) && !(defined(__AVX2__) && defined(__FMA__))
  return false; // oneDNN makes code for the processor, this build does not
#endif
  if (v.x->shape.dim[1] < FEWEST_CHANNELS || v.y->shape.dim[1] < FEWEST_CHANNELS) return false;
  winograd w;
  shape_of(node, &w);
  // Products of a data gradient: without strides those of the windows, some half outside.
  const fn_shape *cells = v.role == CONV_DATA ? &v.x->shape : &v.y->shape;
  const int overlap = v.role == CONV_DATA ? w.out_phases * w.groups : 1;
  const double direct = (double)(w.samples * fn_space(cells)) * w.kernel / overlap *
                        (double)(v.x->shape.dim[1] * v.y->shape.dim[1]);
  return cost_of(&w) < (v.role == CONV_WEIGHT ? worth_weight : worth_sum) * direct;
}

/* ---- running -----------------------------------------------------------------------------------
 */

typedef struct state {
  fn_cpu_state base;
  winograd w;
  int64_t block; /**< tiles */
  int threads;   /**< with scratch of their own */
  size_t weights_at, bias_at, scratch_at, scratch_bytes;
  int64_t in_spread, out_spread; /**< floats between elements in scratch */
} sum_state;

/** Tiles of one group of phases. */
typedef struct block_of_tiles {
  int group;
  int64_t first, count;
} block_of_tiles;

/** Neighbouring tiles share cells; two channel groups fill a cache line of the matrices. */
static void read_block(const sum_state *s, const fn_tensor *in, const block_of_tiles *b, float *a) {
  const winograd *w = &s->w;
  const int64_t row = w->in_phases * w->in_width;
  for (int64_t pair = 0; pair < w->in_width; pair += WINO_PANEL) {
    for (int64_t t = 0; t < b->count; t++) {
      wino_place at;
      fn_wino_place(w, b->group, b->first + t, &at);
      for (int64_t k = pair; k < fn_min_of(pair + WINO_PANEL, w->in_width); k += WINO_LANES)
        fn_wino_read(w, in, &at, k / WINO_LANES, a + t * row + k, s->in_spread);
    }
  }
}

static void write_block(const sum_state *s, const fn_tensor *out, const block_of_tiles *b,
                        const float *c, const wino_finish *finish) {
  const winograd *w = &s->w;
  const int64_t groups = fn_ceil_div(w->out_channels, out->block) * out->block / WINO_LANES;
  for (int64_t pair = 0; pair < groups; pair += 2) {
    for (int64_t t = 0; t < b->count; t++) {
      wino_place at;
      fn_wino_place(w, b->group, b->first + t, &at);
      for (int64_t g = pair; g < fn_min_of(pair + 2, groups); g++)
        fn_wino_write(w, out, &at, g, c + t * w->columns + g * WINO_LANES, s->out_spread, finish);
    }
  }
}

/** In scratch of this thread. */
static void run_block(const sum_state *s, const fn_tensor *in, const fn_tensor *out,
                      const float *weights, const wino_finish *finish, const block_of_tiles *b,
                      float *scratch) {
  const winograd *w = &s->w;
  float *a = scratch, *c = scratch + w->elements * s->in_spread;
  read_block(s, in, b, a);
  const int64_t rows = fn_ceil_div(b->count, WINO_ROWS) * WINO_ROWS;
  const int64_t spread = fn_wino_weight_spread(w);
  for (int e = 0; e < w->elements; e++)
    fn_wino_product(rows, w->columns, w->rows, a + e * s->in_spread, w->in_phases * w->in_width,
                    weights + (b->group * w->elements + e) * spread, c + e * s->out_spread,
                    w->columns, s->in_spread, s->out_spread);
  write_block(s, out, b, c, finish);
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  sum_state *s = kernel->state;
  const winograd *w = &s->w;
  const fn_node *node = kernel->node;
  const fn_conv_attrs *attrs = node->attrs;
  const bool forward = node->op == &fn_op_conv;
  char *memory = s->base.workspace = context->workspace;
  const int64_t kernel_cells = w->kernel;
  const int64_t along = kernel->input[1].shape.dim[1] * kernel_cells;
  const wino_weights plain = {.data = kernel->input[1].data,
                              .in_stride = forward ? kernel_cells : along,
                              .out_stride = forward ? along : kernel_cells,
                              .backwards = !forward};
  float *weights = (float *)(memory + s->weights_at);
  fn_wino_weights(w, &plain, weights);
  wino_finish finish = {.slope = (float)attrs->slope};
  if (node->input_count > 2 && kernel->input[2].data) {
    float *bias = (float *)(memory + s->bias_at);
    memset(bias, 0, (size_t)w->out_width * sizeof *bias);
    memcpy(bias, kernel->input[2].data, (size_t)w->out_channels * sizeof *bias);
    finish.bias = bias;
  }
  if (node->input_count > 3 && kernel->input[3].data) finish.residual = &kernel->input[3];
  const int64_t total = w->samples * w->tiles, blocks = fn_ceil_div(total, s->block);
#pragma omp parallel for schedule(dynamic) num_threads(s->threads)
  for (int64_t i = 0; i < blocks * w->groups; i++) {
    float *scratch =
        (float *)(memory + s->scratch_at + (size_t)omp_get_thread_num() * s->scratch_bytes);
    const int64_t first = i / w->groups * s->block; // groups read the same cells
    const block_of_tiles b = {(int)(i % w->groups), first, fn_min_of(s->block, total - first)};
    run_block(s, &kernel->input[0], &kernel->output[0], weights, &finish, &b, scratch);
  }
  return FN_OK;
}

static fn_status prepare_sums(fn_kernel *kernel, const winograd *shape) {
  sum_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  s->w = *shape;
  const winograd *w = &s->w;
  s->threads = fn_threads_get();
  const int64_t in_row = w->in_phases * w->in_width;
  const int64_t row = w->elements * (in_row + w->columns) * (int64_t)sizeof(float);
  const int64_t even = fn_ceil_div(w->samples * w->tiles, s->threads);
  const int64_t most = SCRATCH / row > FEWEST_TILES ? SCRATCH / row : FEWEST_TILES;
  s->block = fn_ceil_div(fn_min_of(most, even), WINO_ROWS) * WINO_ROWS;
  s->in_spread = s->block * in_row + WINO_SPREAD;
  s->out_spread = s->block * w->columns + WINO_SPREAD;
  s->weights_at = fn_cpu_carve(kernel, (size_t)fn_wino_weight_count(w) * sizeof(float));
  s->bias_at = fn_cpu_carve(kernel, (size_t)w->out_width * sizeof(float));
  s->scratch_bytes = (size_t)(w->elements * (s->in_spread + s->out_spread)) * sizeof(float);
  s->scratch_bytes = (s->scratch_bytes + 63) / 64 * 64;
  s->scratch_at = fn_cpu_carve(kernel, s->scratch_bytes * (size_t)s->threads);
  kernel->run = run;
  return FN_OK;
}

fn_status fn_cpu_winograd_prepare(fn_kernel *kernel) {
  winograd w;
  shape_of(kernel->node, &w);
  FN_TRY(kernel->node->op == &fn_op_conv_weight ? fn_wino_prepare_weight(kernel, &w)
                                                : prepare_sums(kernel, &w));
  ((fn_cpu_state *)kernel->state)->time_library = fn_cpu_conv_time_library;
  fn_log(FN_DEBUG, "%s: tiles of %d x %d x %d, %d + %d phases", kernel->node->op->name,
         w.axis[0].points, w.axis[1].points, w.axis[2].points, w.in_phases,
         w.groups * w.out_phases);
  return FN_OK;
}
