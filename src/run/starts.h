/** @file starts.h
 *  Starts that died: a run that twice could not get from a state to the next one takes the state
 *  before it. Counted in folder/starts.txt, a line for each state: name, time of its file, starts
 *  from it that ended without a later state. Rank 0 only, which holds the folder's lock.
 */
#ifndef FN_RUN_STARTS_H
#define FN_RUN_STARTS_H

#include "config/run.h"

/** Replace *path, a state of run->folder that training is to go on from (malloc'ed), by the newest
 *  older one that fewer starts died from than run->checkpoint.fall_back_after, and say so. It stays
 *  when there is none. */
fn_status fn_starts_choose(const fn_run *run, char **path);
/** A start from the state at `path` begins: until it is settled, it counts as one that died. */
fn_status fn_starts_note(const char *folder, const char *path);
/** It was no crash: `path` counts one start less. What cannot be written is left. */
void fn_starts_settle(const char *folder, const char *path);
/** There is a later state, or the run ended well: nothing counts any more. */
void fn_starts_forget(const char *folder);

#endif
