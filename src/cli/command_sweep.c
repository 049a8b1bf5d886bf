/* fieldnet sweep: many trials of one run. */
#include "cli/command_sweep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

fn_status fn_sweep_command_open(const fn_command_line *line, int rank, fn_sweep **sweep) {
  FN_CHECK(line->extra_count == 2, FN_ERR_CONFIG, "sweep %s: unexpected argument '%s'",
           line->extra[0], line->extra[2]);
  return fn_sweep_command_read(line->extra[1], rank, sweep);
}

fn_status fn_sweep_command_read(const char *path, int rank, fn_sweep **sweep) {
  char *errors = NULL;
  const fn_status status = fn_sweep_open(path, sweep, &errors);
  if (errors && rank == 0) fputs(errors, stderr);
  free(errors);
  return status;
}

fn_status fn_command_sweep(const fn_command_line *line) {
  static const struct {
    const char *name;
    fn_status (*function)(const fn_command_line *line);
  } actions[] = {{"plan", fn_sweep_command_plan}, {"run", fn_sweep_command_run},
                 {"job", fn_sweep_command_job},   {"status", fn_sweep_command_status},
                 {"best", fn_sweep_command_best}, {"table", fn_sweep_command_table},
                 {"plot", fn_sweep_command_plot}, {"ask", fn_sweep_command_ask},
                 {"tell", fn_sweep_command_tell}};
  enum { COUNT = sizeof actions / sizeof actions[0] };
  const char *action = line->extra_count > 0 ? line->extra[0] : "", *names[COUNT];
  for (int i = 0; i < COUNT; i++) {
    names[i] = actions[i].name;
    if (strcmp(action, names[i]) != 0) continue;
    FN_CHECK(line->set_count == 0 || actions[i].function == fn_sweep_command_ask, FN_ERR_CONFIG,
             "sweep %s: --set is for ask; settings of all trials stand below 'set:' in the file",
             action);
    return actions[i].function(line);
  }
  const char *closest = fn_text_closest(action, names, COUNT);
  FN_FAIL(FN_ERR_CONFIG,
          "sweep: expected plan, run, job, status, best, table, plot, ask or tell, found '%s'%s%s",
          action, closest ? "; did you mean " : "", closest ? closest : "");
}
