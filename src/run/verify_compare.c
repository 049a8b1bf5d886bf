#include "run/verify_compare.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bool fn_verify_uses_error(const fn_verify_tally *tally) {
  return tally->options->rtol < 0;
}

void fn_verify_begin(fn_verify_tally *tally, const char *group) {
  tally->group = (fn_verify_group){.name = group, .share = -1};
  tally->groups++;
}

void fn_verify_end(fn_verify_tally *tally) {
  const fn_verify_group *g = &tally->group;
  if (g->tensors > 0)
    fprintf(tally->out, "%-18s %4d  %-34s %10.2e %10.2e %7.2f  %s\n", g->name, g->tensors, g->worst,
            g->error, g->limit, g->share, g->over ? "OVER" : "ok");
  tally->group = (fn_verify_group){0};
}

/** "grads/x" -> "grads64/x", "eval/outputs/x" -> "eval64/outputs/x". */
static void double_path(const char *path, char *out, size_t size) {
  const size_t first = strcspn(path, "/");
  snprintf(out, size, "%.*s64%s", (int)first, path, path + first);
}

double fn_verify_largest(const fn_reference_tensor *tensor) {
  double most = 0;
  for (int64_t i = 0; i < tensor->count; i++)
    if (fabs(tensor->value[i]) > most) most = fabs(tensor->value[i]);
  return most;
}

/** Largest |a - b|; infinite when a is not finite anywhere. */
static double distance(const float *a, const double *b, int64_t count) {
  double most = 0;
  for (int64_t i = 0; i < count; i++) {
    const double d = fabs((double)a[i] - b[i]);
    if (!(d <= most)) most = isnan(d) ? (double)INFINITY : d;
  }
  return most;
}

/** max |f32 - f64| of the reference itself. */
static double own_error(const fn_reference_tensor *single, const fn_reference_tensor *exact) {
  if (!isnan(single->err_max)) return single->err_max;
  double most = 0;
  for (int64_t i = 0; i < single->count && single->count == exact->count; i++) {
    const double d = fabs(single->value[i] - exact->value[i]);
    if (d > most) most = d;
  }
  return most;
}

/** The rule of docs/verify.md. */
static double limit_of(const fn_verify_tally *tally, const fn_reference_tensor *single,
                       const fn_reference_tensor *exact, double slack) {
  const fn_verify_options *o = tally->options;
  const bool by_error = exact->name && fn_verify_uses_error(tally);
  const fn_reference_tensor *target = exact->name ? exact : single;
  const double scale = fn_verify_largest(target);
  double limit =
      by_error ? o->factor * own_error(single, exact) + 1e-6 * scale : tally->rtol * scale;
  // Noise has no right value: only its size is compared.
  if (single->noise) limit += slack;
  return limit;
}

static void record(fn_verify_tally *tally, const char *name, const fn_reference_tensor *single,
                   double error, double limit) {
  fn_verify_group *g = &tally->group;
  const bool over = !(error <= limit);
  const double share = limit > 0 ? error / limit : over ? (double)INFINITY : 0;
  g->tensors++;
  g->over += over;
  tally->tensors++;
  tally->over += over;
  if (tally->options->all || over)
    fprintf(tally->out, "  %-16s       %-34s %10.2e %10.2e %7.2f  %s%s\n", g->name, name, error,
            limit, share, over ? "OVER" : "ok", single->noise ? " (noise)" : "");
  if (share <= g->share) return;
  snprintf(g->worst, sizeof g->worst, "%s", name);
  g->share = share;
  g->error = error;
  g->limit = limit;
}

fn_status fn_verify_tensor(fn_verify_tally *tally, const char *name, const fn_shape *shape,
                           const float *values, double slack) {
  char path[1024], path64[1024], ours[128], theirs[128];
  snprintf(path, sizeof path, "%s%s%s", tally->group.name, *name ? "/" : "", name);
  double_path(path, path64, sizeof path64);
  fn_reference_tensor single, exact;
  FN_TRY(fn_reference_read(tally->reference, path, &single));
  FN_TRY(fn_reference_read(tally->reference, path64, &exact));
  FN_CHECK(single.name, FN_ERR_VERIFY, "%s: the network has %s, the reference file has no /%s",
           tally->options->reference, *name ? name : path, path);
  FN_CHECK(fn_shape_equal(shape, &single.shape), FN_ERR_VERIFY,
           "%s: /%s has shape %s, but the network's has shape %s", tally->options->reference, path,
           fn_shape_text(&single.shape, theirs, sizeof theirs),
           fn_shape_text(shape, ours, sizeof ours));
  if (tally->writer)
    FN_TRY(fn_reference_write_tensor(tally->writer, path, shape, values, single.noise));
  const fn_reference_tensor *target = exact.name ? &exact : &single;
  FN_CHECK(target->count == single.count, FN_ERR_VERIFY, "%s: /%s and /%s differ in size",
           tally->options->reference, path, path64);
  record(tally, *name ? name : path, &single, distance(values, target->value, single.count),
         limit_of(tally, &single, &exact, slack));
  return FN_OK;
}
