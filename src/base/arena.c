#include "base/arena.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "base/system.h"

typedef struct chunk {
  struct chunk *next;
  size_t used, size;
  _Alignas(16) unsigned char bytes[];
} chunk;

struct fn_arena {
  chunk *first;
};

enum { CHUNK_BYTES = 1 << 16 };

fn_arena *fn_arena_create(void) {
  return calloc(1, sizeof(fn_arena));
}

void fn_arena_destroy(fn_arena *arena) {
  if (!arena) return;
  for (chunk *c = arena->first; c;) {
    chunk *next = c->next;
    free(c);
    c = next;
  }
  free(arena);
}

void *fn_arena_take(fn_arena *arena, size_t bytes) {
  bytes = (bytes + 15) & ~(size_t)15;
  if (!arena->first || arena->first->size - arena->first->used < bytes) {
    const size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
    chunk *c = calloc(1, sizeof(chunk) + size);
    if (!c) {
      fprintf(stderr, "fieldnet: out of memory (%zu bytes for tables)\n", size);
      abort();
    }
    c->size = size;
    c->next = arena->first;
    arena->first = c;
  }
  void *memory = arena->first->bytes + arena->first->used;
  arena->first->used += bytes;
  return memory;
}

char *fn_arena_text(fn_arena *arena, const char *text) {
  const size_t size = strlen(text) + 1;
  return memcpy(fn_arena_take(arena, size), text, size);
}

char *fn_arena_vformat(fn_arena *arena, const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  const int length = vsnprintf(NULL, 0, format, arguments);
  char *text = fn_arena_take(arena, (size_t)(length < 0 ? 0 : length) + 1);
  if (length > 0) vsnprintf(text, (size_t)length + 1, format, again);
  va_end(again);
  return text;
}

char *fn_arena_format(fn_arena *arena, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  char *text = fn_arena_vformat(arena, format, arguments);
  va_end(arguments);
  return text;
}

static const size_t huge_page = (size_t)1 << 21;

static size_t page_rounded(size_t bytes) {
  return (bytes + huge_page - 1) & ~(huge_page - 1);
}

fn_status fn_pages_allocate(size_t bytes, void **memory) {
  *memory = NULL;
  if (bytes == 0) bytes = 1;
  // Pages beyond the limit would be granted now and end the process when they are touched.
  const size_t limit = fn_memory_limit();
  FN_CHECK(bytes <= limit && bytes < SIZE_MAX / 2, FN_ERR_MEMORY,
           "%zu bytes (%.2f GB) of memory are needed at once, but no more than %.2f GB can be had "
           "here; fieldnet check tells what takes them, docs/memory.md what helps",
           bytes, 1e-9 * (double)bytes, 1e-9 * (double)limit);
  // One huge page more than needed, so that the start can be aligned to one.
  const size_t size = page_rounded(bytes);
  unsigned char *base = mmap(NULL, size + huge_page, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  FN_CHECK(base != MAP_FAILED, FN_ERR_MEMORY, "cannot map %.2f GB of memory: %s",
           1e-9 * (double)bytes, strerror(errno));
  const size_t lead = (huge_page - ((uintptr_t)base & (huge_page - 1))) & (huge_page - 1);
  if (lead) munmap(base, lead);
  if (lead < huge_page) munmap(base + lead + size, huge_page - lead);
  base += lead;
  if (madvise(base, size, MADV_HUGEPAGE) != 0)
    fn_log_once(FN_DETAIL, "this kernel has no huge pages (%s): memory lies in pages of 4 KiB",
                strerror(errno));
  // Touched in the order in which the threads of a kernel divide a value, so that pages lie on the
  // NUMA node of the core that works on them, and no step meets a new page.
  const int64_t pages = (int64_t)(size / 4096);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < pages; i++)
    ((volatile unsigned char *)base)[i * 4096] = 0;
  *memory = base;
  return FN_OK;
}

void fn_pages_free(void *memory, size_t bytes) {
  if (memory) munmap(memory, page_rounded(bytes ? bytes : 1));
}
