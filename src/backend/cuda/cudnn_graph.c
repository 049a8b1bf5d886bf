/* A convolution as an operation graph of cuDNN:
 *
 *   forward   y = leaky(conv(x, w) + residual + bias)
 *   data      x = leaky(conv_data(y, w) + bias)
 *   weight    w = conv_weight(x, y)
 *
 * Values between operations are virtual and float32. One spatial axis becomes two, the first of
 * length one. */
#include <string.h>

#include "backend/cuda/cudnn.h"
#include "ops/ops.h"

enum { AXES = 2 + FN_MAX_SPATIAL };

static cudnnDataType_t type_of(fn_dtype dtype) {
  switch (dtype) {
    case FN_BF16: return CUDNN_DATA_BFLOAT16;
    case FN_F16: return CUDNN_DATA_HALF;
    case FN_F64: return CUDNN_DATA_DOUBLE;
    default: return CUDNN_DATA_FLOAT;
  }
}

typedef struct builder {
  fn_cudnn_pool *pool;
  const fn_gpu_call *call;
  int spatial; /**< axes of cuDNN's tensors less two */
  int virtuals;
  cudnnBackendDescriptor_t operation[4];
  int operations;
} builder;

/** Whatever cuDNN does not like, when told or when all is told: our own kernels do it. */
static fn_status taken(const builder *b, cudnnStatus_t code) {
  const fn_cudnn *cudnn = b->pool->api;
  FN_CHECK(code == CUDNN_STATUS_SUCCESS, FN_ERR_UNSUPPORTED,
           "cuDNN %s does not take this convolution: %s", cudnn->version,
           cudnn->cudnnGetErrorString(code));
  return FN_OK;
}

static fn_status set(const builder *b, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                     cudnnBackendAttributeType_t type, int64_t count, const void *value) {
  return taken(b, b->pool->api->cudnnBackendSetAttribute(d, name, type, count, value));
}

static fn_status finalize(const builder *b, cudnnBackendDescriptor_t d) {
  return taken(b, b->pool->api->cudnnBackendFinalize(d));
}

static fn_status set_descriptor(const builder *b, cudnnBackendDescriptor_t d,
                                cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value) {
  return set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

int64_t fn_cudnn_alignment(const fn_tensor *t) {
  const uintptr_t bits = (uintptr_t)t->data | 16;
  return (int64_t)(bits & (~bits + 1));
}

typedef struct extent {
  int64_t dim[AXES], stride[AXES];
} extent;

/** [N, C, s...] channels-last with `pitch` elements from cell to cell. */
static extent extent_of(const builder *b, const fn_tensor *t) {
  extent e;
  const int own = t->shape.ndim - 2, missing = b->spatial - own;
  int64_t stride = t->pitch ? t->pitch : t->block;
  e.dim[0] = t->shape.dim[0];
  e.dim[1] = t->shape.dim[1];
  e.stride[0] = t->batch_stride;
  e.stride[1] = 1;
  for (int d = b->spatial - 1; d >= 0; d--) {
    e.dim[2 + d] = d < missing ? 1 : t->shape.dim[2 + d - missing];
    e.stride[2 + d] = stride;
    stride *= e.dim[2 + d];
  }
  return e;
}

static fn_status tensor(const builder *b, const extent *e, fn_dtype dtype, int64_t uid,
                        int64_t alignment, bool is_virtual, cudnnBackendDescriptor_t *d) {
  const cudnnDataType_t type = type_of(dtype);
  const int64_t axes = 2 + b->spatial;
  FN_TRY(fn_cudnn_new(b->pool, CUDNN_BACKEND_TENSOR_DESCRIPTOR, d));
  FN_TRY(set(b, *d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
  FN_TRY(set(b, *d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, axes, e->dim));
  FN_TRY(set(b, *d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, axes, e->stride));
  FN_TRY(set(b, *d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid));
  FN_TRY(set(b, *d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment));
  if (is_virtual)
    FN_TRY(set(b, *d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual));
  return finalize(b, *d);
}

static fn_status input(const builder *b, int index, cudnnBackendDescriptor_t *d) {
  const fn_tensor *t = &b->call->input[index];
  const extent e = extent_of(b, t);
  return tensor(b, &e, t->dtype, FN_CUDNN_INPUT + index, fn_cudnn_alignment(t), false, d);
}

static fn_status bias_tensor(const builder *b, cudnnBackendDescriptor_t *d) {
  const fn_tensor *t = &b->call->input[2];
  const int64_t channels = t->shape.dim[0];
  extent e = {{1, channels, 1, 1, 1}, {channels, 1, channels, channels, channels}};
  return tensor(b, &e, t->dtype, FN_CUDNN_INPUT + 2, fn_cudnn_alignment(t), false, d);
}

/** The result of an operation: output 0 of the call after the last one, else virtual. */
static fn_status result(builder *b, bool last, fn_dtype dtype, cudnnBackendDescriptor_t *d) {
  const fn_tensor *t = &b->call->output[0];
  const extent e = extent_of(b, t);
  if (last) return tensor(b, &e, dtype, FN_CUDNN_OUTPUT, fn_cudnn_alignment(t), false, d);
  return tensor(b, &e, FN_F32, FN_CUDNN_VIRTUAL + b->virtuals++, 16, true, d);
}

static fn_status geometry(const builder *b, cudnnBackendDescriptor_t *d) {
  const fn_conv_geometry *g = &((const fn_conv_attrs *)b->call->node->attrs)->geometry;
  const int own = b->call->input[0].shape.ndim - 2, missing = b->spatial - own;
  int64_t stride[FN_MAX_SPATIAL], low[FN_MAX_SPATIAL], high[FN_MAX_SPATIAL],
      dilation[FN_MAX_SPATIAL];
  for (int i = 0; i < b->spatial; i++) {
    const int from = i - missing;
    stride[i] = from < 0 ? 1 : g->stride[from];
    low[i] = from < 0 ? 0 : g->pad_low[from];
    high[i] = from < 0 ? 0 : g->pad_high[from];
    dilation[i] = from < 0 ? 1 : g->dilation[from];
  }
  const int64_t axes = b->spatial;
  const cudnnDataType_t type = CUDNN_DATA_FLOAT;
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  FN_TRY(fn_cudnn_new(b->pool, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, d));
  FN_TRY(set(b, *d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &axes));
  FN_TRY(set(b, *d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
  FN_TRY(set(b, *d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode));
  FN_TRY(set(b, *d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, axes, low));
  FN_TRY(set(b, *d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, axes, high));
  FN_TRY(set(b, *d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, axes, dilation));
  FN_TRY(set(b, *d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, axes, stride));
  return finalize(b, *d);
}

/** Names of one kind of convolution: its operands in the order (input 0, input 1, result). */
typedef struct kind {
  cudnnBackendDescriptorType_t type;
  cudnnBackendAttributeName_t port[3], conv, alpha, beta;
} kind;

static const kind forward = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                             {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
                             CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
static const kind data = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                          {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX},
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                          CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
static const kind weight = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                            {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW},
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};

static const kind *kind_of(const fn_gpu_call *call) {
  if (call->node->op == &fn_op_conv) return &forward;
  return call->node->op == &fn_op_conv_data ? &data : &weight;
}

static fn_status convolution(builder *b, cudnnBackendDescriptor_t y) {
  const kind *k = kind_of(b->call);
  const float alpha = 1, beta = 0;
  cudnnBackendDescriptor_t operand[2], conv, d;
  for (int i = 0; i < 2; i++)
    FN_TRY(input(b, i, &operand[i]));
  FN_TRY(geometry(b, &conv));
  FN_TRY(fn_cudnn_new(b->pool, k->type, &d));
  for (int i = 0; i < 2; i++)
    FN_TRY(set_descriptor(b, d, k->port[i], operand[i]));
  FN_TRY(set_descriptor(b, d, k->port[2], y));
  FN_TRY(set_descriptor(b, d, k->conv, conv));
  FN_TRY(set(b, d, k->alpha, CUDNN_TYPE_FLOAT, 1, &alpha));
  FN_TRY(set(b, d, k->beta, CUDNN_TYPE_FLOAT, 1, &beta));
  FN_TRY(finalize(b, d));
  b->operation[b->operations++] = d;
  return FN_OK;
}

/** y = x + other, or with other NULL y = leaky(x); with slope 1 y = x in another dtype. */
static fn_status pointwise(builder *b, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t other,
                           double slope, cudnnBackendDescriptor_t y) {
  const cudnnPointwiseMode_t mode = other        ? CUDNN_POINTWISE_ADD
                                    : slope == 1 ? CUDNN_POINTWISE_IDENTITY
                                                 : CUDNN_POINTWISE_RELU_FWD;
  const cudnnDataType_t type = CUDNN_DATA_FLOAT;
  cudnnBackendDescriptor_t how, d;
  FN_TRY(fn_cudnn_new(b->pool, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, &how));
  FN_TRY(set(b, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode));
  FN_TRY(set(b, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type));
  if (!other && slope != 0 && slope != 1)
    FN_TRY(set(b, how, CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE, CUDNN_TYPE_DOUBLE, 1, &slope));
  FN_TRY(finalize(b, how));
  FN_TRY(fn_cudnn_new(b->pool, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, &d));
  FN_TRY(set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how));
  FN_TRY(set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x));
  if (other) FN_TRY(set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, other));
  FN_TRY(set_descriptor(b, d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y));
  FN_TRY(finalize(b, d));
  b->operation[b->operations++] = d;
  return FN_OK;
}

/** Before 9.3 cuDNN counted elements in 32 bits, and left what lies behind as it was. */
static fn_status check_size(const fn_cudnn_pool *pool, const fn_gpu_call *call) {
  if (pool->api->cudnnGetVersion() >= 90300) return FN_OK;
  for (int i = 0; i < 5; i++) {
    const fn_tensor *t = i < 4 ? &call->input[i] : &call->output[0];
    if (i < 4 && !call->present_in[i]) continue;
    FN_CHECK(t->shape.ndim < 3 || t->shape.dim[0] * t->batch_stride <= INT32_MAX,
             FN_ERR_UNSUPPORTED,
             "cuDNN %s does not take tensors of more than 2^31 elements, 9.3 does; a smaller "
             "train.batch has fewer",
             pool->api->version);
  }
  return FN_OK;
}

fn_status fn_cudnn_graph(fn_cudnn_pool *pool, const fn_gpu_call *call, const fn_cudnn_form *form,
                         cudnnBackendDescriptor_t *graph) {
  const int own = call->input[0].shape.ndim - 2;
  builder b = {.pool = pool, .call = call, .spatial = own < 2 ? 2 : own};
  FN_TRY(check_size(pool, call));
  const double slope = form->finish && kind_of(call) != &weight
                           ? ((const fn_conv_attrs *)call->node->attrs)->slope
                           : 1;
  const bool residual = form->finish && call->present_in[3],
             bias = form->finish && call->present_in[2];
  // Engines that write another dtype than they read do so in an operation of its own.
  const bool widens = form->result != call->input[0].dtype;
  int left = residual + bias + (slope != 1 || widens);
  cudnnBackendDescriptor_t value, next, other;
  FN_TRY(result(&b, left == 0, form->result, &value));
  FN_TRY(convolution(&b, value));
  for (int add = 0; add < 2; add++) { // the order of cuDNN's own fused convolutions
    if (!(add == 0 ? residual : bias)) continue;
    FN_TRY(add == 0 ? input(&b, 3, &other) : bias_tensor(&b, &other));
    FN_TRY(result(&b, --left == 0, form->result, &next));
    FN_TRY(pointwise(&b, value, other, 1, next));
    value = next;
  }
  if (slope != 1 || widens) {
    FN_TRY(result(&b, true, form->result, &next));
    FN_TRY(pointwise(&b, value, NULL, slope, next));
  }
  FN_TRY(fn_cudnn_new(pool, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, graph));
  FN_TRY(set(&b, *graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, b.operations,
             b.operation));
  if (!pool->api->assumed)
    FN_TRY(set(&b, *graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1,
               &pool->api->handle));
  return finalize(&b, *graph);
}

fn_status fn_cudnn_pack(fn_cudnn_pool *pool, const fn_gpu_call *call, bool finish,
                        const fn_gpu_addresses *at, cudnnBackendDescriptor_t *pack) {
  const builder b = {.pool = pool};
  int64_t uid[5];
  void *address[5];
  int64_t count = 0;
  for (int i = 0; i < 4; i++) {
    if (!call->present_in[i] || (i >= 2 && !finish)) continue;
    uid[count] = FN_CUDNN_INPUT + i;
    address[count++] = at->input[i];
  }
  uid[count] = FN_CUDNN_OUTPUT;
  address[count++] = at->output[0];
  FN_TRY(fn_cudnn_new(pool, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, pack));
  FN_TRY(set(&b, *pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, uid));
  FN_TRY(
      set(&b, *pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count, address));
  FN_TRY(set(&b, *pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &at->workspace));
  return finalize(&b, *pack);
}
