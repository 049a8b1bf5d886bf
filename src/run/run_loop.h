/** @file run_loop.h
 *  Training, evaluation and inference of one run. Collective over the job.
 */
#ifndef FN_RUN_RUN_LOOP_H
#define FN_RUN_RUN_LOOP_H

#include "dist/dist.h"
#include "run/observer.h"

/** Train or go on training. FN_OK when all epochs are done, FN_INTERRUPTED when stopped by a signal
 *  (state saved), FN_ERR_DIVERGED, or another error agreed over all ranks. observer may be NULL. */
fn_status fn_train(const fn_run *run, fn_dist *dist, const fn_observer *observer);

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
