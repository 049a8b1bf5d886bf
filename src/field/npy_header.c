/* The header of an npy file: magic, version, length and a Python dict literal with the keys descr,
 * fortran_order and shape (NEP 1 and the format notes of numpy.lib.format). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "field/array.h"

typedef struct cursor {
  const char *at, *end, *path;
} cursor;

/** The text that could not be understood, for messages. */
static fn_status malformed(const cursor *c, const char *expected) {
  char found[24];
  int length = 0;
  for (const char *p = c->at; p < c->end && length < 20 && *p != '\n'; p++)
    found[length++] = *p >= 32 && *p < 127 ? *p : '?';
  found[length] = '\0';
  FN_FAIL(FN_ERR_DATA, "%s: malformed npy header: expected %s, found \"%s\"", c->path, expected,
          found);
}

static void skip_space(cursor *c) {
  while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
    c->at++;
}

/** Next non-blank character, 0 at the end. */
static char peek(cursor *c) {
  skip_space(c);
  return c->at < c->end ? *c->at : '\0';
}

static bool accept(cursor *c, char wanted) {
  if (peek(c) != wanted) return false;
  c->at++;
  return true;
}

/** A quoted text without escapes. */
static fn_status parse_text(cursor *c, char *text, size_t size) {
  const char quote = peek(c);
  if (quote != '\'' && quote != '"') return malformed(c, "a quoted text");
  const char *begin = ++c->at;
  while (c->at < c->end && *c->at != quote && *c->at != '\\')
    c->at++;
  if (c->at == c->end || *c->at != quote || (size_t)(c->at - begin) >= size) {
    c->at = begin;
    return malformed(c, "a short quoted text");
  }
  memcpy(text, begin, (size_t)(c->at - begin));
  text[c->at - begin] = '\0';
  c->at++;
  return FN_OK;
}

static bool accept_word(cursor *c, const char *word) {
  skip_space(c);
  const size_t length = strlen(word);
  if ((size_t)(c->end - c->at) < length || memcmp(c->at, word, length) != 0) return false;
  c->at += length;
  return true;
}

static fn_status parse_size(cursor *c, int64_t *value) {
  const char first = peek(c);
  if (first < '0' || first > '9') return malformed(c, "a size");
  int64_t v = 0;
  for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
    if (v > (INT64_MAX - 9) / 10) return malformed(c, "a size below 2^63");
    v = 10 * v + (*c->at - '0');
  }
  if (c->at < c->end && *c->at == 'L') c->at++; // written by Python 2
  *value = v;
  return FN_OK;
}

static fn_status parse_shape(cursor *c, fn_npy_header *header) {
  if (!accept(c, '(')) return malformed(c, "a tuple of sizes");
  header->ndim = 0;
  while (!accept(c, ')')) {
    if (header->ndim == FN_ARRAY_DIMS)
      FN_FAIL(FN_ERR_DATA, "%s: array has more than %d axes", c->path, FN_ARRAY_DIMS);
    FN_TRY(parse_size(c, &header->dim[header->ndim++]));
    if (accept(c, ',')) continue;
    // One size in brackets without a comma would be a number, not a tuple.
    if (header->ndim == 1 || peek(c) != ')') return malformed(c, "',' in the tuple of sizes");
  }
  return FN_OK;
}

static fn_status parse_type(cursor *c, fn_npy_header *header) {
  if (peek(c) == '[' || peek(c) == '(')
    FN_FAIL(FN_ERR_DATA,
            "%s: structured dtype; expected one number per cell (b1, i1-i8, u1-u8, "
            "f2, f4, f8)",
            c->path);
  char text[32];
  FN_TRY(parse_text(c, text, sizeof text));
  const char *p = text;
  char order = '=';
  if (*p && strchr("<>=|", *p)) order = *p++;
  header->kind = *p ? *p++ : '\0';
  char *end;
  const long item = *p >= '0' && *p <= '9' ? strtol(p, &end, 10) : 0;
  header->item = item > 0 && item <= 16 && *end == '\0' ? (int)item : 0;
  header->swap = order == '>';
  if (!fn_convert_find(header->kind, header->item, header->swap) ||
      (order == '|' && header->item > 1)) {
    const char *what = header->kind == 'c'                          ? "complex dtype"
                       : header->kind == 'O'                        ? "object dtype"
                       : header->kind == 'S' || header->kind == 'U' ? "text dtype"
                       : header->kind == 'V'                        ? "structured dtype"
                                                                    : "dtype";
    FN_FAIL(FN_ERR_DATA, "%s: %s '%s' cannot be read; expected b1, i1-i8, u1-u8, f2, f4 or f8",
            c->path, what, text);
  }
  snprintf(header->type, sizeof header->type, "%c%c%d",
           header->item == 1 ? '|'
           : header->swap    ? '>'
                             : '<',
           header->kind, header->item);
  return FN_OK;
}

static fn_status parse_dict(cursor *c, fn_npy_header *header) {
  enum { DESCR = 1, ORDER = 2, SHAPE = 4 };
  unsigned seen = 0;
  if (!accept(c, '{')) return malformed(c, "'{'");
  while (!accept(c, '}')) {
    char key[32];
    FN_TRY(parse_text(c, key, sizeof key));
    const unsigned bit = strcmp(key, "descr") == 0           ? DESCR
                         : strcmp(key, "fortran_order") == 0 ? ORDER
                         : strcmp(key, "shape") == 0         ? SHAPE
                                                             : 0;
    FN_CHECK(bit && !(seen & bit), FN_ERR_DATA, "%s: malformed npy header: %s key '%s'", c->path,
             bit ? "repeated" : "unknown", key);
    seen |= bit;
    if (!accept(c, ':')) return malformed(c, "':'");
    if (bit == DESCR) FN_TRY(parse_type(c, header));
    if (bit == SHAPE) FN_TRY(parse_shape(c, header));
    if (bit == ORDER) {
      header->fortran = accept_word(c, "True");
      if (!header->fortran && !accept_word(c, "False")) return malformed(c, "True or False");
    }
    if (accept(c, ',')) continue;
    if (peek(c) != '}') return malformed(c, "',' or '}'");
  }
  FN_CHECK(seen == (DESCR | ORDER | SHAPE), FN_ERR_DATA, "%s: malformed npy header: no key '%s'",
           c->path,
           !(seen & DESCR)   ? "descr"
           : !(seen & ORDER) ? "fortran_order"
                             : "shape");
  if (peek(c) != '\0' || c->at != c->end) return malformed(c, "nothing after '}'");
  return FN_OK;
}

fn_status fn_npy_parse(const char *path, const unsigned char *bytes, size_t count,
                       fn_npy_header *header) {
  FN_CHECK(count < 9 || memcmp(bytes, "SIMPLE  =", 9) != 0, FN_ERR_DATA,
           "%s: FITS files cannot be read yet; write it as .npy (numpy.save) or HDF5", path);
  FN_CHECK(count < 4 || memcmp(bytes, "PK\3\4", 4) != 0, FN_ERR_DATA,
           "%s: an archive (.npz) cannot be read; write each array as .npy (numpy.save)", path);
  FN_CHECK(count >= 6 && memcmp(bytes, "\x93NUMPY", 6) == 0, FN_ERR_DATA,
           "%s: not an npy file (%zu bytes, no \\x93NUMPY at the start); fields are .npy or HDF5",
           path, count);
  const int major = count > 7 ? bytes[6] : 1, minor = count > 7 ? bytes[7] : 0;
  FN_CHECK(major >= 1 && major <= 3 && minor == 0, FN_ERR_DATA,
           "%s: npy format %d.%d; expected 1.0, 2.0 or 3.0", path, major, minor);
  const size_t start = major == 1 ? 10 : 12;
  size_t length = 0;
  if (count >= start) {
    length = bytes[8] | (size_t)bytes[9] << 8;
    if (major > 1) length |= (size_t)bytes[10] << 16 | (size_t)bytes[11] << 24;
  }
  FN_CHECK(count >= start && length <= count - start, FN_ERR_DATA,
           "%s: truncated: the npy header ends at byte %zu, the file has %zu bytes", path,
           start + length, count);
  cursor c = {(const char *)bytes + start, (const char *)bytes + start + length, path};
  *header = (fn_npy_header){.offset = (int64_t)(start + length)};
  return parse_dict(&c, header);
}
