/** @file data_files.h
 *  For tests of the data room: small field files in a folder of their own, runs from YAML text.
 */
#ifndef FN_TESTS_DATA_FILES_H
#define FN_TESTS_DATA_FILES_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/system.h"
#include "data/dataset.h"
#include "field/field.h"

static char folder[] = "/tmp/fieldnet_data_XXXXXX";

static inline int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static inline int remove_folder(void **state) {
  (void)state;
  char command[600];
  snprintf(command, sizeof command, "cd /; rm -rf %s", folder);
  return system(command);
}

/** Run description from YAML text, formatted. */
__attribute__((format(printf, 1, 2))) static inline fn_run *run_of(const char *format, ...) {
  char text[4096];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  fn_run *run = NULL;
  char *errors = NULL;
  if (fn_run_parse(text, "run.yaml", NULL, 0, FN_COMMAND_OTHER, &run, &errors) != FN_OK)
    fail_msg("%s\n%s", errors ? errors : fn_error_message(), text);
  return run;
}

static inline fn_dataset *dataset_of(const fn_run *run, fn_stage stage) {
  fn_dataset *dataset;
  if (fn_dataset_create(run, stage, &dataset) != FN_OK) fail_msg("%s", fn_error_message());
  return dataset;
}

/** Value of a test field: every cell of every file is different, exact in float32. */
static inline float value_at(int file, int64_t index) {
  return (float)(file * 100000 + index + 1);
}

static inline int64_t count_of(int ndim, const int64_t *dim) {
  int64_t count = 1;
  for (int i = 0; i < ndim; i++)
    count *= dim[i];
  return count;
}

/** File `path` (format, file) of shape dim holding value_at(file, index). */
__attribute__((format(printf, 4, 5))) static inline void
write_field(int file, int ndim, const int64_t *dim, const char *format, ...) {
  char path[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(path, sizeof path, format, arguments);
  va_end(arguments);
  char *slash = strrchr(path, '/');
  if (slash) {
    *slash = '\0';
    assert_int_equal(fn_make_directories(path), FN_OK);
    *slash = '/';
  }
  const int64_t count = count_of(ndim, dim);
  float *values = malloc((size_t)count * sizeof *values);
  for (int64_t i = 0; i < count; i++)
    values[i] = value_at(file, i);
  if (fn_npy_write(path, values, ndim, dim) != FN_OK) fail_msg("%s", fn_error_message());
  free(values);
}

/** Shape [channels, edge, edge, ...] with `spatial` axes. */
static inline const int64_t *cube(int spatial, int64_t channels, int64_t edge) {
  static int64_t dim[4];
  dim[0] = channels;
  for (int d = 0; d < spatial; d++)
    dim[d + 1] = edge;
  return dim;
}

#endif
