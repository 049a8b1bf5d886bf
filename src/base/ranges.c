#include "base/ranges.h"

#include <stdlib.h>

enum { MOST_NUMBERS = 1 << 24 };

/** One number at *at, which moves behind it; -1 when there is none or it is too large. */
static int64_t read_number(const char **at, int64_t most) {
  int64_t number = 0;
  const char *start = *at;
  for (; **at >= '0' && **at <= '9'; ++*at) {
    if (number > (INT64_MAX - 9) / 10) return -1;
    number = 10 * number + (**at - '0');
  }
  return *at == start || number > most ? -1 : number;
}

/** One range at *at, up to its comma or the end. */
static bool read_range(const char **at, int64_t most, int64_t range[2]) {
  range[0] = range[1] = read_number(at, most);
  if (range[0] >= 0 && **at == '-') {
    ++*at;
    range[1] = read_number(at, most);
  }
  const bool good = range[0] >= 0 && range[1] >= range[0] && (**at == '\0' || **at == ',');
  if (**at == ',') ++*at;
  return good;
}

static int ascending(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

fn_status fn_ranges_parse(const char *what, const char *text, int64_t most, int64_t **numbers,
                          int64_t *count) {
  int64_t total = 0, range[2], filled = 0;
  *numbers = NULL;
  *count = 0;
  for (const char *at = text; *at;) {
    const bool good = read_range(&at, most, range);
    FN_CHECK(good && (*at || at[-1] != ','), FN_ERR_CONFIG,
             "%s: expected numbers from 0 to %lld and ranges of them, as in 0-9,12, found '%s'",
             what, (long long)most, text);
    total += range[1] - range[0] + 1;
    FN_CHECK(total <= MOST_NUMBERS, FN_ERR_CONFIG, "%s: more than %d numbers", what, MOST_NUMBERS);
  }
  FN_CHECK(total > 0, FN_ERR_CONFIG, "%s: no numbers given", what);
  int64_t *list = malloc((size_t)total * sizeof *list);
  FN_CHECK(list, FN_ERR_MEMORY, "no memory for %lld numbers", (long long)total);
  for (const char *at = text; *at && read_range(&at, most, range);)
    for (int64_t i = range[0]; i <= range[1]; i++)
      list[filled++] = i;
  qsort(list, (size_t)total, sizeof *list, ascending);
  for (int64_t i = 1; i < total; i++) {
    if (list[i] != list[i - 1]) continue;
    const long long twice = list[i];
    free(list);
    FN_FAIL(FN_ERR_CONFIG, "%s: %lld is given twice in '%s'", what, twice, text);
  }
  *numbers = list;
  *count = total;
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
