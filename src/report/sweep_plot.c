/* A sweep as a picture: the metric against each parameter, and learning curves. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/plot.h"
#include "report/sweep_table.h"

enum { GROUPS = 3, MOST_PANELS = 24, CATEGORIES = 12, TITLE = 160 };

/** Finished trials, those stopped by the rule, and all others with a result. */
static const struct {
  const char *name;
  int colour;
} looks[GROUPS] = {{"finished", 0}, {"stopped", 4}, {"not finished", 6}};
static const int best_colour = 1;

static const char *metric_label(const fn_sweep *sweep) {
  if (strcmp(sweep->metric, "train") == 0) return "training loss";
  if (strcmp(sweep->metric, "validation") == 0) return "validation loss";
  return strcmp(sweep->metric, "accuracy") == 0 ? "validation accuracy"
         : strcmp(sweep->metric, "auc") == 0    ? "validation AUC"
                                                : "validation F1";
}

static int look_of(const fn_trial_record *r) {
  return r->state == FN_TRIAL_FINISHED ? 0 : r->state == FN_TRIAL_STOPPED ? 1 : 2;
}

/** What all panels are drawn from. */
typedef struct picture {
  fn_sweep_store *store;
  const fn_sweep *sweep;
  fn_arena *arena;
  int64_t count;
  fn_trial *trial; // [count]
  int64_t best;    // < 0: none
  fn_panel metric; // its axis, in all panels
  int64_t beyond;  // results that lie outside
} picture;

/** Whether a logarithmic axis shows more: all positive, over more than a decade. */
static bool wants_log(double low, double high) {
  return low > 0 && isfinite(high) && high > 10 * low;
}

static int ascending(const void *left, const void *right) {
  const double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

/** Range of `values` [count] that is worth the paper, sorted: bad trials may lie decades away, and
 *  the good ones are to be told apart. From the best to twice as far as four fifths of them lie. */
static void find_range(const fn_sweep *sweep, double *values, int64_t count, fn_panel *panel) {
  if (count == 0) return;
  qsort(values, (size_t)count, sizeof *values, ascending);
  double low = values[0], high = values[count - 1];
  const double most = values[sweep->maximize ? (count - 1) / 5 : count - 1 - (count - 1) / 5];
  panel->log_y = wants_log(low, high) && (sweep->maximize || most > 0);
  const double best = sweep->maximize ? high : low;
  const double far = panel->log_y ? most * (most / best) : most + (most - best);
  if (far != best) {
    low = fmax(low, sweep->maximize ? far : low);
    high = fmin(high, sweep->maximize ? high : far);
  }
  // Where the worst are not far away the range is theirs, and a line is enough.
  panel->log_y = wants_log(low, high);
  double margin = panel->log_y ? pow(high / low, 0.05) : 0.05 * (high - low);
  if (!(high > low)) margin = panel->log_y ? 2 : fmax(0.1 * fabs(high), 1e-12);
  panel->fixed_y = true;
  panel->y_low = panel->log_y ? low / margin : low - margin;
  panel->y_high = panel->log_y ? high * margin : high + margin;
}

/** `value`, or the edge of the paper that is next to it. */
static double on_paper(const fn_panel *panel, double value) {
  return panel->fixed_y ? fmin(fmax(value, panel->y_low), panel->y_high) : value;
}

static fn_status gather(picture *p) {
  p->count = fn_sweep_store_count(p->store);
  p->trial = fn_arena_take(p->arena, sizeof *p->trial * (size_t)(p->count + 1));
  double *best = fn_arena_take(p->arena, sizeof *best * (size_t)(p->count + 1));
  int64_t results = 0;
  for (int64_t id = 0; id < p->count; id++) {
    FN_TRY(fn_sweep_store_trial_make(p->store, id, p->arena, &p->trial[id]));
    const fn_trial_record *r = fn_sweep_store_trial(p->store, id);
    if (isfinite(r->best)) best[results++] = r->best;
  }
  p->best = fn_sweep_best_trial(p->store);
  FN_CHECK(p->best >= 0, FN_ERR_DATA, "%s: no trial has a result yet", p->sweep->folder);
  find_range(p->sweep, best, results, &p->metric);
  for (int64_t i = 0; i < results; i++)
    p->beyond += on_paper(&p->metric, best[i]) != best[i];
  return FN_OK;
}

/* ---- metric against one parameter --------------------------------------------------------------
 */

/** Whether every value of the parameter is a number. */
static bool is_numeric(const picture *p, const char *path) {
  for (int64_t id = 0; id < p->count; id++) {
    const char *text = fn_trial_value(&p->trial[id], path);
    char *end = NULL;
    if (text && (strtod(text, &end), end == text || *end)) return false;
  }
  return true;
}

/** Number of a word among those seen so far, from 1; 0: too many. */
static int category_of(const char **words, int *count, const char *word) {
  for (int i = 0; i < *count; i++)
    if (strcmp(words[i], word) == 0) return i + 1;
  if (*count == CATEGORIES) return 0;
  words[(*count)++] = word;
  return *count;
}

/** "1 adam, 2 sgd" under the axis of a parameter with words. */
static const char *categories_label(const picture *p, const char *name, const char **words,
                                    int count) {
  const char *text = fn_arena_format(p->arena, "%s:", name);
  for (int i = 0; i < count; i++)
    text = fn_arena_format(p->arena, "%s%s %d %s", text, i > 0 ? "," : "", i + 1, words[i]);
  return text;
}

static void draw_parameter(picture *p, int parameter, fn_panel *panel) {
  const char *path = p->sweep->parameter[parameter].path,
             *name = fn_sweep_short_name(p->sweep, parameter), *words[CATEGORIES];
  const bool numeric = is_numeric(p, path);
  double low = INFINITY, high = -INFINITY;
  int word_count = 0;
  fn_series *series = fn_arena_take(p->arena, sizeof *series * (GROUPS + 1));
  double *x[GROUPS + 1], *y[GROUPS + 1];
  for (int g = 0; g <= GROUPS; g++) {
    x[g] = fn_arena_take(p->arena, sizeof(double) * (size_t)(p->count + 1));
    y[g] = fn_arena_take(p->arena, sizeof(double) * (size_t)(p->count + 1));
  }
  for (int64_t id = 0; id < p->count; id++) {
    const fn_trial_record *r = fn_sweep_store_trial(p->store, id);
    const char *text = fn_trial_value(&p->trial[id], path);
    if (!text || !isfinite(r->best)) continue;
    const double at = numeric ? strtod(text, NULL) : category_of(words, &word_count, text);
    const int g = id == p->best ? GROUPS : look_of(r);
    x[g][series[g].count] = at;
    y[g][series[g].count++] = on_paper(&p->metric, r->best);
    low = fmin(low, at);
    high = fmax(high, at);
  }
  for (int g = 0; g <= GROUPS; g++) {
    series[g].x = x[g];
    series[g].y = y[g];
    series[g].scatter = true;
    series[g].colour = g < GROUPS ? looks[g].colour : best_colour;
  }
  const fn_range_kind kind = p->sweep->parameter[parameter].kind;
  const bool log = kind == FN_RANGE_CHOICES ? wants_log(low, high)
                                            : kind == FN_RANGE_LOG || kind == FN_RANGE_LOG_INTEGER;
  *panel = p->metric;
  panel->title = name;
  panel->x_label = numeric ? path : categories_label(p, name, words, word_count);
  panel->y_label = metric_label(p->sweep);
  panel->log_x = numeric && log;
  panel->whole_x = !numeric || kind == FN_RANGE_INTEGER;
  panel->series = series;
  panel->count = GROUPS + 1;
}

/* ---- learning curves ---------------------------------------------------------------------------
 */

static void draw_curves(picture *p, fn_panel *panel) {
  fn_series *series = fn_arena_take(p->arena, sizeof *series * (size_t)(p->count + 1));
  bool named[GROUPS] = {false};
  int64_t room = 0, values = 0;
  int count = 0;
  for (int64_t id = 0; id < p->count; id++)
    room += fn_sweep_store_trial(p->store, id)->epochs;
  double *value = fn_arena_take(p->arena, sizeof *value * (size_t)(room + 1));
  // The best is drawn last, over the others.
  for (int64_t i = 0; i <= p->count; i++) {
    const int64_t id = i == p->count ? p->best : i;
    const fn_trial_record *r = fn_sweep_store_trial(p->store, id);
    if ((i < p->count && id == p->best) || r->epochs == 0) continue;
    double *epoch = fn_arena_take(p->arena, sizeof *epoch * (size_t)r->epochs);
    for (int64_t e = 0; e < r->epochs; e++) {
      epoch[e] = (double)e + 1;
      if (isfinite(r->values[e])) value[values++] = r->values[e];
    }
    const int g = look_of(r);
    const bool best = id == p->best;
    series[count++] =
        (fn_series){.label = best ? fn_arena_format(p->arena, "best: trial %lld", (long long)id)
                                  : (named[g] ? NULL : looks[g].name),
                    .x = epoch,
                    .y = r->values,
                    .count = r->epochs,
                    .colour = best ? best_colour : looks[g].colour};
    if (!best) named[g] = true;
  }
  *panel = (fn_panel){.title = "learning curves",
                      .x_label = "epoch",
                      .whole_x = true,
                      .y_label = metric_label(p->sweep),
                      .series = series,
                      .count = count};
  find_range(p->sweep, value, values, panel);
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static fn_status draw(picture *p, const char *path) {
  FN_TRY(gather(p));
  fn_panel panels[MOST_PANELS];
  int count = 0;
  draw_curves(p, &panels[count++]);
  for (int i = 0; i < p->sweep->parameter_count && count < MOST_PANELS; i++)
    draw_parameter(p, i, &panels[count++]);
  const fn_trial_record *best = fn_sweep_store_trial(p->store, p->best);
  char title[TITLE], beyond[64] = "";
  if (p->beyond > 0)
    snprintf(beyond, sizeof beyond, "; %lld results beyond the axis, on its edge",
             (long long)p->beyond);
  snprintf(title, sizeof title, "%.80s: best %s %.5g, trial %lld%s", p->sweep->folder,
           p->sweep->metric, best->best, (long long)p->best, beyond);
  fn_picture *drawn = NULL;
  FN_TRY(fn_plot_panels(title, panels, count, count < 3 ? count : 3, 420, 320, &drawn));
  const fn_status status = fn_picture_save(drawn, path);
  fn_picture_destroy(drawn);
  return status;
}

fn_status fn_sweep_plot(fn_sweep_store *store, const char *path) {
  picture p = {.store = store, .sweep = fn_sweep_store_sweep(store), .arena = fn_arena_create()};
  FN_CHECK(p.arena, FN_ERR_MEMORY, "out of memory");
  const fn_status status = draw(&p, path);
  fn_arena_destroy(p.arena);
  return status;
}
