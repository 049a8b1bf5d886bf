/* fieldnet sweep run, fieldnet sweep job: trials trained here, or by an array of batch jobs. */
#include <stdio.h>
#include <stdlib.h>

#include "base/ranges.h"
#include "cli/command_job.h"
#include "cli/command_sweep.h"
#include "cli/session.h"
#include "report/report.h"
#include "run/sweep_run.h"

/** --trial N, --trials 0-3,7; *trials malloc'ed, NULL: all. */
static fn_status read_trials(const fn_command_line *line, int64_t **trials, int64_t *count) {
  const char *one = fn_command_text(line, "trial", NULL);
  const char *several = fn_command_text(line, "trials", NULL);
  *trials = NULL;
  *count = 0;
  FN_CHECK(!one || !several, FN_ERR_CONFIG, "sweep run: --trial or --trials, not both");
  if (several) return fn_ranges_parse("--trials", several, INT64_MAX, trials, count);
  if (!one) return FN_OK;
  *trials = malloc(sizeof **trials);
  FN_CHECK(*trials, FN_ERR_MEMORY, "out of memory");
  *count = 1;
  return fn_command_integer(line, "trial", 0, INT64_MAX, *trials);
}

static fn_status train(const fn_command_line *line, fn_dist *dist) {
  fn_sweep *sweep = NULL;
  int64_t *trials = NULL, count = 0;
  fn_status status = fn_sweep_command_open(line, dist->rank, &sweep);
  if (status == FN_OK) status = read_trials(line, &trials, &count);
  // One trial takes the whole job, several go side by side.
  int64_t group = count == 1 ? dist->size : 1;
  if (status == FN_OK) status = fn_command_integer(line, "group", 1, 1 << 20, &group);
  status = fn_dist_agree(dist, status);
  const fn_sweep_work work = {.group = group,
                              .trials = trials,
                              .trial_count = count,
                              .observe = fn_report_create,
                              .unobserve = fn_report_destroy};
  if (status == FN_OK) status = fn_sweep_train(sweep, dist, &work);
  free(trials);
  fn_sweep_destroy(sweep);
  return status;
}

fn_status fn_sweep_command_run(const fn_command_line *line) {
  return fn_cli_job(line, train);
}

fn_status fn_sweep_command_job(const fn_command_line *line) {
  fn_sweep *sweep = NULL;
  FN_TRY(fn_sweep_command_open(line, 0, &sweep));
  fn_job job = {.command = "sweep run",
                .run_path = line->extra[1],
                .folder = sweep->folder,
                .tasks = fn_sweep_trial_count(sweep),
                .requeue = true};
  fn_status status = FN_OK;
  if (job.tasks == 0)
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                          "%s: its trials come from outside: their number, and so that of the "
                          "array's tasks, is not known",
                          sweep->path);
  if (status == FN_OK) status = fn_command_integer(line, "cap", 1, 1000000, &job.cap);
  if (status == FN_OK) status = fn_job_write(line, &job, 1);
  fn_sweep_destroy(sweep);
  return status;
}
