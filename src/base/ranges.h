/** @file ranges.h
 *  Sets of whole numbers as people write them: "0-1499,1600".
 */
#ifndef FN_BASE_RANGES_H
#define FN_BASE_RANGES_H

#include <fieldnet/fieldnet.h>

#include "base/text.h"

/** Ascending, no number twice; zero-initialise, free with fn_ranges_free. */
typedef struct fn_ranges {
  int64_t count;
  int64_t *value; /**< shape [count] */
} fn_ranges;

/** Add the numbers of `text`, numbers and ranges "first-last" with commas between. FN_ERR_CONFIG:
 *  it says something else, a range runs backwards, or a number is there twice (also from earlier
 *  calls); the set is as before then. */
fn_status fn_ranges_add(fn_ranges *ranges, const char *text);
/** Smallest number of both sets; -1: they have none in common. */
int64_t fn_ranges_common(const fn_ranges *a, const fn_ranges *b);
void fn_ranges_free(fn_ranges *ranges);

/** A set in one text, from 0 to `most`. `what` is for messages, e.g. "--seeds".
 *  @param[out] numbers  ascending, malloc'ed, shape [count]
 *  @return FN_ERR_CONFIG for anything else than ranges, a number given twice, or none at all */
fn_status fn_ranges_parse(const char *what, const char *text, int64_t most, int64_t **numbers,
                          int64_t *count);
/** Append ascending numbers as they would be written: "0-3,5". */
void fn_ranges_write(const int64_t *numbers, int64_t count, fn_text *text);

#endif
