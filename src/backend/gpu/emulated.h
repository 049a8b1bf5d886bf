/** @file emulated.h
 *  The inside of the emulated device: memory that knows its bounds, streams that run late.
 *
 *  Operations are put into the queue of their stream and run when the host waits, one by one, in an
 *  order drawn from a seed that respects the order of each stream and events, and nothing else:
 * what the caller did not order happens in some run in the wrong order.
 *
 *  Environment, read when the device is opened:
 *    FIELDNET_EMULATED_ORDER    seed of the order (0); above 0 threads and blocks go in turns too
 *    FIELDNET_EMULATED_MEMORY   bytes of device memory; more is FN_ERR_MEMORY (no limit)
 *    FIELDNET_EMULATED_DEVICES  devices of the node (as many as there are ranks)
 *    FIELDNET_EMULATED_LOST     operations after which the device is lost, FN_ERR_DEVICE (never)
 *    FIELDNET_EMULATED_TRACE    a file (none): "launch NAME" for every kernel that the host puts on
 *                               a stream, "replay N" for a recording of N operations, "update" for
 *                               every optimizer step on its way, by either, and "wait RAN LEFT"
 *                               whenever the host waited for operations to run: how many ran, how
 *                               many the compute stream has left
 */
#ifndef FN_BACKEND_GPU_EMULATED_H
#define FN_BACKEND_GPU_EMULATED_H

#include "backend/gpu/gpu.h"

typedef enum fn_emulated_kind {
  FN_EMULATED_COPY,
  FN_EMULATED_CLEAR,
  FN_EMULATED_KERNEL,
  FN_EMULATED_CALL,
  FN_EMULATED_RECORD,
  FN_EMULATED_WAIT,
} fn_emulated_kind;

/** Something put on a stream. */
typedef struct fn_emulated_operation {
  fn_emulated_kind kind;
  void *to;
  const void *from;
  int64_t count; /**< bytes, elements or blocks */
  int threads;
  const fn_gpu_kernel *kernel;
  void *args; /**< of the kernel; the operation's own */
  const fn_gpu_call *call;
  fn_gpu_addresses at;
  fn_event *event;
  uint64_t record; /**< of the event: made by this one, or waited for */
} fn_emulated_operation;

struct fn_event {
  uint64_t recorded; /**< records put on streams so far */
  uint64_t passed;   /**< the last of them that has run */
  double time;       /**< when that was, of fn_clock() */
};

/** A stream's queue, or a recording. */
typedef struct fn_emulated_queue {
  fn_emulated_operation *operation;
  int64_t first, count, capacity; /**< operations first .. count - 1 have not run */
} fn_emulated_queue;

extern fn_gpu_platform fn_emulated_platform;

/* ---- memory: emulated_memory.c ----------------------------------------------------------------
 */

typedef enum fn_emulated_space { FN_EMULATED_DEVICE, FN_EMULATED_PINNED } fn_emulated_space;

/** Memory filled with rubbish (NaN), with guards around it. */
fn_status fn_emulated_allocate(fn_emulated_space space, size_t bytes, void **memory);
/** Checks the guards. */
fn_status fn_emulated_release(fn_emulated_space space, void *memory);
/** Whether bytes .. lie inside one live block of the space; the message says what they are instead.
 *  Not for no bytes. */
fn_status fn_emulated_inside(fn_emulated_space space, const void *memory, size_t bytes,
                             const char *what);
/** Whether nothing was written around any block. */
fn_status fn_emulated_guards(void);
size_t fn_emulated_bytes(fn_emulated_space space);
void fn_emulated_limit(size_t bytes);

/* ---- streams: emulated_streams.c --------------------------------------------------------------
 */

/** Append a copy of the operation. */
fn_status fn_emulated_put(fn_emulated_queue *queue, const fn_emulated_operation *operation);
void fn_emulated_queue_clear(fn_emulated_queue *queue);
/** Do what it says. */
fn_status fn_emulated_perform(fn_gpu_platform *platform, fn_emulated_operation *operation);

#endif
