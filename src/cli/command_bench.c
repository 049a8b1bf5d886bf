#include <string.h>

#include "base/text.h"
#include "cli/session.h"
#include "cli/sizes.h"
#include "report/trace.h"
#include "run/bench.h"

static fn_status read_mode(const fn_command_line *line, fn_bench_mode *mode) {
  const char *word = fn_command_text(line, "mode", NULL);
  const char *names[FN_BENCH_MODES + 1];
  *mode = FN_BENCH_DEFAULT;
  if (!word) return FN_OK;
  for (int m = 0; m <= FN_BENCH_MODES; m++) {
    names[m] = fn_bench_mode_name((fn_bench_mode)m);
    if (strcmp(word, names[m]) == 0) *mode = (fn_bench_mode)m;
  }
  const char *near = fn_text_closest(word, names, FN_BENCH_MODES + 1);
  FN_CHECK(*mode != FN_BENCH_DEFAULT, FN_ERR_CONFIG,
           "--mode: expected full, synthetic, io, comm or all, found '%s'%s%s%s", word,
           near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
  return FN_OK;
}

static fn_status write_trace(void *user, const fn_timeline *timeline) {
  return fn_trace_write(user, timeline);
}

static fn_status work(const fn_command_line *line, const fn_run *run, fn_dist *dist) {
  const char *trace = fn_command_text(line, "trace", NULL);
  fn_bench_options options = {.steps = 5,
                              .warmup = 2,
                              .batch = run->train.batch,
                              .inference = fn_command_given(line, "inference"),
                              .all = fn_command_given(line, "all"),
                              .checkpoint = fn_command_given(line, "checkpoint"),
                              .lockstep = fn_command_given(line, "lockstep"),
                              .json = fn_command_text(line, "json", NULL),
                              .compare = fn_command_text(line, "compare", NULL),
                              .trace = trace ? write_trace : NULL,
                              .trace_user = (void *)trace};
  FN_TRY(read_mode(line, &options.mode));
  FN_TRY(fn_command_integer(line, "steps", 1, 1000000, &options.steps));
  FN_TRY(fn_command_integer(line, "warmup", 0, 1000000, &options.warmup));
  FN_TRY(fn_command_integer(line, "batch", 1, 1000000, &options.batch));
  FN_TRY(fn_command_sizes(line, &options.sizes));
  return fn_bench(run, dist, &options, stdout);
}

/** Two files, nothing measured. */
static fn_status compare_files(const fn_command_line *line) {
  const char *before = fn_command_text(line, "compare", NULL);
  FN_CHECK(before, FN_ERR_CONFIG, "--from goes with --compare: the file to compare it with");
  return fn_bench_compare_files(before, fn_command_text(line, "from", NULL), stdout);
}

fn_status fn_command_bench(const fn_command_line *line) {
  if (fn_command_given(line, "io")) return fn_command_bench_cubes(line);
  if (fn_command_given(line, "from")) return compare_files(line);
  return fn_cli_run(line, FN_COMMAND_OTHER, work);
}
