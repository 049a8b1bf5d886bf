/** @file cost.h
 *  What a training will take: steps, operations, memory, disk; known before it starts.
 */
#ifndef FN_RUN_COST_H
#define FN_RUN_COST_H

#include "run/describe.h"

enum { FN_COST_PARTS = 8 };

/** Numbers of one rank unless they say otherwise. */
typedef struct fn_cost {
  int64_t samples;      /**< of an epoch, all ranks */
  int64_t rank_samples; /**< of them, this rank's */
  int64_t batch;        /**< samples of a micro-batch: train.batch, or what there is */
  int64_t steps;        /**< of an epoch */
  int64_t step_samples; /**< of a step */
  fn_network_totals totals;
  /** Memory. The parts are known exactly but for the scratch memory of library primitives, which is
   *  small and known only once they are made. */
  int parts;
  struct {
    const char *name;
    double bytes;
  } part[FN_COST_PARTS];
  double memory; /**< sum of the parts, bytes */
  int64_t checkpoint_bytes;
} fn_cost;

/** The steps only. Not collective. */
void fn_cost_steps(const fn_run *run, const fn_dataset *train, int ranks, fn_cost *cost);
/** All of it, for the run's training data and its network as planned by `engine`. Collective as
 *  fn_network_totals_find() is. */
fn_status fn_cost_find(const fn_run *run, const fn_dataset *train, fn_engine *engine, int ranks,
                       fn_cost *cost);
/** The same from nothing but the run: data are opened, the network is planned. Collective; every
 *  rank has the same status. */
fn_status fn_cost_estimate(const fn_run *run, fn_dist *dist, fn_cost *cost);

#endif
