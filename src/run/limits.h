/** @file limits.h
 *  When a run has to stop by itself: its time limit, the batch job's end, a halt file.
 */
#ifndef FN_RUN_LIMITS_H
#define FN_RUN_LIMITS_H

#include "config/run.h"

typedef struct fn_limits {
  double deadline; /**< fn_clock() seconds; INFINITY: none */
  double margin;   /**< seconds */
  char halt[4096]; /**< path */
  double looked;   /**< when the halt file was last looked for */
  bool halted;     /**< the halt file was found */
  bool told;       /**< the reason was logged */
} fn_limits;

/** Seconds of "90", "MM:SS", "HH:MM:SS" or "D-HH:MM:SS" (also "D-HH" and "D-HH:MM"); negative when
 *  the text is none of these. */
double fn_duration_parse(const char *text);

/** Read run.time_limit and, with auto, the end of the batch job (seconds since 1970 in
 *  FIELDNET_JOB_END or SLURM_JOB_END_TIME). FN_ERR_CONFIG for a limit that cannot be read.
 *  Not collective. */
fn_status fn_limits_start(const fn_run *run, fn_limits *limits);

/** Whether to stop now, given the longest time that the next step and the save after it took so
 * far, seconds; the reason is logged once. Looks for the halt file at most once a second. Rank 0's
 * answer counts for all. Not collective. */
bool fn_limits_reached(fn_limits *limits, double next);

/** Whether the halt file is there. It stays until whoever made it removes it: jobs that wait in a
 *  queue are to stop too, and nobody knows how many there are. Not collective. */
bool fn_limits_halted(fn_limits *limits);

#endif
