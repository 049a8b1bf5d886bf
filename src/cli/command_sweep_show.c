/* fieldnet sweep status, best, table, plot: what has become of trials. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/command_sweep.h"
#include "report/sweep_table.h"

/** Open sweep and store to look, do `work`, close. */
static fn_status look(const fn_command_line *line,
                      fn_status (*work)(const fn_command_line *line, fn_sweep_store *store)) {
  fn_sweep *sweep = NULL;
  fn_sweep_store *store = NULL;
  FN_TRY(fn_sweep_command_open(line, 0, &sweep));
  fn_status status = fn_sweep_store_look(sweep, &store);
  if (status == FN_OK) status = work(line, store);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
  return status;
}

static fn_status print_status(const fn_command_line *line, fn_sweep_store *store) {
  (void)line;
  return fn_sweep_status(store, stdout);
}

static fn_status print_best(const fn_command_line *line, fn_sweep_store *store) {
  int64_t top = 5;
  FN_TRY(fn_command_integer(line, "top", 1, 1000000, &top));
  return fn_sweep_best(store, top, stdout);
}

static fn_status print_table(const fn_command_line *line, fn_sweep_store *store) {
  const char *path = fn_command_text(line, "output", NULL);
  if (!path) return fn_sweep_table(store, stdout);
  FILE *file = fopen(path, "w");
  FN_CHECK(file, FN_ERR_DATA, "cannot write %s: %s", path, strerror(errno));
  const fn_status status = fn_sweep_table(store, file);
  FN_CHECK(fclose(file) == 0 || status != FN_OK, FN_ERR_DATA, "cannot write %s: %s", path,
           strerror(errno));
  return status;
}

static fn_status draw_plot(const fn_command_line *line, fn_sweep_store *store) {
  fn_text path = {0};
  const char *given = fn_command_text(line, "output", NULL);
  if (given)
    fn_text_add(&path, "%s", given);
  else
    fn_text_add(&path, "%s/sweep.png", fn_sweep_store_sweep(store)->folder);
  const fn_status status = fn_sweep_plot(store, path.data);
  if (status == FN_OK) printf("%s\n", path.data);
  fn_text_free(&path);
  return status;
}

fn_status fn_sweep_command_status(const fn_command_line *line) {
  return look(line, print_status);
}

fn_status fn_sweep_command_best(const fn_command_line *line) {
  return look(line, print_best);
}

fn_status fn_sweep_command_table(const fn_command_line *line) {
  return look(line, print_table);
}

fn_status fn_sweep_command_plot(const fn_command_line *line) {
  return look(line, draw_plot);
}
