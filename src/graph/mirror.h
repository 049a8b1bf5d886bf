/** @file mirror.h
 *  An array on the host and its twin on a device: which of them is up to date, and copies.
 */
#ifndef FN_GRAPH_MIRROR_H
#define FN_GRAPH_MIRROR_H

#include <fieldnet/backend.h>

/** Without a device the host's array is all there is, and nothing below does anything. Zeroed: an
 *  array of no bytes. */
typedef struct fn_mirror {
  fn_device *device; /**< NULL: none */
  size_t bytes;
  void *host;       /**< page-aligned */
  void *memory;     /**< the device's */
  void *pinned;     /**< what goes between them passes here; a part of it at a time */
  fn_event *copied; /**< the last copy that read `pinned` */
  bool host_newer, device_newer;
  bool borrowed; /**< the host's array is somebody else's */
} fn_mirror;

/** Both arrays zero. device NULL: the host's alone. */
fn_status fn_mirror_create(fn_device *device, size_t bytes, fn_mirror *mirror);
/** A twin of an existing array, which the device gets at the first fn_mirror_to_device. */
fn_status fn_mirror_attach(fn_device *device, void *host, size_t bytes, fn_mirror *mirror);
void fn_mirror_destroy(fn_mirror *mirror);

/** To be called by whoever has written the host's array. */
void fn_mirror_changed(fn_mirror *mirror);
/** To be called by whoever has put something on the compute stream that writes the device's. */
void fn_mirror_changed_on_device(fn_mirror *mirror);

/** Copy what is newer. To the device: put on the compute stream, waiting only for room. To the
 *  host: wait for the compute stream. */
fn_status fn_mirror_to_device(fn_mirror *mirror);
fn_status fn_mirror_to_host(fn_mirror *mirror);

#endif
