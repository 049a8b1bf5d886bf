/** @file session.h
 *  What the commands that work on a run over the ranks of a job share.
 */
#ifndef FN_CLI_SESSION_H
#define FN_CLI_SESSION_H

#include "cli/commands.h"
#include "dist/dist.h"

/** Start MPI, read the run, do `work`, end MPI. Errors are printed once, by rank 0. Collective. */
fn_status fn_cli_run(const fn_command_line *line, fn_command need,
                     fn_status (*work)(const fn_command_line *line, const fn_run *run,
                                       fn_dist *dist));

/** The same for work that needs no run file. Collective. */
fn_status fn_cli_job(const fn_command_line *line,
                     fn_status (*work)(const fn_command_line *line, fn_dist *dist));

#endif
