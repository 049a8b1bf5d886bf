/* Sweeps and their trials, from one file. */
#include "run/sweep_plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"

enum {
  SHOWN = 5,      // different complaints about trials that are printed
  CHECKED = 5000, // settings that are checked at most, evenly spread: opening must not take minutes
};

/* ---- trials ------------------------------------------------------------------------------------
 */

static int64_t settings_of(const fn_sweep *sweep) {
  if (sweep->method == FN_SWEEP_ASK) return 0;
  return sweep->method == FN_SWEEP_GRID ? fn_sweep_grid_size(sweep) : sweep->trials;
}

static int64_t repeats_of(const fn_sweep *sweep) {
  return sweep->seed_count > 0 ? sweep->seed_count : 1;
}

int64_t fn_sweep_trial_count(const fn_sweep *sweep) {
  return settings_of(sweep) * repeats_of(sweep);
}

static const char *trial_folder(const fn_sweep *sweep, int64_t id, fn_arena *arena) {
  return fn_arena_format(arena, "%s/trial_%04" PRId64, sweep->folder, id);
}

fn_status fn_sweep_trial_make(const fn_sweep *sweep, int64_t id, fn_arena *arena, fn_trial *trial) {
  const int64_t count = fn_sweep_trial_count(sweep), repeats = repeats_of(sweep);
  FN_CHECK(id >= 0 && id < count, FN_ERR_CONFIG, "%s: expected a trial from 0 to %lld, found %lld",
           sweep->path, (long long)count - 1, (long long)id);
  // Repeats of one setting lie together, so that more settings can be drawn later.
  *trial = (fn_trial){.id = id,
                      .setting = id / repeats,
                      .repeat = id % repeats,
                      .folder = trial_folder(sweep, id, arena)};
  trial->set = fn_arena_take(arena, sizeof(char *) * (size_t)(sweep->parameter_count + 2));
  FN_TRY(fn_sweep_setting(sweep, trial->setting, arena, trial->set, &trial->set_count));
  if (sweep->seed_count > 0)
    trial->set[trial->set_count++] =
        fn_arena_format(arena, "seed=%" PRIu64, sweep->seeds[trial->repeat]);
  return FN_OK;
}

fn_status fn_sweep_trial_from(const fn_sweep *sweep, int64_t id, const char *const *set,
                              int set_count, fn_arena *arena, fn_trial *trial) {
  *trial = (fn_trial){
      .id = id, .setting = id, .set_count = set_count, .folder = trial_folder(sweep, id, arena)};
  trial->set = fn_arena_take(arena, sizeof(char *) * (size_t)(set_count + 1));
  for (int i = 0; i < set_count; i++)
    trial->set[i] = fn_arena_text(arena, set[i]);
  return FN_OK;
}

void fn_sweep_trial_arguments(const fn_sweep *sweep, const fn_trial *trial, fn_arena *arena,
                              const char ***set, int *count) {
  const int most = sweep->set.count + trial->set_count + 2;
  const char **all = fn_arena_take(arena, sizeof *all * (size_t)most);
  int n = 0;
  for (int i = 0; i < sweep->set.count; i++)
    all[n++] = sweep->set.text[i];
  for (int i = 0; i < trial->set_count; i++)
    all[n++] = trial->set[i];
  all[n++] = fn_arena_format(arena, "checkpoint.best=%s", sweep->metric);
  // A folder's name may look like a number or hold a colon; JSON is YAML.
  fn_text folder = {0};
  fn_text_add_json(&folder, trial->folder);
  all[n++] = fn_arena_format(arena, "folder=%s", folder.data ? folder.data : trial->folder);
  fn_text_free(&folder);
  *set = all;
  *count = n;
}

fn_status fn_sweep_trial_load(const fn_sweep *sweep, const fn_trial *trial, fn_command command,
                              fn_run **run, char **errors) {
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "no memory for trial %lld", (long long)trial->id);
  const char **set;
  int count;
  fn_sweep_trial_arguments(sweep, trial, arena, &set, &count);
  const fn_status status = fn_run_load(sweep->run_path, set, count, command, run, errors);
  fn_arena_destroy(arena);
  return status;
}

static size_t path_length(const char *text) {
  const char *equals = strchr(text, '=');
  return equals ? (size_t)(equals - text) : 0;
}

const char *fn_trial_value(const fn_trial *trial, const char *path) {
  for (int i = 0; i < trial->set_count; i++) {
    const size_t length = path_length(trial->set[i]);
    if (length == strlen(path) && strncmp(trial->set[i], path, length) == 0)
      return trial->set[i] + length + 1;
  }
  return NULL;
}

/* ---- values from outside -----------------------------------------------------------------------
 */

static fn_status unknown_parameter(const fn_sweep *sweep, const char *text) {
  const char *names[256];
  int count = 0;
  for (; count < sweep->parameter_count && count < 256; count++)
    names[count] = sweep->parameter[count].path;
  char path[256];
  snprintf(path, sizeof path, "%.*s", (int)path_length(text), text);
  const char *near = fn_text_closest(path, names, count);
  FN_CHECK(near == NULL, FN_ERR_CONFIG, "'%s' is no parameter of the sweep %s, did you mean '%s'?",
           path, sweep->path, near);
  FN_FAIL(FN_ERR_CONFIG, "'%s' is no parameter of the sweep %s", path, sweep->path);
}

static bool condition_holds(const fn_sweep *sweep, const fn_sweep_parameter *p,
                            const fn_trial *trial) {
  if (p->parent < 0) return true;
  const char *parent = fn_trial_value(trial, sweep->parameter[p->parent].path);
  for (int i = 0; parent && i < p->when.count; i++)
    if (strcmp(p->when.text[i], parent) == 0) return true;
  return false;
}

fn_status fn_sweep_check_values(const fn_sweep *sweep, const char *const *set, int set_count) {
  const fn_trial trial = {.set_count = set_count, .set = (const char **)(uintptr_t)set};
  int used = 0;
  for (int p = 0; p < sweep->parameter_count; p++) {
    const fn_sweep_parameter *parameter = &sweep->parameter[p];
    const char *value = fn_trial_value(&trial, parameter->path);
    const bool wanted = condition_holds(sweep, parameter, &trial);
    FN_CHECK(value || !wanted, FN_ERR_CONFIG, "a value for '%s' is missing", parameter->path);
    FN_CHECK(!value || wanted, FN_ERR_CONFIG,
             "'%s' has a value, but does not exist with that of '%s'", parameter->path,
             sweep->parameter[parameter->parent < 0 ? 0 : parameter->parent].path);
    if (value) FN_TRY(fn_sweep_accepts(parameter->path, value));
    used += value != NULL;
  }
  for (int i = 0; i < set_count; i++) {
    char path[256];
    snprintf(path, sizeof path, "%.*s", (int)path_length(set[i]), set[i]);
    bool known = false;
    for (int p = 0; p < sweep->parameter_count; p++)
      known = known || strcmp(sweep->parameter[p].path, path) == 0;
    if (!known) return unknown_parameter(sweep, set[i]);
  }
  FN_CHECK(used == set_count, FN_ERR_CONFIG, "a parameter has two values");
  return FN_OK;
}

/* ---- opening ------------------------------------------------------------------------------------
 */

/** Complaints about runs, each printed once. */
typedef struct complaints {
  fn_text text;
  char *seen[SHOWN];
  int different;
  int64_t trials; // with any
  int64_t hidden; // with others than those seen
} complaints;

static void complain(complaints *c, int64_t id, const char *errors) {
  c->trials++;
  for (int i = 0; i < c->different; i++)
    if (strcmp(c->seen[i], errors) == 0) return;
  if (c->different == SHOWN) {
    c->hidden++;
    return;
  }
  c->seen[c->different++] = strdup(errors);
  if (id >= 0) fn_text_add(&c->text, "trial %lld:\n", (long long)id);
  fn_text_add(&c->text, "%s", errors);
}

static void free_complaints(complaints *c) {
  for (int i = 0; i < c->different; i++)
    free(c->seen[i]);
}

/** Load a run only to see whether it can be; FN_ERR_CONFIG is a complaint, others are failures. */
static fn_status try_run(const fn_sweep *sweep, const fn_trial *trial, fn_command command,
                         complaints *c) {
  fn_run *run = NULL;
  char *errors = NULL;
  const fn_status status = trial ? fn_sweep_trial_load(sweep, trial, command, &run, &errors)
                                 : fn_run_load(sweep->run_path, sweep->set.text, sweep->set.count,
                                               command, &run, &errors);
  fn_run_destroy(run);
  if (status == FN_ERR_CONFIG) complain(c, trial ? trial->id : -1, errors ? errors : "");
  free(errors);
  if (status != FN_ERR_CONFIG) return status;
  fn_error_clear();
  return FN_OK;
}

static fn_status try_trials(const fn_sweep *sweep, complaints *c) {
  const int64_t count = fn_sweep_trial_count(sweep);
  // Seeds cannot be wrong once the first is right.
  const int64_t step = repeats_of(sweep) * (settings_of(sweep) / CHECKED + 1);
  fn_status status = FN_OK;
  for (int64_t id = 0; id < count && status == FN_OK; id += step) {
    fn_arena *arena = fn_arena_create();
    FN_CHECK(arena, FN_ERR_MEMORY, "no memory for trial %lld", (long long)id);
    fn_trial trial;
    status = fn_sweep_trial_make(sweep, id, arena, &trial);
    if (status == FN_OK) status = try_run(sweep, &trial, FN_COMMAND_TRAIN, c);
    fn_arena_destroy(arena);
  }
  if (c->hidden > 0)
    fn_text_add(&c->text, "... and other complaints about %lld more settings\n",
                (long long)c->hidden);
  return status;
}

/** What the section alone cannot tell: sizes of the plan. */
static fn_status check_sizes(const fn_sweep *sweep) {
  FN_CHECK(sweep->method != FN_SWEEP_SOBOL || sweep->parameter_count <= FN_SOBOL_DIMENSIONS,
           FN_ERR_CONFIG, "%s: the method 'sobol' knows %d parameters, found %d: use 'random'",
           sweep->path, FN_SOBOL_DIMENSIONS, sweep->parameter_count);
  const int64_t most = 1000000, count = fn_sweep_trial_count(sweep);
  FN_CHECK(count <= most, FN_ERR_CONFIG, "%s: %lld trials or more are too many (at most %lld)",
           sweep->path, (long long)count, (long long)most);
  return FN_OK;
}

static fn_status refuse(fn_sweep *sweep, const char *path, fn_text *text, char **errors) {
  *errors = text->data;
  fn_sweep_destroy(sweep);
  FN_FAIL(FN_ERR_CONFIG, "the sweep %s cannot start", path);
}

fn_status fn_sweep_open(const char *path, fn_sweep **sweep, char **errors) {
  *sweep = NULL;
  *errors = NULL;
  fn_sweep *s = NULL;
  char *section = NULL;
  fn_status status = fn_sweep_read(path, &s, &section);
  if (!s) return status;
  complaints c = {0};
  if (section) fn_text_add(&c.text, "%s", section);
  free(section);
  if (status == FN_OK) status = check_sizes(s);
  if (status == FN_ERR_CONFIG) { // more mistakes in one pass
    if (c.text.length == 0) fn_text_add(&c.text, "%s\n", fn_error_message());
    status = fn_file_exists(s->run_path) ? try_run(s, NULL, FN_COMMAND_OTHER, &c) : FN_OK;
  } else if (status == FN_OK) {
    status = s->method == FN_SWEEP_ASK ? try_run(s, NULL, FN_COMMAND_OTHER, &c) : try_trials(s, &c);
  }
  free_complaints(&c);
  if (status == FN_OK && c.text.length > 0) return refuse(s, path, &c.text, errors);
  fn_text_free(&c.text);
  if (status != FN_OK) {
    fn_sweep_destroy(s);
    return status;
  }
  *sweep = s;
  return FN_OK;
}

void fn_sweep_destroy(fn_sweep *sweep) {
  if (sweep) fn_arena_destroy(sweep->arena);
}
