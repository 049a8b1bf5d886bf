/** @file placement.h
 *  Where the ranks of a job run.
 */
#ifndef FN_DIST_PLACEMENT_H
#define FN_DIST_PLACEMENT_H

#include "base/text.h"
#include "dist/dist.h"

/** A launcher started several processes that do not know each other, each the only rank of a job of
 *  its own: srun without PMIx, or the mpirun of another MPI library. FN_ERR_CONFIG with the remedy.
 *  Not collective; call it after MPI_Init. */
fn_status fn_launch_check(int size);
/** What can be seen of that before MPI_Init, which fails without saying what to do. */
fn_status fn_launch_foresee(void);

/** Warn when a batch job has several tasks and nobody launched them: the script lacks its srun.
 * That may be meant. Not collective. */
void fn_launch_doubt(int size);

/** A table with a line per rank - host, cores, NUMA nodes, threads, device - where neighbours that
 *  differ in nothing but the rank share a line. `device` of this rank, e.g. "cpu". *table is the
 *  text on rank 0, empty elsewhere. Collective. */
fn_status fn_placement_table(const fn_dist *dist, const char *device, fn_text *table);

/** "0-3,8" from the flags of `count` numbers into text; returns text. */
char *fn_ranges_text(const unsigned char *flag, int count, char *text, size_t size);

#endif
