/* Raw cubes into a prepared file, over the ranks, so that it can be killed and started again.
 *
 * `path`.progress holds what was asked for, the statistics, and a record per cube: checksum of the
 * source, checksum of the prepared cells, and a mark made of both, written once the cells are. A
 * new start reads back every cube marked as done and believes its bytes, not the mark. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/random.h"
#include "base/system.h"
#include "dist/mpi_status.h"
#include "run/cube_jobs.h"

static const char magic[16] = "fieldnet pack 1";

typedef struct record {
  uint64_t source, checksum, mark;
} record;

/** Start of the progress file; the text of what was asked for follows, then the records. */
typedef struct progress_head {
  char magic[16];
  int64_t text, cubes; // length of the text, number of records
  double mean, variance;
} progress_head;

/** What rank 0 finds out and all ranks need. */
typedef struct beginning {
  int resumed;
  double mean, variance;
} beginning;

typedef struct packing {
  const fn_dist *dist;
  const fn_pack_job *job;
  const fn_ticker *ticker;
  fn_cube_plan plan; // with statistics
  char progress[4200];
  fn_text asked;
  int lock; // rank 0: the progress file, locked while the job lives
  int64_t *places;
  record *records; // [cubes]
  fn_cube_writer *writer;
  int file;      // progress
  double *cells; // one cube
  void *out;
  int64_t *todo;
} packing;

static uint64_t mark_of(const record *r, int64_t cube) {
  const uint64_t all[3] = {r->source, r->checksum, (uint64_t)cube};
  return fn_hash_bytes(FN_HASH_START, all, sizeof all) | 1; // never 0, an empty record's
}

static off_t records_start(const packing *p) {
  return (off_t)(sizeof(progress_head) + p->asked.length);
}

/* ---- rank 0: begin or go on --------------------------------------------------------------------
 */

static void remove_all(const packing *p) {
  unlink(p->job->path);
  unlink(p->progress);
  fn_cube_file_clean(p->job->path);
}

/** Line in which two texts begin to differ, without its end. */
static void first_difference(const char *a, const char *b, char *line, size_t size) {
  size_t i = 0, start = 0;
  for (; a[i] && a[i] == b[i]; i++)
    if (a[i] == '\n') start = i + 1;
  snprintf(line, size, "%.*s", (int)strcspn(a + start, "\n"), a + start);
}

/** Compare the progress file with what is asked for now. */
static fn_status read_progress(packing *p, beginning *b) {
  char *bytes, before[256], now[256];
  size_t count;
  progress_head head = {0};
  FN_TRY(fn_file_read(p->progress, &bytes, &count));
  if (count >= sizeof head) memcpy(&head, bytes, sizeof head);
  const bool whole = memcmp(head.magic, magic, sizeof magic) == 0 && head.text >= 0 &&
                     head.cubes >= 0 && (size_t)head.text <= count &&
                     count == sizeof head + (size_t)head.text + (size_t)head.cubes * sizeof(record);
  const char *text = bytes + sizeof head;
  const bool same = whole && head.cubes == p->plan.cubes && (size_t)head.text == p->asked.length &&
                    memcmp(text, p->asked.data, p->asked.length) == 0;
  if (whole && !same) {
    char *old = strndup(text, (size_t)head.text);
    first_difference(old ? old : "", p->asked.data, before, sizeof before);
    first_difference(p->asked.data, old ? old : "", now, sizeof now);
    free(old);
  }
  if (same) memcpy(p->records, text + head.text, (size_t)head.cubes * sizeof(record));
  free(bytes);
  FN_CHECK(whole, FN_ERR_DATA, "%s is damaged; --force starts over", p->progress);
  FN_CHECK(same, FN_ERR_CONFIG,
           "%s was begun with other options ('%s', now '%s'); give those, or start over with "
           "--force",
           p->job->path, before, now);
  *b = (beginning){1, head.mean, head.variance};
  return FN_OK;
}

/** Only one job at a time: the lock ends with its holder, however that ends. Of the open file, not
 *  of the process: reading the progress must not end it. */
static fn_status lock_progress(packing *p) {
  const struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  p->lock = open(p->progress, O_RDWR | O_CLOEXEC);
  FN_CHECK(p->lock >= 0, FN_ERR_DATA, "cannot open %s: %s", p->progress, strerror(errno));
  FN_CHECK(fcntl(p->lock, F_OFD_SETLK, &whole) == 0 || (errno != EAGAIN && errno != EACCES),
           FN_ERR_CONFIG, "another job is writing %s", p->job->path);
  return FN_OK;
}

/** Go on, begin, or refuse. Nothing is written yet, but removed with --force. */
static fn_status examine(packing *p, beginning *b) {
  if (fn_file_exists(p->progress)) {
    FN_TRY(lock_progress(p));
    if (!p->job->force) return read_progress(p, b);
  }
  FN_CHECK(p->job->force || !fn_file_exists(p->job->path), FN_ERR_DATA,
           "%s exists; --force replaces it", p->job->path);
  if (p->job->force) remove_all(p);
  return FN_OK;
}

static fn_status create_progress(packing *p) {
  progress_head head = {.text = (int64_t)p->asked.length,
                        .cubes = p->plan.cubes,
                        .mean = p->plan.mean,
                        .variance = p->plan.variance};
  fn_text bytes = {0};
  memcpy(head.magic, magic, sizeof magic);
  fn_text_add_bytes(&bytes, (const char *)&head, sizeof head);
  fn_text_add_bytes(&bytes, p->asked.data, p->asked.length);
  fn_text_add_bytes(&bytes, (const char *)p->records, (size_t)p->plan.cubes * sizeof(record));
  const size_t size = sizeof head + p->asked.length + (size_t)p->plan.cubes * sizeof(record);
  fn_status status = FN_ERR_MEMORY;
  if (bytes.length == size)
    status = fn_file_replace(p->progress, bytes.data, bytes.length);
  else
    fn_error_set(status, __FILE__, __LINE__, "no memory");
  fn_text_free(&bytes);
  return status;
}

/** Rank 0, when nothing stands in the way: both files, as far as they are absent. */
static fn_status create_files(packing *p, bool resumed) {
  if (!resumed) {
    FN_TRY(create_progress(p));
    if (p->lock >= 0) close(p->lock);
    FN_TRY(lock_progress(p));
  }
  const bool there = !p->plan.compress && fn_file_exists(p->job->path);
  if (resumed && there) return FN_OK;
  const fn_status status = fn_cube_file_create(&p->plan, p->job->path);
  if (status != FN_OK && !resumed) unlink(p->progress);
  return status;
}

/* ---- statistics
 * -----------------------------------------------------------------------------------
 */

static fn_status take_statistics(packing *p, const beginning *b) {
  if (b->resumed && p->job->compute) {
    p->plan.mean = b->mean;
    p->plan.variance = b->variance;
  } else if (p->job->compute) {
    fn_cube_statistics s;
    FN_TRY(fn_cube_statistics_compute(p->dist, p->job->source, p->job->compute,
                                      p->job->compute_count, p->ticker, &s));
    p->plan.mean = s.mean;
    p->plan.variance = s.variance;
    fn_cube_statistics_free(&s);
  }
  if (p->job->compute) {
    p->plan.has_statistics = true;
    p->plan.std = sqrt(p->plan.variance);
  }
  FN_CHECK(!p->plan.has_statistics || p->plan.std > 0, FN_ERR_DATA,
           "the variance of the cubes is %g: nothing to standardise", p->plan.variance);
  return FN_OK;
}

/* ---- cubes -------------------------------------------------------------------------------------
 */

static fn_status check_done(void *user, int64_t item) {
  packing *p = user;
  record *r = &p->records[item];
  bool good = false;
  if (r->mark == mark_of(r, item))
    FN_TRY(fn_cube_writer_check(p->writer, item, r->checksum, &good));
  if (!good) *r = (record){0};
  return FN_OK;
}

/** Which cubes are whole on disk, agreed; the records of others become empty. */
static fn_status find_done(packing *p, int64_t *todo) {
  const int64_t cubes = p->plan.cubes;
  double *done = calloc((size_t)cubes, sizeof *done);
  fn_status status = done ? FN_OK : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory");
  status = fn_dist_agree(p->dist, status);
  if (status == FN_OK)
    status = fn_cube_rounds(p->dist, "checking what is there", cubes, check_done, p, p->ticker);
  for (int64_t i = p->dist->rank; i < cubes && status == FN_OK; i += p->dist->size)
    done[i] = p->records[i].mark != 0;
  if (status == FN_OK) status = fn_dist_sum(p->dist, done, cubes);
  *todo = 0;
  for (int64_t i = 0; i < cubes && status == FN_OK; i++) {
    if (done[i] > 0) continue;
    p->todo[(*todo)++] = i;
    p->records[i] = (record){0};
  }
  free(done);
  return status;
}

static fn_status pack_cube(void *user, int64_t item) {
  packing *p = user;
  const int64_t cube = p->todo[item];
  const fn_cube_plan *plan = &p->plan;
  record r;
  char name[64];
  fn_cube_name(plan->seed[cube], plan->theory[cube], name, sizeof name);
  FN_TRY(p->job->source->read(p->job->source, plan->seed[cube], plan->theory[cube], p->cells,
                              &r.source));
  fn_status status = fn_cube_standardise(plan, p->cells, p->out);
  if (status != FN_OK) return fn_error_context(status, "%s", name);
  FN_TRY(fn_cube_writer_put(p->writer, cube, p->out, &r.checksum));
  r.mark = mark_of(&r, cube);
  p->records[cube] = r;
  const off_t at = records_start(p) + (off_t)(cube * (int64_t)sizeof r);
  FN_CHECK(pwrite(p->file, &r, sizeof r, at) == (ssize_t)sizeof r, FN_ERR_DATA,
           "cannot write %s: %s", p->progress, strerror(errno));
  return FN_OK;
}

/** All ranks' records on every rank: what one has not done is zero there. */
static fn_status gather_records(packing *p) {
  const int64_t words = 3 * p->plan.cubes, most = 1 << 28;
  uint64_t *at = &p->records[0].source;
  for (int64_t i = 0; i < words; i += most) {
    const int count = (int)(words - i < most ? words - i : most);
    FN_TRY_MPI(MPI_Allreduce(MPI_IN_PLACE, at + i, count, MPI_UINT64_T, MPI_BOR, p->dist->comm),
               "gathering checksums");
  }
  return FN_OK;
}

/** Rank 0: checksums into the file, then the sign that it is complete. */
static fn_status complete(packing *p) {
  const size_t count = (size_t)p->plan.cubes;
  uint64_t *source = malloc(count * sizeof *source), *checksum = malloc(count * sizeof *checksum);
  fn_status status = FN_ERR_MEMORY;
  if (source && checksum) {
    for (size_t i = 0; i < count; i++) {
      source[i] = p->records[i].source;
      checksum[i] = p->records[i].checksum;
    }
    status = fn_cube_file_complete(&p->plan, p->job->path, source, checksum);
  } else {
    fn_error_set(status, __FILE__, __LINE__, "no memory");
  }
  free(source);
  free(checksum);
  if (status != FN_OK) return status;
  unlink(p->progress);
  fn_cube_file_clean(p->job->path);
  return FN_OK;
}

/* ---- all together ------------------------------------------------------------------------------
 */

static fn_status allocate(packing *p) {
  const size_t cells = (size_t)fn_cube_source_cells(p->job->source);
  const size_t cubes = (size_t)p->plan.cubes;
  p->places = calloc((size_t)fn_cube_place_count(&p->plan) + 1, sizeof *p->places);
  p->records = calloc(cubes, sizeof *p->records);
  p->todo = calloc(cubes, sizeof *p->todo);
  p->cells = malloc(cells * sizeof *p->cells);
  p->out = malloc(cells * (size_t)p->plan.item);
  FN_CHECK(p->places && p->records && p->todo && p->cells && p->out, FN_ERR_MEMORY,
           "no memory for a cube of %zu cells", cells);
  FN_CHECK(snprintf(p->progress, sizeof p->progress, "%s.progress", p->job->path) < 4096,
           FN_ERR_CONFIG, "path too long: %.100s...", p->job->path);
  fn_cube_plan_describe(&p->plan, &p->asked);
  if (p->plan.has_statistics)
    fn_text_add(&p->asked, "mean: %.17g\nstd: %.17g\n", p->plan.mean, p->plan.std);
  fn_text_add(&p->asked, "statistics: %s\n",
              p->job->compute          ? "computed"
              : p->plan.has_statistics ? "given"
                                       : "none");
  for (int64_t i = 0; i < p->plan.cubes; i += 2)
    fn_text_add(&p->asked, "%lld ", (long long)p->plan.seed[i]);
  return FN_OK;
}

static fn_status open_files(packing *p) {
  FN_TRY(fn_cube_writer_open(&p->plan, p->job->path, p->places, &p->writer));
  p->file = open(p->progress, O_RDWR | O_CLOEXEC);
  FN_CHECK(p->file >= 0, FN_ERR_DATA, "cannot open %s: %s", p->progress, strerror(errno));
  return FN_OK;
}

static fn_status write_cubes(packing *p, bool resumed, fn_pack_figures *figures) {
  const fn_dist *dist = p->dist;
  int64_t todo = p->plan.cubes;
  FN_TRY(fn_dist_agree(dist, open_files(p)));
  for (int64_t i = 0; i < todo; i++)
    p->todo[i] = i;
  if (resumed) FN_TRY(find_done(p, &todo));
  figures->kept = p->plan.cubes - todo;
  FN_TRY(fn_cube_rounds(dist, "cubes", todo, pack_cube, p, p->ticker));
  FN_TRY(gather_records(p));
  FN_TRY(fn_dist_agree(dist, fn_cube_writer_sync(p->writer)));
  return fn_dist_agree(dist, dist->rank == 0 ? complete(p) : FN_OK);
}

static fn_status pack(packing *p, fn_pack_figures *figures) {
  const fn_dist *dist = p->dist;
  const bool first = dist->rank == 0;
  beginning b = {0};
  FN_TRY(fn_dist_agree(dist, allocate(p)));
  FN_TRY(fn_dist_agree(dist, first ? examine(p, &b) : FN_OK));
  FN_TRY(fn_dist_broadcast(dist, &b, sizeof b));
  FN_TRY(fn_dist_broadcast(dist, p->records, p->plan.cubes * (int64_t)sizeof(record)));
  FN_TRY(fn_dist_agree(dist, take_statistics(p, &b)));
  FN_TRY(fn_dist_agree(dist, first ? create_files(p, b.resumed) : FN_OK));
  FN_TRY(fn_dist_agree(dist, first ? fn_cube_places(&p->plan, p->job->path, p->places) : FN_OK));
  FN_TRY(fn_dist_broadcast(dist, p->places,
                           fn_cube_place_count(&p->plan) * (int64_t)sizeof *p->places));
  figures->mean = p->plan.mean;
  figures->std = p->plan.std;
  return write_cubes(p, b.resumed, figures);
}

fn_status fn_cube_pack(const fn_dist *dist, const fn_pack_job *job, const fn_ticker *ticker,
                       fn_pack_figures *figures) {
  packing p = {
      .dist = dist, .job = job, .ticker = ticker, .plan = job->plan, .lock = -1, .file = -1};
  *figures = (fn_pack_figures){0};
  const fn_status status = pack(&p, figures);
  fn_cube_writer_close(p.writer);
  if (p.file >= 0) close(p.file);
  if (p.lock >= 0) close(p.lock);
  fn_text_free(&p.asked);
  free(p.places);
  free(p.records);
  free(p.cells);
  free(p.out);
  free(p.todo);
  return status;
}
