/* Batch norm with residual and activation, its gradient, and running statistics.
 *
 * Statistics: every chunk of a row gives a sum and a sum of squares about its own mean, both from
 * one visit of the memory; chunks are combined in double precision in a fixed order (Chan, Golub &
 * LeVeque 1983), so a large mean costs no digits and threads do not change the result. */
#include <math.h>
#include <omp.h>

#include "backend/cpu/internal.h"

enum { X, SCALE, SHIFT, RESIDUAL, MEAN, VAR };
enum { Y, Y_MEAN, Y_VAR, Y_LINE };
enum { GRAD_DY, GRAD_X, GRAD_SCALE, GRAD_MEAN, GRAD_VAR, GRAD_Y, GRAD_LINE };
enum {
  FACTORS = 6,  // per channel, see run() and run_grad()
  STRETCH = 64, // items visited in order of memory
  SHORT = 512,  // elements of a row below which an item costs more than its values
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
  for (int64_t b = 0; b < block; b++) {
    result[b] = 0;
    for (int64_t i = b; i < FN_LANES; i += block)
      result[b] += (double)lanes[i];
  }
}

/** Sum of x over a chunk, per lane. */
static void lane_sums(const float *x, int64_t count, float *sum) {
  fn_lane8 s0 = {0}, s1 = {0};
  int64_t i = 0;
  for (; i + FN_LANES <= count; i += FN_LANES)
    s0 += *(const fn_lane8 *)(x + i), s1 += *(const fn_lane8 *)(x + i + 8);
  memcpy(sum, &s0, sizeof s0), memcpy(sum + 8, &s1, sizeof s1);
  for (int l = 0; i < count; i++, l++)
    sum[l] += x[i];
}

/** Sum and sum of squares of x - shift over a chunk, per lane. Meanwhile as many elements at
 *  `ahead` are fetched. */
static void lane_squares(const float *x, int64_t count, const float *shift, const float *ahead,
                         float *sum, float *square) {
  const fn_lane8 m0 = *(const fn_lane8 *)shift, m1 = *(const fn_lane8 *)(shift + 8);
  fn_lane8 s[4] = {{0}}, q[4] = {{0}};
  int64_t i = 0;
  for (; i + 2 * FN_LANES <= count; i += 2 * FN_LANES) {
    __builtin_prefetch(ahead + i, 0, 2);
    __builtin_prefetch(ahead + i + FN_LANES, 0, 2);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
      const fn_lane8 d = *(const fn_lane8 *)(x + i + 8 * k) - (k % 2 ? m1 : m0);
      s[k] += d;
      q[k] += d * d;
    }
  }
  s[0] += s[2], s[1] += s[3];
  q[0] += q[2], q[1] += q[3];
  memcpy(sum, s, FN_LANES * sizeof *sum);
  memcpy(square, q, FN_LANES * sizeof *square);
  for (int l = 0; i < count; i++, l++) {
    const float d = x[i] - shift[l % FN_LANES];
    sum[l % FN_LANES] += d;
    square[l % FN_LANES] += d * d;
  }
}

/** partial = sum [block], then sum of squares about the chunk's mean [block]. The second visit
 * finds x in the cache and leaves the memory to the next chunk, `ahead`. */
static void chunk_moments(const float *x, int64_t count, int64_t block, const float *ahead,
                          double *partial) {
  float mean[FN_LANES], sum[FN_LANES], square[FN_LANES];
  double first[FN_LANES], rest[FN_LANES], squares[FN_LANES];
  const double cells = (double)(count / block);
  lane_sums(x, count, sum);
  fold(sum, block, first);
  for (int64_t b = 0; b < block; b++)
    for (int64_t i = b; i < FN_LANES; i += block)
      mean[i] = (float)(first[b] / cells);
  lane_squares(x, count, mean, ahead, sum, square);
  fold(sum, block, rest);
  fold(square, block, squares);
  for (int64_t b = 0; b < block; b++) {
    // The second visit also mends the rounding of the first sum.
    partial[b] = (double)mean[b] * cells + rest[b];
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

/** Items of a thread, [first, last). */
typedef struct share {
  int64_t first, last;
} share;

/** What the calling thread does in a parallel region. */
static share own_share(const norm_state *s) {
  const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
  return (share){s->items * thread / threads, s->items * (thread + 1) / threads};
}

/** The first of two passes goes through a share from its end, where the cache still has what was
 *  written last, to its start, where the second pass begins: in stretches, each from its start, for
 *  memory likes that better. Returns whether there is a stretch before `*part`. */
static bool stretch_before(share all, share *part) {
  const int64_t first = part->first - STRETCH;
  *part = (share){first > all.first ? first : all.first, part->first};
  return part->last > part->first;
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
#pragma omp parallel if (s->items > 1)
  {
    const share all = own_share(s);
    share part = {.first = all.last};
    while (stretch_before(all, &part)) {
      for (int64_t i = part.first; i < part.last; i++) {
        float scratch[FN_CHUNK];
        const span p = span_at(s, i), next = span_at(s, i + 1 < part.last ? i + 1 : i);
        const float *values = span_load(x, &p, scratch);
        const bool direct = values != scratch;
        const float *ahead = direct ? (const float *)x->data + piece_at(x, &next, 0) : values;
        chunk_moments(values, p.count, r->block, ahead, partial + i * 2 * r->block);
      }
    }
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

/** What is done to the channels of a block before residual and activation: (x - mean) a + b. */
typedef struct line {
  float mean[FN_LANES], a[FN_LANES], b[FN_LANES];
} line;

/** factor: mean, a and b [channels] each. */
static void line_of(const norm_state *s, const float *factor, int64_t k, line *l) {
  fn_pattern(factor, s->channels, k, s->rows.block, l->mean);
  fn_pattern(factor + s->channels, s->channels, k, s->rows.block, l->a);
  fn_pattern(factor + 2 * s->channels, s->channels, k, s->rows.block, l->b);
}

/** Eight lanes of a line, in registers. */
typedef struct line8 {
  fn_lane8 mean, a, b;
} line8;

// Vectors go by address: by value, processors without AVX would pass them in another way.
static inline void line_halves(const line *l, line8 *l0, line8 *l1) {
  l0->mean = *(const fn_lane8 *)l->mean, l1->mean = *(const fn_lane8 *)(l->mean + 8);
  l0->a = *(const fn_lane8 *)l->a, l1->a = *(const fn_lane8 *)(l->a + 8);
  l0->b = *(const fn_lane8 *)l->b, l1->b = *(const fn_lane8 *)(l->b + 8);
}

/** The gradient takes the sign of y from these two: they round as in the forward operator because
 *  they are the same. */
static inline void on_line8(const float *x, const line8 *l, fn_lane8 *v) {
  *v = (*(const fn_lane8 *)x - l->mean) * l->a + l->b;
}
static inline float on_line(float x, const line *l, int lane) {
  return (x - l->mean[lane]) * l->a[lane] + l->b[lane];
}

/** v = positive > 0 ? v : slope v; positive may be v. */
static inline void branch8(const fn_lane8 *positive, fn_lane8 *v, float slope) {
  const fn_mask8 mask = *positive > 0;
  *v = (fn_lane8)((mask & (fn_mask8)*v) | (~mask & (fn_mask8)(slope * *v)));
}
static inline float branch(float positive, float v, float slope) {
  return positive > 0 ? v : slope * v;
}

/** y = leaky((x - mean) a + b + residual); residual may be NULL. stream: y is 32-byte aligned and
 *  goes past the caches. */
static void apply_chunk(const float *x, const float *residual, int64_t count, const line *l,
                        float slope, bool stream, float *y) {
  line8 l0, l1;
  line_halves(l, &l0, &l1);
  int64_t i = 0;
  for (; i + FN_LANES <= count; i += FN_LANES) {
    fn_lane8 v0, v1;
    on_line8(x + i, &l0, &v0);
    on_line8(x + i + 8, &l1, &v1);
    if (residual) {
      v0 += *(const fn_lane8 *)(residual + i);
      v1 += *(const fn_lane8 *)(residual + i + 8);
    }
    branch8(&v0, &v0, slope);
    branch8(&v1, &v1, slope);
    fn_lane8_put(y + i, &v0, stream);
    fn_lane8_put(y + i + 8, &v1, stream);
  }
  for (int lane = 0; i < count; i++, lane++) {
    const float v = on_line(x[i], l, lane) + (residual ? residual[i] : 0);
    y[i] = branch(v, v, slope);
  }
}

/** Whether results may go past the caches: not over what was just read. */
static bool streams(const norm_state *s, const fn_kernel *kernel, int output) {
  const fn_tensor *to = &kernel->output[output];
  for (int i = 0; i < kernel->node->input_count; i++)
    if (kernel->input[i].data == to->data) return false;
  return s->group == 1 && fn_cpu_streams(to);
}

/** factor: mean, a and b [channels] each. */
static void apply(const norm_state *s, const fn_kernel *kernel, const float *factor, double slope) {
  const fn_tensor *x = &kernel->input[X], *residual = &kernel->input[RESIDUAL];
  const fn_tensor *y = &kernel->output[Y];
  const bool stream = streams(s, kernel, Y);
#pragma omp parallel if (s->items > 1)
  {
    const share all = own_share(s);
    for (int64_t i = all.first; i < all.last; i++) {
      float in[FN_CHUNK], extra[FN_CHUNK], out[FN_CHUNK];
      const span p = span_at(s, i);
      line l;
      line_of(s, factor, p.k, &l);
      const float *values = span_load(x, &p, in);
      const float *added = residual->data ? span_load(residual, &p, extra) : NULL;
      float *result = span_target(y, &p, out);
      apply_chunk(values, added, p.count, &l, (float)slope, stream, result);
      span_store(y, &p, result);
    }
    if (stream) fn_stream_fence();
  }
}

/** Output 3, [2 channels]: what the gradient needs beside the mean to find the sign of y. */
static void store_line(const fn_kernel *kernel, const float *factor, int64_t channels) {
  if (kernel->node->output_count <= Y_LINE || !kernel->output[Y_LINE].data) return;
  for (int64_t c = 0; c < 2 * channels; c++)
    fn_scalar_set(&kernel->output[Y_LINE], c, (double)factor[channels + c]);
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
    for (int o = Y_MEAN; o <= Y_VAR; o++) {
      if (kernel->output[o].data) {
        fn_scalar_set(&kernel->output[o], c, total[(o - 1) * channels + c]);
      }
    }
  }
  store_line(kernel, factor, channels);
  if (kernel->output[Y].data) apply(s, kernel, factor, attrs->slope);
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

/** Where the branch of the activation is read from. */
typedef enum source { NO_BRANCH, FROM_Y, FROM_X } source;

/** What an item's gradient is made of; y with FROM_Y, l with FROM_X (and mean always). */
typedef struct grad_item {
  const float *dy, *x, *y;
  int64_t count;
  line l;
  float slope;
} grad_item;

static inline void before8(source from, const grad_item *g, int64_t i, const line8 *l,
                           fn_lane8 *value) {
  *value = *(const fn_lane8 *)(g->dy + i);
  if (from == NO_BRANCH) return;
  fn_lane8 y;
  if (from == FROM_Y)
    y = *(const fn_lane8 *)(g->y + i);
  else
    on_line8(g->x + i, l, &y);
  branch8(&y, value, g->slope);
}

/** dy times the slope of the activation at element i, a lane of its line. */
static inline float before(source from, const grad_item *g, int64_t i, int lane) {
  if (from == NO_BRANCH) return g->dy[i];
  return branch(from == FROM_Y ? g->y[i] : on_line(g->x[i], &g->l, lane), g->dy[i], g->slope);
}

/** Sums of g = before() and g (x - mean), per lane. */
static inline __attribute__((always_inline)) void sum_lanes(source from, const grad_item *g,
                                                            float *sum, float *product) {
  line8 l0, l1;
  line_halves(&g->l, &l0, &l1);
  fn_lane8 s0 = {0}, s1 = {0}, p0 = {0}, p1 = {0};
  int64_t i = 0;
  for (; i + FN_LANES <= g->count; i += FN_LANES) {
    fn_lane8 g0, g1;
    before8(from, g, i, &l0, &g0);
    before8(from, g, i + 8, &l1, &g1);
    s0 += g0, s1 += g1;
    p0 += g0 * (*(const fn_lane8 *)(g->x + i) - l0.mean);
    p1 += g1 * (*(const fn_lane8 *)(g->x + i + 8) - l1.mean);
  }
  memcpy(sum, &s0, sizeof s0), memcpy(sum + 8, &s1, sizeof s1);
  memcpy(product, &p0, sizeof p0), memcpy(product + 8, &p1, sizeof p1);
  for (int lane = 0; i < g->count; i++, lane++) {
    const float value = before(from, g, i, lane);
    sum[lane] += value;
    product[lane] += value * (g->x[i] - g->l.mean[lane]);
  }
}

/** partial = sums of g [block], then of g (x - mean) [block]. */
static void chunk_products(source from, const grad_item *g, int64_t block, double *partial) {
  float sum[FN_LANES], product[FN_LANES];
  switch (from) { // constants, for loops of their own
    case NO_BRANCH: sum_lanes(NO_BRANCH, g, sum, product); break;
    case FROM_Y: sum_lanes(FROM_Y, g, sum, product); break;
    case FROM_X: sum_lanes(FROM_X, g, sum, product); break;
  }
  fold(sum, block, partial);
  fold(product, block, partial + block);
}

/** dx = a g + b (x - mean) + c per lane, and g itself; either may be NULL. */
typedef struct grad_result {
  float a[FN_LANES], b[FN_LANES], c[FN_LANES];
  float *dx, *g;
  bool stream; /**< dx */
} grad_result;

static inline __attribute__((always_inline)) void write_lanes(source from, const grad_item *g,
                                                              const grad_result *r) {
  line8 l0, l1;
  line_halves(&g->l, &l0, &l1);
  const fn_lane8 a0 = *(const fn_lane8 *)r->a, a1 = *(const fn_lane8 *)(r->a + 8);
  const fn_lane8 b0 = *(const fn_lane8 *)r->b, b1 = *(const fn_lane8 *)(r->b + 8);
  const fn_lane8 c0 = *(const fn_lane8 *)r->c, c1 = *(const fn_lane8 *)(r->c + 8);
  int64_t i = 0;
  for (; i + FN_LANES <= g->count; i += FN_LANES) {
    const fn_lane8 x0 = *(const fn_lane8 *)(g->x + i), x1 = *(const fn_lane8 *)(g->x + i + 8);
    fn_lane8 g0, g1;
    before8(from, g, i, &l0, &g0);
    before8(from, g, i + 8, &l1, &g1);
    // dx may lie over dy or x and g over dy or y: everything was read.
    if (r->g) *(fn_lane8 *)(r->g + i) = g0, *(fn_lane8 *)(r->g + i + 8) = g1;
    if (!r->dx) continue;
    const fn_lane8 dx0 = a0 * g0 + (b0 * (x0 - l0.mean) + c0);
    const fn_lane8 dx1 = a1 * g1 + (b1 * (x1 - l1.mean) + c1);
    fn_lane8_put(r->dx + i, &dx0, r->stream);
    fn_lane8_put(r->dx + i + 8, &dx1, r->stream);
  }
  for (int lane = 0; i < g->count; i++, lane++) {
    const float value = before(from, g, i, lane), apart = g->x[i] - g->l.mean[lane];
    if (r->g) r->g[i] = value;
    if (r->dx) r->dx[i] = r->a[lane] * value + (r->b[lane] * apart + r->c[lane]);
  }
}

static void chunk_gradients(source from, const grad_item *g, const grad_result *r) {
  switch (from) {
    case NO_BRANCH: write_lanes(NO_BRANCH, g, r); break;
    case FROM_Y: write_lanes(FROM_Y, g, r); break;
    case FROM_X: write_lanes(FROM_X, g, r); break;
  }
}

static source source_of(const fn_kernel *kernel) {
  const fn_batch_norm_attrs *attrs = kernel->node->attrs;
  if (attrs->slope == 1) return NO_BRANCH;
  const bool has_line = kernel->node->input_count > GRAD_LINE && kernel->input[GRAD_LINE].data;
  return has_line ? FROM_X : FROM_Y;
}

/** Elements of an item as f32, where they are not so in memory. */
typedef struct grad_scratch {
  float dy[FN_CHUNK], x[FN_CHUNK], y[FN_CHUNK];
} grad_scratch;

static void load_item(const norm_state *s, const fn_kernel *kernel, source from, const span *p,
                      const float *factor, grad_scratch *scratch, grad_item *g) {
  g->dy = span_load(&kernel->input[GRAD_DY], p, scratch->dy);
  g->x = span_load(&kernel->input[GRAD_X], p, scratch->x);
  g->y = from == FROM_Y ? span_load(&kernel->input[GRAD_Y], p, scratch->y) : NULL;
  g->count = p->count;
  g->slope = (float)((const fn_batch_norm_attrs *)kernel->node->attrs)->slope;
  line_of(s, factor, p->k, &g->l);
}

/** total [2 channels + 1]: sums of g and g (x - mean), and the values per channel. */
static void products(const norm_state *s, const fn_kernel *kernel, const float *factor,
                     double *partial, double *total) {
  const fn_rows *r = &s->rows;
  const source from = source_of(kernel);
#pragma omp parallel if (s->items > 1)
  {
    const share all = own_share(s);
    share part = {.first = all.last};
    while (stretch_before(all, &part)) {
      for (int64_t i = part.first; i < part.last; i++) {
        grad_scratch scratch;
        grad_item g;
        const span p = span_at(s, i);
        load_item(s, kernel, from, &p, factor, &scratch, &g);
        chunk_products(from, &g, r->block, partial + i * 2 * r->block);
      }
    }
  }
#pragma omp parallel for schedule(static) if (s->items > 64)
  for (int64_t c = 0; c < s->channels; c++) {
    total[c] = channel_sum(s, partial, 0, c);
    total[s->channels + c] = channel_sum(s, partial, 1, c);
  }
  total[2 * s->channels] = (double)(r->batch * r->cells);
}

/** factor: mean, a and b of forward's line, then a, b and c of grad_result, [channels] each. */
static void write_gradients(const norm_state *s, const fn_kernel *kernel, const float *factor) {
  const fn_tensor *dx = &kernel->output[0], *dresidual = &kernel->output[3];
  const source from = source_of(kernel);
  const bool stream = streams(s, kernel, 0);
#pragma omp parallel if (s->items > 1)
  {
    const share all = own_share(s);
    for (int64_t i = all.first; i < all.last; i++) {
      grad_scratch scratch;
      grad_item g;
      grad_result r = {.stream = stream};
      const span p = span_at(s, i);
      load_item(s, kernel, from, &p, factor, &scratch, &g);
      float *const lane[] = {r.a, r.b, r.c};
      for (int f = 0; f < 3; f++)
        fn_pattern(factor + (3 + f) * s->channels, s->channels, p.k, s->rows.block, lane[f]);
      if (dx->data) r.dx = span_target(dx, &p, scratch.dy);
      if (dresidual->data) r.g = span_target(dresidual, &p, scratch.y);
      chunk_gradients(from, &g, &r);
      if (r.dx) span_store(dx, &p, r.dx);
      if (r.g) span_store(dresidual, &p, r.g);
    }
    if (stream) fn_stream_fence();
  }
}

static fn_status run_grad(const fn_kernel *kernel, const fn_run_context *context) {
  norm_state *s = kernel->state;
  const fn_batch_norm_attrs *attrs = kernel->node->attrs;
  char *memory = context->workspace;
  double *total = (double *)(memory + s->total_at);
  float *factor = (float *)(memory + s->factor_at);
  const int64_t channels = s->channels;
  const bool from_x = source_of(kernel) == FROM_X;
  for (int64_t c = 0; c < channels; c++) {
    factor[c] = (float)fn_scalar(&kernel->input[GRAD_MEAN], c);
    for (int f = 1; f < 3; f++) {
      const int64_t at = (f - 1) * channels + c;
      factor[f * channels + c] = from_x ? (float)fn_scalar(&kernel->input[GRAD_LINE], at) : 0;
    }
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
    factor[3 * channels + c] = (float)a;
    // Ioffe & Szegedy 2015, section 3, with the sums over the batch collected.
    factor[4 * channels + c] =
        attrs->fixed ? 0 : (float)(-a * inverse * inverse * total[channels + c] / count);
    factor[5 * channels + c] = attrs->fixed ? 0 : (float)(-a * total[c] / count);
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
