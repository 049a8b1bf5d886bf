/* Curves of the runs of a page, in one frame per quantity. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/page.h"

/** A column of one of the tables of every run. */
typedef struct quantity {
  const char *title, *x_label;
  size_t table;                                           // offset in fn_page_run
  const char *x, *y, *second;                             // columns; second: dashed, or NULL
  const char *label, *second_label;                       // in the legend of a single run
  enum { LINEAR, LOG_IF_POSITIVE, LOG_BOTH, FIXED } axes; // FIXED: from 0 to 1.05
} quantity;

#define OF(table_) offsetof(fn_page_run, table_)
static const quantity training[] = {
    {"Loss per epoch", "epoch", OF(metrics), "epoch", "train_loss", "validation_loss", "training",
     "validation", LOG_IF_POSITIVE},
    {"Loss per step (training)", "step", OF(steps), "step", "loss", NULL, "loss", NULL,
     LOG_IF_POSITIVE},
    {"Validation accuracy", "epoch", OF(metrics), "epoch", "validation_accuracy", NULL, "accuracy",
     NULL, LINEAR},
    {"Validation AUC", "epoch", OF(metrics), "epoch", "validation_auc", NULL, "AUC", NULL, LINEAR},
    {"Validation F1", "epoch", OF(metrics), "epoch", "validation_f1", NULL, "F1", NULL, LINEAR},
    {"Learning rate", "step", OF(steps), "step", "lr", NULL, "rate", NULL, LOG_IF_POSITIVE},
    {"Norm of the gradient", "step", OF(steps), "step", "gradient_norm", NULL, "norm", NULL,
     LOG_IF_POSITIVE},
    {"Throughput, samples/s", "step", OF(steps), "step", "samples_per_second", NULL, "samples/s",
     NULL, LINEAR},
    {"Waiting, share of the time: for input, and (dashed) for communication", "step", OF(steps),
     "step", "input_wait", "exposed_communication", "input", "communication", LINEAR},
};
static const quantity tests[] = {
    {"Power of output and (dashed) target", "k", OF(spectra), "k", "power_output", "power_target",
     "output", "target", LOG_BOTH},
    {"Transfer function of output and (dashed) input", "k", OF(spectra), "k", "transfer",
     "input_transfer", "output", "input", LINEAR},
    {"Correlation with the target, of output and (dashed) input", "k", OF(spectra), "k",
     "correlation", "input_correlation", "output", "input", FIXED},
};

static const fn_table *table_of(const fn_page_run *run, const quantity *q) {
  return (const fn_table *)((const char *)run + q->table);
}

static bool has_values(const double *y, int64_t count) {
  for (int64_t i = 0; y && i < count; i++)
    if (isfinite(y[i])) return true;
  return false;
}

/** Seconds of waiting as a share of the seconds of their rows. */
static const double *share(fn_arena *arena, const fn_table *table, const double *waited) {
  const double *seconds = fn_table_column(table, "seconds");
  if (!seconds || !waited) return waited;
  double *part = fn_arena_take(arena, sizeof *part * (size_t)(table->rows + 1));
  for (int64_t i = 0; i < table->rows; i++)
    part[i] = seconds[i] > 0 ? waited[i] / seconds[i] : (double)NAN;
  return part;
}

/** Append the curve of one column, if it has values. */
static void add_series(const fn_page *page, const fn_page_run *run, const quantity *q, bool second,
                       fn_panel *panel, fn_series *series) {
  const fn_table *table = table_of(run, q);
  const char *name = second ? q->second : q->y;
  const double *x = fn_table_column(table, q->x), *y = name ? fn_table_column(table, name) : NULL;
  const bool waiting = strcmp(q->y, "input_wait") == 0;
  if (!x || !has_values(y, table->rows)) return;
  if (waiting) y = share(page->arena, table, y);
  const char *label = second ? q->second_label : q->label;
  if (page->count > 1)
    label = !second     ? run->name
            : q->second ? NULL // named by the dashes in the title
                        : label;
  for (int64_t i = 0; i < table->rows; i++)
    panel->log_y &= q->axes == LOG_BOTH || !(y[i] <= 0);
  series[panel->count++] = (fn_series){.label = label,
                                       .x = x,
                                       .y = y,
                                       .count = table->rows,
                                       .colour = page->count > 1 ? run->colour : second,
                                       .dashed = second || run->colour >= 2 * FN_HTML_COLOURS};
}

static bool add_quantity(const fn_page *page, const quantity *q, fn_text *html) {
  fn_series *series = fn_arena_take(page->arena, sizeof *series * 2 * (size_t)page->count);
  fn_panel panel = {.title = q->title,
                    .x_label = q->x_label,
                    .log_x = q->axes == LOG_BOTH,
                    .log_y = q->axes == LOG_BOTH || q->axes == LOG_IF_POSITIVE,
                    .fixed_y = q->axes == FIXED,
                    .y_low = 0,
                    .y_high = 1.05,
                    .series = series};
  for (int i = 0; i < page->count; i++) {
    add_series(page, &page->run[i], q, false, &panel, series);
    add_series(page, &page->run[i], q, true, &panel, series);
  }
  if (panel.count == 0) return false;
  if (strcmp(q->y, "train_loss") == 0 && page->count > 1)
    panel.title = "Loss per epoch: training and (dashed) validation";
  fn_html_panel(html, &panel);
  return true;
}

static void add_all(const fn_page *page, const quantity *list, int count, const char *none,
                    fn_text *html) {
  bool any = false;
  const size_t start = html->length;
  fn_text_add(html, "<div class=\"grid\">\n");
  for (int i = 0; i < count; i++)
    any |= add_quantity(page, &list[i], html);
  if (any) {
    fn_text_add(html, "</div>\n");
    return;
  }
  fn_text_cut(html, start);
  if (none) fn_text_add(html, "<p class=\"about\">%s</p>\n", none);
}

void fn_page_curves(const fn_page *page, fn_text *html) {
  fn_text_add(html, "<h2 id=\"curves\">Curves</h2>\n");
  add_all(page, training, (int)(sizeof training / sizeof training[0]),
          "No step has been logged yet (every <code>train.log_interval</code> steps).", html);
}

void fn_page_spectra(const fn_page *page, fn_text *html) {
  add_all(page, tests, (int)(sizeof tests / sizeof tests[0]), NULL, html);
}
