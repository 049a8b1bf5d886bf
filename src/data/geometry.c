/* Crops, anchors and margins from the configuration: map2map page, sections 2.3 to 2.5. */
#include "data/parts.h"

fn_status fn_dataset_axes_wanted(const fn_run *run, int *axes, const char **key_of_axes) {
  const fn_integers *list[] = {&run->data.crop, &run->data.crop_start, &run->data.crop_stop,
                               &run->data.crop_step, &run->data.shift};
  const char *key[] = {"data.crop", "data.crop_start", "data.crop_stop", "data.crop_step",
                       "data.shift"};
  const char *first = NULL;
  *axes = 0;
  *key_of_axes = NULL;
  for (int i = 0; i < 5; i++) {
    const int count = list[i]->count;
    if (count < 2) continue;
    if (count > FN_MAX_SPATIAL)
      return fn_run_fail(run, key[i],
                         "%s has %d values; expected one for all axes or one per axis, at most %d",
                         key[i], count, (int)FN_MAX_SPATIAL);
    if (first && count != *axes)
      return fn_run_fail(run, key[i], "%s has %d values but %s has %d", key[i], count, first,
                         *axes);
    *key_of_axes = first = key[i];
    *axes = count;
  }
  return FN_OK;
}

/** One value for all axes or one per axis; `fallback` when the key is not given. */
static fn_status per_axis(const fn_run *run, const char *key, const fn_integers *list, int spatial,
                          const int64_t *fallback, int64_t least, int64_t *value) {
  if (list->count > 1 && list->count != spatial)
    return fn_run_fail(run, key, "%s has %d values but the fields have %d axes; expected 1 or %d",
                       key, list->count, spatial, spatial);
  for (int d = 0; d < spatial; d++) {
    value[d] = list->count == 0 ? fallback[d] : list->value[list->count == 1 ? 0 : d];
    if (value[d] < least)
      return fn_run_fail(run, key, "%s must be at least %lld, found %lld", key, (long long)least,
                         (long long)value[d]);
  }
  return FN_OK;
}

static fn_status margins(const fn_run *run, const char *key, const fn_integers *list, int spatial,
                         fn_margins *pad) {
  *pad = (fn_margins){{0}, {0}};
  if (list->count == 0) return FN_OK;
  const bool both = list->count == 2 * spatial, each = list->count == spatial;
  if (list->count != 1 && !each && !both)
    return fn_run_fail(run, key,
                       "%s has %d values but the fields have %d axes; expected 1 for all sides, "
                       "%d (one per axis) or %d (low and high per axis)",
                       key, list->count, spatial, spatial, 2 * spatial);
  for (int d = 0; d < spatial; d++) {
    pad->low[d] = list->value[both ? 2 * d : each ? d : 0];
    pad->high[d] = list->value[both ? 2 * d + 1 : each ? d : 0];
    const int64_t least = pad->low[d] < pad->high[d] ? pad->low[d] : pad->high[d];
    if (least < 0)
      return fn_run_fail(run, key, "%s must not be negative, found %lld", key, (long long)least);
  }
  return FN_OK;
}

/** Anchors per axis start, start + step, ... below stop; their number over all axes. */
static fn_status count_anchors(fn_dataset *dataset, const int64_t *stop) {
  fn_dataset_info *info = &dataset->info;
  info->crops = 1;
  for (int d = 0; d < info->spatial; d++) {
    const int64_t start = dataset->start[d], step = dataset->step[d];
    if (start >= stop[d])
      return fn_run_fail(
          dataset->run, "data.crop_start",
          "no crop starts along axis %d: data.crop_start is %lld and data.crop_stop, "
          "the bound on anchors, is %lld",
          d, (long long)start, (long long)stop[d]);
    dataset->anchors[d] = (stop[d] - start - 1) / step + 1;
    if (__builtin_mul_overflow(info->crops, dataset->anchors[d], &info->crops))
      return fn_run_fail(dataset->run, "data.crop_step", "more crops than can be counted");
  }
  if (__builtin_mul_overflow(info->crops, info->files, &info->samples))
    return fn_run_fail(dataset->run, "data.crop_step", "more samples than can be counted");
  return FN_OK;
}

/** Cells of a sample: crop and margins. */
static void set_extents(fn_dataset *dataset) {
  fn_dataset_info *info = &dataset->info;
  const int64_t scale = dataset->run->data.scale_factor > 0 ? dataset->run->data.scale_factor : 1;
  for (int d = 0; d < info->spatial; d++) {
    const fn_margins *in = &dataset->input_pad, *out = &dataset->target_pad;
    info->input_extent[d] = in->low[d] + dataset->crop[d] + in->high[d];
    info->target_extent[d] = scale * (out->low[d] + dataset->crop[d] + out->high[d]);
  }
}

fn_status fn_dataset_set_geometry(fn_dataset *dataset) {
  const fn_run *run = dataset->run;
  fn_dataset_info *info = &dataset->info;
  const int spatial = info->spatial;
  const int64_t origin[FN_MAX_SPATIAL] = {0};
  int64_t stop[FN_MAX_SPATIAL], shift[FN_MAX_SPATIAL];
  FN_TRY(per_axis(run, "data.crop", &run->data.crop, spatial, info->size, 1, dataset->crop));
  FN_TRY(
      per_axis(run, "data.crop_start", &run->data.crop_start, spatial, origin, 0, dataset->start));
  FN_TRY(per_axis(run, "data.crop_stop", &run->data.crop_stop, spatial, info->size, 1, stop));
  FN_TRY(per_axis(run, "data.crop_step", &run->data.crop_step, spatial, dataset->crop, 1,
                  dataset->step));
  FN_TRY(per_axis(run, "data.shift", &run->data.shift, spatial, origin, 0, shift));
  FN_TRY(margins(run, "data.input_pad", &run->data.input_pad, spatial, &dataset->input_pad));
  FN_TRY(margins(run, "data.target_pad", &run->data.target_pad, spatial, &dataset->target_pad));
  if (run->data.augment && spatial < 2 && dataset->stage == FN_STAGE_TRAIN)
    return fn_run_fail(run, "data.augment",
                       "data.augment flips and permutes axes, which needs at least 2; the fields "
                       "have 1");
  FN_TRY(count_anchors(dataset, stop));
  set_extents(dataset);
  return FN_OK;
}

fn_status fn_dataset_set_tile(fn_dataset *dataset, const int64_t *tile) {
  const fn_run *run = dataset->run;
  const int spatial = dataset->info.spatial;
  int64_t stop[FN_MAX_SPATIAL];
  FN_TRY(
      per_axis(run, "data.crop_stop", &run->data.crop_stop, spatial, dataset->info.size, 1, stop));
  for (int d = 0; d < spatial; d++)
    dataset->crop[d] = dataset->step[d] = tile[d];
  FN_TRY(count_anchors(dataset, stop));
  set_extents(dataset);
  return FN_OK;
}

void fn_dataset_anchor(const fn_dataset *dataset, int64_t crop, int64_t *anchor) {
  for (int d = dataset->info.spatial - 1; d >= 0; d--) {
    anchor[d] = dataset->start[d] + crop % dataset->anchors[d] * dataset->step[d];
    crop /= dataset->anchors[d];
  }
}
