/* Steps as the training loop takes them, cut into phases. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "backend/gpu/gpu.h"
#include "base/random.h"
#include "base/system.h"
#include "run/bench_internal.h"

const char *const fn_bench_phase_names[BENCH_PHASES] = {
    "input_wait",          "feed",      "forward", "backward", "communication_exposed",
    "communication_agree", "optimizer",
};

/** Clock of one step. */
typedef struct watch {
  bench *b;
  bench_steps *s;
  double start, last;
  double forward_end; /**< 0: not there yet */
  double reduced;     /**< how long program and reductions took */
  double phase[BENCH_PHASES];
  bool recorded;        /**< into the timeline */
  bool profiled;        /**< every kernel is timed; on a device such a step is not representative */
  bench_reader *reader; /**< NULL: batches are made up */
} watch;

/** Events around a step on a device. */
typedef enum timer { TIMER_START, TIMER_PROGRAM, TIMER_END } timer;

/* ---- preparing ---------------------------------------------------------------------------------
 */

/** Normal numbers; every rank its own. The same batch in every step. */
static fn_status make_random_batch(bench *b) {
  const char *names[] = {"input", "target"};
  float **to[] = {&b->random.input, &b->random.target};
  int64_t *values[] = {&b->random.input_values, &b->random.target_values};
  b->random.count = b->options->batch;
  for (int i = 0; i < 2; i++) {
    const fn_shape *shape = fn_program_input_shape(b->program, names[i]);
    if (!shape) continue;
    const int64_t count = fn_shape_count(shape);
    *values[i] = count / b->options->batch;
    *to[i] = malloc((size_t)count * sizeof(float));
    FN_CHECK(*to[i], FN_ERR_MEMORY, "out of memory for a random batch");
    fn_random random =
        fn_random_stream(1, FN_RANDOM_TEST, (uint64_t)b->dist->rank, (uint64_t)i + 1);
    for (int64_t k = 0; k < count; k++)
      (*to[i])[k] = (float)fn_random_normal(&random);
    // Targets without space are labels.
    for (int64_t k = 0; i == 1 && b->info.target_spatial == 0 && k < count; k++)
      (*to[i])[k] = (*to[i])[k] > 0 ? 1 : 0;
  }
  return FN_OK;
}

static fn_status prepare_alone(bench *b) {
  const bool training = !b->options->inference;
  const double start = fn_clock();
  FN_TRY(fn_engine_create(b->run, b->dist, &b->info, &b->engine));
  if (b->dataset) FN_TRY(fn_engine_take_raw(b->engine, b->dataset));
  FN_TRY(fn_engine_program(b->engine, training, training, b->options->batch, &b->program));
  b->parameters = fn_engine_parameters(b->engine);
  FN_TRY(fn_optimizer_create(b->run, b->parameters, &b->optimizer));
  FN_TRY(fn_judge_create(b->parameters, fn_optimizer_obey, b->optimizer, fn_engine_replays(b->run),
                         &b->judge));
  double plan;
  fn_program_create_times(b->program, &plan, &b->start.prepare);
  b->start.plan = fn_clock() - start - b->start.prepare;
  b->device = fn_program_device(b->program);
  for (int t = 0; b->device && t < BENCH_TIMERS; t++)
    FN_TRY(b->device->timer_create(b->device, &b->timer[t]));
  return make_random_batch(b);
}

fn_status fn_bench_prepare(bench *b) {
  FN_TRY(fn_dist_agree(b->dist, prepare_alone(b)));
  const int64_t bytes = fn_reducer_bucket_bytes(b->parameters, b->run->train.bucket_bytes);
  return fn_dist_agree(b->dist,
                       fn_reducer_create(b->dist, b->parameters, b->run->train.first_bucket_bytes,
                                         bytes, fn_reduction_of(b->run), &b->reducer));
}

void fn_bench_release(bench *b) {
  for (size_t i = 0; i < sizeof b->steps / sizeof *b->steps; i++) {
    bench_steps *s = &b->steps[i];
    free(s->step);
    free(s->compute);
    free(s->ratio);
    free(s->bound_ratio);
    free(s->each);
    free(s->kernel);
  }
  free(b->random.input);
  free(b->random.target);
  for (int t = 0; t < BENCH_TIMERS; t++)
    if (b->timer[t]) b->device->event_destroy(b->device, b->timer[t]);
  fn_reducer_destroy(b->reducer);
  fn_judge_destroy(b->judge);
  fn_optimizer_destroy(b->optimizer);
  fn_engine_destroy(b->engine);
  fn_dataset_destroy(b->dataset);
  fn_timeline_destroy(b->timeline);
}

/** The kernel that writes the loss is the last of the forward pass. */
static int find_backward(const bench *b) {
  const void *loss = fn_program_output_place(b->program, "loss");
  const int count = fn_program_kernel_count(b->program);
  for (int k = 0; k < count && loss; k++) {
    const fn_kernel *kernel = fn_program_kernel(b->program, k);
    if (kernel->node->output_count > 0 && kernel->output[0].data == loss) return k + 1;
  }
  return count;
}

static fn_status allocate(bench *b, bench_steps *s) {
  const size_t steps = (size_t)b->options->steps + 1;
  s->kernel_count = fn_program_kernel_count(b->program);
  s->kernel = calloc((size_t)s->kernel_count + 1, sizeof *s->kernel);
  s->each = calloc(steps * (size_t)(s->kernel_count + 1), sizeof *s->each);
  s->step = calloc(steps, sizeof *s->step);
  s->compute = calloc(steps, sizeof *s->compute);
  s->ratio = calloc(steps, sizeof *s->ratio);
  s->bound_ratio = calloc(steps, sizeof *s->bound_ratio);
  FN_CHECK(s->kernel && s->each && s->step && s->compute && s->ratio && s->bound_ratio,
           FN_ERR_MEMORY, "out of memory");
  s->backward_from = find_backward(b);
  s->inference = b->options->inference;
  fn_program_memory_info(b->program, &s->memory);
  return FN_OK;
}

/* ---- one step
 * ------------------------------------------------------------------------------------- */

/** What went by since the last mark belongs to the phase. */
static void mark(watch *w, bench_phase phase) {
  const double now = fn_clock();
  w->phase[phase] += now - w->last;
  if (w->recorded && now > w->last)
    fn_timeline_add(w->b->timeline, FN_TIMELINE_MAIN, "phase", w->last, now, "%s",
                    fn_bench_phase_names[phase]);
  w->last = now;
}

static void kernel_done(void *user, int kernel, double start, double end) {
  watch *w = user;
  if (w->recorded) {
    fn_kernel_info info;
    fn_program_kernel_info(w->b->program, kernel, &info);
    fn_timeline_add(w->b->timeline, FN_TIMELINE_MAIN, "kernel", start, end, "%s %s", info.op,
                    info.label);
  }
  if (w->b->device) {
    w->s->kernel_time[kernel + 1 > w->s->backward_from] += end - start;
    return;
  }
  if (kernel + 1 != w->s->backward_from || w->s->inference) return;
  mark(w, BENCH_FORWARD);
  w->forward_end = w->last;
}

/** The device notes the time when it gets here. Nothing without one. */
static fn_status note(const bench *b, timer t) {
  return b->device ? b->device->record(b->device, FN_STREAM_COMPUTE, b->timer[t]) : FN_OK;
}

/** Time of the step so far that has nothing to do with the device. */
static double unrelated(const watch *w) {
  return w->phase[BENCH_WAIT] + w->phase[BENCH_FEED] + w->phase[BENCH_AGREE];
}

/** Wait for the device, and say which part of the step's time was whose: the host's clock saw only
 *  what it put there. Kernels before the loss and after it share as in the steps in which they were
 *  timed. */
static fn_status divide_device_time(watch *w) {
  bench *b = w->b;
  fn_device *d = b->device;
  double program, rest;
  FN_TRY(d->synchronize_event(d, b->timer[TIMER_END]));
  w->last = fn_clock();
  FN_TRY(d->elapsed(d, b->timer[TIMER_START], b->timer[TIMER_PROGRAM], &program));
  FN_TRY(d->elapsed(d, b->timer[TIMER_PROGRAM], b->timer[TIMER_END], &rest));
  const double *kernel = w->s->kernel_time;
  const double forward = kernel[0] + kernel[1] > 0 ? kernel[0] / (kernel[0] + kernel[1]) : 1;
  const double open = w->last - w->start - unrelated(w); // program, reductions, optimizer
  // The host waited for the reductions, and they for the program.
  const bool many = b->dist->size > 1 && !w->s->inference;
  const double exposed = many ? fmax(0, w->reduced - program) : 0;
  const double optimizer = w->s->inference ? 0 : fmin(fmax(0, rest - exposed), open - exposed);
  const double computing = open - exposed - optimizer; // and what it took to put it there
  w->phase[BENCH_EXPOSED] = exposed;
  w->phase[BENCH_FORWARD] = forward * computing;
  w->phase[BENCH_BACKWARD] = (1 - forward) * computing;
  w->phase[BENCH_OPTIMIZER] = optimizer;
  return FN_OK;
}

fn_status fn_bench_feed_random(bench *b, bool reads) {
  const bool there = b->device && b->fed;
  b->fed = !reads;
  return reads || there ? FN_OK : fn_engine_feed(b->program, &b->random);
}

fn_status fn_bench_put_program(bench *b, const fn_batch *batch) {
  const bool many = b->dist->size > 1;
  fn_program_on_gradient(b->program, many ? fn_reducer_ready : NULL, b->reducer);
  const fn_run_context context = {.seed = b->run->seed,
                                  .sample = batch->sample,
                                  .collectives = many ? &b->dist->collectives : NULL};
  return fn_program_run(b->program, &context);
}

static fn_status compute(watch *w, const fn_batch *batch) {
  bench *b = w->b;
  const bool timed = w->profiled || !b->device; // on the host a clock read costs nothing
  fn_program_on_kernel(b->program, timed ? kernel_done : NULL, w);
  w->forward_end = 0;
  FN_TRY(note(b, TIMER_START));
  fn_status status = fn_bench_put_program(b, batch);
  if (status == FN_OK) status = note(b, TIMER_PROGRAM);
  mark(w, w->forward_end > 0 ? BENCH_BACKWARD : BENCH_FORWARD);
  fn_program_on_kernel(b->program, NULL, NULL);
  return status;
}

/** What the training loop agrees on after every step: loss, requests, running statistics. */
fn_status fn_bench_agree(const bench *b) {
  double v[6] = {0};
  FN_TRY(fn_dist_sum(b->dist, v, 6));
  fn_dist_max(b->dist, 0);
  return fn_dist_average_buffers(b->dist, b->parameters);
}

static void record_buckets(const watch *w) {
  for (int k = 0; k < fn_reducer_bucket_count(w->b->reducer); k++) {
    fn_bucket_times times;
    fn_reducer_bucket(w->b->reducer, k, &times);
    if (times.end > 0)
      fn_timeline_add(w->b->timeline, FN_TIMELINE_REDUCTION + k % 4, "communication", times.start,
                      times.end, "bucket %d, %lld bytes", k, (long long)times.bytes);
  }
}

/** Random targets must not make the weights diverge: what is not finite is slow in some kernels. */
fn_status fn_bench_put_update(bench *b) {
  const fn_step_facts facts = {.loss_scale = 1, .next_scale = {1, 1, 1}};
  const double rate = b->run->optimizer.lr > 0 ? b->run->optimizer.lr : 1e-4;
  return fn_optimizer_step_judged(b->optimizer, rate, b->judge, &facts);
}

static fn_status training_step(watch *w, const fn_batch *batch) {
  bench *b = w->b;
  const bool many = b->dist->size > 1;
  FN_TRY(fn_reducer_begin(b->reducer, batch->count));
  if (many) mark(w, BENCH_AGREE);
  fn_status failed = compute(w, batch);
  if (failed == FN_OK && w->reader) failed = fn_loader_send_ahead(w->reader->loader);
  if (failed != FN_OK && b->run->train.sync_batch_norm) fn_dist_abort(b->dist, failed);
  FN_TRY(fn_reducer_finish(b->reducer));
  if (many) mark(w, BENCH_EXPOSED);
  w->reduced = w->last - w->start - unrelated(w);
  FN_TRY(fn_dist_agree(b->dist, failed));
  if (many) {
    FN_TRY(fn_bench_agree(b));
    mark(w, BENCH_AGREE);
  }
  FN_TRY(fn_bench_put_update(b));
  mark(w, BENCH_OPTIMIZER);
  return FN_OK;
}

fn_status fn_bench_settle(const bench *b) {
  fn_judgement judgement;
  FN_TRY(fn_judge_read(b->judge, &judgement));
  if (judgement.verdict != FN_STEP_TAKEN) fn_optimizer_undo(b->optimizer);
  return FN_OK;
}

/** One step of any kind; with `reader` the batch is waited for and copied within the step. */
static fn_status take_step(watch *w, bench_reader *reader) {
  bench *b = w->b;
  w->reader = reader;
  const fn_batch *batch = &b->random;
  FN_TRY(fn_bench_feed_random(b, reader));
  fn_dist_max(b->dist, 0); // all ranks begin together
  w->start = w->last = fn_clock();
  if (reader) {
    const fn_status status = fn_bench_reader_next(reader, &batch);
    mark(w, BENCH_WAIT);
    FN_TRY(fn_dist_agree(b->dist, status));
    if (b->dist->size > 1) mark(w, BENCH_AGREE);
    FN_TRY(fn_engine_feed(b->program, batch));
    mark(w, BENCH_FEED);
  }
  FN_TRY(w->s->inference ? compute(w, batch) : training_step(w, batch));
  FN_TRY(note(b, TIMER_END));
  if (b->device) FN_TRY(divide_device_time(w));
  if (!w->s->inference) FN_TRY(fn_bench_settle(b));
  if (!b->beside) b->peak = fn_memory_peak();
  if (!w->recorded) return FN_OK;
  record_buckets(w);
  fn_timeline_add(b->timeline, FN_TIMELINE_MAIN, "step", w->start, w->last, "step");
  return FN_OK;
}

/** Every primitive of the step once more, alone. Overwrites outputs of kernels, which the next step
 *  writes again. */
static fn_status time_primitives(bench *b, const bench_steps *s, double *each, double *sum) {
  *sum = 0;
  b->beside = true;
  for (int k = 0; k < s->kernel_count; k++) {
    FN_TRY(fn_bench_time_primitive(b->program, k, &each[k]));
    *sum += each[k];
  }
  return FN_OK;
}

fn_status fn_bench_time_primitive(const fn_program *program, int index, double *seconds) {
  const fn_kernel *kernel = fn_program_kernel(program, index);
  if (!fn_program_device(program)) return fn_cpu_time_primitive(kernel, seconds);
  return fn_gpu_time_call(kernel, fn_program_workspace(program), 2, seconds);
}

/* ---- many steps
 * ------------------------------------------------------------------------------------- */

/** Fold one step of all ranks into the results. Collective. */
static fn_status account(const watch *w, int64_t i, double exposed, double busy) {
  const bench *b = w->b;
  bench_steps *s = w->s;
  const double part = 1.0 / (double)b->options->steps;
  const double *phase = w->phase;
  bench_spread spread;
  FN_TRY(fn_bench_over_ranks(b->dist, w->last - w->start, &spread));
  s->step[i] = spread.most;
  s->step_mean += part * spread.mean;
  for (int p = 0; p < BENCH_PHASES; p++) {
    FN_TRY(fn_bench_over_ranks(b->dist, phase[p], &spread));
    s->phase[p] += part * spread.mean;
  }
  s->compute[i] = phase[BENCH_FORWARD] + phase[BENCH_BACKWARD] + phase[BENCH_OPTIMIZER];
  FN_TRY(fn_bench_over_ranks(b->dist, exposed, &spread));
  s->exposed_least += part * spread.least;
  s->exposed_most += part * spread.most;
  FN_TRY(fn_bench_over_ranks(b->dist, busy, &spread));
  s->busy += part * spread.mean;
  return FN_OK;
}

static void note_first_step(bench *b, const watch *w) {
  if (b->start.first_step > 0) return;
  b->start.read = w->phase[BENCH_WAIT];
  b->start.first_step = w->last - w->start - w->phase[BENCH_WAIT];
}

static int64_t profiled_steps(const bench *b) {
  enum { MOST = 5 };
  return b->options->steps < MOST ? b->options->steps : MOST;
}

/** Kernels of a device are timed in steps of their own: events between them keep the device busy
 * and rule out a replay of the recorded step. */
static fn_status profile_device(bench *b, bench_steps *s, bench_reader *reader) {
  const int64_t steps = profiled_steps(b);
  fn_program_profile_reset(b->program);
  s->kernel_time[0] = s->kernel_time[1] = 0;
  for (int64_t i = 0; i < steps; i++) {
    watch w = {.b = b, .s = s, .profiled = true, .recorded = b->timeline != NULL};
    FN_TRY(take_step(&w, reader));
  }
  return FN_OK;
}

/** Before the counted steps. On a device the first step runs kernel by kernel, the second is
 *  recorded. */
static int64_t warmup_steps(const bench *b) {
  enum { DEVICE = 3 };
  return b->device && b->options->warmup < DEVICE ? DEVICE : b->options->warmup;
}

/** Steps and primitives alternate, so that both see the same machine: other programs, clock rates
 *  and temperatures change over minutes. */
static fn_status run_steps(bench *b, bench_steps *s, bench_reader *reader) {
  const int64_t steps = b->options->steps;
  for (int64_t i = -warmup_steps(b); i < steps; i++) {
    watch w = {.b = b, .s = s, .recorded = i >= 0 && b->timeline};
    double busy[2] = {0}, exposed[2] = {0};
    if (i == 0) {
      if (!b->device) fn_program_profile_reset(b->program);
      if (reader) fn_bench_reader_note(reader);
      if (b->device) FN_TRY(profile_device(b, s, reader));
    }
    fn_reducer_times(b->reducer, &busy[0], &exposed[0]);
    FN_TRY(take_step(&w, reader));
    fn_reducer_times(b->reducer, &busy[1], &exposed[1]);
    note_first_step(b, &w);
    if (i < 0) continue;
    FN_TRY(account(&w, i, w.phase[BENCH_EXPOSED], busy[1] - busy[0]));
    if (b->dist->size > 1) continue; // primitives of several ranks would disturb each other
    FN_TRY(time_primitives(b, s, &s->each[i * s->kernel_count], &s->ratio[i]));
  }
  if (!b->device) return FN_OK;
  return fn_bench_chain(b, reader, fn_bench_chain_lead(b, reader), steps, &s->chain);
}

/** The sums of primitives become ratios. What a device takes for a step among others counts there:
 *  all of it. */
static void compare_with_primitives(const bench *b, bench_steps *s) {
  const int64_t steps = b->options->steps;
  if (b->dist->size > 1) return; // there are none
  for (int64_t i = 0; i < steps; i++) {
    const double alone = s->ratio[i], time = b->device ? s->chain.step : s->compute[i];
    s->alone += alone / (double)steps;
    s->ratio[i] = alone > 0 ? time / alone : 0;
    s->bound_ratio[i] = time; // divided when the machine has been measured
  }
}

double fn_bench_pace(const bench_steps *s) {
  return s->chain.steps > 0 ? s->chain.step : s->step_time;
}

bool fn_bench_is_launch_bound(const bench_chain *chain) {
  return chain->host >= 0.8 * chain->device;
}

static int64_t all_steps(const bench *b) {
  const int64_t steps = warmup_steps(b) + b->options->steps;
  if (!b->device) return steps;
  return steps + profiled_steps(b) + fn_bench_chain_lead(b, true) + b->options->steps;
}

static fn_status largest_rank_peak(const bench *b, size_t *peak) {
  bench_spread spread;
  FN_TRY(fn_bench_over_ranks(b->dist, (double)b->peak, &spread));
  *peak = (size_t)spread.most;
  return FN_OK;
}

fn_status fn_bench_take_steps(bench *b, bench_steps *s) {
  FN_TRY(fn_dist_agree(b->dist, allocate(b, s)));
  bench_reader reader;
  const bool reads = s->mode == FN_BENCH_FULL;
  if (reads) FN_TRY(fn_bench_reader_open(b, all_steps(b), &reader));
  s->batch = b->options->batch * b->dist->size;
  fn_status status = run_steps(b, s, reads ? &reader : NULL);
  if (reads) fn_bench_reader_close(&reader);
  if (status == FN_OK) status = largest_rank_peak(b, &s->peak);
  if (status != FN_OK) return status;
  compare_with_primitives(b, s);
  s->step_time = fn_bench_median(s->step, b->options->steps);
  s->compute_time = fn_bench_median(s->compute, b->options->steps);
  return FN_OK;
}

/* ---- steps on request
 * ------------------------------------------------------------------------------------- */

fn_status fn_bench_one_step(bench *b) {
  bench_steps s = {.mode = FN_BENCH_SYNTHETIC, .inference = b->options->inference};
  s.backward_from = fn_program_kernel_count(b->program);
  watch w = {.b = b, .s = &s};
  return take_step(&w, NULL);
}

/** After a step: what its library calls need alone. */
static fn_status answer_primitives(bench *b, bench_steps *s) {
  double alone;
  s->kernel_count = fn_program_kernel_count(b->program);
  double *each = calloc((size_t)s->kernel_count + 1, sizeof *each);
  FN_CHECK(each, FN_ERR_MEMORY, "out of memory");
  const fn_status status = time_primitives(b, s, each, &alone);
  free(each);
  FN_TRY(status);
  printf("{\"primitives\": %.9g}\n", alone);
  return FN_OK;
}

static fn_status answer_step(bench *b, bench_steps *s, double *seconds) {
  watch w = {.b = b, .s = s};
  FN_TRY(take_step(&w, NULL));
  *seconds = w.last - w.start;
  return FN_OK;
}

/** The mean of `count` steps: on a device of a chain between two moments at which it rests. */
static fn_status answer_steps(bench *b, bench_steps *s, int64_t count) {
  bench_chain chain = {0};
  if (b->device) {
    FN_TRY(fn_bench_chain(b, NULL, 0, count, &chain));
    printf("{\"seconds\": %.9g, \"host\": %.9g, \"peak_resident\": %zu}\n", chain.step, chain.host,
           b->peak);
    return FN_OK;
  }
  double seconds;
  for (int64_t i = 0; i < count; i++) {
    FN_TRY(answer_step(b, s, &seconds));
    chain.step += seconds / (double)count;
  }
  printf("{\"seconds\": %.9g, \"peak_resident\": %zu}\n", chain.step, b->peak);
  return FN_OK;
}

static fn_status answer(bench *b, bench_steps *s, const char *line) {
  double seconds;
  long long count = 0;
  int end = 0;
  if (strcmp(line, "primitives") == 0) return answer_primitives(b, s);
  if (sscanf(line, "steps %lld%n", &count, &end) == 1 && count > 0 && line[end] == '\0')
    return answer_steps(b, s, count);
  FN_CHECK(strcmp(line, "step") == 0, FN_ERR_CONFIG,
           "--lockstep: expected the line step, steps N, primitives or quit, found '%s'", line);
  FN_TRY(answer_step(b, s, &seconds));
  printf("{\"seconds\": %.9g, \"peak_resident\": %zu}\n", seconds, b->peak);
  return FN_OK;
}

fn_status fn_bench_lockstep(bench *b) {
  char line[64];
  bench_steps s = {.mode = FN_BENCH_SYNTHETIC,
                   .inference = b->options->inference,
                   .backward_from = find_backward(b)};
  const fn_device_info *info = b->device ? &b->device->info : &(fn_device_info){.index = -1};
  printf("{\"ready\": true, \"parameters\": %lld, \"threads\": %d, \"device\": \"%s\", "
         "\"driver\": \"%s\", \"runtime\": \"%s\", \"library\": \"%s\"}\n",
         (long long)b->parameters->parameter_total, fn_threads_get(), info->name, info->driver,
         info->runtime, info->library);
  fflush(stdout);
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = '\0';
    if (strcmp(line, "quit") == 0) break;
    FN_TRY(answer(b, &s, line));
    fflush(stdout);
  }
  return FN_OK;
}
