/* What a YAML scalar stands for. Quoted scalars are texts, whatever they look like. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/tree.h"

static bool is_plain(const fn_options *node) {
  return node->kind == FN_OPTIONS_SCALAR && !node->quoted;
}

bool fn_tree_is_null(const fn_options *node) {
  if (!is_plain(node)) return false;
  return node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
         strcasecmp(node->text, "null") == 0;
}

static size_t digits(const char *text) {
  return strspn(text, "0123456789");
}

static const char *skip_sign(const char *text) {
  return *text == '+' || *text == '-' ? text + 1 : text;
}

static bool looks_integer(const char *text) {
  text = skip_sign(text);
  const size_t n = digits(text);
  return n > 0 && text[n] == '\0';
}

/* [sign] digits [. digits] [e [sign] digits], with digits on one side of the point at least. */
static bool looks_real(const char *text) {
  text = skip_sign(text);
  size_t mantissa = digits(text);
  text += mantissa;
  if (*text == '.') {
    const size_t fraction = digits(++text);
    mantissa += fraction;
    text += fraction;
  }
  if (mantissa == 0) return false;
  if (*text == 'e' || *text == 'E') {
    text = skip_sign(text + 1);
    const size_t exponent = digits(text);
    if (exponent == 0) return false;
    text += exponent;
  }
  return *text == '\0';
}

bool fn_tree_looks_real(const fn_options *node) {
  return is_plain(node) && looks_real(node->text);
}

bool fn_tree_looks_integer(const fn_options *node) {
  return is_plain(node) && looks_integer(node->text);
}

bool fn_tree_real(const fn_options *node, double *value) {
  if (!is_plain(node) || !looks_real(node->text)) return false;
  *value = strtod(node->text, NULL);
  return isfinite(*value);
}

bool fn_tree_integer(const fn_options *node, int64_t *value) {
  if (!is_plain(node) || !looks_integer(node->text)) return false;
  errno = 0;
  *value = strtoll(node->text, NULL, 10);
  return errno == 0;
}

bool fn_tree_natural(const fn_options *node, uint64_t *value) {
  if (!is_plain(node) || !looks_integer(node->text) || node->text[0] == '-') return false;
  errno = 0;
  *value = strtoull(node->text, NULL, 10);
  return errno == 0;
}

bool fn_tree_flag(const fn_options *node, bool *value) {
  static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
  if (!is_plain(node)) return false;
  for (int i = 0; i < 6; i++) {
    if (strcasecmp(node->text, words[i]) == 0) {
      *value = i % 2 == 1;
      return true;
    }
  }
  return false;
}

const char *fn_tree_found(const fn_options *node) {
  if (node->kind == FN_OPTIONS_LIST)
    return fn_arena_format(node->arena, "a list of %d value%s", node->count,
                           node->count == 1 ? "" : "s");
  if (node->kind == FN_OPTIONS_MAPPING) return "a mapping";
  if (fn_tree_is_null(node)) return "nothing";
  enum { SHOWN = 40 };
  bool flag;
  const char *kind = node->quoted                ? "the text"
                     : looks_integer(node->text) ? "the integer"
                     : looks_real(node->text)    ? "the number"
                     : fn_tree_flag(node, &flag) ? "the flag"
                                                 : "the text";
  const char *quote = strcmp(kind, "the text") == 0 ? "'" : "";
  size_t length = strlen(node->text);
  if (length <= SHOWN)
    return fn_arena_format(node->arena, "%s %s%s%s", kind, quote, node->text, quote);
  length = SHOWN;
  while (length > 0 && ((unsigned char)node->text[length] & 0xc0) == 0x80)
    length--;
  return fn_arena_format(node->arena, "%s %s%.*s...%s", kind, quote, (int)length, node->text,
                         quote);
}
