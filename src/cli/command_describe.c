#include "cli/session.h"
#include "cli/sizes.h"
#include "run/describe.h"
#include "run/device_plan.h"

static fn_status work(const fn_command_line *line, const fn_run *run, fn_dist *dist) {
  if (dist->rank != 0) return FN_OK; // nothing here is collective
  const bool dot = fn_command_given(line, "dot"), json = fn_command_given(line, "json");
  FN_CHECK(!(dot && json), FN_ERR_CONFIG, "describe: either --dot or --json");
  fn_size_options sizes;
  FN_TRY(fn_command_sizes(line, &sizes));
  // As if set in the file: nobody else reads this description, and where a key stands is found by
  // its address, so that a copy would not do.
  ((fn_run *)run)->compute.backend = fn_command_text(line, "backend", run->compute.backend);
  const char *assumed = fn_command_text(line, "assume", NULL);
  FN_CHECK(!assumed || !(dot || json), FN_ERR_CONFIG, "describe: --assume prints a table only");
  if (assumed) return fn_device_plan(run, dist, &sizes, assumed, stdout);
  const fn_describe_form form = dot ? FN_DESCRIBE_DOT : json ? FN_DESCRIBE_JSON : FN_DESCRIBE_TABLE;
  return fn_describe(run, dist, &sizes, form, fn_command_given(line, "training"), stdout);
}

fn_status fn_command_describe(const fn_command_line *line) {
  return fn_cli_run(line, FN_COMMAND_OTHER, work);
}
