/** @file device_plan.h
 *  What a training step would do on a device, found and checked without one.
 */
#ifndef FN_RUN_DEVICE_PLAN_H
#define FN_RUN_DEVICE_PLAN_H

#include <stdio.h>

#include "run/sizes.h"

/** Plan the run's training step for its backend on an assumed device ("sm_90"), drive some steps of
 *  it against a device that only writes down, and print kernels, layouts, memory, streams, events.
 *  FN_ERR_INTERNAL when accesses are not ordered or values share memory that must not;
 *  FN_ERR_UNSUPPORTED for a backend without a device. Not collective. */
fn_status fn_device_plan(const fn_run *run, const fn_dist *dist, const fn_size_options *sizes,
                         const char *assumed, FILE *out);

#endif
