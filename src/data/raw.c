/* Samples as their files have them, for a device to convert. What the host does is as little as can
 * be: it copies the block of the file. A normalisation that the device does not know (a plug-in's)
 * and number types that it does not read are the host's, field by field; symmetries and random
 * factors are always the device's. */
#include "data/raw.h"

#include <stdlib.h>
#include <string.h>

#include "data/cube_parts.h"
#include "data/norms.h"
#include "data/parts.h"

/* ---- layout ------------------------------------------------------------------------------------
 */

static int64_t cells_of(const fn_dataset_info *info, bool target) {
  int64_t cells = 1;
  for (int d = 0; d < (target ? info->target_spatial : info->spatial); d++)
    cells *= target ? info->target_extent[d] : info->input_extent[d];
  return cells;
}

/** Append a field of `values` numbers to the row. */
static fn_status add_field(fn_raw_layout *layout, int64_t values, fn_raw_way *way) {
  size_t bytes;
  way->offset = layout->row;
  FN_CHECK(!__builtin_mul_overflow((size_t)values, way->item, &bytes) &&
               !__builtin_add_overflow(layout->row, bytes, &layout->row) &&
               layout->row < SIZE_MAX / 64,
           FN_ERR_MEMORY, "a sample is more than any memory holds");
  layout->row = (layout->row + 63) / 64 * 64;
  return FN_OK;
}

static fn_status create_layout(int inputs, int targets, fn_raw_layout *layout) {
  *layout = (fn_raw_layout){.inputs = inputs, .fields = inputs + targets};
  layout->way = calloc((size_t)layout->fields, sizeof *layout->way);
  FN_CHECK(layout->way, FN_ERR_MEMORY, "out of memory");
  for (int f = 0; f < layout->fields; f++)
    layout->way[f] = (fn_raw_way){.norm = FN_RAW_SCALE, .factor = 1, .shift = -0.0};
  return FN_OK;
}

fn_status fn_raw_layout_plain(const fn_dataset_info *info, fn_raw_layout *layout) {
  FN_TRY(create_layout(1, info->target_channels > 0, layout));
  for (int f = 0; f < layout->fields; f++) {
    layout->way[f].item = sizeof(float);
    const int64_t channels = f ? info->target_channels : info->input_channels;
    FN_TRY(add_field(layout, channels * cells_of(info, f > 0), &layout->way[f]));
  }
  return FN_OK;
}

/** The cells of a slice or cube as the file has them, what is to become of them, and a label. */
static fn_status make_cube_layout(const fn_dataset *dataset, fn_raw_layout *layout) {
  const fn_dataset_info *info = &dataset->info;
  FN_TRY(create_layout(1, info->target_channels > 0, layout));
  layout->way[0].item = fn_raw_bytes(fn_cube_file_get_info(dataset->cubes->file)->type);
  FN_TRY(add_field(layout, info->input_channels * cells_of(info, false), &layout->way[0]));
  fn_raw_way own = {.item = sizeof(fn_raw_own)};
  FN_TRY(add_field(layout, 1, &own));
  layout->own = own.offset;
  if (layout->fields == 1) return FN_OK;
  layout->way[1].item = sizeof(float);
  return add_field(layout, info->target_channels, &layout->way[1]);
}

/** Whether numbers of a file travel as they are. Planes that crops share are kept as float32. */
static bool travels_raw(const fn_dataset *dataset, const fn_column *column, const fn_raw_way *way,
                        int kind) {
  return !way->norm_on_host && !column->slab && dataset->kind[kind].raw != FN_RAW_NONE;
}

static fn_status find_way(const fn_dataset *dataset, const fn_column *column, fn_raw_way *way) {
  bool known;
  FN_TRY(fn_norm_on_device(column->norm, dataset->run->data.norm_options, &known, &way->norm,
                           &way->factor, &way->shift));
  way->norm_on_host = !known;
  for (int64_t i = 0; i < column->count; i++) {
    const int kind = column->source[i].kind;
    const size_t item = travels_raw(dataset, column, way, kind)
                            ? fn_raw_bytes(dataset->kind[kind].raw)
                            : sizeof(float);
    if (item > way->item) way->item = item;
  }
  return FN_OK;
}

fn_status fn_raw_layout_make(const fn_dataset *dataset, fn_raw_layout *layout) {
  const fn_dataset_info *info = &dataset->info;
  if (dataset->cubes) return make_cube_layout(dataset, layout);
  FN_TRY(create_layout(info->input_fields, info->target_fields, layout));
  layout->factors = fn_augmentation_factor_count(dataset);
  for (int f = 0; f < layout->fields; f++) {
    const fn_column *column = &dataset->column[f];
    fn_raw_way *way = &layout->way[f];
    FN_TRY(find_way(dataset, column, way));
    FN_TRY(add_field(layout, column->channels * cells_of(info, column->target), way));
  }
  return FN_OK;
}

void fn_raw_layout_free(fn_raw_layout *layout) {
  free(layout->way);
  *layout = (fn_raw_layout){0};
}

/* ---- samples -----------------------------------------------------------------------------------
 */

static fn_status gather(fn_dataset *dataset, const fn_column *column, const fn_raw_way *way,
                        int64_t file, const fn_region *region, void *out, fn_raw_type *type) {
  const fn_source *source = &column->source[file];
  *type = FN_RAW_F32;
  if (travels_raw(dataset, column, way, source->kind)) {
    *type = dataset->kind[source->kind].raw;
    return fn_source_read_raw(dataset, column, file, region, out);
  }
  FN_TRY(fn_source_read(dataset, column, file, region, out));
  if (!way->norm_on_host) return FN_OK;
  const fn_status status = fn_norm_apply(column->norm, out, column->channels,
                                         fn_region_cells(region, dataset->info.spatial), false,
                                         dataset->run->data.norm_options);
  return status == FN_OK ? FN_OK : fn_error_context(status, "%s", source->shown);
}

static void describe(const fn_dataset *dataset, const fn_column *column, const fn_raw_way *way,
                     const fn_region *region, const fn_augmentation *random, fn_raw_field *field) {
  *field = (fn_raw_field){.spatial = dataset->info.spatial,
                          .channels = column->channels,
                          .vector = column->vector,
                          .norm = way->norm,
                          .factor = way->factor,
                          .shift = way->shift};
  for (int d = 0; d < dataset->info.spatial; d++) {
    field->extent[d] = region->extent[d];
    field->permutation[d] = random->permutation[d];
    field->flip[d] = random->flip[d];
  }
}

static fn_status sample_of_cube(fn_dataset *dataset, const fn_raw_layout *layout, int64_t epoch,
                                int64_t sample, char *row, fn_raw_field *field) {
  const fn_cube_room room = fn_raw_cube_room(layout, row);
  FN_TRY(fn_cubes_sample(dataset, epoch, sample, &room));
  fn_raw_describe_cube(dataset, layout, row, field);
  return FN_OK;
}

fn_cube_room fn_raw_cube_room(const fn_raw_layout *layout, char *row) {
  return (fn_cube_room){.raw = row + layout->way[0].offset,
                        .own = (void *)(row + layout->own),
                        .target =
                            layout->fields > 1 ? (void *)(row + layout->way[1].offset) : NULL};
}

void fn_raw_describe_cube(const fn_dataset *dataset, const fn_raw_layout *layout, const char *row,
                          fn_raw_field *field) {
  fn_raw_describe_plain(&dataset->info, layout, row, field);
  field[0].type = fn_cube_file_get_info(dataset->cubes->file)->type;
}

fn_status fn_raw_sample(fn_dataset *dataset, const fn_raw_layout *layout, int64_t epoch,
                        int64_t sample, char *row, fn_raw_field *field, float *random) {
  const int count = layout->factors;
  fn_augmentation augmentation;
  fn_region input, target;
  FN_TRY(fn_dataset_check_sample(dataset, sample));
  if (dataset->cubes) return sample_of_cube(dataset, layout, epoch, sample, row, field);
  fn_sample_locate(dataset, epoch, sample, &augmentation, &input, &target);
  float *add = random, *mul = random + count;
  fn_augmentation_factors(dataset, &augmentation, count, &add, &mul);
  for (int f = 0; f < layout->fields; f++) {
    const fn_column *column = &dataset->column[f];
    const fn_raw_way *way = &layout->way[f];
    const fn_region *region = column->target ? &target : &input;
    fn_raw_type type;
    FN_TRY(gather(dataset, column, way, sample / dataset->info.crops, region, row + way->offset,
                  &type));
    describe(dataset, column, way, region, &augmentation, &field[f]);
    field[f].type = type;
    field[f].data = row + way->offset;
    field[f].add = add;
    field[f].mul = mul;
    field[f].factors = count;
  }
  return FN_OK;
}

void fn_raw_describe_plain(const fn_dataset_info *info, const fn_raw_layout *layout,
                           const char *row, fn_raw_field *field) {
  for (int f = 0; f < layout->fields; f++) {
    const fn_raw_way *way = &layout->way[f];
    field[f] = (fn_raw_field){.data = row + way->offset,
                              .type = FN_RAW_F32,
                              .spatial = f ? info->target_spatial : info->spatial,
                              .channels = f ? info->target_channels : info->input_channels,
                              .permutation = {0, 1, 2},
                              .norm = way->norm,
                              .factor = way->factor,
                              .shift = way->shift};
    for (int d = 0; d < field[f].spatial; d++)
      field[f].extent[d] = f ? info->target_extent[d] : info->input_extent[d];
  }
}

/* ---- batches -----------------------------------------------------------------------------------
 */

fn_status fn_batch_send(const fn_batch *batch) {
  const fn_raw_batch *raw = batch->raw;
  return fn_ring_send(raw->ring, raw->slot, (size_t)batch->count * raw->layout->row);
}

/** Samples from `n` on whose field `f` one kernel can convert: they lie a row apart. */
static int64_t count_alike(const fn_raw_batch *raw, int f, int64_t n, int64_t samples) {
  const int fields = raw->layout->fields;
  const fn_raw_field *a = &raw->field[n * fields + f];
  int64_t end = n + 1;
  if (f == 0 && raw->layout->own) return samples - n; // each brings its own with it
  if (a->add || a->mul) return 1;
  for (; end < samples; end++) {
    const fn_raw_field *b = &raw->field[end * fields + f];
    bool alike = a->type == b->type;
    for (int d = 0; d < a->spatial; d++)
      alike &= a->extent[d] == b->extent[d] && a->permutation[d] == b->permutation[d] &&
               a->flip[d] == b->flip[d];
    if (!alike) break;
  }
  return end - n;
}

fn_status fn_batch_convert(const fn_batch *batch, bool target, fn_device *device,
                           const fn_tensor *to) {
  const fn_raw_batch *raw = batch->raw;
  const fn_raw_layout *layout = raw->layout;
  const void *memory;
  FN_TRY(fn_ring_use(raw->ring, raw->slot, &memory));
  const int last = target ? layout->fields : layout->inputs;
  int64_t channel = 0;
  for (int f = target ? layout->inputs : 0; f < last; f++) {
    for (int64_t n = 0; n < batch->count;) {
      fn_raw_field field = raw->field[n * layout->fields + f];
      const char *row = (const char *)memory + (size_t)n * layout->row;
      field.data = row + layout->way[f].offset;
      if (f == 0 && layout->own) field.own = (const void *)(row + layout->own);
      field.samples = count_alike(raw, f, n, batch->count);
      field.step = (int64_t)(layout->row / fn_raw_bytes(field.type));
      FN_TRY(device->convert(device, &field, to, n, channel));
      n += field.samples;
    }
    channel += raw->field[f].channels;
  }
  return fn_ring_used(raw->ring, raw->slot);
}

/* ---- what people are told ----------------------------------------------------------------------
 */

static void say_types(const fn_dataset *dataset, const fn_column *column, const fn_raw_way *way,
                      fn_text *text) {
  bool said[FN_RAW_TYPES] = {false}, converted = false;
  int count = 0;
  for (int64_t i = 0; i < column->count; i++) {
    const int kind = column->source[i].kind;
    const bool raw = travels_raw(dataset, column, way, kind);
    const fn_raw_type type = raw ? dataset->kind[kind].raw : FN_RAW_F32;
    converted |= !raw;
    if (said[type]) continue;
    fn_text_add(text, "%s%s", count++ ? " or " : "", fn_raw_name(type));
    said[type] = true;
  }
  if (way->norm_on_host)
    fn_text_add(text, " (the host normalises, for %s is a plug-in's)", column->norm->name);
  else if (column->slab)
    fn_text_add(text, " (planes that crops share are kept so)");
  else if (converted)
    fn_text_add(text, " (the host converts from %s)", dataset->kind[column->source[0].kind].type);
}

static void say_cubes(const fn_dataset *dataset, const fn_raw_layout *layout, fn_text *text) {
  const fn_run *run = dataset->run;
  const fn_cubes *cubes = dataset->cubes;
  const fn_cube_file_info *file = fn_cube_file_get_info(cubes->file);
  fn_text_add(text, "%s: %s", cubes->whole ? "cubes" : "slices", fn_raw_name(file->type));
  if (file->converted) fn_text_add(text, " (the host converts from %s)", file->stored);
  if (cubes->random || cubes->transforms > 1) fn_text_add(text, ", turned on the device");
  if (run->data.cubes.remove_mean)
    fn_text_add(text, ", their cube's mean taken away on the device");
  if (run->data.cubes.newton_augmentation != 1)
    fn_text_add(text, ", Newton cubes multiplied on the device");
  fn_text_add(text, "\n%s", layout->fields > 1 ? "labels: float32\n" : "");
}

fn_status fn_dataset_say_ways(const fn_dataset *dataset, fn_text *text) {
  fn_raw_layout layout;
  char bytes[32];
  if (!dataset->device) return FN_OK;
  const fn_status status = fn_raw_layout_make(dataset, &layout);
  if (status == FN_OK && dataset->cubes) say_cubes(dataset, &layout, text);
  for (int f = 0; f < layout.fields && status == FN_OK && !dataset->cubes; f++) {
    const fn_raw_way *way = &layout.way[f];
    const fn_column *column = &dataset->column[f];
    fn_text_add(text, "%s: ", column->what);
    say_types(dataset, column, way, text);
    fn_text_add(text, "%s%s\n",
                way->norm_on_host ? ", turned on the device" : ", normalised on the device by ",
                way->norm_on_host ? "" : column->norm->name);
  }
  if (status == FN_OK)
    fn_text_add(text, "%s per sample to the device",
                fn_text_bytes((double)layout.row, bytes, sizeof bytes));
  fn_raw_layout_free(&layout);
  return status;
}
