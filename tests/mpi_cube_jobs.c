/* Statistics and prepared files of a job of many ranks beside those of one rank alone. */
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
#include "base/ranges.h"
#include "base/system.h"
#include "data/cube_synth.h"
#include "mpi_test.h"
#include "run/cube_jobs.h"

static char folder[64];

enum { EDGE = 6, SEEDS = 7, CELLS = EDGE * EDGE * EDGE };

static const fn_potential_options options = {.edge = EDGE,
                                             .box = 100,
                                             .omega_m = 0.3,
                                             .redshift = 1,
                                             .seed = 3,
                                             .difference = 0.1,
                                             .offset = 0.3};

static const int64_t seeds[SEEDS] = {0, 1, 2, 5, 8, 9, 11};

/** This rank as a job of its own. */
static fn_dist alone(void) {
  fn_dist one = dist;
  one.rank = 0;
  one.size = 1;
  one.comm = MPI_COMM_SELF;
  return one;
}

static fn_cube_source *source_of(void) {
  fn_cube_source *source;
  assert_int_equal(fn_synth_cubes_create(&options, &source), FN_OK);
  assert_int_equal(fn_cube_source_measure(source, 0), FN_OK);
  return source;
}

/* Bit for bit those of one rank, and those of long double sums. */
static void statistics_do_not_depend_on_ranks(void **state) {
  (void)state;
  const fn_dist one = alone();
  fn_cube_source *source = source_of();
  fn_cube_statistics many, single;
  assert_int_equal(fn_cube_statistics_compute(&dist, source, seeds, SEEDS, NULL, &many), FN_OK);
  assert_int_equal(fn_cube_statistics_compute(&one, source, seeds, SEEDS, NULL, &single), FN_OK);
  assert_true(many.mean == single.mean && many.variance == single.variance);
  assert_memory_equal(many.cube_mean, single.cube_mean, sizeof(double) * 2 * SEEDS);
  assert_memory_equal(many.cube_variance, single.cube_variance, sizeof(double) * 2 * SEEDS);
  double cells[CELLS];
  uint64_t checksum;
  long double mean = 0, squares = 0;
  for (int pass = 0; pass < 2; pass++) {
    for (int i = 0; i < 2 * SEEDS; i++) {
      source->read(source, seeds[i / 2], i % 2 ? FN_NEWTON : FN_GR, cells, &checksum);
      for (int c = 0; c < CELLS; c++)
        if (pass)
          squares += (cells[c] - mean) * (cells[c] - mean);
        else
          mean += (long double)cells[c] / (2 * SEEDS * CELLS);
    }
  }
  const double variance = (double)(squares / (2 * SEEDS * CELLS));
  assert_true(fabs(many.variance / variance - 1) < 1e-14);
  assert_true(fabs(many.mean - (double)mean) < 1e-15 * sqrt(variance));
  fn_cube_statistics_free(&many);
  fn_cube_statistics_free(&single);
  fn_cube_source_destroy(source);
}

static fn_status pack(const fn_dist *job_dist, const char *path, bool packed, int compress) {
  int64_t seed[2 * SEEDS];
  uint8_t theory[2 * SEEDS];
  for (int i = 0; i < 2 * SEEDS; i++) {
    seed[i] = seeds[i / 2];
    theory[i] = i % 2 ? FN_NEWTON : FN_GR;
  }
  fn_cube_source *source = source_of();
  fn_pack_job job = {.path = path, .source = source, .compute = seeds, .compute_count = 3};
  fn_pack_figures figures;
  job.plan = (fn_cube_plan){.packed = packed,
                            .item = 4,
                            .size = {EDGE, EDGE, EDGE},
                            .compress = compress,
                            .cubes = 2 * SEEDS,
                            .seed = seed,
                            .theory = theory,
                            .redshift = {1, (double)NAN},
                            .box = 100,
                            .amplitude = (double)NAN,
                            .origin = "test"};
  fn_status status = fn_cube_plan_check(&job.plan);
  if (status == FN_OK) status = fn_cube_pack(job_dist, &job, NULL, &figures);
  fn_cube_source_destroy(source);
  return status;
}

static void prepared_files_do_not_depend_on_ranks(void **state) {
  (void)state;
  const fn_dist one = alone();
  for (int kind = 0; kind < 3; kind++) {
    char shared[128], own[128], *a, *b;
    size_t a_count, b_count;
    snprintf(shared, sizeof shared, "%s/shared%d.h5", folder, kind);
    snprintf(own, sizeof own, "%s/own%d_%d.h5", folder, kind, dist.rank);
    assert_int_equal(pack(&dist, shared, kind != 1, kind == 2), FN_OK);
    assert_int_equal(pack(&one, own, kind != 1, kind == 2), FN_OK);
    assert_int_equal(fn_file_read(shared, &a, &a_count), FN_OK);
    assert_int_equal(fn_file_read(own, &b, &b_count), FN_OK);
    assert_int_equal(a_count, b_count);
    assert_memory_equal(a, b, a_count);
    free(a);
    free(b);
  }
}

/* The reader takes what the writer makes, bit for bit what the source gives. */
static void the_reader_reads_it(void **state) {
  (void)state;
  fn_cube_source *source = source_of();
  double cells[CELLS];
  float read[CELLS], wanted[CELLS];
  uint64_t checksum;
  for (int kind = 0; kind < 3; kind++) {
    char path[128];
    fn_cube_file *file;
    snprintf(path, sizeof path, "%s/shared%d.h5", folder, kind);
    assert_int_equal(fn_cube_file_open(path, &file), FN_OK);
    const fn_cube_file_info *info = fn_cube_file_get_info(file);
    assert_int_equal(info->cubes, 2 * SEEDS);
    assert_true(info->direct == (kind != 2));
    fn_cube_plan plan = {
        .item = 4, .size = {EDGE, EDGE, EDGE}, .has_statistics = true, .mean = info->mean};
    plan.std = info->std;
    for (int64_t i = 0; i < info->cubes; i++) {
      const fn_cube *cube = &info->cube[i];
      assert_int_equal(cube->seed, seeds[i / 2]);
      assert_int_equal(cube->theory, i % 2 ? FN_NEWTON : FN_GR);
      assert_int_equal(source->read(source, cube->seed, cube->theory, cells, &checksum), FN_OK);
      assert_int_equal(fn_cube_standardise(&plan, cells, wanted), FN_OK);
      assert_int_equal(fn_cube_file_read(file, i, read), FN_OK);
      assert_memory_equal(read, wanted, sizeof read);
    }
    fn_cube_file_close(file);
  }
  fn_cube_source_destroy(source);
}

/** Fails on one item. */
static fn_status fail_at_five(void *user, int64_t item) {
  *(int64_t *)user += 1;
  FN_CHECK(item != 5, FN_ERR_DATA, "item 5 is bad");
  return FN_OK;
}

static void a_failure_is_everyones_at_once(void **state) {
  (void)state;
  int64_t done = 0;
  assert_int_equal(fn_cube_rounds(&dist, "items", 100, fail_at_five, &done, NULL), FN_ERR_DATA);
  assert_non_null(strstr(fn_error_message(), "item 5 is bad"));
  assert_true(done <= 6); // no further round was begun
}

static void sets_of_numbers(void **state) {
  (void)state;
  int64_t *numbers, count;
  fn_text text = {0};
  assert_int_equal(fn_ranges_parse("--seeds", "7,0-3,9-10", 10, &numbers, &count), FN_OK);
  assert_int_equal(count, 7);
  assert_int_equal(numbers[4], 7);
  fn_ranges_write(numbers, count, &text);
  assert_string_equal(text.data, "0-3,7,9-10");
  fn_text_free(&text);
  free(numbers);
  const char *const bad[] = {"",   "a",    "3-1",   "1,",  ",1",  "1-",
                             "-1", "0-11", "1,0-2", "1 2", "1--2"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    assert_int_equal(fn_ranges_parse("--seeds", bad[i], 10, &numbers, &count), FN_ERR_CONFIG);
}

static void checksums_are_fnv(void **state) {
  (void)state;
  // Published test vectors of FNV-1a, 64 bits.
  assert_true(fn_hash_text("") == 0xcbf29ce484222325u);
  assert_true(fn_hash_text("a") == 0xaf63dc4c8601ec8cu);
  assert_true(fn_hash_bytes(fn_hash_text("foo"), "bar", 3) == 0x85944171f73967e8u);
}

int main(int argc, char **argv) {
  if (!join_job(&argc, &argv)) return 2;
  snprintf(folder, sizeof folder, "/tmp/fieldnet_cubes_XXXXXX");
  if (dist.rank == 0 && !mkdtemp(folder)) return 2;
  fn_dist_broadcast(&dist, folder, sizeof folder);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(statistics_do_not_depend_on_ranks),
      cmocka_unit_test(prepared_files_do_not_depend_on_ranks),
      cmocka_unit_test(the_reader_reads_it),
      cmocka_unit_test(a_failure_is_everyones_at_once),
      cmocka_unit_test(sets_of_numbers),
      cmocka_unit_test(checksums_are_fnv),
  };
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  MPI_Barrier(dist.comm);
  char remove[128];
  snprintf(remove, sizeof remove, "rm -rf %s", folder);
  if (dist.rank == 0 && system(remove) != 0) fprintf(stderr, "%s is left\n", folder);
  fn_dist_finalize(&dist);
  return failed;
}
