/** @file models.h
 *  Networks, losses and norms by name, and the model of a run as a graph.
 */
#ifndef FN_MODELS_MODELS_H
#define FN_MODELS_MODELS_H

#include "config/run.h"
#include "graph/graph.h"

/** Built-in or registered network; unknown names: FN_ERR_CONFIG with the nearest. */
fn_status fn_network_find(const char *name, const fn_network **network);
fn_status fn_loss_find(const char *name, const fn_loss **loss);
/** Load run->plugin, if any, and let it register. Once per process and path. */
fn_status fn_plugin_load(const char *path);

/** The sizes the run's network accepts. */
fn_status fn_model_rule(const fn_run *run, fn_network_rule *rule);

/** Graph of the run's network and loss for inputs [batch, in, extent...] and targets
 *  [batch, out, target_extent...]; input, output and target are narrowed to their common centred
 *  window before the loss (map2map page, 6.6). Where the network's output has no spatial axes,
 *  targets are [batch, out] and nothing is narrowed. target_extent NULL: no loss. */
typedef struct fn_model {
  fn_value *input, *target;
  fn_value *output; /**< of the network */
  /** The common window; input_window is NULL where the output has no spatial axes. */
  fn_value *input_window, *output_window, *target_window;
  fn_value *loss; /**< scalar */
} fn_model;
fn_status fn_model_build(const fn_run *run, fn_graph *graph, int spatial, int64_t batch,
                         int64_t in_channels, int64_t out_channels, const int64_t *extent,
                         const int64_t *target_extent, fn_model *model);

#endif
