/** @file run_status.h
 *  How a run gets on, found out from its folder alone: for those who watch, on any machine that
 * sees the folder. Reads only, without MPI, and never waits for the run.
 */
#ifndef FN_REPORT_RUN_STATUS_H
#define FN_REPORT_RUN_STATUS_H

#include "base/arena.h"
#include "base/text.h"

typedef enum fn_run_state {
  FN_RUN_NEVER,    /**< the folder holds nothing of a run */
  FN_RUN_RUNNING,  /**< its process is there */
  FN_RUN_FINISHED, /**< all epochs done, or stopped early */
  FN_RUN_STOPPED,  /**< by request, with its state saved */
  FN_RUN_FAILED,   /**< it ended with an error */
  FN_RUN_DEAD,     /**< it never said that it ended, but its process is gone */
  FN_RUN_STATES
} fn_run_state;
/** "never started", "running", ... */
const char *fn_run_state_name(fn_run_state state);

/** Numbers are NaN, counts -1 and texts "" where nobody told. Times are seconds since 1970. */
typedef struct fn_run_status {
  const char *folder; /**< as given */
  fn_run_state state;
  char host[256], job[128], version[64];
  int64_t pid, ranks;
  int64_t epochs, epochs_done, step, epoch_step, epoch_steps; /**< as in observer.h */
  double loss;                                                /**< of the last logged step */
  double train_loss, validation_loss;                         /**< of the last whole epoch */
  double best_loss; /**< lowest validation loss of an epoch; training loss without validation */
  int64_t best_epoch;
  bool best_is_validation;
  double lr, samples_per_second;
  double started, updated, stepped; /**< this start; status.json; last step */
  double saved;                     /**< when the newest state was written */
  double eta;                       /**< seconds to the last epoch's end; NaN unless running */
  int64_t warnings, exit_code;      /**< of this start */
  char message[1024];               /**< the last warning or error */
  char note[256];                   /**< what seems wrong now, e.g. "no step for 20 min" */
} fn_run_status;

/** Look at one folder at time `now`.
 *  @return FN_OK also when there is nothing; FN_ERR_DATA when a file cannot be read: then *status
 *          holds what the others tell */
fn_status fn_run_status_read(const char *folder, double now, fn_run_status *status);

/** Whether `folder` itself holds what a run writes. */
bool fn_is_run_folder(const char *folder);

/** Folders of runs, in memory of `arena`. */
typedef struct fn_run_list {
  char **folder;
  int count;
} fn_run_list;

/** `path` itself when it is the folder of a run, or when none lies below it; else the runs up to
 *  three levels below it (the trials of a sweep), numbers in names in numerical order. Appends.
 *  @return FN_ERR_CONFIG when path is not a folder */
fn_status fn_run_list_add(fn_arena *arena, const char *path, fn_run_list *list);

/* ---- for people, and for programs ------------------------------------------------------------ */

/** A table with a line per run, with colours for a terminal if `colours`. */
void fn_run_status_table(const fn_run_status *status, int count, double now, bool colours,
                         fn_text *text);
/** One JSON object on one line. */
void fn_run_status_json(const fn_run_status *status, double now, fn_text *text);
/** Nothing failed, nothing died. */
bool fn_run_status_fine(const fn_run_status *status, int count);

#endif
