/* Memory of the emulated device and pinned memory: blocks that are known, with guards around them.
 */
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/emulated.h"

/** A power of two, as far as memory of a device is aligned. */
enum { GUARD = 256 };
static const unsigned char guard_byte = 0xA5, rubbish = 0xFF;

typedef struct block {
  char *memory; /**< behind the first guard */
  size_t bytes;
  fn_emulated_space space;
} block;

static struct {
  block *block;
  int count, capacity;
  size_t bytes[2];
  size_t limit; /**< of device memory; 0: none */
} all;

static const char *const names[] = {"device", "pinned"};

static size_t padded(size_t bytes) {
  return (bytes + GUARD - 1) / GUARD * GUARD;
}

static int find(const void *memory) {
  for (int b = 0; b < all.count; b++)
    if ((const char *)memory >= all.block[b].memory - GUARD &&
        (const char *)memory < all.block[b].memory + all.block[b].bytes + GUARD)
      return b;
  return -1;
}

void fn_emulated_limit(size_t bytes) {
  all.limit = bytes;
}

size_t fn_emulated_bytes(fn_emulated_space space) {
  return all.bytes[space];
}

fn_status fn_emulated_allocate(fn_emulated_space space, size_t bytes, void **memory) {
  *memory = NULL;
  if (space == FN_EMULATED_DEVICE && all.limit > 0 && all.bytes[space] + bytes > all.limit)
    FN_FAIL(FN_ERR_MEMORY,
            "the device has no memory for %zu bytes more: %zu of %zu bytes are in use", bytes,
            all.bytes[space], all.limit);
  if (all.count == all.capacity) {
    const int capacity = all.capacity > 0 ? 2 * all.capacity : 64;
    block *more = realloc(all.block, (size_t)capacity * sizeof *more);
    FN_CHECK(more, FN_ERR_MEMORY, "out of memory");
    all.block = more;
    all.capacity = capacity;
  }
  char *start = aligned_alloc(GUARD, padded(bytes) + 2 * GUARD);
  FN_CHECK(start, FN_ERR_MEMORY, "no memory for %zu bytes", bytes);
  memset(start, guard_byte, padded(bytes) + 2 * GUARD);
  memset(start + GUARD, rubbish, bytes);
  all.block[all.count++] = (block){start + GUARD, bytes, space};
  all.bytes[space] += bytes;
  *memory = start + GUARD;
  return FN_OK;
}

static fn_status check_guards(const block *b) {
  const unsigned char *before = (const unsigned char *)b->memory - GUARD,
                      *after = (const unsigned char *)b->memory + b->bytes;
  for (int i = 0; i < GUARD; i++)
    FN_CHECK(before[i] == guard_byte && after[i] == guard_byte, FN_ERR_INTERNAL,
             "something wrote %s a block of %zu bytes of %s memory",
             before[i] == guard_byte ? "beyond the end of" : "in front of", b->bytes,
             names[b->space]);
  return FN_OK;
}

fn_status fn_emulated_guards(void) {
  for (int b = 0; b < all.count; b++)
    FN_TRY(check_guards(&all.block[b]));
  return FN_OK;
}

fn_status fn_emulated_release(fn_emulated_space space, void *memory) {
  const int b = find(memory);
  FN_CHECK(b >= 0 && all.block[b].memory == memory && all.block[b].space == space, FN_ERR_INTERNAL,
           "released memory is no block of %s memory", names[space]);
  const fn_status status = check_guards(&all.block[b]);
  all.bytes[space] -= all.block[b].bytes;
  free(all.block[b].memory - GUARD);
  all.block[b] = all.block[--all.count];
  return status;
}

fn_status fn_emulated_inside(fn_emulated_space space, const void *memory, size_t bytes,
                             const char *what) {
  if (bytes == 0) return FN_OK;
  const int b = find(memory);
  FN_CHECK(b >= 0, FN_ERR_INTERNAL,
           "%s: expected %s memory, found an address that is neither the device's nor pinned (or "
           "released)",
           what, names[space]);
  const block *found = &all.block[b];
  FN_CHECK(found->space == space, FN_ERR_INTERNAL, "%s: expected %s memory, found %s memory", what,
           names[space], names[found->space]);
  const char *start = memory;
  FN_CHECK(start >= found->memory && start + bytes <= found->memory + found->bytes, FN_ERR_INTERNAL,
           "%s: %zu bytes from byte %lld of a block of %zu bytes", what, bytes,
           (long long)(start - found->memory), found->bytes);
  return FN_OK;
}
