/** @file tree.h
 *  Inside the room only: YAML as a tree of nodes with positions, and the list of problems found.
 */
#ifndef FN_CONFIG_TREE_H
#define FN_CONFIG_TREE_H

#include "base/arena.h"
#include "config/options.h"

/** Text that nodes come from: the run file, or one --set argument. */
typedef struct fn_source {
  const char *name; /**< path as given; "--set key=value" */
  const char *text; /**< kept for quoting lines in messages */
  size_t size;
  int order;    /**< 0: the file; 1, 2, ...: the --set arguments in order */
  bool command; /**< a --set argument: named whole, without line and column */
} fn_source;

/** A key that somebody asked a mapping for. */
typedef struct fn_asked {
  struct fn_asked *next;
  const char *key;
} fn_asked;

struct fn_options {
  fn_options_kind kind;
  const char *text; /**< scalars: as written, quotes removed */
  bool quoted;      /**< written in quotes or as a block: always a text */
  const fn_source *source;
  int line, column; /**< 1-based, of the value, columns in characters */
  const char *key;  /**< in the parent mapping; NULL in lists */
  int key_line, key_column;
  fn_options *parent, *first, *last, *next;
  int count;
  bool used;         /**< somebody asked for it */
  const char *wrong; /**< a mistake already found in it */
  fn_asked *asked;
  fn_arena *arena; /**< owner of all of this */
};

/** One message with its place; line 0: about the whole file. */
typedef struct fn_problem {
  struct fn_problem *next;
  const fn_source *source;
  int line, column;
  int number; /**< in order of discovery */
  const char *message;
} fn_problem;

typedef struct fn_problems {
  fn_arena *arena;
  fn_problem *first;
  int count;
} fn_problems;

void fn_problem_add(fn_problems *problems, const fn_source *source, int line, int column,
                    const char *format, ...) __attribute__((format(printf, 5, 6)));
/** At the value, or at the key, of a node. */
void fn_problem_value(fn_problems *problems, const fn_options *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void fn_problem_key(fn_problems *problems, const fn_options *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** All messages in order of place, each with its line and a caret; malloc'ed. */
char *fn_problems_text(const fn_problems *problems);
/** Append "place: message" and, for files, the line and the caret below. */
void fn_problem_print(fn_text *text, const fn_source *source, int line, int column,
                      const char *message);
/** "file:line:column" or "--set key=value". */
char *fn_place_text(fn_arena *arena, const fn_source *source, int line, int column);

/** Parse one document. *root is NULL for an empty text, and after syntax errors (which are added to
 *  the problems). Returns false after syntax errors. Parsing starts at byte `begin` of the text: 0
 *  for a file, after the = for a --set argument. */
bool fn_tree_parse(fn_arena *arena, fn_problems *problems, const fn_source *source, size_t begin,
                   fn_options **root);
/** Child without counting it as used. */
fn_options *fn_tree_child(const fn_options *mapping, const char *key);
fn_options *fn_tree_create(fn_arena *arena, fn_options_kind kind, const fn_source *source, int line,
                           int column);
/** Put a child at the end; key NULL in lists. */
void fn_tree_append(fn_options *parent, fn_options *child, const char *key);
/** Put `child` where `old` was, or at the end when old is NULL. */
void fn_tree_replace(fn_options *parent, fn_options *old, fn_options *child, const char *key);

/** Whether a scalar says "no value": null, ~ or nothing, not quoted. */
bool fn_tree_is_null(const fn_options *node);
/** Values of plain scalars; false when it is something else. */
bool fn_tree_real(const fn_options *node, double *value);
bool fn_tree_integer(const fn_options *node, int64_t *value);
/** Written as such, though perhaps too large for the types above. */
bool fn_tree_looks_real(const fn_options *node);
bool fn_tree_looks_integer(const fn_options *node);
bool fn_tree_natural(const fn_options *node, uint64_t *value);
bool fn_tree_flag(const fn_options *node, bool *value);
/** "the text 'abc'", "the integer 3", "a list of 2", ... for messages. */
const char *fn_tree_found(const fn_options *node);

#endif
