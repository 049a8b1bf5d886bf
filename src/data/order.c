/* Which samples come when, and which rank takes them. */
#include <math.h>
#include <stdlib.h>

#include "base/random.h"
#include "data/dataset.h"

void fn_rank_slice(int64_t samples, int rank, int size, bool drop_tail, int64_t *begin,
                   int64_t *count) {
  const int64_t each = samples / size, extra = drop_tail ? 0 : samples % size;
  *begin = rank * each + (rank < extra ? rank : extra);
  *count = each + (rank < extra ? 1 : 0);
}

/** Place of one sample in the order of the epoch: slot + fraction, ties by `index`. */
typedef struct place {
  int64_t slot;
  double fraction;
  int64_t index; /**< in the provisional order */
} place;

static int compare(const void *a, const void *b) {
  const place *x = a, *y = b;
  if (x->slot != y->slot) return x->slot < y->slot ? -1 : 1;
  if (x->fraction < y->fraction || x->fraction > y->fraction)
    return x->fraction < y->fraction ? -1 : 1;
  return x->index < y->index ? -1 : x->index > y->index;
}

/** Files in random order, then every crop moves forward by up to `distance` files. Slot and
 * fraction are kept apart: adding them could round a crop into the next file. */
static fn_status divided(fn_random random, int64_t files, int64_t crops, double distance,
                         int64_t *order) {
  const int64_t samples = files * crops;
  int64_t *file = malloc((size_t)files * sizeof *file);
  place *places = malloc((size_t)samples * sizeof *places);
  if (!file || !places) {
    free(file);
    free(places);
    FN_FAIL(FN_ERR_MEMORY, "no memory to order %lld samples", (long long)samples);
  }
  for (int64_t i = 0; i < files; i++)
    file[i] = i;
  fn_random_shuffle(&random, file, files);
  for (int64_t i = 0; i < files; i++) {
    for (int64_t j = 0; j < crops; j++) {
      const double moved = fn_random_uniform(&random) * distance, whole = floor(moved);
      const int64_t turns = (int64_t)fmod(whole, (double)files);
      places[i * crops + j] = (place){(i + turns) % files, moved - whole, i * crops + j};
    }
  }
  qsort(places, (size_t)samples, sizeof *places, compare);
  for (int64_t i = 0; i < samples; i++)
    order[i] = file[places[i].index / crops] * crops + places[i].index % crops;
  free(file);
  free(places);
  return FN_OK;
}

fn_status fn_epoch_order(uint64_t seed, int64_t epoch, int64_t files, int64_t crops, bool shuffle,
                         bool divide, double distance, int64_t *order) {
  int64_t samples;
  FN_CHECK(files >= 0 && crops >= 0 && !__builtin_mul_overflow(files, crops, &samples),
           FN_ERR_INTERNAL, "an epoch of %lld files with %lld crops cannot be ordered",
           (long long)files, (long long)crops);
  FN_CHECK(!divide || (isfinite(distance) && distance >= 0), FN_ERR_CONFIG,
           "data.shuffle_distance must be finite and not negative, found %g", distance);
  fn_random random = fn_random_stream(seed, FN_RANDOM_ORDER, (uint32_t)epoch, 0);
  if (shuffle && divide && samples > 0) return divided(random, files, crops, distance, order);
  for (int64_t i = 0; i < samples; i++)
    order[i] = i;
  if (shuffle) fn_random_shuffle(&random, order, samples);
  return FN_OK;
}
