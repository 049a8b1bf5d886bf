/* YAML text -> tree of nodes with positions, over libyaml's events. */
#include <string.h>
#include <yaml.h>

#include "config/tree.h"

enum { DEEPEST = 64 }; // nesting beyond this is a mistake, or an attack

typedef struct reader {
  yaml_parser_t parser;
  fn_arena *arena;
  fn_problems *problems;
  const fn_source *source;
  size_t begin; // offset in the source of the parsed text
} reader;

/* Place of a mark in the source. A text that begins inside the source (a --set value) is on its
 * only line, so just the columns move. */
static int mark_line(yaml_mark_t mark) {
  return (int)mark.line + 1;
}

static int mark_column(const reader *r, yaml_mark_t mark) {
  return (int)mark.column + 1 + (mark.line == 0 ? (int)r->begin : 0);
}

fn_options *fn_tree_create(fn_arena *arena, fn_options_kind kind, const fn_source *source, int line,
                           int column) {
  fn_options *node = fn_arena_take(arena, sizeof *node);
  node->kind = kind;
  node->source = source;
  node->line = line;
  node->column = column;
  node->arena = arena;
  return node;
}

void fn_tree_append(fn_options *parent, fn_options *child, const char *key) {
  child->parent = parent;
  child->key = key;
  if (parent->last)
    parent->last->next = child;
  else
    parent->first = child;
  parent->last = child;
  parent->count++;
}

void fn_tree_replace(fn_options *parent, fn_options *old, fn_options *child, const char *key) {
  if (!old) {
    fn_tree_append(parent, child, key);
    return;
  }
  child->parent = parent;
  child->key = key;
  child->next = old->next;
  if (parent->last == old) parent->last = child;
  fn_options **link = &parent->first;
  while (*link != old)
    link = &(*link)->next;
  *link = child;
}

fn_options *fn_tree_child(const fn_options *mapping, const char *key) {
  if (!mapping || mapping->kind != FN_OPTIONS_MAPPING) return NULL;
  for (fn_options *child = mapping->first; child; child = child->next)
    if (strcmp(child->key, key) == 0) return child;
  return NULL;
}

/* Line and column of a byte, for errors of the decoder, which come without a mark. */
static void place_of_offset(const reader *r, size_t offset, int *line, int *column) {
  *line = *column = 1;
  for (size_t i = 0; i < r->begin + offset && i < r->source->size; i++) {
    if (r->source->text[i] == '\n') {
      ++*line;
      *column = 1;
    } else {
      ++*column;
    }
  }
}

/* Advice for the mistakes that people make and that libyaml's messages do not explain. */
static const char *advice(const reader *r) {
  const yaml_parser_t *parser = &r->parser;
  const char *context = parser->context ? parser->context : "";
  if (strstr(context, "alias"))
    return "; a value that begins with * must be quoted, e.g. \"*.npy\"";
  if (strstr(context, "anchor")) return "; a value that begins with & must be quoted";
  const size_t at = r->begin + parser->problem_mark.index;
  if (parser->problem && strstr(parser->problem, "cannot start any token") &&
      at < r->source->size) {
    if (r->source->text[at] == '\t') return "; indent with spaces, not with tabs";
    return "; quote a value that begins with this character";
  }
  return "";
}

static void syntax_error(reader *r) {
  const yaml_parser_t *parser = &r->parser;
  const char *problem = parser->problem ? parser->problem : "not readable";
  int line = mark_line(parser->problem_mark), column = mark_column(r, parser->problem_mark);
  if (parser->error == YAML_READER_ERROR) {
    place_of_offset(r, parser->problem_offset, &line, &column);
    fn_problem_add(r->problems, r->source, line, column, "not a YAML text: %s", problem);
    return;
  }
  if (parser->error == YAML_MEMORY_ERROR) problem = "out of memory";
  const char *context = parser->context;
  if (context && parser->context_mark.line != parser->problem_mark.line)
    fn_problem_add(r->problems, r->source, line, column, "YAML syntax: %s %s begun in line %d%s",
                   problem, context, mark_line(parser->context_mark), advice(r));
  else
    fn_problem_add(r->problems, r->source, line, column, "YAML syntax: %s%s%s%s", problem,
                   context ? " " : "", context ? context : "", advice(r));
}

static bool next_event(reader *r, yaml_event_t *event) {
  if (yaml_parser_parse(&r->parser, event)) return true;
  syntax_error(r);
  return false;
}

static void complain(reader *r, const yaml_event_t *event, const char *message) {
  fn_problem_add(r->problems, r->source, mark_line(event->start_mark),
                 mark_column(r, event->start_mark), "%s", message);
}

static const char *const no_reuse =
    "YAML anchors (&name) and aliases (*name) are not supported: write the value out, or quote a "
    "text that begins with & or *";

static bool read_node(reader *r, yaml_event_t *event, int depth, fn_options **node);

/* A node whose mistake has been reported is kept, marked wrong, so that reading goes on. */
static void read_scalar(reader *r, const yaml_event_t *event, fn_options *scalar) {
  const char *value = (const char *)event->data.scalar.value;
  const char *tag = (const char *)event->data.scalar.tag;
  const bool text_tag = tag && (strcmp(tag, YAML_STR_TAG) == 0 || strcmp(tag, "!") == 0);
  const char *mistake = NULL;
  if (event->data.scalar.anchor) mistake = no_reuse;
  if (tag && !text_tag) mistake = "YAML tags (!name) are not supported";
  // A text holding NUL would be cut silently.
  if (strlen(value) != event->data.scalar.length) mistake = "a text cannot hold the character NUL";
  if (mistake) complain(r, event, mistake);
  scalar->wrong = mistake;
  scalar->text = fn_arena_text(r->arena, value);
  scalar->quoted = text_tag || event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
}

static bool read_list(reader *r, int depth, fn_options *list) {
  for (;;) {
    yaml_event_t event;
    if (!next_event(r, &event)) return false;
    if (event.type == YAML_SEQUENCE_END_EVENT) {
      yaml_event_delete(&event);
      return true;
    }
    fn_options *child;
    if (!read_node(r, &event, depth + 1, &child)) return false;
    fn_tree_append(list, child, NULL);
  }
}

static bool read_mapping(reader *r, int depth, fn_options *mapping) {
  for (;;) {
    yaml_event_t event;
    if (!next_event(r, &event)) return false;
    if (event.type == YAML_MAPPING_END_EVENT) {
      yaml_event_delete(&event);
      return true;
    }
    fn_options *key, *child;
    if (!read_node(r, &event, depth + 1, &key)) return false;
    if (key->kind != FN_OPTIONS_SCALAR) {
      fn_problem_value(r->problems, key, "a key must be a word, found %s", fn_tree_found(key));
      return false;
    }
    if (!next_event(r, &event)) return false;
    if (!read_node(r, &event, depth + 1, &child)) return false;
    child->key_line = key->line;
    child->key_column = key->column;
    if (key->wrong) continue;
    const fn_options *before = fn_tree_child(mapping, key->text);
    if (before) {
      fn_problem_value(r->problems, key, "key '%s' appears twice; it is first given in line %d",
                       key->text, before->key_line);
      continue;
    }
    fn_tree_append(mapping, child, key->text);
  }
}

/* Takes over the event. False when reading cannot go on. */
static bool read_node(reader *r, yaml_event_t *event, int depth, fn_options **node) {
  const yaml_event_type_t type = event->type;
  const fn_options_kind kind = type == YAML_SEQUENCE_START_EVENT  ? FN_OPTIONS_LIST
                               : type == YAML_MAPPING_START_EVENT ? FN_OPTIONS_MAPPING
                                                                  : FN_OPTIONS_SCALAR;
  *node = fn_tree_create(r->arena, kind, r->source, mark_line(event->start_mark),
                         mark_column(r, event->start_mark));
  if (type == YAML_SCALAR_EVENT) {
    read_scalar(r, event, *node);
  } else if (type == YAML_ALIAS_EVENT) {
    complain(r, event, no_reuse);
    (*node)->wrong = no_reuse;
    (*node)->text = "";
  } else if (kind == FN_OPTIONS_SCALAR) {
    complain(r, event, "expected a value, the YAML text ends here");
    yaml_event_delete(event);
    return false;
  } else if (kind == FN_OPTIONS_LIST ? event->data.sequence_start.anchor != NULL
                                     : event->data.mapping_start.anchor != NULL) {
    complain(r, event, no_reuse);
  }
  yaml_event_delete(event);
  if (kind == FN_OPTIONS_SCALAR) return true;
  if (depth >= DEEPEST) {
    fn_problem_value(r->problems, *node, "nested deeper than %d levels", DEEPEST);
    return false;
  }
  return kind == FN_OPTIONS_LIST ? read_list(r, depth, *node) : read_mapping(r, depth, *node);
}

static bool read_stream(reader *r, fn_options **root) {
  yaml_event_t event;
  int documents = 0;
  for (;;) {
    if (!next_event(r, &event)) return false;
    const yaml_event_type_t type = event.type;
    if (type == YAML_STREAM_END_EVENT) {
      yaml_event_delete(&event);
      return true;
    }
    if (type == YAML_STREAM_START_EVENT || type == YAML_DOCUMENT_END_EVENT) {
      yaml_event_delete(&event);
    } else if (type == YAML_DOCUMENT_START_EVENT) {
      if (documents++) complain(r, &event, "expected one YAML document, found a second one");
      yaml_event_delete(&event);
      if (documents > 1) return false;
    } else if (!read_node(r, &event, 0, root)) {
      return false;
    }
  }
}

bool fn_tree_parse(fn_arena *arena, fn_problems *problems, const fn_source *source, size_t begin,
                   fn_options **root) {
  *root = NULL;
  reader r = {.arena = arena, .problems = problems, .source = source, .begin = begin};
  if (!yaml_parser_initialize(&r.parser)) {
    fn_problem_add(problems, source, 0, 0, "out of memory");
    return false;
  }
  yaml_parser_set_input_string(&r.parser, (const unsigned char *)source->text + begin,
                               source->size - begin);
  const bool good = read_stream(&r, root);
  yaml_parser_delete(&r.parser);
  if (!good) *root = NULL;
  return good;
}
