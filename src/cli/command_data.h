/** @file command_data.h
 *  The actions of `fieldnet data`, a file each.
 */
#ifndef FN_CLI_COMMAND_DATA_H
#define FN_CLI_COMMAND_DATA_H

#include "cli/commands.h"

/** inspect FILE ... Not collective. */
fn_status fn_data_inspect(const fn_command_line *line);
/** stats SET OUT.h5; pack SET OUT.h5; verify FILE [SET]; synth cubes OUT. Each starts MPI. */
fn_status fn_data_stats(const fn_command_line *line);
fn_status fn_data_pack(const fn_command_line *line);
fn_status fn_data_verify(const fn_command_line *line);
fn_status fn_data_synth_cubes(const fn_command_line *line);

#endif
