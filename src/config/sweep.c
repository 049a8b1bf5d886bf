/* The sweep section of a file: what varies, how, and what is watched. */
#include "config/sweep.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "config/parts.h"

enum { MOST_SEEDS = 1000, MOST_PARAMETERS = 256, MOST_POINTS = 100000 };

/** One file that is being read. */
typedef struct reader {
  fn_run_parts *parts; // text, tree and problems; its fields are only written to check values
  fn_arena *arena;
  fn_sweep *sweep;
  fn_sweep_parameter *parameter; // sweep->parameter
} reader;

static const char *const methods[] = {"grid", "random", "sobol", "ask"};
static const char *const kinds[] = {"choices", "uniform", "log", "integer", "log_integer"};
static const char *const rules[] = {"none", "median", "asha"};
static const char *const metrics[] = {"train", "validation", "accuracy", "auc", "f1"};
static const char *const directions[] = {"minimize", "maximize"};
#define COUNT(list) ((int)(sizeof(list) / sizeof((list)[0])))

const char *fn_sweep_method_name(fn_sweep_method method) {
  return methods[method];
}

const char *fn_range_kind_name(fn_range_kind kind) {
  return kinds[kind];
}

const char *fn_stop_rule_name(fn_stop_rule rule) {
  return rules[rule];
}

/* ---- values ------------------------------------------------------------------------------------
 */

static const char *join_words(reader *r, const char *const *words, int count) {
  const char *text = words[0];
  for (int i = 1; i < count; i++)
    text = fn_arena_format(r->arena, "%s%s%s", text, i + 1 < count ? ", " : " or ", words[i]);
  return text;
}

/** Report keys of a mapping that are none of `names`. */
static void check_keys(reader *r, const fn_options *mapping, const char *where,
                       const char *const *names, int count) {
  for (const fn_options *node = mapping->first; node; node = node->next) {
    bool known = false;
    for (int i = 0; i < count; i++)
      known = known || strcmp(node->key, names[i]) == 0;
    if (known) continue;
    const char *near = fn_text_closest(node->key, names, count);
    fn_problem_key(&r->parts->problems, node, "unknown key '%s' in '%s'%s%s%s", node->key, where,
                   near ? ", did you mean '" : "", near ? near : "", near ? "'?" : "");
  }
}

/** Child with a value; NULL when absent or null. */
static const fn_options *given(const fn_options *mapping, const char *key) {
  const fn_options *node = fn_tree_child(mapping, key);
  return node && !fn_tree_is_null(node) && !node->wrong ? node : NULL;
}

static void wrong(reader *r, const fn_options *node, const char *key, const char *expected) {
  if (!node->wrong)
    fn_problem_value(&r->parts->problems, node, "%s: expected %s, found %s", key, expected,
                     fn_tree_found(node));
}

static void read_integer(reader *r, const fn_options *mapping, const char *key, int64_t min,
                         int64_t max, int64_t *value) {
  const fn_options *node = given(mapping, key);
  int64_t read;
  if (!node) return;
  if (fn_tree_integer(node, &read) && read >= min && read <= max)
    *value = read;
  else
    wrong(
        r, node, key,
        fn_arena_format(r->arena, "an integer from %lld to %lld", (long long)min, (long long)max));
}

static void read_real(reader *r, const fn_options *mapping, const char *key, double above,
                      double max, double *value) {
  const fn_options *node = given(mapping, key);
  double read;
  if (!node) return;
  if (fn_tree_real(node, &read) && read > above && read <= max)
    *value = read;
  else
    wrong(r, node, key, fn_arena_format(r->arena, "a number above %g, at most %g", above, max));
}

/** Index of a word, or -1 after a complaint. */
static int find_word(reader *r, const fn_options *node, const char *key, const char *const *words,
                     int count) {
  for (int i = 0; node->kind == FN_OPTIONS_SCALAR && i < count; i++)
    if (strcmp(node->text, words[i]) == 0) return i;
  const char *near =
      node->kind == FN_OPTIONS_SCALAR ? fn_text_closest(node->text, words, count) : NULL;
  const char *expected = join_words(r, words, count);
  if (near)
    fn_problem_value(&r->parts->problems, node, "%s: expected %s, found %s, did you mean '%s'?",
                     key, expected, fn_tree_found(node), near);
  else
    wrong(r, node, key, expected);
  return -1;
}

static int read_word(reader *r, const fn_options *mapping, const char *key,
                     const char *const *words, int count, int fallback) {
  const fn_options *node = given(mapping, key);
  const int found = node ? find_word(r, node, key, words, count) : fallback;
  return found < 0 ? fallback : found;
}

/** A value on one line, as it may stand after --set key=. */
static const char *value_text(reader *r, const fn_options *node) {
  fn_text text = {0};
  const char *copy = node->text ? node->text : "";
  if (fn_tree_write(node, &text) == FN_OK && text.data) copy = fn_arena_text(r->arena, text.data);
  fn_text_free(&text);
  return copy;
}

/* ---- paths -------------------------------------------------------------------------------------
 */

/** The key that a path names or lies below (free-form mappings); NULL: none. */
static const fn_key *key_of(fn_arena *arena, const char *path, bool *below) {
  *below = false;
  const fn_key *key = fn_key_find(path);
  if (key) return key;
  char *part = fn_arena_text(arena, path);
  for (char *dot = strrchr(part, '.'); dot; dot = strrchr(part, '.')) {
    *dot = '\0';
    key = fn_key_find(part);
    if (key && key->type == FN_KEY_MAPPING) {
      *below = true;
      return key;
    }
  }
  return NULL;
}

static void unknown_path(reader *r, const fn_options *node, const char *path) {
  if (fn_section_find(path)) {
    fn_problem_key(&r->parts->problems, node,
                   "'%s' is a section: name one of its keys, as in %s.%s", path, path, "key");
    return;
  }
  char *within = fn_arena_text(r->arena, path);
  char *dot = strrchr(within, '.');
  if (dot) *dot = '\0';
  const char *meant = fn_key_meant(r->arena, dot ? within : "", dot ? dot + 1 : path);
  if (meant && dot && fn_key_find(fn_arena_format(r->arena, "%s.%s", within, meant)))
    meant = fn_arena_format(r->arena, "%s.%s", within, meant);
  fn_problem_key(&r->parts->problems, node, "unknown key '%s'%s%s%s", path,
                 meant ? ", did you mean '" : "", meant ? meant : "", meant ? "'?" : "");
}

/** Whether trials may set the key that `node` is named after; complains when not. */
static bool check_path(reader *r, const fn_options *node, const fn_key **key, bool *below) {
  static const char *const ours[] = {"folder", "checkpoint.best"};
  static const char *const why[] = {"each trial has a folder of its own in the folder of the sweep",
                                    "it follows the metric of the sweep"};
  const char *path = node->key;
  *key = key_of(r->arena, path, below);
  if (!*key) {
    unknown_path(r, node, path);
    return false;
  }
  for (int i = 0; i < 2; i++) {
    if (strcmp(path, ours[i]) != 0) continue;
    fn_problem_key(&r->parts->problems, node, "'%s' cannot be set: %s", path, why[i]);
    return false;
  }
  return true;
}

/** Complain when the key does not take the value. */
static void check_value(reader *r, const fn_key *key, bool below, const fn_options *node) {
  if (!below) fn_key_convert(r->parts, key, node);
}

/* ---- parameters --------------------------------------------------------------------------------
 */

static void read_choices(reader *r, fn_sweep_parameter *p, const fn_options *list,
                         const fn_key *key, bool below) {
  if (list->kind != FN_OPTIONS_LIST || list->count == 0) {
    wrong(r, list, p->path, "a list of values to choose from");
    return;
  }
  p->kind = FN_RANGE_CHOICES;
  p->choice = fn_arena_take(r->arena, sizeof(char *) * (size_t)list->count);
  for (const fn_options *node = list->first; node; node = node->next) {
    const char *text = value_text(r, node);
    for (int64_t i = 0; i < p->count; i++)
      if (strcmp(p->choice[i], text) == 0)
        fn_problem_value(&r->parts->problems, node, "%s: the choice %s is there twice", p->path,
                         text);
    check_value(r, key, below, node);
    p->choice[p->count++] = text;
  }
}

static bool is_integer_kind(fn_range_kind kind) {
  return kind == FN_RANGE_INTEGER || kind == FN_RANGE_LOG_INTEGER;
}

/** Whether a range can give values of the key's type at all. */
static bool check_range_type(reader *r, const fn_sweep_parameter *p, const fn_options *node,
                             const fn_key *key, bool below) {
  if (below || key->type == FN_KEY_REAL) return true;
  const bool whole =
      key->type == FN_KEY_INTEGER || key->type == FN_KEY_NATURAL || key->type == FN_KEY_INTEGERS;
  if (whole && is_integer_kind(p->kind)) return true;
  if (whole)
    fn_problem_key(&r->parts->problems, node, "%s takes integers: use integer or log_integer",
                   p->path);
  else
    fn_problem_key(&r->parts->problems, node, "%s takes %s: give a list of values to choose from",
                   p->path, fn_key_type_text(key));
  return false;
}

static void read_ends(reader *r, fn_sweep_parameter *p, const fn_options *node, const fn_key *key,
                      bool below) {
  const bool whole = is_integer_kind(p->kind),
             log = p->kind == FN_RANGE_LOG || p->kind == FN_RANGE_LOG_INTEGER;
  const fn_options *end[2] = {node->first, node->last};
  bool good = node->kind == FN_OPTIONS_LIST && node->count == 2;
  int64_t integer[2] = {0};
  double real[2] = {0};
  for (int i = 0; i < 2 && good; i++) {
    good = whole ? fn_tree_integer(end[i], &integer[i]) : fn_tree_real(end[i], &real[i]);
    if (whole) real[i] = (double)integer[i];
  }
  // Integers are drawn in double precision.
  good = good && real[0] < real[1] && fabs(real[0]) <= 0x1p52 && fabs(real[1]) <= 0x1p52;
  if (!good) {
    wrong(r, node, fn_arena_format(r->arena, "%s: %s", p->path, kinds[p->kind]),
          whole ? "[LOW, HIGH], two integers, the smaller first"
                : "[LOW, HIGH], two numbers, the smaller first");
    return;
  }
  if (log && real[0] <= 0) {
    fn_problem_value(&r->parts->problems, node, "%s: a logarithmic range must begin above 0",
                     p->path);
    return;
  }
  if (!check_range_type(r, p, node, key, below)) return;
  check_value(r, key, below, end[0]);
  check_value(r, key, below, end[1]);
  p->low = real[0];
  p->high = real[1];
}

/** Points of a range in a grid. */
static void read_points(reader *r, fn_sweep_parameter *p, const fn_options *mapping) {
  const bool whole = is_integer_kind(p->kind);
  read_integer(r, mapping, "points", 2, MOST_POINTS, &p->count);
  if (r->sweep->method != FN_SWEEP_GRID || p->count > 0 || p->high <= p->low) return;
  if (!whole)
    fn_problem_key(&r->parts->problems, mapping, "%s: a grid needs 'points: N' with this range",
                   p->path);
  else if (p->kind == FN_RANGE_LOG_INTEGER || p->high - p->low >= MOST_POINTS)
    fn_problem_key(&r->parts->problems, mapping,
                   "%s: a grid needs 'points: N' with this range of integers", p->path);
}

/** `when: {other.path: value or list}` */
static void read_condition(reader *r, fn_sweep_parameter *p, const fn_options *mapping) {
  const fn_options *when = given(mapping, "when");
  if (!when) return;
  if (when->kind != FN_OPTIONS_MAPPING || when->count != 1) {
    wrong(r, when, fn_arena_format(r->arena, "%s: when", p->path),
          "one condition {other.key: value or list of values}");
    return;
  }
  const fn_options *node = when->first;
  for (int i = 0; i < r->sweep->parameter_count; i++)
    if (strcmp(r->parameter[i].path, node->key) == 0) p->parent = i;
  if (p->parent < 0 || r->parameter[p->parent].kind != FN_RANGE_CHOICES) {
    fn_problem_key(&r->parts->problems, node,
                   "%s: a condition must name a parameter with choices above it, found '%s'",
                   p->path, node->key);
    p->parent = -1;
    return;
  }
  const fn_sweep_parameter *parent = &r->parameter[p->parent];
  const bool list = node->kind == FN_OPTIONS_LIST;
  p->when.text = fn_arena_take(r->arena, sizeof(char *) * (size_t)(list ? node->count + 1 : 1));
  for (const fn_options *e = list ? node->first : node; e; e = list ? e->next : NULL) {
    const char *text = value_text(r, e);
    bool found = false;
    for (int64_t i = 0; i < parent->count; i++)
      found = found || strcmp(parent->choice[i], text) == 0;
    if (!found)
      fn_problem_value(&r->parts->problems, e, "%s: '%s' is never %s", p->path, node->key, text);
    p->when.text[p->when.count++] = text;
  }
}

static void read_range(reader *r, fn_sweep_parameter *p, const fn_options *node, const fn_key *key,
                       bool below) {
  static const char *const names[] = {"choices", "uniform",     "log",   "integer",
                                      "when",    "log_integer", "points"};
  check_keys(r, node, fn_arena_format(r->arena, "sweep.parameters.%s", p->path), names,
             COUNT(names));
  const fn_options *range = NULL;
  for (int k = 0; k < COUNT(kinds); k++) {
    const fn_options *found = given(node, kinds[k]);
    if (!found) continue;
    if (range) {
      fn_problem_key(&r->parts->problems, found, "%s: '%s' and '%s' exclude each other", p->path,
                     range->key, kinds[k]);
      return;
    }
    range = found;
    p->kind = (fn_range_kind)k;
  }
  if (!range) {
    fn_problem_key(&r->parts->problems, node, "%s: expected one of %s", p->path,
                   join_words(r, kinds, COUNT(kinds)));
  } else if (p->kind == FN_RANGE_CHOICES) {
    read_choices(r, p, range, key, below);
    if (given(node, "points"))
      fn_problem_key(&r->parts->problems, given(node, "points"),
                     "%s: choices are all points of a grid; 'points' is for ranges", p->path);
  } else {
    read_ends(r, p, range, key, below);
    read_points(r, p, node);
  }
  read_condition(r, p, node);
}

static void read_parameter(reader *r, const fn_options *node) {
  fn_sweep_parameter p = {.path = node->key, .parent = -1};
  const fn_key *key;
  bool below;
  if (node->wrong || !check_path(r, node, &key, &below)) return;
  if (r->sweep->seed_count > 0 && strcmp(p.path, "seed") == 0) {
    fn_problem_key(&r->parts->problems, node, "'seed' varies already: sweep.seeds repeats trials");
    return;
  }
  if (node->kind == FN_OPTIONS_MAPPING)
    read_range(r, &p, node, key, below);
  else
    read_choices(r, &p, node, key, below);
  r->parameter[r->sweep->parameter_count++] = p;
}

static void read_parameters(reader *r, const fn_options *section) {
  const fn_options *node = given(section, "parameters");
  if (!node || node->kind != FN_OPTIONS_MAPPING || node->count == 0) {
    fn_problem_key(&r->parts->problems, node ? node : section,
                   "missing 'sweep.parameters': the keys that vary, each with a list of choices or "
                   "a range");
    return;
  }
  if (node->count > MOST_PARAMETERS) {
    wrong(r, node, "sweep.parameters",
          fn_arena_format(r->arena, "at most %d parameters", MOST_PARAMETERS));
    return;
  }
  r->parameter = fn_arena_take(r->arena, sizeof *r->parameter * (size_t)node->count);
  r->sweep->parameter = r->parameter;
  for (const fn_options *child = node->first; child; child = child->next)
    read_parameter(r, child);
}

/* ---- the rest of the section -------------------------------------------------------------------
 */

/** `seeds: 3` (0, 1, 2) or a list. */
static void read_seeds(reader *r, const fn_options *section) {
  const fn_options *node = given(section, "seeds");
  if (!node) return;
  const bool list = node->kind == FN_OPTIONS_LIST;
  int64_t count = list ? node->count : 0;
  if (!list && (!fn_tree_integer(node, &count) || count < 1)) count = 0;
  if (count < 1 || count > MOST_SEEDS) {
    wrong(r, node, "seeds",
          fn_arena_format(r->arena, "a number of repeats up to %d or a list of seeds", MOST_SEEDS));
    return;
  }
  uint64_t *seeds = fn_arena_take(r->arena, sizeof *seeds * (size_t)count);
  const fn_options *entry = node->first;
  for (int64_t i = 0; i < count; i++, entry = list ? entry->next : NULL) {
    seeds[i] = (uint64_t)i;
    if (!list) continue;
    if (!fn_tree_natural(entry, &seeds[i])) wrong(r, entry, "seeds", "seeds, integers from 0");
    for (int64_t j = 0; j < i; j++)
      if (seeds[j] == seeds[i])
        fn_problem_value(&r->parts->problems, entry, "seeds: %s is there twice", entry->text);
  }
  r->sweep->seeds = seeds;
  r->sweep->seed_count = (int)count;
}

static void read_stop(reader *r, const fn_options *section) {
  static const char *const names[] = {"rule", "min_epochs", "reduction", "min_trials"};
  fn_sweep *s = r->sweep;
  const fn_options *node = given(section, "stop");
  if (!node) return;
  if (node->kind != FN_OPTIONS_MAPPING) {
    const int rule = find_word(r, node, "stop", rules, COUNT(rules));
    if (rule >= 0) s->stop.rule = (fn_stop_rule)rule;
    return;
  }
  check_keys(r, node, "sweep.stop", names, COUNT(names));
  if (!given(node, "rule"))
    fn_problem_key(&r->parts->problems, node, "missing 'sweep.stop.rule': %s",
                   join_words(r, rules, COUNT(rules)));
  s->stop.rule = (fn_stop_rule)read_word(r, node, "rule", rules, COUNT(rules), FN_STOP_NONE);
  read_integer(r, node, "min_epochs", 1, INT32_MAX, &s->stop.min_epochs);
  read_integer(r, node, "min_trials", 1, INT32_MAX, &s->stop.min_trials);
  read_real(r, node, "reduction", 1, 1000, &s->stop.reduction);
  const fn_options *reduction = given(node, "reduction"), *trials = given(node, "min_trials");
  if (reduction && s->stop.rule != FN_STOP_ASHA)
    fn_problem_key(&r->parts->problems, reduction, "'reduction' belongs to the rule asha");
  if (trials && s->stop.rule != FN_STOP_MEDIAN)
    fn_problem_key(&r->parts->problems, trials, "'min_trials' belongs to the rule median");
}

static void read_trials(reader *r, const fn_options *section) {
  fn_sweep *s = r->sweep;
  const fn_options *node = given(section, "trials");
  read_integer(r, section, "trials", 1, 1000000, &s->trials);
  if (!node && (s->method == FN_SWEEP_RANDOM || s->method == FN_SWEEP_SOBOL))
    fn_problem_key(&r->parts->problems, section,
                   "missing 'sweep.trials': how many settings the method '%s' draws",
                   methods[s->method]);
  if (node && s->method == FN_SWEEP_ASK)
    fn_problem_key(&r->parts->problems, node,
                   "'trials' has no meaning with method 'ask': whoever asks decides how many");
}

static void read_section(reader *r, const fn_options *section) {
  static const char *const names[] = {"method",   "trials", "seed",      "seeds",
                                      "folder",   "stop",   "metric",    "direction",
                                      "attempts", "lease",  "parameters"};
  fn_sweep *s = r->sweep;
  check_keys(r, section, "sweep", names, COUNT(names));
  s->method =
      (fn_sweep_method)read_word(r, section, "method", methods, COUNT(methods), FN_SWEEP_GRID);
  read_trials(r, section);
  const fn_options *seed = given(section, "seed"), *folder = given(section, "folder");
  if (seed && !fn_tree_natural(seed, &s->seed)) wrong(r, seed, "seed", "an integer from 0");
  if (folder && (folder->kind != FN_OPTIONS_SCALAR || !folder->text[0]))
    wrong(r, folder, "folder", "the path of a folder");
  else if (folder)
    s->folder = folder->text;
  const int metric = read_word(r, section, "metric", metrics, COUNT(metrics), 1);
  s->metric = metrics[metric];
  s->maximize = read_word(r, section, "direction", directions, COUNT(directions), metric > 1) == 1;
  read_integer(r, section, "attempts", 1, 1000000, &s->attempts);
  read_real(r, section, "lease", 0, 1e7, &s->lease);
  read_seeds(r, section);
  read_stop(r, section);
  read_parameters(r, section);
}

/** `set:` of a file of its own. */
static void read_common(reader *r) {
  const fn_options *node = given(r->parts->root, "set");
  if (!node) return;
  if (node->kind != FN_OPTIONS_MAPPING) {
    wrong(r, node, "set", "a mapping of key.path: value");
    return;
  }
  r->sweep->set.text = fn_arena_take(r->arena, sizeof(char *) * (size_t)(node->count + 1));
  for (const fn_options *child = node->first; child; child = child->next) {
    const fn_key *key;
    bool below;
    if (child->wrong || !check_path(r, child, &key, &below)) continue;
    check_value(r, key, below, child);
    r->sweep->set.text[r->sweep->set.count++] =
        fn_arena_format(r->arena, "%s=%s", child->key, value_text(r, child));
  }
}

/* ---- the file ----------------------------------------------------------------------------------
 */

/** A path that was written in the file `beside`. */
static const char *path_beside(fn_arena *arena, const char *beside, const char *path) {
  const char *slash = strrchr(beside, '/');
  if (path[0] == '/' || !slash) return fn_arena_text(arena, path);
  return fn_arena_format(arena, "%.*s%s", (int)(slash - beside + 1), beside, path);
}

/** "racoon_sweep" of "configs/racoon.yaml". */
static const char *default_folder(fn_arena *arena, const char *path) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  const char *dot = strrchr(name, '.');
  return fn_arena_format(arena, "%.*s_sweep", (int)(dot && dot > name ? dot - name : 4096), name);
}

static void read_root(reader *r) {
  static const char *const names[] = {"run", "set", "sweep"};
  const fn_options *root = r->parts->root, *run = given(root, "run");
  // `run:` is a section in a run file and the path of one in a file of its own.
  if (run && run->kind == FN_OPTIONS_SCALAR) {
    r->sweep->run_path = path_beside(r->arena, r->sweep->path, run->text);
    check_keys(r, root, r->sweep->path, names, COUNT(names));
    read_common(r);
    if (!fn_file_exists(r->sweep->run_path))
      fn_problem_value(&r->parts->problems, run, "run: no file %s", r->sweep->run_path);
  }
  const fn_options *section = given(root, "sweep");
  if (!section)
    fn_problem_add(&r->parts->problems, r->parts->file, 0, 0, "missing section 'sweep'");
  else if (section->kind != FN_OPTIONS_MAPPING)
    wrong(r, section, "sweep", "a mapping of keys");
  else
    read_section(r, section);
}

static void read_file(reader *r) {
  fn_run_parts *parts = r->parts;
  if (!fn_tree_parse(r->arena, &parts->problems, parts->file, 0, &parts->root)) return;
  if (!parts->root || parts->root->kind != FN_OPTIONS_MAPPING)
    fn_problem_add(&parts->problems, parts->file, 0, 0, "expected a mapping of keys");
  else
    read_root(r);
}

fn_status fn_sweep_read(const char *path, fn_sweep **sweep, char **errors) {
  *sweep = NULL;
  *errors = NULL;
  char *text = NULL;
  size_t size = 0;
  if (fn_file_read(path, &text, &size) != FN_OK)
    FN_FAIL(FN_ERR_CONFIG, "cannot read the sweep: %s", fn_error_message());
  fn_run_parts *parts = fn_parts_create(path, text, size);
  free(text);
  FN_CHECK(parts, FN_ERR_MEMORY, "no memory for the sweep %s", path);
  fn_arena *arena = parts->run.arena;
  fn_sweep *s = fn_arena_take(arena, sizeof *s);
  *s = (fn_sweep){.path = parts->run.path,
                  .run_path = parts->run.path,
                  .folder = default_folder(arena, path),
                  .attempts = 3,
                  .lease = 120,
                  .stop = {.min_epochs = 1, .reduction = 3, .min_trials = 4},
                  .arena = arena};
  reader r = {.parts = parts, .arena = arena, .sweep = s};
  read_file(&r);
  if (parts->problems.count > 0) *errors = fn_problems_text(&parts->problems);
  // What could be read goes out even so: the caller may look for more mistakes.
  *sweep = s;
  const int count = parts->problems.count;
  FN_CHECK(count == 0, FN_ERR_CONFIG, "%d error%s in the sweep %s", count, count == 1 ? "" : "s",
           path);
  return FN_OK;
}

fn_status fn_sweep_accepts(const char *path, const char *value) {
  fn_run_parts *parts = fn_parts_create(path, value, strlen(value));
  FN_CHECK(parts, FN_ERR_MEMORY, "no memory to check %s", path);
  fn_options *node = NULL;
  bool below = false;
  const fn_key *key = key_of(parts->run.arena, path, &below);
  fn_status status = FN_OK;
  if (!fn_tree_parse(parts->run.arena, &parts->problems, parts->file, 0, &node) || !node) {
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "%s: '%s' is no value", path, value);
  } else if (!key) {
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "unknown key '%s'", path);
  } else if (!below) {
    fn_key_convert(parts, key, node);
    const fn_problem *first = parts->problems.first;
    if (first) status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "%s", first->message);
  }
  fn_arena_destroy(parts->run.arena);
  return status;
}
