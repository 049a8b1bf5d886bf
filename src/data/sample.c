/* One sample: crop, normalise, augment. Order of operations: map2map page, section 2.6. */
#include <stdlib.h>

#include "data/cube_parts.h"
#include "data/norms.h"
#include "data/parts.h"

/** Crops whose edges differ turn with the axes, and their anchor with them, so that all crops
 *  together still tile the field. A crop with equal edges stays where it is: fields held back by
 *  data.crop_start and data.crop_stop are not seen in training. */
static bool turns(const fn_dataset *dataset) {
  for (int d = 1; d < dataset->info.spatial; d++)
    if (dataset->crop[d] != dataset->crop[0]) return true;
  return false;
}

/** Margins swap sides along flipped axes, so that after the flip every sample has `low` cells
 *  before the crop, and input and target stay aligned. */
static void locate(const fn_dataset *dataset, const int64_t *anchor, const fn_augmentation *random,
                   const fn_margins *pad, int64_t scale, fn_region *r) {
  const bool turning = turns(dataset);
  for (int a = 0; a < dataset->info.spatial; a++) {
    const int d = random->permutation[a]; // axis of the file that becomes axis a of the sample
    const int from = turning ? a : d;
    const int64_t low = random->flip[d] ? pad->high[a] : pad->low[a];
    r->start[d] = scale * (anchor[from] + random->shift[from] - low);
    r->extent[d] = scale * (pad->low[a] + dataset->crop[a] + pad->high[a]);
  }
}

static bool is_identity(const fn_augmentation *random, int spatial) {
  for (int a = 0; a < spatial; a++)
    if (random->permutation[a] != a || random->flip[a]) return false;
  return true;
}

int64_t fn_region_cells(const fn_region *r, int spatial) {
  int64_t count = 1;
  for (int d = 0; d < spatial; d++)
    count *= r->extent[d];
  return count;
}

/** Borrow the open file of a source; FN_ERR_DATA when it is not what it was. */
static fn_status take_field(fn_dataset *dataset, const fn_source *source, fn_field **field) {
  FN_TRY(fn_handles_take(dataset->handles, source->key, source->path, source->sample >= 0, field));
  const fn_field_info *found = fn_field_get_info(*field);
  const fn_kind *kind = &dataset->kind[source->kind];
  bool same = found->channels == kind->channels && found->spatial == kind->spatial &&
              found->raw == kind->raw;
  for (int d = 0; same && d < kind->spatial; d++)
    same = found->size[d] == kind->size[d];
  if (same) return FN_OK;
  fn_handles_return(dataset->handles, *field);
  FN_FAIL(FN_ERR_DATA, "%s: the file has changed its %s since it was checked", source->shown,
          found->raw == kind->raw ? "shape" : "type");
}

fn_status fn_source_read(fn_dataset *dataset, const fn_column *column, int64_t file,
                         const fn_region *r, float *out) {
  const fn_source *source = &column->source[file];
  const int64_t sample = source->sample >= 0 ? source->sample : 0;
  fn_field *field;
  FN_TRY(take_field(dataset, source, &field));
  const fn_status status =
      column->slab ? fn_slab_read(column->slab, field, file, sample, r->start, r->extent, out)
                   : fn_field_read(field, sample, r->start, r->extent, out);
  fn_handles_return(dataset->handles, field);
  return status;
}

fn_status fn_source_read_raw(fn_dataset *dataset, const fn_column *column, int64_t file,
                             const fn_region *r, void *out) {
  const fn_source *source = &column->source[file];
  const int64_t sample = source->sample >= 0 ? source->sample : 0;
  fn_field *field;
  FN_TRY(take_field(dataset, source, &field));
  const fn_status status = fn_field_read_raw(field, sample, r->start, r->extent, out);
  fn_handles_return(dataset->handles, field);
  return status;
}

/** Read, normalise and turn one field; scratch may be NULL when the augmentation is the identity.
 */
static fn_status make_field(fn_dataset *dataset, const fn_column *column, int64_t file,
                            const fn_region *r, const fn_augmentation *random, float *scratch,
                            float *out) {
  const int spatial = dataset->info.spatial;
  const fn_source *source = &column->source[file];
  float *raw = scratch ? scratch : out;
  FN_TRY(fn_source_read(dataset, column, file, r, raw));
  const fn_status status =
      fn_norm_apply(column->norm, raw, column->channels, fn_region_cells(r, spatial), false,
                    dataset->run->data.norm_options);
  if (status != FN_OK) return fn_error_context(status, "%s", source->shown);
  if (scratch)
    fn_augmentation_apply(random, spatial, column->channels, r->extent, column->vector, raw, out);
  return FN_OK;
}

static fn_status make_sample(fn_dataset *dataset, int64_t file, const fn_region *input_region,
                             const fn_region *target_region, const fn_augmentation *random,
                             float *scratch, float *input, float *target) {
  const int spatial = dataset->info.spatial;
  float *in = input, *out = target;
  for (int f = 0; f < dataset->columns; f++) {
    const fn_column *column = &dataset->column[f];
    if (column->target && !target) continue;
    const fn_region *r = column->target ? target_region : input_region;
    float **place = column->target ? &out : &in;
    FN_TRY(make_field(dataset, column, file, r, random, scratch, *place));
    *place += column->channels * fn_region_cells(r, spatial);
  }
  fn_augmentation_scale(dataset, random, input, target);
  return FN_OK;
}

fn_status fn_dataset_check_sample(const fn_dataset *dataset, int64_t sample) {
  const fn_dataset_info *info = &dataset->info;
  FN_CHECK(sample >= 0 && sample < info->samples, FN_ERR_INTERNAL,
           "sample %lld asked for, the %s set has %lld", (long long)sample,
           fn_stage_name(dataset->stage), (long long)info->samples);
  return FN_OK;
}

void fn_sample_locate(const fn_dataset *dataset, int64_t epoch, int64_t sample,
                      fn_augmentation *random, fn_region *input, fn_region *target) {
  const int64_t scale = dataset->run->data.scale_factor > 0 ? dataset->run->data.scale_factor : 1;
  int64_t anchor[FN_MAX_SPATIAL];
  fn_dataset_anchor(dataset, sample % dataset->info.crops, anchor);
  fn_augmentation_draw(dataset, epoch, sample, random);
  locate(dataset, anchor, random, &dataset->input_pad, 1, input);
  locate(dataset, anchor, random, &dataset->target_pad, scale, target);
}

fn_status fn_dataset_sample(fn_dataset *dataset, int64_t epoch, int64_t sample, float *input,
                            float *target) {
  const fn_dataset_info *info = &dataset->info;
  FN_TRY(fn_dataset_check_sample(dataset, sample));
  if (dataset->cubes)
    return fn_cubes_sample(dataset, epoch, sample,
                           &(fn_cube_room){.input = input, .target = target});
  fn_augmentation random;
  fn_region input_region, target_region;
  fn_sample_locate(dataset, epoch, sample, &random, &input_region, &target_region);
  float *scratch = NULL;
  if (!is_identity(&random, info->spatial)) {
    int64_t most = 1;
    for (int f = 0; f < dataset->columns; f++) {
      const fn_column *column = &dataset->column[f];
      const int64_t count =
          column->channels *
          fn_region_cells(column->target ? &target_region : &input_region, info->spatial);
      if (count > most) most = count;
    }
    scratch = malloc((size_t)most * sizeof *scratch);
    FN_CHECK(scratch, FN_ERR_MEMORY, "no memory for a sample of %lld values", (long long)most);
  }
  const fn_status status = make_sample(dataset, sample / info->crops, &input_region, &target_region,
                                       &random, scratch, input, target);
  free(scratch);
  return status;
}

fn_status fn_dataset_undo_target(const fn_dataset *dataset, float *values, int64_t count) {
  const fn_run *run = dataset->run;
  FN_CHECK(dataset->output_fields > 0, FN_ERR_INTERNAL,
           "the channels of the output fields are not known: there are no target files and "
           "fn_dataset_set_outputs() was not called");
  for (int f = 0; f < dataset->output_fields; f++) {
    const fn_norm *norm;
    const int64_t channels = dataset->output_channels[f];
    FN_TRY(fn_norm_find(run->data.target_norms.count ? run->data.target_norms.text[f] : "identity",
                        &norm));
    FN_TRY(fn_norm_apply(norm, values, channels, count, true, run->data.norm_options));
    values += channels * count;
  }
  return FN_OK;
}

fn_status fn_dataset_set_outputs(fn_dataset *dataset, int fields, const int64_t *channels) {
  const int norms = dataset->run->data.target_norms.count;
  FN_CHECK(fields > 0 && (norms == 0 || norms == fields), FN_ERR_CONFIG,
           "data.target_norms has %d names, but there are %d output fields", norms, fields);
  dataset->output_channels =
      fn_arena_take(dataset->arena, (size_t)fields * sizeof *dataset->output_channels);
  for (int f = 0; f < fields; f++)
    dataset->output_channels[f] = channels[f];
  dataset->output_fields = fields;
  return FN_OK;
}
