/* Compressed cubes on their way into a file: one part each, `path`.parts/CUBE. A part is the number
 * of chunks, their sizes, their bytes, and a checksum of all that. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/random.h"
#include "base/system.h"
#include "data/cube_write.h"

static void part_path(const char *path, int64_t cube, char *part, size_t size) {
  snprintf(part, size, "%s.parts/%06lld", path, (long long)cube);
}

/** Byte b of every number, then byte b + 1: HDF5's shuffle filter. */
static void shuffle(const unsigned char *in, size_t count, size_t item, unsigned char *out) {
  for (size_t b = 0; b < item; b++)
    for (size_t i = 0; i < count; i++)
      *out++ = in[i * item + b];
}

/** Chunk by chunk into text: gathered, shuffled, deflated. */
static fn_status compress_chunks(const fn_cube_plan *plan, const void *cells, int64_t *sizes,
                                 fn_text *data) {
  int64_t number[3];
  const int64_t chunks = fn_cube_chunks(plan, number);
  const size_t count = (size_t)(plan->chunk[1] * plan->chunk[2] * plan->chunk[3]);
  const size_t bytes = count * (size_t)plan->item, bound = compressBound(bytes);
  unsigned char *plain = malloc(bytes), *mixed = malloc(bytes), *packed = malloc(bound);
  fn_status status = FN_OK;
  if (!plain || !mixed || !packed)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory to compress a chunk");
  for (int64_t i = 0; i < chunks && status == FN_OK; i++) {
    uLongf used = bound;
    fn_cube_gather(plan, cells, i, plain);
    shuffle(plain, count, (size_t)plan->item, mixed);
    if (compress2(packed, &used, mixed, bytes, plan->compress) != Z_OK)
      status = fn_error_set(FN_ERR_INTERNAL, __FILE__, __LINE__, "zlib cannot compress a chunk");
    sizes[i] = (int64_t)used;
    if (status == FN_OK) fn_text_add_bytes(data, (const char *)packed, used);
  }
  free(plain);
  free(mixed);
  free(packed);
  return status;
}

/** Whole or not at all for other processes; after a power cut the checksum tells. So there is no
 *  waiting for the disk, cube by cube. */
static fn_status put_part(const char *part, const fn_text *text) {
  char temporary[4300];
  snprintf(temporary, sizeof temporary, "%s.%ld.tmp", part, (long)getpid());
  FILE *file = fopen(temporary, "wb");
  FN_CHECK(file, FN_ERR_DATA, "cannot create %s: %s", temporary, strerror(errno));
  bool good = fwrite(text->data, 1, text->length, file) == text->length;
  int reason = good ? 0 : errno;
  if (fclose(file) != 0 && good) {
    good = false;
    reason = errno;
  }
  if (good && rename(temporary, part) != 0) {
    good = false;
    reason = errno;
  }
  if (!good) unlink(temporary);
  FN_CHECK(good, FN_ERR_DATA, "cannot write %s: %s", part, strerror(reason));
  return FN_OK;
}

fn_status fn_cube_part_write(const fn_cube_plan *plan, const char *path, int64_t cube,
                             const void *cells) {
  char part[4200];
  int64_t number[3];
  const int64_t chunks = fn_cube_chunks(plan, number);
  const size_t head = (size_t)(chunks + 1) * sizeof(int64_t);
  int64_t *sizes = calloc((size_t)chunks + 1, sizeof *sizes);
  FN_CHECK(sizes, FN_ERR_MEMORY, "no memory to compress a cube");
  fn_text text = {0};
  sizes[0] = chunks;
  fn_text_add_bytes(&text, (const char *)sizes, head);
  fn_status status = compress_chunks(plan, cells, sizes + 1, &text);
  size_t expected = head;
  for (int64_t i = 1; i <= chunks; i++)
    expected += (size_t)sizes[i];
  if (status == FN_OK && text.length != expected)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory to compress a cube");
  if (status == FN_OK) {
    memcpy(text.data, sizes, head);
    const uint64_t hash = fn_hash_bytes(FN_HASH_START, text.data, text.length);
    fn_text_add_bytes(&text, (const char *)&hash, sizeof hash);
    part_path(path, cube, part, sizeof part);
    status = put_part(part, &text);
  }
  fn_text_free(&text);
  free(sizes);
  return status;
}

static bool is_whole(const char *bytes, size_t count) {
  uint64_t hash;
  if (count < 2 * sizeof hash) return false;
  memcpy(&hash, bytes + count - sizeof hash, sizeof hash);
  return hash == fn_hash_bytes(FN_HASH_START, bytes, count - sizeof hash);
}

fn_status fn_cube_part_check(const char *path, int64_t cube, bool *good) {
  char part[4200], *bytes;
  size_t count;
  part_path(path, cube, part, sizeof part);
  *good = false;
  if (!fn_file_exists(part)) return FN_OK;
  FN_TRY(fn_file_read(part, &bytes, &count));
  *good = is_whole(bytes, count);
  free(bytes);
  return FN_OK;
}

fn_status fn_cube_part_read(const fn_cube_plan *plan, const char *path, int64_t cube, char **bytes,
                            const int64_t **sizes, const char **data) {
  char part[4200];
  int64_t number[3], total = 0, chunks = fn_cube_chunks(plan, number);
  size_t count;
  part_path(path, cube, part, sizeof part);
  FN_TRY(fn_file_read(part, bytes, &count));
  const size_t frame = (size_t)(chunks + 2) * sizeof(int64_t);
  bool good = count >= frame && is_whole(*bytes, count) && *(const int64_t *)*bytes == chunks;
  *sizes = (const int64_t *)*bytes + 1;
  *data = *bytes + (size_t)(chunks + 1) * sizeof(int64_t);
  for (int64_t i = 0; i < chunks && good; i++)
    total += (*sizes)[i];
  good = good && count == frame + (size_t)total;
  if (good) return FN_OK;
  free(*bytes);
  *bytes = NULL;
  FN_FAIL(FN_ERR_DATA, "%s was changed or cut after it was written", part);
}

fn_status fn_cube_parts_bytes(const fn_cube_plan *plan, const char *path, int64_t *bytes) {
  char part[4200];
  struct stat info;
  *bytes = 0;
  for (int64_t i = 0; i < plan->cubes; i++) {
    part_path(path, i, part, sizeof part);
    FN_CHECK(stat(part, &info) == 0, FN_ERR_DATA, "%s is gone", part);
    *bytes += info.st_size;
  }
  return FN_OK;
}

void fn_cube_parts_remove(const char *path) {
  char folder[4200], name[4600];
  snprintf(folder, sizeof folder, "%s.parts", path);
  DIR *parts = opendir(folder);
  if (!parts) return;
  // Everything: a process that was killed may have left temporary files too.
  for (const struct dirent *entry; (entry = readdir(parts));) {
    snprintf(name, sizeof name, "%s/%s", folder, entry->d_name);
    if (entry->d_name[0] != '.') unlink(name);
  }
  closedir(parts);
  rmdir(folder);
}
