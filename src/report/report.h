/** @file report.h
 *  What a run leaves behind for people: console lines, tables, TensorBoard events, plots.
 *
 *  In the run folder:
 *    metrics.csv     one row per epoch
 *    steps.csv       one row per logged step
 *    metrics.jsonl   every event as one JSON object
 *    tensorboard/    one folder per start
 *    plots/          loss curve, and the latest slices and spectra of training and validation
 */
#ifndef FN_REPORT_REPORT_H
#define FN_REPORT_REPORT_H

#include "run/observer.h"

/** An observer for fn_train that reports as run->report asks. Rank 0 only. `run` must outlive it.
 *
 *  Files are opened at the observer's start. Trouble with one kind of file is a warning and ends
 *  that kind, never the run.
 *  @return FN_OK; FN_ERR_MEMORY */
fn_status fn_report_create(const fn_run *run, fn_observer *observer);
/** Close files and free; also after a run that never came to its finish. */
void fn_report_destroy(fn_observer *observer);

#endif
