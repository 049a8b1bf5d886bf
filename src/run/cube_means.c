#include "run/cube_means.h"

#include <stdlib.h>

#include "base/arena.h"

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

/** Mean of the cells times `factor`, and of what is left of them without it. */
static void take_means(const float *cells, int64_t count, double factor, double *mean,
                       double *rest) {
  double sum = 0, left = 0;
#pragma omp parallel for simd reduction(+ : sum) schedule(static)
  for (int64_t i = 0; i < count; i++)
    sum += (double)cells[i];
  const double average = sum / (double)count;
#pragma omp parallel for simd reduction(+ : left) schedule(static)
  for (int64_t i = 0; i < count; i++)
    left += (double)(float)((double)cells[i] - average);
  *mean = factor * average;
  *rest = factor * left / (double)count;
}

static fn_status read_share(const fn_run *run, const fn_dist *dist, fn_dataset *dataset,
                            const int64_t *file_cube, fn_cube_means *m) {
  fn_cube_file *file = fn_dataset_cube_file(dataset);
  const int64_t *size = fn_cube_file_get_info(file)->size;
  const int64_t count = size[0] * size[1] * size[2];
  float *cells = NULL;
  FN_TRY(fn_pages_allocate((size_t)count * sizeof *cells, (void **)&cells));
  fn_status status = FN_OK;
  for (int64_t c = dist->rank; c < m->cubes && status == FN_OK; c += dist->size) {
    status = fn_cube_file_read(file, file_cube[c], cells);
    const double factor = m->label[c] == FN_NEWTON ? run->data.cubes.newton_augmentation : 1;
    if (status == FN_OK) take_means(cells, count, factor, &m->mean[c], &m->rest[c]);
  }
  fn_pages_free(cells, (size_t)count * sizeof *cells);
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
