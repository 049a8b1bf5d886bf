/** @file run_loop.h
 *  Training, evaluation and inference of one run. Collective over the ranks of `dist`: the job, or
 *  a group of it.
 */
#ifndef FN_RUN_RUN_LOOP_H
#define FN_RUN_RUN_LOOP_H

#include "dist/dist.h"
#include "run/observer.h"

/** Train or go on training. FN_OK when all epochs are done, FN_INTERRUPTED when stopped by a signal
 *  or limit and FN_HALTED by a halt file (state saved), FN_ERR_DIVERGED, or another error agreed
 * over all ranks. observer may be NULL. */
fn_status fn_train(const fn_run *run, fn_dist *dist, const fn_observer *observer);

/** What whoever runs several trainings in one process asks of each. The same on all ranks; the
 *  functions are called on rank 0 only, and what they answer holds for all ranks. */
typedef struct fn_train_options {
  void *self;
  /** Latest fn_clock() to stop at, run.time_margin included; INFINITY: as the run says. */
  double deadline;
  /** Asked after every step: whether to stop here, resumably, as after a signal. NULL: never. */
  bool (*stop)(void *self);
  /** Told after every epoch, before its state is saved; *enough := true ends the run for good. An
   *  error ends it too. A run that was killed may tell an epoch again. NULL: nobody asks. */
  fn_status (*epoch)(void *self, const fn_epoch_event *event, bool *enough);
} fn_train_options;

typedef enum fn_train_end {
  FN_TRAIN_UNFINISHED, /**< stopped by request, or failed */
  FN_TRAIN_EPOCHS,     /**< all epochs done */
  FN_TRAIN_ENOUGH,     /**< by train.stop_patience or train.stop_threshold */
  FN_TRAIN_TOLD        /**< fn_train_options.epoch said so */
} fn_train_end;

/** Where a training ended; the same on all ranks. */
typedef struct fn_train_result {
  fn_train_end end;
  double best_metric; /**< of checkpoint.best; NaN: none */
  int64_t best_epoch;
  int64_t epochs, steps;              /**< done, whole run */
  double train_loss, validation_loss; /**< of the last epoch; NaN: none */
} fn_train_result;

/** fn_train with what `options` asks for, NULL: nothing. It can be called any number of times in a
 *  process, with other runs and other groups of ranks; what it took, it gives back. *result is
 *  filled also when training fails. */
fn_status fn_train_with(const fn_run *run, fn_dist *dist, const fn_observer *observer,
                        const fn_train_options *options, fn_train_result *result);

/** What a test found; only rank 0 gets values. */
typedef struct fn_test_result {
  int64_t files;
  char **name;        /**< [files] */
  double *loss;       /**< [files] mean loss in normalised units */
  double *physical;   /**< [files] the same after the target norms were undone */
  double *input_loss; /**< [files] physical loss of the input itself as output; NaN where shapes
                           differ */
  double mean_loss, mean_physical, mean_input_loss; /**< over all samples */
  int64_t bins;  /**< 0: no spectra (fields not covered, or no target) */
  double *k;     /**< [bins]; h/Mpc with test.box_size, else fundamental modes */
  double *modes; /**< [bins] */
  double *power_input, *power_output, *power_target; /**< [bins] mean over files; physical units */
  double *transfer, *correlation;                    /**< [bins] of output and target */
  double *input_transfer, *input_correlation;        /**< [bins] of input and target */
  bool has_input;  /**< the input has the target's channels and size: its columns are valid */
  int64_t written; /**< field files written */
} fn_test_result;
void fn_test_result_free(fn_test_result *result);

/** Evaluate on data.test with targets (`predict` false) or write outputs only (true). Fields are
 *  re-assembled and written below run->test.output. */
fn_status fn_evaluate(const fn_run *run, fn_dist *dist, bool predict, fn_test_result *result);

#endif
