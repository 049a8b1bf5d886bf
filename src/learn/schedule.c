/* Learning-rate schedules with the definitions of torch.optim.lr_scheduler, in closed form. */
#include <math.h>
#include <string.h>

#include "learn/learn.h"

static const double pi = 3.14159265358979323846;

static bool is(const fn_run *run, const char *name) {
  return strcmp(run->schedule.name, name) == 0;
}

void fn_schedule_init(const fn_run *run, fn_schedule *schedule) {
  *schedule =
      (fn_schedule){.base_lr = run->optimizer.lr, .current = run->optimizer.lr, .best = INFINITY};
}

/** From a to b along half a cosine wave, x in [0, 1]. */
static double half_cosine(double a, double b, double x) {
  return b + (a - b) / 2 * (cos(pi * x) + 1);
}

/** schedule.max_lr, or optimizer.lr when it is not given. */
static double highest_rate(const fn_run *run, double base) {
  return run->schedule.max_lr > 0 ? run->schedule.max_lr : base;
}

/** OneCycleLR (Smith & Topin 2019), anneal_strategy cos, two phases: up to max_lr during pct_start
 *  of the steps, then down to max_lr / div_factor / final_div_factor. */
static double one_cycle(const fn_run *run, double base, int64_t step, int64_t total_steps) {
  const double top = highest_rate(run, base), start = top / run->schedule.div_factor,
               end = start / run->schedule.final_div_factor;
  const double peak = run->schedule.pct_start * (double)total_steps - 1,
               last = (double)(total_steps - 1);
  const double at = (double)step < last ? (double)step : last;
  // A rise of no steps is none, also when rounding leaves a trace of one.
  if (peak > 1e-9 && at <= peak) return half_cosine(start, top, at / peak);
  return last > peak ? half_cosine(top, end, (at - peak) / (last - peak)) : end;
}

/** CyclicLR (Smith 2017): a triangle between optimizer.lr and max_lr whose height is constant
 *  (triangular), halves every cycle (triangular2) or shrinks every step (exp_range). */
static double cyclic(const fn_run *run, double base, int64_t step) {
  const int64_t up = run->schedule.step_size > 0 ? run->schedule.step_size : 1;
  const int64_t down = run->schedule.step_size_down > 0 ? run->schedule.step_size_down : up;
  const int64_t cycle = step / (up + down), at = step % (up + down);
  const double height =
      at <= up ? (double)at / (double)up : (double)(up + down - at) / (double)down;
  double shrink = 1;
  if (strcmp(run->schedule.mode, "triangular2") == 0) shrink = pow(0.5, (double)cycle);
  if (strcmp(run->schedule.mode, "exp_range") == 0) shrink = pow(run->schedule.gamma, (double)step);
  return base + (highest_rate(run, base) - base) * height * shrink;
}

/** CosineAnnealingLR (Loshchilov & Hutter 2017, equation 5, without restarts), closed form; rises
 *  again after t_max as PyTorch's does. t_max 0: the epochs of the run. */
static double cosine(const fn_run *run, double base, int64_t epoch) {
  const int64_t t_max = run->schedule.t_max > 0 ? run->schedule.t_max : run->train.epochs;
  if (t_max <= 0) return base;
  return half_cosine(base, run->schedule.min_lr, (double)epoch / (double)t_max);
}

double fn_schedule_rate(const fn_run *run, const fn_schedule *schedule, int64_t step, int64_t epoch,
                        int64_t total_steps) {
  const double base = schedule->base_lr;
  double rate = base;
  if (is(run, "plateau")) {
    rate = schedule->current;
  } else if (is(run, "step")) {
    const int64_t size = run->schedule.step_size > 0 ? run->schedule.step_size : 1;
    rate = base * pow(run->schedule.factor, (double)(epoch / size));
  } else if (is(run, "exponential")) {
    rate = base * pow(run->schedule.factor, (double)epoch);
  } else if (is(run, "cosine")) {
    rate = cosine(run, base, epoch);
  } else if (is(run, "one_cycle")) {
    rate = one_cycle(run, base, step, total_steps);
  } else if (is(run, "cyclic")) {
    rate = cyclic(run, base, step);
  }
  // LinearLR from 1 / warmup_steps to 1: the whole rate from step warmup_steps - 1 on.
  if (step + 1 < run->schedule.warmup_steps)
    rate *= (double)(step + 1) / (double)run->schedule.warmup_steps;
  return rate;
}

bool fn_schedule_epoch(const fn_run *run, fn_schedule *schedule, double metric) {
  if (!is(run, "plateau")) return false;
  // ReduceLROnPlateau, mode min. A metric that is not a number is never better.
  const double bar = strcmp(run->schedule.threshold_mode, "abs") == 0
                         ? schedule->best - run->schedule.threshold
                         : schedule->best * (1 - run->schedule.threshold);
  if (metric < bar) {
    schedule->best = metric;
    schedule->bad_epochs = 0;
  } else {
    schedule->bad_epochs++;
  }
  if (schedule->cooldown_left > 0) {
    schedule->cooldown_left--;
    schedule->bad_epochs = 0;
  }
  if (schedule->bad_epochs <= run->schedule.patience) return false;
  schedule->cooldown_left = run->schedule.cooldown;
  schedule->bad_epochs = 0;
  const double lowered = fmax(schedule->current * run->schedule.factor, run->schedule.min_lr);
  if (!(schedule->current - lowered > run->schedule.eps)) return false;
  schedule->current = lowered;
  schedule->reductions++;
  return true;
}
