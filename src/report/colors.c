#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "report/plot.h"

/* Anchors at equal distances; between them the colour runs linearly in sRGB. Lightness rises along
 * the first, and falls on both sides of the middle of the second. */
static const double ember[][3] = {{0.01, 0.01, 0.05}, {0.12, 0.05, 0.27}, {0.31, 0.08, 0.41},
                                  {0.51, 0.13, 0.42}, {0.71, 0.20, 0.36}, {0.87, 0.32, 0.24},
                                  {0.96, 0.50, 0.12}, {0.98, 0.73, 0.20}, {0.99, 0.97, 0.70}};
static const double diverging[][3] = {{0.05, 0.16, 0.40}, {0.13, 0.37, 0.66}, {0.38, 0.62, 0.83},
                                      {0.73, 0.85, 0.93}, {0.97, 0.97, 0.96}, {0.97, 0.80, 0.73},
                                      {0.89, 0.51, 0.42}, {0.72, 0.19, 0.22}, {0.42, 0.02, 0.14}};
enum { ANCHORS = 9 };

void fn_color_at(fn_color_map map, double t, double rgb[3]) {
  t = fmin(fmax(t, 0), 1);
  if (map == FN_COLORS_EMBER_REVERSED) t = 1 - t;
  const double(*table)[3] = map == FN_COLORS_DIVERGING ? diverging : ember;
  const double position = t * (ANCHORS - 1);
  const int i = position >= ANCHORS - 1 ? ANCHORS - 2 : (int)position;
  const double f = position - i;
  for (int c = 0; c < 3; c++)
    rgb[c] = (1 - f) * table[i][c] + f * table[i + 1][c];
}

/** The k-th smallest of values[count], which is reordered (Hoare's selection). */
static float select_kth(float *values, int64_t count, int64_t k) {
  int64_t low = 0, high = count - 1;
  while (low < high) {
    const float pivot = values[low + (high - low) / 2];
    int64_t i = low, j = high;
    while (i <= j) {
      while (values[i] < pivot)
        i++;
      while (values[j] > pivot)
        j--;
      if (i > j) break;
      const float swap = values[i];
      values[i++] = values[j];
      values[j--] = swap;
    }
    if (k <= j) {
      high = j;
    } else if (k >= i) {
      low = i;
    } else {
      break;
    }
  }
  return values[k];
}

static double percentile(float *values, int64_t count, double percent) {
  const double position = percent / 100 * (double)(count - 1);
  const int64_t k = (int64_t)position;
  const double below = (double)select_kth(values, count, k);
  if (k + 1 >= count) return below;
  const double above = (double)select_kth(values, count, k + 1);
  return below + (position - (double)k) * (above - below);
}

/** Rounded so that the scales of successive epochs are mostly the same. */
static double quantize(double x) {
  return exp2(round(10 * log2(x)) / 10);
}

static void linear(fn_color_scale *scale, fn_color_map map, double low, double high) {
  *scale = (fn_color_scale){.kind = FN_SCALE_LINEAR, .map = map, .low = low, .high = high};
}

typedef struct spread {
  double l2, l1, h1, h2; // percentiles 2.5, 16, 84, 97.5
  double smallest, largest;
} spread;

static void choose_positive(const spread *s, fn_color_scale *scale) {
  const double top = s->h2 > 0 ? quantize(s->h2) : s->largest > 0 ? s->largest : 1;
  linear(scale, FN_COLORS_EMBER, 0, top);
  if (s->h1 > 0.1 * s->h2 || s->l2 == 0 || quantize(s->l2) >= top) return;
  scale->kind = FN_SCALE_LOG;
  scale->low = quantize(s->l2);
}

static void choose_negative(const spread *s, fn_color_scale *scale) {
  const double top = s->l2 < 0 ? quantize(-s->l2) : -s->smallest;
  linear(scale, FN_COLORS_EMBER_REVERSED, -top, 0);
  if (s->l1 < 0.1 * s->l2 || s->h2 == 0 || quantize(-s->h2) >= top) return;
  scale->kind = FN_SCALE_SYMLOG;
  scale->threshold = quantize(-s->h2);
  scale->high = -scale->threshold;
  scale->linear_part = 1;
}

static void choose_mixed(const spread *s, fn_color_scale *scale) {
  const double w1 = (s->h1 - s->l1) / 2, w2 = (s->h2 - s->l2) / 2;
  const double widest = fmax(-s->l2, s->h2);
  const double top = widest > 0 ? quantize(widest) : fmax(-s->smallest, s->largest);
  linear(scale, FN_COLORS_DIVERGING, -top, top);
  if (w1 > 0.1 * w2 || s->l1 * s->h1 >= 0) return;
  const double threshold = quantize(fmin(-s->l1, s->h1));
  if (threshold >= top) return;
  scale->kind = FN_SCALE_SYMLOG;
  scale->threshold = threshold;
  scale->linear_part = log10(top / threshold);
}

fn_status fn_color_scale_choose(const float *values, int64_t count, fn_color_scale *scale) {
  float *finite = malloc(sizeof *finite * (size_t)(count > 0 ? count : 1));
  FN_CHECK(finite, FN_ERR_MEMORY, "no memory for a figure of %lld values", (long long)count);
  int64_t kept = 0;
  spread s = {.smallest = INFINITY, .largest = -INFINITY};
  for (int64_t i = 0; i < count; i++) {
    if (!isfinite(values[i])) continue;
    finite[kept++] = values[i];
    s.smallest = fmin(s.smallest, (double)values[i]);
    s.largest = fmax(s.largest, (double)values[i]);
  }
  if (kept == 0) {
    linear(scale, FN_COLORS_EMBER, 0, 1);
  } else {
    s.l2 = percentile(finite, kept, 2.5);
    s.l1 = percentile(finite, kept, 16);
    s.h1 = percentile(finite, kept, 84);
    s.h2 = percentile(finite, kept, 97.5);
    if (s.smallest >= 0) {
      choose_positive(&s, scale);
    } else if (s.largest <= 0) {
      choose_negative(&s, scale);
    } else {
      choose_mixed(&s, scale);
    }
  }
  free(finite);
  return FN_OK;
}

/** Linear up to the threshold, logarithmic beyond, continuous. */
static double symlog(const fn_color_scale *scale, double x) {
  const double t = scale->threshold, magnitude = fabs(x), part = scale->linear_part / 0.9;
  if (magnitude <= t) return x * part;
  return copysign(t * (part + log10(magnitude / t)), x);
}

double fn_color_scale_position(const fn_color_scale *scale, double value) {
  double low = scale->low, high = scale->high;
  if (scale->kind == FN_SCALE_LOG) {
    if (value <= low) return 0;
    value = log(value);
    low = log(low);
    high = log(high);
  } else if (scale->kind == FN_SCALE_SYMLOG) {
    value = symlog(scale, value);
    low = symlog(scale, low);
    high = symlog(scale, high);
  }
  return fmin(fmax((value - low) / (high - low), 0), 1);
}
