/* Batch norm, its gradient, running statistics, folding into convolutions. */
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/strides.h"
#include "ops/ops.h"

enum { X, SCALE, SHIFT, RESIDUAL, MEAN, VAR };
enum { GRAD_DY, GRAD_X, GRAD_SCALE, GRAD_MEAN, GRAD_VAR, GRAD_Y };

/** What both directions share. */
typedef struct norm_state {
  fn_gpu_state base;
  int64_t rows, channels;
  int width;
  fn_columns columns;
  size_t partial_at; /**< double [chunks][2][channels] */
  size_t total_at;   /**< double [2 channels + 1] */
  size_t factor_at;  /**< float [4][channels] */
  double *host;      /**< pinned, [2 channels + 1]: statistics over ranks; NULL: not needed */
  union {
    struct {
      fn_norm_statistics_args statistics;
      fn_norm_finish_args finish;
      fn_norm_known_args known;
      fn_norm_apply_args apply;
    } forward;
    struct {
      fn_norm_products_args products;
      fn_norm_grad_finish_args finish;
      fn_norm_grad_known_args known;
      fn_norm_grad_apply_args apply;
    } grad;
  } args;
} norm_state;

static void release(fn_gpu_state *base) {
  norm_state *s = (norm_state *)base;
  fn_device *device = &base->platform->device;
  if (s->host) device->release_pinned(device, s->host);
}

/** Enough blocks to fill a device, enough rows for each of their threads. */
static fn_columns make_columns(const fn_tensor *x, int width) {
  enum { TILE_MOST = 32, BLOCKS = 1024, LEAST_EACH = 16 };
  const int64_t channels = x->shape.dim[1];
  fn_columns k = {.channels = channels, .width = width, .tile = 1};
  k.rows = fn_shape_count(&x->shape) / channels;
  k.cells = fn_gpu_divider(k.rows / x->shape.dim[0]);
  while (k.tile * width < channels && k.tile < TILE_MOST)
    k.tile *= 2;
  const int64_t lanes = FN_GPU_THREADS / k.tile;
  const int64_t tiles = (channels + k.tile * width - 1) / (k.tile * width);
  int64_t chunks = k.rows / (lanes * LEAST_EACH);
  if (chunks > BLOCKS / tiles) chunks = BLOCKS / tiles;
  if (chunks < 1) chunks = 1;
  k.chunk = (k.rows + chunks - 1) / chunks;
  k.chunks = (k.rows + k.chunk - 1) / k.chunk;
  k.tiles = fn_gpu_divider(tiles);
  return k;
}

static fn_status make_state(fn_gpu_platform *platform, fn_kernel *kernel, const fn_tensor *x,
                            bool wide, bool sync, norm_state **state) {
  norm_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  s->base.release = release;
  s->width = wide ? FN_GPU_WIDTH : 1;
  s->columns = make_columns(x, s->width);
  s->rows = s->columns.rows;
  s->channels = s->columns.channels;
  const size_t channels = (size_t)s->channels;
  s->partial_at = fn_gpu_carve(kernel, (size_t)s->columns.chunks * 2 * channels * sizeof(double));
  s->total_at = fn_gpu_carve(kernel, (2 * channels + 1) * sizeof(double));
  s->factor_at = fn_gpu_carve(kernel, 4 * channels * sizeof(float));
  *state = s;
  if (!sync) return FN_OK;
  void *host;
  FN_TRY(platform->device.allocate_pinned(&platform->device, (2 * channels + 1) * sizeof(double),
                                          &host));
  s->host = host;
  return FN_OK;
}

static fn_divider turns_of(const norm_state *s) {
  return fn_gpu_divider(s->channels / s->width);
}

static const void *data_of(const fn_kernel *kernel, int input) {
  return input < kernel->node->input_count ? kernel->input[input].data : NULL;
}

static fn_view cells_of(const fn_kernel *kernel, int input) {
  return data_of(kernel, input) ? fn_gpu_view(&kernel->input[input]) : (fn_view){.data = NULL};
}

static bool all_wide(const fn_tensor *const *tensors, int count) {
  for (int i = 0; i < count; i++)
    if (tensors[i] && tensors[i]->data && !fn_gpu_view_wide(tensors[i])) return false;
  return true;
}

/* ---- over ranks: the host takes part
 * ------------------------------------------------------------- */

static bool has_ranks(bool sync, const fn_run_context *context) {
  return sync && context->collectives && context->collectives->size > 1;
}

static fn_status to_host(norm_state *s, const double *total, int64_t count) {
  fn_device *device = &s->base.platform->device;
  FN_TRY(device->copy(device, FN_STREAM_COMPUTE, s->host, total, (size_t)count * sizeof(double),
                      FN_COPY_TO_HOST));
  return device->synchronize ? device->synchronize(device, FN_STREAM_COMPUTE) : FN_OK;
}

static fn_status to_device(norm_state *s, double *total, int64_t count) {
  fn_device *device = &s->base.platform->device;
  return device->copy(device, FN_STREAM_COMPUTE, total, s->host, (size_t)count * sizeof(double),
                      FN_COPY_TO_DEVICE);
}

static fn_status sum_ranks(const fn_run_context *context, double *values, int64_t count) {
  return context->collectives->sum(context->collectives->self, values, count);
}

/** total [2][channels]: this rank's sums and squares about its mean -> mean and variance over all
 *  ranks (Chan, Golub & LeVeque 1983). */
static fn_status statistics_over_ranks(norm_state *s, const fn_run_context *context,
                                       double *total) {
  const int64_t channels = s->channels;
  const double own = (double)s->rows;
  FN_TRY(to_host(s, total, 2 * channels));
  double *mean = s->host, *squares = s->host + channels;
  double *own_mean = malloc((size_t)channels * sizeof *own_mean);
  FN_CHECK(own_mean, FN_ERR_MEMORY, "batch norm: no memory for %lld sums", (long long)channels);
  for (int64_t c = 0; c < channels; c++)
    own_mean[c] = mean[c] / own;
  double count = own;
  fn_status status = sum_ranks(context, &count, 1);
  if (status == FN_OK) status = sum_ranks(context, mean, channels);
  for (int64_t c = 0; c < channels; c++) {
    mean[c] /= count;
    squares[c] += own * (own_mean[c] - mean[c]) * (own_mean[c] - mean[c]);
  }
  free(own_mean);
  if (status == FN_OK) status = sum_ranks(context, squares, channels);
  FN_TRY(status);
  for (int64_t c = 0; c < channels; c++)
    squares[c] /= count;
  return to_device(s, total, 2 * channels);
}

/* ---- forward
 * ------------------------------------------------------------------------------------- */

static int64_t finish_blocks(const norm_state *s) {
  return (s->channels + FN_FINISH_TILE - 1) / FN_FINISH_TILE;
}

static int64_t sum_blocks(const norm_state *s) {
  return s->columns.tiles.by * s->columns.chunks;
}

static fn_status make_factors(norm_state *s, bool fixed, bool sync, const fn_run_context *context) {
  fn_gpu_platform *platform = s->base.platform;
  char *memory = context->workspace;
  fn_norm_finish_args *finish = &s->args.forward.finish;
  fn_norm_known_args *known = &s->args.forward.known;
  double *total = (double *)(memory + s->total_at);
  known->factors.factor = finish->factors.factor = (float *)(memory + s->factor_at);
  known->factors.round = finish->factors.round = sync;
  const bool ranks = !fixed && has_ranks(sync, context);
  if (!fixed) {
    s->args.forward.statistics.partial = (double *)(memory + s->partial_at);
    finish->partial = s->args.forward.statistics.partial;
    finish->total = ranks ? total : NULL;
    FN_TRY(fn_gpu_launch(platform, norm_statistics, sum_blocks(s), &s->args.forward.statistics));
    FN_TRY(fn_gpu_launch(platform, norm_finish, finish_blocks(s), finish));
    if (!ranks) return FN_OK;
    FN_TRY(statistics_over_ranks(s, context, total));
  }
  known->total = ranks ? total : NULL;
  return fn_gpu_launch(platform, norm_known, fn_gpu_blocks(s->channels, 1), known);
}

static fn_status run_norm(const fn_kernel *kernel, const fn_run_context *context) {
  norm_state *s = kernel->state;
  const fn_batch_norm_attrs *attrs = kernel->node->attrs;
  fn_norm_apply_args *apply = &s->args.forward.apply;
  FN_TRY(make_factors(s, attrs->fixed, attrs->sync && !attrs->fixed, context));
  if (!apply->y.data) return FN_OK;
  apply->factor = (float *)((char *)context->workspace + s->factor_at);
  return fn_gpu_launch(s->base.platform, norm_apply, fn_gpu_blocks(apply->count, 1), apply);
}

static fn_status prepare_norm(fn_gpu_platform *platform, fn_kernel *kernel) {
  const fn_batch_norm_attrs *attrs = kernel->node->attrs;
  const fn_tensor *in = kernel->input, *out = kernel->output;
  const bool residual = data_of(kernel, RESIDUAL) != NULL;
  const fn_tensor *const used[] = {&in[X], &out[0], residual ? &in[RESIDUAL] : NULL};
  norm_state *s;
  FN_TRY(make_state(platform, kernel, &in[X], all_wide(used, 3), attrs->sync && !attrs->fixed, &s));
  s->args.forward.statistics =
      (fn_norm_statistics_args){.columns = s->columns, .x = fn_gpu_view(&in[X])};
  const fn_norm_factors factors = {.channels = s->channels,
                                   .scale = in[SCALE].data,
                                   .shift = in[SHIFT].data,
                                   .scale_dtype = (int)in[SCALE].dtype,
                                   .shift_dtype = (int)in[SHIFT].dtype,
                                   .eps = attrs->eps,
                                   .mean = out[1].data,
                                   .var = out[2].data,
                                   .mean_dtype = (int)out[1].dtype,
                                   .var_dtype = (int)out[2].dtype};
  s->args.forward.finish = (fn_norm_finish_args){.chunks = s->columns.chunks,
                                                 .rows = s->rows,
                                                 .x = fn_gpu_view(&in[X]),
                                                 .cells = s->columns.cells,
                                                 .factors = factors};
  s->args.forward.known = (fn_norm_known_args){.factors = factors};
  if (attrs->fixed) {
    s->args.forward.known.mean = in[MEAN].data;
    s->args.forward.known.var = in[VAR].data;
    s->args.forward.known.mean_dtype = (int)in[MEAN].dtype;
    s->args.forward.known.var_dtype = (int)in[VAR].dtype;
  }
  s->args.forward.apply = (fn_norm_apply_args){.x = fn_gpu_view(&in[X]),
                                               .residual = cells_of(kernel, RESIDUAL),
                                               .y = fn_gpu_view(&out[0]),
                                               .channels = s->channels,
                                               .count = s->rows * s->channels / s->width,
                                               .turns = turns_of(s),
                                               .cells = s->columns.cells,
                                               .width = s->width,
                                               .slope = (float)attrs->slope};
  kernel->run = run_norm;
  return FN_OK;
}

static void plan_norm(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  if (fn_gpu_same(node, X, 0)) plan->in_place[0] |= 1u << X;
  if (node->input_count > RESIDUAL && fn_gpu_same(node, RESIDUAL, 0))
    plan->in_place[0] |= 1u << RESIDUAL;
}

/* ---- gradient
 * ------------------------------------------------------------------------------------ */

static fn_status run_grad(const fn_kernel *kernel, const fn_run_context *context) {
  norm_state *s = kernel->state;
  fn_gpu_platform *platform = s->base.platform;
  const fn_batch_norm_attrs *attrs = kernel->node->attrs;
  const bool ranks = !attrs->fixed && has_ranks(attrs->sync, context);
  char *memory = context->workspace;
  double *total = (double *)(memory + s->total_at);
  fn_norm_grad_finish_args *finish = &s->args.grad.finish;
  fn_norm_grad_known_args *known = &s->args.grad.known;
  fn_norm_grad_apply_args *apply = &s->args.grad.apply;
  s->args.grad.products.partial = (double *)(memory + s->partial_at);
  finish->partial = s->args.grad.products.partial;
  finish->total = ranks ? total : NULL;
  finish->factors.factor = known->factors.factor = (float *)(memory + s->factor_at);
  apply->factor = finish->factors.factor;
  FN_TRY(fn_gpu_launch(platform, norm_products, sum_blocks(s), &s->args.grad.products));
  FN_TRY(fn_gpu_launch(platform, norm_grad_finish, finish_blocks(s), finish));
  if (ranks) {
    FN_TRY(to_host(s, total, 2 * s->channels));
    s->host[2 * s->channels] = (double)s->rows;
    FN_TRY(sum_ranks(context, s->host, 2 * s->channels + 1));
    FN_TRY(to_device(s, total, 2 * s->channels + 1));
    known->total = total;
    FN_TRY(fn_gpu_launch(platform, norm_grad_known, fn_gpu_blocks(s->channels, 1), known));
  }
  if (!apply->dx.data && !apply->dresidual.data) return FN_OK;
  return fn_gpu_launch(platform, norm_grad_apply, fn_gpu_blocks(apply->count, 1), apply);
}

static fn_status prepare_grad(fn_gpu_platform *platform, fn_kernel *kernel) {
  const fn_batch_norm_attrs *attrs = kernel->node->attrs;
  const fn_tensor *in = kernel->input, *out = kernel->output;
  const bool active = attrs->slope != 1 && data_of(kernel, GRAD_Y);
  const fn_tensor *const used[] = {&in[GRAD_DY], &in[GRAD_X], active ? &in[GRAD_Y] : NULL, &out[0],
                                   &out[3]};
  norm_state *s;
  FN_TRY(make_state(platform, kernel, &in[GRAD_X], all_wide(used, 5), attrs->sync && !attrs->fixed,
                    &s));
  const fn_view none = {.data = NULL};
  const fn_view dy = fn_gpu_view(&in[GRAD_DY]), x = fn_gpu_view(&in[GRAD_X]);
  const fn_view y = active ? fn_gpu_view(&in[GRAD_Y]) : none;
  s->args.grad.products = (fn_norm_products_args){.columns = s->columns,
                                                  .dy = dy,
                                                  .x = x,
                                                  .y = y,
                                                  .slope = (float)attrs->slope,
                                                  .mean = in[GRAD_MEAN].data,
                                                  .mean_dtype = (int)in[GRAD_MEAN].dtype};
  const fn_norm_grad_factors factors = {.channels = s->channels,
                                        .scale = in[GRAD_SCALE].data,
                                        .mean = in[GRAD_MEAN].data,
                                        .var = in[GRAD_VAR].data,
                                        .scale_dtype = (int)in[GRAD_SCALE].dtype,
                                        .mean_dtype = (int)in[GRAD_MEAN].dtype,
                                        .var_dtype = (int)in[GRAD_VAR].dtype,
                                        .eps = attrs->eps,
                                        .fixed = attrs->fixed};
  s->args.grad.known = (fn_norm_grad_known_args){.factors = factors};
  s->args.grad.finish = (fn_norm_grad_finish_args){.chunks = s->columns.chunks,
                                                   .rows = s->rows,
                                                   .factors = factors,
                                                   .dscale = out[1].data,
                                                   .dshift = out[2].data,
                                                   .dscale_dtype = (int)out[1].dtype,
                                                   .dshift_dtype = (int)out[2].dtype};
  s->args.grad.apply =
      (fn_norm_grad_apply_args){.dy = dy,
                                .x = x,
                                .y = y,
                                .dx = out[0].data ? fn_gpu_view(&out[0]) : none,
                                .dresidual = out[3].data ? fn_gpu_view(&out[3]) : none,
                                .channels = s->channels,
                                .count = s->rows * s->channels / s->width,
                                .turns = turns_of(s),
                                .cells = s->columns.cells,
                                .width = s->width,
                                .slope = (float)attrs->slope};
  kernel->run = run_grad;
  return FN_OK;
}

static void plan_grad(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  for (int i = GRAD_DY; i <= GRAD_X; i++)
    if (fn_gpu_same(node, i, 0)) plan->in_place[0] |= 1u << i;
  if (fn_gpu_same(node, GRAD_DY, 3)) plan->in_place[3] |= 1u << GRAD_DY;
  if (node->input_count > GRAD_Y && fn_gpu_same(node, GRAD_Y, 3)) plan->in_place[3] |= 1u << GRAD_Y;
}

/* ---- running statistics
 * -------------------------------------------------------------------------- */

typedef struct running_state {
  fn_gpu_state base;
  fn_running_args args;
} running_state;

static fn_status run_running(const fn_kernel *kernel, const fn_run_context *context) {
  running_state *s = kernel->state;
  const fn_running_attrs *attrs = kernel->node->attrs;
  double factor = 1, count = (double)attrs->count;
  if (attrs->count > 0) {
    if (has_ranks(attrs->sync, context)) FN_TRY(sum_ranks(context, &count, 1));
    if (count > 1) factor = count / (count - 1);
  }
  s->args.keep = 1 - attrs->momentum;
  s->args.blend = attrs->momentum * factor;
  return fn_gpu_launch(s->base.platform, running, fn_gpu_blocks(s->args.channels, 1), &s->args);
}

static fn_status prepare_running(fn_gpu_platform *platform, fn_kernel *kernel) {
  running_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_tensor *batch = &kernel->input[0], *running = &kernel->input[1];
  const fn_tensor *y = &kernel->output[0];
  s->args = (fn_running_args){.y = y->data,
                              .batch = batch->data,
                              .running = running->data,
                              .y_dtype = (int)y->dtype,
                              .batch_dtype = (int)batch->dtype,
                              .running_dtype = (int)running->dtype,
                              .channels = y->shape.dim[0]};
  kernel->run = run_running;
  return FN_OK;
}

/* ---- folding
 * ------------------------------------------------------------------------------------- */

typedef struct fold_state {
  fn_gpu_state base;
  fn_fold_norm_args args;
} fold_state;

static fn_status run_fold(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const fold_state *s = kernel->state;
  return fn_gpu_launch(s->base.platform, fold_norm, fn_gpu_blocks(s->args.count, 1), &s->args);
}

static fn_status prepare_fold(fn_gpu_platform *platform, fn_kernel *kernel) {
  fold_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_fold_attrs *attrs = kernel->node->attrs;
  const fn_tensor *w = &kernel->input[0], *folded = &kernel->output[0], *bias = &kernel->output[1];
  const int64_t rows = w->shape.dim[0], columns = w->shape.dim[1];
  const fn_operand from = fn_gpu_operand(w), to = fn_gpu_operand(folded);
  const int last = w->shape.ndim - 1; // taps are dense among themselves
  fn_fold_norm_args *a = &s->args;
  *a = (fn_fold_norm_args){
      .w = w->data,
      .folded = folded->data,
      .bias = bias->data,
      .w_dtype = (int)w->dtype,
      .folded_dtype = (int)folded->dtype,
      .bias_dtype = (int)bias->dtype,
      .rows = rows,
      .count = folded->data ? fn_shape_count(&w->shape) : 0,
      .channels = bias->shape.dim[0],
      .columns = fn_gpu_divider(columns),
      .taps = fn_gpu_divider(fn_shape_count(&w->shape) / (rows * columns)),
      .w_stride = {from.stride[0], from.stride[1], from.stride[last]},
      .folded_stride = {to.stride[0], to.stride[1], to.stride[last]},
      .group_rows = rows / attrs->groups,
      .transposed = attrs->transposed,
      .eps = attrs->eps,
  };
  for (int i = 0; i < 5; i++) {
    a->in[i] = kernel->input[1 + i].data;
    a->in_dtype[i] = (int)kernel->input[1 + i].dtype;
  }
  kernel->run = run_fold;
  return FN_OK;
}

/** Filters are kept plain: see library.c. */
static void plan_fold(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)node;
  (void)current;
  plan->in_block[0] = plan->out_block[0] = 1;
}

const fn_gpu_op fn_gpu_norm_ops[] = {
    {&fn_op_batch_norm, NULL, plan_norm, prepare_norm},
    {&fn_op_batch_norm_grad, NULL, plan_grad, prepare_grad},
    {&fn_op_running, NULL, NULL, prepare_running},
    {&fn_op_fold_norm, NULL, plan_fold, prepare_fold},
    {0},
};
