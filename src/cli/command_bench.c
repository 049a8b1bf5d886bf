#include "cli/session.h"
#include "cli/sizes.h"
#include "run/bench.h"

static fn_status work(const fn_command_line *line, const fn_run *run, fn_dist *dist) {
  fn_bench_options options = {.steps = 5,
                              .warmup = 2,
                              .batch = run->train.batch,
                              .all = fn_command_given(line, "all"),
                              .json = fn_command_text(line, "json", NULL)};
  FN_TRY(fn_command_integer(line, "steps", 1, 1000000, &options.steps));
  FN_TRY(fn_command_integer(line, "warmup", 0, 1000000, &options.warmup));
  FN_TRY(fn_command_integer(line, "batch", 1, 1000000, &options.batch));
  FN_TRY(fn_command_sizes(line, &options.sizes));
  return fn_bench(run, dist, &options, stdout);
}

fn_status fn_command_bench(const fn_command_line *line) {
  if (fn_command_given(line, "io")) return fn_command_bench_io(line);
  return fn_cli_run(line, FN_COMMAND_OTHER, work);
}
