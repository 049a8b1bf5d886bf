/* Open field files: the least recently used idle one is closed to make room. */
#include "data/handles.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/text.h"

typedef struct handle {
  fn_field *field; /**< NULL: slot is free */
  int64_t key;
  uint64_t used; /**< tick of the last return */
  int weight;
  bool lent;
} handle;

struct fn_handles {
  pthread_mutex_t lock;
  handle *slot;
  int capacity;
  int limit, weight; /**< of all open files */
  uint64_t tick;
};

fn_status fn_handles_create(int limit, fn_handles **handles) {
  *handles = calloc(1, sizeof **handles);
  FN_CHECK(*handles, FN_ERR_MEMORY, "no memory for the table of open files");
  pthread_mutex_init(&(*handles)->lock, NULL);
  (*handles)->limit = limit;
  return FN_OK;
}

void fn_handles_destroy(fn_handles *handles) {
  if (!handles) return;
  for (int i = 0; i < handles->capacity; i++)
    fn_field_close(handles->slot[i].field);
  pthread_mutex_destroy(&handles->lock);
  free(handles->slot);
  free(handles);
}

/** Take idle files out of the table, oldest first, until `room` more fit. Returns one of them to be
 *  closed outside the lock; call again until NULL. Locked. */
static fn_field *evict(fn_handles *handles, int room) {
  if (handles->weight + room <= handles->limit) return NULL;
  handle *oldest = NULL;
  for (int i = 0; i < handles->capacity; i++) {
    handle *h = &handles->slot[i];
    if (h->field && !h->lent && (!oldest || h->used < oldest->used)) oldest = h;
  }
  if (!oldest) return NULL;
  fn_field *field = oldest->field;
  handles->weight -= oldest->weight;
  oldest->field = NULL;
  return field;
}

static void make_room(fn_handles *handles, int room) {
  for (;;) {
    pthread_mutex_lock(&handles->lock);
    fn_field *old = evict(handles, room);
    pthread_mutex_unlock(&handles->lock);
    if (!old) return;
    fn_field_close(old);
  }
}

/** Locked. */
static fn_status insert(fn_handles *handles, const handle *h) {
  int i = 0;
  while (i < handles->capacity && handles->slot[i].field)
    i++;
  if (i == handles->capacity) {
    const int capacity = i ? 2 * i : 16;
    handle *grown = realloc(handles->slot, (size_t)capacity * sizeof *grown);
    FN_CHECK(grown, FN_ERR_MEMORY, "no memory for the table of %d open files", capacity);
    for (int j = i; j < capacity; j++)
      grown[j] = (handle){0};
    handles->slot = grown;
    handles->capacity = capacity;
  }
  handles->slot[i] = *h;
  handles->weight += h->weight;
  return FN_OK;
}

/** An idle handle of the file, marked as lent; NULL when there is none. */
static fn_field *borrow(fn_handles *handles, int64_t key) {
  fn_field *field = NULL;
  pthread_mutex_lock(&handles->lock);
  for (int i = 0; i < handles->capacity && !field; i++) {
    handle *h = &handles->slot[i];
    if (h->field && !h->lent && h->key == key) {
      h->lent = true;
      field = h->field;
    }
  }
  pthread_mutex_unlock(&handles->lock);
  return field;
}

fn_status fn_handles_take(fn_handles *handles, int64_t key, const char *path, bool packed,
                          fn_field **field) {
  *field = borrow(handles, key);
  if (*field) return FN_OK;
  const int weight = fn_text_ends(path, ".npy") ? 1 : FN_HANDLES_HDF5_WEIGHT;
  make_room(handles, weight);
  FN_TRY(fn_field_open(path, packed, field));
  const handle h = {.field = *field, .key = key, .weight = weight, .lent = true};
  pthread_mutex_lock(&handles->lock);
  const fn_status status = insert(handles, &h);
  pthread_mutex_unlock(&handles->lock);
  if (status != FN_OK) {
    fn_field_close(*field);
    *field = NULL;
  }
  return status;
}

void fn_handles_return(fn_handles *handles, fn_field *field) {
  pthread_mutex_lock(&handles->lock);
  for (int i = 0; i < handles->capacity; i++) {
    handle *h = &handles->slot[i];
    if (h->field == field) {
      h->lent = false;
      h->used = ++handles->tick;
      break;
    }
  }
  pthread_mutex_unlock(&handles->lock);
  make_room(handles, 0);
}

int fn_handles_open(fn_handles *handles) {
  pthread_mutex_lock(&handles->lock);
  const int weight = handles->weight;
  pthread_mutex_unlock(&handles->lock);
  return weight;
}
