/* Sums over axes: f32 within short runs, double beyond, in an order that threads do not change. */
#include "backend/cpu/grid.h"

typedef struct sum_state {
  fn_cpu_state base;
  bool rows; /**< channels kept, all cells summed: per row and chunk */
  size_t partial_at, total_at;
} sum_state;

enum { RUN = 512 }; // elements added in f32

/** Sums of x[i] for i % FN_LANES = lane. */
static void lane_totals(const float *x, int64_t count, double *total) {
  for (int l = 0; l < FN_LANES; l++)
    total[l] = 0;
  for (int64_t first = 0; first < count; first += RUN) {
    const int64_t last = fn_min_of(first + RUN, count);
    fn_lane8 s0 = {0}, s1 = {0};
    int64_t i = first;
    for (; i + FN_LANES <= last; i += FN_LANES) {
      s0 += *(const fn_lane8 *)(x + i);
      s1 += *(const fn_lane8 *)(x + i + 8);
    }
    float lanes[FN_LANES];
    memcpy(lanes, &s0, sizeof s0), memcpy(lanes + 8, &s1, sizeof s1);
    for (int l = 0; l < FN_LANES; l++)
      total[l] += (double)lanes[l];
    for (int l = 0; i < last; i++, l++)
      total[l] += (double)x[i];
  }
}

/** The result as a tensor with summed axes of size 1, as the grid wants it. */
static fn_tensor kept_view(const fn_kernel *kernel) {
  const fn_reduce_attrs *attrs = kernel->node->attrs;
  const fn_shape *x = &kernel->input[0].shape;
  fn_tensor view = kernel->output[0];
  view.shape = *x;
  for (int a = 0; a < x->ndim; a++) {
    if (attrs->axes >> a & 1) view.shape.dim[a] = 1;
  }
  view.batch_stride = fn_tensor_sample_count(&view.shape, 1);
  return view;
}

static bool sums_all_cells(const fn_node *node) {
  const fn_reduce_attrs *attrs = node->attrs;
  const int ndim = node->input[0]->shape.ndim;
  if (ndim < 3 || attrs->axes >> 1 & 1) return false;
  for (int a = 2; a < ndim; a++) {
    if (!(attrs->axes >> a & 1)) return false;
  }
  return true;
}

static bool sums_everything(const fn_node *node) {
  const unsigned all = (1u << node->input[0]->shape.ndim) - 1;
  return (((const fn_reduce_attrs *)node->attrs)->axes & all) == all;
}

/* ---- channels kept
 * ------------------------------------------------------------------------------- */

static void sum_rows(const fn_kernel *kernel, double *partial) {
  const fn_reduce_attrs *attrs = kernel->node->attrs;
  const fn_tensor *x = &kernel->input[0];
  const fn_rows r = fn_rows_of(&x->shape, x->block);
#pragma omp parallel for schedule(static) if (r.items > 1)
  for (int64_t i = 0; i < r.items; i++) {
    float in[FN_CHUNK];
    double lanes[FN_LANES];
    const fn_item it = fn_item_at(&r, i);
    lane_totals(fn_load(x, fn_offset(x, &it), it.count, in), it.count, lanes);
    double *own = partial + i * r.block;
    for (int64_t b = 0; b < r.block; b++)
      own[b] = 0;
    for (int64_t l = 0; l < FN_LANES; l++)
      own[l % r.block] += lanes[l];
  }
  const int64_t channels = x->shape.dim[1];
  const bool over_batch = attrs->axes & 1;
#pragma omp parallel for schedule(static) if (r.items > 64)
  for (int64_t c = 0; c < channels; c++) {
    double total = 0;
    for (int64_t n = 0; n < r.batch; n++) {
      for (int64_t i = 0; i < r.chunks; i++) {
        const int64_t item = (n * r.blocks + c / r.block) * r.chunks + i;
        total += partial[item * r.block + c % r.block];
      }
      if (over_batch) continue;
      fn_scalar_set(&kernel->output[0], n * channels + c, total);
      total = 0;
    }
    if (over_batch) fn_scalar_set(&kernel->output[0], c, total);
  }
}

/* ---- last axis summed
 * ---------------------------------------------------------------------------- */

static void sum_inner(const fn_kernel *kernel, const fn_grid *g, double *partial, double *total) {
  const fn_tensor *x = &kernel->input[0];
#pragma omp parallel for schedule(static) if (g->items > 1)
  for (int64_t i = 0; i < g->items; i++) {
    float in[FN_CHUNK];
    double lanes[FN_LANES], sum = 0;
    int64_t at[FN_GRID_TENSORS];
    const int64_t count = fn_cpu_grid_at(g, i, at);
    lane_totals(fn_load(x, at[0], count, in), count, lanes);
    for (int l = 0; l < FN_LANES; l++)
      sum += lanes[l];
    partial[i] = sum;
  }
  const int64_t kept = fn_shape_count(&kernel->output[0].shape);
  for (int64_t k = 0; k < kept; k++)
    total[k] = 0;
  for (int64_t i = 0; i < g->items; i++) {
    int64_t at[FN_GRID_TENSORS];
    fn_cpu_grid_at(g, i, at);
    total[at[1]] += partial[i];
  }
  for (int64_t k = 0; k < kept; k++)
    fn_scalar_set(&kernel->output[0], k, total[k]);
}

/* ---- last axis kept
 * ------------------------------------------------------------------------------ */

/** Split the outer axes of g into kept and summed ones. */
static fn_grid part_of(const fn_grid *g, bool kept) {
  fn_grid part = {.tensors = 2, .outer = 1};
  for (int a = 0; a < g->ndim - 1; a++) {
    if ((g->stride[1][a] != 0) != kept) continue;
    for (int t = 0; t < 2; t++)
      part.stride[t][part.ndim] = g->stride[t][a];
    part.dim[part.ndim++] = g->dim[a];
    part.outer *= g->dim[a];
  }
  // A last axis for fn_cpu_grid_at: the chunks of g for kept ones, nothing for summed ones.
  for (int t = 0; t < 2; t++)
    part.stride[t][part.ndim] = kept ? g->stride[t][g->ndim - 1] : 0;
  part.dim[part.ndim++] = kept ? g->dim[g->ndim - 1] : 1;
  part.chunks = kept ? g->chunks : 1;
  part.items = part.outer * part.chunks;
  return part;
}

static void sum_outer(const fn_kernel *kernel, const fn_grid *g) {
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const fn_grid kept = part_of(g, true), summed = part_of(g, false);
  const int64_t step = kept.stride[0][kept.ndim - 1], y_step = kept.stride[1][kept.ndim - 1];
#pragma omp parallel for schedule(static) if (kept.items > 1)
  for (int64_t i = 0; i < kept.items; i++) {
    float in[FN_CHUNK];
    double total[FN_CHUNK];
    int64_t at[FN_GRID_TENSORS], term[FN_GRID_TENSORS];
    const int64_t count = fn_cpu_grid_at(&kept, i, at);
    for (int64_t e = 0; e < count; e++)
      total[e] = 0;
    for (int64_t j = 0; j < summed.items; j++) {
      fn_cpu_grid_at(&summed, j, term);
      const float *values = fn_cpu_load_strided(x, at[0] + term[0], step, count, in);
#pragma omp simd
      for (int64_t e = 0; e < count; e++)
        total[e] += (double)values[e];
    }
    for (int64_t e = 0; e < count; e++)
      fn_scalar_set(y, at[1] + e * y_step, total[e]);
  }
}

/* ---- operator
 * ------------------------------------------------------------------------------------ */

static fn_grid grid_of(const fn_kernel *kernel) {
  const fn_tensor kept = kept_view(kernel);
  return fn_cpu_grid((const fn_tensor *const[]){&kernel->input[0], &kept}, 2);
}

static fn_status run_sum(const fn_kernel *kernel, const fn_run_context *context) {
  const sum_state *s = kernel->state;
  char *memory = context->workspace;
  double *partial = (double *)(memory + s->partial_at), *total = (double *)(memory + s->total_at);
  if (s->rows) {
    sum_rows(kernel, partial);
    return FN_OK;
  }
  const fn_grid g = grid_of(kernel);
  if (g.stride[1][g.ndim - 1] == 0)
    sum_inner(kernel, &g, partial, total);
  else
    sum_outer(kernel, &g);
  return FN_OK;
}

static fn_status prepare_sum(fn_kernel *kernel) {
  sum_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  kernel->run = run_sum;
  const fn_tensor *x = &kernel->input[0];
  s->rows = sums_all_cells(kernel->node);
  const fn_rows rows = fn_rows_of(&x->shape, x->block);
  const fn_grid g = grid_of(kernel);
  const int64_t partials = s->rows ? rows.items * rows.block : g.items;
  s->partial_at = fn_cpu_carve(kernel, (size_t)partials * sizeof(double));
  s->total_at =
      fn_cpu_carve(kernel, (size_t)fn_shape_count(&kernel->output[0].shape) * sizeof(double));
  return FN_OK;
}

static void plan_sum(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  const bool any_layout = sums_all_cells(node) || sums_everything(node);
  fn_cpu_plan_block(node, any_layout ? fn_cpu_common_block(node, current) : 1, plan);
  plan->out_block[0] = 1;
  plan->strided_out[0] = false;
}

const fn_cpu_op fn_cpu_reduce_ops[] = {
    {&fn_op_sum, NULL, plan_sum, prepare_sum},
    {0},
};
