/* What is wrong with a configuration, collected and printed in order of place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/tree.h"

enum {
  KEPT = 200,  // problems remembered; nobody reads more
  WINDOW = 100 // characters of an offending line that are shown
};

static void add(fn_problems *problems, const fn_source *source, int line, int column,
                const char *format, va_list arguments) {
  const int number = problems->count++;
  if (number >= KEPT) return;
  fn_problem *problem = fn_arena_take(problems->arena, sizeof *problem);
  problem->source = source;
  problem->line = line;
  problem->column = column;
  problem->number = number;
  problem->message = fn_arena_vformat(problems->arena, format, arguments);
  problem->next = problems->first;
  problems->first = problem;
}

void fn_problem_add(fn_problems *problems, const fn_source *source, int line, int column,
                    const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  add(problems, source, line, column, format, arguments);
  va_end(arguments);
}

void fn_problem_value(fn_problems *problems, const fn_options *node, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  add(problems, node->source, node->line, node->column, format, arguments);
  va_end(arguments);
}

void fn_problem_key(fn_problems *problems, const fn_options *node, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const bool has_key = node->key != NULL;
  add(problems, node->source, has_key ? node->key_line : node->line,
      has_key ? node->key_column : node->column, format, arguments);
  va_end(arguments);
}

/* Bytes of the UTF-8 character at text[0]; broken sequences count as one byte. */
static size_t character_bytes(const char *text, size_t left) {
  const unsigned char lead = (unsigned char)text[0];
  const size_t bytes = lead < 0xc2 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 1;
  if (bytes > left) return 1;
  for (size_t i = 1; i < bytes; i++)
    if (((unsigned char)text[i] & 0xc0) != 0x80) return 1;
  return bytes;
}

/* Copy one character, or a stand-in for what would disturb a terminal. */
static void add_character(fn_text *text, const char *character, size_t bytes) {
  const unsigned char lead = (unsigned char)character[0];
  if ((lead < 0x20 && lead != '\t') || lead == 0x7f || (bytes == 1 && lead >= 0x80))
    fn_text_add_bytes(text, "?", 1);
  else
    fn_text_add_bytes(text, character, bytes);
}

/* The line around `column`, cut to the window, and a caret under it. */
static void add_excerpt(fn_text *text, const fn_source *source, int line, int column) {
  const char *at = source->text, *end = source->text + source->size;
  for (int l = 1; l < line && at < end; l++) {
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    at = newline ? newline + 1 : end;
  }
  const int from = column > WINDOW - 20 ? column - WINDOW / 2 : 1;
  fn_text caret = {0};
  fn_text_add(text, "  %s", from > 1 ? "..." : "");
  fn_text_add(&caret, "  %s", from > 1 ? "   " : "");
  int c = 1;
  while (at < end && *at != '\n' && *at != '\r' && c < from + WINDOW) {
    const size_t bytes = character_bytes(at, (size_t)(end - at));
    if (c >= from) add_character(text, at, bytes);
    if (c >= from && c < column) fn_text_add_bytes(&caret, *at == '\t' ? "\t" : " ", 1);
    at += bytes;
    c++;
  }
  fn_text_add(text, "%s\n", at < end && *at != '\n' && *at != '\r' ? "..." : "");
  fn_text_add(text, "%s^\n", caret.data);
  fn_text_free(&caret);
}

char *fn_place_text(fn_arena *arena, const fn_source *source, int line, int column) {
  if (source->command) return fn_arena_text(arena, source->name);
  return fn_arena_format(arena, "%s:%d:%d", source->name, line > 0 ? line : 1,
                         line > 0 ? column : 1);
}

void fn_problem_print(fn_text *text, const fn_source *source, int line, int column,
                      const char *message) {
  if (source->command) { // the whole argument is already in its name
    fn_text_add(text, "%s: %s\n", source->name, message);
    return;
  }
  fn_text_add(text, "%s:%d:%d: %s\n", source->name, line > 0 ? line : 1, line > 0 ? column : 1,
              message);
  if (line > 0) add_excerpt(text, source, line, column);
}

static int by_place(const void *left, const void *right) {
  const fn_problem *a = *(const fn_problem *const *)left, *b = *(const fn_problem *const *)right;
  if (a->source->order != b->source->order) return a->source->order - b->source->order;
  if (a->line != b->line) return a->line < b->line ? -1 : 1;
  if (a->column != b->column) return a->column < b->column ? -1 : 1;
  return a->number - b->number;
}

char *fn_problems_text(const fn_problems *problems) {
  const fn_problem *sorted[KEPT];
  size_t count = 0;
  for (const fn_problem *p = problems->first; p; p = p->next)
    sorted[count++] = p;
  qsort(sorted, count, sizeof sorted[0], by_place);
  fn_text text = {0};
  for (size_t i = 0; i < count; i++)
    fn_problem_print(&text, sorted[i]->source, sorted[i]->line, sorted[i]->column,
                     sorted[i]->message);
  if (problems->count > KEPT) fn_text_add(&text, "... and %d more\n", problems->count - KEPT);
  return text.data;
}
