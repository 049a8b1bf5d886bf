/** @file schema.h
 *  Every configuration key, registered once. Parser, help, man page, documentation, completion and
 *  the resolved configuration are all made from this table.
 */
#ifndef FN_CONFIG_SCHEMA_H
#define FN_CONFIG_SCHEMA_H

#include "config/run.h"

typedef enum fn_key_type {
  FN_KEY_TEXT,     /**< const char * */
  FN_KEY_CHOICE,   /**< const char *, one of `choices` */
  FN_KEY_FLAG,     /**< bool */
  FN_KEY_INTEGER,  /**< int64_t */
  FN_KEY_NATURAL,  /**< uint64_t */
  FN_KEY_REAL,     /**< double */
  FN_KEY_PAIR,     /**< double[2] */
  FN_KEY_INTEGERS, /**< fn_integers; one integer stands for a list of one */
  FN_KEY_TEXTS,    /**< fn_texts; one text stands for a list of one */
  FN_KEY_CHOICES,  /**< fn_texts, each one of `choices` */
  FN_KEY_MAPPING,  /**< fn_options *, free-form mapping */
  FN_KEY_LIST,     /**< fn_options *, free-form list */
} fn_key_type;

typedef struct fn_key {
  const char *path; /**< dotted */
  fn_key_type type;
  size_t offset;        /**< of the field in fn_run */
  const char *fallback; /**< default as YAML; "null": the value of `off`, or none */
  const char *derived;  /**< in words, when the default follows from other keys; else NULL */
  bool nullable;        /**< null may be written and means `off`, or none for texts and lists */
  double off;           /**< number that stands for null in fn_run */
  const char *off_text; /**< text that stands for null in fn_run; NULL: a NULL pointer */
  bool ranged, above;   /**< has a range; its lower end is excluded */
  bool below;           /**< the upper end is excluded */
  double min, max;
  const char *choices; /**< separated by | */
  const char *unit;    /**< "" when there is none */
  const char *meaning; /**< one sentence */
  const char *map2map; /**< the option of map2map it replaces, without dashes; may be NULL */
} fn_key;

typedef struct fn_section {
  const char *path;
  const char *meaning;
} fn_section;

int fn_key_count(void);
const fn_key *fn_key_at(int index);
/** NULL when there is no such key. */
const fn_key *fn_key_find(const char *path);
/** Index in the table of a key of the table. */
int fn_key_index(const fn_key *key);
int fn_section_count(void);
const fn_section *fn_section_at(int index);
const fn_section *fn_section_find(const char *path);

/** In words: "integer", "text or list of texts", ... */
const char *fn_key_type_text(const fn_key *key);
/** "one of a, b, c", "> 0", "0 to 1", or "" into buffer; returns buffer. */
char *fn_key_range_text(const fn_key *key, char *buffer, size_t size);
/** Default in words for documentation, "none" for null. */
const char *fn_key_default_text(const fn_key *key);
/** Path of the key meant by a word that is no key where it was written: a slip of the pen, a key of
 *  another section, or the name of a map2map option. `within` is the dotted path of the section, ""
 *  for the top level. NULL when nothing is near; else text in the arena. */
const char *fn_key_meant(fn_arena *arena, const char *within, const char *word);

#endif
