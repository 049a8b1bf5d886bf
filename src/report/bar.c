#include "report/bar.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"

enum { BAR_WIDTH = 24 };
static const double REDRAW_SECONDS = 0.1, LINE_SECONDS = 20;

bool fn_bar_possible(void) {
  // Open MPI's launcher gives rank 0 a pseudo-terminal whatever its own output is; what stands
  // there may be a log file. Its standard error tells: it is a pipe then.
  return isatty(STDOUT_FILENO) && isatty(STDERR_FILENO) && fn_log_get_level() >= FN_INFO &&
         !fn_log_is_to_file();
}

void fn_bar_draw(int64_t done, int64_t total, const char *text) {
  char bar[BAR_WIDTH + 1];
  const int64_t filled = total > 0 ? BAR_WIDTH * done / total : 0;
  for (int i = 0; i < BAR_WIDTH; i++)
    bar[i] = i < filled ? '=' : i == filled ? '>' : ' ';
  bar[BAR_WIDTH] = '\0';
  // Ends at the left edge, so that whatever is printed next begins there. No wrap at the right
  // edge while it is drawn: a wrapped line could not be redrawn in place.
  printf("\r\033[K\033[?7l[%s] %s\033[?7h\r", bar, text);
  fflush(stdout);
}

void fn_bar_wipe(void) {
  fputs("\r\033[K", stdout);
  fflush(stdout);
}

void fn_counter_show(fn_counter *c, const char *what, int64_t done, int64_t total) {
  const double now = fn_clock();
  if (!c->what || strcmp(c->what, what) != 0)
    *c = (fn_counter){.what = what, .started = now, .told = now, .first = done};
  const bool terminal = fn_bar_possible();
  if (terminal && done >= total) fn_bar_wipe();
  if (done >= total || now - c->told < (terminal ? REDRAW_SECONDS : LINE_SECONDS)) return;
  c->told = now;
  char line[160], duration[64] = "";
  const double rate = (double)(done - c->first) / (now - c->started);
  if (rate > 0) fn_text_duration((double)(total - done) / rate, duration, sizeof duration);
  snprintf(line, sizeof line, "%s %" PRId64 "/%" PRId64 "  %.3g/s  ETA %s", what, done, total, rate,
           duration);
  if (terminal)
    fn_bar_draw(done, total, line);
  else
    fn_log(FN_INFO, "%s", line);
}
