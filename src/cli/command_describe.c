#include "cli/session.h"
#include "cli/sizes.h"
#include "run/describe.h"

static fn_status work(const fn_command_line *line, const fn_run *run, fn_dist *dist) {
  if (dist->rank != 0) return FN_OK; // nothing here is collective
  const bool dot = fn_command_given(line, "dot"), json = fn_command_given(line, "json");
  FN_CHECK(!(dot && json), FN_ERR_CONFIG, "describe: either --dot or --json");
  fn_size_options sizes;
  FN_TRY(fn_command_sizes(line, &sizes));
  const fn_describe_form form = dot ? FN_DESCRIBE_DOT : json ? FN_DESCRIBE_JSON : FN_DESCRIBE_TABLE;
  return fn_describe(run, dist, &sizes, form, fn_command_given(line, "training"), stdout);
}

fn_status fn_command_describe(const fn_command_line *line) {
  return fn_cli_run(line, FN_COMMAND_OTHER, work);
}
