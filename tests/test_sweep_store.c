/* The store of a sweep: who gets a trial, what survives, and when trials are stopped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/system.h"
#include "run/sweep_store.h"

static char folder[64];

/* ---- sweeps ------------------------------------------------------------------------------------
 */

/* A sweep over optimizer.lr with `trials` settings, and what a test adds to its section. */
static fn_sweep *make_sweep(int trials, const char *more) {
  char path[128], text[2048];
  snprintf(path, sizeof path, "%s/run.yaml", folder);
  const char *run = "model: {name: vnet}\ntrain: {batch: 2}\noptimizer: {lr: 1e-4}\n"
                    "data: {train: {input: a, target: b}, validation: {input: c, target: d}}\n";
  assert_int_equal(fn_file_replace(path, run, strlen(run)), FN_OK);
  snprintf(path, sizeof path, "%s/sweep.yaml", folder);
  snprintf(text, sizeof text,
           "run: run.yaml\nsweep:\n  method: random\n  trials: %d\n  folder: %s/store\n"
           "  parameters: {optimizer.lr: {log: [1.e-5, 1.e-1]}}\n%s",
           trials, folder, more);
  assert_int_equal(fn_file_replace(path, text, strlen(text)), FN_OK);
  fn_sweep *sweep;
  char *errors;
  const fn_status status = fn_sweep_open(path, &sweep, &errors);
  if (status != FN_OK) print_error("%s\n%s", fn_error_message(), errors ? errors : "");
  assert_int_equal(status, FN_OK);
  return sweep;
}

static fn_sweep_store *open_store(const fn_sweep *sweep) {
  fn_sweep_store *store;
  const fn_status status = fn_sweep_store_open(sweep, &store);
  if (status != FN_OK) print_error("%s\n", fn_error_message());
  assert_int_equal(status, FN_OK);
  return store;
}

static fn_claim take(fn_sweep_store *store) {
  fn_claim claim;
  fn_claim_outcome outcome;
  assert_int_equal(fn_sweep_claim_next(store, &outcome, &claim), FN_OK);
  assert_int_equal(outcome, FN_CLAIM_TAKEN);
  return claim;
}

static fn_claim_outcome outcome_of(fn_sweep_store *store) {
  fn_claim claim;
  fn_claim_outcome outcome;
  assert_int_equal(fn_sweep_claim_next(store, &outcome, &claim), FN_OK);
  return outcome;
}

static fn_report_answer tell(fn_sweep_store *store, const fn_claim *claim, int64_t epoch,
                             double value) {
  fn_report_answer answer;
  assert_int_equal(fn_sweep_report(store, claim, epoch, value, &answer), FN_OK);
  return answer;
}

static void finish(fn_sweep_store *store, const fn_claim *claim) {
  bool lost;
  assert_int_equal(fn_sweep_finish(store, claim, (double)NAN, 1, &lost), FN_OK);
  assert_false(lost);
}

static void store_path(char *path, size_t size) {
  snprintf(path, size, "%s/store/trials.jsonl", folder);
}

/* Let the last touch of a claim file be so many seconds ago. */
static void touched_before(const char *claim, int64_t seconds) {
  char path[128];
  snprintf(path, sizeof path, "%s/store/claims/%s", folder, claim);
  struct stat now;
  assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0);
  assert_int_equal(stat(path, &now), 0);
  now.st_mtim.tv_sec -= (time_t)seconds;
  assert_int_equal(utimensat(AT_FDCWD, path, (struct timespec[]){now.st_mtim, now.st_mtim}, 0), 0);
}

/* Run `work` in a process of its own; its exit status. */
static int in_child(const fn_sweep *sweep, int (*work)(const fn_sweep *sweep)) {
  fflush(NULL);
  const pid_t child = fork();
  if (child == 0) _exit(work(sweep));
  int status;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int set_up(void **state) {
  (void)state;
  snprintf(folder, sizeof folder, "/tmp/fieldnet_store_XXXXXX");
  return mkdtemp(folder) ? 0 : 1;
}

static int tear_down(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  return system(command);
}

/* ---- one worker --------------------------------------------------------------------------------
 */

static void trials_pass_through_their_states(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(4, "");
  fn_sweep_store *store = open_store(sweep);
  const fn_claim a = take(store), b = take(store), c = take(store), d = take(store);
  assert_int_equal(a.trial, 0);
  assert_int_equal(d.trial, 3);
  assert_int_equal(a.attempt, 1);
  assert_int_equal(outcome_of(store), FN_CLAIM_BUSY);
  assert_int_equal(tell(store, &a, 1, 0.5), FN_REPORT_GO);
  assert_int_equal(tell(store, &a, 2, 0.25), FN_REPORT_GO);
  assert_int_equal(tell(store, &a, 3, 0.375), FN_REPORT_GO);
  finish(store, &a);
  assert_int_equal(fn_sweep_fail(store, &b, FN_ERR_DIVERGED, "loss is not \"finite\"\n", NULL),
                   FN_OK);
  assert_int_equal(fn_sweep_release(store, &c, NULL), FN_OK);
  assert_int_equal(fn_sweep_fail(store, &d, FN_ERR_LOST, "rank gone", NULL), FN_OK);
  fn_sweep_store_close(store);

  // All of it is in the file.
  assert_int_equal(fn_sweep_store_look(sweep, &store), FN_OK);
  const fn_trial_record *r = fn_sweep_store_trial(store, 0);
  assert_int_equal(r->state, FN_TRIAL_FINISHED);
  assert_true(r->best == 0.25 && r->best_epoch == 2 && r->epochs == 3 && r->values[2] == 0.375);
  r = fn_sweep_store_trial(store, 1);
  assert_int_equal(r->state, FN_TRIAL_FAILED);
  assert_int_equal(r->status, FN_ERR_DIVERGED);
  assert_string_equal(r->message, "loss is not \"finite\"\n");
  assert_int_equal(fn_sweep_store_trial(store, 2)->state, FN_TRIAL_WAITING);
  assert_int_equal(fn_sweep_store_trial(store, 2)->failures, 0);
  assert_int_equal(fn_sweep_store_trial(store, 3)->state, FN_TRIAL_WAITING);
  assert_int_equal(fn_sweep_store_trial(store, 3)->failures, 1);
  assert_null(fn_sweep_store_trial(store, 4));
  fn_sweep_store_close(store);

  // The interrupted one first, then the one that failed; nothing else is left.
  store = open_store(sweep);
  fn_claim next = take(store);
  assert_int_equal(next.trial, 2);
  assert_int_equal(next.attempt, 2);
  finish(store, &next);
  next = take(store);
  assert_int_equal(next.trial, 3);
  finish(store, &next);
  assert_int_equal(outcome_of(store), FN_CLAIM_NONE);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

/* Three failures in a row end a trial, unless it got on in between. */
static void failures_in_a_row_end_a_trial(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(1, "  attempts: 3\n");
  fn_sweep_store *store = open_store(sweep);
  static const int epochs[] = {0, 0, 1, 1, 1};
  for (int i = 0; i < 5; i++) {
    const fn_claim claim = take(store);
    assert_int_equal(claim.attempt, i + 1);
    if (epochs[i]) tell(store, &claim, epochs[i], 1);
    assert_int_equal(fn_sweep_fail(store, &claim, FN_ERR_INTERNAL, "again", NULL), FN_OK);
  }
  assert_int_equal(outcome_of(store), FN_CLAIM_NONE);
  assert_int_equal(fn_sweep_store_trial(store, 0)->state, FN_TRIAL_FAILED);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

static void another_sweep_is_refused(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(3, "");
  fn_sweep_store *store = open_store(sweep);
  take(store);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
  // More trials are fine, another seed is not once a trial has begun.
  sweep = make_sweep(9, "");
  store = open_store(sweep);
  assert_int_equal(fn_sweep_store_count(store), 9);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
  static const char *const changes[] = {"  seed: 5\n", "  metric: train\n",
                                        "  direction: maximize\n"};
  for (int i = 0; i < 3; i++) {
    sweep = make_sweep(3, changes[i]);
    assert_int_equal(fn_sweep_store_open(sweep, &store), FN_ERR_CONFIG);
    assert_non_null(strstr(fn_error_message(), "another folder"));
    fn_sweep_destroy(sweep);
  }
}

/* ---- several workers ---------------------------------------------------------------------------
 */

static int claim_and_die(const fn_sweep *sweep) {
  fn_sweep_store *store;
  fn_claim claim;
  fn_claim_outcome outcome;
  if (fn_sweep_store_open(sweep, &store) != FN_OK) return 1;
  if (fn_sweep_claim_next(store, &outcome, &claim) != FN_OK) return 2;
  fn_report_answer answer;
  if (claim.attempt == 1 && fn_sweep_report(store, &claim, 1, 3, &answer) != FN_OK) return 3;
  kill(getpid(), SIGKILL);
  return 4;
}

/* A killed worker's trial is resumed at once by others of its machine, and by nobody while it
 * lives, whatever the lease. */
static void dead_workers_are_replaced(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(1, "  attempts: 2\n  lease: 0.05\n");
  fn_sweep_store *store = open_store(sweep);
  fn_sweep_store_close(store);
  assert_int_equal(in_child(sweep, claim_and_die), 128 + SIGKILL);
  store = open_store(sweep);
  assert_int_equal(fn_sweep_store_trial(store, 0)->state, FN_TRIAL_RUNNING);
  assert_false(fn_sweep_store_alive(store, 0));
  const fn_claim claim = take(store);
  assert_int_equal(claim.attempt, 2);
  assert_true(fn_sweep_store_alive(store, 0));
  const fn_trial_record *r = fn_sweep_store_trial(store, 0);
  assert_int_equal(r->failures, 1);
  assert_true(r->epochs == 1 && r->values[0] == 3);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

static int expect_busy(const fn_sweep *sweep) {
  fn_sweep_store *store;
  fn_claim claim;
  fn_claim_outcome outcome;
  if (fn_sweep_store_open(sweep, &store) != FN_OK) return 1;
  if (!fn_sweep_store_alive(store, 0)) return 2;
  if (fn_sweep_claim_next(store, &outcome, &claim) != FN_OK) return 3;
  return outcome == FN_CLAIM_BUSY ? 0 : 4;
}

static void the_living_keep_their_trials(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(1, "  lease: 0.05\n");
  fn_sweep_store *store = open_store(sweep);
  const fn_claim claim = take(store);
  nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
  assert_int_equal(in_child(sweep, expect_busy), 0);
  // Also when the process looked at other trials meanwhile, which must not lose the lock.
  assert_int_equal(outcome_of(store), FN_CLAIM_BUSY);
  assert_int_equal(in_child(sweep, expect_busy), 0);
  assert_int_equal(tell(store, &claim, 1, 1), FN_REPORT_GO);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

/* What a claim file of another machine looks like from here: no lock can be trusted, the lease
 * decides. And of an earlier incarnation of our own job: dead. */
static void other_machines_have_a_lease(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(1, "  lease: 600\n");
  fn_sweep_store *store = open_store(sweep);
  fn_claim claim = take(store);
  fn_sweep_store_close(store);
  char path[128];
  snprintf(path, sizeof path, "%s/store/claims/0.1", folder);
  static const char away[] = "host elsewhere\nboot 0123\nspace pid:[1]\nprocess 1\nstart 1\n"
                             "job 77_3\nrestart 0\noutside 0\nlease 0\n";
  assert_int_equal(fn_file_replace(path, away, strlen(away)), FN_OK);
  store = open_store(sweep);
  assert_int_equal(outcome_of(store), FN_CLAIM_BUSY);
  // The lease is measured from the last touch, by the clock of the files.
  touched_before("0.1", 300);
  assert_int_equal(outcome_of(store), FN_CLAIM_BUSY);
  touched_before("0.1", 601);
  claim = take(store);
  assert_int_equal(claim.attempt, 2);
  fn_sweep_store_close(store);

  snprintf(path, sizeof path, "%s/store/claims/0.2", folder);
  assert_int_equal(fn_file_replace(path, away, strlen(away)), FN_OK);
  setenv("SLURM_ARRAY_JOB_ID", "77", 1);
  setenv("SLURM_ARRAY_TASK_ID", "3", 1);
  store = open_store(sweep);
  assert_int_equal(outcome_of(store), FN_CLAIM_BUSY); // the same incarnation
  setenv("SLURM_RESTART_COUNT", "1", 1);
  claim = take(store);
  assert_int_equal(claim.attempt, 3);
  unsetenv("SLURM_ARRAY_JOB_ID");
  unsetenv("SLURM_ARRAY_TASK_ID");
  unsetenv("SLURM_RESTART_COUNT");
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

/* A worker that was cut off and replaced is told so and changes nothing. */
static void the_replaced_are_told(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(1, "");
  fn_sweep_store *store = open_store(sweep);
  const fn_claim mine = take(store);
  tell(store, &mine, 1, 5);
  assert_int_equal(fn_sweep_release(store, &mine, NULL), FN_OK);
  const fn_claim next = take(store);
  assert_int_equal(tell(store, &mine, 2, 1), FN_REPORT_LOST);
  bool lost = false;
  assert_int_equal(fn_sweep_finish(store, &mine, 0, 1, &lost), FN_OK);
  assert_true(lost);
  assert_int_equal(fn_sweep_store_trial(store, 0)->state, FN_TRIAL_RUNNING);
  assert_int_equal(fn_sweep_store_trial(store, 0)->epochs, 1);
  finish(store, &next);
  assert_int_equal(tell(store, &next, 2, 1), FN_REPORT_LOST);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

enum { WORKERS = 6, TRIALS = 60 };

/* Take trials until none is left; each leaves a mark that only one can leave. */
static int work_all(const fn_sweep *sweep) {
  fn_sweep_store *store;
  if (fn_sweep_store_open(sweep, &store) != FN_OK) return 1;
  for (;;) {
    fn_claim claim;
    fn_claim_outcome outcome;
    if (fn_sweep_claim_next(store, &outcome, &claim) != FN_OK) return 2;
    if (outcome == FN_CLAIM_NONE) break;
    if (outcome == FN_CLAIM_BUSY) {
      nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
      continue;
    }
    char path[128];
    snprintf(path, sizeof path, "%s/mark_%d", folder, (int)claim.trial);
    const int mark = open(path, O_CREAT | O_EXCL | O_WRONLY, 0666);
    if (mark < 0) return 3;
    close(mark);
    fn_report_answer answer;
    if (fn_sweep_report(store, &claim, 1, (double)claim.trial, &answer) != FN_OK) return 4;
    if (fn_sweep_finish(store, &claim, 0, 1, NULL) != FN_OK) return 5;
  }
  fn_sweep_store_close(store);
  return 0;
}

static void each_trial_goes_to_one_worker(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(TRIALS, "");
  pid_t child[WORKERS];
  for (int i = 0; i < WORKERS; i++) {
    child[i] = fork();
    if (child[i] == 0) _exit(work_all(sweep));
  }
  for (int i = 0; i < WORKERS; i++) {
    int status;
    waitpid(child[i], &status, 0);
    assert_int_equal(status, 0);
  }
  fn_sweep_store *store = open_store(sweep);
  assert_int_equal(fn_sweep_store_damaged(store), 0);
  for (int i = 0; i < TRIALS; i++) {
    const fn_trial_record *r = fn_sweep_store_trial(store, i);
    assert_int_equal(r->state, FN_TRIAL_FINISHED);
    assert_int_equal(r->attempts, 1);
    assert_true(r->best == i);
  }
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

/* ---- kills -------------------------------------------------------------------------------------
 */

/* Like work_all, but trials have 5 epochs and resume after the last one told. While a trial is
 * worked on its mark is there and locked: nobody else may find it so. */
static int work_in_epochs(const fn_sweep *sweep) {
  fn_sweep_store *store;
  if (fn_sweep_store_open(sweep, &store) != FN_OK) return 1;
  for (;;) {
    fn_claim claim;
    fn_claim_outcome outcome;
    if (fn_sweep_claim_next(store, &outcome, &claim) != FN_OK) return 2;
    if (outcome == FN_CLAIM_NONE) return 0;
    if (outcome == FN_CLAIM_BUSY) {
      nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
      continue;
    }
    char path[128];
    snprintf(path, sizeof path, "%s/mark_%d", folder, (int)claim.trial);
    const int mark = open(path, O_CREAT | O_RDWR, 0666);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (mark < 0 || fcntl(mark, F_SETLK, &whole) != 0) return 3; // somebody works on it
    for (int64_t e = fn_sweep_store_trial(store, claim.trial)->epochs + 1; e <= 5; e++) {
      fn_report_answer answer;
      if (fn_sweep_report(store, &claim, e, 1.0 / (double)e, &answer) != FN_OK) return 4;
      if (answer != FN_REPORT_GO) return 5;
    }
    close(mark); // before others may have it
    bool lost;
    if (fn_sweep_finish(store, &claim, 0, 1, &lost) != FN_OK || lost) return 6;
  }
}

/* Kill workers at random until `kills` have died, then let one go on to the end. Everything is
 * finished, once, with every epoch; and no worker ever met another on its trial. */
static void survive(int kills, int trials) {
  fn_sweep *sweep = make_sweep(trials, "  attempts: 1000000\n");
  enum { AT_ONCE = 3 };
  pid_t child[AT_ONCE] = {0};
  unsigned dice = 12345;
  int killed = 0;
  bool done = false;
  while (killed < kills && !done) {
    for (int i = 0; i < AT_ONCE; i++) {
      if (child[i] == 0) {
        child[i] = fork();
        if (child[i] == 0) _exit(work_in_epochs(sweep));
      }
    }
    nanosleep(&(struct timespec){.tv_nsec = (long)(rand_r(&dice) % 12000) * 1000}, NULL);
    const int victim = (int)(rand_r(&dice) % AT_ONCE);
    kill(child[victim], SIGKILL);
    int status;
    waitpid(child[victim], &status, 0);
    child[victim] = 0;
    killed += WIFSIGNALED(status);
    if (WIFEXITED(status)) {
      assert_int_equal(WEXITSTATUS(status), 0);
      done = true;
    }
  }
  for (int i = 0; i < AT_ONCE; i++) {
    if (child[i] == 0) continue;
    int status;
    waitpid(child[i], &status, 0);
    assert_int_equal(status, 0);
  }
  assert_int_equal(in_child(sweep, work_in_epochs), 0);
  fn_sweep_store *store = open_store(sweep);
  int64_t attempts = 0;
  for (int i = 0; i < trials; i++) {
    const fn_trial_record *r = fn_sweep_store_trial(store, i);
    assert_int_equal(r->state, FN_TRIAL_FINISHED);
    assert_int_equal(r->epochs, 5);
    for (int e = 0; e < 5; e++)
      assert_true(r->values[e] == 1.0 / (e + 1));
    attempts += r->attempts;
  }
  printf("             %d workers killed, %d trials in %d attempts, %d torn lines\n", killed,
         trials, (int)attempts, (int)fn_sweep_store_damaged(store));
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

static void kills_lose_nothing(void **state) {
  (void)state;
  const char *many = getenv("SWEEP_KILLS"); // run_sweep_store_slow.sh
  const int kills = many ? atoi(many) : 60;
  survive(kills, 5 * kills / 2);
}

/* ---- damage ------------------------------------------------------------------------------------
 */

static void append_bytes(const char *bytes) {
  char path[128];
  store_path(path, sizeof path);
  FILE *file = fopen(path, "a");
  fputs(bytes, file);
  fclose(file);
}

/* Cut the file after every byte of its last line, and put garbage and a half line into it: what
 * stands before is read, and what is written afterwards too. */
static void torn_lines_are_ignored(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(2, "");
  fn_sweep_store *store = open_store(sweep);
  const fn_claim claim = take(store);
  for (int e = 1; e <= 3; e++)
    tell(store, &claim, e, e);
  fn_sweep_store_close(store);
  char path[128], *bytes;
  size_t size;
  store_path(path, sizeof path);
  assert_int_equal(fn_file_read(path, &bytes, &size), FN_OK);
  size_t last = size - 1; // begin of the last line
  while (bytes[last - 1] != '\n')
    last--;
  for (size_t cut = last; cut <= size; cut += cut + 8 < size ? 7 : 1) {
    assert_int_equal(fn_file_replace(path, bytes, cut), FN_OK);
    store = open_store(sweep);
    const int64_t whole = cut >= size - 1 ? 3 : 2; // the newline alone is put back
    assert_int_equal(fn_sweep_store_trial(store, 0)->epochs, whole);
    assert_int_equal(fn_sweep_store_damaged(store), cut > last && cut < size - 1);
    const fn_claim next = take(store);
    assert_int_equal(next.trial, 1);
    tell(store, &next, 1, 7);
    fn_sweep_store_close(store);
    assert_int_equal(fn_sweep_store_look(sweep, &store), FN_OK);
    assert_int_equal(fn_sweep_store_trial(store, 0)->epochs, whole);
    assert_true(fn_sweep_store_trial(store, 1)->values[0] == 7);
    fn_sweep_store_close(store);
    // Undo the claim of trial 1.
    char claimed[128];
    snprintf(claimed, sizeof claimed, "%s/store/claims/1.1", folder);
    unlink(claimed);
  }
  // One flipped digit is found by the checksum.
  bytes[last + 60] ^= 1;
  assert_int_equal(fn_file_replace(path, bytes, size), FN_OK);
  append_bytes("not json\n{\"event\":\"finished\",\"trial\":0,\"attempt\":1}\n\n{\"ev");
  store = open_store(sweep);
  assert_int_equal(fn_sweep_store_trial(store, 0)->epochs, 2);
  assert_int_equal(fn_sweep_store_trial(store, 0)->state, FN_TRIAL_RUNNING);
  assert_int_equal(fn_sweep_store_damaged(store), 4);
  free(bytes);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

/* Killed between making the claim file and saying so: the next worker finds it dead. */
static void claims_without_a_word_are_found(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(1, "  attempts: 1\n");
  fn_sweep_store *store = open_store(sweep);
  char path[128];
  snprintf(path, sizeof path, "%s/store/claims/0.1", folder);
  char boot[64], text[256];
  fn_boot_id(boot, sizeof boot);
  if (!boot[0]) skip();
  snprintf(text, sizeof text, "host here\nboot %s\nprocess 999999999\n", boot);
  assert_int_equal(fn_file_replace(path, text, strlen(text)), FN_OK);
  const fn_claim claim = take(store);
  assert_int_equal(claim.attempt, 2);
  assert_int_equal(fn_sweep_store_trial(store, 0)->failures, 0);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

/* What was left half made long ago goes when a store is opened, what is being made stays. */
static void leftovers_are_removed(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(1, "");
  fn_sweep_store_close(open_store(sweep));
  char old[128], young[128];
  snprintf(old, sizeof old, "%s/store/claims/.somewhere.12.0", folder);
  snprintf(young, sizeof young, "%s/store/claims/.somewhere.13.0", folder);
  assert_int_equal(fn_file_replace(old, "x", 1), FN_OK);
  assert_int_equal(fn_file_replace(young, "x", 1), FN_OK);
  const struct timespec past[2] = {{.tv_sec = time(NULL) - 100}, {.tv_sec = time(NULL) - 100}};
  assert_int_equal(utimensat(AT_FDCWD, old, past, 0), 0);
  fn_sweep_store_close(open_store(sweep));
  assert_false(fn_file_exists(old));
  assert_true(fn_file_exists(young));
  fn_sweep_destroy(sweep);
}

/* ---- rules -------------------------------------------------------------------------------------
 */

/* Golovin et al. 2017: running averages until epoch 2 of the finished trials are 1.5, 2.5, 3.5;
 * the median 2.5. A trial with best 2.5 goes on, one with 2.75 stops. */
static void median_rule(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(6, "  stop: {rule: median, min_trials: 3, min_epochs: 2}\n");
  fn_sweep_store *store = open_store(sweep);
  for (int i = 0; i < 3; i++) {
    const fn_claim claim = take(store);
    assert_int_equal(tell(store, &claim, 1, i + 1), FN_REPORT_GO);
    assert_int_equal(tell(store, &claim, 2, i + 2), FN_REPORT_GO);
    assert_int_equal(tell(store, &claim, 3, 0), FN_REPORT_GO); // beyond what is compared
    finish(store, &claim);
  }
  const fn_claim good = take(store), bad = take(store), none = take(store);
  assert_int_equal(tell(store, &good, 1, 9), FN_REPORT_GO);
  assert_int_equal(tell(store, &good, 2, 2.5), FN_REPORT_GO);
  assert_int_equal(tell(store, &bad, 1, 9), FN_REPORT_GO); // before min_epochs
  assert_int_equal(tell(store, &bad, 2, 2.75), FN_REPORT_STOP);
  assert_int_equal(fn_sweep_store_trial(store, bad.trial)->state, FN_TRIAL_STOPPED);
  assert_non_null(strstr(fn_sweep_store_trial(store, bad.trial)->message, "median 2.5 of 3"));
  assert_int_equal(tell(store, &bad, 3, 0), FN_REPORT_LOST);
  assert_int_equal(tell(store, &none, 2, (double)NAN), FN_REPORT_GO);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

/* Rungs at 1, 3, 9. Of the trials at a rung the best third goes on, the first two anyway. */
static void successive_halving(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(8, "  metric: train\n  direction: maximize\n"
                                  "  stop: {rule: asha, min_epochs: 1, reduction: 3}\n");
  fn_sweep_store *store = open_store(sweep);
  fn_claim claim[8];
  for (int i = 0; i < 8; i++)
    claim[i] = take(store);
  assert_int_equal(tell(store, &claim[0], 1, 0.5), FN_REPORT_GO);    // 1 of 1
  assert_int_equal(tell(store, &claim[1], 1, 0.4), FN_REPORT_GO);    // 2 of 2
  assert_int_equal(tell(store, &claim[2], 1, 0.45), FN_REPORT_STOP); // 2 of 3, 1 goes on
  assert_int_equal(tell(store, &claim[3], 1, 0.6), FN_REPORT_GO);    // 1 of 4
  assert_int_equal(tell(store, &claim[4], 1, 0.1), FN_REPORT_STOP);  // 5 of 5
  assert_int_equal(tell(store, &claim[5], 1, 0.55), FN_REPORT_GO);   // 2 of 6, 2 go on
  // Between rungs nobody is judged, even far behind; the second rung counts its own.
  assert_int_equal(tell(store, &claim[1], 2, 0.0), FN_REPORT_GO);
  assert_int_equal(tell(store, &claim[1], 3, 0.0), FN_REPORT_GO); // best 0.4, 1 of 1
  assert_int_equal(tell(store, &claim[3], 3, 0.7), FN_REPORT_GO);
  assert_int_equal(tell(store, &claim[5], 4, 0.1), FN_REPORT_STOP); // came to rung 3: 2 of 3
  assert_int_equal(tell(store, &claim[3], 4, 0.0), FN_REPORT_GO);   // judged at 3 already
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

/* ---- from outside ------------------------------------------------------------------------------
 */

static void outside_workers_have_their_own_lease(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(2, "");
  fn_sweep_store *store = open_store(sweep);
  fn_claim a, b;
  fn_claim_outcome outcome;
  assert_int_equal(fn_sweep_claim_outside(store, -1, 0, &outcome, &a), FN_OK);
  assert_int_equal(outcome, FN_CLAIM_TAKEN);
  assert_int_equal(fn_sweep_claim_outside(store, -1, 600, &outcome, &b), FN_OK);
  assert_int_equal(outcome, FN_CLAIM_TAKEN);
  fn_sweep_store_close(store);
  store = open_store(sweep);
  assert_int_equal(outcome_of(store), FN_CLAIM_BUSY);
  char name[32];
  snprintf(name, sizeof name, "%d.%d", (int)b.trial, (int)b.attempt);
  touched_before(name, 300);
  assert_int_equal(outcome_of(store), FN_CLAIM_BUSY);
  touched_before(name, 601);
  assert_int_equal(fn_sweep_claim_of(store, b.trial, &b), FN_OK);
  assert_int_equal(tell(store, &b, 1, 1), FN_REPORT_GO); // a sign of life
  assert_int_equal(outcome_of(store), FN_CLAIM_BUSY);
  touched_before(name, 601);
  const fn_claim taken = take(store);
  assert_int_equal(taken.trial, b.trial);
  assert_int_equal(outcome_of(store), FN_CLAIM_BUSY); // without a lease: for ever
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

static void asked_trials_are_kept(void **state) {
  (void)state;
  fn_sweep *sweep = make_sweep(2, "");
  fn_sweep_store *store = open_store(sweep);
  static const char *const set[] = {"optimizer.lr=0.01"};
  int64_t id;
  assert_int_equal(fn_sweep_register(store, set, 1, &id), FN_ERR_CONFIG);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
  char path[128], text[512];
  snprintf(path, sizeof path, "%s/sweep.yaml", folder);
  snprintf(text, sizeof text,
           "run: run.yaml\nsweep: {method: ask, folder: %s/asked, parameters: {optimizer.lr: "
           "{log: [1.e-5, 1.e-1]}}}\n",
           folder);
  assert_int_equal(fn_file_replace(path, text, strlen(text)), FN_OK);
  char *errors;
  assert_int_equal(fn_sweep_open(path, &sweep, &errors), FN_OK);
  store = open_store(sweep);
  assert_int_equal(outcome_of(store), FN_CLAIM_NONE);
  assert_int_equal(fn_sweep_register(store, set, 1, &id), FN_OK);
  assert_int_equal(id, 0);
  assert_int_equal(fn_sweep_register(store, set, 1, &id), FN_OK);
  assert_int_equal(id, 1);
  fn_sweep_store_close(store);
  store = open_store(sweep);
  assert_int_equal(fn_sweep_store_count(store), 2);
  const fn_claim claim = take(store);
  assert_int_equal(claim.trial, 0);
  fn_arena *arena = fn_arena_create();
  fn_trial trial;
  assert_int_equal(fn_sweep_store_trial_make(store, 1, arena, &trial), FN_OK);
  assert_string_equal(fn_trial_value(&trial, "optimizer.lr"), "0.01");
  fn_arena_destroy(arena);
  fn_sweep_store_close(store);
  fn_sweep_destroy(sweep);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(trials_pass_through_their_states),
      TEST(failures_in_a_row_end_a_trial),
      TEST(another_sweep_is_refused),
      TEST(dead_workers_are_replaced),
      TEST(the_living_keep_their_trials),
      TEST(other_machines_have_a_lease),
      TEST(the_replaced_are_told),
      TEST(each_trial_goes_to_one_worker),
      TEST(torn_lines_are_ignored),
      TEST(claims_without_a_word_are_found),
      TEST(leftovers_are_removed),
      TEST(median_rule),
      TEST(successive_halving),
      TEST(outside_workers_have_their_own_lease),
      TEST(asked_trials_are_kept),
      TEST(kills_lose_nothing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
