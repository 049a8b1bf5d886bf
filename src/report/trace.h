/** @file trace.h
 *  A timeline as a file for trace viewers.
 */
#ifndef FN_REPORT_TRACE_H
#define FN_REPORT_TRACE_H

#include "run/timeline.h"

/** Chrome's trace event format, JSON: one process per rank, one row per thread; read by
 *  chrome://tracing and Perfetto. Replaces `path`. */
fn_status fn_trace_write(const char *path, const fn_timeline *timeline);

#endif
