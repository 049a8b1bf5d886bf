/** @file cube_read.h
 *  Cube files from inside: the ways to read that the queue of the data room chooses between.
 */
#ifndef FN_FIELD_CUBE_READ_H
#define FN_FIELD_CUBE_READ_H

#include <pthread.h>

#include "base/arena.h"
#include "field/cube_file.h"
#include "field/hdf5.h"

struct fn_cube_file {
  fn_cube_file_info info;
  fn_arena *arena;
  int64_t cells;        /**< of a cube */
  int64_t bytes;        /**< of the file when its metadata were read */
  pthread_mutex_t lock; /**< guards fd while it is opened */
  int fd;               /**< -1 until someone reads */
  hid_t hdf5, dataset;  /**< -1 until someone reads through HDF5; guarded by the HDF5 lock */
};

/* Cells are of info.type and in the byte order of the machine. */

/** Positioned reads, checked while the cells are in cache. The cube must have an offset.
 *  Thread-safe, takes no lock. */
fn_status fn_cube_read_direct(fn_cube_file *file, int64_t cube, void *cells);
/** H5Dread of one cube, any type and layout, checked. Takes the HDF5 lock. */
fn_status fn_cube_read_hdf5(fn_cube_file *file, int64_t cube, void *cells);

/** FN_ERR_DATA naming the first of `count` cells that is not finite; cells[0] is cell number
 *  `first` of the cube, C order. */
fn_status fn_cube_check_cells(const fn_cube_file *file, int64_t cube, int64_t first,
                              const void *cells, int64_t count);
/** FN_ERR_DATA when the file is shorter than when its metadata were read: both HDF5 and MPI-IO
 *  return zeros for what is missing. To be asked after reading. */
fn_status fn_cube_check_length(fn_cube_file *file);

/** Type of the cells of an open dataset in memory, for HDF5 to read into; the same on disk where
 *  info.type is the file's and so is the byte order. To be closed with H5Tclose. HDF5 lock held. */
hid_t fn_cube_memory_type(const fn_cube_file_info *info, hid_t dataset);

/** Chunk cache that suits reading whole cubes of the packed dataset: none, unless chunks reach over
 *  several cubes. To be closed with H5Pclose. HDF5 lock held. */
hid_t fn_cube_dataset_access(const fn_cube_file_info *info);

/** An empty file object to be filled; path is copied. NULL: out of memory. */
fn_cube_file *fn_cube_file_new(const char *path);
/** The name of a cube whose file does not tell one. */
const char *fn_cube_make_name(fn_arena *arena, int64_t seed, int theory);

#endif
