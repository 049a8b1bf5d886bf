/* Which samples of cubes come when: windows of a few cubes, each shuffled as a whole, so that a
 * batch mixes cubes and classes while only a few cubes are in memory. */
#include <stdlib.h>

#include "base/random.h"
#include "data/cubes.h"

static int64_t slices_kept(const fn_cube_order_options *o) {
  return o->per_cube > 0 && o->per_cube < o->slices ? o->per_cube : o->slices;
}

int64_t fn_cube_order_count(const fn_cube_order_options *o) {
  return o->cubes * slices_kept(o) * o->transforms;
}

static int compare(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/** The slices of one cube in this epoch, to the front of slice[0..slices). The draw does not depend
 *  on where the cube stands in the order. */
static void draw_slices(const fn_cube_order_options *o, int64_t cube, int64_t *slice) {
  const int64_t kept = slices_kept(o);
  for (int64_t s = 0; s < o->slices; s++)
    slice[s] = s;
  if (kept == o->slices) return;
  fn_random random =
      fn_random_stream(o->seed, FN_RANDOM_ORDER, (uint32_t)o->epoch, (uint64_t)(1 + cube));
  for (int64_t s = 0; s < kept; s++) { // the first steps of Fisher & Yates
    const int64_t other = s + (int64_t)fn_random_below(&random, (uint64_t)(o->slices - s));
    const int64_t swap = slice[s];
    slice[s] = slice[other];
    slice[other] = swap;
  }
  qsort(slice, (size_t)kept, sizeof *slice, compare);
}

/** Samples of both cubes of a seed, in ascending order. Returns behind the last one written. */
static int64_t *append_pair(const fn_cube_order_options *o, int64_t pair, int64_t *slice,
                            int64_t *order) {
  const int64_t kept = slices_kept(o);
  for (int64_t cube = 2 * pair; cube < 2 * pair + 2; cube++) {
    draw_slices(o, cube, slice);
    for (int64_t s = 0; s < kept; s++)
      for (int64_t t = 0; t < o->transforms; t++)
        *order++ = (cube * o->slices + slice[s]) * o->transforms + t;
  }
  return order;
}

/** As few windows as there can be, their sizes as equal as they can be: a small last window would
 *  make batches of few cubes. The first `larger` of them have one pair more than the others. */
typedef struct windows {
  int64_t count, larger, pairs; /**< pairs of a window that is not larger */
} windows;

static windows divide(const fn_cube_order_options *o) {
  const int64_t pairs = o->cubes / 2, most = o->window < 4 ? 1 : o->window / 2;
  windows w = {.count = (pairs + most - 1) / most};
  if (w.count == 0) return w;
  w.larger = pairs % w.count;
  w.pairs = pairs / w.count;
  return w;
}

/** Cubes of the windows before the one that holds sample number `at` of the order; *size: its own.
 */
static int64_t cubes_before(const fn_cube_order_options *o, const windows *w, int64_t at,
                            int64_t *size) {
  const int64_t cube = at / (slices_kept(o) * o->transforms);
  const int64_t edge = 2 * w->larger * (w->pairs + 1);
  const int64_t first = cube < edge ? 0 : edge;
  *size = 2 * (w->pairs + (cube < edge));
  return first + (cube - first) / *size * *size;
}

int64_t fn_cube_order_held(const fn_cube_order_options *o, int ranks, int64_t batch) {
  const windows w = divide(o);
  const int64_t samples = fn_cube_order_count(o), count = samples / ranks;
  int64_t held = 1, size;
  for (int64_t t = 0; t < count; t += batch) {
    int64_t oldest = INT64_MAX, newest = 0;
    for (int rank = 0; rank < ranks; rank++) {
      int64_t begin, length;
      fn_rank_slice(samples, rank, ranks, true, &begin, &length);
      const int64_t end = begin + (t + batch < length ? t + batch : length) - 1;
      const int64_t origin = cubes_before(o, &w, begin, &size);
      const int64_t last = cubes_before(o, &w, end, &size) + size - origin;
      const int64_t first = cubes_before(o, &w, begin + t, &size) - origin;
      if (last > newest) newest = last;
      if (first < oldest) oldest = first;
    }
    if (newest - oldest > held) held = newest - oldest;
  }
  return held < o->cubes ? held : o->cubes;
}

static void fill(const fn_cube_order_options *o, int64_t *pair, int64_t *slice, int64_t *order) {
  const int64_t pairs = o->cubes / 2;
  const windows parts = divide(o);
  fn_random random = fn_random_stream(o->seed, FN_RANDOM_ORDER, (uint32_t)o->epoch, 0);
  for (int64_t i = 0; i < pairs; i++)
    pair[i] = i;
  if (o->shuffle) fn_random_shuffle(&random, pair, pairs);
  for (int64_t w = 0, next = 0; w < parts.count; w++) {
    const int64_t size = parts.pairs + (w < parts.larger);
    int64_t *end = order;
    for (int64_t i = 0; i < size; i++)
      end = append_pair(o, pair[next++], slice, end);
    random = fn_random_stream(o->seed, FN_RANDOM_ORDER, (uint32_t)o->epoch,
                              (uint64_t)(1 + o->cubes + w));
    if (o->shuffle) fn_random_shuffle(&random, order, end - order);
    order = end;
  }
}

fn_status fn_cube_order(const fn_cube_order_options *o, int64_t *order) {
  FN_CHECK(o->cubes >= 0 && o->cubes % 2 == 0 && o->slices > 0 && o->transforms > 0 &&
               o->window >= 2 && o->window % 2 == 0,
           FN_ERR_INTERNAL, "an epoch of %lld cubes in windows of %lld cannot be ordered",
           (long long)o->cubes, (long long)o->window);
  int64_t *pair = malloc((size_t)(o->cubes / 2 + 1) * sizeof *pair);
  int64_t *slice = malloc((size_t)o->slices * sizeof *slice);
  fn_status status = FN_OK;
  if (pair && slice)
    fill(o, pair, slice, order);
  else
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory to order %lld cubes",
                          (long long)o->cubes);
  free(pair);
  free(slice);
  return status;
}
