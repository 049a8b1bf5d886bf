/** @file session.h
 *  All that a training run holds on one rank; shared by the files of the training loop.
 */
#ifndef FN_RUN_SESSION_H
#define FN_RUN_SESSION_H

#include "dist/watchdog.h"
#include "run/checkpoint.h"
#include "run/engine.h"
#include "run/folder_lock.h"
#include "run/limits.h"
#include "run/observer.h"
#include "run/run_loop.h"
#include "run/saver.h"

/** Samples of this rank, in the order in which they were taken. */
typedef struct fn_sample_list {
  int64_t *sample;
  int64_t count, capacity;
  int64_t last; /**< how many are of the last batch; 0: there was no room to keep them */
} fn_sample_list;

/** A step that was put on its way and is not accounted for yet: on a device, while the next one is
 *  being put; else for a moment. */
typedef struct fn_flight {
  bool active;
  int64_t micro;   /**< batches */
  double samples;  /**< of all ranks */
  double loss;     /**< times samples; where it is known */
  int bad_rank;    /**< 1 + lowest rank with a loss that is not finite; 0: none */
  bool loss_known; /**< else the judge knows */
  double lr;
  bool due;            /**< to be reported */
  double start;        /**< fn_clock() */
  fn_sample_list list; /**< of all batches */
  const fn_loader *loader;
} fn_flight;

typedef struct fn_session {
  const fn_run *run;
  fn_dist *dist;
  const fn_observer *observer;     /**< NULL but on rank 0 */
  const fn_train_options *options; /**< never NULL */
  fn_folder_lock *lock;            /**< of the run folder; NULL but on rank 0 */
  fn_dataset *train, *validation;  /**< validation may be NULL */
  fn_engine *engine;
  fn_parameters *parameters;
  fn_optimizer *optimizer;
  fn_judge *judge;
  fn_flight flight;
  fn_sample_list coming; /**< samples of the step that is being put on its way */
  fn_reducer *reducer;
  fn_schedule schedule;
  fn_progress progress;
  float *ema;               /**< [parameters->count] on the host, or NULL */
  fn_mirror average;        /**< the same and its twin on a device; see session_arrays.h */
  fn_mirror accumulated;    /**< [parameters->count] or empty: gradients of micro-batches */
  fn_mirror loss_sum;       /**< one float on a device: loss of micro-batches */
  fn_mirror buffers_before; /**< [buffer_count] or empty: to undo a skipped step */
  fn_program *last_program; /**< training program of the last batch */
  int64_t epoch_steps;      /**< optimizer steps of a whole epoch with this job size */
  double last_save;         /**< fn_clock() when the last state was asked for */
  fn_saver *saver;          /**< NULL but on rank 0 */
  char *start;              /**< state of this folder that training went on from; NULL: none, or not
                                 rank 0 */
  /* since the last step event */
  double since_clock, since_wait;
  int64_t since_samples;
  double since_exposed;
  fn_status late; /**< this rank's failure after a step was agreed on; see fn_session_note */
  char late_message[512];
  bool stopping;
  bool finished;    /**< all epochs are done, or stopped early */
  fn_train_end end; /**< why finished */
  fn_limits limits;
  fn_watchdog *watchdog;                   /**< NULL: none */
  double longest_step, longest_validation; /**< seconds, this start */
  bool last_saving;                        /**< a save that fails from now on is an error */
  bool over;                               /**< no step comes any more */
} fn_session;

/** Ready to save; parameters, optimizer and the like must be there. Not collective. */
fn_status fn_session_prepare_saves(fn_session *session);
/** Save state_<epoch>.h5 (state_<epoch>.<step>.h5 is not used: an epoch's state is replaced as the
 *  epoch goes on), links, retention. Collective. While training goes on the file is written beside
 *  it, and a failed write is a warning; when it ends here, the state is on disk on return or the
 *  failure an error. */
fn_status fn_session_save(fn_session *session, bool is_best);
/** Training ends with `status`: wait for what is being written, write no more, and note whether
 * this start counts as one that died (starts.h). Not collective. */
void fn_session_end(fn_session *session, fn_status status);
/** Lock the run folder against other runs, on rank 0; before anything in it is read that this run
 *  builds on, or written. Collective. */
fn_status fn_session_lock(fn_session *session);
/** Load the state to start from, if any, on rank 0 and broadcast it. *resumed tells. Collective. */
fn_status fn_session_restore(fn_session *session, bool *resumed);
/** The state that training would start from; *path NULL for none, malloc'ed. What would refuse it
 *  refuses it here: train.fresh, a missing or damaged file, changed settings and, with `parameters`
 *  (NULL or the network's, which are overwritten), tensors that do not fit. Rank 0 only. */
fn_status fn_start_check(const fn_run *run, fn_parameters *parameters, char **path);

#endif
