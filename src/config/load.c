/* From a file and --set arguments to a run description, or to all that is wrong with them. */
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "config/parts.h"

const fn_options *fn_parts_given(const fn_run_parts *parts, const char *key) {
  const fn_options *node = parts->node[fn_key_index(fn_key_find(key))];
  return node && !fn_tree_is_null(node) ? node : NULL;
}

/* ---- sections and keys ---------------------------------------------------------------------- */

static bool is_adversarial(const char *word) {
  static const char *const words[] = {"adversary", "adversarial", "adv", "discriminator",
                                      "gan",       "cgan",        NULL};
  for (int i = 0; words[i]; i++)
    if (strcmp(word, words[i]) == 0) return true;
  return strncmp(word, "adv_", 4) == 0 || strncmp(word, "adv-", 4) == 0;
}

static void read_section(fn_run_parts *parts, const char *within, const fn_options *mapping);

static char *join(fn_run_parts *parts, const char *within, const char *name) {
  return within[0] ? fn_arena_format(parts->run.arena, "%s.%s", within, name)
                   : fn_arena_text(parts->run.arena, name);
}

/* Report it, and read what is near enough in the same section as if it were spelt right: its value
 * may hold more mistakes, and what was meant is not missing. */
static void unknown_key(fn_run_parts *parts, const char *within, const char *path,
                        const fn_options *node) {
  fn_unknown *unknown = fn_arena_take(parts->run.arena, sizeof *unknown);
  unknown->path = path;
  unknown->next = parts->unknown;
  parts->unknown = unknown;
  if (is_adversarial(node->key)) {
    fn_problem_key(&parts->problems, node, "'%s': adversarial training is not available yet", path);
    return;
  }
  const char *meant = fn_key_meant(parts->run.arena, within, node->key);
  const char *place = within[0] ? fn_arena_format(parts->run.arena, " in '%s'", within) : "";
  if (!meant) {
    fn_problem_key(&parts->problems, node, "unknown key '%s'%s", node->key, place);
    return;
  }
  fn_problem_key(&parts->problems, node, "unknown key '%s'%s, did you mean '%s'?", node->key, place,
                 meant);
  const char *full = join(parts, within, meant);
  const fn_key *key = fn_key_find(full);
  const fn_section *section = fn_section_find(full);
  unknown->meant = key || section ? full : meant;
  if (!parts->guess || strchr(meant, '.') || fn_tree_child(node->parent, meant)) return;
  if (key && !parts->node[fn_key_index(key)]) {
    parts->node[fn_key_index(key)] = node;
    fn_key_convert(parts, key, node);
  } else if (section && node->kind == FN_OPTIONS_MAPPING) {
    read_section(parts, full, node);
  }
}

static void read_section(fn_run_parts *parts, const char *within, const fn_options *mapping) {
  for (const fn_options *node = mapping->first; node; node = node->next) {
    // What varies around a run is no part of it: config/sweep.c reads that section.
    if (!within[0] && strcmp(node->key, "sweep") == 0) continue;
    const char *path = join(parts, within, node->key);
    const bool dotted = strchr(node->key, '.') != NULL;
    const fn_key *key = dotted ? NULL : fn_key_find(path);
    const fn_section *section = dotted ? NULL : fn_section_find(path);
    if (key) {
      parts->node[fn_key_index(key)] = node;
      fn_key_convert(parts, key, node);
    } else if (!section) {
      unknown_key(parts, within, path, node);
    } else if (node->kind == FN_OPTIONS_MAPPING) {
      read_section(parts, path, node);
    } else if (!fn_tree_is_null(node) && !node->wrong) {
      fn_problem_value(&parts->problems, node, "%s: expected a mapping of keys, found %s", path,
                       fn_tree_found(node));
    }
  }
}

/* ---- --set key.path=value ---------------------------------------------------------------------
 */

/* Mapping child for a component of the path, made when absent or null. */
static fn_options *enter(fn_run_parts *parts, const fn_source *source, fn_options *parent,
                         const char *word) {
  fn_options *child = fn_tree_child(parent, word);
  if (child && child->kind == FN_OPTIONS_MAPPING) return child;
  if (child && !fn_tree_is_null(child)) {
    fn_problem_add(&parts->problems, source, 1, 1, "'%s' (%s) is %s, not a mapping", word,
                   fn_options_where(child), fn_tree_found(child));
    return NULL;
  }
  fn_options *made = fn_tree_create(parts->run.arena, FN_OPTIONS_MAPPING, source, 1, 1);
  made->key_line = made->key_column = 1;
  fn_tree_replace(parent, child, made, word);
  return made;
}

static void apply_set(fn_run_parts *parts, const char *text, int order) {
  fn_arena *arena = parts->run.arena;
  fn_source *source = fn_arena_take(arena, sizeof *source);
  source->name = fn_arena_format(arena, "--set %s", text);
  source->text = fn_arena_text(arena, text);
  source->size = strlen(text);
  source->order = order;
  source->command = true;
  const char *equals = strchr(text, '=');
  if (!equals || equals == text || text[0] == '.' || equals[-1] == '.' ||
      (strstr(text, "..") && strstr(text, "..") < equals)) {
    fn_problem_add(&parts->problems, source, 1, 1, "expected key.path=value");
    return;
  }
  fn_options *value = NULL;
  const size_t begin = (size_t)(equals - text) + 1;
  if (!fn_tree_parse(arena, &parts->problems, source, begin, &value)) return;
  if (!value) {
    value = fn_tree_create(arena, FN_OPTIONS_SCALAR, source, 1, (int)begin + 1);
    value->text = "";
  }
  char *path = fn_arena_text(arena, text), *rest = NULL;
  path[equals - text] = '\0';
  fn_options *parent = parts->root;
  char *word = strtok_r(path, ".", &rest);
  for (char *next = strtok_r(NULL, ".", &rest); next; next = strtok_r(NULL, ".", &rest)) {
    parent = enter(parts, source, parent, word);
    if (!parent) return;
    word = next;
  }
  value->key_line = value->key_column = 1;
  fn_tree_replace(parent, fn_tree_child(parent, word), value, word);
}

/* ---- one run ----------------------------------------------------------------------------------
 */

/* Everything but what depends on the command; false when the text is not YAML at all. */
static bool read_all(fn_run_parts *parts, const char *const *set, int set_count) {
  fn_arena *arena = parts->run.arena;
  for (int i = 0; i < fn_key_count(); i++)
    fn_key_set_default(parts, fn_key_at(i));
  if (!fn_tree_parse(arena, &parts->problems, parts->file, 0, &parts->root)) return false;
  if (!parts->root || fn_tree_is_null(parts->root))
    parts->root = fn_tree_create(arena, FN_OPTIONS_MAPPING, parts->file, 1, 1);
  if (parts->root->kind != FN_OPTIONS_MAPPING) {
    if (!parts->root->wrong)
      fn_problem_value(&parts->problems, parts->root, "expected a mapping of keys, found %s",
                       fn_tree_found(parts->root));
    return false;
  }
  for (int i = 0; i < set_count; i++)
    apply_set(parts, set[i], i + 1);
  read_section(parts, "", parts->root);
  return true;
}

fn_run_parts *fn_parts_create(const char *name, const char *text, size_t size) {
  fn_arena *arena = fn_arena_create();
  if (!arena) return NULL;
  fn_run_parts *parts = fn_arena_take(arena, sizeof *parts);
  parts->run.arena = arena;
  parts->run.path = fn_arena_text(arena, name);
  parts->problems.arena = arena;
  parts->node = fn_arena_take(arena, sizeof(fn_options *) * (size_t)fn_key_count());
  fn_source *file = fn_arena_take(arena, sizeof *file);
  file->name = parts->run.path;
  char *copy = fn_arena_take(arena, size + 1);
  memcpy(copy, text, size);
  file->text = copy;
  file->size = size;
  parts->file = file;
  return parts;
}

static fn_status load(const char *name, const char *text, size_t size, const char *const *set,
                      int set_count, fn_command command, fn_run **run, char **errors) {
  *run = NULL;
  *errors = NULL;
  fn_run_parts *parts = fn_parts_create(name, text, size);
  FN_CHECK(parts, FN_ERR_MEMORY, "no memory for the configuration of %s", name);
  parts->guess = true;
  if (read_all(parts, set, set_count)) {
    fn_run_check_required(parts, command);
    fn_run_derive(parts);
    fn_run_check_consistent(parts);
  }
  const int count = parts->problems.count;
  if (count > 0) {
    *errors = fn_problems_text(&parts->problems);
    fn_arena_destroy(parts->run.arena);
    FN_FAIL(FN_ERR_CONFIG, "%d error%s in the configuration %s", count, count == 1 ? "" : "s",
            name);
  }
  const fn_status status = fn_run_resolve(parts);
  if (status != FN_OK) {
    fn_arena_destroy(parts->run.arena);
    return status;
  }
  *run = &parts->run;
  return FN_OK;
}

fn_status fn_run_parse(const char *text, const char *name, const char *const *set, int set_count,
                       fn_command command, fn_run **run, char **errors) {
  return load(name, text, strlen(text), set, set_count, command, run, errors);
}

fn_status fn_run_load(const char *path, const char *const *set, int set_count, fn_command command,
                      fn_run **run, char **errors) {
  *run = NULL;
  *errors = NULL;
  char *text = NULL;
  size_t size = 0;
  if (fn_file_read(path, &text, &size) != FN_OK) {
    fn_text message = {0};
    fn_text_add(&message, "%s\n", fn_error_message());
    *errors = message.data;
    FN_FAIL(FN_ERR_CONFIG, "cannot read the configuration %s", path);
  }
  const fn_status status = load(path, text, size, set, set_count, command, run, errors);
  free(text);
  return status;
}

void fn_run_destroy(fn_run *run) {
  if (run) fn_arena_destroy(run->arena);
}

fn_level fn_run_verbosity(const fn_run *run) {
  const char *text = run->report.verbosity;
  if (strcmp(text, "quiet") == 0) return FN_WARN;
  if (strcmp(text, "detail") == 0) return FN_DETAIL;
  return strcmp(text, "debug") == 0 ? FN_DEBUG : FN_INFO;
}

/* ---- places ------------------------------------------------------------------------------------
 */

static const fn_options *node_of(const fn_run *run, const char *key) {
  const fn_key *entry = fn_key_find(key);
  return entry ? fn_parts_of(run)->node[fn_key_index(entry)] : NULL;
}

const char *fn_run_where(const fn_run *run, const char *key) {
  const fn_options *node = node_of(run, key);
  if (!node) return fn_arena_format(run->arena, "%s: %s", run->path, key);
  return fn_place_text(run->arena, node->source, node->line, node->column);
}

fn_status fn_run_fail(const fn_run *run, const char *key, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const char *message = fn_arena_vformat(run->arena, format, arguments);
  va_end(arguments);
  const fn_options *node = node_of(run, key);
  if (!node) FN_FAIL(FN_ERR_CONFIG, "%s: %s: %s", run->path, key, message);
  fn_text text = {0};
  fn_problem_print(&text, node->source, node->line, node->column, message);
  if (text.length > 0) text.data[text.length - 1] = '\0'; // without the last newline
  const fn_status status =
      fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "%s", text.data ? text.data : message);
  fn_text_free(&text);
  return status;
}

/* ---- comparison
 * ---------------------------------------------------------------------------------- */

typedef void (*difference)(void *user, const char *key, const char *before, const char *after);

static fn_status compare_key(const fn_key *key, fn_run_parts *old, const fn_run *run,
                             difference report, void *user) {
  fn_text before = {0}, after = {0};
  fn_status status = fn_tree_write(fn_key_node(old->run.arena, key, &old->run), &before);
  if (status == FN_OK) status = fn_tree_write(fn_key_node(old->run.arena, key, run), &after);
  if (status == FN_OK && strcmp(before.data, after.data) != 0)
    report(user, key->path, before.data, after.data);
  fn_text_free(&before);
  fn_text_free(&after);
  return status;
}

fn_status fn_run_compare(const char *old_resolved, const fn_run *run, difference report,
                         void *user) {
  fn_run_parts *old = fn_parts_create("stored configuration", old_resolved, strlen(old_resolved));
  FN_CHECK(old, FN_ERR_MEMORY, "no memory to compare configurations");
  // A state of another version may hold keys and values this one does not know: they are
  // differences to report, not reasons to stop. What is no YAML at all is one.
  fn_status status = FN_OK;
  if (!read_all(old, NULL, 0))
    status =
        fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "the stored configuration cannot be read");
  if (status == FN_OK) fn_run_derive(old);
  for (int i = 0; i < fn_key_count() && status == FN_OK; i++)
    status = compare_key(fn_key_at(i), old, run, report, user);
  for (const fn_unknown *u = old->unknown; u && status == FN_OK; u = u->next)
    report(user, u->path, "set", "unknown to this version");
  fn_arena_destroy(old->run.arena);
  return status;
}
