#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "report/sinks.h"

/** Steps and epochs go beyond the resumed step; starts, saves and ends are history and stay. */
static int64_t step_of_line(void *user, const char *line) {
  (void)user;
  const char *step = strstr(line, "\"step\":");
  const bool counted = strstr(line, "\"event\":\"step\"") == line + 1 ||
                       strstr(line, "\"event\":\"epoch\"") == line + 1;
  return counted && step ? strtoll(step + 7, NULL, 10) : FN_NO_STEP;
}

fn_status fn_jsonl_open(const char *folder, int64_t resumed_step, fn_jsonl *jsonl) {
  jsonl->file = NULL;
  snprintf(jsonl->path, sizeof jsonl->path, "%s/metrics.jsonl", folder);
  FN_TRY(fn_report_trim(jsonl->path, resumed_step, step_of_line, NULL));
  return fn_report_append(jsonl->path, &jsonl->file);
}

void fn_jsonl_close(fn_jsonl *jsonl) {
  if (jsonl->file) fclose(jsonl->file);
  jsonl->file = NULL;
}

static void begin(fn_text *line, const char *event) {
  fn_text_add(line, "{\"event\":\"%s\"", event);
}

static void add_integer(fn_text *line, const char *key, int64_t value) {
  fn_text_add(line, ",\"%s\":%" PRId64, key, value);
}

static void add_number(fn_text *line, const char *key, double value) {
  char number[40];
  fn_text_add(line, ",\"%s\":%s", key,
              isfinite(value) ? fn_report_number(value, number, sizeof number) : "null");
}

static void add_string(fn_text *line, const char *key, const char *value) {
  fn_text_add(line, ",\"%s\":", key);
  fn_text_add_json_utf8(line, value);
}

static void add_time(fn_text *line) {
  char now[64];
  add_string(line, "time", fn_report_time("%Y-%m-%dT%H:%M:%S%z", now, sizeof now));
}

static fn_status end(fn_jsonl *jsonl, fn_text *line) {
  fn_text_add(line, "}\n");
  const fn_status status = fn_report_put(jsonl->file, jsonl->path, line);
  fn_text_free(line);
  return status;
}

fn_status fn_jsonl_start(fn_jsonl *jsonl, const char *summary, int64_t resumed_step, int ranks,
                         const char *placement) {
  fn_text line = {0};
  begin(&line, "start");
  add_time(&line);
  add_string(&line, "version", fn_version());
  add_string(&line, "host", fn_host_name());
  add_integer(&line, "resumed_step", resumed_step);
  if (summary) add_string(&line, "summary", summary);
  add_integer(&line, "ranks", ranks);
  if (placement) add_string(&line, "placement", placement);
  return end(jsonl, &line);
}

fn_status fn_jsonl_warning(fn_jsonl *jsonl, const char *text) {
  fn_text line = {0};
  begin(&line, "warning");
  add_time(&line);
  add_string(&line, "text", text);
  return end(jsonl, &line);
}

fn_status fn_jsonl_step(fn_jsonl *jsonl, const fn_step_event *e) {
  fn_text line = {0};
  begin(&line, "step");
  add_integer(&line, "step", e->step);
  add_integer(&line, "epoch", e->epoch);
  add_integer(&line, "epoch_step", e->epoch_step);
  add_integer(&line, "epoch_steps", e->epoch_steps);
  add_number(&line, "loss", e->loss);
  add_number(&line, "lr", e->lr);
  add_number(&line, "gradient_norm", e->gradient_norm);
  add_number(&line, "gradient_first", e->gradient_first);
  add_number(&line, "gradient_last", e->gradient_last);
  add_number(&line, "samples_per_second", (double)e->samples / e->seconds);
  add_number(&line, "seconds", e->seconds);
  add_number(&line, "input_wait", e->input_wait);
  add_number(&line, "exposed_communication", e->exposed_communication);
  add_integer(&line, "memory_peak", (int64_t)e->memory_peak);
  return end(jsonl, &line);
}

fn_status fn_jsonl_epoch(fn_jsonl *jsonl, const fn_epoch_event *e) {
  fn_text line = {0};
  begin(&line, "epoch");
  add_integer(&line, "epoch", e->epoch);
  add_integer(&line, "step", e->step);
  add_number(&line, "train_loss", e->train_loss);
  add_number(&line, "validation_loss", e->validation_loss);
  if (!isnan(e->validation_accuracy)) {
    add_number(&line, "validation_accuracy", e->validation_accuracy);
    add_number(&line, "validation_auc", e->validation_auc);
    add_number(&line, "validation_f1", e->validation_f1);
  }
  add_number(&line, "lr", e->lr);
  add_number(&line, "seconds", e->seconds);
  fn_text_add(&line, ",\"best\":%s", e->best ? "true" : "false");
  return end(jsonl, &line);
}

fn_status fn_jsonl_saved(fn_jsonl *jsonl, const char *path, double seconds) {
  fn_text line = {0};
  begin(&line, "saved");
  add_time(&line);
  add_string(&line, "path", path);
  add_number(&line, "seconds", seconds);
  return end(jsonl, &line);
}

fn_status fn_jsonl_finish(fn_jsonl *jsonl, fn_status status) {
  fn_text line = {0};
  begin(&line, "finish");
  add_time(&line);
  add_integer(&line, "status", status);
  add_string(&line, "meaning", fn_status_name(status));
  if (status != FN_OK) add_string(&line, "message", fn_error_message());
  return end(jsonl, &line);
}
