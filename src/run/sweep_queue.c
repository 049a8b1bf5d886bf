/* Trials handed out to groups of ranks. Words between a leader and rank 0 are one request and one
 * answer, both of fixed size; nothing is ever sent unasked, so that no message is left over. */
#include "run/sweep_queue.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "dist/mpi_status.h"
#include "run/signals.h"

enum { TAG_REQUEST = 1, TAG_ANSWER = 2, MESSAGE = 2048 };
/** Seconds: between two looks for requests; between two questions whether to stop; between two
 *  questions for a trial when none is free; after one whose folder is in use. */
static const double LOOK = 0.002, ASK = 0.5, PAUSE = 0.5, PAUSE_LOST = 5;

typedef enum request_kind { TAKE, REPORT, STOPPING, END, LEAVE } request_kind;

typedef struct request {
  request_kind kind;
  int group;
  bool stop;
  fn_claim claim;
  int64_t epoch;
  double value, seconds;
  int status;
  char message[MESSAGE];
} request;

typedef struct answer {
  int status; /**< of the queue; what follows counts when it is FN_OK */
  char message[MESSAGE];
  bool stop;
  fn_report_answer report;
  fn_sweep_task task;
} answer;

struct fn_sweep_queue {
  const fn_sweep *sweep;
  const fn_dist *dist;
  const fn_sweep_queue_options *options;
  MPI_Comm comm;
  bool opened;  // by all ranks: else some may have no comm, and nobody waits for the others
  bool direct;  /**< this process speaks to the store itself */
  double asked; /**< fn_clock() of the last question whether to stop */
  bool stopping;

  // Of the process that speaks to the store; under lock.
  pthread_mutex_t lock;
  fn_sweep_store *store; /**< NULL elsewhere */
  fn_status broken;      /**< the store failed: everybody leaves */
  char why[MESSAGE];
  bool stop;
  bool halted;      /**< by a halt file, the sweep's or a trial's */
  double looked;    /**< for the halt file */
  int in_hand;      /**< trials of this job that run */
  double busy_from; /**< since when nothing was free while others ran it; 0: not so */
  int left;         /**< remote groups that have left */

  bool threaded;
  pthread_t thread;
};

static void pause_seconds(double seconds) {
  const struct timespec time = {.tv_sec = (time_t)seconds,
                                .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))};
  nanosleep(&time, NULL);
}

/* ---- what the groups are told, by the process with the store ----------------------------------
 */

/** "on ranks 2-3 ", "" in a job of one rank. */
static const char *group_text(const fn_sweep_queue *q, int group, char *text, size_t size) {
  const int first = group * q->options->group;
  text[0] = '\0';
  if (q->dist->size == 1) return text;
  if (q->options->group == 1)
    snprintf(text, size, " on rank %d", first);
  else
    snprintf(text, size, " on ranks %d-%d", first, first + q->options->group - 1);
  return text;
}

/** A line about a trial; the log belongs to the trial that this rank trains. */
__attribute__((format(printf, 3, 4))) static void say(const fn_sweep_queue *q, int64_t trial,
                                                      const char *format, ...) {
  if (q->options->quiet) return;
  char line[4096];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  printf("trial %lld %s\n", (long long)trial, line);
  fflush(stdout);
}

/** The halt file stays: all tasks of an array are to find it, those in the queue too. */
static bool stop_wanted(fn_sweep_queue *q) {
  if (q->stop) return true;
  bool halt = false;
  if (fn_clock() - q->looked >= ASK) {
    q->looked = fn_clock();
    halt = fn_file_exists(q->options->halt);
    if (halt && !q->options->quiet)
      printf("%s found: the sweep stops here. Remove it, and start again to go on\n",
             q->options->halt);
  }
  q->halted |= halt;
  q->stop = halt || fn_stop_requested();
  return q->stop;
}

static bool is_over(const fn_trial_record *record) {
  return record && record->state != FN_TRIAL_WAITING && record->state != FN_TRIAL_RUNNING;
}

/** The first of the named trials that is free. */
static fn_status claim_named(fn_sweep_queue *q, fn_claim_outcome *outcome, fn_claim *claim) {
  bool busy = false;
  for (int64_t i = 0; i < q->options->trial_count; i++) {
    FN_TRY(fn_sweep_claim_trial(q->store, q->options->trials[i], outcome, claim));
    if (*outcome == FN_CLAIM_TAKEN) return FN_OK;
    busy |= *outcome == FN_CLAIM_BUSY;
  }
  *outcome = busy ? FN_CLAIM_BUSY : FN_CLAIM_NONE;
  return FN_OK;
}

/** Trials that run somewhere, as the store knows. */
static int64_t running(const fn_sweep_queue *q) {
  int64_t count = 0;
  for (int64_t id = 0; id < fn_sweep_store_count(q->store); id++) {
    const fn_trial_record *record = fn_sweep_store_trial(q->store, id);
    count += record && record->state == FN_TRIAL_RUNNING;
  }
  return count;
}

/** Nothing is free. What this job itself has in hand is no reason to wait: a group that gives its
 *  trial back takes it again. What others have may fall to us if they are dead, which shows within
 *  the lease; workers that live finish by themselves. */
static fn_sweep_order wait_or_leave(fn_sweep_queue *q) {
  if (running(q) <= q->in_hand) return FN_SWEEP_LEAVE;
  if (q->busy_from <= 0) q->busy_from = fn_clock();
  return fn_clock() - q->busy_from < 1.5 * q->sweep->lease ? FN_SWEEP_WAIT : FN_SWEEP_LEAVE;
}

static void tell_start(const fn_sweep_queue *q, int group, const fn_claim *claim,
                       const fn_trial *trial) {
  char where[64], attempt[32] = "";
  fn_text values = {0};
  for (int i = 0; i < trial->set_count; i++)
    fn_text_add(&values, " %s", trial->set[i]);
  if (claim->attempt > 1)
    snprintf(attempt, sizeof attempt, ", attempt %lld", (long long)claim->attempt);
  say(q, claim->trial, "starts%s%s:%s", group_text(q, group, where, sizeof where), attempt,
      values.data ? values.data : " the run as it is");
  fn_text_free(&values);
}

/** The values of a trial that only the store knows. */
static fn_status pack_values(const fn_trial *trial, fn_sweep_task *task) {
  size_t length = 0;
  for (int i = 0; i < trial->set_count; i++) {
    const size_t more = strlen(trial->set[i]) + 1;
    FN_CHECK(length + more <= sizeof task->set, FN_ERR_CONFIG,
             "the values of trial %lld are too long", (long long)trial->id);
    memcpy(task->set + length, trial->set[i], more);
    length += more;
  }
  task->set_count = trial->set_count;
  return FN_OK;
}

static fn_status describe_task(fn_sweep_queue *q, int group, fn_sweep_task *task) {
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  fn_trial trial;
  fn_status status = fn_sweep_store_trial_make(q->store, task->claim.trial, arena, &trial);
  if (status == FN_OK) tell_start(q, group, &task->claim, &trial);
  if (status == FN_OK && task->claim.trial >= fn_sweep_trial_count(q->sweep))
    status = pack_values(&trial, task);
  fn_arena_destroy(arena);
  return status;
}

static fn_status take(fn_sweep_queue *q, const request *r, fn_sweep_task *task) {
  task->order = FN_SWEEP_LEAVE;
  task->set_count = 0;
  q->stop |= r->stop;
  if (stop_wanted(q)) return FN_OK;
  fn_claim_outcome outcome;
  if (q->options->trial_count > 0)
    FN_TRY(claim_named(q, &outcome, &task->claim));
  else
    FN_TRY(fn_sweep_claim_next(q->store, &outcome, &task->claim));
  if (outcome == FN_CLAIM_BUSY) task->order = wait_or_leave(q);
  if (outcome != FN_CLAIM_TAKEN) return FN_OK;
  task->order = FN_SWEEP_WORK;
  q->busy_from = 0;
  q->in_hand++;
  return describe_task(q, r->group, task);
}

static fn_status report(fn_sweep_queue *q, const request *r, fn_report_answer *result) {
  FN_TRY(fn_sweep_report(q->store, &r->claim, r->epoch, r->value, result));
  if (*result == FN_REPORT_GO) return FN_OK;
  q->in_hand--;
  if (*result == FN_REPORT_STOP)
    say(q, r->claim.trial, "stopped early after epoch %lld: %s %.6g", (long long)r->epoch,
        q->sweep->metric, r->value);
  else
    say(q, r->claim.trial, "is in other hands by now: this job leaves it");
  return FN_OK;
}

static void tell_finished(const fn_sweep_queue *q, const request *r) {
  char duration[32];
  fn_text_duration(r->seconds, duration, sizeof duration);
  const fn_trial_record *record = fn_sweep_store_trial(q->store, r->claim.trial);
  if (record && record->best_epoch > 0)
    say(q, r->claim.trial, "finished in %s: %s %.6g in epoch %lld", duration, q->sweep->metric,
        record->best, (long long)record->best_epoch);
  else
    say(q, r->claim.trial, "finished in %s: no %s", duration, q->sweep->metric);
}

static fn_status end(fn_sweep_queue *q, const request *r) {
  bool lost = false;
  q->in_hand--;
  if (r->status == FN_OK) {
    FN_TRY(fn_sweep_finish(q->store, &r->claim, r->value, r->seconds, &lost));
    if (!lost) tell_finished(q, r);
  } else if (r->status == FN_ERR_LOST) {
    FN_TRY(fn_sweep_release(q->store, &r->claim, &lost));
    say(q, r->claim.trial, "is given back: %s", r->message);
  } else if (fn_is_stop((fn_status)r->status)) {
    FN_TRY(fn_sweep_release(q->store, &r->claim, &lost));
    q->halted |= r->status == FN_HALTED;
    q->stop = true; // whoever stops one trial wants all of them to stop
    say(q, r->claim.trial, "%s after epoch %lld, to be gone on with%s",
        r->status == FN_HALTED ? "halted" : "stopped", (long long)r->epoch,
        r->status == FN_HALTED ? " when the halt file in its folder is removed" : "");
  } else {
    FN_TRY(fn_sweep_fail(q->store, &r->claim, (fn_status)r->status, r->message, &lost));
    const fn_trial_record *record = fn_sweep_store_trial(q->store, r->claim.trial);
    say(q, r->claim.trial, "failed%s: %s", is_over(record) ? "" : ", to be tried again",
        r->message);
  }
  if (lost) say(q, r->claim.trial, "was in other hands: its end here does not count");
  return FN_OK;
}

static fn_status serve(fn_sweep_queue *q, const request *r, answer *a) {
  switch (r->kind) {
    case TAKE: return take(q, r, &a->task);
    case REPORT: return report(q, r, &a->report);
    case END: return end(q, r);
    case STOPPING:
    case LEAVE: break;
  }
  return FN_OK;
}

/** One request, in the process with the store. */
static void answer_to(fn_sweep_queue *q, const request *r, answer *a) {
  pthread_mutex_lock(&q->lock);
  if (q->broken == FN_OK) {
    q->broken = serve(q, r, a);
    if (q->broken != FN_OK) snprintf(q->why, sizeof q->why, "%s", fn_error_message());
  }
  a->stop = stop_wanted(q) || q->broken != FN_OK;
  a->status = r->kind == LEAVE ? FN_OK : q->broken;
  memcpy(a->message, q->why, sizeof a->message);
  pthread_mutex_unlock(&q->lock);
}

/* ---- the thread of rank 0 ---------------------------------------------------------------------
 */

/** Answer one waiting request. */
static bool answer_one(fn_sweep_queue *q, request *r, answer *a) {
  int waiting = 0;
  MPI_Status from;
  MPI_Iprobe(MPI_ANY_SOURCE, TAG_REQUEST, q->comm, &waiting, &from);
  if (!waiting) return false;
  MPI_Recv(r, sizeof *r, MPI_BYTE, from.MPI_SOURCE, TAG_REQUEST, q->comm, MPI_STATUS_IGNORE);
  memset(a, 0, sizeof *a);
  answer_to(q, r, a);
  if (r->kind == LEAVE) q->left++;
  MPI_Send(a, sizeof *a, MPI_BYTE, from.MPI_SOURCE, TAG_ANSWER, q->comm);
  return true;
}

static void *answer_all(void *self) {
  fn_sweep_queue *q = self;
  const int others = q->dist->size / q->options->group - 1;
  request *r = malloc(sizeof *r);
  answer *a = malloc(sizeof *a);
  while (r && a && q->left < others)
    if (!answer_one(q, r, a)) pause_seconds(LOOK);
  if (!r || !a) {
    fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for the trials' queue");
    fn_dist_abort(q->dist, FN_ERR_MEMORY); // the other groups would wait for ever
  }
  free(r);
  free(a);
  return NULL;
}

static fn_status start_thread(fn_sweep_queue *q) {
  const int reason = fn_thread_start(&q->thread, answer_all, q);
  q->threaded = reason == 0;
  FN_CHECK(q->threaded, FN_ERR_INTERNAL, "cannot start the thread that hands out trials: %s",
           strerror(reason));
  return FN_OK;
}

/* ---- leaders ------------------------------------------------------------------------------------
 */

/** Completed without keeping the core busy: rank 0 may be writing to a slow disk. */
static fn_status await(MPI_Request *pending, const char *doing) {
  int done = 0;
  for (double pause = 1e-4; !done; pause = fmin(2 * pause, 0.01)) {
    FN_TRY_MPI(MPI_Test(pending, &done, MPI_STATUS_IGNORE), doing);
    if (!done) pause_seconds(pause);
  }
  return FN_OK;
}

static fn_status ask(fn_sweep_queue *q, const request *r, answer *a) {
  memset(a, 0, sizeof *a);
  if (q->direct) {
    answer_to(q, r, a);
  } else {
    MPI_Request pending;
    FN_TRY_MPI(MPI_Irecv(a, sizeof *a, MPI_BYTE, 0, TAG_ANSWER, q->comm, &pending),
               "asking for a trial");
    FN_TRY_MPI(MPI_Send(r, sizeof *r, MPI_BYTE, 0, TAG_REQUEST, q->comm), "asking for a trial");
    FN_TRY(await(&pending, "asking for a trial"));
  }
  q->stopping |= a->stop;
  q->asked = fn_clock();
  if (a->status == FN_OK) return FN_OK;
  // Of another thread or rank; its place is in the message already.
  fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "%s", a->message);
  return (fn_status)a->status;
}

static request *new_request(const fn_sweep_queue *q, request_kind kind, const fn_claim *claim) {
  request *r = calloc(1, sizeof *r);
  if (!r) return NULL;
  *r = (request){.kind = kind, .group = q->dist->rank / q->options->group};
  if (claim) r->claim = *claim;
  return r;
}

static fn_status ask_and_free(fn_sweep_queue *q, request *r, answer **result) {
  answer *a = r ? malloc(sizeof *a) : NULL;
  fn_status status =
      a ? ask(q, r, a)
        : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory to ask for a trial");
  free(r);
  if (result && status == FN_OK)
    *result = a;
  else
    free(a);
  return status;
}

fn_status fn_sweep_queue_take(fn_sweep_queue *queue, bool stop, fn_sweep_task *task) {
  answer *a;
  request *r = new_request(queue, TAKE, NULL);
  if (r) r->stop = stop;
  task->order = FN_SWEEP_LEAVE;
  FN_TRY(ask_and_free(queue, r, &a));
  *task = a->task;
  free(a);
  if (task->order == FN_SWEEP_WAIT) pause_seconds(PAUSE);
  return FN_OK;
}

fn_status fn_sweep_queue_report(fn_sweep_queue *queue, const fn_claim *claim, int64_t epoch,
                                double value, fn_report_answer *result) {
  answer *a;
  request *r = new_request(queue, REPORT, claim);
  if (r) r->epoch = epoch;
  if (r) r->value = value;
  FN_TRY(ask_and_free(queue, r, &a));
  *result = a->report;
  free(a);
  return FN_OK;
}

bool fn_sweep_queue_stopping(fn_sweep_queue *queue) {
  if (queue->stopping || fn_clock() - queue->asked < ASK) return queue->stopping;
  // A queue that fails tells so at the next report; here it is a reason to stop.
  if (ask_and_free(queue, new_request(queue, STOPPING, NULL), NULL) != FN_OK)
    queue->stopping = true;
  return queue->stopping;
}

fn_status fn_sweep_queue_end(fn_sweep_queue *queue, const fn_claim *claim, fn_status status,
                             const fn_train_result *result, double seconds) {
  request *r = new_request(queue, END, claim);
  if (r) {
    r->status = status;
    r->epoch = result->epochs;
    r->value = result->best_metric;
    r->seconds = seconds;
    if (status != FN_OK) snprintf(r->message, sizeof r->message, "%s", fn_error_message());
  }
  if (status == FN_ERR_LOST) pause_seconds(PAUSE_LOST);
  return ask_and_free(queue, r, NULL);
}

void fn_sweep_queue_leave(fn_sweep_queue *queue) {
  if (queue->direct) return;
  if (ask_and_free(queue, new_request(queue, LEAVE, NULL), NULL) == FN_ERR_MEMORY)
    fn_dist_abort(queue->dist, FN_ERR_MEMORY); // rank 0 would wait for ever
}

/* ---- all ranks ----------------------------------------------------------------------------------
 */

static fn_status open_store(fn_sweep_queue *q) {
  if (!q->direct) return FN_OK;
  FN_TRY(fn_sweep_store_open(q->sweep, &q->store));
  for (int64_t i = 0; i < q->options->trial_count; i++)
    FN_CHECK(fn_sweep_store_trial(q->store, q->options->trials[i]), FN_ERR_CONFIG,
             "%s: there is no trial %lld: it has %lld", q->sweep->path,
             (long long)q->options->trials[i], (long long)fn_sweep_store_count(q->store));
  return FN_OK;
}

fn_status fn_sweep_queue_create(const fn_sweep *sweep, const fn_dist *dist,
                                const fn_sweep_queue_options *options, fn_sweep_queue **queue) {
  *queue = NULL;
  fn_sweep_queue *q = calloc(1, sizeof *q);
  FN_TRY(fn_dist_agree(dist, q ? FN_OK
                               : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory")));
  const bool leader = dist->rank % options->group == 0;
  *q = (fn_sweep_queue){.sweep = sweep, .dist = dist, .options = options, .comm = MPI_COMM_NULL};
  q->direct = dist->rank == 0 || (leader && !dist->threads_multiple);
  pthread_mutex_init(&q->lock, NULL);
  fn_status status = fn_mpi_status(MPI_Comm_dup(dist->comm, &q->comm), "making the trials' queue");
  if (status == FN_OK) status = open_store(q);
  status = fn_dist_agree(dist, status);
  // Last: once it runs, it waits for the groups to leave.
  const bool serves = dist->rank == 0 && dist->size > options->group && dist->threads_multiple;
  if (status == FN_OK) status = fn_dist_agree(dist, serves ? start_thread(q) : FN_OK);
  q->opened = status == FN_OK;
  *queue = q;
  return status;
}

/** Trials that this job was to do, by what became of them. */
typedef struct counts {
  int64_t all, finished, stopped, failed, left, best;
  const fn_trial_record *last_failed;
} counts;

static bool is_wanted(const fn_sweep_queue *q, int64_t id) {
  for (int64_t i = 0; i < q->options->trial_count; i++)
    if (q->options->trials[i] == id) return true;
  return q->options->trial_count == 0;
}

static counts count_trials(const fn_sweep_queue *q) {
  counts c = {.best = -1};
  for (int64_t id = 0; id < fn_sweep_store_count(q->store); id++) {
    const fn_trial_record *record = fn_sweep_store_trial(q->store, id);
    if (!record || !is_wanted(q, id)) continue;
    c.all++;
    c.finished += record->state == FN_TRIAL_FINISHED;
    c.stopped += record->state == FN_TRIAL_STOPPED;
    c.failed += record->state == FN_TRIAL_FAILED;
    c.left += !is_over(record);
    if (record->state == FN_TRIAL_FAILED) c.last_failed = record;
    if (record->state != FN_TRIAL_FINISHED || record->best_epoch == 0) continue;
    if (c.best < 0 ||
        fn_sweep_better(q->sweep, record->best, fn_sweep_store_trial(q->store, c.best)->best))
      c.best = id;
  }
  return c;
}

static void print_summary(const fn_sweep_queue *q, const counts *c) {
  if (q->options->quiet) return;
  printf("%lld trial%s: %lld finished, %lld stopped early, %lld failed, %lld left\n",
         (long long)c->all, c->all == 1 ? "" : "s", (long long)c->finished, (long long)c->stopped,
         (long long)c->failed, (long long)c->left);
  if (c->best >= 0 && c->all > 1)
    printf("best so far: trial %lld, %s %.6g\n", (long long)c->best, q->sweep->metric,
           fn_sweep_store_trial(q->store, c->best)->best);
  fflush(stdout);
}

/** Rank 0: the status of the whole. */
static fn_status conclude(fn_sweep_queue *q) {
  if (q->broken != FN_OK) {
    fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "%s", q->why);
    return q->broken;
  }
  FN_TRY(fn_sweep_store_reload(q->store));
  const counts c = count_trials(q);
  print_summary(q, &c);
  // One that was named is waited for; of a whole sweep, what others have is theirs.
  if (c.left > 0 && q->halted) return FN_HALTED;
  if (c.left > 0 && (q->stop || q->options->trial_count > 0)) return FN_INTERRUPTED;
  // Where not one trial came to anything, something is wrong with all of them.
  if (c.all == 0 || c.failed < c.all) return FN_OK;
  const fn_trial_record *record = c.last_failed;
  char all[64] = "";
  if (c.all > 1) snprintf(all, sizeof all, "all %lld trials failed: ", (long long)c.all);
  fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "%strial %lld failed: %s", all,
               (long long)record->id, record->message ? record->message : "nobody knows why");
  return record->status != FN_OK ? (fn_status)record->status : FN_ERR_INTERNAL;
}

static fn_status wait_for_all(const fn_sweep_queue *q) {
  MPI_Request pending;
  FN_TRY_MPI(MPI_Ibarrier(q->comm, &pending), "waiting for the other groups");
  return await(&pending, "waiting for the other groups");
}

void fn_sweep_queue_destroy(fn_sweep_queue *queue, fn_status *status) {
  fn_sweep_queue *q = queue;
  if (!q) return;
  if (q->threaded) pthread_join(q->thread, NULL);
  fn_status mine = q->opened ? wait_for_all(q) : FN_OK;
  if (mine == FN_OK && *status == FN_OK && q->dist->rank == 0) mine = conclude(q);
  *status = fn_dist_agree(q->dist, *status != FN_OK ? *status : mine);
  fn_sweep_store_close(q->store);
  if (q->comm != MPI_COMM_NULL) MPI_Comm_free(&q->comm);
  pthread_mutex_destroy(&q->lock);
  free(q);
}
