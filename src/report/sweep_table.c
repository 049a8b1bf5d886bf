#include "report/sweep_table.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"

/* ---- names and values --------------------------------------------------------------------------
 */

static const char *last_word(const char *path) {
  const char *dot = strrchr(path, '.');
  return dot ? dot + 1 : path;
}

const char *fn_sweep_short_name(const fn_sweep *sweep, int parameter) {
  const char *path = sweep->parameter[parameter].path, *word = last_word(path);
  for (int p = 0; p < sweep->parameter_count; p++)
    if (p != parameter && strcmp(last_word(sweep->parameter[p].path), word) == 0) return path;
  return word;
}

const char *fn_trial_state_name(fn_trial_state state) {
  static const char *const names[] = {"waiting", "running", "finished", "stopped", "failed"};
  return names[state];
}

/** "120 trials" */
static const char *plural(int64_t count) {
  return count == 1 ? "" : "s";
}

/* ---- CSV ---------------------------------------------------------------------------------------
 */

static void put_cell(FILE *out, const char *text) {
  if (!text) text = "";
  if (!strpbrk(text, ",\"\n")) {
    fprintf(out, ",%s", text);
    return;
  }
  fputs(",\"", out);
  for (const char *c = text; *c; c++) {
    if (*c == '"') fputc('"', out);
    fputc(*c, out);
  }
  fputc('"', out);
}

static void put_number(FILE *out, double value) {
  if (isfinite(value))
    fprintf(out, ",%.10g", value);
  else
    fputc(',', out);
}

static fn_status put_row(fn_sweep_store *store, int64_t id, fn_arena *arena, FILE *out) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  const fn_trial_record *r = fn_sweep_store_trial(store, id);
  fn_trial trial;
  FN_TRY(fn_sweep_store_trial_make(store, id, arena, &trial));
  fprintf(out, "%" PRId64 ",%" PRId64, id, trial.setting);
  put_cell(out, fn_trial_value(&trial, "seed"));
  put_cell(out, fn_trial_state_name(r->state));
  fprintf(out, ",%" PRId64 ",%" PRId64, r->attempts, r->epochs);
  put_number(out, r->best);
  if (r->best_epoch > 0)
    fprintf(out, ",%" PRId64, r->best_epoch);
  else
    fputc(',', out);
  put_number(out, r->seconds > 0 ? r->seconds : (double)NAN);
  for (int p = 0; p < sweep->parameter_count; p++)
    put_cell(out, fn_trial_value(&trial, sweep->parameter[p].path));
  put_cell(out, trial.folder);
  fputc('\n', out);
  return FN_OK;
}

fn_status fn_sweep_table(fn_sweep_store *store, FILE *out) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  fputs("trial,setting,seed,state,attempts,epochs,best,best_epoch,seconds", out);
  for (int p = 0; p < sweep->parameter_count; p++)
    put_cell(out, sweep->parameter[p].path);
  fputs(",folder\n", out);
  fn_status status = FN_OK;
  for (int64_t id = 0; id < fn_sweep_store_count(store) && status == FN_OK; id++) {
    fn_arena *arena = fn_arena_create();
    FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
    status = put_row(store, id, arena, out);
    fn_arena_destroy(arena);
  }
  FN_TRY(status);
  FN_CHECK(fflush(out) == 0 && !ferror(out), FN_ERR_DATA, "cannot write the table");
  return FN_OK;
}

/* ---- status ------------------------------------------------------------------------------------
 */

static void print_age(FILE *out, const char *before, double since) {
  char text[32];
  const double age = fn_time_now() - since;
  if (since > 0) fprintf(out, "%s%s ago", before, fn_text_duration(age > 0 ? age : 0, text, 32));
}

static void print_running(fn_sweep_store *store, const fn_trial_record *r, FILE *out) {
  fprintf(out, "  trial %-5" PRId64 " attempt %" PRId64 ", epoch %" PRId64, r->id, r->attempts,
          r->epochs);
  if (isfinite(r->best)) fprintf(out, ", best %.6g", r->best);
  print_age(out, ", last word ", r->reported_at);
  fprintf(out, "; %s%s\n", r->worker ? r->worker : "",
          fn_sweep_store_alive(store, r->id) ? "" : " - dead, will be resumed");
}

static void print_failed(const fn_trial_record *r, FILE *out) {
  const int length = r->message ? (int)strcspn(r->message, "\n") : 0;
  fprintf(out, "  trial %-5" PRId64 " %s: %.*s\n", r->id, fn_status_name((fn_status)r->status),
          length < 200 ? length : 200, r->message ? r->message : "");
}

int64_t fn_sweep_best_trial(const fn_sweep_store *store) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  for (int any = 0; any < 2; any++) {
    int64_t best = -1;
    double value = (double)NAN;
    for (int64_t id = 0; id < fn_sweep_store_count(store); id++) {
      const fn_trial_record *r = fn_sweep_store_trial(store, id);
      if (!any && r->state != FN_TRIAL_FINISHED) continue;
      if (!fn_sweep_better(sweep, r->best, value)) continue;
      value = r->best;
      best = id;
    }
    if (best >= 0) return best;
  }
  return -1;
}

static fn_status print_settings(fn_sweep_store *store, int64_t id, FILE *out) {
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  fn_trial trial;
  const fn_status status = fn_sweep_store_trial_make(store, id, arena, &trial);
  for (int i = 0; status == FN_OK && i < trial.set_count; i++)
    fprintf(out, " %s", trial.set[i]);
  fputc('\n', out);
  fn_arena_destroy(arena);
  return status;
}

static void print_all_of(fn_sweep_store *store, fn_trial_state state, const char *title,
                         FILE *out) {
  bool first = true;
  for (int64_t id = 0; id < fn_sweep_store_count(store); id++) {
    const fn_trial_record *r = fn_sweep_store_trial(store, id);
    if (r->state != state) continue;
    if (first) fprintf(out, "%s\n", title);
    first = false;
    if (state == FN_TRIAL_RUNNING)
      print_running(store, r, out);
    else
      print_failed(r, out);
  }
}

fn_status fn_sweep_status(fn_sweep_store *store, FILE *out) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  const int64_t count = fn_sweep_store_count(store), damaged = fn_sweep_store_damaged(store);
  int64_t in_state[5] = {0};
  for (int64_t id = 0; id < count; id++)
    in_state[fn_sweep_store_trial(store, id)->state]++;
  fprintf(out, "%s: %" PRId64 " trial%s (%s), %s %s\n", sweep->folder, count, plural(count),
          fn_sweep_method_name(sweep->method), sweep->maximize ? "maximize" : "minimize",
          sweep->metric);
  for (int s = FN_TRIAL_FINISHED; s <= FN_TRIAL_FAILED; s++)
    fprintf(out, "%s %" PRId64 ", ", fn_trial_state_name((fn_trial_state)s), in_state[s]);
  fprintf(out, "running %" PRId64 ", waiting %" PRId64 "\n", in_state[FN_TRIAL_RUNNING],
          in_state[FN_TRIAL_WAITING]);
  if (damaged > 0)
    fprintf(out, "%" PRId64 " torn or damaged line%s in trials.jsonl ignored\n", damaged,
            plural(damaged));
  const int64_t best = fn_sweep_best_trial(store);
  if (best >= 0) {
    const fn_trial_record *r = fn_sweep_store_trial(store, best);
    fprintf(out, "best %.6g", r->best);
    // A result may have come as one value, without epochs.
    if (r->best_epoch > 0) fprintf(out, " in epoch %" PRId64, r->best_epoch);
    fprintf(out, " of trial %" PRId64 " (%s):", best, fn_trial_state_name(r->state));
    FN_TRY(print_settings(store, best, out));
  }
  print_all_of(store, FN_TRIAL_RUNNING, "running", out);
  print_all_of(store, FN_TRIAL_FAILED, "failed", out);
  return FN_OK;
}

/* ---- best --------------------------------------------------------------------------------------
 */

/** Results of one setting over its seeds. */
typedef struct group {
  int64_t setting, trial; // the best of its trials
  int64_t count;
  double sum, squares, best;
  double key; // what groups are ordered by: the smaller the better
} group;

static double mean_of(const group *g) {
  return g->sum / (double)g->count;
}

static double deviation_of(const group *g) {
  const double mean = mean_of(g), n = (double)g->count;
  return g->count > 1 ? sqrt(fmax(0, (g->squares - n * mean * mean) / (n - 1))) : (double)NAN;
}

static int by_key(const void *left, const void *right) {
  const group *a = left, *b = right;
  if (a->key != b->key) return a->key < b->key ? -1 : 1;
  return (a->setting > b->setting) - (a->setting < b->setting);
}

static void add_result(const fn_sweep *sweep, group *g, const fn_trial_record *r) {
  if (g->count == 0 || fn_sweep_better(sweep, r->best, g->best)) {
    g->best = r->best;
    g->trial = r->id;
  }
  g->count++;
  g->sum += r->best;
  g->squares += r->best * r->best;
}

/** Group results of finished trials, or of any when none is; *count groups, best first. */
static fn_status find_groups(const fn_sweep_store *store, bool finished, group **groups,
                             int64_t *count) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  const int64_t trials = fn_sweep_store_count(store),
                repeats =
                    sweep->seed_count > 0 && sweep->method != FN_SWEEP_ASK ? sweep->seed_count : 1;
  group *all = calloc((size_t)(trials / repeats + 1), sizeof *all);
  FN_CHECK(all, FN_ERR_MEMORY, "out of memory");
  int64_t n = 0;
  for (int64_t id = 0; id < trials; id++) {
    const fn_trial_record *r = fn_sweep_store_trial(store, id);
    if (!isfinite(r->best) || (finished && r->state != FN_TRIAL_FINISHED)) continue;
    if (n == 0 || all[n - 1].setting != id / repeats) all[n++] = (group){.setting = id / repeats};
    add_result(sweep, &all[n - 1], r);
  }
  for (int64_t i = 0; i < n; i++)
    all[i].key = sweep->maximize ? -mean_of(&all[i]) : mean_of(&all[i]);
  qsort(all, (size_t)n, sizeof *all, by_key);
  *groups = all;
  *count = n;
  return FN_OK;
}

static void put_quoted(FILE *out, const char *text) {
  const bool plain =
      !text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,")];
  if (plain) {
    fputs(text, out);
    return;
  }
  fputc('\'', out);
  for (const char *c = text; *c; c++) {
    if (*c == '\'')
      fputs("'\\''", out);
    else
      fputc(*c, out);
  }
  fputc('\'', out);
}

static fn_status print_again(fn_sweep_store *store, int64_t id, FILE *out) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  fn_trial trial;
  const fn_status status = fn_sweep_store_trial_make(store, id, arena, &trial);
  if (status == FN_OK) {
    const char **set;
    int count;
    fn_sweep_trial_arguments(sweep, &trial, arena, &set, &count);
    fprintf(out, "state: %s/best.h5\nto test it:\n  fieldnet test ", trial.folder);
    put_quoted(out, sweep->run_path);
    for (int i = 0; i < count; i++) {
      fputs(" --set ", out);
      put_quoted(out, set[i]);
    }
    fputs(" --set test.state=", out);
    put_quoted(out, fn_arena_format(arena, "%s/best.h5", trial.folder));
    fputc('\n', out);
  }
  fn_arena_destroy(arena);
  return status;
}

static fn_status print_groups(fn_sweep_store *store, const group *groups, int64_t shown,
                              FILE *out) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  fn_status status = FN_OK;
  char epoch[40];
  for (int64_t i = 0; i < shown && status == FN_OK; i++) {
    const group *g = &groups[i];
    const fn_trial_record *r = fn_sweep_store_trial(store, g->trial);
    // A result may have come as one value, without epochs.
    snprintf(epoch, sizeof epoch, r->best_epoch > 0 ? " in epoch %" PRId64 : "", r->best_epoch);
    if (sweep->seed_count > 1 && g->count > 1)
      fprintf(out,
              "%3" PRId64 ". mean %.6g +- %.2g of %" PRId64 " seeds, best %.6g, trial %" PRId64 ":",
              i + 1, mean_of(g), deviation_of(g), g->count, g->best, g->trial);
    else if (sweep->seed_count > 1)
      fprintf(out, "%3" PRId64 ". %.6g of one seed, trial %" PRId64 ":", i + 1, g->best, g->trial);
    else
      fprintf(out, "%3" PRId64 ". %.6g%s, trial %" PRId64 " (%s):", i + 1, g->best, epoch, g->trial,
              fn_trial_state_name(r->state));
    status = print_settings(store, g->trial, out);
  }
  return status;
}

fn_status fn_sweep_best(fn_sweep_store *store, int64_t most, FILE *out) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  group *groups = NULL;
  int64_t count = 0;
  bool finished = true;
  FN_TRY(find_groups(store, true, &groups, &count));
  if (count == 0) { // rather something than nothing
    free(groups);
    finished = false;
    FN_TRY(find_groups(store, false, &groups, &count));
  }
  fn_status status = FN_OK;
  if (count == 0)
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "%s: no trial has a result yet",
                          sweep->folder);
  if (status == FN_OK) {
    fprintf(out, "%s %s, %" PRId64 " setting%s with results%s\n",
            sweep->maximize ? "largest" : "smallest", sweep->metric, count, plural(count),
            finished ? "" : " (no trial is finished yet)");
    status = print_groups(store, groups, most < count ? most : count, out);
  }
  if (status == FN_OK) status = print_again(store, groups[0].trial, out);
  free(groups);
  return status;
}

/* ---- plan --------------------------------------------------------------------------------------
 */

static const char *cell_of(const fn_trial *trial, const char *path) {
  const char *value = fn_trial_value(trial, path);
  return value ? value : "-";
}

static int max_of(int a, int b) {
  return a > b ? a : b;
}

fn_status fn_sweep_print_trials(const fn_sweep *sweep, int64_t most, FILE *out) {
  const int64_t count = fn_sweep_trial_count(sweep), shown = most < count ? most : count;
  const bool seeds = sweep->seed_count > 0;
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  fn_trial *trial = fn_arena_take(arena, sizeof *trial * (size_t)(shown + 1));
  int *width = fn_arena_take(arena, sizeof *width * (size_t)(sweep->parameter_count + 1));
  fn_status status = FN_OK;
  for (int64_t id = 0; id < shown && status == FN_OK; id++)
    status = fn_sweep_trial_make(sweep, id, arena, &trial[id]);
  for (int p = 0; p < sweep->parameter_count && status == FN_OK; p++) {
    width[p] = (int)strlen(fn_sweep_short_name(sweep, p));
    for (int64_t id = 0; id < shown; id++)
      width[p] = max_of(width[p], (int)strlen(cell_of(&trial[id], sweep->parameter[p].path)));
  }
  if (status == FN_OK && shown > 0) {
    fprintf(out, "%6s", "trial");
    for (int p = 0; p < sweep->parameter_count; p++)
      fprintf(out, "  %*s", width[p], fn_sweep_short_name(sweep, p));
    fprintf(out, "%s\n", seeds ? "  seed" : "");
  }
  for (int64_t id = 0; id < shown && status == FN_OK; id++) {
    fprintf(out, "%6" PRId64, id);
    for (int p = 0; p < sweep->parameter_count; p++)
      fprintf(out, "  %*s", width[p], cell_of(&trial[id], sweep->parameter[p].path));
    fprintf(out, seeds ? "  %4s\n" : "\n", cell_of(&trial[id], "seed"));
  }
  if (status == FN_OK && shown < count)
    fprintf(out, "   ... %" PRId64 " more (--all prints them)\n", count - shown);
  fn_arena_destroy(arena);
  return status;
}
