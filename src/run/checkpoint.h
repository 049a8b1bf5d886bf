/** @file checkpoint.h
 *  States on disk: written by rank 0, complete, verified, swapped in by rename (design page,
 *  promises 4 and 5).
 */
#ifndef FN_RUN_CHECKPOINT_H
#define FN_RUN_CHECKPOINT_H

#include "learn/learn.h"

/** One stretch of an epoch: `ranks` ranks each took the first `batches` batches of `batch` samples
 * of their slice of what was left. */
typedef struct fn_stretch {
  int64_t ranks, batch, batches;
} fn_stretch;
enum { FN_STRETCHES_MOST = 32, FN_TARGET_FIELDS_MOST = 16 };

/** Where a run stands. */
typedef struct fn_progress {
  int64_t epoch;      /**< epochs completed */
  int64_t step;       /**< optimizer steps completed, whole run */
  int64_t epoch_step; /**< steps completed inside the running epoch; 0 at its start */
  int64_t samples;    /**< samples seen, whole run, all ranks */
  fn_stretch stretch[FN_STRETCHES_MOST]; /**< what of the running epoch's order is done */
  int stretches;                         /**< 0 at the start of an epoch */
  double loss_sum; /**< of the running epoch: sum of loss times samples, all ranks */
  double loss_count;
  double best_metric; /**< NaN: none yet */
  int64_t best_epoch;
  double loss_scale;                  /**< of an f16 run; 0: not scaled */
  int64_t scaled_steps;               /**< since it changed last */
  double train_loss, validation_loss; /**< of the last complete epoch; NaN: none */
  int target_fields; /**< what the network's output channels are, for inference without targets */
  int64_t target_field_channels[FN_TARGET_FIELDS_MOST];
} fn_progress;

/** Everything a state holds besides progress; pointers may be NULL where noted. */
typedef struct fn_state {
  fn_parameters *parameters;
  fn_optimizer *optimizer; /**< NULL: weights only */
  float *ema;              /**< [parameters->count] or NULL */
  fn_schedule *schedule;   /**< NULL: weights only */
  fn_progress *progress;
  const char *configuration; /**< resolved YAML; on load: set to a malloc'ed text when not NULL */
} fn_state;

/** Write `state` to folder/state_<index>.h5 and point folder/checkpoint.h5 to it: temporary name,
 *  flush, re-open and verify, rename, flush folder, swap symlink by rename. One rank only,
 *  which holds the folder's lock, for it removes what killed saves left.
 *  A failure leaves the old states and the link as they were. */
fn_status fn_checkpoint_save(const char *folder, int64_t index, const fn_state *state);
/** Load path (a state or the link). `strict`: missing and unexpected names are errors, else
 *  warnings. Sizes must match. */
fn_status fn_checkpoint_load(const char *path, bool strict, fn_state *state, char **configuration);
/** The newest state of the folder that is complete and undamaged: the link's, else the highest
 * index below it, with a warning naming what was refused. *path NULL when there is none at all;
 *  FN_ERR_CHECKPOINT when there are states but none is good. The text is malloc'ed. */
fn_status fn_checkpoint_find(const char *folder, char **path);
/** The newest good state of the folder with an index below `index`, with warnings naming what was
 *  refused; *path NULL when there is none. malloc'ed. */
fn_status fn_checkpoint_find_below(const char *folder, int64_t index, char **path);
/** Check structure and checksums of a state without loading it. */
fn_status fn_checkpoint_verify(const char *path);
/** Remove old states: keep the newest keep_last (0: all) up to the one that checkpoint.h5 points
 * to, those above it, which a run that went back will replace, those whose epoch is a multiple of
 *  keep_every, and whatever checkpoint.h5 and best.h5 point to. */
fn_status fn_checkpoint_retain(const char *folder, int64_t keep_last, int64_t keep_every);
/** Point folder/<link> to folder/<target> by rename. */
fn_status fn_checkpoint_link(const char *folder, const char *link, const char *target);
/** Bytes a state will take on disk. */
int64_t fn_checkpoint_bytes(const fn_parameters *parameters, int optimizer_arrays, bool ema);

#endif
