#include <fieldnet/fieldnet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_SIZE = 4096 };

static _Thread_local char message[MESSAGE_SIZE];

const char *fn_version(void) {
  return FIELDNET_VERSION;
}

const char *fn_status_name(fn_status status) {
  switch (status) {
    case FN_OK: return "done";
    case FN_ERR_INTERNAL: return "internal error";
    case FN_ERR_CONFIG: return "configuration error";
    case FN_ERR_DATA: return "data error";
    case FN_ERR_DIVERGED: return "diverged";
    case FN_ERR_CHECKPOINT: return "checkpoint error";
    case FN_ERR_MEMORY: return "out of memory";
    case FN_ERR_VERIFY: return "verification failed";
    case FN_ERR_LOST: return "rank lost";
    case FN_ERR_DEVICE: return "device failed";
    case FN_ERR_UNSUPPORTED: return "unsupported";
    case FN_INTERRUPTED: return "interrupted";
    case FN_HALTED: return "halted";
  }
  return "unknown status";
}

bool fn_is_stop(fn_status status) {
  return status == FN_INTERRUPTED || status == FN_HALTED;
}

const char *fn_error_message(void) {
  return message;
}

void fn_error_clear(void) {
  message[0] = '\0';
}

fn_status fn_error_set(fn_status status, const char *source, int line, const char *format, ...) {
  // The arguments may point into the message itself (a context added by hand): build it aside.
  char text[MESSAGE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (status == FN_ERR_INTERNAL) {
    const char *name = strrchr(source, '/');
    snprintf(message, sizeof message, "%.3900s (%s:%d)", text, name ? name + 1 : source, line);
  } else {
    snprintf(message, sizeof message, "%s", text);
  }
  return status;
}

fn_status fn_error_context(fn_status status, const char *format, ...) {
  if (status == FN_OK) return status;
  char text[MESSAGE_SIZE];
  va_list arguments;
  va_start(arguments, format);
  const int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (length > 0 && (size_t)length < sizeof text) {
    snprintf(text + length, sizeof text - (size_t)length, ": %s", message);
  }
  memcpy(message, text, sizeof message);
  return status;
}
