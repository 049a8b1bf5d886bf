#include "run/cube_means.h"

#include <math.h>
#include <stdlib.h>

#include "base/arena.h"

/** Standard deviations; what is left of a mean is rounded to these: less than f32 cells hold. */
static const double GRAIN = 1e-6;

void fn_cube_means_free(fn_cube_means *m) {
  free(m->seed);
  free(m->label);
  free(m->mean);
  free(m->rest);
  *m = (fn_cube_means){0};
}

/** The first sample of every cube whose seed is taken: every (seeds / most)-th. The cubes of a seed
 *  follow each other. *count of them, also noted in means. */
static fn_status choose_cubes(fn_dataset *dataset, int64_t most_seeds, fn_cube_means *m,
                              int64_t *file_cube) {
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  fn_sample_key key;
  int64_t seeds = 0, last = -1, at = -1;
  for (int64_t c = 0; c < info->files; c++) {
    fn_dataset_key(dataset, c * info->crops, &key);
    seeds += c == 0 || key.seed != last;
    last = key.seed;
  }
  const int64_t most = most_seeds > 0 && most_seeds < seeds ? most_seeds : seeds;
  for (int64_t c = 0; c < info->files; c++) {
    fn_dataset_key(dataset, c * info->crops, &key);
    at += c == 0 || key.seed != last;
    last = key.seed;
    if ((at + 1) * most / seeds == at * most / seeds) continue;
    m->seed[m->cubes] = key.seed;
    m->label[m->cubes] = key.label;
    file_cube[m->cubes++] = key.file_cube;
  }
  return FN_OK;
}

/** Sum of the cells less `offset`, rounded to f32 as a data set would, plane by plane: the same for
 *  any number of threads. partial [planes]. */
static double sum_planes(const float *cells, int64_t planes, int64_t count, double offset,
                         double *partial) {
#pragma omp parallel for schedule(static)
  for (int64_t p = 0; p < planes; p++) {
    const float *plane = cells + p * count;
    partial[p] = 0;
    for (int64_t i = 0; i < count; i++)
      partial[p] += (double)(float)((double)plane[i] - offset);
  }
  double sum = 0;
  for (int64_t p = 0; p < planes; p++)
    sum += partial[p];
  return sum;
}

static fn_status read_share(const fn_run *run, const fn_dist *dist, fn_dataset *dataset,
                            const int64_t *file_cube, fn_cube_means *m) {
  fn_cube_file *file = fn_dataset_cube_file(dataset);
  const int64_t *size = fn_cube_file_get_info(file)->size;
  const int64_t plane = size[1] * size[2], count = size[0] * plane;
  float *cells = NULL;
  double *partial = malloc((size_t)size[0] * sizeof *partial);
  FN_CHECK(partial, FN_ERR_MEMORY, "out of memory");
  fn_status status = fn_pages_allocate((size_t)count * sizeof *cells, (void **)&cells);
  for (int64_t c = dist->rank; c < m->cubes && status == FN_OK; c += dist->size) {
    status = fn_cube_file_read(file, file_cube[c], cells);
    if (status != FN_OK) break;
    const double factor = m->label[c] == FN_NEWTON ? run->data.cubes.newton_augmentation : 1;
    const double mean = sum_planes(cells, size[0], plane, 0, partial) / (double)count;
    const double rest = sum_planes(cells, size[0], plane, mean, partial) / (double)count;
    m->mean[c] = factor * mean;
    m->rest[c] = round(factor * rest / GRAIN) * GRAIN + 0.0; // no negative zero
  }
  if (cells) fn_pages_free(cells, (size_t)count * sizeof *cells);
  free(partial);
  return status;
}

static fn_status compute(const fn_run *run, const fn_dist *dist, fn_dataset *dataset,
                         int64_t most_seeds, int64_t *file_cube, fn_cube_means *m) {
  const size_t cubes = (size_t)fn_dataset_get_info(dataset)->files;
  m->seed = calloc(cubes, sizeof *m->seed);
  m->label = calloc(cubes, sizeof *m->label);
  m->mean = calloc(cubes, sizeof *m->mean);
  m->rest = calloc(cubes, sizeof *m->rest);
  FN_CHECK(m->seed && m->label && m->mean && m->rest && file_cube, FN_ERR_MEMORY, "out of memory");
  FN_TRY(choose_cubes(dataset, most_seeds, m, file_cube));
  return read_share(run, dist, dataset, file_cube, m);
}

fn_status fn_cube_means_compute(const fn_run *run, const fn_dist *dist, fn_dataset *dataset,
                                int64_t most_seeds, fn_cube_means *m) {
  *m = (fn_cube_means){0};
  int64_t *file_cube = calloc((size_t)fn_dataset_get_info(dataset)->files, sizeof *file_cube);
  fn_status status = fn_dist_agree(dist, compute(run, dist, dataset, most_seeds, file_cube, m));
  free(file_cube);
  // Every mean was computed on one rank and is zero on the others: the sum is exact.
  if (status == FN_OK) status = fn_dist_sum(dist, m->mean, m->cubes);
  if (status == FN_OK) status = fn_dist_sum(dist, m->rest, m->cubes);
  if (status != FN_OK) fn_cube_means_free(m);
  return status;
}

fn_status fn_cube_means_fit(const fn_cube_means *m, const double *value, fn_threshold *threshold) {
  fn_scored *s = calloc((size_t)m->cubes + 1, sizeof *s);
  FN_CHECK(s, FN_ERR_MEMORY, "out of memory");
  for (int64_t i = 0; i < m->cubes; i++)
    s[i] = (fn_scored){.score = value[i], .label = m->label[i] == FN_GR};
  fn_scored_sort(s, m->cubes);
  fn_threshold_fit(s, m->cubes, threshold);
  free(s);
  return FN_OK;
}
