/** @file command_sweep.h
 *  The actions of `fieldnet sweep`.
 */
#ifndef FN_CLI_COMMAND_SWEEP_H
#define FN_CLI_COMMAND_SWEEP_H

#include "cli/commands.h"
#include "run/sweep_plan.h"

/** Open a sweep; rank 0 prints all errors to standard error. */
fn_status fn_sweep_command_read(const char *path, int rank, fn_sweep **sweep);
/** The same for the one argument after the action's name. */
fn_status fn_sweep_command_open(const fn_command_line *line, int rank, fn_sweep **sweep);

/** plan FILE: print trials and cost. Starts MPI. */
fn_status fn_sweep_command_plan(const fn_command_line *line);
/** status, best, table, plot FILE: look at the store. */
fn_status fn_sweep_command_status(const fn_command_line *line);
fn_status fn_sweep_command_best(const fn_command_line *line);
fn_status fn_sweep_command_table(const fn_command_line *line);
fn_status fn_sweep_command_plot(const fn_command_line *line);
/** ask FILE, tell FILE TRIAL: trials that are run outside. */
fn_status fn_sweep_command_ask(const fn_command_line *line);
fn_status fn_sweep_command_tell(const fn_command_line *line);

/** run FILE: train trials here. Starts MPI. */
fn_status fn_sweep_command_run(const fn_command_line *line);
/** job FILE: write a batch script for an array of jobs. */
fn_status fn_sweep_command_job(const fn_command_line *line);

#endif
