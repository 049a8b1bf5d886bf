/** @file log.h
 *  Messages to people. Levels are by audience: error and warn for whoever runs the job, info for
 *  whoever watches it, detail for whoever tunes it, debug for developers.
 */
#ifndef FN_BASE_LOG_H
#define FN_BASE_LOG_H

#include <stdbool.h>
#include <stdio.h>

typedef enum fn_level { FN_ERROR, FN_WARN, FN_INFO, FN_DETAIL, FN_DEBUG } fn_level;

/** Who speaks: on ranks other than 0 only errors are printed, with host and rank. */
void fn_log_identify(int rank, int size);
/** From now on everything but errors goes to `file` instead of the standard streams, errors to
 * both; messages of fn_log_once count as new. NULL: back to the standard streams. The file stays
 * the caller's. */
void fn_log_to(FILE *file);
bool fn_log_is_to_file(void);
void fn_log_set_level(fn_level level);
fn_level fn_log_get_level(void);
/** One line to standard error (error, warn) or standard output (the rest). Rank 0 only, but for
 *  errors. Thread-safe. */
void fn_log(fn_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/** Like fn_log, but only the first time this call site (its format's address) is reached. */
void fn_log_once(fn_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Also hand every error and warning of this process, whatever its rank and the level, to
 * `listener`, which the logging thread calls and which must not log itself. NULL: nobody listens,
 * and once this has returned nobody is being called any more. */
void fn_log_listen(void (*listener)(void *user, fn_level level, const char *line), void *user);

#endif
