/* Pairing the files of all patterns by sorted position. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "data/parts.h"

/** What the wildcards of a pattern stood for in a path: two files that belong together differ in
 *  the rest only. NULL-terminated copies, sorted by `text`. */
typedef struct label {
  const char *text;
  int64_t position; /**< in the column */
} label;

static int compare(const void *a, const void *b) {
  const label *x = a, *y = b;
  const int order = strcmp(x->text, y->text);
  return order ? order : (x->position > y->position) - (x->position < y->position);
}

static const char *wild_part(fn_arena *arena, const char *pattern, const char *shown) {
  const size_t before = strcspn(pattern, "*?["), length = strlen(pattern), size = strlen(shown);
  size_t after = 0;
  while (after < length - before && !strchr("*?]", pattern[length - 1 - after]))
    after++;
  if (before == length) after = 0; // no wildcard: only the samples of a packed dataset differ
  // A packed sample ends in [17]; the pattern knows nothing of it.
  const char *bracket = size && shown[size - 1] == ']' ? strrchr(shown, '[') : NULL;
  const size_t end = bracket ? (size_t)(bracket - shown) : size;
  if (before + after > end) return shown;
  return fn_arena_format(arena, "%.*s%s", (int)(end - before - after), shown + before,
                         bracket ? bracket : "");
}

static label *labels_of(fn_arena *arena, const fn_column *column) {
  label *list = fn_arena_take(arena, (size_t)(column->count + 1) * sizeof *list);
  for (int64_t i = 0; i < column->count; i++)
    list[i] = (label){wild_part(arena, column->pattern, column->source[i].shown), i};
  return list;
}

/** Positions in a of labels that b (sorted) does not have. */
static int64_t missing(const label *a, int64_t a_count, const label *b, int64_t b_count,
                       int64_t *position) {
  int64_t count = 0;
  for (int64_t i = 0; i < a_count; i++) {
    int64_t low = 0, high = b_count;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (strcmp(b[middle].text, a[i].text) < 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    if (low == b_count || strcmp(b[low].text, a[i].text) != 0) position[count++] = a[i].position;
  }
  return count;
}

static void name_files(fn_text *text, const fn_column *column, const int64_t *position,
                       int64_t count) {
  const int64_t shown = count > 10 ? 10 : count;
  for (int64_t i = 0; i < shown; i++)
    fn_text_add(text, "%s%s", i ? ", " : "", column->source[position[i]].shown);
  if (count > shown) fn_text_add(text, " and %lld more", (long long)(count - shown));
}

/** Name the files of unequal columns that have no partner: by what the wildcards matched if that
 *  tells, else those past the end of the shorter list. */
static void report_unequal(fn_arena *arena, const fn_column *a, const fn_column *b,
                           fn_problem_list *problems) {
  label *la = labels_of(arena, a), *lb = labels_of(arena, b);
  const int64_t most = a->count > b->count ? a->count : b->count;
  int64_t *odd = fn_arena_take(arena, (size_t)(most + 1) * sizeof *odd);
  fn_text text = {0};
  qsort(la, (size_t)a->count, sizeof *la, compare);
  qsort(lb, (size_t)b->count, sizeof *lb, compare);
  fn_text_add(&text, "%s (%s) has %lld fields but %s (%s) has %lld; ", a->what, a->pattern,
              (long long)a->count, b->what, b->pattern, (long long)b->count);
  const int64_t only_a = missing(la, a->count, lb, b->count, odd);
  const bool telling = only_a < a->count; // some names agree
  if (telling && only_a > 0) {
    fn_text_add(&text, "without a partner in %s: ", b->what);
    name_files(&text, a, odd, only_a);
  }
  const int64_t only_b = missing(lb, b->count, la, a->count, odd);
  if (telling && only_b > 0) {
    fn_text_add(&text, "%swithout a partner in %s: ", only_a ? "; " : "", a->what);
    name_files(&text, b, odd, only_b);
  }
  if (!telling) {
    const fn_column *longer = a->count > b->count ? a : b;
    const int64_t shorter = a->count > b->count ? b->count : a->count;
    for (int64_t i = shorter; i < longer->count; i++)
      odd[i - shorter] = i;
    fn_text_add(&text, "past the end of the shorter list: ");
    name_files(&text, longer, odd, longer->count - shorter);
  }
  fn_problem_note(problems, "%s", text.data ? text.data : "unequal numbers of files");
  fn_text_free(&text);
}

/** Pairing goes by position; say so when names suggest that something else was meant. */
static void warn_of_crossed(fn_arena *arena, const fn_column *a, const fn_column *b) {
  label *la = labels_of(arena, a), *lb = labels_of(arena, b);
  int64_t *odd = fn_arena_take(arena, (size_t)(a->count + 1) * sizeof *odd);
  int64_t first = 0;
  while (first < a->count && strcmp(la[first].text, lb[first].text) == 0)
    first++;
  if (first == a->count) return;
  qsort(lb, (size_t)b->count, sizeof *lb, compare);
  if (missing(la, a->count, lb, b->count, odd) == a->count) return; // names never agree: by design
  fn_log(FN_WARN,
         "fields are paired by sorted position: %s goes with %s, although their names differ and "
         "others agree",
         a->source[first].shown, b->source[first].shown);
}

void fn_dataset_pair(fn_dataset *dataset, fn_problem_list *problems) {
  fn_arena *arena = fn_arena_create();
  if (!arena) return;
  const fn_column *a = &dataset->column[0];
  for (int f = 1; f < dataset->columns && a->count > 0; f++) {
    const fn_column *b = &dataset->column[f];
    if (b->count == 0) continue; // nothing matched: reported already
    if (a->count != b->count) {
      report_unequal(arena, a, b, problems);
    } else {
      warn_of_crossed(arena, a, b);
    }
  }
  fn_arena_destroy(arena);
}
