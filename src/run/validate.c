#include "run/validate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "run/logits.h"
#include "run/read_again.h"
#include "run/validate_labels.h"
#include "run/windows.h"

/** Whether somebody looks at this program's output, a field. */
static bool is_drawn(const fn_session *s, const fn_program *program) {
  const bool listens =
      s->observer && s->observer->figure && (s->run->report.plots || s->run->report.tensorboard);
  return listens && fn_program_output_shape(program, "output_window")->ndim > 2;
}

/** Input and target as the network's program has them, or as `windows` does. */
static void draw(fn_session *s, fn_program *program, const char *stage, const fn_windows *windows) {
  const fn_program *of = windows ? windows->program : program;
  const fn_shape *in = fn_program_output_shape(of, "input_window");
  const fn_shape *out = fn_program_output_shape(program, "output_window");
  fn_figure_event event = {
      .stage = stage,
      .epoch = s->progress.epoch + 1,
      .spatial = out->ndim - 2,
      .batch = out->dim[0],
      .channels_in = in->dim[1],
      .channels_out = out->dim[1],
      .input = fn_program_output_data(of, "input_window"),
      .output = fn_program_output_data(program, "output_window"),
      .target = fn_program_output_data(of, "target_window"),
  };
  for (int d = 0; d < event.spatial; d++)
    event.size[d] = out->dim[2 + d];
  // Cells of the window over cells of the field, times the box.
  const fn_dataset_info *info = fn_dataset_get_info(s->train);
  if (s->run->test.box_size > 0)
    event.box_size = s->run->test.box_size * (double)event.size[0] /
                     (double)(info->size[0] * s->run->data.scale_factor);
  s->observer->figure(s->observer->self, &event);
}

/** Training programs keep no fields but the network's: the others are read once more. */
void fn_draw_training(fn_session *session) {
  fn_program *program = session->last_program;
  if (!program || !is_drawn(session, program)) return;
  fn_batch batch;
  fn_windows windows = {0};
  fn_status status = fn_read_again(session, &batch);
  if (status == FN_OK)
    status = fn_windows_cut(session->run, fn_dataset_get_info(session->train), &batch, &windows);
  if (status == FN_OK) {
    draw(session, program, "train", &windows);
  } else {
    fn_log(FN_WARN, "no figure of this epoch's training: %s", fn_error_message());
    fn_error_clear();
  }
  fn_windows_free(&windows);
  fn_read_again_free(&batch);
}

static bool row_is_finite(const fn_program *program, const char *output, int64_t row) {
  const fn_shape *shape = fn_program_output_shape(program, output);
  const int64_t count = fn_shape_count(shape) / shape->dim[0];
  const float *x = (const float *)fn_program_output_data(program, output) + row * count;
  for (int64_t i = 0; i < count; i++)
    if (!isfinite(x[i])) return false;
  return true;
}

/** What made the loss of a batch not finite: the first sample whose target or output is not, else
 *  (the loss overflowed) the first of the batch. */
static fn_status name_bad_sample(const fn_session *s, const fn_program *program,
                                 const fn_batch *batch) {
  const char *what = "loss of the batch from";
  int64_t bad = 0;
  int field = 0;
  const fn_dataset_info *info = fn_dataset_get_info(s->validation);
  for (int64_t row = batch->count - 1; row >= 0; row--) {
    const bool target = row_is_finite(program, "target_window", row);
    if (target && row_is_finite(program, "output_window", row)) continue;
    bad = row;
    what = target ? "output for" : "target of";
    field = target ? 0 : info->input_fields;
  }
  const int64_t sample = batch->sample[bad];
  char cell[1024] = "";
  if (fn_dataset_check_finite(s->validation, s->progress.epoch, sample) == FN_ERR_DIVERGED)
    snprintf(cell, sizeof cell, "; %s", fn_error_message());
  return fn_error_set(FN_ERR_DIVERGED, __FILE__, __LINE__,
                      "validation after epoch %lld (step %lld): the loss is not finite; the first "
                      "that is bad is the %s sample %lld: %s, crop %lld%s",
                      (long long)s->progress.epoch + 1, (long long)s->progress.step, what,
                      (long long)sample,
                      fn_dataset_path(s->validation, sample / info->crops, field),
                      (long long)(sample % info->crops), cell);
}

/** *verdict: FN_ERR_DIVERGED with a message for the first batch whose loss is not finite. */
static fn_status evaluate_batch(fn_session *s, const fn_batch *batch, double *sum, float *logit,
                                fn_program **program, fn_status *verdict) {
  FN_TRY(fn_engine_program(s->engine, false, true, batch->count, program));
  FN_TRY(fn_engine_feed(*program, batch));
  const fn_run_context context = {
      .seed = s->run->seed, .epoch = s->progress.epoch, .sample = batch->sample};
  FN_TRY(fn_program_run(*program, &context));
  FN_TRY(fn_program_wait(*program));
  const double loss = (double)*(const float *)fn_program_output_data(*program, "loss");
  if (!isfinite(loss) && *verdict == FN_OK) *verdict = name_bad_sample(s, *program, batch);
  sum[0] += loss * (double)batch->count;
  if (logit) {
    FN_TRY(fn_logits_check(s->run, *program, batch->count));
    memcpy(logit + (int64_t)sum[1], fn_program_output_data(*program, "output"),
           (size_t)batch->count * sizeof *logit);
  }
  sum[1] += (double)batch->count;
  return FN_OK;
}

/** sum: of loss times samples, samples. logit [samples of this rank], NULL for fields. */
static fn_status evaluate_slice(fn_session *s, double *sum, float *logit, fn_status *verdict) {
  const fn_dataset_info *info = fn_dataset_get_info(s->validation);
  int64_t begin, count;
  fn_rank_slice(info->samples, s->dist->rank, s->dist->size, false, &begin, &count);
  int64_t *list = malloc((size_t)(count + 1) * sizeof *list);
  fn_status status =
      list ? FN_OK : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  status = fn_dist_agree(s->dist, status);
  for (int64_t i = 0; i < count && status == FN_OK; i++)
    list[i] = begin + i;
  fn_loader *loader = NULL;
  if (status == FN_OK)
    status = fn_loader_create(s->validation, s->progress.epoch, list, count, s->run->train.batch, 0,
                              s->run->data.prefetch, s->run->data.readers, &loader);
  const fn_batch *batch = NULL;
  fn_program *program = NULL;
  while (status == FN_OK) {
    status = fn_loader_next(loader, &batch);
    if (status != FN_OK || !batch) break;
    fn_watchdog_enter(s->watchdog, FN_PHASE_VALIDATE, s->progress.step);
    status = evaluate_batch(s, batch, sum, logit, &program, verdict);
  }
  if (status == FN_OK && program && is_drawn(s, program)) draw(s, program, "val", NULL);
  fn_loader_destroy(loader);
  free(list);
  return status;
}

static fn_status validate(fn_session *session, float *logit, fn_validation *result) {
  double sum[2] = {0, 0};
  fn_status verdict = FN_OK;
  FN_TRY(fn_dist_agree(session->dist, evaluate_slice(session, sum, logit, &verdict)));
  // Slices go up with the ranks: the lowest rank's bad sample is the first one.
  verdict = fn_dist_agree(session->dist, verdict);
  if (verdict == FN_ERR_DIVERGED && strcmp(session->run->train.on_nan, "skip") == 0) {
    fn_log(FN_WARN, "%s; this epoch's validation does not count", fn_error_message());
    fn_error_clear();
    verdict = FN_OK;
  }
  FN_TRY(verdict);
  FN_TRY(fn_dist_sum(session->dist, sum, 2));
  result->loss = sum[1] > 0 ? sum[0] / sum[1] : (double)NAN;
  return logit ? fn_validate_labels(session, logit, result) : FN_OK;
}

fn_status fn_validate(fn_session *session, fn_validation *result) {
  const fn_dataset_info *info = fn_dataset_get_info(session->validation);
  int64_t begin, count;
  float *logit = NULL;
  fn_status status = FN_OK;
  *result = (fn_validation){.loss = NAN, .accuracy = NAN, .auc = NAN, .f1 = NAN};
  fn_rank_slice(info->samples, session->dist->rank, session->dist->size, false, &begin, &count);
  if (info->cubes) {
    logit = malloc((size_t)(count + 1) * sizeof *logit);
    if (!logit) status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
    status = fn_dist_agree(session->dist, status);
  }
  if (status == FN_OK) status = validate(session, logit, result);
  free(logit);
  return status;
}
