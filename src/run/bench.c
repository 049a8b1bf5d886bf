#include "run/bench.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "run/bench_internal.h"
#include "run/open_data.h"

const char *fn_bench_mode_name(fn_bench_mode mode) {
  static const char *const names[] = {"full", "synthetic", "io", "comm", "all", "default"};
  return names[mode];
}

/* ---- numbers -----------------------------------------------------------------------------------
 */

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double fn_bench_median(double *values, int64_t count) {
  qsort(values, (size_t)count, sizeof *values, compare_doubles);
  return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

fn_status fn_bench_over_ranks(const fn_dist *dist, double value, bench_spread *spread) {
  *spread = (bench_spread){value, value, value};
  if (dist->size == 1) return FN_OK;
  double *all = calloc((size_t)dist->size, sizeof *all);
  FN_CHECK(all, FN_ERR_MEMORY, "out of memory");
  all[dist->rank] = value;
  const fn_status status = fn_dist_sum(dist, all, dist->size);
  *spread = (bench_spread){all[0], 0, all[0]};
  for (int r = 0; r < dist->size; r++) {
    if (all[r] < spread->least) spread->least = all[r];
    if (all[r] > spread->most) spread->most = all[r];
    spread->mean += all[r] / dist->size;
  }
  free(all);
  return status;
}

/* ---- what to measure ---------------------------------------------------------------------------
 */

static bool wants(const bench *b, fn_bench_mode mode) {
  return b->mode == mode || b->mode == FN_BENCH_ALL;
}

static bool needs_data(fn_bench_mode mode) {
  return mode == FN_BENCH_FULL || mode == FN_BENCH_IO || mode == FN_BENCH_ALL;
}

/** The training set as the loader takes it. `why` says what is missing. Collective. */
static void open_data(bench *b, char *why, size_t size) {
  const fn_size_options *sizes = &b->options->sizes;
  if (sizes->synthetic || sizes->edge > 0 || b->options->inference) {
    snprintf(why, size, "the command line asks for made-up numbers");
  } else if (!fn_run_has_data(b->run, "train", true)) {
    snprintf(why, size, "the run names no training data");
  } else if (fn_data_open(b->run, FN_STAGE_TRAIN, b->dist, NULL, &b->dataset) != FN_OK) {
    const char *message = fn_error_message();
    snprintf(why, size, "the data cannot be used (%.*s)", (int)strcspn(message, "\n"), message);
    fn_error_clear();
  }
}

/** Data, if any, and sizes: the same on all ranks. */
static fn_status find_sizes(bench *b) {
  char why[400] = "";
  const double start = fn_clock();
  if (b->options->mode != FN_BENCH_SYNTHETIC && b->options->mode != FN_BENCH_COMM)
    open_data(b, why, sizeof why);
  // A file that one rank cannot see is missing for all.
  const bool missing = fn_dist_max(b->dist, !b->dataset);
  if (missing && needs_data(b->mode))
    FN_FAIL(FN_ERR_CONFIG, "--mode %s needs training data: %s", fn_bench_mode_name(b->mode),
            why[0] ? why : "another rank has none");
  if (b->mode == FN_BENCH_DEFAULT) b->mode = missing ? FN_BENCH_SYNTHETIC : FN_BENCH_FULL;
  if (!missing) {
    b->info = *fn_dataset_get_info(b->dataset);
    snprintf(b->source, sizeof b->source, "sizes of the data");
  } else {
    fn_size_source source;
    FN_TRY(fn_sizes_find(b->run, b->dist, &b->options->sizes, &b->info, &source));
    memcpy(b->source, source.text, sizeof b->source);
  }
  b->start.data = fn_clock() - start;
  return FN_OK;
}

static fn_status check_options(const bench *b) {
  const fn_bench_options *o = b->options;
  FN_CHECK(b->mode != FN_BENCH_COMM || b->dist->size > 1, FN_ERR_CONFIG,
           "--mode comm needs several ranks: start it under mpirun");
  FN_CHECK(!o->lockstep || b->dist->size == 1, FN_ERR_CONFIG, "--lockstep takes one rank, not %d",
           b->dist->size);
  FN_CHECK(!o->checkpoint || (o->mode == FN_BENCH_DEFAULT && !o->inference && !o->lockstep),
           FN_ERR_CONFIG, "--checkpoint goes without --mode, --inference and --lockstep");
  FN_CHECK(!o->inference || o->mode == FN_BENCH_DEFAULT || o->mode == FN_BENCH_SYNTHETIC,
           FN_ERR_CONFIG, "--inference goes with --mode synthetic only");
  return FN_OK;
}

/* ---- measuring ---------------------------------------------------------------------------------
 */

static fn_status steps_of(bench *b, fn_bench_mode mode, bench_steps *s) {
  if (!wants(b, mode)) return FN_OK;
  s->mode = mode;
  FN_TRY(fn_bench_take_steps(b, s));
  b->beside = true;
  if (b->machine.flops == 0) FN_TRY(fn_bench_measure_machine(b, &b->machine));
  FN_TRY(fn_bench_collect(b, s));
  fn_bench_print_steps(b, s);
  return FN_OK;
}

static fn_status measure_modes(bench *b) {
  FN_TRY(steps_of(b, FN_BENCH_FULL, &b->steps[0]));
  FN_TRY(steps_of(b, FN_BENCH_SYNTHETIC, &b->steps[1]));
  if (wants(b, FN_BENCH_IO)) FN_TRY(fn_bench_read(b));
  fn_bench_print_io(b);
  if (wants(b, FN_BENCH_COMM) && b->dist->size > 1) FN_TRY(fn_bench_reduce(b));
  fn_bench_print_comm(b);
  fn_bench_print_all(b);
  fn_bench_print_start(b);
  return FN_OK;
}

/** Files, on rank 0. */
static fn_status deliver(bench *b) {
  if (b->dist->rank != 0) return FN_OK;
  fn_text text = {0};
  fn_bench_write_json(b, &text);
  fn_status status = FN_OK;
  if (text.incomplete) status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  if (status == FN_OK && b->options->json) status = fn_file_replace_text(b->options->json, &text);
  char *before = NULL;
  if (status == FN_OK && b->options->compare) {
    status = fn_file_read(b->options->compare, &before, NULL);
    if (status == FN_OK)
      status = fn_bench_compare(before, b->options->compare, text.data, "this run", b->out);
  }
  free(before);
  fn_text_free(&text);
  if (status == FN_OK && b->timeline)
    status = b->options->trace(b->options->trace_user, b->timeline);
  return status;
}

static fn_status measure(bench *b) {
  b->start.launch = fn_process_age();
  FN_TRY(fn_dist_agree(b->dist, check_options(b)));
  FN_TRY(fn_dist_agree(b->dist, find_sizes(b)));
  FN_TRY(fn_bench_prepare(b));
  if (b->options->lockstep) return fn_bench_lockstep(b);
  fn_bench_print_head(b);
  if (b->options->trace) FN_TRY(fn_timeline_create(b->dist, &b->timeline));
  FN_TRY(b->options->checkpoint ? fn_bench_saves(b) : measure_modes(b));
  fn_bench_print_saves(b);
  if (b->timeline) FN_TRY(fn_timeline_gather(b->timeline));
  return fn_dist_agree(b->dist, deliver(b));
}

fn_status fn_bench(const fn_run *run, fn_dist *dist, const fn_bench_options *options, FILE *out) {
  bench *b = calloc(1, sizeof *b);
  FN_CHECK(b, FN_ERR_MEMORY, "out of memory");
  *b = (bench){.run = run,
               .dist = dist,
               .options = options,
               .out = dist->rank == 0 ? out : NULL,
               .mode = options->mode};
  const fn_status status = measure(b);
  fn_bench_release(b);
  free(b);
  return status;
}
