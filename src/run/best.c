#include "run/best.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool watches(const fn_run *run, const char *name) {
  return run->checkpoint.best && strcmp(run->checkpoint.best, name) == 0;
}

/** Metrics are the better the larger. */
static bool goes_up(const fn_run *run) {
  return watches(run, "accuracy") || watches(run, "auc") || watches(run, "f1");
}

double fn_best_value(const fn_run *run, const fn_progress *progress,
                     const fn_validation *validation) {
  if (watches(run, "train")) return progress->train_loss;
  if (watches(run, "validation")) return validation->loss;
  if (watches(run, "accuracy")) return validation->accuracy;
  if (watches(run, "auc")) return validation->auc;
  return watches(run, "f1") ? validation->f1 : (double)NAN;
}

bool fn_best_update(const fn_run *run, double value, fn_progress *progress) {
  if (!isfinite(value)) return false;
  const double before = progress->best_metric;
  if (!isnan(before) && !(goes_up(run) ? value > before : value < before)) return false;
  progress->best_metric = value;
  progress->best_epoch = progress->epoch;
  return true;
}

bool fn_best_suffices(const fn_run *run, const fn_progress *progress, char *why, size_t size) {
  const char *name = watches(run, "train")        ? "training loss"
                     : watches(run, "validation") ? "validation loss"
                                                  : run->checkpoint.best;
  if (!name || !name[0]) return false;
  const double best = progress->best_metric, threshold = run->train.stop_threshold;
  if (goes_up(run) ? best >= threshold : best <= threshold) {
    snprintf(why, size, "%s of %.6g in epoch %lld reached train.stop_threshold (%g)", name, best,
             (long long)progress->best_epoch, threshold);
    return true;
  }
  const int64_t stale = progress->epoch - progress->best_epoch;
  if (run->train.stop_patience == 0 || stale < run->train.stop_patience) return false;
  snprintf(why, size, "no better %s than %.6g of epoch %lld for %lld epoch%s", name, best,
           (long long)progress->best_epoch, (long long)stale, stale == 1 ? "" : "s");
  return true;
}
