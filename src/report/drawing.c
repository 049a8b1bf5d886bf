#include "report/drawing.h"

#include <cairo-svg.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "base/text.h"

struct fn_picture {
  cairo_surface_t *recording;
  double width, height;
};

static const double PIXELS_PER_POINT = 1.5; // sharp on today's screens, small enough for events

void fn_picture_destroy(fn_picture *picture) {
  if (!picture) return;
  // cairo 1.16 keeps a recording that was painted into an SVG, unless it is finished first
  cairo_surface_finish(picture->recording);
  cairo_surface_destroy(picture->recording);
  free(picture);
}

fn_status fn_drawing_create(double width, double height, cairo_t **cr, fn_picture **picture) {
  *picture = malloc(sizeof **picture);
  FN_CHECK(*picture, FN_ERR_MEMORY, "no memory for a picture");
  width = 2 * ceil(width / 2); // whole pixels at 3/2 pixels per point
  height = 2 * ceil(height / 2);
  const cairo_rectangle_t extent = {0, 0, width, height};
  (*picture)->recording = cairo_recording_surface_create(CAIRO_CONTENT_COLOR, &extent);
  (*picture)->width = width;
  (*picture)->height = height;
  *cr = cairo_create((*picture)->recording);
  cairo_set_source_rgb(*cr, 1, 1, 1);
  cairo_paint(*cr);
  cairo_set_source_rgb(*cr, 0, 0, 0);
  cairo_select_font_face(*cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
  return FN_OK;
}

fn_status fn_drawing_finish(cairo_t *cr, fn_picture **picture) {
  const cairo_status_t status = cairo_status(cr);
  cairo_destroy(cr);
  if (status == CAIRO_STATUS_SUCCESS) return FN_OK;
  fn_picture_destroy(*picture);
  *picture = NULL;
  FN_FAIL(FN_ERR_INTERNAL, "cairo cannot draw a picture: %s", cairo_status_to_string(status));
}

/* ---- output ------------------------------------------------------------------------------------
 */

static cairo_status_t append(void *user, const unsigned char *bytes, unsigned int count) {
  fn_text_add_bytes(user, (const char *)bytes, count);
  return CAIRO_STATUS_SUCCESS;
}

static cairo_status_t replay(const fn_picture *picture, cairo_surface_t *surface, double scale) {
  cairo_t *cr = cairo_create(surface);
  cairo_scale(cr, scale, scale);
  cairo_set_source_surface(cr, picture->recording, 0, 0);
  cairo_paint(cr);
  const cairo_status_t status = cairo_status(cr);
  cairo_destroy(cr);
  return status;
}

static fn_status encode(const fn_picture *picture, bool svg, fn_text *out, int *width,
                        int *height) {
  cairo_status_t status;
  *width = (int)ceil(picture->width * PIXELS_PER_POINT);
  *height = (int)ceil(picture->height * PIXELS_PER_POINT);
  cairo_surface_t *surface =
      svg ? cairo_svg_surface_create_for_stream(append, out, picture->width, picture->height)
          : cairo_image_surface_create(CAIRO_FORMAT_RGB24, *width, *height);
  status = replay(picture, surface, svg ? 1 : PIXELS_PER_POINT);
  if (svg) {
    cairo_surface_finish(surface);
  } else if (status == CAIRO_STATUS_SUCCESS) {
    status = cairo_surface_write_to_png_stream(surface, append, out);
  }
  if (status == CAIRO_STATUS_SUCCESS) status = cairo_surface_status(surface);
  cairo_surface_destroy(surface);
  FN_CHECK(status == CAIRO_STATUS_SUCCESS && out->length > 0, FN_ERR_INTERNAL,
           "cairo cannot encode a picture: %s", cairo_status_to_string(status));
  return FN_OK;
}

fn_status fn_picture_save(const fn_picture *picture, const char *path) {
  const bool svg = fn_text_ends(path, ".svg");
  FN_CHECK(svg || fn_text_ends(path, ".png"), FN_ERR_CONFIG,
           "%s: a picture is saved as .png or .svg", path);
  fn_text bytes = {0};
  int width, height;
  fn_status status = encode(picture, svg, &bytes, &width, &height);
  if (status == FN_OK) status = fn_file_replace_text(path, &bytes);
  fn_text_free(&bytes);
  return status;
}

fn_status fn_picture_png(const fn_picture *picture, unsigned char **bytes, size_t *count,
                         int *width, int *height) {
  fn_text out = {0};
  const fn_status status = encode(picture, false, &out, width, height);
  if (status != FN_OK) fn_text_free(&out);
  *bytes = (unsigned char *)out.data;
  *count = out.length;
  return status;
}

/* ---- text ---------------------------------------------------------------------------------------
 */

/** Draw, or only measure, text with raised parts; returns its width. */
static double set_text(cairo_t *cr, double x, double y, double size, const char *text, bool draw) {
  const double start = x;
  while (*text) {
    const bool raised = text[0] == '^' && text[1] == '{';
    if (raised) text += 2;
    const char *end = raised ? strchr(text, '}') : strstr(text, "^{");
    const size_t length = end ? (size_t)(end - text) : strlen(text);
    char part[256];
    snprintf(part, sizeof part, "%.*s", (int)length, text);
    cairo_set_font_size(cr, raised ? 0.72 * size : size);
    cairo_text_extents_t extents;
    cairo_text_extents(cr, part, &extents);
    if (draw) {
      cairo_move_to(cr, x, raised ? y - 0.42 * size : y);
      cairo_show_text(cr, part);
    }
    x += extents.x_advance;
    text += length + (raised && end ? 1 : 0);
  }
  cairo_new_path(cr);
  return x - start;
}

double fn_drawing_text_width(cairo_t *cr, double size, const char *text) {
  return set_text(cr, 0, 0, size, text, false);
}

void fn_drawing_text(cairo_t *cr, double x, double y, double align, double size, const char *text) {
  const double width = fn_drawing_text_width(cr, size, text);
  set_text(cr, x - align * width, y + 0.35 * size, size, text, true);
}

void fn_drawing_text_up(cairo_t *cr, double x, double y, double size, const char *text) {
  cairo_save(cr);
  cairo_translate(cr, x, y);
  cairo_rotate(cr, -M_PI / 2);
  fn_drawing_text(cr, 0, 0, 0.5, size, text);
  cairo_restore(cr);
}

/* ---- ticks
 * --------------------------------------------------------------------------------------- */

static void add_tick(fn_ticks *ticks, double at, const char *label) {
  if (ticks->count == FN_MAX_TICKS) return;
  ticks->at[ticks->count] = at;
  snprintf(ticks->label[ticks->count++], sizeof ticks->label[0], "%s", label);
}

void fn_ticks_linear(double low, double high, int wanted, fn_ticks *ticks) {
  ticks->count = 0;
  const double raw = (high - low) / wanted, power = pow(10, floor(log10(raw)));
  const double digit = raw / power;
  const double step = power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
  const double largest = fmax(fabs(low), fabs(high));
  const bool plain = largest < 1e5 && step >= 1e-4;
  const int decimals = (int)fmax(0, ceil(-log10(step) - 1e-9));
  for (double i = ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) {
    char label[24];
    const double at = i == 0 ? 0 : i * step; // no "-0"
    if (plain) {
      snprintf(label, sizeof label, "%.*f", decimals, at);
    } else {
      snprintf(label, sizeof label, "%.4g", at);
    }
    add_tick(ticks, at, label);
    if (ticks->count == FN_MAX_TICKS) return;
  }
}

void fn_ticks_log(double low, double high, fn_ticks *ticks) {
  const double decades = log10(high / low);
  if (decades < 1) {
    fn_ticks_linear(low, high, 4, ticks);
    return;
  }
  ticks->count = 0;
  const int every = decades > 8 ? (int)ceil(decades / 6) : 1;
  for (int e = (int)floor(log10(low)); e <= (int)ceil(log10(high)); e++) {
    if (e % every != 0) continue;
    for (int digit = 1; digit < 10; digit++) {
      const double at = digit * pow(10, e);
      char label[24] = "";
      if (at < low * (1 - 1e-9) || at > high * (1 + 1e-9)) continue;
      if (decades < 2.2 && fabs(log10(high)) < 4 && fabs(log10(low)) < 4) {
        if (digit == 1 || digit == 2 || digit == 5) snprintf(label, sizeof label, "%.6g", at);
      } else if (digit == 1) {
        snprintf(label, sizeof label, "10^{%d}", e);
      }
      if (decades > 5 && digit > 1) continue;
      add_tick(ticks, at, label);
    }
  }
}
