/** @file cube_parts.h
 *  Cubes with two classes from inside: shared by the files of this room.
 */
#ifndef FN_DATA_CUBE_PARTS_H
#define FN_DATA_CUBE_PARTS_H

#include <mpi.h>
#include <pthread.h>

#include "data/cubes.h"
#include "data/parts.h"

/** What a data set of cubes has besides fn_dataset. */
typedef struct fn_cubes {
  fn_cube_file *file;
  int64_t *file_cube; /**< shape [info.files]: index into the file's cubes */
  bool whole;         /**< a sample is a whole cube */
  int axes;           /**< groups of slices per cube */
  int axis[3];        /**< their normals */
  bool transposed[3]; /**< groups whose slices lie on their side (compat) */
  int64_t stride, slices, transforms;
  bool random;       /**< a random group element per sample */
  double targets[2]; /**< of Newton and GR samples */
  MPI_Comm comm;     /**< MPI_COMM_NULL: not joined */
  bool announced;    /**< how cubes are read was said */
  /* the cube read last, for samples asked for one by one */
  pthread_mutex_t lock;
  void *cells;    /**< of the file's info.type */
  double mean;    /**< to be taken away */
  int64_t cached; /**< index into the file's cubes; -1: none */
} fn_cubes;

/** Open the file, or take over `file`, and fill info. On failure the data set owns what there is.
 */
fn_status fn_cubes_set_up(fn_dataset *dataset, fn_cube_file *file);
void fn_cubes_destroy(fn_cubes *cubes);
/** Bytes of one cube in memory. */
int64_t fn_cubes_bytes(const fn_dataset *dataset);
void fn_cubes_print(const fn_dataset *dataset, const char *title);
/** One sample: reads the whole cube unless it was the last one asked for. Thread-safe. */
fn_status fn_cubes_sample(fn_dataset *dataset, int64_t epoch, int64_t sample,
                          const fn_cube_room *room);

/** The mean that data.cubes.remove_mean takes away from a cube, summed in double precision; 0
 *  without it. cells: of the file's info.type. */
double fn_cubes_mean(const fn_dataset *dataset, const void *cells);
/** Cut one sample from its cube. Thread-safe. */
void fn_cubes_cut(const fn_dataset *dataset, int64_t epoch, int64_t sample, const void *cells,
                  double mean, const fn_cube_room *room);

#endif
