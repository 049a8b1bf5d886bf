#include "run/starts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "run/checkpoint.h"
#include "run/checkpoint_folder.h"

enum { STATES_MOST = 64, PATH_SIZE = 4096 };

typedef struct entry {
  char name[64];
  int64_t time; // of the file, ns since 1970: a state of the same name written later is another one
  int64_t starts;
} entry;

typedef struct starts {
  entry entry[STATES_MOST]; // latest first
  int count;
} starts;

static bool file_path(char *path, const char *folder) {
  return snprintf(path, PATH_SIZE, "%s/starts.txt", folder) < PATH_SIZE;
}

static const char *name_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/** Name and time of a state; false when it has no name of ours or is gone. */
static bool identify(const char *path, entry *e) {
  struct stat info;
  const char *name = name_of(path);
  if (fn_state_index(name) < 0 || strlen(name) >= sizeof e->name || stat(path, &info) != 0)
    return false;
  snprintf(e->name, sizeof e->name, "%s", name);
  e->time = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
  return true;
}

/** What cannot be read counts nothing: the file is a help, not part of a state. */
static void read_starts(const char *folder, starts *s) {
  char path[PATH_SIZE], *text = NULL;
  s->count = 0;
  if (!file_path(path, folder) || !fn_file_exists(path)) return;
  if (fn_file_read(path, &text, NULL) != FN_OK) {
    fn_log(FN_WARN, "%s", fn_error_message());
    fn_error_clear();
    return;
  }
  for (char *line = text; line && *line && s->count < STATES_MOST;) {
    entry *e = &s->entry[s->count];
    if (sscanf(line, "%63s %" SCNd64 " %" SCNd64, e->name, &e->time, &e->starts) == 3) s->count++;
    line = strchr(line, '\n');
    if (line) line++;
  }
  free(text);
}

static fn_status write_starts(const char *folder, const starts *s) {
  char path[PATH_SIZE];
  FN_CHECK(file_path(path, folder), FN_ERR_CHECKPOINT, "path too long: %s", folder);
  fn_text text = {0};
  for (int i = 0; i < s->count; i++)
    fn_text_add(&text, "%s %" PRId64 " %" PRId64 "\n", s->entry[i].name, s->entry[i].time,
                s->entry[i].starts);
  fn_status status = fn_file_replace_text(path, &text);
  fn_text_free(&text);
  return status == FN_OK ? FN_OK : FN_ERR_CHECKPOINT;
}

static entry *find(starts *s, const entry *wanted) {
  for (int i = 0; i < s->count; i++)
    if (strcmp(s->entry[i].name, wanted->name) == 0 && s->entry[i].time == wanted->time)
      return &s->entry[i];
  return NULL;
}

static int64_t starts_from(starts *s, const char *path) {
  entry e;
  const entry *found = identify(path, &e) ? find(s, &e) : NULL;
  return found ? found->starts : 0;
}

fn_status fn_starts_choose(const fn_run *run, char **path) {
  const int64_t most = run->checkpoint.fall_back_after;
  starts s;
  read_starts(run->folder, &s);
  const int64_t died = starts_from(&s, *path);
  if (most <= 0 || died < most) return FN_OK;
  char *older = strdup(*path);
  FN_CHECK(older, FN_ERR_MEMORY, "out of memory");
  while (older && starts_from(&s, older) >= most) {
    const int64_t index = fn_state_index(name_of(older));
    free(older);
    FN_TRY(fn_checkpoint_find_below(run->folder, index, &older));
  }
  if (!older) {
    fn_log(
        FN_WARN,
        "%lld starts from %s ended before a later state was written, and there is no older state "
        "to go back to: trying again",
        (long long)died, *path);
    return FN_OK;
  }
  fn_log(FN_WARN,
         "%lld starts from %s ended before a later state was written: going back to %s. "
         "--set checkpoint.fall_back_after=0 goes on from the newest state all the same",
         (long long)died, *path, older);
  free(*path);
  *path = older;
  return FN_OK;
}

fn_status fn_starts_note(const char *folder, const char *path) {
  starts s;
  entry e = {.starts = 0};
  if (!identify(path, &e)) return FN_OK;
  read_starts(folder, &s);
  const entry *found = find(&s, &e);
  const int at = found ? (int)(found - s.entry) : s.count < STATES_MOST ? s.count++ : s.count - 1;
  if (found) e.starts = found->starts;
  e.starts++;
  memmove(&s.entry[1], &s.entry[0], (size_t)at * sizeof s.entry[0]);
  s.entry[0] = e;
  return write_starts(folder, &s);
}

void fn_starts_settle(const char *folder, const char *path) {
  starts s;
  entry e;
  if (!identify(path, &e)) return;
  read_starts(folder, &s);
  entry *found = find(&s, &e);
  if (!found || found->starts <= 0) return;
  found->starts--;
  if (found->starts == 0) { // the others stay in their order
    const entry *end = &s.entry[s.count--];
    memmove(found, found + 1, (size_t)(end - found - 1) * sizeof *found);
  }
  if (s.count == 0) {
    fn_starts_forget(folder);
  } else if (write_starts(folder, &s) != FN_OK) {
    fn_log(FN_WARN, "%s", fn_error_message());
  }
}

void fn_starts_forget(const char *folder) {
  char path[PATH_SIZE];
  if (file_path(path, folder)) unlink(path);
}
