#include "run/sizes.h"

#include <stdio.h>
#include <string.h>

#include "base/text.h"

/** Sizes of the first stage that has files. *found stays false without an error when there are none
 *  that can be read; `why` then says so. */
static void from_data(const fn_run *run, fn_dataset_info *info, bool *found, char *why,
                      size_t size) {
  const fn_stage stages[] = {FN_STAGE_TRAIN, FN_STAGE_TEST};
  static const char *const names[] = {"train", "test"};
  snprintf(why, size, "the run names no data");
  for (int i = 0; i < 2; i++) {
    if (!fn_run_has_data(run, names[i], true)) continue;
    fn_dataset *dataset;
    if (fn_dataset_create(run, stages[i], &dataset) == FN_OK) {
      *info = *fn_dataset_get_info(dataset);
      info->field_channels = NULL; // belongs to the dataset
      fn_dataset_destroy(dataset);
      *found = true;
      return;
    }
    const char *message = fn_error_message();
    snprintf(why, size, "the data cannot be used (%.*s)", (int)strcspn(message, "\n"), message);
    fn_error_clear();
  }
}

static int axes_of(const fn_run *run, const fn_size_options *options, const fn_network_rule *rule) {
  if (options->spatial > 0) return options->spatial;
  if (rule->spatial > 0) return rule->spatial;
  const int crop = run->data.crop.count;
  return crop > 1 && crop <= FN_MAX_SPATIAL ? crop : 3;
}

static int64_t crop_of(const fn_run *run, int axis) {
  const fn_integers *crop = &run->data.crop;
  return crop->value[crop->count > 1 ? axis : 0];
}

/** Cells that a pad adds along an axis: one for all sides, one per axis, or low and high per axis.
 */
static int64_t pad_of(const fn_integers *pad, int spatial, int axis) {
  if (pad->count == 0) return 0;
  if (pad->count == 2 * spatial) return pad->value[2 * axis] + pad->value[2 * axis + 1];
  return 2 * pad->value[pad->count == spatial ? axis : 0];
}

static fn_status from_numbers(const fn_run *run, const fn_size_options *options,
                              fn_dataset_info *info) {
  fn_network_rule rule;
  FN_TRY(fn_model_rule(run, &rule));
  const int spatial = axes_of(run, options, &rule);
  *info = (fn_dataset_info){.files = 1,
                            .crops = 1,
                            .samples = 1,
                            .spatial = spatial,
                            .target_spatial = spatial,
                            .input_channels = options->channels[0] > 0 ? options->channels[0] : 3,
                            .target_channels = options->channels[1] > 0 ? options->channels[1] : 3,
                            .input_fields = 1,
                            .target_fields = 1};
  for (int d = 0; d < spatial && options->edge == 0; d++) {
    const int64_t crop = crop_of(run, d);
    info->input_extent[d] = crop + pad_of(&run->data.input_pad, spatial, d);
    info->target_extent[d] =
        (crop + pad_of(&run->data.target_pad, spatial, d)) * run->data.scale_factor;
  }
  return FN_OK;
}

/** What the network makes of one sample. */
static fn_status output_shape(const fn_run *run, const fn_dist *dist, const fn_dataset_info *info,
                              fn_shape *shape) {
  fn_engine *engine;
  FN_TRY(fn_engine_create(run, dist, info, &engine));
  const fn_status status = fn_engine_output_shape(engine, shape);
  fn_engine_destroy(engine);
  return status;
}

/** Put the edge in, and give the target the size of what the network makes of it. */
static fn_status set_edge(const fn_run *run, const fn_dist *dist, int64_t edge,
                          fn_dataset_info *info) {
  for (int d = 0; d < info->spatial; d++)
    info->input_extent[d] = info->target_extent[d] = edge;
  fn_network_rule rule;
  FN_TRY(fn_model_rule(run, &rule));
  const bool fits =
      edge >= rule.minimum && (rule.multiple < 2 || edge % rule.multiple == rule.remainder);
  FN_CHECK(fits, FN_ERR_CONFIG,
           "--size %lld: the network needs edges that are %lld modulo %lld and at least %lld",
           (long long)edge, (long long)rule.remainder,
           (long long)(rule.multiple > 1 ? rule.multiple : 1), (long long)rule.minimum);
  // The network may trim an odd number of cells: let the target be its output, not a guess.
  fn_dataset_info probe = *info;
  if (rule.trim >= 0)
    for (int d = 0; d < info->spatial; d++)
      probe.target_extent[d] = edge - 2 * rule.trim;
  fn_shape output;
  FN_TRY(output_shape(run, dist, &probe, &output));
  info->target_spatial = output.ndim - 2;
  for (int d = 0; d < info->target_spatial; d++)
    info->target_extent[d] = output.dim[2 + d];
  return FN_OK;
}

fn_status fn_sizes_find(const fn_run *run, const fn_dist *dist, const fn_size_options *options,
                        fn_dataset_info *info, fn_size_source *source) {
  *source = (fn_size_source){0};
  char why[256] = "the command line asks for made-up numbers";
  if (!options->synthetic) from_data(run, info, &source->from_data, why, sizeof why);
  if (source->from_data && options->edge == 0) {
    snprintf(source->text, sizeof source->text, "sizes of the data");
    return FN_OK;
  }
  FN_CHECK(options->edge > 0 || run->data.crop.count > 0, FN_ERR_CONFIG,
           "no sizes: %s and data.crop is not set; give --size", why);
  if (source->from_data) {
    snprintf(source->text, sizeof source->text, "channels of the data, edge of --size");
  } else {
    FN_TRY(from_numbers(run, options, info));
    snprintf(source->text, sizeof source->text, "%s: %s, %lld -> %lld channels%s", why,
             options->edge > 0 ? "edge of --size" : "sizes of data.crop and its pads",
             (long long)info->input_channels, (long long)info->target_channels,
             options->channels[0] > 0 ? "" : " assumed");
  }
  source->from_data = false;
  if (options->edge > 0) return set_edge(run, dist, options->edge, info);
  fn_shape output; // whether the network is a classifier
  FN_TRY(output_shape(run, dist, info, &output));
  info->target_spatial = output.ndim - 2;
  return FN_OK;
}

/* ---- two stages
 * ----------------------------------------------------------------------------------- */

/** "[3, 16, 16, 16]" */
static void add_shape(fn_text *text, int64_t channels, int spatial, const int64_t *extent) {
  fn_text_add(text, "[%lld", (long long)channels);
  for (int d = 0; d < spatial; d++)
    fn_text_add(text, ", %lld", (long long)extent[d]);
  fn_text_add(text, "]");
}

/** "[1, 8, 8, 8] -> [1, 8, 8, 8]": channels and cells of a sample. */
static void add_sample(fn_text *text, const fn_dataset_info *info) {
  add_shape(text, info->input_channels, info->spatial, info->input_extent);
  if (info->target_channels == 0) return;
  fn_text_add(text, " -> ");
  add_shape(text, info->target_channels, info->target_spatial, info->target_extent);
}

fn_status fn_sizes_agree(const fn_run *run, const fn_dataset_info *train,
                         const fn_dataset_info *other, const char *key, bool extents) {
  const bool target = other->target_channels > 0;
  bool same = train->spatial == other->spatial && train->input_channels == other->input_channels &&
              (!target || (train->target_channels == other->target_channels &&
                           train->target_spatial == other->target_spatial)),
       cut = same;
  for (int d = 0; d < train->spatial && extents && same; d++)
    cut &= train->input_extent[d] == other->input_extent[d] &&
           (!target || d >= train->target_spatial ||
            train->target_extent[d] == other->target_extent[d]);
  if (same && cut) return FN_OK;
  fn_text text = {0};
  fn_text_add(&text, "samples of %s are ", key);
  add_sample(&text, other);
  fn_text_add(&text, " (channels and cells), but those of data.train are ");
  add_sample(&text, train);
  if (same && run->data.crop.count == 0)
    fn_text_add(&text, "; data.crop would cut equal samples from fields of different sizes");
  const fn_status status = fn_run_fail(run, key, "%s", text.data);
  fn_text_free(&text);
  return status;
}
