/* Mean and variance of many cubes, the same on any number of ranks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ranges.h"
#include "base/system.h"
#include "data/parts.h"
#include "field/array.h"
#include "field/hdf5.h"
#include "field/safe_write.h"
#include "run/cube_jobs.h"

fn_status fn_cube_rounds(const fn_dist *dist, const char *what, int64_t items,
                         fn_status (*work)(void *user, int64_t item), void *user,
                         const fn_ticker *ticker) {
  for (int64_t first = 0; first < items; first += dist->size) {
    const int64_t item = first + dist->rank, next = first + dist->size;
    FN_TRY(fn_dist_agree(dist, item < items ? work(user, item) : FN_OK));
    if (ticker && dist->rank == 0)
      ticker->tick(ticker->user, what, next < items ? next : items, items);
  }
  return FN_OK;
}

fn_status fn_cube_sources_check(const fn_dist *dist, fn_cube_source *source, const int64_t *seeds,
                                int64_t count) {
  fn_problem_list problems = {0};
  FN_TRY(fn_dist_agree(dist, dist->rank == 0 ? fn_cube_source_measure(source, seeds[0]) : FN_OK));
  FN_TRY(fn_dist_broadcast(dist, source->size, sizeof source->size));
  // A share each; all problems of the first rank that has some are told.
  for (int64_t i = dist->rank; i < 2 * count; i += dist->size) {
    if (fn_cube_source_check(source, seeds[i / 2], i % 2 ? FN_NEWTON : FN_GR) != FN_OK)
      fn_problem_note(&problems, "%s", fn_error_message());
  }
  return fn_dist_agree(dist, fn_problem_raise(&problems, FN_ERR_DATA, "raw cubes"));
}

typedef struct moments_job {
  fn_cube_source *source;
  const int64_t *seeds;
  double *cells;
  double *mean, *squares; // [cubes], 0 where another rank reads
} moments_job;

static fn_status measure(void *user, int64_t item) {
  const moments_job *job = user;
  uint64_t checksum;
  const int theory = item % 2 ? FN_NEWTON : FN_GR;
  FN_TRY(job->source->read(job->source, job->seeds[item / 2], theory, job->cells, &checksum));
  fn_cube_moments(job->cells, fn_cube_source_cells(job->source), &job->mean[item],
                  &job->squares[item]);
  return FN_OK;
}

/** Moments of all cubes from those of each: sum (x - m)^2 = sum over cubes of
 *  sum (x - m_c)^2 + n (m_c - m)^2, exact, so that every cube is read only once. */
static void join(int64_t cubes, int64_t cells, const double *mean, const double *squares,
                 fn_cube_statistics *s) {
  double unused, between, within;
  fn_cube_moments(mean, cubes, &s->mean, &between);
  fn_cube_moments(squares, cubes, &within, &unused);
  s->variance = within / (double)cells + between / (double)cubes;
}

fn_status fn_cube_statistics_compute(const fn_dist *dist, fn_cube_source *source,
                                     const int64_t *seeds, int64_t count, const fn_ticker *ticker,
                                     fn_cube_statistics *statistics) {
  const int64_t cells = fn_cube_source_cells(source), cubes = 2 * count;
  *statistics = (fn_cube_statistics){.cubes = cubes};
  moments_job job = {.source = source, .seeds = seeds};
  job.cells = malloc(sizeof(double) * (size_t)cells);
  job.mean = calloc((size_t)cubes, sizeof(double));
  job.squares = calloc((size_t)cubes, sizeof(double));
  fn_status status = FN_OK;
  if (!job.cells || !job.mean || !job.squares)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for a cube");
  status = fn_dist_agree(dist, status);
  if (status == FN_OK) status = fn_cube_rounds(dist, "statistics", cubes, measure, &job, ticker);
  // Each value is one rank's, and zero is what the others add to it: no rounding.
  if (status == FN_OK) status = fn_dist_sum(dist, job.mean, cubes);
  if (status == FN_OK) status = fn_dist_sum(dist, job.squares, cubes);
  free(job.cells);
  if (status == FN_OK) {
    join(cubes, cells, job.mean, job.squares, statistics);
    for (int64_t i = 0; i < cubes; i++)
      job.squares[i] /= (double)cells;
  }
  statistics->cube_mean = job.mean;
  statistics->cube_variance = job.squares;
  if (status != FN_OK) fn_cube_statistics_free(statistics);
  return status;
}

void fn_cube_statistics_free(fn_cube_statistics *statistics) {
  free(statistics->cube_mean);
  free(statistics->cube_variance);
  statistics->cube_mean = statistics->cube_variance = NULL;
}

/* ---- file --------------------------------------------------------------------------------------
 */

static bool put(hid_t where, const char *name, bool attribute, hid_t type, int64_t count,
                const void *values) {
  const hsize_t dim = (hsize_t)count;
  const hid_t space =
      attribute && count == 1 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &dim, NULL);
  hid_t made;
  bool good;
  if (attribute) {
    made = H5Acreate2(where, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    good = made >= 0 && H5Awrite(made, type, values) >= 0;
    if (made >= 0) H5Aclose(made);
  } else {
    const hid_t create = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(create, false); // the same bytes whenever it is made
    made = H5Dcreate2(where, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
    H5Pclose(create);
    good = made >= 0 && H5Dwrite(made, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
    if (made >= 0) H5Dclose(made);
  }
  H5Sclose(space);
  return good;
}

static bool put_text(hid_t where, const char *name, const char *text) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, strlen(text) + 1);
  const bool good = put(where, name, true, type, 1, text);
  H5Tclose(type);
  return good;
}

static bool put_cubes(hid_t group, const fn_statistics_entry *e) {
  const int64_t cubes = e->values.cubes;
  int64_t *seed = malloc(sizeof *seed * (size_t)cubes);
  uint8_t *theory = malloc(sizeof *theory * (size_t)cubes);
  bool good = seed && theory;
  for (int64_t i = 0; i < cubes && good; i++) {
    seed[i] = e->seeds[i / 2];
    theory[i] = i % 2 ? FN_NEWTON : FN_GR;
  }
  good = good && put(group, "seed", false, H5T_NATIVE_INT64, cubes, seed) &&
         put(group, "theory", false, H5T_NATIVE_UINT8, cubes, theory) &&
         put(group, "mean", false, H5T_NATIVE_DOUBLE, cubes, e->values.cube_mean) &&
         put(group, "variance", false, H5T_NATIVE_DOUBLE, cubes, e->values.cube_variance);
  free(seed);
  free(theory);
  return good;
}

static bool put_entry(hid_t file, const fn_statistics_entry *e) {
  char name[128];
  snprintf(name, sizeof name, "snap%s", e->snap);
  const hid_t group = H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  if (group < 0) return false;
  fn_text seeds = {0};
  fn_ranges_write(e->seeds, e->count, &seeds);
  const double values[3] = {e->values.mean, sqrt(e->values.variance), e->values.variance};
  const bool good =
      put(group, "values", false, H5T_NATIVE_DOUBLE, 3, values) && put_cubes(group, e) &&
      put(group, "mean", true, H5T_NATIVE_DOUBLE, 1, &values[0]) &&
      put(group, "std", true, H5T_NATIVE_DOUBLE, 1, &values[1]) &&
      put(group, "variance", true, H5T_NATIVE_DOUBLE, 1, &values[2]) &&
      put_text(group, "seeds", seeds.data ? seeds.data : "") &&
      put_text(group, "origin", e->origin) &&
      (isnan(e->redshift) || put(group, "redshift", true, H5T_NATIVE_DOUBLE, 1, &e->redshift));
  fn_text_free(&seeds);
  H5Gclose(group);
  return good;
}

fn_status fn_cube_statistics_write(const char *path, const fn_statistics_entry *entries,
                                   int count) {
  char temporary[4096], reason[512];
  hid_t file = -1;
  FN_TRY(fn_temporary_name(path, temporary, sizeof temporary));
  fn_hdf5_lock();
  fn_status status = fn_hdf5_image_create(1 << 16, &file);
  for (int i = 0; i < count && status == FN_OK; i++)
    if (!put_entry(file, &entries[i]))
      status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot make %s: %s", path,
                            fn_hdf5_reason(reason, sizeof reason));
  if (status == FN_OK) status = fn_hdf5_image_write(file, temporary, false);
  if (file >= 0) H5Fclose(file);
  fn_hdf5_unlock();
  return status == FN_OK ? fn_commit_file(temporary, path) : status;
}

static fn_status read_npy(const char *path, double values[3]) {
  char *bytes;
  size_t count;
  fn_npy_header header;
  FN_TRY(fn_file_read(path, &bytes, &count));
  fn_status status = fn_npy_parse(path, (const unsigned char *)bytes, count, &header);
  const bool good = status == FN_OK && header.kind == 'f' && header.item == 8 && !header.swap &&
                    header.ndim == 1 && header.dim[0] == 3 &&
                    (size_t)header.offset + 3 * sizeof(double) <= count;
  if (good) memcpy(values, bytes + header.offset, 3 * sizeof(double));
  free(bytes);
  FN_TRY(status);
  FN_CHECK(good, FN_ERR_DATA, "%s: expected three float64: mean, std, variance", path);
  return FN_OK;
}

/** Name of the group of a snapshot, or of the only one. */
static fn_status choose_group(hid_t file, const char *path, const char *snap, char *name,
                              size_t size) {
  H5G_info_t info = {0};
  snprintf(name, size, "snap%s", snap ? snap : "");
  if (snap && H5Lexists(file, name, H5P_DEFAULT) > 0) return FN_OK;
  FN_CHECK(H5Gget_info(file, &info) >= 0 && info.nlinks > 0, FN_ERR_DATA, "%s holds no statistics",
           path);
  FN_CHECK(!snap, FN_ERR_DATA, "%s holds no statistics of snap %s", path, snap);
  FN_CHECK(info.nlinks == 1, FN_ERR_DATA, "%s holds statistics of %d snaps: name one", path,
           (int)info.nlinks);
  H5Lget_name_by_idx(file, ".", H5_INDEX_NAME, H5_ITER_INC, 0, name, size, H5P_DEFAULT);
  return FN_OK;
}

static bool get_text(hid_t group, const char *name, char **text) {
  *text = NULL;
  if (H5Aexists(group, name) <= 0) return true;
  const hid_t attribute = H5Aopen(group, name, H5P_DEFAULT), type = H5Aget_type(attribute);
  const size_t size = H5Tget_size(type);
  bool good = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0;
  if (good) *text = calloc(size + 1, 1);
  good = *text && H5Aread(attribute, type, *text) >= 0;
  H5Tclose(type);
  H5Aclose(attribute);
  return good;
}

static fn_status read_group(hid_t file, const char *path, const char *snap, double values[3],
                            char **seeds) {
  char name[128];
  FN_TRY(choose_group(file, path, snap, name, sizeof name));
  const hid_t group = H5Gopen2(file, name, H5P_DEFAULT);
  FN_CHECK(group >= 0, FN_ERR_DATA, "%s: %s is not a group of statistics", path, name);
  const hid_t set = H5Dopen2(group, "values", H5P_DEFAULT);
  const hid_t space = set >= 0 ? H5Dget_space(set) : -1;
  const bool good = space >= 0 && H5Sget_simple_extent_npoints(space) == 3 &&
                    H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0 &&
                    get_text(group, "seeds", seeds);
  if (space >= 0) H5Sclose(space);
  if (set >= 0) H5Dclose(set);
  H5Gclose(group);
  FN_CHECK(good, FN_ERR_DATA, "%s: %s/values is not mean, std and variance", path, name);
  return FN_OK;
}

fn_status fn_cube_statistics_read(const char *path, const char *snap, double *mean, double *std,
                                  double *variance, char **seeds) {
  double values[3];
  *seeds = NULL;
  if (fn_text_ends(path, ".npy")) {
    FN_TRY(read_npy(path, values));
  } else {
    hid_t file = -1;
    fn_hdf5_lock();
    fn_status status = fn_hdf5_open_file(path, &file);
    if (status == FN_OK) status = read_group(file, path, snap, values, seeds);
    if (file >= 0) H5Fclose(file);
    fn_hdf5_unlock();
    FN_TRY(status);
  }
  *mean = values[0];
  *std = values[1];
  *variance = values[2];
  FN_CHECK(isfinite(*mean) && isfinite(*std) && *std > 0, FN_ERR_DATA,
           "%s: expected a mean and a std above 0, found %g and %g", path, *mean, *std);
  return FN_OK;
}
