/* Free-form options: lookups that remember what was asked for. */
#include "config/options.h"

#include <stdlib.h>
#include <string.h>

#include "config/tree.h"

/* Lookups are read-only for their callers but leave marks, so the record is reached through a cast;
 * every node lives in an arena, none is really constant. */
static fn_options *record(const fn_options *node) {
  return (fn_options *)(uintptr_t)node;
}

fn_options_kind fn_options_get_kind(const fn_options *node) {
  return node ? node->kind : FN_OPTIONS_MAPPING;
}

int fn_options_count(const fn_options *node) {
  return node ? node->count : 0;
}

static fn_options *child_at(const fn_options *node, int index) {
  if (!node || index < 0 || index >= node->count) return NULL;
  fn_options *child = node->first;
  while (index-- > 0)
    child = child->next;
  return child;
}

const fn_options *fn_options_at(const fn_options *node, int index) {
  fn_options *child = child_at(node, index);
  if (child) child->used = true;
  return child;
}

const char *fn_options_key_at(const fn_options *node, int index) {
  const fn_options *child = child_at(node, index);
  return child ? child->key : NULL;
}

static void remember(const fn_options *mapping, const char *key) {
  for (const fn_asked *asked = mapping->asked; asked; asked = asked->next)
    if (strcmp(asked->key, key) == 0) return;
  fn_asked *asked = fn_arena_take(mapping->arena, sizeof *asked);
  asked->key = fn_arena_text(mapping->arena, key);
  asked->next = mapping->asked;
  record(mapping)->asked = asked;
}

static void set_wrong(const fn_options *node, const char *expected) {
  if (node->wrong) return;
  record(node)->wrong =
      fn_arena_format(node->arena, "expected %s, found %s", expected, fn_tree_found(node));
}

const fn_options *fn_options_get(const fn_options *node, const char *key) {
  if (!node) return NULL;
  if (node->kind != FN_OPTIONS_MAPPING) {
    set_wrong(node, fn_arena_format(node->arena, "a mapping with the key '%s'", key));
    return NULL;
  }
  remember(node, key);
  fn_options *child = fn_tree_child(node, key);
  if (!child) return NULL;
  child->used = true;
  return fn_tree_is_null(child) ? NULL : child;
}

const char *fn_options_scalar(const fn_options *node) {
  return node && node->kind == FN_OPTIONS_SCALAR ? node->text : NULL;
}

const char *fn_options_where(const fn_options *node) {
  return node ? fn_place_text(node->arena, node->source, node->line, node->column) : "";
}

/* ---- typed values ------------------------------------------------------------------------- */

static fn_status wrong_type(const fn_options *node, const char *expected) {
  FN_CHECK(node, FN_ERR_CONFIG, "expected %s, found nothing", expected);
  fn_text text = {0};
  const char *message =
      fn_arena_format(node->arena, "expected %s, found %s", expected, fn_tree_found(node));
  fn_problem_print(&text, node->source, node->line, node->column, message);
  if (text.length > 0) text.data[text.length - 1] = '\0'; // without the last newline
  const fn_status status =
      fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "%s", text.data ? text.data : message);
  fn_text_free(&text);
  return status;
}

fn_status fn_options_as_real(const fn_options *node, double *value) {
  if (!node || !fn_tree_real(node, value)) return wrong_type(node, "a number");
  record(node)->used = true;
  return FN_OK;
}

fn_status fn_options_as_integer(const fn_options *node, int64_t *value) {
  if (!node || !fn_tree_integer(node, value)) return wrong_type(node, "an integer");
  record(node)->used = true;
  return FN_OK;
}

fn_status fn_options_as_flag(const fn_options *node, bool *value) {
  if (!node || !fn_tree_flag(node, value)) return wrong_type(node, "true or false");
  record(node)->used = true;
  return FN_OK;
}

fn_status fn_options_as_text(const fn_options *node, const char **value) {
  if (!node || node->kind != FN_OPTIONS_SCALAR || fn_tree_is_null(node))
    return wrong_type(node, "a text");
  record(node)->used = true;
  *value = node->text;
  return FN_OK;
}

fn_status fn_options_as_integers(const fn_options *node, int limit, int64_t *value, int *count) {
  if (node && node->kind == FN_OPTIONS_SCALAR) {
    *count = 1;
    if (limit < 1 || !fn_tree_integer(node, value)) return wrong_type(node, "an integer");
    record(node)->used = true;
    return FN_OK;
  }
  if (!node || node->kind != FN_OPTIONS_LIST || node->count > limit)
    return wrong_type(
        node, node ? fn_arena_format(node->arena, "an integer or a list of at most %d", limit)
                   : "an integer or a list of integers");
  *count = 0;
  record(node)->used = true;
  for (const fn_options *child = node->first; child; child = child->next)
    FN_TRY(fn_options_as_integer(child, &value[(*count)++]));
  return FN_OK;
}

double fn_option_real(const fn_options *options, const char *key, double fallback) {
  const fn_options *node = fn_options_get(options, key);
  double value;
  if (!node) return fallback;
  if (fn_tree_real(node, &value)) return value;
  set_wrong(node, "a number");
  return fallback;
}

int64_t fn_option_integer(const fn_options *options, const char *key, int64_t fallback) {
  const fn_options *node = fn_options_get(options, key);
  int64_t value;
  if (!node) return fallback;
  if (fn_tree_integer(node, &value)) return value;
  set_wrong(node, "an integer");
  return fallback;
}

bool fn_option_flag(const fn_options *options, const char *key, bool fallback) {
  const fn_options *node = fn_options_get(options, key);
  bool value;
  if (!node) return fallback;
  if (fn_tree_flag(node, &value)) return value;
  set_wrong(node, "true or false");
  return fallback;
}

const char *fn_option_text(const fn_options *options, const char *key, const char *fallback) {
  const fn_options *node = fn_options_get(options, key);
  if (!node) return fallback;
  if (node->kind == FN_OPTIONS_SCALAR) return node->text;
  set_wrong(node, "a text");
  return fallback;
}

/* ---- what nobody asked for ------------------------------------------------------------------ */

static const char *closest_asked(const fn_options *mapping, const char *key) {
  enum { MOST = 256 };
  const char *names[MOST];
  int count = 0;
  for (const fn_asked *asked = mapping->asked; asked && count < MOST; asked = asked->next)
    names[count++] = asked->key;
  const char *near = fn_text_closest(key, names, count);
  // Nothing of a word of one or two letters is left when all of them are changed.
  return near && fn_text_distance(key, near) < (int)strlen(key) ? near : NULL;
}

static void report_unused(const fn_options *child, fn_text *report) {
  fn_text message = {0};
  if (child->key) {
    fn_text_add(&message, "unknown option '%s'", child->key);
    const char *near = closest_asked(child->parent, child->key);
    if (near) fn_text_add(&message, ", did you mean '%s'?", near);
    fn_problem_print(report, child->source, child->key_line, child->key_column, message.data);
  } else {
    fn_text_add(&message, "this entry is not used: %s", fn_tree_found(child));
    fn_problem_print(report, child->source, child->line, child->column, message.data);
  }
  fn_text_free(&message);
}

int fn_options_unused(const fn_options *options, fn_text *report) {
  if (!options) return 0;
  if (options->wrong) {
    fn_problem_print(report, options->source, options->line, options->column, options->wrong);
    return 1;
  }
  int count = 0;
  for (const fn_options *child = options->first; child; child = child->next) {
    if (child->used || child->wrong) {
      count += fn_options_unused(child, report);
    } else {
      report_unused(child, report);
      count++;
    }
  }
  return count;
}

fn_status fn_options_check(const fn_options *options) {
  fn_text report = {0};
  if (fn_options_unused(options, &report) == 0) return FN_OK;
  if (report.length > 0) report.data[report.length - 1] = '\0'; // without the last newline
  const fn_status status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "%s",
                                        report.data ? report.data : "unknown options");
  fn_text_free(&report);
  return status;
}

fn_status fn_options_from_text(const char *text, const char *name, fn_options **options) {
  *options = NULL;
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "no memory for the options of %s", name);
  fn_source *source = fn_arena_take(arena, sizeof *source);
  source->name = fn_arena_text(arena, name);
  source->text = fn_arena_text(arena, text);
  source->size = strlen(text);
  fn_problems problems = {.arena = arena};
  fn_tree_parse(arena, &problems, source, 0, options);
  fn_status status = FN_OK;
  if (problems.count > 0) {
    char *message = fn_problems_text(&problems);
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "%s", message ? message : name);
    free(message);
    *options = NULL;
  }
  if (!*options) fn_arena_destroy(arena);
  return status;
}

void fn_options_destroy(fn_options *options) {
  if (options) fn_arena_destroy(options->arena);
}
