/** @file node_memory.h
 *  Memory that the ranks of one node share: an area of each rank, which the others read, and
 *  counters that tell them when.
 */
#ifndef FN_DIST_NODE_MEMORY_H
#define FN_DIST_NODE_MEMORY_H

#include <fieldnet/fieldnet.h>
#include <mpi.h>
#include <stdatomic.h>
#include <stdint.h>

enum { FN_CACHE_LINE = 64 };

/** What one rank has done with one slot: how many times. Each counter has one writer, its rank; who
 *  reads a value sees all that the writer did before. */
typedef struct fn_node_counters {
  _Alignas(FN_CACHE_LINE) _Atomic uint64_t written; /**< its area */
  _Alignas(FN_CACHE_LINE) _Atomic uint64_t summed;  /**< its share, which lies in its area now */
  _Alignas(FN_CACHE_LINE) _Atomic uint64_t left;    /**< it will not read any more */
} fn_node_counters;

typedef struct fn_node_memory {
  int ranks;
  size_t bytes;                /**< of a rank */
  fn_node_counters **counters; /**< [ranks]: shape [slots] each; NULL: not there */
  char **area;                 /**< [ranks]: shape [slots, slot_bytes] each */
} fn_node_memory;

/** An area of slots * slot_bytes for each rank of `node`, a communicator of ranks that share
 *  memory; slot_bytes a multiple of FN_CACHE_LINE. Every rank's memory lies where it runs, and is
 *  there when this returns: writing to it later never fails. Collective over `node`, and so are
 *  failures: FN_ERR_MEMORY. */
fn_status fn_node_memory_create(MPI_Comm node, int slots, int64_t slot_bytes,
                                fn_node_memory *memory);
/** Not collective, but other ranks must not wait for this one's numbers any more; what it wrote
 *  stays readable for them. */
void fn_node_memory_destroy(fn_node_memory *memory);

#endif
