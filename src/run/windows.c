#include "run/windows.h"

#include "models/models.h"
#include "run/engine.h"

fn_status fn_windows_cut(const fn_run *run, const fn_dataset_info *info, const fn_batch *batch,
                         fn_windows *windows) {
  *windows = (fn_windows){0};
  fn_model model;
  FN_TRY(fn_graph_create(&(fn_graph_options){0}, &windows->graph));
  FN_TRY(fn_model_build(run, windows->graph, info->spatial, batch->count, info->input_channels,
                        info->target_channels, info->input_extent, info->target_extent, &model));
  // What nobody asks for is not computed: neither the network nor its parameters are needed.
  const fn_program_output outputs[] = {{"input_window", model.input_window},
                                       {"target_window", model.target_window}};
  const fn_program_options options = {.backend = "cpu", .precision = FN_F32};
  FN_TRY(fn_program_create(windows->graph, NULL, &options, outputs, 2, NULL, NULL, 0,
                           &windows->program));
  FN_TRY(fn_engine_feed(windows->program, batch));
  return fn_program_run(windows->program, NULL);
}

void fn_windows_free(fn_windows *windows) {
  fn_program_destroy(windows->program);
  fn_graph_destroy(windows->graph);
  *windows = (fn_windows){0};
}
