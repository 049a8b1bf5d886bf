#include "run/verify.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "config/options.h"
#include "learn/learn.h"
#include "run/engine.h"
#include "run/verify_compare.h"

enum { STEPS_MOST = 64 };

typedef struct verification {
  const fn_run *run;
  fn_dist *dist;
  const fn_verify_options *options;
  fn_verify_tally tally;
  fn_reference_tensor *input, *target, *weights, *buffers;
  int weight_count, buffer_count;
  fn_engine *engine;
  fn_parameters *parameters;
  fn_program *training, *evaluation;
} verification;

/* ---- sizes ---------------------------------------------------------------------------------- */

/** The only tensor of a group. */
static fn_status only_tensor(const verification *v, const char *group,
                             fn_reference_tensor **tensor) {
  int count;
  FN_TRY(fn_reference_group(v->tally.reference, group, tensor, &count));
  FN_CHECK(count == 1, count == 0 ? FN_ERR_DATA : FN_ERR_UNSUPPORTED,
           "%s: group /%s holds %d tensors; a network has one", v->options->reference, group,
           count);
  return FN_OK;
}

static fn_status sizes_of(const verification *v, fn_dataset_info *info) {
  const fn_shape *in = &v->input->shape, *out = &v->target->shape;
  char a[128], b[128];
  FN_CHECK(in->ndim >= 3 && in->ndim <= 2 + FN_MAX_SPATIAL &&
               (out->ndim == in->ndim || out->ndim == 2) && out->dim[0] == in->dim[0],
           FN_ERR_DATA,
           "%s: expected input and target [batch, channels, 1 to 3 spatial axes], or target "
           "[batch, channels], found %s and %s",
           v->options->reference, fn_shape_text(in, a, sizeof a), fn_shape_text(out, b, sizeof b));
  *info = (fn_dataset_info){.files = 1,
                            .crops = in->dim[0],
                            .samples = in->dim[0],
                            .spatial = in->ndim - 2,
                            .target_spatial = out->ndim - 2,
                            .input_channels = in->dim[1],
                            .target_channels = out->dim[1],
                            .input_fields = 1,
                            .target_fields = 1};
  for (int d = 0; d < info->spatial; d++) {
    info->size[d] = info->input_extent[d] = in->dim[2 + d];
    if (d < info->target_spatial) info->target_extent[d] = out->dim[2 + d];
  }
  return FN_OK;
}

/* ---- weights ----------------------------------------------------------------------------------
 */

/** Counters of batch norms are not part of a reference file. */
static bool is_counter(const char *name) {
  return fn_text_ends(name, "num_batches_tracked");
}

static const fn_reference_tensor *find(const fn_reference_tensor *list, int count,
                                       const char *name) {
  for (int i = 0; i < count; i++)
    if (strcmp(list[i].name, name) == 0) return &list[i];
  return NULL;
}

/** Names and shapes of the network that the file lacks. */
static void complain_about_network(const verification *v, fn_text *text) {
  char ours[128], theirs[128];
  for (int e = 0; e < v->parameters->entry_count; e++) {
    const fn_tensor_entry *entry = &v->parameters->entry[e];
    const char *group = entry->is_buffer ? "buffers" : "weights";
    const fn_reference_tensor *t = entry->is_buffer
                                       ? find(v->buffers, v->buffer_count, entry->name)
                                       : find(v->weights, v->weight_count, entry->name);
    if (!t && !is_counter(entry->name))
      fn_text_add(text, "\n  /%s/%s: missing in the file", group, entry->name);
    if (t && !fn_shape_equal(&t->shape, &entry->shape))
      fn_text_add(text, "\n  /%s/%s: shape %s in the file, %s in the network", group, entry->name,
                  fn_shape_text(&t->shape, theirs, sizeof theirs),
                  fn_shape_text(&entry->shape, ours, sizeof ours));
  }
}

static void complain_about_file(const verification *v, const fn_reference_tensor *list, int count,
                                bool buffers, fn_text *text) {
  for (int i = 0; i < count; i++) {
    const fn_tensor_entry *entry = fn_parameters_find(v->parameters, list[i].name);
    if (!entry || entry->is_buffer != buffers)
      fn_text_add(text, "\n  /%s/%s: missing in the network", buffers ? "buffers" : "weights",
                  list[i].name);
  }
}

static fn_status match_names(const verification *v) {
  fn_text text = {0};
  complain_about_network(v, &text);
  complain_about_file(v, v->weights, v->weight_count, false, &text);
  complain_about_file(v, v->buffers, v->buffer_count, true, &text);
  if (!text.data) return FN_OK;
  const fn_status status =
      fn_error_set(FN_ERR_VERIFY, __FILE__, __LINE__, "%s and the network of %s differ:%s",
                   v->options->reference, v->run->path, text.data);
  fn_text_free(&text);
  return status;
}

static void load_weights(const verification *v) {
  for (int e = 0; e < v->parameters->entry_count; e++) {
    const fn_tensor_entry *entry = &v->parameters->entry[e];
    const fn_reference_tensor *t = entry->is_buffer
                                       ? find(v->buffers, v->buffer_count, entry->name)
                                       : find(v->weights, v->weight_count, entry->name);
    float *data = fn_parameters_data(v->parameters, entry);
    fn_parameters_changed(v->parameters);
    for (int64_t i = 0; i < entry->count; i++)
      data[i] = t ? (float)t->value[i] : 0;
  }
}

/* ---- runs ---------------------------------------------------------------------------------------
 */

static void feed(fn_program *program, const char *name, const fn_reference_tensor *tensor) {
  float *to = fn_program_input(program, name);
  for (int64_t i = 0; i < tensor->count; i++)
    to[i] = (float)tensor->value[i];
}

static fn_status pass(const verification *v, fn_program *program) {
  feed(program, "input", v->input);
  feed(program, "target", v->target);
  const fn_run_context context = {.seed = v->run->seed, .collectives = &v->dist->collectives};
  FN_TRY(fn_program_run(program, &context));
  return fn_program_wait(program);
}

static fn_status compare_outputs(verification *v, fn_program *program, const char *outputs,
                                 const char *loss) {
  fn_reference_tensor *output;
  FN_TRY(only_tensor(v, outputs, &output));
  fn_verify_begin(&v->tally, outputs);
  FN_TRY(fn_verify_tensor(&v->tally, output->name, fn_program_output_shape(program, "output"),
                          fn_program_output_data(program, "output"), 0));
  fn_verify_end(&v->tally);
  fn_verify_begin(&v->tally, loss);
  const fn_shape scalar = {0};
  FN_TRY(fn_verify_tensor(&v->tally, "", &scalar, fn_program_output_data(program, "loss"), 0));
  fn_verify_end(&v->tally);
  return FN_OK;
}

/** Compare weights, gradients or running statistics with a group. */
static fn_status compare_entries(verification *v, const char *group, bool buffers, bool gradients,
                                 double slack) {
  FN_TRY(fn_parameters_to_host(v->parameters));
  FN_TRY(fn_parameters_gradients_to_host(v->parameters));
  fn_verify_begin(&v->tally, group);
  for (int e = 0; e < v->parameters->entry_count; e++) {
    const fn_tensor_entry *entry = &v->parameters->entry[e];
    if (entry->is_buffer != buffers || is_counter(entry->name)) continue;
    const float *values = gradients ? fn_parameters_gradient(v->parameters, entry)
                                    : fn_parameters_data(v->parameters, entry);
    FN_TRY(fn_verify_tensor(&v->tally, entry->name, &entry->shape, values, slack));
  }
  fn_verify_end(&v->tally);
  return FN_OK;
}

/** What gradients that the reference marks as noise may amount to: a multiple of what they are
 *  there (how much it is depends on the order of sums), and a part of the largest gradient. */
static fn_status find_noise(verification *v) {
  fn_reference_tensor *gradient;
  int count;
  FN_TRY(fn_reference_group(v->tally.reference, "grads", &gradient, &count));
  double noise = 0, largest = 0;
  for (int i = 0; i < count; i++) {
    const double size = fn_verify_largest(&gradient[i]);
    if (gradient[i].noise && size > noise) noise = size;
    if (size > largest) largest = size;
  }
  const double floor = fn_verify_uses_error(&v->tally) ? 1e-6 : v->tally.rtol;
  v->tally.noise = v->options->factor * noise + floor * largest;
  return FN_OK;
}

static fn_status compare_training(verification *v) {
  FN_TRY(find_noise(v));
  load_weights(v);
  FN_TRY(pass(v, v->training));
  FN_TRY(compare_outputs(v, v->training, "outputs", "loss"));
  FN_TRY(compare_entries(v, "grads", false, true, v->tally.noise));
  return compare_entries(v, "buffers_after", true, false, 0);
}

static fn_status compare_evaluation(verification *v) {
  load_weights(v);
  FN_TRY(pass(v, v->evaluation));
  return compare_outputs(v, v->evaluation, "eval/outputs", "eval/loss");
}

/* ---- optimizers -------------------------------------------------------------------------------
 */

/** Settings of torch.optim as JSON (which is YAML) put into a run description. */
static fn_status read_settings(const verification *v, const char *group, const fn_options *json,
                               fn_run *run) {
  memset(&run->optimizer, 0, sizeof run->optimizer);
  run->optimizer.name = fn_option_text(json, "name", strcmp(group, "sgd") == 0 ? "sgd" : "adam");
  run->optimizer.lr = fn_option_real(json, "lr", NAN);
  FN_CHECK(run->optimizer.lr > 0, FN_ERR_DATA, "%s: attribute %s has no lr", v->options->reference,
           group);
  run->optimizer.weight_decay = fn_option_real(json, "weight_decay", 0);
  run->optimizer.eps = fn_option_real(json, "eps", 1e-8);
  run->optimizer.momentum = fn_option_real(json, "momentum", 0);
  run->optimizer.dampening = fn_option_real(json, "dampening", 0);
  run->optimizer.nesterov = fn_option_flag(json, "nesterov", false);
  run->optimizer.amsgrad = fn_option_flag(json, "amsgrad", false);
  run->optimizer.betas[0] = 0.9;
  run->optimizer.betas[1] = 0.999;
  const fn_options *betas = fn_options_get(json, "betas");
  for (int i = 0; i < 2 && betas; i++)
    FN_TRY(fn_options_as_real(fn_options_at(betas, i), &run->optimizer.betas[i]));
  return fn_options_check(json);
}

/** How far noise can move a weight: an Adam step is at most lr min(1, noise / eps), and a few of
 *  plain or momentum steps at most 2 lr noise each. Two programs may move in opposite directions.
 */
static double noise_slack(const fn_run *run, double noise, int64_t steps) {
  const bool adam = strcmp(run->optimizer.name, "sgd") != 0;
  const double size = adam ? fmin(1, noise / run->optimizer.eps) : noise;
  return 2 * (double)steps * run->optimizer.lr * size;
}

static fn_status take_steps(verification *v, const fn_run *run, const char *group,
                            const fn_reference_tensor *losses) {
  float loss[STEPS_MOST];
  fn_optimizer *optimizer;
  FN_TRY(fn_optimizer_create(run, v->parameters, &optimizer));
  load_weights(v);
  fn_status status = FN_OK;
  for (int64_t s = 0; s < losses->count && status == FN_OK; s++) {
    status = pass(v, v->training);
    loss[s] = *(const float *)fn_program_output_data(v->training, "loss");
    if (status == FN_OK) status = fn_optimizer_step(optimizer, run->optimizer.lr, 1);
  }
  fn_optimizer_destroy(optimizer);
  FN_TRY(status);
  fn_verify_begin(&v->tally, group);
  FN_TRY(fn_verify_tensor(&v->tally, "losses", &losses->shape, loss, 0));
  fn_verify_end(&v->tally);
  const double slack = noise_slack(run, v->tally.noise, losses->count);
  char name[64];
  snprintf(name, sizeof name, "%s/weights", group);
  FN_TRY(compare_entries(v, name, false, false, slack));
  if (v->buffer_count == 0) return FN_OK;
  snprintf(name, sizeof name, "%s/buffers", group);
  return compare_entries(v, name, true, false, slack);
}

static fn_status compare_optimizer(verification *v, const char *group) {
  char path[64];
  fn_reference_tensor losses;
  snprintf(path, sizeof path, "%s/losses", group);
  FN_TRY(fn_reference_read(v->tally.reference, path, &losses));
  if (!losses.name) return FN_OK; // this file has no such steps
  FN_CHECK(losses.count >= 1 && losses.count <= STEPS_MOST, FN_ERR_DATA,
           "%s: /%s holds %lld steps, expected 1 to %d", v->options->reference, path,
           (long long)losses.count, STEPS_MOST);
  const char *text = fn_reference_text(v->tally.reference, group);
  FN_CHECK(text, FN_ERR_DATA, "%s: group /%s without an attribute %s with the settings",
           v->options->reference, group, group);
  fn_options *json;
  FN_TRY(fn_options_from_text(text, group, &json));
  fn_run run = *v->run; // only the optimizer of it is used
  fn_status status = read_settings(v, group, json, &run);
  if (status == FN_OK) status = take_steps(v, &run, group, &losses);
  fn_options_destroy(json);
  return fn_error_context(status, "%s", group);
}

/* ---- all of it ----------------------------------------------------------------------------------
 */

static fn_status prepare(verification *v) {
  FN_TRY(only_tensor(v, "inputs", &v->input));
  FN_TRY(only_tensor(v, "targets", &v->target));
  FN_TRY(fn_reference_group(v->tally.reference, "weights", &v->weights, &v->weight_count));
  FN_TRY(fn_reference_group(v->tally.reference, "buffers", &v->buffers, &v->buffer_count));
  fn_dataset_info info;
  FN_TRY(sizes_of(v, &info));
  FN_TRY(fn_engine_create(v->run, v->dist, &info, &v->engine));
  v->parameters = fn_engine_parameters(v->engine);
  fn_engine_keep_output(v->engine);
  FN_TRY(match_names(v));
  const int64_t batch = v->input->shape.dim[0];
  FN_TRY(fn_engine_program(v->engine, true, true, batch, &v->training));
  FN_TRY(fn_engine_program(v->engine, false, true, batch, &v->evaluation));
  if (v->options->write) FN_TRY(fn_reference_write_start(v->tally.reference, &v->tally.writer));
  return FN_OK;
}

static void print_head(const verification *v) {
  FILE *out = v->tally.out;
  fprintf(out, "%s: %lld parameters, backend %s, precision %s\n", v->options->reference,
          (long long)v->parameters->parameter_total, v->run->compute.backend,
          v->run->compute.precision);
  if (fn_verify_uses_error(&v->tally))
    fprintf(out,
            "limit: %g times the reference's float32 error plus 1e-6 of the tensor's largest "
            "value;\n       %g of the largest value where the file has no float64 values\n\n",
            v->options->factor, v->tally.rtol);
  else
    fprintf(out, "limit: %g of the tensor's largest value\n\n", v->tally.rtol);
  fprintf(out, "%-18s %4s  %-34s %10s %10s %7s\n", "group", "of", "worst tensor", "error", "limit",
          "share");
}

static fn_status compare_all(verification *v) {
  FN_TRY(prepare(v));
  print_head(v);
  FN_TRY(compare_training(v));
  FN_TRY(compare_evaluation(v));
  const char *const optimizers[] = {"adam", "adam_l2", "sgd"};
  for (int i = 0; i < 3; i++)
    FN_TRY(compare_optimizer(v, optimizers[i]));
  if (v->tally.writer) {
    FN_TRY(fn_reference_write_finish(v->tally.writer, v->options->write));
    fprintf(v->tally.out, "\nwrote %s\n", v->options->write);
  }
  const bool direct = strcmp(v->run->compute.winograd, "no") == 0;
  FN_CHECK(v->tally.over == 0, FN_ERR_VERIFY, "%s: %d of %d tensors are over their limit%s",
           v->options->reference, v->tally.over, v->tally.tensors,
           direct ? "" : "; compute.winograd: no rounds less");
  fprintf(v->tally.out, "\n%d tensors in %d groups, all within their limits\n", v->tally.tensors,
          v->tally.groups);
  return FN_OK;
}

fn_status fn_verify(const fn_run *run, fn_dist *dist, const fn_verify_options *options, FILE *out) {
  FN_CHECK(dist->size == 1, FN_ERR_CONFIG, "verify runs on one rank, not on %d", dist->size);
  FN_CHECK(strcmp(run->compute.precision, "f32") == 0 || options->rtol >= 0, FN_ERR_CONFIG,
           "precision %s rounds more than a float32 reference tells of: say --rtol, e.g. 0.05",
           run->compute.precision);
  verification v = {.run = run, .dist = dist, .options = options};
  v.tally.options = options;
  v.tally.out = out;
  v.tally.rtol = options->rtol >= 0 ? options->rtol : 1e-4;
  fn_status status = fn_reference_open(options->reference, &v.tally.reference);
  if (status == FN_OK) status = compare_all(&v);
  fn_reference_writer_destroy(v.tally.writer);
  fn_engine_destroy(v.engine);
  fn_reference_close(v.tally.reference);
  return status;
}
