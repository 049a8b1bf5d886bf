/** @file command_sweep.h
 *  The actions of `fieldnet sweep`.
 */
#ifndef FN_CLI_COMMAND_SWEEP_H
#define FN_CLI_COMMAND_SWEEP_H

#include "cli/commands.h"

/** run FILE: train trials here. Starts MPI. */
fn_status fn_sweep_command_run(const fn_command_line *line);
/** job FILE: write a batch script for an array of jobs. */
fn_status fn_sweep_command_job(const fn_command_line *line);

#endif
