/** @file options.h
 *  Free-form YAML kept as a tree: `model.options`, `model.layers`, `loss.options`.
 *
 *  A node is a scalar, a list or a mapping. Every node knows where it was written, and every lookup
 *  is recorded, so that keys nobody asked for can be reported after the network has been built.
 *  The simple getters of authors, fn_option_real() and its siblings, are declared in network.h;
 * they accept any mapping node (NULL: no options, every getter returns its fallback). Not
 * thread-safe: lookups write the record of what was asked.
 */
#ifndef FN_CONFIG_OPTIONS_H
#define FN_CONFIG_OPTIONS_H

#include <fieldnet/network.h>

#include "base/text.h"

typedef enum fn_options_kind {
  FN_OPTIONS_SCALAR,
  FN_OPTIONS_LIST,
  FN_OPTIONS_MAPPING
} fn_options_kind;

/** NULL counts as an empty mapping. */
fn_options_kind fn_options_get_kind(const fn_options *node);
/** Children of a list or mapping; 0 for a scalar and for NULL. */
int fn_options_count(const fn_options *node);
/** Child `index` of a list or mapping, counted as used; NULL outside [0, count). */
const fn_options *fn_options_at(const fn_options *node, int index);
/** Key of child `index` of a mapping; NULL for lists and outside [0, count). */
const char *fn_options_key_at(const fn_options *node, int index);
/** Child of a mapping by key, counted as used; NULL when absent or null. */
const fn_options *fn_options_get(const fn_options *node, const char *key);
/** Text of a scalar as written, quotes removed; NULL for lists and mappings. */
const char *fn_options_scalar(const fn_options *node);
/** "file:line:column" of the node, for messages; "" for NULL. Lives as long as the tree. */
const char *fn_options_where(const fn_options *node);

/** Typed values of one node; FN_ERR_CONFIG with position, what was expected and what was found. */
fn_status fn_options_as_real(const fn_options *node, double *value);
fn_status fn_options_as_integer(const fn_options *node, int64_t *value);
fn_status fn_options_as_flag(const fn_options *node, bool *value);
/** *value lives as long as the tree. */
fn_status fn_options_as_text(const fn_options *node, const char **value);
/** One integer, or a list of at most `limit` integers; *count is what was written. */
fn_status fn_options_as_integers(const fn_options *node, int limit, int64_t *value, int *count);

/** Append to `report` one message per key below `options` that nobody asked for (with the nearest
 *  key that was asked for), and per value that a getter found to be of the wrong type or out of
 *  range: "file:line:column: message". Returns the number of messages. A subtree whose root nobody
 *  used is reported once, at its root. */
int fn_options_unused(const fn_options *options, fn_text *report);
/** FN_ERR_CONFIG with the messages of fn_options_unused(), FN_OK when there are none. */
fn_status fn_options_check(const fn_options *options);

/** Parse a YAML text (for tests and for commands); `name` stands for the file in messages. The
 *  result is a root to be freed with fn_options_destroy(); NULL for an empty text. */
fn_status fn_options_from_text(const char *text, const char *name, fn_options **options);
/** Only for roots made by fn_options_from_text(); those of a run belong to the run. */
void fn_options_destroy(fn_options *options);

#endif
