/** @file assemble.h
 *  Outputs of crops put back into whole fields; map2map page, section 2.9.
 */
#ifndef FN_RUN_ASSEMBLE_H
#define FN_RUN_ASSEMBLE_H

#include "dist/dist.h"
#include "run/engine.h"

/** Ranks that work on one file at a time. With at least as many files as ranks every rank is a
 * group of its own; else several ranks share the crops of one file and the first assembles. */
typedef struct fn_group {
  MPI_Comm comm;
  int rank, size;    /**< within the group */
  int index, groups; /**< of this group; files f with f mod groups == index are its own */
} fn_group;

/** Collective over the job. */
fn_status fn_group_create(const fn_dist *dist, int64_t files, fn_group *group);
void fn_group_destroy(fn_group *group);

/** A field under assembly: [channels, size...]; cells never covered stay 0. */
typedef struct fn_canvas {
  int spatial;
  int64_t channels, size[FN_MAX_SPATIAL];
  int64_t covered; /**< cells written so far, overlaps counted again */
  float *values;
} fn_canvas;

fn_status fn_canvas_create(int spatial, int64_t channels, const int64_t *size, fn_canvas *canvas);
void fn_canvas_destroy(fn_canvas *canvas);
/** Paste patch [channels, extent...] with its first cell at `start` (any integer, wrapped); later
 *  patches win. */
void fn_canvas_paste(fn_canvas *canvas, const float *patch, const int64_t *extent,
                     const int64_t *start);

#endif
