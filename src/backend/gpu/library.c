/* Convolutions and matrix products: what lies around the library's call.
 *
 * A convolution packs its filter channels-last into the workspace (one read and one write of a few
 * MB: parameters stay plain, so that checkpoints, optimizers and other backends need not know),
 * runs the library, and leaves to one kernel of our own what the library does not fuse: bias,
 * residual, activation. The gradient of a filter comes back the same way; that of a bias is a sum
 * of our own. What the library takes only densely is copied; what it does not take at all runs on
 * our own kernels (kernels/conv.h). Bias and activation of a matrix product are the library's, or
 * the same kernel's. */
#include <string.h>

#include "backend/gpu/kernels.h"
#include "backend/gpu/strides.h"
#include "base/log.h"
#include "ops/geometry.h"
#include "ops/ops.h"

static size_t carve(fn_kernel *kernel, size_t bytes) {
  enum { ALIGN = 256 };
  const size_t at = (kernel->workspace + ALIGN - 1) / ALIGN * ALIGN;
  kernel->workspace = at + bytes;
  return at;
}

static int64_t cells_of(const fn_shape *shape) {
  int64_t cells = 1;
  for (int a = 2; a < shape->ndim; a++)
    cells *= shape->dim[a];
  return cells;
}

static int64_t pitch_of(const fn_tensor *t) {
  return t->pitch ? t->pitch : t->block > 1 ? t->block : 1;
}

static fn_cells cells_at(const fn_tensor *t, void *data) {
  return (fn_cells){data, (int)t->dtype, t->batch_stride, pitch_of(t)};
}

/** The tensor without gaps, channels-last from three axes on. */
static fn_tensor dense(const fn_tensor *t, fn_dtype dtype) {
  const int64_t block = t->shape.ndim >= 3 ? t->shape.dim[1] : 1;
  return (fn_tensor){.dtype = dtype,
                     .shape = t->shape,
                     .block = block,
                     .batch_stride = fn_tensor_sample_count(&t->shape, block),
                     .pitch = block};
}

static bool is_dense(const fn_tensor *t) {
  const fn_tensor d = dense(t, t->dtype);
  return pitch_of(t) == d.pitch && (t->batch_stride == d.batch_stride || t->shape.dim[0] == 1);
}

static size_t bytes_of(const fn_tensor *t) {
  return (size_t)fn_shape_count(&t->shape) * fn_dtype_size(t->dtype);
}

/* ---- convolution -------------------------------------------------------------------------------
 */

typedef enum role { FORWARD, DATA, WEIGHT } role;

/** Where a port of the call lies: in the kernel's memory, or at an offset of the workspace. */
typedef struct port_place {
  bool copied;
  size_t at;
} port_place;

typedef struct conv_state {
  fn_gpu_state base;
  role role;
  fn_gpu_call call;
  bool direct; /**< our own kernels */
  fn_conv_args args;
  port_place in[2], out;      /**< activations and filter of the call */
  bool after;                 /**< a pass follows that finishes or copies the result */
  size_t at_library, at_sums; /**< workspace of the call, partial sums of the bias */
} conv_state;

static role role_of(const fn_node *node) {
  return node->op == &fn_op_conv ? FORWARD : node->op == &fn_op_conv_data ? DATA : WEIGHT;
}

/** Ports of x, w and y: inputs from 0, the result is -1. */
static void ports_of(role r, int *x, int *w, int *y) {
  *x = r == DATA ? -1 : 0;
  *w = r == WEIGHT ? -1 : 1;
  *y = r == FORWARD ? -1 : r == DATA ? 0 : 1;
}

static const fn_tensor *port(const fn_kernel *kernel, int index) {
  return index < 0 ? &kernel->output[0] : &kernel->input[index];
}

static const fn_tensor *optional(const fn_kernel *kernel, int index) {
  const bool there = kernel->node->op != &fn_op_conv_weight && index < kernel->node->input_count &&
                     kernel->input[index].data;
  return there ? &kernel->input[index] : NULL;
}

static float slope_of(const fn_node *node) {
  if (node->op == &fn_op_matmul) return (float)((const fn_matmul_attrs *)node->attrs)->slope;
  return node->op == &fn_op_conv_weight ? 1 : (float)((const fn_conv_attrs *)node->attrs)->slope;
}

/** Describe the call with the tensors as they lie (dense copies: false) or without gaps. */
static void describe_call(const fn_kernel *kernel, bool copies, fn_gpu_call *call) {
  const role r = role_of(kernel->node);
  int x, w, y;
  ports_of(r, &x, &w, &y);
  memset(call, 0, sizeof *call);
  call->node = kernel->node;
  const fn_dtype half = port(kernel, r == DATA ? y : x)->dtype;
  for (int i = -1; i < 2; i++) {
    const fn_tensor *from = port(kernel, i);
    fn_tensor *to = i < 0 ? &call->output[0] : &call->input[i];
    *to = *from;
    if (i == w)
      *to = dense(from, r == WEIGHT ? FN_F32 : half);
    else if (copies)
      *to = dense(from, from->dtype);
    // A copy lies aligned in the workspace; of the rest the library needs to know.
    to->data = i == w || copies ? NULL : from->data;
    *(i < 0 ? &call->present_out[0] : &call->present_in[i]) = true;
  }
  for (int i = 2; i < kernel->node->input_count; i++) {
    if (!optional(kernel, i)) continue;
    call->present_in[i] = true;
    call->input[i] = kernel->input[i];
    call->finish = true;
  }
  call->finish |= slope_of(kernel->node) != 1;
}

/** Arguments of our own kernels, without addresses. */
static void describe_direct(const fn_kernel *kernel, fn_conv_args *p) {
  int xi, wi, yi;
  ports_of(role_of(kernel->node), &xi, &wi, &yi);
  const fn_tensor *x = port(kernel, xi), *w = port(kernel, wi), *y = port(kernel, yi);
  const fn_conv_geometry *g = &((const fn_conv_attrs *)kernel->node->attrs)->geometry;
  *p = (fn_conv_args){.x = cells_at(x, x->data),
                      .y = cells_at(y, y->data),
                      .slope = slope_of(kernel->node),
                      .batch = x->shape.dim[0],
                      .in_channels = x->shape.dim[1],
                      .out_channels = y->shape.dim[1],
                      .group_in = w->shape.dim[1],
                      .group_out = w->shape.dim[0] / g->groups};
  fn_spatial_sizes(&x->shape, p->s);
  fn_spatial_sizes(&w->shape, p->k);
  fn_spatial_sizes(&y->shape, p->o);
  const int missing = 3 - (x->shape.ndim - 2);
  for (int d = 0; d < 3; d++) {
    p->stride[d] = d < missing ? 1 : g->stride[d - missing];
    p->pad[d] = d < missing ? 0 : g->pad_low[d - missing];
    p->dilation[d] = d < missing ? 1 : g->dilation[d - missing];
  }
  if (wi < 0)
    p->dw = w->data;
  else
    p->w = w->data;
  const fn_tensor *bias = optional(kernel, 2), *residual = optional(kernel, 3);
  p->bias = bias ? bias->data : NULL;
  if (residual) p->residual = cells_at(residual, residual->data);
}

static void tell_direct(const fn_kernel *kernel, fn_level level) {
  char shape[FN_SHAPE_TEXT];
  fn_log(level, "%s of %s runs on fieldnet's own, slower kernel: %s", kernel->node->op->name,
         fn_shape_text(&kernel->input[0].shape, shape, sizeof shape), fn_error_message());
  fn_error_clear();
}

/** Find a way: the library on the tensors as they lie, on dense copies, our own kernels. */
static fn_status choose(fn_kernel *kernel, conv_state *s) {
  fn_gpu_platform *platform = s->base.platform;
  bool strided = false;
  for (int i = -1; i < 2; i++)
    strided |= i != (s->role == WEIGHT ? -1 : 1) && !is_dense(port(kernel, i));
  for (int copies = 0; copies < (strided ? 2 : 1); copies++) {
    describe_call(kernel, copies > 0, &s->call);
    const fn_status status = platform->prepare(platform, &s->call);
    if (status != FN_ERR_UNSUPPORTED) return status;
  }
  tell_direct(kernel, FN_DETAIL);
  s->direct = true;
  return FN_OK;
}

/* ---- convolution: workspace --------------------------------------------------------------------
 */

/** Shares of the bias gradient's first pass; of the sizes alone. */
static int64_t sum_shares(const fn_tensor *y) {
  enum { ROWS = 256, MOST = 1024 };
  const int64_t rows = y->shape.dim[0] * cells_of(&y->shape), shares = (rows + ROWS - 1) / ROWS;
  return shares < 1 ? 1 : shares > MOST ? MOST : shares;
}

static bool wants_bias(const fn_kernel *kernel) {
  return kernel->node->op == &fn_op_conv_weight && kernel->output[1].data;
}

static void place_copies(fn_kernel *kernel, conv_state *s) {
  const int filter = s->role == WEIGHT ? -1 : 1;
  for (int i = -1; i < 2; i++) {
    port_place *place = i < 0 ? &s->out : &s->in[i];
    const fn_tensor *t = i < 0 ? &s->call.output[0] : &s->call.input[i];
    const fn_tensor *own = port(kernel, i);
    place->copied = i == filter || t->dtype != own->dtype || pitch_of(t) != pitch_of(own) ||
                    (t->batch_stride != own->batch_stride && t->shape.dim[0] > 1);
    if (place->copied) place->at = carve(kernel, bytes_of(t));
  }
  const bool asked = slope_of(kernel->node) != 1 || optional(kernel, 2) || optional(kernel, 3);
  s->after = (asked && !s->call.finish) || (filter >= 0 && s->out.copied);
  s->at_library = carve(kernel, s->call.workspace);
}

/* ---- convolution: run --------------------------------------------------------------------------
 */

static fn_status swap_axes(fn_gpu_platform *platform, const fn_shape *w, bool pack,
                           const void *from, fn_dtype from_dtype, void *to, fn_dtype to_dtype) {
  const int64_t channels = w->dim[1], taps = cells_of(w);
  const fn_swap_axes_args args = {.x = from,
                                  .y = to,
                                  .x_dtype = (int)from_dtype,
                                  .y_dtype = (int)to_dtype,
                                  .count = fn_shape_count(w),
                                  .plane = fn_gpu_divider(channels * taps),
                                  .a = fn_gpu_divider(pack ? channels : taps),
                                  .b = pack ? taps : channels};
  return fn_gpu_launch(platform, swap_axes, fn_gpu_blocks(args.count, 4), &args);
}

/** Whether four channels can be read and written at once. */
static bool in_fours(const fn_cells *t) {
  return !t->data || (t->pitch % FN_GPU_WIDTH == 0 && t->batch_stride % FN_GPU_WIDTH == 0 &&
                      fn_gpu_aligned(t->data, (fn_dtype)t->dtype));
}

/** Sizes of the pass that ends a convolution or copies a tensor [N, C, s...]. */
static fn_status launch_finish(fn_gpu_platform *platform, const fn_shape *shape,
                               fn_finish_args *args) {
  const int64_t channels = shape->dim[1];
  const bool four =
      channels % 4 == 0 && in_fours(&args->x) && in_fours(&args->y) && in_fours(&args->residual);
  args->width = four ? 4 : 1;
  args->count = fn_shape_count(shape) / args->width;
  args->channels = fn_gpu_divider(channels / args->width);
  args->cells = fn_gpu_divider(cells_of(shape));
  return fn_gpu_launch(platform, finish, fn_gpu_blocks(args->count, 2), args);
}

/** y := x with other strides. */
static fn_status copy_cells(fn_gpu_platform *platform, const fn_shape *shape, fn_cells x,
                            fn_cells y) {
  fn_finish_args args = {.x = x, .y = y, .slope = 1};
  return launch_finish(platform, shape, &args);
}

static fn_status finish_result(const fn_kernel *kernel, const conv_state *s, void *from) {
  const fn_tensor *y = &kernel->output[0], *bias = optional(kernel, 2),
                  *residual = optional(kernel, 3);
  fn_finish_args args = {
      .x = cells_at(&s->call.output[0], from), .y = cells_at(y, y->data), .slope = 1};
  if (!s->call.finish) {
    args.slope = slope_of(kernel->node);
    args.bias = bias ? bias->data : NULL;
    if (residual) args.residual = cells_at(residual, residual->data);
  }
  return launch_finish(s->base.platform, &y->shape, &args);
}

static fn_status run_bias_gradient(const fn_kernel *kernel, const conv_state *s, char *workspace) {
  const fn_tensor *y = &kernel->input[1];
  const int64_t channels = y->shape.dim[1], shares = sum_shares(y);
  int width = 1;
  while (width < channels && width < 64)
    width *= 2;
  const int64_t tiles = (channels + width - 1) / width;
  float *partial = (float *)(workspace + s->at_sums);
  const fn_cell_sums_args sums = {.x = cells_at(y, y->data),
                                  .partial = partial,
                                  .rows = y->shape.dim[0] * cells_of(&y->shape),
                                  .cells = fn_gpu_divider(cells_of(&y->shape)),
                                  .channels = channels,
                                  .tiles = tiles,
                                  .width = width};
  FN_TRY(fn_gpu_launch(s->base.platform, cell_sums, shares * tiles, &sums));
  const fn_column_sums_args end = {
      .partial = partial, .y = kernel->output[1].data, .rows = shares, .channels = channels};
  return fn_gpu_launch(s->base.platform, column_sums, channels, &end);
}

static fn_status run_direct(const fn_kernel *kernel, const conv_state *s) {
  const fn_conv_args *p = &s->args;
  fn_gpu_platform *platform = s->base.platform;
  const int64_t blocks = fn_gpu_blocks(fn_shape_count(&kernel->output[0].shape), 1);
  switch (s->role) {
    case FORWARD: return fn_gpu_launch(platform, conv_forward, blocks, p);
    case DATA: return fn_gpu_launch(platform, conv_backward, blocks, p);
    case WEIGHT:
      return fn_gpu_launch(platform, conv_filter, fn_shape_count(&kernel->output[0].shape), p);
  }
  return FN_OK;
}

/** Where the library's operands lie: in the kernel's tensors, or as copies in the workspace. */
static fn_gpu_addresses conv_addresses(const fn_kernel *kernel, const conv_state *s,
                                       char *workspace) {
  fn_gpu_addresses at = {.workspace = workspace + s->at_library};
  for (int i = 0; i < kernel->node->input_count; i++)
    if (s->call.present_in[i] && (i < 2 || s->call.finish)) at.input[i] = kernel->input[i].data;
  for (int i = 0; i < 2; i++)
    if (s->in[i].copied) at.input[i] = workspace + s->in[i].at;
  at.output[0] = s->out.copied ? workspace + s->out.at : kernel->output[0].data;
  return at;
}

static fn_status run_library(const fn_kernel *kernel, const conv_state *s, char *workspace) {
  fn_gpu_platform *platform = s->base.platform;
  const int filter = s->role == WEIGHT ? -1 : 1;
  const fn_gpu_addresses at = conv_addresses(kernel, s, workspace);
  for (int i = 0; i < 2; i++) {
    if (!s->in[i].copied) continue;
    const fn_tensor *from = &kernel->input[i], *to = &s->call.input[i];
    if (i == filter) {
      FN_TRY(
          swap_axes(platform, &from->shape, true, from->data, from->dtype, at.input[i], to->dtype));
    } else {
      FN_TRY(copy_cells(platform, &from->shape, cells_at(from, from->data),
                        cells_at(to, at.input[i])));
    }
  }
  const fn_tensor *y = &kernel->output[0];
  FN_TRY(platform->run(platform, &s->call, &at));
  if (filter < 0)
    return swap_axes(platform, &y->shape, false, at.output[0], s->call.output[0].dtype, y->data,
                     y->dtype);
  return s->after ? finish_result(kernel, s, at.output[0]) : FN_OK;
}

/** What the library could not do after all is done without it from then on. */
static fn_status run_either(const fn_kernel *kernel, conv_state *s, char *workspace) {
  const fn_status status = s->direct ? FN_ERR_UNSUPPORTED : run_library(kernel, s, workspace);
  if (status != FN_ERR_UNSUPPORTED) return status;
  if (!s->direct) {
    tell_direct(kernel, FN_WARN);
    s->base.platform->release(s->base.platform, &s->call);
    describe_direct(kernel, &s->args);
    s->direct = true;
  }
  return run_direct(kernel, s);
}

static fn_status run_conv(const fn_kernel *kernel, const fn_run_context *context) {
  conv_state *s = kernel->state;
  if (kernel->output[0].data) FN_TRY(run_either(kernel, s, context->workspace));
  return wants_bias(kernel) ? run_bias_gradient(kernel, s, context->workspace) : FN_OK;
}

static void release_conv(fn_gpu_state *state) {
  conv_state *s = (conv_state *)state;
  if (s->call.node && !s->direct) state->platform->release(state->platform, &s->call);
}

static fn_status prepare_conv(fn_gpu_platform *platform, fn_kernel *kernel) {
  conv_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  s->base.release = release_conv;
  s->role = role_of(kernel->node);
  kernel->run = run_conv;
  if (wants_bias(kernel)) {
    const fn_tensor *y = &kernel->input[1];
    s->at_sums = carve(kernel, (size_t)(sum_shares(y) * y->shape.dim[1]) * sizeof(float));
  }
  if (!kernel->output[0].data) return FN_OK;
  FN_TRY(choose(kernel, s));
  if (s->direct)
    describe_direct(kernel, &s->args);
  else
    place_copies(kernel, s);
  return FN_OK;
}

static bool supports_conv(const fn_node *node) {
  const role r = role_of(node);
  const fn_value *x = node->input[0], *other = r == WEIGHT ? node->input[1] : node->output[0];
  const fn_value *w = r == WEIGHT ? node->output[0] : node->input[1];
  const fn_value *bias = r == WEIGHT ? node->output[1] : node->input[2];
  const fn_value *residual = r == FORWARD && node->input_count > 3 ? node->input[3] : NULL;
  return x->dtype == other->dtype && (!residual || residual->dtype == x->dtype) &&
         w->dtype == FN_F32 && (!bias || bias->dtype == FN_F32);
}

/** Kernels and biases lie plain, as parameters do. */
static void plan_conv(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  if (role_of(node) == WEIGHT) {
    plan->out_block[0] = plan->out_block[1] = 1;
    plan->strided_out[0] = plan->strided_out[1] = false;
    return;
  }
  plan->in_block[1] = plan->in_block[2] = 1;
  plan->strided_in[1] = plan->strided_in[2] = false;
}

/* ---- matrix product ----------------------------------------------------------------------------
 */

typedef struct matmul_state {
  fn_gpu_state base;
  fn_gpu_call call;
  port_place in[2], out;
  bool after; /**< a pass follows that finishes or casts the result */
  size_t at_library;
} matmul_state;

static fn_status cast(fn_gpu_platform *platform, const fn_tensor *from, const void *x, fn_dtype to,
                      void *y) {
  const fn_swap_axes_args args = {.x = x,
                                  .y = y,
                                  .x_dtype = (int)from->dtype,
                                  .y_dtype = (int)to,
                                  .count = fn_shape_count(&from->shape),
                                  .plane = fn_gpu_divider(1),
                                  .a = fn_gpu_divider(1),
                                  .b = 1};
  return fn_gpu_launch(platform, swap_axes, fn_gpu_blocks(args.count, 4), &args);
}

static fn_gpu_addresses matmul_addresses(const fn_kernel *kernel, const matmul_state *s,
                                         char *workspace) {
  fn_gpu_addresses at = {.workspace = workspace + s->at_library};
  for (int i = 0; i < 2; i++)
    at.input[i] = s->in[i].copied ? workspace + s->in[i].at : kernel->input[i].data;
  if (s->call.finish && s->call.present_in[2]) at.input[2] = kernel->input[2].data;
  at.output[0] = s->out.copied ? workspace + s->out.at : kernel->output[0].data;
  return at;
}

/** y := leaky(result + bias) where the library leaves that out, else y := result, which may be y.
 */
static fn_status finish_product(const fn_kernel *kernel, const matmul_state *s, void *result) {
  const fn_tensor *y = &kernel->output[0], *bias = optional(kernel, 2);
  const int64_t columns = y->shape.dim[y->shape.ndim - 1];
  int64_t rows = 1;
  for (int a = 0; a < y->shape.ndim - 1; a++)
    rows *= y->shape.dim[a];
  fn_finish_args args = {.x = {result, (int)s->call.output[0].dtype, columns, columns},
                         .y = {y->data, (int)y->dtype, columns, columns},
                         .slope = 1};
  if (!s->call.finish) {
    args.slope = slope_of(kernel->node);
    args.bias = bias ? bias->data : NULL;
  }
  return launch_finish(s->base.platform, &(fn_shape){2, {rows, columns}}, &args);
}

static fn_status run_matmul(const fn_kernel *kernel, const fn_run_context *context) {
  const matmul_state *s = kernel->state;
  fn_gpu_platform *platform = s->base.platform;
  const fn_gpu_addresses at = matmul_addresses(kernel, s, context->workspace);
  for (int i = 0; i < 2; i++) {
    const fn_tensor *t = &kernel->input[i];
    if (s->in[i].copied) FN_TRY(cast(platform, t, t->data, s->call.input[i].dtype, at.input[i]));
  }
  FN_TRY(platform->run(platform, &s->call, &at));
  return s->after ? finish_product(kernel, s, at.output[0]) : FN_OK;
}

static void release_matmul(fn_gpu_state *state) {
  matmul_state *s = (matmul_state *)state;
  if (s->call.node) state->platform->release(state->platform, &s->call);
}

/** Operands of two dtypes are multiplied in float32. */
static void describe_product(const fn_kernel *kernel, fn_gpu_call *call) {
  const fn_dtype a = kernel->input[0].dtype, b = kernel->input[1].dtype;
  const fn_dtype common = a == b ? a : FN_F32;
  call->node = kernel->node;
  for (int i = -1; i < 2; i++) {
    const fn_tensor *t = port(kernel, i);
    fn_tensor *to = i < 0 ? &call->output[0] : &call->input[i];
    *to = *t;
    // A product of 16-bit operands may be wanted in float32, not the other way round.
    to->dtype = i < 0 && t->dtype != common ? FN_F32 : common;
    if (to->dtype != t->dtype) to->data = NULL; // a copy lies aligned in the workspace
    *(i < 0 ? &call->present_out[0] : &call->present_in[i]) = true;
  }
  const fn_tensor *bias = optional(kernel, 2);
  call->present_in[2] = bias != NULL;
  if (bias) call->input[2] = *bias;
  call->finish = bias || slope_of(kernel->node) != 1;
}

static fn_status prepare_matmul(fn_gpu_platform *platform, fn_kernel *kernel) {
  matmul_state *s;
  FN_TRY(fn_gpu_state_create(platform, kernel, sizeof *s, (void **)&s));
  s->base.release = release_matmul;
  kernel->run = run_matmul;
  describe_product(kernel, &s->call);
  const bool asked = s->call.finish;
  const fn_status status = platform->prepare(platform, &s->call);
  if (status != FN_OK) {
    s->call.node = NULL;
    return status;
  }
  for (int i = -1; i < 2; i++) {
    const fn_tensor *t = i < 0 ? &s->call.output[0] : &s->call.input[i];
    port_place *place = i < 0 ? &s->out : &s->in[i];
    place->copied = t->dtype != port(kernel, i)->dtype;
    if (place->copied) place->at = carve(kernel, bytes_of(t));
  }
  s->after = s->out.copied || (asked && !s->call.finish);
  s->at_library = carve(kernel, s->call.workspace);
  return FN_OK;
}

static bool supports_matmul(const fn_node *node) {
  return node->input_count < 3 || !node->input[2] || node->input[2]->dtype == FN_F32;
}

static void plan_matmul(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  for (int i = 0; i < node->input_count; i++) {
    plan->in_block[i] = 1;
    plan->strided_in[i] = false;
  }
  plan->out_block[0] = 1;
  plan->strided_out[0] = false;
}

/* ---- timing ------------------------------------------------------------------------------------
 */

/** The library's call of a kernel; false: it makes none. */
static bool call_of(const fn_kernel *kernel, void *workspace, const fn_gpu_call **call,
                    fn_gpu_addresses *at) {
  if (kernel->run == run_matmul) {
    const matmul_state *s = kernel->state;
    *call = &s->call;
    *at = matmul_addresses(kernel, s, workspace);
    return true;
  }
  if (kernel->run != run_conv || !kernel->output[0].data) return false;
  const conv_state *s = kernel->state;
  *call = &s->call;
  if (!s->direct) *at = conv_addresses(kernel, s, workspace);
  return !s->direct;
}

static fn_status time_runs(fn_gpu_platform *platform, const fn_gpu_call *call,
                           const fn_gpu_addresses *at, int repeats, fn_event *const timer[2],
                           double *seconds) {
  fn_device *d = &platform->device;
  FN_TRY(platform->run(platform, call, at)); // while it runs, the others are put behind it
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, timer[0]));
  for (int r = 0; r < repeats; r++)
    FN_TRY(platform->run(platform, call, at));
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, timer[1]));
  FN_TRY(d->synchronize_event(d, timer[1]));
  FN_TRY(d->elapsed(d, timer[0], timer[1], seconds));
  *seconds /= repeats;
  return FN_OK;
}

fn_status fn_gpu_time_call(const fn_kernel *kernel, void *workspace, int repeats, double *seconds) {
  const fn_gpu_call *call;
  fn_gpu_addresses at;
  *seconds = 0;
  if (!call_of(kernel, workspace, &call, &at)) return FN_OK;
  fn_gpu_platform *platform = ((const fn_gpu_state *)kernel->state)->platform;
  fn_device *d = &platform->device;
  FN_CHECK(d->timer_create, FN_ERR_UNSUPPORTED, "%s has no clock to time calls by", d->info.name);
  fn_event *timer[2] = {NULL, NULL};
  fn_status status = d->timer_create(d, &timer[0]);
  if (status == FN_OK) status = d->timer_create(d, &timer[1]);
  if (status == FN_OK) status = time_runs(platform, call, &at, repeats, timer, seconds);
  for (int i = 0; i < 2; i++)
    if (timer[i]) d->event_destroy(d, timer[i]);
  return status;
}

const fn_gpu_op fn_gpu_library_ops[] = {
    {&fn_op_conv, supports_conv, plan_conv, prepare_conv},
    {&fn_op_conv_data, supports_conv, plan_conv, prepare_conv},
    {&fn_op_conv_weight, supports_conv, plan_conv, prepare_conv},
    {&fn_op_matmul, supports_matmul, plan_matmul, prepare_matmul},
    {0},
};
