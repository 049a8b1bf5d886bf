#include "cli/session.h"
#include "run/verify.h"

static fn_status work(const fn_command_line *line, const fn_run *run, fn_dist *dist) {
  fn_verify_options options = {.reference = line->extra[0],
                               .factor = 8,
                               .rtol = -1,
                               .all = fn_command_given(line, "all"),
                               .write = fn_command_text(line, "write", NULL)};
  FN_TRY(fn_command_real(line, "factor", 1, 1e6, &options.factor));
  FN_TRY(fn_command_real(line, "rtol", 0, 1, &options.rtol));
  return fn_verify(run, dist, &options, stdout);
}

fn_status fn_command_verify(const fn_command_line *line) {
  return fn_cli_run(line, FN_COMMAND_OTHER, work);
}
