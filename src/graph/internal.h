/** @file internal.h
 *  What the files of this room share.
 */
#ifndef FN_GRAPH_INTERNAL_H
#define FN_GRAPH_INTERNAL_H

#include "graph/graph.h"

struct fn_graph {
  fn_arena *arena;
  fn_graph_options options;
  fn_status status; /**< first failure */

  fn_node **node;
  int node_count, node_capacity;
  int value_count;

  fn_value **leaf;
  int leaf_count, leaf_capacity;

  fn_assignment *assignment;
  int assignment_count, assignment_capacity;

  char scope[1024];
  int scope_end[64]; /**< length of scope before each push */
  int scope_depth;
};

/** Grow an array of `item` bytes so that index `count` exists. Ends in memory error only. */
fn_status fn_grow(void **array, int count, int *capacity, size_t item);

#endif
