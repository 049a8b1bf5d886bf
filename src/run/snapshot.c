#include "run/snapshot.h"

#include <stdlib.h>
#include <string.h>

struct fn_snapshot {
  fn_parameters parameters; // entries of the original, values and buffers of its own
  fn_optimizer *optimizer;
  float *ema; // or NULL
  fn_schedule schedule;
  fn_progress progress;
  fn_state state;
};

static size_t value_bytes(const fn_parameters *p) {
  return (size_t)p->count * sizeof(float);
}

static size_t buffer_bytes(const fn_parameters *p) {
  return (size_t)p->buffer_count * sizeof(float);
}

int64_t fn_snapshot_bytes(const fn_parameters *parameters, int optimizer_arrays, bool ema) {
  const size_t arrays = (size_t)(1 + optimizer_arrays + ema);
  return (int64_t)(arrays * value_bytes(parameters) + buffer_bytes(parameters));
}

static fn_status allocate(const fn_run *run, const fn_state *state, fn_snapshot *s) {
  fn_parameters *p = &s->parameters;
  FN_CHECK(p->dtype == FN_F32, FN_ERR_INTERNAL, "a snapshot is of float32 parameters");
  FN_TRY(fn_pages_allocate(value_bytes(p), &p->values));
  FN_TRY(fn_pages_allocate(buffer_bytes(p), &p->buffers));
  if (state->ema) FN_TRY(fn_pages_allocate(value_bytes(p), (void **)&s->ema));
  return fn_optimizer_create(run, p, &s->optimizer);
}

fn_status fn_snapshot_create(const fn_run *run, const fn_state *state, fn_snapshot **snapshot) {
  *snapshot = NULL;
  fn_snapshot *s = calloc(1, sizeof *s);
  FN_CHECK(s, FN_ERR_MEMORY, "out of memory");
  s->parameters = *state->parameters;
  s->parameters.values = s->parameters.gradients = s->parameters.buffers = NULL;
  s->parameters.arena = NULL;
  // The host's copy of what a device has.
  s->parameters.device = NULL;
  memset(s->parameters.mirror, 0, sizeof s->parameters.mirror);
  const fn_status status = allocate(run, state, s);
  if (status != FN_OK) {
    fn_snapshot_destroy(s);
    return fn_error_context(status, "copy of the state that is written while training goes on "
                                    "(checkpoint.background: false does without)");
  }
  s->state = (fn_state){.parameters = &s->parameters,
                        .optimizer = s->optimizer,
                        .ema = s->ema,
                        .schedule = &s->schedule,
                        .progress = &s->progress};
  *snapshot = s;
  return FN_OK;
}

void fn_snapshot_destroy(fn_snapshot *snapshot) {
  if (!snapshot) return;
  const fn_parameters *p = &snapshot->parameters;
  fn_optimizer_destroy(snapshot->optimizer);
  if (p->values) fn_pages_free(p->values, value_bytes(p));
  if (p->buffers) fn_pages_free(p->buffers, buffer_bytes(p));
  if (snapshot->ema) fn_pages_free(snapshot->ema, value_bytes(p));
  free(snapshot);
}

/** Copied by all threads: one alone does not reach the speed of the memory. */
static void copy(float *to, const float *from, int64_t count) {
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; i++)
    to[i] = from[i];
}

void fn_snapshot_take(fn_snapshot *snapshot, const fn_state *state) {
  const fn_parameters *from = state->parameters, *to = &snapshot->parameters;
  copy(to->values, from->values, from->count);
  copy(to->buffers, from->buffers, from->buffer_count);
  if (snapshot->ema) copy(snapshot->ema, state->ema, from->count);
  for (int i = 0; i < fn_optimizer_state_count(snapshot->optimizer); i++)
    copy(fn_optimizer_state(snapshot->optimizer, i), fn_optimizer_state(state->optimizer, i),
         from->count);
  for (int i = 0; i < fn_optimizer_scalar_count(snapshot->optimizer); i++) {
    const char *name;
    *fn_optimizer_scalar(snapshot->optimizer, i, &name) =
        *fn_optimizer_scalar(state->optimizer, i, &name);
  }
  fn_optimizer_set_steps(snapshot->optimizer, fn_optimizer_steps(state->optimizer));
  snapshot->schedule = *state->schedule;
  snapshot->progress = *state->progress;
  snapshot->state.configuration = state->configuration;
}

const fn_state *fn_snapshot_state(const fn_snapshot *snapshot) {
  return &snapshot->state;
}
