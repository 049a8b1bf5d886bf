/** @file bench.h
 *  Time training steps of one rank on random numbers, whole and by kernel.
 */
#ifndef FN_RUN_BENCH_H
#define FN_RUN_BENCH_H

#include <stdio.h>

#include "run/sizes.h"

typedef struct fn_bench_options {
  int64_t steps, warmup;
  int64_t batch; /**< samples of a step */
  bool all;      /**< print every kernel */
  fn_size_options sizes;
  const char *json; /**< file for all numbers; NULL: none */
} fn_bench_options;

/** Print the time of a step (median), its kernels, the sum of its convolutions timed alone, and
 *  memory. Random numbers stand for data; times of reading and of communication are not in it. */
fn_status fn_bench(const fn_run *run, fn_dist *dist, const fn_bench_options *options, FILE *out);

#endif
