/* Files of claims: made by link(2), locked with fcntl while their worker lives, touched by a
 * thread. */
#include "run/sweep_claims.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"

enum { PATH_SIZE = 4096, WORD = 128 };
static const char clock_name[] = ".now"; // touched to read the clock of the file server

typedef struct held {
  struct held *next;
  int64_t trial, attempt;
  int file;
} held;

struct fn_sweep_claims {
  char folder[PATH_SIZE - 256];
  double lease;
  bool warned;
  int made; // number in names of temporary files
  held *first;
  pthread_mutex_t lock; // of the list
  pthread_cond_t wake;
  pthread_t thread;
  bool has_thread, leave;
};

/** Who has a claim, as its file says it; "" and 0: not known. */
typedef struct worker {
  char host[WORD], boot[WORD], space[WORD], job[WORD];
  long long process, start, restart;
  bool outside;
  double lease;
} worker;

/* ---- who we are --------------------------------------------------------------------------------
 */

static long long number_of(const char *variable) {
  const char *text = getenv(variable);
  return text ? strtoll(text, NULL, 10) : 0;
}

static void identify(worker *w) {
  *w = (worker){.process = getpid()};
  snprintf(w->host, sizeof w->host, "%s", fn_host_name());
  fn_boot_id(w->boot, sizeof w->boot);
  const ssize_t length = readlink("/proc/self/ns/pid", w->space, sizeof w->space - 1);
  w->space[length > 0 ? length : 0] = '\0';
  w->start = fn_process_start(w->process);
  const char *job = getenv("SLURM_JOB_ID"), *array = getenv("SLURM_ARRAY_JOB_ID"),
             *task = getenv("SLURM_ARRAY_TASK_ID");
  if (array && task)
    snprintf(w->job, sizeof w->job, "%s_%s", array, task);
  else if (job)
    snprintf(w->job, sizeof w->job, "%s", job);
  w->restart = number_of("SLURM_RESTART_COUNT");
}

void fn_sweep_claims_worker(bool outside, char *text, size_t size) {
  worker w;
  identify(&w);
  if (outside)
    snprintf(text, size, "outside, asked on %s", w.host);
  else
    snprintf(text, size, "%s, process %lld%s%s", w.host, w.process, w.job[0] ? ", job " : "",
             w.job);
}

static void describe(const worker *w, fn_text *text) {
  fn_text_add(text, "host %s\nboot %s\nspace %s\nprocess %lld\nstart %lld\n", w->host, w->boot,
              w->space, w->process, w->start);
  fn_text_add(text, "job %s\nrestart %lld\noutside %d\nlease %.17g\n", w->job, w->restart,
              w->outside, w->lease);
}

static void set_word(worker *w, const char *key, const char *value) {
  const struct {
    const char *name;
    char *word;
    long long *integer;
  } fields[] = {{"host", w->host, NULL},        {"boot", w->boot, NULL},
                {"space", w->space, NULL},      {"job", w->job, NULL},
                {"process", NULL, &w->process}, {"start", NULL, &w->start},
                {"restart", NULL, &w->restart}};
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    if (strcmp(key, fields[i].name) != 0) continue;
    if (fields[i].word)
      snprintf(fields[i].word, WORD, "%s", value);
    else
      *fields[i].integer = strtoll(value, NULL, 10);
  }
  if (strcmp(key, "outside") == 0) w->outside = value[0] == '1';
  if (strcmp(key, "lease") == 0) w->lease = strtod(value, NULL);
}

static void read_worker(int file, worker *w) {
  char text[8 * WORD];
  *w = (worker){0};
  const ssize_t length = pread(file, text, sizeof text - 1, 0);
  text[length > 0 ? length : 0] = '\0';
  char *rest = NULL;
  for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    char *blank = strchr(line, ' ');
    if (!blank) continue;
    *blank = '\0';
    set_word(w, line, blank + 1);
  }
}

/* ---- signs of life -----------------------------------------------------------------------------
 */

/** Touch what is held four times per lease. */
static void *keep_alive(void *user) {
  fn_sweep_claims *claims = user;
  pthread_mutex_lock(&claims->lock);
  while (!claims->leave) {
    for (const held *h = claims->first; h; h = h->next)
      futimens(h->file, NULL); // the clock of the file server
    const double pause = claims->lease / 4 > 0.02 ? claims->lease / 4 : 0.02;
    fn_cond_wait_until(&claims->wake, &claims->lock, fn_clock() + pause);
  }
  pthread_mutex_unlock(&claims->lock);
  return NULL;
}

static fn_status start_thread(fn_sweep_claims *claims) {
  if (claims->has_thread) return FN_OK;
  const int failed = fn_thread_start(&claims->thread, keep_alive, claims);
  FN_CHECK(failed == 0, FN_ERR_INTERNAL, "cannot start a thread: %s", strerror(failed));
  claims->has_thread = true;
  return FN_OK;
}

fn_status fn_sweep_claims_create(const char *folder, double lease, fn_sweep_claims **claims) {
  *claims = NULL;
  fn_sweep_claims *c = calloc(1, sizeof *c);
  FN_CHECK(c, FN_ERR_MEMORY, "out of memory");
  c->lease = lease;
  if (snprintf(c->folder, sizeof c->folder, "%s", folder) >= (int)sizeof c->folder) {
    free(c);
    FN_FAIL(FN_ERR_CONFIG, "path too long: %.100s...", folder);
  }
  pthread_mutex_init(&c->lock, NULL);
  fn_cond_init(&c->wake);
  *claims = c;
  return FN_OK;
}

void fn_sweep_claims_destroy(fn_sweep_claims *claims) {
  if (!claims) return;
  pthread_mutex_lock(&claims->lock);
  claims->leave = true;
  pthread_cond_signal(&claims->wake);
  pthread_mutex_unlock(&claims->lock);
  if (claims->has_thread) pthread_join(claims->thread, NULL);
  while (claims->first) {
    held *h = claims->first;
    claims->first = h->next;
    close(h->file);
    free(h);
  }
  pthread_mutex_destroy(&claims->lock);
  pthread_cond_destroy(&claims->wake);
  free(claims);
}

/* ---- making ------------------------------------------------------------------------------------
 */

static void name_of(const fn_sweep_claims *claims, int64_t trial, int64_t attempt, char *path) {
  snprintf(path, PATH_SIZE, "%s/%" PRId64 ".%" PRId64, claims->folder, trial, attempt);
}

static bool has_no_locks(int reason) {
  return reason == ENOLCK || reason == ENOSYS || reason == ENOTSUP || reason == EINVAL;
}

/** Write and lock a file before anybody else can know it. */
static fn_status prepare(fn_sweep_claims *claims, const char *path, bool outside, double lease,
                         int *file) {
  worker w;
  identify(&w);
  w.outside = outside;
  w.lease = lease;
  fn_text text = {0};
  describe(&w, &text);
  *file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  bool good = *file >= 0 && !text.incomplete &&
              write(*file, text.data, text.length) == (ssize_t)text.length && fsync(*file) == 0;
  fn_text_free(&text);
  const struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  if (good && !outside && fcntl(*file, F_SETLK, &whole) != 0) {
    good = has_no_locks(errno);
    if (good && !claims->warned)
      fn_log(FN_WARN,
             "%s: this file system has no locks (%s); a worker counts as dead after %g seconds "
             "without a sign of life",
             claims->folder, strerror(errno), claims->lease);
    claims->warned = true;
  }
  if (good) return FN_OK;
  const fn_status status = fn_error_set(FN_ERR_CHECKPOINT, __FILE__, __LINE__,
                                        "cannot make the claim %s: %s", path, strerror(errno));
  if (*file >= 0) close(*file);
  return status;
}

static fn_status hold(fn_sweep_claims *claims, int64_t trial, int64_t attempt, int file) {
  held *h = malloc(sizeof *h);
  if (!h) close(file);
  FN_CHECK(h, FN_ERR_MEMORY, "out of memory");
  *h = (held){.trial = trial, .attempt = attempt, .file = file};
  pthread_mutex_lock(&claims->lock);
  h->next = claims->first;
  claims->first = h;
  pthread_mutex_unlock(&claims->lock);
  return start_thread(claims);
}

fn_status fn_sweep_claims_make(fn_sweep_claims *claims, int64_t trial, int64_t attempt,
                               bool outside, double lease, bool *made) {
  char path[PATH_SIZE], draft[PATH_SIZE];
  *made = false;
  name_of(claims, trial, attempt, path);
  snprintf(draft, sizeof draft, "%s/.%s.%ld.%d", claims->folder, fn_host_name(), (long)getpid(),
           claims->made++);
  unlink(draft); // of a process of this number that was killed
  int file;
  FN_TRY(prepare(claims, draft, outside, lease, &file));
  const bool failed = link(draft, path) != 0;
  const int reason = errno;
  struct stat state;
  // Over NFS the answer to a link that was made may get lost.
  *made = !failed || (fstat(file, &state) == 0 && state.st_nlink == 2);
  unlink(draft);
  if (*made && !outside) return hold(claims, trial, attempt, file);
  close(file);
  FN_CHECK(*made || reason == EEXIST, FN_ERR_CHECKPOINT,
           "cannot make the claim %s: %s (the folder of a sweep needs a file system with hard "
           "links)",
           path, strerror(reason));
  return FN_OK;
}

void fn_sweep_claims_drop(fn_sweep_claims *claims, int64_t trial, int64_t attempt) {
  pthread_mutex_lock(&claims->lock);
  for (held **link = &claims->first; *link; link = &(*link)->next) {
    held *h = *link;
    if (h->trial != trial || h->attempt != attempt) continue;
    *link = h->next;
    close(h->file);
    free(h);
    break;
  }
  pthread_mutex_unlock(&claims->lock);
}

/* ---- asking ------------------------------------------------------------------------------------
 */

static bool is_held(fn_sweep_claims *claims, int64_t trial, int64_t attempt) {
  bool found = false;
  pthread_mutex_lock(&claims->lock);
  for (const held *h = claims->first; h && !found; h = h->next)
    found = h->trial == trial && h->attempt == attempt;
  pthread_mutex_unlock(&claims->lock);
  return found;
}

void fn_sweep_claims_touch(fn_sweep_claims *claims, int64_t trial, int64_t attempt) {
  char path[PATH_SIZE];
  if (is_held(claims, trial, attempt)) return; // the thread does
  name_of(claims, trial, attempt, path);
  utimensat(AT_FDCWD, path, NULL, 0);
}

/** Seconds since the last touch, by the clock that stamps files in the folder. */
static double age_of(const fn_sweep_claims *claims, int file) {
  struct stat state, now;
  char path[PATH_SIZE];
  snprintf(path, sizeof path, "%s/%s", claims->folder, clock_name);
  if (fstat(file, &state) != 0) return 0;
  const int clock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  const bool stamped = clock >= 0 && futimens(clock, NULL) == 0 && fstat(clock, &now) == 0;
  if (!stamped) clock_gettime(CLOCK_REALTIME, &now.st_mtim); // a folder that is only looked at
  if (clock >= 0) close(clock);
  return (double)(now.st_mtim.tv_sec - state.st_mtim.tv_sec) +
         1e-9 * (double)(now.st_mtim.tv_nsec - state.st_mtim.tv_nsec);
}

void fn_sweep_claims_tidy(fn_sweep_claims *claims) {
  const double leftover = 60; // seconds: a file that is being made is named within milliseconds
  DIR *folder = opendir(claims->folder);
  if (!folder) return;
  for (const struct dirent *entry; (entry = readdir(folder));) {
    const char *name = entry->d_name;
    if (name[0] != '.' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
        strcmp(name, clock_name) == 0)
      continue;
    char path[PATH_SIZE + 256];
    snprintf(path, sizeof path, "%s/%s", claims->folder, name);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) continue;
    if (age_of(claims, file) > leftover) unlink(path);
    close(file);
  }
  closedir(folder);
}

static bool may_live(const fn_sweep_claims *claims, int file) {
  struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  const bool answered = fcntl(file, F_GETLK, &whole) == 0;
  if (answered && whole.l_type != F_UNLCK) return true;
  worker it, us;
  read_worker(file, &it);
  identify(&us);
  if (it.outside) return it.lease <= 0 || age_of(claims, file) < it.lease;
  const bool here = it.boot[0] && strcmp(it.boot, us.boot) == 0;
  if (here && answered) return false; // one kernel: a free lock has no holder
  if (here && strcmp(it.space, us.space) == 0)
    return fn_process_start(it.process) != 0 && fn_process_start(it.process) == it.start;
  if (it.job[0] && strcmp(it.job, us.job) == 0 && us.restart > it.restart) return false;
  return age_of(claims, file) < claims->lease;
}

bool fn_sweep_claims_alive(fn_sweep_claims *claims, int64_t trial, int64_t attempt) {
  char path[PATH_SIZE];
  if (is_held(claims, trial, attempt)) return true; // opening it would lose its lock
  name_of(claims, trial, attempt, path);
  const int file = open(path, O_RDWR | O_CLOEXEC);
  const int other = file < 0 ? open(path, O_RDONLY | O_CLOEXEC) : file;
  if (other < 0) return false; // somebody removed it
  const bool alive = may_live(claims, other);
  close(other);
  return alive;
}
