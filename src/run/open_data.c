#include "run/open_data.h"

#include <stdlib.h>

#include "base/log.h"
#include "data/cube_queue.h"
#include "data/cubes.h"

/** A file of cubes, and whether labels are asked for. */
typedef struct origin {
  const char *path;
  bool unlabelled;
} origin;

/** Metadata as bytes on rank 0. */
static fn_status read_metadata(const origin *from, void **bytes, size_t *size) {
  fn_cube_file *file;
  FN_TRY(from->unlabelled ? fn_cube_file_open_unlabelled(from->path, &file)
                          : fn_cube_file_open(from->path, &file));
  const fn_status status = fn_cube_file_pack(file, bytes, size);
  fn_cube_file_close(file);
  return status;
}

/** The same bytes on every rank, malloc'ed. Collective. */
static fn_status share_metadata(const origin *from, const fn_dist *dist, void **bytes,
                                size_t *size) {
  *bytes = NULL;
  *size = 0;
  FN_TRY(fn_dist_agree(dist, dist->rank == 0 ? read_metadata(from, bytes, size) : FN_OK));
  uint64_t count = *size;
  fn_status status = fn_dist_broadcast(dist, &count, sizeof count);
  *size = (size_t)count;
  if (status == FN_OK && dist->rank != 0) *bytes = malloc(*size);
  if (status == FN_OK && !*bytes)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for %zu bytes", *size);
  status = fn_dist_agree(dist, status);
  if (status == FN_OK) status = fn_dist_broadcast(dist, *bytes, (int64_t)*size);
  if (status == FN_OK) return FN_OK;
  free(*bytes);
  return status;
}

/** Metadata of the file, or of its copy on a disk of each node (data.stage). Collective. */
static fn_status find_metadata(const fn_run *run, const origin *from, const fn_dist *dist,
                               void **bytes, size_t *size) {
  char *copy = NULL;
  if (run->data.stage)
    FN_TRY(fn_dist_agree(dist, fn_cube_stage(from->path, run->data.stage, dist->comm, &copy)));
  const origin used = {copy ? copy : from->path, from->unlabelled};
  const fn_status status = share_metadata(&used, dist, bytes, size);
  free(copy);
  return status;
}

/** From the metadata, which are the same on all ranks. Collective. */
static fn_status make_cubes(const fn_run *run, fn_stage stage, const fn_dist *dist,
                            const void *bytes, size_t size, fn_dataset **dataset) {
  fn_cube_file *file = NULL;
  fn_status status = fn_cube_file_unpack(bytes, size, &file);
  if (status == FN_OK) status = fn_dataset_create_cubes(run, stage, file, dataset);
  FN_TRY(fn_dist_agree(dist, status));
  return fn_dist_agree(dist, fn_dataset_join(*dataset, dist->comm));
}

static fn_status open_cubes(const fn_run *run, fn_stage stage, const fn_dist *dist,
                            fn_dataset *sibling, fn_dataset **dataset) {
  const origin from = {.path = run->data.cubes.file};
  void *bytes = NULL;
  size_t size;
  if (sibling)
    FN_TRY(fn_dist_agree(dist, fn_cube_file_pack(fn_dataset_cube_file(sibling), &bytes, &size)));
  else
    FN_TRY(find_metadata(run, &from, dist, &bytes, &size));
  const fn_status status = make_cubes(run, stage, dist, bytes, size, dataset);
  free(bytes);
  return status;
}

/** What was opened, if all ranks did. */
static fn_status keep(fn_status status, fn_dataset **dataset) {
  if (status == FN_OK) return FN_OK;
  fn_dataset_destroy(*dataset); // good here, but not for all
  *dataset = NULL;
  return status;
}

/** The default loss is one of fields. Said where the training's data are looked at. */
static void doubt_loss(const fn_run *run, fn_stage stage) {
  if (stage == FN_STAGE_TRAIN && fn_run_has_cubes(run) && !fn_run_has_logits(run))
    fn_log(FN_WARN,
           "%s: with loss %s the network's outputs are values near 0 and 1, but accuracies and all "
           "that fieldnet test tells of cubes take them for logits; bce_with_logits makes logits",
           fn_run_where(run, "loss.name"), run->loss.name);
}

fn_status fn_data_open(const fn_run *run, fn_stage stage, const fn_dist *dist, fn_dataset *sibling,
                       fn_dataset **dataset) {
  *dataset = NULL;
  doubt_loss(run, stage);
  return keep(fn_run_has_cubes(run) ? open_cubes(run, stage, dist, sibling, dataset)
                                    : fn_dist_agree(dist, fn_dataset_create(run, stage, dataset)),
              dataset);
}

fn_status fn_data_open_unlabelled(const fn_run *run, const char *path, const fn_dist *dist,
                                  fn_dataset **dataset) {
  const origin from = {path, true};
  void *bytes = NULL;
  size_t size;
  *dataset = NULL;
  FN_TRY(find_metadata(run, &from, dist, &bytes, &size));
  const fn_status status = make_cubes(run, FN_STAGE_PREDICT, dist, bytes, size, dataset);
  free(bytes);
  return keep(status, dataset);
}
