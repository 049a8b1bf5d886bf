#include "run/bench.h"

#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/random.h"
#include "base/system.h"
#include "base/text.h"
#include "learn/learn.h"

enum { KINDS_MOST = 64, SLOWEST = 15, NAME = 96 };

/** One kernel, or all kernels of one kind. */
typedef struct row {
  char name[NAME];
  const char *backend;
  fn_shape shape;
  int kernels;
  double seconds; /**< per step */
  double alone;   /**< of its library primitive timed alone, per step */
  double flops, bytes;
} row;

typedef struct bench {
  const fn_run *run;
  fn_dist *dist;
  const fn_bench_options *options;
  FILE *out;
  fn_dataset_info info;
  fn_size_source source;
  fn_engine *engine;
  fn_program *program;
  fn_optimizer *optimizer;
  double *step, *update, *ratio; /**< seconds; step / primitives; shape [steps] */
  row *kernel;                   /**< shape [kernel_count] */
  int kernel_count;
  row kind[KINDS_MOST];
  int kind_count;
  int backward_from; /**< first kernel of the backward pass */
  double step_time, update_time, forward, backward, alone, ratio_median;
  size_t peak; /**< bytes resident */
  fn_program_memory memory;
} bench;

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int64_t count) {
  qsort(values, (size_t)count, sizeof *values, compare_doubles);
  return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

/* ---- running -----------------------------------------------------------------------------------
 */

static void fill(fn_program *program, const char *name, uint64_t stream) {
  fn_random random = fn_random_stream(1, FN_RANDOM_TEST, 0, stream);
  float *to = fn_program_input(program, name);
  const int64_t count = fn_shape_count(fn_program_input_shape(program, name));
  for (int64_t i = 0; i < count; i++)
    to[i] = (float)fn_random_normal(&random);
}

/** One step: inputs, forward and backward, optimizer; feeding is not part of the time. */
static fn_status take_step(bench *b, double *step, double *update) {
  fill(b->program, "input", 1);
  fill(b->program, "target", 2);
  const fn_run_context context = {.seed = b->run->seed, .collectives = &b->dist->collectives};
  const double start = fn_clock();
  FN_TRY(fn_program_run(b->program, &context));
  const double computed = fn_clock();
  fn_optimizer_step(b->optimizer, b->run->optimizer.lr > 0 ? b->run->optimizer.lr : 1e-4, 1);
  *step = fn_clock() - start;
  *update = *step - (computed - start);
  return FN_OK;
}

/** Every primitive of the step once more, alone. Overwrites outputs of kernels, which the next step
 *  writes again. */
static fn_status time_primitives(bench *b, double *sum) {
  *sum = 0;
  for (int k = 0; k < b->kernel_count; k++) {
    double seconds;
    FN_TRY(fn_cpu_time_primitive(fn_program_kernel(b->program, k), 1, &seconds));
    b->kernel[k].alone += seconds / (double)b->options->steps;
    *sum += seconds;
  }
  return FN_OK;
}

/** Steps and primitives alternate, so that both see the same machine: other programs, clock rates
 *  and temperatures change over minutes. */
static fn_status take_steps(bench *b) {
  double ignored[2];
  for (int64_t i = 0; i < b->options->warmup; i++)
    FN_TRY(take_step(b, &ignored[0], &ignored[1]));
  fn_program_profile_reset(b->program);
  for (int64_t i = 0; i < b->options->steps; i++) {
    double alone;
    FN_TRY(take_step(b, &b->step[i], &b->update[i]));
    FN_TRY(time_primitives(b, &alone));
    b->alone += alone / (double)b->options->steps;
    b->ratio[i] = alone > 0 ? b->step[i] / alone : 0;
  }
  b->peak = fn_memory_peak();
  b->step_time = median(b->step, b->options->steps);
  b->update_time = median(b->update, b->options->steps);
  b->ratio_median = median(b->ratio, b->options->steps);
  return FN_OK;
}

/* ---- collecting --------------------------------------------------------------------------------
 */

/** The kernel that writes the loss is the last of the forward pass. */
static int find_backward(const bench *b) {
  const void *loss = fn_program_output_data(b->program, "loss");
  for (int k = 0; k < b->kernel_count; k++) {
    const fn_kernel *kernel = fn_program_kernel(b->program, k);
    if (kernel->node->output_count > 0 && kernel->output[0].data == loss) return k + 1;
  }
  return b->kernel_count;
}

static row *kind_of(bench *b, const char *op, const char *backend) {
  for (int i = 0; i < b->kind_count; i++)
    if (strcmp(b->kind[i].name, op) == 0 && strcmp(b->kind[i].backend, backend) == 0)
      return &b->kind[i];
  if (b->kind_count == KINDS_MOST) return &b->kind[KINDS_MOST - 1];
  row *kind = &b->kind[b->kind_count++];
  snprintf(kind->name, sizeof kind->name, "%s", op);
  kind->backend = backend;
  return kind;
}

static void add_to_kind(bench *b, const char *op, const row *r) {
  row *kind = kind_of(b, op, r->backend);
  kind->kernels++;
  kind->seconds += r->seconds;
  kind->alone += r->alone;
  kind->flops += r->flops;
  kind->bytes += r->bytes;
}

static void collect(bench *b) {
  for (int k = 0; k < b->kernel_count; k++) {
    fn_kernel_info info;
    fn_program_kernel_info(b->program, k, &info);
    row *r = &b->kernel[k];
    r->backend = info.backend;
    r->shape = info.shape;
    r->kernels = 1;
    r->seconds = info.runs > 0 ? info.seconds / (double)info.runs : 0;
    r->flops = info.flops;
    r->bytes = info.bytes;
    snprintf(r->name, sizeof r->name, "%s %s", info.op, info.label);
    if (k < b->backward_from)
      b->forward += r->seconds;
    else
      b->backward += r->seconds;
    add_to_kind(b, info.op, r);
  }
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static int slower(const void *a, const void *b) {
  const double x = ((const row *)a)->seconds, y = ((const row *)b)->seconds;
  return (x < y) - (x > y);
}

static void print_row(const bench *b, const row *r, const char *name, double total) {
  fprintf(b->out, "%-44.44s %3d %9.2f %5.1f %9.2f %9.1f %8.1f\n", name, r->kernels,
          1e3 * r->seconds, 100 * r->seconds / total, 1e3 * r->alone, r->flops / r->seconds * 1e-9,
          r->bytes / r->seconds * 1e-9);
}

static void print_rows(const bench *b, const char *title, const row *rows, int count, int most,
                       bool shapes) {
  row *sorted = malloc((size_t)(count + 1) * sizeof *sorted);
  if (!sorted) return;
  memcpy(sorted, rows, (size_t)count * sizeof *sorted);
  qsort(sorted, (size_t)count, sizeof *sorted, slower);
  fprintf(b->out, "\n%-44s %3s %9s %5s %9s %9s %8s\n", title, "n", "ms", "%", "alone ms", "GFLOP/s",
          "GB/s");
  for (int i = 0; i < count && i < most; i++) {
    char name[2 * NAME], shape[96];
    snprintf(name, sizeof name, "%s %s", sorted[i].name,
             shapes ? fn_shape_text(&sorted[i].shape, shape, sizeof shape) : sorted[i].backend);
    print_row(b, &sorted[i], name, b->step_time);
  }
  if (count > most) fprintf(b->out, "  ... and %d faster ones (--all lists them)\n", count - most);
  free(sorted);
}

static void print_head(const bench *b) {
  fprintf(b->out, "training step, batch %lld, input [%lld", (long long)b->options->batch,
          (long long)b->info.input_channels);
  for (int d = 0; d < b->info.spatial; d++)
    fprintf(b->out, ", %lld", (long long)b->info.input_extent[d]);
  fprintf(b->out, "], target [%lld", (long long)b->info.target_channels);
  for (int d = 0; d < b->info.target_spatial; d++)
    fprintf(b->out, ", %lld", (long long)b->info.target_extent[d]);
  fprintf(b->out, "] (%s)\n", b->source.text);
  fprintf(b->out, "backend %s, precision %s, %d thread%s, %lld step%s after %lld; random numbers\n",
          b->run->compute.backend, b->run->compute.precision, fn_threads_get(),
          fn_threads_get() == 1 ? "" : "s", (long long)b->options->steps,
          b->options->steps == 1 ? "" : "s", (long long)b->options->warmup);
}

static void print_summary(const bench *b) {
  char text[4][32];
  fprintf(b->out, "\nstep        %10.2f ms   median; fastest %.2f, slowest %.2f\n",
          1e3 * b->step_time, 1e3 * b->step[0], 1e3 * b->step[b->options->steps - 1]);
  fprintf(b->out,
          "  forward   %10.2f ms   means of the kernels' own times\n  backward  %10.2f ms\n",
          1e3 * b->forward, 1e3 * b->backward);
  fprintf(b->out, "  optimizer %10.2f ms   %s\n", 1e3 * b->update_time, b->run->optimizer.name);
  if (b->alone > 0)
    fprintf(b->out,
            "primitives  %10.2f ms   convolutions and matrix products of the step, alone\n"
            "ratio       %10.3f      step / primitives, median; lowest %.3f, highest %.3f\n",
            1e3 * b->alone, b->ratio_median, b->ratio[0], b->ratio[b->options->steps - 1]);
  else
    fprintf(b->out, "primitives           -      backend %s has none to compare with\n",
            b->run->compute.backend);
  fprintf(b->out, "samples     %10.3f /s\n", (double)b->options->batch / b->step_time);
  fprintf(b->out, "memory      arena %s (unplanned: %s), workspace %s, peak resident %s\n",
          fn_text_bytes((double)b->memory.arena, text[0], 32),
          fn_text_bytes((double)b->memory.naive, text[1], 32),
          fn_text_bytes((double)b->memory.workspace, text[2], 32),
          fn_text_bytes((double)b->peak, text[3], 32));
  fprintf(b->out, "reorders    %d\n", b->memory.reorders);
}

static void add_json_row(fn_text *text, const row *r, const char *separator) {
  char shape[96];
  fn_text_add(text,
              "%s\n    {\"name\": \"%s\", \"backend\": \"%s\", \"kernels\": %d, \"shape\": %s, "
              "\"seconds\": %.6g, \"alone\": %.6g, \"flops\": %.6g, \"bytes\": %.6g}",
              separator, r->name, r->backend, r->kernels,
              r->shape.ndim ? fn_shape_text(&r->shape, shape, sizeof shape) : "[]", r->seconds,
              r->alone, r->flops, r->bytes);
}

static fn_status write_json(const bench *b) {
  fn_text text = {0};
  fn_text_add(&text,
              "{\"version\": \"%s\", \"backend\": \"%s\", \"precision\": \"%s\", \"threads\": %d, "
              "\"batch\": %lld,\n \"step\": %.6g, \"forward\": %.6g, \"backward\": %.6g, "
              "\"optimizer\": %.6g, \"primitives\": %.6g, "
              "\"ratio\": %.6g,\n",
              fn_version(), b->run->compute.backend, b->run->compute.precision, fn_threads_get(),
              (long long)b->options->batch, b->step_time, b->forward, b->backward, b->update_time,
              b->alone, b->ratio_median);
  fn_text_add(&text,
              " \"arena\": %zu, \"workspace\": %zu, \"peak_resident\": %zu, \"steps_ascending\": [",
              b->memory.arena, b->memory.workspace, b->peak);
  for (int64_t i = 0; i < b->options->steps; i++)
    fn_text_add(&text, "%s%.6g", i ? ", " : "", b->step[i]);
  fn_text_add(&text, "],\n \"kinds\": [");
  for (int i = 0; i < b->kind_count; i++)
    add_json_row(&text, &b->kind[i], i ? "," : "");
  fn_text_add(&text, "],\n \"kernels\": [");
  for (int k = 0; k < b->kernel_count; k++)
    add_json_row(&text, &b->kernel[k], k ? "," : "");
  fn_text_add(&text, "]}\n");
  const fn_status status = fn_file_replace(b->options->json, text.data, text.length);
  fn_text_free(&text);
  return status;
}

/* ---- all of it ----------------------------------------------------------------------------------
 */

static fn_status prepare(bench *b) {
  FN_TRY(fn_sizes_find(b->run, b->dist, &b->options->sizes, &b->info, &b->source));
  FN_TRY(fn_engine_create(b->run, b->dist, &b->info, &b->engine));
  FN_TRY(
      fn_engine_program_with(b->engine, true, true, b->options->batch, true, false, &b->program));
  FN_TRY(fn_optimizer_create(b->run, fn_engine_parameters(b->engine), &b->optimizer));
  b->kernel_count = fn_program_kernel_count(b->program);
  b->kernel = calloc((size_t)b->kernel_count + 1, sizeof *b->kernel);
  b->step = calloc((size_t)b->options->steps + 1, sizeof *b->step);
  b->update = calloc((size_t)b->options->steps + 1, sizeof *b->update);
  b->ratio = calloc((size_t)b->options->steps + 1, sizeof *b->ratio);
  FN_CHECK(b->kernel && b->step && b->update && b->ratio, FN_ERR_MEMORY, "out of memory");
  fn_program_memory_info(b->program, &b->memory);
  b->backward_from = find_backward(b);
  return FN_OK;
}

static fn_status measure(bench *b) {
  FN_TRY(prepare(b));
  print_head(b);
  FN_TRY(take_steps(b));
  collect(b);
  print_rows(b, "operator", b->kind, b->kind_count, KINDS_MOST, false);
  print_rows(b, "kernel", b->kernel, b->kernel_count,
             b->options->all ? b->kernel_count : (int)SLOWEST, true);
  print_summary(b);
  return b->options->json ? write_json(b) : FN_OK;
}

fn_status fn_bench(const fn_run *run, fn_dist *dist, const fn_bench_options *options, FILE *out) {
  FN_CHECK(dist->size == 1, FN_ERR_CONFIG, "bench times one rank, not %d", dist->size);
  bench *b = calloc(1, sizeof *b);
  FN_CHECK(b, FN_ERR_MEMORY, "out of memory");
  *b = (bench){.run = run, .dist = dist, .options = options, .out = out};
  const fn_status status = measure(b);
  fn_optimizer_destroy(b->optimizer);
  fn_engine_destroy(b->engine);
  free(b->kernel);
  free(b->step);
  free(b->update);
  free(b->ratio);
  free(b);
  return status;
}
