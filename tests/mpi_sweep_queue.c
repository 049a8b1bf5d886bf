/* The queue of a sweep where MPI fails: said on every rank, and survived. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <unistd.h>

#include "base/system.h"
#include "mpi_test.h"
#include "run/sweep_plan.h"
#include "run/sweep_queue.h"

static char folder[64];
static int fails_on = -1; /**< rank whose next MPI_Comm_dup fails */

/** In the place of MPI's own, also for the library. */
int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *made) {
  int result = PMPI_Comm_dup(comm, made);
  if (fails_on != dist.rank) return result;
  fails_on = -1;
  PMPI_Comm_free(made);
  *made = MPI_COMM_NULL;
  return MPI_ERR_NO_MEM;
}

static fn_sweep *make_sweep(void) {
  const char *run = "model: {name: vnet}\ntrain: {batch: 2}\noptimizer: {lr: 1e-4}\n"
                    "data: {train: {input: a, target: b}, validation: {input: c, target: d}}\n";
  char path[128], text[512];
  snprintf(text, sizeof text,
           "run: run.yaml\nsweep:\n  method: random\n  trials: 2\n  folder: %s/store\n"
           "  parameters: {optimizer.lr: {log: [1.e-5, 1.e-1]}}\n",
           folder);
  snprintf(path, sizeof path, "%s/run.yaml", folder);
  if (dist.rank == 0) expect_ok(fn_file_replace(path, run, strlen(run)));
  snprintf(path, sizeof path, "%s/sweep.yaml", folder);
  if (dist.rank == 0) expect_ok(fn_file_replace(path, text, strlen(text)));
  MPI_Barrier(dist.comm);
  fn_sweep *sweep;
  char *errors;
  expect_ok(fn_sweep_open(path, &sweep, &errors));
  return sweep;
}

static void a_failed_communicator_is_said_on_all_ranks(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep();
  const fn_sweep_queue_options options = {.group = 1, .quiet = true};
  for (int rank = 0; rank < dist.size; rank++) {
    fn_sweep_queue *queue = NULL;
    fails_on = rank;
    fn_status status = fn_sweep_queue_create(sweep, &dist, &options, &queue);
    assert_int_equal(status, FN_ERR_INTERNAL);
    fn_sweep_queue_destroy(queue, &status);
    assert_int_equal(status, FN_ERR_INTERNAL);
    if (!strstr(fn_error_message(), "making the trials' queue")) fail_msg("%s", fn_error_message());
    fn_error_clear();
    fails_on = -1;
  }
  // Nothing is left of it: the next one serves all ranks.
  fn_sweep_queue *queue = NULL;
  fn_sweep_task *task = malloc(sizeof *task);
  assert_non_null(task);
  expect_ok(fn_sweep_queue_create(sweep, &dist, &options, &queue));
  expect_ok(fn_sweep_queue_take(queue, true, task));
  assert_int_equal(task->order, FN_SWEEP_LEAVE);
  fn_sweep_queue_leave(queue);
  fn_status status = FN_OK;
  fn_sweep_queue_destroy(queue, &status);
  assert_int_equal(status, FN_INTERRUPTED);
  free(task);
  fn_sweep_destroy(sweep);
}

int main(int argc, char **argv) {
  if (!join_job(&argc, &argv)) return 1;
  snprintf(folder, sizeof folder, "/tmp/fieldnet_queue_XXXXXX");
  if (dist.rank == 0 && !mkdtemp(folder)) return 1;
  if (fn_dist_broadcast(&dist, folder, sizeof folder) != FN_OK) return 1;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_failed_communicator_is_said_on_all_ranks),
  };
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  MPI_Barrier(dist.comm);
  if (dist.rank == 0 && system(command) != 0) return 1;
  fn_dist_finalize(&dist);
  return failed;
}
