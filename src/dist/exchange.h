/** @file exchange.h
 *  Slices of numbers summed over ranks, several under way at once, driven by whoever asks.
 *
 *  Ranks that share memory add up there: each writes its numbers into an area that the others can
 *  read; of the L ranks of a node, rank l adds the l-th part of all areas. Between N nodes, the
 *  ranks that have the same part cut it into N chunks: chunk j of every node is sent to node j,
 *  added there and sent back to all. So every rank sends and receives 2 (N - 1) / N times its part
 *  of 1 / L, all links of a node work, and what nodes hold of different numbers of ranks, only the
 *  least of them send (the parts are then fewer than ranks). Ranks that share no memory are nodes
 * of one rank.
 *
 *  Sums are taken in the order of the ranks of a node, then of the nodes (by their first rank), in
 *  the type of the numbers, or float32 for bfloat16; a chunk is added by one rank. So all ranks get
 *  the same bits, whoever is late. Where there is one node, or every node has one rank, the order
 * is that of the ranks. bfloat16: what a rank writes is rounded once, and its sum; with several
 * ranks on several nodes the sum of a node, too.
 */
#ifndef FN_DIST_EXCHANGE_H
#define FN_DIST_EXCHANGE_H

#include <fieldnet/backend.h>

#include "dist/dist.h"

typedef struct fn_exchange fn_exchange;

typedef struct fn_exchange_options {
  fn_dtype type;     /**< as the numbers travel: FN_F32, FN_F64 or FN_BF16 */
  fn_dtype data;     /**< as they are given and wanted: the same, or FN_F32 for FN_BF16 */
  int slots;         /**< slices under way at once */
  int64_t most;      /**< elements of the largest slice */
  bool share_memory; /**< false: every rank for itself */
} fn_exchange_options;

/** The ranks of a node are those that can share memory; the environment variable
 *  FIELDNET_NODE_RANKS parts them in groups of so many, each of which counts as a node. `dist` must
 *  stay, and its gradient_comm carry no other messages while slices are under way. Collective, and
 *  so are failures: FN_ERR_MEMORY, FN_ERR_CONFIG. */
fn_status fn_exchange_create(const fn_dist *dist, const fn_exchange_options *options,
                             fn_exchange **exchange);
/** Collective, no slice being under way on this rank. */
void fn_exchange_destroy(fn_exchange *exchange);

/** Start to replace `count` numbers at `data` by the sum over ranks of weight * data. A weight of 0
 *  makes zero of anything. The slot must be free; every rank starts the same slices in the same
 *  slots in the same order. */
void fn_exchange_start(fn_exchange *exchange, int slot, void *data, int64_t count, double weight);
/** Do what can be done for a slot without waiting. *moved: set to true when something was; *done:
 *  the sum is there and the slot free. */
fn_status fn_exchange_advance(fn_exchange *exchange, int slot, bool *moved, bool *done);

typedef struct fn_exchange_info {
  int node_ranks;      /**< of this rank's node */
  int node_ranks_most; /**< of the largest */
  int nodes;           /**< that have ranks of comm */
  int senders;         /**< ranks of each node that send to other nodes */
  int64_t sent;        /**< bytes that this rank has sent to other nodes so far */
  int64_t shared;      /**< bytes that it wrote to and read from the node's memory so far */
  int64_t memory;      /**< bytes of buffers of this rank */
} fn_exchange_info;
void fn_exchange_describe(const fn_exchange *exchange, fn_exchange_info *info);

#endif
