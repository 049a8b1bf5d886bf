/** @file sweep_record.h
 *  Inside the store of a sweep: one event as one line of JSON with its own checksum.
 */
#ifndef FN_RUN_SWEEP_RECORD_H
#define FN_RUN_SWEEP_RECORD_H

#include "base/text.h"

#include <fieldnet/fieldnet.h>

typedef enum fn_sweep_event {
  FN_EVENT_SWEEP,      /**< first line: metric and direction, in `message` */
  FN_EVENT_REGISTERED, /**< a trial from outside: set */
  FN_EVENT_CLAIMED,    /**< attempt, worker, set */
  FN_EVENT_REPORT,     /**< attempt, epoch, value */
  FN_EVENT_FINISHED,   /**< attempt, epoch and value of the best, seconds */
  FN_EVENT_STOPPED,    /**< attempt, epoch, message: by the rule */
  FN_EVENT_FAILED,     /**< attempt, status, final, message */
  FN_EVENT_RELEASED,   /**< attempt */
  FN_EVENT_LOST        /**< attempt: its worker was found dead */
} fn_sweep_event;

enum { FN_RECORD_SETS = 300 };

/** Numbers that an event does not have are 0, the value NaN, texts NULL. */
typedef struct fn_sweep_record {
  fn_sweep_event event;
  int64_t trial, attempt, epoch, status;
  double time;  /**< Unix, seconds */
  double value; /**< NaN: none (null in the file) */
  double seconds;
  bool final;
  const char *worker, *message;
  int set_count;
  const char *set[FN_RECORD_SETS];
} fn_sweep_record;

/** Append the line, its newline included. */
void fn_sweep_record_write(const fn_sweep_record *record, fn_text *line);
/** Read a line without its newline; its texts are unpacked in place and belong to it. False when
 *  the line is torn, damaged, or no event this version knows. */
bool fn_sweep_record_read(char *line, size_t length, fn_sweep_record *record);

#endif
