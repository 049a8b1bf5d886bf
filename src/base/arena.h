/** @file arena.h
 *  Memory that is freed all at once: for graphs, configurations, tables.
 */
#ifndef FN_BASE_ARENA_H
#define FN_BASE_ARENA_H

#include <fieldnet/fieldnet.h>
#include <stdarg.h>

typedef struct fn_arena fn_arena;

/** NULL when memory is exhausted. */
fn_arena *fn_arena_create(void);
void fn_arena_destroy(fn_arena *arena);
/** Zeroed, 16-byte aligned. Ends the program with a message when memory is exhausted: what lives in
 *  an arena is small; the large buffers of a run are allocated with fn_pages_allocate. */
void *fn_arena_take(fn_arena *arena, size_t bytes);
char *fn_arena_text(fn_arena *arena, const char *text);
char *fn_arena_format(fn_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
char *fn_arena_vformat(fn_arena *arena, const char *format, va_list arguments);

/** Large zeroed buffer on (huge) pages of its own; touched by all threads in static order so that
 *  pages lie near the core that will use them. Free with fn_pages_free and the same size. */
fn_status fn_pages_allocate(size_t bytes, void **memory);
void fn_pages_free(void *memory, size_t bytes);

#endif
