/* What `fieldnet test` left in the run folders: losses per file, spectra, the report on classes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "config/options.h"
#include "report/page.h"

enum { PATH_SIZE = 4096, ROWS_SHOWN = 60 };

static bool read_text(const fn_page_run *run, const char *name, char **text) {
  char path[PATH_SIZE];
  snprintf(path, sizeof path, "%s/%s", run->folder, name);
  *text = NULL;
  if (!fn_file_exists(path)) return false;
  if (fn_file_read(path, text, NULL) == FN_OK) return true;
  fn_error_clear();
  return false;
}

static void title(const fn_page *page, const fn_page_run *run, const char *what, fn_text *html) {
  fn_text_add(html, "<h3>%s", what);
  if (page->count > 1) {
    fn_text_add(html, ", ");
    fn_html_words(html, run->name);
  }
  fn_text_add(html, "</h3>\n");
}

/* ---- test.csv -------------------------------------------------------------------------------- */

static void add_row(char *line, bool head, fn_text *html) {
  fn_text_add(html, "<tr>");
  for (int column = 0; line; column++) {
    char *comma = strchr(line, ',');
    if (comma) *comma = '\0';
    if (head && column > 0)
      fn_html_head_number(html, line);
    else if (head)
      fn_html_head(html, line);
    else if (column == 0)
      fn_html_cell(html, line);
    else
      fn_html_cell_number(html, strtod(line, NULL), 6);
    line = comma ? comma + 1 : NULL;
  }
  fn_text_add(html, "</tr>\n");
}

static bool add_losses(const fn_page *page, const fn_page_run *run, fn_text *html) {
  char *text, *rest = NULL;
  if (!read_text(run, "test.csv", &text)) return false;
  title(page, run, "Losses on the test set", html);
  fn_text_add(html, "<div class=\"scroll\"><table>\n");
  int rows = 0, left_out = 0;
  for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), rows++) {
    const bool shown = rows < ROWS_SHOWN || fn_text_starts(line, "mean,");
    if (shown)
      add_row(line, rows == 0, html);
    else
      left_out++;
  }
  fn_text_add(html, "</table></div>\n");
  if (left_out) fn_text_add(html, "<p class=\"about\">%d more files in test.csv</p>\n", left_out);
  free(text);
  return true;
}

/* ---- test/report.json ------------------------------------------------------------------------ */

static void add_statistics(const fn_options *judged, fn_text *html) {
  const fn_options *first = fn_options_get(fn_options_at(judged, 0), "statistics");
  fn_text_add(html, "<div class=\"scroll\"><table>\n<tr><th></th>");
  for (int j = 0; j < fn_options_count(judged); j++) {
    fn_html_head_number(html, fn_options_key_at(judged, j));
  }
  fn_text_add(html, "</tr>\n");
  for (int s = 0; s < fn_options_count(first); s++) {
    const char *name = fn_options_key_at(first, s);
    fn_text_add(html, "<tr>");
    fn_html_cell(html, name);
    for (int j = 0; j < fn_options_count(judged); j++) {
      const fn_options *all = fn_options_get(fn_options_at(judged, j), "statistics");
      const fn_options *v = all ? fn_options_get(all, name) : NULL;
      fn_text_add(html, "<td class=\"n\">");
      fn_html_number(html, fn_option_real(v, "value", NAN), 4);
      if (isfinite(fn_option_real(v, "low", NAN)))
        fn_text_add(html, " <span class=\"quiet\">(%.4g to %.4g)</span>",
                    fn_option_real(v, "low", NAN), fn_option_real(v, "high", NAN));
      fn_text_add(html, "</td>");
    }
    fn_text_add(html, "</tr>\n");
  }
  fn_text_add(html, "</table></div>\n");
}

static void add_confusion(const fn_options *judged, fn_text *html) {
  static const char *const counts[] = {"true_positive", "true_negative", "false_positive",
                                       "false_negative"};
  fn_text_add(html, "<div class=\"scroll\"><table>\n<tr><th>confusion</th><th class=\"n\">true "
                    "positive</th><th class=\"n\">true negative</th><th class=\"n\">false "
                    "positive</th><th class=\"n\">false negative</th></tr>\n");
  for (int j = 0; j < fn_options_count(judged); j++) {
    const fn_options *table = fn_options_get(fn_options_at(judged, j), "confusion");
    for (int i = 0; i < fn_options_count(table); i++) {
      fn_text_add(html, "<tr><td>");
      fn_html_words(html, fn_options_key_at(judged, j));
      fn_text_add(html, ", ");
      fn_html_words(html, fn_options_key_at(table, i));
      fn_text_add(html, "</td>");
      for (int c = 0; c < 4; c++)
        fn_html_cell_number(html, fn_option_real(fn_options_at(table, i), counts[c], NAN), 12);
      fn_text_add(html, "</tr>\n");
    }
  }
  fn_text_add(html, "</table></div>\n");
}

static bool add_classes(const fn_page *page, const fn_page_run *run, fn_text *html) {
  char *text;
  if (!read_text(run, "test/report.json", &text)) return false;
  fn_options *root = NULL;
  const bool read = fn_options_from_text(text, "report.json", &root) == FN_OK && root &&
                    fn_options_get_kind(root) == FN_OPTIONS_MAPPING;
  const fn_options *judged = read ? fn_options_get(root, "judged") : NULL;
  const bool any = judged && fn_options_count(judged) > 0;
  if (any) {
    title(page, run, "Classes", html);
    fn_text_add(html,
                "<p class=\"about\">%.0f samples of %.0f cubes, state of epoch %.0f; in "
                "brackets intervals of 95 %%</p>\n",
                fn_option_real(root, "samples", NAN), fn_option_real(root, "cubes", NAN),
                fn_option_real(root, "epoch", NAN));
    add_statistics(judged, html);
    add_confusion(judged, html);
  }
  if (!read) fn_error_clear();
  fn_options_destroy(root);
  free(text);
  return any;
}

void fn_page_tests(const fn_page *page, fn_text *html) {
  const size_t start = html->length;
  bool any = false;
  fn_text_add(html, "<h2 id=\"test\">Test</h2>\n");
  for (int i = 0; i < page->count; i++) {
    any |= add_losses(page, &page->run[i], html);
    any |= add_classes(page, &page->run[i], html);
    any |= page->run[i].spectra.rows > 0;
  }
  if (any)
    fn_page_spectra(page, html);
  else
    fn_text_cut(html, start);
}
