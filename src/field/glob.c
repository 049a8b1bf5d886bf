/* Patterns of files and datasets to sorted paths. */
#include <fnmatch.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "field/array.h"
#include "field/safe_write.h"

typedef struct matches {
  fn_arena *arena;
  const char **path;
  int count, capacity;
} matches;

static void add(matches *m, const char *path) {
  if (m->count == m->capacity) {
    const int capacity = m->capacity ? 2 * m->capacity : 64;
    const char **grown = fn_arena_take(m->arena, (size_t)capacity * sizeof *grown);
    if (m->count) memcpy(grown, m->path, (size_t)m->count * sizeof *grown);
    m->path = grown;
    m->capacity = capacity;
  }
  m->path[m->count++] = path;
}

static bool is_pattern(const char *text) {
  return strpbrk(text, "*?[") != NULL;
}

static int compare(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/** Datasets of `file` matching `dataset`; a plain name is taken as it is and checked when opened.
 */
static fn_status add_datasets(matches *m, const char *file, const char *dataset) {
  const char *slash = *dataset == '/' ? "" : "/";
  if (!is_pattern(dataset)) {
    add(m, fn_arena_format(m->arena, "%s:%s%s", file, slash, dataset));
    return FN_OK;
  }
  const char **names;
  int count;
  const char *pattern = fn_arena_format(m->arena, "%s%s", slash, dataset);
  FN_TRY(fn_hdf5_list(file, m->arena, &names, &count));
  for (int i = 0; i < count; i++) {
    if (fnmatch(pattern, names[i], FNM_PATHNAME) == 0)
      add(m, fn_arena_format(m->arena, "%s:%s", file, names[i]));
  }
  return FN_OK;
}

static fn_status add_files(matches *m, const char *files, const char *dataset) {
  glob_t found = {0};
  const int result = glob(files, GLOB_NOSORT, NULL, &found);
  FN_CHECK(result != GLOB_NOSPACE, FN_ERR_MEMORY, "out of memory matching %s", files);
  fn_status status = FN_OK;
  for (size_t i = 0; result == 0 && i < found.gl_pathc && status == FN_OK; i++) {
    if (dataset) {
      status = add_datasets(m, found.gl_pathv[i], dataset);
    } else {
      add(m, fn_arena_text(m->arena, found.gl_pathv[i]));
    }
  }
  if (result == 0) globfree(&found);
  // A file whose name contains pattern characters, meant literally.
  if (result == GLOB_NOMATCH && is_pattern(files) && fn_file_exists(files)) {
    if (dataset) return add_datasets(m, files, dataset);
    add(m, fn_arena_text(m->arena, files));
  }
  return status;
}

fn_status fn_field_glob(fn_arena *arena, const char *pattern, const char ***paths, int *count) {
  matches m = {.arena = arena};
  *paths = NULL;
  *count = 0;
  char *files = fn_arena_text(arena, pattern);
  const int colon = fn_dataset_colon(pattern);
  if (colon >= 0) files[colon] = '\0';
  FN_TRY(add_files(&m, files, colon >= 0 ? pattern + colon + 1 : NULL));
  if (m.count == 0) {
    char folder[4096];
    fn_folder_of(files, folder, sizeof folder);
    const bool no_folder = !is_pattern(folder) && !fn_is_directory(folder);
    FN_FAIL(FN_ERR_DATA, "no %s matches %s%s%s",
            colon >= 0 && fn_file_exists(files) ? "dataset" : "file", pattern,
            no_folder ? ": there is no folder " : "", no_folder ? folder : "");
  }
  qsort(m.path, (size_t)m.count, sizeof *m.path, compare);
  *paths = m.path;
  *count = m.count;
  return FN_OK;
}
