/* Finding the files of a stage and comparing their headers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/parts.h"

void fn_problem_note(fn_problem_list *list, const char *format, ...) {
  enum { SHOWN = 20 };
  if (list->count++ >= SHOWN) return;
  char line[4096];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  fn_text_add(&list->text, "%s%s", list->count > 1 ? "\n  " : "", line);
}

fn_status fn_problem_raise(fn_problem_list *list, fn_status status, const char *where) {
  enum { SHOWN = 20 };
  if (list->count == 0) return FN_OK;
  const char *text = list->text.data ? list->text.data : "";
  if (!where) {
    fn_error_set(status, __FILE__, __LINE__, "%s", text);
  } else if (list->count == 1) {
    fn_error_set(status, __FILE__, __LINE__, "%s: %s", where, text);
  } else if (list->count <= SHOWN) {
    fn_error_set(status, __FILE__, __LINE__, "%s: %lld problems:\n  %s", where,
                 (long long)list->count, text);
  } else {
    fn_error_set(status, __FILE__, __LINE__, "%s: %lld problems:\n  %s\n  and %lld more", where,
                 (long long)list->count, text, (long long)list->count - SHOWN);
  }
  fn_text_free(&list->text);
  list->count = 0;
  return status;
}

/** Index of the header among those seen so far. */
static int kind_of(fn_dataset *dataset, const fn_field_info *info) {
  fn_kind kind;
  memset(&kind, 0, sizeof kind);
  kind.channels = info->channels;
  kind.spatial = info->spatial;
  memcpy(kind.size, info->size, (size_t)info->spatial * sizeof kind.size[0]);
  memcpy(kind.type, info->type, sizeof kind.type - 1);
  kind.raw = info->raw;
  kind.fortran = info->fortran;
  for (int k = 0; k < dataset->kinds; k++) {
    const fn_kind *known = &dataset->kind[k];
    if (known->channels == kind.channels && known->spatial == kind.spatial &&
        memcmp(known->size, kind.size, sizeof kind.size) == 0 &&
        strcmp(known->type, kind.type) == 0 && known->raw == kind.raw &&
        known->fortran == kind.fortran)
      return k;
  }
  if ((dataset->kinds & (dataset->kinds - 1)) == 0) { // grow at powers of two
    fn_kind *grown = fn_arena_take(
        dataset->arena, (size_t)(dataset->kinds ? 2 * dataset->kinds : 1) * sizeof *grown);
    if (dataset->kinds) memcpy(grown, dataset->kind, (size_t)dataset->kinds * sizeof *grown);
    dataset->kind = grown;
  }
  dataset->kind[dataset->kinds] = kind;
  return dataset->kinds++;
}

/** Number of samples behind an opened path, and whether it is packed. With `axes` spatial axes an
 *  array of axes + 2 dimensions is packed; npy files never are. When nothing says how many axes
 *  there are (*axes 0), the first file is taken to be one field, unless it has too many axes.
 *  *found_axes: those after the first dimension, as soon as the header is read. */
static fn_status open_header(const char *path, int *axes, int *found_axes, fn_field **field,
                             bool *packed) {
  *packed = false;
  FN_TRY(fn_field_open(path, false, field));
  const int found = fn_field_get_info(*field)->spatial;
  const bool npy = fn_text_ends(path, ".npy");
  *found_axes = found;
  int wanted = *axes;
  if (wanted == 0) wanted = found == FN_MAX_SPATIAL + 1 && !npy ? FN_MAX_SPATIAL : found;
  fn_status status = FN_OK;
  if (found == wanted + 1 && !npy) {
    *packed = true;
    fn_field_close(*field);
    *field = NULL;
    status = fn_field_open(path, true, field);
  } else if (wanted > FN_MAX_SPATIAL) {
    status =
        fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "%s has %d spatial axes; expected at most %d",
                     path, found, (int)FN_MAX_SPATIAL);
  } else if (found != wanted) {
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__,
                          "%s has %d spatial axes; expected %d, after an axis of channels", path,
                          found, wanted);
  }
  if (status == FN_OK) {
    *axes = wanted;
  } else {
    fn_field_close(*field);
    *field = NULL;
  }
  return status;
}

static void add_source(fn_column *column, fn_arena *arena, int64_t *capacity, fn_source source) {
  if (column->count == *capacity) {
    *capacity = *capacity ? 2 * *capacity : 16;
    fn_source *grown = fn_arena_take(arena, (size_t)*capacity * sizeof *grown);
    if (column->count) memcpy(grown, column->source, (size_t)column->count * sizeof *grown);
    column->source = grown;
  }
  column->source[column->count++] = source;
}

/** Open one path and append its samples. */
static void add_path(fn_dataset *dataset, fn_column *column, const char *path, int64_t key,
                     int64_t *capacity, fn_problem_list *problems) {
  fn_source source = {.path = path, .shown = path, .key = key, .sample = -1, .kind = -1};
  fn_field *field = NULL;
  bool packed;
  int axes = dataset->info.spatial;
  if (open_header(path, &axes, &dataset->found_axes, &field, &packed) != FN_OK) {
    fn_problem_note(problems, "%s", fn_error_message());
    add_source(column, dataset->arena, capacity, source);
    return;
  }
  const fn_field_info *info = fn_field_get_info(field);
  dataset->info.spatial = dataset->info.target_spatial = axes;
  dataset->info.bytes += info->bytes;
  source.kind = kind_of(dataset, info);
  if (packed) {
    for (int64_t i = 0; i < info->packed; i++) {
      source.sample = i;
      source.shown = fn_arena_format(dataset->arena, "%s[%lld]", path, (long long)i);
      add_source(column, dataset->arena, capacity, source);
    }
  } else {
    add_source(column, dataset->arena, capacity, source);
  }
  fn_field_close(field);
}

/** All files of one pattern. */
static void find_column(fn_dataset *dataset, fn_column *column, int64_t *key,
                        fn_problem_list *problems) {
  const char **paths;
  int count;
  int64_t capacity = 0;
  if (fn_field_glob(dataset->arena, column->pattern, &paths, &count) != FN_OK) {
    fn_problem_note(problems, "%s: %s", column->what, fn_error_message());
    return;
  }
  for (int i = 0; i < count; i++)
    add_path(dataset, column, paths[i], (*key)++, &capacity, problems);
}

static const fn_kind *kind_at(const fn_dataset *dataset, const fn_source *source) {
  return source->kind < 0 ? NULL : &dataset->kind[source->kind];
}

static char *size_text(const int64_t *size, int spatial, char *text, size_t bytes) {
  fn_shape shape = {.ndim = spatial};
  for (int d = 0; d < spatial && d < FN_MAX_DIMS; d++)
    shape.dim[d] = size[d];
  return fn_shape_text(&shape, text, bytes);
}

/** Channels as in the first file of the column, cells as in the first input file. */
static void check_column(fn_dataset *dataset, fn_column *column, const char *reference,
                         fn_problem_list *problems) {
  fn_dataset_info *info = &dataset->info;
  const int64_t scale =
      column->target && dataset->run->data.scale_factor > 1 ? dataset->run->data.scale_factor : 1;
  int64_t size[FN_MAX_SPATIAL];
  for (int d = 0; d < info->spatial; d++)
    size[d] = scale * info->size[d];
  const fn_source *first = NULL;
  for (int64_t i = 0; i < column->count; i++) {
    const fn_source *source = &column->source[i];
    const fn_kind *kind = kind_at(dataset, source);
    if (!kind || (source->sample > 0)) continue;
    if (!first) {
      first = source;
      column->channels = kind->channels;
    }
    char found[64], expected[64];
    if (kind->channels != column->channels)
      fn_problem_note(problems, "%s has %lld channels; expected %lld as in %s", source->shown,
                      (long long)kind->channels, (long long)column->channels, first->shown);
    if (memcmp(kind->size, size, (size_t)info->spatial * sizeof *size) != 0) {
      size_text(kind->size, info->spatial, found, sizeof found);
      size_text(size, info->spatial, expected, sizeof expected);
      if (scale > 1) {
        fn_problem_note(problems, "%s has %s cells; expected %s, data.scale_factor %lld times %s",
                        source->shown, found, expected, (long long)scale, reference);
      } else {
        fn_problem_note(problems, "%s has %s cells; expected %s as in %s", source->shown, found,
                        expected, reference);
      }
    }
  }
}

static void check_headers(fn_dataset *dataset, fn_problem_list *problems) {
  const char *reference = NULL;
  for (int f = 0; f < dataset->columns && !reference; f++) {
    const fn_column *column = &dataset->column[f];
    for (int64_t i = 0; i < column->count && !reference && !column->target; i++) {
      const fn_kind *kind = kind_at(dataset, &column->source[i]);
      if (!kind) continue;
      reference = column->source[i].shown;
      memcpy(dataset->info.size, kind->size,
             (size_t)dataset->info.spatial * sizeof dataset->info.size[0]);
    }
  }
  if (!reference) return;
  for (int f = 0; f < dataset->columns; f++)
    check_column(dataset, &dataset->column[f], reference, problems);
}

fn_status fn_dataset_find(fn_dataset *dataset) {
  fn_dataset_info *info = &dataset->info;
  fn_problem_list problems = {0};
  int64_t key = 0;
  const char *list;
  FN_TRY(fn_dataset_axes_wanted(dataset->run, &info->spatial, &list));
  for (int f = 0; f < dataset->columns; f++)
    find_column(dataset, &dataset->column[f], &key, &problems);
  if (list && dataset->kinds == 0 && dataset->found_axes > 0) { // no file fits: the list is wrong
    fn_text_free(&problems.text);
    return fn_run_fail(dataset->run, list, "%s has %d values but the fields have %d axes", list,
                       info->spatial, dataset->found_axes);
  }
  check_headers(dataset, &problems);
  fn_dataset_pair(dataset, &problems);
  char where[64];
  snprintf(where, sizeof where, "%s data", fn_stage_name(dataset->stage));
  FN_TRY(fn_problem_raise(&problems, FN_ERR_DATA, where));
  int64_t *channels = fn_arena_take(dataset->arena, (size_t)dataset->columns * sizeof *channels);
  for (int f = 0; f < dataset->columns; f++) {
    const fn_column *column = &dataset->column[f];
    channels[f] = column->channels;
    *(column->target ? &info->target_channels : &info->input_channels) += column->channels;
  }
  info->field_channels = channels;
  info->files = dataset->column[0].count;
  return FN_OK;
}
