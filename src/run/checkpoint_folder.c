/* States and links of a run folder: finding, linking, retaining. */
#include "run/checkpoint_folder.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "run/checkpoint.h"

static const char *const links[] = {"checkpoint.h5", "best.h5"};
enum { LINK_COUNT = 2, PATH_SIZE = 4096 };

/** Digits at *text to a number; *text moves behind them; -1 when there are none or too many. */
static int64_t parse_digits(const char **text) {
  int64_t value = 0;
  const char *p = *text;
  for (; *p >= '0' && *p <= '9'; p++) {
    if (p - *text >= 18) return -1;
    value = 10 * value + (*p - '0');
  }
  if (p == *text) return -1;
  *text = p;
  return value;
}

int64_t fn_state_index(const char *name) {
  if (!fn_text_starts(name, "state_")) return -1;
  const char *p = name + 6;
  const bool padded = p[0] == '0' && p[1] != '.'; // state_07.h5 is not a name we write
  const int64_t index = parse_digits(&p);
  return !padded && index >= 0 && strcmp(p, ".h5") == 0 ? index : -1;
}

/** Whether `name` is <base>.<pid>.tmp with base a file of ours that is replaced as a whole. What
 *  this process writes beside its states it may be writing now, on another thread. */
static bool is_leftover(const char *name) {
  static const char *const others[] = {
      "resolved.yaml",        "metrics.csv",        "steps.csv",
      "metrics.jsonl",        ".metrics.csv.ahead", ".steps.csv.ahead",
      ".metrics.jsonl.ahead", "starts.txt"};
  const size_t length = strlen(name);
  if (length < 8 || strcmp(name + length - 4, ".tmp") != 0) return false;
  size_t dot = length - 4;
  while (dot > 0 && name[dot - 1] >= '0' && name[dot - 1] <= '9')
    dot--;
  if (dot == length - 4 || dot < 2 || name[dot - 1] != '.' || dot > 64) return false;
  char base[64];
  memcpy(base, name, dot - 1);
  base[dot - 1] = '\0';
  for (int i = 0; i < LINK_COUNT; i++)
    if (strcmp(base, links[i]) == 0) return true;
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
    if (strcmp(base, others[i]) == 0) return strtol(name + dot, NULL, 10) != (long)getpid();
  return fn_state_index(base) >= 0;
}

static bool join(char *path, const char *folder, const char *name) {
  const int length = snprintf(path, PATH_SIZE, "%s/%s", folder, name);
  return length > 0 && length < PATH_SIZE;
}

void fn_remove_leftovers(const char *folder) {
  DIR *dir = opendir(folder);
  if (!dir) return;
  char path[PATH_SIZE];
  for (struct dirent *entry; (entry = readdir(dir));) {
    if (is_leftover(entry->d_name) && join(path, folder, entry->d_name)) unlink(path);
  }
  closedir(dir);
}

fn_status fn_checkpoint_link(const char *folder, const char *link, const char *target) {
  char path[PATH_SIZE], temporary[PATH_SIZE];
  FN_CHECK(join(path, folder, link) && snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path,
                                                (long)getpid()) < PATH_SIZE,
           FN_ERR_CHECKPOINT, "path too long: %s/%s", folder, link);
  struct stat info;
  // rename would silently replace a real file of that name, a state perhaps.
  FN_CHECK(lstat(path, &info) != 0 || S_ISLNK(info.st_mode), FN_ERR_CHECKPOINT,
           "%s exists and is not a symbolic link", path);
  unlink(temporary);
  FN_CHECK(symlink(target, temporary) == 0, FN_ERR_CHECKPOINT, "cannot make link %s: %s", path,
           strerror(errno));
  if (rename(temporary, path) != 0) {
    const int reason = errno;
    unlink(temporary);
    FN_FAIL(FN_ERR_CHECKPOINT, "cannot make link %s: %s", path, strerror(reason));
  }
  return fn_file_sync(folder) == FN_OK ? FN_OK : FN_ERR_CHECKPOINT;
}

/* ---- finding ----------------------------------------------------------------------------- */

typedef struct indices {
  int64_t *value; // descending
  int count;
} indices;

static int descending(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x < y) - (x > y);
}

static fn_status list_states(const char *folder, indices *list) {
  *list = (indices){0};
  DIR *dir = opendir(folder);
  if (!dir && errno == ENOENT) return FN_OK;
  FN_CHECK(dir, FN_ERR_CHECKPOINT, "cannot read folder %s: %s", folder, strerror(errno));
  int capacity = 0;
  for (struct dirent *entry; (entry = readdir(dir));) {
    const int64_t index = fn_state_index(entry->d_name);
    if (index < 0) continue;
    if (list->count == capacity) {
      capacity = capacity ? 2 * capacity : 64;
      int64_t *grown = realloc(list->value, (size_t)capacity * sizeof *grown);
      if (!grown) {
        closedir(dir);
        free(list->value);
        FN_FAIL(FN_ERR_MEMORY, "out of memory listing %s", folder);
      }
      list->value = grown;
    }
    list->value[list->count++] = index;
  }
  closedir(dir);
  if (list->count) qsort(list->value, (size_t)list->count, sizeof *list->value, descending);
  return FN_OK;
}

/** Target of folder/link; false when it is not a symbolic link. */
static bool read_link(const char *folder, const char *link, char *target, size_t size) {
  char path[PATH_SIZE];
  const ssize_t length = join(path, folder, link) ? readlink(path, target, size - 1) : -1;
  if (length < 0) return false;
  target[length] = '\0';
  return true;
}

/** Whether folder/name is a good state; warns when it is not. On success *path is set. */
static bool try_state(const char *folder, const char *name, char **path) {
  char full[PATH_SIZE];
  if (!join(full, folder, name)) return false;
  if (fn_checkpoint_verify(full) != FN_OK) {
    fn_log(FN_WARN, "a state is refused: %s", fn_error_message());
    fn_error_clear(); // it is said, and what comes later is not its fault
    return false;
  }
  *path = strdup(full);
  return *path != NULL;
}

fn_status fn_checkpoint_find(const char *folder, char **path) {
  *path = NULL;
  char target[PATH_SIZE], checkpoint[PATH_SIZE];
  struct stat info;
  FN_CHECK(join(checkpoint, folder, links[0]), FN_ERR_CHECKPOINT, "path too long: %s", folder);
  const bool linked = read_link(folder, links[0], target, sizeof target);
  // A copy made without links has a plain file there: as good as a state.
  const bool plain = !linked && lstat(checkpoint, &info) == 0;
  if (linked || plain) {
    if (try_state(folder, linked && target[0] != '/' ? target : links[0], path)) return FN_OK;
  }
  indices list;
  FN_TRY(list_states(folder, &list));
  const int64_t refused = linked ? fn_state_index(target) : -1;
  // Newest below the refused one first; then those above it, which a killed save may have left.
  for (int pass = 0; pass < 2 && !*path; pass++) {
    for (int i = 0; i < list.count && !*path; i++) {
      const bool below = refused < 0 || list.value[i] < refused;
      if (below != (pass == 0) || list.value[i] == refused) continue;
      snprintf(target, sizeof target, "state_%lld.h5", (long long)list.value[i]);
      if (try_state(folder, target, path))
        fn_log(FN_WARN, "going on from %s, the newest good state", *path);
    }
  }
  const int count = list.count;
  free(list.value);
  if (*path || (count == 0 && !linked && !plain)) return FN_OK;
  FN_CHECK(count != 1, FN_ERR_CHECKPOINT, "the only state in %s is incomplete or damaged", folder);
  FN_FAIL(FN_ERR_CHECKPOINT, "none of the %d states in %s is complete and undamaged", count,
          folder);
}

fn_status fn_checkpoint_find_below(const char *folder, int64_t index, char **path) {
  *path = NULL;
  indices list;
  FN_TRY(list_states(folder, &list));
  for (int i = 0; i < list.count && !*path; i++) {
    char name[64];
    snprintf(name, sizeof name, "state_%lld.h5", (long long)list.value[i]);
    if (list.value[i] < index) try_state(folder, name, path);
  }
  free(list.value);
  return FN_OK;
}

/* ---- retention --------------------------------------------------------------------------- */

static bool is_linked(const char *folder, const char *name) {
  char target[PATH_SIZE];
  for (int i = 0; i < LINK_COUNT; i++) {
    if (read_link(folder, links[i], target, sizeof target) && strcmp(target, name) == 0)
      return true;
  }
  return false;
}

fn_status fn_checkpoint_retain(const char *folder, int64_t keep_last, int64_t keep_every) {
  if (keep_last <= 0) return FN_OK;
  indices list;
  FN_TRY(list_states(folder, &list));
  fn_status status = FN_OK;
  char current[PATH_SIZE];
  const int64_t newest =
      read_link(folder, links[0], current, sizeof current) ? fn_state_index(current) : -1;
  int64_t kept = 0;
  for (int i = 0; i < list.count && status == FN_OK; i++) {
    // Those above are damaged or of a past that was gone back on: the run will replace them. They
    // must not push out states that are good.
    if (newest >= 0 && list.value[i] > newest) continue;
    char name[64], path[PATH_SIZE];
    snprintf(name, sizeof name, "state_%lld.h5", (long long)list.value[i]);
    if (kept++ < keep_last || is_linked(folder, name) || !join(path, folder, name)) continue;
    if (keep_every > 0) {
      const int64_t epoch = fn_state_whole_epoch(path);
      if (epoch == -2 || (epoch > 0 && epoch % keep_every == 0)) continue;
    }
    if (unlink(path) != 0 && errno != ENOENT)
      status = fn_error_set(FN_ERR_CHECKPOINT, __FILE__, __LINE__, "cannot remove %s: %s", path,
                            strerror(errno));
  }
  free(list.value);
  return status;
}
