#include "run/bench_cubes.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/random.h"
#include "base/system.h"
#include "base/text.h"
#include "data/cube_queue.h"

/** Cubes that are held while reading ahead: at least some, and as many as fill some memory. They
 * are there before the clock starts and do not count. */
enum { HELD_LEAST = 3, HELD_MOST = 64, HELD_BYTES = 64 << 20, REPEATS_MOST = 1000 };

/** Plain reading, and the three paths of the queue at their own numbers. */
enum { PLAIN = FN_CUBES_AUTO, WAYS = FN_CUBES_DIRECT + 1 };

typedef struct bench {
  const fn_dist *dist;
  const fn_bench_cubes_options *options;
  FILE *out;
  fn_cube_file *file;
  const fn_cube_file_info *info;
  int fd;          // for plain reading
  int64_t bytes;   // of the file
  int64_t cube;    // bytes of a cube in memory
  int64_t held;    // cubes in memory at a time
  int64_t *list;   // cubes of this rank, shape [count]
  int64_t count;   // the same on every rank
  int64_t timed;   // bytes that count, of all ranks
  float *cells;    // as many cubes as the queue holds: where bytes go matters
  double *seconds; // shape [2, WAYS, repeats]: cached, then cold
  double *work;    // the same for seconds of processors, of all ranks
  fn_cube_queue_figures figures[WAYS];
} bench;

static double *seconds_of(bench *b, int cold, int way) {
  return b->seconds + ((int64_t)cold * WAYS + way) * b->options->repeats;
}

static double *work_of(bench *b, int cold, int way) {
  return b->work + ((int64_t)cold * WAYS + way) * b->options->repeats;
}

/** Seconds of processors that this process has used. */
static double used_by_process(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* ---- what is read ------------------------------------------------------------------------------
 */

/** Metadata read by rank 0 and sent to all. Collective. */
static fn_status open_file(bench *b, const char *path) {
  void *bytes = NULL;
  size_t size = 0;
  fn_status status = FN_OK;
  if (b->dist->rank == 0) {
    status = fn_cube_file_open(path, &b->file);
    if (status == FN_OK) status = fn_cube_file_pack(b->file, &bytes, &size);
  }
  FN_TRY(fn_dist_agree(b->dist, status));
  int64_t length = (int64_t)size;
  FN_TRY(fn_dist_broadcast(b->dist, &length, sizeof length));
  if (b->dist->rank != 0) bytes = malloc((size_t)length);
  if (!bytes) status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  status = fn_dist_agree(b->dist, status);
  if (status == FN_OK) status = fn_dist_broadcast(b->dist, bytes, length);
  if (status == FN_OK && b->dist->rank != 0)
    status = fn_cube_file_unpack(bytes, (size_t)length, &b->file);
  free(bytes);
  return fn_dist_agree(b->dist, status);
}

/** As in training: cubes in random order, dealt out to the ranks, over and over when the file is
 *  small. */
static fn_status make_list(bench *b) {
  const int64_t cubes = b->info->cubes, ranks = b->dist->size;
  b->cube = fn_cube_file_bytes(b->file);
  b->held = HELD_BYTES / b->cube;
  b->held = b->held < HELD_LEAST ? HELD_LEAST : b->held > HELD_MOST ? HELD_MOST : b->held;
  b->count = b->options->most / b->cube / ranks;
  if (b->count > (cubes + ranks - 1) / ranks) b->count = (cubes + ranks - 1) / ranks;
  // No cube twice if that can be: the second time it would not be cold.
  if (b->count < 2 * b->held) b->held = b->count / 2 > 0 ? b->count / 2 : 1;
  if (b->count < 2 * b->held) b->count = 2 * b->held;
  b->timed = (b->count - b->held) * ranks * b->cube;
  FN_TRY(fn_pages_allocate((size_t)(b->held * b->cube), (void **)&b->cells));
  b->list = malloc((size_t)b->count * sizeof *b->list);
  int64_t *order = malloc((size_t)cubes * sizeof *order);
  b->seconds = calloc((size_t)(4 * WAYS * b->options->repeats), sizeof *b->seconds);
  b->work = b->seconds + 2 * WAYS * b->options->repeats;
  const bool good = b->list && order && b->seconds;
  if (good) {
    for (int64_t i = 0; i < cubes; i++)
      order[i] = i;
    fn_random random = fn_random_stream(1, FN_RANDOM_TEST, 0, 0);
    fn_random_shuffle(&random, order, cubes);
    for (int64_t i = 0; i < b->count; i++)
      b->list[i] = order[(i * ranks + b->dist->rank) % cubes];
  }
  free(order);
  FN_CHECK(good, FN_ERR_MEMORY, "no memory for a cube of %lld bytes", (long long)b->cube);
  return FN_OK;
}

static fn_status open_plain(bench *b) {
  b->fd = open(b->info->path, O_RDONLY | O_CLOEXEC);
  FN_CHECK(b->fd >= 0, FN_ERR_DATA, "cannot open %s: %s", b->info->path, strerror(errno));
  b->bytes = lseek(b->fd, 0, SEEK_END);
  return FN_OK;
}

/** Where plain reading finds a cube: its own bytes, or for compressed files as many bytes of the
 *  file as a cube has, from somewhere. */
static int64_t place_of(const bench *b, int64_t cube) {
  if (b->info->cube[cube].offset >= 0) return b->info->cube[cube].offset;
  const int64_t last = b->bytes - b->cube;
  return last <= 0 ? 0 : (int64_t)((double)last * (double)cube / (double)b->info->cubes);
}

/* ---- the ways ----------------------------------------------------------------------------------
 */

static fn_status read_plainly(bench *b, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; i++) {
    const int64_t start = place_of(b, b->list[i]);
    char *to = (char *)b->cells + i % b->held * b->cube;
    for (int64_t done = 0; done < b->cube;) {
      const ssize_t got = pread(b->fd, to + done, (size_t)(b->cube - done), start + done);
      if (got < 0 && errno == EINTR) continue;
      FN_CHECK(got >= 0, FN_ERR_DATA, "cannot read %s: %s", b->info->path, strerror(errno));
      if (got == 0) break; // a small compressed file
      done += got;
    }
  }
  return FN_OK;
}

static fn_status take(const bench *b, fn_cube_queue *queue, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; i++) {
    const void *cells;
    FN_TRY(fn_cube_queue_get(queue, i, &cells));
    if (i >= b->held) fn_cube_queue_release(queue, i);
  }
  return FN_OK;
}

/** Time from when the ring is full until all cubes have been taken. */
static fn_status time_queue(bench *b, int way, double *seconds, double *work) {
  fn_cube_queue *queue = NULL;
  const fn_cube_queue_options options = {.path = (fn_cube_path)way, .resident = b->held};
  fn_status status = fn_dist_agree(
      b->dist, fn_cube_queue_create(b->file, b->dist->comm, b->list, b->count, &options, &queue));
  if (status != FN_OK) {
    fn_cube_queue_destroy(queue);
    return status;
  }
  status = fn_dist_agree(b->dist, take(b, queue, 0, b->held));
  const double start = fn_clock(), used = used_by_process();
  for (int64_t i = 0; i < b->held; i++)
    fn_cube_queue_release(queue, i);
  if (status == FN_OK) status = take(b, queue, b->held, b->count);
  *work = used_by_process() - used; // without the waiting for the last rank
  status = fn_dist_agree(b->dist, status);
  *seconds = fn_clock() - start;
  fn_cube_queue_get_figures(queue, &b->figures[way]);
  fn_cube_queue_destroy(queue);
  return status;
}

/** Plain reading on a thread of its own, as the queue reads: a new thread finds another place in
 *  the system's queues than one that has worked for long. */
typedef struct plain {
  bench *b;
  double start, used, work;
  fn_status status;
  char message[512];
} plain;

static void *read_on_thread(void *argument) {
  plain *p = argument;
  bench *b = p->b;
  p->status = read_plainly(b, 0, b->held);
  p->start = fn_clock();
  p->used = used_by_process();
  if (p->status == FN_OK) p->status = read_plainly(b, b->held, b->count);
  p->work = used_by_process() - p->used;
  snprintf(p->message, sizeof p->message, "%s", fn_error_message());
  return NULL;
}

static fn_status time_plain(bench *b, double *seconds, double *work) {
  plain p = {.b = b};
  pthread_t thread;
  FN_TRY(fn_dist_agree(b->dist, FN_OK));
  const int error = fn_thread_start(&thread, read_on_thread, &p);
  if (error)
    p = (plain){.status = FN_ERR_MEMORY, .message = "cannot start a thread"};
  else
    pthread_join(thread, NULL);
  if (p.status != FN_OK) fn_error_set(p.status, __FILE__, __LINE__, "%s", p.message);
  const fn_status status = fn_dist_agree(b->dist, p.status);
  *seconds = fn_clock() - p.start;
  *work = p.work;
  return status;
}

/** Before a cold measurement, drop the file from this node's page cache. Pages that were written
 *  and not flushed stay, so they are flushed first. */
static fn_status prepare_cache(bench *b, bool cold) {
  if (cold && b->dist->node_rank == 0) {
    fdatasync(b->fd);
    posix_fadvise(b->fd, 0, 0, POSIX_FADV_DONTNEED);
  }
  return fn_dist_agree(b->dist, FN_OK);
}

static bool suits(const bench *b, int way) {
  if (way == FN_CUBES_DIRECT) return b->info->direct;
  return way != FN_CUBES_COLLECTIVE || b->dist->threads_multiple;
}

/** All ways in turns, so that they see the same machine, each time another one first: what a disk
 *  does depends on what it did before. */
static fn_status measure(bench *b) {
  FN_TRY(fn_dist_agree(b->dist, read_plainly(b, 0, b->count))); // into the page cache
  for (int cold = 0; cold < 2; cold++) {
    for (int64_t i = 0; i < b->options->repeats; i++) {
      for (int w = 0; w < WAYS; w++) {
        const int way = (int)((w + i) % WAYS);
        if (!suits(b, way)) continue;
        FN_TRY(prepare_cache(b, cold));
        double *seconds = &seconds_of(b, cold, way)[i];
        double *work = &work_of(b, cold, way)[i];
        FN_TRY(way == PLAIN ? time_plain(b, seconds, work) : time_queue(b, way, seconds, work));
      }
    }
  }
  return fn_dist_sum(b->dist, b->work, 2 * WAYS * b->options->repeats);
}

/* ---- printing ----------------------------------------------------------------------------------
 */

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(const double *values, int64_t count) {
  double sorted[REPEATS_MOST];
  memcpy(sorted, values, (size_t)count * sizeof *values);
  qsort(sorted, (size_t)count, sizeof *sorted, compare_doubles);
  return (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
}

/** Median over turns of the ratio to plain reading in the same turn. */
static double ratio_to_plain(bench *b, int cold, int way) {
  double ratio[REPEATS_MOST];
  for (int64_t i = 0; i < b->options->repeats; i++)
    ratio[i] = seconds_of(b, cold, PLAIN)[i] / seconds_of(b, cold, way)[i];
  return median(ratio, b->options->repeats);
}

static double speed(bench *b, int cold, int way) {
  return 1e-9 * (double)b->timed / median(seconds_of(b, cold, way), b->options->repeats);
}

/** Gigabytes per second of one processor. */
static double thrift(bench *b, int cold, int way) {
  return 1e-9 * (double)b->timed / median(work_of(b, cold, way), b->options->repeats);
}

static const char *way_name(int way) {
  return way == PLAIN ? "read(2)" : fn_cube_path_name((fn_cube_path)way);
}

static void print_head(const bench *b) {
  char text[2][32];
  const char *reason;
  const fn_cube_file_info *info = b->info;
  const fn_cube_path choice =
      fn_cube_path_choose(info, b->dist->size, b->dist->threads_multiple, &reason);
  fprintf(b->out, "%s: %lld cubes [%lld, %lld, %lld], %s, ", info->path, (long long)info->cubes,
          (long long)info->size[0], (long long)info->size[1], (long long)info->size[2],
          info->packed ? "packed" : "one dataset each");
  if (info->chunk[0])
    fprintf(b->out, "chunks [%lld, %lld, %lld, %lld]", (long long)info->chunk[0],
            (long long)info->chunk[1], (long long)info->chunk[2], (long long)info->chunk[3]);
  else
    fprintf(b->out, "%s", info->direct ? "contiguous" : "not in one piece as in memory");
  fprintf(b->out, ", filter %s\n", info->filter);
  fprintf(b->out, "%d rank%s, %s in random order, of which %s are timed, %lld turns\n",
          b->dist->size, b->dist->size == 1 ? "" : "s",
          fn_text_bytes((double)(b->cube * b->count * b->dist->size), text[0], 32),
          fn_text_bytes((double)b->timed, text[1], 32), (long long)b->options->repeats);
  fprintf(b->out, "data.read: auto takes %s: %s\n\n", fn_cube_path_name(choice), reason);
}

static void print_ways(bench *b) {
  fprintf(b->out, "%-12s %12s %10s %10s %12s %10s   %s\n", "", "cached GB/s", "of read(2)",
          "per core", "cold GB/s", "of read(2)", "what HDF5 did");
  for (int way = 0; way < WAYS; way++) {
    if (!suits(b, way)) {
      fprintf(b->out, "%-12s %12s\n", way_name(way), "-");
      continue;
    }
    const fn_cube_queue_figures *f = &b->figures[way];
    fprintf(b->out, "%-12s %12.2f %10.2f %10.2f %12.2f %10.2f", way_name(way), speed(b, 0, way),
            ratio_to_plain(b, 0, way), thrift(b, 0, way), speed(b, 1, way),
            ratio_to_plain(b, 1, way));
    if (way == FN_CUBES_COLLECTIVE)
      fprintf(b->out, "   %lld collective reads, %lld independent%s%s",
              (long long)f->collective_reads, (long long)f->independent_reads,
              f->cause[0] ? ": " : "", f->cause);
    fprintf(b->out, "\n");
  }
}

static fn_status write_json(bench *b) {
  fn_text text = {0};
  fn_text_add(&text,
              "{\"version\": \"%s\", \"ranks\": %d, \"cubes\": %lld, \"cube_bytes\": %lld, "
              "\"packed\": %s, \"filter\": \"%s\", \"timed_bytes\": %lld,\n \"ways\": [",
              fn_version(), b->dist->size, (long long)b->info->cubes, (long long)b->cube,
              b->info->packed ? "true" : "false", b->info->filter, (long long)b->timed);
  bool any = false;
  for (int way = 0; way < WAYS; way++) {
    for (int cold = 0; cold < 2 && suits(b, way); cold++) {
      fn_text_add(&text,
                  "%s\n  {\"way\": \"%s\", \"cold\": %s, \"gigabytes_per_second\": %.6g, "
                  "\"of_read\": %.6g, \"per_core\": %.6g, \"collective_reads\": %lld, "
                  "\"independent_reads\": %lld}",
                  any ? "," : "", way_name(way), cold ? "true" : "false", speed(b, cold, way),
                  ratio_to_plain(b, cold, way), thrift(b, cold, way),
                  (long long)b->figures[way].collective_reads,
                  (long long)b->figures[way].independent_reads);
      any = true;
    }
  }
  fn_text_add(&text, "]}\n");
  const fn_status status = fn_file_replace_text(b->options->json, &text);
  fn_text_free(&text);
  return status;
}

static fn_status report(bench *b) {
  fn_status status = FN_OK;
  if (b->dist->rank == 0) {
    print_head(b);
    print_ways(b);
    if (b->options->json) status = write_json(b);
  }
  return fn_dist_agree(b->dist, status);
}

fn_status fn_bench_cubes(const char *path, const fn_dist *dist,
                         const fn_bench_cubes_options *options, FILE *out) {
  FN_CHECK(options->repeats >= 1 && options->repeats <= REPEATS_MOST, FN_ERR_CONFIG,
           "expected 1 to %d turns, found %lld", REPEATS_MOST, (long long)options->repeats);
  bench b = {.dist = dist, .options = options, .out = out, .fd = -1};
  fn_status status = open_file(&b, path);
  if (status == FN_OK) {
    b.info = fn_cube_file_get_info(b.file);
    status = open_plain(&b);
    if (status == FN_OK) status = make_list(&b);
    status = fn_dist_agree(dist, status);
  }
  if (status == FN_OK) status = measure(&b);
  if (status == FN_OK) status = report(&b);
  if (b.fd >= 0) close(b.fd);
  fn_cube_file_close(b.file);
  free(b.list);
  if (b.cells) fn_pages_free(b.cells, (size_t)(b.held * b.cube));
  free(b.seconds);
  return status;
}
