#include "field/hdf5_describe.h"

#include <stdlib.h>
#include <string.h>

#include "field/array.h"
#include "field/hdf5.h"

struct fn_hdf5_view {
  hid_t file;
};

fn_status fn_hdf5_view_open(const char *path, fn_hdf5_view **view) {
  *view = calloc(1, sizeof **view);
  FN_CHECK(*view, FN_ERR_MEMORY, "no memory");
  fn_hdf5_lock();
  const fn_status status = fn_hdf5_open_file(path, &(*view)->file);
  fn_hdf5_unlock();
  if (status != FN_OK) {
    free(*view);
    *view = NULL;
  }
  return status;
}

void fn_hdf5_view_close(fn_hdf5_view *view) {
  if (!view) return;
  fn_hdf5_lock();
  H5Fclose(view->file);
  fn_hdf5_unlock();
  free(view);
}

/* ---- storage -----------------------------------------------------------------------------------
 */

static void add_dims(int ndim, const hsize_t *dim, fn_text *text) {
  int64_t size[H5S_MAX_RANK];
  char words[256];
  for (int i = 0; i < ndim; i++)
    size[i] = (int64_t)dim[i];
  fn_text_add(text, "%s", fn_dims_text(ndim, size, words, sizeof words));
}

static void add_filters(hid_t create, fn_text *text) {
  const int count = H5Pget_nfilters(create);
  for (int i = 0; i < count; i++) {
    unsigned flags, value[8] = {0}, config;
    size_t values = 8;
    char name[64] = "";
    const H5Z_filter_t filter =
        H5Pget_filter2(create, (unsigned)i, &flags, &values, value, sizeof name, name, &config);
    if (filter == H5Z_FILTER_DEFLATE)
      fn_text_add(text, ", gzip %u", value[0]);
    else if (filter == H5Z_FILTER_SHUFFLE)
      fn_text_add(text, ", shuffle");
    else
      fn_text_add(text, ", filter %s (%d)", name[0] ? name : "unnamed", (int)filter);
  }
}

static void add_layout(hid_t create, fn_text *text) {
  hsize_t chunk[H5S_MAX_RANK];
  switch (H5Pget_layout(create)) {
    case H5D_COMPACT: fn_text_add(text, ", compact"); break;
    case H5D_CONTIGUOUS: fn_text_add(text, ", contiguous"); break;
    case H5D_VIRTUAL: fn_text_add(text, ", virtual"); break;
    case H5D_CHUNKED:
      fn_text_add(text, ", chunks ");
      add_dims(H5Pget_chunk(create, H5S_MAX_RANK, chunk), chunk, text);
      break;
    default: fn_text_add(text, ", unknown layout"); break;
  }
}

static void describe(hid_t set, fn_text *text) {
  const hid_t type = H5Dget_type(set), space = H5Dget_space(set), create = H5Dget_create_plist(set);
  char name[64];
  hsize_t dim[H5S_MAX_RANK];
  fn_hdf5_type_name(type, name, sizeof name);
  fn_text_add(text, "%s ", name);
  add_dims(H5Sget_simple_extent_dims(space, dim, NULL), dim, text);
  add_layout(create, text);
  add_filters(create, text);
  H5Pclose(create);
  H5Sclose(space);
  H5Tclose(type);
}

void fn_hdf5_view_storage(fn_hdf5_view *view, const char *dataset, fn_text *text) {
  fn_hdf5_lock();
  const hid_t set = H5Dopen2(view->file, dataset, H5P_DEFAULT);
  if (set >= 0) {
    describe(set, text);
    H5Dclose(set);
  } else {
    fn_text_add(text, "unreadable");
  }
  fn_hdf5_unlock();
}

int fn_hdf5_view_axes(fn_hdf5_view *view, const char *dataset) {
  int axes = -1;
  fn_hdf5_lock();
  const hid_t set = H5Dopen2(view->file, dataset, H5P_DEFAULT);
  const hid_t space = set >= 0 ? H5Dget_space(set) : -1;
  if (space >= 0) axes = H5Sget_simple_extent_ndims(space);
  if (space >= 0) H5Sclose(space);
  if (set >= 0) H5Dclose(set);
  fn_hdf5_unlock();
  return axes;
}

int64_t fn_hdf5_view_bytes(fn_hdf5_view *view, const char *dataset) {
  fn_hdf5_lock();
  const hid_t set = H5Dopen2(view->file, dataset, H5P_DEFAULT);
  const int64_t bytes = set >= 0 ? (int64_t)H5Dget_storage_size(set) : 0;
  if (set >= 0) H5Dclose(set);
  fn_hdf5_unlock();
  return bytes;
}

/* ---- attributes --------------------------------------------------------------------------------
 */

enum { MOST_VALUES = 8, MOST_TEXT = 72 };

static void add_words(const char *words, size_t length, fn_text *text) {
  length = strnlen(words, length);
  fn_text_add(text, "\"");
  for (size_t i = 0; i < length && i < MOST_TEXT; i++)
    fn_text_add(text, words[i] == '\n' ? (i + 1 < length ? "; " : "") : "%c", words[i]);
  fn_text_add(text, length > MOST_TEXT ? "...\"" : "\"");
}

static void add_string(hid_t attribute, hid_t type, fn_text *text) {
  if (H5Tis_variable_str(type) > 0) {
    char *words = NULL;
    if (H5Aread(attribute, type, &words) >= 0 && words) add_words(words, strlen(words), text);
    H5free_memory(words);
    return;
  }
  const size_t size = H5Tget_size(type);
  char *words = malloc(size);
  if (words && H5Aread(attribute, type, words) >= 0) add_words(words, size, text);
  free(words);
}

static void add_numbers(hid_t attribute, hid_t type, hssize_t count, fn_text *text) {
  const bool real = H5Tget_class(type) == H5T_FLOAT;
  const bool positive = !real && H5Tget_sign(type) == H5T_SGN_NONE;
  double *values = malloc((size_t)count * sizeof *values); // as wide as int64_t
  const hid_t as = real ? H5T_NATIVE_DOUBLE : positive ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64;
  const bool good = values && H5Aread(attribute, as, values) >= 0;
  for (hssize_t i = 0; i < count && i < MOST_VALUES && good; i++) {
    int64_t whole;
    memcpy(&whole, &values[i], sizeof whole);
    if (i) fn_text_add(text, ", ");
    if (real)
      fn_text_add(text, "%.10g", values[i]);
    else if (positive)
      fn_text_add(text, "%llu", (unsigned long long)whole);
    else
      fn_text_add(text, "%lld", (long long)whole);
  }
  if (count > MOST_VALUES) fn_text_add(text, ", ... (%lld values)", (long long)count);
  free(values);
}

static void add_attribute(hid_t attribute, const char *indent, fn_text *text) {
  char name[128] = "";
  const hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
  const H5T_class_t class = H5Tget_class(type);
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  H5Aget_name(attribute, sizeof name, name);
  fn_text_add(text, "%s%s = ", indent, name);
  if (class == H5T_STRING && count == 1)
    add_string(attribute, type, text);
  else if ((class == H5T_FLOAT || class == H5T_INTEGER) && count > 0 && count < 1 << 20)
    add_numbers(attribute, type, count, text);
  else
    fn_text_add(text, "(%lld values)", (long long)count);
  fn_text_add(text, "\n");
  H5Sclose(space);
  H5Tclose(type);
}

void fn_hdf5_view_attributes(fn_hdf5_view *view, const char *object, const char *indent,
                             fn_text *text) {
  H5O_info_t info;
  fn_hdf5_lock();
  const hid_t id = H5Oopen(view->file, object, H5P_DEFAULT);
  if (id >= 0 && H5Oget_info(id, &info) >= 0) {
    for (hsize_t i = 0; i < info.num_attrs; i++) {
      const hid_t attribute =
          H5Aopen_by_idx(id, ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT, H5P_DEFAULT);
      if (attribute < 0) continue;
      add_attribute(attribute, indent, text);
      H5Aclose(attribute);
    }
  }
  if (id >= 0) H5Oclose(id);
  fn_hdf5_unlock();
}
