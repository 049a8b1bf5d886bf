/* Pictures found in the run folders, inside the page. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "report/page.h"

enum { PATH_SIZE = 4096 };
static const size_t largest = (size_t)16 << 20; // bytes of one picture

/** A PNG stands back where the same picture is there as lines. */
static bool has_lines(const char *folder, const char *name) {
  char path[PATH_SIZE];
  snprintf(path, sizeof path, "%s/%.*s.svg", folder, (int)strlen(name) - 4, name);
  return fn_text_ends(name, ".png") && fn_file_exists(path);
}

/** An SVG goes in as an image: so its names do not meet those of others, and nothing in it runs. */
static bool add_picture(const char *folder, const char *name, const char *caption, fn_text *html) {
  char path[PATH_SIZE], *bytes;
  size_t count;
  if (snprintf(path, sizeof path, "%s/%s", folder, name) >= PATH_SIZE) return false;
  if (fn_file_read(path, &bytes, &count) != FN_OK) {
    fn_error_clear();
    return false;
  }
  const bool shown = count > 0 && count <= largest;
  if (shown) {
    fn_text_add(html, "<figure><figcaption>");
    fn_html_words(html, caption);
    fn_text_add(html, "</figcaption><img alt=\"");
    fn_html_words(html, name);
    fn_text_add(html, "\" src=\"data:image/%s;base64,",
                fn_text_ends(name, ".svg") ? "svg+xml" : "png");
    fn_html_base64(html, bytes, count);
    fn_text_add(html, "\"/></figure>\n");
  }
  free(bytes);
  return shown;
}

static int is_picture(const struct dirent *entry) {
  return entry->d_name[0] != '.' &&
         (fn_text_ends(entry->d_name, ".png") || fn_text_ends(entry->d_name, ".svg"));
}

static int add_folder(const fn_page_run *run, const char *below, fn_text *html) {
  char folder[PATH_SIZE], caption[PATH_SIZE];
  struct dirent **entry;
  int shown = 0;
  if (snprintf(folder, sizeof folder, "%s%s%s", run->folder, below[0] ? "/" : "", below) >=
      PATH_SIZE - 300)
    return 0;
  const int entries = scandir(folder, &entry, is_picture, versionsort);
  for (int i = 0; i < entries; i++) {
    snprintf(caption, sizeof caption, "%s%s%s", below, below[0] ? "/" : "", entry[i]->d_name);
    if (!has_lines(folder, entry[i]->d_name))
      shown += add_picture(folder, entry[i]->d_name, caption, html);
    free(entry[i]);
  }
  if (entries >= 0) free(entry);
  return shown;
}

void fn_page_figures(const fn_page *page, fn_text *html) {
  static const char *const folders[] = {"", "plots", "test"};
  const size_t start = html->length;
  int all = 0;
  fn_text_add(html, "<h2 id=\"figures\">Figures</h2>\n");
  for (int i = 0; i < page->count; i++) {
    const fn_page_run *run = &page->run[i];
    const size_t before = html->length;
    int shown = 0;
    fn_text_add(html, "<details%s><summary>", page->count == 1 ? " open=\"open\"" : "");
    fn_html_words(html, run->name);
    fn_text_add(html, "</summary>\n<div class=\"grid\">\n");
    for (size_t f = 0; f < sizeof folders / sizeof folders[0]; f++)
      shown += add_folder(run, folders[f], html);
    fn_text_add(html, "</div></details>\n");
    if (shown == 0) fn_text_cut(html, before);
    all += shown;
  }
  if (all == 0) fn_text_cut(html, start);
}
