/** @file bench_cubes.h
 *  Time the ways of reading cubes, beside plain reading of the same bytes.
 */
#ifndef FN_RUN_BENCH_CUBES_H
#define FN_RUN_BENCH_CUBES_H

#include <stdio.h>

#include "dist/dist.h"

typedef struct fn_bench_cubes_options {
  int64_t repeats;  /**< times that each way is measured, in turns; the median counts */
  int64_t most;     /**< bytes read at most each time, all ranks together */
  const char *json; /**< file for all numbers; NULL: none */
} fn_bench_cubes_options;

/** Read a file of cubes in every way that suits it, through the read-ahead queue, from the page
 *  cache and after asking the system to drop the file from it; print GB/s of all ranks together and
 *  ratios to read(2). Collective. */
fn_status fn_bench_cubes(const char *path, const fn_dist *dist,
                         const fn_bench_cubes_options *options, FILE *out);

#endif
