/* Nodes to fields of fn_run and back, as the schema table says. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "config/parts.h"

static void *field_of(fn_run *run, const fn_key *key) {
  return (char *)run + key->offset;
}

static const void *const_field_of(const fn_run *run, const fn_key *key) {
  return (const char *)run + key->offset;
}

/* ---- one value ------------------------------------------------------------------------------ */

static void expected(fn_run_parts *parts, const fn_key *key, const fn_options *node,
                     const char *what) {
  fn_problem_value(&parts->problems, node, "%s: expected %s, found %s", key->path, what,
                   fn_tree_found(node));
}

static bool in_range(fn_run_parts *parts, const fn_key *key, const fn_options *node, double value) {
  if (!key->ranged) return true;
  const bool low = key->above ? value > key->min : value >= key->min;
  const bool high = key->below ? value < key->max : value <= key->max;
  if (low && high) return true;
  char range[128];
  fn_problem_value(&parts->problems, node, "%s must be %s, found %s", key->path,
                   fn_key_range_text(key, range, sizeof range), node->text);
  return false;
}

static bool to_real(fn_run_parts *parts, const fn_key *key, const fn_options *node, double *value) {
  if (node->wrong) return false;
  if (fn_tree_real(node, value)) return in_range(parts, key, node, *value);
  expected(parts, key, node,
           fn_tree_looks_real(node) ? "a number that fits into 64 bits" : "a number");
  return false;
}

static bool to_integer(fn_run_parts *parts, const fn_key *key, const fn_options *node,
                       int64_t *value) {
  if (node->wrong) return false;
  if (fn_tree_integer(node, value)) return in_range(parts, key, node, (double)*value);
  expected(parts, key, node,
           fn_tree_looks_integer(node) ? "an integer that fits into 64 bits" : "an integer");
  return false;
}

static bool to_text(fn_run_parts *parts, const fn_key *key, const fn_options *node,
                    const char **value) {
  if (node->wrong) return false;
  if (node->kind == FN_OPTIONS_SCALAR && !fn_tree_is_null(node) &&
      (node->text[0] != '\0' || key->off_text)) {
    *value = node->text;
    return true;
  }
  if (node->kind == FN_OPTIONS_SCALAR && node->quoted)
    fn_problem_value(&parts->problems, node, "%s: expected a text, found an empty one", key->path);
  else
    expected(parts, key, node, "a text");
  return false;
}

static int split_choices(fn_arena *arena, const char *choices, const char **names, int most) {
  int count = 0;
  char *copy = fn_arena_text(arena, choices);
  char *rest = NULL;
  for (char *word = strtok_r(copy, "|", &rest); word && count < most;
       word = strtok_r(NULL, "|", &rest))
    names[count++] = word;
  return count;
}

static bool to_choice(fn_run_parts *parts, const fn_key *key, const fn_options *node,
                      const char **value) {
  enum { MOST = 16 };
  const char *names[MOST];
  const int count = split_choices(parts->run.arena, key->choices, names, MOST);
  if (node->wrong) return false;
  if (node->kind != FN_OPTIONS_SCALAR || fn_tree_is_null(node)) {
    char range[160];
    expected(parts, key, node, fn_key_range_text(key, range, sizeof range));
    return false;
  }
  const char *word = node->text;
  bool flag;
  // YAML's yes and no have synonyms; where they are choices, all of them are understood.
  if (strstr(key->choices, "yes|no") && fn_tree_flag(node, &flag)) word = flag ? "yes" : "no";
  for (int i = 0; i < count; i++) {
    if (strcmp(names[i], word) == 0) {
      *value = names[i];
      return true;
    }
  }
  const char *near = fn_text_closest(word, names, count);
  char range[160];
  fn_key_range_text(key, range, sizeof range);
  if (near)
    fn_problem_value(&parts->problems, node, "%s: expected %s, found %s, did you mean '%s'?",
                     key->path, range, fn_tree_found(node), near);
  else
    expected(parts, key, node, range);
  return false;
}

/* ---- lists ---------------------------------------------------------------------------------- */

static const fn_options *first_entry(const fn_options *node) {
  return node->kind == FN_OPTIONS_LIST ? node->first : node;
}

/* Entry after `entry`, which may be the node itself where a scalar stands for a list of one. */
static const fn_options *next_entry(const fn_options *node, const fn_options *entry) {
  return node->kind == FN_OPTIONS_LIST ? entry->next : NULL;
}

static void to_integers(fn_run_parts *parts, const fn_key *key, const fn_options *node,
                        fn_integers *list) {
  enum { MOST = sizeof list->value / sizeof list->value[0] };
  fn_integers read = {0};
  bool good = true;
  if (node->kind == FN_OPTIONS_MAPPING || (node->kind == FN_OPTIONS_LIST && node->count > MOST) ||
      (node->kind == FN_OPTIONS_LIST && node->count == 0)) {
    expected(parts, key, node, "an integer or a list of integers");
    return;
  }
  for (const fn_options *e = first_entry(node); e; e = next_entry(node, e))
    good = to_integer(parts, key, e, &read.value[read.count++]) && good;
  if (good) *list = read;
}

static void to_texts(fn_run_parts *parts, const fn_key *key, const fn_options *node,
                     fn_texts *list) {
  if (node->kind == FN_OPTIONS_MAPPING) {
    expected(parts, key, node, "a text or a list of texts");
    return;
  }
  if (node->kind == FN_OPTIONS_LIST && node->count == 0) return;
  const int count = node->kind == FN_OPTIONS_LIST ? node->count : 1;
  fn_texts read = {.text = fn_arena_take(parts->run.arena, sizeof(char *) * (size_t)count)};
  bool good = true;
  for (const fn_options *e = first_entry(node); e; e = next_entry(node, e)) {
    const char **text = &read.text[read.count++];
    good = (key->choices ? to_choice(parts, key, e, text) : to_text(parts, key, e, text)) && good;
  }
  if (good) *list = read;
}

static void to_pair(fn_run_parts *parts, const fn_key *key, const fn_options *node, double *pair) {
  double read[2];
  if (node->kind != FN_OPTIONS_LIST || node->count != 2) {
    expected(parts, key, node, "a list of 2 numbers");
    return;
  }
  const bool first = to_real(parts, key, node->first, &read[0]);
  if (to_real(parts, key, node->last, &read[1]) && first) memcpy(pair, read, sizeof read);
}

static void to_node(fn_run_parts *parts, const fn_key *key, const fn_options *node,
                    fn_options **tree) {
  const fn_options_kind kind = key->type == FN_KEY_LIST ? FN_OPTIONS_LIST : FN_OPTIONS_MAPPING;
  if (node->kind == kind)
    *tree = (fn_options *)(uintptr_t)node;
  else
    expected(parts, key, node, key->type == FN_KEY_LIST ? "a list" : "a mapping");
}

/* ---- any type ---------------------------------------------------------------------------------
 */

static void set_off(fn_run *run, const fn_key *key) {
  void *field = field_of(run, key);
  switch (key->type) {
    case FN_KEY_TEXT:
    case FN_KEY_CHOICE: *(const char **)field = key->off_text; break;
    case FN_KEY_FLAG: *(bool *)field = false; break;
    case FN_KEY_INTEGER: *(int64_t *)field = (int64_t)key->off; break;
    case FN_KEY_NATURAL: *(uint64_t *)field = (uint64_t)key->off; break;
    case FN_KEY_REAL: *(double *)field = key->off; break;
    case FN_KEY_PAIR: ((double *)field)[0] = ((double *)field)[1] = key->off; break;
    case FN_KEY_INTEGERS: *(fn_integers *)field = (fn_integers){0}; break;
    case FN_KEY_TEXTS:
    case FN_KEY_CHOICES: *(fn_texts *)field = (fn_texts){0}; break;
    case FN_KEY_MAPPING:
    case FN_KEY_LIST: *(fn_options **)field = NULL; break;
  }
}

void fn_key_convert(fn_run_parts *parts, const fn_key *key, const fn_options *node) {
  void *field = field_of(&parts->run, key);
  if (node->wrong) return; // reported already
  if (fn_tree_is_null(node) && key->nullable) {
    set_off(&parts->run, key);
    return;
  }
  double real;
  int64_t integer;
  const char *text;
  switch (key->type) {
    case FN_KEY_TEXT:
      if (to_text(parts, key, node, &text)) *(const char **)field = text;
      break;
    case FN_KEY_CHOICE:
      if (to_choice(parts, key, node, &text)) *(const char **)field = text;
      break;
    case FN_KEY_FLAG:
      if (!fn_tree_flag(node, (bool *)field)) expected(parts, key, node, "true or false");
      break;
    case FN_KEY_INTEGER:
      if (to_integer(parts, key, node, &integer)) *(int64_t *)field = integer;
      break;
    case FN_KEY_NATURAL:
      if (!fn_tree_natural(node, (uint64_t *)field))
        expected(parts, key, node, "an integer from 0 to 18446744073709551615");
      break;
    case FN_KEY_REAL:
      if (to_real(parts, key, node, &real)) *(double *)field = real;
      break;
    case FN_KEY_PAIR: to_pair(parts, key, node, field); break;
    case FN_KEY_INTEGERS: to_integers(parts, key, node, field); break;
    case FN_KEY_TEXTS:
    case FN_KEY_CHOICES: to_texts(parts, key, node, field); break;
    case FN_KEY_MAPPING:
    case FN_KEY_LIST: to_node(parts, key, node, field); break;
  }
}

void fn_key_set_default(fn_run_parts *parts, const fn_key *key) {
  if (strcmp(key->fallback, "null") == 0) {
    set_off(&parts->run, key);
    return;
  }
  fn_source *source = fn_arena_take(parts->run.arena, sizeof *source);
  source->name = "default";
  source->text = key->fallback;
  source->size = strlen(key->fallback);
  fn_options *node;
  if (fn_tree_parse(parts->run.arena, &parts->problems, source, 0, &node) && node)
    fn_key_convert(parts, key, node);
}

/* ---- fields to nodes --------------------------------------------------------------------------
 */

static const fn_source nowhere = {.name = "", .text = ""};

static fn_options *scalar(fn_arena *arena, const char *text) {
  fn_options *node = fn_tree_create(arena, FN_OPTIONS_SCALAR, &nowhere, 0, 0);
  node->text = text;
  return node;
}

static fn_options *real_node(fn_arena *arena, double value) {
  char text[40];
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    char *exponent = strchr(text, 'e');
    if (exponent && !strchr(text, '.')) { // YAML 1.1 readers take 1e-08 for a text
      memmove(exponent + 2, exponent, strlen(exponent) + 1);
      memcpy(exponent, ".0", 2);
    }
    fn_options *node = scalar(arena, fn_arena_text(arena, text));
    double back;
    if (digits == 17 || (fn_tree_real(node, &back) && back == value)) return node;
  }
  return NULL;
}

/* Quoted where this or another YAML reader might see something else than a text. */
static fn_options *text_node(fn_arena *arena, const char *text) {
  fn_options *node = scalar(arena, text);
  bool flag;
  const char first = text[0];
  const bool word = (first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z') ||
                    first == '/' || (first & 0x80);
  node->quoted = !word || fn_tree_is_null(node) || fn_tree_flag(node, &flag);
  return node;
}

static fn_options *integers_node(fn_arena *arena, const fn_integers *list) {
  fn_options *node = fn_tree_create(arena, FN_OPTIONS_LIST, &nowhere, 0, 0);
  for (int i = 0; i < list->count; i++)
    fn_tree_append(node, scalar(arena, fn_arena_format(arena, "%lld", (long long)list->value[i])),
                   NULL);
  return node;
}

static fn_options *texts_node(fn_arena *arena, const fn_texts *list) {
  fn_options *node = fn_tree_create(arena, FN_OPTIONS_LIST, &nowhere, 0, 0);
  for (int i = 0; i < list->count; i++)
    fn_tree_append(node, text_node(arena, list->text[i]), NULL);
  return node;
}

static bool is_off(const fn_key *key, double value) {
  return key->nullable && (value == key->off || (isnan(value) && isnan(key->off)));
}

fn_options *fn_key_node(fn_arena *arena, const fn_key *key, const fn_run *run) {
  const void *field = const_field_of(run, key);
  fn_options *null = scalar(arena, "null");
  switch (key->type) {
    case FN_KEY_TEXT:
    case FN_KEY_CHOICE: {
      const char *text = *(const char *const *)field;
      const bool off = !text || (key->off_text && strcmp(text, key->off_text) == 0);
      return off ? null : text_node(arena, text);
    }
    case FN_KEY_FLAG: return scalar(arena, *(const bool *)field ? "true" : "false");
    case FN_KEY_INTEGER: {
      const int64_t value = *(const int64_t *)field;
      if (is_off(key, (double)value)) return null;
      return scalar(arena, fn_arena_format(arena, "%lld", (long long)value));
    }
    case FN_KEY_NATURAL:
      return scalar(arena,
                    fn_arena_format(arena, "%llu", (unsigned long long)*(const uint64_t *)field));
    case FN_KEY_REAL: {
      const double value = *(const double *)field;
      return is_off(key, value) ? null : real_node(arena, value);
    }
    case FN_KEY_PAIR: {
      const double *pair = field;
      fn_options *node = fn_tree_create(arena, FN_OPTIONS_LIST, &nowhere, 0, 0);
      fn_tree_append(node, real_node(arena, pair[0]), NULL);
      fn_tree_append(node, real_node(arena, pair[1]), NULL);
      return node;
    }
    case FN_KEY_INTEGERS: {
      const fn_integers *list = field;
      return list->count ? integers_node(arena, list) : null;
    }
    case FN_KEY_TEXTS:
    case FN_KEY_CHOICES: {
      const fn_texts *list = field;
      return list->count ? texts_node(arena, list) : null;
    }
    case FN_KEY_MAPPING:
    case FN_KEY_LIST: {
      fn_options *tree = *(fn_options *const *)field;
      return tree ? tree : null;
    }
  }
  return null;
}
