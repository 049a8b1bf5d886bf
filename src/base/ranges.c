#include "base/ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBERS_MOST = 100000000 };

static const char *skip_blanks(const char *at) {
  while (*at == ' ' || *at == '\t')
    at++;
  return at;
}

/** One number at *at, which moves behind it and the blanks that follow. */
static bool read_number(const char **at, int64_t *value) {
  const char *start = skip_blanks(*at);
  char *end;
  if (*start < '0' || *start > '9') return false;
  errno = 0;
  const long long read = strtoll(start, &end, 10);
  *at = skip_blanks(end);
  *value = read;
  return errno == 0;
}

/** "7" or "3-9" at *at, which moves behind it. */
static fn_status read_range(const char *text, const char **at, int64_t *first, int64_t *last) {
  const char *const start = skip_blanks(*at);
  bool good = read_number(at, first);
  *last = *first;
  if (good && **at == '-') {
    (*at)++;
    good = read_number(at, last);
  }
  FN_CHECK(good && (**at == ',' || **at == '\0'), FN_ERR_CONFIG,
           "expected numbers and ranges like 0-1499,1600, found '%s'%s%s", text,
           start > text ? " at " : "", start > text ? start : "");
  FN_CHECK(*first <= *last, FN_ERR_CONFIG, "the range %lld-%lld of '%s' runs backwards",
           (long long)*first, (long long)*last, text);
  return FN_OK;
}

static fn_status append(fn_ranges *ranges, int64_t first, int64_t last) {
  FN_CHECK(last - first < NUMBERS_MOST - ranges->count, FN_ERR_CONFIG,
           "the range %lld-%lld has more than %d numbers", (long long)first, (long long)last,
           NUMBERS_MOST);
  const int64_t more = last - first + 1;
  int64_t *grown = realloc(ranges->value, (size_t)(ranges->count + more) * sizeof *ranges->value);
  FN_CHECK(grown, FN_ERR_MEMORY, "no memory for %lld numbers", (long long)more);
  ranges->value = grown;
  for (int64_t i = 0; i < more; i++)
    grown[ranges->count++] = first + i;
  return FN_OK;
}

static int compare(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static fn_status read_all(fn_ranges *ranges, const char *text) {
  const char *at = text;
  for (;;) {
    int64_t first = 0, last = 0;
    FN_TRY(read_range(text, &at, &first, &last));
    FN_TRY(append(ranges, first, last));
    if (*at == '\0') break;
    at++;
  }
  qsort(ranges->value, (size_t)ranges->count, sizeof *ranges->value, compare);
  for (int64_t i = 1; i < ranges->count; i++)
    FN_CHECK(ranges->value[i] != ranges->value[i - 1], FN_ERR_CONFIG, "%lld is there twice",
             (long long)ranges->value[i]);
  return FN_OK;
}

fn_status fn_ranges_add(fn_ranges *ranges, const char *text) {
  fn_ranges grown = {.count = ranges->count};
  if (ranges->count > 0) {
    grown.value = malloc((size_t)ranges->count * sizeof *grown.value);
    FN_CHECK(grown.value, FN_ERR_MEMORY, "no memory for %lld numbers", (long long)ranges->count);
    memcpy(grown.value, ranges->value, (size_t)ranges->count * sizeof *grown.value);
  }
  const fn_status status = read_all(&grown, text);
  fn_ranges_free(status == FN_OK ? ranges : &grown);
  if (status == FN_OK) *ranges = grown;
  return status;
}

int64_t fn_ranges_common(const fn_ranges *a, const fn_ranges *b) {
  for (int64_t i = 0, j = 0; i < a->count && j < b->count;) {
    if (a->value[i] == b->value[j]) return a->value[i];
    if (a->value[i] < b->value[j])
      i++;
    else
      j++;
  }
  return -1;
}

void fn_ranges_free(fn_ranges *ranges) {
  free(ranges->value);
  *ranges = (fn_ranges){0};
}

fn_status fn_ranges_parse(const char *what, const char *text, int64_t most, int64_t **numbers,
                          int64_t *count) {
  fn_ranges ranges = {0};
  *numbers = NULL;
  *count = 0;
  fn_status status = fn_ranges_add(&ranges, text);
  if (status == FN_OK && ranges.value[ranges.count - 1] > most)
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                          "expected numbers from 0 to %lld, found %lld", (long long)most,
                          (long long)ranges.value[ranges.count - 1]);
  if (status != FN_OK) {
    fn_ranges_free(&ranges);
    return fn_error_context(status, "%s", what);
  }
  *numbers = ranges.value;
  *count = ranges.count;
  return FN_OK;
}

void fn_ranges_write(const int64_t *numbers, int64_t count, fn_text *text) {
  for (int64_t i = 0; i < count;) {
    int64_t last = i;
    while (last + 1 < count && numbers[last + 1] == numbers[last] + 1)
      last++;
    fn_text_add(text, "%s%lld", i ? "," : "", (long long)numbers[i]);
    if (last > i) fn_text_add(text, "-%lld", (long long)numbers[last]);
    i = last + 1;
  }
}
