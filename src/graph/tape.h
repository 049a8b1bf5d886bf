/** @file tape.h
 *  Work that is put on a device's compute stream again and again: recorded once, then replayed with
 *  one call (CUDA graphs).
 */
#ifndef FN_GRAPH_TAPE_H
#define FN_GRAPH_TAPE_H

#include <fieldnet/device.h>

/** Puts work on the compute stream. What is recorded has addresses and numbers of this call for
 *  ever: what changes must lie in memory that the work reads. */
typedef fn_status (*fn_put)(void *user);

/** Record what `put` puts, which does not run. FN_ERR_DEVICE: the device has failed; any other
 *  failure: this cannot be recorded, and the device works as before. */
fn_status fn_tape_record(fn_device *device, fn_put put, void *user, void **recording);

/** Work that is the same at every call. Zeroed: not played yet. */
typedef struct fn_tape {
  void *recording;
  int64_t plays;
  bool cannot; /**< be recorded: put anew at every call */
} fn_tape;

/** The first call puts the work (libraries find their feet), the second records it, and from then
 *  on it is replayed; what cannot be recorded is put at every call. */
fn_status fn_tape_play(fn_tape *tape, fn_device *device, fn_put put, void *user);
/** `device` may be NULL for a tape that was never played. */
void fn_tape_destroy(fn_tape *tape, fn_device *device);

#endif
