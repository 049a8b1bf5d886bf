/* Agreement, sums and broadcasts over ranks. Arguments (see run_dist_jobs.sh): "abort": one rank
 * ends the job while the others wait; "large": broadcast of more than one MPI message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/random.h"
#include "base/system.h"
#include "dist/mpi_status.h"
#include "mpi_test.h"

static void ranks_of_the_job_and_the_node(void **state) {
  (void)state;
  int rank = -1, size = -1, level = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Query_thread(&level);
  char mine[256] = "", *all = malloc((size_t)size * sizeof mine);
  assert_non_null(all);
  strncpy(mine, fn_host_name(), sizeof mine - 1);
  MPI_Allgather(mine, sizeof mine, MPI_CHAR, all, sizeof mine, MPI_CHAR, MPI_COMM_WORLD);
  int node_rank = 0, node_size = 0;
  for (int r = 0; r < size; r++) {
    const bool here = strcmp(all + (size_t)r * sizeof mine, mine) == 0;
    node_size += here;
    node_rank += here && r < rank;
  }
  free(all);
  assert_int_equal(dist.rank, rank);
  assert_int_equal(dist.size, size);
  assert_int_equal(dist.node_rank, node_rank);
  assert_int_equal(dist.node_size, node_size);
  if (dist.threads_multiple) assert_int_equal(level, MPI_THREAD_MULTIPLE);
}

/** What rank r fails with, by turns. */
static fn_status kind(int r) {
  static const fn_status kinds[4] = {FN_ERR_DATA, FN_ERR_INTERNAL, FN_ERR_MEMORY, FN_INTERRUPTED};
  return kinds[r % 4];
}

/* Ranks of many are in one set with every fourth. */
static bool fails(unsigned set, int rank) {
  return set >> (dist.size > 4 ? rank % 4 : rank) & 1;
}

/* Every non-empty set of failing ranks: all ranks get status and message of the lowest. */
static void agree_on_failing_subsets(void **state) {
  (void)state;
  assert_int_equal(fn_dist_agree(&dist, FN_OK), FN_OK);
  for (unsigned failing = 1; failing < 1u << (dist.size > 4 ? 4 : dist.size); failing++) {
    int lowest = 0;
    while (!fails(failing, lowest))
      lowest++;
    fn_error_clear();
    fn_status mine = FN_OK;
    if (fails(failing, dist.rank))
      mine = fn_error_set(kind(dist.rank), "x.c", 7, "set %u, failure of %d", failing, dist.rank);
    const fn_status agreed = fn_dist_agree(&dist, mine);
    char where[512] = "", expected[1024];
    if (dist.size > 1) snprintf(where, sizeof where, "rank %d on %s: ", lowest, fn_host_name());
    snprintf(expected, sizeof expected, "%sset %u, failure of %d%s", where, failing, lowest,
             kind(lowest) == FN_ERR_INTERNAL ? " (x.c:7)" : "");
    assert_int_equal(agreed, kind(lowest));
    assert_string_equal(fn_error_message(), expected);
    // Agreed once more on the way out: nothing is added.
    assert_int_equal(fn_dist_agree(&dist, agreed), kind(lowest));
    assert_string_equal(fn_error_message(), expected);
  }
}

static void largest_flag(void **state) {
  (void)state;
  assert_int_equal(fn_dist_max(&dist, 10 - dist.rank), 10);
  assert_int_equal(fn_dist_max(&dist, dist.rank == dist.size - 1), 1);
  assert_int_equal(fn_dist_max(&dist, 0), 0);
}

/** Term i of rank r: magnitudes differ, so that the order of additions shows in the bits.
 *  Not inlined: fused with the arithmetic of its caller it would not be the same number. */
static double __attribute__((noinline)) term(int r, int64_t i) {
  fn_random random = fn_random_stream(3, FN_RANDOM_TEST, (uint32_t)r, (uint64_t)i);
  return (fn_random_uniform(&random) - 0.5) * pow(10, 6 * fn_random_uniform(&random));
}

/* Bit for bit the serial sum 0 + 1 + 2 + ... in rank order. */
static void sums_in_rank_order(void **state) {
  (void)state;
  const int64_t counts[] = {0, 1, 7, 1000, 1025, 5000};
  for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
    const int64_t n = counts[c];
    double *values = malloc((size_t)(n + 1) * sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < n; i++)
      values[i] = term(dist.rank, i);
    const fn_status status = c % 2 ? dist.collectives.sum(dist.collectives.self, values, n)
                                   : fn_dist_sum(&dist, values, n);
    assert_int_equal(status, FN_OK);
    int64_t order_shows = 0;
    for (int64_t i = 0; i < n; i++) {
      double sum = term(0, i), reversed = term(dist.size - 1, i);
      for (int r = 1; r < dist.size; r++)
        sum += term(r, i);
      for (int r = dist.size - 2; r >= 0; r--)
        reversed += term(r, i);
      assert_true(values[i] == sum);
      order_shows += sum != reversed;
    }
    if (dist.size > 2 && n >= 1000) assert_true(order_shows > n / 10);
    free(values);
  }
}

static void buffers_are_averaged(void **state) {
  (void)state;
  enum { N = 2500 };
  static float f32[N];
  static double f64[N];
  for (int i = 0; i < N; i++) {
    f32[i] = (float)term(dist.rank, i);
    f64[i] = term(dist.rank, i);
  }
  f32[0] = 12345; // a count of batches: equal everywhere, stays exact
  fn_parameters single = {.dtype = FN_F32, .buffer_count = N, .buffers = f32};
  fn_parameters twofold = {.dtype = FN_F64, .buffer_count = N, .buffers = f64};
  assert_int_equal(fn_dist_average_buffers(&dist, &single), FN_OK);
  assert_int_equal(fn_dist_average_buffers(&dist, &twofold), FN_OK);
  assert_true(f32[0] == 12345);
  for (int i = 1; i < N; i++) {
    double sum32 = 0, sum64 = 0;
    for (int r = 0; r < dist.size; r++) {
      sum32 += (double)(float)term(r, i);
      sum64 += term(r, i);
    }
    assert_true(f32[i] == (float)(sum32 / dist.size));
    assert_true(f64[i] == sum64 / dist.size);
  }
}

static void broadcast_from_rank_0(void **state) {
  (void)state;
  enum { N = 3000001 };
  unsigned char *bytes = malloc(N);
  assert_non_null(bytes);
  for (int i = 0; i < N; i++)
    bytes[i] = (unsigned char)(dist.rank == 0 ? i * 7 % 251 : 0xff);
  assert_int_equal(fn_dist_broadcast(&dist, bytes, N - 1), FN_OK);
  int wrong = 0;
  for (int i = 0; i < N - 1; i++)
    wrong += bytes[i] != i * 7 % 251;
  assert_int_equal(wrong, 0);
  if (dist.rank != 0) assert_int_equal(bytes[N - 1], 0xff);
  assert_int_equal(fn_dist_broadcast(&dist, bytes, 0), FN_OK);
  free(bytes);
}

/* A failing call of the library is a status with its text, not the end of the program: every
 * communicator returns its errors. */
static void mpi_errors_are_statuses(void **state) {
  (void)state;
  const MPI_Comm comms[] = {MPI_COMM_WORLD, dist.comm, dist.gradient_comm};
  for (int c = 0; c < 3; c++) {
    int value = 0;
    const int code = MPI_Bcast(&value, 1, MPI_INT, dist.size + 5, comms[c]);
    assert_int_not_equal(code, MPI_SUCCESS);
    assert_int_equal(fn_mpi_status(code, "broadcasting"), FN_ERR_INTERNAL);
    assert_non_null(strstr(fn_error_message(), "MPI failed while broadcasting: MPI_ERR_ROOT"));
  }
}

/* ---- jobs started by run_dist_jobs.sh ----------------------------------------------------------
 */

static int abort_one_rank(void) {
  if (dist.rank == dist.size - 1) {
    usleep(200000); // the others wait by now
    fn_dist_abort(&dist, fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "a file is gone"));
  }
  double value = 1;
  fn_dist_sum(&dist, &value, 1);
  return 0; // not reached: nobody takes part in the sum on the last rank
}

static int broadcast_large(void) {
  const int64_t n = ((int64_t)1 << 30) + 5;
  unsigned char *bytes = calloc((size_t)n, 1);
  if (!bytes) return 77;
  if (dist.rank == 0) bytes[0] = bytes[(1 << 30) - 1] = bytes[1 << 30] = bytes[n - 1] = 42;
  if (fn_dist_broadcast(&dist, bytes, n) != FN_OK) return 1;
  const int sum = bytes[0] + bytes[(1 << 30) - 1] + bytes[1 << 30] + bytes[n - 1] + bytes[5];
  free(bytes);
  return sum == 4 * 42 ? 0 : 1;
}

int main(int argc, char **argv) {
  if (!join_job(&argc, &argv)) return 2;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(ranks_of_the_job_and_the_node),
      cmocka_unit_test(agree_on_failing_subsets),
      cmocka_unit_test(largest_flag),
      cmocka_unit_test(sums_in_rank_order),
      cmocka_unit_test(buffers_are_averaged),
      cmocka_unit_test(broadcast_from_rank_0),
      cmocka_unit_test(mpi_errors_are_statuses),
  };
  int failed = 0;
  if (argc > 1 && strcmp(argv[1], "abort") == 0) {
    failed = abort_one_rank();
  } else if (argc > 1 && strcmp(argv[1], "large") == 0) {
    failed = broadcast_large();
  } else {
    failed = cmocka_run_group_tests(tests, NULL, NULL);
  }
  fn_dist_finalize(&dist);
  return failed;
}
