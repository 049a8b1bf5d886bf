/** @file epoch.h
 *  Which samples a rank takes in an epoch, also after a restart on another number of ranks.
 */
#ifndef FN_RUN_EPOCH_H
#define FN_RUN_EPOCH_H

#include "run/checkpoint.h"

/** This rank's samples of what is left of an epoch.
 *
 *  The stretches recorded in progress are taken off the epoch's order one after another: in each,
 * rank r of `ranks` has done the first batches * batch samples of its slice. When the last stretch
 * has the same ranks and batch as now, its slices are kept and list starts where it stopped; else
 * what is left is divided anew. Identical decisions on every rank.
 *
 *  @param[in]  order  the epoch's order, shape [samples]
 *  @param[out] list   this rank's slice, malloc'ed, shape [count]
 *  @param[out] first  batches of list already done (same ranks and batch), else 0 */
fn_status fn_epoch_list(const fn_progress *progress, const int64_t *order, int64_t samples,
                        int rank, int size, int64_t batch, int64_t **list, int64_t *count,
                        int64_t *first);

/** Record that every rank has done one more batch. */
void fn_epoch_advance(fn_progress *progress, int size, int64_t batch);

/** A stretch can be recorded for this job size: false when too many different ones were used inside
 *  one epoch. */
bool fn_epoch_has_room(const fn_progress *progress, int size, int64_t batch);

#endif
