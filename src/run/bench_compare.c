/* Two measurements beside each other. JSON is read as the YAML that it is. */
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "config/options.h"
#include "run/bench_internal.h"

static double number(const fn_options *mapping, const char *key) {
  return fn_option_real(mapping, key, 0);
}

static const char *words(const fn_options *mapping, const char *key) {
  return fn_option_text(mapping, key, "");
}

/** The row of the same name and backend. */
static const fn_options *find_row(const fn_options *rows, const fn_options *like) {
  for (int i = 0; i < fn_options_count(rows); i++) {
    const fn_options *row = fn_options_at(rows, i);
    if (strcmp(words(row, "name"), words(like, "name")) == 0 &&
        strcmp(words(row, "backend"), words(like, "backend")) == 0)
      return row;
  }
  return NULL;
}

static void print_ratio(FILE *out, const char *name, double before, double after, double scale) {
  if (before > 0)
    fprintf(out, "  %-38.38s %12.3f %12.3f %8.3f\n", name, scale * before, scale * after,
            after / before);
  else
    fprintf(out, "  %-38.38s %12s %12.3f %8s\n", name, "-", scale * after, "-");
}

static void compare_rows(const fn_options *before, const fn_options *after, FILE *out) {
  for (int i = 0; i < fn_options_count(after); i++) {
    const fn_options *row = fn_options_at(after, i), *old = find_row(before, row);
    char name[2 * BENCH_NAME];
    snprintf(name, sizeof name, "%s %s", words(row, "name"), words(row, "backend"));
    print_ratio(out, name, number(old, "seconds"), number(row, "seconds"), 1e3);
  }
  for (int i = 0; i < fn_options_count(before); i++) {
    const fn_options *old = fn_options_at(before, i);
    if (!find_row(after, old))
      fprintf(out, "  %-38.38s %12.3f %12s %8s\n", words(old, "name"), 1e3 * number(old, "seconds"),
              "-", "-");
  }
}

static void compare_steps(const fn_options *before, const fn_options *after, FILE *out) {
  compare_rows(fn_options_get(before, "operators"), fn_options_get(after, "operators"), out);
  const fn_options *old = fn_options_get(before, "phases"), *new = fn_options_get(after, "phases");
  for (int p = 0; p < BENCH_PHASES; p++)
    if (number(new, fn_bench_phase_names[p]) > 0)
      print_ratio(out, fn_bench_phase_names[p], number(old, fn_bench_phase_names[p]),
                  number(new, fn_bench_phase_names[p]), 1e3);
  print_ratio(out, "primitives", number(before, "primitives"), number(after, "primitives"), 1e3);
  print_ratio(out, "peak resident, MB", number(before, "peak_resident"),
              number(after, "peak_resident"), 1e-6);
  old = fn_options_get(before, "chain"), new = fn_options_get(after, "chain");
  if (new) print_ratio(out, "chain: step", number(old, "step"), number(new, "step"), 1e3);
  print_ratio(out, "total: step", number(before, "step"), number(after, "step"), 1e3);
}

static void compare_modes(const fn_options *before, const fn_options *after, FILE *out) {
  int compared = 0;
  for (int m = 0; m < FN_BENCH_MODES; m++) {
    const char *name = fn_bench_mode_name((fn_bench_mode)m);
    const fn_options *old = fn_options_get(before, name), *new = fn_options_get(after, name);
    if (!old || !new) continue;
    compared++;
    fprintf(out, "\n%-40s %12s %12s %8s\n", name, "before, ms", "after, ms", "ratio");
    if (m == FN_BENCH_IO) {
      print_ratio(out, "total: batch", number(old, "batch"), number(new, "batch"), 1e3);
    } else if (m == FN_BENCH_COMM) {
      const fn_options *sizes = fn_options_get(new, "sizes"), *olds = fn_options_get(old, "sizes");
      for (int i = 0; i < fn_options_count(sizes) && i < fn_options_count(olds); i++)
        print_ratio(out, words(fn_options_at(sizes, i), "bucket_bytes"),
                    number(fn_options_at(olds, i), "seconds"),
                    number(fn_options_at(sizes, i), "seconds"), 1e3);
    } else {
      compare_steps(old, new, out);
    }
  }
  if (compared == 0) fprintf(out, "\nnothing to compare: no mode was measured both times\n");
}

/** Say where the two were not measured under the same conditions. */
static void print_differences(const fn_options *before, const fn_options *after, FILE *out) {
  static const char *const keys[] = {"host",    "model", "backend",   "precision", "ranks",
                                     "threads", "batch", "optimizer", "parameters"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (strcmp(words(before, keys[i]), words(after, keys[i])) != 0)
      fprintf(out, "not the same %s: %s, %s\n", keys[i], words(before, keys[i]),
              words(after, keys[i]));
}

fn_status fn_bench_compare(const char *before, const char *before_name, const char *after,
                           const char *after_name, FILE *out) {
  fn_options *old = NULL, *new = NULL;
  fn_status status = fn_options_from_text(before, before_name, &old);
  if (status == FN_OK) status = fn_options_from_text(after, after_name, &new);
  if (status == FN_OK && (!fn_options_get(old, "modes") || !fn_options_get(new, "modes")))
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                          "%s: expected a file that bench --json wrote, found none of its modes",
                          fn_options_get(old, "modes") ? after_name : before_name);
  if (status == FN_OK) {
    fprintf(out, "\ncompared with %s\n", before_name);
    print_differences(old, new, out);
    compare_modes(fn_options_get(old, "modes"), fn_options_get(new, "modes"), out);
  }
  fn_options_destroy(old);
  fn_options_destroy(new);
  return status;
}

fn_status fn_bench_compare_files(const char *before, const char *after, FILE *out) {
  char *text[2] = {NULL, NULL};
  fn_status status = fn_file_read(before, &text[0], NULL);
  if (status == FN_OK) status = fn_file_read(after, &text[1], NULL);
  if (status == FN_OK) status = fn_bench_compare(text[0], before, text[1], after, out);
  free(text[0]);
  free(text[1]);
  return status;
}
