/** @file sizes.h
 *  The options --size, --channels, --spatial and --synthetic of several commands.
 */
#ifndef FN_CLI_SIZES_H
#define FN_CLI_SIZES_H

#include "cli/commands.h"
#include "run/sizes.h"

/** FN_ERR_CONFIG naming the option. */
fn_status fn_command_sizes(const fn_command_line *line, fn_size_options *options);

#endif
