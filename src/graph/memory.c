/* The memory plan: when each storage lives, which results overwrite an input, and addresses. */
#include <stdlib.h>
#include <string.h>

#include "graph/program_internal.h"

enum { ALIGNMENT = 64 };

static size_t aligned(size_t bytes) {
  return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static void touch(fn_program *p, int index, int when) {
  if (index < 0) return;
  place *owner = &p->place[fn_place_owner(p, index, NULL)];
  if (when < owner->first) owner->first = when;
  if (when > owner->last) owner->last = when;
}

static void find_lives(fn_program *p) {
  for (int i = 0; i < p->place_count; i++) {
    p->place[i].first = p->step_count;
    p->place[i].last = -1;
  }
  for (int s = 0; s < p->step_count; s++) {
    for (int i = 0; i < p->step[s].node->input_count; i++)
      touch(p, p->step[s].input[i], s);
    for (int o = 0; o < p->step[s].node->output_count; o++)
      touch(p, p->step[s].output[o], s);
  }
  for (int i = 0; i < p->place_count; i++) {
    if (p->place[i].parent >= 0 || !p->place[i].pinned) continue;
    p->place[i].first = 0;
    p->place[i].last = p->step_count;
  }
}

/** Whether step s may write its output `o` over its input `i`. */
static bool may_overwrite(const fn_program *p, int s, int o, int i) {
  const step *st = &p->step[s];
  if (!(st->plan.in_place[o] >> i & 1) || st->input[i] < 0) return false;
  const place *out = &p->place[st->output[o]], *in = &p->place[st->input[i]];
  if (out->parent >= 0 || out->external || out->pinned) return false;
  const int owner = fn_place_owner(p, st->input[i], NULL);
  const place *root = &p->place[owner];
  if (root->external || root->pinned || root->last != s) return false;
  // A part of a storage would keep all of it alive.
  if (fn_place_bytes(root) > fn_place_bytes(out)) return false;
  if (out->block != in->block || out->dtype != in->dtype) return false;
  if (!fn_shape_equal(&out->shape, &in->shape)) return false;
  const bool strides_differ = in->batch_stride != out->batch_stride || in->pitch != out->pitch;
  if (strides_differ && (!st->plan.strided_out[o] || out->children > 0)) return false;
  // The step must not read the same storage through another input.
  for (int j = 0; j < st->node->input_count; j++)
    if (j != i && st->input[j] >= 0 && fn_place_owner(p, st->input[j], NULL) == owner) return false;
  return true;
}

static void overwrite_inputs(fn_program *p) {
  for (int s = 0; s < p->step_count; s++) {
    const step *st = &p->step[s];
    for (int o = 0; o < st->node->output_count; o++) {
      if (st->output[o] < 0) continue;
      for (int i = 0; i < st->node->input_count; i++) {
        if (!may_overwrite(p, s, o, i)) continue;
        place *out = &p->place[st->output[o]], *in = &p->place[st->input[i]];
        const bool rows = out->shape.ndim > 0 && out->shape.dim[0] > 1;
        const bool moves =
            (rows && in->batch_stride != out->batch_stride) || in->pitch != out->pitch;
        if (moves && !fn_readers_allow_strides(p, st->output[o])) continue;
        const int owner = fn_place_owner(p, st->input[i], NULL);
        const int last = out->last;
        out->parent = st->input[i];
        out->offset = 0;
        out->batch_stride = in->batch_stride;
        out->pitch = in->pitch;
        in->children++;
        if (last > p->place[owner].last) p->place[owner].last = last;
        break;
      }
    }
  }
}

typedef struct storage {
  int place;
  size_t bytes;
} storage;

static int by_size(const void *a, const void *b) {
  const storage *x = a, *y = b;
  if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
  return x->place - y->place;
}

static int by_address(const void *a, const void *b) {
  const place *x = *(place *const *)a, *y = *(place *const *)b;
  return x->address < y->address ? -1 : x->address > y->address;
}

/** Lowest address where `bytes` fit beside everything placed that lives at the same time. */
static size_t lowest_gap(place **overlapping, int count, size_t bytes) {
  qsort(overlapping, (size_t)count, sizeof *overlapping, by_address);
  size_t address = 0;
  for (int i = 0; i < count; i++) {
    if (address + bytes <= overlapping[i]->address) break;
    const size_t end = overlapping[i]->address + overlapping[i]->bytes;
    if (end > address) address = end;
  }
  return address;
}

/** The storages to be placed, and room for the work. */
typedef struct layout {
  storage *order, *best; /**< [count]: order of placing */
  place **placed, **overlapping;
  int count;
} layout;

/** Give addresses in the order of the list, each the lowest that is free during its life. Returns
 *  the end of the arena, and the position of what lies there. */
static size_t place_in_order(fn_program *p, const layout *l, int *highest) {
  size_t end = 0;
  for (int k = 0; k < l->count; k++) {
    place *c = &p->place[l->order[k].place];
    int n = 0;
    for (int j = 0; j < k; j++) {
      const bool together = l->placed[j]->first <= c->last && c->first <= l->placed[j]->last;
      // With checks on nothing shares memory, so that released values can be poisoned.
      if (together || p->options.check) l->overlapping[n++] = l->placed[j];
    }
    c->address = lowest_gap(l->overlapping, n, c->bytes);
    l->placed[k] = c;
    if (c->address + c->bytes <= end) continue;
    end = c->address + c->bytes;
    *highest = k;
  }
  return end;
}

/** The most that lives at once: no arena is smaller. */
static size_t most_alive(const fn_program *p, const layout *l) {
  size_t most = 0;
  for (int s = 0; s <= p->step_count; s++) {
    size_t bytes = 0;
    for (int k = 0; k < l->count; k++) {
      const place *c = &p->place[l->order[k].place];
      if (c->first <= s && s <= c->last) bytes += c->bytes;
    }
    if (bytes > most) most = bytes;
  }
  return most;
}

/** Largest first; then what came to lie highest goes first, as long as that may help. Only what
 *  counts is tried again: the small ones fill gaps. */
static void find_addresses(fn_program *p, layout *l) {
  enum { ATTEMPTS = 300 };
  const size_t least = most_alive(p, l);
  size_t best = SIZE_MAX;
  const int all = l->count;
  int large = 0, highest = 0;
  while (large < all && l->order[large].bytes >= least / 200)
    large++;
  l->count = large;
  memcpy(l->best, l->order, (size_t)all * sizeof *l->best);
  for (int i = 0; i < ATTEMPTS && best > least && !p->options.check; i++) {
    const size_t end = place_in_order(p, l, &highest);
    if (end < best) {
      best = end;
      memcpy(l->best, l->order, (size_t)large * sizeof *l->best);
    }
    const storage first = l->order[highest];
    memmove(l->order + 1, l->order, (size_t)highest * sizeof first);
    l->order[0] = first;
  }
  memcpy(l->order, l->best, (size_t)all * sizeof *l->best);
  l->count = all;
  p->arena_bytes = place_in_order(p, l, &highest);
}

static fn_status assign_addresses(fn_program *p) {
  const size_t room = (size_t)p->place_count + 1;
  layout l = {.order = calloc(room, sizeof *l.order),
              .best = calloc(room, sizeof *l.best),
              .placed = calloc(room, sizeof *l.placed),
              .overlapping = calloc(room, sizeof *l.overlapping)};
  const bool made = l.order && l.best && l.placed && l.overlapping;
  for (int i = 0; i < p->place_count && made; i++) {
    place *c = &p->place[i];
    if (c->parent >= 0 || c->external || c->constant || c->last < 0) continue;
    // Guard bytes after every storage in check mode; see program.c.
    c->bytes = aligned(fn_place_bytes(c) + (p->options.check ? ALIGNMENT : 0));
    l.order[l.count++] = (storage){i, c->bytes};
  }
  if (made) {
    qsort(l.order, (size_t)l.count, sizeof *l.order, by_size);
    find_addresses(p, &l);
  }
  free(l.order);
  free(l.best);
  free(l.placed);
  free(l.overlapping);
  FN_CHECK(made, FN_ERR_MEMORY, "out of memory");
  return FN_OK;
}

/** What the values would take if nothing were shared: every result of a step its own memory. */
static size_t unshared_bytes(const fn_program *p) {
  size_t bytes = 0;
  for (int i = 0; i < p->place_count; i++)
    if (!p->place[i].external && (p->place[i].writer >= 0 || p->place[i].parent < 0))
      bytes += aligned(fn_place_bytes(&p->place[i]));
  return bytes;
}

size_t fn_program_plan_constants(fn_program *program) {
  size_t bytes = 0;
  for (int i = 0; i < program->place_count; i++) {
    place *c = &program->place[i];
    if (!c->constant) continue;
    c->address = bytes;
    bytes += aligned(fn_place_bytes(c));
  }
  return bytes;
}

/** First and last step that touches what place `owner` owns. */
static void touched(const fn_program *p, int owner, int *first, int *last) {
  *first = p->step_count;
  *last = -1;
  for (int s = 0; s < p->step_count; s++) {
    const step *st = &p->step[s];
    bool touches = false;
    for (int i = 0; i < st->node->input_count; i++)
      touches |= st->input[i] >= 0 && fn_place_owner(p, st->input[i], NULL) == owner;
    for (int o = 0; o < st->node->output_count; o++)
      touches |= st->output[o] >= 0 && fn_place_owner(p, st->output[o], NULL) == owner;
    if (touches && s < *first) *first = s;
    if (touches) *last = s;
  }
  if (!p->place[owner].pinned) return;
  *first = 0;
  *last = p->step_count;
}

typedef struct span {
  int place, first, last;
} span;

static fn_status check_spans(const fn_program *p, const span *list, int count) {
  for (int a = 0; a < count; a++)
    for (int b = 0; b < a; b++) {
      const place *x = &p->place[list[a].place], *y = &p->place[list[b].place];
      const bool together = list[a].first <= list[b].last && list[b].first <= list[a].last;
      const bool meet = x->address < y->address + fn_place_bytes(y) &&
                        y->address < x->address + fn_place_bytes(x);
      FN_CHECK(!together || !meet, FN_ERR_INTERNAL,
               "values %d (steps %d to %d) and %d (steps %d to %d) share memory", list[a].place,
               list[a].first, list[a].last, list[b].place, list[b].first, list[b].last);
      FN_CHECK(x->address + fn_place_bytes(x) <= p->arena_bytes, FN_ERR_INTERNAL,
               "value %d ends behind the arena", list[a].place);
    }
  return FN_OK;
}

fn_status fn_program_check_plan(const fn_program *p) {
  span *list = calloc((size_t)p->place_count + 1, sizeof *list);
  FN_CHECK(list, FN_ERR_MEMORY, "out of memory");
  int count = 0;
  for (int i = 0; i < p->place_count; i++) {
    const place *c = &p->place[i];
    if (c->parent >= 0 || c->external || c->constant) continue;
    span s = {.place = i};
    touched(p, i, &s.first, &s.last);
    if (s.last >= 0) list[count++] = s;
  }
  const fn_status status = check_spans(p, list, count);
  free(list);
  return status;
}

fn_status fn_program_plan_memory(fn_program *program) {
  find_lives(program);
  program->naive_bytes = unshared_bytes(program);
  overwrite_inputs(program);
  return assign_addresses(program);
}
