#include "backend/cuda/plans.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/random.h"
#include "base/system.h"
#include "base/text.h"

typedef struct kept {
  char *key, *text;
  size_t size;
} kept;

struct fn_plans {
  char *folder; /**< NULL: in memory only */
  kept *item;
  int count, capacity;
};

fn_status fn_plans_open(const char *folder, fn_plans **plans) {
  fn_plans *p = *plans = calloc(1, sizeof *p);
  FN_CHECK(p, FN_ERR_MEMORY, "out of memory");
  if (!folder) return FN_OK;
  fn_text path = {0};
  fn_text_add(&path, "%s/plans", folder);
  if (path.data && fn_make_directories(path.data) == FN_OK) {
    p->folder = path.data;
    return FN_OK;
  }
  fn_log(FN_WARN, "compiled plans are not kept: %s", fn_error_message());
  fn_error_clear();
  fn_text_free(&path);
  return FN_OK;
}

void fn_plans_close(fn_plans *p) {
  if (!p) return;
  for (int i = 0; i < p->count; i++) {
    free(p->item[i].key);
    free(p->item[i].text);
  }
  free(p->item);
  free(p->folder);
  free(p);
}

static kept *find(const fn_plans *p, const char *key) {
  for (int i = 0; i < p->count; i++)
    if (strcmp(p->item[i].key, key) == 0) return &p->item[i];
  return NULL;
}

static bool has_room(fn_plans *p) {
  if (p->count < p->capacity) return true;
  const int capacity = p->capacity ? 2 * p->capacity : 64;
  kept *item = realloc(p->item, (size_t)capacity * sizeof *item);
  if (!item) return false;
  p->item = item;
  p->capacity = capacity;
  return true;
}

static fn_status remember(fn_plans *p, const char *key, const char *text, size_t size) {
  char *copy = malloc(size + 1);
  FN_CHECK(copy, FN_ERR_MEMORY, "out of memory");
  memcpy(copy, text, size);
  copy[size] = '\0';
  kept *k = find(p, key);
  if (k) {
    free(k->text);
    k->text = copy;
    k->size = size;
    return FN_OK;
  }
  char *name = strdup(key);
  if (!name || !has_room(p)) {
    free(name);
    free(copy);
    FN_FAIL(FN_ERR_MEMORY, "out of memory");
  }
  p->item[p->count++] = (kept){name, copy, size};
  return FN_OK;
}

/** Keys are long: a file has the number of one for its name, and the key for its first line. */
static char *path_of(const fn_plans *p, const char *key) {
  fn_text path = {0};
  fn_text_add(&path, "%s/%016" PRIx64 ".json", p->folder, fn_hash_text(key));
  return path.data;
}

/** Take a file over; one that is another key's, or none, is no error. */
static void read_file(fn_plans *p, const char *key) {
  char *path = path_of(p, key), *bytes = NULL;
  size_t count = 0;
  const size_t head = strlen(key);
  if (path && access(path, R_OK) == 0 && fn_file_read(path, &bytes, &count) == FN_OK &&
      count > head + 1 && memcmp(bytes, key, head) == 0 && bytes[head] == '\n')
    (void)remember(p, key, bytes + head + 1, count - head - 1);
  fn_error_clear();
  free(bytes);
  free(path);
}

const char *fn_plans_find(fn_plans *p, const char *key, size_t *size) {
  if (!find(p, key) && p->folder) read_file(p, key);
  const kept *k = find(p, key);
  if (!k) return NULL;
  *size = k->size;
  return k->text;
}

fn_status fn_plans_add(fn_plans *p, const char *key, const char *text, size_t size) {
  FN_TRY(remember(p, key, text, size));
  if (!p->folder) return FN_OK;
  fn_text file = {0};
  fn_text_add(&file, "%s\n", key);
  fn_text_add_bytes(&file, text, size);
  char *path = path_of(p, key);
  if (!path || fn_file_replace_text(path, &file) != FN_OK)
    fn_log_once(FN_WARN, "compiled plans are not kept: %s", fn_error_message());
  fn_error_clear();
  free(path);
  fn_text_free(&file);
  return FN_OK;
}
