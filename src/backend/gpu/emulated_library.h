/** @file emulated_library.h
 *  Library calls of the emulated device, done on the spot.
 */
#ifndef FN_BACKEND_GPU_EMULATED_LIBRARY_H
#define FN_BACKEND_GPU_EMULATED_LIBRARY_H

#include "backend/gpu/gpu.h"

fn_status fn_emulated_call_prepare(fn_gpu_platform *platform, fn_gpu_call *call);
/** Runs at once; a device with streams calls it when the call's turn has come. */
fn_status fn_emulated_call_run(fn_gpu_platform *platform, const fn_gpu_call *call,
                               const fn_gpu_addresses *at);
void fn_emulated_call_release(fn_gpu_platform *platform, fn_gpu_call *call);

#endif
