#include "base/log.h"

#include <pthread.h>
#include <stdarg.h>

#include "base/system.h"

static struct {
  int rank, size;
  fn_level level;
  FILE *file; // NULL: the standard streams
  pthread_mutex_t lock;
  const char *seen[256];
  int seen_count;
  void (*listener)(void *user, fn_level level, const char *line);
  void *listener_user;
} state = {.size = 1, .level = FN_INFO, .lock = PTHREAD_MUTEX_INITIALIZER};

void fn_log_identify(int rank, int size) {
  state.rank = rank;
  state.size = size;
}

void fn_log_to(FILE *file) {
  pthread_mutex_lock(&state.lock);
  state.file = file;
  state.seen_count = 0;
  pthread_mutex_unlock(&state.lock);
}

bool fn_log_is_to_file(void) {
  return state.file != NULL;
}

void fn_log_set_level(fn_level level) {
  state.level = level;
}
fn_level fn_log_get_level(void) {
  return state.level;
}

static void print(fn_level level, const char *format, va_list arguments) {
  const bool shown = level <= state.level && (state.rank == 0 || level == FN_ERROR);
  if (!shown && level > FN_WARN) return;
  char line[8192];
  vsnprintf(line, sizeof line, format, arguments);
  FILE *stream = level <= FN_WARN ? stderr : stdout;
  const char *kind = level == FN_ERROR  ? "fieldnet: error: "
                     : level == FN_WARN ? "fieldnet: warning: "
                                        : "";
  pthread_mutex_lock(&state.lock);
  if (state.listener && level <= FN_WARN) state.listener(state.listener_user, level, line);
  if (shown && state.file) {
    fprintf(state.file, "%s%s\n", kind, line);
    fflush(state.file);
  }
  if (shown && level == FN_ERROR && state.size > 1) {
    fprintf(stream, "%s[rank %d on %s] %s\n", kind, state.rank, fn_host_name(), line);
  } else if (shown && (level == FN_ERROR || !state.file)) {
    fprintf(stream, "%s%s\n", kind, line);
  }
  fflush(stream);
  pthread_mutex_unlock(&state.lock);
}

void fn_log_listen(void (*listener)(void *user, fn_level level, const char *line), void *user) {
  pthread_mutex_lock(&state.lock);
  state.listener = listener;
  state.listener_user = user;
  pthread_mutex_unlock(&state.lock);
}

void fn_log(fn_level level, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  print(level, format, arguments);
  va_end(arguments);
}

void fn_log_once(fn_level level, const char *format, ...) {
  bool seen = false;
  pthread_mutex_lock(&state.lock);
  const int capacity = (int)(sizeof state.seen / sizeof state.seen[0]);
  for (int i = 0; i < state.seen_count && !seen; i++)
    seen = state.seen[i] == format;
  if (!seen && state.seen_count < capacity) state.seen[state.seen_count++] = format;
  pthread_mutex_unlock(&state.lock);
  if (seen) return;
  va_list arguments;
  va_start(arguments, format);
  print(level, format, arguments);
  va_end(arguments);
}
