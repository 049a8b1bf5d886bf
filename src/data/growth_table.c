/* Growth of linear perturbations from a formula or from a table of the user's. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "data/cube_source.h"
#include "data/dataset.h"

typedef struct table {
  double *z, *growth; // ascending in z
  int64_t count;
} table;

/** Two numbers at the start of a line, or none when it is empty or a comment. */
static fn_status read_row(const char *path, int line, char *text, table *t) {
  text[strcspn(text, "#\r")] = '\0';
  char *end, *second;
  if (text[strspn(text, " \t,")] == '\0') return FN_OK;
  const double z = strtod(text, &end);
  second = end + strspn(end, " \t,");
  const double growth = strtod(second, &end);
  FN_CHECK(end != second && isfinite(z) && z > -1 && isfinite(growth) && growth > 0, FN_ERR_DATA,
           "%s:%d: expected redshift and growth factor, found '%.60s'", path, line, text);
  t->z[t->count] = z;
  t->growth[t->count++] = growth;
  return FN_OK;
}

static fn_status order_rows(const char *path, table *t) {
  FN_CHECK(t->count >= 2, FN_ERR_DATA, "%s: expected at least two rows of redshift and growth",
           path);
  const bool descending = t->z[1] < t->z[0];
  for (int64_t i = 0, j = t->count - 1; descending && i < j; i++, j--) {
    const double z = t->z[i], growth = t->growth[i];
    t->z[i] = t->z[j];
    t->z[j] = z;
    t->growth[i] = t->growth[j];
    t->growth[j] = growth;
  }
  for (int64_t i = 1; i < t->count; i++)
    FN_CHECK(t->z[i] > t->z[i - 1], FN_ERR_DATA, "%s: redshifts %g and %g are not in order", path,
             t->z[i - 1], t->z[i]);
  return FN_OK;
}

static fn_status read_rows(const char *path, char *bytes, table *t) {
  int line = 0;
  for (char *at = bytes; at; line++) {
    char *next = strchr(at, '\n');
    if (next) *next++ = '\0';
    FN_TRY(read_row(path, line + 1, at, t));
    at = next;
  }
  return order_rows(path, t);
}

/** Lagrange's polynomial through the nearest four rows, fewer when there are not as many. */
static fn_status interpolate(const char *path, const table *t, double z, double *growth) {
  FN_CHECK(z >= t->z[0] && z <= t->z[t->count - 1], FN_ERR_DATA,
           "%s: redshift %g is outside the table, which goes from %g to %g", path, z, t->z[0],
           t->z[t->count - 1]);
  int64_t above = 0;
  while (t->z[above] < z)
    above++;
  const int64_t points = t->count < 4 ? t->count : 4;
  int64_t first = above - points / 2;
  if (first < 0) first = 0;
  if (first > t->count - points) first = t->count - points;
  *growth = 0;
  for (int64_t i = first; i < first + points; i++) {
    double weight = 1;
    for (int64_t j = first; j < first + points; j++)
      if (j != i) weight *= (z - t->z[j]) / (t->z[i] - t->z[j]);
    *growth += weight * t->growth[i];
  }
  return FN_OK;
}

static fn_status read_table(const char *path, double z, double *growth) {
  char *bytes = NULL;
  FN_TRY(fn_file_read(path, &bytes, NULL));
  int64_t lines = 1;
  for (const char *at = bytes; *at; at++)
    lines += *at == '\n';
  table t = {malloc(sizeof *t.z * (size_t)lines), malloc(sizeof *t.growth * (size_t)lines), 0};
  fn_status status = FN_OK;
  if (!t.z || !t.growth)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory to read %s", path);
  if (status == FN_OK) status = read_rows(path, bytes, &t);
  if (status == FN_OK) status = interpolate(path, &t, z, growth);
  free(t.z);
  free(t.growth);
  free(bytes);
  return status;
}

fn_status fn_growth_read(const char *text, double z, double *growth) {
  if (fn_text_starts(text, "lcdm:")) {
    char *end;
    const double omega_m = strtod(text + 5, &end);
    FN_CHECK(
        end != text + 5 && *end == '\0' && omega_m > 0 && omega_m <= 1, FN_ERR_CONFIG,
        "growth: expected lcdm:OMEGA_M with a matter density above 0 and at most 1, found '%s'",
        text);
    *growth = fn_growth_factor(z, omega_m);
  } else {
    FN_TRY(read_table(text, z, growth));
  }
  *growth *= 1 + z;
  return FN_OK;
}
