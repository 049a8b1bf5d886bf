#include <inttypes.h>
#include <math.h>

#include "base/log.h"
#include "base/system.h"
#include "report/bar.h"
#include "report/sinks.h"

static const double REDRAW_SECONDS = 0.1;

/** Make the line empty that a progress line may occupy. */
static void wipe(const fn_console *console) {
  if (console->terminal && console->drawn > 0) fn_bar_wipe();
}

void fn_console_start(fn_console *console, const char *summary, int64_t resumed_step) {
  console->terminal = fn_bar_possible();
  console->started = fn_clock();
  console->drawn = 0;
  console->first_step = resumed_step;
  if (summary && *summary) fn_log(FN_INFO, "%s", summary);
  if (resumed_step > 0) fn_log(FN_INFO, "going on after step %" PRId64, resumed_step);
}

void fn_console_line(const fn_console *console, const fn_step_event *e, double now, fn_text *line) {
  const int64_t done = e->step - console->first_step;
  const int64_t left = (e->epochs - e->epoch) * e->epoch_steps + e->epoch_steps - e->epoch_step;
  char duration[64];
  fn_text_add(line,
              "epoch %" PRId64 "/%" PRId64 "  step %" PRId64 "/%" PRId64 "  loss %.5g  lr %.3g",
              e->epoch, e->epochs, e->epoch_step, e->epoch_steps, e->loss, e->lr);
  if (e->seconds > 0) {
    fn_text_add(line, "  %.3g samples/s", (double)e->samples / e->seconds);
    const double waited = 100 * e->input_wait / e->seconds;
    if (waited >= 1) fn_text_add(line, "  (%.0f %% waiting for input)", waited);
  }
  if (done > 0) {
    // wall time per step so far counts validation and saving as well
    const double seconds = (now - console->started) / (double)done * (double)left;
    fn_text_add(line, "  ETA %s", fn_text_duration(seconds, duration, sizeof duration));
  }
}

static void draw(fn_console *console, const fn_step_event *e, const char *line) {
  const double now = fn_clock();
  if (now - console->drawn < REDRAW_SECONDS && e->epoch_step < e->epoch_steps) return;
  console->drawn = now;
  fn_bar_draw(e->epoch_step, e->epoch_steps, line);
}

void fn_console_step(fn_console *console, const fn_step_event *event) {
  fn_text line = {0};
  fn_console_line(console, event, fn_clock(), &line);
  if (console->terminal) {
    draw(console, event, line.data);
  } else {
    fn_log(FN_INFO, "%s", line.data);
  }
  fn_text_free(&line);
}

void fn_console_epoch(fn_console *console, const fn_epoch_event *e) {
  char validation[64] = "", metrics[96] = "", duration[64];
  if (!isnan(e->validation_loss))
    snprintf(validation, sizeof validation, "  validation %.6g", e->validation_loss);
  if (!isnan(e->validation_accuracy))
    snprintf(metrics, sizeof metrics, ", accuracy %.4f, AUC %.4f, F1 %.4f", e->validation_accuracy,
             e->validation_auc, e->validation_f1);
  wipe(console);
  fn_log(FN_INFO, "epoch %" PRId64 "/%" PRId64 " done  training %.6g%s%s%s  lr %.3g  %s", e->epoch,
         e->epochs, e->train_loss, validation, metrics, e->best ? "  (best so far)" : "", e->lr,
         fn_text_duration(e->seconds, duration, sizeof duration));
}

void fn_console_saved(fn_console *console, const char *path, double seconds) {
  if (fn_log_get_level() < FN_DETAIL) return;
  wipe(console);
  fn_log(FN_DETAIL, "saved %s in %.2f s", path, seconds);
}

void fn_console_finish(fn_console *console, const char *folder, fn_status status) {
  char duration[64];
  if (console->started <= 0) return; // failed before it began: there are no curves
  wipe(console);
  fn_log(FN_INFO, "%s after %s; curves and figures are in %s", fn_status_name(status),
         fn_text_duration(fn_clock() - console->started, duration, sizeof duration), folder);
}
