/** @file sweep_store.h
 *  What has become of the trials of a sweep: a store shared by all processes that work on it.
 *
 *  The store is a folder on a file system that all of them see:
 *
 *    trials.jsonl     one line of JSON per event, only ever appended to; each line carries its own
 *                     CRC-32, is written by one write(2) with O_APPEND and flushed to disk
 *    claims/7.2       second attempt at trial 7: made once with link(2), which only one process can
 *                     do, and kept; tells who the worker is; locked by the worker while it lives
 *    trial_0007/      the run folder of trial 7, used by all attempts: the next one resumes it
 *
 *  Why not SQLite: its locking and its write-ahead log are not to be trusted on NFS and Lustre
 *  (sqlite.org says so itself), where sweeps live; a few thousand lines need no index; and any
 *  tool reads lines of JSON. A process may be killed at any instruction: a line is there, or its
 *  torn part at the end of the file fails its CRC, is ignored, and is closed by the next writer's
 *  newline.
 *
 *  **Who may run a trial.** Whoever made the claim file of the newest attempt. Making it is
 *  exclusive on every file system, so nothing below can let two processes have the same attempt.
 *  The next attempt may only be made when the former's worker is dead:
 *    1. it said so itself (finished, failed, released), or
 *    2. nobody holds the lock on its claim file (fcntl, given back by the kernel however a process
 *       ends, also over NFS and Lustre with flock), and
 *       a. it was a process of this machine (boot id and process-id namespace compared) that is no
 *          more (process id and start time compared), or
 *       b. it was an earlier incarnation of the SLURM job (or array task) that runs this process:
 *          SLURM_RESTART_COUNT has grown since, or
 *       c. its claim file was not touched for `lease` seconds, by the clock of the file server. A
 *          thread of the store touches the claims that the process holds four times per lease.
 *  So a lock that is held always counts as alive, and a lock that is free is not believed alone:
 *  some file systems (Lustre mounted with localflock) grant locks per machine only. A worker that
 *  was cut off and comes back learns from its next report that it has lost the trial; the lock of
 *  the run folder (folder_lock.h) keeps the two from writing in it together.
 *
 *  One process opens a store once: closing any file of it gives up fcntl locks. Functions may be
 *  called by one thread at a time. Nothing is collective: with several ranks, one of them calls.
 */
#ifndef FN_RUN_SWEEP_STORE_H
#define FN_RUN_SWEEP_STORE_H

#include "run/observer.h"
#include "run/sweep_plan.h"

typedef enum fn_trial_state {
  FN_TRIAL_WAITING,  /**< nobody has it: never tried, released, or to be tried again */
  FN_TRIAL_RUNNING,  /**< claimed; whether its worker lives is asked when somebody wants it */
  FN_TRIAL_FINISHED, /**< for good */
  FN_TRIAL_STOPPED,  /**< by the rule, for good */
  FN_TRIAL_FAILED    /**< for good */
} fn_trial_state;

/** What the store knows of one trial. Lives until the next call that changes or reloads. */
typedef struct fn_trial_record {
  int64_t id;
  fn_trial_state state;
  int64_t attempts;     /**< claims so far */
  int64_t failures;     /**< ends by failure or death in a row without a new epoch in between */
  int64_t epochs;       /**< shape of values; the last epoch reported */
  const double *values; /**< metric by epoch 1 ... epochs; NaN where none was reported */
  double best;          /**< of values, or as told when finished; NaN: none */
  int64_t best_epoch;   /**< 0: none */
  double seconds;       /**< of the finished attempt; 0 otherwise */
  double claimed_at, reported_at; /**< Unix times of the last claim and the last word; 0: none */
  const char *worker;  /**< of the last claim: "host, process 123, job 77_3"; NULL: none */
  const char *message; /**< why it failed; NULL */
  int status;          /**< fn_status it failed with */
  int set_count;       /**< what it was claimed or registered with; 0: neither yet */
  const char *const *set;
} fn_trial_record;

typedef struct fn_sweep_store fn_sweep_store;

/** Open, or make, the store of a sweep in sweep->folder, and read it. `sweep` must outlive it.
 *  @return FN_ERR_CONFIG when the folder holds another sweep: another metric or direction, or
 *          trials that had other settings (raising `trials` of random and Sobol is fine);
 *          FN_ERR_CHECKPOINT when it cannot be read or written */
fn_status fn_sweep_store_open(const fn_sweep *sweep, fn_sweep_store **store);
/** For looking only: makes nothing, and a folder that is not there is an empty store. */
fn_status fn_sweep_store_look(const fn_sweep *sweep, fn_sweep_store **store);
/** Claims still held stay recorded as running and are given up as if the process had ended. */
void fn_sweep_store_close(fn_sweep_store *store);
/** Read what others have appended since. Every function below that decides does it first. */
fn_status fn_sweep_store_reload(fn_sweep_store *store);

/** The sweep it was opened for. */
const fn_sweep *fn_sweep_store_sweep(const fn_sweep_store *store);
/** Trials of the plan and those registered by ask, so far. */
int64_t fn_sweep_store_count(const fn_sweep_store *store);
/** NULL when there is no such trial. */
const fn_trial_record *fn_sweep_store_trial(const fn_sweep_store *store, int64_t id);
/** Lines that were torn or damaged and are ignored. */
int64_t fn_sweep_store_damaged(const fn_sweep_store *store);
/** The trial of a record: from the plan, or as registered. */
fn_status fn_sweep_store_trial_make(const fn_sweep_store *store, int64_t id, fn_arena *arena,
                                    fn_trial *trial);
/** Whether the worker of a running trial lives, as far as can be told from here. */
bool fn_sweep_store_alive(fn_sweep_store *store, int64_t id);

/* ---- working on trials ---------------------------------------------------------------------- */

typedef enum fn_claim_outcome {
  FN_CLAIM_TAKEN, /**< the trial is yours */
  FN_CLAIM_BUSY,  /**< none is free now, but others run and may yet give theirs back: ask again */
  FN_CLAIM_NONE   /**< every trial is finished, stopped or failed (of one: this one is) */
} fn_claim_outcome;

/** What a worker has in hand. */
typedef struct fn_claim {
  int64_t trial, attempt; /**< attempts count from 1; after the first, the run folder is resumed */
} fn_claim;

/** Take a trial: one that was given back, else the first never tried, else one that failed before,
 *  else one whose worker is dead. Locked until finish, fail, release or the end of the process. A
 * process may hold several. */
fn_status fn_sweep_claim_next(fn_sweep_store *store, fn_claim_outcome *outcome, fn_claim *claim);
/** The same for one trial. BUSY: its worker lives. FN_ERR_CONFIG when there is no such trial. */
fn_status fn_sweep_claim_trial(fn_sweep_store *store, int64_t id, fn_claim_outcome *outcome,
                               fn_claim *claim);
/** Claim for a worker that is no process of ours and tells results with `fieldnet sweep tell`: it
 *  counts as alive for `lease` seconds after its last word, 0: for ever. id < 0: the next. */
fn_status fn_sweep_claim_outside(fn_sweep_store *store, int64_t id, double lease,
                                 fn_claim_outcome *outcome, fn_claim *claim);
/** The claim under which words about a trial that came from outside are recorded: its newest.
 *  FN_ERR_CONFIG when the trial is not running. */
fn_status fn_sweep_claim_of(fn_sweep_store *store, int64_t id, fn_claim *claim);

typedef enum fn_report_answer {
  FN_REPORT_GO,
  FN_REPORT_STOP, /**< the rule ends the trial: it is recorded as stopped; leave, say no more */
  FN_REPORT_LOST  /**< the trial is somebody else's or over by now: leave at once, write nothing */
} fn_report_answer;

/** Record the metric after an epoch (1-based; one told before is replaced) and ask the rule. A
 *  value that is not finite is kept as "none" and stops nothing; nor is a trial stopped after the
 * last of its train.epochs. */
fn_status fn_sweep_report(fn_sweep_store *store, const fn_claim *claim, int64_t epoch, double value,
                          fn_report_answer *answer);
/** The trial is complete. Its result is the best of its reports; `value` stands for them when there
 *  are none (NaN: none). A claim that was lost is ignored and *lost is set (may be NULL). */
fn_status fn_sweep_finish(fn_sweep_store *store, const fn_claim *claim, double value,
                          double seconds, bool *lost);
/** It ended with a failure. Those that would only repeat themselves (configuration, data, diverged,
 *  memory, unsupported) end the trial; others when sweep->attempts of them came in a row. */
fn_status fn_sweep_fail(fn_sweep_store *store, const fn_claim *claim, fn_status status,
                        const char *message, bool *lost);
/** Give it back to be resumed by anybody (time limit, signal); counts as no failure. */
fn_status fn_sweep_release(fn_sweep_store *store, const fn_claim *claim, bool *lost);
/** Register a trial chosen outside (method: ask), checked by fn_sweep_check_values(). It waits. */
fn_status fn_sweep_register(fn_sweep_store *store, const char *const *set, int set_count,
                            int64_t *id);

/* ---- what is made of it: sweep_rules.c ------------------------------------------------------ */

/** The sweep's metric in what a run tells after an epoch; NaN: not measured. */
double fn_sweep_metric_value(const fn_sweep *sweep, const fn_epoch_event *event);
/** Whether a is better than b; anything is better than NaN, NaN than nothing. */
bool fn_sweep_better(const fn_sweep *sweep, double a, double b);
/** Whether the rule stops a trial that has just reported `epoch`, from all reports in the store.
 *  `why` says it in words when true. */
bool fn_sweep_should_stop(const fn_sweep_store *store, int64_t id, int64_t epoch, char *why,
                          size_t size);

#endif
