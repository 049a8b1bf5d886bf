/** @file saver.h
 *  States written by a thread of rank 0 while training goes on: a save takes the time of a copy in
 *  memory. Rank 0 only; all functions are for the thread that trains.
 *
 *  The thread calls no MPI and waits for no rank. It uses HDF5 under the lock of field/hdf5.h, one
 *  dataset at a time, so that threads which read data get in between. Such a thread may hold the
 *  lock in a collective read, waiting for other ranks; then the writer waits too, and with it,
 *  perhaps, the training thread of rank 0. That is no circle: the other ranks' readers met before
 *  they took their locks, each with room for what it reads (data/cube_reader.c), so that the read
 *  ends whatever the training threads do.
 */
#ifndef FN_RUN_SAVER_H
#define FN_RUN_SAVER_H

#include "run/checkpoint.h"

typedef struct fn_saver fn_saver;

/** What became of a save. */
typedef struct fn_save_result {
  fn_status status;   /**< the state is there under its name, and the links point to it; or not */
  char path[4096];    /**< of the state */
  char message[4096]; /**< when it failed */
  double waited;      /**< seconds until the save before was written */
  double snapshot;    /**< seconds of the copy */
  double seconds;     /**< of writing: flushed, read back, renamed; the last try */
  double retry_in;    /**< seconds to the next try, when it failed */
} fn_save_result;

/** Called by the functions below, in the calling thread, once for each try. */
typedef void (*fn_save_told)(void *user, const fn_save_result *result);

/** Ready to save `state` into run->folder. With `background` a snapshot's memory is taken and the
 *  thread started; without, fn_saver_save writes before it returns. run and what state points to
 *  must outlive the saver. */
fn_status fn_saver_create(const fn_run *run, const fn_state *state, bool background,
                          fn_save_told told, void *user, fn_saver **saver);
/** Waits for the write under way, and tells. NULL is allowed. */
void fn_saver_destroy(fn_saver *saver);

/** Save `state` as state_<index>.h5 and, with `best`, as the best one; older ones go by
 *  run->checkpoint. Waits for the write before. With a thread it returns when the state is copied,
 *  and the thread tries a write that failed again every checkpoint.retry_seconds until it succeeds
 *  or the next save takes its place; without, when the file is there or the write has failed, see
 *  fn_saver_retry_due(). A write that fails is told and leaves everything as it was. */
void fn_saver_save(fn_saver *saver, const fn_state *state, int64_t index, bool best);
/** Tell what has happened meanwhile. Cheap: to be called in every step. */
void fn_saver_poll(fn_saver *saver);
/** Wait for the write under way. Status and message are those of the last write: FN_OK when the
 *  last state given is on disk. */
fn_status fn_saver_wait(fn_saver *saver);
/** Without a thread: a failed save is to be made up for now, with the state as it has become. */
bool fn_saver_retry_due(const fn_saver *saver);
/** Seconds to be kept for a save that must be on disk: twice the longest write so far, and once
 *  more while one is under way. */
double fn_saver_foretell(fn_saver *saver);

#endif
