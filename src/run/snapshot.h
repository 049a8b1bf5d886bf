/** @file snapshot.h
 *  A copy of all that goes into a state, for a thread that writes it while training goes on.
 */
#ifndef FN_RUN_SNAPSHOT_H
#define FN_RUN_SNAPSHOT_H

#include "run/checkpoint.h"

typedef struct fn_snapshot fn_snapshot;

/** Memory for copies of `state`, which has every part but the configuration, touched already so
 *  that the first copy is as fast as the others. Names and shapes stay those of the original, which
 *  must outlive the snapshot. Not collective. */
fn_status fn_snapshot_create(const fn_run *run, const fn_state *state, fn_snapshot **snapshot);
void fn_snapshot_destroy(fn_snapshot *snapshot);
/** Copy `state`, with the memory and sizes that the snapshot was made for. */
void fn_snapshot_take(fn_snapshot *snapshot, const fn_state *state);
/** The copy, to be saved; the configuration is the original's. */
const fn_state *fn_snapshot_state(const fn_snapshot *snapshot);
/** Bytes of memory of a snapshot of `parameters`, of so many arrays of an optimizer. */
int64_t fn_snapshot_bytes(const fn_parameters *parameters, int optimizer_arrays, bool ema);

#endif
