/* The table of runs, and the same for programs. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report/run_status.h"
#include "report/sinks.h"

/* ---- table ----------------------------------------------------------------------------------- */

enum {
  RUN,
  STATE,
  EPOCH,
  STEP,
  LOSS,
  TRAIN,
  VALIDATION,
  SPEED,
  ETA,
  SAVED,
  COLUMNS, // the note follows, without a width
  CELL = 48
};

static const char *const heads[COLUMNS] = {"run",  "state",      "epoch",      "step",
                                           "loss", "train",      "validation", "samples/s",
                                           "ETA",  "state saved"};

typedef struct row {
  char cell[COLUMNS][CELL];
} row;

static void put_number(char *cell, double value, const char *format) {
  if (isfinite(value)) snprintf(cell, CELL, format, value);
}

/** Epochs as "2.4/10". */
static void put_epochs(char *cell, const fn_run_status *s) {
  if (s->epochs_done < 0) return;
  double done = (double)s->epochs_done;
  if (s->epoch_steps > 0) done += (double)s->epoch_step / (double)s->epoch_steps;
  const bool whole = done == floor(done);
  done = floor(10 * done) / 10; // never ahead of what is done
  int length = snprintf(cell, CELL, whole ? "%.0f" : "%.1f", done);
  if (s->epochs > 0) snprintf(cell + length, (size_t)(CELL - length), "/%" PRId64, s->epochs);
}

static void put_steps(char *cell, const fn_run_status *s) {
  if (s->step < 0) return;
  int length = snprintf(cell, CELL, "%" PRId64, s->step);
  if (s->epochs > 0 && s->epoch_steps > 0)
    snprintf(cell + length, (size_t)(CELL - length), "/%" PRId64, s->epochs * s->epoch_steps);
}

static void fill(row *r, const fn_run_status *s, double now) {
  memset(r, 0, sizeof *r);
  snprintf(r->cell[STATE], CELL, "%s", fn_run_state_name(s->state));
  put_epochs(r->cell[EPOCH], s);
  put_steps(r->cell[STEP], s);
  put_number(r->cell[LOSS], s->loss, "%.4g");
  put_number(r->cell[TRAIN], s->train_loss, "%.4g");
  put_number(r->cell[VALIDATION], s->validation_loss, "%.4g");
  put_number(r->cell[SPEED], s->samples_per_second, s->samples_per_second < 100 ? "%.3g" : "%.0f");
  if (isfinite(s->eta)) fn_text_duration(s->eta, r->cell[ETA], CELL);
  if (!isfinite(s->saved)) return;
  fn_text_duration(fmax(0, now - s->saved), r->cell[SAVED], CELL - 4);
  strcat(r->cell[SAVED], " ago");
}

static const char *cell_of(const row *r, const fn_run_status *s, int column) {
  return column == RUN ? s->folder : r->cell[column];
}

static const char *colour_of(fn_run_state state) {
  static const char *const codes[FN_RUN_STATES] = {
      [FN_RUN_NEVER] = "2",    [FN_RUN_RUNNING] = "32", [FN_RUN_FINISHED] = "1",
      [FN_RUN_STOPPED] = "33", [FN_RUN_FAILED] = "31",  [FN_RUN_DEAD] = "31"};
  return codes[state];
}

static void add_cell(fn_text *text, const char *cell, int column, int width, const char *colour) {
  const bool left = column == RUN || column == STATE;
  if (colour) fn_text_add(text, "\033[%sm", colour);
  fn_text_add(text, left ? "%-*s" : "%*s", width, cell);
  if (colour) fn_text_add(text, "\033[0m");
  fn_text_add(text, "  ");
}

static void end_line(fn_text *text) {
  while (text->length > 0 && text->data[text->length - 1] == ' ')
    fn_text_cut(text, text->length - 1);
  fn_text_add(text, "\n");
}

/** Why it ended, or what seems wrong; one line. */
static void add_note(fn_text *text, const fn_run_status *s) {
  const bool bad = s->state == FN_RUN_FAILED || s->state == FN_RUN_DEAD;
  const char *words = s->note;
  if (bad && s->message[0]) words = s->message;
  if (s->state == FN_RUN_FAILED && s->exit_code > 0)
    fn_text_add(text, "exit code %" PRId64 "%s", s->exit_code, words[0] ? ": " : "");
  fn_text_add(text, "%.*s", (int)strcspn(words, "\n"), words);
}

void fn_run_status_table(const fn_run_status *status, int count, double now, bool colours,
                         fn_text *text) {
  int width[COLUMNS];
  row r;
  bool used[COLUMNS] = {[RUN] = true, [STATE] = true};
  for (int c = 0; c < COLUMNS; c++)
    width[c] = (int)strlen(heads[c]);
  for (int i = 0; i < count; i++) {
    fill(&r, &status[i], now);
    for (int c = 0; c < COLUMNS; c++) {
      const int length = (int)strlen(cell_of(&r, &status[i], c));
      if (length > width[c]) width[c] = length;
      used[c] = used[c] || length > 0;
    }
  }
  for (int c = 0; c < COLUMNS; c++)
    if (used[c]) add_cell(text, heads[c], c, width[c], NULL);
  end_line(text);
  for (int i = 0; i < count; i++) {
    fill(&r, &status[i], now);
    for (int c = 0; c < COLUMNS; c++)
      if (used[c])
        add_cell(text, cell_of(&r, &status[i], c), c, width[c],
                 colours && c == STATE ? colour_of(status[i].state) : NULL);
    add_note(text, &status[i]);
    end_line(text);
  }
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void add_words(fn_text *text, const char *key, const char *words) {
  fn_text_add(text, ", \"%s\": ", key);
  if (words[0])
    fn_text_add_json_utf8(text, words);
  else
    fn_text_add(text, "null");
}

static void add_number(fn_text *text, const char *key, double value) {
  char buffer[40];
  fn_text_add(text, ", \"%s\": %s", key,
              isfinite(value) ? fn_report_number(value, buffer, sizeof buffer) : "null");
}

static void add_count(fn_text *text, const char *key, int64_t value) {
  if (value < 0)
    fn_text_add(text, ", \"%s\": null", key);
  else
    fn_text_add(text, ", \"%s\": %" PRId64, key, value);
}

void fn_run_status_json(const fn_run_status *s, double now, fn_text *text) {
  fn_text_add(text, "{\"run\": ");
  fn_text_add_json_utf8(text, s->folder);
  add_words(text, "state", fn_run_state_name(s->state));
  add_words(text, "note", s->note);
  add_words(text, "message", s->message);
  add_count(text, "exit_code", s->exit_code);
  add_words(text, "host", s->host);
  add_count(text, "pid", s->pid);
  add_words(text, "job", s->job);
  add_words(text, "version", s->version);
  add_count(text, "ranks", s->ranks);
  add_count(text, "epochs", s->epochs);
  add_count(text, "epochs_done", s->epochs_done);
  add_count(text, "step", s->step);
  add_count(text, "epoch_step", s->epoch_step);
  add_count(text, "epoch_steps", s->epoch_steps);
  add_number(text, "loss", s->loss);
  add_number(text, "train_loss", s->train_loss);
  add_number(text, "validation_loss", s->validation_loss);
  add_number(text, "best_loss", s->best_loss);
  add_count(text, "best_epoch", s->best_epoch);
  add_number(text, "lr", s->lr);
  add_number(text, "samples_per_second", s->samples_per_second);
  add_number(text, "eta", s->eta);
  add_number(text, "started", s->started);
  add_number(text, "updated", s->updated);
  add_number(text, "stepped", s->stepped);
  add_number(text, "saved", s->saved);
  add_number(text, "since_saved", isfinite(s->saved) ? fmax(0, now - s->saved) : (double)NAN);
  add_count(text, "warnings", s->warnings);
  fn_text_add(text, "}\n");
}
