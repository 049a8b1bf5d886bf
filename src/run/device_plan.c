#include "run/device_plan.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "data/raw.h"
#include "learn/learn.h"

/** Buffers are used in turn, two or three: after four steps all of them were used again. */
enum { STEPS = 4, SLOTS = 3 };

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

/** Batches on their way to the device, as a loader has them. */
typedef struct batch_source {
  fn_recorder *recorder;
  fn_ring *ring; /**< NULL: the host converts */
  fn_raw_layout layout;
  fn_raw_field *field; /**< shape [samples, fields]: the same for all batches */
  fn_raw_batch raw[SLOTS];
  fn_batch batch[SLOTS];
} batch_source;

static fn_status source_create(const fn_run *run, const fn_dataset_info *info, int64_t samples,
                               fn_recorder *recorder, batch_source *s) {
  *s = (batch_source){.recorder = recorder};
  if (strcmp(run->data.convert, "host") == 0) return FN_OK;
  FN_TRY(fn_raw_layout_plain(info, &s->layout));
  s->field = calloc((size_t)(samples * s->layout.fields), sizeof *s->field);
  FN_CHECK(s->field, FN_ERR_MEMORY, "out of memory");
  int64_t values[2] = {0, 0};
  for (int f = 0; f < s->layout.fields; f++) {
    values[f] = f ? info->target_channels : info->input_channels;
    for (int d = 0; d < (f ? info->target_spatial : info->spatial); d++)
      values[f] *= f ? info->target_extent[d] : info->input_extent[d];
  }
  for (int64_t n = 0; n < samples; n++)
    fn_raw_describe_plain(info, &s->layout, NULL, s->field + n * s->layout.fields);
  FN_TRY(fn_ring_create(fn_recorder_device(recorder), SLOTS, (size_t)samples * s->layout.row,
                        &s->ring));
  for (int i = 0; i < SLOTS; i++) {
    s->raw[i] = (fn_raw_batch){.ring = s->ring, .slot = i, .layout = &s->layout, .field = s->field};
    s->batch[i] = (fn_batch){
        .count = samples, .input_values = values[0], .target_values = values[1], .raw = &s->raw[i]};
  }
  return FN_OK;
}

static void source_destroy(batch_source *s) {
  fn_ring_destroy(s->ring);
  fn_raw_layout_free(&s->layout);
  free(s->field);
}

/** Readers fill the slot of a step's batch. */
static fn_status source_read(const batch_source *s, int step) {
  if (!s->ring) return FN_OK;
  const fn_batch *batch = &s->batch[step % SLOTS];
  FN_TRY(fn_ring_reclaim(s->ring, step % SLOTS));
  return fn_recorder_host(s->recorder, "reading", fn_ring_slot(s->ring, step % SLOTS),
                          (size_t)batch->count * s->layout.row, true);
}

static fn_status source_feed(const batch_source *s, fn_program *program, int step) {
  if (s->ring) return fn_engine_feed(program, &s->batch[step % SLOTS]);
  fn_program_input(program, "input");
  if (fn_program_input_shape(program, "target")) fn_program_input(program, "target");
  return FN_OK;
}

/** What the training loop does on one rank; see fn_step_take. */
static fn_status take_step(const batch_source *s, int step, fn_program *program, fn_judge *judge,
                           fn_optimizer *optimizer) {
  fn_judgement before;
  FN_TRY(source_feed(s, program, step));
  FN_TRY(fn_program_run(program, NULL));
  FN_TRY(source_read(s, step + 2));
  if (s->ring) FN_TRY(fn_batch_send(&s->batch[(step + 1) % SLOTS]));
  if (step > 0) FN_TRY(fn_judge_read(judge, &before));
  const fn_step_facts facts = {.loss = fn_program_output_place(program, "loss"), .loss_scale = 1};
  return fn_optimizer_step_judged(optimizer, 1e-3, judge, &facts);
}

static fn_status take_steps(const fn_run *run, const batch_source *s, fn_program *program,
                            fn_parameters *parameters) {
  fn_optimizer *optimizer;
  fn_judge *judge = NULL;
  FN_TRY(fn_optimizer_create(run, parameters, &optimizer));
  fn_status status = fn_judge_create(parameters, fn_optimizer_obey, optimizer, false, &judge);
  if (status == FN_OK) status = source_read(s, 0);
  if (status == FN_OK) status = source_read(s, 1);
  for (int i = 0; i < STEPS && status == FN_OK; i++)
    status = take_step(s, i, program, judge, optimizer);
  // Large outputs are asked for now and then.
  fn_program_output_data(program, "output_window");
  if (status == FN_OK) status = take_step(s, STEPS, program, judge, optimizer);
  fn_judge_destroy(judge);
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

/** How fields get to the device, where there are data. */
static fn_status print_ways(const fn_run *run, fn_recorder *recorder, FILE *out) {
  fn_dataset *dataset;
  fn_text text = {0};
  const bool train = fn_run_has_data(run, "train", true);
  FN_TRY(fn_dataset_create(run, train ? FN_STAGE_TRAIN : FN_STAGE_TEST, &dataset));
  fn_dataset_set_device(dataset, fn_recorder_device(recorder));
  const fn_status status = fn_dataset_say_ways(dataset, &text);
  if (status == FN_OK) fprintf(out, "\n%s\n", text.data);
  fn_text_free(&text);
  fn_dataset_destroy(dataset);
  return status;
}

static fn_status plan(const fn_run *run, fn_engine *engine, fn_recorder *recorder,
                      const batch_source *s, int64_t samples, FILE *out) {
  fn_program *program;
  FN_TRY(fn_engine_program(engine, true, true, samples, &program));
  FN_TRY(take_steps(run, s, program, fn_engine_parameters(engine)));
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
  batch_source batches = {0};
  fn_status status = fn_engine_create(run, dist, &info, &engine);
  if (status == FN_OK) status = fn_engine_assume(engine, recorder);
  if (status == FN_OK) status = fn_engine_take_raw(engine, NULL);
  if (status == FN_OK) status = source_create(run, &info, samples, recorder, &batches);
  if (status == FN_OK) status = plan(run, engine, recorder, &batches, samples, out);
  if (status == FN_OK && batches.ring && source.from_data) status = print_ways(run, recorder, out);
  if (status == FN_OK)
    fprintf(out, "\n%s; %lld sample%s, %s\n", source.text, (long long)samples,
            samples > 1 ? "s" : "", name);
  source_destroy(&batches);
  fn_engine_destroy(engine);
  fn_recorder_destroy(recorder);
  return status;
}
