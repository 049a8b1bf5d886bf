#include "run/saliency.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/ranges.h"
#include "field/hdf5.h"
#include "run/checkpoint_file.h"
#include "run/saliency_program.h"

enum { BATCH_MOST = 16 }; // gradients keep every activation: no more than a training step has

/** This rank's samples, one batch after another, through the gradient program. */
typedef struct walker {
  const fn_run *run;
  fn_loader *loader;
  fn_saliency_program *program;
  int64_t cells; /**< of one sample */
  float *logit;  /**< [batch] */
  float *gradient;
} walker;

static int64_t sample_cells(const fn_dataset_info *info) {
  int64_t cells = info->input_channels;
  for (int d = 0; d < info->spatial; d++)
    cells *= info->input_extent[d];
  return cells;
}

static void walker_close(walker *w) {
  fn_saliency_program_destroy(w->program);
  fn_loader_destroy(w->loader);
  free(w->logit);
  free(w->gradient);
}

/** A loader on every rank, also for no samples: making one may be collective. */
static fn_status walker_open(const fn_run *run, const fn_dist *dist, fn_engine *engine,
                             fn_dataset *dataset, const int64_t *list, int64_t count, walker *w) {
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  const int64_t batch = run->train.batch < BATCH_MOST ? run->train.batch : BATCH_MOST;
  *w = (walker){.run = run, .cells = sample_cells(info)};
  w->logit = malloc((size_t)batch * sizeof *w->logit);
  w->gradient = malloc((size_t)(batch * w->cells) * sizeof *w->gradient);
  fn_status status = FN_OK;
  if (!w->logit || !w->gradient)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for %lld gradients",
                          (long long)batch);
  if (status == FN_OK) status = fn_saliency_program_create(run, engine, info, batch, &w->program);
  FN_TRY(fn_dist_agree(dist, status));
  return fn_dist_agree(dist, fn_loader_create(dataset, 0, list, count, batch, 0, run->data.prefetch,
                                              run->data.readers, &w->loader));
}

typedef fn_status (*take_sample)(void *user, int64_t sample, const float *input, float logit,
                                 const float *gradient);

static fn_status walk_batch(walker *w, const fn_batch *batch, take_sample take, void *user) {
  FN_TRY(fn_saliency_run(w->program, batch->input, batch->count, batch->sample, w->logit,
                         w->gradient));
  for (int64_t i = 0; i < batch->count; i++)
    FN_TRY(take(user, batch->sample[i], batch->input + i * w->cells, w->logit[i],
                w->gradient + i * w->cells));
  return FN_OK;
}

static fn_status walk(walker *w, take_sample take, void *user) {
  fn_status failed = FN_OK;
  // After a failure of its own a rank reads on: the others may need it to read.
  for (;;) {
    const fn_batch *batch;
    FN_TRY(fn_loader_next(w->loader, &batch));
    if (!batch) return failed;
    if (failed == FN_OK) failed = walk_batch(w, batch, take, user);
  }
}

/* ---- maps of single samples --------------------------------------------------------------------
 */

/** `each` samples per class, the middles of equal stretches of that class's samples; ascending. */
static fn_status choose_samples(fn_dataset *dataset, int64_t each, int64_t **list, int64_t *count) {
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  int64_t total[2] = {0, 0}, seen[2] = {0, 0};
  fn_sample_key key;
  *count = 0;
  *list = malloc((size_t)(2 * each + 1) * sizeof **list);
  FN_CHECK(*list, FN_ERR_MEMORY, "out of memory");
  for (int64_t c = 0; c < info->files; c++) {
    fn_dataset_key(dataset, c * info->crops, &key);
    total[key.label != 0] += info->crops;
  }
  for (int64_t s = 0; s < info->samples; s++) {
    fn_dataset_key(dataset, s, &key);
    const int label = key.label != 0;
    const int64_t at = seen[label]++, k = each < total[label] ? each : total[label];
    // stretch j is [j total / k, (j + 1) total / k): its middle is (2 j + 1) total / (2 k)
    const int64_t j = at * k / total[label];
    if ((2 * j + 1) * total[label] / (2 * k) == at) (*list)[(*count)++] = s;
  }
  return FN_OK;
}

typedef struct map_taker {
  const fn_dataset *dataset;
  fn_saliency_map *map; /**< of this rank's slice */
  int64_t taken, cells;
} map_taker;

static fn_status make_map(fn_saliency_map *map, int64_t cells) {
  map->input = malloc((size_t)(2 * cells) * sizeof *map->input);
  FN_CHECK(map->input, FN_ERR_MEMORY, "no memory for a saliency map");
  map->gradient = map->input + cells;
  return FN_OK;
}

static fn_status take_map(void *user, int64_t sample, const float *input, float logit,
                          const float *gradient) {
  map_taker *t = user;
  fn_saliency_map *map = &t->map[t->taken++];
  FN_TRY(make_map(map, t->cells));
  fn_dataset_key(t->dataset, sample, &map->key);
  map->logit = logit;
  memcpy(map->input, input, (size_t)t->cells * sizeof *input);
  memcpy(map->gradient, gradient, (size_t)t->cells * sizeof *gradient);
  return FN_OK;
}

/** Map `index` of rank `owner` to rank 0. */
static fn_status send_map(const fn_dist *dist, int owner, fn_saliency_map *map, int64_t cells) {
  if (owner == 0 || (dist->rank != 0 && dist->rank != owner)) return FN_OK;
  if (dist->rank == owner) {
    MPI_Send(&map->logit, 1, MPI_FLOAT, 0, 1, dist->comm);
    MPI_Send(map->input, (int)cells, MPI_FLOAT, 0, 1, dist->comm);
    MPI_Send(map->gradient, (int)cells, MPI_FLOAT, 0, 1, dist->comm);
  } else {
    MPI_Recv(&map->logit, 1, MPI_FLOAT, owner, 1, dist->comm, MPI_STATUS_IGNORE);
    MPI_Recv(map->input, (int)cells, MPI_FLOAT, owner, 1, dist->comm, MPI_STATUS_IGNORE);
    MPI_Recv(map->gradient, (int)cells, MPI_FLOAT, owner, 1, dist->comm, MPI_STATUS_IGNORE);
  }
  return FN_OK;
}

/** All maps to rank 0, into places [count] there. */
static fn_status gather_maps(const fn_dist *dist, const fn_dataset *dataset, const int64_t *list,
                             int64_t count, int64_t cells, fn_saliency_map *map) {
  fn_status status = FN_OK;
  for (int64_t i = 0; i < count && dist->rank == 0 && status == FN_OK; i++) {
    if (map[i].input) continue;
    fn_dataset_key(dataset, list[i], &map[i].key);
    status = make_map(&map[i], cells);
  }
  FN_TRY(fn_dist_agree(dist, status));
  for (int owner = 1; owner < dist->size; owner++) {
    int64_t begin, some;
    fn_rank_slice(count, owner, dist->size, false, &begin, &some);
    for (int64_t i = 0; i < some; i++)
      FN_TRY(send_map(dist, owner, &map[dist->rank == 0 ? begin + i : i], cells));
  }
  return FN_OK;
}

static fn_status put_integers(hid_t file, const char *name, int64_t count, const int64_t *values) {
  const hsize_t dim = (hsize_t)count;
  const hid_t space = H5Screate_simple(1, &dim, NULL), plain = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_obj_track_times(plain, false); // equal maps are equal files
  const hid_t data = H5Dcreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, plain, H5P_DEFAULT);
  H5Pclose(plain);
  const bool good =
      data >= 0 && H5Dwrite(data, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
  if (data >= 0) H5Dclose(data);
  H5Sclose(space);
  FN_CHECK(good, FN_ERR_DATA, "cannot write %s of the saliency maps", name);
  return FN_OK;
}

static fn_status put_map_keys(hid_t file, const fn_class_result *r) {
  static const char *const names[] = {"seed", "label", "cube", "axis", "position"};
  int64_t *values = malloc((size_t)r->maps * sizeof *values);
  FN_CHECK(values, FN_ERR_MEMORY, "out of memory");
  fn_status status = FN_OK;
  for (int n = 0; n < 5 && status == FN_OK; n++) {
    for (int64_t i = 0; i < r->maps; i++) {
      const fn_sample_key *k = &r->map[i].key;
      const int64_t all[] = {k->seed, k->label, k->cube, k->axis, k->position};
      values[i] = all[n];
    }
    status = put_integers(file, names[n], r->maps, values);
  }
  free(values);
  return status;
}

/** `input` and `gradient` [maps, channels, extent...], `logit` [maps]. */
static fn_status put_maps(hid_t file, const fn_class_result *r, int64_t cells, float *buffer) {
  fn_shape shape = {.ndim = 2 + r->spatial, .dim = {r->maps, r->channels}};
  const fn_shape list = {.ndim = 1, .dim = {r->maps}};
  for (int d = 0; d < r->spatial; d++)
    shape.dim[2 + d] = r->extent[d];
  for (int64_t i = 0; i < r->maps; i++)
    memcpy(buffer + i * cells, r->map[i].input, (size_t)cells * sizeof *buffer);
  FN_TRY(fn_state_put_tensor(file, "input", FN_F32, &shape, buffer));
  for (int64_t i = 0; i < r->maps; i++)
    memcpy(buffer + i * cells, r->map[i].gradient, (size_t)cells * sizeof *buffer);
  FN_TRY(fn_state_put_tensor(file, "gradient", FN_F32, &shape, buffer));
  for (int64_t i = 0; i < r->maps; i++)
    buffer[i] = r->map[i].logit;
  FN_TRY(fn_state_put_tensor(file, "logit", FN_F32, &list, buffer));
  return put_map_keys(file, r);
}

static fn_status write_maps(const char *folder, const fn_class_result *r, int64_t cells) {
  char path[4096];
  hid_t file;
  snprintf(path, sizeof path, "%s/saliency.h5", folder);
  float *buffer = malloc((size_t)(r->maps * cells) * sizeof *buffer);
  FN_CHECK(buffer, FN_ERR_MEMORY, "no memory for %lld saliency maps", (long long)r->maps);
  fn_hdf5_lock();
  fn_status status =
      fn_hdf5_image_create((size_t)(2 * r->maps * cells) * sizeof *buffer + 65536, &file);
  if (status == FN_OK) {
    status = put_maps(file, r, cells, buffer);
    if (status == FN_OK) status = fn_hdf5_image_write(file, path, false);
    H5Fclose(file);
  }
  fn_hdf5_unlock();
  free(buffer);
  return status;
}

/** This rank's maps, and on rank 0 those of the others; map has `count` places on every rank. */
static fn_status compute_maps(const fn_run *run, const fn_dist *dist, fn_engine *engine,
                              fn_dataset *dataset, const int64_t *list, int64_t count,
                              fn_saliency_map *map) {
  int64_t begin, some;
  fn_rank_slice(count, dist->rank, dist->size, false, &begin, &some);
  walker w;
  fn_status status = walker_open(run, dist, engine, dataset, list + begin, some, &w);
  if (status == FN_OK) {
    map_taker taker = {.dataset = dataset, .map = map, .cells = w.cells};
    status = fn_dist_agree(dist, walk(&w, take_map, &taker));
  }
  const int64_t cells = w.cells;
  walker_close(&w);
  FN_TRY(status);
  return gather_maps(dist, dataset, list, count, cells, map);
}

static void free_maps(fn_saliency_map *map, int64_t count) {
  for (int64_t i = 0; map && i < count; i++)
    free(map[i].input);
  free(map);
}

fn_status fn_saliency_maps(const fn_run *run, const fn_dist *dist, fn_engine *engine,
                           fn_dataset *dataset, const char *folder, fn_class_result *r) {
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  int64_t *list = NULL, count = 0;
  fn_saliency_map *map = NULL;
  fn_status status = choose_samples(dataset, run->test.saliency, &list, &count);
  if (status == FN_OK) {
    map = calloc((size_t)count + 1, sizeof *map);
    if (!map) status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  }
  status = fn_dist_agree(dist, status);
  if (status == FN_OK) status = compute_maps(run, dist, engine, dataset, list, count, map);
  free(list);
  if (status != FN_OK || dist->rank != 0) {
    free_maps(map, count);
    return fn_dist_agree(dist, status);
  }
  r->map = map;
  r->maps = count;
  r->spatial = info->spatial;
  r->channels = info->input_channels;
  for (int d = 0; d < info->spatial; d++)
    r->extent[d] = info->input_extent[d];
  return fn_dist_agree(dist, write_maps(folder, r, sample_cells(info)));
}

/* ---- whole cubes -------------------------------------------------------------------------------
 */

/** Cubes of the test whose seed is asked for, ascending. */
static fn_status choose_cubes(const fn_run *run, const fn_dataset *dataset, int64_t **cube,
                              int64_t *count) {
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  fn_ranges seeds = {0};
  fn_status status = FN_OK;
  for (int i = 0; i < run->test.saliency_seeds.count && status == FN_OK; i++)
    status = fn_ranges_add(&seeds, run->test.saliency_seeds.text[i]);
  *count = 0;
  *cube = malloc((size_t)(info->files + 1) * sizeof **cube);
  if (status == FN_OK && !*cube)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  for (int64_t s = 0; s < seeds.count && status == FN_OK; s++) {
    const int64_t before = *count;
    for (int64_t c = 0; c < info->files; c++) {
      fn_sample_key key;
      fn_dataset_key(dataset, c * info->crops, &key);
      if (key.seed == seeds.value[s]) (*cube)[(*count)++] = c;
    }
    if (*count == before)
      status = fn_run_fail(run, "test.saliency_seeds",
                           "test.saliency_seeds: seed %lld is not among data.cubes.test_seeds",
                           (long long)seeds.value[s]);
  }
  fn_ranges_free(&seeds);
  return status;
}

static const char *cube_file_name(const fn_dataset *dataset, int64_t cube, char *text,
                                  size_t size) {
  fn_sample_key key;
  fn_dataset_key(dataset, cube * fn_dataset_get_info(dataset)->crops, &key);
  snprintf(text, size, "saliency_%s_seed%04lld.h5", key.label == FN_GR ? "gr" : "newton",
           (long long)key.seed);
  return text;
}

fn_status fn_saliency_files(const fn_run *run, const fn_dataset *dataset, fn_arena *arena,
                            const char ***name, int64_t *count) {
  int64_t *cube = NULL;
  char text[64];
  *count = 0;
  fn_status status = choose_cubes(run, dataset, &cube, count);
  *name = fn_arena_take(arena, (size_t)(*count + 1) * sizeof **name);
  for (int64_t i = 0; i < *count && status == FN_OK; i++)
    (*name)[i] = fn_arena_text(arena, cube_file_name(dataset, cube[i], text, sizeof text));
  free(cube);
  return status;
}

typedef struct cube_taker {
  const fn_dataset *dataset;
  const char *folder;
  int64_t size[3], stride, crops;
  float *sum; /**< [D, H, W] of the cube in work */
  float *logit;
  int64_t done; /**< slices of it */
} cube_taker;

static fn_status write_cube(const cube_taker *t, int64_t cube) {
  char path[4096], name[64];
  hid_t file;
  const fn_shape whole = {.ndim = 3, .dim = {t->size[0], t->size[1], t->size[2]}};
  const fn_shape list = {.ndim = 1, .dim = {t->crops}};
  fn_sample_key key;
  fn_dataset_key(t->dataset, cube * t->crops, &key);
  snprintf(path, sizeof path, "%s/%s", t->folder,
           cube_file_name(t->dataset, cube, name, sizeof name));
  fn_hdf5_lock();
  fn_status status =
      fn_hdf5_image_create((size_t)fn_shape_count(&whole) * sizeof(float) + 65536, &file);
  if (status == FN_OK) {
    status = fn_state_put_tensor(file, "gradient", FN_F32, &whole, t->sum);
    if (status == FN_OK) status = fn_state_put_tensor(file, "logit", FN_F32, &list, t->logit);
    if (status == FN_OK) status = fn_state_set_integer(file, "seed", key.seed);
    if (status == FN_OK) status = fn_state_set_integer(file, "label", key.label);
    if (status == FN_OK) status = fn_hdf5_image_write(file, path, false);
    H5Fclose(file);
  }
  fn_hdf5_unlock();
  return status;
}

/** Add the gradient of a slice, [stride][rows][columns], where the slice lies in its cube. */
static void add_slice(cube_taker *t, const fn_sample_key *key, const float *gradient) {
  const int64_t step[3] = {t->size[1] * t->size[2], t->size[2], 1};
  const int normal = key->axis, row = normal == 0 ? 1 : 0, column = normal == 2 ? 1 : 2;
  for (int64_t p = 0; p < t->stride; p++)
    for (int64_t i = 0; i < t->size[row]; i++) {
      float *to = t->sum + (key->position + p) * step[normal] + i * step[row];
      for (int64_t j = 0; j < t->size[column]; j++)
        to[j * step[column]] += *gradient++;
    }
}

static fn_status take_for_cube(void *user, int64_t sample, const float *input, float logit,
                               const float *gradient) {
  (void)input;
  cube_taker *t = user;
  const int64_t cells = t->size[0] * t->size[1] * t->size[2];
  fn_sample_key key;
  fn_dataset_key(t->dataset, sample, &key);
  if (t->done == 0) memset(t->sum, 0, (size_t)cells * sizeof *t->sum);
  t->logit[t->done++] = logit;
  if (key.axis >= 0)
    add_slice(t, &key, gradient);
  else
    memcpy(t->sum, gradient, (size_t)cells * sizeof *t->sum);
  if (t->done < t->crops) return FN_OK;
  t->done = 0;
  return write_cube(t, sample / t->crops);
}

static fn_status compute_cubes(const fn_run *run, const fn_dist *dist, fn_engine *engine,
                               fn_dataset *dataset, const int64_t *list, int64_t count,
                               cube_taker *taker) {
  walker w;
  fn_status status = walker_open(run, dist, engine, dataset, list, count, &w);
  if (status == FN_OK) status = fn_dist_agree(dist, walk(&w, take_for_cube, taker));
  walker_close(&w);
  return status;
}

/** This rank's cubes as a list of all their samples. */
static fn_status list_samples(const fn_dist *dist, const int64_t *cube, int64_t cubes,
                              int64_t crops, int64_t **list, int64_t *count) {
  int64_t begin, some;
  fn_rank_slice(cubes, dist->rank, dist->size, false, &begin, &some);
  *count = 0;
  *list = malloc((size_t)(some * crops + 1) * sizeof **list);
  FN_CHECK(*list, FN_ERR_MEMORY, "out of memory");
  for (int64_t c = begin; c < begin + some; c++)
    for (int64_t s = 0; s < crops; s++)
      (*list)[(*count)++] = cube[c] * crops + s;
  return FN_OK;
}

fn_status fn_saliency_cubes(const fn_run *run, const fn_dist *dist, fn_engine *engine,
                            fn_dataset *dataset, const char *folder) {
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  int64_t *cube = NULL, *list = NULL, cubes = 0, count = 0;
  cube_taker t = {
      .dataset = dataset, .folder = folder, .stride = run->data.cubes.stride, .crops = info->crops};
  memcpy(t.size, info->size, sizeof t.size);
  fn_status status = choose_cubes(run, dataset, &cube, &cubes);
  if (status == FN_OK) status = list_samples(dist, cube, cubes, info->crops, &list, &count);
  t.sum = malloc((size_t)(t.size[0] * t.size[1] * t.size[2]) * sizeof *t.sum);
  t.logit = malloc((size_t)info->crops * sizeof *t.logit);
  if (status == FN_OK && (!t.sum || !t.logit))
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for a cube of gradients");
  status = fn_dist_agree(dist, status);
  if (status == FN_OK) status = compute_cubes(run, dist, engine, dataset, list, count, &t);
  if (status == FN_OK)
    fn_log(FN_INFO, "gradients of %lld cube%s written below %s", (long long)cubes,
           cubes == 1 ? "" : "s", folder);
  free(cube);
  free(list);
  free(t.sum);
  free(t.logit);
  return status;
}
