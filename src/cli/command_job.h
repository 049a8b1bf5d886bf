/** @file command_job.h
 *  What the commands that write batch scripts share.
 */
#ifndef FN_CLI_COMMAND_JOB_H
#define FN_CLI_COMMAND_JOB_H

#include "cli/commands.h"
#include "run/job.h"

/** Fill `job` from the command's options (those of `fieldnet job`), write the script and, with
 *  --submit, hand it to sbatch `chain` times, each waiting for the one before. The caller has set
 *  command (NULL: from --command), run_path, set, folder, tasks, cap and requeue. */
fn_status fn_job_write(const fn_command_line *line, fn_job *job, int64_t chain);

#endif
