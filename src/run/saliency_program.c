#include "run/saliency_program.h"

#include <stdlib.h>
#include <string.h>

struct fn_saliency_program {
  const fn_run *run;
  fn_graph *graph;
  fn_program *program;
  int64_t batch;
  int64_t input_values, output_values; /**< of one sample */
  int64_t *sample;                     /**< [batch] */
};

void fn_saliency_program_destroy(fn_saliency_program *p) {
  if (!p) return;
  fn_program_destroy(p->program);
  fn_graph_destroy(p->graph);
  free(p->sample);
  free(p);
}

static fn_status compile(fn_saliency_program *p, fn_engine *engine, const fn_dataset_info *info) {
  const fn_graph_options mode = {.training = false};
  fn_model model;
  FN_TRY(fn_graph_create(&mode, &p->graph));
  FN_TRY(fn_model_build(p->run, p->graph, info->spatial, p->batch, info->input_channels,
                        info->target_channels, info->input_extent, NULL, &model));
  fn_value *kept[2] = {model.output, NULL}, *input = model.input;
  FN_TRY(fn_graph_fuse_forward(p->graph, kept, 1));
  fn_value *sum = fn_sum(p->graph, model.output, FN_ALL_AXES, false);
  FN_TRY(fn_graph_status(p->graph));
  FN_TRY(fn_differentiate(p->graph, sum, &input, 1, &kept[1]));
  FN_TRY(fn_graph_fuse_backward(p->graph, kept, 2));
  const fn_program_output outputs[] = {{"output", kept[0]}, {"gradient", kept[1]}};
  const fn_program_options options = {
      .backend = p->run->compute.backend, .precision = FN_F32, .check = p->run->compute.check};
  FN_TRY(fn_program_create(p->graph, fn_engine_parameters(engine), &options, outputs, 2, NULL, NULL,
                           0, &p->program));
  p->input_values = fn_shape_count(fn_program_input_shape(p->program, "input")) / p->batch;
  p->output_values = fn_shape_count(fn_program_output_shape(p->program, "output")) / p->batch;
  return FN_OK;
}

fn_status fn_saliency_program_create(const fn_run *run, fn_engine *engine,
                                     const fn_dataset_info *info, int64_t batch,
                                     fn_saliency_program **program) {
  *program = NULL;
  fn_saliency_program *p = calloc(1, sizeof *p);
  FN_CHECK(p, FN_ERR_MEMORY, "out of memory");
  p->run = run;
  p->batch = batch;
  p->sample = calloc((size_t)batch, sizeof *p->sample);
  const fn_status status = p->sample
                               ? compile(p, engine, info)
                               : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  if (status != FN_OK) {
    fn_saliency_program_destroy(p);
    return status;
  }
  *program = p;
  return FN_OK;
}

fn_status fn_saliency_run(fn_saliency_program *p, const float *input, int64_t count,
                          const int64_t *sample, float *logit, float *gradient) {
  FN_CHECK(count <= p->batch, FN_ERR_INTERNAL, "%lld samples for a program of %lld",
           (long long)count, (long long)p->batch);
  const size_t cells = (size_t)p->input_values;
  float *in = fn_program_input(p->program, "input");
  memcpy(in, input, (size_t)count * cells * sizeof *in);
  memcpy(p->sample, sample, (size_t)count * sizeof *sample);
  memset(in + (size_t)count * cells, 0, (size_t)(p->batch - count) * cells * sizeof *in);
  const fn_run_context context = {.seed = p->run->seed, .sample = p->sample};
  FN_TRY(fn_program_run(p->program, &context));
  FN_TRY(fn_program_wait(p->program));
  const float *out = fn_program_output_data(p->program, "output");
  for (int64_t i = 0; i < count; i++) {
    logit[i] = 0;
    for (int64_t c = 0; c < p->output_values; c++)
      logit[i] += out[i * p->output_values + c];
  }
  memcpy(gradient, fn_program_output_data(p->program, "gradient"),
         (size_t)count * cells * sizeof *gradient);
  return FN_OK;
}
