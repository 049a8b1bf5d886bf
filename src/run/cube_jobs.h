/** @file cube_jobs.h
 *  Preparing cubes over the ranks of a job: statistics, prepared files, comparison with the
 *  sources, random cubes. All functions are collective, and errors are agreed: every rank returns
 *  the same status and message.
 */
#ifndef FN_RUN_CUBE_JOBS_H
#define FN_RUN_CUBE_JOBS_H

#include "data/cube_source.h"
#include "data/cube_write.h"
#include "dist/dist.h"

/** Told on rank 0 how far a job is; may be NULL. */
typedef struct fn_ticker {
  void (*tick)(void *user, const char *what, int64_t done, int64_t total);
  void *user;
} fn_ticker;

/** work(user, item) for every item, one per rank at a time; the first failure ends it on all ranks
 *  before the next items. */
fn_status fn_cube_rounds(const fn_dist *dist, const char *what, int64_t items,
                         fn_status (*work)(void *user, int64_t item), void *user,
                         const fn_ticker *ticker);

/** Take the shape of the source from the first seed's GR cube, then compare all cubes of both
 *  theories, headers only. FN_ERR_DATA listing the files that are missing or differ. */
fn_status fn_cube_sources_check(const fn_dist *dist, fn_cube_source *source, const int64_t *seeds,
                                int64_t count);

/* ---- statistics --------------------------------------------------------------------------------
 */

/** Of both theories of some seeds: population variance about the common mean. */
typedef struct fn_cube_statistics {
  double mean, variance;
  int64_t cubes;
  double *cube_mean;     /**< [cubes], GR and Newton of the first seed, of the second, ... */
  double *cube_variance; /**< [cubes], about the cube's own mean */
} fn_cube_statistics;

/** Every cube is read once, its moments taken in two passes over memory and joined in the order of
 *  the seeds: the same bits on any number of ranks. Free with fn_cube_statistics_free(). */
fn_status fn_cube_statistics_compute(const fn_dist *dist, fn_cube_source *source,
                                     const int64_t *seeds, int64_t count, const fn_ticker *ticker,
                                     fn_cube_statistics *statistics);
void fn_cube_statistics_free(fn_cube_statistics *statistics);

/** Where statistics come from, for the record. */
typedef struct fn_statistics_entry {
  const char *snap; /**< "004", or "002-004" for a difference: group `snap004` of the file */
  double redshift;  /**< NaN: not told */
  const int64_t *seeds;
  int64_t count; /**< of seeds */
  const char *origin;
  fn_cube_statistics values;
} fn_statistics_entry;

/** One file with a group per entry: attributes mean, std, variance, seeds, redshift, origin,
 * dataset `values` [mean, std, variance] and per cube `seed`, `theory`, `mean`, `variance`. Rank 0
 * only. */
fn_status fn_cube_statistics_write(const char *path, const fn_statistics_entry *entries, int count);
/** Statistics of group `snap<snap>`, of the only group with snap NULL, or of an npy file of mean,
 *  std, variance. *seeds: ranges (malloc'ed), NULL when the file does not tell. Not collective. */
fn_status fn_cube_statistics_read(const char *path, const char *snap, double *mean, double *std,
                                  double *variance, char **seeds);

/* ---- prepared files ----------------------------------------------------------------------------
 */

typedef struct fn_pack_job {
  const char *path;
  fn_cube_source *source; /**< checked */
  fn_cube_plan plan;      /**< checked; statistics in it are given, or none */
  const int64_t *compute; /**< seeds to compute statistics from, or NULL */
  int64_t compute_count;
  bool force; /**< start over, also where a finished file is */
} fn_pack_job;

typedef struct fn_pack_figures {
  int64_t kept; /**< cubes found whole from an earlier start */
  double mean, std;
} fn_pack_figures;

/** Write the file. Beside it grows `path`.progress, from which a job that was killed goes on; a
 *  finished file, or one begun with other options, is not touched without `force`. */
fn_status fn_cube_pack(const fn_dist *dist, const fn_pack_job *job, const fn_ticker *ticker,
                       fn_pack_figures *figures);

/** Compare a prepared file with its sources. */
typedef struct fn_verify_job {
  const char *path;
  fn_cube_source *source; /**< NULL: compare with the checksums in the file only */
  int64_t sample;         /**< this many cubes, spread evenly; 0: all */
  double tolerance;       /**< largest difference allowed, in units of the file */
} fn_verify_job;

typedef struct fn_verify_figures {
  int64_t cubes, differing;
  double largest; /**< difference of a cell */
} fn_verify_figures;

/** FN_ERR_VERIFY with a list of the cubes that differ. */
fn_status fn_cube_verify(const fn_dist *dist, const fn_verify_job *job, const fn_ticker *ticker,
                         fn_verify_figures *figures);

/** Write raw files of a source, dataset `data` float64 in one chunk, as simulations do. */
fn_status fn_cube_write_raw(const fn_dist *dist, fn_cube_source *source, const fn_raw_cubes *raw,
                            const int64_t *seeds, int64_t count, bool force,
                            const fn_ticker *ticker);

#endif
