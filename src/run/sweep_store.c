/* The store of a sweep: events in one file that is only appended to. */
#include "run/sweep_store.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "run/sweep_claims.h"
#include "run/sweep_record.h"

enum { PATH_SIZE = 4096, WORDS = 512 };
static const double patience = 120; // seconds; whoever has the lock keeps it for milliseconds

/** What is known of one trial, and what only the store needs of it. */
typedef struct entry {
  fn_trial_record known;
  double *values;
  int64_t room;          // of values
  int64_t epochs_before; // when it failed last; -1: never
  bool failed_for_good;
  char *worker, *message;
  char **set;
} entry;

struct fn_sweep_store {
  const fn_sweep *sweep;
  bool look;     // only look: nothing is made or written
  bool no_locks; // the file system has none
  int file;      // -1: none yet
  char path[PATH_SIZE];
  off_t read; // bytes taken in
  bool torn;  // the file ends inside a line
  int64_t damaged;
  int64_t planned; // trials of the plan
  entry *trial;    // [count]: the plan's, and those that events spoke of
  int64_t count;
  char *headline; // metric and direction of the file; NULL: not read yet
  fn_sweep_claims *claims;
};

/* ---- what events do ----------------------------------------------------------------------------
 */

static bool is_over(const entry *e) {
  return e->known.state == FN_TRIAL_FINISHED || e->known.state == FN_TRIAL_STOPPED ||
         e->known.state == FN_TRIAL_FAILED;
}

static fn_status copy_text(char **copy, const char *text) {
  free(*copy);
  *copy = text ? strdup(text) : NULL;
  FN_CHECK(*copy || !text, FN_ERR_MEMORY, "out of memory");
  return FN_OK;
}

static fn_status make_room(fn_sweep_store *store, int64_t count) {
  if (count <= store->count) return FN_OK;
  entry *trial = realloc(store->trial, sizeof *trial * (size_t)count);
  FN_CHECK(trial, FN_ERR_MEMORY, "no memory for %lld trials", (long long)count);
  store->trial = trial;
  for (int64_t i = store->count; i < count; i++)
    trial[i] = (entry){.known = {.id = i, .best = (double)NAN}, .epochs_before = -1};
  store->count = count;
  return FN_OK;
}

static fn_status keep_set(entry *e, const fn_sweep_record *r) {
  if (r->set_count == 0 || e->set) return FN_OK;
  e->set = calloc((size_t)r->set_count, sizeof *e->set);
  FN_CHECK(e->set, FN_ERR_MEMORY, "out of memory");
  for (int i = 0; i < r->set_count; i++)
    FN_TRY(copy_text(&e->set[i], r->set[i]));
  e->known.set_count = r->set_count;
  e->known.set = (const char *const *)e->set;
  return FN_OK;
}

static void find_best(const fn_sweep *sweep, entry *e) {
  e->known.best = (double)NAN;
  e->known.best_epoch = 0;
  for (int64_t i = 0; i < e->known.epochs; i++) {
    if (!fn_sweep_better(sweep, e->values[i], e->known.best)) continue;
    e->known.best = e->values[i];
    e->known.best_epoch = i + 1;
  }
}

enum { LONGEST = 10000000 }; // epochs: beyond, a number is damage that a CRC did not find

static fn_status keep_value(const fn_sweep *sweep, entry *e, int64_t epoch, double value) {
  if (epoch < 1 || epoch > LONGEST) return FN_OK;
  if (epoch > e->room) {
    const int64_t room = 2 * epoch + 16;
    double *values = realloc(e->values, sizeof *values * (size_t)room);
    FN_CHECK(values, FN_ERR_MEMORY, "no memory for %lld epochs", (long long)room);
    for (int64_t i = e->room; i < room; i++)
      values[i] = (double)NAN;
    e->values = values;
    e->room = room;
  }
  e->values[epoch - 1] = value;
  e->known.values = e->values;
  if (epoch > e->known.epochs) e->known.epochs = epoch;
  find_best(sweep, e);
  return FN_OK;
}

static void count_failure(const fn_sweep_store *store, entry *e) {
  const bool got_on = e->known.epochs > e->epochs_before;
  e->known.failures = got_on ? 1 : e->known.failures + 1;
  e->epochs_before = e->known.epochs;
  const bool enough = e->known.failures >= store->sweep->attempts;
  e->known.state = e->failed_for_good || enough ? FN_TRIAL_FAILED : FN_TRIAL_WAITING;
}

static fn_status apply_claim(entry *e, const fn_sweep_record *r) {
  if (is_over(e) || r->attempt <= e->known.attempts) return FN_OK; // said too late
  e->known.attempts = r->attempt;
  e->known.state = FN_TRIAL_RUNNING;
  e->known.claimed_at = e->known.reported_at = r->time;
  FN_TRY(copy_text(&e->worker, r->worker));
  e->known.worker = e->worker;
  return keep_set(e, r);
}

/** The end of an attempt without a result. */
static fn_status apply_end(const fn_sweep_store *store, entry *e, const fn_sweep_record *r) {
  if (r->event == FN_EVENT_LOST && r->attempt > e->known.attempts && !is_over(e)) {
    e->known.attempts = r->attempt; // a worker that died before it could say that it began
    return FN_OK;
  }
  if (r->attempt != e->known.attempts || e->known.state != FN_TRIAL_RUNNING) return FN_OK;
  e->known.state = FN_TRIAL_WAITING;
  if (r->event == FN_EVENT_RELEASED) return FN_OK;
  e->known.status = r->event == FN_EVENT_LOST ? FN_ERR_LOST : (int)r->status;
  e->failed_for_good = r->final;
  FN_TRY(copy_text(&e->message, r->message));
  e->known.message = e->message;
  count_failure(store, e);
  return FN_OK;
}

static fn_status apply_word(const fn_sweep_store *store, entry *e, const fn_sweep_record *r) {
  if (r->attempt != e->known.attempts || e->known.state != FN_TRIAL_RUNNING) return FN_OK;
  e->known.reported_at = r->time;
  if (r->event == FN_EVENT_REPORT) return keep_value(store->sweep, e, r->epoch, r->value);
  if (r->event == FN_EVENT_STOPPED) {
    e->known.state = FN_TRIAL_STOPPED;
    FN_TRY(copy_text(&e->message, r->message));
    e->known.message = e->message;
    return FN_OK;
  }
  e->known.state = FN_TRIAL_FINISHED;
  e->known.seconds = r->seconds;
  if (e->known.best_epoch == 0) e->known.best = r->value;
  return FN_OK;
}

static fn_status apply(fn_sweep_store *store, const fn_sweep_record *r) {
  if (r->event == FN_EVENT_SWEEP)
    return store->headline ? FN_OK : copy_text(&store->headline, r->message);
  if (r->trial < 0 || r->trial > LONGEST) return FN_OK;
  FN_TRY(make_room(store, r->trial + 1));
  entry *e = &store->trial[r->trial];
  switch (r->event) {
    case FN_EVENT_REGISTERED: return keep_set(e, r);
    case FN_EVENT_CLAIMED: return apply_claim(e, r);
    case FN_EVENT_FAILED:
    case FN_EVENT_RELEASED:
    case FN_EVENT_LOST: return apply_end(store, e, r);
    default: return apply_word(store, e, r);
  }
}

/* ---- the file ----------------------------------------------------------------------------------
 */

/** Take in whole lines of `bytes`; *used is how far. */
static fn_status take_lines(fn_sweep_store *store, char *bytes, size_t count, size_t *used) {
  *used = 0;
  for (char *end; (end = memchr(bytes + *used, '\n', count - *used));) {
    char *line = bytes + *used;
    const size_t length = (size_t)(end - line);
    *end = '\0';
    *used += length + 1;
    fn_sweep_record record;
    if (length == 0) continue;
    if (fn_sweep_record_read(line, length, &record))
      FN_TRY(apply(store, &record));
    else
      store->damaged++;
  }
  return FN_OK;
}

/** Read what is new. A line without its end is left for the next time: its writer may be at it. */
static fn_status read_new(fn_sweep_store *store) {
  struct stat state;
  FN_CHECK(fstat(store->file, &state) == 0, FN_ERR_CHECKPOINT, "%s: %s", store->path,
           strerror(errno));
  FN_CHECK(state.st_size >= store->read, FN_ERR_CHECKPOINT,
           "%s became shorter: it must only be appended to", store->path);
  const size_t size = (size_t)(state.st_size - store->read);
  store->torn = false;
  if (size == 0) return FN_OK;
  char *bytes = malloc(size + 1);
  FN_CHECK(bytes, FN_ERR_MEMORY, "no memory to read %s", store->path);
  size_t got = 0, used = 0;
  ssize_t length = 1;
  while (got < size && length > 0) {
    length = pread(store->file, bytes + got, size - got, store->read + (off_t)got);
    if (length < 0 && errno == EINTR)
      length = 1;
    else if (length > 0)
      got += (size_t)length;
  }
  fn_status status = FN_OK;
  if (length < 0)
    status = fn_error_set(FN_ERR_CHECKPOINT, __FILE__, __LINE__, "cannot read %s: %s", store->path,
                          strerror(errno));
  if (status == FN_OK) status = take_lines(store, bytes, got, &used);
  store->read += (off_t)used;
  store->torn = used < got;
  free(bytes);
  return status;
}

/** Wait for the lock of the file; nothing where there are no locks. */
static fn_status lock(fn_sweep_store *store) {
  if (store->no_locks) return FN_OK;
  const double begin = fn_clock();
  struct timespec pause = {.tv_nsec = 200000};
  for (;;) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(store->file, F_SETLK, &whole) == 0) return FN_OK;
    if (errno == ENOLCK || errno == ENOSYS || errno == ENOTSUP || errno == EINVAL) {
      store->no_locks = true;
      return FN_OK;
    }
    FN_CHECK(errno == EACCES || errno == EAGAIN || errno == EINTR, FN_ERR_CHECKPOINT,
             "cannot lock %s: %s", store->path, strerror(errno));
    FN_CHECK(fn_clock() - begin < patience, FN_ERR_CHECKPOINT,
             "%s was locked by another process for %g seconds", store->path, patience);
    nanosleep(&pause, NULL);
    if (pause.tv_nsec < 20000000) pause.tv_nsec *= 2;
  }
}

static void unlock(fn_sweep_store *store) {
  const struct flock whole = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
  if (!store->no_locks) fcntl(store->file, F_SETLK, &whole);
}

/** Lock and read: from here to end() nothing changes but by us. */
static fn_status begin(fn_sweep_store *store) {
  FN_CHECK(!store->look && store->file >= 0, FN_ERR_INTERNAL, "this store is only looked at");
  FN_TRY(lock(store));
  fn_status status = read_new(store);
  // With the lock in hand a line without its end is what a killed writer left. Close it now: it may
  // be whole but for the newline.
  if (status == FN_OK && store->torn && !store->no_locks && write(store->file, "\n", 1) == 1)
    status = read_new(store);
  if (status != FN_OK) unlock(store);
  return status;
}

static fn_status end(fn_sweep_store *store, fn_status status) {
  unlock(store);
  return status;
}

/** Write one event to the disk and take it in. Between begin() and end(). */
static fn_status append(fn_sweep_store *store, fn_sweep_record *record) {
  record->time = fn_time_now();
  fn_text line = {0};
  if (store->torn) fn_text_add(&line, "\n"); // close what a killed writer left
  fn_sweep_record_write(record, &line);
  if (line.incomplete) {
    fn_text_free(&line);
    FN_FAIL(FN_ERR_MEMORY, "out of memory for a line of %s", store->path);
  }
  const ssize_t written = write(store->file, line.data, line.length);
  const bool good = written == (ssize_t)line.length && fsync(store->file) == 0;
  fn_text_free(&line);
  // A part of a line is like that of a killed writer: the next one closes it.
  FN_CHECK(good, FN_ERR_CHECKPOINT, "cannot write %s: %s", store->path,
           written >= 0 ? "the disk is full?" : strerror(errno));
  return read_new(store);
}

fn_status fn_sweep_store_reload(fn_sweep_store *store) {
  if (!store->look) {
    FN_TRY(begin(store)); // over NFS the lock is what makes others' lines visible
    return end(store, FN_OK);
  }
  if (store->file >= 0) close(store->file);
  store->file = open(store->path, O_RDONLY | O_CLOEXEC);
  if (store->file < 0 && errno == ENOENT) return FN_OK;
  FN_CHECK(store->file >= 0, FN_ERR_CHECKPOINT, "cannot read %s: %s", store->path, strerror(errno));
  return read_new(store);
}

/* ---- opening -----------------------------------------------------------------------------------
 */

static void headline_of(const fn_sweep *sweep, char *text) {
  snprintf(text, WORDS, "%s %s, method %s", sweep->maximize ? "maximize" : "minimize",
           sweep->metric, sweep->method == FN_SWEEP_ASK ? "ask" : "planned");
}

/** Trials that have begun must be those of the plan. */
static fn_status check_trial(const fn_sweep_store *store, int64_t id) {
  const entry *e = &store->trial[id];
  if (!e->set || store->sweep->method == FN_SWEEP_ASK || id >= store->planned) return FN_OK;
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  fn_trial plan = {0};
  fn_status status = fn_sweep_trial_make(store->sweep, id, arena, &plan);
  bool same = status == FN_OK && plan.set_count == e->known.set_count;
  for (int i = 0; same && i < plan.set_count; i++)
    same = strcmp(plan.set[i], e->set[i]) == 0;
  if (status == FN_OK && !same)
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                          "%s: trial %lld has run with other settings than those of %s now (%s, "
                          "...): give the changed sweep another folder",
                          store->path, (long long)id, store->sweep->path,
                          e->known.set_count > 0 ? e->set[0] : "");
  fn_arena_destroy(arena);
  return status;
}

static fn_status check_sweep(const fn_sweep_store *store) {
  char ours[WORDS];
  headline_of(store->sweep, ours);
  FN_CHECK(!store->headline || strcmp(store->headline, ours) == 0, FN_ERR_CONFIG,
           "%s holds a sweep that is to %s, but %s is to %s: give it another folder", store->path,
           store->headline, store->sweep->path, ours);
  for (int64_t id = 0; id < store->count; id++)
    FN_TRY(check_trial(store, id));
  return FN_OK;
}

/** Make folders and file, and the first line. */
static fn_status make_file(fn_sweep_store *store, const char *claims) {
  if (fn_make_directories(claims) != FN_OK) return FN_ERR_CHECKPOINT;
  fn_sweep_claims_tidy(store->claims);
  store->file = open(store->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  FN_CHECK(store->file >= 0, FN_ERR_CHECKPOINT, "cannot open %s: %s", store->path, strerror(errno));
  FN_TRY(begin(store));
  if (store->no_locks)
    fn_log(FN_WARN,
           "%s: this file system has no locks; lines are still written whole where it appends "
           "atomically, as Lustre does",
           store->path);
  fn_status status = FN_OK;
  if (!store->headline) {
    char text[WORDS];
    headline_of(store->sweep, text);
    fn_sweep_record record = {.event = FN_EVENT_SWEEP, .message = text};
    status = append(store, &record);
  }
  return end(store, status);
}

static fn_status open_store(fn_sweep_store *s) {
  char claims[PATH_SIZE];
  const char *folder = s->sweep->folder;
  FN_CHECK(snprintf(s->path, sizeof s->path, "%s/trials.jsonl", folder) < PATH_SIZE - 256,
           FN_ERR_CONFIG, "path too long: %.100s...", folder);
  snprintf(claims, sizeof claims, "%.*s/claims", (int)(sizeof claims - 16), folder);
  s->planned = fn_sweep_trial_count(s->sweep);
  FN_TRY(make_room(s, s->planned));
  FN_TRY(fn_sweep_claims_create(claims, s->sweep->lease, &s->claims));
  FN_TRY(s->look ? fn_sweep_store_reload(s) : make_file(s, claims));
  return check_sweep(s);
}

static fn_status create(const fn_sweep *sweep, bool look, fn_sweep_store **store) {
  *store = NULL;
  fn_sweep_store *s = calloc(1, sizeof *s);
  FN_CHECK(s, FN_ERR_MEMORY, "out of memory");
  s->sweep = sweep;
  s->look = look;
  s->file = -1;
  const fn_status status = open_store(s);
  if (status != FN_OK)
    fn_sweep_store_close(s);
  else
    *store = s;
  return status;
}

fn_status fn_sweep_store_open(const fn_sweep *sweep, fn_sweep_store **store) {
  return create(sweep, false, store);
}

fn_status fn_sweep_store_look(const fn_sweep *sweep, fn_sweep_store **store) {
  return create(sweep, true, store);
}

void fn_sweep_store_close(fn_sweep_store *store) {
  if (!store) return;
  fn_sweep_claims_destroy(store->claims);
  if (store->file >= 0) close(store->file);
  for (int64_t i = 0; i < store->count; i++) {
    entry *e = &store->trial[i];
    for (int k = 0; k < e->known.set_count; k++)
      free(e->set[k]);
    free(e->set);
    free(e->values);
    free(e->worker);
    free(e->message);
  }
  free(store->trial);
  free(store->headline);
  free(store);
}

/* ---- asking ------------------------------------------------------------------------------------
 */

int64_t fn_sweep_store_count(const fn_sweep_store *store) {
  return store->sweep->method == FN_SWEEP_ASK ? store->count : store->planned;
}

const fn_trial_record *fn_sweep_store_trial(const fn_sweep_store *store, int64_t id) {
  return id >= 0 && id < fn_sweep_store_count(store) ? &store->trial[id].known : NULL;
}

int64_t fn_sweep_store_damaged(const fn_sweep_store *store) {
  return store->damaged + store->torn;
}

const fn_sweep *fn_sweep_store_sweep(const fn_sweep_store *store) {
  return store->sweep;
}

fn_status fn_sweep_store_trial_make(const fn_sweep_store *store, int64_t id, fn_arena *arena,
                                    fn_trial *trial) {
  if (store->sweep->method != FN_SWEEP_ASK)
    return fn_sweep_trial_make(store->sweep, id, arena, trial);
  const fn_trial_record *r = fn_sweep_store_trial(store, id);
  FN_CHECK(r && r->set_count > 0, FN_ERR_CONFIG, "%s: there is no trial %lld", store->path,
           (long long)id);
  return fn_sweep_trial_from(store->sweep, id, r->set, r->set_count, arena, trial);
}

bool fn_sweep_store_alive(fn_sweep_store *store, int64_t id) {
  const fn_trial_record *r = fn_sweep_store_trial(store, id);
  return r && r->state == FN_TRIAL_RUNNING && fn_sweep_claims_alive(store->claims, id, r->attempts);
}

/* ---- claiming ----------------------------------------------------------------------------------
 */

/** A claim that is wanted: by this process, or for somebody outside. */
typedef struct wish {
  bool outside;
  double lease;
} wish;

static fn_status record_claim(fn_sweep_store *store, int64_t id, int64_t attempt, const wish *w) {
  char worker[WORDS];
  fn_sweep_claims_worker(w->outside, worker, sizeof worker);
  fn_sweep_record record = {
      .event = FN_EVENT_CLAIMED, .trial = id, .attempt = attempt, .worker = worker};
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  fn_trial trial = {0};
  fn_status status = fn_sweep_store_trial_make(store, id, arena, &trial);
  if (status == FN_OK && trial.set_count > FN_RECORD_SETS)
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                          "a trial with %d settings is too large", trial.set_count);
  if (status == FN_OK) {
    record.set_count = trial.set_count;
    memcpy(record.set, trial.set, sizeof trial.set[0] * (size_t)trial.set_count);
    status = append(store, &record);
  }
  fn_arena_destroy(arena);
  return status;
}

static fn_status record_loss(fn_sweep_store *store, int64_t id, int64_t attempt) {
  fn_sweep_record record = {.event = FN_EVENT_LOST,
                            .trial = id,
                            .attempt = attempt,
                            .message = "its worker was found dead"};
  return append(store, &record);
}

/** Take one trial if it is to be had; *attempt 0 when not. */
static fn_status take(fn_sweep_store *store, int64_t id, const wish *w, int64_t *attempt) {
  *attempt = 0;
  while (!is_over(&store->trial[id])) {
    const int64_t newest = store->trial[id].known.attempts, next = newest + 1;
    if (store->trial[id].known.state == FN_TRIAL_RUNNING) {
      if (fn_sweep_claims_alive(store->claims, id, newest)) return FN_OK;
      FN_TRY(record_loss(store, id, newest));
      continue;
    }
    bool made;
    FN_TRY(fn_sweep_claims_make(store->claims, id, next, w->outside, w->lease, &made));
    if (!made) { // claimed, but not said so: it is about to be, or died before
      if (fn_sweep_claims_alive(store->claims, id, next)) return FN_OK;
      FN_TRY(record_loss(store, id, next));
      continue;
    }
    const fn_status status = record_claim(store, id, next, w);
    // Where there are no locks somebody may have been quicker.
    const bool ours =
        store->trial[id].known.attempts == next && store->trial[id].known.state == FN_TRIAL_RUNNING;
    if (status == FN_OK && ours)
      *attempt = next;
    else
      fn_sweep_claims_drop(store->claims, id, next);
    return status;
  }
  return FN_OK;
}

/** In which turn a trial is looked at, -1: never. Interrupted ones first, then those never tried,
 *  then those that failed before, then those that somebody seems to have. */
static int turn_of(const fn_trial_record *r) {
  if (r->state == FN_TRIAL_RUNNING) return 3;
  if (r->state != FN_TRIAL_WAITING) return -1;
  if (r->failures > 0) return 2;
  return r->attempts > 0 ? 0 : 1;
}

static fn_status take_next(fn_sweep_store *store, const wish *w, fn_claim_outcome *outcome,
                           fn_claim *claim) {
  const int64_t count = fn_sweep_store_count(store);
  *outcome = FN_CLAIM_NONE;
  for (int turn = 0; turn < 4; turn++) {
    for (int64_t id = 0; id < count; id++) {
      if (turn_of(&store->trial[id].known) != turn) continue;
      int64_t attempt;
      FN_TRY(take(store, id, w, &attempt));
      if (attempt > 0) {
        *outcome = FN_CLAIM_TAKEN;
        *claim = (fn_claim){.trial = id, .attempt = attempt};
        return FN_OK;
      }
      if (!is_over(&store->trial[id])) *outcome = FN_CLAIM_BUSY;
    }
  }
  return FN_OK;
}

static fn_status claim_one(fn_sweep_store *store, int64_t id, const wish *w,
                           fn_claim_outcome *outcome, fn_claim *claim) {
  FN_CHECK(fn_sweep_store_trial(store, id), FN_ERR_CONFIG, "%s: there is no trial %lld",
           store->sweep->path, (long long)id);
  int64_t attempt;
  FN_TRY(take(store, id, w, &attempt));
  *outcome = attempt > 0                  ? FN_CLAIM_TAKEN
             : is_over(&store->trial[id]) ? FN_CLAIM_NONE
                                          : FN_CLAIM_BUSY;
  *claim = (fn_claim){.trial = id, .attempt = attempt};
  return FN_OK;
}

static fn_status claim_any(fn_sweep_store *store, int64_t id, const wish *w,
                           fn_claim_outcome *outcome, fn_claim *claim) {
  *outcome = FN_CLAIM_NONE;
  *claim = (fn_claim){0};
  FN_TRY(begin(store));
  return end(store, id < 0 ? take_next(store, w, outcome, claim)
                           : claim_one(store, id, w, outcome, claim));
}

fn_status fn_sweep_claim_next(fn_sweep_store *store, fn_claim_outcome *outcome, fn_claim *claim) {
  return claim_any(store, -1, &(wish){0}, outcome, claim);
}

fn_status fn_sweep_claim_trial(fn_sweep_store *store, int64_t id, fn_claim_outcome *outcome,
                               fn_claim *claim) {
  FN_CHECK(id >= 0, FN_ERR_CONFIG, "expected a trial from 0, found %lld", (long long)id);
  return claim_any(store, id, &(wish){0}, outcome, claim);
}

fn_status fn_sweep_claim_outside(fn_sweep_store *store, int64_t id, double lease,
                                 fn_claim_outcome *outcome, fn_claim *claim) {
  return claim_any(store, id, &(wish){.outside = true, .lease = lease}, outcome, claim);
}

fn_status fn_sweep_claim_of(fn_sweep_store *store, int64_t id, fn_claim *claim) {
  static const char *const words[] = {"waiting", "running", "finished", "stopped", "failed"};
  FN_TRY(fn_sweep_store_reload(store));
  const fn_trial_record *r = fn_sweep_store_trial(store, id);
  FN_CHECK(r, FN_ERR_CONFIG, "%s: there is no trial %lld", store->sweep->path, (long long)id);
  FN_CHECK(r->state == FN_TRIAL_RUNNING, FN_ERR_CONFIG, "trial %lld is not running but %s",
           (long long)id, words[r->state]);
  *claim = (fn_claim){.trial = id, .attempt = r->attempts};
  return FN_OK;
}

/* ---- words of workers --------------------------------------------------------------------------
 */

static bool is_current(const fn_sweep_store *store, const fn_claim *claim) {
  const fn_trial_record *r = fn_sweep_store_trial(store, claim->trial);
  return r && r->state == FN_TRIAL_RUNNING && r->attempts == claim->attempt;
}

/** Whether a trial is over after an epoch anyway: there is nothing to save by stopping it. */
static bool is_last_epoch(const fn_sweep_store *store, int64_t id, int64_t epoch) {
  fn_arena *arena = fn_arena_create();
  fn_run *run = NULL;
  fn_trial trial;
  char *errors = NULL;
  const bool loaded =
      arena && fn_sweep_store_trial_make(store, id, arena, &trial) == FN_OK &&
      fn_sweep_trial_load(store->sweep, &trial, FN_COMMAND_OTHER, &run, &errors) == FN_OK;
  const bool last = loaded && epoch >= run->train.epochs;
  if (!loaded) fn_error_clear();
  free(errors);
  fn_run_destroy(run);
  fn_arena_destroy(arena);
  return last;
}

static fn_status report(fn_sweep_store *store, const fn_claim *claim, int64_t epoch, double value,
                        fn_report_answer *answer) {
  *answer = FN_REPORT_LOST;
  if (!is_current(store, claim)) return FN_OK;
  fn_sweep_record record = {.event = FN_EVENT_REPORT,
                            .trial = claim->trial,
                            .attempt = claim->attempt,
                            .epoch = epoch,
                            .value = value};
  FN_TRY(append(store, &record));
  if (!is_current(store, claim)) return FN_OK;
  fn_sweep_claims_touch(store->claims, claim->trial, claim->attempt);
  char why[WORDS];
  *answer = FN_REPORT_GO;
  if (!fn_sweep_should_stop(store, claim->trial, epoch, why, sizeof why) ||
      is_last_epoch(store, claim->trial, epoch))
    return FN_OK;
  *answer = FN_REPORT_STOP;
  record = (fn_sweep_record){.event = FN_EVENT_STOPPED,
                             .trial = claim->trial,
                             .attempt = claim->attempt,
                             .epoch = epoch,
                             .message = why};
  return append(store, &record);
}

fn_status fn_sweep_report(fn_sweep_store *store, const fn_claim *claim, int64_t epoch, double value,
                          fn_report_answer *answer) {
  FN_CHECK(epoch >= 1 && epoch <= LONGEST, FN_ERR_CONFIG, "expected an epoch from 1, found %lld",
           (long long)epoch);
  FN_TRY(begin(store));
  return end(store, report(store, claim, epoch, value, answer));
}

/** Record the end of an attempt, whatever it is, and give up the claim. */
static fn_status conclude(fn_sweep_store *store, const fn_claim *claim, fn_sweep_record *record,
                          bool *lost) {
  record->trial = claim->trial;
  record->attempt = claim->attempt;
  FN_TRY(begin(store));
  const bool current = is_current(store, claim);
  if (lost) *lost = !current;
  if (current && record->event == FN_EVENT_FINISHED) {
    const fn_trial_record *r = fn_sweep_store_trial(store, claim->trial);
    record->epoch = r->best_epoch;
    if (r->best_epoch > 0) record->value = r->best;
  }
  const fn_status status = end(store, current ? append(store, record) : FN_OK);
  // Not before it is on the disk: a claim without a lock is one whose worker died.
  if (status == FN_OK) fn_sweep_claims_drop(store->claims, claim->trial, claim->attempt);
  return status;
}

fn_status fn_sweep_finish(fn_sweep_store *store, const fn_claim *claim, double value,
                          double seconds, bool *lost) {
  fn_sweep_record record = {.event = FN_EVENT_FINISHED, .value = value, .seconds = seconds};
  return conclude(store, claim, &record, lost);
}

/** Failures that would only repeat themselves. */
static bool is_final(fn_status status) {
  return status == FN_ERR_CONFIG || status == FN_ERR_DATA || status == FN_ERR_DIVERGED ||
         status == FN_ERR_MEMORY || status == FN_ERR_VERIFY || status == FN_ERR_UNSUPPORTED;
}

fn_status fn_sweep_fail(fn_sweep_store *store, const fn_claim *claim, fn_status status,
                        const char *message, bool *lost) {
  fn_sweep_record record = {
      .event = FN_EVENT_FAILED, .status = status, .final = is_final(status), .message = message};
  return conclude(store, claim, &record, lost);
}

fn_status fn_sweep_release(fn_sweep_store *store, const fn_claim *claim, bool *lost) {
  fn_sweep_record record = {.event = FN_EVENT_RELEASED};
  return conclude(store, claim, &record, lost);
}

fn_status fn_sweep_register(fn_sweep_store *store, const char *const *set, int set_count,
                            int64_t *id) {
  FN_CHECK(store->sweep->method == FN_SWEEP_ASK, FN_ERR_CONFIG,
           "%s: values from outside need 'method: ask', this sweep plans its trials itself (method "
           "'%s')",
           store->sweep->path, fn_sweep_method_name(store->sweep->method));
  FN_CHECK(set_count <= FN_RECORD_SETS, FN_ERR_CONFIG, "%d settings are too many (at most %d)",
           set_count, FN_RECORD_SETS);
  FN_TRY(fn_sweep_check_values(store->sweep, set, set_count));
  FN_TRY(begin(store));
  *id = store->count;
  fn_sweep_record record = {.event = FN_EVENT_REGISTERED, .trial = *id, .set_count = set_count};
  memcpy(record.set, set, sizeof set[0] * (size_t)set_count);
  return end(store, append(store, &record));
}
