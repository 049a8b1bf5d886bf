/** @file bar.h
 *  A progress line redrawn in place. Rank 0 only.
 */
#ifndef FN_REPORT_BAR_H
#define FN_REPORT_BAR_H

#include <fieldnet/fieldnet.h>

/** Whether there is a terminal to draw on, and somebody who wants to see it. */
bool fn_bar_possible(void);
/** A bar for done of total, then the text. */
void fn_bar_draw(int64_t done, int64_t total, const char *text);
void fn_bar_wipe(void);

/** Progress of a job of equal items: a bar on a terminal, else a line now and then.
 * Zero-initialise.
 */
typedef struct fn_counter {
  const char *what; /**< of the items counted now */
  double started, told;
  int64_t first; /**< item at which counting began */
} fn_counter;

/** `done` of `total`; a new `what` starts a new count. Nothing is left of the bar at the end. */
void fn_counter_show(fn_counter *counter, const char *what, int64_t done, int64_t total);

#endif
