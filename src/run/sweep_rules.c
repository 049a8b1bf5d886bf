/* When a trial is stopped early: the median rule and successive halving. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/sweep_store.h"

double fn_sweep_metric_value(const fn_sweep *sweep, const fn_epoch_event *event) {
  if (strcmp(sweep->metric, "train") == 0) return event->train_loss;
  if (strcmp(sweep->metric, "validation") == 0) return event->validation_loss;
  if (strcmp(sweep->metric, "accuracy") == 0) return event->validation_accuracy;
  if (strcmp(sweep->metric, "auc") == 0) return event->validation_auc;
  return event->validation_f1;
}

bool fn_sweep_better(const fn_sweep *sweep, double a, double b) {
  if (!isfinite(a)) return false;
  if (!isfinite(b)) return true;
  return sweep->maximize ? a > b : a < b;
}

/** Best value up to an epoch; NaN: none. */
static double best_until(const fn_sweep *sweep, const fn_trial_record *r, int64_t epoch) {
  double best = (double)NAN;
  for (int64_t i = 0; i < r->epochs && i < epoch; i++)
    if (fn_sweep_better(sweep, r->values[i], best)) best = r->values[i];
  return best;
}

/** Mean of the values up to an epoch; NaN: none. */
static double mean_until(const fn_trial_record *r, int64_t epoch) {
  double sum = 0;
  int64_t count = 0;
  for (int64_t i = 0; i < r->epochs && i < epoch; i++) {
    if (!isfinite(r->values[i])) continue;
    sum += r->values[i];
    count++;
  }
  return count > 0 ? sum / (double)count : (double)NAN;
}

static int ascending(const void *left, const void *right) {
  const double a = *(const double *)left, b = *(const double *)right;
  return (a > b) - (a < b);
}

// Golovin et al. 2017 (Vizier), section 3.2.2: stop when the best value until now is strictly worse
// than the median of the running averages of all completed trials until the same epoch.
static bool median_stops(const fn_sweep_store *store, const fn_trial_record *trial, int64_t epoch,
                         char *why, size_t size) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  const int64_t trials = fn_sweep_store_count(store);
  if (epoch < sweep->stop.min_epochs) return false;
  double *mean = malloc(sizeof *mean * (size_t)(trials > 0 ? trials : 1));
  if (!mean) return false;
  int64_t count = 0;
  for (int64_t id = 0; id < trials; id++) {
    const fn_trial_record *other = fn_sweep_store_trial(store, id);
    if (other->state != FN_TRIAL_FINISHED || id == trial->id) continue;
    mean[count] = mean_until(other, epoch);
    count += isfinite(mean[count]);
  }
  if (count < sweep->stop.min_trials || count == 0) {
    free(mean);
    return false;
  }
  qsort(mean, (size_t)count, sizeof *mean, ascending);
  const double median = 0.5 * (mean[(count - 1) / 2] + mean[count / 2]);
  free(mean);
  const double best = best_until(sweep, trial, epoch);
  if (!isfinite(best) || !fn_sweep_better(sweep, median, best)) return false;
  snprintf(why, size,
           "median rule: best %s %.6g until epoch %lld is worse than the median %.6g of %lld "
           "finished trials",
           sweep->metric, best, (long long)epoch, median, (long long)count);
  return true;
}

/** The last reported epoch before `epoch`, 0: none. */
static int64_t reported_before(const fn_trial_record *r, int64_t epoch) {
  for (int64_t i = epoch - 2; i >= 0 && i < r->epochs; i--)
    if (isfinite(r->values[i])) return i + 1;
  return 0;
}

/** The first reported epoch from `rung` on, 0: none yet. */
static int64_t reported_from(const fn_trial_record *r, int64_t rung) {
  for (int64_t i = rung - 1; i < r->epochs; i++)
    if (isfinite(r->values[i])) return i + 1;
  return 0;
}

// Li et al. 2020, asynchronous successive halving, in the variant that stops trials: rungs at
// min_epochs reduction^k; of the n trials that have come to a rung, n / reduction may go on. The
// first to come do: there is nothing to compare them with.
static bool asha_stops(const fn_sweep_store *store, const fn_trial_record *trial, int64_t epoch,
                       char *why, size_t size) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  int64_t rung = 0;
  for (double r = (double)sweep->stop.min_epochs; round(r) <= (double)epoch;
       r *= sweep->stop.reduction)
    rung = (int64_t)round(r);
  // Each rung is judged once, by the first report at or beyond it.
  if (rung == 0 || reported_before(trial, epoch) >= rung) return false;
  const double value = best_until(sweep, trial, epoch);
  if (!isfinite(value)) return false;
  int64_t there = 0, better = 0;
  for (int64_t id = 0; id < fn_sweep_store_count(store); id++) {
    const fn_trial_record *other = fn_sweep_store_trial(store, id);
    const int64_t reached = reported_from(other, rung);
    if (reached == 0) continue;
    there++;
    better += fn_sweep_better(sweep, best_until(sweep, other, reached), value);
  }
  const int64_t allowed = (int64_t)((double)there / sweep->stop.reduction);
  if (allowed == 0 || better < allowed) return false;
  snprintf(why, size,
           "asha: %s %.6g is number %lld of %lld trials at epoch %lld, %lld of them go on",
           sweep->metric, value, (long long)better + 1, (long long)there, (long long)rung,
           (long long)allowed);
  return true;
}

bool fn_sweep_should_stop(const fn_sweep_store *store, int64_t id, int64_t epoch, char *why,
                          size_t size) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  const fn_trial_record *trial = fn_sweep_store_trial(store, id);
  if (!trial || epoch < 1 || epoch > trial->epochs || !isfinite(trial->values[epoch - 1]))
    return false;
  switch (sweep->stop.rule) {
    case FN_STOP_NONE: return false;
    case FN_STOP_MEDIAN: return median_stops(store, trial, epoch, why, size);
    case FN_STOP_ASHA: return asha_stops(store, trial, epoch, why, size);
  }
  return false;
}
