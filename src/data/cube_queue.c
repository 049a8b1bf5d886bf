/* Cubes read ahead by one thread per rank. */
#include "data/cube_queue.h"

#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/system.h"
#include "data/cube_reader.h"

enum { NOT_READ = -1, RELEASED = -2, WANTS_NO_MORE = INT_MAX };

struct fn_cube_queue {
  fn_cube_reader *reader;
  fn_cube_queue_options options;
  MPI_Comm comm;
  bool lock_step; // rounds are agreed over the ranks; else MPI is not called by the thread
  int64_t *list;
  int64_t count;
  int64_t bytes; // of a cube
  fn_cube_ring ring;
  size_t memory_bytes;
  pthread_t thread;
  bool started;
  pthread_mutex_t lock;
  pthread_cond_t room, ready;
  // Guarded by lock.
  int32_t *slot; // of each position: where its cells are, NOT_READ or RELEASED; shape [count]
  int32_t *free; // slots without cells, shape [slots]
  int64_t free_count;
  bool stop;
  fn_status status; // of the first failure, with its message
  char message[4096];
  fn_cube_queue_figures figures;
};

static const char *const path_names[] = {"auto", "collective", "independent", "direct"};

const char *fn_cube_path_name(fn_cube_path path) {
  return path_names[path];
}

fn_cube_path fn_cube_path_named(const char *name) {
  for (fn_cube_path path = FN_CUBES_AUTO; path <= FN_CUBES_DIRECT; path++)
    if (strcmp(path_names[path], name) == 0) return path;
  return FN_CUBES_AUTO;
}

fn_cube_path fn_cube_path_choose(const fn_cube_file_info *info, int ranks, bool thread_multiple,
                                 const char **reason) {
  const char *ignored;
  if (!reason) reason = &ignored;
  if (ranks > 1 && thread_multiple && info->packed) {
    *reason = "all cubes are in one dataset, which several ranks read together";
    return FN_CUBES_COLLECTIVE;
  }
  if (info->direct) {
    *reason = ranks == 1     ? "one rank, and every cube lies in one piece in the file"
              : info->packed ? "every cube lies in one piece in the file, and reading together "
                               "needs MPI_THREAD_MULTIPLE, which this MPI library does not give"
                             : "every cube lies in one piece in the file";
    return FN_CUBES_DIRECT;
  }
  *reason = ranks == 1     ? "one rank, and cubes are chunked, compressed or of another type"
            : info->packed ? "cubes are chunked, compressed or of another type, and reading "
                             "together needs MPI_THREAD_MULTIPLE"
                           : "each cube is a dataset that is chunked, compressed or of another "
                             "type";
  return FN_CUBES_INDEPENDENT;
}

/* ---- the reading thread ------------------------------------------------------------------------
 */

/** Cubes that this rank has room for, at least one, after waiting for it; a large number when it
 *  wants no more. */
static int wait_for_room(fn_cube_queue *q, int64_t next) {
  int room = WANTS_NO_MORE;
  pthread_mutex_lock(&q->lock);
  while (!q->stop && next < q->count && q->free_count == 0)
    pthread_cond_wait(&q->room, &q->lock);
  if (!q->stop && next < q->count) room = (int)q->free_count;
  pthread_mutex_unlock(&q->lock);
  return room;
}

/** Positions next ... next + count - 1, as far as this rank wants them. */
static void fill_round(fn_cube_queue *q, int64_t next, int count, fn_cube_round *round) {
  round->count = count;
  pthread_mutex_lock(&q->lock);
  for (int i = 0; i < count; i++) {
    const bool wanted = next + i < q->count && q->free_count > 0 && !q->stop;
    round->cube[i] = wanted ? q->list[next + i] : -1;
    round->slot[i] = wanted ? q->free[--q->free_count] : -1;
  }
  pthread_mutex_unlock(&q->lock);
}

static fn_status read_round(fn_cube_queue *q, int64_t next, fn_cube_round *round) {
  const double start = fn_clock();
  int64_t cubes = 0;
  FN_TRY(fn_cube_reader_round(q->reader, round));
  const double seconds = fn_clock() - start;
  for (int i = 0; i < round->count; i++) {
    if (round->cube[i] < 0) continue;
    cubes++;
    if (q->options.prepare)
      q->options.prepare(q->options.user, next + i, round->cube[i],
                         q->ring.memory + round->slot[i] * q->bytes);
  }
  pthread_mutex_lock(&q->lock);
  q->figures.cubes += cubes;
  q->figures.bytes += cubes * q->bytes;
  if (cubes) q->figures.reading += seconds;
  pthread_mutex_unlock(&q->lock);
  return FN_OK;
}

/** Hand the cubes of a round to the consumer, or a failure. */
static void publish(fn_cube_queue *q, int64_t next, const fn_cube_round *round, fn_status status) {
  pthread_mutex_lock(&q->lock);
  if (status != FN_OK) {
    q->status = status;
    snprintf(q->message, sizeof q->message, "%s", fn_error_message());
  }
  for (int i = 0; i < round->count && status == FN_OK; i++) {
    if (round->slot[i] < 0) continue;
    if (q->slot[next + i] == RELEASED)
      q->free[q->free_count++] = round->slot[i];
    else
      q->slot[next + i] = round->slot[i];
  }
  fn_cube_reader_figures(q->reader, &q->figures);
  pthread_cond_broadcast(&q->ready);
  pthread_mutex_unlock(&q->lock);
}

/** Ranks go through their lists in lock step, position by position, a few of them in a round: as
 *  many as every rank has room for. Each round ends with an agreement, so that after a failure
 *  anywhere all leave. A rank that is to stop, or has no more cubes, goes on taking part in what
 * the others read, until nobody wants any. */
static void *read_ahead(void *argument) {
  fn_cube_queue *q = argument;
  const int batch = fn_cube_reader_batch(q->reader);
  fn_status status = FN_OK;
  fn_cube_round round = {0};
  for (int64_t next = 0; status == FN_OK; next += round.count) {
    int room = wait_for_room(q, next);
    if (q->lock_step) status = fn_cube_least(q->comm, room, &room);
    if (room == WANTS_NO_MORE && status == FN_OK) break;
    if (status == FN_OK) {
      fill_round(q, next, room < batch ? room : batch, &round);
      status = read_round(q, next, &round);
      if (q->lock_step) status = fn_cube_agree(q->comm, status);
    }
    publish(q, next, &round, status);
  }
  return NULL;
}

static fn_status start_thread(fn_cube_queue *q) {
  const int error = fn_thread_start(&q->thread, read_ahead, q);
  FN_CHECK(!error, FN_ERR_MEMORY, "cannot start the thread that reads cubes: %s", strerror(error));
  q->started = true;
  return FN_OK;
}

/* ---- creation ----------------------------------------------------------------------------------
 */

static fn_status check_path(const fn_cube_file_info *info, fn_cube_path path, bool multiple) {
  FN_CHECK(path != FN_CUBES_COLLECTIVE || multiple, FN_ERR_CONFIG,
           "data.read: %s needs MPI_THREAD_MULTIPLE, which this MPI library does not give",
           fn_cube_path_name(path));
  FN_CHECK(path != FN_CUBES_DIRECT || info->direct, FN_ERR_CONFIG,
           "data.read: %s needs cubes that lie in one piece as they are in memory, but %s is "
           "chunked, compressed (filter: %s) or holds %s, which is converted",
           fn_cube_path_name(path), info->path, info->filter, info->stored);
  return FN_OK;
}

static fn_status copy_list(fn_cube_queue *q, const fn_cube_file_info *info, const int64_t *list,
                           int64_t count) {
  FN_CHECK(count >= 0 && q->options.resident >= 1, FN_ERR_INTERNAL,
           "a queue of %lld cubes, %lld of them resident", (long long)count,
           (long long)q->options.resident);
  for (int64_t i = 0; i < count; i++)
    FN_CHECK(list[i] >= 0 && list[i] < info->cubes, FN_ERR_INTERNAL, "%s has no cube number %lld",
             info->path, (long long)list[i]);
  q->count = count;
  q->ring.slots = q->options.resident < count ? q->options.resident : count;
  q->list = malloc(((size_t)count + 1) * sizeof *q->list);
  q->slot = malloc(((size_t)count + 1) * sizeof *q->slot);
  q->free = malloc(((size_t)q->ring.slots + 1) * sizeof *q->free);
  FN_CHECK(q->list && q->slot && q->free, FN_ERR_MEMORY, "no memory for a list of %lld cubes",
           (long long)count);
  if (count) memcpy(q->list, list, (size_t)count * sizeof *list);
  for (int64_t i = 0; i < count; i++)
    q->slot[i] = NOT_READ;
  for (int64_t i = 0; i < q->ring.slots; i++)
    q->free[q->free_count++] = (int32_t)(q->ring.slots - 1 - i);
  q->memory_bytes = (size_t)q->ring.slots * (size_t)q->bytes;
  if (q->ring.slots && fn_pages_allocate(q->memory_bytes, (void **)&q->ring.memory) != FN_OK)
    return fn_error_context(FN_ERR_MEMORY, "%lld cubes read ahead", (long long)q->ring.slots);
  return FN_OK;
}

static fn_status agree(const fn_cube_queue *q, fn_status status) {
  return q->lock_step ? fn_cube_agree(q->comm, status) : status;
}

static fn_status set_up(fn_cube_queue *q, fn_cube_file *file, const int64_t *list, int64_t count,
                        fn_cube_path path) {
  const fn_cube_file_info *info = fn_cube_file_get_info(file);
  q->bytes = fn_cube_file_bytes(file);
  FN_TRY(agree(q, copy_list(q, info, list, count)));
  FN_TRY(fn_cube_reader_create(file, q->comm, path, q->lock_step, q->ring, &q->reader));
  fn_cube_reader_figures(q->reader, &q->figures);
  const fn_status status = start_thread(q);
  // A rank without a thread would be missed by the others for ever.
  if (status != FN_OK && q->lock_step) MPI_Abort(q->comm, status);
  return status;
}

fn_status fn_cube_queue_create(fn_cube_file *file, MPI_Comm comm, const int64_t *list,
                               int64_t count, const fn_cube_queue_options *options,
                               fn_cube_queue **queue) {
  int size, level;
  *queue = NULL;
  MPI_Comm_size(comm, &size);
  MPI_Query_thread(&level);
  const fn_cube_file_info *info = fn_cube_file_get_info(file);
  fn_cube_path path = options->path;
  if (path == FN_CUBES_AUTO)
    path = fn_cube_path_choose(info, size, level == MPI_THREAD_MULTIPLE, NULL);
  FN_TRY(check_path(info, path, level == MPI_THREAD_MULTIPLE));
  fn_cube_queue *q = calloc(1, sizeof *q);
  FN_CHECK(q, FN_ERR_MEMORY, "no memory for a queue of cubes");
  q->options = *options;
  q->comm = MPI_COMM_NULL;
  q->lock_step = level == MPI_THREAD_MULTIPLE && (size > 1 || path == FN_CUBES_COLLECTIVE);
  pthread_mutex_init(&q->lock, NULL);
  pthread_cond_init(&q->room, NULL);
  pthread_cond_init(&q->ready, NULL);
  fn_status status = FN_OK;
  if (MPI_Comm_dup(comm, &q->comm) != MPI_SUCCESS)
    status = fn_error_set(FN_ERR_INTERNAL, __FILE__, __LINE__, "cannot duplicate a communicator");
  if (status == FN_OK) status = set_up(q, file, list, count, path);
  if (status == FN_OK) {
    *queue = q;
    return FN_OK;
  }
  fn_cube_queue_destroy(q);
  return status;
}

fn_status fn_cube_queue_destroy(fn_cube_queue *q) {
  if (!q) return FN_OK;
  pthread_mutex_lock(&q->lock);
  q->stop = true;
  pthread_cond_broadcast(&q->room);
  pthread_mutex_unlock(&q->lock);
  if (q->started) pthread_join(q->thread, NULL);
  fn_cube_reader_destroy(q->reader);
  if (q->comm != MPI_COMM_NULL) MPI_Comm_free(&q->comm);
  if (q->ring.memory) fn_pages_free(q->ring.memory, q->memory_bytes);
  pthread_mutex_destroy(&q->lock);
  pthread_cond_destroy(&q->room);
  pthread_cond_destroy(&q->ready);
  free(q->list);
  free(q->slot);
  free(q->free);
  free(q);
  return FN_OK;
}

/* ---- the consumer's side -----------------------------------------------------------------------
 */

fn_status fn_cube_queue_get(fn_cube_queue *q, int64_t position, const void **cells) {
  *cells = NULL;
  FN_CHECK(position >= 0 && position < q->count, FN_ERR_INTERNAL,
           "cube %lld of a queue of %lld was asked for", (long long)position, (long long)q->count);
  const double start = fn_clock();
  pthread_mutex_lock(&q->lock);
  while (q->slot[position] == NOT_READ && q->status == FN_OK)
    pthread_cond_wait(&q->ready, &q->lock);
  const int32_t slot = q->slot[position];
  const fn_status status = q->status;
  q->figures.waited += fn_clock() - start;
  pthread_mutex_unlock(&q->lock);
  FN_CHECK(slot != RELEASED, FN_ERR_INTERNAL, "cube %lld of a queue was released already",
           (long long)position);
  if (slot == NOT_READ) {
    // The message does not change any more. It names its own place where that matters.
    fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "%s", q->message);
    return status;
  }
  *cells = q->ring.memory + slot * q->bytes;
  return FN_OK;
}

void fn_cube_queue_release(fn_cube_queue *q, int64_t position) {
  if (position < 0 || position >= q->count) return;
  pthread_mutex_lock(&q->lock);
  const int32_t slot = q->slot[position];
  q->slot[position] = RELEASED;
  if (slot >= 0) {
    q->free[q->free_count++] = slot;
    pthread_cond_signal(&q->room);
  }
  pthread_mutex_unlock(&q->lock);
}

void fn_cube_queue_get_figures(fn_cube_queue *q, fn_cube_queue_figures *figures) {
  pthread_mutex_lock(&q->lock);
  *figures = q->figures;
  pthread_mutex_unlock(&q->lock);
}
