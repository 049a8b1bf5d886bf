#include "base/log.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "report/report.h"
#include "run/run_loop.h"

static fn_status work(const fn_run *run, fn_dist *dist) {
  fn_observer observer = {0};
  if (dist->rank != 0) return fn_train(run, dist, NULL);
  // Ranks must not part before the first collective call: a report that cannot start is agreed on.
  FN_TRY(fn_report_create(run, &observer));
  const fn_status status = fn_train(run, dist, &observer);
  fn_report_destroy(&observer);
  return status;
}

fn_status fn_command_train(const fn_command_line *line) {
  return fn_cli_run(line, FN_COMMAND_TRAIN, work);
}
