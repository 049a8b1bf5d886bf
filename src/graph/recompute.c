/* The order of steps, and what is computed twice to save memory.
 *
 * The unit is the storage: a stretch of memory with all windows in it (the two halves of a concat,
 * say). A storage that is read early and late and lies idle between the two can be dropped and made
 * again, by repeating the steps that write it just before its next reader. Repeated steps are the
 * same kernels on the same inputs, so results keep their bits.
 *
 * The search works on a model of the program: a schedule is a list of entries, each a step or the
 * repetition of a step for one storage. Which storage versions live when follows from the list
 * alone. Starting from the order of the graph, the repetition with the largest saving per second is
 * applied until nothing exceeds the budget (as in Kirisame et al. 2021, "Dynamic tensor
 * rematerialization", but before the run and with lives known). */
#include <stdlib.h>
#include <string.h>

#include "graph/program_internal.h"
#include "ops/ops.h"

enum { READS_MOST = FN_MAX_PORTS + 2, GROWTH = 4, DEEPEST = 64 };

/** Work that a second takes on two cores of a common server; only ratios matter. */
static const double flops_rate = 160e9, bytes_rate = 20e9;
/** Without a budget, recomputation may take this part of a step. */
static const double free_share = 0.01;

typedef struct storage {
  int64_t bytes;
  bool counted;  /**< in the arena and not there all the time */
  bool eligible; /**< may be made again */
  int first_writer;
  int *writer; /**< steps, ascending */
  int writer_count;
} storage;

/** A step of the model. */
typedef struct action {
  int read[READS_MOST], write[FN_MAX_PORTS]; /**< storages, each once */
  int read_count, write_count;
  int again_count;                       /**< reads of a repetition: the first of `read` */
  int over[FN_MAX_PORTS][2], over_count; /**< storage .. may overwrite storage .. */
  bool anchored;                         /**< stays where it is */
  double seconds;
} action;

typedef struct entry {
  int step;
  int storage; /**< -1: the step; else a repetition that writes only this storage */
  bool opens;  /**< repetition: the first one of its storage */
} entry;

typedef struct schedule {
  entry *entry;
  int count;
} schedule;

typedef struct model {
  fn_program *program;
  fn_arena *arena;
  storage *storage; /**< [place_count]; only owners are used */
  action *action;   /**< [step_count] */
  int storages, steps, capacity;
  int64_t fixed; /**< bytes that are there all the time */
  double seconds;
  bool *alive;   /**< [storages]: scratch of simulate() */
  int64_t *live; /**< [capacity]: bytes during each entry of the schedule simulated last */
  int64_t peak, area;
} model;

/* ---- the model ---------------------------------------------------------------------------------
 */

static void add_once(int *list, int *count, int value) {
  for (int i = 0; i < *count; i++)
    if (list[i] == value) return;
  list[(*count)++] = value;
}

static bool is_product(const fn_node *node) {
  return node->op == &fn_op_conv || node->op == &fn_op_conv_data ||
         node->op == &fn_op_conv_weight || node->op == &fn_op_matmul;
}

static bool sums_ranks(const fn_node *node) {
  if (node->op == &fn_op_running) return ((const fn_running_attrs *)node->attrs)->sync;
  if (node->op != &fn_op_batch_norm && node->op != &fn_op_batch_norm_grad) return false;
  const fn_batch_norm_attrs *attrs = node->attrs;
  return attrs->sync && !attrs->fixed;
}

static double step_seconds(const fn_program *p, const step *s) {
  double bytes = 0, flops = 0;
  for (int i = 0; i < s->node->input_count; i++)
    if (s->input[i] >= 0) bytes += (double)fn_place_bytes(&p->place[s->input[i]]);
  for (int o = 0; o < s->node->output_count; o++)
    if (s->output[o] >= 0) bytes += (double)fn_place_bytes(&p->place[s->output[o]]);
  if (!s->is_reorder && s->node->op->flops) flops = s->node->op->flops(s->node);
  return flops / flops_rate + bytes / bytes_rate;
}

/** Pairs of storages that memory.c may merge. */
static void list_overwrites(const fn_program *p, const step *s, action *a) {
  for (int o = 0; o < s->node->output_count; o++) {
    for (int i = 0; i < s->node->input_count; i++) {
      if (s->output[o] < 0 || s->input[i] < 0 || !(s->plan.in_place[o] >> i & 1)) continue;
      const place *out = &p->place[s->output[o]], *in = &p->place[s->input[i]];
      const bool whole = out->parent < 0 && in->parent < 0 && out->block == in->block &&
                         out->dtype == in->dtype && fn_shape_equal(&out->shape, &in->shape);
      if (!whole || a->over_count == FN_MAX_PORTS) continue;
      a->over[a->over_count][0] = s->output[o];
      a->over[a->over_count++][1] = s->input[i];
    }
  }
}

/** Whether the step may be repeated for one of its results. */
static bool repeatable(const fn_program *p, const step *s, bool products) {
  if (s->node->op == &fn_op_running || s->node->op == &fn_op_batch_norm_grad) return false;
  if (is_product(s->node) && (!products || s->node->op == &fn_op_conv_weight)) return false;
  for (int o = 0; o < s->node->output_count; o++)
    if (s->output[o] >= 0 && p->place[s->output[o]].external) return false;
  if (!sums_ranks(s->node)) return true;
  // Repeated with the statistics of the first time: no second sum over ranks.
  return s->node->op == &fn_op_batch_norm && s->output[1] >= 0 && s->output[2] >= 0;
}

static void add_action(model *m, int index, bool products) {
  fn_program *p = m->program;
  const step *s = &p->step[index];
  action *a = &m->action[index];
  a->seconds = step_seconds(p, s);
  m->seconds += a->seconds;
  a->anchored = sums_ranks(s->node) || s->node->op == &fn_op_running;
  for (int i = 0; i < s->node->input_count; i++)
    if (s->input[i] >= 0) add_once(a->read, &a->read_count, fn_place_owner(p, s->input[i], NULL));
  a->again_count = a->read_count;
  if (s->node->op == &fn_op_batch_norm && sums_ranks(s->node)) {
    for (int o = 1; o < 3; o++)
      if (s->output[o] >= 0) a->read[a->again_count++] = fn_place_owner(p, s->output[o], NULL);
  }
  for (int o = 0; o < s->node->output_count; o++) {
    if (s->output[o] < 0) continue;
    const int owner = fn_place_owner(p, s->output[o], NULL);
    a->anchored |= p->place[owner].external != NULL || p->place[owner].pinned;
    add_once(a->write, &a->write_count, owner);
  }
  list_overwrites(p, s, a);
  for (int w = 0; w < a->write_count; w++) {
    storage *st = &m->storage[a->write[w]];
    if (st->writer_count == 0) st->first_writer = index;
    st->eligible =
        st->counted && (st->writer_count == 0 || st->eligible) && repeatable(p, s, products);
    int *writer = fn_arena_take(m->arena, (size_t)(st->writer_count + 1) * sizeof *writer);
    if (st->writer_count) memcpy(writer, st->writer, (size_t)st->writer_count * sizeof *writer);
    writer[st->writer_count++] = index;
    st->writer = writer;
  }
}

static fn_status model_create(fn_program *p, bool products, model *m) {
  *m = (model){.program = p, .storages = p->place_count, .steps = p->step_count};
  m->arena = fn_arena_create();
  FN_CHECK(m->arena, FN_ERR_MEMORY, "out of memory");
  m->capacity = GROWTH * p->step_count + 64;
  m->storage = fn_arena_take(m->arena, (size_t)(m->storages + 1) * sizeof *m->storage);
  m->action = fn_arena_take(m->arena, (size_t)(m->steps + 1) * sizeof *m->action);
  m->alive = fn_arena_take(m->arena, (size_t)(m->storages + 1) * sizeof *m->alive);
  m->live = fn_arena_take(m->arena, (size_t)m->capacity * sizeof *m->live);
  for (int i = 0; i < m->storages; i++) {
    const place *c = &p->place[i];
    m->storage[i].first_writer = -1;
    if (c->parent >= 0 || c->external) continue;
    m->storage[i].bytes = (int64_t)fn_place_bytes(c);
    m->storage[i].counted = !c->pinned;
    if (c->pinned) m->fixed += m->storage[i].bytes;
  }
  for (int s = 0; s < m->steps; s++)
    add_action(m, s, products);
  return FN_OK;
}

/* ---- schedules ---------------------------------------------------------------------------------
 */

static schedule schedule_create(const model *m) {
  schedule s = {.entry = fn_arena_take(m->arena, (size_t)m->capacity * sizeof *s.entry)};
  for (int i = 0; i < m->steps; i++)
    s.entry[s.count++] = (entry){i, -1, false};
  return s;
}

static void schedule_copy(schedule *to, const schedule *from) {
  memcpy(to->entry, from->entry, (size_t)from->count * sizeof *from->entry);
  to->count = from->count;
}

static int read_count(const action *a, const entry *e) {
  return e->storage < 0 ? a->read_count : a->again_count;
}

static bool reads(const model *m, const entry *e, int which) {
  const action *a = &m->action[e->step];
  for (int r = 0; r < read_count(a, e); r++)
    if (a->read[r] == which) return true;
  return false;
}

static bool writes(const model *m, const entry *e, int which) {
  if (e->storage >= 0) return e->storage == which;
  const action *a = &m->action[e->step];
  for (int w = 0; w < a->write_count; w++)
    if (a->write[w] == which) return true;
  return false;
}

/** Whether entry e begins a version of the storage. */
static bool opens(const model *m, const entry *e, int which) {
  if (e->storage >= 0) return e->opens && e->storage == which;
  return m->storage[which].first_writer == e->step;
}

/** Bytes of what dies at the entry and may be overwritten by what is born there. */
static int64_t overwritten(const model *m, const entry *e) {
  const action *a = &m->action[e->step];
  int64_t bytes = 0;
  unsigned used = 0; // pairs share neither side
  for (int k = 0; k < a->over_count; k++) {
    const int out = a->over[k][0], in = a->over[k][1];
    if (!writes(m, e, out) || !opens(m, e, out) || m->alive[in] || !m->storage[in].counted)
      continue;
    bool taken = false;
    for (int j = 0; j < k; j++)
      taken |= (used >> j & 1) && (a->over[j][0] == out || a->over[j][1] == in);
    if (taken) continue;
    used |= 1u << k;
    bytes += m->storage[in].bytes;
  }
  return bytes;
}

/** Fill live, peak and area (bytes above the budget, summed over entries). */
static void simulate(model *m, const schedule *s, int64_t budget) {
  memset(m->alive, 0, (size_t)m->storages * sizeof *m->alive);
  int64_t after = m->fixed;
  m->peak = m->area = 0;
  for (int i = s->count - 1; i >= 0; i--) {
    const entry *e = &s->entry[i];
    const action *a = &m->action[e->step];
    int64_t during = after, before = after;
    for (int w = 0; w < a->write_count; w++) {
      const int st = a->write[w];
      if (!m->storage[st].counted || !writes(m, e, st)) continue;
      if (!m->alive[st]) during += m->storage[st].bytes;
    }
    for (int r = 0; r < read_count(a, e); r++) {
      const int st = a->read[r];
      if (m->storage[st].counted && !m->alive[st]) during += m->storage[st].bytes;
    }
    m->live[i] = during - overwritten(m, e);
    for (int w = 0; w < a->write_count; w++) {
      const int st = a->write[w];
      if (!m->storage[st].counted || !writes(m, e, st)) continue;
      const bool born = opens(m, e, st);
      if (m->alive[st] && born) before -= m->storage[st].bytes;
      if (!m->alive[st] && !born) before += m->storage[st].bytes;
      m->alive[st] = !born;
    }
    for (int r = 0; r < read_count(a, e); r++) {
      const int st = a->read[r];
      if (!m->storage[st].counted || m->alive[st]) continue;
      m->alive[st] = true;
      before += m->storage[st].bytes;
    }
    after = before;
    if (m->live[i] > m->peak) m->peak = m->live[i];
    if (m->live[i] > budget) m->area += m->live[i] - budget;
  }
}

static double extra_seconds(const model *m, const schedule *s) {
  double seconds = 0;
  for (int i = 0; i < s->count; i++)
    if (s->entry[i].storage >= 0) seconds += m->action[s->entry[i].step].seconds;
  return seconds;
}

/* ---- order -------------------------------------------------------------------------------------
 */

static int first_reader(const model *m, const schedule *s, int from, const action *a) {
  for (int i = from + 1; i < s->count; i++)
    for (int w = 0; w < a->write_count; w++)
      if (reads(m, &s->entry[i], a->write[w]) || writes(m, &s->entry[i], a->write[w])) return i;
  return -1;
}

static void move_later(schedule *s, int from, int to) {
  const entry moved = s->entry[from];
  memmove(&s->entry[from], &s->entry[from + 1], (size_t)(to - from) * sizeof moved);
  s->entry[to] = moved;
}

/** Move steps down to their first reader where that takes less memory: the gradient of a skip
 *  connection, which the graph makes long before it is added, say. Steps that write gradients of
 *  parameters, outputs or states, or sum over ranks, keep their order. */
static void sink(model *m, schedule *s) {
  schedule trial = {.entry = fn_arena_take(m->arena, (size_t)m->capacity * sizeof(entry))};
  simulate(m, s, 0);
  for (int i = s->count - 2; i >= 0; i--) {
    const action *a = &m->action[s->entry[i].step];
    if (a->anchored || a->write_count == 0) continue;
    const int reader = first_reader(m, s, i, a);
    if (reader <= i + 1) continue;
    const int64_t peak = m->peak, area = m->area;
    schedule_copy(&trial, s);
    move_later(&trial, i, reader - 1);
    simulate(m, &trial, 0);
    if (m->peak <= peak && m->area < area) {
      schedule_copy(s, &trial);
    } else {
      m->peak = peak;
      m->area = area;
    }
  }
}

/* ---- repetitions -------------------------------------------------------------------------------
 */

/** What happens to inputs of a repetition that are dead by then. */
typedef enum policy {
  EXTEND, /**< they live on */
  REPEAT, /**< they are made again, too */
  HOIST,  /**< they are made again, instead of later */
  POLICIES
} policy;

/** Whether the version that holds before entry `at` is read from there on. */
static bool alive_at(const model *m, const schedule *s, int which, int at) {
  for (int i = at; i < s->count; i++) {
    if (reads(m, &s->entry[i], which)) return true;
    if (opens(m, &s->entry[i], which)) return false;
  }
  return false;
}

static void remove_next(const model *m, schedule *s, int which, int from) {
  int left = m->storage[which].writer_count, to = from;
  bool found = false;
  for (int i = from; i < s->count; i++) {
    const entry *e = &s->entry[i];
    if (e->storage == which && e->opens) found = true;
    if (found && left > 0 && e->storage == which) {
      left--;
      continue;
    }
    s->entry[to++] = *e;
  }
  s->count = to;
}

/** Repeat the writers of a storage before entry `at`. Returns the new index of that entry, or -1
 *  when the schedule gets too long. */
static int repeat(const model *m, schedule *s, int storage_index, int at, policy how, int depth) {
  const storage *st = &m->storage[storage_index];
  if (depth > DEEPEST) return -1;
  for (int w = 0; w < st->writer_count && how != EXTEND; w++) {
    const action *a = &m->action[st->writer[w]];
    for (int r = 0; r < a->again_count; r++) {
      const int input = a->read[r];
      if (input == storage_index || !m->storage[input].eligible || alive_at(m, s, input, at))
        continue;
      at = repeat(m, s, input, at, how, depth + 1);
      if (at < 0) return -1;
      if (how == HOIST) remove_next(m, s, input, at);
    }
  }
  if (s->count + st->writer_count > m->capacity) return -1;
  memmove(&s->entry[at + st->writer_count], &s->entry[at],
          (size_t)(s->count - at) * sizeof *s->entry);
  for (int w = 0; w < st->writer_count; w++)
    s->entry[at + w] = (entry){st->writer[w], storage_index, w == 0};
  s->count += st->writer_count;
  return at + st->writer_count;
}

/** Best repetition so far. */
typedef struct best {
  schedule schedule, trial;
  double score;
} best;

/** Try to drop the storage up to entry `until`. */
static void consider(model *m, const schedule *s, int storage_index, int until, int64_t budget,
                     double seconds_most, int64_t area, double seconds, best *b) {
  for (int how = EXTEND; how < POLICIES; how++) {
    schedule_copy(&b->trial, s);
    if (repeat(m, &b->trial, storage_index, until, (policy)how, 0) < 0) continue;
    const double taken = extra_seconds(m, &b->trial);
    if (taken > seconds_most) continue;
    simulate(m, &b->trial, budget);
    if (m->area >= area) continue;
    const double cost = taken - seconds > 1e-9 ? taken - seconds : 1e-9;
    const double score = (double)(area - m->area) / cost;
    if (score <= b->score) continue;
    b->score = score;
    schedule_copy(&b->schedule, &b->trial);
  }
}

/** All gaps of one storage between two uses that lie across an entry above the budget. `live` is
 *  that of the schedule. */
static void consider_gaps(model *m, const schedule *s, int storage_index, const int64_t *live,
                          int64_t budget, double seconds_most, int64_t area, double seconds,
                          best *b) {
  int written = 0;
  bool over = false;
  for (int i = 0; i < s->count; i++) {
    const entry *e = &s->entry[i];
    const bool read = reads(m, e, storage_index);
    const bool write = writes(m, e, storage_index);
    if (!read && !write) {
      over |= live[i] > budget;
      continue;
    }
    const bool complete = written >= m->storage[storage_index].writer_count;
    if (read && over && complete)
      consider(m, s, storage_index, i, budget, seconds_most, area, seconds, b);
    if (write) written = opens(m, e, storage_index) ? 1 : written + 1;
    over = false;
  }
}

/** Repeat steps until nothing exceeds the budget. Returns whether that was reached. */
static bool reduce(model *m, schedule *s, int64_t budget, double seconds_most, best *b) {
  int64_t *live = fn_arena_take(m->arena, (size_t)m->capacity * sizeof *live);
  for (;;) {
    simulate(m, s, budget);
    if (m->area == 0) return true;
    const int64_t area = m->area, least = m->peak / 200;
    const double seconds = extra_seconds(m, s);
    memcpy(live, m->live, (size_t)s->count * sizeof *live);
    b->score = 0;
    for (int i = 0; i < m->storages; i++)
      if (m->storage[i].eligible && m->storage[i].bytes >= least)
        consider_gaps(m, s, i, live, budget, seconds_most, area, seconds, b);
    if (b->score == 0) return false;
    schedule_copy(s, &b->schedule);
  }
}

/** Take out repetitions that later ones made needless, the dearest first. */
static void prune(model *m, schedule *s, int64_t budget, schedule *trial) {
  for (;;) {
    const double before = extra_seconds(m, s);
    double least = before;
    int found = -1;
    for (int i = 0; i < s->count; i++) {
      if (!s->entry[i].opens) continue;
      schedule_copy(trial, s);
      remove_next(m, trial, s->entry[i].storage, i);
      const double seconds = extra_seconds(m, trial);
      if (seconds >= least) continue;
      simulate(m, trial, budget);
      if (m->area > 0) continue;
      least = seconds;
      found = i;
    }
    if (found < 0) return;
    remove_next(m, s, s->entry[found].storage, found);
  }
}

/** Lower the peak as far as the search finds a way: from the start, or from the best so far. It may
 *  fail at one target and reach a lower one. */
static void minimise(model *m, schedule *start, double seconds_most, best *b) {
  enum { FAILURES_MOST = 6 };
  schedule least = {.entry = fn_arena_take(m->arena, (size_t)m->capacity * sizeof(entry))};
  schedule trial = {.entry = fn_arena_take(m->arena, (size_t)m->capacity * sizeof(entry))};
  schedule_copy(&least, start);
  simulate(m, start, 0);
  int64_t target = m->peak;
  for (int failures = 0; target > 0 && failures < FAILURES_MOST;) {
    target -= target / 32 + 1;
    schedule_copy(&trial, start);
    bool reached = reduce(m, &trial, target, seconds_most, b);
    if (!reached) {
      schedule_copy(&trial, &least);
      reached = reduce(m, &trial, target, seconds_most, b);
    }
    failures = reached ? 0 : failures + 1;
    if (!reached) continue;
    prune(m, &trial, target, &b->trial);
    schedule_copy(&least, &trial);
    simulate(m, &least, 0);
    target = m->peak;
  }
  schedule_copy(start, &least);
}

/* ---- back to the program -----------------------------------------------------------------------
 */

/** New places for a new version of a storage: itself and all windows in it. */
static fn_status open_version(fn_program *p, int owner, int places, int *current) {
  for (int i = 0; i < places; i++) {
    if (fn_place_owner(p, i, NULL) != owner) continue;
    FN_TRY(fn_grow((void **)&p->place, p->place_count, &p->place_capacity, sizeof(place)));
    p->place[p->place_count] = p->place[i];
    current[i] = p->place_count++;
  }
  for (int i = 0; i < places; i++) {
    if (fn_place_owner(p, i, NULL) != owner) continue;
    place *c = &p->place[current[i]];
    if (c->parent >= 0) c->parent = current[p->place[i].parent];
  }
  return FN_OK;
}

/** Batch norm over all ranks again, with the statistics that the first time found. */
static fn_node *with_statistics(fn_program *p, const fn_node *node) {
  fn_node *copy = fn_arena_take(p->tables, sizeof *copy);
  fn_batch_norm_attrs *attrs = fn_arena_take(p->tables, sizeof *attrs);
  fn_value **input = fn_arena_take(p->tables, (size_t)node->input_count * sizeof *input);
  *copy = *node;
  *attrs = *(const fn_batch_norm_attrs *)node->attrs;
  attrs->fixed = true;
  memcpy(input, node->input, (size_t)node->input_count * sizeof *input);
  for (int o = 1; o < 3; o++)
    input[3 + o] = node->output[o];
  copy->attrs = attrs;
  copy->input = input;
  return copy;
}

static fn_status add_step(fn_program *p, const step *from, const entry *e, int places,
                          int *current) {
  step *to = &p->step[p->step_count];
  *to = *from;
  to->repeats = e->storage >= 0;
  const int inputs = from->node->input_count, outputs = from->node->output_count;
  to->input = fn_arena_take(p->tables, (size_t)(inputs + 1) * sizeof *to->input);
  to->output = fn_arena_take(p->tables, (size_t)(outputs + 1) * sizeof *to->output);
  for (int i = 0; i < inputs; i++)
    to->input[i] = from->input[i] < 0 ? -1 : current[from->input[i]];
  if (to->repeats && from->node->op == &fn_op_batch_norm && sums_ranks(from->node)) {
    to->node = with_statistics(p, from->node);
    for (int o = 1; o < 3; o++) {
      to->input[3 + o] = current[from->output[o]];
      to->plan.in_block[3 + o] = 1;
    }
  }
  if (to->repeats && e->opens) FN_TRY(open_version(p, e->storage, places, current));
  for (int o = 0; o < outputs; o++) {
    const int old = from->output[o];
    const bool wanted = old >= 0 && (!to->repeats || fn_place_owner(p, old, NULL) == e->storage);
    to->output[o] = wanted ? current[old] : -1;
    if (wanted) p->place[current[old]].writer = p->step_count;
  }
  p->step_count++;
  return FN_OK;
}

/** Make the program's steps those of the schedule. */
static fn_status apply(fn_program *p, const schedule *s) {
  const int places = p->place_count, steps = p->step_count;
  step *old = p->step;
  int *current = fn_arena_take(p->tables, (size_t)(places + 1) * sizeof *current);
  int *moved = fn_arena_take(p->tables, (size_t)(steps + 1) * sizeof *moved);
  p->step = calloc((size_t)s->count + 1, sizeof *p->step);
  if (!p->step) {
    p->step = old;
    FN_FAIL(FN_ERR_MEMORY, "out of memory");
  }
  p->step_count = 0;
  p->step_capacity = s->count + 1;
  for (int i = 0; i < places; i++)
    current[i] = i;
  fn_status status = FN_OK;
  for (int i = 0; i < s->count && status == FN_OK; i++) {
    if (s->entry[i].storage < 0) moved[s->entry[i].step] = i;
    status = add_step(p, &old[s->entry[i].step], &s->entry[i], places, current);
  }
  for (int l = 0; l < p->landing_count; l++)
    p->landing[l].step = moved[p->landing[l].step];
  free(old);
  return status;
}

/** A program before its schedule was applied, to try another. */
typedef struct snapshot {
  place *place;
  step *step;
  landing *landing;
  int places, steps;
} snapshot;

static void *copy_of(fn_program *p, const void *array, int count, size_t item) {
  void *copy = fn_arena_take(p->tables, ((size_t)count + 1) * item);
  if (count) memcpy(copy, array, (size_t)count * item);
  return copy;
}

static snapshot take_snapshot(fn_program *p) {
  return (snapshot){.place = copy_of(p, p->place, p->place_count, sizeof *p->place),
                    .step = copy_of(p, p->step, p->step_count, sizeof *p->step),
                    .landing = copy_of(p, p->landing, p->landing_count, sizeof *p->landing),
                    .places = p->place_count,
                    .steps = p->step_count};
}

/** Places and steps never become fewer, so that the arrays are large enough. */
static void restore(fn_program *p, const snapshot *from) {
  memcpy(p->place, from->place, (size_t)from->places * sizeof *p->place);
  memcpy(p->step, from->step, (size_t)from->steps * sizeof *p->step);
  if (p->landing_count)
    memcpy(p->landing, from->landing, (size_t)p->landing_count * sizeof *p->landing);
  p->place_count = from->places;
  p->step_count = from->steps;
}

static fn_status apply_and_plan(fn_program *p, const model *m, const schedule *s) {
  FN_TRY(apply(p, s));
  p->arena_bytes = 0;
  FN_TRY(fn_program_plan_memory(p));
  p->extra_share = m->seconds > 0 ? extra_seconds(m, s) / m->seconds : 0;
  return FN_OK;
}

/** Repeat as little as brings the arena under the budget. Lower targets are tried, too: what is
 * live at once may fit while addresses leave gaps, and the search is not perfect. */
static fn_status fit(fn_program *p, model *m, const schedule *start, best *b) {
  enum { TARGETS = 8 };
  const int64_t budget = (int64_t)p->options.memory_budget;
  const snapshot before = take_snapshot(p);
  schedule s = {.entry = fn_arena_take(m->arena, (size_t)m->capacity * sizeof(entry))};
  schedule chosen = {.entry = fn_arena_take(m->arena, (size_t)m->capacity * sizeof(entry))};
  double least = 1e300;
  for (int i = 0; i < TARGETS && least > 0; i++) {
    const int64_t target = budget - budget / 100 * (i < 2 ? i : 3 * i - 3);
    schedule_copy(&s, start);
    if (!reduce(m, &s, target, least, b)) continue;
    prune(m, &s, target, &b->trial);
    if (extra_seconds(m, &s) >= least) continue;
    FN_TRY(apply_and_plan(p, m, &s));
    if ((int64_t)p->arena_bytes <= budget) {
      least = extra_seconds(m, &s);
      schedule_copy(&chosen, &s);
    }
    restore(p, &before);
  }
  if (least < 1e300) return apply_and_plan(p, m, &chosen);
  schedule_copy(&s, start);
  minimise(m, &s, 1e300, b);
  FN_TRY(apply_and_plan(p, m, &s));
  FN_CHECK((int64_t)p->arena_bytes <= budget, FN_ERR_MEMORY,
           "the values of the network need at least %zu bytes (%.2f GB) with the recomputation "
           "that is allowed, more than the budget of %zu bytes (%.2f GB)",
           p->arena_bytes, 1e-9 * (double)p->arena_bytes, p->options.memory_budget,
           1e-9 * (double)p->options.memory_budget);
  return FN_OK;
}

fn_status fn_program_schedule(fn_program *p) {
  const fn_recompute mode = p->options.recompute;
  const bool budget = p->options.memory_budget > 0 && !p->options.check;
  const bool products = mode == FN_RECOMPUTE_ALL || (mode == FN_RECOMPUTE_AUTO && budget);
  model m;
  FN_TRY(model_create(p, products, &m));
  schedule s = schedule_create(&m);
  best b = {.schedule = schedule_create(&m), .trial = schedule_create(&m)};
  sink(&m, &s);
  if (mode == FN_RECOMPUTE_NONE)
    for (int i = 0; i < m.storages; i++)
      m.storage[i].eligible = false;
  fn_status status;
  if (budget) {
    status = fit(p, &m, &s, &b);
  } else {
    if (mode != FN_RECOMPUTE_NONE)
      minimise(&m, &s, mode == FN_RECOMPUTE_AUTO ? free_share * m.seconds : 1e300, &b);
    status = apply_and_plan(p, &m, &s);
  }
  fn_arena_destroy(m.arena);
  return status;
}
