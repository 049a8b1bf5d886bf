/* fieldnet data inspect: what is in field files. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/command_data.h"
#include "field/array.h"
#include "field/field.h"

/** What the values of one channel, or of all, are like. */
typedef struct statistics {
  double low, high;
  double shift, sum, squares; // of value - shift, the first value: sums without cancellation
  int64_t finite, other;
} statistics;

static void count_values(statistics *s, const float *values, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    const double value = (double)values[i];
    if (!isfinite(value)) {
      s->other++;
      continue;
    }
    if (s->finite++ == 0) s->shift = s->low = s->high = value;
    s->low = fmin(s->low, value);
    s->high = fmax(s->high, value);
    s->sum += value - s->shift;
    s->squares += (value - s->shift) * (value - s->shift);
  }
}

static void print_statistics(const char *name, const statistics *s) {
  if (s->finite == 0) {
    printf("  %-12s no finite values\n", name);
    return;
  }
  const double n = (double)s->finite, offset = s->sum / n;
  const double variance = fmax(0, s->squares / n - offset * offset);
  printf("  %-12s min %-12.6g max %-12.6g mean %-12.6g std %.6g", name, s->low, s->high,
         s->shift + offset, sqrt(variance));
  if (s->other > 0) printf("  (%lld not finite)", (long long)s->other);
  printf("\n");
}

/** Read the whole field slab by slab along its first spatial axis; stats has one per channel. */
static fn_status measure(fn_field *field, statistics *stats) {
  const fn_field_info *info = fn_field_get_info(field);
  int64_t plane = 1, start[FN_MAX_DIMS] = {0}, extent[FN_MAX_DIMS];
  for (int i = 1; i < info->spatial; i++)
    plane *= info->size[i];
  memcpy(extent, info->size, sizeof extent);
  const int64_t budget = 1 << 24; // values in memory
  int64_t slab = budget / (plane * info->channels);
  slab = slab < 1 ? 1 : slab > info->size[0] ? info->size[0] : slab;
  float *values = malloc(sizeof *values * (size_t)(slab * plane * info->channels));
  FN_CHECK(values, FN_ERR_MEMORY, "no memory for a slab of %s", fn_field_path(field));
  fn_status status = FN_OK;
  while (start[0] < info->size[0] && status == FN_OK) {
    extent[0] = info->size[0] - start[0] < slab ? info->size[0] - start[0] : slab;
    status = fn_field_read(field, 0, start, extent, values);
    const int64_t count = extent[0] * plane;
    for (int64_t c = 0; c < info->channels && status == FN_OK; c++) {
      count_values(&stats[c], values + c * count, count);
    }
    start[0] += extent[0];
  }
  free(values);
  return status;
}

static void print_header(const fn_field *field) {
  const fn_field_info *info = fn_field_get_info(field);
  char bytes[32];
  printf("%s\n  type %s  shape %lld", fn_field_path(field), info->type, (long long)info->channels);
  for (int i = 0; i < info->spatial; i++)
    printf(" x %lld", (long long)info->size[i]);
  printf("%s  %s\n", info->fortran ? " (Fortran order)" : "",
         fn_text_bytes((double)info->bytes, bytes, sizeof bytes));
}

static fn_status inspect_open(fn_field *field) {
  enum { MOST_CHANNELS = 16 };
  const fn_field_info *info = fn_field_get_info(field);
  print_header(field);
  statistics *stats = calloc((size_t)info->channels, sizeof *stats);
  FN_CHECK(stats, FN_ERR_MEMORY, "no memory for %lld channels", (long long)info->channels);
  const fn_status status = measure(field, stats);
  for (int64_t c = 0; c < info->channels && c < MOST_CHANNELS && status == FN_OK; c++) {
    char name[32];
    snprintf(name, sizeof name, "channel %lld", (long long)c);
    print_statistics(name, &stats[c]);
  }
  if (info->channels > MOST_CHANNELS && status == FN_OK) {
    printf("  and %lld more\n", (long long)(info->channels - MOST_CHANNELS));
  }
  free(stats);
  return status;
}

static fn_status inspect_dataset(const char *path) {
  fn_field *field;
  FN_TRY(fn_field_open(path, false, &field));
  const fn_status status = inspect_open(field);
  fn_field_close(field);
  return status;
}

static bool is_hdf5(const char *path) {
  char head[8] = "";
  FILE *file = fopen(path, "rb");
  if (!file) return false;
  const bool read = fread(head, sizeof head, 1, file) == 1;
  fclose(file);
  return read && memcmp(head, "\x89HDF\r\n\x1a\n", sizeof head) == 0;
}

/** Paths of all datasets of an HDF5 file named without one; any other path as it is. */
static fn_status list_datasets(fn_arena *arena, const char *path, const char ***paths, int *count) {
  const char **names = NULL;
  if (!is_hdf5(path)) {
    *paths = fn_arena_take(arena, sizeof **paths);
    (*paths)[0] = path;
    *count = 1;
    return FN_OK;
  }
  FN_TRY(fn_hdf5_list(path, arena, &names, count));
  *paths = fn_arena_take(arena, sizeof **paths * (size_t)(*count + 1));
  for (int i = 0; i < *count; i++)
    (*paths)[i] = fn_arena_format(arena, "%s:%s", path, names[i]);
  if (*count == 0) printf("%s\n  no datasets\n", path);
  return FN_OK;
}

/** The first failure of several, with its message; each is shown where it happens. */
typedef struct failure {
  fn_status status;
  const char *message;
} failure;

static void note(failure *first, fn_arena *arena, const char *path, fn_status status) {
  if (status == FN_OK) return;
  printf("%s\n  %s\n", path, fn_error_message());
  if (first->status != FN_OK) return;
  first->status = status;
  first->message = fn_arena_text(arena, fn_error_message());
}

/** All files are tried, whatever happens to one. */
fn_status fn_data_inspect(const fn_command_line *line) {
  FN_CHECK(line->extra_count > 1, FN_ERR_CONFIG, "data inspect: no file given");
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "no memory to inspect files");
  failure first = {FN_OK, NULL};
  for (int i = 1; i < line->extra_count; i++) {
    const char **paths = NULL;
    int count = 0;
    note(&first, arena, line->extra[i], list_datasets(arena, line->extra[i], &paths, &count));
    for (int d = 0; d < count; d++)
      note(&first, arena, paths[d], inspect_dataset(paths[d]));
  }
  if (first.status != FN_OK) fn_error_set(first.status, __FILE__, __LINE__, "%s", first.message);
  fn_arena_destroy(arena);
  return first.status;
}
