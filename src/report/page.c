/* A page from its sections. */
#include "report/page.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char generator[] = "<meta name=\"generator\" content=\"fieldnet report\"/>";

bool fn_page_is_ours(const char *path) {
  char head[1024];
  FILE *file = fopen(path, "r");
  if (!file) return false;
  const size_t length = fread(head, 1, sizeof head - 1, file);
  fclose(file);
  head[length] = '\0';
  return strstr(head, generator) != NULL;
}

static void add_about(const fn_page *page, fn_text *html) {
  char when[64] = "";
  const time_t seconds = (time_t)page->now;
  struct tm local;
  if (localtime_r(&seconds, &local)) strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S %z", &local);
  fn_text_add(html, "<p class=\"about\">%d run%s, as of %s; fieldnet %s</p>\n", page->count,
              page->count == 1 ? "" : "s", when, fn_version());
}

/** Links to the sections that are there, put where the sections begin. */
static void add_links(size_t at, fn_text *html) {
  static const char *const ids[] = {"overview", "curves",        "test",
                                    "figures",  "configuration", "history"};
  if (html->incomplete) return; // told by whoever takes the page
  fn_text links = {0}, rest = {0};
  fn_text_add(&links, "<nav>");
  for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
    char mark[64];
    snprintf(mark, sizeof mark, "<h2 id=\"%s\">", ids[i]);
    const char *section = strstr(html->data + at, mark);
    if (!section) continue;
    const char *name = section + strlen(mark);
    fn_text_add(&links, "<a href=\"#%s\">%.*s</a> ", ids[i], (int)strcspn(name, "<"), name);
  }
  fn_text_add(&links, "</nav>\n");
  fn_text_add_bytes(&rest, html->data + at, html->length - at);
  html->length = at;
  fn_text_add_bytes(html, links.data, links.length);
  fn_text_add_bytes(html, rest.data, rest.length);
  fn_text_free(&links);
  fn_text_free(&rest);
}

fn_status fn_page_write(const char *const *folder, int count, const char *title, fn_text *html) {
  fn_page page;
  FN_TRY(fn_page_load(folder, count, &page));
  fn_html_begin(html, title);
  add_about(&page, html);
  const size_t start = html->length;
  fn_page_overview(&page, html);
  fn_page_curves(&page, html);
  fn_page_tests(&page, html);
  fn_page_figures(&page, html);
  fn_page_settings(&page, html);
  fn_page_history(&page, html);
  add_links(start, html);
  fn_html_end(html);
  fn_page_unload(&page);
  return FN_OK;
}
