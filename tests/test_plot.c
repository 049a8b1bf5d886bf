/* report: colours, and pictures as programs that look at them find them. */
#include "report_files.h"

#include <cairo.h>

#include "base/log.h"
#include "report/drawing.h"
#include "report/plot.h"

enum { EDGE = 32 };

/* ---- colours --------------------------------------------------------------------------------- */

static double luminance(fn_color_map map, double t) {
  double rgb[3], linear[3];
  fn_color_at(map, t, rgb);
  for (int i = 0; i < 3; i++) {
    assert_true(rgb[i] >= 0 && rgb[i] <= 1);
    linear[i] = rgb[i] <= 0.04045 ? rgb[i] / 12.92 : pow((rgb[i] + 0.055) / 1.055, 2.4);
  }
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]; // IEC 61966-2-1
}

static void color_maps_order_values_by_lightness(void **state) {
  (void)state;
  for (int i = 0; i < 100; i++) {
    const double a = i / 100.0, b = (i + 1) / 100.0;
    assert_true(luminance(FN_COLORS_EMBER, a) < luminance(FN_COLORS_EMBER, b));
    assert_true(luminance(FN_COLORS_EMBER_REVERSED, a) > luminance(FN_COLORS_EMBER_REVERSED, b));
    assert_true(luminance(FN_COLORS_DIVERGING, a / 2) < luminance(FN_COLORS_DIVERGING, b / 2));
    assert_true(luminance(FN_COLORS_DIVERGING, 0.5 + a / 2) >
                luminance(FN_COLORS_DIVERGING, 0.5 + b / 2));
  }
}

/* map2map page, section 6.8. 1001 equally spaced values: percentiles are exact. */
static void color_rule(void **state) {
  (void)state;
  enum { N = 1001 };
  float values[N];
  fn_color_scale scale;
  for (int i = 0; i < N; i++)
    values[i] = (float)i / 1000;
  assert_int_equal(fn_color_scale_choose(values, N, &scale), FN_OK);
  assert_int_equal(scale.kind, FN_SCALE_LINEAR);
  assert_int_equal(scale.map, FN_COLORS_EMBER);
  assert_near(scale.high, 1, 1e-12); // log2 0.975 = -0.037, rounded to 0.0
  assert_near(scale.low, 0, 0);
  for (int i = 0; i < N; i++)
    values[i] = (float)pow(10, 4.0 * i / 1000); // 1 .. 10^4
  fn_color_scale_choose(values, N, &scale);
  assert_int_equal(scale.kind, FN_SCALE_LINEAR); // h1 = 10^3.36 is above a tenth of h2 = 10^3.9
  for (int i = 0; i < N; i++)
    values[i] = (float)pow(10, 8.0 * i / 1000);
  fn_color_scale_choose(values, N, &scale);
  assert_int_equal(scale.kind, FN_SCALE_LOG);
  assert_near(log2(scale.low), round(10 * log2(pow(10, 0.2))) / 10, 1e-5);
  assert_near(log2(scale.high), round(10 * log2(pow(10, 7.8))) / 10, 1e-5);
  assert_near(fn_color_scale_position(&scale, sqrt(scale.low * scale.high)), 0.5, 1e-12);
  for (int i = 0; i < N; i++)
    values[i] = -values[i];
  fn_color_scale_choose(values, N, &scale);
  assert_int_equal(scale.kind, FN_SCALE_SYMLOG);
  assert_int_equal(scale.map, FN_COLORS_EMBER_REVERSED);
  assert_near(fn_color_scale_position(&scale, -sqrt(scale.low * scale.high)), 0.5, 1e-12);
  for (int i = 0; i < N; i++)
    values[i] = (float)(i - 500) / 500;
  fn_color_scale_choose(values, N, &scale);
  assert_int_equal(scale.kind, FN_SCALE_LINEAR);
  assert_int_equal(scale.map, FN_COLORS_DIVERGING);
  assert_near(fn_color_scale_position(&scale, 0), 0.5, 1e-12);
  for (int i = 0; i < N; i++)
    values[i] = (float)pow(values[i], 9);
  fn_color_scale_choose(values, N, &scale);
  assert_int_equal(scale.kind, FN_SCALE_SYMLOG);
  assert_near(fn_color_scale_position(&scale, 0), 0.5, 1e-12);
  assert_near(fn_color_scale_position(&scale, scale.threshold) +
                  fn_color_scale_position(&scale, -scale.threshold),
              1, 1e-12);
  assert_true(fn_color_scale_position(&scale, scale.threshold) < 0.9);
}

/* These stopped the original's training at the end of an epoch. */
static void color_rule_without_spread(void **state) {
  (void)state;
  float values[200] = {0};
  fn_color_scale scale;
  for (int round = 0; round < 5; round++) {
    if (round == 1) values[17] = 3;  // more than 97.5 % zero, not negative
    if (round == 2) values[17] = -3; // not positive
    if (round == 3) values[18] = 1;  // both signs
    if (round == 4) values[19] = (float)NAN;
    assert_int_equal(fn_color_scale_choose(values, 200, &scale), FN_OK);
    assert_true(isfinite(scale.low) && isfinite(scale.high) && scale.low < scale.high);
    const double t = fn_color_scale_position(&scale, 0);
    assert_true(t >= 0 && t <= 1);
  }
  for (int i = 0; i < 200; i++)
    values[i] = (float)NAN;
  assert_int_equal(fn_color_scale_choose(values, 200, &scale), FN_OK);
}

/* ---- pictures -------------------------------------------------------------------------------- */

typedef struct stream {
  const unsigned char *bytes;
  size_t left;
} stream;

static cairo_status_t read_stream(void *user, unsigned char *out, unsigned int count) {
  stream *s = user;
  if (count > s->left) return CAIRO_STATUS_READ_ERROR;
  memcpy(out, s->bytes, count);
  s->bytes += count;
  s->left -= count;
  return CAIRO_STATUS_SUCCESS;
}

/* Decode the picture and count its pixels of each of `n` colours (within rounding). */
static void count_colors(fn_picture *picture, const double (*rgb)[3], int n, int *counts) {
  unsigned char *png;
  size_t size;
  int width, height;
  assert_int_equal(fn_picture_png(picture, &png, &size, &width, &height), FN_OK);
  cairo_surface_t *surface =
      cairo_image_surface_create_from_png_stream(read_stream, &(stream){png, size});
  assert_int_equal(cairo_surface_status(surface), CAIRO_STATUS_SUCCESS);
  assert_int_equal(cairo_image_surface_get_width(surface), width);
  assert_int_equal(cairo_image_surface_get_height(surface), height);
  for (int c = 0; c < n; c++)
    counts[c] = 0;
  for (int y = 0; y < height; y++) {
    const unsigned char *row =
        cairo_image_surface_get_data(surface) + y * cairo_image_surface_get_stride(surface);
    for (int x = 0; x < width; x++) {
      for (int c = 0; c < n; c++) {
        bool same = true;
        for (int i = 0; i < 3; i++)
          same = same && fabs(row[4 * x + 2 - i] - 255 * rgb[c][i]) < 1.5;
        counts[c] += same;
      }
    }
  }
  cairo_surface_destroy(surface);
  free(png);
}

/* Four quadrants of one value each: when the whole edge is shown, they cover equal areas. The
 * original showed cells 16 .. 31 of an edge of 32. */
static void slices_show_whole_small_fields(void **state) {
  (void)state;
  static float field[EDGE * EDGE], zero[EDGE * EDGE];
  for (int i = 0; i < EDGE * EDGE; i++) {
    field[i] = (float)(1 + (i / EDGE >= EDGE / 2) + 2 * (i % EDGE >= EDGE / 2));
  }
  const fn_figure_event event = {.stage = "val",
                                 .epoch = 1,
                                 .spatial = 2,
                                 .batch = 1,
                                 .channels_in = 1,
                                 .channels_out = 1,
                                 .size = {EDGE, EDGE},
                                 .input = field,
                                 .output = zero,
                                 .target = zero};
  fn_picture *picture;
  assert_int_equal(fn_plot_figure_slices(&event, &picture), FN_OK);
  fn_color_scale scale;
  fn_color_scale_choose(field, EDGE * EDGE, &scale);
  double colors[4][3];
  int counts[4];
  for (int i = 0; i < 4; i++) {
    fn_color_at(scale.map, fn_color_scale_position(&scale, i + 1), colors[i]);
  }
  count_colors(picture, (const double(*)[3])colors, 4, counts);
  for (int i = 0; i < 4; i++) {
    assert_true(counts[i] > 5000); // a quarter of a tile of 285 pixels is 20000
    assert_near(counts[i], counts[0], 0.1 * counts[0]);
  }
  fn_picture_destroy(picture);
}

static void ticks_are_round(void **state) {
  (void)state;
  fn_ticks ticks;
  fn_ticks_linear(-0.13, 0.52, 5, &ticks);
  assert_int_equal(ticks.count, 7);
  assert_string_equal(ticks.label[0], "-0.1");
  assert_string_equal(ticks.label[1], "0.0");
  assert_near(ticks.at[6], 0.5, 1e-12);
  fn_ticks_log(2e3, 3e6, &ticks);
  int major = 0;
  for (int i = 0; i < ticks.count; i++)
    major += ticks.label[i][0] != '\0';
  assert_int_equal(major, 3); // 10^4, 10^5, 10^6
}

/* A curve is drawn where its values are; gaps and impossible values do not spoil it. */
static void curves_are_saved(void **state) {
  (void)state;
  const double x[5] = {1, 2, 3, 4, 5}, y[5] = {1, (double)NAN, -1, 0.1, 0.01};
  const fn_series series = {.label = "a", .x = x, .y = y, .count = 5, .colour = 1, .markers = true};
  char folder[64], path[128];
  strcpy(folder, temporary_folder());
  snprintf(path, sizeof path, "%s/curve.png", folder);
  assert_int_equal(fn_plot_curves(path, "t", "x", "y", false, true, &series, 1), FN_OK);
  snprintf(path, sizeof path, "%s/curve.svg", folder);
  assert_int_equal(fn_plot_curves(path, NULL, NULL, NULL, true, false, &series, 1), FN_OK);
  char *svg = content(folder, "curve.svg");
  assert_non_null(strstr(svg, "<svg"));
  free(svg);
  snprintf(path, sizeof path, "%s/curve.gif", folder);
  assert_int_equal(fn_plot_curves(path, NULL, "", "", true, false, &series, 1), FN_ERR_CONFIG);
  const fn_panel panel = {.log_y = true, .series = &series, .count = 1};
  fn_picture *picture;
  assert_int_equal(fn_plot_panels(NULL, &panel, 1, 1, 400, 300, &picture), FN_OK);
  const double vermilion[1][3] = {{0.835, 0.369, 0}};
  int drawn;
  count_colors(picture, vermilion, 1, &drawn);
  assert_true(drawn > 100);
  fn_picture_destroy(picture);
  remove_tree(folder);
}

/* A long run draws thousands of pictures: what one takes must come back (with an SVG, cairo kept
 * it). */
static void pictures_do_not_accumulate(void **state) {
  (void)state;
#ifdef __SANITIZE_ADDRESS__
  skip(); // freed memory is kept in quarantine
#endif
  enum { POINTS = 500, PICTURES = 60 };
  static double x[POINTS], y[POINTS];
  for (int i = 0; i < POINTS; i++) {
    x[i] = i;
    y[i] = sin(0.1 * i);
  }
  const fn_series series = {.x = x, .y = y, .count = POINTS, .markers = true};
  char folder[64], path[128];
  strcpy(folder, temporary_folder());
  snprintf(path, sizeof path, "%s/curve.svg", folder);
  size_t before = 0;
  for (int i = 0; i < 2 * PICTURES; i++) {
    if (i == PICTURES) before = fn_memory_now(); // caches are full by now
    assert_int_equal(fn_plot_curves(path, NULL, "x", "y", false, false, &series, 1), FN_OK);
  }
  assert_true(fn_memory_now() < before + ((size_t)2 << 20));
  remove_tree(folder);
}

int main(void) {
  fn_log_set_level(FN_ERROR);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(color_maps_order_values_by_lightness),
      cmocka_unit_test(color_rule),
      cmocka_unit_test(color_rule_without_spread),
      cmocka_unit_test(slices_show_whole_small_fields),
      cmocka_unit_test(ticks_are_round),
      cmocka_unit_test(curves_are_saved),
      cmocka_unit_test(pictures_do_not_accumulate),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
