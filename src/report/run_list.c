/* Folders of runs below a path. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "report/beat.h"
#include "report/run_status.h"

enum { LEVELS = 3, PATH_SIZE = 4096 };

bool fn_is_run_folder(const char *folder) {
  static const char *const files[] = {FN_BEAT_FILE, "metrics.jsonl", "checkpoint.h5",
                                      "resolved.yaml"};
  char path[PATH_SIZE];
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, files[i]);
    if (fn_file_exists(path)) return true;
  }
  return false;
}

static void append(fn_arena *arena, const char *folder, fn_run_list *list) {
  if ((list->count & (list->count - 1)) == 0) { // full at powers of two
    char **grown =
        fn_arena_take(arena, sizeof *grown * (size_t)(list->count ? 2 * list->count : 1));
    if (list->count) memcpy(grown, list->folder, sizeof *grown * (size_t)list->count);
    list->folder = grown;
  }
  list->folder[list->count++] = fn_arena_text(arena, folder);
}

static int is_candidate(const struct dirent *entry) {
  const bool folder =
      entry->d_type == DT_DIR || entry->d_type == DT_LNK || entry->d_type == DT_UNKNOWN;
  return folder && entry->d_name[0] != '.';
}

/** Runs below `path`, which is none itself. */
static void search(fn_arena *arena, const char *path, int levels, fn_run_list *list) {
  struct dirent **entry;
  const int entries = scandir(path, &entry, is_candidate, versionsort);
  for (int i = 0; i < entries; i++) {
    char *below = fn_arena_format(arena, "%s/%s", path, entry[i]->d_name);
    if (strlen(below) < PATH_SIZE - 64 && fn_is_directory(below)) {
      if (fn_is_run_folder(below))
        append(arena, below, list);
      else if (levels > 1)
        search(arena, below, levels - 1, list);
    }
    free(entry[i]);
  }
  if (entries >= 0) free(entry);
}

fn_status fn_run_list_add(fn_arena *arena, const char *path, fn_run_list *list) {
  char *folder = fn_arena_text(arena, path);
  for (size_t length = strlen(folder); length > 1 && folder[length - 1] == '/'; length--)
    folder[length - 1] = '\0';
  FN_CHECK(fn_file_exists(folder), FN_ERR_CONFIG, "%s does not exist", folder);
  FN_CHECK(fn_is_directory(folder), FN_ERR_CONFIG,
           "%s is not a folder: give the folder of a run, or one with runs below it", folder);
  const int before = list->count;
  if (!fn_is_run_folder(folder)) search(arena, folder, LEVELS, list);
  if (list->count == before) append(arena, folder, list);
  return FN_OK;
}
