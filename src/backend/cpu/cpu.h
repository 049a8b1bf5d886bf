/** @file cpu.h
 *  What others may ask of kernels of the cpu backend besides running them.
 */
#ifndef FN_BACKEND_CPU_CPU_H
#define FN_BACKEND_CPU_CPU_H

#include <fieldnet/backend.h>

/** Run only oneDNN's primitive of the kernel, after one warm-up: on the kernel's own buffers, which
 *  overwrites its outputs, or, where a kernel of ours runs in its place, on memory of its own.
 *  *seconds: of one execution; 0 when the kernel has no such primitive.
 *  @return FN_ERR_INTERNAL when the kernel has never run (its scratch memory is not known yet) */
fn_status fn_cpu_time_primitive(const fn_kernel *kernel, double *seconds);

/** Channels per block of the blocked layout: 16 with AVX-512, else 8. */
int64_t fn_cpu_block(void);

typedef enum fn_winograd_mode {
  FN_WINOGRAD_AUTO,   /**< where it is faster */
  FN_WINOGRAD_NO,     /**< direct sums everywhere */
  FN_WINOGRAD_ALWAYS, /**< wherever it is possible; for tests */
} fn_winograd_mode;

/** Which convolutions planned from now on take minimal filtering. Not to be changed between the
 *  plan of a program and its preparation. */
void fn_cpu_set_winograd(fn_winograd_mode mode);

#endif
