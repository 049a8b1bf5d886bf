/* One reader for all formats: chooses by file name or magic, tells samples, channels and cells
 * apart. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/system.h"
#include "base/text.h"
#include "field/array.h"

struct fn_field {
  fn_field_info info;
  fn_array *array;
  bool packed;
  char *path;
};

char *fn_dims_text(int ndim, const int64_t *dim, char *text, size_t size) {
  size_t used = (size_t)snprintf(text, size, "[");
  for (int i = 0; i < ndim && used < size; i++)
    used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? ", " : "", (long long)dim[i]);
  if (used < size) snprintf(text + used, size - used, "]");
  return text;
}

bool fn_dims_bytes(int ndim, const int64_t *dim, int64_t item, int64_t *bytes) {
  *bytes = item;
  bool empty = false;
  for (int i = 0; i < ndim; i++) {
    if (dim[i] < 0) return false;
    if (dim[i] == 0) {
      empty = true;
    } else if (__builtin_mul_overflow(*bytes, dim[i], bytes)) {
      return false;
    }
  }
  if (empty) *bytes = 0;
  return true;
}

int fn_dataset_colon(const char *path) {
  for (size_t i = strlen(path); i-- > 3;) {
    if (path[i] == ':' &&
        (strncmp(path + i - 3, ".h5", 3) == 0 || (i > 5 && strncmp(path + i - 5, ".hdf5", 5) == 0)))
      return (int)i;
  }
  return -1;
}

fn_status fn_file_check_mark(const char *path, const fn_file_mark *mark) {
  struct stat now;
  if (stat(path, &now) != 0 || (uint64_t)now.st_dev != mark->device ||
      (uint64_t)now.st_ino != mark->inode)
    return FN_OK;
  FN_CHECK(now.st_size >= mark->bytes, FN_ERR_DATA,
           "%s: truncated while open: expected %lld bytes, found %lld", path,
           (long long)mark->bytes, (long long)now.st_size);
  return FN_OK;
}

/** Split into file and dataset ("" when none is named); `file` is malloc'ed. A file whose name does
 *  not end in .h5 or .hdf5 is told from its dataset by existing. */
static fn_status split_path(const char *path, char **file, const char **dataset) {
  *dataset = "";
  FN_CHECK(*file = strdup(path), FN_ERR_MEMORY, "out of memory opening %s", path);
  int colon = fn_dataset_colon(path);
  if (colon < 0 && !fn_file_exists(path)) {
    char *last = strstr(*file, ":/");
    for (char *next = last; next; next = strstr(next + 1, ":/"))
      last = next;
    if (last) {
      *last = '\0';
      if (fn_file_exists(*file) && !fn_is_directory(*file)) colon = (int)(last - *file);
      *last = ':';
    }
  }
  if (colon >= 0) {
    (*file)[colon] = '\0';
    *dataset = path + colon + 1;
  }
  return FN_OK;
}

/** Whether a file without a telling name starts as HDF5 files do. Absent or unreadable: no. */
static bool looks_like_hdf5(const char *file) {
  char magic[8] = {0};
  const int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return false;
  const ssize_t count = read(fd, magic, sizeof magic);
  close(fd);
  return count == 8 && memcmp(magic, "\x89HDF\r\n\x1a\n", 8) == 0;
}

static fn_status open_array(const char *path, fn_array **array) {
  char *file;
  const char *dataset;
  FN_TRY(split_path(path, &file, &dataset));
  const bool hdf5 = fn_text_ends(file, ".h5") || fn_text_ends(file, ".hdf5") ||
                    (!fn_text_ends(file, ".npy") && looks_like_hdf5(file));
  fn_status status;
  if (!hdf5 && *dataset) {
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__,
                          "%s: only HDF5 files hold named datasets", path);
  } else {
    status = hdf5 ? fn_hdf5_open(file, dataset, array) : fn_npy_open(file, array);
  }
  free(file);
  return status;
}

/** Samples, channels and cells from the shape on disk. */
static fn_status describe(fn_field *field) {
  const fn_array *array = field->array;
  const int lead = field->packed ? 2 : 1;
  char text[256];
  fn_dims_text(array->ndim, array->dim, text, sizeof text);
  const char *expected =
      field->packed ? "[sample, channel, spatial axes...]" : "[channel, spatial axes...]";
  FN_CHECK(array->ndim > lead, FN_ERR_DATA,
           "%s: shape %s has %d axes; expected %s, a channel axis even for one channel",
           field->path, text, array->ndim, expected);
  FN_CHECK(array->ndim - lead <= FN_MAX_DIMS, FN_ERR_DATA,
           "%s: shape %s has %d spatial axes, at most %d can be read", field->path, text,
           array->ndim - lead, FN_MAX_DIMS);
  for (int i = 0; i < array->ndim; i++)
    FN_CHECK(array->dim[i] > 0, FN_ERR_DATA, "%s: shape %s is empty", field->path, text);
  fn_field_info *info = &field->info;
  info->packed = field->packed ? array->dim[0] : 0;
  info->channels = array->dim[lead - 1];
  info->spatial = array->ndim - lead;
  for (int i = 0; i < info->spatial; i++)
    info->size[i] = array->dim[lead + i];
  snprintf(info->type, sizeof info->type, "%s", array->type);
  info->raw = array->raw;
  info->fortran = array->fortran;
  info->bytes = array->bytes;
  return FN_OK;
}

fn_status fn_field_open(const char *path, bool packed, fn_field **field) {
  *field = NULL;
  fn_field *f = calloc(1, sizeof *f);
  FN_CHECK(f, FN_ERR_MEMORY, "out of memory opening %s", path);
  f->packed = packed;
  f->path = strdup(path);
  fn_status status =
      f->path ? open_array(path, &f->array)
              : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory opening %s", path);
  if (status == FN_OK) status = describe(f);
  if (status != FN_OK) {
    fn_field_close(f);
    return status;
  }
  *field = f;
  return FN_OK;
}

void fn_field_close(fn_field *field) {
  if (!field) return;
  if (field->array) field->array->close(field->array);
  free(field->path);
  free(field);
}

const fn_field_info *fn_field_get_info(const fn_field *field) {
  return &field->info;
}
const char *fn_field_path(const fn_field *field) {
  return field->path;
}

/** The block in the array's own axes. */
static fn_status locate(const fn_field *field, int64_t sample, const int64_t *start,
                        const int64_t *extent, int64_t *from, int64_t *count) {
  const fn_field_info *info = &field->info;
  const int lead = field->packed ? 2 : 1;
  const int64_t samples = field->packed ? info->packed : 1;
  FN_CHECK(sample >= 0 && sample < samples, FN_ERR_DATA,
           "%s: sample %lld asked for, the file holds %lld", field->path, (long long)sample,
           (long long)samples);
  int64_t bytes;
  if (field->packed) from[0] = sample;
  count[0] = 1;
  count[lead - 1] = info->channels;
  for (int i = 0; i < info->spatial; i++) {
    from[lead + i] = fn_wrap(start[i], info->size[i]);
    count[lead + i] = extent[i];
  }
  FN_CHECK(fn_dims_bytes(info->spatial + lead, count, sizeof(double), &bytes), FN_ERR_INTERNAL,
           "%s: a block of negative or too large extent was asked for", field->path);
  return FN_OK;
}

fn_status fn_field_read(fn_field *field, int64_t sample, const int64_t *start,
                        const int64_t *extent, float *out) {
  int64_t from[FN_ARRAY_DIMS] = {0}, count[FN_ARRAY_DIMS];
  FN_TRY(locate(field, sample, start, extent, from, count));
  return field->array->read(field->array, from, count, out);
}

fn_status fn_field_read_raw(fn_field *field, int64_t sample, const int64_t *start,
                            const int64_t *extent, void *out) {
  int64_t from[FN_ARRAY_DIMS] = {0}, count[FN_ARRAY_DIMS];
  FN_CHECK(field->info.raw != FN_RAW_NONE, FN_ERR_INTERNAL, "%s: numbers of type %s as they are",
           field->path, field->info.type);
  FN_TRY(locate(field, sample, start, extent, from, count));
  return field->array->read_raw(field->array, from, count, out);
}

void fn_field_forget(fn_field *field) {
  if (field->array->forget) field->array->forget(field->array);
}

fn_status fn_field_samples(const char *path, int spatial, int64_t *samples) {
  fn_array *array;
  *samples = 1;
  FN_TRY(open_array(path, &array));
  const int ndim = array->ndim;
  const int64_t first = ndim > 0 ? array->dim[0] : 0;
  char text[256];
  fn_dims_text(ndim, array->dim, text, sizeof text);
  array->close(array);
  if (spatial <= 0 || ndim == spatial + 1) return FN_OK;
  FN_CHECK(ndim == spatial + 2, FN_ERR_DATA,
           "%s: shape %s has %d axes; with %d spatial axes expected %d, or %d when packed", path,
           text, ndim, spatial, spatial + 1, spatial + 2);
  *samples = first;
  return FN_OK;
}
