/** @file sweep.h
 *  The `sweep:` section of a file: which keys vary, how, what is watched, when trials stop early.
 */
#ifndef FN_CONFIG_SWEEP_H
#define FN_CONFIG_SWEEP_H

#include "config/run.h"

typedef enum fn_sweep_method {
  FN_SWEEP_GRID,   /**< every combination of points */
  FN_SWEEP_RANDOM, /**< independent draws */
  FN_SWEEP_SOBOL,  /**< a scrambled Sobol sequence: draws that fill the space evenly */
  FN_SWEEP_ASK     /**< trials come from `fieldnet sweep ask --set ...` */
} fn_sweep_method;

typedef enum fn_range_kind {
  FN_RANGE_CHOICES,
  FN_RANGE_UNIFORM,
  FN_RANGE_LOG,
  FN_RANGE_INTEGER,
  FN_RANGE_LOG_INTEGER
} fn_range_kind;

/** One key that varies. */
typedef struct fn_sweep_parameter {
  const char *path; /**< as after --set */
  fn_range_kind kind;
  double low, high;    /**< of ranges, both included */
  int64_t count;       /**< choices, or points of a range in a grid; 0: every integer */
  const char **choice; /**< as YAML on one line, shape [count] */
  int parent;          /**< parameter whose value decides whether this one exists; < 0: it does */
  fn_texts when;       /**< values of the parent with which it exists */
} fn_sweep_parameter;

typedef enum fn_stop_rule { FN_STOP_NONE, FN_STOP_MEDIAN, FN_STOP_ASHA } fn_stop_rule;

/** What one file says, checked; everything belongs to the arena. */
typedef struct fn_sweep {
  const char *path;     /**< the file as given */
  const char *run_path; /**< the run file, as a path from the working folder; may be `path` */
  const char *folder;   /**< of store and trials, as written (from the working folder) */
  fn_sweep_method method;
  uint64_t seed;
  int64_t trials; /**< settings of random and Sobol; grid: at most, 0: all */
  int seed_count; /**< of `seeds`; 0: the run's own seed, no repeats */
  const uint64_t *seeds;
  const char *metric; /**< train | validation (losses) | accuracy | auc | f1 (of validation) */
  bool maximize;
  int64_t attempts; /**< failures in a row, without a new epoch in between, that end a trial */
  double lease;     /**< seconds without a sign of life after which a worker counts as dead when
                       nothing else tells, see sweep_store.h */
  struct {
    fn_stop_rule rule;
    int64_t min_epochs; /**< no trial stops before it; asha: the first rung */
    double reduction;   /**< asha: of n trials at a rung, n / reduction go on */
    int64_t min_trials; /**< median: finished trials that are needed to judge */
  } stop;
  fn_texts set; /**< common settings "path=value", for all trials */
  int parameter_count;
  const fn_sweep_parameter *parameter;
  fn_arena *arena;
} fn_sweep;

/** Read the section: everything that can be said without the run and the trials. On FN_ERR_CONFIG
 *  *errors holds every complaint (malloc'ed), and *sweep what could be read, for whoever looks for
 *  more mistakes; NULL when the file cannot be read. Free its arena. fn_sweep_open() of
 *  run/sweep_plan.h is what users of sweeps want. */
fn_status fn_sweep_read(const char *path, fn_sweep **sweep, char **errors);
/** Whether a key accepts a value, by the table of keys; FN_ERR_CONFIG with what was expected. Keys
 *  below free-form mappings (model.options) accept anything here. */
fn_status fn_sweep_accepts(const char *path, const char *value);

/** Names as in files: "grid", "choices", "median", ... */
const char *fn_sweep_method_name(fn_sweep_method method);
const char *fn_range_kind_name(fn_range_kind kind);
const char *fn_stop_rule_name(fn_stop_rule rule);

#endif
