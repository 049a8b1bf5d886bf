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
  if (in->batch_stride != out->batch_stride && (!st->plan.strided_out[o] || out->children > 0))
    return false;
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
        if (rows && in->batch_stride != out->batch_stride &&
            !fn_readers_allow_strides(p, st->output[o]))
          continue;
        const int owner = fn_place_owner(p, st->input[i], NULL);
        const int last = out->last;
        out->parent = st->input[i];
        out->offset = 0;
        out->batch_stride = in->batch_stride;
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

/** Largest first, each at the lowest address that is free during its life. */
static fn_status assign_addresses(fn_program *p) {
  storage *list = calloc((size_t)p->place_count + 1, sizeof *list);
  place **placed = calloc((size_t)p->place_count + 1, sizeof *placed);
  place **overlapping = calloc((size_t)p->place_count + 1, sizeof *overlapping);
  fn_status status = FN_OK;
  if (!list || !placed || !overlapping)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  int count = 0, placed_count = 0;
  for (int i = 0; i < p->place_count && status == FN_OK; i++) {
    place *c = &p->place[i];
    if (c->parent >= 0 || c->external || c->last < 0) continue;
    // Guard bytes after every storage in check mode; see program.c.
    c->bytes = aligned(fn_place_bytes(c) + (p->options.check ? ALIGNMENT : 0));
    list[count++] = (storage){i, c->bytes};
  }
  if (status == FN_OK) qsort(list, (size_t)count, sizeof *list, by_size);
  for (int k = 0; k < count && status == FN_OK; k++) {
    place *c = &p->place[list[k].place];
    int n = 0;
    for (int j = 0; j < placed_count; j++) {
      const bool together = placed[j]->first <= c->last && c->first <= placed[j]->last;
      // With checks on nothing shares memory, so that released values can be poisoned.
      if (together || p->options.check) overlapping[n++] = placed[j];
    }
    c->address = lowest_gap(overlapping, n, c->bytes);
    if (c->address + c->bytes > p->arena_bytes) p->arena_bytes = c->address + c->bytes;
    placed[placed_count++] = c;
  }
  free(list);
  free(placed);
  free(overlapping);
  return status;
}

/** What the values would take if nothing were shared: every result of a step its own memory. */
static size_t unshared_bytes(const fn_program *p) {
  size_t bytes = 0;
  for (int i = 0; i < p->place_count; i++)
    if (!p->place[i].external && (p->place[i].writer >= 0 || p->place[i].parent < 0))
      bytes += aligned(fn_place_bytes(&p->place[i]));
  return bytes;
}

fn_status fn_program_plan_memory(fn_program *program) {
  find_lives(program);
  program->naive_bytes = unshared_bytes(program);
  overwrite_inputs(program);
  return assign_addresses(program);
}
