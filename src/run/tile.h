/** @file tile.h
 *  Crops of test and prediction: larger than those of training where that saves work.
 */
#ifndef FN_RUN_TILE_H
#define FN_RUN_TILE_H

#include "dist/dist.h"
#include "run/engine.h"

typedef struct fn_tile {
  int64_t given; /**< 1: use `edge`, 0: keep the crops of the run */
  int64_t edge[FN_MAX_SPATIAL];
} fn_tile;

/** test.tile or, when it leaves that open, the tile with the fewest operations per field among
 * those that give the same cells as data.crop: their edges divide the field's and are multiples of
 * the network's total stride, as data.crop must be, so that every cell of the output lies alike on
 * the grids of all levels. The margin, computed anew for every tile, weighs less in larger ones:
 * with edge t and margin p a layer costs ((t + 2 p) / t)^3.
 *
 *  Keeps the run's crops when data.crop_start, crop_stop or crop_step is set, for networks without
 *  a rule of sizes (they may look beyond the margin) and when `memory` bytes are not enough.
 *  @param[in] target  a loss is computed
 *  @param[in] ranks   that share the tiles of a field
 *  Not collective. FN_ERR_CONFIG for a test.tile that cannot be. */
fn_status fn_tile_choose(const fn_run *run, const fn_dist *dist, const fn_dataset_info *info,
                         bool target, int ranks, size_t memory, fn_tile *tile);

/** This rank's share of the memory that the host's ranks may use, bytes. */
size_t fn_tile_memory(const fn_dist *dist);

#endif
