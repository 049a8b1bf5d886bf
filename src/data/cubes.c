/* The data set of one stage of a run on cubes. */
#include "data/cubes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ranges.h"
#include "data/cube_parts.h"

/* ---- seeds -> cubes -------------------------------------------------------------------------- */

static const fn_texts *stage_seeds(const fn_run *run, fn_stage stage, const char **key) {
  switch (stage) {
    case FN_STAGE_TRAIN: *key = "data.cubes.train_seeds"; return &run->data.cubes.train_seeds;
    case FN_STAGE_VALIDATION:
      *key = "data.cubes.validation_seeds";
      return &run->data.cubes.validation_seeds;
    default: *key = "data.cubes.test_seeds"; return &run->data.cubes.test_seeds;
  }
}

/** Indices of the cubes of all seeds, GR before Newton; what the file does not have is named. */
static fn_status find_cubes(fn_dataset *dataset, const char *key, const fn_ranges *seeds) {
  fn_cubes *cubes = dataset->cubes;
  fn_problem_list problems = {0};
  cubes->file_cube =
      fn_arena_take(dataset->arena, (size_t)(2 * seeds->count) * sizeof *cubes->file_cube);
  for (int64_t i = 0; i < 2 * seeds->count; i++) {
    const int theory = i % 2 == 0 ? FN_GR : FN_NEWTON;
    cubes->file_cube[i] = fn_cube_file_find(cubes->file, seeds->value[i / 2], theory);
    if (cubes->file_cube[i] < 0)
      fn_problem_note(&problems, "%s_seed%04lld is not in %s", theory == FN_GR ? "gr" : "newton",
                      (long long)seeds->value[i / 2], fn_cube_file_get_info(cubes->file)->path);
  }
  FN_TRY(fn_problem_raise(&problems, FN_ERR_DATA, fn_run_where(dataset->run, key)));
  dataset->info.files = 2 * seeds->count;
  return FN_OK;
}

/** Every cube, as the file has them. */
static fn_status take_all(fn_dataset *dataset) {
  fn_cubes *cubes = dataset->cubes;
  const int64_t count = fn_cube_file_get_info(cubes->file)->cubes;
  FN_CHECK(count > 0, FN_ERR_DATA, "%s holds no cubes", fn_cube_file_get_info(cubes->file)->path);
  cubes->file_cube = fn_arena_take(dataset->arena, (size_t)count * sizeof *cubes->file_cube);
  for (int64_t i = 0; i < count; i++)
    cubes->file_cube[i] = i;
  dataset->info.files = count;
  return FN_OK;
}

static fn_status set_cubes(fn_dataset *dataset) {
  if (fn_cube_file_get_info(dataset->cubes->file)->unlabelled) return take_all(dataset);
  const char *key;
  const fn_texts *texts = stage_seeds(dataset->run, dataset->stage, &key);
  if (texts->count == 0) return fn_run_fail(dataset->run, key, "%s names no seeds", key);
  fn_ranges seeds = {0};
  fn_status status = FN_OK;
  for (int i = 0; i < texts->count && status == FN_OK; i++)
    status = fn_ranges_add(&seeds, texts->text[i]);
  if (status == FN_OK) status = find_cubes(dataset, key, &seeds);
  fn_ranges_free(&seeds);
  return status;
}

/* ---- samples --------------------------------------------------------------------------------- */

/** The original's third of the slices, by group: cubes page, table of 2.6. */
static void set_compatible(fn_cubes *cubes) {
  static const int normal[3] = {1, 0, 0};
  for (int g = 0; g < 3; g++) {
    cubes->axis[g] = normal[g];
    cubes->transposed[g] = g < 2;
  }
}

static fn_status set_slices(fn_dataset *dataset) {
  const fn_run *run = dataset->run;
  fn_cubes *cubes = dataset->cubes;
  fn_dataset_info *info = &dataset->info;
  const int64_t *size = info->size;
  const bool training = dataset->stage == FN_STAGE_TRAIN;
  if (size[0] != size[1] || size[1] != size[2])
    return fn_run_fail(run, "data.cubes.file",
                       "slices are cut from cubes with equal edges; those of %s are %lld x %lld x "
                       "%lld",
                       fn_cube_file_get_info(cubes->file)->path, (long long)size[0],
                       (long long)size[1], (long long)size[2]);
  cubes->stride = run->data.cubes.stride;
  if (size[0] % cubes->stride != 0)
    return fn_run_fail(run, "data.cubes.stride",
                       "data.cubes.stride must divide the edge of the cubes, found %lld and %lld",
                       (long long)cubes->stride, (long long)size[0]);
  cubes->axes = run->data.cubes.axes.count > 0 ? run->data.cubes.axes.count : 3;
  for (int g = 0; g < cubes->axes; g++)
    cubes->axis[g] = run->data.cubes.axes.count > 0 ? (int)run->data.cubes.axes.value[g] : g;
  if (run->data.cubes.compat) set_compatible(cubes);
  cubes->slices = cubes->axes * (size[0] / cubes->stride);
  cubes->random = training && strcmp(run->data.cubes.symmetry, "random") == 0;
  cubes->transforms = training && strcmp(run->data.cubes.symmetry, "all") == 0 ? 8 : 1;
  info->spatial = 2;
  info->input_channels = cubes->stride;
  info->input_extent[0] = info->input_extent[1] = size[0];
  return FN_OK;
}

static void set_whole(fn_dataset *dataset) {
  fn_cubes *cubes = dataset->cubes;
  fn_dataset_info *info = &dataset->info;
  cubes->whole = true;
  cubes->stride = cubes->slices = cubes->transforms = 1;
  info->spatial = 3;
  info->input_channels = 1;
  for (int d = 0; d < 3; d++)
    info->input_extent[d] = info->size[d];
}

static fn_status set_samples(fn_dataset *dataset) {
  const fn_run *run = dataset->run;
  fn_cubes *cubes = dataset->cubes;
  fn_dataset_info *info = &dataset->info;
  const fn_cube_file_info *file = fn_cube_file_get_info(cubes->file);
  for (int d = 0; d < 3; d++) {
    info->size[d] = file->size[d];
    dataset->anchors[d] = 1;
  }
  if (strcmp(run->data.cubes.sample, "cube") == 0)
    set_whole(dataset);
  else
    FN_TRY(set_slices(dataset));
  info->crops = cubes->slices * cubes->transforms;
  info->samples = info->files * info->crops;
  info->bytes = info->files * fn_cubes_bytes(dataset);
  const double smoothing = dataset->stage == FN_STAGE_TRAIN ? run->data.cubes.label_smoothing : 0;
  cubes->targets[FN_NEWTON] = smoothing;
  cubes->targets[FN_GR] = 1 - smoothing;
  info->cubes = true;
  info->input_fields = 1;
  info->target_fields = info->target_channels = dataset->stage != FN_STAGE_PREDICT;
  int64_t *channels = fn_arena_take(dataset->arena, 2 * sizeof *channels);
  channels[0] = info->input_channels;
  channels[1] = 1;
  info->field_channels = channels;
  return info->target_fields ? fn_dataset_set_outputs(dataset, 1, &channels[1]) : FN_OK;
}

fn_status fn_cubes_set_up(fn_dataset *dataset, fn_cube_file *file) {
  fn_cubes *cubes = calloc(1, sizeof *cubes);
  if (!cubes) {
    fn_cube_file_close(file);
    FN_FAIL(FN_ERR_MEMORY, "no memory for a data set");
  }
  dataset->cubes = cubes;
  cubes->file = file;
  cubes->comm = MPI_COMM_NULL;
  cubes->cached = -1;
  pthread_mutex_init(&cubes->lock, NULL);
  if (!file) FN_TRY(fn_cube_file_open(dataset->run->data.cubes.file, &cubes->file));
  FN_TRY(set_cubes(dataset));
  return set_samples(dataset);
}

void fn_cubes_destroy(fn_cubes *cubes) {
  if (!cubes) return;
  if (cubes->comm != MPI_COMM_NULL) MPI_Comm_free(&cubes->comm);
  pthread_mutex_destroy(&cubes->lock);
  fn_cube_file_close(cubes->file);
  free(cubes->cells);
  free(cubes);
}

int64_t fn_cubes_bytes(const fn_dataset *dataset) {
  return fn_cube_file_bytes(dataset->cubes->file);
}

/** That an epoch cannot go on is said before the first one. */
static fn_status check_memory(const fn_dataset *dataset, int ranks) {
  const fn_run *run = dataset->run;
  char text[2][32];
  if (dataset->stage != FN_STAGE_TRAIN) return FN_OK;
  const int64_t least = fn_dataset_held_bytes(dataset, ranks);
  if (run->data.read_memory == 0 || run->data.read_memory >= least) return FN_OK;
  return fn_run_fail(
      run, "data.read_memory",
      "%s hold %lld cubes of this file, but with data.cubes.window: %lld, train.batch: %lld and %d "
      "rank%s a rank needs %lld at once: at least %lld bytes (%s)",
      fn_text_bytes((double)run->data.read_memory, text[0], sizeof text[0]),
      (long long)(run->data.read_memory / fn_cubes_bytes(dataset)),
      (long long)run->data.cubes.window, (long long)run->train.batch, ranks, ranks > 1 ? "s" : "",
      (long long)(least / fn_cubes_bytes(dataset)), (long long)least,
      fn_text_bytes((double)least, text[1], sizeof text[1]));
}

fn_status fn_dataset_join(fn_dataset *dataset, MPI_Comm comm) {
  if (!dataset->cubes || dataset->cubes->comm != MPI_COMM_NULL) return FN_OK;
  int ranks;
  MPI_Comm_size(comm, &ranks);
  FN_TRY(check_memory(dataset, ranks)); // the same on every rank
  FN_CHECK(MPI_Comm_dup(comm, &dataset->cubes->comm) == MPI_SUCCESS, FN_ERR_INTERNAL,
           "cannot duplicate a communicator to read cubes");
  return FN_OK;
}

fn_cube_file *fn_dataset_cube_file(fn_dataset *dataset) {
  return dataset->cubes->file;
}

void fn_dataset_key(const fn_dataset *dataset, int64_t sample, fn_sample_key *key) {
  const fn_cubes *cubes = dataset->cubes;
  const int64_t slice = sample / cubes->transforms % cubes->slices;
  const int64_t cube = sample / cubes->transforms / cubes->slices;
  const fn_cube *found = &fn_cube_file_get_info(cubes->file)->cube[cubes->file_cube[cube]];
  *key =
      (fn_sample_key){.seed = found->seed,
                      .label = dataset->stage == FN_STAGE_PREDICT ? FN_UNLABELLED : found->theory,
                      .cube = cube,
                      .file_cube = cubes->file_cube[cube],
                      .axis = -1,
                      .transform = (int)(sample % cubes->transforms)};
  if (cubes->whole) return;
  const int64_t positions = dataset->info.size[0] / cubes->stride;
  key->axis = cubes->axis[slice / positions];
  key->position = slice % positions * cubes->stride;
}

/* ---- cells ----------------------------------------------------------------------------------- */

double fn_cubes_mean(const fn_dataset *dataset, const void *cells) {
  enum { PIECE = 256 };
  const fn_cube_file *file = dataset->cubes->file;
  const int64_t *size = dataset->info.size, count = size[0] * size[1] * size[2];
  const int64_t item = (int64_t)fn_raw_bytes(fn_cube_file_get_info(file)->type);
  float piece[PIECE];
  double sum = 0;
  if (!dataset->run->data.cubes.remove_mean) return 0;
  for (int64_t row = 0; row < count; row += size[2]) { // rows first: sums of like size
    double part = 0;
    for (int64_t at = 0; at < size[2]; at += PIECE) {
      const int64_t length = size[2] - at < PIECE ? size[2] - at : PIECE;
      fn_cube_file_widen(file, (const char *)cells + (row + at) * item, length, piece);
      for (int64_t i = 0; i < length; i++)
        part += (double)piece[i];
    }
    sum += part;
  }
  return sum / (double)count;
}

/** The cube in cubes->cells. Locked. */
static fn_status load_cube(fn_dataset *dataset, int64_t file_cube) {
  fn_cubes *cubes = dataset->cubes;
  if (cubes->cached == file_cube) return FN_OK;
  if (!cubes->cells) {
    cubes->cells = malloc((size_t)fn_cubes_bytes(dataset));
    FN_CHECK(cubes->cells, FN_ERR_MEMORY, "no memory for a cube of %s",
             fn_cube_file_get_info(cubes->file)->path);
  }
  cubes->cached = -1;
  FN_TRY(fn_cube_file_read_raw(cubes->file, file_cube, cubes->cells));
  cubes->mean = fn_cubes_mean(dataset, cubes->cells);
  cubes->cached = file_cube;
  return FN_OK;
}

fn_status fn_cubes_sample(fn_dataset *dataset, int64_t epoch, int64_t sample,
                          const fn_cube_room *room) {
  fn_cubes *cubes = dataset->cubes;
  fn_sample_key key;
  fn_dataset_key(dataset, sample, &key);
  pthread_mutex_lock(&cubes->lock);
  const fn_status status = load_cube(dataset, key.file_cube);
  if (status == FN_OK) fn_cubes_cut(dataset, epoch, sample, cubes->cells, cubes->mean, room);
  pthread_mutex_unlock(&cubes->lock);
  return status;
}

/* ---- table ----------------------------------------------------------------------------------- */

void fn_cubes_print(const fn_dataset *dataset, const char *title) {
  const fn_cubes *cubes = dataset->cubes;
  const fn_dataset_info *info = &dataset->info;
  const fn_cube_file_info *file = fn_cube_file_get_info(cubes->file);
  char bytes[32];
  char seeds[64] = "";
  if (!file->unlabelled)
    snprintf(seeds, sizeof seeds, " (%lld seeds, GR and Newton)", (long long)info->files / 2);
  printf("%s: %lld samples = %lld cubes%s x %lld", title, (long long)info->samples,
         (long long)info->files, seeds, (long long)cubes->slices);
  printf(cubes->whole ? " cube" : cubes->slices == 1 ? " slice" : " slices");
  if (cubes->transforms > 1) printf(" x %lld symmetries", (long long)cubes->transforms);
  printf(", %s\n", fn_text_bytes((double)info->bytes, bytes, sizeof bytes));
  printf("  %6lld x [%lld, %lld, %lld] of %s in %s (%s layout, %s)\n", (long long)file->cubes,
         (long long)file->size[0], (long long)file->size[1], (long long)file->size[2], file->stored,
         file->path, file->packed ? "packed" : "original",
         file->direct ? "contiguous" : file->filter);
}
