/** @file ring.h
 *  The way of batches to a device: slots of pinned host memory in turn, filled by readers, copied
 * on FN_STREAM_IN to one of two stages in the device's memory, and used from there on the compute
 *  stream. An event per slot tells when it was read and its stage has arrived, an event per stage
 *  when it was used.
 *
 *  All functions are called by the thread that opened the device; slots may be written by any.
 */
#ifndef FN_DATA_RING_H
#define FN_DATA_RING_H

#include <fieldnet/device.h>

typedef struct fn_ring fn_ring;

/** `slots` (2 or more) of `bytes`, and two stages. FN_ERR_MEMORY. */
fn_status fn_ring_create(fn_device *device, int64_t slots, size_t bytes, fn_ring **ring);
/** Waits for what is on its way. NULL is fine. */
void fn_ring_destroy(fn_ring *ring);
/** Whether it has at least so many slots and bytes. NULL: no. */
bool fn_ring_fits(const fn_ring *ring, int64_t slots, size_t bytes);

/** To be written between fn_ring_reclaim() and fn_ring_send(). */
void *fn_ring_slot(const fn_ring *ring, int64_t slot);
/** Wait until the device has read the slot: it may be written again, and what a stage holds of it
 * is forgotten. */
fn_status fn_ring_reclaim(fn_ring *ring, int64_t slot);
/** Whether fn_ring_reclaim() would not wait. */
fn_status fn_ring_was_read(fn_ring *ring, int64_t slot, bool *yes);

/** Put the first `bytes` of a slot on their way, unless a stage holds them. The stage that was
 * filled longest ago is overwritten, after its last use: send one slot while another is used. */
fn_status fn_ring_send(fn_ring *ring, int64_t slot, size_t bytes);
/** Let the compute stream wait for the slot; *memory is its stage. FN_ERR_INTERNAL when it was not
 * sent. */
fn_status fn_ring_use(fn_ring *ring, int64_t slot, const void **memory);
/** What was put on the compute stream up to now is all that uses the slot's stage. */
fn_status fn_ring_used(fn_ring *ring, int64_t slot);

#endif
