/** @file cube_queue.h
 *  Cubes read ahead of the training loop by one I/O thread per rank, in lock step over the ranks.
 *
 *  Each rank has a list of cubes in the order in which it will need them; round k reads the k-th of
 *  every rank. Three ways to read behind one interface, see docs/cubes.md:
 *    collective   parallel HDF5, hyperslabs of the packed dataset; for many datasets each cube of a
 *                 round is read by all ranks together, a slab each, then exchanged
 *    independent  each rank reads its own cubes through HDF5
 *    direct       positioned reads at the datasets' offsets (contiguous layout only)
 */
#ifndef FN_DATA_CUBE_QUEUE_H
#define FN_DATA_CUBE_QUEUE_H

#include <mpi.h>

#include "field/cube_file.h"

typedef enum fn_cube_path {
  FN_CUBES_AUTO,
  FN_CUBES_COLLECTIVE,
  FN_CUBES_INDEPENDENT,
  FN_CUBES_DIRECT
} fn_cube_path;

/** "auto", "collective", "independent", "direct", as data.read spells them. */
const char *fn_cube_path_name(fn_cube_path path);
/** The path of that name; FN_CUBES_AUTO for any other. */
fn_cube_path fn_cube_path_named(const char *name);

typedef struct fn_cube_queue fn_cube_queue;

typedef struct fn_cube_queue_options {
  fn_cube_path path;
  int64_t resident; /**< cubes held at most, >= needed by the consumer at once, see below */
  /** Called once per list position on the I/O thread, before anyone sees the cells; may be NULL. */
  void (*prepare)(void *user, int64_t position, int64_t cube, void *cells);
  void *user;
} fn_cube_queue_options;

/** Which of the three automatic choice takes, and why, in words (static text). Not collective. */
fn_cube_path fn_cube_path_choose(const fn_cube_file_info *info, int ranks, bool thread_multiple,
                                 const char **reason);

/** Start reading list[0..count) (indices into the file's cubes, copied; ranks may have different
 *  counts, also 0). Collective over comm, which is duplicated. With less than MPI_THREAD_MULTIPLE
 *  and a path that needs MPI, FN_ERR_CONFIG.
 *
 *  The consumer needs positions in ascending windows: it must be able to go on while at most
 *  `resident` of them are unreleased. When ranks differ by at most `w` positions in what they need
 *  at one step, resident >= 2 w never waits in a circle. */
fn_status fn_cube_queue_create(fn_cube_file *file, MPI_Comm comm, const int64_t *list,
                               int64_t count, const fn_cube_queue_options *options,
                               fn_cube_queue **queue);
/** Stop after the round in progress, which the ranks agree on. Collective over the comm of
 *  creation. Nothing may be borrowed. */
fn_status fn_cube_queue_destroy(fn_cube_queue *queue);

/** The cells of list position `position`, of the file's info.type, [D, H, W]; waits until they are
 *  read. They stay until fn_cube_queue_release(position). Thread-safe, not collective. An error of
 *  any rank's reading is every rank's error: the first one in time, naming rank, file and cube. */
fn_status fn_cube_queue_get(fn_cube_queue *queue, int64_t position, const void **cells);
/** No one will ask for this position again. Thread-safe. */
void fn_cube_queue_release(fn_cube_queue *queue, int64_t position);

typedef struct fn_cube_queue_figures {
  fn_cube_path path;
  int64_t cubes, bytes;   /**< read for this rank */
  double reading, waited; /**< seconds of the I/O thread in reads; of fn_cube_queue_get */
  int64_t collective_reads, independent_reads; /**< what HDF5 really did (H5Pget_mpio_actual_...) */
  char cause[160]; /**< why HDF5 did not read collectively; "" when it did or was not asked */
} fn_cube_queue_figures;
void fn_cube_queue_get_figures(fn_cube_queue *queue, fn_cube_queue_figures *figures);

/** Copy `file` into `folder` once per node: one rank per node copies, checksums (FNV-1a) and an
 *  index beside it let a restart use the copy again. *staged: path of the copy (malloc'ed).
 *  Collective over comm. FN_ERR_DATA when it does not fit. */
fn_status fn_cube_stage(const char *path, const char *folder, MPI_Comm comm, char **staged);

#endif
