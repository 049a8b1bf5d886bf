/* Raw files as a simulation writes them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "field/hdf5.h"
#include "field/safe_write.h"
#include "run/cube_jobs.h"

typedef struct raw_job {
  fn_cube_source *source;
  const fn_raw_cubes *raw;
  const int64_t *seeds;
  double *cells;
} raw_job;

static fn_status item_path(const raw_job *job, int64_t item, char *path, size_t size) {
  return fn_raw_cubes_path(job->raw, job->raw->snap[0], job->seeds[item / 2],
                           item % 2 ? FN_NEWTON : FN_GR, path, size);
}

/** One chunk covers the cube, as in the simulation code's files. Lock held. */
static bool put_cube(hid_t file, const char *dataset, const int64_t size[3], const double *cells) {
  const hsize_t dim[3] = {(hsize_t)size[0], (hsize_t)size[1], (hsize_t)size[2]};
  const hid_t space = H5Screate_simple(3, dim, NULL), create = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(create, 3, dim);
  H5Pset_obj_track_times(create, false); // the same bytes whenever it is made
  const hid_t set =
      H5Dcreate2(file, dataset, H5T_IEEE_F64LE, space, H5P_DEFAULT, create, H5P_DEFAULT);
  const bool good =
      set >= 0 && H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, cells) >= 0;
  if (set >= 0) H5Dclose(set);
  H5Pclose(create);
  H5Sclose(space);
  return good;
}

static fn_status write_file(const raw_job *job, const char *path) {
  char temporary[4096], reason[512];
  hid_t file = -1;
  FN_TRY(fn_temporary_name(path, temporary, sizeof temporary));
  fn_hdf5_lock();
  fn_status status =
      fn_hdf5_image_create((size_t)fn_cube_source_cells(job->source) * 8 + 65536, &file);
  if (status == FN_OK && !put_cube(file, job->raw->dataset, job->source->size, job->cells))
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot make %s: %s", path,
                          fn_hdf5_reason(reason, sizeof reason));
  if (status == FN_OK) status = fn_hdf5_image_write(file, temporary, false);
  if (file >= 0) H5Fclose(file);
  fn_hdf5_unlock();
  return status == FN_OK ? fn_commit_file(temporary, path) : status;
}

static fn_status make_cube(void *user, int64_t item) {
  const raw_job *job = user;
  char path[4096], folder[4096];
  uint64_t checksum;
  FN_TRY(job->source->read(job->source, job->seeds[item / 2], item % 2 ? FN_NEWTON : FN_GR,
                           job->cells, &checksum));
  FN_TRY(item_path(job, item, path, sizeof path));
  fn_folder_of(path, folder, sizeof folder);
  FN_TRY(fn_make_directories(folder));
  return write_file(job, path);
}

/** Before anything is written: nothing in the way. */
static fn_status check_absent(const fn_dist *dist, const raw_job *job, int64_t items) {
  char path[4096];
  for (int64_t i = dist->rank; i < items; i += dist->size) {
    FN_TRY(item_path(job, i, path, sizeof path));
    FN_CHECK(!fn_file_exists(path), FN_ERR_DATA, "%s exists; --force replaces it", path);
  }
  return FN_OK;
}

fn_status fn_cube_write_raw(const fn_dist *dist, fn_cube_source *source, const fn_raw_cubes *raw,
                            const int64_t *seeds, int64_t count, bool force,
                            const fn_ticker *ticker) {
  raw_job job = {.source = source, .raw = raw, .seeds = seeds};
  job.cells = malloc(sizeof(double) * (size_t)fn_cube_source_cells(source));
  fn_status status = FN_OK;
  if (!job.cells) status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for a cube");
  if (status == FN_OK && !force) status = check_absent(dist, &job, 2 * count);
  status = fn_dist_agree(dist, status);
  if (status == FN_OK) status = fn_cube_rounds(dist, "cubes", 2 * count, make_cube, &job, ticker);
  free(job.cells);
  return status;
}
