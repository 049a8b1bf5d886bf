/** @file tree.h
 *  Sums over the threads of a block in an order that depends on the numbers of threads alone.
 *
 *  Shared memory holds `sums` rows of FN_GPU_THREADS doubles; in each row thread `index` has left
 * its part, index = lane * tile + column. The parts of a column are added in two phases.
 */
#ifndef FN_BACKEND_GPU_KERNELS_TREE_H
#define FN_BACKEND_GPU_KERNELS_TREE_H

#include "backend/gpu/code.h"

enum { FN_TREE_GROUPS = 16 };

/** First phase: groups of neighbouring lanes, each into its first lane's place. */
FN_DEVICE void fn_tree_groups(double *part, int sums, int tile, fn_thread t) {
  const int lanes = FN_GPU_THREADS / tile;
  const int groups = lanes < FN_TREE_GROUPS ? lanes : FN_TREE_GROUPS, each = lanes / groups;
  for (int task = t.index; task < sums * groups * tile; task += t.count) {
    const int column = task % tile, group = task / tile % groups, sum = task / (tile * groups);
    double *first = part + sum * FN_GPU_THREADS + group * each * tile + column;
    double total = first[0];
    for (int i = 1; i < each; i++)
      total += first[i * tile];
    first[0] = total;
  }
}

/** Second phase, by one thread: the sum of a column. */
FN_DEVICE double fn_tree_total(const double *part, int sum, int tile, int column) {
  const int lanes = FN_GPU_THREADS / tile;
  const int groups = lanes < FN_TREE_GROUPS ? lanes : FN_TREE_GROUPS, each = lanes / groups;
  const double *first = part + sum * FN_GPU_THREADS + column;
  double total = first[0];
  for (int i = 1; i < groups; i++)
    total += first[i * each * tile];
  return total;
}

#endif
