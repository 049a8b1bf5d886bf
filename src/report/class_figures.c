/* Figures of a test with two classes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/class_report.h"
#include "report/drawing.h"

enum { GR_COLOUR = 1, NEWTON_COLOUR = 0, GREY = 6, CURVE_POINTS = 2000, HISTOGRAM_BINS = 48 };
static const double unit_line[2] = {0, 1};

/* ---- ROC ---------------------------------------------------------------------------------------
 */

enum { ROC_CURVES = 5 };

fn_status fn_plot_roc(const fn_class_result *r, fn_picture **picture) {
  static const struct {
    fn_judged judged;
    bool slices;
    const char *name;
  } curves[ROC_CURVES] = {{FN_NETWORK, true, "slices"},
                          {FN_NETWORK, false, "cubes"},
                          {FN_NETWORK_NO_MEAN, true, "slices, no mean"},
                          {FN_NETWORK_NO_MEAN, false, "cubes, no mean"},
                          {FN_BASELINE, false, "cube mean"}};
  static const int colours[ROC_CURVES] = {0, 1, 5, 4, 2};
  fn_roc roc[ROC_CURVES] = {{0}};
  fn_series series[ROC_CURVES + 1];
  char label[ROC_CURVES][64];
  int count = 0;
  fn_status status = FN_OK;
  series[count++] = (fn_series){NULL, unit_line, unit_line, 2, .colour = GREY, .dashed = true};
  for (int i = 0; i < ROC_CURVES && status == FN_OK; i++) {
    const fn_verdict *v = &r->by[curves[i].judged];
    if (!v->classes) continue;
    const bool slices = curves[i].slices;
    status = fn_roc_create(slices ? v->classes->slice : v->classes->by_mean,
                           slices ? v->classes->samples : v->classes->cubes, CURVE_POINTS, &roc[i]);
    snprintf(label[i], sizeof label[i], "%s, AUC %.4f", curves[i].name,
             v->value[slices ? FN_SLICE_AUC : FN_CUBE_AUC]);
    series[count++] =
        (fn_series){label[i],
                    roc[i].fpr,
                    roc[i].tpr,
                    roc[i].points,
                    .colour = colours[i],
                    .dashed = curves[i].judged != FN_NETWORK}; // curves may lie on each other
  }
  const fn_panel panel = {.x_label = "false positive rate",
                          .y_label = "true positive rate",
                          .fixed_y = true,
                          .y_low = -0.015,
                          .y_high = 1.015,
                          .series = series,
                          .count = count};
  if (status == FN_OK)
    status = fn_plot_panels("receiver operating characteristic, test set", &panel, 1, 1, 540, 520,
                            picture);
  for (int i = 0; i < ROC_CURVES; i++)
    fn_roc_free(&roc[i]);
  return status;
}

/* ---- confusion ---------------------------------------------------------------------------------
 */

enum { CELL = 108, MATRIX_LEFT = 92, MATRIX_TOP = 78, MATRIX_WIDTH = 344 };

/** One cell: white to blue with the share of its row, the count and that share. */
static void draw_cell(cairo_t *cr, double x, double y, int64_t count, int64_t row) {
  const double share = row > 0 ? (double)count / (double)row : 0;
  cairo_set_source_rgb(cr, 1 - 0.85 * share, 1 - 0.5 * share, 1 - 0.28 * share);
  cairo_rectangle(cr, x, y, CELL, CELL);
  cairo_fill_preserve(cr);
  cairo_set_source_rgb(cr, 0.2, 0.2, 0.2);
  cairo_set_line_width(cr, 0.8);
  cairo_stroke(cr);
  const double ink = share > 0.6 ? 1 : 0.1;
  char text[32];
  cairo_set_source_rgb(cr, ink, ink, ink);
  snprintf(text, sizeof text, "%" PRId64, count);
  fn_drawing_text(cr, x + CELL / 2.0, y + CELL / 2.0 - 10, 0.5, 15, text);
  snprintf(text, sizeof text, "%.1f %%", 100 * share);
  fn_drawing_text(cr, x + CELL / 2.0, y + CELL / 2.0 + 12, 0.5, 12, text);
}

static void draw_matrix(cairo_t *cr, double left, const char *title, const fn_counts *n) {
  const int64_t cell[2][2] = {{n->true_positive, n->false_negative},
                              {n->false_positive, n->true_negative}};
  static const char *const names[2] = {"GR", "Newton"};
  const double x = left + MATRIX_LEFT, y = MATRIX_TOP;
  for (int row = 0; row < 2; row++)
    for (int column = 0; column < 2; column++)
      draw_cell(cr, x + column * CELL, y + row * CELL, cell[row][column],
                cell[row][0] + cell[row][1]);
  cairo_set_source_rgb(cr, 0.1, 0.1, 0.1);
  fn_drawing_text(cr, x + CELL, y - 48, 0.5, 13, title);
  fn_drawing_text(cr, x + CELL, y + 2 * CELL + 22, 0.5, 12, "called");
  fn_drawing_text_up(cr, x - 74, y + CELL, 12, "true");
  for (int i = 0; i < 2; i++) {
    fn_drawing_text(cr, x + (i + 0.5) * CELL, y - 14, 0.5, 12, names[i]);
    fn_drawing_text(cr, x - 10, y + (i + 0.5) * CELL, 1, 12, names[i]);
  }
}

fn_status fn_plot_confusion(const fn_class_result *r, fn_picture **picture) {
  static const char *const titles[3] = {"slices", "cubes by mean logit", "cubes by vote"};
  fn_counts counts[3];
  cairo_t *cr;
  fn_classes_confusion(r->by[FN_NETWORK].classes, counts);
  FN_TRY(fn_drawing_create(3 * MATRIX_WIDTH, MATRIX_TOP + 2 * CELL + 44, &cr, picture));
  for (int i = 0; i < 3; i++)
    draw_matrix(cr, i * MATRIX_WIDTH, titles[i], &counts[i]);
  return fn_drawing_finish(cr, picture);
}

/* ---- histograms --------------------------------------------------------------------------------
 */

/** Steps of one class's histogram: 2 bins + 2 points of x and y. */
typedef struct steps {
  double x[2 * HISTOGRAM_BINS + 2], y[2 * HISTOGRAM_BINS + 2];
} steps;

static void count_scores(const fn_scored *sorted, int64_t count, steps out[2]) {
  double high = sorted[0].score, low = sorted[count - 1].score;
  const double margin = high > low ? 1.5 * (high - low) / (HISTOGRAM_BINS - 3) : 0.5;
  low -= margin; // an empty bin at both ends
  high += margin;
  double bins[2][HISTOGRAM_BINS] = {{0}}, total[2] = {0, 0};
  for (int64_t i = 0; i < count; i++) {
    int bin = (int)((sorted[i].score - low) / (high - low) * HISTOGRAM_BINS);
    if (bin >= HISTOGRAM_BINS) bin = HISTOGRAM_BINS - 1;
    bins[sorted[i].label != 0][bin]++;
    total[sorted[i].label != 0]++;
  }
  const double width = (high - low) / HISTOGRAM_BINS;
  for (int label = 0; label < 2; label++) {
    steps *s = &out[label];
    for (int b = 0; b <= HISTOGRAM_BINS; b++) {
      s->x[2 * b] = s->x[2 * b + 1] = low + b * width;
      s->y[2 * b] = b > 0 && total[label] > 0 ? bins[label][b - 1] / total[label] : 0;
      s->y[2 * b + 1] = b < HISTOGRAM_BINS && total[label] > 0 ? bins[label][b] / total[label] : 0;
    }
  }
}

fn_status fn_plot_scores(const fn_class_result *r, fn_picture **picture) {
  const fn_classes *c = r->by[FN_NETWORK].classes;
  steps *s = malloc(4 * sizeof *s);
  FN_CHECK(s, FN_ERR_MEMORY, "no memory for histograms");
  count_scores(c->slice, c->samples, s);
  count_scores(c->by_mean, c->cubes, s + 2);
  fn_series series[4];
  for (int i = 0; i < 4; i++)
    series[i] = (fn_series){i % 2 ? "GR" : "Newton", s[i].x, s[i].y, 2 * HISTOGRAM_BINS + 2,
                            .colour = i % 2 ? GR_COLOUR : NEWTON_COLOUR};
  fn_panel panels[2] = {{.title = "slices", .x_label = "logit (positive: GR)"},
                        {.title = "cubes", .x_label = "mean logit"}};
  for (int i = 0; i < 2; i++) {
    panels[i].y_label = "fraction of the class per bin";
    panels[i].series = series + 2 * i;
    panels[i].count = 2;
    panels[i].fixed_y = true; // with room for the legend
    for (int j = 0; j < 2 * (2 * HISTOGRAM_BINS + 2); j++)
      panels[i].y_high = fmax(panels[i].y_high, 1.25 * s[2 * i + j % 2].y[j / 2]);
  }
  const fn_status status =
      fn_plot_panels("scores of the test set", panels, 2, 2, 480, 380, picture);
  free(s);
  return status;
}

/* ---- calibration -------------------------------------------------------------------------------
 */

fn_status fn_plot_calibration(const fn_class_result *r, fn_picture **picture) {
  const fn_calibration *c = &r->by[FN_NETWORK].calibration;
  enum { STEPS = 2 * FN_CALIBRATION_BINS };
  double x[STEPS], y[STEPS], p[FN_CALIBRATION_BINS], f[FN_CALIBRATION_BINS];
  int64_t filled = 0;
  char title[96];
  for (int b = 0; b < FN_CALIBRATION_BINS; b++) {
    x[2 * b] = (double)b / FN_CALIBRATION_BINS;
    x[2 * b + 1] = (double)(b + 1) / FN_CALIBRATION_BINS;
    y[2 * b] = y[2 * b + 1] = (double)c->count[b];
    if (c->count[b] == 0) continue; // the curve goes on at the next bin that has samples
    p[filled] = c->probability[b];
    f[filled++] = c->fraction[b];
  }
  const fn_series curve[2] = {{NULL, unit_line, unit_line, 2, .colour = GREY, .dashed = true},
                              {"slices", p, f, filled, .colour = NEWTON_COLOUR, .markers = true}};
  const fn_series counts[1] = {{NULL, x, y, STEPS, .colour = NEWTON_COLOUR}};
  double most = 1;
  for (int b = 0; b < FN_CALIBRATION_BINS; b++)
    most = fmax(most, (double)c->count[b]);
  const fn_panel panels[2] = {{.title = "reliability",
                               .x_label = "predicted probability of GR",
                               .y_label = "fraction that is GR",
                               .fixed_y = true,
                               .y_low = -0.015,
                               .y_high = 1.015,
                               .series = curve,
                               .count = 2},
                              {.title = "slices per bin",
                               .x_label = "predicted probability of GR",
                               .y_label = "slices",
                               .fixed_y = true,
                               .y_high = 1.08 * most,
                               .series = counts,
                               .count = 1}};
  snprintf(title, sizeof title, "calibration: expected error %.4f, Brier score %.4f",
           c->expected_error, c->brier);
  return fn_plot_panels(title, panels, 2, 2, 460, 420, picture);
}
