#include "data/ring.h"

#include <stdlib.h>

enum { STAGES = 2 };

typedef struct ring_slot {
  void *pinned;
  fn_event *copied; /**< FN_STREAM_IN: the slot was read, its stage is there */
  int stage;        /**< that holds it, or is about to; -1: none */
} ring_slot;

typedef struct ring_stage {
  void *memory;
  fn_event *used; /**< compute */
  int64_t slot;   /**< it holds; -1: none */
} ring_stage;

struct fn_ring {
  fn_device *device;
  size_t bytes;
  int64_t slots;
  ring_slot *slot;
  ring_stage stage[STAGES];
  int next; /**< stage to be filled */
};

static fn_status create(fn_ring *r) {
  fn_device *d = r->device;
  r->slot = calloc((size_t)r->slots, sizeof *r->slot);
  FN_CHECK(r->slot, FN_ERR_MEMORY, "out of memory");
  for (int64_t i = 0; i < r->slots; i++) {
    r->slot[i].stage = -1;
    FN_TRY(d->allocate_pinned(d, r->bytes, &r->slot[i].pinned));
    FN_TRY(d->event_create(d, &r->slot[i].copied));
  }
  for (int k = 0; k < STAGES; k++) {
    r->stage[k].slot = -1;
    FN_TRY(d->allocate(d, r->bytes, &r->stage[k].memory));
    FN_TRY(d->event_create(d, &r->stage[k].used));
  }
  return FN_OK;
}

fn_status fn_ring_create(fn_device *device, int64_t slots, size_t bytes, fn_ring **ring) {
  *ring = NULL;
  fn_ring *r = calloc(1, sizeof *r);
  FN_CHECK(r, FN_ERR_MEMORY, "out of memory");
  *r = (fn_ring){.device = device, .slots = slots, .bytes = bytes};
  const fn_status status = create(r);
  if (status != FN_OK) {
    fn_ring_destroy(r);
    return fn_error_context(status, "batches on their way to the device; a smaller data.prefetch, "
                                    "train.batch or data.crop takes less");
  }
  *ring = r;
  return FN_OK;
}

void fn_ring_destroy(fn_ring *r) {
  if (!r) return;
  fn_device *d = r->device;
  // What is on its way needs the memory; a device that has failed does nothing any more.
  (void)d->synchronize(d, FN_STREAM_IN);
  (void)d->synchronize(d, FN_STREAM_COMPUTE);
  for (int64_t i = 0; r->slot && i < r->slots; i++) {
    if (r->slot[i].pinned) d->release_pinned(d, r->slot[i].pinned);
    if (r->slot[i].copied) d->event_destroy(d, r->slot[i].copied);
  }
  for (int k = 0; k < STAGES; k++) {
    if (r->stage[k].memory) d->release(d, r->stage[k].memory);
    if (r->stage[k].used) d->event_destroy(d, r->stage[k].used);
  }
  free(r->slot);
  free(r);
}

bool fn_ring_fits(const fn_ring *r, int64_t slots, size_t bytes) {
  return r && r->slots >= slots && r->bytes >= bytes;
}

void *fn_ring_slot(const fn_ring *r, int64_t slot) {
  return r->slot[slot].pinned;
}

fn_status fn_ring_reclaim(fn_ring *r, int64_t index) {
  ring_slot *s = &r->slot[index];
  if (s->stage >= 0) r->stage[s->stage].slot = -1;
  s->stage = -1;
  return r->device->synchronize_event(r->device, s->copied);
}

fn_status fn_ring_was_read(fn_ring *r, int64_t slot, bool *yes) {
  return r->device->passed(r->device, r->slot[slot].copied, yes);
}

fn_status fn_ring_send(fn_ring *r, int64_t index, size_t bytes) {
  fn_device *d = r->device;
  ring_slot *s = &r->slot[index];
  FN_CHECK(bytes <= r->bytes, FN_ERR_INTERNAL, "%zu bytes for a slot of %zu", bytes, r->bytes);
  if (s->stage >= 0) return FN_OK;
  ring_stage *to = &r->stage[r->next];
  if (to->slot >= 0) r->slot[to->slot].stage = -1;
  to->slot = -1; // until it is on its way
  FN_TRY(d->wait(d, FN_STREAM_IN, to->used));
  FN_TRY(d->copy(d, FN_STREAM_IN, to->memory, s->pinned, bytes, FN_COPY_TO_DEVICE));
  FN_TRY(d->record(d, FN_STREAM_IN, s->copied));
  to->slot = index;
  s->stage = r->next;
  r->next = (r->next + 1) % STAGES;
  return FN_OK;
}

fn_status fn_ring_use(fn_ring *r, int64_t index, const void **memory) {
  const ring_slot *s = &r->slot[index];
  FN_CHECK(s->stage >= 0, FN_ERR_INTERNAL, "a batch that was not sent to the device");
  *memory = r->stage[s->stage].memory;
  return r->device->wait(r->device, FN_STREAM_COMPUTE, s->copied);
}

fn_status fn_ring_used(fn_ring *r, int64_t index) {
  const ring_slot *s = &r->slot[index];
  FN_CHECK(s->stage >= 0, FN_ERR_INTERNAL, "a batch that was not sent to the device");
  return r->device->record(r->device, FN_STREAM_COMPUTE, r->stage[s->stage].used);
}
