/** @file observer.h
 *  What a run tells the outside while it goes on; the report room listens. Rank 0 only.
 */
#ifndef FN_RUN_OBSERVER_H
#define FN_RUN_OBSERVER_H

#include "config/run.h"

typedef struct fn_step_event {
  int64_t step;                    /**< 1-based, whole run */
  int64_t epoch;                   /**< 1-based */
  int64_t epoch_step, epoch_steps; /**< 1-based within the epoch, and how many there are */
  int64_t epochs;                  /**< of the whole run */
  double loss;                     /**< mean over ranks of this step */
  double lr;
  double gradient_norm, gradient_first, gradient_last; /**< whole; first and last weight */
  double seconds;                           /**< wall time of the steps since the last event */
  int64_t samples;                          /**< all ranks, since the last event */
  double input_wait, exposed_communication; /**< seconds since the last event */
  size_t memory_peak;                       /**< bytes, this rank */
} fn_step_event;

typedef struct fn_epoch_event {
  int64_t epoch, epochs;              /**< 1-based, total */
  int64_t step;                       /**< steps so far */
  double train_loss, validation_loss; /**< validation NaN when not configured */
  double validation_accuracy, validation_auc, validation_f1; /**< NaN without classes */
  double lr;
  double seconds;
  bool best;
} fn_epoch_event;

/** Fields to draw: last sample of the last batch, and spectra over the batch. */
typedef struct fn_figure_event {
  const char *stage; /**< "train" or "val" */
  int64_t epoch;
  int spatial;
  int64_t batch; /**< samples */
  int64_t channels_in, channels_out;
  int64_t size[FN_MAX_SPATIAL];         /**< common window of the three */
  const float *input, *output, *target; /**< [batch, channels, size...], normalised units */
  double box_size;                      /**< of the window, or <= 0 */
} fn_figure_event;

/** Where a run stands after any step; counts as in fn_step_event. */
typedef struct fn_progress_event {
  int64_t step, epochs_done, epoch_step, epoch_steps;
} fn_progress_event;

typedef struct fn_observer {
  void *self;
  /** Before `start`: where the ranks are, a table as text. */
  void (*placement)(void *self, int ranks, const char *table);
  void (*start)(void *self, const fn_run *run, const char *summary, int64_t resumed_step);
  void (*progress)(void *self, const fn_progress_event *event); /**< after every step; be quick */
  void (*step)(void *self, const fn_step_event *event);         /**< every train.log_interval */
  void (*epoch)(void *self, const fn_epoch_event *event);
  void (*figure)(void *self, const fn_figure_event *event);
  void (*saved)(void *self, const char *path, double seconds);
  void (*finish)(void *self, fn_status status);
} fn_observer;

#endif
