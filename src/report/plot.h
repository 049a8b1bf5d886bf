/** @file plot.h
 *  Pictures: curves, spectra and slices of fields, drawn once and saved as PNG or SVG.
 */
#ifndef FN_REPORT_PLOT_H
#define FN_REPORT_PLOT_H

#include "run/observer.h"

/** A finished drawing; free with fn_picture_destroy (NULL is fine). */
typedef struct fn_picture fn_picture;
void fn_picture_destroy(fn_picture *picture);
/** Write path, whole or not at all; its extension, .png or .svg, says how. */
fn_status fn_picture_save(const fn_picture *picture, const char *path);
/** Encode as PNG in memory: malloc'ed bytes and size in pixels. */
fn_status fn_picture_png(const fn_picture *picture, unsigned char **bytes, size_t *count,
                         int *width, int *height);

/** One curve. Values that are not finite, or not positive on a logarithmic axis, leave a gap. */
typedef struct fn_series {
  const char *label; /**< NULL: not in the legend */
  const double *x, *y;
  int64_t count;
  int colour; /**< 0 .. 6, the palette's */
  bool dashed;
  bool markers; /**< dots at the points */
  bool scatter; /**< dots only, no line */
} fn_series;

/** One set of axes. Labels may hold superscripts: "k^{2}". */
typedef struct fn_panel {
  const char *title, *x_label, *y_label; /**< NULL: none */
  bool log_x, log_y;
  bool whole_x; /**< x are whole numbers: so are the ticks */
  bool fixed_y; /**< use y_low and y_high instead of the data's range */
  double y_low, y_high;
  bool has_level; /**< a thin horizontal line at y = level */
  double level;
  const fn_series *series;
  int count;
} fn_panel;

/** Panels in rows of `columns`, each width x height (in points of 1/96 inch), under a title. */
fn_status fn_plot_panels(const char *title, const fn_panel *panels, int count, int columns,
                         double width, double height, fn_picture **picture);

/** One panel of curves straight into a file. For tools. */
fn_status fn_plot_curves(const char *path, const char *title, const char *x_label,
                         const char *y_label, bool log_x, bool log_y, const fn_series *series,
                         int count);

/** Training and validation loss per epoch (validation may be NaN), shape [count]. */
fn_status fn_plot_losses(const double *epoch, const double *train, const double *validation,
                         int64_t count, fn_picture **picture);

/** Spectra of a test or a batch, all [bins]; see data/spectrum.h. Those of the input may be NULL.
 */
typedef struct fn_spectra {
  int64_t bins;
  const double *k;
  bool physical;   /**< k in h/Mpc; else in units of the fundamental */
  bool normalised; /**< powers per unit wave number, in units of the fields and Mpc/h */
  const double *input, *output, *target; /**< power */
  const double *transfer, *correlation;  /**< of output and target */
  const double *input_transfer, *input_correlation;
} fn_spectra;
/** Power, transfer function and cross-correlation side by side. */
fn_status fn_plot_spectra(const char *title, const fn_spectra *spectra, fn_picture **picture);
/** Spectra over the whole batch of `event`. *picture is NULL when the fields are too small. */
fn_status fn_plot_figure_spectra(const fn_figure_event *event, fn_picture **picture);
/** Last sample of `event`: columns input, output, target, output - target, one row per channel.
 *  Last two axes at the middle of the others, central 64 x 64 cells at most; curves in 1-d. */
fn_status fn_plot_figure_slices(const fn_figure_event *event, fn_picture **picture);

/** One plane [rows, columns] with its colour bar, first axis upwards; NaN is grey. */
fn_status fn_plot_plane(const char *title, const char *note, const float *values, int64_t rows,
                        int64_t columns, fn_picture **picture);

/* ---- colours ----------------------------------------------------------------------------------
 */

typedef enum fn_color_map {
  FN_COLORS_EMBER, /**< black - violet - red - orange - pale yellow, rising lightness */
  FN_COLORS_EMBER_REVERSED,
  FN_COLORS_DIVERGING, /**< blue - white - red */
} fn_color_map;

/** Colour at t in [0, 1] (clamped), sRGB in [0, 1]. */
void fn_color_at(fn_color_map map, double t, double rgb[3]);

/** How values become colours. */
typedef struct fn_color_scale {
  enum { FN_SCALE_LINEAR, FN_SCALE_LOG, FN_SCALE_SYMLOG } kind;
  fn_color_map map;
  double low, high;
  double threshold;   /**< symlog: linear between -threshold and threshold */
  double linear_part; /**< symlog: that part's share, in decades */
} fn_color_scale;

/** The rule of the map2map page, section 6.8, with its failure on mostly-zero fields mended (then:
 *  linear up to the largest magnitude, or 1). Values that are not finite are left out. */
fn_status fn_color_scale_choose(const float *values, int64_t count, fn_color_scale *scale);
/** Position of value on the scale, clamped to [0, 1]. */
double fn_color_scale_position(const fn_color_scale *scale, double value);

#endif
