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

/* Measured on AVX2 beside oneDNN 3.2, 16 to 128 channels in 2 and 3 dimensions: an element costs
 * 2 (C K + 10 (C + K)) where a product of oneDNN's forward convolution costs 1, and one of its
 * weight gradient 1.4. Only what saves a sixth and more is taken from oneDNN. */
enum {
  TRANSFORM = 10,       /**< cost of transforming one element, in products */
  FEWEST_CHANNELS = 16, /**< of x and of y */
  SCRATCH = 3 << 18,    /**< bytes of the elements of a block of tiles */
};
static const double worth_sum = 0.43, worth_weight = 0.6; // of the direct sum's products

double fn_wino_cost(const winograd *w) {
  const double in = (double)w->in_width, out = (double)w->out_width;
  const double tile = in * out + TRANSFORM * (in + out);
  return w->elements * ((double)(w->samples * w->tiles) * tile + TRANSFORM * in * out);
}

static void set_filters(winograd *w, unsigned wide) {
  w->elements = 1;
  w->tiles = 1;
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    wino_axis *a = &w->axis[d];
    a->points = a->taps == 1 ? 1 : wide >> d & 1 ? 6 : 4;
    a->step = a->taps == 1 ? 1 : a->points - 2;
    a->tiles = fn_ceil_div(a->out, a->step);
    w->elements *= a->points;
    w->tiles *= a->tiles;
  }
}

void fn_wino_shape(winograd *w, const fn_shape *in, const fn_shape *out, const fn_shape *kernel,
                   const int64_t *pad) {
  *w = (winograd){.taps = 1, .samples = in->dim[0]};
  w->in_channels = in->dim[1];
  w->out_channels = out->dim[1];
  w->in_width = fn_ceil_div(w->in_channels, WINO_LANES) * WINO_LANES;
  w->out_width = fn_ceil_div(w->out_channels, WINO_PANEL) * WINO_PANEL;
  const int spatial = in->ndim - 2;
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    const int axis = d - (FN_MAX_SPATIAL - spatial);
    wino_axis *a = &w->axis[d];
    a->taps = axis < 0 ? 1 : (int)kernel->dim[2 + axis];
    a->in = axis < 0 ? 1 : in->dim[2 + axis];
    a->out = axis < 0 ? 1 : out->dim[2 + axis];
    a->pad = axis < 0 ? 0 : pad[axis];
    w->taps *= a->taps;
  }
  unsigned best = 0;
  double least = (double)INFINITY;
  for (unsigned wide = 0; wide < 1U << FN_MAX_SPATIAL; wide++) {
    set_filters(w, wide);
    const double cost = fn_wino_cost(w);
    if (cost >= least) continue;
    least = cost;
    best = wide;
  }
  set_filters(w, best);
}

wino_place fn_wino_place(const winograd *w, int64_t tile) {
  const wino_axis *a = w->axis;
  wino_place at = {.sample = tile / w->tiles};
  const int64_t t = tile % w->tiles;
  at.cell[2] = t % a[2].tiles * a[2].step;
  at.cell[1] = t / a[2].tiles % a[1].tiles * a[1].step;
  at.cell[0] = t / a[2].tiles / a[1].tiles * a[0].step;
  return at;
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
  bool filters = false;
  for (int d = 0; d < spatial; d++) {
    const int64_t k = v->w->shape.dim[2 + d];
    if (g->stride[d] != 1 || (k != 1 && k != 3)) return false;
    if (k == 3 && g->dilation[d] != 1) return false;
    filters |= k == 3;
  }
  return filters && fn_cpu_block() % WINO_LANES == 0;
}

/** The data gradient is a convolution of y with the kernel turned round and other padding. */
static void shape_of(const fn_node *node, winograd *w) {
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  const fn_conv_geometry *g = &((const fn_conv_attrs *)node->attrs)->geometry;
  if (v.role != CONV_DATA) {
    fn_wino_shape(w, &v.x->shape, &v.y->shape, &v.w->shape, g->pad_low);
    return;
  }
  int64_t pad[FN_MAX_SPATIAL];
  for (int d = 0; d < v.x->shape.ndim - 2; d++)
    pad[d] = v.w->shape.dim[2 + d] - 1 - g->pad_low[d];
  fn_wino_shape(w, &v.y->shape, &v.x->shape, &v.w->shape, pad);
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
  const double direct =
      (double)(w.samples * fn_space(v.role == CONV_DATA ? &v.x->shape : &v.y->shape)) * w.taps *
      (double)(v.x->shape.dim[1] * v.y->shape.dim[1]);
  return fn_wino_cost(&w) < (v.role == CONV_WEIGHT ? worth_weight : worth_sum) * direct;
}

/* ---- running -----------------------------------------------------------------------------------
 */

typedef struct state {
  wino_state base;
  winograd w;
  int64_t block; /**< tiles */
  int threads;   /**< with scratch of their own */
  size_t weights_at, bias_at, scratch_at, scratch_bytes;
  int64_t in_spread, out_spread; /**< floats between elements in scratch */
} sum_state;

/** Tiles [first, first + count) in scratch of this thread. */
static void run_block(const sum_state *s, const fn_tensor *in, const fn_tensor *out,
                      const float *weights, const wino_finish *finish, int64_t first, int64_t count,
                      float *scratch) {
  const winograd *w = &s->w;
  float *a = scratch, *c = scratch + w->elements * s->in_spread;
  // Neighbouring tiles share cells; two groups fill a cache line of the matrices.
  for (int64_t pair = 0; pair < w->in_width; pair += WINO_PANEL) {
    for (int64_t t = 0; t < count; t++) {
      const wino_place at = fn_wino_place(w, first + t);
      for (int64_t k = pair; k < fn_min_of(pair + WINO_PANEL, w->in_width); k += WINO_LANES)
        fn_wino_read(w, in, &at, k / WINO_LANES, a + t * w->in_width + k, s->in_spread);
    }
  }
  const int64_t rows = fn_ceil_div(count, WINO_ROWS) * WINO_ROWS;
  for (int e = 0; e < w->elements; e++)
    fn_wino_product(rows, w->out_width, w->in_channels, a + e * s->in_spread, w->in_width,
                    weights + e * fn_wino_weight_spread(w), c + e * s->out_spread, w->out_width,
                    s->in_spread, s->out_spread);
  const int64_t groups = fn_ceil_div(w->out_channels, out->block) * out->block / WINO_LANES;
  for (int64_t pair = 0; pair < groups; pair += 2) {
    for (int64_t t = 0; t < count; t++) {
      const wino_place at = fn_wino_place(w, first + t);
      for (int64_t g = pair; g < fn_min_of(pair + 2, groups); g++)
        fn_wino_write(w, out, &at, g, c + t * w->out_width + g * WINO_LANES, s->out_spread, finish);
    }
  }
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  sum_state *s = kernel->state;
  const winograd *w = &s->w;
  const fn_node *node = kernel->node;
  const fn_conv_attrs *attrs = node->attrs;
  const bool forward = node->op == &fn_op_conv;
  char *memory = s->base.base.workspace = context->workspace;
  const int64_t kernel_cells = w->taps;
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
  for (int64_t b = 0; b < blocks; b++) {
    float *scratch =
        (float *)(memory + s->scratch_at + (size_t)omp_get_thread_num() * s->scratch_bytes);
    run_block(s, &kernel->input[0], &kernel->output[0], weights, &finish, b * s->block,
              fn_min_of(s->block, total - b * s->block), scratch);
  }
  return FN_OK;
}

static fn_status prepare_sums(fn_kernel *kernel, const winograd *shape) {
  sum_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  s->w = *shape;
  const winograd *w = &s->w;
  s->threads = fn_threads_get();
  const int64_t row = w->elements * (w->in_width + w->out_width) * (int64_t)sizeof(float);
  const int64_t even = fn_ceil_div(w->samples * w->tiles, s->threads);
  s->block = fn_ceil_div(fn_min_of(SCRATCH / row, even), WINO_ROWS) * WINO_ROWS;
  s->in_spread = s->block * w->in_width + WINO_SPREAD;
  s->out_spread = s->block * w->out_width + WINO_SPREAD;
  s->weights_at = fn_cpu_carve(kernel, (size_t)fn_wino_weight_count(w) * sizeof(float));
  s->bias_at = fn_cpu_carve(kernel, (size_t)w->out_width * sizeof(float));
  s->scratch_bytes = (size_t)(w->elements * (s->in_spread + s->out_spread)) * sizeof(float);
  s->scratch_bytes = (s->scratch_bytes + 63) / 64 * 64;
  s->scratch_at = fn_cpu_carve(kernel, s->scratch_bytes * (size_t)s->threads);
  kernel->run = run;
  return FN_OK;
}

/* ---- the direct sum beside it ------------------------------------------------------------------
 */

static void release(fn_cpu_state *base) {
  wino_state *s = (wino_state *)base;
  if (s->direct.destroy) s->direct.destroy(&s->direct);
  free(s->memory);
}

/** oneDNN's primitive for the same convolution, made when it is asked for the first time. */
static fn_status direct_alone(const fn_kernel *kernel, void *workspace) {
  (void)workspace;
  wino_state *s = kernel->state;
  if (!s->memory) {
    s->direct = (fn_kernel){.node = kernel->node,
                            .input = kernel->input,
                            .output = kernel->output,
                            .backend = kernel->backend};
    FN_TRY(s->prepare_direct(&s->direct));
    s->memory = aligned_alloc(64, (s->direct.workspace + 64) / 64 * 64);
    FN_CHECK(s->memory, FN_ERR_MEMORY, "out of memory for a direct convolution");
    FN_TRY(s->direct.run(&s->direct, &(fn_run_context){.workspace = s->memory}));
  }
  return ((fn_cpu_state *)s->direct.state)->primitive(&s->direct, s->memory);
}

fn_status fn_cpu_winograd_prepare(fn_kernel *kernel, fn_status (*prepare_direct)(fn_kernel *)) {
  winograd w;
  shape_of(kernel->node, &w);
  FN_TRY(kernel->node->op == &fn_op_conv_weight ? fn_wino_prepare_weight(kernel, &w)
                                                : prepare_sums(kernel, &w));
  wino_state *s = kernel->state;
  s->prepare_direct = prepare_direct;
  s->base.release = release;
  s->base.primitive = direct_alone;
  fn_log(FN_DEBUG, "%s: tiles of %d x %d x %d", kernel->node->op->name, w.axis[0].points,
         w.axis[1].points, w.axis[2].points);
  return FN_OK;
}
