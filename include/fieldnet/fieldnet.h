/** @file fieldnet.h
 *  What every user of the library meets first: status codes, messages and the version.
 *
 *  Every fallible function of fieldnet returns fn_status. The message belonging to the last
 *  failure of the calling thread is fn_error_message().
 */
#ifndef FIELDNET_FIELDNET_H
#define FIELDNET_FIELDNET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Status of a call; the kinds a user can tell apart by the exit code of the program. */
typedef enum fn_status {
  FN_OK = 0,
  FN_ERR_INTERNAL = 1,    /**< a defect of fieldnet or of a library below it */
  FN_ERR_CONFIG = 2,      /**< command line, configuration, network definition */
  FN_ERR_DATA = 3,        /**< a field file is missing, truncated, or of the wrong shape or type */
  FN_ERR_DIVERGED = 4,    /**< loss or gradient is not finite */
  FN_ERR_CHECKPOINT = 5,  /**< a state cannot be read, written or used */
  FN_ERR_MEMORY = 6,      /**< memory is exhausted or a limit exceeded */
  FN_ERR_VERIFY = 7,      /**< a comparison is over its tolerance */
  FN_ERR_UNSUPPORTED = 8, /**< this build or backend cannot do what was asked */
  FN_ERR_LOST = 9,        /**< a rank does not answer or does not get on */
  FN_ERR_DEVICE = 10,     /**< no usable GPU, too few of them, or one that failed */
  FN_INTERRUPTED = 75,    /**< stopped by request, state saved: start again to go on */
  FN_HALTED = 76,         /**< likewise, by a halt file: not before it is removed */
} fn_status;

/** Version as "major.minor.patch". */
const char *fn_version(void);

/** Short name of a status, e.g. "data error". */
const char *fn_status_name(fn_status status);

/** Whether a status means that a run was stopped in order, with its state saved. */
bool fn_is_stop(fn_status status);

/** Message of the calling thread's last failure; "" when there was none. Owned by fieldnet. */
const char *fn_error_message(void);

/** Record a failure and return its status. Use FN_CHECK and FN_FAIL instead of calling it. */
fn_status fn_error_set(fn_status status, const char *source, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/** Prepend "context: " to the recorded message; returns status unchanged. */
fn_status fn_error_context(fn_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Forget the recorded message. */
void fn_error_clear(void);

/** Return from the calling function when `call` fails. */
#define FN_TRY(call)                                                                               \
  do {                                                                                             \
    const fn_status fn_try_status_ = (call);                                                       \
    if (fn_try_status_ != FN_OK) return fn_try_status_;                                            \
  } while (0)

/** Fail with a message: what was expected, what was found, where. */
#define FN_FAIL(status, ...) return fn_error_set((status), __FILE__, __LINE__, __VA_ARGS__)

/** Fail with a message unless `condition` holds. */
#define FN_CHECK(condition, status, ...)                                                           \
  do {                                                                                             \
    if (!(condition)) FN_FAIL((status), __VA_ARGS__);                                              \
  } while (0)

#ifdef __cplusplus
}
#endif
#endif
