#include "graph/program.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "graph/program_internal.h"

void *fn_place_data(const fn_program *p, int index) {
  if (index < 0) return NULL;
  int64_t offset;
  const place *owner = &p->place[fn_place_owner(p, index, &offset)];
  char *arena = owner->constant ? p->constants : p->arena;
  char *base = owner->external ? owner->external : arena + owner->address;
  return base + (size_t)offset * fn_dtype_size(owner->dtype);
}

fn_tensor fn_place_tensor(const fn_program *p, int index) {
  if (index < 0) return (fn_tensor){0};
  const place *c = &p->place[index];
  return (fn_tensor){.data = fn_place_data(p, index),
                     .dtype = c->dtype,
                     .shape = c->shape,
                     .block = c->block,
                     .batch_stride = c->batch_stride,
                     .pitch = c->pitch};
}

static fn_status prepare_step(fn_program *p, step *s) {
  fn_kernel *kernel = &s->kernel;
  const int inputs = s->node->input_count, outputs = s->node->output_count;
  kernel->node = s->node;
  kernel->backend = s->backend->name;
  kernel->input = fn_arena_take(p->tables, (size_t)(inputs + 1) * sizeof(fn_tensor));
  kernel->output = fn_arena_take(p->tables, (size_t)(outputs + 1) * sizeof(fn_tensor));
  for (int i = 0; i < inputs; i++)
    kernel->input[i] = fn_place_tensor(p, s->input[i]);
  for (int o = 0; o < outputs; o++) {
    kernel->output[o] = fn_place_tensor(p, s->output[o]);
    if (s->output[o] < 0) {
      kernel->output[o].shape = s->node->output[o]->shape;
      kernel->output[o].block = kernel->output[o].pitch = 1;
    }
  }
  if (p->options.plan_only || p->options.recorder) return FN_OK;
  const fn_status status = s->is_reorder ? s->backend->prepare_reorder(s->backend, kernel)
                                         : s->backend->prepare(s->backend, kernel);
  return fn_error_context(status, "operator %s (%s)", s->is_reorder ? "reorder" : s->node->op->name,
                          s->label);
}

static fn_status allocate(fn_program *p) {
  const fn_program *donor = p->options.check ? NULL : p->options.donor;
  p->arena_borrowed = donor && donor->arena && donor->arena_bytes >= p->arena_bytes;
  if (p->arena_borrowed) {
    p->arena = donor->arena;
  } else if (!p->options.plan_only) {
    FN_TRY(fn_program_allocate(p, p->arena_bytes, &p->arena));
  }
  p->constants_bytes = fn_program_plan_constants(p);
  p->constants_version = UINT64_MAX;
  if (!p->options.plan_only && p->constants_bytes > 0)
    FN_TRY(fn_program_allocate(p, p->constants_bytes, &p->constants));
  for (int s = 0; s < p->step_count; s++) {
    FN_TRY(prepare_step(p, &p->step[s]));
    if (p->step[s].kernel.workspace > p->workspace_bytes)
      p->workspace_bytes = p->step[s].kernel.workspace;
  }
  if (p->options.plan_only) return FN_OK;
  p->workspace_borrowed = donor && donor->workspace_bytes >= p->workspace_bytes;
  if (p->workspace_borrowed) {
    p->workspace = donor->workspace;
    return FN_OK;
  }
  return fn_program_allocate(p, p->workspace_bytes, &p->workspace);
}

/* ---- create
 * --------------------------------------------------------------------------------------- */

/** The backend's device, if it has one, and the parameters on it. */
static fn_status open_device(fn_program *p) {
  if (!p->backend->device) {
    FN_CHECK(!p->parameters || !p->parameters->device || p->options.plan_only, FN_ERR_INTERNAL,
             "the parameters are on a device, the %s backend is not", p->backend->name);
    return FN_OK;
  }
  if (p->options.plan_only) return FN_OK;
  const fn_device_choice any = {.node_size = 1, .share = true, .deterministic = true};
  if (p->options.recorder)
    p->device = fn_recorder_device(p->options.recorder);
  else
    FN_TRY(p->backend->device(p->backend, &any, &p->device));
  return p->parameters ? fn_parameters_attach(p->parameters, p->device) : FN_OK;
}

static fn_status build(fn_program *p, const fn_program_output *outputs, int output_count,
                       fn_value *const *wrt, fn_value *const *gradients, int gradient_count) {
  const double start = fn_clock();
  FN_TRY(fn_backend_find(p->options.backend, &p->backend));
  FN_TRY(fn_backend_find("reference", &p->reference));
  const bool planned_for = p->options.recorder && p->backend->device && p->backend->plan;
  FN_CHECK(!p->backend->missing || planned_for, FN_ERR_UNSUPPORTED, "backend %s cannot be used: %s",
           p->backend->name, p->backend->missing);
  FN_CHECK(!p->options.recorder || planned_for, FN_ERR_UNSUPPORTED,
           "backend %s works on no device that could be planned for", p->backend->name);
  FN_CHECK(p->options.precision != FN_F64 || p->backend == p->reference, FN_ERR_UNSUPPORTED,
           "double precision runs on the reference backend only");
  FN_TRY(open_device(p));
  const size_t values = (size_t)p->graph->value_count + 1;
  p->value_place = fn_arena_take(p->tables, values * sizeof(int));
  p->value_copy = fn_arena_take(p->tables, values * sizeof(int));
  p->input = fn_arena_take(p->tables, (size_t)(p->graph->leaf_count + 1) * sizeof *p->input);
  p->output = fn_arena_take(p->tables, (size_t)(output_count + 1) * sizeof *p->output);
  FN_TRY(fn_program_lower(p, outputs, output_count, wrt, gradients, gradient_count));
  FN_TRY(fn_program_schedule(p));
  const double planned = fn_clock();
  FN_TRY(allocate(p));
  if (p->device) FN_TRY(fn_device_part_create(p));
  if (p->options.check && !p->options.plan_only) FN_TRY(fn_check_start(p));
  p->plan_seconds = planned - start;
  p->prepare_seconds = fn_clock() - planned;
  return FN_OK;
}

fn_status fn_program_create(fn_graph *graph, fn_parameters *parameters,
                            const fn_program_options *options, const fn_program_output *outputs,
                            int output_count, fn_value *const *wrt, fn_value *const *gradients,
                            int gradient_count, fn_program **program) {
  *program = NULL;
  FN_TRY(fn_graph_status(graph));
  for (int i = 0; i < output_count; i++)
    FN_CHECK(outputs[i].value, FN_ERR_INTERNAL, "program output '%s' is missing", outputs[i].name);
  fn_program *p = calloc(1, sizeof *p);
  FN_CHECK(p, FN_ERR_MEMORY, "out of memory");
  p->tables = fn_arena_create();
  p->options = *options;
  p->graph = graph;
  p->parameters = parameters;
  const fn_status status = p->tables
                               ? build(p, outputs, output_count, wrt, gradients, gradient_count)
                               : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  if (status != FN_OK) {
    fn_program_destroy(p);
    return status;
  }
  *program = p;
  return FN_OK;
}

void fn_program_destroy(fn_program *program) {
  if (!program) return;
  fn_device_part_destroy(program); // first of all waits
  fn_check_end(program);
  for (int s = 0; s < program->step_count; s++)
    if (program->step[s].kernel.destroy) program->step[s].kernel.destroy(&program->step[s].kernel);
  if (!program->arena_borrowed) fn_program_release(program, program->arena, program->arena_bytes);
  if (!program->workspace_borrowed)
    fn_program_release(program, program->workspace, program->workspace_bytes);
  fn_program_release(program, program->constants, program->constants_bytes);
  free(program->place);
  free(program->step);
  fn_arena_destroy(program->tables);
  free(program);
}

/* ---- inputs and outputs
 * ----------------------------------------------------------------------------- */

static int find_name(const named_place *list, int count, const char *name) {
  for (int i = 0; i < count; i++)
    if (strcmp(list[i].name, name) == 0) return i;
  return -1;
}

static int find_place(const named_place *list, int count, const char *name) {
  const int index = find_name(list, count, name);
  return index < 0 ? -1 : list[index].place;
}

void *fn_program_input(fn_program *program, const char *name) {
  const int index = find_name(program->input, program->input_count, name);
  if (index < 0) return NULL;
  return program->part ? fn_device_input(program, index)
                       : fn_place_data(program, program->input[index].place);
}

fn_status fn_program_make_input(fn_program *program, const char *name, fn_input_make make,
                                void *user) {
  const int index = find_name(program->input, program->input_count, name);
  FN_CHECK(index >= 0 && program->part, FN_ERR_INTERNAL, "there is no input \"%s\" on a device",
           name);
  fn_device_make_input(program, index, make, user);
  return FN_OK;
}

const fn_shape *fn_program_input_shape(const fn_program *program, const char *name) {
  const int index = find_place(program->input, program->input_count, name);
  return index < 0 ? NULL : &program->place[index].shape;
}

const void *fn_program_output_data(const fn_program *program, const char *name) {
  const int index = find_name(program->output, program->output_count, name);
  if (index < 0) return NULL;
  return program->part ? fn_device_output((fn_program *)program, index) // moves a copy along
                       : fn_place_data(program, program->output[index].place);
}

const void *fn_program_output_place(const fn_program *program, const char *name) {
  return fn_place_data(program, find_place(program->output, program->output_count, name));
}

fn_status fn_program_wait(fn_program *program) {
  return program->part ? fn_device_wait(program) : FN_OK;
}

fn_device *fn_program_device(const fn_program *program) {
  return program->device;
}

const fn_shape *fn_program_output_shape(const fn_program *program, const char *name) {
  const int index = find_place(program->output, program->output_count, name);
  return index < 0 ? NULL : &program->place[index].shape;
}

void fn_program_on_gradient(fn_program *program, fn_gradient_ready ready, void *user) {
  program->ready = ready;
  program->ready_user = user;
}

void fn_program_on_kernel(fn_program *program, fn_kernel_done done, void *user) {
  program->done = done;
  program->done_user = user;
}

/* ---- run
 * ---------------------------------------------------------------------------------------------- */

/** With checks on: what is kept must be what the parameters give now. */
static fn_status check_constants(fn_program *p, fn_run_context *context) {
  void *kept;
  FN_TRY(fn_pages_allocate(p->constants_bytes, &kept));
  memcpy(kept, p->constants, p->constants_bytes);
  fn_status status = FN_OK;
  for (int s = 0; s < p->step_count && status == FN_OK; s++)
    if (p->step[s].is_constant) status = p->step[s].kernel.run(&p->step[s].kernel, context);
  const bool same = memcmp(kept, p->constants, p->constants_bytes) == 0;
  fn_pages_free(kept, p->constants_bytes);
  FN_TRY(status);
  FN_CHECK(same, FN_ERR_INTERNAL,
           "parameters have changed without a word, folded weights are out of date");
  return FN_OK;
}

/** Whether constant steps need not run. */
static fn_status find_constants(fn_program *p, fn_run_context *context, bool *valid) {
  *valid = p->constants && p->constants_version == p->parameters->version;
  return *valid && p->options.check ? check_constants(p, context) : FN_OK;
}

bool fn_program_is_timed(const fn_program *program) {
  return program->options.profile || program->done;
}

void fn_program_note_time(fn_program *program, int index, double start, double end) {
  step *st = &program->step[index];
  st->seconds += end - start;
  st->runs++;
  if (program->done) program->done(program->done_user, index, start, end);
}

fn_status fn_program_step(fn_program *program, int index, const fn_run_context *context) {
  step *st = &program->step[index];
  if (program->options.recorder) return fn_device_record_step(program, index);
  const bool timed = !program->device && fn_program_is_timed(program);
  const double start = timed ? fn_clock() : 0;
  const fn_status status = st->kernel.run(&st->kernel, context);
  if (status != FN_OK)
    return fn_error_context(status, "operator %s (%s)", st->node->op->name, st->label);
  if (timed) fn_program_note_time(program, index, start, fn_clock());
  return program->options.check ? fn_check_step(program, index) : FN_OK;
}

void fn_program_land(fn_program *program, int index, int *landed) {
  for (; *landed < program->landing_count && program->landing[*landed].step <= index; ++*landed) {
    landing *l = &program->landing[*landed];
    l->awaited = program->ready && program->ready(program->ready_user, l->entry);
  }
}

static fn_status run_on_host(fn_program *program, fn_run_context *context) {
  int landed = 0;
  bool constants_valid;
  FN_TRY(find_constants(program, context, &constants_valid));
  for (int s = 0; s < program->step_count; s++) {
    if (program->step[s].is_constant && constants_valid) continue;
    FN_TRY(fn_program_step(program, s, context));
    fn_program_land(program, s, &landed);
  }
  if (program->constants) program->constants_version = program->parameters->version;
  if (fn_graph_assignment_count(program->graph) > 0) fn_parameters_changed(program->parameters);
  return FN_OK;
}

fn_status fn_program_run(fn_program *program, const fn_run_context *context) {
  FN_CHECK(!program->options.plan_only, FN_ERR_INTERNAL, "the program was only planned");
  fn_run_context mine = context ? *context : (fn_run_context){0};
  mine.workspace = program->workspace;
  return program->part ? fn_device_run(program, &mine) : run_on_host(program, &mine);
}

/* ---- information
 * ---------------------------------------------------------------------------------------- */

int fn_program_kernel_count(const fn_program *program) {
  return program->step_count;
}

const fn_kernel *fn_program_kernel(const fn_program *program, int index) {
  return &program->step[index].kernel;
}

void *fn_program_workspace(const fn_program *program) {
  return program->workspace;
}

void fn_program_kernel_info(const fn_program *program, int index, fn_kernel_info *info) {
  const step *s = &program->step[index];
  *info = (fn_kernel_info){.op = s->is_reorder ? "reorder" : s->node->op->name,
                           .label = s->label,
                           .backend = s->backend->name,
                           .seconds = s->seconds,
                           .runs = s->runs,
                           .repeats = s->repeats};
  for (int i = 0; i < s->node->input_count; i++)
    if (s->input[i] >= 0) info->bytes += (double)fn_place_bytes(&program->place[s->input[i]]);
  for (int o = 0; o < s->node->output_count; o++)
    if (s->output[o] >= 0) info->bytes += (double)fn_place_bytes(&program->place[s->output[o]]);
  if (s->node->output_count > 0) info->shape = s->node->output[0]->shape;
  if (!s->is_reorder)
    info->flops =
        s->node->op->flops ? s->node->op->flops(s->node) : (double)fn_shape_count(&info->shape);
}

void fn_program_profile_reset(fn_program *program) {
  for (int s = 0; s < program->step_count; s++) {
    program->step[s].seconds = 0;
    program->step[s].runs = 0;
  }
}

void fn_program_create_times(const fn_program *program, double *plan, double *prepare) {
  *plan = program->plan_seconds;
  *prepare = program->prepare_seconds;
}

void fn_program_memory_info(const fn_program *program, fn_program_memory *memory) {
  *memory = (fn_program_memory){.arena = program->arena_bytes,
                                .naive = program->naive_bytes,
                                .workspace = program->workspace_bytes,
                                .reorders = program->reorders,
                                .extra = program->extra_share};
  for (int s = 0; s < program->step_count; s++)
    memory->repeats += program->step[s].repeats;
}
