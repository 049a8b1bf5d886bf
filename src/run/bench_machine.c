/* What this machine can do: the rates that a roofline is drawn from. */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/system.h"
#include "run/bench_internal.h"

enum { REPEATS = 5 };

/** A convolution [1, channels, edge...] -> [1, channels, ...], kernel 3. */
typedef struct conv_size {
  int spatial;
  int64_t channels, edge;
} conv_size;

/** Large enough for the library's best, small enough to take a moment. */
static const conv_size sizes_cpu[] = {{3, 64, 26}, {3, 128, 18}, {2, 128, 66}, {2, 256, 34}};
static const conv_size sizes_gpu[] = {{3, 64, 98}, {3, 256, 50}, {2, 128, 514}, {2, 512, 130}};
/** The reference backend is thousands of times slower. */
static const conv_size sizes_plain[] = {{2, 8, 18}};

static fn_dtype precision_of(const bench *b) {
  if (strcmp(b->run->compute.precision, "bf16") == 0) return FN_BF16;
  return strcmp(b->run->compute.precision, "f16") == 0 ? FN_F16 : FN_F32;
}

static fn_status build_conv(const bench *b, const conv_size *size, fn_graph *graph,
                            fn_parameters **parameters, fn_program **program) {
  const fn_dtype precision = precision_of(b);
  fn_shape shape = {.ndim = size->spatial + 2, .dim = {1, size->channels}};
  int64_t kernel[FN_MAX_SPATIAL];
  for (int d = 0; d < size->spatial; d++) {
    shape.dim[2 + d] = size->edge;
    kernel[d] = 3;
  }
  fn_value *y =
      fn_layer_conv(graph, fn_input(graph, "input", &shape), size->channels, kernel, NULL, false);
  FN_TRY(fn_graph_status(graph));
  if (precision != FN_F32) FN_TRY(fn_graph_apply_half(graph, precision, false));
  FN_TRY(fn_parameters_create(graph, FN_F32, parameters));
  fn_parameters_initialise(*parameters, 1, -1);
  const fn_program_output output = {"output", y};
  const fn_program_options options = {.backend = b->run->compute.backend, .precision = precision};
  return fn_program_create(graph, *parameters, &options, &output, 1, NULL, NULL, 0, program);
}

static void kernel_done(void *user, int kernel, double start, double end) {
  double *seconds = user;
  seconds[kernel] = end - start;
}

/** Best rate of the convolution in the program: of its primitive, or of the whole kernel where the
 *  backend has none. */
static fn_status time_conv(fn_program *program, double *rate) {
  double seconds[16] = {0};
  const int kernels = fn_program_kernel_count(program);
  FN_CHECK(kernels <= 16, FN_ERR_INTERNAL, "a convolution became %d kernels", kernels);
  memset(fn_program_input(program, "input"), 0,
         (size_t)fn_shape_count(fn_program_input_shape(program, "input")) * sizeof(float));
  fn_program_on_kernel(program, kernel_done, seconds);
  const fn_run_context context = {0};
  FN_TRY(fn_program_run(program, &context));
  *rate = 0;
  for (int k = 0; k < kernels; k++) {
    fn_kernel_info info;
    fn_program_kernel_info(program, k, &info);
    if (strcmp(info.op, "conv") != 0) continue;
    for (int i = 0; i < 3; i++) {
      double alone;
      FN_TRY(fn_bench_time_primitive(program, k, &alone));
      if (alone == 0) alone = seconds[k];
      if (alone > 0 && info.flops / alone > *rate) *rate = info.flops / alone;
    }
  }
  return FN_OK;
}

static fn_status try_conv(const bench *b, const conv_size *size, bench_machine *machine) {
  fn_graph *graph;
  const fn_graph_options options = {.training = false};
  FN_TRY(fn_graph_create(&options, &graph));
  fn_parameters *parameters = NULL;
  fn_program *program = NULL;
  double rate = 0;
  fn_status status = build_conv(b, size, graph, &parameters, &program);
  if (status == FN_OK) status = time_conv(program, &rate);
  fn_program_destroy(program);
  fn_parameters_destroy(parameters);
  fn_graph_destroy(graph);
  if (status == FN_OK && rate > machine->flops) {
    machine->flops = rate;
    snprintf(machine->conv, sizeof machine->conv, "%lld -> %lld channels, %lld^%d cells, kernel 3",
             (long long)size->channels, (long long)size->channels, (long long)size->edge,
             size->spatial);
  }
  return status;
}

/** Bytes read and written per second by a copy far larger than the caches. */
static fn_status time_copy(double *rate) {
  const size_t bytes = (size_t)1 << 27;
  const int64_t pieces = 64;
  char *from, *to;
  *rate = 0;
  FN_TRY(fn_pages_allocate(bytes, (void **)&from));
  const fn_status status = fn_pages_allocate(bytes, (void **)&to);
  for (int i = 0; i <= REPEATS && status == FN_OK; i++) {
    const double start = fn_clock();
#pragma omp parallel for schedule(static)
    for (int64_t k = 0; k < pieces; k++)
      memcpy(to + k * (int64_t)bytes / pieces, from + k * (int64_t)bytes / pieces,
             bytes / (size_t)pieces);
    const double found = 2 * (double)bytes / (fn_clock() - start);
    if (i > 0 && found > *rate) *rate = found;
  }
  fn_pages_free(from, bytes);
  if (status == FN_OK) fn_pages_free(to, bytes);
  return status;
}

static fn_status time_copies_within(fn_device *d, void *const memory[2], size_t bytes,
                                    fn_event *const timer[2], double *rate) {
  for (int i = 0; i <= REPEATS; i++) {
    double seconds;
    FN_TRY(d->record(d, FN_STREAM_COMPUTE, timer[0]));
    FN_TRY(d->copy(d, FN_STREAM_COMPUTE, memory[0], memory[1], bytes, FN_COPY_WITHIN));
    FN_TRY(d->record(d, FN_STREAM_COMPUTE, timer[1]));
    FN_TRY(d->synchronize_event(d, timer[1]));
    FN_TRY(d->elapsed(d, timer[0], timer[1], &seconds));
    if (i > 0 && 2 * (double)bytes / seconds > *rate) *rate = 2 * (double)bytes / seconds;
  }
  return FN_OK;
}

static fn_status try_device_copy(const bench *b, size_t bytes, double *rate) {
  fn_device *d = b->device;
  void *memory[2] = {NULL, NULL};
  *rate = 0;
  fn_status status = d->allocate(d, bytes, &memory[0]);
  if (status == FN_OK) status = d->allocate(d, bytes, &memory[1]);
  for (int i = 0; i < 2 && status == FN_OK; i++)
    status = d->clear(d, FN_STREAM_COMPUTE, memory[i], bytes);
  if (status == FN_OK) status = time_copies_within(d, memory, bytes, b->timer, rate);
  for (int i = 0; i < 2; i++)
    if (memory[i]) d->release(d, memory[i]);
  return status;
}

/** Too little memory beside the network is no failure of the measurement. */
static bool is_full(const bench *b, fn_status status) {
  if (status != FN_ERR_MEMORY || !b->device) return false;
  fn_error_clear();
  return true;
}

/** A GPU, not something that plays one on the host. */
static bool is_large(const bench *b) {
  return b->device && b->device->info.compute_major > 0 && b->device->info.memory >> 32 > 0;
}

/** The same in the device's memory, in what the network leaves of it. */
static fn_status time_device_copy(const bench *b, double *rate) {
  size_t bytes = (size_t)1 << (is_large(b) ? 29 : 22);
  fn_status status = try_device_copy(b, bytes, rate);
  while (bytes > 1 << 20 && is_full(b, status))
    status = try_device_copy(b, bytes /= 2, rate);
  return status;
}

static fn_status measure(const bench *b, bench_machine *machine) {
  const bool cpu = strcmp(b->run->compute.backend, "cpu") == 0, gpu = is_large(b);
  const conv_size *sizes = cpu ? sizes_cpu : gpu ? sizes_gpu : sizes_plain;
  const size_t count = cpu   ? sizeof sizes_cpu / sizeof *sizes_cpu
                       : gpu ? sizeof sizes_gpu / sizeof *sizes_gpu
                             : 1;
  for (size_t i = 0; i < count; i++) {
    const fn_status status = try_conv(b, &sizes[i], machine);
    if (!is_full(b, status)) FN_TRY(status);
  }
  if (machine->flops == 0) FN_TRY(try_conv(b, sizes_plain, machine));
  return b->device ? time_device_copy(b, &machine->bytes) : time_copy(&machine->bytes);
}

fn_status fn_bench_measure_machine(const bench *b, bench_machine *machine) {
  *machine = (bench_machine){0};
  fn_dist_max(b->dist, 0);
  return fn_dist_agree(b->dist, measure(b, machine));
}
