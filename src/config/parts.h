/** @file parts.h
 *  Inside the room only: a run description together with where its values were written.
 */
#ifndef FN_CONFIG_PARTS_H
#define FN_CONFIG_PARTS_H

#include "config/schema.h"
#include "config/tree.h"

/** A key that is not in the table; remembered for comparisons with states of other versions. */
typedef struct fn_unknown {
  struct fn_unknown *next;
  const char *path;
  const char *meant; /**< key or section it was taken for, full path; NULL: nothing near */
} fn_unknown;

/** What is behind every fn_run: the description is the first member. */
typedef struct fn_run_parts {
  fn_run run;
  fn_options *root;
  const fn_options **node; /**< where each key was written, shape [fn_key_count()]; NULL: default */
  const fn_source *file;
  fn_unknown *unknown;
  bool
      guess; /**< read misspelt keys as what they seem to mean, to find more mistakes in one pass */
  fn_problems problems;
} fn_run_parts;

static inline const fn_run_parts *fn_parts_of(const fn_run *run) {
  return (const fn_run_parts *)(const void *)run;
}

/** A description without values yet, and the text it is to be read from, copied; NULL without
 *  memory. Its arena owns it. */
fn_run_parts *fn_parts_create(const char *name, const char *text, size_t size);

/** Node of a key that was written with a value; NULL when absent or null. */
const fn_options *fn_parts_given(const fn_run_parts *parts, const char *key);

/** Store the default of a key. */
void fn_key_set_default(fn_run_parts *parts, const fn_key *key);
/** Convert a node to the key's field; problems are added and the default stays. */
void fn_key_convert(fn_run_parts *parts, const fn_key *key, const fn_options *node);
/** The field of a key as a tree that fn_key_convert would read back to the same value. */
fn_options *fn_key_node(fn_arena *arena, const fn_key *key, const fn_run *run);

/** Fill in defaults that follow from other keys. */
void fn_run_derive(fn_run_parts *parts);
/** What must be present for a command, and what must agree between keys. */
void fn_run_check_required(fn_run_parts *parts, fn_command command);
void fn_run_check_consistent(fn_run_parts *parts);
/** The same for data.kind, seeds and slices. */
void fn_run_check_data_kind(fn_run_parts *parts);
/** A problem at the value of a key when it was written, else at its section, else of the whole
 *  file. */
void fn_run_problem(fn_run_parts *parts, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** YAML of all keys. */
fn_status fn_run_resolve(fn_run_parts *parts);
/** One node on one line. */
fn_status fn_tree_write(const fn_options *node, fn_text *text);

#endif
