/* What the text files of a run share. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/system.h"
#include "report/sinks.h"

char *fn_report_number(double value, char *buffer, size_t size) {
  buffer[0] = '\0';
  if (!isfinite(value)) return buffer;
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(buffer, size, "%.*g", digits, value);
    if (strtod(buffer, NULL) == value) break;
  }
  return buffer;
}

char *fn_report_time(const char *format, char *buffer, size_t size) {
  const time_t now = time(NULL);
  struct tm local;
  if (!localtime_r(&now, &local) || strftime(buffer, size, format, &local) == 0) buffer[0] = '\0';
  return buffer;
}

/* ---- going on from a state -------------------------------------------------------------------
 * A start from an older state sets the newer lines aside, as the newer state may be taken after all
 * (run/starts.h): then they come back. That is over when the start has written a state itself. */

typedef struct lines {
  int64_t (*step)(void *user, const char *line);
  void *user;
  int64_t resumed;       // the step that the run goes on from
  int64_t kept, dropped; // the last steps of the file's lines, up to resumed and beyond
  fn_text file, ahead;
} lines;

static bool aside_path(const char *path, char *aside, size_t size) {
  const char *slash = strrchr(path, '/');
  const int folder = slash ? (int)(slash + 1 - path) : 0;
  const int length = snprintf(aside, size, "%.*s.%s.ahead", folder, path, path + folder);
  return length > 0 && (size_t)length < size;
}

static void sort_line(lines *l, const char *line) {
  const int64_t step = l->step(l->user, line);
  if (step == FN_NO_LINE) return;
  const bool stays = step == FN_NO_STEP || step <= l->resumed;
  fn_text_add(stays ? &l->file : &l->ahead, "%s\n", line);
  if (step == FN_NO_STEP) return;
  if (stays && step > l->kept) l->kept = step;
  if (!stays && step > l->dropped) l->dropped = step;
}

/** A line that an earlier start set aside; what the file has of the same steps is newer. */
static void sort_aside(lines *l, const char *line) {
  const int64_t step = l->step(l->user, line);
  if (step == FN_NO_LINE || step <= l->kept || (step > l->resumed && step <= l->dropped)) return;
  fn_text_add(step <= l->resumed ? &l->file : &l->ahead, "%s\n", line);
}

/** Whole lines only: the last one may be torn by a kill. */
static void each_line(lines *l, char *bytes, size_t count, void (*sort)(lines *, const char *)) {
  for (char *line = bytes; line < bytes + count;) {
    char *end = memchr(line, '\n', (size_t)(bytes + count - line));
    if (!end) break;
    *end = '\0';
    sort(l, line);
    line = end + 1;
  }
}

fn_status fn_report_trim(const char *path, int64_t resumed_step,
                         int64_t (*step)(void *user, const char *line), void *user) {
  char aside[4200];
  if (!fn_file_exists(path) || !aside_path(path, aside, sizeof aside)) return FN_OK;
  char *bytes = NULL, *waiting = NULL;
  size_t count, waiting_count = 0;
  lines l = {.step = step,
             .user = user,
             .resumed = resumed_step,
             .kept = FN_NO_STEP,
             .dropped = FN_NO_STEP};
  fn_status status = fn_file_exists(aside) ? fn_file_read(aside, &waiting, &waiting_count) : FN_OK;
  if (status == FN_OK) status = fn_file_read(path, &bytes, &count);
  if (status == FN_OK) {
    each_line(&l, bytes, count, sort_line);
    if (count > 0) each_line(&l, waiting, waiting_count, sort_aside);
    // What leaves the file is first written beside it; what comes back leaves there at the next
    // start.
    if (l.dropped != FN_NO_STEP) status = fn_file_replace_text(aside, &l.ahead);
    if (status == FN_OK && l.file.length != count) status = fn_file_replace_text(path, &l.file);
  }
  fn_text_free(&l.file);
  fn_text_free(&l.ahead);
  free(waiting);
  free(bytes);
  return status;
}

void fn_report_forget(const char *path) {
  char aside[4200];
  if (path[0] && aside_path(path, aside, sizeof aside)) unlink(aside);
}

fn_status fn_report_append(const char *path, FILE **file) {
  *file = fopen(path, "a");
  FN_CHECK(*file, FN_ERR_DATA, "cannot write %s: %s", path, strerror(errno));
  return FN_OK;
}

fn_status fn_report_put(FILE *file, const char *path, const fn_text *text) {
  FN_CHECK(!text->incomplete, FN_ERR_MEMORY, "out of memory for a line of %s", path);
  const bool written =
      fwrite(text->data, 1, text->length, file) == text->length && fflush(file) == 0;
  FN_CHECK(written, FN_ERR_DATA, "cannot write %s: %s", path, strerror(errno));
  return FN_OK;
}
