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
/** Folder part of a path ("." when there is none) into folder. */
void fn_folder_of(const char *path, char *folder, size_t size);

#endif
