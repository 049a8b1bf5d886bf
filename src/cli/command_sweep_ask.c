/* fieldnet sweep ask, tell: trials that are chosen or run outside. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command_sweep.h"
#include "config/options.h"
#include "report/sweep_table.h"

/* ---- values from outside -----------------------------------------------------------------------
 */

/** Value of JSON as it may stand after --set key=. */
static void add_value(const fn_options *node, fn_text *text) {
  const char *scalar = fn_options_scalar(node);
  if (!scalar) {
    fn_text_add(text, "[");
    for (int i = 0; i < fn_options_count(node); i++) {
      if (i > 0) fn_text_add(text, ", ");
      add_value(fn_options_at(node, i), text);
    }
    fn_text_add(text, "]");
  } else if (scalar[0] && !scalar[strspn(scalar, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVW"
                                                 "XYZ0123456789_-+./")]) {
    fn_text_add(text, "%s", scalar);
  } else {
    fn_text_add_json(text, scalar);
  }
}

/** "key=value" texts of a JSON object, in the arena; JSON is YAML. */
static fn_status read_json(const char *json, fn_arena *arena, const char ***set, int *count) {
  fn_options *root = NULL;
  FN_TRY(fn_options_from_text(json, "--json", &root));
  const bool mapping = root && fn_options_get_kind(root) == FN_OPTIONS_MAPPING;
  *count = mapping ? fn_options_count(root) : 0;
  *set = fn_arena_take(arena, sizeof **set * (size_t)(*count + 1));
  fn_status status = FN_OK;
  for (int i = 0; i < *count && status == FN_OK; i++) {
    const fn_options *node = fn_options_at(root, i);
    fn_text value = {0};
    if (fn_options_get_kind(node) == FN_OPTIONS_MAPPING)
      status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                            "--json: expected a value for '%s', found an object",
                            fn_options_key_at(root, i));
    add_value(node, &value);
    (*set)[i] = fn_arena_format(arena, "%s=%s", fn_options_key_at(root, i), value.data);
    fn_text_free(&value);
  }
  fn_options_destroy(root);
  FN_TRY(status);
  FN_CHECK(mapping, FN_ERR_CONFIG, "--json: expected an object {\"key.path\": value, ...}");
  return FN_OK;
}

/* ---- ask ---------------------------------------------------------------------------------------
 */

/** Whether a value is a number as JSON spells it, true, false or null. */
static bool is_json(const char *text) {
  if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0 || strcmp(text, "null") == 0)
    return true;
  const char *digits = "0123456789";
  text += *text == '-';
  size_t n = strspn(text, digits);
  if (n == 0 || (n > 1 && text[0] == '0')) return false;
  text += n;
  if (*text == '.') {
    n = strspn(++text, digits);
    if (n == 0) return false;
    text += n;
  }
  if (*text == 'e' || *text == 'E') {
    text++;
    text += *text == '+' || *text == '-';
    n = strspn(text, digits);
    if (n == 0) return false;
    text += n;
  }
  return *text == '\0';
}

static void add_pair(fn_text *out, bool first, const char *set) {
  const char *equals = strchr(set, '=');
  fn_text path = {0};
  fn_text_add_bytes(&path, set, (size_t)(equals - set));
  fn_text_add(out, first ? "" : ", ");
  fn_text_add_json(out, path.data);
  fn_text_add(out, ": ");
  if (is_json(equals + 1))
    fn_text_add(out, "%s", equals + 1);
  else
    fn_text_add_json(out, equals + 1);
  fn_text_free(&path);
}

/** One line: {"id": 7, "attempt": 1, "run": ..., "folder": ..., "settings": {...}, "set": [...]} */
static fn_status print_trial(const fn_sweep_store *store, int64_t id, int64_t attempt) {
  const fn_sweep *sweep = fn_sweep_store_sweep(store);
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  fn_trial trial;
  const fn_status status = fn_sweep_store_trial_make(store, id, arena, &trial);
  if (status == FN_OK) {
    const char **set;
    int count;
    fn_text text = {0};
    fn_sweep_trial_arguments(sweep, &trial, arena, &set, &count);
    fn_text_add(&text, "{\"id\": %lld, \"attempt\": %lld, \"run\": ", (long long)id,
                (long long)attempt);
    fn_text_add_json(&text, sweep->run_path);
    fn_text_add(&text, ", \"folder\": ");
    fn_text_add_json(&text, trial.folder);
    fn_text_add(&text, ", \"settings\": {");
    for (int i = 0; i < trial.set_count; i++)
      add_pair(&text, i == 0, trial.set[i]);
    fn_text_add(&text, "}, \"set\": [");
    for (int i = 0; i < count; i++) {
      if (i > 0) fn_text_add(&text, ", ");
      fn_text_add_json(&text, set[i]);
    }
    fn_text_add(&text, "]}\n");
    fputs(text.data, stdout);
    fn_text_free(&text);
  }
  fn_arena_destroy(arena);
  return status;
}

/** Claim trial `id`, or with id < 0 the next, for somebody outside, and print it. */
static fn_status give(const fn_command_line *line, fn_sweep_store *store, int64_t id) {
  double lease = 0;
  fn_claim_outcome outcome;
  fn_claim claim;
  FN_TRY(fn_command_real(line, "lease", 0, 1e9, &lease));
  FN_TRY(fn_sweep_claim_outside(store, id, lease, &outcome, &claim));
  if (outcome == FN_CLAIM_TAKEN) return print_trial(store, claim.trial, claim.attempt);
  printf("{\"id\": null, \"state\": \"%s\"}\n", outcome == FN_CLAIM_BUSY ? "busy" : "done");
  return FN_OK;
}

static fn_status ask(const fn_command_line *line, const fn_sweep *sweep, fn_arena *arena) {
  const char *json = fn_command_text(line, "json", NULL);
  const char *const *set = line->set;
  int count = line->set_count;
  FN_CHECK(!json || count == 0, FN_ERR_CONFIG, "sweep ask: --set or --json, not both");
  if (json) {
    const char **read;
    FN_TRY(read_json(json, arena, &read, &count));
    set = read;
  }
  const bool queue = fn_command_given(line, "queue");
  FN_CHECK(!queue || count > 0, FN_ERR_CONFIG, "sweep ask: --queue needs values (--set, --json)");
  fn_sweep_store *store;
  FN_TRY(fn_sweep_store_open(sweep, &store));
  int64_t id = -1;
  fn_status status = FN_OK;
  if (count > 0) status = fn_sweep_register(store, set, count, &id);
  if (status == FN_OK) status = queue ? print_trial(store, id, 0) : give(line, store, id);
  fn_sweep_store_close(store);
  return status;
}

fn_status fn_sweep_command_ask(const fn_command_line *line) {
  fn_sweep *sweep = NULL;
  FN_TRY(fn_sweep_command_open(line, 0, &sweep));
  fn_arena *arena = fn_arena_create();
  fn_status status = FN_ERR_MEMORY;
  if (arena) status = ask(line, sweep, arena);
  fn_arena_destroy(arena);
  fn_sweep_destroy(sweep);
  return status;
}

/* ---- tell --------------------------------------------------------------------------------------
 */

/** What was said about a trial. */
typedef struct words {
  int64_t trial, epoch; // epoch 0: not said
  double value;         // NaN: not said, or none
  double seconds;
  const char *state, *message;
} words;

static fn_status read_trial_id(const char *text, int64_t *id) {
  char *end;
  const long long value = strtoll(text, &end, 10);
  FN_CHECK(end != text && *end == '\0' && value >= 0, FN_ERR_CONFIG,
           "sweep tell: expected the number of a trial, found '%s'", text);
  *id = value;
  return FN_OK;
}

static fn_status read_words(const fn_command_line *line, words *w) {
  static const char *const states[] = {"finished", "failed", "released"};
  *w = (words){.value = (double)NAN, .message = fn_command_text(line, "message", NULL)};
  FN_CHECK(line->extra_count == 3, FN_ERR_CONFIG,
           "sweep tell: expected the sweep's file and the number of a trial");
  FN_TRY(read_trial_id(line->extra[2], &w->trial));
  const char *value = fn_command_text(line, "value", NULL);
  // A run that diverged says nan: no value.
  if (value && strcmp(value, "nan") != 0)
    FN_TRY(fn_command_real(line, "value", -HUGE_VAL, HUGE_VAL, &w->value));
  FN_TRY(fn_command_integer(line, "epoch", 1, 10000000, &w->epoch));
  FN_TRY(fn_command_real(line, "seconds", 0, 1e12, &w->seconds));
  w->state = fn_command_text(line, "state", NULL);
  FN_CHECK(!w->state || w->epoch == 0, FN_ERR_CONFIG,
           "sweep tell: --epoch tells of a trial that goes on, --state of its end: not both");
  FN_CHECK(w->state || value, FN_ERR_CONFIG, "sweep tell: --value V or --state STATE is missing");
  if (!w->state && w->epoch == 0) w->state = states[0];
  for (int i = 0; w->state && i < 3; i++)
    if (strcmp(w->state, states[i]) == 0) return FN_OK;
  FN_CHECK(!w->state, FN_ERR_CONFIG,
           "sweep tell: --state is finished, failed or released, found '%s'", w->state);
  return FN_OK;
}

static fn_status tell_epoch(fn_sweep_store *store, const words *w) {
  static const char *const answers[] = {"go", "stop", "lost"};
  const fn_trial_record *r = fn_sweep_store_trial(store, w->trial);
  fn_report_answer answer = FN_REPORT_LOST;
  // Whoever did not hear it the first time hears it again.
  if (r && r->state == FN_TRIAL_STOPPED) {
    answer = FN_REPORT_STOP;
  } else {
    fn_claim claim;
    FN_TRY(fn_sweep_claim_of(store, w->trial, &claim));
    FN_TRY(fn_sweep_report(store, &claim, w->epoch, w->value, &answer));
  }
  puts(answers[answer]);
  return FN_OK;
}

static fn_status tell_end(fn_sweep_store *store, const words *w) {
  fn_claim claim;
  bool lost = false;
  FN_TRY(fn_sweep_claim_of(store, w->trial, &claim));
  if (strcmp(w->state, "finished") == 0)
    FN_TRY(fn_sweep_finish(store, &claim, w->value, w->seconds, &lost));
  else if (strcmp(w->state, "failed") == 0)
    FN_TRY(
        fn_sweep_fail(store, &claim, FN_ERR_INTERNAL, w->message ? w->message : "told so", &lost));
  else
    FN_TRY(fn_sweep_release(store, &claim, &lost));
  const fn_trial_record *r = fn_sweep_store_trial(store, w->trial);
  puts(lost ? "lost" : fn_trial_state_name(r->state));
  return FN_OK;
}

fn_status fn_sweep_command_tell(const fn_command_line *line) {
  words w;
  fn_sweep *sweep = NULL;
  fn_sweep_store *store = NULL;
  FN_TRY(read_words(line, &w));
  FN_TRY(fn_sweep_command_read(line->extra[1], 0, &sweep));
  fn_status status = fn_sweep_store_open(sweep, &store);
  if (status == FN_OK) status = w.state ? tell_end(store, &w) : tell_epoch(store, &w);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
  return status;
}
