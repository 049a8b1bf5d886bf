/* Gradients summed over ranks in buckets, whoever adds. Arguments: "digest": print a digest of
 * random steps (see run_dist_jobs.sh); "time BYTES": print how long reductions of so many bytes
 * take.
 */
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
#include "mpi_test.h"

enum { ENTRIES = 24 };

static fn_reduction how; /**< of reducers created next */

/** Parameters in reverse creation order with gaps, and a buffer in between. */
typedef struct model {
  fn_tensor_entry entry[ENTRIES];
  fn_parameters parameters;
} model;

static void model_init(model *m, fn_dtype dtype, int64_t largest) {
  memset(m, 0, sizeof *m);
  fn_random random = fn_random_stream(5, FN_RANDOM_TEST, 0, 0);
  int64_t offset = 0;
  for (int e = ENTRIES - 1; e >= 0; e--) {
    const int64_t count = 1 + (int64_t)fn_random_below(&random, (uint64_t)largest);
    m->entry[e] = (fn_tensor_entry){.name = "w", .offset = offset, .count = count};
    if (e == 7) {
      m->entry[e] = (fn_tensor_entry){.name = "running_mean", .count = 3, .is_buffer = true};
    } else {
      offset += (count + 15) / 16 * 16;
    }
  }
  void *gradients = calloc((size_t)offset, 8);
  assert_non_null(gradients);
  m->parameters = (fn_parameters){.dtype = dtype,
                                  .entry_count = ENTRIES,
                                  .entry = m->entry,
                                  .count = offset,
                                  .gradients = gradients};
}

static void model_free(model *m) {
  free(m->parameters.gradients);
}

/** Gradient of element i of rank r in a step: O(1) with many different bits.
 *  Not inlined: fused with the arithmetic of its caller it would not be the same number. */
static double __attribute__((noinline)) gradient(int r, int64_t step, int64_t i) {
  return sin(0.7 * (double)i + 1.3 * r + 0.1 * (double)step) + 0.01 * (double)r;
}

static void fill(model *m, int64_t step) {
  for (int e = 0; e < ENTRIES; e++) {
    const fn_tensor_entry *entry = &m->entry[e];
    if (entry->is_buffer) continue;
    for (int64_t i = entry->offset; i < entry->offset + entry->count; i++) {
      if (m->parameters.dtype == FN_F64) {
        ((double *)m->parameters.gradients)[i] = gradient(dist.rank, step, i);
      } else {
        ((float *)m->parameters.gradients)[i] = (float)gradient(dist.rank, step, i);
      }
    }
  }
}

/** Samples of rank r in a step: unequal, sometimes none, never none in all. */
static int64_t samples_of(int r, int64_t step) {
  return r == 0 ? 3 : (r + 2 * step) % 4;
}

/** Report in creation order reversed (as the backward pass does), or in a shuffled order of this
 *  rank's own, leaving `unused` entries out. */
static void report(fn_reducer *reducer, int64_t step, bool shuffled, int unused) {
  int64_t order[ENTRIES];
  for (int e = 0; e < ENTRIES; e++)
    order[e] = ENTRIES - 1 - e;
  fn_random random = fn_random_stream(9, FN_RANDOM_TEST, (uint32_t)step, (uint64_t)dist.rank);
  if (shuffled) fn_random_shuffle(&random, order, ENTRIES);
  for (int k = 0; k < ENTRIES - unused; k++) {
    fn_reducer_ready(reducer, (int)order[k]);
    if (shuffled && fn_random_below(&random, 16) == 0)
      usleep((unsigned)fn_random_below(&random, 300));
  }
}

static fn_reducer *create(const fn_dist *d, model *m, int64_t first, int64_t other) {
  fn_reducer *reducer = NULL;
  if (fn_reducer_create(d, &m->parameters, first, other, how, &reducer) != FN_OK)
    fail_msg("%s", fn_error_message());
  return reducer;
}

/** Against the serial weighted mean in double; float32: one rounding of each product, one of each
 *  addition. */
static void expect_mean(const model *m, int64_t step, const char *what) {
  int64_t total = 0;
  for (int r = 0; r < dist.size; r++)
    total += samples_of(r, step);
  const bool is_double = m->parameters.dtype == FN_F64;
  const double epsilon = (is_double ? 0x1p-52 : 0x1p-23) * (dist.size + 1);
  for (int e = 0; e < ENTRIES; e++) {
    const fn_tensor_entry *entry = &m->entry[e];
    if (entry->is_buffer) continue;
    for (int64_t i = entry->offset; i < entry->offset + entry->count; i++) {
      double mean = 0;
      for (int r = 0; r < dist.size; r++) {
        const double g = is_double ? gradient(r, step, i) : (double)(float)gradient(r, step, i);
        mean += g * (double)samples_of(r, step) / (double)total;
      }
      const double found = is_double ? ((double *)m->parameters.gradients)[i]
                                     : (double)((float *)m->parameters.gradients)[i];
      if (!(fabs(found - mean) <= epsilon))
        fail_msg("%s, element %lld: expected %.17g, found %.17g", what, (long long)i, mean, found);
    }
  }
}

/** Digest of the gradients; fails unless it is the same on all ranks. */
static uint32_t same_bits_everywhere(const model *m) {
  const size_t size = m->parameters.dtype == FN_F64 ? 8 : 4;
  uint32_t mine = fn_crc32(0, m->parameters.gradients, (size_t)m->parameters.count * size), low,
           high;
  MPI_Allreduce(&mine, &low, 1, MPI_UINT32_T, MPI_MIN, dist.comm);
  MPI_Allreduce(&mine, &high, 1, MPI_UINT32_T, MPI_MAX, dist.comm);
  assert_int_equal(low, high);
  return mine;
}

/* Bucket sizes from one vector to everything at once, smaller and larger than single parameters. */
static const int64_t sizes[][2] = {{1, 1}, {256, 1024}, {4096, 300}, {100, 1 << 30}, {1 << 30, 64}};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static void weighted_means(void **state) {
  (void)state;
  for (int s = 0; s < SIZES; s++) {
    for (int dtype = 0; dtype < 2; dtype++) {
      model m;
      model_init(&m, dtype ? FN_F64 : FN_F32, 400);
      fn_reducer *reducer = create(&dist, &m, sizes[s][0], sizes[s][1]);
      for (int64_t step = 0; step < 4; step++) {
        fill(&m, step);
        expect_ok(fn_reducer_begin(reducer, samples_of(dist.rank, step)));
        report(reducer, step, false, 0);
        expect_ok(fn_reducer_finish(reducer));
        expect_mean(&m, step, "in order");
        same_bits_everywhere(&m);
      }
      fn_reducer_destroy(reducer);
      model_free(&m);
    }
  }
}

/* Every rank in an order of its own, entries never reported, and nothing reported at all. */
static void order_of_readiness_is_free(void **state) {
  (void)state;
  const int unused[] = {0, 3, ENTRIES};
  for (int s = 0; s < SIZES; s++) {
    model m;
    model_init(&m, FN_F32, 400);
    fn_reducer *reducer = create(&dist, &m, sizes[s][0], sizes[s][1]);
    for (int64_t step = 0; step < 6; step++) {
      fill(&m, step);
      expect_ok(fn_reducer_begin(reducer, samples_of(dist.rank, step)));
      report(reducer, step, true, unused[step % 3]);
      expect_ok(fn_reducer_finish(reducer));
      expect_mean(&m, step, "out of order");
    }
    fn_reducer_destroy(reducer);
    model_free(&m);
  }
}

/* A rank that has no samples in the last step contributes nothing, even if its gradients hold
 * what is not a number. */
static void rank_without_samples(void **state) {
  (void)state;
  if (dist.size == 1) skip();
  model m;
  model_init(&m, FN_F32, 50);
  fn_reducer *reducer = create(&dist, &m, 64, 512);
  float *g = m.parameters.gradients;
  const bool idle = dist.rank == dist.size - 1;
  for (int64_t i = 0; i < m.parameters.count; i++)
    g[i] = idle ? NAN : 2.5f;
  expect_ok(fn_reducer_begin(reducer, idle ? 0 : 4));
  expect_ok(fn_reducer_finish(reducer));
  for (int64_t i = 0; i < m.parameters.count; i++)
    assert_true(fabsf(g[i] - 2.5f) < 1e-6f);
  fn_reducer_destroy(reducer);
  model_free(&m);
}

/* One rank: the gradients are the mean already and keep their bits. */
static void one_rank_changes_nothing(void **state) {
  (void)state;
  if (dist.size != 1) skip();
  model m;
  model_init(&m, FN_F32, 400);
  fill(&m, 0);
  const uint32_t before = same_bits_everywhere(&m);
  fn_reducer *reducer = create(&dist, &m, 256, 1024);
  expect_ok(fn_reducer_begin(reducer, 5));
  report(reducer, 0, false, 0);
  expect_ok(fn_reducer_finish(reducer));
  assert_int_equal(same_bits_everywhere(&m), before);
  fn_reducer_destroy(reducer);
  model_free(&m);
}

/** Random steps: shuffled reports with pauses, and, as synchronised batch norm has it, sums over
 * the other communicator in between. Returns a digest of all results. */
static uint32_t random_steps(const fn_dist *d, int64_t steps) {
  model m;
  model_init(&m, FN_F32, 300);
  fn_reducer *reducer = create(d, &m, 256, 2048);
  uint32_t digest = 0;
  for (int64_t step = 0; step < steps; step++) {
    fill(&m, step);
    expect_ok(fn_reducer_begin(reducer, samples_of(dist.rank, step)));
    report(reducer, step, true, (int)(step % 3));
    double sum[2] = {1, dist.rank};
    if (step % 2) expect_ok(fn_dist_sum(d, sum, 2));
    expect_ok(fn_reducer_finish(reducer));
    digest = fn_crc32(digest, m.parameters.gradients, (size_t)m.parameters.count * 4);
    if (step % 100 == 0) expect_mean(&m, step, "random steps");
  }
  same_bits_everywhere(&m);
  fn_reducer_destroy(reducer);
  model_free(&m);
  return digest;
}

static void many_steps_repeat_and_do_not_lock(void **state) {
  (void)state;
  const int64_t steps = how.adder == FN_ADDER_AUTO ? 1000 : 200;
  const uint32_t first = random_steps(&dist, steps);
  assert_int_equal(random_steps(&dist, steps), first);
}

/* Without the thread the same bits come out. */
static void fallback_gives_the_same_bits(void **state) {
  (void)state;
  fn_dist alone = dist;
  alone.threads_multiple = false;
  assert_int_equal(random_steps(&alone, 200), random_steps(&dist, 200));
}

static void wrong_use_is_an_error(void **state) {
  (void)state;
  model m;
  model_init(&m, FN_F32, 50);
  fn_reducer *reducer = create(&dist, &m, 64, 512);
  const int last = dist.size - 1;
  // A bad count on one rank fails on all.
  assert_int_equal(fn_reducer_begin(reducer, dist.rank == last ? -1 : 1), FN_ERR_INTERNAL);
  assert_int_equal(fn_reducer_begin(reducer, 0), FN_ERR_INTERNAL);
  // Reports outside a step are ignored: the micro-batches before the last one.
  fn_reducer_ready(reducer, 3);
  if (dist.size > 1) {
    assert_int_equal(fn_reducer_finish(reducer), FN_ERR_INTERNAL);
    expect_ok(fn_reducer_begin(reducer, 1));
    assert_int_equal(fn_reducer_begin(reducer, 1), FN_ERR_INTERNAL);
    fn_reducer_ready(reducer, 3);
    if (dist.rank == last) fn_reducer_ready(reducer, 3);
    // The others are not left waiting.
    assert_int_equal(fn_reducer_finish(reducer), dist.rank == last ? FN_ERR_INTERNAL : FN_OK);
    if (dist.rank == last) assert_non_null(strstr(fn_error_message(), "twice"));
  }
  fn_reducer_destroy(reducer);
  model_free(&m);
}

/** Whether gradients that are ready `rest` seconds before the end of the backward pass are reduced
 *  by then, on all ranks. */
static bool is_overlapped(model *m, double rest) {
  fn_reducer *reducer = create(&dist, m, 4096, 1 << 16);
  double busy = -1, exposed = -1;
  fn_reducer_times(reducer, &busy, &exposed);
  assert_true(busy == 0 && exposed == 0);
  expect_ok(fn_reducer_begin(reducer, 1));
  report(reducer, 0, false, 0);
  if (dist.threads_multiple) usleep((useconds_t)(1e6 * rest)); // the rest of the backward pass
  expect_ok(fn_reducer_finish(reducer));
  fn_reducer_times(reducer, &busy, &exposed);
  fn_reducer_destroy(reducer);
  assert_true(busy >= exposed && exposed >= 0);
  if (dist.size > 1) assert_true(busy > 0);
  int hidden = dist.size == 1 || !dist.threads_multiple || exposed < 0.5 * busy;
  MPI_Allreduce(MPI_IN_PLACE, &hidden, 1, MPI_INT, MPI_MIN, dist.comm);
  return hidden;
}

/* What is reduced while the backward pass goes on is not waited for. (On a busy machine the passes
 * become longer until a thread gets on beside them.) */
static void times_tell_overlap(void **state) {
  (void)state;
  model m;
  model_init(&m, FN_F32, 20000);
  bool overlapped = false;
  for (double rest = 0.1; rest < 10 && !overlapped; rest *= 2)
    overlapped = is_overlapped(&m, rest);
  assert_true(overlapped);
  model_free(&m);
}

/* ---- jobs
 * ------------------------------------------------------------------------------------------ */

static void print_digest(void **state) {
  (void)state;
  const uint32_t digest = random_steps(&dist, 100);
  if (dist.rank == 0)
    printf("digest %08x threads %s\n", (unsigned)digest, dist.threads_multiple ? "yes" : "no");
}

static int64_t bytes_to_time;

static const char *const adder_names[] = {"auto", "mpi", "ranks", "node"};

static double median(double *x, int count) {
  for (int i = 1; i < count; i++)
    for (int k = i; k > 0 && x[k] < x[k - 1]; k--) {
      const double larger = x[k - 1];
      x[k - 1] = x[k];
      x[k] = larger;
    }
  return x[count / 2];
}

/** Seconds of one reduction of all gradients, of the slowest rank. */
static double time_once(fn_reducer *reducer, bool overlapped) {
  MPI_Barrier(dist.comm);
  expect_ok(fn_reducer_begin(reducer, 1));
  fn_reducer_ready(reducer, 0);
  if (overlapped) usleep(100000);
  const double start = fn_clock();
  expect_ok(fn_reducer_finish(reducer));
  double seconds = fn_clock() - start, most = seconds;
  MPI_Allreduce(&seconds, &most, 1, MPI_DOUBLE, MPI_MAX, dist.comm);
  return most;
}

/* Ways in turn, so that all see the same machine. */
static void print_time(void **state) {
  (void)state;
  enum { WAYS = 5, TURNS = 21 };
  const fn_reduction ways[WAYS] = {{.adder = FN_ADDER_MPI},
                                   {.adder = FN_ADDER_RANKS},
                                   {.adder = FN_ADDER_RANKS, .type = FN_BF16},
                                   {.adder = FN_ADDER_NODE},
                                   {.adder = FN_ADDER_NODE, .type = FN_BF16}};
  const int64_t count = (bytes_to_time / 4 + 15) / 16 * 16;
  float *g = calloc((size_t)count, 4);
  assert_non_null(g);
  fn_tensor_entry entry = {.name = "w", .count = count};
  fn_parameters p = {.entry_count = 1, .entry = &entry, .count = count, .gradients = g};
  fn_reducer *reducer[WAYS];
  double seconds[2][WAYS][TURNS];
  const int64_t bytes = fn_reducer_bucket_bytes(&p, 25 << 20);
  for (int w = 0; w < WAYS; w++)
    expect_ok(fn_reducer_create(&dist, &p, bytes, bytes, ways[w], &reducer[w]));
  for (int turn = -1; turn < TURNS; turn++)
    for (int overlapped = 0; overlapped < 2; overlapped++)
      for (int w = 0; w < WAYS; w++) {
        const double one = time_once(reducer[w], overlapped);
        if (turn >= 0) seconds[overlapped][w][turn] = one;
      }
  for (int w = 0; w < WAYS; w++) {
    const double alone = median(seconds[0][w], TURNS), beside = median(seconds[1][w], TURNS);
    if (dist.rank == 0)
      printf("%-5s %-4s  %8.3f ms, %8.3f ms after 100 ms of other work\n",
             adder_names[ways[w].adder], fn_dtype_name(ways[w].type), 1e3 * alone, 1e3 * beside);
    fn_reducer_destroy(reducer[w]);
  }
  free(g);
}

int main(int argc, char **argv) {
  if (!join_job(&argc, &argv)) return 2;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(weighted_means),
      cmocka_unit_test(order_of_readiness_is_free),
      cmocka_unit_test(rank_without_samples),
      cmocka_unit_test(one_rank_changes_nothing),
      cmocka_unit_test(many_steps_repeat_and_do_not_lock),
      cmocka_unit_test(fallback_gives_the_same_bits),
      cmocka_unit_test(wrong_use_is_an_error),
      cmocka_unit_test(times_tell_overlap),
  };
  const struct CMUnitTest digest[] = {cmocka_unit_test(print_digest)};
  const struct CMUnitTest timing[] = {cmocka_unit_test(print_time)};
  int failed = 0;
  if (argc > 1 && strcmp(argv[1], "digest") == 0) {
    failed = cmocka_run_group_tests(digest, NULL, NULL);
  } else if (argc > 2 && strcmp(argv[1], "time") == 0) {
    bytes_to_time = atoll(argv[2]);
    failed = cmocka_run_group_tests(timing, NULL, NULL);
  } else {
    for (how.adder = FN_ADDER_AUTO; how.adder <= FN_ADDER_NODE; how.adder++) {
      if (dist.rank == 0) printf("train.reduction: %s\n", adder_names[how.adder]);
      failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
  }
  fn_dist_finalize(&dist);
  return failed;
}
