#include "cli/session.h"

#include "base/log.h"
#include "models/models.h"

/** Say what went wrong, end MPI. */
static fn_status leave(fn_dist *dist, fn_status status) {
  // Every rank has the agreed message by now; one of them is enough. It is said here, because the
  // first rank to exit with a failure makes mpirun kill the others, and all leave together below.
  // Being stopped on request is no error.
  const bool failed = status != FN_OK && !fn_is_stop(status);
  if (dist->rank == 0 && failed && fn_error_message()[0])
    fprintf(stderr, "fieldnet: %s\n", fn_error_message());
  fflush(stdout);
  fn_error_clear();
  fn_dist_finalize(dist);
  return status;
}

fn_status fn_cli_job(const fn_command_line *line,
                     fn_status (*work)(const fn_command_line *line, fn_dist *dist)) {
  fn_dist dist;
  FN_TRY(fn_dist_init(NULL, NULL, &dist));
  fn_log_identify(dist.rank, dist.size);
  return leave(&dist, work(line, &dist));
}

fn_status fn_cli_run(const fn_command_line *line, fn_command need,
                     fn_status (*work)(const fn_command_line *line, const fn_run *run,
                                       fn_dist *dist)) {
  fn_dist dist;
  FN_TRY(fn_dist_init(NULL, NULL, &dist));
  fn_log_identify(dist.rank, dist.size);
  fn_run *run = NULL;
  fn_status status = fn_command_load(line, need, dist.rank, &run);
  // Before data are opened: norms may come from the plug-in too.
  if (status == FN_OK && run->plugin) status = fn_plugin_load(run->plugin);
  status = fn_dist_agree(&dist, status);
  if (status == FN_OK) {
    fn_log_set_level(fn_run_verbosity(run));
    fn_log(FN_DETAIL, "backend %s, precision %s, %s", run->compute.backend, run->compute.precision,
           run->compute.deterministic
               ? "deterministic"
               : "compute.deterministic: false has no effect on this backend");
    status = work(line, run, &dist);
  }
  fn_run_destroy(run);
  return leave(&dist, status);
}
