#include "run/device_plan.h"

#include <math.h>
#include <string.h>

#include "base/text.h"
#include "learn/learn.h"

/** Every buffer is used twice in turn: after four steps all of them were used again. */
enum { STEPS = 4 };

static fn_status parse(const char *assumed, int *major, int *minor) {
  int number, used = 0;
  FN_CHECK(sscanf(assumed, "sm_%d%n", &number, &used) == 1 && assumed[used] == '\0' && number >= 50,
           FN_ERR_CONFIG,
           "--assume: expected sm_ and a compute capability, as sm_80 or sm_90, found '%s'",
           assumed);
  *major = number / 10;
  *minor = number % 10;
  return FN_OK;
}

/* ---- a few steps --------------------------------------------------------------------------------
 */

/** What the training loop does on one rank; see fn_train. */
static fn_status take_step(fn_program *program, fn_parameters *parameters,
                           fn_optimizer *optimizer) {
  double norm;
  fn_program_input(program, "input");
  if (fn_program_input_shape(program, "target")) fn_program_input(program, "target");
  FN_TRY(fn_program_run(program, NULL));
  FN_TRY(fn_gradient_norm_wait(parameters, &norm));
  FN_TRY(fn_program_wait(program));
  fn_program_output_data(program, "loss");
  return fn_optimizer_step(optimizer, 1e-3, 1);
}

static fn_status take_steps(const fn_run *run, fn_program *program, fn_parameters *parameters) {
  fn_optimizer *optimizer;
  FN_TRY(fn_optimizer_create(run, parameters, &optimizer));
  fn_status status = FN_OK;
  for (int s = 0; s < STEPS && status == FN_OK; s++)
    status = take_step(program, parameters, optimizer);
  // Large outputs are asked for now and then.
  fn_program_output_data(program, "output");
  if (status == FN_OK) status = take_step(program, parameters, optimizer);
  fn_optimizer_destroy(optimizer);
  return status;
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static void print_kernel(const fn_program *program, int index, FILE *out) {
  const fn_kernel *kernel = fn_program_kernel(program, index);
  const fn_tensor *y = &kernel->output[0];
  char shape[96], layout[48] = "plain";
  fn_kernel_info info;
  fn_program_kernel_info(program, index, &info);
  if (y->block > 1) snprintf(layout, sizeof layout, "channels-last");
  if (y->pitch > y->block && y->block > 1)
    snprintf(layout, sizeof layout, "channels-last, pitch %lld", (long long)y->pitch);
  fprintf(out, "%4d  %-16s %-28s %-5s %-26s %s\n", index, info.op, info.label,
          fn_dtype_name(y->dtype), fn_shape_text(&info.shape, shape, sizeof shape), layout);
}

static void print_totals(const fn_run *run, const fn_recorder *recorder, const fn_program *program,
                         FILE *out) {
  fn_program_memory memory;
  fn_recorder_counts counts;
  char a[32], b[32], c[32];
  fn_program_memory_info(program, &memory);
  fn_recorder_count(recorder, &counts);
  const int64_t *n = counts.operations, steps = STEPS + 1;
  fprintf(out, "\nbackend         %s, precision %s\n", run->compute.backend,
          run->compute.precision);
  fprintf(out, "kernels         %d, of them %d reorders and %d computed twice\n",
          fn_program_kernel_count(program), memory.reorders, memory.repeats);
  fprintf(out, "arena           %s; %s if nothing were shared\n",
          fn_text_bytes((double)memory.arena, a, sizeof a),
          fn_text_bytes((double)memory.naive, b, sizeof b));
  fprintf(out,
          "on the device   %s with parameters, gradients and optimizer, without scratch; %s "
          "pinned on the host\n",
          fn_text_bytes((double)counts.device_bytes, a, sizeof a),
          fn_text_bytes((double)counts.pinned_bytes, c, sizeof c));
  fprintf(out, "streams         %lld steps: compute %lld, in %lld, out %lld, communication %lld\n",
          (long long)steps, (long long)n[FN_STREAM_COMPUTE], (long long)n[FN_STREAM_IN],
          (long long)n[FN_STREAM_OUT], (long long)n[FN_STREAM_COMM]);
  fprintf(out, "events          %d: %lld records, %lld waits of streams, %lld of the host\n",
          counts.events, (long long)counts.records, (long long)counts.waits,
          (long long)counts.host_waits);
  fprintf(out, "checked         every access is ordered; no two living values share memory\n");
}

static fn_status plan(const fn_run *run, fn_engine *engine, fn_recorder *recorder, int64_t samples,
                      FILE *out) {
  fn_program *program;
  FN_TRY(fn_engine_assume(engine, recorder));
  FN_TRY(fn_engine_program(engine, true, true, samples, &program));
  FN_TRY(take_steps(run, program, fn_engine_parameters(engine)));
  for (int k = 0; k < fn_program_kernel_count(program); k++)
    print_kernel(program, k, out);
  FN_TRY(fn_program_check_plan(program));
  FN_TRY(fn_recorder_check(recorder, -1));
  print_totals(run, recorder, program, out);
  return FN_OK;
}

fn_status fn_device_plan(const fn_run *run, const fn_dist *dist, const fn_size_options *sizes,
                         const char *assumed, FILE *out) {
  int major = 0, minor = 0;
  int64_t samples;
  fn_dataset_info info;
  fn_size_source source;
  char name[64];
  FN_TRY(parse(assumed, &major, &minor));
  FN_TRY(fn_engine_fewest_samples(run, &samples));
  FN_TRY(fn_sizes_find(run, dist, sizes, &info, &source));
  snprintf(name, sizeof name, "assumed %s", assumed);
  fn_recorder *recorder;
  fn_engine *engine = NULL;
  FN_TRY(fn_recorder_create(name, major, minor, &recorder));
  fn_status status = fn_engine_create(run, dist, &info, &engine);
  if (status == FN_OK) status = plan(run, engine, recorder, samples, out);
  if (status == FN_OK)
    fprintf(out, "\n%s; %lld sample%s, %s\n", source.text, (long long)samples,
            samples > 1 ? "s" : "", name);
  fn_engine_destroy(engine);
  fn_recorder_destroy(recorder);
  return status;
}
