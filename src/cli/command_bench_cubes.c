/* fieldnet bench --io: the part of bench that reads. */
#include <stdio.h>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/session.h"
#include "run/bench_cubes.h"

static fn_status measure(const fn_command_line *line, const char *path, const fn_dist *dist) {
  fn_bench_cubes_options options = {
      .repeats = 5, .most = (int64_t)4 << 30, .json = fn_command_text(line, "json", NULL)};
  FN_TRY(fn_command_integer(line, "steps", 1, 1000, &options.repeats));
  return fn_bench_cubes(path, dist, &options, stdout);
}

/** A file of cubes instead of RUN.yaml: no run, no network. */
static fn_status measure_file(const fn_command_line *line) {
  fn_dist dist;
  FN_TRY(fn_dist_init(NULL, NULL, &dist));
  const fn_status status = measure(line, line->run_path, &dist);
  if (dist.rank == 0 && status != FN_OK) fprintf(stderr, "fieldnet: %s\n", fn_error_message());
  fflush(stdout);
  fn_error_clear();
  fn_dist_finalize(&dist);
  return status;
}

static fn_status measure_run(const fn_command_line *line, const fn_run *run, fn_dist *dist) {
  FN_CHECK(fn_run_has_cubes(run) && run->data.cubes.file, FN_ERR_CONFIG,
           "bench --io reads files of cubes: expected data.kind: cubes and data.cubes.file in %s",
           run->path);
  return measure(line, run->data.cubes.file, dist);
}

fn_status fn_command_bench_cubes(const fn_command_line *line) {
  if (fn_text_ends(line->run_path, ".h5") || fn_text_ends(line->run_path, ".hdf5"))
    return measure_file(line);
  return fn_cli_run(line, FN_COMMAND_OTHER, measure_run);
}
