/** @file cube_reader.h
 *  The three ways to read one round of cubes, one cube per rank; inside of cube_queue.h.
 */
#ifndef FN_DATA_CUBE_READER_H
#define FN_DATA_CUBE_READER_H

#include "data/cube_queue.h"

typedef struct fn_cube_reader fn_cube_reader;

/** Open what the path needs. `path` is not FN_CUBES_AUTO. Collective over comm, which the reader
 *  uses but does not own; fails on all ranks or none where `lock_step` is true, else MPI is not
 *  called at all. */
fn_status fn_cube_reader_create(fn_cube_file *file, MPI_Comm comm, fn_cube_path path,
                                bool lock_step, fn_cube_reader **reader);
/** Collective where creation was. */
void fn_cube_reader_destroy(fn_cube_reader *reader);

/** Read one round: this rank's cube (-1: none) into cells, float32 [D, H, W], all finite.
 *  Collective on the collective path. The failure of one rank is not told to the others here. */
fn_status fn_cube_reader_round(fn_cube_reader *reader, int64_t cube, float *cells);

/** Ask the system to fetch a cube that will be read soon; direct path only. */
void fn_cube_reader_announce(fn_cube_reader *reader, int64_t cube);

/** What HDF5 did so far. */
void fn_cube_reader_figures(const fn_cube_reader *reader, fn_cube_queue_figures *figures);

/** Failure of one rank made everybody's: status and message of the lowest failing rank, with its
 *  host. *all: whether `flag` was true on every rank; may be NULL. Collective. */
fn_status fn_cube_agree(MPI_Comm comm, fn_status status, bool flag, bool *all);

#endif
