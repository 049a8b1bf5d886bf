/** @file cube_reader.h
 *  The three ways to read one round of cubes, one cube per rank; inside of cube_queue.h.
 */
#ifndef FN_DATA_CUBE_READER_H
#define FN_DATA_CUBE_READER_H

#include "data/cube_queue.h"

typedef struct fn_cube_reader fn_cube_reader;

/** What one rank reads in one round: `count` cubes (-1: none), as many on every rank. */
enum { FN_ROUND_MOST = 16 };
typedef struct fn_cube_round {
  int count;
  int64_t cube[FN_ROUND_MOST];
  int32_t slot[FN_ROUND_MOST]; /**< where each goes; -1 with cube -1 */
} fn_cube_round;

/** Room for cubes: shape [slots, D, H, W], cells of the file's info.type. */
typedef struct fn_cube_ring {
  char *memory; /**< NULL without slots */
  int64_t slots;
} fn_cube_ring;

/** Open what the path needs. `path` is not FN_CUBES_AUTO. Collective over comm, which the reader
 *  uses but does not own; fails on all ranks or none where `lock_step` is true, else MPI is not
 *  called at all. */
fn_status fn_cube_reader_create(fn_cube_file *file, MPI_Comm comm, fn_cube_path path,
                                bool lock_step, fn_cube_ring ring, fn_cube_reader **reader);
/** Collective where creation was. */
void fn_cube_reader_destroy(fn_cube_reader *reader);

/** Cubes per round that make the ranks' waiting for each other small beside the reading, at most
 *  FN_ROUND_MOST; the same on all ranks. */
int fn_cube_reader_batch(const fn_cube_reader *reader);
/** Read one round into the ring, all cells finite. Slots may be exchanged between the round's
 *  cubes. Collective on the collective path, after the ranks have met (fn_cube_least). The failure
 *  of one rank is not told to the others here. */
fn_status fn_cube_reader_round(fn_cube_reader *reader, fn_cube_round *round);

/** What HDF5 did so far. */
void fn_cube_reader_figures(const fn_cube_reader *reader, fn_cube_queue_figures *figures);

/** Failure of one rank made everybody's: status and message of the lowest failing rank, with its
 *  host. Collective. */
fn_status fn_cube_agree(MPI_Comm comm, fn_status status);
/** Wait for all ranks; the smallest of their values. Collective. */
fn_status fn_cube_least(MPI_Comm comm, int value, int *least);

#endif
