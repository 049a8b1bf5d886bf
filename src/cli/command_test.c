#include "cli/commands.h"
#include "cli/session.h"
#include "report/class_report.h"
#include "report/test_report.h"
#include "run/predict_cubes.h"

static fn_status evaluate(const fn_run *run, fn_dist *dist, bool predict) {
  fn_test_result result;
  fn_status status = fn_evaluate(run, dist, predict, &result);
  if (status == FN_OK && dist->rank == 0) status = fn_report_test(run, &result, predict);
  fn_test_result_free(&result);
  return status;
}

static fn_status classify(const fn_run *run, fn_dist *dist) {
  fn_class_result result;
  fn_status status = fn_classify(run, dist, &result);
  if (status == FN_OK)
    status = fn_dist_agree(dist, dist->rank == 0 ? fn_report_classes(run, &result) : FN_OK);
  fn_class_result_free(&result);
  return status;
}

static fn_status predict_cubes(const fn_run *run, fn_dist *dist) {
  fn_prediction prediction;
  const fn_status status = fn_predict_cubes(run, dist, &prediction);
  fn_prediction_free(&prediction);
  return status;
}

static fn_status test(const fn_command_line *line, const fn_run *run, fn_dist *dist) {
  (void)line;
  return fn_run_has_cubes(run) ? classify(run, dist) : evaluate(run, dist, false);
}
static fn_status predict(const fn_command_line *line, const fn_run *run, fn_dist *dist) {
  (void)line;
  return fn_run_has_cubes(run) ? predict_cubes(run, dist) : evaluate(run, dist, true);
}

fn_status fn_command_test(const fn_command_line *line) {
  return fn_cli_run(line, FN_COMMAND_TEST, test);
}

fn_status fn_command_predict(const fn_command_line *line) {
  return fn_cli_run(line, FN_COMMAND_PREDICT, predict);
}
