/* Check mode: a guard behind every storage, NaN in what is released. On a device both pass through
 * pinned memory, and every step is waited for. */
#include <string.h>

#include "graph/program_internal.h"

enum { GUARD_BYTES = 64, POISON_BYTES = 1 << 20 };
static const unsigned char guard_byte = 0xA5, poison_byte = 0xFF; // NaN in every dtype

static unsigned char *guard_of(const fn_program *p, const place *owner) {
  return (unsigned char *)p->arena + owner->address + owner->bytes - GUARD_BYTES;
}

static bool is_guarded(const place *c) {
  return c->parent < 0 && !c->external && !c->constant && c->last >= 0;
}

/** Memory of a device is written from the pinned page. */
static fn_status fill(const fn_program *p, void *memory, unsigned char byte, size_t bytes) {
  if (!p->device) {
    memset(memory, byte, bytes);
    return FN_OK;
  }
  fn_device *d = p->device;
  FN_TRY(d->synchronize(d, FN_STREAM_COMPUTE));
  memset(p->poison, byte, POISON_BYTES);
  for (size_t start = 0; start < bytes; start += POISON_BYTES)
    FN_TRY(d->copy(d, FN_STREAM_COMPUTE, (char *)memory + start, p->poison,
                   bytes - start < POISON_BYTES ? bytes - start : POISON_BYTES, FN_COPY_TO_DEVICE));
  return d->synchronize(d, FN_STREAM_COMPUTE);
}

/** Where to look at the guard of place i. */
static const unsigned char *seen_guard(const fn_program *p, int i) {
  return p->device ? p->guards + (size_t)i * GUARD_BYTES : guard_of(p, &p->place[i]);
}

static fn_status fetch_guards(fn_program *p) {
  fn_device *d = p->device;
  if (!d) return FN_OK;
  for (int i = 0; i < p->place_count; i++)
    if (is_guarded(&p->place[i]))
      FN_TRY(d->copy(d, FN_STREAM_COMPUTE, p->guards + (size_t)i * GUARD_BYTES,
                     guard_of(p, &p->place[i]), GUARD_BYTES, FN_COPY_TO_HOST));
  return d->synchronize(d, FN_STREAM_COMPUTE);
}

fn_status fn_check_start(fn_program *p) {
  fn_device *d = p->device;
  if (d) {
    FN_TRY(d->allocate_pinned(d, (size_t)(p->place_count + 1) * GUARD_BYTES, (void **)&p->guards));
    FN_TRY(d->allocate_pinned(d, POISON_BYTES, (void **)&p->poison));
  }
  for (int i = 0; i < p->place_count; i++)
    if (is_guarded(&p->place[i]))
      FN_TRY(fill(p, guard_of(p, &p->place[i]), guard_byte, GUARD_BYTES));
  return FN_OK;
}

void fn_check_end(fn_program *p) {
  if (p->guards) p->device->release_pinned(p->device, p->guards);
  if (p->poison) p->device->release_pinned(p->device, p->poison);
}

fn_status fn_check_step(fn_program *p, int s) {
  FN_TRY(fetch_guards(p));
  for (int i = 0; i < p->place_count; i++) {
    const place *c = &p->place[i];
    if (!is_guarded(c)) continue;
    const unsigned char *guard = seen_guard(p, i);
    for (int b = 0; b < GUARD_BYTES; b++)
      FN_CHECK(guard[b] == guard_byte, FN_ERR_INTERNAL,
               "operator %s (%s) wrote beyond the end of a value", p->step[s].node->op->name,
               p->step[s].label);
    if (c->last == s && !c->pinned)
      FN_TRY(fill(p, (char *)p->arena + c->address, poison_byte, c->bytes - GUARD_BYTES));
  }
  return FN_OK;
}
