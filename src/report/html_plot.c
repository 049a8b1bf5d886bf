/* Curves as inline SVG. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "report/drawing.h"
#include "report/html.h"

enum { WIDTH = 640, HEIGHT = 300, LEFT = 66, RIGHT = 14, TOP = 10, BOTTOM = 42 };
enum { GROUPED_FROM = 1200, GROUPS = 400, DOTS_MOST = 60, LEGEND_MOST = 14 };

typedef struct axis {
  double low, high;
  double begin, extent; // on the paper
  bool log;
} axis;

static bool on_axis(const axis *a, double value) {
  return isfinite(value) && (!a->log || value > 0);
}

static double place(const axis *a, double value) {
  const double t =
      a->log ? log(value / a->low) / log(a->high / a->low) : (value - a->low) / (a->high - a->low);
  return a->begin + t * a->extent;
}

static bool drawable(const fn_panel *panel, const fn_series *s, int64_t i) {
  return isfinite(s->x[i]) && isfinite(s->y[i]) && (!panel->log_x || s->x[i] > 0) &&
         (!panel->log_y || s->y[i] > 0);
}

/** Range of what can be drawn, with a margin; any range when there is nothing. */
static void find_range(const fn_panel *panel, bool vertical, double margin, axis *a) {
  double low = INFINITY, high = -INFINITY;
  a->log = vertical ? panel->log_y : panel->log_x;
  for (int s = 0; s < panel->count; s++)
    for (int64_t i = 0; i < panel->series[s].count; i++) {
      if (!drawable(panel, &panel->series[s], i)) continue;
      const double value = vertical ? panel->series[s].y[i] : panel->series[s].x[i];
      low = fmin(low, value);
      high = fmax(high, value);
    }
  if (!(low <= high)) low = high = 1;
  if (a->log) {
    const double factor = high > low * (1 + 1e-9) ? pow(high / low, margin) : 2;
    a->low = low / factor;
    a->high = high * factor;
    return;
  }
  double pad = margin * (high - low);
  if (!(pad > 1e-12 * fmax(fabs(low), fabs(high)))) pad = low == 0 ? 1 : 0.1 * fabs(low);
  a->low = low - pad;
  a->high = high + pad;
}

/* ---- axes ------------------------------------------------------------------------------------ */

/** "10^{-3}" with its exponent raised. */
static void add_label(fn_text *html, const char *label) {
  for (;;) {
    const char *power = strstr(label, "^{"), *end = power ? strchr(power, '}') : NULL;
    char part[128];
    snprintf(part, sizeof part, "%.*s", (int)(end ? power - label : (long)strlen(label)), label);
    fn_html_words(html, part);
    if (!end) return;
    snprintf(part, sizeof part, "%.*s", (int)(end - power - 2), power + 2);
    fn_text_add(html, "<tspan dy=\"-4\" font-size=\"8\">");
    fn_html_words(html, part);
    fn_text_add(html, "</tspan>");
    label = end + 1;
    if (*label) fn_text_add(html, "<tspan dy=\"4\"/>");
  }
}

static void add_text(fn_text *html, double x, double y, const char *anchor, const char *label) {
  fn_text_add(html, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
  add_label(html, label);
  fn_text_add(html, "</text>");
}

static void find_ticks(const axis *a, int wanted, fn_ticks *ticks) {
  if (a->log)
    fn_ticks_log(a->low, a->high, ticks);
  else
    fn_ticks_linear(a->low, a->high, wanted, ticks);
}

static void add_axes(fn_text *html, const fn_panel *panel, const axis *x, const axis *y) {
  fn_ticks ticks;
  const double bottom = HEIGHT - BOTTOM, right = WIDTH - RIGHT;
  find_ticks(x, 7, &ticks);
  for (int i = 0; i < ticks.count; i++) {
    const double at = place(x, ticks.at[i]);
    if (!ticks.label[i][0] || at < LEFT - 0.01 || at > right + 0.01) continue;
    fn_text_add(html, "<path class=\"tick\" d=\"M%.1f %dV%.1f\"/>", at, TOP, bottom);
    add_text(html, at, bottom + 16, "middle", ticks.label[i]);
  }
  find_ticks(y, 5, &ticks);
  for (int i = 0; i < ticks.count; i++) {
    const double at = place(y, ticks.at[i]);
    if (!ticks.label[i][0] || at < TOP - 0.01 || at > bottom + 0.01) continue;
    fn_text_add(html, "<path class=\"tick\" d=\"M%d %.1fH%.1f\"/>", LEFT, at, right);
    add_text(html, LEFT - 7, at + 4, "end", ticks.label[i]);
  }
  fn_text_add(html, "<path class=\"frame\" d=\"M%d %dV%.1fH%.1f\"/>\n", LEFT, TOP, bottom, right);
  if (panel->x_label) add_text(html, (LEFT + right) / 2, HEIGHT - 8, "middle", panel->x_label);
}

/* ---- curves ---------------------------------------------------------------------------------- */

/** A few neighbouring points, or one. */
typedef struct group {
  double x, mean, low, high;
  int64_t count;
} group;

static int64_t groups_of(const fn_series *s) {
  return s->count > GROUPED_FROM ? GROUPS : s->count;
}

/** Group `g`; count 0 when none of its points can be drawn. */
static group group_at(const fn_panel *panel, const fn_series *s, int64_t g) {
  const int64_t groups = groups_of(s);
  group found = {.low = INFINITY, .high = -INFINITY};
  for (int64_t i = g * s->count / groups; i < (g + 1) * s->count / groups; i++) {
    if (!drawable(panel, s, i)) continue;
    found.x += s->x[i];
    found.mean += s->y[i];
    found.low = fmin(found.low, s->y[i]);
    found.high = fmax(found.high, s->y[i]);
    found.count++;
  }
  if (found.count > 0) {
    found.x /= (double)found.count;
    found.mean /= (double)found.count;
  }
  return found;
}

/** Heights far outside a fixed range stay near it. */
static double height(const axis *y, double value) {
  return fmin(fmax(place(y, value), -HEIGHT), 2 * HEIGHT);
}

static void add_line(fn_text *html, const fn_panel *panel, const fn_series *s, const axis *x,
                     const axis *y) {
  bool pen_down = false;
  fn_text_add(html, "<path class=\"line c%d%s\" d=\"", s->colour % FN_HTML_COLOURS,
              s->dashed ? " dashed" : "");
  for (int64_t g = 0; g < groups_of(s); g++) {
    const group point = group_at(panel, s, g);
    if (point.count > 0)
      fn_text_add(html, "%s%.1f %.1f", pen_down ? "L" : "M", place(x, point.x),
                  height(y, point.mean));
    pen_down = point.count > 0;
  }
  fn_text_add(html, "\">");
  if (s->label) {
    fn_text_add(html, "<title>");
    fn_html_words(html, s->label);
    fn_text_add(html, "</title>");
  }
  fn_text_add(html, "</path>\n");
}

/** From the smallest to the largest of each group; points that cannot be drawn leave no gap. */
static void add_band(fn_text *html, const fn_panel *panel, const fn_series *s, const axis *x,
                     const axis *y) {
  const int64_t groups = groups_of(s);
  bool pen_down = false;
  if (groups == s->count) return;
  fn_text_add(html, "<path class=\"band c%d\" d=\"", s->colour % FN_HTML_COLOURS);
  for (int64_t i = 0; i < 2 * groups; i++) {
    const bool back = i >= groups;
    const group point = group_at(panel, s, back ? 2 * groups - 1 - i : i);
    if (point.count == 0) continue;
    fn_text_add(html, "%s%.1f %.1f", pen_down ? "L" : "M", place(x, point.x),
                height(y, back ? point.low : point.high));
    pen_down = true;
  }
  fn_text_add(html, "%s\"/>\n", pen_down ? "Z" : "");
}

static void add_dots(fn_text *html, const fn_panel *panel, const fn_series *s, const axis *x,
                     const axis *y) {
  if (s->count > DOTS_MOST) return;
  for (int64_t i = 0; i < s->count; i++) {
    if (!drawable(panel, s, i)) continue;
    fn_text_add(html, "<circle class=\"dot c%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\"><title>",
                s->colour % FN_HTML_COLOURS, place(x, s->x[i]), height(y, s->y[i]));
    if (s->label) fn_html_words(html, s->label);
    fn_text_add(html, s->label ? ", " : "");
    fn_html_words(html, panel->x_label ? panel->x_label : "x");
    fn_text_add(html, " %.6g: %.6g</title></circle>\n", s->x[i], s->y[i]);
  }
}

static void add_legend(fn_text *html, const fn_panel *panel) {
  int labels = 0;
  for (int s = 0; s < panel->count; s++)
    labels += panel->series[s].label != NULL;
  if (labels < 2) return;
  fn_text_add(html, "<ul class=\"legend\">");
  for (int s = 0, shown = 0; s < panel->count && shown < LEGEND_MOST; s++) {
    if (!panel->series[s].label) continue;
    fn_text_add(html, "<li>");
    fn_html_swatch(html, panel->series[s].colour, panel->series[s].dashed);
    fn_html_words(html, panel->series[s].label);
    fn_text_add(html, "</li>");
    shown++;
  }
  if (labels > LEGEND_MOST) fn_text_add(html, "<li>and %d more</li>", labels - LEGEND_MOST);
  fn_text_add(html, "</ul>\n");
}

void fn_html_panel(fn_text *html, const fn_panel *panel) {
  const double bottom = HEIGHT - BOTTOM;
  axis x = {.begin = LEFT, .extent = WIDTH - RIGHT - LEFT}, y = {.begin = bottom};
  y.extent = TOP - bottom;
  find_range(panel, false, 0.015, &x);
  find_range(panel, true, 0.06, &y);
  if (panel->fixed_y) {
    y.low = panel->y_low;
    y.high = panel->y_high;
  }
  const size_t clip = html->length; // in its name: distinct on the page
  fn_text_add(html, "<figure><figcaption>");
  fn_html_words(html, panel->title ? panel->title : "");
  fn_text_add(html,
              "</figcaption>\n<svg class=\"curves\" viewBox=\"0 0 %d %d\" role=\"img\">\n"
              "<clipPath id=\"clip%zu\"><rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>"
              "</clipPath>\n",
              WIDTH, HEIGHT, clip, LEFT, TOP - 3, WIDTH - LEFT - RIGHT + 3,
              HEIGHT - TOP - BOTTOM + 6);
  add_axes(html, panel, &x, &y);
  fn_text_add(html, "<g clip-path=\"url(#clip%zu)\">\n", clip);
  if (panel->has_level && on_axis(&y, panel->level))
    fn_text_add(html, "<path class=\"level\" d=\"M%d %.1fH%d\"/>\n", LEFT, height(&y, panel->level),
                WIDTH - RIGHT);
  for (int s = 0; s < panel->count; s++)
    add_band(html, panel, &panel->series[s], &x, &y);
  for (int s = 0; s < panel->count; s++)
    add_line(html, panel, &panel->series[s], &x, &y);
  for (int s = 0; s < panel->count; s++)
    add_dots(html, panel, &panel->series[s], &x, &y);
  fn_text_add(html, "</g>\n</svg>\n");
  add_legend(html, panel);
  fn_text_add(html, "</figure>\n");
}
