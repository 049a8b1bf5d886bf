/* Sums over axes, and softmax over channels. */
#include "backend/gpu/strides.h"
#include "ops/ops.h"

/* ---- sum
 * ----------------------------------------------------------------------------------------- */

typedef struct sum_state {
  fn_gpu_state base;
  int64_t blocks, chunks;
  fn_sum_args sum;
  fn_sum_finish_args finish;
} sum_state;

static fn_status run_sum(const fn_kernel *kernel, const fn_run_context *context) {
  sum_state *s = kernel->state;
  if (s->chunks == 1) return fn_gpu_launch(s->base.platform, sum, s->blocks, &s->sum);
  s->sum.partial = context->workspace;
  s->finish.partial = context->workspace;
  FN_TRY(fn_gpu_launch(s->base.platform, sum, s->blocks, &s->sum));
  const int64_t blocks = (s->finish.kept.count + s->finish.tile - 1) / s->finish.tile;
  return fn_gpu_launch(s->base.platform, sum_finish, blocks, &s->finish);
}

static int64_t smallest_stride(const fn_loop *loop) {
  int64_t least = INT64_MAX;
  for (int a = 0; a < loop->axes; a++)
    if (loop->stride[0][a] < least) least = loop->stride[0][a];
  return least;
}

/** Least power of two that is not below n, at most FN_GPU_THREADS. */
static int64_t power_above(int64_t n) {
  int64_t power = 1;
  while (power < n && power < FN_GPU_THREADS)
    power *= 2;
  return power;
}

/** Loops over the kept and over the summed axes of x. */
static void split_axes(const fn_kernel *kernel, fn_loop *kept, fn_loop *summed) {
  const fn_reduce_attrs *attrs = kernel->node->attrs;
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  const fn_operand from = fn_gpu_operand(x), to = fn_gpu_operand(y);
  fn_operand k[2] = {{.data = from.data, .dtype = from.dtype},
                     {.data = to.data, .dtype = to.dtype}};
  fn_operand r = {.data = from.data, .dtype = from.dtype};
  fn_shape kept_shape = {.ndim = 0}, summed_shape = {.ndim = 0};
  for (int a = 0, out = 0; a < x->shape.ndim; a++) {
    if (attrs->axes >> a & 1) {
      r.stride[summed_shape.ndim] = from.stride[a];
      summed_shape.dim[summed_shape.ndim++] = x->shape.dim[a];
      if (attrs->keep) out++;
    } else {
      k[0].stride[kept_shape.ndim] = from.stride[a];
      k[1].stride[kept_shape.ndim] = to.stride[out++];
      kept_shape.dim[kept_shape.ndim++] = x->shape.dim[a];
    }
  }
  *kept = fn_gpu_loop(&kept_shape, 2, k, false);
  *summed = fn_gpu_loop(&summed_shape, 1, &r, false);
}

static fn_status prepare_sum(fn_gpu_platform *platform, fn_kernel *kernel) {
  enum { BLOCKS = 1024, LEAST_EACH = 8 };
  sum_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  fn_sum_args *a = &s->sum;
  *a =
      (fn_sum_args){.x = x->data, .y = y->data, .x_dtype = (int)x->dtype, .y_dtype = (int)y->dtype};
  split_axes(kernel, &a->kept, &a->summed);
  a->along = smallest_stride(&a->summed) < smallest_stride(&a->kept);
  // Threads go along the faster of the two first.
  int64_t tile =
      a->along ? FN_GPU_THREADS / power_above(a->summed.count) : power_above(a->kept.count);
  if (!a->along && tile > 32 && a->summed.count >= 8) tile = 32;
  a->tile = (int)tile;
  const int64_t lanes = FN_GPU_THREADS / tile, tiles = (a->kept.count + tile - 1) / tile;
  int64_t chunks = a->summed.count / (lanes * LEAST_EACH);
  if (chunks > BLOCKS / tiles) chunks = BLOCKS / tiles;
  if (chunks < 1) chunks = 1;
  a->tiles = fn_gpu_divider(tiles);
  a->chunk = (a->summed.count + chunks - 1) / chunks;
  s->chunks = (a->summed.count + a->chunk - 1) / a->chunk;
  s->blocks = tiles * s->chunks;
  if (s->chunks > 1) {
    a->y = NULL;
    fn_gpu_carve(kernel, (size_t)(s->chunks * a->kept.count) * sizeof(double));
    s->finish = (fn_sum_finish_args){.y = y->data,
                                     .y_dtype = (int)y->dtype,
                                     .chunks = s->chunks,
                                     .kept = a->kept,
                                     .tile = (int)(FN_GPU_THREADS / power_above(s->chunks))};
  }
  kernel->run = run_sum;
  return FN_OK;
}

static void plan_sum(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)node;
  plan->in_block[0] = current[0];
}

/* ---- log softmax
 * --------------------------------------------------------------------------------- */

typedef struct softmax_state {
  fn_gpu_state base;
  fn_log_softmax_args args;
} softmax_state;

static fn_status run_log_softmax(const fn_kernel *kernel, const fn_run_context *context) {
  (void)context;
  const softmax_state *s = kernel->state;
  return fn_gpu_launch(s->base.platform, log_softmax, fn_gpu_blocks(s->args.loop.count, 1),
                       &s->args);
}

static fn_status prepare_log_softmax(fn_gpu_platform *platform, fn_kernel *kernel) {
  softmax_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  const fn_tensor *x = &kernel->input[0], *y = &kernel->output[0];
  fn_shape cells = x->shape;
  cells.dim[1] = 1;
  s->args = (fn_log_softmax_args){.x = fn_gpu_view(x),
                                  .y = fn_gpu_view(y),
                                  .channels = x->shape.dim[1],
                                  .loop = fn_gpu_cell_loop(&cells, false)};
  kernel->run = run_log_softmax;
  return FN_OK;
}

static void plan_log_softmax(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  if (fn_gpu_same(node, 0, 0)) plan->in_place[0] = 1;
}

const fn_gpu_op fn_gpu_reduce_ops[] = {
    {&fn_op_sum, NULL, plan_sum, prepare_sum},
    {&fn_op_log_softmax, NULL, plan_log_softmax, prepare_log_softmax},
    {0},
};
