/* fieldnet data inspect: what is in field files. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/command_data.h"
#include "field/array.h"
#include "field/field.h"
#include "field/hdf5_describe.h"
#include "report/plot.h"

enum { MOST_CHANNELS = 16, MOST_DATASETS = 16 };

/* ---- values ------------------------------------------------------------------------------------
 */

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

/** Add the values behind `more` to those behind `s`. */
static void join_values(statistics *s, const statistics *more) {
  s->other += more->other;
  if (more->finite == 0) return;
  if (s->finite == 0) {
    const int64_t other = s->other;
    *s = *more;
    s->other = other;
    return;
  }
  const double n = (double)more->finite, step = more->shift - s->shift;
  s->low = fmin(s->low, more->low);
  s->high = fmax(s->high, more->high);
  s->squares += more->squares + 2 * step * more->sum + n * step * step;
  s->sum += more->sum + n * step;
  s->finite += more->finite;
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

/** Read one sample slab by slab along its first spatial axis; stats has one per channel. */
static fn_status measure(fn_field *field, int64_t sample, statistics *stats) {
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
    status = fn_field_read(field, sample, start, extent, values);
    const int64_t count = extent[0] * plane;
    for (int64_t c = 0; c < info->channels && status == FN_OK; c++)
      count_values(&stats[c], values + c * count, count);
    start[0] += extent[0];
  }
  free(values);
  return status;
}

/** One sample: a line per channel when there are few and `all` is not wanted alone. */
static fn_status inspect_sample(fn_field *field, int64_t sample, const char *name) {
  const fn_field_info *info = fn_field_get_info(field);
  statistics *stats = calloc((size_t)info->channels, sizeof *stats), all = {0};
  FN_CHECK(stats, FN_ERR_MEMORY, "no memory for %lld channels", (long long)info->channels);
  const fn_status status = measure(field, sample, stats);
  for (int64_t c = 0; c < info->channels && status == FN_OK; c++) {
    char label[32];
    snprintf(label, sizeof label, "channel %lld", (long long)c);
    if (!name && info->channels <= MOST_CHANNELS) print_statistics(label, &stats[c]);
    join_values(&all, &stats[c]);
  }
  if (status == FN_OK && (name || info->channels > MOST_CHANNELS))
    print_statistics(name ? name : "all values", &all);
  free(stats);
  return status;
}

/** A dataset of many cubes: some of them, spread evenly. */
static fn_status inspect_packed(const char *path, bool every) {
  fn_field *field;
  FN_TRY(fn_field_open(path, true, &field));
  const int64_t samples = fn_field_get_info(field)->packed;
  const int64_t shown = every || samples < MOST_DATASETS ? samples : MOST_DATASETS;
  fn_status status = FN_OK;
  for (int64_t i = 0; i < shown && status == FN_OK; i++) {
    char name[32];
    snprintf(name, sizeof name, "sample %lld", (long long)(i * samples / shown));
    status = inspect_sample(field, i * samples / shown, name);
  }
  fn_field_close(field);
  if (shown < samples)
    printf("  %lld of %lld samples were read; --all reads every one\n", (long long)shown,
           (long long)samples);
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

/** How and with which attributes a dataset is stored. */
static void print_storage(fn_hdf5_view *view, const char *name) {
  fn_text text = {0};
  char bytes[32];
  fn_hdf5_view_storage(view, name, &text);
  printf("  stored as %s, %s\n", text.data ? text.data : "?",
         fn_text_bytes((double)fn_hdf5_view_bytes(view, name), bytes, sizeof bytes));
  fn_text_free(&text);
  fn_hdf5_view_attributes(view, name, "  ", &text);
  if (text.data) fputs(text.data, stdout);
  fn_text_free(&text);
}

/** `view` and `name` are NULL for other files than HDF5. */
static fn_status inspect_dataset(const char *path, fn_hdf5_view *view, const char *name,
                                 bool every) {
  fn_field *field;
  const int axes = view ? fn_hdf5_view_axes(view, name) : 2;
  if (axes == 0 || axes == 1) { // beside the fields, not one of them
    printf("%s\n", path);
    print_storage(view, name);
    return FN_OK;
  }
  FN_TRY(fn_field_open(path, false, &field));
  print_header(field);
  if (view) print_storage(view, name);
  const fn_field_info *info = fn_field_get_info(field);
  const bool packed = view && info->spatial >= 3 && info->channels > MOST_CHANNELS;
  const fn_status status = packed ? FN_OK : inspect_sample(field, 0, NULL);
  fn_field_close(field);
  return packed ? inspect_packed(path, every) : status;
}

/* ---- files -------------------------------------------------------------------------------------
 */

static bool is_hdf5(const char *path) {
  char head[8] = "";
  FILE *file = fopen(path, "rb");
  if (!file) return false;
  const bool read = fread(head, sizeof head, 1, file) == 1;
  fclose(file);
  return read && memcmp(head, "\x89HDF\r\n\x1a\n", sizeof head) == 0;
}

/** The first failure of several, with its message; each is shown where it happens. */
typedef struct failure {
  fn_status status;
  const char *message;
} failure;

/** `alone`: the first failure is all there is to say, and said at the end. */
static void note(failure *first, fn_arena *arena, const char *path, bool alone, fn_status status) {
  if (status == FN_OK) return;
  if (!alone) printf("%s\n  %s\n", path, fn_error_message());
  if (first->status != FN_OK) return;
  first->status = status;
  first->message = fn_arena_text(arena, fn_error_message());
}

static int compare_texts(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/** How many datasets are stored in which way. */
static void print_summary(fn_arena *arena, fn_hdf5_view *view, const char **names, int count) {
  const char **kinds = fn_arena_take(arena, sizeof *kinds * (size_t)count);
  for (int i = 0; i < count; i++) {
    fn_text text = {0};
    fn_hdf5_view_storage(view, names[i], &text);
    kinds[i] = fn_arena_text(arena, text.data ? text.data : "?");
    fn_text_free(&text);
  }
  qsort(kinds, (size_t)count, sizeof *kinds, compare_texts);
  printf("  %d datasets, %s ... %s\n", count, names[0], names[count - 1]);
  for (int i = 0, first = 0; i < count; i++) {
    if (i + 1 < count && strcmp(kinds[i], kinds[i + 1]) == 0) continue;
    printf("  %d x %s\n", i + 1 - first, kinds[i]);
    first = i + 1;
  }
}

/** All datasets of an HDF5 file, or some of thousands. */
static fn_status inspect_hdf5(fn_arena *arena, const char *path, bool every, failure *first) {
  const char **names = NULL;
  int count = 0;
  fn_hdf5_view *view;
  fn_text text = {0};
  FN_TRY(fn_hdf5_list(path, arena, &names, &count));
  FN_TRY(fn_hdf5_view_open(path, &view));
  fn_hdf5_view_attributes(view, "/", "  ", &text);
  if (text.data || count != 1) printf("%s\n%s", path, text.data ? text.data : "");
  fn_text_free(&text);
  if (count == 0) printf("  no datasets\n");
  if (count > MOST_DATASETS) print_summary(arena, view, names, count);
  const int shown = every || count < MOST_DATASETS ? count : MOST_DATASETS;
  for (int i = 0; i < shown; i++) {
    const char *name = names[(int64_t)i * count / shown];
    const char *full = fn_arena_format(arena, "%s:%s", path, name);
    note(first, arena, full, false, inspect_dataset(full, view, name, every));
  }
  if (shown < count) printf("  %d of %d datasets were read; --all reads every one\n", shown, count);
  fn_hdf5_view_close(view);
  return FN_OK;
}

static fn_status inspect_named(fn_arena *arena, const char *path, bool every) {
  const int colon = fn_dataset_colon(path);
  if (colon < 0) return inspect_dataset(path, NULL, NULL, every);
  fn_hdf5_view *view;
  FN_TRY(fn_hdf5_view_open(fn_arena_format(arena, "%.*s", colon, path), &view));
  const fn_status status = inspect_dataset(path, view, path + colon + 1, every);
  fn_hdf5_view_close(view);
  return status;
}

/* ---- picture -----------------------------------------------------------------------------------
 */

/** Open the array that a path names, the first one of an HDF5 file. */
static fn_status open_array(fn_arena *arena, const char *path, fn_array **array,
                            const char **shown) {
  const int colon = fn_dataset_colon(path);
  *shown = path;
  if (colon >= 0)
    return fn_hdf5_open(fn_arena_format(arena, "%.*s", colon, path), path + colon + 1, array);
  if (!is_hdf5(path)) return fn_npy_open(path, array);
  const char **names = NULL;
  int count = 0, first = 0;
  fn_hdf5_view *view;
  FN_TRY(fn_hdf5_list(path, arena, &names, &count));
  FN_TRY(fn_hdf5_view_open(path, &view));
  while (first < count && fn_hdf5_view_axes(view, names[first]) < 2)
    first++;
  fn_hdf5_view_close(view);
  FN_CHECK(first < count, FN_ERR_DATA, "%s holds no dataset with planes to draw", path);
  *shown = fn_arena_format(arena, "%s:%s", path, names[first]);
  return fn_hdf5_open(path, names[first], array);
}

/** "AXIS" or "AXIS,N"; axes count within the last three. */
static fn_status read_slice(const fn_command_line *line, const fn_array *array, int *axis,
                            int64_t *index) {
  const char *text = fn_command_text(line, "slice", "0");
  const int axes = array->ndim < 3 ? array->ndim : 3;
  int used = 0, wanted = -1;
  long long position = -1;
  const bool plain = sscanf(text, "%d%n", &wanted, &used) == 1 && text[used] == '\0';
  const bool both =
      !plain && sscanf(text, "%d,%lld%n", &wanted, &position, &used) == 2 && text[used] == '\0';
  FN_CHECK((plain || both) && wanted >= 0 && wanted < axes, FN_ERR_CONFIG,
           "--slice: expected AXIS or AXIS,N with an axis from 0 to %d, found '%s'", axes - 1,
           text);
  *axis = array->ndim - axes + wanted;
  *index = both ? position : array->dim[*axis] / 2;
  FN_CHECK(*index >= 0 && *index < array->dim[*axis], FN_ERR_CONFIG,
           "--slice: axis %d has planes 0 to %lld, found '%s'", wanted,
           (long long)array->dim[*axis] - 1, text);
  return FN_OK;
}

static fn_status draw_plane(const fn_command_line *line, fn_array *array, const char *shown,
                            const char *png) {
  int64_t start[FN_ARRAY_DIMS] = {0}, extent[FN_ARRAY_DIMS], size[2] = {0}, index = 0;
  int axis = -1, sides = 0;
  FN_CHECK(array->ndim >= 2, FN_ERR_DATA, "%s has %d axes: nothing to draw a plane of", shown,
           array->ndim);
  if (array->ndim > 2) FN_TRY(read_slice(line, array, &axis, &index));
  for (int i = 0; i < array->ndim; i++) {
    const bool side = i != axis && i >= array->ndim - 3;
    extent[i] = side ? array->dim[i] : 1;
    if (side) size[sides++] = array->dim[i];
  }
  if (axis >= 0) start[axis] = index;
  float *values = malloc(sizeof *values * (size_t)(size[0] * size[1]));
  FN_CHECK(values, FN_ERR_MEMORY, "no memory for a plane of %s", shown);
  char text[128] = "";
  if (axis >= 0)
    snprintf(text, sizeof text, "plane %lld of %lld normal to axis %d", (long long)index,
             (long long)array->dim[axis], axis - (array->ndim - 3));
  fn_picture *picture = NULL;
  fn_status status = array->read(array, start, extent, values);
  if (status == FN_OK) status = fn_plot_plane(shown, text, values, size[0], size[1], &picture);
  if (status == FN_OK) status = fn_picture_save(picture, png);
  fn_picture_destroy(picture);
  free(values);
  if (status == FN_OK) printf("%s: %s%s%s\n", png, shown, text[0] ? ", " : "", text);
  return status;
}

static fn_status draw(fn_arena *arena, const fn_command_line *line, const char *png) {
  fn_array *array;
  const char *shown;
  FN_TRY(open_array(arena, line->extra[1], &array, &shown));
  const fn_status status = draw_plane(line, array, shown, png);
  array->close(array);
  return status;
}

/** All files are tried, whatever happens to one. */
fn_status fn_data_inspect(const fn_command_line *line) {
  FN_CHECK(line->extra_count > 1, FN_ERR_CONFIG, "data inspect: no file given");
  const bool every = fn_command_given(line, "all");
  const char *png = fn_command_text(line, "png", NULL);
  FN_CHECK(png || !fn_command_given(line, "slice"), FN_ERR_CONFIG,
           "--slice: the plane is drawn with --png OUT.png");
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "no memory to inspect files");
  failure first = {FN_OK, NULL};
  for (int i = 1; i < line->extra_count; i++) {
    const char *path = line->extra[i];
    note(&first, arena, path, line->extra_count == 2,
         is_hdf5(path) ? inspect_hdf5(arena, path, every, &first)
                       : inspect_named(arena, path, every));
  }
  if (png) note(&first, arena, png, first.status == FN_OK, draw(arena, line, png));
  if (first.status != FN_OK) fn_error_set(first.status, __FILE__, __LINE__, "%s", first.message);
  fn_arena_destroy(arena);
  return first.status;
}
