/** @file standin.h
 *  A stand-in for the CUDA runtime, cuDNN and cuBLASLt: their documented behaviour on the host, for
 *  tests of everything in src/backend/cuda that runs on the processor. Kernels run by their host
 *  executors, convolutions and products by plain loops. What the real libraries refuse is refused:
 *  memory of the wrong kind, recordings that are not allowed, events without a clock, descriptors
 *  that are not finished. Work is done when it is put on a stream, so that nothing is learnt about
 *  events: the emulated backend does that.
 *
 *  Environment
 *    STANDIN_DRIVER      CUDA version of the driver, 13000; 0: none is installed
 *    STANDIN_DEVICES     visible devices, 1
 *    STANDIN_CAPABILITY  compute capability, 90
 *    STANDIN_MEMORY      bytes of a device, 1e9
 *    STANDIN_LOCKED      bytes of host memory that can be locked, 1e9
 *    STANDIN_FAIL        "N CODE": from the Nth operation on, calls return that cudaError_t
 *    STANDIN_ENGINES     what cuDNN's engines do: "fail 0 2" (running fails), "build 1" (no plan),
 *                        "fuse 1" (no plan with bias or activation), "record 0" (cannot be
 *                        recorded); several, with commas in between
 *    STANDIN_EPILOGUES   0: cuBLASLt has no algorithm with bias or activation
 *    STANDIN_LOG         a file that gets a line per convolution or product that is run: its engine
 *                        or epilogue
 */
#ifndef STANDIN_H
#define STANDIN_H

#include <cuda_runtime_api.h>
#include <stdbool.h>

/** Work on a stream: done now, or recorded. `what` is copied (`bytes`). */
cudaError_t standin_put(cudaStream_t stream, void (*work)(const void *what), const void *what,
                        size_t bytes);
bool standin_is_recording(void);
/** What happens when something forbidden is done during a recording. */
void standin_spoil_recording(void);

#endif
