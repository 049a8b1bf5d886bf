/** @file recorder.h
 *  A device that does nothing but write down what it is told: who touches which memory on which
 *  stream, and which events order it. The code that drives a real device drives it too, so that
 * what is checked is what runs; no device is needed.
 *
 *  Its memory cannot be read or written; pinned memory is real. Not thread-safe, not collective.
 */
#ifndef FN_GRAPH_RECORDER_H
#define FN_GRAPH_RECORDER_H

#include <fieldnet/backend.h>

typedef struct fn_recorder fn_recorder;

/** `name` and compute capability (9, 0) of the device that is assumed. */
fn_status fn_recorder_create(const char *name, int major, int minor, fn_recorder **recorder);
void fn_recorder_destroy(fn_recorder *recorder);
fn_device *fn_recorder_device(fn_recorder *recorder);

/** Bytes touched. */
typedef struct fn_access {
  const void *start;
  size_t bytes;
  bool writes;
} fn_access;

/** Something on the compute stream that is no call of fn_device: a kernel. */
fn_status fn_recorder_kernel(fn_recorder *recorder, const char *name, const fn_access *access,
                             int count);
/** The host itself touches pinned memory. */
fn_status fn_recorder_host(fn_recorder *recorder, const char *name, const void *start, size_t bytes,
                           bool writes);

typedef struct fn_recorder_counts {
  int64_t operations[FN_STREAM_COUNT]; /**< without records and waits */
  int64_t records, waits;              /**< of events, by streams */
  int64_t host_waits;
  int events;
  size_t device_bytes, pinned_bytes; /**< largest so far */
} fn_recorder_counts;
void fn_recorder_count(const fn_recorder *recorder, fn_recorder_counts *counts);

/** Whether two operations touch the same memory, one of them writing, and nothing orders them:
 *  vector clocks over streams and host. FN_ERR_INTERNAL names both. `without`: number of an event
 *  that is taken out, -1: none. */
fn_status fn_recorder_check(const fn_recorder *recorder, int without);
/** Whether any stream waits for the event: whether it orders anything but the host. */
bool fn_recorder_orders(const fn_recorder *recorder, int event);

#endif
