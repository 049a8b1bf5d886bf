#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/system.h"
#include "cli/commands.h"
#include "report/run_status.h"

/** Whether colours and cursor movements reach a terminal that knows them. */
static bool is_terminal(void) {
  const char *kind = getenv("TERM"), *plain = getenv("NO_COLOR");
  return isatty(STDOUT_FILENO) && kind && strcmp(kind, "dumb") != 0 && !(plain && plain[0]);
}

typedef struct watcher {
  const fn_command_line *line;
  bool json, terminal;
  double every;   // seconds; 0: look once
  bool all_ended; // nothing more will happen by itself
  bool fine;
  bool unreadable; // files of a run could not be read
} watcher;

static void print(const watcher *w, const fn_run_status *status, int count, double now) {
  fn_text text = {0};
  if (w->every > 0 && w->terminal && !w->json) fn_text_add(&text, "\033[H\033[2J");
  if (w->every > 0 && !w->json) {
    char clock[32] = "";
    const time_t seconds = (time_t)now;
    struct tm local;
    if (localtime_r(&seconds, &local)) strftime(clock, sizeof clock, "%Y-%m-%d %H:%M:%S", &local);
    fn_text_add(&text, "%s\n", clock);
  }
  if (!w->json) fn_run_status_table(status, count, now, w->terminal, &text);
  for (int i = 0; i < count && w->json; i++)
    fn_run_status_json(&status[i], now, &text);
  if (text.data) fputs(text.data, stdout);
  fflush(stdout);
  fn_text_free(&text);
}

/** Folders are looked for every time: a sweep makes new ones. */
static fn_status look(watcher *w, fn_arena *arena) {
  fn_run_list list = {0};
  for (int i = 0; i < w->line->extra_count; i++)
    FN_TRY(fn_run_list_add(arena, w->line->extra[i], &list));
  fn_run_status *status = fn_arena_take(arena, sizeof *status * (size_t)list.count);
  const double now = fn_time_now();
  w->all_ended = true;
  w->unreadable = false;
  for (int i = 0; i < list.count; i++) {
    if (fn_run_status_read(list.folder[i], now, &status[i]) != FN_OK) {
      w->unreadable = true; // the others are worth showing
      snprintf(status[i].note, sizeof status[i].note, "%s", fn_error_message());
    }
    const fn_run_state state = status[i].state;
    w->all_ended &= state == FN_RUN_FINISHED || state == FN_RUN_FAILED || state == FN_RUN_DEAD;
  }
  print(w, status, list.count, now);
  w->fine = fn_run_status_fine(status, list.count);
  return FN_OK;
}

static void pause_for(double seconds) {
  const struct timespec time = {.tv_sec = (time_t)seconds,
                                .tv_nsec = (long)(1e9 * (seconds - floor(seconds)))};
  nanosleep(&time, NULL);
}

fn_status fn_command_status(const fn_command_line *line) {
  watcher w = {.line = line, .json = fn_command_given(line, "json"), .terminal = is_terminal()};
  FN_TRY(fn_command_real(line, "watch", 0.1, 86400, &w.every));
  for (;;) {
    fn_arena *arena = fn_arena_create();
    FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
    const fn_status status = look(&w, arena);
    fn_arena_destroy(arena);
    FN_TRY(status);
    if (w.every <= 0 || w.all_ended) break;
    pause_for(w.every);
  }
  fn_error_clear();
  if (w.unreadable) return FN_ERR_DATA;
  return w.fine ? FN_OK : FN_ERR_LOST;
}
