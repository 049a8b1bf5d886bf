/** @file verify.h
 *  Compare a run's network with what another implementation computed (docs/verify.md).
 */
#ifndef FN_RUN_VERIFY_H
#define FN_RUN_VERIFY_H

#include <stdio.h>

#include "config/run.h"
#include "dist/dist.h"

typedef struct fn_verify_options {
  const char *reference; /**< HDF5 file */
  double factor;         /**< accepted multiple of the reference's own float32 error */
  double rtol;           /**< relative to the largest value of a tensor; < 0: not given */
  bool all;              /**< print every tensor, not only the worst of each group */
  const char *write;     /**< file for what was computed; NULL: none */
} fn_verify_options;

/** Compute what the reference holds from its weights and inputs and print the comparison. Network,
 *  loss and compute.* are those of the run; sizes and optimizers are the reference's.
 *  @return FN_ERR_VERIFY when a tensor is over its limit or missing on either side */
fn_status fn_verify(const fn_run *run, fn_dist *dist, const fn_verify_options *options, FILE *out);

#endif
