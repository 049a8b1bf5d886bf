/** @file reference_internal.h
 *  Shared by the reader and the writer of reference files only.
 */
#ifndef FN_RUN_REFERENCE_INTERNAL_H
#define FN_RUN_REFERENCE_INTERNAL_H

#include <hdf5.h>

#include "base/arena.h"
#include "run/reference_file.h"

struct fn_reference {
  const char *path;
  hid_t file;
  fn_arena *arena;
};

#endif
