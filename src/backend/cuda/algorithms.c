#include "backend/cuda/algorithms.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"

typedef struct entry {
  char *key;
  fn_algorithm algorithm;
} entry;

struct fn_algorithms {
  char *path; /**< NULL: in memory only */
  long read;  /**< bytes of the file that are known */
  entry *item;
  int count, capacity;
};

static fn_status remember(fn_algorithms *a, const char *key, const fn_algorithm *algorithm) {
  if (a->count == a->capacity) {
    const int capacity = a->capacity ? 2 * a->capacity : 64;
    entry *item = realloc(a->item, (size_t)capacity * sizeof *item);
    FN_CHECK(item, FN_ERR_MEMORY, "out of memory");
    a->item = item;
    a->capacity = capacity;
  }
  char *copy = strdup(key);
  FN_CHECK(copy, FN_ERR_MEMORY, "out of memory");
  a->item[a->count++] = (entry){copy, *algorithm};
  return FN_OK;
}

/** "KEY \t ENGINE \t TYPE=VALUE TYPE=VALUE ... ." with a full stop at the end: a line that was cut
 *  short is no line. */
static bool parse(char *line, const char **key, fn_algorithm *algorithm) {
  char *engine = strchr(line, '\t');
  if (!engine) return false;
  *engine++ = 0;
  *key = line;
  char *at = engine;
  algorithm->engine = strtoll(at, &at, 10);
  if (*at != '\t') return false;
  at++;
  for (algorithm->knobs = 0; *at != '.'; algorithm->knobs++) {
    if (algorithm->knobs == FN_ALGORITHM_KNOBS) return false;
    char *end;
    algorithm->type[algorithm->knobs] = strtoll(at, &end, 10);
    if (end == at || *end != '=') return false;
    at = end + 1;
    algorithm->value[algorithm->knobs] = strtoll(at, &end, 10);
    if (end == at || *end != ' ') return false;
    at = end + 1;
  }
  return at[1] == '\n';
}

/** Take over what others have added. */
static fn_status read_news(fn_algorithms *a) {
  FILE *file = fopen(a->path, "r");
  if (!file) return FN_OK;
  fn_status status = FN_OK;
  char *line = NULL;
  size_t size = 0;
  if (fseek(file, a->read, SEEK_SET) == 0) {
    while (status == FN_OK && getline(&line, &size, file) > 0) {
      const char *key;
      fn_algorithm algorithm, known;
      if (parse(line, &key, &algorithm) && !fn_algorithms_find(a, key, &known))
        status = remember(a, key, &algorithm);
    }
    a->read = ftell(file);
  }
  free(line);
  fclose(file);
  return status;
}

fn_status fn_algorithms_open(const char *folder, fn_algorithms **algorithms) {
  fn_algorithms *a = calloc(1, sizeof *a);
  FN_CHECK(a, FN_ERR_MEMORY, "out of memory");
  *algorithms = a;
  if (!folder) return FN_OK;
  if (fn_make_directories(folder) != FN_OK) {
    fn_log(FN_WARN, "chosen algorithms are not kept: %s", fn_error_message());
    fn_error_clear();
    return FN_OK;
  }
  fn_text path = {0};
  fn_text_add(&path, "%s/algorithms.txt", folder);
  a->path = path.data;
  return read_news(a);
}

void fn_algorithms_close(fn_algorithms *a) {
  if (!a) return;
  for (int i = 0; i < a->count; i++)
    free(a->item[i].key);
  free(a->item);
  free(a->path);
  free(a);
}

bool fn_algorithms_find(const fn_algorithms *a, const char *key, fn_algorithm *algorithm) {
  for (int i = 0; i < a->count; i++)
    if (strcmp(a->item[i].key, key) == 0) {
      *algorithm = a->item[i].algorithm;
      return true;
    }
  return false;
}

static void append(const char *key, const fn_algorithm *algorithm, int file) {
  fn_text line = {0};
  fn_text_add(&line, "%s\t%" PRId64 "\t", key, algorithm->engine);
  for (int i = 0; i < algorithm->knobs; i++)
    fn_text_add(&line, "%" PRId64 "=%" PRId64 " ", algorithm->type[i], algorithm->value[i]);
  fn_text_add(&line, ".\n");
  if (write(file, line.data, line.length) != (ssize_t)line.length)
    fn_log_once(FN_WARN, "chosen algorithms are not kept: %s", strerror(errno));
  fn_text_free(&line);
}

fn_status fn_algorithms_add(fn_algorithms *a, const char *key, fn_algorithm *algorithm) {
  const int file = a->path ? open(a->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666) : -1;
  if (a->path && file < 0)
    fn_log_once(FN_WARN, "chosen algorithms are not kept: %s: %s", a->path, strerror(errno));
  fn_status status = FN_OK;
  const bool locked = file >= 0 && flock(file, LOCK_EX) == 0;
  if (locked) status = read_news(a);
  fn_algorithm known;
  if (status == FN_OK && fn_algorithms_find(a, key, &known)) {
    *algorithm = known;
  } else if (status == FN_OK) {
    status = remember(a, key, algorithm);
    if (locked && status == FN_OK) append(key, algorithm, file);
  }
  if (file >= 0) close(file); // and with it the lock
  return status;
}
