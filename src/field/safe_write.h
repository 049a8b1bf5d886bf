/** @file safe_write.h
 *  Files that appear whole or not at all: written beside their place, flushed, renamed.
 */
#ifndef FN_FIELD_SAFE_WRITE_H
#define FN_FIELD_SAFE_WRITE_H

#include <fieldnet/fieldnet.h>

/** "path.<pid>.tmp" into temporary. */
fn_status fn_temporary_name(const char *path, char *temporary, size_t size);
/** Flush `temporary` to disk, rename it to `path`, flush the folder. On failure `temporary` is
 *  removed and `path` is as it was. */
fn_status fn_commit_file(const char *temporary, const char *path);
/** Header of an npy file of float32 values (format 1.0), padded with blanks so that the values
 * start at a multiple of 64. Returns its length. */
size_t fn_npy_header_text(char *text, size_t size, int ndim, const int64_t *shape);
/** Folder part of a path ("." when there is none) into folder. */
void fn_folder_of(const char *path, char *folder, size_t size);

#endif
