#include "data/cube_feed.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "data/cube_parts.h"
#include "data/cube_queue.h"
#include "data/cube_reader.h"

struct fn_cube_feed {
  fn_dataset *dataset;
  int64_t epoch;
  int64_t *list;     /**< shape [count] */
  int32_t *position; /**< of the cube of each sample in the queue's list, shape [count] */
  int64_t count;
  int64_t *cube;      /**< the queue's list: cubes of the file, shape [cubes] */
  double *mean;       /**< to be taken away from each, when it is there; shape [cubes] */
  atomic_llong *left; /**< samples still to be cut from each, shape [cubes] */
  int64_t cubes;
  fn_cube_queue *queue;
};

bool fn_cube_feed_needed(const fn_dataset *dataset) {
  return dataset->cubes && dataset->cubes->comm != MPI_COMM_NULL;
}

fn_status fn_cube_feed_agree(const fn_dataset *dataset, fn_status status) {
  return fn_cube_agree(dataset->cubes->comm, status);
}

/* ---- which cubes, in which order --------------------------------------------------------------
 */

static fn_status list_cubes(fn_cube_feed *feed) {
  const fn_dataset *dataset = feed->dataset;
  const int64_t files = dataset->info.files, crops = dataset->info.crops;
  int32_t *place = malloc((size_t)files * sizeof *place);
  feed->position = malloc((size_t)(feed->count + 1) * sizeof *feed->position);
  feed->cube = malloc((size_t)files * sizeof *feed->cube);
  feed->mean = malloc((size_t)files * sizeof *feed->mean);
  feed->left = calloc((size_t)files, sizeof *feed->left);
  if (!place || !feed->position || !feed->cube || !feed->mean || !feed->left) {
    free(place);
    FN_FAIL(FN_ERR_MEMORY, "no memory for the order of %lld samples", (long long)feed->count);
  }
  for (int64_t f = 0; f < files; f++)
    place[f] = -1;
  for (int64_t i = 0; i < feed->count; i++) {
    const int64_t file = feed->list[i] / crops;
    if (place[file] < 0) {
      place[file] = (int32_t)feed->cubes;
      feed->cube[feed->cubes++] = dataset->cubes->file_cube[file];
    }
    feed->position[i] = place[file];
    feed->left[place[file]]++;
  }
  free(place);
  return FN_OK;
}

/** Cubes that a rank must be able to hold for no rank ever to wait in a circle: at batch t the
 *  ranks need cubes up to newest(t), and none has let go of any from oldest(t) on. Reading goes
 *  round by round for all, so it stops when one rank is full: it must not be full as long as
 * another needs more at the same batch. Collective. */
static fn_status find_least(const fn_cube_feed *feed, int64_t batch, int64_t *least) {
  const MPI_Comm comm = feed->dataset->cubes->comm;
  int64_t batches = (feed->count + batch - 1) / batch, most;
  MPI_Allreduce(&batches, &most, 1, MPI_INT64_T, MPI_MAX, comm);
  // newest, then -oldest: both by MPI_MAX; a rank that is through needs and holds nothing.
  int32_t *edge = malloc((size_t)(2 * most + 1) * sizeof *edge);
  const fn_status status = fn_cube_feed_agree(
      feed->dataset, edge ? FN_OK
                          : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__,
                                         "no memory to plan %lld batches", (long long)most));
  if (status != FN_OK) {
    free(edge);
    return status;
  }
  int32_t *newest = edge, *oldest = edge + most;
  for (int64_t t = 0; t < 2 * most; t++)
    edge[t] = INT32_MIN / 2;
  for (int64_t i = 0; i < feed->count; i++) // positions rise by first need: the last is the newest
    if (feed->position[i] > newest[i / batch]) newest[i / batch] = feed->position[i];
  for (int64_t i = feed->count - 1; i >= 0; i--)
    if (-feed->position[i] > oldest[i / batch]) oldest[i / batch] = -feed->position[i];
  for (int64_t t = 1; t < batches; t++)
    if (newest[t] < newest[t - 1]) newest[t] = newest[t - 1];
  for (int64_t t = batches - 2; t >= 0; t--)
    if (oldest[t] < oldest[t + 1]) oldest[t] = oldest[t + 1];
  const int64_t length = 2 * most, piece = 1 << 24;
  for (int64_t at = 0; at < length; at += piece)
    MPI_Allreduce(MPI_IN_PLACE, edge + at, (int)(length - at < piece ? length - at : piece),
                  MPI_INT32_T, MPI_MAX, comm);
  *least = 1;
  for (int64_t t = 0; t < most; t++)
    if (newest[t] + oldest[t] + 1 > *least) *least = newest[t] + oldest[t] + 1;
  free(edge);
  return FN_OK;
}

/* ---- life ------------------------------------------------------------------------------------ */

/** How many cubes are held: what the memory allows, or when nothing is said the least and half as
 *  many again to read ahead. */
static fn_status find_resident(const fn_cube_feed *feed, int64_t least, int64_t *resident) {
  const fn_run *run = feed->dataset->run;
  const int64_t bytes = fn_cubes_bytes(feed->dataset);
  *resident = least + (least + 1) / 2;
  char budget[32], needed[32];
  if (run->data.read_memory > 0) {
    *resident = run->data.read_memory / bytes;
    // Seen before the first epoch, but for parts that an earlier start with other ranks left over.
    if (*resident < least)
      return fn_run_fail(
          run, "data.read_memory",
          "%s hold %lld cubes, but what is left of this epoch needs %lld at once: at "
          "least %lld bytes (%s)",
          fn_text_bytes((double)run->data.read_memory, budget, sizeof budget), (long long)*resident,
          (long long)least, (long long)(least * bytes),
          fn_text_bytes((double)(least * bytes), needed, sizeof needed));
  }
  if (*resident > feed->cubes) *resident = feed->cubes > 0 ? feed->cubes : 1;
  return FN_OK;
}

/** How cubes are read, and in how much memory: once per stage on rank 0. */
static void announce(const fn_dataset *dataset, int64_t cubes, int64_t resident, int64_t least) {
  const fn_run *run = dataset->run;
  fn_cube_path path = fn_cube_path_named(run->data.read);
  const char *reason = "data.read";
  int ranks, level;
  char bytes[32];
  MPI_Comm_size(dataset->cubes->comm, &ranks);
  MPI_Query_thread(&level);
  if (path == FN_CUBES_AUTO)
    path = fn_cube_path_choose(fn_cube_file_get_info(dataset->cubes->file), ranks,
                               level == MPI_THREAD_MULTIPLE, &reason);
  // Predictions may be of a thousand files with a cube in each.
  fn_log(dataset->stage == FN_STAGE_PREDICT ? FN_DETAIL : FN_INFO,
         "%s cubes: %s reading (%s); %lld of %lld per rank in memory, %s (%lld are needed)",
         fn_stage_name(dataset->stage), fn_cube_path_name(path), reason, (long long)resident,
         (long long)cubes,
         fn_text_bytes((double)(resident * fn_cubes_bytes(dataset)), bytes, sizeof bytes),
         (long long)least);
}

static fn_status prepare(fn_cube_feed *feed, const int64_t *list) {
  feed->list = malloc((size_t)(feed->count + 1) * sizeof *feed->list);
  FN_CHECK(feed->list, FN_ERR_MEMORY, "no memory for a list of %lld samples",
           (long long)feed->count);
  if (feed->count > 0) memcpy(feed->list, list, (size_t)feed->count * sizeof *list);
  return list_cubes(feed);
}

/** What is done to a cube once, on the reading thread. */
static void measure(void *user, int64_t position, int64_t cube, void *cells) {
  (void)cube;
  const fn_cube_feed *feed = user;
  feed->mean[position] = fn_cubes_mean(feed->dataset, cells);
}

static fn_status start(fn_cube_feed *feed, int64_t batch) {
  fn_dataset *dataset = feed->dataset;
  int64_t least, resident = 1;
  FN_TRY(find_least(feed, batch, &least));
  FN_TRY(fn_cube_feed_agree(dataset, find_resident(feed, least, &resident)));
  if (!dataset->cubes->announced) announce(dataset, feed->cubes, resident, least);
  dataset->cubes->announced = true;
  const fn_cube_queue_options options = {.path = fn_cube_path_named(dataset->run->data.read),
                                         .resident = resident,
                                         .prepare = measure,
                                         .user = feed};
  return fn_cube_queue_create(dataset->cubes->file, dataset->cubes->comm, feed->cube, feed->cubes,
                              &options, &feed->queue);
}

fn_status fn_cube_feed_create(fn_dataset *dataset, fn_status so_far, int64_t epoch,
                              const int64_t *list, int64_t count, int64_t batch,
                              fn_cube_feed **feed) {
  *feed = NULL;
  fn_status status = so_far;
  fn_cube_feed *made = status == FN_OK ? calloc(1, sizeof *made) : NULL;
  if (status == FN_OK && !made)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory to feed cubes");
  if (made) {
    made->dataset = dataset;
    made->epoch = epoch;
    made->count = count;
    status = prepare(made, list);
  }
  status = fn_cube_feed_agree(dataset, status);
  if (status == FN_OK) status = start(made, batch);
  if (status == FN_OK)
    *feed = made;
  else
    fn_cube_feed_destroy(made);
  return status;
}

void fn_cube_feed_destroy(fn_cube_feed *feed) {
  if (!feed) return;
  if (feed->queue && fn_cube_queue_destroy(feed->queue) != FN_OK)
    fn_error_clear(); // whoever needed the cubes has been told
  free(feed->list);
  free(feed->position);
  free(feed->cube);
  free(feed->mean);
  free(feed->left);
  free(feed);
}

fn_status fn_cube_feed_sample(fn_cube_feed *feed, int64_t index, const fn_cube_room *room) {
  const int64_t position = feed->position[index];
  const void *cells;
  FN_TRY(fn_cube_queue_get(feed->queue, position, &cells));
  fn_cubes_cut(feed->dataset, feed->epoch, feed->list[index], cells, feed->mean[position], room);
  if (atomic_fetch_sub(&feed->left[position], 1) == 1) fn_cube_queue_release(feed->queue, position);
  return FN_OK;
}
