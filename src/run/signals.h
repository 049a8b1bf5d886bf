/** @file signals.h
 *  SIGTERM, SIGINT and SIGUSR1 stop a run at the next step with a state saved; SIGUSR2 saves only.
 */
#ifndef FN_RUN_SIGNALS_H
#define FN_RUN_SIGNALS_H

#include <stdbool.h>

/** May be called again, by each of several runs: a request that came before the call stays. */
void fn_signals_install(void);
/** Requests that reached this rank; ranks agree on them with the step's reduction. */
bool fn_stop_requested(void);
bool fn_save_requested(void);
/** The save has been made. */
void fn_save_done(void);

#endif
