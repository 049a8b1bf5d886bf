/* Convolutions and matrix products of the backends with a device, on channels-last tensors with and
 * without gaps: the library's call, what lies around it, and the kernels that stand in for it.
 * Compared with the operators' plain kernels in double. The emulated backend always; cuda where it
 * finds a GPU. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "backend/backends.h"
#include "backend/gpu/kernels/element.h"
#pragma GCC diagnostic ignored "-Wunused-function" // the headers of test_op are used in part
#include "op_cases.h"
#include "op_run.h"
#include "op_tolerance.h"

enum { GUARD = 64 };
static const unsigned char guard_byte = 0xA5;

static size_t tensor_bytes(const fn_tensor *t) {
  const int64_t rows = t->shape.ndim < 3 ? 1 : t->shape.dim[0];
  const int64_t count = t->shape.ndim < 3 ? fn_shape_count(&t->shape) : rows * t->batch_stride;
  return (size_t)count * fn_dtype_size(t->dtype);
}

/** Copy to memory of the device (NULL: the host is it). */
static void *upload(fn_device *device, void *host, size_t bytes) {
  if (!device) return host;
  void *memory = NULL, *pinned = NULL;
  assert_int_equal(device->allocate(device, bytes, &memory), FN_OK);
  assert_int_equal(device->allocate_pinned(device, bytes, &pinned), FN_OK);
  memcpy(pinned, host, bytes);
  assert_int_equal(
      device->copy(device, FN_STREAM_COMPUTE, memory, pinned, bytes, FN_COPY_TO_DEVICE), FN_OK);
  assert_int_equal(device->synchronize(device, FN_STREAM_COMPUTE), FN_OK);
  device->release_pinned(device, pinned);
  return memory;
}

static void download(fn_device *device, void *host, void *memory, size_t bytes) {
  if (!device || !memory) return;
  void *pinned = NULL;
  assert_int_equal(device->allocate_pinned(device, bytes, &pinned), FN_OK);
  assert_int_equal(device->copy(device, FN_STREAM_COMPUTE, pinned, memory, bytes, FN_COPY_TO_HOST),
                   FN_OK);
  assert_int_equal(device->synchronize(device, FN_STREAM_COMPUTE), FN_OK);
  memcpy(host, pinned, bytes);
  device->release_pinned(device, pinned);
  device->release(device, memory);
}

/** A row of numbers in the host's memory that starts one number behind an aligned address. */
static void *displaced(const fn_tensor *t) {
  const size_t bytes = tensor_bytes(t) + GUARD, front = fn_dtype_size(t->dtype);
  char *memory = malloc(bytes + front);
  assert_non_null(memory);
  memset(memory, 0xff, front);
  memcpy(memory + front, t->data, bytes);
  return memory;
}

/** A tensor in the host's memory, a guard behind it and rubbish in its gaps. */
static fn_tensor tensor_make(const fn_shape *shape, fn_dtype dtype, int64_t block, int64_t gap) {
  fn_tensor t = {.dtype = dtype, .shape = *shape, .block = block, .pitch = block + gap};
  int64_t cells = 1;
  for (int a = 2; a < shape->ndim; a++)
    cells *= shape->dim[a];
  t.batch_stride = shape->ndim < 3 || gap == 0 ? fn_tensor_sample_count(shape, block)
                                               : cells * t.pitch + 2 * gap;
  const size_t bytes = tensor_bytes(&t);
  t.data = malloc(bytes + GUARD);
  assert_non_null(t.data);
  memset(t.data, 0xff, bytes);
  memset((char *)t.data + bytes, guard_byte, GUARD);
  return t;
}

static int64_t place(const fn_tensor *t, int64_t index) {
  if (t->shape.ndim < 3) return index;
  int64_t cells = 1;
  for (int a = 2; a < t->shape.ndim; a++)
    cells *= t->shape.dim[a];
  const int64_t channels = t->shape.dim[1];
  const int64_t n = index / (channels * cells), c = index / cells % channels, cell = index % cells;
  return n * t->batch_stride + (c / t->block * cells + cell) * t->pitch + c % t->block;
}

static void tensor_check_guard(const fn_tensor *t) {
  const size_t bytes = tensor_bytes(t);
  for (int i = 0; i < GUARD; i++)
    assert_int_equal(((unsigned char *)t->data)[bytes + (size_t)i], guard_byte);
}

/** A node of the case with values of the dtypes under test. */
static fn_node *node_of(fn_graph *graph, const op_case *c, fn_dtype dtype) {
  fn_value *in[FN_MAX_PORTS] = {NULL}, *out[FN_MAX_PORTS] = {NULL};
  for (int i = 0; i < c->input_count; i++)
    if (!is_absent(c, i)) in[i] = fn_input(graph, port_name('x', i), &c->shape[i]);
  build_case(graph, c, in, out);
  assert_int_equal(fn_graph_status(graph), FN_OK);
  fn_node *node = out[0]->node;
  const bool product = node->op == &fn_op_matmul;
  const int filter = node->op == &fn_op_conv_weight ? -1 : 1;
  for (int i = 0; i < node->input_count; i++)
    if (node->input[i] && !(i == filter && !product) && node->input[i]->shape.ndim >= 2)
      node->input[i]->dtype = dtype;
  if (filter >= 0) node->output[0]->dtype = dtype;
  return node;
}

/** Run the node's kernel on tensors of the host. displace: inputs of one axis lie unaligned. */
static void run_kernel(const fn_backend *backend, fn_device *device, const char *name,
                       const fn_node *node, bool displace, const fn_tensor *in,
                       const fn_tensor *out) {
  fn_tensor device_in[FN_MAX_PORTS] = {0}, device_out[FN_MAX_PORTS] = {0};
  void *memory[FN_MAX_PORTS] = {NULL}, *moved[FN_MAX_PORTS] = {NULL};
  for (int i = 0; i < node->input_count; i++) {
    device_in[i] = in[i];
    if (!in[i].data) continue;
    const size_t front = displace && in[i].shape.ndim == 1 ? fn_dtype_size(in[i].dtype) : 0;
    if (front) moved[i] = displaced(&in[i]);
    memory[i] = upload(device, front ? moved[i] : in[i].data, tensor_bytes(&in[i]) + GUARD + front);
    device_in[i].data = (char *)memory[i] + front;
  }
  for (int o = 0; o < node->output_count; o++) {
    device_out[o] = out[o];
    device_out[o].data = upload(device, out[o].data, tensor_bytes(&out[o]) + GUARD);
  }
  fn_kernel kernel = {.node = node, .input = device_in, .output = device_out};
  if (backend->prepare(backend, &kernel) != FN_OK) fail_msg("%s: %s", name, fn_error_message());
  void *host = aligned_alloc(256, (kernel.workspace + 256) / 256 * 256);
  memset(host, 0xff, kernel.workspace);
  void *workspace = upload(device, host, kernel.workspace + 1);
  const fn_run_context context = {.workspace = workspace};
  if (kernel.run(&kernel, &context) != FN_OK) fail_msg("%s: %s", name, fn_error_message());
  for (int i = 0; i < node->input_count; i++) {
    const size_t bytes = tensor_bytes(&in[i]) + GUARD;
    download(device, moved[i] ? moved[i] : in[i].data, memory[i], bytes);
    free(moved[i]);
  }
  for (int o = 0; o < node->output_count; o++)
    download(device, out[o].data, device_out[o].data, tensor_bytes(&out[o]) + GUARD);
  download(device, host, workspace, kernel.workspace);
  kernel.destroy(&kernel);
  free(host);
}

static void check_case(const fn_backend *backend, fn_device *device, const op_case *c,
                       fn_dtype dtype, int64_t gap) {
  fn_graph *graph = NULL;
  assert_int_equal(fn_graph_create(&(fn_graph_options){0}, &graph), FN_OK);
  fn_node *node = node_of(graph, c, dtype);
  assert_true(backend->supports(backend, node));
  fn_node_plan plan;
  const int64_t current[FN_MAX_PORTS] = {0};
  assert_int_equal(backend->plan(backend, node, current, &plan), FN_OK);
  fn_tensor in[FN_MAX_PORTS] = {0}, out[FN_MAX_PORTS] = {0};
  double *x[FN_MAX_PORTS] = {NULL}, *ref[FN_MAX_PORTS] = {NULL};
  for (int i = 0; i < node->input_count; i++) {
    if (!node->input[i]) continue;
    const fn_shape *shape = &node->input[i]->shape;
    in[i] = tensor_make(shape, node->input[i]->dtype, plan.in_block[i],
                        plan.strided_in[i] && shape->ndim >= 3 ? gap : 0);
    x[i] = draw_input(c, i, FN_BF16);
    for (int64_t e = 0; e < fn_shape_count(shape); e++) {
      fn_write(in[i].data, (int)in[i].dtype, place(&in[i], e), (float)x[i][e]);
      x[i][e] = (double)fn_read(in[i].data, (int)in[i].dtype, place(&in[i], e));
    }
  }
  for (int o = 0; o < node->output_count; o++) {
    const fn_shape *shape = &node->output[o]->shape;
    out[o] = tensor_make(shape, node->output[o]->dtype, plan.out_block[o],
                         plan.strided_out[o] && shape->ndim >= 3 ? gap : 0);
    ref[o] = calloc((size_t)fn_shape_count(shape) + 1, sizeof(double));
  }
  run_kernel(backend, device, c->name, node, gap > 0, in, out);
  assert_int_equal(node->op->reference(node, (const double *const *)x, ref, &(fn_run_context){0}),
                   FN_OK);
  const double length = reduction_length(c, &node->output[0]->shape);
  for (int o = 0; o < node->output_count; o++) {
    const fn_tensor *t = &out[o];
    const int64_t count = fn_shape_count(&t->shape);
    double *y = malloc((size_t)count * sizeof *y);
    for (int64_t e = 0; e < count; e++)
      y[e] = (double)fn_read(t->data, (int)t->dtype, place(t, e));
    // binary16 is finer than bfloat16
    const fn_dtype kept = t->dtype == FN_F16 ? FN_BF16 : t->dtype;
    const double excess =
        worst_excess(find_tolerance(c), &t->shape, kept, FN_F32, length, y, ref[o]);
    if (!(excess <= 1))
      fail_msg("%s, %s, gap %d, output %d: error / tolerance %g", c->name, fn_dtype_name(dtype),
               (int)gap, o, excess);
    free(y);
    tensor_check_guard(t);
  }
  for (int i = 0; i < FN_MAX_PORTS; i++) {
    free(in[i].data);
    free(out[i].data);
    free(x[i]);
    free(ref[i]);
  }
  fn_graph_destroy(graph);
}

/** Every convolution and matrix product of the operator tests, in three dtypes, with and without
 *  gaps between cells; with gaps, a bias lies unaligned. */
static void check_all(const fn_backend *backend, fn_device *device) {
  static const fn_dtype dtypes[] = {FN_F32, FN_BF16, FN_F16};
  op_suite suite = {0};
  for (int d = 1; d <= FN_MAX_SPATIAL; d++) {
    add_conv_cases(&suite, d);
    add_conv_transpose_case(&suite, d);
    add_matmul_cases(&suite, d);
  }
  int checked = 0;
  for (int i = 0; i < suite.count; i++)
    for (int t = 0; t < 3; t++)
      for (int64_t gap = 0; gap <= 5; gap += 5, checked++)
        check_case(backend, device, &suite.item[i], dtypes[t], gap);
  print_message("%s: %d cases\n", backend->name, checked);
  free(suite.item);
}

static void test_emulated(void **state) {
  (void)state;
  const fn_backend *backend = NULL;
  fn_device *device = NULL;
  const fn_device_choice choice = {.node_size = 1, .deterministic = true};
  assert_int_equal(fn_backend_find("emulated", &backend), FN_OK);
  if (backend->device) assert_int_equal(backend->device(backend, &choice, &device), FN_OK);
  check_all(backend, device);
}

static void test_cuda(void **state) {
  (void)state;
  const fn_backend *backend = NULL;
  fn_device *device = NULL;
  const fn_device_choice choice = {
      .node_size = 1, .deterministic = true, .cache = getenv("FIELDNET_CACHE")};
  assert_int_equal(fn_backend_find("cuda", &backend), FN_OK);
  if (backend->missing || backend->device(backend, &choice, &device) != FN_OK) {
    print_message("no GPU: %s\n", backend->missing ? backend->missing : fn_error_message());
    skip();
  }
  check_all(backend, device);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_emulated), cmocka_unit_test(test_cuda)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
