/* Slices beside what their logits depend on. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "report/class_report.h"
#include "report/drawing.h"

enum {
  TILE = 176,
  GAP = 14,
  LEFT = 10,
  TOP = 44,
  HEAD = 22,
  FOOT = 12,
  EACH_MOST = 4,
  COLUMNS = 4
};

/** The plane of a sample that is drawn: rows x columns cells from `offset`. */
typedef struct plane {
  int64_t rows, columns, offset, cells; /**< cells: of the whole sample */
} plane;

static plane plane_of(const fn_class_result *r) {
  const int last = r->spatial - 1;
  plane p = {.rows = last > 0 ? r->extent[last - 1] : 1, .columns = r->extent[last]};
  p.cells = r->channels;
  for (int d = 0; d < r->spatial; d++)
    p.cells *= r->extent[d];
  if (r->spatial == 3) p.offset = r->extent[0] / 2 * p.rows * p.columns;
  return p;
}

static int compare(const void *left, const void *right) {
  const float a = *(const float *)left, b = *(const float *)right;
  return a < b ? -1 : a > b;
}

static void draw_tile(cairo_t *cr, const float *values, const plane *p, const fn_color_scale *scale,
                      double threshold, double x, double y) {
  cairo_surface_t *image =
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, (int)p->columns, (int)p->rows);
  if (cairo_surface_status(image) == CAIRO_STATUS_SUCCESS) {
    unsigned char *pixels = cairo_image_surface_get_data(image);
    const int stride = cairo_image_surface_get_stride(image);
    for (int64_t i = 0; i < p->rows; i++) {
      uint32_t *line = (uint32_t *)(void *)(pixels + (p->rows - 1 - i) * stride);
      for (int64_t j = 0; j < p->columns; j++) {
        const double value = (double)values[i * p->columns + j];
        double rgb[3] = {1, 1, 1};
        if (value >= threshold) fn_color_at(scale->map, fn_color_scale_position(scale, value), rgb);
        line[j] = 0;
        for (int c = 0; c < 3; c++)
          line[j] = line[j] << 8 | (uint32_t)lround(255 * rgb[c]);
      }
    }
    cairo_surface_mark_dirty(image);
    cairo_save(cr);
    cairo_translate(cr, x, y);
    cairo_scale(cr, TILE / (double)p->columns, TILE / (double)p->rows);
    cairo_set_source_surface(cr, image, 0, 0);
    cairo_pattern_set_filter(cairo_get_source(cr), CAIRO_FILTER_NEAREST);
    cairo_paint(cr);
    cairo_restore(cr);
  }
  cairo_surface_destroy(image);
  cairo_set_source_rgb(cr, 0.2, 0.2, 0.2);
  cairo_set_line_width(cr, 0.8);
  cairo_rectangle(cr, x, y, TILE, TILE);
  cairo_stroke(cr);
}

static void describe(const fn_saliency_map *map, char *text, size_t size) {
  const fn_sample_key *k = &map->key;
  const char *theory = k->label == FN_GR ? "GR" : "Newton";
  if (k->axis < 0)
    snprintf(text, size, "%s, seed %lld, middle plane; logit %.4g", theory, (long long)k->seed,
             (double)map->logit);
  else
    snprintf(text, size, "%s, seed %lld, axis %d, plane %lld; logit %.4g", theory,
             (long long)k->seed, k->axis, (long long)k->position, (double)map->logit);
}

/** One sample: itself, magnitude of the gradient, and its largest 5 % and 1 %. */
static fn_status draw_row(cairo_t *cr, const fn_saliency_map *map, const plane *p, double y) {
  float *magnitude = malloc(2 * (size_t)p->cells * sizeof *magnitude);
  FN_CHECK(magnitude, FN_ERR_MEMORY, "no memory for a saliency map");
  float *sorted = magnitude + p->cells;
  for (int64_t i = 0; i < p->cells; i++)
    sorted[i] = magnitude[i] = fabsf(map->gradient[i]);
  qsort(sorted, (size_t)p->cells, sizeof *sorted, compare);
  const double percentile[2] = {(double)sorted[(int64_t)(0.95 * (double)(p->cells - 1))],
                                (double)sorted[(int64_t)(0.99 * (double)(p->cells - 1))]};
  const fn_color_scale heat = {.kind = FN_SCALE_LINEAR,
                               .map = FN_COLORS_EMBER_REVERSED,
                               .low = 0,
                               .high = fmax((double)sorted[p->cells - 1], 1e-300)};
  fn_color_scale scale;
  fn_status status = fn_color_scale_choose(map->input, p->cells, &scale);
  char text[128];
  describe(map, text, sizeof text);
  cairo_set_source_rgb(cr, 0.1, 0.1, 0.1);
  fn_drawing_text(cr, LEFT, y + 9, 0, 11.5, text);
  const double top = y + HEAD, step = TILE + GAP;
  if (status == FN_OK) {
    draw_tile(cr, map->input + p->offset, p, &scale, -INFINITY, LEFT, top);
    draw_tile(cr, magnitude + p->offset, p, &heat, -INFINITY, LEFT + step, top);
    for (int i = 0; i < 2; i++)
      draw_tile(cr, magnitude + p->offset, p, &heat, percentile[i], LEFT + (2 + i) * step, top);
  }
  free(magnitude);
  return status;
}

fn_status fn_plot_saliency(const fn_class_result *r, fn_picture **picture) {
  static const char *const titles[COLUMNS] = {"sample", "|d logit / d cell|", "above 95 %",
                                              "above 99 %"};
  const plane p = plane_of(r);
  int64_t shown[2 * EACH_MOST];
  int rows = 0, of[2] = {0, 0};
  for (int64_t i = 0; i < r->maps; i++) {
    const int label = r->map[i].key.label != 0;
    if (of[label]++ < EACH_MOST) shown[rows++] = i;
  }
  const double height = TOP + rows * (HEAD + TILE + GAP) + FOOT;
  cairo_t *cr;
  FN_TRY(fn_drawing_create(2 * LEFT + COLUMNS * (TILE + GAP) - GAP, height, &cr, picture));
  cairo_set_source_rgb(cr, 0.1, 0.1, 0.1);
  for (int c = 0; c < COLUMNS; c++)
    fn_drawing_text(cr, LEFT + c * (TILE + GAP) + TILE / 2.0, 20, 0.5, 13, titles[c]);
  fn_status status = FN_OK;
  for (int i = 0; i < rows && status == FN_OK; i++)
    status = draw_row(cr, &r->map[shown[i]], &p, TOP - 8 + i * (HEAD + TILE + GAP));
  const fn_status finished = fn_drawing_finish(cr, picture);
  if (status == FN_OK) return finished;
  fn_picture_destroy(*picture);
  *picture = NULL;
  return status;
}
