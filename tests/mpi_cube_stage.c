/* Files copied to a folder of the node: once, whole, used again, by several jobs at a time. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/system.h"
#include "data/cube_queue.h"
#include "mpi_test.h"

static char folder[64];

/** Longer than the buffer of the copy, and no multiple of anything. */
enum { BYTES = 9 * 1024 * 1024 + 12345 };

static const char *at(const char *name) {
  static char path[8][512];
  static int next;
  next = (next + 1) % 8;
  snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
  return path[next];
}

static void write_source(const char *path, unsigned start, size_t count) {
  unsigned char *bytes = malloc(count);
  for (size_t i = 0; i < count; i++)
    bytes[i] = (unsigned char)((start + i) * 2654435761u >> 13);
  if (dist.rank == 0) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    fclose(file);
  }
  free(bytes);
  MPI_Barrier(dist.comm);
}

static bool same_bytes(const char *a, const char *b) {
  char *x, *y;
  size_t n, m;
  assert_int_equal(fn_file_read(a, &x, &n), FN_OK);
  assert_int_equal(fn_file_read(b, &y, &m), FN_OK);
  const bool same = n == m && memcmp(x, y, n) == 0;
  free(x);
  free(y);
  return same;
}

static ino_t inode(const char *path) {
  struct stat info;
  assert_int_equal(stat(path, &info), 0);
  return info.st_ino;
}

static char *staged_file(const char *source, const char *to, MPI_Comm comm) {
  char *staged = NULL;
  if (fn_cube_stage(source, to, comm, &staged) != FN_OK) fail_msg("%s", fn_error_message());
  MPI_Barrier(comm);
  return staged;
}

static void copied_once_and_used_again(void **state) {
  (void)state;
  write_source(at("data.h5"), 1, BYTES);
  char *first = staged_file(at("data.h5"), at("local/deep"), dist.comm);
  assert_true(same_bytes(first, at("data.h5")));
  assert_null(strstr(first, "/data.h5")); // files of one name from two folders do not meet
  const ino_t before = inode(first);
  MPI_Barrier(dist.comm);
  char *second = staged_file(at("data.h5"), at("local/deep"), dist.comm);
  assert_string_equal(first, second);
  assert_int_equal(inode(second), before);
  free(second);
  free(first);
}

static void damaged_or_old_copies_are_replaced(void **state) {
  (void)state;
  write_source(at("data.h5"), 1, BYTES);
  char *copy = staged_file(at("data.h5"), at("local"), dist.comm);
  MPI_Barrier(dist.comm);
  if (dist.rank == 0) { // one byte, same length
    FILE *file = fopen(copy, "r+b");
    fseek(file, 9 * 1024 * 1024 + 7, SEEK_SET);
    fputc(fgetc(file) ^ 16, file);
    fclose(file);
    assert_false(same_bytes(copy, at("data.h5")));
  }
  MPI_Barrier(dist.comm);
  free(staged_file(at("data.h5"), at("local"), dist.comm));
  assert_true(same_bytes(copy, at("data.h5")));
  MPI_Barrier(dist.comm);
  if (dist.rank == 0) assert_int_equal(truncate(copy, 1000), 0);
  MPI_Barrier(dist.comm);
  free(staged_file(at("data.h5"), at("local"), dist.comm));
  assert_true(same_bytes(copy, at("data.h5")));
  MPI_Barrier(dist.comm);
  write_source(at("data.h5"), 2, BYTES); // a new source of the same length
  free(staged_file(at("data.h5"), at("local"), dist.comm));
  assert_true(same_bytes(copy, at("data.h5")));
  free(copy);
}

/* Every rank stages for itself, as jobs of one rank each would. */
static void several_jobs_at_once(void **state) {
  (void)state;
  for (int repeat = 0; repeat < 3; repeat++) {
    write_source(at("jobs.h5"), 3 + (unsigned)repeat, BYTES);
    char *copy = staged_file(at("jobs.h5"), at("jobs"), MPI_COMM_SELF);
    assert_true(same_bytes(copy, at("jobs.h5")));
    const int64_t mine = (int64_t)inode(copy);
    int64_t least, most;
    MPI_Allreduce(&mine, &least, 1, MPI_INT64_T, MPI_MIN, dist.comm);
    MPI_Allreduce(&mine, &most, 1, MPI_INT64_T, MPI_MAX, dist.comm);
    assert_int_equal(least, most);
    free(copy);
  }
}

static int files_in(const char *path) {
  DIR *dir = opendir(path);
  int count = 0;
  for (struct dirent *e; dir && (e = readdir(dir));)
    count += e->d_name[0] != '.' && !strstr(e->d_name, ".lock");
  if (dir) closedir(dir);
  return count;
}

static void refused(const char *source, const char *to, fn_status status, const char *part) {
  char *staged = NULL;
  assert_int_equal(fn_cube_stage(source, to, dist.comm, &staged), status);
  assert_null(staged);
  if (!strstr(fn_error_message(), part)) fail_msg("'%s' expected in: %s", part, fn_error_message());
}

/* 8 TB of holes: refused before anything is written. */
static void what_does_not_fit_is_refused(void **state) {
  (void)state;
  write_source(at("huge.h5"), 1, 10);
  int made = 1;
  if (dist.rank == 0) made = truncate(at("huge.h5"), (off_t)1 << 43) == 0;
  fn_dist_broadcast(&dist, &made, sizeof made);
  if (!made) skip(); // this file system has no files of 8 TB
  refused(at("huge.h5"), at("small"), FN_ERR_DATA, "does not fit into");
  assert_int_equal(files_in(at("small")), 0);
  if (dist.rank == 0) unlink(at("huge.h5"));
}

static void what_cannot_be_copied_is_refused(void **state) {
  (void)state;
  write_source(at("data.h5"), 1, 1000);
  refused(at("missing.h5"), at("local"), FN_ERR_DATA, "missing.h5: No such file");
  refused(folder, at("local"), FN_ERR_DATA, "not a regular file");
  refused(at("data.h5"), at("data.h5/folder"), FN_ERR_CONFIG, "data.h5"); // a file is no folder
}

int main(int argc, char **argv) {
  if (!join_job(&argc, &argv)) return 2;
  snprintf(folder, sizeof folder, "/tmp/fieldnet_stage_XXXXXX");
  if (dist.rank == 0 && !mkdtemp(folder)) return 2;
  fn_dist_broadcast(&dist, folder, sizeof folder);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(copied_once_and_used_again),
      cmocka_unit_test(damaged_or_old_copies_are_replaced),
      cmocka_unit_test(several_jobs_at_once),
      cmocka_unit_test(what_does_not_fit_is_refused),
      cmocka_unit_test(what_cannot_be_copied_is_refused),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  MPI_Barrier(dist.comm);
  if (dist.rank == 0) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    failed += system(command) != 0;
  }
  fn_dist_finalize(&dist);
  return failed;
}
