/* Trace Event Format, "complete" events (ph X) and names of processes and threads (ph M). */
#include "report/trace.h"

#include <stdbool.h>
#include <stdio.h>

#include "base/system.h"
#include "base/text.h"

/** One row of a viewer gets its name at its first event. */
static void add_names(fn_text *text, const fn_timeline *timeline, int64_t index) {
  const fn_timeline_event *event = fn_timeline_at(timeline, index);
  bool new_rank = true, new_thread = true;
  for (int64_t i = 0; i < index && new_thread; i++) {
    const fn_timeline_event *before = fn_timeline_at(timeline, i);
    new_rank &= before->rank != event->rank;
    new_thread &= before->rank != event->rank || before->thread != event->thread;
  }
  if (new_thread && new_rank)
    fn_text_add(text,
                "{\"name\": \"process_name\", \"ph\": \"M\", \"pid\": %d, \"tid\": 0, "
                "\"args\": {\"name\": \"rank %d\"}},\n",
                event->rank, event->rank);
  if (!new_thread) return;
  char name[64] = "steps";
  if (event->thread >= FN_TIMELINE_READER)
    snprintf(name, sizeof name, "reader %d", event->thread - FN_TIMELINE_READER);
  else if (event->thread >= FN_TIMELINE_REDUCTION)
    snprintf(name, sizeof name, "gradient reduction %d", event->thread - FN_TIMELINE_REDUCTION);
  fn_text_add(text,
              "{\"name\": \"thread_name\", \"ph\": \"M\", \"pid\": %d, \"tid\": %d, "
              "\"args\": {\"name\": \"%s\"}},\n",
              event->rank, event->thread, name);
}

fn_status fn_trace_write(const char *path, const fn_timeline *timeline) {
  fn_text text = {0};
  fn_text_add(&text, "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [\n");
  for (int64_t i = 0; i < fn_timeline_count(timeline); i++) {
    const fn_timeline_event *event = fn_timeline_at(timeline, i);
    add_names(&text, timeline, i);
    fn_text_add(&text, "{\"name\": ");
    fn_text_add_json(&text, event->name);
    fn_text_add(&text,
                ", \"cat\": \"%s\", \"ph\": \"X\", \"ts\": %.3f, \"dur\": %.3f, \"pid\": %d, "
                "\"tid\": %d}%s\n",
                event->category, 1e6 * event->start, 1e6 * event->seconds, event->rank,
                event->thread, i + 1 < fn_timeline_count(timeline) ? "," : "");
  }
  fn_text_add(&text, "]}\n");
  const fn_status status = fn_file_replace_text(path, &text);
  fn_text_free(&text);
  return status;
}
