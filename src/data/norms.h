/** @file norms.h
 *  Applying norms from several threads.
 */
#ifndef FN_DATA_NORMS_H
#define FN_DATA_NORMS_H

#include <fieldnet/device.h>
#include <fieldnet/network.h>

/** Apply a found norm in place to values [channels, cells]; `undo` inverts it. Thread-safe:
 *  built-in norms run at the same time, those of plug-ins one after another. */
fn_status fn_norm_apply(const fn_norm *norm, float *values, int64_t channels, int64_t cells,
                        bool undo, const fn_options *options);

/** The same for fn_device.convert; *known false for norms of plug-ins, which are functions. */
fn_status fn_norm_on_device(const fn_norm *norm, const fn_options *options, bool *known,
                            fn_raw_norm *kind, double *factor, double *shift);

#endif
