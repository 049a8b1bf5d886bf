#include "run/read_again.h"

#include <stdlib.h>

fn_status fn_read_again(fn_session *s, fn_batch *batch) {
  const fn_sample_list *all = &s->flight.list;
  const int64_t count = all->last;
  fn_program *program;
  *batch = (fn_batch){0};
  FN_CHECK(count > 0, FN_ERR_MEMORY, "the samples were not kept");
  FN_TRY(fn_engine_program(s->engine, true, true, count, &program));
  *batch = (fn_batch){
      .count = count,
      .sample = all->sample + all->count - count,
      .input_values = fn_shape_count(fn_program_input_shape(program, "input")) / count,
      .target_values = fn_shape_count(fn_program_input_shape(program, "target")) / count};
  batch->input = malloc((size_t)(batch->count * batch->input_values) * sizeof(float));
  batch->target = malloc((size_t)(batch->count * batch->target_values) * sizeof(float));
  FN_CHECK(batch->input && batch->target, FN_ERR_MEMORY, "out of memory for a batch");
  for (int64_t n = 0; n < batch->count; n++)
    FN_TRY(fn_dataset_sample(s->train, s->progress.epoch, batch->sample[n],
                             batch->input + n * batch->input_values,
                             batch->target + n * batch->target_values));
  return FN_OK;
}

void fn_read_again_free(fn_batch *batch) {
  free(batch->input);
  free(batch->target);
  *batch = (fn_batch){0};
}
