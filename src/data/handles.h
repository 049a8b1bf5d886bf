/** @file handles.h
 *  Open field files, limited in number and lent to one thread at a time.
 */
#ifndef FN_DATA_HANDLES_H
#define FN_DATA_HANDLES_H

#include "field/field.h"

typedef struct fn_handles fn_handles;

/** HDF5 files carry a chunk cache and a descriptor each; they count this many times. */
enum { FN_HANDLES_DEFAULT = 512, FN_HANDLES_HDF5_WEIGHT = 8 };

/** Keep at most `limit` files open while unused; more only when more threads than that read. */
fn_status fn_handles_create(int limit, fn_handles **handles);
/** Nothing may be lent. */
void fn_handles_destroy(fn_handles *handles);

/** Borrow the file `path`, opened (packed or not) if it is not; `key` identifies it, equal keys
 *  mean equal paths. Two threads that borrow one file get a handle each, because a field may be
 *  read by one thread at a time. Thread-safe. */
fn_status fn_handles_take(fn_handles *handles, int64_t key, const char *path, bool packed,
                          fn_field **field);
/** Give back what fn_handles_take() lent. Thread-safe. */
void fn_handles_return(fn_handles *handles, fn_field *field);
/** Sum of the weights of all open files. */
int fn_handles_open(fn_handles *handles);

#endif
