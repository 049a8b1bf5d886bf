/** @file hdf5_describe.h
 *  How HDF5 files keep their data, in words.
 */
#ifndef FN_FIELD_HDF5_DESCRIBE_H
#define FN_FIELD_HDF5_DESCRIBE_H

#include <fieldnet/fieldnet.h>

#include "base/text.h"

/** An HDF5 file that stays open while it is described. */
typedef struct fn_hdf5_view fn_hdf5_view;
/** Takes the HDF5 lock, as all here. FN_ERR_DATA. */
fn_status fn_hdf5_view_open(const char *path, fn_hdf5_view **view);
void fn_hdf5_view_close(fn_hdf5_view *view);

/** "<f4 [64, 64, 64], chunks [16, 64, 64], shuffle, gzip 4", one line without end. */
void fn_hdf5_view_storage(fn_hdf5_view *view, const char *dataset, fn_text *text);
/** Number of axes of a dataset; -1 when it cannot be opened. */
int fn_hdf5_view_axes(fn_hdf5_view *view, const char *dataset);
/** Bytes on disk of the cells; 0 when none are. */
int64_t fn_hdf5_view_bytes(fn_hdf5_view *view, const char *dataset);
/** "name = value" for each attribute of an object ("/" is the root), each with `indent` before and
 *  a line end after it. Long values are cut. */
void fn_hdf5_view_attributes(fn_hdf5_view *view, const char *object, const char *indent,
                             fn_text *text);

#endif
