/** @file dist.h
 *  The job, or a group of its ranks that works by itself: ranks, errors agreed over them, gradients
 * summed over them.
 */
#ifndef FN_DIST_DIST_H
#define FN_DIST_DIST_H

#include <mpi.h>

#include "base/system.h"
#include "config/run.h"
#include "graph/parameters.h"

typedef struct fn_dist {
  int rank, size;
  int node_rank, node_size; /**< among the job's ranks of this node */
  int cores;                /**< that this rank may count as its own */
  int core[FN_CORES_MOST];  /**< cores that no other rank of the node counts as its own */
  int core_count;           /**< 0: they cannot be told apart */
  bool cores_given;       /**< fewer than the machine has: who started the job chose them for it */
  MPI_Comm comm;          /**< for control messages: all ranks of the job, or those of the group */
  MPI_Comm gradient_comm; /**< used by the progress thread only */
  bool threads_multiple;  /**< MPI_THREAD_MULTIPLE was provided */
  fn_collectives collectives; /**< for programs; sums over comm */
} fn_dist;

/** MPI_Init_thread and communicators. Collective over the job. */
fn_status fn_dist_init(int *argc, char ***argv, fn_dist *dist);
/** Collective. */
void fn_dist_finalize(fn_dist *dist);
/** Part the ranks into groups that then work independently of each other: those with the same
 *  `color` (>= 0) are a group, ranked by `key`, then by their rank in `parent`. The group has
 *  communicators of its own. Its place on the node, cores and node_rank, stays that in `parent`:
 *  the other groups of the node run at the same time, on the other cores and devices. *group must
 *  not move. Collective over `parent`. */
fn_status fn_dist_split(const fn_dist *parent, int color, int key, fn_dist *group);
/** Give back what fn_dist_split made. Collective over the group. */
void fn_dist_release(fn_dist *group);
/** The error is unrecoverable on this rank alone: print it and end the whole job (MPI_Abort), also
 *  when `dist` is a group of it. */
void fn_dist_abort(const fn_dist *dist, fn_status status);

/** Agree on success: every rank returns FN_OK when all passed FN_OK; otherwise every rank returns
 *  the status of the lowest failing rank and fn_error_message() is that rank's message with its
 * host and rank. Collective. */
fn_status fn_dist_agree(const fn_dist *dist, fn_status status);
/** Largest value of `flag` over the ranks. Collective. */
int fn_dist_max(const fn_dist *dist, int flag);
/** Sum n doubles in place, in rank order (deterministic). Collective. */
fn_status fn_dist_sum(const fn_dist *dist, double *values, int64_t n);
/** Average the buffers (running statistics) over ranks. Collective. */
fn_status fn_dist_average_buffers(const fn_dist *dist, fn_parameters *parameters);
/** Broadcast from rank 0. Collective. */
fn_status fn_dist_broadcast(const fn_dist *dist, void *bytes, int64_t count);

/* ---- gradients
 * ------------------------------------------------------------------------------------------ */

/** Sums gradients over ranks in buckets while the backward pass goes on: a bucket starts when its
 *  last gradient is written; a progress thread drives the reductions when MPI_THREAD_MULTIPLE is
 *  provided, else they run in fn_reducer_finish. */
typedef struct fn_reducer fn_reducer;

/** What MPI is given when gradients are on a device: copies in pinned memory of the host, or the
 *  device's addresses, which the library must be able to sum. */
typedef enum fn_allreduce {
  FN_ALLREDUCE_AUTO, /**< the host's, but for sums by MPI where the library says that it can */
  FN_ALLREDUCE_HOST,
  FN_ALLREDUCE_DEVICE,
} fn_allreduce;

/** Who adds gradients up. */
typedef enum fn_adder {
  FN_ADDER_AUTO,  /**< the node, where several ranks share one, else the ranks; MPI for
                     FN_ALLREDUCE_DEVICE */
  FN_ADDER_MPI,   /**< MPI_Iallreduce */
  FN_ADDER_RANKS, /**< every rank a share of all (exchange.h, without shared memory) */
  FN_ADDER_NODE,  /**< in shared memory, then between nodes (exchange.h) */
} fn_adder;

/** How gradients are summed. */
typedef struct fn_reduction {
  fn_allreduce memory; /**< matters for gradients on a device */
  fn_adder adder;
  fn_dtype type; /**< between ranks: FN_F32, the parameters' own type, or FN_BF16 */
} fn_reduction;
/** As train.allreduce, train.reduction and train.gradient_dtype ask. */
fn_reduction fn_reduction_of(const fn_run *run);

/** Bytes of a bucket for these gradients: `wanted`, but no more than an eighth of all. The last
 *  bucket starts when the backward pass ends and is never hidden: it must be a small part. */
int64_t fn_reducer_bucket_bytes(const fn_parameters *parameters, int64_t wanted);
/** Parameters whose gradients are to be on a device must be there already. FN_ERR_CONFIG for wishes
 *  that contradict each other, FN_ERR_MEMORY. Collective, and so are failures. */
fn_status fn_reducer_create(const fn_dist *dist, fn_parameters *parameters, int64_t first_bytes,
                            int64_t bucket_bytes, fn_reduction how, fn_reducer **reducer);
/** Collective. */
void fn_reducer_destroy(fn_reducer *reducer);
/** In words: sizes, types, who adds. On one rank "". */
void fn_reducer_describe(const fn_reducer *reducer, char *text, size_t size);
/** Before the backward pass: this rank's gradients (means over its `samples`) count as
 *  samples / total, where total sums over ranks. Collective (one small reduction). */
fn_status fn_reducer_begin(fn_reducer *reducer, int64_t samples);
/** An fn_gradient_ready callback; user is the reducer. True when a bucket may start. */
bool fn_reducer_ready(void *reducer, int entry);
/** Wait until parameters->gradients hold the weighted mean over ranks. Collective. */
fn_status fn_reducer_finish(fn_reducer *reducer);
/** Seconds spent reducing and, of those, waited for in finish; since creation. */
void fn_reducer_times(const fn_reducer *reducer, double *busy, double *exposed);

/** One bucket in the last step; times of fn_clock(), 0 when it has not come so far. */
typedef struct fn_bucket_times {
  int64_t bytes;
  double ready; /**< its last gradient was written */
  double start, end;
} fn_bucket_times;
/** What this rank has moved since creation. */
typedef struct fn_reducer_traffic {
  double sent;   /**< bytes handed to MPI for other ranks; < 0: MPI adds and knows */
  double shared; /**< bytes written to and read from memory shared with the node's ranks */
} fn_reducer_traffic;
/** Between fn_reducer_finish and the next fn_reducer_begin. */
void fn_reducer_moved(const fn_reducer *reducer, fn_reducer_traffic *traffic);
/** 0 on one rank, which reduces nothing. */
int fn_reducer_bucket_count(const fn_reducer *reducer);
/** Between fn_reducer_finish and the next fn_reducer_begin. */
void fn_reducer_bucket(const fn_reducer *reducer, int index, fn_bucket_times *times);

#endif
