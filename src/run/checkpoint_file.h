/** @file checkpoint_file.h
 *  The HDF5 side of a state: datasets and attributes with checksums. Every function here wants the
 *  HDF5 lock held and returns FN_ERR_CHECKPOINT on failure. Those that go through the values of
 *  datasets give the lock up at each dataset, where others may want to read: nobody else may use
 *  the ids of the file.
 *
 *  Every dataset carries an attribute "crc32" over its bytes, every group one over the names and
 *  values of its attributes and over the names and checksums of its members, so that the root's
 *  covers the whole file. The file itself is sealed (field/hdf5.h).
 */
#ifndef FN_RUN_CHECKPOINT_FILE_H
#define FN_RUN_CHECKPOINT_FILE_H

#include <hdf5.h>

#include "graph/graph.h"

/** Open or create the group `name` of `parent`. */
fn_status fn_state_group(hid_t parent, const char *name, hid_t *group);
/** One dataset of f32 or f64, values of `shape` in C order. */
fn_status fn_state_put_tensor(hid_t group, const char *name, fn_dtype dtype, const fn_shape *shape,
                              const void *values);
fn_status fn_state_get_tensor(hid_t group, const char *name, fn_dtype dtype, void *values);
/** Shape of a dataset; *found false when there is none of that name. */
fn_status fn_state_tensor_shape(hid_t group, const char *name, bool *found, fn_shape *shape);
/** A text as a scalar string dataset. */
fn_status fn_state_put_text(hid_t group, const char *name, const char *text);
/** malloc'ed. */
fn_status fn_state_get_text(hid_t group, const char *name, char **text);

fn_status fn_state_set_integer(hid_t object, const char *name, int64_t value);
fn_status fn_state_set_real(hid_t object, const char *name, double value);
fn_status fn_state_set_text(hid_t object, const char *name, const char *text);
fn_status fn_state_get_integer(hid_t object, const char *name, int64_t *value);
fn_status fn_state_get_real(hid_t object, const char *name, double *value);

/** An attribute of shape [rows, columns]; reading fills *rows, at most `most`. */
fn_status fn_state_set_rows(hid_t object, const char *name, int rows, int columns,
                            const int64_t *values);
fn_status fn_state_get_rows(hid_t object, const char *name, int most, int columns, int *rows,
                            int64_t *values);

/** Call visit(user, name) for every member of a group, in bytewise order, until it fails. */
fn_status fn_state_members(hid_t group, fn_status (*visit)(void *user, const char *name),
                           void *user);

/** Write the checksums of all groups; the last thing done to a new file. */
fn_status fn_state_stamp(hid_t file);
/** How much of a state is checked when it is opened, beyond its seal; everything without one. */
typedef enum fn_state_care {
  FN_STATE_SEAL,   /**< nothing: the bytes are those that were written */
  FN_STATE_GROUPS, /**< names, attributes and the checksums stored with datasets */
  FN_STATE_VALUES  /**< everything: also values against those checksums */
} fn_state_care;
/** Open a state for reading: seal first, then HDF5. */
fn_status fn_state_open(const char *path, fn_state_care care, hid_t *file);

#endif
