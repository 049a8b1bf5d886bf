/** @file code.h
 *  Code shared by host and device: included by C (host executor) and by CUDA.
 *
 *  A kernel is a function body(args, thread, shared, phase) of one thread in a 1-d grid of 1-d
 *  blocks. Between two phases all threads of a block meet; what a thread must remember from one
 *  phase to the next lies in `shared`. The same body runs as a __global__ function on a device and,
 *  with blocks and threads as loops, on the host.
 */
#ifndef FN_BACKEND_GPU_CODE_H
#define FN_BACKEND_GPU_CODE_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/shared_code.h"

/** Where a thread is. */
typedef struct fn_thread {
  int64_t block, blocks; /**< of the grid */
  int index, count;      /**< in the block, threads of the block */
} fn_thread;

/** Index of the thread in the grid, and the number of all threads: the start and the stride of a
 *  loop over elements. */
FN_DEVICE int64_t fn_thread_first(fn_thread t) {
  return t.block * t.count + t.index;
}
FN_DEVICE int64_t fn_thread_stride(fn_thread t) {
  return t.blocks * t.count;
}

enum { FN_GPU_THREADS = 256 };

#endif
