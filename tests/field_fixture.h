/** @file field_fixture.h
 *  Files written byte by byte in a scratch folder, and blocks checked against a modulo reference.
 */
#ifndef FN_TESTS_FIELD_FIXTURE_H
#define FN_TESTS_FIELD_FIXTURE_H

#include "base/random.h"
#include "base/system.h"
#include "field/array.h"
#include "field/hdf5.h"
#include <cmocka.h>
#include <hdf5.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/fieldnet_field_XXXXXX";

static const char *at(const char *name) {
  static char path[8][512];
  static int next;
  next = (next + 1) % 8;
  snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
  return path[next];
}

static int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  (void)state;
  char command[600];
  snprintf(command, sizeof command, "chmod -R u+rwX %s; rm -rf %s", folder, folder);
  return system(command);
}

static void write_file(const char *path, const void *bytes, size_t count) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, count, file), count);
  fclose(file);
}

/** An npy file image: header of the given format version, then `count` bytes. */
static size_t npy_image(unsigned char *image, int version, const char *dict, const void *bytes,
                        size_t count) {
  const size_t start = version == 1 ? 10 : 12, length = strlen(dict);
  memcpy(image, "\x93NUMPY", 6);
  image[6] = (unsigned char)version;
  image[7] = 0;
  for (size_t i = 8; i < start; i++)
    image[i] = (unsigned char)(length >> (8 * (i - 8)));
  memcpy(image + start, dict, length);
  if (count) memcpy(image + start + length, bytes, count);
  return start + length + count;
}

/** Compare one read with out[c, x...] = reference[c, (start + x) mod size]. */
static void check_block(fn_field *field, int64_t sample, const float *reference,
                        const int64_t *start, const int64_t *extent) {
  const fn_field_info *info = fn_field_get_info(field);
  int64_t cells = 1, count = 1;
  for (int i = 0; i < info->spatial; i++) {
    cells *= info->size[i];
    count *= extent[i];
  }
  float *out = malloc((size_t)(info->channels * count) * sizeof *out + 1);
  assert_int_equal(fn_field_read(field, sample, start, extent, out), FN_OK);
  for (int64_t k = 0; k < info->channels * count; k++) {
    int64_t rest = k % count, cell = 0, stride = 1;
    for (int i = info->spatial - 1; i >= 0; i--) {
      const int64_t size = info->size[i];
      cell += (((start[i] + rest % extent[i]) % size + size) % size) * stride;
      rest /= extent[i];
      stride *= size;
    }
    const float wanted = reference[(sample * info->channels + k / count) * cells + cell];
    assert_memory_equal(&out[k], &wanted, sizeof wanted);
  }
  free(out);
}

/** Value i of a type: extremes first, then a spread; its bit pattern into bits. */
#endif
