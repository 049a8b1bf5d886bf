/** @file report_files.h
 *  What tests of src/report share: a folder of their own, and what is in it.
 */
#ifndef REPORT_FILES_H
#define REPORT_FILES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/system.h"

static inline void assert_near(double value, double expected, double tolerance) {
  if (!(fabs(value - expected) <= tolerance)) {
    fail_msg("%.17g is not within %g of %.17g", value, tolerance, expected);
  }
}

static inline char *temporary_folder(void) {
  static char folder[64];
  snprintf(folder, sizeof folder, "/tmp/fieldnet-report-XXXXXX");
  assert_non_null(mkdtemp(folder));
  return folder;
}

static inline void remove_tree(const char *path) {
  DIR *directory = opendir(path);
  if (!directory) {
    unlink(path);
    return;
  }
  struct dirent *entry;
  char below[1024];
  while ((entry = readdir(directory))) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
    remove_tree(below);
  }
  closedir(directory);
  rmdir(path);
}

static inline char *content(const char *folder, const char *name) {
  char path[1024], *bytes;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  assert_int_equal(fn_file_read(path, &bytes, NULL), FN_OK);
  return bytes;
}

#endif
