/* fieldnet sweep plan: the trials, and what they take. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/command_sweep.h"
#include "cli/session.h"
#include "models/models.h"
#include "report/sweep_table.h"
#include "run/cost.h"

enum { LOOKED_AT = 16, PRINTED = 20 };

/** What trials take, over those looked at. */
typedef struct range {
  double low, high;
} range;

typedef struct plan {
  const fn_command_line *line;
  const fn_sweep *sweep;
  fn_dist *dist;
  bool print;     // rank 0
  int64_t looked; // trials whose cost was found
  int64_t kinds;  // trials that differ in what may cost
  range epochs, steps, memory, flops, parameters, disk;
} plan;

/* ---- which trials cost the same ----------------------------------------------------------------
 */

/** Whether a setting may change what a trial takes. */
static bool may_cost(const char *set) {
  static const char *const free_of[] = {"seed=",
                                        "schedule.",
                                        "loss.",
                                        "optimizer.lr",
                                        "optimizer.weight_decay",
                                        "optimizer.betas",
                                        "optimizer.eps",
                                        "model.options.dropout",
                                        "model.options.slope",
                                        "data.cubes.newton_augmentation",
                                        "data.cubes.label_smoothing",
                                        "data.add_std",
                                        "data.mul_std",
                                        "train.clip_norm"};
  for (size_t i = 0; i < sizeof free_of / sizeof free_of[0]; i++)
    if (fn_text_starts(set, free_of[i])) return false;
  return true;
}

/** Trials that differ in what may cost, one of each, the first LOOKED_AT of them. */
static fn_status find_kinds(plan *p, int64_t *ids) {
  char *seen[LOOKED_AT] = {0};
  const int64_t count = fn_sweep_trial_count(p->sweep);
  fn_status status = FN_OK;
  for (int64_t id = 0; id < count && p->kinds < LOOKED_AT && status == FN_OK; id++) {
    fn_arena *arena = fn_arena_create();
    FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
    fn_trial trial;
    fn_text kind = {0};
    fn_text_add(&kind, " ");
    status = fn_sweep_trial_make(p->sweep, id, arena, &trial);
    for (int i = 0; i < trial.set_count && status == FN_OK; i++)
      if (may_cost(trial.set[i])) fn_text_add(&kind, "%s ", trial.set[i]);
    bool known = false;
    for (int64_t i = 0; i < p->kinds; i++)
      known = known || strcmp(seen[i], kind.data) == 0;
    if (!known) {
      ids[p->kinds] = id;
      seen[p->kinds++] = kind.data;
    } else {
      fn_text_free(&kind);
    }
    fn_arena_destroy(arena);
  }
  for (int64_t i = 0; i < p->kinds; i++)
    free(seen[i]);
  return status;
}

/* ---- cost --------------------------------------------------------------------------------------
 */

static void widen(range *r, double value, bool first) {
  r->low = first ? value : fmin(r->low, value);
  r->high = first ? value : fmax(r->high, value);
}

static void add_cost(plan *p, const fn_run *run, const fn_cost *cost) {
  const bool first = p->looked++ == 0;
  const int64_t kept =
      run->checkpoint.keep_last > 0 ? run->checkpoint.keep_last : run->train.epochs; // 0: all
  widen(&p->epochs, (double)run->train.epochs, first);
  widen(&p->steps, (double)cost->steps * (double)run->train.epochs, first);
  widen(&p->memory, cost->memory, first);
  widen(&p->flops, cost->totals.training_flops, first);
  widen(&p->parameters, (double)cost->totals.parameters, first);
  // The best state may be one more than the last ones.
  widen(&p->disk, (double)cost->checkpoint_bytes * (double)(kept + 1), first);
}

/** Collective; every rank has the same status. */
static fn_status look_at(plan *p, int64_t id, bool load_plugin) {
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  fn_trial trial;
  fn_run *run = NULL;
  char *errors = NULL;
  fn_status status = fn_sweep_trial_make(p->sweep, id, arena, &trial);
  if (status == FN_OK)
    status = fn_sweep_trial_load(p->sweep, &trial, FN_COMMAND_TRAIN, &run, &errors);
  if (status == FN_OK && load_plugin && run->plugin) status = fn_plugin_load(run->plugin);
  status = fn_dist_agree(p->dist, status);
  fn_cost cost;
  if (status == FN_OK) status = fn_cost_estimate(run, p->dist, &cost);
  if (status == FN_OK)
    add_cost(p, run, &cost);
  else
    fn_error_context(status, "trial %lld", (long long)id);
  free(errors);
  fn_run_destroy(run);
  fn_arena_destroy(arena);
  return status;
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static void print_head(const plan *p) {
  const fn_sweep *s = p->sweep;
  const int64_t count = fn_sweep_trial_count(s), seeds = s->seed_count > 0 ? s->seed_count : 1;
  printf("sweep     %s of run %s, in folder %s\n", s->path, s->run_path, s->folder);
  if (s->method == FN_SWEEP_ASK)
    printf("trials    come from fieldnet sweep ask\n");
  else
    printf("trials    %lld: %lld settings (%s) x %lld seed%s\n", (long long)count,
           (long long)(count / seeds), fn_sweep_method_name(s->method), (long long)seeds,
           seeds == 1 ? "" : "s");
  printf("aim       %s %s", s->maximize ? "largest" : "smallest", s->metric);
  if (s->stop.rule == FN_STOP_MEDIAN)
    printf("; median rule from epoch %lld and %lld finished trials on",
           (long long)s->stop.min_epochs, (long long)s->stop.min_trials);
  if (s->stop.rule == FN_STOP_ASHA)
    printf("; at epochs %lld, %.0f, %.0f, ... one in %g goes on", (long long)s->stop.min_epochs,
           round((double)s->stop.min_epochs * s->stop.reduction),
           round((double)s->stop.min_epochs * s->stop.reduction * s->stop.reduction),
           s->stop.reduction);
  printf("\n");
  const int64_t n = s->trials;
  if (s->method == FN_SWEEP_SOBOL && (n & (n - 1)) != 0)
    printf("note      Sobol points are balanced for powers of two; %lld is none\n", (long long)n);
  printf("\n");
}

static const char *bytes_range(const range *r, char *text, size_t size) {
  char low[32], high[32];
  fn_text_bytes(r->low, low, sizeof low);
  fn_text_bytes(r->high, high, sizeof high);
  if (strcmp(low, high) == 0)
    snprintf(text, size, "%s", low);
  else
    snprintf(text, size, "%s to %s", low, high);
  return text;
}

/** "3 to 5" with `format` for each end, or one number. */
static const char *number_range(const range *r, int digits, double unit, char *text, size_t size) {
  char high[40];
  snprintf(text, size, "%.*f", digits, r->low / unit);
  snprintf(high, sizeof high, "%.*f", digits, r->high / unit);
  const size_t length = strlen(text);
  if (strcmp(text, high) != 0) snprintf(text + length, size - length, " to %s", high);
  return text;
}

/** Seconds of an epoch: a range over finished trials. False when none tells. */
static bool measured_epochs(const fn_sweep *sweep, range *seconds, int64_t *trials) {
  fn_sweep_store *store = NULL;
  *trials = 0;
  if (fn_sweep_store_look(sweep, &store) != FN_OK) {
    fn_error_clear(); // the plan can be told without it
    return false;
  }
  double sum = 0;
  for (int64_t id = 0; id < fn_sweep_store_count(store); id++) {
    const fn_trial_record *r = fn_sweep_store_trial(store, id);
    // Only an attempt from beginning to end was timed over all its epochs.
    if (r->state != FN_TRIAL_FINISHED || r->attempts != 1 || r->seconds <= 0 || r->epochs == 0)
      continue;
    sum += r->seconds / (double)r->epochs;
    ++*trials;
  }
  fn_sweep_store_close(store);
  if (*trials == 0) return false;
  seconds->low = seconds->high = sum / (double)*trials;
  return true;
}

static fn_status print_time(const plan *p) {
  double step = 0;
  int64_t trials;
  range time, epoch;
  char text[3][32];
  FN_TRY(fn_command_real(p->line, "step-seconds", 0, 1e9, &step));
  if (step > 0) {
    time = (range){step * p->steps.low, step * p->steps.high};
    printf("time      %g s per step (given): ", step);
  } else if (measured_epochs(p->sweep, &epoch, &trials)) {
    time = (range){epoch.low * p->epochs.low, epoch.low * p->epochs.high};
    printf("time      %s per epoch (mean of %lld finished trial%s): ",
           fn_text_duration(epoch.low, text[0], 32), (long long)trials, trials == 1 ? "" : "s");
  } else {
    printf("time      not known: give --step-seconds, as fieldnet bench measures it\n");
    return FN_OK;
  }
  const double all = 0.5 * (time.low + time.high) * (double)fn_sweep_trial_count(p->sweep);
  fn_text_duration(time.high, text[1], 32);
  if (strcmp(fn_text_duration(time.low, text[0], 32), text[1]) == 0)
    printf("%s for a trial", text[0]);
  else
    printf("%s to %s for a trial", text[0], text[1]);
  if (all > 0) printf(", about %s for all of them", fn_text_duration(all, text[2], 32));
  printf("%s\n", p->sweep->stop.rule == FN_STOP_NONE ? "" : ", if none were stopped early");
  return FN_OK;
}

static fn_status print_cost(const plan *p) {
  char text[96];
  const int64_t count = fn_sweep_trial_count(p->sweep);
  printf("\none trial on %d rank%s", p->dist->size, p->dist->size == 1 ? "" : "s");
  if (p->kinds > 1) printf(" (%lld that differ in size)", (long long)p->looked);
  printf("\nsteps     %s", number_range(&p->steps, 0, 1, text, sizeof text));
  printf(" in %s epochs", number_range(&p->epochs, 0, 1, text, sizeof text));
  printf(", %s GFLOP per step and rank\n", number_range(&p->flops, 2, 1e9, text, sizeof text));
  printf("network   %s parameters\n", number_range(&p->parameters, 0, 1, text, sizeof text));
  printf("memory    %s per rank\n", bytes_range(&p->memory, text, sizeof text));
  printf("states    %s on disk", bytes_range(&p->disk, text, sizeof text));
  const range all = {p->disk.low * (double)count, p->disk.high * (double)count};
  if (count > 0) printf(", %s for all trials", bytes_range(&all, text, sizeof text));
  printf("\n");
  return print_time(p);
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

/** Trials of `method: ask` are not known: the run as it stands is looked at. */
static fn_status look_at_run(plan *p) {
  fn_run *run = NULL;
  char *errors = NULL;
  fn_status status = fn_run_load(p->sweep->run_path, p->sweep->set.text, p->sweep->set.count,
                                 FN_COMMAND_TRAIN, &run, &errors);
  if (errors && p->print) fputs(errors, stderr);
  if (status == FN_OK && run->plugin) status = fn_plugin_load(run->plugin);
  status = fn_dist_agree(p->dist, status);
  fn_cost cost;
  if (status == FN_OK) status = fn_cost_estimate(run, p->dist, &cost);
  if (status == FN_OK) add_cost(p, run, &cost);
  free(errors);
  fn_run_destroy(run);
  return status;
}

static fn_status look_at_all(plan *p) {
  int64_t ids[LOOKED_AT] = {0};
  if (p->sweep->method == FN_SWEEP_ASK) return look_at_run(p);
  FN_TRY(fn_dist_agree(p->dist, find_kinds(p, ids)));
  for (int64_t i = 0; i < p->kinds; i++)
    FN_TRY(look_at(p, ids[i], i == 0));
  return FN_OK;
}

static fn_status print_plan(const fn_command_line *line, fn_dist *dist) {
  fn_sweep *sweep = NULL;
  FN_TRY(fn_dist_agree(dist, fn_sweep_command_open(line, dist->rank, &sweep)));
  plan p = {.line = line, .sweep = sweep, .dist = dist, .print = dist->rank == 0};
  fn_status status = FN_OK;
  if (p.print) {
    print_head(&p);
    const int64_t all = fn_sweep_trial_count(sweep);
    status = fn_sweep_print_trials(sweep, fn_command_given(line, "all") ? all : PRINTED, stdout);
  }
  status = fn_dist_agree(dist, status);
  if (status == FN_OK) status = look_at_all(&p);
  if (status == FN_OK) status = fn_dist_agree(dist, p.print ? print_cost(&p) : FN_OK);
  fn_sweep_destroy(sweep);
  return status;
}

fn_status fn_sweep_command_plan(const fn_command_line *line) {
  return fn_cli_job(line, print_plan);
}
