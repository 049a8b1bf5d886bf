#include "run/limits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"

/** One number at *text up to one of `ends` or the end of the text; negative when there is none. */
static double next_number(const char **text, const char *ends, char *ended_by) {
  char *end;
  if (**text < '0' || **text > '9') return -1;
  const double number = strtod(*text, &end);
  if (*end && !strchr(ends, *end)) return -1;
  *ended_by = *end;
  *text = *end ? end + 1 : end;
  return number;
}

double fn_duration_parse(const char *text) {
  char end;
  double days = 0, part[3];
  int parts = 0;
  const bool has_days = strchr(text, '-') != NULL;
  if (has_days && (days = next_number(&text, "-", &end)) < 0) return -1;
  do {
    if (parts == 3 || (part[parts++] = next_number(&text, ":", &end)) < 0) return -1;
  } while (end == ':');
  // With days the first part is hours, as in SLURM; without, the last part is seconds.
  double seconds = 0;
  const double unit[] = {3600, 60, 1};
  const int first = has_days ? 0 : 3 - parts;
  for (int i = 0; i < parts; i++)
    seconds += part[i] * unit[first + i];
  return 86400 * days + seconds;
}

/** Seconds from now to the end of the batch job; INFINITY when nobody told. */
static double job_time_left(void) {
  const char *const names[] = {"FIELDNET_JOB_END", "SLURM_JOB_END_TIME"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const char *text = getenv(names[i]);
    char *end;
    const double when = text ? strtod(text, &end) : 0;
    if (text && end != text && *end == '\0' && when > 0) return when - (double)time(NULL);
  }
  return INFINITY;
}

fn_status fn_limits_start(const fn_run *run, fn_limits *limits) {
  const char *text = run->run.time_limit;
  *limits = (fn_limits){.deadline = INFINITY, .margin = run->run.time_margin};
  snprintf(limits->halt, sizeof limits->halt, "%s/%s", run->folder, run->run.halt_file);
  double left = INFINITY;
  if (strcmp(text, "auto") == 0) {
    left = job_time_left();
  } else if (strcmp(text, "none") != 0) {
    left = fn_duration_parse(text);
    if (left < 0)
      return fn_run_fail(run, "run.time_limit",
                         "%s is no time: auto, none, seconds, MM:SS, HH:MM:SS or D-HH:MM:SS", text);
  }
  limits->deadline = fn_clock() + left;
  char duration[32];
  if (isfinite(left))
    fn_log(FN_DETAIL, "this start ends within %s", fn_text_duration(left, duration, 32));
  return FN_OK;
}

bool fn_limits_halted(fn_limits *limits) {
  limits->looked = fn_clock();
  limits->halted = limits->halted || fn_file_exists(limits->halt);
  if (limits->halted && !limits->told)
    fn_log(FN_INFO, "%s found: the run stops here. Remove it, and start again to go on",
           limits->halt);
  limits->told |= limits->halted;
  return limits->halted;
}

bool fn_limits_reached(fn_limits *limits, double next) {
  const double now = fn_clock();
  const bool late = now + next + limits->margin > limits->deadline;
  const bool halt = limits->halted || (now - limits->looked >= 1 && fn_limits_halted(limits));
  if (late && !limits->told) {
    limits->told = true;
    fn_log(FN_INFO, "the time limit is near: the run stops here");
  }
  return late || halt;
}
