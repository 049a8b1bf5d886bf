/** @file describe.h
 *  A network as a table, as JSON, or as a graph for Graphviz.
 */
#ifndef FN_RUN_DESCRIBE_H
#define FN_RUN_DESCRIBE_H

#include <stdio.h>

#include "run/sizes.h"

typedef enum fn_describe_form {
  FN_DESCRIBE_TABLE,
  FN_DESCRIBE_DOT,
  FN_DESCRIBE_JSON
} fn_describe_form;

/** Sums over a run's network and its programs for `batch` samples. */
typedef struct fn_network_totals {
  int64_t parameters;
  double forward_flops;  /**< of convolutions and matrix products, forward, per batch */
  double training_flops; /**< the same of a training step: forward and both gradients */
  size_t training_arena, evaluation_arena; /**< bytes */
  int kernels;                             /**< of a training step */
  int repeats;                             /**< of them, computing again what was dropped */
  double extra;                            /**< their part of a training step's time, estimated */
  char repeated[256];                      /**< their operators: "3 batch_norm, 1 conv" */
} fn_network_totals;

/** Plan both programs (nothing is allocated) and add up. */
fn_status fn_network_totals_find(fn_engine *engine, int64_t batch, fn_network_totals *totals);

/** Print the network for one sample: operator by operator as built, or with `training` kernel by
 *  kernel as a training step runs them. */
fn_status fn_describe(const fn_run *run, const fn_dist *dist, const fn_size_options *sizes,
                      fn_describe_form form, bool training, FILE *out);

#endif
