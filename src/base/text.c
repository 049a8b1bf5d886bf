#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(fn_text *text, size_t more) {
  const size_t most = SIZE_MAX / 8; // so that doubling cannot overflow
  if (text->incomplete) return false;
  if (more < most && text->length + more + 1 <= text->capacity) return true;
  size_t capacity = text->capacity ? text->capacity * 2 : 256;
  while (more < most && capacity < text->length + more + 1)
    capacity *= 2;
  char *data = more < most ? realloc(text->data, capacity) : NULL;
  text->incomplete = !data;
  if (!data) return false;
  text->data = data;
  text->capacity = capacity;
  return true;
}

void fn_text_add_bytes(fn_text *text, const char *bytes, size_t count) {
  if (!reserve(text, count)) return;
  memcpy(text->data + text->length, bytes, count);
  text->length += count;
  text->data[text->length] = '\0';
}

void fn_text_add(fn_text *text, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  if (length < 0 || !reserve(text, (size_t)length)) return;
  va_start(arguments, format);
  vsnprintf(text->data + text->length, (size_t)length + 1, format, arguments);
  va_end(arguments);
  text->length += (size_t)length;
}

void fn_text_add_json(fn_text *text, const char *words) {
  fn_text_add_bytes(text, "\"", 1);
  for (const unsigned char *c = (const unsigned char *)words; *c; c++) {
    if (*c == '"' || *c == '\\') fn_text_add_bytes(text, "\\", 1);
    if (*c < 0x20)
      fn_text_add(text, "\\u%04x", *c);
    else
      fn_text_add_bytes(text, (const char *)c, 1);
  }
  fn_text_add_bytes(text, "\"", 1);
}

/** Bytes of the character at c if it is well-formed UTF-8 and printable, else 0. */
static size_t utf8_length(const unsigned char *c) {
  if (*c == '\n' || *c == '\t') return 1;
  if (*c < 0x80) return *c >= 0x20 && *c != 0x7f;
  const size_t length = *c >= 0xf0 ? 4 : *c >= 0xe0 ? 3 : 2;
  if (*c < 0xc2 || *c > 0xf4) return 0;
  uint32_t code = *c & (0xffU >> (length + 1));
  for (size_t i = 1; i < length; i++) {
    if ((c[i] & 0xc0) != 0x80) return 0; // also at the end of the text
    code = code << 6 | (c[i] & 0x3fU);
  }
  static const uint32_t least[] = {0, 0, 0xa0, 0x800, 0x10000}; // 0x80 to 0x9f are controls
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  const bool none = (code & 0xfffe) == 0xfffe;
  return code >= least[length] && code <= 0x10ffff && !surrogate && !none ? length : 0;
}

void fn_text_add_utf8(fn_text *text, const char *words) {
  for (const char *c = words; *c;) {
    const size_t length = utf8_length((const unsigned char *)c);
    fn_text_add_bytes(text, length ? c : "\xef\xbf\xbd", length ? length : 3);
    c += length ? length : 1;
  }
}

void fn_text_add_json_utf8(fn_text *text, const char *words) {
  fn_text clean = {0};
  fn_text_add_utf8(&clean, words);
  fn_text_add_json(text, clean.data ? clean.data : "");
  text->incomplete |= clean.incomplete;
  fn_text_free(&clean);
}

void fn_text_cut(fn_text *text, size_t length) {
  if (text->length > length) text->data[text->length = length] = '\0';
}

void fn_text_free(fn_text *text) {
  free(text->data);
  *text = (fn_text){0};
}

static int min3(int a, int b, int c) {
  const int ab = a < b ? a : b;
  return ab < c ? ab : c;
}

int fn_text_distance(const char *a, const char *b) {
  enum { LONGEST = 127 };
  const size_t na = strnlen(a, LONGEST), nb = strnlen(b, LONGEST);
  int rows[3][LONGEST + 1]; // optimal string alignment: two previous rows suffice
  for (size_t j = 0; j <= nb; j++)
    rows[0][j] = (int)j;
  for (size_t i = 1; i <= na; i++) {
    int *row = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];
    row[0] = (int)i;
    for (size_t j = 1; j <= nb; j++) {
      row[j] = min3(up[j] + 1, row[j - 1] + 1, up[j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < row[j])
        row[j] = up2[j - 2] + 1;
    }
  }
  return rows[na % 3][nb];
}

const char *fn_text_closest(const char *name, const char *const *names, int count) {
  const char *best = NULL;
  // A slip of the pen, not another word: one letter in four, so that `export` is not `report`.
  int best_distance = ((int)strlen(name) + 1) / 4;
  if (best_distance < 1) best_distance = 1;
  if (best_distance > 4) best_distance = 4;
  for (int i = 0; i < count; i++) {
    const int distance = fn_text_distance(name, names[i]);
    if (distance < best_distance || (distance == best_distance && !best)) {
      best = names[i];
      best_distance = distance;
    }
  }
  return best;
}

char *fn_text_bytes(double bytes, char *buffer, size_t size) {
  const char *unit[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  int u = 0;
  while (bytes >= 999.5 && u < 5) {
    bytes /= 1000;
    u++;
  }
  snprintf(buffer, size, u == 0 || bytes >= 100 ? "%.0f %s" : "%.2f %s", bytes, unit[u]);
  return buffer;
}

char *fn_text_duration(double seconds, char *buffer, size_t size) {
  if (seconds < 60) {
    snprintf(buffer, size, seconds < 10 ? "%.2f s" : "%.1f s", seconds);
  } else if (seconds < 3600) {
    snprintf(buffer, size, "%d min %02d s", (int)seconds / 60, (int)seconds % 60);
  } else {
    snprintf(buffer, size, "%d h %02d min", (int)(seconds / 3600), (int)(seconds / 60) % 60);
  }
  return buffer;
}

bool fn_text_starts(const char *text, const char *prefix) {
  return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool fn_text_ends(const char *text, const char *suffix) {
  const size_t n = strlen(text), m = strlen(suffix);
  return n >= m && strcmp(text + n - m, suffix) == 0;
}
