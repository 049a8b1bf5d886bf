/** @file geometry.h
 *  Sliding windows: what convolution and pooling share.
 */
#ifndef FN_OPS_GEOMETRY_H
#define FN_OPS_GEOMETRY_H

#include <fieldnet/backend.h>

enum { FN_SHAPE_TEXT = 160 }; /**< room for any shape written by fn_shape_text */

/** Copy of `given` (NULL: all ones) without zeros in stride, dilation and groups, and with the axes
 *  past `spatial` neutral. */
fn_conv_geometry fn_geometry_complete(const fn_conv_geometry *given, int spatial);
/** Check a complete geometry: `what` names the operator in the message. */
fn_status fn_geometry_check(const char *what, const fn_conv_geometry *geometry, int spatial);
/** Windows of `kernel` cells along one axis of `cells`: Dumoulin & Visin 2016, relationship 14 with
 *  two paddings; 0 when the kernel does not fit. */
int64_t fn_geometry_length(const fn_conv_geometry *geometry, int axis, int64_t cells,
                           int64_t kernel);

/** FN_ERR_CONFIG unless the shapes are equal: "`what`: `name` is [..], expected [..]". */
fn_status fn_shape_check(const char *what, const char *name, const fn_shape *found,
                         const fn_shape *expected);

/** Whether a reference kernel has enough to do to be worth waking threads. */
bool fn_worth_threads(const fn_node *node);

/** Spatial sizes of `shape` [N, C, s...] right-aligned in three axes, missing ones 1. */
void fn_spatial_sizes(const fn_shape *shape, int64_t sizes[FN_MAX_SPATIAL]);

#endif
