/** @file cube_feed.h
 *  Samples of cubes in the order of a list, cut from cubes that the ranks read together ahead of
 *  it: the part of a loader that knows cubes.
 */
#ifndef FN_DATA_CUBE_FEED_H
#define FN_DATA_CUBE_FEED_H

#include "data/cubes.h"

typedef struct fn_cube_feed fn_cube_feed;

/** Whether loaders of the data set need a feed: cubes, joined. */
bool fn_cube_feed_needed(const fn_dataset *dataset);

/** Start reading the cubes of list[0..count) in the order in which it needs them first. `so_far` is
 *  what the caller has come to: any rank's failure, there or here, is every rank's, and no feed
 *  is made then. Collective over the data set's communicator.
 *  @param[in] batch  samples per batch: ranks are taken to be at the same batch of their lists */
fn_status fn_cube_feed_create(fn_dataset *dataset, fn_status so_far, int64_t epoch,
                              const int64_t *list, int64_t count, int64_t batch,
                              fn_cube_feed **feed);
/** Sample list[index]; each is asked for once, in about the order of the list. Waits for its cube.
 *  Thread-safe, not collective. */
fn_status fn_cube_feed_sample(fn_cube_feed *feed, int64_t index, const fn_cube_room *room);
/** Collective; nobody may be in fn_cube_feed_sample(). */
void fn_cube_feed_destroy(fn_cube_feed *feed);
/** Success of all ranks of the data set's communicator, or the failure of the lowest that failed.
 *  Collective. */
fn_status fn_cube_feed_agree(const fn_dataset *dataset, fn_status status);

#endif
