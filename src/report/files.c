/* What the text files of a run share. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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

fn_status fn_report_trim(const char *path, bool (*keep)(void *user, const char *line), void *user) {
  if (!fn_file_exists(path)) return FN_OK;
  char *bytes;
  size_t count;
  FN_TRY(fn_file_read(path, &bytes, &count));
  fn_text kept = {0};
  for (char *line = bytes; line < bytes + count;) {
    char *end = memchr(line, '\n', (size_t)(bytes + count - line));
    if (!end) break;
    *end = '\0';
    if (keep(user, line)) fn_text_add(&kept, "%s\n", line);
    line = end + 1;
  }
  fn_status status = FN_OK;
  if (kept.length != count) {
    status = fn_file_replace(path, kept.data ? kept.data : "", kept.length);
  }
  fn_text_free(&kept);
  free(bytes);
  return status;
}

fn_status fn_report_append(const char *path, FILE **file) {
  *file = fopen(path, "a");
  FN_CHECK(*file, FN_ERR_DATA, "cannot write %s: %s", path, strerror(errno));
  return FN_OK;
}

fn_status fn_report_put(FILE *file, const char *path, const char *text) {
  const bool written = fputs(text, file) != EOF && fflush(file) == 0;
  FN_CHECK(written, FN_ERR_DATA, "cannot write %s: %s", path, strerror(errno));
  return FN_OK;
}
