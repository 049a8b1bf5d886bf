#include "run/engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/log.h"
#include "base/system.h"
#include "base/text.h"

enum { PROGRAMS_MOST = 12 };

typedef struct entry {
  bool training, has_target, profile, plan_only;
  int64_t batch;
  fn_graph *graph;
  fn_model model;
  fn_program *program;
} entry;

struct fn_engine {
  const fn_run *run;
  const fn_dist *dist;
  fn_dataset_info info;
  fn_parameters *parameters;
  fn_recorder *recorder; /**< NULL but for plans */
  bool takes_raw;        /**< batches are converted on the device */
  bool keeps_output;     /**< training programs have "output" */
  entry entry[PROGRAMS_MOST];
  int entry_count;
};

/* ---- sizes
 * ---------------------------------------------------------------------------------------- */

static bool fits(const fn_network_rule *rule, int64_t edge) {
  return edge >= rule->minimum && (rule->multiple < 2 || edge % rule->multiple == rule->remainder);
}

static int64_t nearest_fitting(const fn_network_rule *rule, int64_t edge, int direction) {
  for (int64_t n = edge; n >= rule->minimum && n < edge + 4096; n += direction)
    if (fits(rule, n)) return n;
  return -1;
}

/** "axis 1", or "every axis" when all edges are the same. */
static const char *axis_name(const fn_dataset_info *info, int d, char *text, size_t size) {
  bool same = true;
  for (int i = 1; i < info->spatial; i++)
    same &= info->input_extent[i] == info->input_extent[0] &&
            info->target_extent[i] == info->target_extent[0];
  snprintf(text, size, same ? "every axis" : "axis %d", d);
  return text;
}

static bool same_as_before(const fn_dataset_info *info, int d) {
  for (int i = 0; i < d; i++)
    if (info->input_extent[i] == info->input_extent[d] &&
        info->target_extent[i] == info->target_extent[d])
      return true;
  return false;
}

/** The nearest edges that fit: "44 and 48", or the smallest. */
static const char *fitting_text(const fn_network_rule *rule, int64_t edge, char *text,
                                size_t size) {
  const int64_t least = edge < rule->minimum ? rule->minimum : edge;
  const int64_t below = nearest_fitting(rule, edge, -1), above = nearest_fitting(rule, least, 1);
  if (below > 0)
    snprintf(text, size, "the nearest sizes are %lld and %lld", (long long)below, (long long)above);
  else
    snprintf(text, size, "the smallest size is %lld", (long long)above);
  return text;
}

fn_status fn_engine_check_sizes(const fn_run *run, const fn_dataset_info *info) {
  fn_network_rule rule;
  FN_TRY(fn_model_rule(run, &rule));
  if (rule.spatial > 0 && rule.spatial != info->spatial)
    return fn_run_fail(run, "model.name", "the network takes samples of %d axes, not %d",
                       rule.spatial, info->spatial);
  fn_text text = {0};
  const char *key = NULL;
  char axis[32], sizes[96];
  for (int d = 0; d < info->spatial; d++) {
    const int64_t edge = info->input_extent[d], target = info->target_extent[d];
    if (same_as_before(info, d)) continue;
    axis_name(info, d, axis, sizeof axis);
    if (!fits(&rule, edge)) {
      key = info->cubes ? "data.cubes.file" : run->data.crop.count ? "data.crop" : "data.input_pad";
      fn_text_add(&text,
                  "%s%s %lld cells along %s, but the network needs %lld modulo %lld and at least "
                  "%lld; %s",
                  text.length ? "; " : "",
                  info->cubes            ? "the cubes have"
                  : run->data.crop.count ? "data.crop plus data.input_pad make"
                                         : "the whole field plus data.input_pad make",
                  (long long)edge, axis, (long long)rule.remainder,
                  (long long)(rule.multiple > 1 ? rule.multiple : 1), (long long)rule.minimum,
                  fitting_text(&rule, edge, sizes, sizeof sizes));
    } else if (info->target_channels > 0 && info->target_spatial > 0 && rule.trim >= 0 &&
               run->data.scale_factor == 1) {
      const int64_t output = edge - 2 * rule.trim;
      if ((output - target) % 2 == 0) continue;
      if (!key) key = "data.target_pad";
      fn_text_add(&text,
                  "%sthe network's output has %lld cells along %s and the target %lld: the "
                  "difference must be even for their centres to agree",
                  text.length ? "; " : "", (long long)output, axis, (long long)target);
    }
  }
  if (text.length == 0) return FN_OK;
  const fn_status status = fn_run_fail(run, key, "%s", text.data);
  fn_text_free(&text);
  return status;
}

/* ---- programs
 * --------------------------------------------------------------------------------------- */

static fn_status build_graph(fn_engine *engine, entry *e) {
  const fn_run *run = engine->run;
  const fn_graph_options options = {.training = e->training,
                                    .sync_batch_norm =
                                        run->train.sync_batch_norm && engine->dist->size > 1};
  const fn_dataset_info *info = &engine->info;
  FN_TRY(fn_graph_create(&options, &e->graph));
  // Without targets the number of output channels is that of the trained network: target_channels
  // is filled in by the caller all the same.
  FN_TRY(fn_model_build(run, e->graph, info->spatial, e->batch, info->input_channels,
                        info->target_channels, info->input_extent,
                        e->has_target ? info->target_extent : NULL, &e->model));
  const int found = fn_spatial(e->model.output);
  if (e->has_target && found != info->target_spatial)
    return fn_run_fail(run, "model.name",
                       "the network's output has %d spatial axes, but the target has %d", found,
                       info->target_spatial);
  return FN_OK;
}

static bool is_parameter(const fn_value *leaf) {
  return fn_value_leaf(leaf)->kind == FN_LEAF_PARAMETER;
}

/** Type of activations. */
static fn_dtype precision_of(const fn_run *run) {
  if (strcmp(run->compute.precision, "bf16") == 0) return FN_BF16;
  return strcmp(run->compute.precision, "f16") == 0 ? FN_F16 : FN_F32;
}

/** tf32 and f16 are a GPU's. */
static fn_status check_precision(const fn_run *run) {
  const fn_backend *backend;
  FN_TRY(fn_backend_find(run->compute.backend, &backend));
  const bool of_devices =
      precision_of(run) == FN_F16 || strcmp(run->compute.precision, "tf32") == 0;
  if (!of_devices || backend->device || backend->missing) return FN_OK;
  return fn_run_fail(run, "compute.precision", "%s needs a GPU; the %s backend has f32 and bf16",
                     run->compute.precision, backend->name);
}

static fn_status check_convert(const fn_run *run) {
  const fn_backend *backend;
  if (strcmp(run->data.convert, "device") != 0) return FN_OK;
  FN_TRY(fn_backend_find(run->compute.backend, &backend));
  if (backend->device || backend->missing) return FN_OK;
  return fn_run_fail(run, "data.convert", "device needs a GPU; the %s backend has none",
                     backend->name);
}

/** Differentiate the loss by every parameter, last ones first: the order of the backward pass. */
static fn_status add_gradients(entry *e, bool scaled, fn_value ***wrt, fn_value ***gradient,
                               int *count) {
  const int leaves = fn_graph_leaf_count(e->graph);
  fn_arena *arena = fn_graph_arena(e->graph);
  *wrt = fn_arena_take(arena, (size_t)(leaves + 1) * sizeof(fn_value *));
  *gradient = fn_arena_take(arena, (size_t)(leaves + 1) * sizeof(fn_value *));
  *count = 0;
  for (int l = 0; l < leaves; l++)
    if (is_parameter(fn_graph_leaf(e->graph, l))) (*wrt)[(*count)++] = fn_graph_leaf(e->graph, l);
  if (!scaled) return fn_differentiate(e->graph, e->model.loss, *wrt, *count, *gradient);
  // Small gradients would vanish in f16: all are multiplied, see fn_engine_feed.
  fn_value *seed = fn_input(e->graph, "loss_scale", fn_value_shape(e->model.loss));
  return fn_differentiate_from(e->graph, &e->model.loss, &seed, 1, *wrt, *count, *gradient);
}

/** What somebody reads: every output is kept to the end of a step, and copied where its type or
 *  layout is not the reader's. */
static int list_outputs(const fn_engine *engine, const entry *e, fn_program_output *outputs) {
  const fn_model *model = &e->model;
  const bool evaluates = !e->training, compares = evaluates && e->has_target;
  const fn_program_output all[] = {
      {"loss", model->loss},
      {"output", evaluates || engine->keeps_output ? model->output : NULL},
      {"output_window", model->output_window},
      {"input_window", compares ? model->input_window : NULL},
      {"target_window", compares ? model->target_window : NULL},
  };
  int count = 0;
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
    if (all[i].value) outputs[count++] = all[i];
  return count;
}

/** The first program with memory of its own: the training program, where there is one. */
static fn_program *find_donor(const fn_engine *engine) {
  for (int i = 0; i < engine->entry_count; i++)
    if (!engine->entry[i].plan_only) return engine->entry[i].program;
  return NULL;
}

static fn_recompute recompute_mode(const char *name) {
  if (strcmp(name, "none") == 0) return FN_RECOMPUTE_NONE;
  if (strcmp(name, "elementwise") == 0) return FN_RECOMPUTE_ELEMENTWISE;
  return strcmp(name, "all") == 0 ? FN_RECOMPUTE_ALL : FN_RECOMPUTE_AUTO;
}

/** Folder where the fastest algorithms of a device's libraries are kept from run to run: of
 *  FIELDNET_CACHE, else where the user's programs keep such things; false: nowhere. */
static bool cache_folder(char *path, size_t size) {
  const char *own = getenv("FIELDNET_CACHE"), *common = getenv("XDG_CACHE_HOME"),
             *home = getenv("HOME");
  if (own && own[0]) return snprintf(path, size, "%s", own) < (int)size;
  if (common && common[0]) return snprintf(path, size, "%s/fieldnet", common) < (int)size;
  return home && home[0] && snprintf(path, size, "%s/.cache/fieldnet", home) < (int)size;
}

/** The device of this rank, before the first program that runs there. */
static fn_status open_device(fn_engine *engine) {
  const fn_run *run = engine->run;
  const fn_backend *backend;
  fn_device *device;
  if (engine->recorder) return FN_OK;
  FN_TRY(fn_backend_find(run->compute.backend, &backend));
  if (!backend->device || backend->missing) return FN_OK; // the program says what is missing
  char cache[4096];
  const bool keeps = cache_folder(cache, sizeof cache);
  const fn_device_choice choice = {.node_rank = engine->dist->node_rank,
                                   .node_size = engine->dist->node_size,
                                   .share = run->compute.share_devices,
                                   .deterministic = run->compute.deterministic,
                                   .tf32 = strcmp(run->compute.precision, "tf32") == 0,
                                   .cache = keeps ? cache : NULL};
  FN_TRY(backend->device(backend, &choice, &device));
  return fn_parameters_attach(engine->parameters, device);
}

static fn_status compile(fn_engine *engine, entry *e) {
  const fn_run *run = engine->run;
  const fn_dtype precision = precision_of(run);
  if (!e->plan_only) FN_TRY(open_device(engine));
  fn_program_output outputs[8];
  const int output_count = list_outputs(engine, e, outputs);
  fn_value *keep[8];
  for (int i = 0; i < output_count; i++)
    keep[i] = outputs[i].value;
  if (!e->training && run->compute.fold_norms)
    FN_TRY(fn_graph_fold_norms(e->graph, keep, output_count));
  FN_TRY(fn_graph_fuse_forward(e->graph, keep, output_count));
  if (!e->training) FN_TRY(fn_graph_fuse_evaluation(e->graph, keep, output_count));
  fn_value **wrt = NULL, **gradient = NULL;
  int gradient_count = 0;
  if (e->training) {
    FN_TRY(add_gradients(e, precision == FN_F16, &wrt, &gradient, &gradient_count));
    const int all = output_count + gradient_count;
    fn_value **kept = fn_arena_take(fn_graph_arena(e->graph), (size_t)all * sizeof *kept);
    memcpy(kept, keep, (size_t)output_count * sizeof *kept);
    memcpy(kept + output_count, gradient, (size_t)gradient_count * sizeof *kept);
    FN_TRY(fn_graph_fuse_backward(e->graph, kept, all));
    const fn_backend *backend;
    FN_TRY(fn_backend_find(run->compute.backend, &backend));
    if (backend->takes_lines) FN_TRY(fn_graph_take_lines(e->graph));
  }
  if (precision != FN_F32)
    FN_TRY(fn_graph_apply_half(e->graph, precision, run->compute.first_layer_f32));
  const fn_program_options options = {
      .backend = run->compute.backend,
      .precision = precision,
      .check = run->compute.check,
      .profile = e->profile,
      .plan_only = e->plan_only,
      .recompute = recompute_mode(run->compute.recompute),
      .memory_budget = (size_t)run->compute.memory_budget,
      .donor = find_donor(engine),
      .recorder = engine->recorder,
      .made_inputs = engine->takes_raw,
      .replay = fn_engine_replays(run),
  };
  const fn_status status =
      fn_program_create(e->graph, engine->parameters, &options, outputs, output_count, wrt,
                        gradient, gradient_count, &e->program);
  if (status != FN_ERR_MEMORY || !options.memory_budget) return status;
  return fn_error_context(status, "%s: compute.memory_budget",
                          fn_run_where(run, "compute.memory_budget"));
}

fn_status fn_engine_program_with(fn_engine *engine, bool training, bool has_target, int64_t batch,
                                 bool profile, bool plan_only, fn_program **program) {
  for (int i = 0; i < engine->entry_count; i++) {
    const entry *e = &engine->entry[i];
    if (e->training != training || e->has_target != has_target || e->batch != batch ||
        e->profile != profile || e->plan_only != plan_only)
      continue;
    *program = e->program;
    return FN_OK;
  }
  FN_CHECK(engine->entry_count < PROGRAMS_MOST, FN_ERR_INTERNAL, "more than %d programs",
           PROGRAMS_MOST);
  entry *e = &engine->entry[engine->entry_count];
  *e = (entry){.training = training,
               .has_target = has_target,
               .profile = profile,
               .plan_only = plan_only,
               .batch = batch};
  fn_status status = build_graph(engine, e);
  if (status == FN_OK) status = compile(engine, e);
  if (status != FN_OK) {
    fn_graph_destroy(e->graph);
    return status;
  }
  engine->entry_count++;
  *program = e->program;
  return FN_OK;
}

fn_status fn_engine_program(fn_engine *engine, bool training, bool has_target, int64_t batch,
                            fn_program **program) {
  return fn_engine_program_with(engine, training, has_target, batch, false, false, program);
}

/** A failure that has to do with the number of samples, told so; `rest`: it is the last batch. */
static fn_status refuse_batch(const fn_engine *engine, int64_t samples, int64_t batch, bool rest) {
  const fn_run *run = engine->run;
  char why[1024];
  snprintf(why, sizeof why, "%s", fn_error_message());
  if (!rest && batch == run->train.batch)
    return fn_run_fail(run, "train.batch", "%s: train.batch %lld is too small for this network",
                       why, (long long)batch);
  return fn_run_fail(run, "train.batch",
                     "%s: a rank's %lld sample%s, %lld at a time, leave%s a last batch of %lld; "
                     "choose another train.batch or number of ranks",
                     why, (long long)samples, samples == 1 ? "" : "s", (long long)run->train.batch,
                     samples == 1 ? "s" : "", (long long)batch);
}

fn_status fn_engine_plan_batches(fn_engine *engine, int64_t samples, bool plan_only) {
  const int64_t most = engine->run->train.batch, full = samples < most ? samples : most;
  const int64_t batch[] = {full, full > 0 ? samples % full : 0};
  int64_t fewest;
  FN_TRY(fn_engine_fewest_samples(engine->run, &fewest));
  for (int i = 0; i < 2; i++) {
    fn_program *program;
    if (batch[i] == 0) continue;
    const fn_status status =
        fn_engine_program_with(engine, true, true, batch[i], false, plan_only, &program);
    // What is wrong with a full batch that is large enough has nothing to do with samples.
    if (status == FN_ERR_CONFIG && (i == 1 || full < fewest))
      return refuse_batch(engine, samples, batch[i], i == 1);
    FN_TRY(status);
  }
  return FN_OK;
}

fn_status fn_engine_output_shape(fn_engine *engine, fn_shape *shape) {
  fn_program *program;
  FN_TRY(fn_engine_program_with(engine, false, false, 1, false, true, &program));
  *shape = *fn_program_output_shape(program, "output");
  return FN_OK;
}

fn_status fn_engine_fewest_samples(const fn_run *run, int64_t *samples) {
  fn_network_rule rule;
  FN_TRY(fn_model_rule(run, &rule));
  *samples = rule.samples > 1 ? rule.samples : 1;
  return FN_OK;
}

fn_status fn_engine_warn_narrow(fn_engine *engine) {
  const fn_dataset_info *info = &engine->info;
  fn_shape output;
  bool narrow = false;
  FN_TRY(fn_engine_output_shape(engine, &output));
  fn_text used = {0}, all = {0};
  for (int d = 0; d < output.ndim - 2; d++) {
    const int64_t target = info->target_extent[d], extent = output.dim[2 + d];
    const bool less = extent < target;
    narrow |= less;
    fn_text_add(&used, "%s%lld", d ? " x " : "", (long long)(less ? extent : target));
    fn_text_add(&all, "%s%lld", d ? " x " : "", (long long)target);
  }
  if (narrow && info->target_channels > 0)
    fn_log(FN_WARN,
           "%s: only the central %s of the target's %s cells are used, for the network's output is "
           "no larger",
           fn_run_where(engine->run, "data.target_pad"), used.data, all.data);
  fn_text_free(&used);
  fn_text_free(&all);
  return FN_OK;
}

/* ---- engine
 * ------------------------------------------------------------------------------------------- */

/** As many threads as cores, and pinned to them where that is safe. */
static void start_threads(const fn_run *run, const fn_dist *dist) {
  static const char *const variables[] = {"OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY"};
  const int threads = run->compute.threads > 0 ? (int)run->compute.threads : dist->cores;
  fn_threads_set(threads);
  bool pin = strcmp(run->compute.pin, "yes") == 0 ||
             (strcmp(run->compute.pin, "auto") == 0 && dist->cores_given);
  for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
    pin &= getenv(variables[i]) == NULL;
  if (!pin || dist->core_count < threads) return;
  fn_threads_pin(dist->core, dist->core_count, threads);
  fn_log(FN_DETAIL, "rank %d: %d threads pinned to %d cores from core %d on", dist->rank, threads,
         dist->core_count, dist->core[0]);
}

fn_status fn_engine_create(const fn_run *run, const fn_dist *dist, const fn_dataset_info *info,
                           fn_engine **engine) {
  *engine = NULL;
  FN_TRY(fn_engine_check_sizes(run, info));
  FN_TRY(check_precision(run));
  FN_TRY(check_convert(run));
  start_threads(run, dist);
  fn_cpu_set_winograd(strcmp(run->compute.winograd, "no") == 0 ? FN_WINOGRAD_NO : FN_WINOGRAD_AUTO);
  fn_engine *e = calloc(1, sizeof *e);
  FN_CHECK(e, FN_ERR_MEMORY, "out of memory");
  e->run = run;
  e->dist = dist;
  e->info = *info;
  // The parameters come from an evaluation graph of one sample: names and shapes depend neither on
  // the mode nor on the batch, and training refuses batch norm over a single value.
  entry probe = {.training = false, .has_target = false, .batch = 1};
  fn_status status = build_graph(e, &probe);
  if (status == FN_OK) status = fn_parameters_create(probe.graph, FN_F32, &e->parameters);
  fn_graph_destroy(probe.graph);
  if (status != FN_OK) {
    fn_engine_destroy(e);
    return status;
  }
  fn_parameters_initialise(e->parameters, run->seed, run->model.init_weight_std);
  *engine = e;
  return FN_OK;
}

void fn_engine_destroy(fn_engine *engine) {
  if (!engine) return;
  for (int i = engine->entry_count - 1; i >= 0; i--) { // borrowers before their donor
    fn_program_destroy(engine->entry[i].program);
    fn_graph_destroy(engine->entry[i].graph);
  }
  fn_parameters_destroy(engine->parameters);
  free(engine);
}

fn_status fn_engine_assume(fn_engine *engine, fn_recorder *recorder) {
  FN_CHECK(engine->entry_count == 0, FN_ERR_INTERNAL, "programs were made before");
  engine->recorder = recorder;
  return fn_parameters_attach(engine->parameters, fn_recorder_device(recorder));
}

void fn_engine_keep_output(fn_engine *engine) {
  engine->keeps_output = true;
}

fn_parameters *fn_engine_parameters(fn_engine *engine) {
  return engine->parameters;
}

bool fn_engine_replays(const fn_run *run) {
  return strcmp(run->compute.graphs, "auto") == 0;
}

bool fn_engine_converts(const fn_run *run) {
  const fn_backend *backend;
  // A backend that is missing says so when a program is made.
  return strcmp(run->data.convert, "host") != 0 &&
         fn_backend_find(run->compute.backend, &backend) == FN_OK && backend->device &&
         !backend->missing;
}

fn_status fn_engine_take_raw(fn_engine *engine, fn_dataset *dataset) {
  if (!fn_engine_converts(engine->run)) return FN_OK;
  FN_TRY(open_device(engine));
  engine->takes_raw = true;
  if (dataset) fn_dataset_set_device(dataset, engine->parameters->device);
  return FN_OK;
}

static fn_status feed(fn_program *program, const char *name, const float *values, int64_t count) {
  const int64_t wanted = fn_shape_count(fn_program_input_shape(program, name));
  FN_CHECK(count == wanted, FN_ERR_INTERNAL,
           "a batch has %lld values for \"%s\", but its program takes %lld", (long long)count, name,
           (long long)wanted);
  void *memory = fn_program_input(program, name);
  if (!memory) return FN_ERR_MEMORY; // with the message of whoever had none
  memcpy(memory, values, (size_t)count * sizeof(float));
  return FN_OK;
}

static fn_status make_input(void *batch, fn_device *device, const fn_tensor *to) {
  return fn_batch_convert(batch, false, device, to);
}

static fn_status make_target(void *batch, fn_device *device, const fn_tensor *to) {
  return fn_batch_convert(batch, true, device, to);
}

/** A batch that the device converts. */
static fn_status feed_raw(fn_program *program, const char *name, const fn_batch *batch,
                          int64_t values, fn_input_make make) {
  const int64_t wanted = fn_shape_count(fn_program_input_shape(program, name));
  FN_CHECK(batch->count * values == wanted, FN_ERR_INTERNAL,
           "a batch has %lld values for \"%s\", but its program takes %lld",
           (long long)(batch->count * values), name, (long long)wanted);
  FN_TRY(fn_batch_send(batch));
  return fn_program_make_input(program, name, make, (void *)batch);
}

fn_status fn_engine_feed(fn_program *program, const fn_batch *batch) {
  const float one = 1;
  if (fn_program_input_shape(program, "loss_scale")) FN_TRY(feed(program, "loss_scale", &one, 1));
  const bool target = fn_program_input_shape(program, "target") != NULL;
  if (batch->raw) {
    FN_TRY(feed_raw(program, "input", batch, batch->input_values, make_input));
    return target ? feed_raw(program, "target", batch, batch->target_values, make_target) : FN_OK;
  }
  FN_TRY(feed(program, "input", batch->input, batch->count * batch->input_values));
  if (!target) return FN_OK;
  FN_CHECK(batch->target, FN_ERR_INTERNAL, "a batch without targets for a program with a loss");
  return feed(program, "target", batch->target, batch->count * batch->target_values);
}
