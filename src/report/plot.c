#include "report/plot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/drawing.h"

// Okabe & Ito 2008, distinguishable by colour-blind readers.
static const double palette[7][3] = {{0, 0.447, 0.698},   {0.835, 0.369, 0}, {0, 0.620, 0.451},
                                     {0.8, 0.475, 0.655}, {0.902, 0.624, 0}, {0.337, 0.706, 0.914},
                                     {0.25, 0.25, 0.25}};

enum { TEXT = 12, SMALL = 11, TITLE = 13 };

typedef struct axis {
  double low, high;     // of the data shown
  double begin, extent; // on the paper; extent < 0 upwards
  bool log;
} axis;

typedef struct frame {
  const fn_panel *panel;
  double left, top, width, height;
  axis x, y;
} frame;

static bool on_axis(double value, bool log) {
  return isfinite(value) && (!log || value > 0);
}

static double place(const axis *a, double value) {
  const double t =
      a->log ? log(value / a->low) / log(a->high / a->low) : (value - a->low) / (a->high - a->low);
  return a->begin + t * a->extent;
}

/** Range of what can be drawn, with a margin; any range when there is nothing. */
static void data_range(const fn_panel *panel, bool vertical, double margin, axis *a) {
  double low = INFINITY, high = -INFINITY;
  a->log = vertical ? panel->log_y : panel->log_x;
  for (int s = 0; s < panel->count; s++) {
    const fn_series *series = &panel->series[s];
    for (int64_t i = 0; i < series->count; i++) {
      if (!on_axis(series->x[i], panel->log_x) || !on_axis(series->y[i], panel->log_y)) continue;
      const double value = vertical ? series->y[i] : series->x[i];
      low = fmin(low, value);
      high = fmax(high, value);
    }
  }
  if (!(low <= high)) low = high = 1;
  if (a->log) {
    const double factor = high > low * (1 + 1e-9) ? pow(high / low, margin) : 2;
    a->low = low / factor;
    a->high = high * factor;
  } else {
    double pad = margin * (high - low);
    if (!(pad > 1e-12 * fmax(fabs(low), fabs(high)))) {
      pad = low == 0 ? 1 : 0.1 * fabs(low);
    }
    a->low = low - pad;
    a->high = high + pad;
  }
}

static void ticks_of(const axis *a, int wanted, fn_ticks *ticks) {
  if (a->log) {
    fn_ticks_log(a->low, a->high, ticks);
  } else {
    fn_ticks_linear(a->low, a->high, wanted, ticks);
  }
}

static void line(cairo_t *cr, double x0, double y0, double x1, double y1) {
  cairo_move_to(cr, x0, y0);
  cairo_line_to(cr, x1, y1);
  cairo_stroke(cr);
}

static void draw_axes(cairo_t *cr, const frame *f) {
  fn_ticks ticks;
  const double bottom = f->top + f->height, right = f->left + f->width;
  cairo_set_line_width(cr, 0.8);
  ticks_of(&f->x, (int)(f->width / 80) + 1, &ticks);
  for (int i = 0; i < ticks.count; i++) {
    if (f->panel->whole_x && ticks.at[i] != round(ticks.at[i])) continue;
    if (f->panel->whole_x && !f->x.log)
      snprintf(ticks.label[i], sizeof ticks.label[i], "%g", ticks.at[i]);
    const double x = place(&f->x, ticks.at[i]);
    if (x < f->left - 0.01 || x > right + 0.01) continue;
    const bool major = ticks.label[i][0];
    cairo_set_source_rgb(cr, 0.9, 0.9, 0.9);
    if (major) line(cr, x, f->top, x, bottom);
    cairo_set_source_rgb(cr, 0.2, 0.2, 0.2);
    line(cr, x, bottom, x, bottom + (major ? 5 : 3));
    if (major) fn_drawing_text(cr, x, bottom + 14, 0.5, SMALL, ticks.label[i]);
  }
  ticks_of(&f->y, (int)(f->height / 55) + 1, &ticks);
  for (int i = 0; i < ticks.count; i++) {
    const double y = place(&f->y, ticks.at[i]);
    if (y < f->top - 0.01 || y > bottom + 0.01) continue;
    const bool major = ticks.label[i][0];
    cairo_set_source_rgb(cr, 0.9, 0.9, 0.9);
    if (major) line(cr, f->left, y, right, y);
    cairo_set_source_rgb(cr, 0.2, 0.2, 0.2);
    line(cr, f->left - (major ? 5 : 3), y, f->left, y);
    if (major) fn_drawing_text(cr, f->left - 8, y, 1, SMALL, ticks.label[i]);
  }
  cairo_set_source_rgb(cr, 0.2, 0.2, 0.2);
  cairo_set_line_width(cr, 1);
  cairo_rectangle(cr, f->left, f->top, f->width, f->height);
  cairo_stroke(cr);
}

static void draw_labels(cairo_t *cr, const frame *f) {
  const fn_panel *panel = f->panel;
  const double middle = f->left + f->width / 2;
  cairo_set_source_rgb(cr, 0.1, 0.1, 0.1);
  if (panel->title) fn_drawing_text(cr, middle, f->top - 12, 0.5, TEXT, panel->title);
  if (panel->x_label) {
    fn_drawing_text(cr, middle, f->top + f->height + 34, 0.5, TEXT, panel->x_label);
  }
  if (panel->y_label) {
    fn_drawing_text_up(cr, f->left - 56, f->top + f->height / 2, TEXT, panel->y_label);
  }
}

static void series_style(cairo_t *cr, const fn_series *series) {
  const double *rgb = palette[series->colour < 0 ? 0 : series->colour % 7];
  const double dash[2] = {6, 4};
  cairo_set_source_rgb(cr, rgb[0], rgb[1], rgb[2]);
  cairo_set_line_width(cr, 1.8);
  cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
  cairo_set_dash(cr, dash, series->dashed ? 2 : 0, 0);
}

static bool point(const frame *f, const fn_series *series, int64_t i, double *x, double *y) {
  if (!on_axis(series->x[i], f->x.log) || !on_axis(series->y[i], f->y.log)) return false;
  *x = place(&f->x, series->x[i]);
  // far outside a fixed range: stay within what cairo's fixed-point coordinates hold
  *y = fmin(fmax(place(&f->y, series->y[i]), -1e5), 1e5);
  return true;
}

static void draw_series(cairo_t *cr, const frame *f, const fn_series *series) {
  double x, y;
  bool pen_down = false;
  series_style(cr, series);
  for (int64_t i = 0; i < series->count && !series->scatter; i++) {
    const bool drawn = point(f, series, i, &x, &y);
    if (drawn && pen_down) {
      cairo_line_to(cr, x, y);
    } else if (drawn) {
      cairo_move_to(cr, x, y);
    }
    pen_down = drawn;
  }
  cairo_stroke(cr);
  cairo_set_dash(cr, NULL, 0, 0);
  const bool dots = series->markers || series->scatter || series->count == 1;
  for (int64_t i = 0; i < series->count && dots; i++) {
    if (!point(f, series, i, &x, &y)) continue;
    cairo_arc(cr, x, y, 2.6, 0, 2 * M_PI);
    cairo_fill(cr);
  }
}

/** The corner of the frame where a legend of width x height hides the fewest points. */
static void legend_place(const frame *f, double width, double height, double *left, double *top) {
  const double gap = 8;
  int64_t best = INT64_MAX;
  for (int corner = 0; corner < 4; corner++) { // right top first
    const double l = corner % 2 ? f->left + gap : f->left + f->width - gap - width;
    const double t = corner / 2 ? f->top + f->height - gap - height : f->top + gap;
    int64_t hidden = 0;
    for (int s = 0; s < f->panel->count; s++) {
      const fn_series *series = &f->panel->series[s];
      double x, y;
      for (int64_t i = 0; i < series->count; i++) {
        hidden += point(f, series, i, &x, &y) && x > l - 6 && x < l + width + 6 && y > t - 6 &&
                  y < t + height + 6;
      }
    }
    if (hidden < best) {
      best = hidden;
      *left = l;
      *top = t;
    }
  }
}

static void draw_legend(cairo_t *cr, const frame *f) {
  const double row = 17, swatch = 24;
  double width = 0, left = 0, top = 0;
  int rows = 0;
  for (int s = 0; s < f->panel->count; s++) {
    const char *label = f->panel->series[s].label;
    if (!label) continue;
    width = fmax(width, fn_drawing_text_width(cr, SMALL, label));
    rows++;
  }
  if (rows == 0) return;
  width += swatch + 20;
  legend_place(f, width, row * rows + 8, &left, &top);
  cairo_rectangle(cr, left, top, width, row * rows + 8);
  cairo_set_source_rgba(cr, 1, 1, 1, 0.85);
  cairo_fill_preserve(cr);
  cairo_set_source_rgb(cr, 0.8, 0.8, 0.8);
  cairo_set_line_width(cr, 0.8);
  cairo_stroke(cr);
  double y = top + 4 + row / 2;
  for (int s = 0; s < f->panel->count; s++) {
    const fn_series *series = &f->panel->series[s];
    if (!series->label) continue;
    series_style(cr, series);
    if (!series->scatter) line(cr, left + 6, y, left + 6 + swatch, y);
    cairo_set_dash(cr, NULL, 0, 0);
    if (series->scatter) {
      cairo_arc(cr, left + 6 + swatch / 2, y, 2.6, 0, 2 * M_PI);
      cairo_fill(cr);
    }
    cairo_set_source_rgb(cr, 0.1, 0.1, 0.1);
    fn_drawing_text(cr, left + 12 + swatch, y, 0, SMALL, series->label);
    y += row;
  }
}

/** One panel in the cell whose upper left corner is (x, y). */
static void draw_panel(cairo_t *cr, const fn_panel *panel, double x, double y, double width,
                       double height) {
  const double head = panel->title ? 26 : 10;
  frame f = {.panel = panel, .left = x + 72, .top = y + head};
  f.width = width - 72 - 18;
  f.height = height - head - 48;
  bool scatter = false; // whole dots, also at the ends
  for (int s = 0; s < panel->count; s++)
    scatter = scatter || panel->series[s].scatter;
  data_range(panel, false, scatter ? 0.05 : 0.015, &f.x);
  data_range(panel, true, 0.05, &f.y);
  if (panel->fixed_y) {
    f.y.low = panel->y_low;
    f.y.high = panel->y_high;
  }
  f.x.begin = f.left;
  f.x.extent = f.width;
  f.y.begin = f.top + f.height;
  f.y.extent = -f.height;
  draw_axes(cr, &f);
  draw_labels(cr, &f);
  cairo_save(cr);
  cairo_rectangle(cr, f.left, f.top, f.width, f.height);
  cairo_clip(cr);
  if (panel->has_level && on_axis(panel->level, f.y.log)) {
    cairo_set_source_rgb(cr, 0.45, 0.45, 0.45);
    cairo_set_line_width(cr, 1);
    line(cr, f.left, place(&f.y, panel->level), f.left + f.width, place(&f.y, panel->level));
  }
  for (int s = 0; s < panel->count; s++)
    draw_series(cr, &f, &panel->series[s]);
  cairo_restore(cr);
  draw_legend(cr, &f);
}

fn_status fn_plot_panels(const char *title, const fn_panel *panels, int count, int columns,
                         double width, double height, fn_picture **picture) {
  FN_CHECK(count >= 1 && columns >= 1, FN_ERR_INTERNAL, "a plot needs at least one panel");
  const double head = title ? 26 : 4;
  const int rows = (count + columns - 1) / columns;
  const double total = width * (count < columns ? count : columns);
  cairo_t *cr;
  FN_TRY(fn_drawing_create(total, head + height * rows, &cr, picture));
  if (title) fn_drawing_text(cr, total / 2, 16, 0.5, TITLE, title);
  for (int i = 0; i < count; i++) {
    draw_panel(cr, &panels[i], i % columns * width, head + i / columns * height, width, height);
  }
  return fn_drawing_finish(cr, picture);
}

fn_status fn_plot_curves(const char *path, const char *title, const char *x_label,
                         const char *y_label, bool log_x, bool log_y, const fn_series *series,
                         int count) {
  const fn_panel panel = {.x_label = x_label,
                          .y_label = y_label,
                          .log_x = log_x,
                          .log_y = log_y,
                          .series = series,
                          .count = count};
  fn_picture *picture;
  FN_TRY(fn_plot_panels(title, &panel, 1, 1, 560, 400, &picture));
  const fn_status status = fn_picture_save(picture, path);
  fn_picture_destroy(picture);
  return status;
}

fn_status fn_plot_losses(const double *epoch, const double *train, const double *validation,
                         int64_t count, fn_picture **picture) {
  bool positive = true, validated = false;
  for (int64_t i = 0; i < count; i++) {
    positive = positive && !(train[i] <= 0) && !(validation[i] <= 0);
    validated = validated || isfinite(validation[i]);
  }
  const bool markers = count <= 40;
  const fn_series series[2] = {
      {"training", epoch, train, count, .colour = 0, .markers = markers},
      {"validation", epoch, validation, count, .colour = 1, .markers = markers}};
  const fn_panel panel = {.x_label = "epoch",
                          .whole_x = true,
                          .y_label = "loss (normalised units)",
                          .log_y = positive,
                          .series = series,
                          .count = validated ? 2 : 1};
  return fn_plot_panels(NULL, &panel, 1, 1, 560, 400, picture);
}
