#include <stdio.h>
#include <string.h>

#include "base/system.h"
#include "cli/commands.h"
#include "report/page.h"
#include "report/run_status.h"

static fn_status write_page(const fn_command_line *line, const fn_run_list *list, fn_text *html) {
  char path[4096], title[4200];
  if (line->extra_count == 1)
    snprintf(path, sizeof path, "%s/report.html", line->extra[0]);
  else
    snprintf(path, sizeof path, "report.html");
  const char *output = fn_command_text(line, "output", path);
  FN_CHECK(!fn_file_exists(output) || fn_page_is_ours(output) || fn_command_given(line, "force"),
           FN_ERR_CONFIG,
           "%s exists and is no page of fieldnet report: choose another name, or "
           "--force to replace it",
           output);
  if (list->count == 1)
    snprintf(title, sizeof title, "%s", list->folder[0]);
  else
    snprintf(title, sizeof title, "%d runs%s%s", list->count, line->extra_count == 1 ? " of " : "",
             line->extra_count == 1 ? line->extra[0] : "");
  FN_TRY(fn_page_write((const char *const *)list->folder, list->count,
                       fn_command_text(line, "title", title), html));
  FN_TRY(fn_file_replace_text(output, html));
  char bytes[32];
  printf("wrote %s (%s, %d run%s)\n", output, fn_text_bytes((double)html->length, bytes, 32),
         list->count, list->count == 1 ? "" : "s");
  return FN_OK;
}

/** A run among others may not have started; a page of nothing but such is a mistake. */
static fn_status check_runs(const fn_run_list *list) {
  for (int i = 0; i < list->count; i++)
    if (fn_is_run_folder(list->folder[i])) return FN_OK;
  FN_FAIL(FN_ERR_CONFIG, "%s holds no run, nor do folders below it: nothing to report",
          list->count > 0 ? list->folder[0] : "nothing");
}

fn_status fn_command_report(const fn_command_line *line) {
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  fn_run_list list = {0};
  fn_text html = {0};
  fn_status status = FN_OK;
  for (int i = 0; i < line->extra_count && status == FN_OK; i++)
    status = fn_run_list_add(arena, line->extra[i], &list);
  if (status == FN_OK) status = check_runs(&list);
  if (status == FN_OK) status = write_page(line, &list, &html);
  fn_text_free(&html);
  fn_arena_destroy(arena);
  return status;
}
