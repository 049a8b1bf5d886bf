/* Cube files copied to a folder of each node once, and used again by later runs. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "data/cube_reader.h"
#include "field/safe_write.h"

/** A buffer is LANES pieces; their checksums are computed side by side, because a single one is
 *  bound by the latency of its multiplications, and slower than the disks. */
enum { LANES = 8, PIECE = 1 << 20, BUFFER = LANES * PIECE };

static const uint64_t fnv_offset = 0xcbf29ce484222325ull, fnv_prime = 0x100000001b3ull;

/** What the index says: which file was copied, and what the copy must be. */
typedef struct entry {
  int64_t bytes, seconds, nanoseconds; // of the source: size and time of last change
  uint64_t checksum;
} entry;

typedef struct stage {
  const char *source;
  char *copy, *index, *lock, *part; // paths in the folder
  unsigned char *buffer;            // shape [BUFFER]
} stage;

/* ---- checksum ----------------------------------------------------------------------------------
 */

/** FNV-1a (Fowler, Noll, Vo; 64 bits) of each full or partial piece of the buffer, then of these
 *  sums, continued from `sum`. */
static uint64_t add_checksum(uint64_t sum, const unsigned char *bytes, size_t count) {
  uint64_t lane[LANES];
  for (int l = 0; l < LANES; l++)
    lane[l] = fnv_offset;
  if (count == BUFFER) {
    for (size_t i = 0; i < PIECE; i++)
      for (int l = 0; l < LANES; l++)
        lane[l] = (lane[l] ^ bytes[(size_t)l * PIECE + i]) * fnv_prime;
  } else {
    for (size_t i = 0; i < count; i++)
      lane[i / PIECE] = (lane[i / PIECE] ^ bytes[i]) * fnv_prime;
  }
  for (int l = 0; l < LANES; l++)
    for (int b = 0; b < 8; b++)
      sum = (sum ^ (lane[l] >> (8 * b) & 255)) * fnv_prime;
  return sum;
}

/** Fill the buffer as far as the file goes. */
static fn_status read_buffer(const char *path, int fd, unsigned char *buffer, size_t *count) {
  *count = 0;
  while (*count < BUFFER) {
    const ssize_t done = read(fd, buffer + *count, BUFFER - *count);
    if (done < 0 && errno == EINTR) continue;
    FN_CHECK(done >= 0, FN_ERR_DATA, "cannot read %s: %s", path, strerror(errno));
    if (done == 0) break;
    *count += (size_t)done;
  }
  return FN_OK;
}

static fn_status write_buffer(const char *path, int fd, const unsigned char *buffer, size_t count) {
  while (count > 0) {
    const ssize_t done = write(fd, buffer, count);
    if (done < 0 && errno == EINTR) continue;
    FN_CHECK(done > 0, FN_ERR_DATA, "cannot write %s: %s", path, strerror(errno));
    buffer += done;
    count -= (size_t)done;
  }
  return FN_OK;
}

/** Read a whole file, writing it to `to` unless that is negative. */
static fn_status pass(const stage *s, const char *path, int from, int to, int64_t *bytes,
                      uint64_t *checksum) {
  size_t count;
  *bytes = 0;
  *checksum = fnv_offset;
  do {
    FN_TRY(read_buffer(path, from, s->buffer, &count));
    if (to >= 0) FN_TRY(write_buffer(s->part, to, s->buffer, count));
    *checksum = add_checksum(*checksum, s->buffer, count);
    *bytes += (int64_t)count;
  } while (count == BUFFER);
  return FN_OK;
}

/* ---- index -------------------------------------------------------------------------------------
 */

static fn_status write_index(const stage *s, const entry *e) {
  fn_text text = {0};
  fn_text_add(&text,
              "fieldnet staged file 1\nbytes %" PRId64 "\nchanged %" PRId64 ".%09" PRId64
              "\nfnv1a %016" PRIx64 "\nsource %s\n",
              e->bytes, e->seconds, e->nanoseconds, e->checksum, s->source);
  const fn_status status = fn_file_replace_text(s->index, &text);
  fn_text_free(&text);
  return status;
}

/** False when there is no index that can be read. */
static bool read_index(const stage *s, entry *e) {
  char *text = NULL;
  if (!fn_file_exists(s->index) || fn_file_read(s->index, &text, NULL) != FN_OK) return false;
  const int found = sscanf(text,
                           "fieldnet staged file 1 bytes %" SCNd64 " changed %" SCNd64 ".%" SCNd64
                           " fnv1a %" SCNx64,
                           &e->bytes, &e->seconds, &e->nanoseconds, &e->checksum);
  free(text);
  return found == 4;
}

static bool same_source(const entry *e, const struct stat *source) {
  return e->bytes == source->st_size && e->seconds == source->st_mtim.tv_sec &&
         e->nanoseconds == source->st_mtim.tv_nsec;
}

/** Whether the copy of an earlier run is of this source, and undamaged. */
static bool copy_is_good(const stage *s, const struct stat *source) {
  entry e;
  struct stat copy;
  if (!read_index(s, &e) || !same_source(&e, source) || stat(s->copy, &copy) != 0 ||
      copy.st_size != e.bytes)
    return false;
  const int fd = open(s->copy, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  int64_t bytes = 0;
  uint64_t checksum = 0;
  const fn_status status = pass(s, s->copy, fd, -1, &bytes, &checksum);
  close(fd);
  const bool good = status == FN_OK && bytes == e.bytes && checksum == e.checksum;
  if (!good) fn_log(FN_WARN, "%s is damaged and will be copied again", s->copy);
  return good;
}

/* ---- copying -----------------------------------------------------------------------------------
 */

static fn_status check_space(const stage *s, const char *folder, int64_t bytes) {
  struct statvfs disk;
  char need[32], have[32];
  FN_CHECK(statvfs(folder, &disk) == 0, FN_ERR_DATA, "cannot use %s: %s", folder, strerror(errno));
  const double room = (double)disk.f_bavail * (double)disk.f_frsize;
  FN_CHECK(room > (double)bytes, FN_ERR_DATA,
           "data.stage: %s does not fit into %s: it needs %s, %s are free", s->source, folder,
           fn_text_bytes((double)bytes, need, sizeof need), fn_text_bytes(room, have, sizeof have));
  return FN_OK;
}

static fn_status copy_open(const stage *s, const struct stat *source, int from, int to) {
  entry e = {.seconds = source->st_mtim.tv_sec, .nanoseconds = source->st_mtim.tv_nsec};
  struct stat now;
  FN_TRY(pass(s, s->source, from, to, &e.bytes, &e.checksum));
  FN_CHECK(fstat(from, &now) == 0 && e.bytes == source->st_size && same_source(&e, &now),
           FN_ERR_DATA, "%s changed while it was copied", s->source);
  FN_TRY(fn_commit_file(s->part, s->copy));
  return write_index(s, &e);
}

static fn_status copy(const stage *s, const char *folder, const struct stat *source) {
  char size[32];
  // What is there is of no use; its room may be.
  unlink(s->index);
  unlink(s->copy);
  unlink(s->part);
  FN_TRY(check_space(s, folder, source->st_size));
  fn_log(FN_INFO, "copying %s (%s) to %s", s->source,
         fn_text_bytes((double)source->st_size, size, sizeof size), folder);
  const int from = open(s->source, O_RDONLY | O_CLOEXEC);
  FN_CHECK(from >= 0, FN_ERR_DATA, "cannot open %s: %s", s->source, strerror(errno));
  const int to = open(s->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  fn_status status = FN_OK;
  if (to < 0) {
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot write %s: %s", s->part,
                          strerror(errno));
  } else {
    status = copy_open(s, source, from, to);
    close(to);
  }
  close(from);
  if (status != FN_OK) unlink(s->part);
  return status;
}

/** With the lock of this copy held, so that jobs that want the same file take turns. */
static fn_status stage_locked(const stage *s, const char *folder) {
  struct stat source;
  FN_CHECK(stat(s->source, &source) == 0, FN_ERR_DATA, "cannot read %s: %s", s->source,
           strerror(errno));
  FN_CHECK(S_ISREG(source.st_mode), FN_ERR_DATA, "cannot read %s: not a regular file", s->source);
  if (!copy_is_good(s, &source)) return copy(s, folder, &source);
  fn_log(FN_INFO, "using %s, copied by an earlier run", s->copy);
  return FN_OK;
}

static fn_status stage_on_node(const stage *s, const char *folder) {
  FN_TRY(fn_make_directories(folder));
  const int fd = open(s->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  FN_CHECK(fd >= 0, FN_ERR_DATA, "cannot write %s: %s", s->lock, strerror(errno));
  int failed = flock(fd, LOCK_EX | LOCK_NB);
  if (failed && errno == EWOULDBLOCK)
    fn_log(FN_INFO, "waiting for another job that copies %s", s->source);
  while (failed && (errno == EINTR || errno == EWOULDBLOCK))
    failed = flock(fd, LOCK_EX);
  const fn_status status = failed ? fn_error_set(FN_ERR_DATA, __FILE__, __LINE__,
                                                 "cannot lock %s: %s", s->lock, strerror(errno))
                                  : stage_locked(s, folder);
  close(fd); // the lock goes with it
  return status;
}

/* ---- over the ranks ----------------------------------------------------------------------------
 */

/** malloc'ed; NULL: out of memory. */
static char *joined(const char *folder, const char *name, const char *ending) {
  fn_text text = {0};
  fn_text_add(&text, "%s/%s%s", folder, name, ending);
  if (text.incomplete) fn_text_free(&text); // another file's name otherwise
  return text.data;
}

/** Names in the folder carry a sum of the source's full path: files of one name in several folders
 *  do not meet. */
static fn_status name_files(stage *s, const char *path, const char *folder) {
  char full[PATH_MAX], name[NAME_MAX + 1];
  FN_CHECK(realpath(path, full), FN_ERR_DATA, "cannot read %s: %s", path, strerror(errno));
  const char *base = strrchr(full, '/') + 1;
  uint64_t sum = fnv_offset;
  for (const char *c = full; *c; c++)
    sum = (sum ^ (unsigned char)*c) * fnv_prime;
  const int length = snprintf(name, sizeof name, "%016" PRIx64 "_%s", sum, base);
  FN_CHECK(length < NAME_MAX - 16, FN_ERR_DATA, "the name of %s is too long", path);
  s->copy = joined(folder, name, "");
  s->index = joined(folder, name, ".index");
  s->lock = joined(folder, name, ".lock");
  s->part = joined(folder, name, ".part");
  s->buffer = malloc(BUFFER);
  FN_CHECK(s->buffer && s->copy && s->index && s->lock && s->part, FN_ERR_MEMORY,
           "no memory for copying %s", path);
  return FN_OK;
}

fn_status fn_cube_stage(const char *path, const char *folder, MPI_Comm comm, char **staged) {
  stage s = {.source = path};
  MPI_Comm node = MPI_COMM_NULL;
  int rank, node_rank = -1;
  *staged = NULL;
  MPI_Comm_rank(comm, &rank);
  if (MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &node) == MPI_SUCCESS)
    MPI_Comm_rank(node, &node_rank);
  fn_status status = name_files(&s, path, folder);
  if (status == FN_OK && node == MPI_COMM_NULL)
    status = fn_error_set(FN_ERR_INTERNAL, __FILE__, __LINE__, "cannot find the ranks of a node");
  if (status == FN_OK && node_rank == 0) status = stage_on_node(&s, folder);
  status = fn_cube_agree(comm, status);
  if (node != MPI_COMM_NULL) MPI_Comm_free(&node);
  if (status == FN_OK) {
    *staged = s.copy;
    s.copy = NULL;
  }
  free(s.copy);
  free(s.index);
  free(s.lock);
  free(s.part);
  free(s.buffer);
  return status;
}
