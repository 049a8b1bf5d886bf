#include "data/slabs.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "field/array.h"

enum { PLANES_AT_ONCE = 32 };

struct fn_slab {
  pthread_mutex_t lock;
  int spatial;
  int64_t channels, size[FN_MAX_SPATIAL];
  int64_t plane;        /**< values of one channel of a plane */
  int64_t capacity;     /**< planes */
  int64_t key;          /**< of the field, -1: none */
  int64_t first, count; /**< planes held: unwrapped index along axis 0, any integer */
  float *values;        /**< [capacity][channels][plane]; plane x lies at x mod capacity */
  float *incoming;      /**< [channels][PLANES_AT_ONCE][plane] */
  int64_t planes_read;
};

static size_t slab_bytes(const fn_slab *s) {
  return (size_t)(s->capacity * s->channels * s->plane) * sizeof(float);
}

static size_t incoming_bytes(const fn_slab *s) {
  return (size_t)(PLANES_AT_ONCE * s->channels * s->plane) * sizeof(float);
}

fn_status fn_slab_create(const fn_field_info *info, const int64_t *extent, size_t most,
                         fn_slab **slab) {
  *slab = NULL;
  bool whole = true;
  int64_t plane = 1;
  for (int d = 0; d < info->spatial; d++) {
    whole &= extent[d] == info->size[d];
    if (d > 0) plane *= info->size[d];
  }
  if (whole || info->spatial > FN_MAX_SPATIAL) return FN_OK;
  fn_slab *s = calloc(1, sizeof *s);
  FN_CHECK(s, FN_ERR_MEMORY, "out of memory");
  *s = (fn_slab){.spatial = info->spatial,
                 .channels = info->channels,
                 .plane = plane,
                 .capacity = extent[0],
                 .key = -1};
  memcpy(s->size, info->size, (size_t)info->spatial * sizeof *info->size);
  pthread_mutex_init(&s->lock, NULL);
  if (slab_bytes(s) + incoming_bytes(s) > most) {
    fn_slab_destroy(s);
    return FN_OK;
  }
  fn_status status = fn_pages_allocate(slab_bytes(s), (void **)&s->values);
  if (status == FN_OK) status = fn_pages_allocate(incoming_bytes(s), (void **)&s->incoming);
  if (status != FN_OK) {
    fn_slab_destroy(s);
    return status;
  }
  *slab = s;
  return FN_OK;
}

void fn_slab_destroy(fn_slab *slab) {
  if (!slab) return;
  if (slab->values) fn_pages_free(slab->values, slab_bytes(slab));
  if (slab->incoming) fn_pages_free(slab->incoming, incoming_bytes(slab));
  pthread_mutex_destroy(&slab->lock);
  free(slab);
}

static float *plane_at(const fn_slab *s, int64_t x) {
  return s->values + fn_wrap(x, s->capacity) * s->channels * s->plane;
}

/** Read planes [from, from + count) of the field into their slots. Locked. */
static fn_status read_planes(fn_slab *s, fn_field *field, int64_t sample, int64_t from,
                             int64_t count) {
  int64_t start[FN_MAX_SPATIAL] = {0}, extent[FN_MAX_SPATIAL];
  memcpy(extent, s->size, sizeof extent);
  for (int64_t done = 0; done < count; done += extent[0]) {
    start[0] = from + done;
    extent[0] = count - done < PLANES_AT_ONCE ? count - done : PLANES_AT_ONCE;
    FN_TRY(fn_field_read(field, sample, start, extent, s->incoming));
    for (int64_t c = 0; c < s->channels; c++)
      for (int64_t i = 0; i < extent[0]; i++)
        memcpy(plane_at(s, start[0] + i) + c * s->plane,
               s->incoming + (c * extent[0] + i) * s->plane, (size_t)s->plane * sizeof(float));
    s->planes_read += extent[0];
  }
  fn_field_forget(field);
  return FN_OK;
}

/** Hold planes [from, from + count): those held already stay, the others are read. Locked. */
static fn_status advance(fn_slab *s, fn_field *field, int64_t key, int64_t sample, int64_t from,
                         int64_t count) {
  const int64_t end = s->first + s->count;
  const bool goes_on = key == s->key && from >= s->first && from < end;
  const int64_t missing = goes_on ? end : from;
  s->key = -1; // until everything is there
  FN_TRY(read_planes(s, field, sample, missing, from + count - missing));
  s->key = key;
  s->first = from;
  s->count = count;
  return FN_OK;
}

/** `count` values of a line from `start`, wrapped. */
static void copy_line(const float *line, int64_t size, int64_t start, int64_t count, float *out) {
  int64_t at = fn_wrap(start, size);
  while (count > 0) {
    const int64_t piece = count < size - at ? count : size - at;
    memcpy(out, line + at, (size_t)piece * sizeof *out);
    out += piece;
    count -= piece;
    at = 0;
  }
}

static void copy_block(const fn_slab *s, const int64_t *start, const int64_t *extent, float *out) {
  // Axes 1 and 2; missing ones count as one cell.
  int64_t size[2] = {1, 1}, first[2] = {0, 0}, length[2] = {1, 1};
  for (int d = 1; d < s->spatial; d++) {
    const int to = d + 2 - s->spatial;
    size[to] = s->size[d], first[to] = start[d], length[to] = extent[d];
  }
  for (int64_t c = 0; c < s->channels; c++) {
    for (int64_t i = 0; i < extent[0]; i++) {
      const float *plane = plane_at(s, start[0] + i) + c * s->plane;
      for (int64_t j = 0; j < length[0]; j++, out += length[1])
        copy_line(plane + fn_wrap(first[0] + j, size[0]) * size[1], size[1], first[1], length[1],
                  out);
    }
  }
}

fn_status fn_slab_read(fn_slab *slab, fn_field *field, int64_t key, int64_t sample,
                       const int64_t *start, const int64_t *extent, float *out) {
  pthread_mutex_lock(&slab->lock);
  const int64_t last = start[0] + extent[0], end = slab->first + slab->count;
  const bool same = key == slab->key, held = same && start[0] >= slab->first && last <= end;
  const bool behind = (same && start[0] < slab->first) || key < slab->key;
  fn_status status = FN_OK;
  if (behind || extent[0] > slab->capacity) {
    // Readers ahead of this one have moved the slab on.
    slab->planes_read += extent[0];
    pthread_mutex_unlock(&slab->lock);
    return fn_field_read(field, sample, start, extent, out);
  }
  if (!held) status = advance(slab, field, key, sample, start[0], extent[0]);
  if (status == FN_OK) copy_block(slab, start, extent, out);
  pthread_mutex_unlock(&slab->lock);
  return status;
}

int64_t fn_slab_planes_read(fn_slab *slab) {
  pthread_mutex_lock(&slab->lock);
  const int64_t planes = slab->planes_read;
  pthread_mutex_unlock(&slab->lock);
  return planes;
}
