/* Convolutions as cuDNN sees them on an H100 that is only described: graphs are accepted, engines
 * are found and plans built, in the library itself, without a GPU. Fused convolutions are compiled
 * with the driver, or what stands in for it (standin/driver.c). Runs wherever cuDNN 9.8 is
 * installed. With a word as argument, prints what was chosen for the cases whose name has it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

#include "backend/cuda/cudnn.h"
#include "base/system.h"
#pragma GCC diagnostic ignored "-Wunused-function" // the headers of test_op are used in part
#include "op_cases.h"
#include "op_run.h"

/** As cuDNN itself describes the device. */
static const char h100[] =
    "{\"cudaDeviceId\":0,\"deviceVer\":900,\"driverVer\":13000,"
    "\"maxGridSize\":[2147483647,65535,65535],\"maxBlockSize\":[1024,1024,64],"
    "\"regsPerBlock\":65536,\"multiProcessorCount\":132,\"warpSize\":32,"
    "\"maxSharedMemoryPerBlock\":49152,\"maxSharedMemoryPerBlockOptin\":232448,"
    "\"reservedSharedMemoryPerBlock\":1024,\"maxRegistersPerSM\":65536,\"maxCtasPerSM\":32,"
    "\"maxThreadsPerBlock\":1024,\"maxThreadsPerSM\":2048,\"pciDeviceId\":0,\"isTccDriver\":0,"
    "\"supportCoopLaunch\":1,\"smClockRateKHz\":1980000,\"memClockRateKHz\":2619000,"
    "\"l2CacheSize\":52428800,\"deviceName\":\"NVIDIA H100 80GB HBM3\","
    "\"totalGlobalMem\":85017755648}";

static fn_cuda cuda;
static const char *filter;

static fn_tensor dense(const fn_shape *shape, fn_dtype dtype, int64_t gap) {
  fn_tensor t = {.dtype = dtype, .shape = *shape, .block = shape->dim[1]};
  int64_t cells = 1;
  for (int a = 2; a < shape->ndim; a++)
    cells *= shape->dim[a];
  t.pitch = t.block + gap;
  t.batch_stride = cells * t.pitch;
  return t;
}

/** Whether an engine says that it uses tensor cores. */
static bool uses_tensor_cores(cudnnBackendDescriptor_t graph, int64_t engine) {
  bool found = false;
#if CUDNN_VERSION >= 90800
  fn_cudnn_pool pool = {.api = cuda.cudnn};
  const fn_cudnn *lib = cuda.cudnn;
  cudnnBackendDescriptor_t d;
  cudnnBackendNumericalNote_t note[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  int64_t count = 0;
  assert_int_equal(fn_cudnn_new(&pool, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &d), FN_OK);
  lib->cudnnBackendSetAttribute(d, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                1, &graph);
  lib->cudnnBackendSetAttribute(d, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &engine);
  lib->cudnnBackendSetAttribute(d, CUDNN_ATTR_ENGINE_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                &lib->assumed);
  if (lib->cudnnBackendFinalize(d) == CUDNN_STATUS_SUCCESS &&
      lib->cudnnBackendGetAttribute(d, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                    CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &count,
                                    note) == CUDNN_STATUS_SUCCESS)
    for (int64_t i = 0; i < count && i < CUDNN_NUMERICAL_NOTE_TYPE_COUNT; i++)
      found |= note[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
  fn_cudnn_clear(&pool);
#else
  (void)graph, (void)engine;
#endif
  return found;
}

typedef struct outcome {
  bool tensor_cores;
  int form, engines;
  int64_t engine;
  size_t workspace;
} outcome;

/** First form of the call that has a plan, as fn_cudnn_prepare() goes about it; form -1: none. */
static outcome find_plan(const fn_gpu_call *call) {
  fn_cudnn_form form[3];
  const int forms = fn_cudnn_forms(call, form);
  outcome o = {.form = -1};
  for (int f = 0; f < forms && o.form < 0; f++) {
    fn_cudnn_pool pool = {.api = cuda.cudnn};
    cudnnBackendDescriptor_t graph, plan;
    fn_algorithm list[FN_CUDNN_CANDIDATES];
    int count = 0;
    static int graphs;
    char key[32]; // nothing is kept for another graph
    snprintf(key, sizeof key, "graph %d", graphs++);
    if (fn_cudnn_graph(&pool, call, &form[f], &graph) == FN_OK)
      assert_int_equal(fn_cudnn_list(&cuda, graph, call, list, &count), FN_OK);
    if (filter && count == 0) print_message("    form %d: %s\n", f, fn_error_message());
    for (int i = 0; i < count && o.form < 0; i++) {
      fn_cudnn_pool plans = {.api = cuda.cudnn};
      size_t workspace;
      if (fn_cudnn_plan(&plans, graph, &list[i], key, cuda.workspace_limit, &plan, &workspace) ==
          FN_OK)
        o = (outcome){uses_tensor_cores(graph, list[i].engine), f, count, list[i].engine,
                      workspace};
      else if (filter)
        print_message("    engine %d: %s\n", (int)list[i].engine, fn_error_message());
      fn_cudnn_clear(&plans);
    }
    fn_cudnn_clear(&pool);
  }
  return o;
}

/** The call that src/backend/gpu/library.c makes of a node. */
static fn_gpu_call call_of(const fn_node *node, fn_dtype dtype, int64_t gap) {
  fn_gpu_call call = {.node = node};
  const bool is_weight = node->op == &fn_op_conv_weight;
  for (int i = 0; i < node->input_count; i++) {
    if (!node->input[i]) continue;
    const fn_shape *shape = &node->input[i]->shape;
    call.present_in[i] = true;
    call.input[i] = i == 2 ? (fn_tensor){.dtype = FN_F32, .shape = *shape, .block = 1}
                           : dense(shape, dtype, i == 1 && !is_weight ? 0 : gap);
    call.finish |= i >= 2;
  }
  call.present_out[0] = true;
  call.output[0] = dense(&node->output[0]->shape, is_weight ? FN_F32 : dtype, is_weight ? 0 : gap);
  call.finish |= !is_weight && ((const fn_conv_attrs *)node->attrs)->slope != 1;
  return call;
}

static outcome try_case(const op_case *c, fn_dtype dtype, int64_t gap) {
  fn_graph *graph = NULL;
  fn_value *in[FN_MAX_PORTS] = {NULL}, *out[FN_MAX_PORTS] = {NULL};
  assert_int_equal(fn_graph_create(&(fn_graph_options){0}, &graph), FN_OK);
  for (int i = 0; i < c->input_count; i++)
    if (!is_absent(c, i)) in[i] = fn_input(graph, port_name('x', i), &c->shape[i]);
  build_case(graph, c, in, out);
  assert_int_equal(fn_graph_status(graph), FN_OK);
  const fn_gpu_call call = call_of(out[0]->node, dtype, gap);
  const outcome o = find_plan(&call);
  if (filter && strstr(c->name, filter))
    print_message("%-60s %s gap %d: form %d, engine %d of %d, workspace %zu\n", c->name,
                  fn_dtype_name(dtype), (int)gap, o.form, (int)o.engine, o.engines, o.workspace);
  fn_graph_destroy(graph);
  return o;
}

/** Padding of two widths is refused by most engines: fieldnet's own kernels take that. */
static bool is_even(const op_case *c) {
  const fn_conv_geometry *g = &((const fn_conv_attrs *)c->attrs)->geometry;
  for (int d = 0; d < c->spatial; d++)
    if (g->pad_low[d] != g->pad_high[d]) return false;
  return true;
}

/** Every convolution with even padding has a deterministic plan, in float32 without TF32
 *  and in 16 bits. */
static void test_plans(void **state) {
  (void)state;
  static const fn_dtype dtypes[] = {FN_F32, FN_BF16, FN_F16};
  op_suite suite = {0};
  for (int d = 1; d <= FN_MAX_SPATIAL; d += 2)
    add_conv_cases(&suite, d);
  int cases = 0, first = 0, none = 0;
  for (int i = 0; i < suite.count; i++)
    for (int t = 0; t < 3; t++) {
      if (filter && !strstr(suite.item[i].name, filter)) continue;
      const outcome o = try_case(&suite.item[i], dtypes[t], 0);
      cases++;
      first += o.form == 0;
      none += o.form < 0;
      if (o.form < 0 && is_even(&suite.item[i]))
        print_message("no plan: %s %s\n", suite.item[i].name, fn_dtype_name(dtypes[t]));
      if (is_even(&suite.item[i])) assert_true(o.form >= 0 || filter);
    }
  print_message("%d convolutions: %d as they are, %d in pieces, %d on own kernels\n", cases, first,
                cases - first - none, none);
  free(suite.item);
}

/** Convolutions of the networks as they are timed, in 16 bits: all have plans, and nearly all on
 * tensor cores, also of 3 and 4 channels, which cuDNN pads by itself. */
static void test_networks(void **state) {
  (void)state;
  typedef struct layer {
    const char *name;
    int spatial;
    int64_t n, c, k, edge, cells, stride, pad;
  } layer;
  static const layer layers[] = {
      {"vnet, first", 3, 1, 3, 64, 3, 104, 1, 0},   {"vnet", 3, 1, 64, 64, 3, 102, 1, 0},
      {"vnet, down", 3, 1, 64, 64, 2, 100, 2, 0},   {"vnet, last", 3, 1, 64, 3, 1, 24, 1, 0},
      {"cosmoflow, 1", 3, 8, 4, 32, 3, 128, 1, 1},  {"cosmoflow, 2", 3, 8, 32, 64, 3, 64, 1, 1},
      {"cosmoflow, 5", 3, 8, 256, 512, 3, 8, 1, 1}, {"racoon, first", 2, 768, 1, 32, 4, 256, 4, 0},
      {"racoon, 2", 2, 768, 32, 128, 4, 64, 4, 0},  {"penguin, first", 2, 768, 1, 32, 4, 256, 2, 1},
  };
  static const fn_dtype dtypes[] = {FN_BF16, FN_F16};
  int slow = 0, all = 0;
  for (size_t l = 0; l < sizeof layers / sizeof *layers; l++) {
    const layer *a = &layers[l];
    op_suite suite = {0};
    fn_shape x = {.ndim = a->spatial + 2, .dim = {a->n, a->c}};
    for (int d = 0; d < a->spatial; d++)
      x.dim[2 + d] = a->cells;
    add_conv_family(&suite, a->spatial, even_geometry(a->stride, a->pad, a->pad, 1, 1), x,
                    kernel_shape(a->k, a->c, a->spatial, a->edge), true, 1, a->name);
    for (int i = 0; i < suite.count; i++)
      for (int t = 0; t < 2; t++) {
        const op_case *c = &suite.item[i];
        if (c->op == &fn_op_conv_data && strstr(a->name, "first")) continue; // nobody wants it
        const outcome o = try_case(c, dtypes[t], 0);
        assert_true(o.form >= 0);
        slow += !o.tensor_cores;
        all++;
        if (!o.tensor_cores || filter)
          print_message("%-40s %-4s form %d, engine %d, %zu MB%s\n", c->name,
                        fn_dtype_name(dtypes[t]), o.form, (int)o.engine, o.workspace >> 20,
                        o.tensor_cores ? "" : ", no tensor cores");
      }
    free(suite.item);
  }
  print_message("%d of %d convolutions without tensor cores\n", slow, all);
  assert_true(5 * slow <= all || filter);
}

/** Forward, backward and filter of a layer with bias, residual and leaky ReLU in one call each:
 *  cuDNN compiles them. */
static void add_fused_cases(op_suite *suite, int d) {
  const fn_conv_geometry g = even_geometry(1, 1, 1, 1, 1);
  add_conv_family(suite, d, g, small_field(1, 64, d), kernel_shape(32, 64, d, 3), true, 0.01,
                  "leaky");
  add_conv_residual_case(suite, d, 1, 32, 32, 3, 0.01);
}

static void test_fused(void **state) {
  (void)state;
  op_suite suite = {0};
  for (int d = 2; d <= FN_MAX_SPATIAL; d++)
    add_fused_cases(&suite, d);
  for (int i = 0; i < suite.count; i++) {
    const op_case *c = &suite.item[i];
    if (c->op == &fn_op_conv_data) continue; // a leaky ReLU behind it is left to another kernel
    const outcome o = try_case(c, FN_BF16, 0);
    if (o.form != 0 || !o.tensor_cores)
      fail_msg("%s: form %d, engine %d", c->name, o.form, (int)o.engine);
  }
  free(suite.item);
}

static double seconds_of_plan(cudnnBackendDescriptor_t graph, const fn_algorithm *algorithm,
                              size_t *workspace) {
  fn_cudnn_pool pool = {.api = cuda.cudnn};
  cudnnBackendDescriptor_t plan;
  const double start = fn_clock();
  assert_int_equal(fn_cudnn_plan(&pool, graph, algorithm, "a graph", SIZE_MAX, &plan, workspace),
                   FN_OK);
  const double seconds = fn_clock() - start;
  fn_cudnn_clear(&pool);
  return seconds;
}

/** What was compiled is loaded the next time, from memory and in another process from its file. */
static void test_compiled_once(void **state) {
  (void)state;
  char folder[] = "/tmp/fieldnet_XXXXXX", command[64];
  assert_non_null(mkdtemp(folder));
  op_suite suite = {0};
  add_fused_cases(&suite, 3);
  fn_graph *network = NULL;
  fn_value *in[FN_MAX_PORTS] = {NULL}, *out[FN_MAX_PORTS] = {NULL};
  assert_int_equal(fn_graph_create(&(fn_graph_options){0}, &network), FN_OK);
  for (int i = 0; i < 3; i++)
    in[i] = fn_input(network, port_name('x', i), &suite.item[0].shape[i]);
  build_case(network, &suite.item[0], in, out);
  const fn_gpu_call call = call_of(out[0]->node, FN_BF16, 0);
  fn_cudnn_pool pool = {.api = cuda.cudnn};
  cudnnBackendDescriptor_t graph;
  fn_algorithm list[FN_CUDNN_CANDIDATES];
  int count = 0;
  const fn_cudnn_form fused = {true, FN_BF16};
  assert_int_equal(fn_cudnn_graph(&pool, &call, &fused, &graph), FN_OK);
  assert_int_equal(fn_cudnn_list(&cuda, graph, &call, list, &count), FN_OK);
  assert_true(count > 0);
  size_t workspace[3];
  double seconds[3];
  for (int k = 0; k < 3; k++) {
    if (k != 1) { // a start; the second finds the file of the first
      fn_plans_close(cuda.cudnn->plans);
      assert_int_equal(fn_plans_open(folder, &cuda.cudnn->plans), FN_OK);
    }
    seconds[k] = seconds_of_plan(graph, &list[0], &workspace[k]);
    assert_int_equal(workspace[k], workspace[0]);
  }
  print_message("compiled in %.2f s; from memory %.4f s, from the file %.4f s\n", seconds[0],
                seconds[1], seconds[2]);
  assert_true(seconds[1] < seconds[0] / 4 && seconds[2] < seconds[0] / 4);
  fn_cudnn_clear(&pool);
  fn_graph_destroy(network);
  free(suite.item);
  snprintf(command, sizeof command, "rm -r %s", folder);
  assert_int_equal(system(command), 0);
}

/** Whether cuDNN can compile, if need be with what stands in for the driver. */
static bool find_compiler(void) {
  const bool driver =
      dlopen("libcuda.so.1", RTLD_NOW) != NULL || dlopen(STANDIN_DRIVER, RTLD_NOW) != NULL;
  return fn_cuda_open_compiler() && driver;
}

int main(int argc, char **argv) {
  filter = argc > 1 ? argv[1] : NULL;
  const fn_status status = fn_cudnn_assume(h100, &cuda.cudnn);
  if (status != FN_OK) {
    printf("no cuDNN to ask: %s\n", fn_error_message());
    return 77;
  }
  cuda.deterministic = true;
  cuda.workspace_limit = (size_t)5 << 30;
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_plans), cmocka_unit_test(test_networks)};
  const struct CMUnitTest compiled[] = {cmocka_unit_test(test_fused),
                                        cmocka_unit_test(test_compiled_once)};
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  if (!find_compiler()) {
    printf("fused convolutions are left out: there is no NVRTC\n");
    return failed;
  }
  return cmocka_run_group_tests(compiled, NULL, NULL) + failed;
}
