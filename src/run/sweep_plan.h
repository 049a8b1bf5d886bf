/** @file sweep_plan.h
 *  What a sweep is: the `sweep:` section of a file, and its trials.
 *
 *  A trial is a run of its own: the run file of the sweep, the sweep's common settings, values for
 *  the sweep's parameters, and a folder of its own. Which values trial i has is a pure function of
 *  the file (of the method, the parameters and sweep.seed) and of i; nothing is remembered to know
 * it. Only trials of `method: ask` come from outside and live in the store (sweep_store.h).
 *
 *  Nothing here is collective: every rank reads the same file.
 */
#ifndef FN_RUN_SWEEP_PLAN_H
#define FN_RUN_SWEEP_PLAN_H

#include "base/text.h"
#include "config/sweep.h"

/** One trial; everything belongs to the arena it was made in. */
typedef struct fn_trial {
  int64_t id;      /**< 0, 1, ...; also in the name of its folder */
  int64_t setting; /**< which values; trials that differ in the seed only share it */
  int64_t repeat;  /**< which of the seeds */
  int set_count;
  const char **set;   /**< "path=value": parameters in the order of the file, then the seed, shape
                         [set_count]; what a person wants to see */
  const char *folder; /**< of this trial's run, as run.folder: "<sweep folder>/trial_0007" */
} fn_trial;

/** Read a sweep and the run it varies, check both, and check the settings of every trial against
 *  the table of keys.
 *
 *  @param[in]  path    a run file with a `sweep:` section, or a file with `run: RUN.yaml` (relative
 *                      to the file's folder), `sweep:` and, if wanted, `set:` (a mapping of
 *                      "key.path: value" for all trials)
 *  @param[out] sweep   free with fn_sweep_destroy; NULL on failure
 *  @param[out] errors  on FN_ERR_CONFIG every complaint as "file:line:column: message" with its
 *                      line, malloc'ed; NULL otherwise
 *  @return FN_ERR_CONFIG with a summary of how many there are */
fn_status fn_sweep_open(const char *path, fn_sweep **sweep, char **errors);
void fn_sweep_destroy(fn_sweep *sweep);

/** Trials of the plan: settings times seeds; 0 for `method: ask`. */
int64_t fn_sweep_trial_count(const fn_sweep *sweep);
/** Trial `id` of the plan. FN_ERR_CONFIG when there is none of that number. */
fn_status fn_sweep_trial_make(const fn_sweep *sweep, int64_t id, fn_arena *arena, fn_trial *trial);
/** A trial chosen outside: its values are given and `id` is the store's. */
fn_status fn_sweep_trial_from(const fn_sweep *sweep, int64_t id, const char *const *set,
                              int set_count, fn_arena *arena, fn_trial *trial);

/** All --set texts that make the sweep's run this trial, in order: common settings, the trial's
 *  values, checkpoint.best (the sweep's metric), folder. For command lines of separate programs.
 *  @param[out] set  shape [*count], in the arena */
void fn_sweep_trial_arguments(const fn_sweep *sweep, const fn_trial *trial, fn_arena *arena,
                              const char ***set, int *count);
/** The run of a trial: fn_run_load() of the sweep's run file with those texts. */
fn_status fn_sweep_trial_load(const fn_sweep *sweep, const fn_trial *trial, fn_command command,
                              fn_run **run, char **errors);

/** Values chosen outside must name parameters of the sweep, each that exists exactly once, with
 *  values that its key accepts; whether they lie in the range is the optimizer's business.
 *  FN_ERR_CONFIG naming the first that does not. */
fn_status fn_sweep_check_values(const fn_sweep *sweep, const char *const *set, int set_count);

/** Value of a parameter in a trial's texts, NULL when the parameter does not exist there. Points
 *  into `set`. */
const char *fn_trial_value(const fn_trial *trial, const char *path);

/* ---- sampling: sweep_sample.c ------------------------------------------------------------- */

/** Dimensions that fn_sobol_point knows. */
enum { FN_SOBOL_DIMENSIONS = 32 };
/** Coordinate `dimension` of point `index` of the Sobol sequence, in units of 2^-32; direction
 *  numbers of Joe & Kuo 2008 (new-joe-kuo-6). Point 0 is the origin; in natural, not Gray order of
 *  Antonov & Saleev, that of the definition: the first 2^k points are the same set in both. */
uint32_t fn_sobol_point(int dimension, uint32_t index);
/** The same, scrambled: a random linear matrix and a digital shift (Matousek 1998) that keep the
 *  balance of the sequence; a function of seed and dimension. */
uint32_t fn_sobol_scrambled(uint64_t seed, int dimension, uint32_t index);

/** Settings of a grid, without the repeats: combinations of all points, where parameters that do
 *  not exist under their condition add none. */
int64_t fn_sweep_grid_size(const fn_sweep *sweep);
/** Append "path=value" texts of setting `index` to `set` (room for all parameters). */
fn_status fn_sweep_setting(const fn_sweep *sweep, int64_t index, fn_arena *arena, const char **set,
                           int *count);

#endif
