/** @file html.h
 *  Pieces of an HTML page that is also well-formed XML. Inside the report room only.
 */
#ifndef FN_REPORT_HTML_H
#define FN_REPORT_HTML_H

#include "base/text.h"
#include "report/plot.h"

/** Words of anybody: escaped for text and attributes, invalid UTF-8 and control characters
 *  replaced. */
void fn_html_words(fn_text *html, const char *words);
/** "1.234" with `digits` digits, an en dash when not finite. */
void fn_html_number(fn_text *html, double value, int digits);
void fn_html_base64(fn_text *html, const void *bytes, size_t count);

/** <th> or <td> with words; those of numbers have class "n" (right-aligned). */
void fn_html_head(fn_text *html, const char *words);
void fn_html_head_number(fn_text *html, const char *words);
void fn_html_cell(fn_text *html, const char *words);
void fn_html_cell_number(fn_text *html, double value, int digits);
void fn_html_cell_count(fn_text *html, int64_t value);

enum { FN_HTML_COLOURS = 7 };
/** A small line in colour `colour`, dashed or not, as in the curves. */
void fn_html_swatch(fn_text *html, int colour, bool dashed);

/** Curves as a figure with an inline SVG, styled by the page's style sheet (light and dark). Long
 *  series are drawn as means of groups of points over a band from the smallest to the largest. Of
 *  `panel` the fields fixed_y and has_level hold too; markers are drawn where points are few. */
void fn_html_panel(fn_text *html, const fn_panel *panel);

/** Everything from the document's type to the heading; and its end. */
void fn_html_begin(fn_text *html, const char *title);
void fn_html_end(fn_text *html);

#endif
