#include "dist/exchange.h"

#include <stdlib.h>
#include <string.h>

#include "dist/mpi_status.h"
#include "dist/node_memory.h"
#include "dist/wire.h"

/** What a slot waits for. */
typedef enum stage {
  FREE,    /**< other ranks still read what it held before */
  WRITTEN, /**< areas of the other ranks of the node */
  PARTS,   /**< chunks of the other nodes */
  WHOLE,   /**< sums made by the other nodes */
  SUMMED,  /**< sums of the other ranks of the node */
} stage;

typedef struct slot {
  stage stage;
  uint64_t use; /**< how often it was taken */
  void *data;
  int64_t count;
  double weight;
  char *own;            /**< this rank's numbers as they travel: the area, own memory, or data */
  char *memory;         /**< own memory where nothing is shared */
  char *received;       /**< chunks of the other nodes, [nodes, chunk_most] */
  MPI_Request *request; /**< [2 * nodes] */
  int requests;
} slot;

struct fn_exchange {
  const fn_dist *dist;
  MPI_Comm comm;         /**< of all ranks: the job's for gradients */
  MPI_Comm node, peers;  /**< the node's ranks; ranks of all nodes with the same part, or null */
  int node_rank;         /**< in node */
  int node_ranks, nodes; /**< of this node; in all */
  int parts;             /**< of a slice: that many ranks of each node add and send */
  int position;          /**< of this node among the nodes */
  fn_exchange_options options;
  size_t size;   /**< of a number as it travels */
  size_t stride; /**< bytes of a slot: whole cache lines */
  fn_node_memory shared;
  const void **term; /**< [max(node_ranks, nodes)] */
  slot *slot;        /**< [slots] */
  fn_exchange_info info;
};

/** Slices are cut at whole cache lines of every type. */
enum { GRAIN = 32 };

/** Where part k of n begins in `count` elements. */
static int64_t part_start(int64_t count, int n, int k) {
  const int64_t grains = (count + GRAIN - 1) / GRAIN, start = grains * k / n * GRAIN;
  return start < count ? start : count;
}

/** The piece of a slice that is `chunk` of `part`; chunk -1: all of the part. */
typedef struct piece {
  int64_t start, count;
} piece;

static piece piece_of(const fn_exchange *x, const slot *s, int part, int chunk) {
  const int64_t first = part_start(s->count, x->parts, part),
                count = part_start(s->count, x->parts, part + 1) - first;
  if (chunk < 0) return (piece){first, count};
  const int64_t start = part_start(count, x->nodes, chunk);
  return (piece){first + start, part_start(count, x->nodes, chunk + 1) - start};
}

/* ---- create and destroy ------------------------------------------------------------------------
 */

/** FIELDNET_NODE_RANKS, or 0. */
static fn_status group_size(int *ranks) {
  *ranks = 0;
  const char *text = getenv("FIELDNET_NODE_RANKS");
  if (!text || !*text) return FN_OK;
  char *end;
  const long value = strtol(text, &end, 10);
  FN_CHECK(*end == '\0' && value >= 1 && value <= 1 << 20, FN_ERR_CONFIG,
           "environment variable FIELDNET_NODE_RANKS: expected a number of ranks, found '%s'",
           text);
  *ranks = (int)value;
  return FN_OK;
}

static fn_status find_node(fn_exchange *x) {
  int group, rank;
  FN_TRY(fn_dist_agree(x->dist, group_size(&group)));
  if (!x->options.share_memory)
    return fn_mpi_status(MPI_Comm_split(x->comm, x->dist->rank, 0, &x->node), "finding nodes");
  MPI_Comm whole;
  FN_TRY_MPI(
      MPI_Comm_split_type(x->comm, MPI_COMM_TYPE_SHARED, x->dist->rank, MPI_INFO_NULL, &whole),
      "finding nodes");
  MPI_Comm_rank(whole, &rank);
  const int code = MPI_Comm_split(whole, group > 0 ? rank / group : 0, rank, &x->node);
  MPI_Comm_free(&whole);
  return fn_mpi_status(code, "finding nodes");
}

/** Places in the node, among the nodes, and who sends to whom. */
static fn_status find_peers(fn_exchange *x) {
  MPI_Comm_rank(x->node, &x->node_rank);
  MPI_Comm_size(x->node, &x->node_ranks);
  int first = x->dist->rank, range[2] = {x->node_ranks, -x->node_ranks}, least[2];
  FN_TRY_MPI(MPI_Bcast(&first, 1, MPI_INT, 0, x->node), "finding nodes");
  FN_TRY_MPI(MPI_Allreduce(range, least, 2, MPI_INT, MPI_MIN, x->comm), "finding nodes");
  x->parts = least[0];
  x->info.node_ranks_most = -least[1];
  FN_TRY_MPI(MPI_Comm_split(x->comm, x->node_rank < x->parts ? x->node_rank : MPI_UNDEFINED, first,
                            &x->peers),
             "finding nodes");
  int place[2] = {0, 0}; // the first rank of every node has a part
  if (x->peers != MPI_COMM_NULL) {
    MPI_Comm_size(x->peers, &place[0]);
    MPI_Comm_rank(x->peers, &place[1]);
  }
  FN_TRY_MPI(MPI_Bcast(place, 2, MPI_INT, 0, x->node), "finding nodes");
  x->nodes = place[0];
  x->position = place[1];
  return FN_OK;
}

static fn_status allocate(fn_exchange *x) {
  const int slots = x->options.slots, terms = x->nodes > x->node_ranks ? x->nodes : x->node_ranks;
  const int64_t part = (x->options.most + x->parts - 1) / x->parts + GRAIN,
                chunk = (part + x->nodes - 1) / x->nodes + 2 * GRAIN;
  const bool own_memory = x->node_ranks == 1 && x->options.data != x->options.type;
  const int64_t own = own_memory || x->node_ranks > 1 ? (int64_t)x->stride : 0,
                received = x->nodes > 1 ? chunk / GRAIN * GRAIN * x->nodes * (int64_t)x->size : 0;
  x->term = calloc((size_t)terms, sizeof(void *));
  x->slot = calloc((size_t)slots, sizeof *x->slot);
  FN_CHECK(x->term && x->slot, FN_ERR_MEMORY, "out of memory for sums of gradients");
  for (int k = 0; k < slots; k++) {
    slot *s = &x->slot[k];
    if (own_memory) s->memory = aligned_alloc(FN_CACHE_LINE, (size_t)own);
    if (received > 0) s->received = aligned_alloc(FN_CACHE_LINE, (size_t)received);
    s->request = calloc(2 * (size_t)x->nodes, sizeof *s->request);
    FN_CHECK((s->memory || !own_memory) && (s->received || received == 0) && s->request,
             FN_ERR_MEMORY, "out of memory for sums of gradients (%lld bytes)",
             (long long)(own + received));
  }
  x->info.memory = slots * (own + received);
  return FN_OK;
}

static fn_status create(fn_exchange *x) {
  FN_TRY(find_node(x));
  FN_TRY(find_peers(x));
  FN_TRY(fn_dist_agree(x->dist, allocate(x)));
  fn_status status = FN_OK;
  if (x->node_ranks > 1)
    status = fn_node_memory_create(x->node, x->options.slots, (int64_t)x->stride, &x->shared);
  return fn_dist_agree(x->dist, status);
}

fn_status fn_exchange_create(const fn_dist *dist, const fn_exchange_options *options,
                             fn_exchange **exchange) {
  fn_exchange *x = *exchange = calloc(1, sizeof *x);
  FN_CHECK(x, FN_ERR_MEMORY, "out of memory for sums of gradients");
  x->dist = dist;
  x->comm = dist->gradient_comm;
  x->node = x->peers = MPI_COMM_NULL;
  x->options = *options;
  x->size = fn_dtype_size(options->type);
  x->stride = (size_t)(options->most / GRAIN * GRAIN + GRAIN) * x->size;
  const fn_status status = create(x);
  if (status == FN_OK) return FN_OK;
  fn_exchange_destroy(x);
  *exchange = NULL;
  return status;
}

void fn_exchange_destroy(fn_exchange *x) {
  if (!x) return;
  fn_node_memory_destroy(&x->shared);
  if (x->peers != MPI_COMM_NULL) MPI_Comm_free(&x->peers);
  if (x->node != MPI_COMM_NULL) MPI_Comm_free(&x->node);
  for (int k = 0; x->slot && k < x->options.slots; k++) {
    free(x->slot[k].memory);
    free(x->slot[k].received);
    free(x->slot[k].request);
  }
  free(x->slot);
  free(x->term);
  free(x);
}

/* ---- one slice ---------------------------------------------------------------------------------
 */

void fn_exchange_start(fn_exchange *x, int index, void *data, int64_t count, double weight) {
  slot *s = &x->slot[index];
  s->stage = FREE;
  s->use++;
  s->data = data;
  s->count = count;
  s->weight = weight;
  if (x->node_ranks > 1) {
    s->own = x->shared.area[x->node_rank] + (size_t)index * x->stride;
  } else {
    s->own = s->memory ? s->memory : data;
  }
}

typedef enum counter { COUNT_WRITTEN, COUNT_SUMMED, COUNT_LEFT } counter;

static _Atomic uint64_t *counter_of(const fn_exchange *x, int rank, int index, counter which) {
  fn_node_counters *c = &x->shared.counters[rank][index];
  return which == COUNT_WRITTEN ? &c->written : which == COUNT_SUMMED ? &c->summed : &c->left;
}

/** Whether the first `ranks` ranks of the node have counted that far. */
static bool all_have(const fn_exchange *x, int ranks, int index, counter which, uint64_t use) {
  for (int r = 0; x->node_ranks > 1 && r < ranks; r++)
    if (atomic_load_explicit(counter_of(x, r, index, which), memory_order_acquire) < use)
      return false;
  return true;
}

static void tell(const fn_exchange *x, int index, counter which, uint64_t use) {
  if (x->node_ranks > 1)
    atomic_store_explicit(counter_of(x, x->node_rank, index, which), use, memory_order_release);
}

static void write_own(fn_exchange *x, int index) {
  slot *s = &x->slot[index];
  fn_wire_write(s->own, x->options.type, s->data, x->options.data, s->count, s->weight);
  if (x->node_ranks > 1) x->info.shared += s->count * (int64_t)x->size;
  tell(x, index, COUNT_WRITTEN, s->use);
}

/** The same place in the area of another rank of the node. */
static char *area_of(const fn_exchange *x, int rank, const slot *s) {
  return rank == x->node_rank ? s->own
                              : x->shared.area[rank] + (s->own - x->shared.area[x->node_rank]);
}

/** Sum of this rank's part over the node. */
static void add_areas(fn_exchange *x, slot *s) {
  if (x->node_ranks == 1) return;
  const piece p = piece_of(x, s, x->node_rank, -1);
  const size_t offset = (size_t)p.start * x->size;
  for (int r = 0; r < x->node_ranks; r++)
    x->term[r] = area_of(x, r, s) + offset;
  fn_wire_sum(s->own + offset, x->term, x->node_ranks, x->options.type, p.count);
  x->info.shared += (int64_t)x->node_ranks * p.count * (int64_t)x->size;
}

/** A message in each direction, to and from nodes at the same distance: no node is asked by all at
 *  once. */
static fn_status post(fn_exchange *x, int index, int distance, char *to_send, int64_t send,
                      char *to_receive, int64_t receive, int phase) {
  slot *s = &x->slot[index];
  const int to = (x->position + distance) % x->nodes,
            from = (x->position + x->nodes - distance) % x->nodes, tag = 2 * index + phase;
  const int bytes = (int)(send * (int64_t)x->size);
  if (receive > 0)
    FN_TRY_MPI(MPI_Irecv(to_receive, (int)(receive * (int64_t)x->size), MPI_BYTE, from, tag,
                         x->peers, &s->request[s->requests++]),
               "receiving gradients");
  if (send > 0)
    FN_TRY_MPI(MPI_Isend(to_send, bytes, MPI_BYTE, to, tag, x->peers, &s->request[s->requests++]),
               "sending gradients");
  x->info.sent += bytes;
  return FN_OK;
}

/** Chunk j of this rank's part goes to node j, and theirs of ours come here. */
static fn_status send_parts(fn_exchange *x, int index) {
  slot *s = &x->slot[index];
  const piece mine = piece_of(x, s, x->node_rank, x->position);
  s->requests = 0;
  for (int d = 1; d < x->nodes; d++) {
    const int from = (x->position + x->nodes - d) % x->nodes;
    const piece theirs = piece_of(x, s, x->node_rank, (x->position + d) % x->nodes);
    FN_TRY(post(x, index, d, s->own + (size_t)theirs.start * x->size, theirs.count,
                s->received + (size_t)(from * mine.count) * x->size, mine.count, 0));
  }
  return FN_OK;
}

static void add_parts(fn_exchange *x, slot *s) {
  const piece mine = piece_of(x, s, x->node_rank, x->position);
  char *own = s->own + (size_t)mine.start * x->size;
  for (int j = 0; j < x->nodes; j++)
    x->term[j] = j == x->position ? own : s->received + (size_t)(j * mine.count) * x->size;
  fn_wire_sum(own, x->term, x->nodes, x->options.type, mine.count);
}

/** Our sum goes to all nodes, and theirs come to their places. */
static fn_status send_sums(fn_exchange *x, int index) {
  slot *s = &x->slot[index];
  const piece mine = piece_of(x, s, x->node_rank, x->position);
  s->requests = 0;
  for (int d = 1; d < x->nodes; d++) {
    const piece theirs = piece_of(x, s, x->node_rank, (x->position + x->nodes - d) % x->nodes);
    FN_TRY(post(x, index, d, s->own + (size_t)mine.start * x->size, mine.count,
                s->own + (size_t)theirs.start * x->size, theirs.count, 1));
  }
  return FN_OK;
}

static void read_sums(fn_exchange *x, int index) {
  slot *s = &x->slot[index];
  for (int part = 0; part < x->parts; part++) {
    const piece p = piece_of(x, s, part, -1);
    const size_t offset = (size_t)p.start * x->size;
    const char *from = x->node_ranks > 1 ? area_of(x, part, s) : s->own;
    fn_wire_write((char *)s->data + (size_t)p.start * fn_dtype_size(x->options.data),
                  x->options.data, from + offset, x->options.type, p.count, 1);
  }
  if (x->node_ranks > 1) x->info.shared += s->count * (int64_t)x->size;
  tell(x, index, COUNT_LEFT, s->use);
}

/** The sum of this rank's part is in its area. */
static void finish_part(fn_exchange *x, int index) {
  tell(x, index, COUNT_SUMMED, x->slot[index].use);
  x->slot[index].stage = SUMMED;
}

static fn_status start_part(fn_exchange *x, int index) {
  slot *s = &x->slot[index];
  if (x->node_rank < x->parts) {
    add_areas(x, s);
    if (x->nodes > 1) {
      s->stage = PARTS;
      return send_parts(x, index);
    }
  }
  finish_part(x, index);
  return FN_OK;
}

static fn_status messages_done(slot *s, bool *done) {
  int flag = 1;
  if (s->requests > 0)
    FN_TRY_MPI(MPI_Testall(s->requests, s->request, &flag, MPI_STATUSES_IGNORE),
               "reducing gradients");
  *done = flag != 0;
  return FN_OK;
}

/** Whether what the slot waits for is there. */
static fn_status may_go_on(fn_exchange *x, int index, bool *yes) {
  slot *s = &x->slot[index];
  *yes = true;
  switch (s->stage) {
    case FREE: *yes = all_have(x, x->node_ranks, index, COUNT_LEFT, s->use - 1); break;
    case WRITTEN: *yes = all_have(x, x->node_ranks, index, COUNT_WRITTEN, s->use); break;
    case SUMMED: *yes = all_have(x, x->parts, index, COUNT_SUMMED, s->use); break;
    default: return messages_done(s, yes);
  }
  return FN_OK;
}

fn_status fn_exchange_advance(fn_exchange *x, int index, bool *moved, bool *done) {
  slot *s = &x->slot[index];
  *done = false;
  while (true) {
    bool yes;
    FN_TRY(may_go_on(x, index, &yes));
    if (!yes) return FN_OK;
    *moved = true;
    switch (s->stage) {
      case FREE:
        write_own(x, index);
        s->stage = WRITTEN;
        break;
      case WRITTEN: FN_TRY(start_part(x, index)); break;
      case PARTS:
        add_parts(x, s);
        s->stage = WHOLE;
        FN_TRY(send_sums(x, index));
        break;
      case WHOLE: finish_part(x, index); break;
      case SUMMED:
        read_sums(x, index);
        *done = true;
        return FN_OK;
    }
  }
}

void fn_exchange_describe(const fn_exchange *x, fn_exchange_info *info) {
  *info = x->info;
  info->node_ranks = x->node_ranks;
  info->nodes = x->nodes;
  info->senders = x->parts;
}
