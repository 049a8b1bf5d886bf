/* Gradients summed by the ranks themselves: the bits are those of a serial sum in the order that is
 * promised, in float32, float64 and bfloat16, however ranks lie on nodes. FIELDNET_NODE_RANKS makes
 * several nodes of one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <glob.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bf16.h"
#include "base/random.h"
#include "base/system.h"
#include "dist/exchange.h"
#include "mpi_test.h"

/** A reducer, and the gradients of one parameter. */
typedef struct sums {
  fn_tensor_entry entry;
  fn_parameters parameters;
  fn_reducer *reducer;
} sums;

/** Who adds, how many ranks a node has (0: all), and the type between ranks. */
typedef struct arrangement {
  fn_adder adder;
  int node_ranks;
  fn_dtype type;
} arrangement;

static void set_node_ranks(int ranks) {
  char text[16];
  snprintf(text, sizeof text, "%d", ranks);
  if (ranks > 0)
    setenv("FIELDNET_NODE_RANKS", text, 1);
  else
    unsetenv("FIELDNET_NODE_RANKS");
}

static void open_sums(sums *s, const arrangement *a, fn_dtype dtype, int64_t count,
                      int64_t bucket_bytes) {
  memset(s, 0, sizeof *s);
  s->entry = (fn_tensor_entry){.name = "w", .count = count};
  s->parameters = (fn_parameters){.dtype = dtype,
                                  .entry_count = 1,
                                  .entry = &s->entry,
                                  .count = count,
                                  .gradients = calloc((size_t)count + 1, 8)};
  assert_non_null(s->parameters.gradients);
  set_node_ranks(a->node_ranks);
  const fn_reduction how = {.adder = a->adder, .type = a->type};
  expect_ok(
      fn_reducer_create(&dist, &s->parameters, bucket_bytes / 2, bucket_bytes, how, &s->reducer));
}

static void close_sums(sums *s) {
  fn_reducer_destroy(s->reducer);
  free(s->parameters.gradients);
}

static void reduce(sums *s, int64_t samples) {
  expect_ok(fn_reducer_begin(s->reducer, samples));
  fn_reducer_ready(s->reducer, 0);
  expect_ok(fn_reducer_finish(s->reducer));
}

/** Numbers of many sizes and both signs. */
static double number(int rank, int64_t step, int64_t i) {
  fn_random random =
      fn_random_stream(11, FN_RANDOM_TEST, (uint32_t)(step * 64 + rank), (uint64_t)i);
  const double value = 2 * fn_random_uniform(&random) - 1;
  return ldexp(value, (int)fn_random_below(&random, 12) - 6);
}

static int64_t samples_of(int rank, int64_t step) {
  return rank == 0 ? 3 : (rank + 2 * step) % 4;
}

static double weight_of(int rank, int64_t step) {
  int64_t total = 0;
  for (int r = 0; r < dist.size; r++)
    total += samples_of(r, step);
  return (double)samples_of(rank, step) / (double)total;
}

static float rounded(float x) {
  return fn_bf16_to_f32(fn_bf16_from_f32(x));
}

/** What rank r contributes, as it travels. */
static double term(const arrangement *a, fn_dtype dtype, int r, int64_t step, int64_t i) {
  const double x = number(r, step, i), weight = weight_of(r, step);
  if (dtype == FN_F64) return weight == 0 ? 0 : x * weight;
  if (weight == 0) return 0;
  if (a->type == FN_BF16) return (double)rounded((float)x * (float)weight);
  return (double)(float)((double)(float)x * weight);
}

static double plus(fn_dtype dtype, double a, double b) {
  return dtype == FN_F64 ? a + b : (double)((float)a + (float)b);
}

/** Sums over the ranks of each node in turn, then over nodes; bfloat16 is rounded after each of the
 *  two where both are made. */
static double expected(const arrangement *a, fn_dtype dtype, int64_t step, int64_t i) {
  int group = a->adder == FN_ADDER_RANKS ? 1 : a->node_ranks > 0 ? a->node_ranks : dist.size;
  if (group > dist.size) group = dist.size;
  double total = 0;
  for (int first = 0; first < dist.size; first += group) {
    double node = term(a, dtype, first, step, i);
    const int end = first + group < dist.size ? first + group : dist.size;
    for (int r = first + 1; r < end; r++)
      node = plus(dtype, node, term(a, dtype, r, step, i));
    if (a->type == FN_BF16 && end - first > 1) node = (double)rounded((float)node);
    total = first == 0 ? node : plus(dtype, total, node);
  }
  return a->type == FN_BF16 ? (double)rounded((float)total) : total;
}

static double element(const sums *s, int64_t i) {
  return s->parameters.dtype == FN_F64 ? ((const double *)s->parameters.gradients)[i]
                                       : (double)((const float *)s->parameters.gradients)[i];
}

static void fill(sums *s, int64_t step) {
  for (int64_t i = 0; i < s->parameters.count; i++) {
    const double x = number(dist.rank, step, i);
    if (s->parameters.dtype == FN_F64)
      ((double *)s->parameters.gradients)[i] = x;
    else
      ((float *)s->parameters.gradients)[i] = (float)x;
  }
}

static const arrangement arrangements[] = {
    {FN_ADDER_RANKS, 0, FN_F32}, {FN_ADDER_RANKS, 0, FN_BF16}, {FN_ADDER_NODE, 0, FN_F32},
    {FN_ADDER_NODE, 0, FN_BF16}, {FN_ADDER_NODE, 1, FN_F32},   {FN_ADDER_NODE, 2, FN_F32},
    {FN_ADDER_NODE, 2, FN_BF16}, {FN_ADDER_NODE, 3, FN_F32},   {FN_ADDER_NODE, 3, FN_BF16},
};
enum { ARRANGEMENTS = sizeof arrangements / sizeof arrangements[0] };

/* ---- bits ------------------------------------------------------------------------------------ */

/* Also counts that leave ranks or nodes without a share, and buckets of uneven sizes. */
static void bits_are_those_of_the_promised_order(void **state) {
  (void)state;
  const int64_t counts[] = {16, 48, 1040, 40000}, buckets[] = {64, 1000, 1500, 30000};
  for (int k = 0; k < ARRANGEMENTS; k++) {
    const arrangement *a = &arrangements[k];
    for (int c = 0; c < 4; c++)
      for (int wide = 0; wide < (a->type == FN_BF16 ? 1 : 2); wide++) {
        sums s;
        const fn_dtype dtype = wide ? FN_F64 : FN_F32;
        open_sums(&s, a, dtype, counts[c], buckets[c]);
        for (int64_t step = 0; step < 3; step++) {
          fill(&s, step);
          reduce(&s, samples_of(dist.rank, step));
          for (int64_t i = 0; i < counts[c] && dist.size > 1; i++)
            if (element(&s, i) != expected(a, dtype, step, i))
              fail_msg("arrangement %d, %lld elements, step %lld, element %lld: expected %.17g, "
                       "found %.17g",
                       k, (long long)counts[c], (long long)step, (long long)i,
                       expected(a, dtype, step, i), element(&s, i));
        }
        close_sums(&s);
      }
  }
}

/* Rounding to 8 bits errs by at most 2^-8 of a number: of each contribution, of a node's sum where
 * nodes send them on, and of the result. */
static void bf16_errs_by_its_roundings(void **state) {
  (void)state;
  if (dist.size == 1) skip();
  for (int k = 0; k < ARRANGEMENTS; k++) {
    const arrangement *a = &arrangements[k];
    if (a->type != FN_BF16) continue;
    const bool twice = a->adder == FN_ADDER_NODE && a->node_ranks > 0;
    sums s;
    open_sums(&s, a, FN_F32, 5000, 4096);
    fill(&s, 1);
    reduce(&s, samples_of(dist.rank, 1));
    bool exact = true;
    for (int64_t i = 0; i < 5000; i++) {
      double sum = 0, size = 0;
      for (int r = 0; r < dist.size; r++) {
        sum += number(r, 1, i) * weight_of(r, 1);
        size += fabs(number(r, 1, i) * weight_of(r, 1));
      }
      const double found = element(&s, i), bound = (pow(1 + 0x1p-8, twice ? 3 : 2) - 1) * size;
      exact = exact && fabs(found - sum) <= 1e-6 * size;
      if (!(fabs(found - sum) <= bound + 1e-6 * size))
        fail_msg("arrangement %d: %g instead of %g, more than %g off", k, found, sum, bound);
    }
    assert_false(exact);
    close_sums(&s);
  }
}

/** All results of a step as one number; the same on all ranks. */
static uint32_t digest_of(const arrangement *a, const fn_dist *d, int64_t steps) {
  sums s;
  uint32_t digest = 0, low, high;
  fn_dist before = dist;
  dist = *d;
  open_sums(&s, a, FN_F32, 3000, 2048);
  fn_random random = fn_random_stream(13, FN_RANDOM_TEST, 0, (uint64_t)dist.rank);
  for (int64_t step = 0; step < steps; step++) {
    fill(&s, step);
    expect_ok(fn_reducer_begin(s.reducer, samples_of(dist.rank, step)));
    if (fn_random_below(&random, 4) == 0) usleep((unsigned)fn_random_below(&random, 400));
    fn_reducer_ready(s.reducer, 0);
    if (fn_random_below(&random, 4) == 0) usleep((unsigned)fn_random_below(&random, 400));
    expect_ok(fn_reducer_finish(s.reducer));
    digest = fn_crc32(digest, s.parameters.gradients, (size_t)s.parameters.count * 4);
  }
  close_sums(&s);
  dist = before;
  MPI_Allreduce(&digest, &low, 1, MPI_UINT32_T, MPI_MIN, dist.comm);
  MPI_Allreduce(&digest, &high, 1, MPI_UINT32_T, MPI_MAX, dist.comm);
  assert_int_equal(low, high);
  return digest;
}

/* On one node, on nodes of one rank each, and on two ranks the order is that of the ranks, whoever
 * adds. */
static void where_orders_agree_bits_do(void **state) {
  (void)state;
  if (dist.size == 1) skip();
  for (int narrow = 0; narrow < 2; narrow++) {
    const fn_dtype type = narrow ? FN_BF16 : FN_F32;
    const uint32_t ranks = digest_of(&(arrangement){FN_ADDER_RANKS, 0, type}, &dist, 3);
    assert_int_equal(digest_of(&(arrangement){FN_ADDER_NODE, 0, type}, &dist, 3), ranks);
    assert_int_equal(digest_of(&(arrangement){FN_ADDER_NODE, 1, type}, &dist, 3), ranks);
    if (dist.size == 2 && !narrow)
      assert_int_equal(digest_of(&(arrangement){FN_ADDER_MPI, 0, type}, &dist, 3), ranks);
  }
}

/* With and without the thread, and again, with other pauses. */
static void timing_does_not_matter(void **state) {
  (void)state;
  if (dist.size == 1) skip();
  fn_dist alone = dist;
  alone.threads_multiple = false;
  for (int k = 0; k < ARRANGEMENTS; k++) {
    const uint32_t first = digest_of(&arrangements[k], &dist, 60);
    assert_int_equal(digest_of(&arrangements[k], &alone, 60), first);
  }
}

/* ---- special numbers and sizes ----------------------------------------------------------------
 */

/* One rank's NaN or infinity is everybody's, and nobody else's elements suffer. */
static void what_is_not_finite_is_seen_everywhere(void **state) {
  (void)state;
  if (dist.size == 1) skip();
  for (int k = 0; k < ARRANGEMENTS; k++) {
    sums s;
    open_sums(&s, &arrangements[k], FN_F32, 500, 512);
    float *g = s.parameters.gradients;
    const int last = dist.size - 1;
    for (int64_t i = 0; i < 500; i++)
      g[i] = 1;
    if (dist.rank == last) {
      g[7] = NAN;
      g[100] = INFINITY;
      g[333] = -INFINITY;
    }
    if (dist.rank == 0) g[100] = -INFINITY;
    reduce(&s, 2);
    for (int64_t i = 0; i < 500; i++) {
      if (i == 7 || i == 100)
        assert_true(isnan(g[i]));
      else if (i == 333)
        assert_true(isinf(g[i]) && g[i] < 0);
      else
        assert_true(fabsf(g[i] - 1) <= 0x1p-7f);
    }
    close_sums(&s);
  }
}

/* What a rank without samples holds does not count, not even when it is not a number. */
static void no_samples_no_part(void **state) {
  (void)state;
  if (dist.size == 1) skip();
  for (int k = 0; k < ARRANGEMENTS; k++) {
    sums s;
    open_sums(&s, &arrangements[k], FN_F32, 100, 128);
    float *g = s.parameters.gradients;
    const bool idle = dist.rank == dist.size - 1;
    for (int64_t i = 0; i < 100; i++)
      g[i] = idle ? NAN : 2.5f;
    reduce(&s, idle ? 0 : 4);
    for (int64_t i = 0; i < 100; i++)
      assert_true(fabsf(g[i] - 2.5f) <= 2.5f * 0x1p-7f);
    close_sums(&s);
  }
}

static void nothing_to_sum(void **state) {
  (void)state;
  for (int k = 0; k < ARRANGEMENTS; k++) {
    sums s;
    open_sums(&s, &arrangements[k], FN_F32, 0, 64);
    for (int step = 0; step < 3; step++)
      reduce(&s, 1);
    assert_int_equal(fn_reducer_bucket_count(s.reducer), 0);
    close_sums(&s);
  }
}

/* ---- bytes, words, errors ---------------------------------------------------------------------
 */

static double sent_by(const arrangement *a, double *shared) {
  const int64_t count = 96000;
  sums s;
  open_sums(&s, a, FN_F32, count, 65536);
  reduce(&s, 1);
  fn_reducer_traffic traffic;
  fn_reducer_moved(s.reducer, &traffic);
  close_sums(&s);
  *shared = traffic.shared / (double)count;
  double all = traffic.sent / (double)count, sum;
  MPI_Allreduce(&all, &sum, 1, MPI_DOUBLE, MPI_SUM, dist.comm);
  return sum;
}

/* Bytes of an element that all ranks together send: each chunk goes to its owner and back to all.
 */
static void bytes_on_the_wire(void **state) {
  (void)state;
  if (dist.size == 1) skip();
  const double p = dist.size;
  double shared;
  assert_true(fabs(sent_by(&(arrangement){FN_ADDER_RANKS, 0, FN_F32}, &shared) - 8 * (p - 1)) <
              1e-9);
  assert_true(fabs(sent_by(&(arrangement){FN_ADDER_RANKS, 0, FN_BF16}, &shared) - 4 * (p - 1)) <
              1e-9);
  assert_true(shared == 0);
  // written once, added once by somebody, read once
  assert_true(sent_by(&(arrangement){FN_ADDER_NODE, 0, FN_F32}, &shared) == 0);
  assert_true(fabs(shared - 12) < 0.1);
  assert_true(sent_by(&(arrangement){FN_ADDER_NODE, 0, FN_BF16}, &shared) == 0);
  assert_true(fabs(shared - 6) < 0.1);
  // pairs of ranks send what one of them would
  const double nodes = ceil(p / 2);
  const double sent = sent_by(&(arrangement){FN_ADDER_NODE, 2, FN_F32}, &shared);
  assert_true(fabs(sent - 8 * (nodes - 1)) < 1e-9);
}

static void says_what_it_does(void **state) {
  (void)state;
  char text[400];
  sums s;
  open_sums(&s, &arrangements[6], FN_F32, 4096, 8192);
  fn_reducer_describe(s.reducer, text, sizeof text);
  if (dist.size == 1) {
    assert_string_equal(text, "");
  } else {
    assert_non_null(strstr(text, "as bf16 in 3 buckets"));
    assert_non_null(strstr(text, dist.size == 2   ? "summed over 2 ranks in shared memory"
                                 : dist.size == 4 ? "by 2 ranks of each of 2 nodes"
                                                  : "in shared memory"));
  }
  close_sums(&s);
}

static void contradictions_are_errors(void **state) {
  (void)state;
  if (dist.size == 1) skip();
  float g[32] = {0};
  fn_tensor_entry entry = {.name = "w", .count = 32};
  fn_parameters p = {.entry_count = 1, .entry = &entry, .count = 32, .gradients = g};
  fn_reducer *reducer = NULL;
  const fn_reduction rounding = {.adder = FN_ADDER_MPI, .type = FN_BF16};
  assert_int_equal(fn_reducer_create(&dist, &p, 64, 64, rounding, &reducer), FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "train.gradient_dtype"));
  setenv("FIELDNET_NODE_RANKS", dist.rank == dist.size - 1 ? "two" : "2", 1);
  const fn_reduction plain = {.adder = FN_ADDER_NODE};
  assert_int_equal(fn_reducer_create(&dist, &p, 64, 64, plain, &reducer), FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "found 'two'"));
  set_node_ranks(0);
  assert_null(reducer);
}

/* Memory that one rank cannot have is shared by none: numbers are sent, or, where sharing was asked
 * for, all ranks are told. No file stays behind. */
static void without_shared_memory(void **state) {
  (void)state;
  if (dist.size == 1) skip();
  struct rlimit before, least;
  getrlimit(RLIMIT_FSIZE, &before);
  least = before;
  least.rlim_cur = 4096;
  signal(SIGXFSZ, SIG_IGN);
  if (dist.rank == dist.size - 1) setrlimit(RLIMIT_FSIZE, &least);
  char text[400];
  sums s;
  const arrangement open_choice = {FN_ADDER_AUTO, 0, FN_F32};
  open_sums(&s, &open_choice, FN_F32, 4000, 4096);
  fill(&s, 0);
  reduce(&s, samples_of(dist.rank, 0));
  const arrangement sent = {FN_ADDER_RANKS, 0, FN_F32};
  for (int64_t i = 0; i < 4000; i++)
    assert_true(element(&s, i) == expected(&sent, FN_F32, 0, i));
  fn_reducer_describe(s.reducer, text, sizeof text);
  assert_non_null(strstr(text, "exchanged between"));
  close_sums(&s);
  float g[4000] = {0};
  fn_tensor_entry entry = {.name = "w", .count = 4000};
  fn_parameters p = {.entry_count = 1, .entry = &entry, .count = 4000, .gradients = g};
  const fn_reduction how = {.adder = FN_ADDER_NODE};
  fn_reducer *reducer = NULL;
  assert_int_equal(fn_reducer_create(&dist, &p, 4096, 4096, how, &reducer), FN_ERR_MEMORY);
  assert_non_null(strstr(fn_error_message(), "/dev/shm"));
  setrlimit(RLIMIT_FSIZE, &before);
  snprintf(text, sizeof text, "/dev/shm/fieldnet-%ld-%ld-*", (long)getuid(), (long)getpid());
  glob_t files;
  assert_int_equal(glob(text, 0, NULL, &files), GLOB_NOMATCH);
  globfree(&files);
}

/* Slices of 191 numbers in four slots fill a page of shared memory nearly to its end, and 191 is no
 * multiple of a cache line: a slot that began too late would end beyond the memory. */
static void slots_end_within_the_memory(void **state) {
  (void)state;
  enum { SLOTS = 4, COUNT = 191 };
  set_node_ranks(0);
  const fn_exchange_options options = {
      .type = FN_F32, .data = FN_F32, .slots = SLOTS, .most = COUNT, .share_memory = true};
  fn_exchange *exchange;
  float values[SLOTS][COUNT];
  expect_ok(fn_exchange_create(&dist, &options, &exchange));
  for (int k = 0; k < SLOTS; k++) {
    for (int i = 0; i < COUNT; i++)
      values[k][i] = (float)(1 + dist.rank + 10 * k + 100 * i);
    fn_exchange_start(exchange, k, values[k], COUNT, 1);
  }
  bool done[SLOTS] = {false};
  for (int left = SLOTS; left > 0; sched_yield()) {
    for (int k = 0; k < SLOTS; k++) {
      bool moved;
      if (!done[k]) {
        expect_ok(fn_exchange_advance(exchange, k, &moved, &done[k]));
        left -= done[k];
      }
    }
  }
  fn_exchange_destroy(exchange);
  const int n = dist.size;
  for (int k = 0; k < SLOTS; k++)
    for (int i = 0; i < COUNT; i++)
      assert_true(values[k][i] == (float)(n * (n + 1) / 2 + n * (10 * k + 100 * i)));
}

int main(int argc, char **argv) {
  if (!join_job(&argc, &argv)) return 2;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(bits_are_those_of_the_promised_order),
      cmocka_unit_test(bf16_errs_by_its_roundings),
      cmocka_unit_test(where_orders_agree_bits_do),
      cmocka_unit_test(timing_does_not_matter),
      cmocka_unit_test(what_is_not_finite_is_seen_everywhere),
      cmocka_unit_test(no_samples_no_part),
      cmocka_unit_test(nothing_to_sum),
      cmocka_unit_test(bytes_on_the_wire),
      cmocka_unit_test(says_what_it_does),
      cmocka_unit_test(contradictions_are_errors),
      cmocka_unit_test(slots_end_within_the_memory),
      cmocka_unit_test(without_shared_memory),
  };
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  fn_dist_finalize(&dist);
  return failed;
}
