#include "run/session_arrays.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

/* ---- micro-batches ----------------------------------------------------------------------------
 */

static void add_scaled(float *sum, const float *x, double scale, int64_t count, bool first) {
  const float a = (float)scale;
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < count; i++)
    sum[i] = (first ? 0.0f : sum[i]) + a * x[i];
}

/** The first replaces what may be anything, NaN too. */
static fn_status add_on_device(fn_mirror *sum, const float *x, double scale, int64_t count,
                               bool first) {
  fn_device *d = sum->device;
  if (first) FN_TRY(d->clear(d, FN_STREAM_COMPUTE, sum->memory, (size_t)count * sizeof(float)));
  fn_mirror_changed_on_device(sum);
  return d->add_scaled(d, FN_STREAM_COMPUTE, sum->memory, x, 1, (float)scale, count);
}

fn_status fn_session_accumulate(fn_session *s, const fn_program *program, int64_t micro,
                                int64_t samples) {
  fn_parameters *p = s->parameters;
  if (!p->device) {
    add_scaled(s->accumulated.host, p->gradients, (double)samples, p->count, micro == 0);
    return FN_OK;
  }
  FN_TRY(add_on_device(&s->loss_sum, fn_program_output_place(program, "loss"), (double)samples, 1,
                       micro == 0));
  return add_on_device(&s->accumulated, fn_parameters_mirror(p, FN_MIRROR_GRADIENTS)->memory,
                       (double)samples, p->count, micro == 0);
}

fn_status fn_session_take_accumulated(fn_session *s, double samples) {
  fn_parameters *p = s->parameters;
  if (!p->device) {
    add_scaled(p->gradients, s->accumulated.host, 1 / samples, p->count, true);
    return FN_OK;
  }
  return add_on_device(fn_parameters_mirror(p, FN_MIRROR_GRADIENTS), s->accumulated.memory,
                       1 / samples, p->count, true);
}

fn_status fn_session_loss_sum(fn_session *s, double *loss) {
  FN_TRY(fn_mirror_to_host(&s->loss_sum));
  *loss = (double)*(const float *)s->loss_sum.host;
  return FN_OK;
}

/* ---- the end of a step ------------------------------------------------------------------------
 */

fn_status fn_session_keep_buffers(fn_session *s) {
  fn_parameters *p = s->parameters;
  fn_mirror *before = &s->buffers_before;
  if (!before->host || before->bytes == 0) return FN_OK;
  if (!p->device) {
    memcpy(before->host, p->buffers, before->bytes);
    return FN_OK;
  }
  FN_TRY(fn_parameters_to_device(p));
  fn_mirror_changed_on_device(before);
  return p->device->copy(p->device, FN_STREAM_COMPUTE, before->memory,
                         fn_parameters_mirror(p, FN_MIRROR_BUFFERS)->memory, before->bytes,
                         FN_COPY_WITHIN);
}

static fn_status average(fn_session *s) {
  if (!s->ema) return FN_OK;
  fn_parameters *p = s->parameters;
  const fn_judgement *judgement = fn_judge_place(s->judge);
  const float decay = (float)s->run->train.ema_decay;
  if (p->device)
    return p->device->add_scaled_if(
        p->device, FN_STREAM_COMPUTE, judgement, FN_STEP_TAKEN, s->average.memory,
        fn_parameters_mirror(p, FN_MIRROR_VALUES)->memory, decay, 1 - decay, p->count);
  if (judgement->verdict != FN_STEP_TAKEN) return FN_OK;
  const float *values = p->values;
#pragma omp parallel for simd schedule(static)
  for (int64_t i = 0; i < p->count; i++)
    s->ema[i] = decay * s->ema[i] + (1 - decay) * values[i];
  return FN_OK;
}

static fn_status restore_buffers(fn_session *s) {
  fn_parameters *p = s->parameters;
  fn_mirror *before = &s->buffers_before;
  if (!before->host || before->bytes == 0) return FN_OK;
  const fn_judgement *judgement = fn_judge_place(s->judge);
  if (p->device)
    return p->device->copy_if(p->device, FN_STREAM_COMPUTE, judgement, FN_STEP_BAD,
                              fn_parameters_mirror(p, FN_MIRROR_BUFFERS)->memory, before->memory,
                              p->buffer_count);
  if (judgement->verdict != FN_STEP_BAD) return FN_OK;
  memcpy(p->buffers, before->host, before->bytes);
  fn_parameters_buffers_changed(p);
  return FN_OK;
}

static fn_status obey(void *session) {
  fn_session *s = session;
  FN_TRY(fn_optimizer_obey(s->optimizer));
  FN_TRY(average(s));
  return restore_buffers(s);
}

/** Behind fn_optimizer_begin, which has brought the parameters: the other arrays are where the
 * device works, and it is about to write them. */
static fn_status arrays_to_device(fn_session *s) {
  fn_parameters *p = s->parameters;
  if (!p->device) return FN_OK;
  if (s->buffers_before.bytes > 0) fn_parameters_changed_on_device(p, FN_MIRROR_BUFFERS);
  if (!s->ema) return FN_OK;
  FN_TRY(fn_mirror_to_device(&s->average));
  fn_mirror_changed_on_device(&s->average);
  return FN_OK;
}

fn_status fn_session_apply(fn_session *s, const fn_step_facts *facts,
                           const fn_tensor_entry *const watched[2]) {
  FN_TRY(fn_optimizer_begin(s->optimizer, s->flight.lr, s->judge));
  FN_TRY(arrays_to_device(s));
  return fn_judge_put(s->judge, facts, fn_optimizer_factors(s->optimizer), watched);
}

/* ---- create and destroy ------------------------------------------------------------------------
 */

fn_status fn_session_arrays_create(fn_session *s) {
  fn_device *device = s->parameters->device;
  FN_TRY(fn_judge_create(s->parameters, obey, s, fn_engine_replays(s->run), &s->judge));
  const size_t bytes = (size_t)s->parameters->count * sizeof(float);
  if (s->run->train.ema_decay > 0) {
    FN_TRY(fn_mirror_create(device, bytes, &s->average));
    s->ema = s->average.host;
    memcpy(s->ema, s->parameters->values, bytes);
    fn_mirror_changed(&s->average);
  }
  if (s->run->train.accumulate > 1) {
    FN_TRY(fn_mirror_create(device, bytes, &s->accumulated));
    if (device) FN_TRY(fn_mirror_create(device, sizeof(float), &s->loss_sum));
  }
  if (strcmp(s->run->train.on_nan, "skip") == 0)
    FN_TRY(fn_mirror_create(device, (size_t)s->parameters->buffer_count * sizeof(float),
                            &s->buffers_before));
  return FN_OK;
}

void fn_session_arrays_destroy(fn_session *s) {
  fn_judge_destroy(s->judge);
  free(s->flight.list.sample);
  free(s->coming.sample);
  fn_mirror_destroy(&s->average);
  fn_mirror_destroy(&s->accumulated);
  fn_mirror_destroy(&s->loss_sum);
  fn_mirror_destroy(&s->buffers_before);
  s->ema = NULL;
}

/* ---- failures ---------------------------------------------------------------------------------
 */

void fn_session_note(fn_session *s, fn_status status) {
  if (status == FN_OK || s->late != FN_OK) return;
  s->late = status;
  snprintf(s->late_message, sizeof s->late_message, "%s", fn_error_message());
}

fn_status fn_session_noted(const fn_session *s) {
  return s->late == FN_OK ? FN_OK
                          : fn_error_set(s->late, __FILE__, __LINE__, "%s", s->late_message);
}

/* ---- states -----------------------------------------------------------------------------------
 */

fn_status fn_session_to_host(fn_session *s) {
  FN_TRY(fn_session_noted(s));
  FN_TRY(fn_parameters_to_host(s->parameters));
  FN_TRY(fn_optimizer_to_host(s->optimizer));
  return fn_mirror_to_host(&s->average);
}

void fn_session_changed(fn_session *s) {
  fn_parameters_changed(s->parameters);
  fn_optimizer_changed(s->optimizer);
  fn_mirror_changed(&s->average);
}
