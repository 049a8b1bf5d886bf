/* Figures of one batch: slices of its last sample, spectra of all of it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/spectrum.h"
#include "report/drawing.h"

enum { COLUMNS = 4, WINDOW = 64, MAX_ROWS = 16 };

static const double TILE = 190, GAP = 14, LEFT = 84, TOP = 56, BAR = 13, FOOT = 62;

/** One column: [channels, cells] of the last sample. */
typedef struct column {
  const char *title;
  const float *values;
  int64_t channels;
  fn_color_scale scale;
} column;

/** The part of the last two axes that is shown. */
typedef struct window {
  int64_t offset;        // of the first row shown, within a channel, cells
  int64_t stride;        // between rows, cells
  int64_t rows, columns; // cells shown
  int64_t cells;         // of a channel
  double width, height;  // on paper
} window;

static window window_of(const fn_figure_event *event) {
  const int last = event->spatial - 1;
  const int64_t rows = event->size[last - 1], columns = event->size[last];
  window w = {.stride = columns, .cells = rows * columns};
  w.rows = rows < WINDOW ? rows : WINDOW;
  w.columns = columns < WINDOW ? columns : WINDOW;
  w.offset = (rows - w.rows) / 2 * columns + (columns - w.columns) / 2;
  for (int axis = last - 2; axis >= 0; axis--) {
    w.offset += event->size[axis] / 2 * w.cells;
    w.cells *= event->size[axis];
  }
  const double aspect = (double)w.rows / (double)w.columns;
  w.width = aspect > 1 ? TILE / aspect : TILE;
  w.height = aspect > 1 ? TILE : TILE * aspect;
  return w;
}

static int64_t cells_of(const fn_figure_event *event) {
  int64_t cells = 1;
  for (int i = 0; i < event->spatial; i++)
    cells *= event->size[i];
  return cells;
}

static void set_pixel(unsigned char *row, int64_t x, const fn_color_scale *scale, double value) {
  double rgb[3] = {0.6, 0.6, 0.6}; // grey: not a number
  if (!isnan(value)) fn_color_at(scale->map, fn_color_scale_position(scale, value), rgb);
  uint32_t word = 0;
  for (int c = 0; c < 3; c++)
    word = word << 8 | (uint32_t)lround(255 * rgb[c]);
  memcpy(row + 4 * x, &word, sizeof word);
}

/** Paint an image surface into the rectangle, cells as sharp squares. */
static void paint(cairo_t *cr, cairo_surface_t *image, double x, double y, double width,
                  double height) {
  cairo_surface_mark_dirty(image);
  cairo_save(cr);
  cairo_translate(cr, x, y);
  cairo_scale(cr, width / cairo_image_surface_get_width(image),
              height / cairo_image_surface_get_height(image));
  cairo_set_source_surface(cr, image, 0, 0);
  cairo_pattern_set_filter(cairo_get_source(cr), CAIRO_FILTER_NEAREST);
  cairo_paint(cr);
  cairo_restore(cr);
}

static void frame(cairo_t *cr, double x, double y, double width, double height) {
  cairo_set_source_rgb(cr, 0.2, 0.2, 0.2);
  cairo_set_line_width(cr, 0.8);
  cairo_rectangle(cr, x, y, width, height);
  cairo_stroke(cr);
}

/** One channel; the second-last axis upwards, the last to the right. */
static void draw_tile(cairo_t *cr, const column *c, const window *w, int64_t channel, double x,
                      double y) {
  cairo_surface_t *image =
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)w->columns, (int)w->rows);
  if (cairo_surface_status(image) == CAIRO_STATUS_SUCCESS) {
    unsigned char *pixels = cairo_image_surface_get_data(image);
    const int stride = cairo_image_surface_get_stride(image);
    const float *values = c->values + channel * w->cells + w->offset;
    for (int64_t row = 0; row < w->rows; row++) {
      unsigned char *line = pixels + (w->rows - 1 - row) * stride;
      for (int64_t i = 0; i < w->columns; i++) {
        set_pixel(line, i, &c->scale, (double)values[row * w->stride + i]);
      }
    }
    const double left = x + (TILE - w->width) / 2;
    paint(cr, image, left, y, w->width, w->height);
    frame(cr, left, y, w->width, w->height);
  }
  cairo_surface_destroy(image);
}

/** Two significant digits, as short as they can be written. */
static void short_number(double value, char *text, size_t size) {
  const double magnitude = fabs(value);
  if (magnitude == 0 || (magnitude >= 1e-3 && magnitude < 100)) {
    snprintf(text, size, "%.2g", value);
  } else if (magnitude >= 100 && magnitude < 1e4) {
    snprintf(text, size, "%.0f", value);
  } else {
    const int exponent = (int)floor(log10(magnitude));
    snprintf(text, size, "%.2ge%d", value / pow(10, exponent), exponent);
  }
}

static void bar_tick(cairo_t *cr, const fn_color_scale *scale, double value, double x, double y) {
  const double at = x + TILE * fn_color_scale_position(scale, value);
  char label[32];
  short_number(value, label, sizeof label);
  cairo_move_to(cr, at, y + BAR);
  cairo_line_to(cr, at, y + BAR + 4);
  cairo_stroke(cr);
  // labels at the ends stay near the tile
  const double align = at < x + 12 ? 0.2 : at > x + TILE - 12 ? 0.8 : 0.5;
  fn_drawing_text(cr, at, y + BAR + 12, align, 10, label);
}

static void bar_ticks(cairo_t *cr, const fn_color_scale *scale, double x, double y) {
  const double low = scale->low, high = scale->high, t = scale->threshold;
  bar_tick(cr, scale, low, x, y);
  bar_tick(cr, scale, high, x, y);
  if (scale->kind == FN_SCALE_LINEAR) {
    bar_tick(cr, scale, (low + high) / 2, x, y);
  } else if (scale->kind == FN_SCALE_LOG) {
    bar_tick(cr, scale, sqrt(low * high), x, y);
  } else if (high > 0) {
    bar_tick(cr, scale, 0, x, y);
    const double inner = fn_color_scale_position(scale, -t);
    if (inner > 0.2 && inner < 0.4) { // room for labels on both sides
      bar_tick(cr, scale, -t, x, y);
      bar_tick(cr, scale, t, x, y);
    }
  } else {
    bar_tick(cr, scale, -sqrt(low * high), x, y);
  }
}

static void draw_bar(cairo_t *cr, const fn_color_scale *scale, double x, double y) {
  enum { STEPS = 256 };
  cairo_surface_t *image = cairo_image_surface_create(CAIRO_FORMAT_RGB24, STEPS, 1);
  if (cairo_surface_status(image) == CAIRO_STATUS_SUCCESS) {
    const fn_color_scale unit = {.kind = FN_SCALE_LINEAR, .map = scale->map, .high = 1};
    for (int i = 0; i < STEPS; i++) {
      set_pixel(cairo_image_surface_get_data(image), i, &unit, i / (STEPS - 1.0));
    }
    paint(cr, image, x, y, TILE, BAR);
  }
  cairo_surface_destroy(image);
  frame(cr, x, y, TILE, BAR);
  bar_ticks(cr, scale, x, y);
}

static void describe_window(const fn_figure_event *event, const window *w, char *text,
                            size_t size) {
  const int last = event->spatial - 1;
  int length = snprintf(text, size, "%lld x %lld of %lld x %lld cells", (long long)w->rows,
                        (long long)w->columns, (long long)event->size[last - 1],
                        (long long)event->size[last]);
  if (event->spatial > 2 && length > 0 && (size_t)length < size) {
    snprintf(text + length, size - (size_t)length, ", layer %lld of %lld",
             (long long)(event->size[0] / 2), (long long)event->size[0]);
  }
}

static fn_status draw_slices(const fn_figure_event *event, column *columns, fn_picture **picture) {
  const window w = window_of(event);
  int64_t rows = 0;
  for (int c = 0; c < COLUMNS; c++) {
    FN_TRY(
        fn_color_scale_choose(columns[c].values, columns[c].channels * w.cells, &columns[c].scale));
    if (columns[c].channels > rows) rows = columns[c].channels;
  }
  const int64_t shown = rows > MAX_ROWS ? MAX_ROWS : rows;
  const double height = TOP + (double)shown * (w.height + GAP) + FOOT;
  cairo_t *cr;
  FN_TRY(fn_drawing_create(LEFT + COLUMNS * (TILE + GAP) + 6, height, &cr, picture));
  char text[160];
  snprintf(text, sizeof text, "%s, epoch %lld", event->stage, (long long)event->epoch);
  fn_drawing_text(cr, LEFT + COLUMNS * (TILE + GAP) / 2 - GAP / 2, 16, 0.5, 13, text);
  for (int c = 0; c < COLUMNS; c++) {
    const double x = LEFT + c * (TILE + GAP);
    cairo_set_source_rgb(cr, 0.1, 0.1, 0.1);
    fn_drawing_text(cr, x + TILE / 2, TOP - 13, 0.5, 12, columns[c].title);
    for (int64_t row = 0; row < shown && row < columns[c].channels; row++) {
      draw_tile(cr, &columns[c], &w, row, x, TOP + (double)row * (w.height + GAP));
    }
    draw_bar(cr, &columns[c].scale, x, TOP + (double)shown * (w.height + GAP));
  }
  cairo_set_source_rgb(cr, 0.1, 0.1, 0.1);
  for (int64_t row = 0; row < shown; row++) {
    snprintf(text, sizeof text, "channel %lld", (long long)row);
    fn_drawing_text(cr, LEFT - 12, TOP + (double)row * (w.height + GAP) + w.height / 2, 1, 12,
                    text);
  }
  describe_window(event, &w, text, sizeof text);
  if (rows > shown) {
    const size_t length = strlen(text);
    snprintf(text + length, sizeof text - length, "; first %lld of %lld channels", (long long)shown,
             (long long)rows);
  }
  cairo_set_source_rgb(cr, 0.4, 0.4, 0.4);
  fn_drawing_text(cr, LEFT, height - 14, 0, 10.5, text);
  return fn_drawing_finish(cr, picture);
}

fn_status fn_plot_plane(const char *title, const char *note, const float *values, int64_t rows,
                        int64_t columns, fn_picture **picture) {
  enum { LARGEST = 16384 };
  FN_CHECK(rows > 0 && columns > 0 && rows <= LARGEST && columns <= LARGEST, FN_ERR_DATA,
           "a plane of %lld x %lld cells cannot be drawn, at most %d x %d", (long long)rows,
           (long long)columns, LARGEST, LARGEST);
  const double cell = fmax(1, floor(3 * TILE / (double)(rows > columns ? rows : columns)));
  window w = {.stride = columns, .rows = rows, .columns = columns, .cells = rows * columns};
  w.width = cell * (double)columns;
  w.height = cell * (double)rows;
  column plane = {.title = title, .values = values, .channels = 1};
  FN_TRY(fn_color_scale_choose(values, w.cells, &plane.scale));
  const double width = fmax(w.width, 2 * TILE) + 2 * GAP, height = TOP + w.height + GAP + FOOT;
  const double left = (width - w.width) / 2;
  cairo_t *cr;
  FN_TRY(fn_drawing_create(width, height, &cr, picture));
  cairo_set_source_rgb(cr, 0.1, 0.1, 0.1);
  fn_drawing_text(cr, width / 2, 16, 0.5, 12, title);
  fn_drawing_text(cr, width / 2, 36, 0.5, 10.5, note);
  // draw_tile centres in a tile's width
  draw_tile(cr, &plane, &w, 0, left - (TILE - w.width) / 2, TOP);
  draw_bar(cr, &plane.scale, (width - TILE) / 2, TOP + w.height + GAP);
  return fn_drawing_finish(cr, picture);
}

/** One panel per channel with the three curves. */
static fn_status draw_lines(const fn_figure_event *event, const column *columns,
                            fn_picture **picture) {
  const int64_t cells = event->size[0];
  int64_t rows = 0;
  for (int c = 0; c < 3; c++) {
    if (columns[c].channels > rows) rows = columns[c].channels;
  }
  const int64_t shown = rows > MAX_ROWS ? MAX_ROWS : rows;
  const size_t points = (size_t)(shown * cells);
  double *x = malloc(sizeof *x * (size_t)cells), *y = malloc(sizeof *y * 3 * points);
  fn_status status = FN_ERR_MEMORY;
  if (x && y) {
    static const char *const labels[3] = {"in", "out", "tgt"};
    fn_series series[3 * MAX_ROWS];
    fn_panel panels[MAX_ROWS];
    char titles[MAX_ROWS][32], title[96];
    for (int64_t i = 0; i < cells; i++)
      x[i] = (double)i;
    for (int64_t row = 0; row < shown; row++) {
      snprintf(titles[row], sizeof titles[row], "channel %lld", (long long)row);
      panels[row] = (fn_panel){.title = titles[row],
                               .x_label = row == shown - 1 ? "cell" : NULL,
                               .series = &series[3 * row]};
      for (int c = 0; c < 3; c++) {
        if (row >= columns[c].channels) continue;
        double *values = y + (3 * row + c) * cells;
        for (int64_t i = 0; i < cells; i++) {
          values[i] = (double)columns[c].values[row * cells + i];
        }
        series[3 * row + panels[row].count++] = (fn_series){
            labels[c], x, values, cells, .colour = c == 0 ? 6 : c == 1 ? 1 : 0, .dashed = c == 2};
      }
    }
    snprintf(title, sizeof title, "%s, epoch %lld", event->stage, (long long)event->epoch);
    status = fn_plot_panels(title, panels, (int)shown, 1, 700, 220, picture);
  } else {
    fn_error_set(status, __FILE__, __LINE__, "no memory for a figure");
  }
  free(x);
  free(y);
  return status;
}

fn_status fn_plot_figure_slices(const fn_figure_event *event, fn_picture **picture) {
  *picture = NULL;
  const int64_t cells = cells_of(event), last = event->batch - 1;
  FN_CHECK(event->spatial >= 1 && cells > 0 && last >= 0, FN_ERR_INTERNAL,
           "a figure of no cells was asked for");
  const float *input = event->input + last * event->channels_in * cells;
  const float *output = event->output + last * event->channels_out * cells;
  const float *target = event->target + last * event->channels_out * cells;
  const int64_t count = event->channels_out * cells;
  float *error = malloc(sizeof *error * (size_t)count);
  FN_CHECK(error, FN_ERR_MEMORY, "no memory for a figure of %lld values", (long long)count);
  for (int64_t i = 0; i < count; i++)
    error[i] = output[i] - target[i];
  column columns[COLUMNS] = {
      {.title = "in", .values = input, .channels = event->channels_in},
      {.title = "out", .values = output, .channels = event->channels_out},
      {.title = "tgt", .values = target, .channels = event->channels_out},
      {.title = "out - tgt", .values = error, .channels = event->channels_out}};
  const fn_status status = event->spatial > 1 ? draw_slices(event, columns, picture)
                                              : draw_lines(event, columns, picture);
  free(error);
  return status;
}

/* ---- spectra
 * --------------------------------------------------------------------------------------- */

/** Range of y for ratios: [low, high], widened to whole tenths of what is drawn, within limits. */
static void ratio_range(const fn_series *series, int count, double low, double high, double lowest,
                        double highest, fn_panel *panel) {
  for (int s = 0; s < count; s++) {
    for (int64_t i = 0; i < series[s].count; i++) {
      const double y = series[s].y[i];
      if (!isfinite(y)) continue;
      low = fmin(low, y - 0.03);
      high = fmax(high, y + 0.03);
    }
  }
  panel->fixed_y = true;
  panel->y_low = fmax(lowest, floor(10 * low) / 10);
  panel->y_high = fmin(highest, ceil(10 * high) / 10);
}

fn_status fn_plot_spectra(const char *title, const fn_spectra *s, fn_picture **picture) {
  const bool markers = s->bins <= 32;
  const fn_series power[3] = {{"out", s->k, s->output, s->bins, .colour = 1, .markers = markers},
                              {"tgt", s->k, s->target, s->bins, .colour = 0, .dashed = true},
                              {"in", s->k, s->input, s->bins, .colour = 6}};
  const fn_series transfer[2] = {
      {"out", s->k, s->transfer, s->bins, .colour = 1, .markers = markers},
      {"in", s->k, s->input_transfer, s->bins, .colour = 6}};
  const fn_series correlation[2] = {
      {"out", s->k, s->correlation, s->bins, .colour = 1, .markers = markers},
      {"in", s->k, s->input_correlation, s->bins, .colour = 6}};
  const char *x_label = s->physical ? "k  [h/Mpc]" : "k  [fundamental]";
  fn_panel panels[3] = {
      {.title = "power",
       .x_label = x_label,
       .y_label = s->normalised ? "P(k)  [field units, Mpc/h]" : "P(k), unnormalised",
       .log_x = true,
       .log_y = true,
       .series = power,
       .count = s->input ? 3 : 2},
      {.title = "transfer function",
       .x_label = x_label,
       .y_label = "T = (P / P tgt)^{1/2}",
       .log_x = true,
       .has_level = true,
       .level = 1,
       .series = transfer,
       .count = s->input_transfer ? 2 : 1},
      {.title = "cross-correlation with the target",
       .x_label = x_label,
       .y_label = "r(k)",
       .log_x = true,
       .has_level = true,
       .level = 1,
       .series = correlation,
       .count = s->input_correlation ? 2 : 1}};
  ratio_range(transfer, panels[1].count, 0.8, 1.1, 0, 3, &panels[1]);
  ratio_range(correlation, panels[2].count, 0.9, 1, -1, 1.05, &panels[2]);
  panels[2].y_high = 1.02;
  return fn_plot_panels(title, panels, 3, 3, 390, 350, picture);
}

typedef enum row {
  INPUT,
  OUTPUT,
  TARGET,
  CROSS,
  TRANSFER,
  CORRELATION,
  IN_TRANSFER,
  IN_CORRELATION,
  ROWS
} row;

/** Measure everything into rows [ROWS][bins] and draw it. */
static fn_status measure_and_draw(const fn_figure_event *event, fn_spectrum *spectrum, double *work,
                                  fn_picture **picture) {
  const int64_t n = spectrum->bins, batch = event->batch, channels = event->channels_out;
  double *rows[ROWS];
  for (int i = 0; i < ROWS; i++)
    rows[i] = work + i * n;
  const bool comparable = event->channels_in == channels;
  fn_spectrum_power(spectrum, event->input, batch, event->channels_in, rows[INPUT]);
  fn_spectrum_power(spectrum, event->output, batch, channels, rows[OUTPUT]);
  fn_spectrum_power(spectrum, event->target, batch, channels, rows[TARGET]);
  fn_spectrum_cross(spectrum, event->output, event->target, batch, channels, rows[CROSS]);
  fn_transfer_function(n, rows[OUTPUT], rows[TARGET], rows[TRANSFER]);
  fn_cross_correlation(n, rows[CROSS], rows[OUTPUT], rows[TARGET], rows[CORRELATION]);
  if (comparable) {
    fn_spectrum_cross(spectrum, event->input, event->target, batch, channels, rows[CROSS]);
    fn_transfer_function(n, rows[INPUT], rows[TARGET], rows[IN_TRANSFER]);
    fn_cross_correlation(n, rows[CROSS], rows[INPUT], rows[TARGET], rows[IN_CORRELATION]);
  }
  const fn_spectra spectra = {.bins = n,
                              .k = spectrum->k,
                              .physical = event->box_size > 0,
                              .input = rows[INPUT],
                              .output = rows[OUTPUT],
                              .target = rows[TARGET],
                              .transfer = rows[TRANSFER],
                              .correlation = rows[CORRELATION],
                              .input_transfer = comparable ? rows[IN_TRANSFER] : NULL,
                              .input_correlation = comparable ? rows[IN_CORRELATION] : NULL};
  char title[96];
  snprintf(title, sizeof title, "%s, epoch %lld", event->stage, (long long)event->epoch);
  return fn_plot_spectra(title, &spectra, picture);
}

fn_status fn_plot_figure_spectra(const fn_figure_event *event, fn_picture **picture) {
  *picture = NULL;
  for (int i = 0; i < event->spatial; i++) {
    if (event->size[i] < 4) return FN_OK; // fewer than two bins: nothing to see
  }
  fn_spectrum *spectrum;
  FN_TRY(fn_spectrum_create(event->spatial, event->size, event->box_size, &spectrum));
  double *work = malloc(sizeof *work * ROWS * (size_t)spectrum->bins);
  fn_status status;
  if (work) {
    status = measure_and_draw(event, spectrum, work, picture);
  } else {
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for power spectra");
  }
  free(work);
  fn_spectrum_destroy(spectrum);
  return status;
}
