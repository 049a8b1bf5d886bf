/** @file sweep_table.h
 *  A sweep for people: its trials as a table, the state of all, the best, pictures. Nothing here is
 *  collective; all of it works while others work on the sweep.
 */
#ifndef FN_REPORT_SWEEP_TABLE_H
#define FN_REPORT_SWEEP_TABLE_H

#include <stdio.h>

#include "run/sweep_store.h"

/** A parameter's last word, or its whole path where two have the same. Points into the path. */
const char *fn_sweep_short_name(const fn_sweep *sweep, int parameter);
/** "waiting", "running", ... */
const char *fn_trial_state_name(fn_trial_state state);

/** The trial with the best value among finished ones, or else of any; < 0: no result. */
int64_t fn_sweep_best_trial(const fn_sweep_store *store);

/** All trials as CSV with a head line: trial, setting, seed, state, attempts, epochs, best,
 *  best_epoch, seconds, one column per parameter (empty where it does not exist), folder. */
fn_status fn_sweep_table(fn_sweep_store *store, FILE *out);
/** Counts by state, the best so far, who works on what, what failed and why. */
fn_status fn_sweep_status(fn_sweep_store *store, FILE *out);
/** The best `most` settings; with repeated seeds, by the mean over them. For the first also the
 *  command that tests it. FN_ERR_DATA when there is no result yet. */
fn_status fn_sweep_best(fn_sweep_store *store, int64_t most, FILE *out);
/** The first `most` trials of the plan with their values. */
fn_status fn_sweep_print_trials(const fn_sweep *sweep, int64_t most, FILE *out);

/** Metric against each parameter and learning curves into a PNG or SVG file. FN_ERR_DATA when
 *  there is no result yet. */
fn_status fn_sweep_plot(fn_sweep_store *store, const char *path);

#endif
