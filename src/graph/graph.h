/** @file graph.h
 *  The static graph: nodes, leaves, and the passes that rewrite it.
 */
#ifndef FN_GRAPH_GRAPH_H
#define FN_GRAPH_GRAPH_H

#include <fieldnet/backend.h>

#include "base/arena.h"

typedef enum fn_leaf_kind { FN_LEAF_INPUT, FN_LEAF_PARAMETER, FN_LEAF_BUFFER } fn_leaf_kind;

/** Attributes of the leaf operator. */
typedef struct fn_leaf {
  fn_leaf_kind kind;
  const char *name; /**< full name, scopes included */
  fn_init init;     /**< parameters */
  fn_role role;     /**< parameters */
  double fill;      /**< buffers */
} fn_leaf;

extern const fn_op fn_op_leaf;

typedef struct fn_assignment {
  fn_value *buffer, *value;
} fn_assignment;

typedef struct fn_graph_options {
  bool training;
  bool sync_batch_norm; /**< statistics over all ranks */
} fn_graph_options;

fn_status fn_graph_create(const fn_graph_options *options, fn_graph **graph);
void fn_graph_destroy(fn_graph *graph);

fn_arena *fn_graph_arena(fn_graph *graph);
const fn_graph_options *fn_graph_get_options(const fn_graph *graph);
int fn_graph_node_count(const fn_graph *graph);
fn_node *fn_graph_node(const fn_graph *graph, int index);
int fn_graph_value_count(const fn_graph *graph);
int fn_graph_leaf_count(const fn_graph *graph);
/** Leaves in creation order (= PyTorch's state_dict order for networks written that way). */
fn_value *fn_graph_leaf(const fn_graph *graph, int index);
const fn_leaf *fn_value_leaf(const fn_value *value);
int fn_graph_assignment_count(const fn_graph *graph);
const fn_assignment *fn_graph_assignment(const fn_graph *graph, int index);

/** Merge activation and residual addition into batch norm and convolution, and pool maxima before
 *  activations; to be called before differentiation, so that gradients come out merged too. `keep`
 *  values stay as they are. */
fn_status fn_graph_fuse_forward(fn_graph *graph, fn_value **keep, int keep_count);
/** For graphs that are not differentiated. Batch norm with fixed statistics whose input is a
 *  convolution that nobody else reads becomes part of its kernel and bias, which fn_op_fold_norm
 *  computes; a program does that once per state of the parameters. Before fn_graph_fuse_forward. */
fn_status fn_graph_fold_norms(fn_graph *graph, fn_value **keep, int keep_count);
/** Merge additions, and the activations after them, into convolutions: after
 *  fn_graph_fuse_forward, for graphs that are not differentiated. */
fn_status fn_graph_fuse_evaluation(fn_graph *graph, fn_value **keep, int keep_count);
/** Rewrites after differentiation: add(x, pad(y)) -> add_window. */
fn_status fn_graph_fuse_backward(fn_graph *graph, fn_value **keep, int keep_count);
/** For backends that ask for it (takes_lines), after the last differentiation: the gradient of a
 *  batch norm with activation and without residual takes its `line` instead of y. */
fn_status fn_graph_take_lines(fn_graph *graph);
/** Mark activations bf16 and insert casts. `first_layer_f32` keeps what reads graph inputs. */
fn_status fn_graph_apply_bf16(fn_graph *graph, bool first_layer_f32);
/** The same with FN_BF16 or FN_F16. */
fn_status fn_graph_apply_half(fn_graph *graph, fn_dtype half, bool first_layer_f32);

/** Count how many inputs of live nodes read each value, shape [value_count]; nodes are live when a
 *  root depends on them. live[node_count]. Assignments count as roots. */
void fn_graph_uses(const fn_graph *graph, fn_value *const *roots, int root_count, int *uses,
                   bool *live);

#endif
