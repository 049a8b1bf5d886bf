/** @file hdf5.h
 *  What every room that speaks HDF5 shares: one lock, one way to report its errors.
 */
#ifndef FN_FIELD_HDF5_H
#define FN_FIELD_HDF5_H

#include <fieldnet/device.h>
#include <hdf5.h>

/** HDF5 is not thread-safe when built for MPI: hold this lock around every group of HDF5 calls, ids
 *  included. Not recursive. Also silences HDF5's own error printing. Threads get it in the order in
 *  which they came: one that gives it up and takes it again, as the writer of a state does between
 *  data sets, lets in whoever waits. */
void fn_hdf5_lock(void);
void fn_hdf5_unlock(void);

/** The innermost entry of HDF5's error stack of the last failed call, e.g. "unable to open file:
 *  truncated file: eof = 100, ..."; "" when there is none. Returns text. Lock held. */
char *fn_hdf5_reason(char *text, size_t size);

/** Property list for opening a file for reading: no file locks, which many cluster file systems
 *  lack and readers of finished files do not need. To be closed with H5Pclose. Lock held. */
hid_t fn_hdf5_read_access(void);
/** Open a file for reading. The system's reason comes before HDF5's. FN_ERR_DATA. Lock held. */
fn_status fn_hdf5_open_file(const char *path, hid_t *file);

/** Name of a type as numpy writes it ("<f4"), or of its class when it is not a number. Returns true
 *  for numbers. Lock held. */
bool fn_hdf5_type_name(hid_t type, char *name, size_t size);
/** What a device reads of the type as it is, but for the byte order: numbers that fill their bytes;
 *  FN_RAW_NONE: another type. Lock held. */
fn_raw_type fn_hdf5_raw(hid_t type);

/** A new HDF5 file in memory. HDF5 does not survive a full disk (a failed flush leaves the library
 *  in a state that crashes at exit), so files are built in memory and written by ourselves.
 *  `increment`: bytes to reserve, about the size of the file. Close with H5Fclose. Lock held. */
fn_status fn_hdf5_image_create(size_t increment, hid_t *file);
/** Write the image to `path` and flush it to disk; a file that cannot be written whole is removed.
 *  `sealed`: append a checksum of all bytes before it, which HDF5 and its tools ignore.
 *  FN_ERR_DATA with the system's reason. Lock held; given up while the bytes go to disk. */
fn_status fn_hdf5_image_write(hid_t file, const char *path, bool sealed);
/** Compare a sealed file with its checksum before HDF5 looks at it. *sealed is false when the file
 *  does not end in a seal (it was rewritten by another program, or cut). FN_ERR_DATA when bytes
 *  have changed. Calls no HDF5: no lock. */
fn_status fn_hdf5_check_seal(const char *path, bool *sealed);

#endif
