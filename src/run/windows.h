/** @file windows.h
 *  The parts of input and target that the loss compares with the network's output.
 */
#ifndef FN_RUN_WINDOWS_H
#define FN_RUN_WINDOWS_H

#include "data/dataset.h"
#include "graph/program.h"

typedef struct fn_windows {
  fn_graph *graph;
  fn_program *program; /**< outputs "input_window" and "target_window", float32, on the host */
} fn_windows;

/** Those of a batch in float32, for which the network need not run: bit for bit what an evaluation
 *  program has. The network's output must have spatial axes. To be freed also after a failure. */
fn_status fn_windows_cut(const fn_run *run, const fn_dataset_info *info, const fn_batch *batch,
                         fn_windows *windows);
void fn_windows_free(fn_windows *windows);

#endif
