/** @file beat.h
 *  status.json: what a running training tells those who watch it from outside, on this machine or
 *  another. Inside the report room only; rank 0 only.
 *
 *  A thread of its own writes the file, so that it also tells that the process is there while a
 *  step takes long, and a slow file system does not hold up training. The file is replaced whole by
 *  rename but not flushed to disk: it is worth nothing after a power failure.
 */
#ifndef FN_REPORT_BEAT_H
#define FN_REPORT_BEAT_H

#include "run/observer.h"

typedef struct fn_beat fn_beat;

/** Name of the file in the run folder. */
#define FN_BEAT_FILE "status.json"

/** Write the file now and then every `interval` seconds, whatever happens. `warnings`: so many came
 *  before.
 *  @return FN_OK; FN_ERR_MEMORY; FN_ERR_INTERNAL without a thread */
fn_status fn_beat_start(const fn_run *run, double interval, int ranks, int64_t resumed_step,
                        int64_t warnings, fn_beat **beat);
/* All of these accept NULL and take notes, which the thread writes. */
void fn_beat_progress(fn_beat *beat, const fn_progress_event *event);
void fn_beat_step(fn_beat *beat, const fn_step_event *event);
void fn_beat_epoch(fn_beat *beat, const fn_epoch_event *event);
/** A warning or an error; `final`: the process is about to be ended, so that the calling thread
 *  writes the file. */
void fn_beat_message(fn_beat *beat, const char *text, bool final);
/** End the thread; with `ended` write how the run ended, else leave the file as it is, as a killed
 *  process would. Frees. */
void fn_beat_stop(fn_beat *beat, bool ended, fn_status status, const char *message);

#endif
