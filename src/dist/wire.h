/** @file wire.h
 *  Numbers as they travel between ranks, and their sums.
 */
#ifndef FN_DIST_WIRE_H
#define FN_DIST_WIRE_H

#include <fieldnet/backend.h>

/** to := weight * from, rounded once to the type of `to`; with weight 0 zero, whatever `from`
 *  holds. Types are equal, or float32 and bfloat16; `to` may be `from` where they are equal. */
void fn_wire_write(void *to, fn_dtype to_type, const void *from, fn_dtype from_type, int64_t count,
                   double weight);

/** to := from[0] + from[1] + ... in this order, elementwise; bfloat16 is added in float32 and
 *  rounded once at the end. `to` may be one of `from`. */
void fn_wire_sum(void *to, const void *const *from, int terms, fn_dtype type, int64_t count);

#endif
