/* Batch norm with residual and activation, its gradient, and running statistics.
 *
 * Statistics: every chunk of a row gives a sum and a sum of squares about its own mean, both from
 * one visit of the memory; chunks are combined in double precision in a fixed order (Chan, Golub &
 * LeVeque 1983), so a large mean costs no digits and threads do not change the result. */
#include <math.h>

#include "backend/cpu/internal.h"

enum { X, SCALE, SHIFT, RESIDUAL, MEAN, VAR };
enum { GRAD_DY, GRAD_X, GRAD_SCALE, GRAD_MEAN, GRAD_VAR, GRAD_Y };
enum {
  FACTORS = 4, // per channel, see run() and run_grad()
  SHORT = 512, // elements of a row below which an item costs more than its values
};

/** Work is cut in items: a chunk of a row or, where rows are short, the rows of one channel block
 * of `group` samples. */
typedef struct norm_state {
  fn_cpu_state base;
  fn_rows rows;
  int64_t channels;
  int64_t group, groups; /**< samples per item, items along the batch */
  int64_t items;
  size_t partial_at; /**< double [items][2][block] */
  size_t total_at;   /**< double [2 channels + 1] */
  size_t factor_at;  /**< float [FACTORS][channels] */
} norm_state;

static fn_status make_state(fn_kernel *kernel, const fn_tensor *x, norm_state **state) {
  norm_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  s->rows = fn_rows_of(&x->shape, x->block);
  s->channels = fn_channels(&x->shape);
  s->group = s->rows.length < SHORT ? fn_min_of(FN_CHUNK / s->rows.length, s->rows.batch) : 1;
  s->groups = fn_ceil_div(s->rows.batch, s->group);
  s->items = s->groups * s->rows.blocks * s->rows.chunks;
  s->partial_at = fn_cpu_carve(kernel, (size_t)(s->items * 2 * s->rows.block) * 8);
  s->total_at = fn_cpu_carve(kernel, (size_t)(2 * s->channels + 1) * 8);
  s->factor_at = fn_cpu_carve(kernel, (size_t)(FACTORS * s->channels) * 4);
  *state = s;
  return FN_OK;
}

/** One item: `count` elements of channel block k in `samples` pieces of equal length. */
typedef struct span {
  int64_t n, k, offset, samples, count;
} span;

static span span_at(const norm_state *s, int64_t index) {
  const fn_rows *r = &s->rows;
  const int64_t first = index % r->chunks * FN_CHUNK, row = index / r->chunks;
  span p = {.n = row / r->blocks * s->group, .k = row % r->blocks};
  p.offset = p.k * r->length + first;
  p.samples = fn_min_of(s->group, r->batch - p.n);
  p.count = fn_min_of(FN_CHUNK, r->length - first) * p.samples;
  return p;
}

static int64_t piece_at(const fn_tensor *t, const span *p, int64_t i) {
  return (p->n + i) * t->batch_stride + p->offset;
}

/** The elements as f32 in one piece: in place, or copied into scratch [FN_CHUNK]. */
static const float *span_load(const fn_tensor *t, const span *p, float *scratch) {
  if (p->samples == 1) return fn_load(t, piece_at(t, p, 0), p->count, scratch);
  const int64_t length = p->count / p->samples;
  for (int64_t i = 0; i < p->samples; i++) {
    float *to = scratch + i * length;
    const float *from = fn_load(t, piece_at(t, p, i), length, to);
    if (from != to) memcpy(to, from, (size_t)length * sizeof *to);
  }
  return scratch;
}

/** Where to compute the elements: in place or scratch, to be followed by span_store(). */
static float *span_target(const fn_tensor *t, const span *p, float *scratch) {
  return p->samples == 1 ? fn_target(t, piece_at(t, p, 0), scratch) : scratch;
}

static void span_store(const fn_tensor *t, const span *p, const float *values) {
  const int64_t length = p->count / p->samples;
  for (int64_t i = 0; i < p->samples; i++) {
    const int64_t at = piece_at(t, p, i);
    if (t->dtype == FN_F32 && p->samples > 1)
      memcpy((float *)t->data + at, values + i * length, (size_t)length * sizeof *values);
    else
      fn_store(t, at, length, values + i * length);
  }
}

/** Add the lanes that belong to the same channel: result [block]. */
static void fold(const float *lanes, int64_t block, double *result) {
  for (int64_t b = 0; b < block; b++)
    result[b] = 0;
  for (int64_t i = 0; i < FN_LANES; i++)
    result[i % block] += (double)lanes[i];
}

/** Sum and sum of squares of x - shift over a chunk, per lane. */
static void lane_sums(const float *x, int64_t count, const float *shift, float *sum,
                      float *square) {
  const fn_lane8 m0 = *(const fn_lane8 *)shift, m1 = *(const fn_lane8 *)(shift + 8);
  fn_lane8 s0 = {0}, s1 = {0}, q0 = {0}, q1 = {0};
  int64_t i = 0;
  for (; i + FN_LANES <= count; i += FN_LANES) {
    const fn_lane8 d0 = *(const fn_lane8 *)(x + i) - m0, d1 = *(const fn_lane8 *)(x + i + 8) - m1;
    s0 += d0, s1 += d1;
    q0 += d0 * d0, q1 += d1 * d1;
  }
  memcpy(sum, &s0, sizeof s0), memcpy(sum + 8, &s1, sizeof s1);
  memcpy(square, &q0, sizeof q0), memcpy(square + 8, &q1, sizeof q1);
  for (int l = 0; i < count; i++, l++) {
    const float d = x[i] - shift[l];
    sum[l] += d;
    square[l] += d * d;
  }
}

/** partial = sum [block], then sum of squares about the chunk's mean [block]. */
static void chunk_moments(const float *x, int64_t count, int64_t block, double *partial) {
  const float zero[FN_LANES] = {0};
  float pattern[FN_LANES], sum[FN_LANES], square[FN_LANES];
  double first[FN_LANES], rest[FN_LANES], squares[FN_LANES];
  const double cells = (double)(count / block);
  lane_sums(x, count, zero, sum, square);
  fold(sum, block, first);
  for (int64_t i = 0; i < FN_LANES; i++)
    pattern[i] = (float)(first[i % block] / cells);
  lane_sums(x, count, pattern, sum, square);
  fold(sum, block, rest);
  fold(square, block, squares);
  for (int64_t b = 0; b < block; b++) {
    // The second visit also mends the rounding of the first sum.
    partial[b] = (double)pattern[b] * cells + rest[b];
    partial[block + b] = squares[b] - rest[b] * rest[b] / cells;
  }
}

/** Item `chunk` of group `g` of samples of channel block k. */
static const double *partial_of(const norm_state *s, const double *partial, int64_t g, int64_t k,
                                int64_t chunk) {
  const fn_rows *r = &s->rows;
  return partial + ((g * r->blocks + k) * r->chunks + chunk) * 2 * r->block;
}

/** Sum of entry `which` (0, 1) of channel c over all its items. */
static double channel_sum(const norm_state *s, const double *partial, int which, int64_t c) {
  const fn_rows *r = &s->rows;
  double total = 0;
  for (int64_t g = 0; g < s->groups; g++) {
    for (int64_t i = 0; i < r->chunks; i++) {
      total += partial_of(s, partial, g, c / r->block, i)[which * r->block + c % r->block];
    }
  }
  return total;
}

/** Sum of squares about `mean` of channel c from sums and squares per item. */
static double channel_squares(const norm_state *s, const double *partial, int64_t c, double mean) {
  const fn_rows *r = &s->rows;
  double total = 0;
  for (int64_t g = 0; g < s->groups; g++) {
    const int64_t samples = fn_min_of(s->group, r->batch - g * s->group);
    for (int64_t i = 0; i < r->chunks; i++) {
      const double *p = partial_of(s, partial, g, c / r->block, i);
      const int64_t length = fn_min_of(FN_CHUNK, r->length - i * FN_CHUNK);
      const double cells = (double)(length / r->block * samples);
      const double apart = p[c % r->block] / cells - mean;
      total += p[r->block + c % r->block] + cells * apart * apart;
    }
  }
  return total;
}

static fn_status over_ranks(bool sync, const fn_run_context *context, double *values,
                            int64_t count) {
  const fn_collectives *all = context->collectives;
  if (!sync || !all || all->size < 2) return FN_OK;
  return all->sum(all->self, values, count);
}

/** Mean and biased variance of every channel, total [2 channels + 1] -> mean, var. */
static fn_status statistics(const norm_state *s, const fn_tensor *x, bool sync,
                            const fn_run_context *context, double *partial, double *total) {
  const fn_rows *r = &s->rows;
#pragma omp parallel for schedule(static) if (s->items > 1)
  for (int64_t i = 0; i < s->items; i++) {
    float scratch[FN_CHUNK];
    const span p = span_at(s, i);
    const float *values = span_load(x, &p, scratch);
    chunk_moments(values, p.count, r->block, partial + i * 2 * r->block);
  }
  double *mean = total, *var = total + s->channels;
  double count[1] = {(double)(r->batch * r->cells)};
#pragma omp parallel for schedule(static) if (s->items > 64)
  for (int64_t c = 0; c < s->channels; c++)
    mean[c] = channel_sum(s, partial, 0, c);
  FN_TRY(over_ranks(sync, context, count, 1));
  FN_TRY(over_ranks(sync, context, mean, s->channels));
#pragma omp parallel for schedule(static) if (s->items > 64)
  for (int64_t c = 0; c < s->channels; c++) {
    mean[c] /= count[0];
    var[c] = channel_squares(s, partial, c, mean[c]);
  }
  FN_TRY(over_ranks(sync, context, var, s->channels));
  for (int64_t c = 0; c < s->channels; c++)
    var[c] /= count[0];
  return FN_OK;
}

/* ---- forward
 * ------------------------------------------------------------------------------------- */

/** y = leaky((x - mean) a + b + residual); mean, a and b per lane; residual may be NULL. */
static void apply_chunk(const float *x, const float *residual, int64_t count, const float *mean,
                        const float *a, const float *b, float slope, float *y) {
  int64_t i = 0;
  for (; i + FN_LANES <= count; i += FN_LANES) {
    float v[FN_LANES];
#pragma omp simd
    for (int l = 0; l < FN_LANES; l++)
      v[l] = (x[i + l] - mean[l]) * a[l] + b[l];
    if (residual) {
#pragma omp simd
      for (int l = 0; l < FN_LANES; l++)
        v[l] += residual[i + l];
    }
#pragma omp simd
    for (int l = 0; l < FN_LANES; l++)
      y[i + l] = v[l] > 0 ? v[l] : slope * v[l];
  }
  for (int l = 0; i < count; i++, l++) {
    const float v = (x[i] - mean[l]) * a[l] + b[l] + (residual ? residual[i] : 0);
    y[i] = v > 0 ? v : slope * v;
  }
}

static void apply(const norm_state *s, const fn_kernel *kernel, const float *mean, const float *a,
                  const float *b, double slope) {
  const fn_rows *r = &s->rows;
  const fn_tensor *x = &kernel->input[X], *residual = &kernel->input[RESIDUAL];
  const fn_tensor *y = &kernel->output[0];
#pragma omp parallel for schedule(static) if (s->items > 1)
  for (int64_t i = 0; i < s->items; i++) {
    float in[FN_CHUNK], extra[FN_CHUNK], out[FN_CHUNK];
    float lane_mean[FN_LANES], lane_a[FN_LANES], lane_b[FN_LANES];
    const span p = span_at(s, i);
    fn_pattern(mean, s->channels, p.k, r->block, lane_mean);
    fn_pattern(a, s->channels, p.k, r->block, lane_a);
    fn_pattern(b, s->channels, p.k, r->block, lane_b);
    const float *values = span_load(x, &p, in);
    const float *added = residual->data ? span_load(residual, &p, extra) : NULL;
    float *result = span_target(y, &p, out);
    apply_chunk(values, added, p.count, lane_mean, lane_a, lane_b, (float)slope, result);
    span_store(y, &p, result);
  }
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  norm_state *s = kernel->state;
  const fn_batch_norm_attrs *attrs = kernel->node->attrs;
  char *memory = context->workspace;
  double *total = (double *)(memory + s->total_at);
  float *factor = (float *)(memory + s->factor_at);
  const int64_t channels = s->channels;
  if (attrs->fixed) {
    for (int64_t c = 0; c < channels; c++) {
      total[c] = fn_scalar(&kernel->input[MEAN], c);
      total[channels + c] = fn_scalar(&kernel->input[VAR], c);
    }
  } else {
    FN_TRY(statistics(s, &kernel->input[X], attrs->sync, context,
                      (double *)(memory + s->partial_at), total));
    if (attrs->sync) fn_round_statistics(total, 2 * channels);
  }
  for (int64_t c = 0; c < channels; c++) {
    factor[c] = (float)total[c];
    const double a = fn_scalar(&kernel->input[SCALE], c) / sqrt(total[channels + c] + attrs->eps);
    factor[channels + c] = (float)a;
    // What rounding the mean to f32 lost goes into the shift.
    factor[2 * channels + c] =
        (float)(fn_scalar(&kernel->input[SHIFT], c) + ((double)factor[c] - total[c]) * a);
    for (int o = 1; o < 3; o++) {
      if (kernel->output[o].data) {
        fn_scalar_set(&kernel->output[o], c, total[(o - 1) * channels + c]);
      }
    }
  }
  if (kernel->output[0].data) {
    apply(s, kernel, factor, factor + channels, factor + 2 * channels, attrs->slope);
  }
  return FN_OK;
}

static fn_status prepare(fn_kernel *kernel) {
  norm_state *s = NULL;
  kernel->run = run;
  return make_state(kernel, &kernel->input[X], &s);
}

static void plan(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  // The residual follows x: it is what the convolution wrote.
  fn_cpu_plan_block(node, current[X] > 1 ? current[X] : fn_cpu_common_block(node, current), plan);
  if (fn_cpu_same(node, X, 0)) plan->in_place[0] |= 1u << X;
  if (fn_cpu_same(node, RESIDUAL, 0)) plan->in_place[0] |= 1u << RESIDUAL;
}

/* ---- gradient
 * ------------------------------------------------------------------------------------ */

/** g = dy times the slope of the activation. */
static void activation_chunk(const float *dy, const float *y, int64_t count, float slope,
                             float *g) {
#pragma omp simd
  for (int64_t i = 0; i < count; i++)
    g[i] = y[i] > 0 ? dy[i] : slope * dy[i];
}

/** Sums of g and g (x - mean) per lane of a chunk. */
static void chunk_products(const float *g, const float *x, int64_t count, int64_t block,
                           const float *mean, double *partial) {
  const fn_lane8 m0 = *(const fn_lane8 *)mean, m1 = *(const fn_lane8 *)(mean + 8);
  fn_lane8 s0 = {0}, s1 = {0}, p0 = {0}, p1 = {0};
  int64_t i = 0;
  for (; i + FN_LANES <= count; i += FN_LANES) {
    const fn_lane8 g0 = *(const fn_lane8 *)(g + i), g1 = *(const fn_lane8 *)(g + i + 8);
    s0 += g0, s1 += g1;
    p0 += g0 * (*(const fn_lane8 *)(x + i) - m0);
    p1 += g1 * (*(const fn_lane8 *)(x + i + 8) - m1);
  }
  float sum[FN_LANES], product[FN_LANES];
  memcpy(sum, &s0, sizeof s0), memcpy(sum + 8, &s1, sizeof s1);
  memcpy(product, &p0, sizeof p0), memcpy(product + 8, &p1, sizeof p1);
  for (int l = 0; i < count; i++, l++) {
    sum[l] += g[i];
    product[l] += g[i] * (x[i] - mean[l]);
  }
  fold(sum, block, partial);
  fold(product, block, partial + block);
}

/** dx = a g + b (x - mean) + c, per lane. */
static void gradient_chunk(const float *g, const float *x, int64_t count, const float *mean,
                           const float *a, const float *b, const float *c, float *dx) {
  int64_t i = 0;
  for (; i + FN_LANES <= count; i += FN_LANES) {
#pragma omp simd
    for (int l = 0; l < FN_LANES; l++) {
      dx[i + l] = a[l] * g[i + l] + (b[l] * (x[i + l] - mean[l]) + c[l]);
    }
  }
  for (int l = 0; i < count; i++, l++)
    dx[i] = a[l] * g[i] + (b[l] * (x[i] - mean[l]) + c[l]);
}

static const fn_tensor *y_of(const fn_kernel *kernel) {
  const fn_batch_norm_attrs *attrs = kernel->node->attrs;
  const bool given = kernel->node->input_count > GRAD_Y && kernel->input[GRAD_Y].data;
  return given && attrs->slope != 1 ? &kernel->input[GRAD_Y] : NULL;
}

/** g of one item: dy itself when there is no activation, else computed into `target`. */
static const float *activated(const fn_kernel *kernel, const span *p, float *scratch_dy,
                              float *scratch_y, float *target) {
  const fn_batch_norm_attrs *attrs = kernel->node->attrs;
  const fn_tensor *y = y_of(kernel);
  const float *g = span_load(&kernel->input[GRAD_DY], p, scratch_dy);
  if (!y) return g;
  activation_chunk(g, span_load(y, p, scratch_y), p->count, (float)attrs->slope, target);
  return target;
}

/** total [2 channels + 1]: sums of g and g (x - mean), and the values per channel. */
static void products(const norm_state *s, const fn_kernel *kernel, const float *mean,
                     double *partial, double *total) {
  const fn_rows *r = &s->rows;
#pragma omp parallel for schedule(static) if (s->items > 1)
  for (int64_t i = 0; i < s->items; i++) {
    float in[FN_CHUNK], grad[FN_CHUNK], out[FN_CHUNK], lane_mean[FN_LANES];
    const span p = span_at(s, i);
    fn_pattern(mean, s->channels, p.k, r->block, lane_mean);
    // Two arrays are enough: y is used up before x is loaded.
    const float *g = activated(kernel, &p, grad, in, out);
    const float *x = span_load(&kernel->input[GRAD_X], &p, in);
    chunk_products(g, x, p.count, r->block, lane_mean, partial + i * 2 * r->block);
  }
#pragma omp parallel for schedule(static) if (s->items > 64)
  for (int64_t c = 0; c < s->channels; c++) {
    total[c] = channel_sum(s, partial, 0, c);
    total[s->channels + c] = channel_sum(s, partial, 1, c);
  }
  total[2 * s->channels] = (double)(r->batch * r->cells);
}

static void write_gradients(const norm_state *s, const fn_kernel *kernel, const float *factor) {
  const fn_tensor *dx = &kernel->output[0], *dresidual = &kernel->output[3];
#pragma omp parallel for schedule(static) if (s->items > 1)
  for (int64_t i = 0; i < s->items; i++) {
    float in[FN_CHUNK], grad[FN_CHUNK], out[FN_CHUNK], lane[FACTORS][FN_LANES];
    const span p = span_at(s, i);
    for (int f = 0; f < FACTORS; f++)
      fn_pattern(factor + f * s->channels, s->channels, p.k, s->rows.block, lane[f]);
    float *target = dresidual->data ? span_target(dresidual, &p, out) : out;
    const float *g = activated(kernel, &p, grad, in, target);
    if (dresidual->data) {
      if (g != target) memmove(target, g, (size_t)p.count * sizeof *g);
      span_store(dresidual, &p, target);
    }
    if (!dx->data) continue;
    const float *x = span_load(&kernel->input[GRAD_X], &p, in);
    float *result = span_target(dx, &p, grad);
    gradient_chunk(g, x, p.count, lane[0], lane[1], lane[2], lane[3], result);
    span_store(dx, &p, result);
  }
}

static fn_status run_grad(const fn_kernel *kernel, const fn_run_context *context) {
  norm_state *s = kernel->state;
  const fn_batch_norm_attrs *attrs = kernel->node->attrs;
  char *memory = context->workspace;
  double *total = (double *)(memory + s->total_at);
  float *factor = (float *)(memory + s->factor_at);
  const int64_t channels = s->channels;
  for (int64_t c = 0; c < channels; c++) {
    factor[c] = (float)fn_scalar(&kernel->input[GRAD_MEAN], c);
  }
  products(s, kernel, factor, (double *)(memory + s->partial_at), total);
  for (int64_t c = 0; c < channels; c++) {
    const double var = fn_scalar(&kernel->input[GRAD_VAR], c);
    const double scaled = total[channels + c] / sqrt(var + attrs->eps);
    if (kernel->output[1].data) fn_scalar_set(&kernel->output[1], c, scaled);
    if (kernel->output[2].data) fn_scalar_set(&kernel->output[2], c, total[c]);
  }
  if (!attrs->fixed) FN_TRY(over_ranks(attrs->sync, context, total, 2 * channels + 1));
  const double count = total[2 * channels];
  for (int64_t c = 0; c < channels; c++) {
    const double inverse = 1 / sqrt(fn_scalar(&kernel->input[GRAD_VAR], c) + attrs->eps);
    const double a = fn_scalar(&kernel->input[GRAD_SCALE], c) * inverse;
    factor[channels + c] = (float)a;
    // Ioffe & Szegedy 2015, section 3, with the sums over the batch collected.
    factor[2 * channels + c] =
        attrs->fixed ? 0 : (float)(-a * inverse * inverse * total[channels + c] / count);
    factor[3 * channels + c] = attrs->fixed ? 0 : (float)(-a * total[c] / count);
  }
  if (kernel->output[0].data || kernel->output[3].data) write_gradients(s, kernel, factor);
  return FN_OK;
}

static fn_status prepare_grad(fn_kernel *kernel) {
  norm_state *s = NULL;
  kernel->run = run_grad;
  return make_state(kernel, &kernel->input[GRAD_X], &s);
}

static void plan_grad(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  const int64_t block = current[GRAD_X] > 1 ? current[GRAD_X] : fn_cpu_common_block(node, current);
  fn_cpu_plan_block(node, block, plan);
  for (int i = GRAD_DY; i <= GRAD_X; i++) {
    if (fn_cpu_same(node, i, 0)) plan->in_place[0] |= 1u << i;
  }
  if (fn_cpu_same(node, GRAD_DY, 3)) plan->in_place[3] |= 1u << GRAD_DY;
  if (node->input_count > GRAD_Y && fn_cpu_same(node, GRAD_Y, 3)) {
    plan->in_place[3] |= 1u << GRAD_Y;
  }
}

/* ---- running statistics
 * -------------------------------------------------------------------------- */

static fn_status run_running(const fn_kernel *kernel, const fn_run_context *context) {
  const fn_running_attrs *attrs = kernel->node->attrs;
  double factor = 1, count = (double)attrs->count;
  if (attrs->count > 0) {
    FN_TRY(over_ranks(attrs->sync, context, &count, 1));
    if (count > 1) factor = count / (count - 1);
  }
  const fn_tensor *batch = &kernel->input[0], *running = &kernel->input[1];
  const int64_t channels = fn_shape_count(&batch->shape);
  for (int64_t c = 0; c < channels; c++) {
    const double fresh = factor * fn_scalar(batch, c);
    fn_scalar_set(&kernel->output[0], c,
                  (1 - attrs->momentum) * fn_scalar(running, c) + attrs->momentum * fresh);
  }
  return FN_OK;
}

static fn_status prepare_running(fn_kernel *kernel) {
  kernel->run = run_running;
  return FN_OK;
}

static void plan_running(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  fn_cpu_plan_block(node, 1, plan);
}

const fn_cpu_op fn_cpu_norm_ops[] = {
    {&fn_op_batch_norm, NULL, plan, prepare},
    {&fn_op_batch_norm_grad, NULL, plan_grad, prepare_grad},
    {&fn_op_running, NULL, plan_running, prepare_running},
    {0},
};
