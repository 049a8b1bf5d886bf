#include "cli/commands.h"
#include "cli/session.h"
#include "run/run_loop.h"

static fn_status test(const fn_run *run, fn_dist *dist) { return fn_evaluate(run, dist, false); }
static fn_status predict(const fn_run *run, fn_dist *dist) { return fn_evaluate(run, dist, true); }

fn_status fn_command_test(const fn_command_line *line) {
  return fn_cli_run(line, FN_COMMAND_TEST, test);
}

fn_status fn_command_predict(const fn_command_line *line) {
  return fn_cli_run(line, FN_COMMAND_PREDICT, predict);
}
