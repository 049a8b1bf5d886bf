#include <stdio.h>
#include <string.h>

#include "config/options.h"
#include "models/builtin.h"
#include "models/models.h"

fn_status fn_model_rule(const fn_run *run, fn_network_rule *rule) {
  *rule = (fn_network_rule){.multiple = 1, .minimum = 1, .trim = -1};
  if (run->plugin) FN_TRY(fn_plugin_load(run->plugin));
  if (run->model.layers) return FN_OK;
  const fn_network *network;
  FN_TRY(fn_network_find(run->model.name, &network));
  if (network->rule) network->rule(run->model.options, rule);
  return FN_OK;
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/** The centred windows of input, output and target that all three cover, in cells of the output:
 *  an input of lower resolution is interpolated, as map2map does in training (map2map page, 6.6).
 */
static void common_windows(fn_graph *graph, int64_t scale_factor, fn_model *model) {
  if (fn_spatial(model->output) == 0) {
    model->output_window = model->output;
    model->target_window = model->target;
    return;
  }
  fn_value *part[3] = {model->input, model->output, model->target};
  if (scale_factor > 1) part[0] = fn_resample(graph, model->input, (double)scale_factor, false);
  if (fn_graph_status(graph) != FN_OK) return;
  const int count = model->target ? 3 : 2, spatial = fn_spatial(model->output);
  int64_t length[FN_MAX_SPATIAL];
  for (int d = 0; d < spatial; d++) {
    length[d] = fn_dim(part[0], 2 + d);
    for (int i = 1; i < count; i++)
      length[d] = smaller(length[d], fn_dim(part[i], 2 + d));
  }
  fn_value *window[3] = {NULL};
  for (int i = 0; i < count && part[i]; i++) {
    int64_t start[FN_MAX_SPATIAL];
    bool whole = true;
    for (int d = 0; d < spatial; d++) {
      start[d] = (fn_dim(part[i], 2 + d) - length[d]) / 2;
      whole &= fn_dim(part[i], 2 + d) == length[d];
    }
    window[i] = whole ? part[i] : fn_crop(graph, part[i], start, length);
  }
  model->input_window = window[0];
  model->output_window = window[1];
  model->target_window = window[2];
}

static fn_status check_output(fn_graph *graph, const fn_model *model, int spatial,
                              int64_t out_channels) {
  FN_TRY(fn_graph_status(graph));
  char text[128];
  const int found = fn_spatial(model->output);
  if ((found != spatial && found != 0) || fn_dim(model->output, 1) != out_channels)
    return fn_graph_fail(graph, FN_ERR_CONFIG,
                         "the network's output has shape %s, expected %lld channels and %d "
                         "spatial axes or none",
                         fn_shape_text(&model->output->shape, text, sizeof text),
                         (long long)out_channels, spatial);
  return FN_OK;
}

static fn_shape batch_shape(int spatial, int64_t batch, int64_t channels, const int64_t *extent) {
  fn_shape shape = {.ndim = 2 + spatial, .dim = {batch, channels}};
  for (int d = 0; d < spatial; d++)
    shape.dim[2 + d] = extent[d];
  return shape;
}

static fn_status build_network(const fn_run *run, fn_graph *graph, int64_t out_channels,
                               fn_model *model) {
  if (run->model.layers) {
    model->output = fn_layers_build(graph, model->input, out_channels, run->model.layers);
  } else {
    const fn_network *network;
    FN_TRY(fn_network_find(run->model.name, &network));
    model->output = network->build(graph, model->input, out_channels, run->model.options);
  }
  FN_TRY(fn_graph_status(graph));
  FN_CHECK(model->output, FN_ERR_CONFIG, "the network has no output");
  FN_TRY(fn_options_check(run->model.options));
  return fn_options_check(run->model.layers);
}

fn_status fn_model_build(const fn_run *run, fn_graph *graph, int spatial, int64_t batch,
                         int64_t in_channels, int64_t out_channels, const int64_t *extent,
                         const int64_t *target_extent, fn_model *model) {
  *model = (fn_model){0};
  if (run->plugin) FN_TRY(fn_plugin_load(run->plugin));
  const fn_shape in = batch_shape(spatial, batch, in_channels, extent);
  model->input = fn_input(graph, "input", &in);
  FN_TRY(build_network(run, graph, out_channels, model));
  FN_TRY(check_output(graph, model, spatial, out_channels));
  if (target_extent) {
    const fn_shape target =
        batch_shape(fn_spatial(model->output), batch, out_channels, target_extent);
    model->target = fn_input(graph, "target", &target);
  }
  common_windows(graph, run->data.scale_factor, model);
  FN_TRY(fn_graph_status(graph));
  if (!target_extent) return FN_OK;
  const fn_loss *loss;
  FN_TRY(fn_loss_find(run->loss.name, &loss));
  model->loss = loss->build(graph, model->output_window, model->target_window, run->loss.options);
  FN_TRY(fn_graph_status(graph));
  FN_CHECK(model->loss && fn_shape_count(&model->loss->shape) == 1, FN_ERR_CONFIG,
           "loss '%s' is not a scalar", run->loss.name);
  return fn_options_check(run->loss.options);
}
