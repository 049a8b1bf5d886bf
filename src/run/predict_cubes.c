#include "run/predict_cubes.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "data/cubes.h"
#include "field/field.h"
#include "run/logits.h"
#include "run/open_data.h"
#include "run/sizes.h"
#include "run/trained.h"

static const double SAY_EVERY_SECONDS = 10;

typedef struct predictor {
  const fn_run *run;
  fn_dist *dist;
  fn_engine *engine;
  fn_dataset_info first; /**< of the first file, with the target that the network was trained for */
  int64_t channels[2];   /**< its field_channels */
  int64_t files;
  const char **file; /**< [files] the same on every rank */
  bool by_seed;      /**< the cubes of data.cubes.test_seeds in the one file */
  fn_arena *arena;   /**< owns paths */
  char *state;       /**< rank 0 */
  int64_t capacity;  /**< cubes that `result` has room for */
  char folder[4096];
} predictor;

void fn_prediction_free(fn_prediction *p) {
  free(p->cube);
  free(p->output);
  free(p->axis);
  free(p->position);
  free(p->state);
  fn_arena_destroy(p->arena);
  *p = (fn_prediction){0};
}

/* ---- which files -------------------------------------------------------------------------------
 */

/** Rank 0: paths, one after another, each with its NUL. */
static fn_status find_files(const predictor *p, fn_text *list) {
  const fn_texts *patterns = &p->run->data.cubes.predict;
  for (int i = 0; i < patterns->count; i++) {
    const char **path;
    int count;
    const fn_status status = fn_field_glob(p->arena, patterns->text[i], &path, &count);
    if (status != FN_OK)
      return fn_error_set(status, __FILE__, __LINE__, "%s: data.cubes.predict: %s",
                          fn_run_where(p->run, "data.cubes.predict"), fn_error_message());
    for (int f = 0; f < count; f++)
      fn_text_add_bytes(list, path[f], strlen(path[f]) + 1);
  }
  if (patterns->count == 0)
    fn_text_add_bytes(list, p->run->data.cubes.file, strlen(p->run->data.cubes.file) + 1);
  FN_CHECK(!list->incomplete, FN_ERR_MEMORY, "out of memory for the list of files");
  return FN_OK;
}

/** The list of rank 0 on every rank: another node may see a folder's files in another state. */
static fn_status share_files(predictor *p) {
  fn_text list = {0};
  fn_status status = fn_dist_agree(p->dist, p->dist->rank == 0 ? find_files(p, &list) : FN_OK);
  int64_t bytes = (int64_t)list.length;
  if (status == FN_OK) status = fn_dist_broadcast(p->dist, &bytes, sizeof bytes);
  char *text = status == FN_OK ? fn_arena_take(p->arena, (size_t)bytes + 1) : NULL;
  if (text && p->dist->rank == 0) memcpy(text, list.data, (size_t)bytes);
  if (status == FN_OK) status = fn_dist_broadcast(p->dist, text, bytes);
  fn_text_free(&list);
  FN_TRY(status);
  for (int64_t i = 0; i < bytes; i++)
    p->files += text[i] == '\0';
  p->file = fn_arena_take(p->arena, (size_t)p->files * sizeof *p->file);
  for (int64_t f = 0; f < p->files; f++, text += strlen(text) + 1)
    p->file[f] = text;
  return FN_OK;
}

static fn_status open_file(const predictor *p, int64_t file, fn_dataset **dataset) {
  return p->by_seed ? fn_data_open(p->run, FN_STAGE_PREDICT, p->dist, NULL, dataset)
                    : fn_data_open_unlabelled(p->run, p->file[file], p->dist, dataset);
}

/* ---- start ------------------------------------------------------------------------------------
 */

/** Nothing is overwritten without being asked: before hours are spent on what cannot be written. */
static fn_status prepare_folder(predictor *p) {
  static const char *const names[] = {"predictions.csv", "predictions.h5"};
  const fn_run *run = p->run;
  const bool absolute = run->test.output[0] == '/';
  const int length = snprintf(p->folder, sizeof p->folder, "%s%s%s", absolute ? "" : run->folder,
                              absolute ? "" : "/", run->test.output);
  FN_CHECK((size_t)length + 64 < sizeof p->folder, FN_ERR_CONFIG, "output path too long: %s",
           run->test.output);
  for (size_t i = 0; i < sizeof names / sizeof names[0] && !run->test.overwrite; i++) {
    char path[4200];
    snprintf(path, sizeof path, "%s/%s", p->folder, names[i]);
    if (fn_file_exists(path))
      return fn_run_fail(run, "test.overwrite",
                         "%s exists and would be replaced: set test.overwrite to true, or choose "
                         "another test.output",
                         path);
  }
  return fn_make_directories(p->folder);
}

/** Cells as a simulation has them, where the network learned from standardised ones, give answers
 *  that look like answers. Rank 0, one cube. */
static fn_status doubt_cells(fn_dataset *dataset) {
  fn_cube_file *file = fn_dataset_cube_file(dataset);
  const fn_cube_file_info *info = fn_cube_file_get_info(file);
  const int64_t count = info->size[0] * info->size[1] * info->size[2];
  if (info->has_statistics || info->mean_removed) return FN_OK; // fieldnet data pack made it
  fn_sample_key key;
  fn_dataset_key(dataset, 0, &key);
  float *cells = malloc((size_t)count * sizeof *cells);
  FN_CHECK(cells, FN_ERR_MEMORY, "no memory for a cube of %s", info->path);
  const fn_status status = fn_cube_file_read(file, key.file_cube, cells);
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < count && status == FN_OK; i++)
    sum += (double)cells[i];
  const double mean = sum / (double)count;
  for (int64_t i = 0; i < count && status == FN_OK; i++)
    squares += ((double)cells[i] - mean) * ((double)cells[i] - mean);
  free(cells);
  FN_TRY(status);
  const double std = sqrt(squares / (double)count);
  if (std < 0.1 || std > 10 || fabs(mean) > 10)
    fn_log(FN_WARN,
           "%s: cube %s has mean %.3g and standard deviation %.3g, which does not look like "
           "(raw - mean) / std: cubes to be predicted are to be standardised as those of training",
           info->path, info->cube[key.file_cube].name, mean, std);
  return FN_OK;
}

static fn_status make_engine(predictor *p, fn_dataset *dataset) {
  p->first = *fn_dataset_get_info(dataset);
  p->channels[0] = p->first.input_channels;
  p->channels[1] = 1;
  p->first.field_channels = p->channels;
  p->first.target_fields = 1;
  p->first.target_channels = 1;
  FN_TRY(fn_dist_agree(p->dist, p->dist->rank == 0 ? doubt_cells(dataset) : FN_OK));
  FN_TRY(fn_dist_agree(p->dist, fn_engine_create(p->run, p->dist, &p->first, &p->engine)));
  return fn_trained_load(p->run, p->dist, p->state, fn_engine_parameters(p->engine));
}

/** Every later file must suit the network as the first one does; `what`: where `size` is from. */
static fn_status check_sizes(const int64_t *size, const char *what, const fn_dataset *dataset,
                             const char *path) {
  const int64_t *found = fn_dataset_get_info(dataset)->size;
  FN_CHECK(found[0] == size[0] && found[1] == size[1] && found[2] == size[2], FN_ERR_DATA,
           "%s holds cubes of %lld x %lld x %lld cells, %s of %lld x %lld x %lld: they do not suit "
           "one network",
           path, (long long)found[0], (long long)found[1], (long long)found[2], what,
           (long long)size[0], (long long)size[1], (long long)size[2]);
  return FN_OK;
}

/* ---- results, on rank 0 ------------------------------------------------------------------------
 */

/** Room for `cubes` more cubes of `samples` each. */
static fn_status grow(predictor *p, fn_prediction *r, int64_t cubes) {
  if (r->cubes + cubes <= p->capacity) return FN_OK;
  int64_t capacity = 2 * p->capacity > r->cubes + cubes ? 2 * p->capacity : r->cubes + cubes;
  fn_predicted_cube *cube = realloc(r->cube, (size_t)capacity * sizeof *cube);
  if (cube) r->cube = cube;
  float *output = realloc(r->output, (size_t)(capacity * r->samples) * sizeof *output);
  if (output) r->output = output;
  FN_CHECK(cube && output, FN_ERR_MEMORY, "no memory for the predictions of %lld cubes",
           (long long)(r->cubes + cubes));
  p->capacity = capacity;
  return FN_OK;
}

/** Where the slices of a cube lie: the same in every cube. */
static fn_status note_slices(const fn_dataset *dataset, fn_prediction *r) {
  if (r->axis) return FN_OK;
  r->samples = fn_dataset_get_info(dataset)->crops;
  r->axis = malloc((size_t)r->samples * sizeof *r->axis);
  r->position = malloc((size_t)r->samples * sizeof *r->position);
  FN_CHECK(r->axis && r->position, FN_ERR_MEMORY, "out of memory");
  for (int64_t i = 0; i < r->samples; i++) {
    fn_sample_key key;
    fn_dataset_key(dataset, i, &key);
    r->axis[i] = (int8_t)key.axis;
    r->position[i] = (int32_t)key.position;
  }
  return FN_OK;
}

static fn_status sum_up(const float *output, int64_t samples, const char *path,
                        fn_predicted_cube *cube) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < samples; i++) {
    FN_CHECK(isfinite(output[i]), FN_ERR_DIVERGED,
             "%s, cube %s: the network's output for sample %lld is not finite", path, cube->name,
             (long long)i);
    cube->positive += output[i] >= 0;
    sum += (double)output[i];
  }
  cube->mean = sum / (double)samples;
  for (int64_t i = 0; i < samples; i++)
    squares += ((double)output[i] - cube->mean) * ((double)output[i] - cube->mean);
  cube->deviation = sqrt(squares / (double)samples);
  return FN_OK;
}

static fn_status take_results(predictor *p, int64_t file, fn_dataset *dataset, const float *output,
                              fn_prediction *r) {
  const int64_t cubes = fn_dataset_get_info(dataset)->files;
  const fn_cube_file_info *info = fn_cube_file_get_info(fn_dataset_cube_file(dataset));
  FN_TRY(note_slices(dataset, r));
  FN_TRY(grow(p, r, cubes));
  memcpy(r->output + r->cubes * r->samples, output, (size_t)(cubes * r->samples) * sizeof *output);
  for (int64_t c = 0; c < cubes; c++, r->cubes++) {
    fn_sample_key key;
    fn_dataset_key(dataset, c * r->samples, &key);
    fn_predicted_cube *cube = &r->cube[r->cubes];
    *cube =
        (fn_predicted_cube){.file = (int32_t)file,
                            .cube = info->packed ? info->cube[key.file_cube].row : key.file_cube,
                            .seed = key.seed,
                            .name = fn_arena_text(r->arena, info->cube[key.file_cube].name)};
    FN_TRY(sum_up(output + c * r->samples, r->samples, p->file[file], cube));
  }
  return FN_OK;
}

/* ---- all of it ---------------------------------------------------------------------------------
 */

static fn_status predict_open(predictor *p, int64_t file, fn_dataset *dataset, fn_prediction *r) {
  const bool root = p->dist->rank == 0;
  float *output = NULL;
  if (!p->engine)
    FN_TRY(make_engine(p, dataset));
  else
    FN_TRY(fn_dist_agree(p->dist, check_sizes(p->first.size, p->file[0], dataset, p->file[file])));
  fn_status status = fn_logits_compute(p->run, p->dist, p->engine, dataset, &output);
  if (status == FN_OK)
    status = fn_dist_agree(p->dist, root ? take_results(p, file, dataset, output, r) : FN_OK);
  free(output);
  return status;
}

/** Now and then, when there are many files. */
static void say(const predictor *p, int64_t done, double *last) {
  if (fn_clock() - *last < SAY_EVERY_SECONDS || done == 0) return;
  *last = fn_clock();
  fn_log(FN_INFO, "%lld of %lld files done", (long long)done, (long long)p->files);
}

static fn_status predict_file(predictor *p, int64_t file, fn_prediction *r) {
  fn_dataset *dataset = NULL;
  FN_TRY(open_file(p, file, &dataset));
  const fn_status status = predict_open(p, file, dataset, r);
  fn_dataset_destroy(dataset);
  return status;
}

static fn_status find_state(predictor *p, fn_prediction *r) {
  fn_progress progress = {0};
  FN_TRY(fn_trained_find(p->run, &p->state, &progress));
  r->epoch = progress.epoch;
  r->state = strdup(p->state);
  FN_CHECK(r->state, FN_ERR_MEMORY, "out of memory");
  if (p->run->data.cubes.newton_augmentation != 1)
    fn_log(FN_WARN, "data.cubes.newton_augmentation goes by labels: it is not applied to what is "
                    "predicted");
  return FN_OK;
}

/** Lists the files also for whoever reads the result. */
static fn_status start(predictor *p, fn_prediction *r) {
  const bool root = p->dist->rank == 0;
  p->arena = fn_arena_create();
  r->arena = fn_arena_create();
  FN_TRY(fn_dist_agree(p->dist, p->arena && r->arena ? FN_OK
                                                     : fn_error_set(FN_ERR_MEMORY, __FILE__,
                                                                    __LINE__, "out of memory")));
  FN_TRY(fn_dist_agree(p->dist, root ? find_state(p, r) : FN_OK));
  FN_TRY(share_files(p));
  FN_TRY(fn_dist_agree(p->dist, root ? prepare_folder(p) : FN_OK));
  if (!root) return FN_OK;
  r->files = p->files;
  r->file = fn_arena_take(r->arena, (size_t)p->files * sizeof *r->file);
  for (int64_t f = 0; f < p->files; f++)
    r->file[f] = fn_arena_text(r->arena, p->file[f]);
  return FN_OK;
}

static fn_status finish(const predictor *p, const fn_prediction *r) {
  FN_TRY(fn_prediction_write(p->folder, r));
  int64_t positive = 0;
  for (int64_t c = 0; c < r->cubes; c++)
    positive += r->cube[c].mean >= 0;
  fn_log(FN_INFO, "%lld cube%s of %lld file%s, %lld sample%s each", (long long)r->cubes,
         r->cubes == 1 ? "" : "s", (long long)r->files, r->files == 1 ? "" : "s",
         (long long)r->samples, r->samples == 1 ? "" : "s");
  if (r->classes)
    fn_log(FN_INFO, "called by mean logit: %lld GR, %lld Newton", (long long)positive,
           (long long)(r->cubes - positive));
  fn_log(FN_INFO, "predictions written below %s", p->folder);
  return FN_OK;
}

fn_status fn_predict_cubes(const fn_run *run, fn_dist *dist, fn_prediction *result) {
  predictor p = {.run = run,
                 .dist = dist,
                 .by_seed =
                     run->data.cubes.predict.count == 0 && run->data.cubes.test_seeds.count > 0};
  *result = (fn_prediction){.classes = fn_run_has_logits(run)};
  fn_status status = start(&p, result);
  double last = fn_clock();
  for (int64_t f = 0; f < p.files && status == FN_OK; f++) {
    say(&p, f, &last);
    status = predict_file(&p, f, result);
  }
  if (status == FN_OK) status = fn_dist_agree(dist, dist->rank == 0 ? finish(&p, result) : FN_OK);
  fn_engine_destroy(p.engine);
  fn_arena_destroy(p.arena);
  free(p.state);
  return status;
}

/* ---- looking at the files only ----------------------------------------------------------------
 */

static fn_status check_file(predictor *p, int64_t file, const fn_dataset_info *train,
                            int64_t *cubes) {
  fn_dataset *dataset = NULL;
  FN_TRY(open_file(p, file, &dataset));
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  if (file == 0) p->first = *info;
  fn_status status = train ? check_sizes(train->size, "those of training", dataset, p->file[file])
                           : check_sizes(p->first.size, p->file[0], dataset, p->file[file]);
  *cubes += info->files;
  status = fn_dist_agree(p->dist, status);
  fn_dataset_destroy(dataset);
  return status;
}

fn_status fn_predict_cubes_check(const fn_run *run, fn_dist *dist, const fn_dataset_info *train,
                                 int64_t *files, int64_t *cubes) {
  predictor p = {.run = run, .dist = dist, .arena = fn_arena_create()};
  *files = *cubes = 0;
  fn_status status = fn_dist_agree(
      dist, p.arena ? FN_OK : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory"));
  if (status == FN_OK) status = share_files(&p);
  for (int64_t f = 0; f < p.files && status == FN_OK; f++)
    status = check_file(&p, f, train, cubes);
  *files = p.files;
  fn_arena_destroy(p.arena);
  return status;
}
