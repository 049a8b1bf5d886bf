/** @file drawing.h
 *  Below the plots: a recorded drawing, text and ticks. Inside the report room only.
 */
#ifndef FN_REPORT_DRAWING_H
#define FN_REPORT_DRAWING_H

#include <cairo.h>

#include "report/plot.h"

/** Start a white picture of width x height points; draw on *cr, then fn_drawing_finish. */
fn_status fn_drawing_create(double width, double height, cairo_t **cr, fn_picture **picture);
/** Destroys cr; on failure also the picture. */
fn_status fn_drawing_finish(cairo_t *cr, fn_picture **picture);

/** Text at (x, y); align 0 begins there, 0.5 is centred, 1 ends there; y is the middle of the lower
 *  case letters. "^{...}" is raised. */
void fn_drawing_text(cairo_t *cr, double x, double y, double align, double size, const char *text);
/** The same, read upwards, centred at (x, y). */
void fn_drawing_text_up(cairo_t *cr, double x, double y, double size, const char *text);
double fn_drawing_text_width(cairo_t *cr, double size, const char *text);

enum { FN_MAX_TICKS = 64 };
typedef struct fn_ticks {
  int count;
  double at[FN_MAX_TICKS];
  char label[FN_MAX_TICKS][24]; /**< "" for a minor tick */
} fn_ticks;

/** About `wanted` round values from low to high. */
void fn_ticks_linear(double low, double high, int wanted, fn_ticks *ticks);
/** Powers of ten and what lies between, 0 < low < high. */
void fn_ticks_log(double low, double high, fn_ticks *ticks);

#endif
