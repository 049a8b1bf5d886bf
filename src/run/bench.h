/** @file bench.h
 *  Time training steps, reading and communication, as a whole and operator by operator.
 */
#ifndef FN_RUN_BENCH_H
#define FN_RUN_BENCH_H

#include <stdio.h>

#include "run/sizes.h"
#include "run/timeline.h"

typedef enum fn_bench_mode {
  FN_BENCH_FULL,      /**< real data through the loader, real reductions */
  FN_BENCH_SYNTHETIC, /**< random batch; real reductions */
  FN_BENCH_IO,        /**< only batches read */
  FN_BENCH_COMM,      /**< only gradients reduced */
  FN_BENCH_MODES,     /**< how many there are */
  FN_BENCH_ALL = FN_BENCH_MODES,
  FN_BENCH_DEFAULT /**< full where there are usable data, else synthetic */
} fn_bench_mode;

typedef struct fn_bench_options {
  fn_bench_mode mode;
  int64_t steps, warmup;
  int64_t batch;   /**< samples of a step and rank */
  bool inference;  /**< the network alone, with the statistics of evaluation, instead of a step */
  bool all;        /**< print every kernel */
  bool checkpoint; /**< only what saving states costs the steps */
  bool lockstep;   /**< steps on request, see docs/bench.md; nothing else is measured */
  fn_size_options sizes;
  const char *json;    /**< file for all numbers; NULL: none */
  const char *compare; /**< such a file, of an earlier measurement; NULL: none */
  /** Called on rank 0 with what happened during the measured steps; NULL: not wanted. */
  fn_status (*trace)(void *user, const fn_timeline *timeline);
  void *trace_user;
} fn_bench_options;

/** Measure and print. Collective. */
fn_status fn_bench(const fn_run *run, fn_dist *dist, const fn_bench_options *options, FILE *out);

/** Print ratios of two files written with `json`: `after` over `before`. Not collective. */
fn_status fn_bench_compare_files(const char *before, const char *after, FILE *out);

/** "full", "synthetic", "io", "comm". */
const char *fn_bench_mode_name(fn_bench_mode mode);

#endif
