/* Arguments of the kernels outside of programs. */
#include "backend/gpu/flat.h"

#include "backend/gpu/strides.h"

fn_add_scaled_args fn_gpu_add_scaled_args(float *sum, const float *x, float keep, float factor,
                                          int64_t count) {
  const bool wide = fn_gpu_aligned(sum, FN_F32) && fn_gpu_aligned(x, FN_F32);
  return (fn_add_scaled_args){.sum = sum,
                              .x = x,
                              .keep = keep,
                              .factor = factor,
                              .count = count,
                              .width = wide ? FN_GPU_WIDTH : 1};
}

fn_scale_args fn_gpu_scale_args(void *y, fn_dtype y_dtype, const void *x, fn_dtype x_dtype,
                                float factor, int64_t count) {
  const bool wide = fn_gpu_aligned(x, x_dtype) && fn_gpu_aligned(y, y_dtype);
  return (fn_scale_args){.x = x,
                         .y = y,
                         .x_dtype = (int)x_dtype,
                         .y_dtype = (int)y_dtype,
                         .factor = factor,
                         .count = count,
                         .width = wide ? FN_GPU_WIDTH : 1};
}

int64_t fn_gpu_flat_blocks(int64_t count) {
  return fn_gpu_blocks(count, FN_GPU_WIDTH);
}

int64_t fn_gpu_squares_blocks(int64_t count) {
  const int64_t blocks = fn_gpu_blocks(count, 4 * FN_GPU_WIDTH);
  return blocks < FN_SQUARES_BLOCKS ? blocks : FN_SQUARES_BLOCKS;
}

fn_sum_squares_args fn_gpu_sum_squares_args(const float *x, int64_t count, double *partial) {
  return (fn_sum_squares_args){
      .x = x, .count = count, .aligned = fn_gpu_aligned(x, FN_F32), .partial = partial};
}

fn_sum_squares_finish_args fn_gpu_sum_squares_finish_args(int64_t count, const double *partial,
                                                          double *result) {
  return (fn_sum_squares_finish_args){
      .partial = partial, .count = fn_gpu_squares_blocks(count), .result = result};
}

fn_status fn_gpu_convert_args(const fn_raw_field *raw, int64_t first, const fn_tensor *y, int64_t n,
                              int64_t at, fn_convert_args *args) {
  fn_operand to = fn_gpu_operand(y);
  const int64_t left = raw->channels - first;
  const int64_t channels = left < FN_CONVERT_CHANNELS ? left : FN_CONVERT_CHANNELS;
  FN_CHECK(y->shape.ndim == raw->spatial + 2 && channels > 0, FN_ERR_INTERNAL,
           "a field with %d spatial axes and %lld channels does not fit a value of %d axes",
           raw->spatial, (long long)raw->channels, y->shape.ndim);
  fn_gpu_operand_move(&to, 2, (int64_t[]){n, at + first});
  *args = (fn_convert_args){.raw = raw->data,
                            .y = to.data,
                            .raw_type = (int)raw->type,
                            .norm = (int)raw->norm,
                            .factor = raw->factor,
                            .shift = raw->shift,
                            .y_dtype = (int)y->dtype,
                            .y_channel = to.stride[1],
                            .y_cell = to.stride[y->shape.ndim - 1],
                            .across = y->block > 1,
                            .channels = fn_gpu_divider(channels)};
  // Strides of the file's axes, negative where flipped; then in the order of the sample's axes.
  int64_t stride[FN_MAX_SPATIAL] = {0}, cells = 1;
  for (int d = raw->spatial - 1; d >= 0; d--) {
    stride[d] = raw->flip[d] ? -cells : cells;
    if (raw->flip[d]) args->raw_start += (raw->extent[d] - 1) * cells;
    cells *= raw->extent[d];
  }
  const int lead = FN_MAX_SPATIAL - raw->spatial;
  for (int d = 0; d < lead; d++)
    args->size[d] = fn_gpu_divider(1);
  for (int a = 0; a < raw->spatial; a++) {
    const int d = raw->permutation[a];
    FN_CHECK(raw->extent[d] == y->shape.dim[2 + a], FN_ERR_INTERNAL,
             "axis %d of a sample has %lld cells, expected %lld", a, (long long)raw->extent[d],
             (long long)y->shape.dim[2 + a]);
    args->raw_stride[lead + a] = stride[d];
    args->size[lead + a] = fn_gpu_divider(raw->extent[d]);
  }
  args->raw_channel = cells;
  args->cells = fn_gpu_divider(cells);
  args->sample = fn_gpu_divider(channels * cells);
  args->raw_sample = raw->step;
  args->y_sample = to.stride[0];
  args->count = (raw->samples > 1 ? raw->samples : 1) * channels * cells;
  for (int64_t c = 0; c < channels; c++) {
    // What is absent leaves a negative zero as it is.
    const int64_t from = raw->vector ? raw->permutation[first + c] : first + c;
    const int64_t factor = raw->factors > 1 ? first + c : 0;
    args->channel[c] = (fn_convert_channel){.from = from,
                                            .sign = raw->vector && raw->flip[from] ? -1 : 1,
                                            .add = raw->add ? raw->add[factor] : -0.0f,
                                            .mul = raw->mul ? raw->mul[factor] : 1};
  }
  return FN_OK;
}
