/* What stands in for cuDNN and cuBLASLt on the emulated device: the operators' plain kernels in
 * double precision, on tensors gathered from and scattered to their layouts. It refuses what
 * libraries may refuse (a pitch, padding of two widths) and leaves bias and activation to others
 * for odd numbers of channels or columns, so that every way around a library is taken in tests. */
#include "backend/gpu/emulated_library.h"

#include <stdlib.h>
#include <string.h>

#include "backend/gpu/kernels/element.h"
#include "ops/ops.h"

enum { WORKSPACE = 256 };
static const char dense_only[] = "the emulated library takes dense tensors only";

/** Element of (row, channel, cell) for tensors of three and more axes; else it is `index`. */
static int64_t place(const fn_tensor *t, int64_t index) {
  if (t->shape.ndim < 3) return index;
  int64_t cells = 1;
  for (int a = 2; a < t->shape.ndim; a++)
    cells *= t->shape.dim[a];
  const int64_t channels = t->shape.dim[1], block = t->block > 1 ? t->block : 1;
  const int64_t n = index / (channels * cells), c = index / cells % channels, cell = index % cells;
  return n * t->batch_stride + (c / block * cells + cell) * (t->pitch ? t->pitch : block) +
         c % block;
}

static double *gather(const fn_tensor *t, const void *data) {
  const int64_t count = fn_shape_count(&t->shape);
  double *values = malloc((size_t)(count + 1) * sizeof *values);
  for (int64_t i = 0; values && i < count; i++)
    values[i] = (double)fn_read(data, (int)t->dtype, place(t, i));
  return values;
}

static void scatter(const fn_tensor *t, const double *values, void *data) {
  const int64_t count = fn_shape_count(&t->shape);
  for (int64_t i = 0; i < count; i++)
    fn_write(data, (int)t->dtype, place(t, i), (float)values[i]);
}

static bool is_strided(const fn_tensor *t) {
  if (t->shape.ndim < 3) return false;
  return (t->pitch && t->pitch != (t->block > 1 ? t->block : 1)) ||
         t->batch_stride != fn_tensor_sample_count(&t->shape, t->block);
}

fn_status fn_emulated_call_prepare(fn_gpu_platform *platform, fn_gpu_call *call) {
  (void)platform;
  for (int i = 0; i < 2; i++)
    FN_CHECK(!is_strided(&call->input[i]), FN_ERR_UNSUPPORTED, dense_only);
  FN_CHECK(!is_strided(&call->output[0]), FN_ERR_UNSUPPORTED, dense_only);
  const bool product = call->node->op == &fn_op_matmul;
  if (!product) {
    const fn_conv_geometry *g = &((const fn_conv_attrs *)call->node->attrs)->geometry;
    for (int d = 0; d < call->input[0].shape.ndim - 2; d++)
      FN_CHECK(g->pad_low[d] == g->pad_high[d], FN_ERR_UNSUPPORTED,
               "the emulated library pads both sides alike");
  }
  const bool has_residual = call->node->op == &fn_op_conv && call->present_in[3];
  const fn_shape *y = &call->output[0].shape;
  const int64_t channels = y->dim[product ? y->ndim - 1 : 1];
  const bool fuses = channels % 2 == 0 && !(has_residual && is_strided(&call->input[3]));
  if (call->finish && !fuses) {
    call->finish = false;
    call->output[0].dtype = FN_F32;
  }
  call->workspace = WORKSPACE;
  return FN_OK;
}

typedef union plain_attrs {
  fn_conv_attrs conv;
  fn_matmul_attrs matmul;
} plain_attrs;

/** The node without bias, residual and activation. */
static void strip(fn_node *node, plain_attrs *attrs, const double **in) {
  const bool product = node->op == &fn_op_matmul;
  memcpy(attrs, node->attrs, node->op->attrs_size);
  *(product ? &attrs->matmul.slope : &attrs->conv.slope) = 1;
  node->attrs = attrs;
  for (int i = 2; i < node->input_count; i++)
    in[i] = NULL;
  const int told = product ? 2 : 3; // the last of the others is told by the count
  if (node->input_count > told) node->input_count = told;
}

static fn_status run(const fn_gpu_call *call, double *const *in, double *const *out) {
  fn_node node = *call->node;
  plain_attrs attrs;
  const double *values[FN_MAX_PORTS] = {NULL};
  memcpy(values, in, sizeof values);
  if (!call->finish) strip(&node, &attrs, values);
  return node.op->reference(&node, values, out, &(fn_run_context){0});
}

fn_status fn_emulated_call_run(fn_gpu_platform *platform, const fn_gpu_call *call,
                               const fn_gpu_addresses *at) {
  (void)platform;
  memset(at->workspace, 0xff, call->workspace);
  double *in[FN_MAX_PORTS] = {NULL}, *out[FN_MAX_PORTS] = {NULL};
  bool memory = true;
  for (int i = 0; i < call->node->input_count; i++) {
    if (!at->input[i]) continue;
    in[i] = gather(&call->input[i], at->input[i]);
    memory &= in[i] != NULL;
  }
  if (memory) {
    out[0] = calloc((size_t)fn_shape_count(&call->output[0].shape) + 1, sizeof(double));
    memory &= out[0] != NULL;
  }
  const fn_status status = memory
                               ? run(call, in, out)
                               : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__,
                                              "no memory for %s in double", call->node->op->name);
  if (status == FN_OK) scatter(&call->output[0], out[0], at->output[0]);
  for (int i = 0; i < FN_MAX_PORTS; i++)
    free(in[i]);
  free(out[0]);
  return status;
}

void fn_emulated_call_release(fn_gpu_platform *platform, fn_gpu_call *call) {
  (void)platform;
  (void)call;
}
