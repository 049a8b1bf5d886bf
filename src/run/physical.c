#include "run/physical.h"

#include <stdlib.h>
#include <string.h>

#include "data/norms.h"
#include "graph/program.h"
#include "models/models.h"

static fn_status undo(const fn_run *run, const fn_texts *names, int fields, const int64_t *channels,
                      float *values, int64_t cells) {
  for (int f = 0; f < fields; f++) {
    const fn_norm *norm;
    FN_TRY(fn_norm_find(f < names->count ? names->text[f] : "identity", &norm));
    FN_TRY(fn_norm_apply(norm, values, channels[f], cells, true, run->data.norm_options));
    values += channels[f] * cells;
  }
  return FN_OK;
}

fn_status fn_undo_target_norms(const fn_run *run, const fn_dataset_info *info,
                               const int64_t *field_channels, float *values, int64_t cells) {
  return undo(run, &run->data.target_norms, info->target_fields, field_channels, values, cells);
}

fn_status fn_undo_input_norms(const fn_run *run, const fn_dataset_info *info, float *values,
                              int64_t cells) {
  return undo(run, &run->data.input_norms, info->input_fields, info->field_channels, values, cells);
}

struct fn_physical {
  fn_graph *graph;
  fn_program *program;
  int64_t count; /**< values of a window */
};

static fn_status build(const fn_run *run, const fn_dataset_info *info, const int64_t *window,
                       fn_physical *p) {
  fn_shape shape = {.ndim = 2 + info->spatial, .dim = {1, info->target_channels}};
  for (int d = 0; d < info->spatial; d++)
    shape.dim[2 + d] = window[d];
  p->count = fn_shape_count(&shape);
  FN_TRY(fn_graph_create(NULL, &p->graph));
  const fn_loss *loss;
  FN_TRY(fn_loss_find(run->loss.name, &loss));
  fn_value *x = fn_input(p->graph, "x", &shape), *target = fn_input(p->graph, "target", &shape);
  const fn_program_output output = {"loss", loss->build(p->graph, x, target, run->loss.options)};
  FN_TRY(fn_graph_status(p->graph));
  const fn_program_options options = {.backend = run->compute.backend, .precision = FN_F32};
  return fn_program_create(p->graph, NULL, &options, &output, 1, NULL, NULL, 0, &p->program);
}

fn_status fn_physical_create(const fn_run *run, const fn_dataset_info *info, const int64_t *window,
                             fn_physical **physical) {
  *physical = calloc(1, sizeof **physical);
  FN_CHECK(*physical, FN_ERR_MEMORY, "out of memory");
  return build(run, info, window, *physical);
}

void fn_physical_destroy(fn_physical *physical) {
  if (!physical) return;
  fn_program_destroy(physical->program);
  fn_graph_destroy(physical->graph);
  free(physical);
}

fn_status fn_physical_loss(fn_physical *physical, const float *x, const float *target,
                           double *loss) {
  const size_t bytes = (size_t)physical->count * sizeof(float);
  memcpy(fn_program_input(physical->program, "x"), x, bytes);
  memcpy(fn_program_input(physical->program, "target"), target, bytes);
  FN_TRY(fn_program_run(physical->program, NULL));
  FN_TRY(fn_program_wait(physical->program));
  *loss = (double)*(const float *)fn_program_output_data(physical->program, "loss");
  return FN_OK;
}
