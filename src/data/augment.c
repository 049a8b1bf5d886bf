/* Random symmetries, shifts and factors of training samples. */
#include <math.h>

#include "data/parts.h"

void fn_augmentation_draw(const fn_dataset *dataset, int64_t epoch, int64_t sample,
                          fn_augmentation *augmentation) {
  const fn_run *run = dataset->run;
  const int spatial = dataset->info.spatial;
  *augmentation = (fn_augmentation){.permutation = {0, 1, 2}};
  if (dataset->stage != FN_STAGE_TRAIN) return;
  fn_random random =
      fn_random_stream(run->seed, FN_RANDOM_AUGMENT, (uint32_t)epoch, (uint64_t)sample);
  const fn_integers *shift = &run->data.shift;
  for (int d = 0; d < spatial && shift->count > 0; d++) {
    const int64_t bound = shift->value[shift->count == 1 ? 0 : d];
    if (bound > 0) augmentation->shift[d] = (int64_t)fn_random_below(&random, (uint64_t)bound);
  }
  if (run->data.augment) {
    int64_t order[FN_MAX_SPATIAL] = {0, 1, 2};
    fn_random_shuffle(&random, order, spatial);
    for (int d = 0; d < spatial; d++)
      augmentation->permutation[d] = (int)order[d];
    for (int d = 0; d < spatial; d++)
      augmentation->flip[d] = fn_random_below(&random, 2) == 1;
  }
  augmentation->noise = random;
}

/** Copy one channel through strides: out is dense, element `at` of `in` is its first. */
static void gather(const float *in, int64_t at, const int64_t *stride, const int64_t *extent,
                   float sign, float *out) {
  for (int64_t i = 0; i < extent[0]; i++) {
    for (int64_t j = 0; j < extent[1]; j++) {
      const float *row = in + at + i * stride[0] + j * stride[1];
      if (stride[2] == 1) {
        for (int64_t k = 0; k < extent[2]; k++)
          out[k] = sign * row[k];
      } else {
        for (int64_t k = 0; k < extent[2]; k++)
          out[k] = sign * row[k * stride[2]];
      }
      out += extent[2];
    }
  }
}

void fn_augmentation_apply(const fn_augmentation *augmentation, int spatial, int64_t channels,
                           const int64_t *extent, bool vector, const float *in, float *out) {
  // Strides of the file's axes, negative where flipped; then in the order of the sample's axes,
  // right-aligned to three.
  int64_t file_stride[FN_MAX_SPATIAL], stride[FN_MAX_SPATIAL] = {0}, cells = 1, at = 0;
  int64_t out_extent[FN_MAX_SPATIAL] = {1, 1, 1};
  for (int d = spatial - 1; d >= 0; d--) {
    file_stride[d] = augmentation->flip[d] ? -cells : cells;
    if (augmentation->flip[d]) at += (extent[d] - 1) * cells;
    cells *= extent[d];
  }
  const int lead = FN_MAX_SPATIAL - spatial;
  for (int a = 0; a < spatial; a++) {
    stride[lead + a] = file_stride[augmentation->permutation[a]];
    out_extent[lead + a] = extent[augmentation->permutation[a]];
  }
  for (int64_t c = 0; c < channels; c++) {
    const int64_t from = vector ? augmentation->permutation[c] : c;
    const float sign = vector && augmentation->flip[from] ? -1 : 1;
    gather(in + from * cells, at, stride, out_extent, sign, out + c * cells);
  }
}

static int64_t cell_count(int spatial, const int64_t *extent) {
  int64_t count = 1;
  for (int d = 0; d < spatial; d++)
    count *= extent[d];
  return count;
}

enum { FACTORS_MOST = 256 };

int fn_augmentation_factor_count(const fn_dataset *dataset) {
  const fn_dataset_info *info = &dataset->info;
  const fn_run *run = dataset->run;
  const bool wanted = run->data.add_std > 0 || run->data.mul_std > 0;
  if (dataset->stage != FN_STAGE_TRAIN || dataset->cubes || !wanted) return 0;
  int64_t count = info->field_channels[0];
  for (int f = 1; f < dataset->columns; f++)
    if (info->field_channels[f] != count) count = 1;
  return count > FACTORS_MOST ? 1 : (int)count;
}

void fn_augmentation_factors(const fn_dataset *dataset, const fn_augmentation *augmentation,
                             int count, float **add, float **mul) {
  const fn_run *run = dataset->run;
  fn_random random = augmentation->noise;
  if (count == 0 || !(run->data.add_std > 0)) *add = NULL;
  if (count == 0 || !(run->data.mul_std > 0)) *mul = NULL;
  for (int c = 0; *add && c < count; c++)
    (*add)[c] = (float)(run->data.add_std * fn_random_normal(&random));
  for (int c = 0; *mul && c < count; c++)
    (*mul)[c] = (float)exp(run->data.mul_std * fn_random_normal(&random));
}

/** value := value + by[channel], or value * by[channel]. All fields have `count` channels when it
 * is not 1, so channel modulo count is the channel within its field. */
static void change(float *values, int64_t channels, int64_t cells, const float *by, int64_t count,
                   bool add) {
  for (int64_t c = 0; c < channels; c++) {
    const float amount = by[count == 1 ? 0 : c % count];
    float *value = values + c * cells;
    if (add) {
      for (int64_t i = 0; i < cells; i++)
        value[i] += amount;
    } else {
      for (int64_t i = 0; i < cells; i++)
        value[i] *= amount;
    }
  }
}

void fn_augmentation_scale(const fn_dataset *dataset, const fn_augmentation *augmentation,
                           float *input, float *target) {
  const fn_dataset_info *info = &dataset->info;
  const int count = fn_augmentation_factor_count(dataset);
  if (count == 0) return;
  const int64_t input_cells = cell_count(info->spatial, info->input_extent);
  const int64_t target_cells = cell_count(info->spatial, info->target_extent);
  float drawn[2][FACTORS_MOST], *by[2] = {drawn[0], drawn[1]};
  fn_augmentation_factors(dataset, augmentation, count, &by[0], &by[1]);
  for (int multiply = 0; multiply < 2; multiply++) {
    if (!by[multiply]) continue;
    change(input, info->input_channels, input_cells, by[multiply], count, !multiply);
    if (target) change(target, info->target_channels, target_cells, by[multiply], count, !multiply);
  }
}
