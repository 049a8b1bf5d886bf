/** @file ranges.h
 *  Sets of whole numbers written as ranges: "0-9,12,20-30".
 */
#ifndef FN_BASE_RANGES_H
#define FN_BASE_RANGES_H

#include <fieldnet/fieldnet.h>

#include "base/text.h"

/** Read ranges of numbers from 0 to `most`. `what` is for messages, e.g. "--seeds".
 *  @param[out] numbers  ascending, malloc'ed, shape [count]
 *  @return FN_ERR_CONFIG for anything else than ranges, a number given twice, or none at all */
fn_status fn_ranges_parse(const char *what, const char *text, int64_t most, int64_t **numbers,
                          int64_t *count);
/** The shortest ranges of ascending numbers. */
void fn_ranges_write(const int64_t *numbers, int64_t count, fn_text *text);

#endif
