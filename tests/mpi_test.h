/* What tests under mpirun share. After <cmocka.h>. */
#ifndef FN_TESTS_MPI_TEST_H
#define FN_TESTS_MPI_TEST_H

#include <stdio.h>
#include <unistd.h>

#include "dist/dist.h"

static fn_dist dist; /**< the whole job */

/** Join the job; false, with a message, when that is not possible. A rank that fails leaves the
 *  others waiting: they end by themselves. */
static inline bool join_job(int *argc, char ***argv) {
  alarm(900);
  if (fn_dist_init(argc, argv, &dist) == FN_OK) return true;
  fprintf(stderr, "%s\n", fn_error_message());
  return false;
}

static inline void expect_ok(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

#endif
