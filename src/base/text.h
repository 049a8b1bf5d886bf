/** @file text.h
 *  Text building, closest names, sizes for people.
 */
#ifndef FN_BASE_TEXT_H
#define FN_BASE_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Growing text; zero-initialise, free with fn_text_free. data is NUL-terminated or NULL. */
typedef struct fn_text {
  char *data;
  size_t length, capacity;
  bool incomplete; /**< there was no memory: what came from then on is not there */
} fn_text;

void fn_text_add(fn_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void fn_text_add_bytes(fn_text *text, const char *bytes, size_t count);
/** As a text of JSON, quotes included. */
void fn_text_add_json(fn_text *text, const char *words);
/** As valid UTF-8 that XML and YAML accept: bytes that are not, and control characters other than
 *  newline and tab, become U+FFFD. */
void fn_text_add_utf8(fn_text *text, const char *words);
/** fn_text_add_json() of fn_text_add_utf8(): for bytes from anywhere. */
void fn_text_add_json_utf8(fn_text *text, const char *words);
/** Keep the first `length` bytes, if there are more. */
void fn_text_cut(fn_text *text, size_t length);
void fn_text_free(fn_text *text);

/** Restricted Damerau-Levenshtein distance (transpositions count one). */
int fn_text_distance(const char *a, const char *b);
/** The nearest of `count` names if near enough to be a slip of the pen, else NULL. */
const char *fn_text_closest(const char *name, const char *const *names, int count);
/** "1.25 GB" (powers of 1000) into buffer; returns buffer. */
char *fn_text_bytes(double bytes, char *buffer, size_t size);
/** "2 h 03 min", "4.2 s" into buffer; returns buffer. */
char *fn_text_duration(double seconds, char *buffer, size_t size);
bool fn_text_starts(const char *text, const char *prefix);
bool fn_text_ends(const char *text, const char *suffix);

#endif
