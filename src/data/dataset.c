/* The data set of one stage: created from the configuration, asked for what it holds. */
#include "data/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/options.h"
#include "data/cube_parts.h"
#include "data/norms.h"
#include "data/parts.h"
#include "data/ring.h"
#include "field/array.h"

const char *fn_stage_name(fn_stage stage) {
  switch (stage) {
    case FN_STAGE_TRAIN: return "train";
    case FN_STAGE_VALIDATION: return "validation";
    case FN_STAGE_TEST: return "test";
    default: return "prediction";
  }
}

/** The key below `data` that holds the stage's patterns. */
static const char *stage_key(fn_stage stage) {
  return stage == FN_STAGE_PREDICT ? "test" : fn_stage_name(stage);
}

static const fn_fileset *stage_files(const fn_run *run, fn_stage stage) {
  return stage == FN_STAGE_TRAIN        ? &run->data.train
         : stage == FN_STAGE_VALIDATION ? &run->data.validation
                                        : &run->data.test;
}

/* ---- fields of the configuration ------------------------------------------------------------- */

/** One column per pattern; patterns only, nothing is opened. */
static fn_status set_columns(fn_dataset *dataset) {
  const fn_run *run = dataset->run;
  const fn_fileset *files = stage_files(run, dataset->stage);
  const char *key = stage_key(dataset->stage);
  const bool targets = dataset->stage != FN_STAGE_PREDICT;
  fn_dataset_info *info = &dataset->info;
  const char *input_key = fn_arena_format(dataset->arena, "data.%s.input", key);
  const char *target_key = fn_arena_format(dataset->arena, "data.%s.target", key);
  if (files->input.count == 0) return fn_run_fail(run, input_key, "%s names no files", input_key);
  if (targets && files->target.count == 0)
    return fn_run_fail(run, target_key, "%s names no files", target_key);
  info->input_fields = files->input.count;
  info->target_fields = targets ? files->target.count : 0;
  dataset->columns = info->input_fields + info->target_fields;
  dataset->column =
      fn_arena_take(dataset->arena, (size_t)dataset->columns * sizeof *dataset->column);
  for (int f = 0; f < dataset->columns; f++) {
    fn_column *column = &dataset->column[f];
    column->target = f >= info->input_fields;
    const int i = column->target ? f - info->input_fields : f;
    const fn_texts *patterns = column->target ? &files->target : &files->input;
    const char *side = column->target ? "target" : "input";
    column->pattern = patterns->text[i];
    column->what = patterns->count == 1
                       ? fn_arena_format(dataset->arena, "data.%s.%s", key, side)
                       : fn_arena_format(dataset->arena, "data.%s.%s[%d]", key, side, i);
  }
  return FN_OK;
}

/** Norms of one side by name; each is tried on nothing, so that bad options show now and the option
 *  tree learns which options exist. */
static void set_norms(fn_dataset *dataset, bool target, fn_problem_list *problems) {
  const fn_run *run = dataset->run;
  const fn_texts *names = target ? &run->data.target_norms : &run->data.input_norms;
  const char *side = target ? "target" : "input";
  const char *where = fn_run_where(run, target ? "data.target_norms" : "data.input_norms");
  const int first = target ? dataset->info.input_fields : 0;
  const int fields = target ? dataset->info.target_fields : dataset->info.input_fields;
  if (names->count != 0 && fields > 0 && names->count != fields) {
    fn_problem_note(problems, "%s: data.%s_norms has %d names for %d %s fields", where, side,
                    names->count, fields, side);
    return;
  }
  const int count = names->count > fields ? names->count : fields;
  for (int i = 0; i < count; i++) {
    const fn_norm *norm;
    float none = 0;
    if (fn_norm_find(names->count ? names->text[i] : "identity", &norm) != FN_OK ||
        fn_norm_apply(norm, &none, 1, 0, false, run->data.norm_options) != FN_OK) {
      fn_problem_note(problems, "%s: data.%s_norms: %s", where, side, fn_error_message());
    } else if (i < fields) {
      dataset->column[first + i].norm = norm;
    }
  }
}

/** Whether augmentation turns the components of a field; needs its channel count. */
static void set_vectors(fn_dataset *dataset, fn_problem_list *problems) {
  const fn_dataset_info *info = &dataset->info;
  for (int f = 0; f < dataset->columns; f++) {
    fn_column *column = &dataset->column[f];
    const fn_texts *rules =
        column->target ? &dataset->run->data.target_vector : &dataset->run->data.input_vector;
    const char *side = column->target ? "target" : "input";
    const char *where =
        fn_run_where(dataset->run, column->target ? "data.target_vector" : "data.input_vector");
    const int i = column->target ? f - info->input_fields : f;
    const int fields = column->target ? info->target_fields : info->input_fields;
    const bool fits = column->channels == info->spatial;
    if (rules->count > 1 && rules->count != fields) {
      if (i == 0)
        fn_problem_note(problems, "%s: data.%s_vector has %d words for %d %s fields", where, side,
                        rules->count, fields, side);
      continue;
    }
    const char *rule = rules->count == 0 ? "auto" : rules->text[rules->count == 1 ? 0 : i];
    column->vector = fits && strcmp(rule, "no") != 0;
    // One word stands for all fields, so `yes` may meet scalars there; a word per field may not.
    if (strcmp(rule, "yes") == 0 && !fits && (rules->count > 1 || fields == 1))
      fn_problem_note(
          problems,
          "%s: data.%s_vector calls %s a vector, but it has %lld channels and space %d axes", where,
          side, column->what, (long long)column->channels, info->spatial);
  }
}

/* ---- names of outputs ------------------------------------------------------------------------ */

/** Absolute path without ".", ".." and doubled slashes; links are not followed. */
static char *plain_path(fn_arena *arena, const char *folder, const char *path) {
  char *text = fn_arena_format(arena, "%s/%s", *path == '/' ? "" : folder, path), *out = text;
  char *start = text;
  for (const char *part = text; *part;) {
    while (*part == '/')
      part++;
    const size_t length = strcspn(part, "/");
    if (length == 2 && part[0] == '.' && part[1] == '.') {
      while (out > start && *--out != '/') {
      }
    } else if (length > 0 && !(length == 1 && part[0] == '.')) {
      *out++ = '/';
      memmove(out, part, length);
      out += length;
    }
    part += length;
  }
  *out = '\0';
  return text;
}

/** The file's name without extension, then dataset and sample as further folders. */
static const char *name_output(fn_arena *arena, const char *folder, const fn_source *source) {
  char *path = fn_arena_text(arena, source->path);
  const int colon = fn_dataset_colon(path);
  const char *dataset = "";
  if (colon >= 0) {
    path[colon] = '\0';
    dataset = path + colon + 1;
  }
  char *file = plain_path(arena, folder, path);
  char *slash = strrchr(file, '/'), *dot = strrchr(file, '.');
  if (dot && slash && dot > slash + 1) *dot = '\0';
  const char *between = *dataset && *dataset != '/' ? "/" : "";
  return source->sample < 0 ? fn_arena_format(arena, "%s%s%s", file, between, dataset)
                            : fn_arena_format(arena, "%s%s%s/%lld", file, between, dataset,
                                              (long long)source->sample);
}

/** Names relative to the longest folder that all have in common. */
static fn_status set_output_names(fn_dataset *dataset) {
  char *folder = realpath(".", NULL);
  FN_CHECK(folder, FN_ERR_INTERNAL, "the current directory has no name");
  const char *first = NULL;
  size_t common = 0;
  for (int f = 0; f < dataset->columns; f++) {
    fn_column *column = &dataset->column[f];
    for (int64_t i = 0; i < column->count; i++) {
      const char *name = name_output(dataset->arena, folder, &column->source[i]);
      column->source[i].output = name;
      if (!first) {
        first = name;
        common = (size_t)(strrchr(name, '/') + 1 - name);
      }
      size_t same = 0;
      while (same < common && name[same] == first[same])
        same++;
      while (same > 0 && first[same - 1] != '/')
        same--;
      common = same;
    }
  }
  for (int f = 0; f < dataset->columns; f++)
    for (int64_t i = 0; i < dataset->column[f].count; i++)
      dataset->column[f].source[i].output += common;
  free(folder);
  return FN_OK;
}

/* ---- creation -------------------------------------------------------------------------------- */

static fn_status set_up(fn_dataset *dataset) {
  const fn_run *run = dataset->run;
  fn_problem_list problems = {0};
  FN_TRY(set_columns(dataset));
  set_norms(dataset, false, &problems);
  set_norms(dataset, true, &problems);
  FN_TRY(fn_problem_raise(&problems, FN_ERR_CONFIG, NULL));
  FN_TRY(fn_options_check(run->data.norm_options));
  FN_TRY(fn_dataset_find(dataset));
  set_vectors(dataset, &problems);
  FN_TRY(fn_problem_raise(&problems, FN_ERR_CONFIG, NULL));
  FN_TRY(fn_dataset_set_geometry(dataset));
  FN_TRY(set_output_names(dataset));
  if (dataset->info.target_fields > 0)
    FN_TRY(fn_dataset_set_outputs(dataset, dataset->info.target_fields,
                                  dataset->info.field_channels + dataset->info.input_fields));
  return fn_handles_create(FN_HANDLES_DEFAULT, &dataset->handles);
}

/** `file` is for cubes only, and may be NULL. */
static fn_status create(const fn_run *run, fn_stage stage, fn_cube_file *file,
                        fn_dataset **dataset) {
  *dataset = NULL;
  fn_dataset *made = calloc(1, sizeof *made);
  if (!made || !(made->arena = fn_arena_create())) {
    free(made);
    fn_cube_file_close(file);
    FN_FAIL(FN_ERR_MEMORY, "no memory for a data set");
  }
  made->run = run;
  made->stage = stage;
  const fn_status status = fn_run_has_cubes(run) ? fn_cubes_set_up(made, file) : set_up(made);
  if (status != FN_OK) {
    fn_dataset_destroy(made);
    return status;
  }
  *dataset = made;
  return FN_OK;
}

fn_status fn_dataset_create(const fn_run *run, fn_stage stage, fn_dataset **dataset) {
  return create(run, stage, NULL, dataset);
}

fn_status fn_dataset_create_cubes(const fn_run *run, fn_stage stage, fn_cube_file *file,
                                  fn_dataset **dataset) {
  return create(run, stage, file, dataset);
}

void fn_dataset_destroy(fn_dataset *dataset) {
  if (!dataset) return;
  for (int f = 0; dataset->column && f < dataset->columns; f++)
    fn_slab_destroy(dataset->column[f].slab);
  fn_ring_destroy(dataset->ring);
  fn_cubes_destroy(dataset->cubes);
  fn_handles_destroy(dataset->handles);
  fn_arena_destroy(dataset->arena);
  free(dataset);
}

fn_status fn_dataset_stream(fn_dataset *dataset, const int64_t *tile, size_t most) {
  if (tile) FN_TRY(fn_dataset_set_tile(dataset, tile));
  for (int f = 0; f < dataset->columns && dataset->info.crops > 1; f++) {
    fn_column *column = &dataset->column[f];
    const fn_kind *kind = &dataset->kind[column->source[0].kind];
    fn_field_info info = {.channels = kind->channels, .spatial = kind->spatial};
    memcpy(info.size, kind->size, sizeof info.size);
    if (column->slab) continue;
    FN_TRY(fn_slab_create(&info,
                          column->target ? dataset->info.target_extent : dataset->info.input_extent,
                          most, &column->slab));
  }
  return FN_OK;
}

void fn_dataset_set_device(fn_dataset *dataset, fn_device *device) {
  dataset->device = device;
}

const fn_dataset_info *fn_dataset_get_info(const fn_dataset *dataset) {
  return &dataset->info;
}

/** Name of a cube's dataset. */
static const char *cube_name(const fn_dataset *dataset, int64_t file) {
  const fn_cubes *cubes = dataset->cubes;
  return fn_cube_file_get_info(cubes->file)->cube[cubes->file_cube[file]].name;
}

const char *fn_dataset_path(const fn_dataset *dataset, int64_t file, int field) {
  if (dataset->cubes) return cube_name(dataset, file);
  return dataset->column[field].source[file].shown;
}

const char *fn_dataset_output_name(const fn_dataset *dataset, int64_t file, int field) {
  if (dataset->cubes) return cube_name(dataset, file);
  return dataset->column[field].source[file].output;
}

/* ---- epochs ---------------------------------------------------------------------------------- */

static fn_cube_order_options cube_order_of(const fn_dataset *dataset, int64_t epoch) {
  const fn_run *run = dataset->run;
  const bool training = dataset->stage == FN_STAGE_TRAIN;
  return (fn_cube_order_options){.seed = run->seed,
                                 .epoch = epoch,
                                 .cubes = dataset->info.files,
                                 .slices = dataset->cubes->slices,
                                 .transforms = dataset->cubes->transforms,
                                 .window = run->data.cubes.window,
                                 .per_cube = training ? run->data.cubes.slices_per_cube : 0,
                                 .shuffle = run->data.shuffle};
}

int64_t fn_dataset_epoch_samples(const fn_dataset *dataset) {
  if (!dataset->cubes) return dataset->info.samples;
  const fn_cube_order_options options = cube_order_of(dataset, 0);
  return fn_cube_order_count(&options);
}

int64_t fn_dataset_held_bytes(const fn_dataset *dataset, int ranks) {
  if (!dataset->cubes) return 0;
  const fn_cube_order_options options = cube_order_of(dataset, 0);
  return fn_cube_order_held(&options, ranks, dataset->run->train.batch) * fn_cubes_bytes(dataset);
}

fn_status fn_dataset_order(const fn_dataset *dataset, int64_t epoch, int64_t *order) {
  const fn_run *run = dataset->run;
  if (!dataset->cubes)
    return fn_epoch_order(run->seed, epoch, dataset->info.files, dataset->info.crops,
                          run->data.shuffle, run->data.divide, run->data.shuffle_distance, order);
  const fn_cube_order_options options = cube_order_of(dataset, epoch);
  return fn_cube_order(&options, order);
}

/* ---- table ----------------------------------------------------------------------------------- */

static const char *shape_text(const fn_kind *kind, char *text, size_t size) {
  fn_shape shape = {.ndim = 1 + kind->spatial, .dim = {kind->channels}};
  for (int d = 0; d < kind->spatial && d + 1 < FN_MAX_DIMS; d++)
    shape.dim[d + 1] = kind->size[d];
  return fn_shape_text(&shape, text, size);
}

/** One line per header found in the column, with the number of files that have it. */
static void print_column(const fn_dataset *dataset, const fn_column *column) {
  printf("  %s: %s%s\n", column->what, column->pattern, column->vector ? " (vector)" : "");
  for (int k = 0; k < dataset->kinds; k++) {
    int64_t count = 0;
    const fn_source *first = NULL, *last = NULL;
    for (int64_t i = 0; i < column->count; i++) {
      if (column->source[i].kind != k) continue;
      if (!first) first = &column->source[i];
      last = &column->source[i];
      count++;
    }
    if (count == 0) continue;
    char shape[96];
    const fn_kind *kind = &dataset->kind[k];
    printf("  %6lld x %s %s%s  %s%s%s\n", (long long)count, shape_text(kind, shape, sizeof shape),
           kind->type, kind->fortran ? " Fortran order" : "", first->shown,
           count > 1 ? " ... " : "", count > 1 ? last->shown : "");
  }
}

static void print_extent(const char *name, int64_t channels, int spatial, const int64_t *extent) {
  fn_shape shape = {.ndim = 1 + spatial, .dim = {channels}};
  char text[96];
  for (int d = 0; d < spatial; d++)
    shape.dim[d + 1] = extent[d];
  printf("  %-6s of a sample: %s\n", name, fn_shape_text(&shape, text, sizeof text));
}

void fn_dataset_print(const fn_dataset *dataset, const char *title) {
  const fn_dataset_info *info = &dataset->info;
  char bytes[32];
  if (dataset->cubes) {
    fn_cubes_print(dataset, title);
    print_extent("input", info->input_channels, info->spatial, info->input_extent);
    if (info->target_channels > 0) print_extent("target", info->target_channels, 0, NULL);
    return;
  }
  printf("%s: %lld sample%s = %lld %s x %lld %s, %s\n", title, (long long)info->samples,
         info->samples == 1 ? "" : "s", (long long)info->files,
         dataset->columns > 1 ? (info->files == 1 ? "tuple of fields" : "tuples of fields")
                              : (info->files == 1 ? "field" : "fields"),
         (long long)info->crops, info->crops == 1 ? "crop" : "crops",
         fn_text_bytes((double)info->bytes, bytes, sizeof bytes));
  for (int f = 0; f < dataset->columns; f++)
    print_column(dataset, &dataset->column[f]);
  print_extent("input", info->input_channels, info->spatial, info->input_extent);
  if (info->target_channels > 0)
    print_extent("target", info->target_channels, info->spatial, info->target_extent);
}
