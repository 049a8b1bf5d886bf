#include "run/epoch.h"

#include <stdlib.h>
#include <string.h>

#include "data/dataset.h"

static bool same(const fn_stretch *s, int size, int64_t batch) {
  return s->ranks == size && s->batch == batch;
}

/** Take the samples done in `s` off `left`; returns how many remain. Order is kept. */
static int64_t take_off(const fn_stretch *s, int64_t *left, int64_t count) {
  int64_t kept = 0;
  for (int rank = 0; rank < (int)s->ranks; rank++) {
    int64_t begin, length;
    fn_rank_slice(count, rank, (int)s->ranks, true, &begin, &length);
    // A batch may be larger than all samples: what there is bounds the product.
    int64_t done = s->batches * (s->batch < length ? s->batch : length);
    if (done > length) done = length;
    // Samples beyond the last slice (count mod ranks) belong to nobody: the last rank keeps them.
    const int64_t end = rank == (int)s->ranks - 1 ? count : begin + length;
    memmove(left + kept, left + begin + done, (size_t)(end - begin - done) * sizeof *left);
    kept += end - begin - done;
  }
  return kept;
}

fn_status fn_epoch_list(const fn_progress *progress, const int64_t *order, int64_t samples,
                        int rank, int size, int64_t batch, int64_t **list, int64_t *count,
                        int64_t *first) {
  int64_t *left = malloc((size_t)(samples + 1) * sizeof *left);
  FN_CHECK(left, FN_ERR_MEMORY, "out of memory for the order of %lld samples", (long long)samples);
  memcpy(left, order, (size_t)samples * sizeof *left);
  int64_t remaining = samples;
  *first = 0;
  for (int i = 0; i < progress->stretches; i++) {
    const fn_stretch *s = &progress->stretch[i];
    if (i == progress->stretches - 1 && same(s, size, batch)) {
      *first = s->batches;
      break;
    }
    remaining = take_off(s, left, remaining);
  }
  int64_t begin;
  fn_rank_slice(remaining, rank, size, true, &begin, count);
  memmove(left, left + begin, (size_t)*count * sizeof *left);
  *list = left;
  return FN_OK;
}

bool fn_epoch_has_room(const fn_progress *progress, int size, int64_t batch) {
  const int n = progress->stretches;
  return n < FN_STRETCHES_MOST || same(&progress->stretch[n - 1], size, batch);
}

void fn_epoch_advance(fn_progress *progress, int size, int64_t batch) {
  int n = progress->stretches;
  if (n == 0 || !same(&progress->stretch[n - 1], size, batch)) {
    if (n == FN_STRETCHES_MOST) return; // fn_epoch_has_room was asked before
    progress->stretch[n] = (fn_stretch){.ranks = size, .batch = batch};
    progress->stretches = ++n;
  }
  progress->stretch[n - 1].batches++;
}
