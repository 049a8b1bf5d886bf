#include "base/system.h"

#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

void fn_cores_allowed(unsigned char *allowed, int count) {
  cpu_set_t set;
  const bool known = sched_getaffinity(0, sizeof set, &set) == 0;
  for (int c = 0; c < count; c++)
    allowed[c] = known ? CPU_ISSET((size_t)c, &set) : c == 0;
}

void fn_threads_set(int threads) {
  omp_set_num_threads(threads > 0 ? threads : 1);
}
int fn_threads_get(void) {
  return omp_get_max_threads();
}

static cpu_set_t unpinned; // of the process before threads were pinned
static bool is_pinned;

void fn_threads_pin(const int *core, int count, int threads) {
  if (threads < 1 || threads > count) return;
  if (!is_pinned && sched_getaffinity(0, sizeof unpinned, &unpinned) != 0) return;
  is_pinned = true;
#pragma omp parallel num_threads(threads)
  {
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET((size_t)core[(int64_t)omp_get_thread_num() * count / threads], &own);
    sched_setaffinity(0, sizeof own, &own);
  }
}

void fn_thread_unpin(void) {
  if (is_pinned) sched_setaffinity(0, sizeof unpinned, &unpinned);
}

int fn_thread_start(pthread_t *thread, void *(*run)(void *), void *argument) {
  static const int faults[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL};
  sigset_t all, before;
  sigfillset(&all);
  for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
    sigdelset(&all, faults[i]);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = pthread_create(thread, NULL, run, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return error;
}

void fn_cond_init(pthread_cond_t *condition) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); // that of fn_clock()
  pthread_cond_init(condition, &attributes);
  pthread_condattr_destroy(&attributes);
}

void fn_cond_wait_until(pthread_cond_t *condition, pthread_mutex_t *mutex, double when) {
  const double end = when < 1e15 ? when : 1e15; // far beyond any clock, within time_t
  const struct timespec time = {.tv_sec = (time_t)end,
                                .tv_nsec = (long)(1e9 * (end - (double)(time_t)end))};
  pthread_cond_timedwait(condition, mutex, &time);
}

int fn_cores_online(void) {
  const long cores = sysconf(_SC_NPROCESSORS_ONLN);
  return cores > 0 ? (int)cores : 1;
}

double fn_clock(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double fn_time_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/** First line of a file without its end; "" when there is none. */
static void first_line(const char *path, char *text, size_t size) {
  text[0] = '\0';
  FILE *file = fopen(path, "r");
  if (!file) return;
  if (!fgets(text, (int)size, file)) text[0] = '\0';
  text[strcspn(text, "\n")] = '\0';
  fclose(file);
}

long long fn_process_start(long long process) {
  char path[64], line[1024];
  snprintf(path, sizeof path, "/proc/%lld/stat", process);
  first_line(path, line, sizeof line);
  // Field 22. The second one, a name in brackets, may hold anything.
  const char *at = strrchr(line, ')');
  for (int field = 2; at && field < 22; field++) {
    at = strchr(at, ' ');
    if (at) at++;
  }
  return at ? strtoll(at, NULL, 10) : 0;
}

double fn_process_age(void) {
  const long long ticks = fn_process_start(getpid());
  struct timespec now;
  if (ticks <= 0 || clock_gettime(CLOCK_BOOTTIME, &now) != 0) return 0;
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec -
         (double)ticks / (double)sysconf(_SC_CLK_TCK);
}

static size_t status_line(const char *key) {
  FILE *file = fopen("/proc/self/status", "r");
  if (!file) return 0;
  char line[256];
  size_t kilobytes = 0;
  while (fgets(line, sizeof line, file)) {
    if (strncmp(line, key, strlen(key)) == 0) {
      kilobytes = strtoull(line + strlen(key), NULL, 10);
      break;
    }
  }
  fclose(file);
  return kilobytes * 1024;
}

size_t fn_memory_peak(void) {
  return status_line("VmHWM:");
}
size_t fn_memory_now(void) {
  return status_line("VmRSS:");
}

int64_t fn_page_faults(void) {
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) == 0 ? (int64_t)usage.ru_minflt : 0;
}

/** The number in a file; `above` when there is none ("max") or it is higher. */
static size_t lower_of(size_t above, const char *path) {
  FILE *file = fopen(path, "r");
  unsigned long long value;
  if (!file) return above;
  if (fscanf(file, "%llu", &value) == 1 && value < above) above = (size_t)value;
  fclose(file);
  return above;
}

/** Limits of a control group and of all those that it is in; `group` is cut off part by part. */
static size_t group_limit(size_t above, const char *root, const char *name, char *group) {
  char path[2048];
  for (;;) {
    snprintf(path, sizeof path, "%s%s/%s", root, group, name);
    above = lower_of(above, path);
    char *slash = strrchr(group, '/');
    if (!slash) return above;
    *slash = '\0';
  }
}

size_t fn_memory_limit(void) {
  struct sysinfo info;
  size_t limit = SIZE_MAX;
  if (sysinfo(&info) == 0) limit = ((size_t)info.totalram + info.totalswap) * info.mem_unit;
  FILE *file = fopen("/proc/self/cgroup", "r"); // lines number:controllers:/path
  char line[1024];
  while (file && fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':'),
         *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) continue;
    *group++ = '\0';
    if (strcmp(controllers, ":") == 0)
      limit = group_limit(limit, "/sys/fs/cgroup", "memory.max", group);
    else if (strcmp(controllers, ":memory") == 0)
      limit = group_limit(limit, "/sys/fs/cgroup/memory", "memory.limit_in_bytes", group);
  }
  if (file) fclose(file);
  return limit;
}

const char *fn_host_name(void) {
  static char name[256];
  if (!name[0] && gethostname(name, sizeof name - 1) != 0) strcpy(name, "localhost");
  return name;
}

void fn_boot_id(char *text, size_t size) {
  first_line("/proc/sys/kernel/random/boot_id", text, size);
}

bool fn_file_exists(const char *path) {
  return access(path, F_OK) == 0;
}

bool fn_is_directory(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

fn_status fn_make_directories(const char *path) {
  char part[4096];
  const size_t length = strlen(path);
  FN_CHECK(length < sizeof part, FN_ERR_CONFIG, "path too long: %s", path);
  for (size_t i = 1; i <= length; i++) {
    if (path[i] != '/' && path[i] != '\0') continue;
    memcpy(part, path, i);
    part[i] = '\0';
    if (mkdir(part, 0777) != 0 && errno != EEXIST)
      FN_FAIL(FN_ERR_CONFIG, "cannot make folder %s: %s", part, strerror(errno));
  }
  FN_CHECK(fn_is_directory(path), FN_ERR_CONFIG, "%s exists and is not a folder", path);
  return FN_OK;
}

fn_status fn_file_sync(const char *path) {
  const int fd = open(path, O_RDONLY);
  FN_CHECK(fd >= 0, FN_ERR_DATA, "cannot open %s: %s", path, strerror(errno));
  const int failed = fsync(fd), reason = errno;
  close(fd);
  // EINVAL: a file system whose directories cannot be flushed.
  FN_CHECK(failed == 0 || reason == EINVAL, FN_ERR_DATA, "cannot flush %s to disk: %s", path,
           strerror(reason));
  return FN_OK;
}

/** `path`: as people know it. */
static fn_status write_all(int fd, const char *path, const char *bytes, size_t count) {
  while (count > 0) {
    const ssize_t done = write(fd, bytes, count);
    if (done < 0 && errno == EINTR) continue;
    FN_CHECK(done > 0, FN_ERR_DATA, "cannot write %s: %s", path, strerror(errno));
    bytes += done;
    count -= (size_t)done;
  }
  FN_CHECK(fsync(fd) == 0, FN_ERR_DATA, "cannot flush %s to disk: %s", path, strerror(errno));
  return FN_OK;
}

fn_status fn_file_replace(const char *path, const void *bytes, size_t count) {
  char temporary[4096], folder[4096];
  const int length = snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid());
  FN_CHECK(length > 0 && (size_t)length < sizeof temporary, FN_ERR_DATA, "path too long: %s", path);
  const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  FN_CHECK(fd >= 0, FN_ERR_DATA, "cannot write %s: %s", path, strerror(errno));
  fn_status status = write_all(fd, path, bytes, count);
  close(fd);
  if (status == FN_OK && rename(temporary, path) != 0)
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot rename %s to %s: %s", temporary,
                          path, strerror(errno));
  if (status != FN_OK) {
    unlink(temporary);
    return status;
  }
  snprintf(folder, sizeof folder, "%s", path);
  char *slash = strrchr(folder, '/');
  if (slash) slash[slash == folder] = '\0';
  return fn_file_sync(slash ? folder : ".");
}

fn_status fn_file_replace_text(const char *path, const fn_text *text) {
  FN_CHECK(!text->incomplete, FN_ERR_MEMORY, "out of memory for what goes into %s", path);
  return fn_file_replace(path, text->data ? text->data : "", text->length);
}

fn_status fn_file_read(const char *path, char **bytes, size_t *count) {
  *bytes = NULL;
  FILE *file = fopen(path, "rb");
  FN_CHECK(file, FN_ERR_DATA, "cannot open %s: %s", path, strerror(errno));
  size_t capacity = 1 << 16, used = 0;
  char *data = malloc(capacity + 1);
  while (data) {
    used += fread(data + used, 1, capacity - used, file);
    if (used < capacity) break;
    capacity *= 2;
    char *grown = realloc(data, capacity + 1);
    if (!grown) free(data);
    data = grown;
  }
  const int failed = ferror(file), reason = errno;
  fclose(file);
  FN_CHECK(data, FN_ERR_MEMORY, "out of memory reading %s", path);
  if (failed) {
    free(data);
    FN_FAIL(FN_ERR_DATA, "cannot read %s: %s", path, strerror(reason));
  }
  data[used] = '\0';
  *bytes = data;
  if (count) *count = used;
  return FN_OK;
}
