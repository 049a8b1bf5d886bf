#include "run/reference_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "field/hdf5.h"
#include "run/reference_internal.h"

fn_status fn_reference_open(const char *path, fn_reference **reference) {
  *reference = NULL;
  fn_reference *r = calloc(1, sizeof *r);
  FN_CHECK(r && (r->arena = fn_arena_create()), FN_ERR_MEMORY, "out of memory");
  r->path = fn_arena_text(r->arena, path);
  fn_hdf5_lock();
  const fn_status status = fn_hdf5_open_file(path, &r->file);
  fn_hdf5_unlock();
  if (status != FN_OK) {
    r->file = -1;
    fn_reference_close(r);
    return status;
  }
  *reference = r;
  return FN_OK;
}

void fn_reference_close(fn_reference *reference) {
  if (!reference) return;
  fn_hdf5_lock();
  if (reference->file >= 0) H5Fclose(reference->file);
  fn_hdf5_unlock();
  fn_arena_destroy(reference->arena);
  free(reference);
}

/** A number in an attribute of an object, or the fallback. Lock held. */
static double number_attribute(hid_t object, const char *name, double fallback) {
  if (H5Aexists(object, name) <= 0) return fallback;
  double value = fallback;
  const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
  if (attribute < 0 || H5Aread(attribute, H5T_NATIVE_DOUBLE, &value) < 0) value = fallback;
  if (attribute >= 0) H5Aclose(attribute);
  return value;
}

static fn_status failure(const fn_reference *r, const char *path, const char *what) {
  char reason[512];
  FN_FAIL(FN_ERR_DATA, "%s:/%s: %s: %s", r->path, path, what,
          fn_hdf5_reason(reason, sizeof reason));
}

/** Lock held. */
static fn_status read_open(fn_reference *r, const char *path, hid_t dataset,
                           fn_reference_tensor *t) {
  const hid_t space = H5Dget_space(dataset);
  hsize_t dim[H5S_MAX_RANK];
  const int ndim = H5Sget_simple_extent_ndims(space);
  H5Sget_simple_extent_dims(space, dim, NULL);
  H5Sclose(space);
  FN_CHECK(ndim >= 0 && ndim <= FN_MAX_DIMS, FN_ERR_DATA, "%s:/%s: %d axes, at most %d are known",
           r->path, path, ndim, FN_MAX_DIMS);
  t->shape.ndim = ndim;
  for (int d = 0; d < ndim; d++)
    t->shape.dim[d] = (int64_t)dim[d];
  t->count = fn_shape_count(&t->shape);
  t->value = fn_arena_take(r->arena, (size_t)(t->count + 1) * sizeof(double));
  if (H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, t->value) < 0)
    return failure(r, path, "cannot be read as numbers");
  t->err_max = number_attribute(dataset, "err_max", NAN);
  t->noise = number_attribute(dataset, "noise", 0) != 0;
  const char *slash = strrchr(path, '/');
  t->name = fn_arena_text(r->arena, slash ? slash + 1 : path);
  return FN_OK;
}

/** Whether every link of the path exists; H5Lexists alone fails on missing parents. Lock held. */
static bool path_exists(hid_t file, const char *path) {
  char part[1024];
  for (const char *end = strchr(path, '/');; end = strchr(end + 1, '/')) {
    const size_t length = end ? (size_t)(end - path) : strlen(path);
    if (length >= sizeof part) return false;
    memcpy(part, path, length);
    part[length] = '\0';
    if (H5Lexists(file, part, H5P_DEFAULT) <= 0) return false;
    if (!end) return true;
  }
}

/** Lock held. */
static fn_status read_path(fn_reference *r, const char *path, fn_reference_tensor *t) {
  *t = (fn_reference_tensor){.err_max = NAN};
  if (!path_exists(r->file, path)) return FN_OK;
  const hid_t dataset = H5Dopen2(r->file, path, H5P_DEFAULT);
  if (dataset < 0) return failure(r, path, "cannot be opened as a dataset");
  const fn_status status = read_open(r, path, dataset, t);
  H5Dclose(dataset);
  return status;
}

fn_status fn_reference_read(fn_reference *reference, const char *path,
                            fn_reference_tensor *tensor) {
  fn_hdf5_lock();
  const fn_status status = read_path(reference, path, tensor);
  fn_hdf5_unlock();
  return status;
}

typedef struct listing {
  fn_arena *arena;
  const char **name;
  int count, room;
} listing;

static herr_t list_one(hid_t group, const char *name, const H5L_info_t *info, void *user) {
  (void)group;
  (void)info;
  listing *l = user;
  if (l->count == l->room) return -1;
  l->name[l->count++] = fn_arena_text(l->arena, name);
  return 0;
}

/** Lock held. */
static fn_status read_group(fn_reference *r, const char *group, hid_t id,
                            fn_reference_tensor **tensors, int *count) {
  H5G_info_t info;
  if (H5Gget_info(id, &info) < 0) return failure(r, group, "cannot be listed");
  listing l = {.arena = r->arena, .room = (int)info.nlinks};
  l.name = fn_arena_take(r->arena, (size_t)(l.room + 1) * sizeof *l.name);
  // Files of writers that did not ask HDF5 to remember the order are listed by name.
  if (H5Literate(id, H5_INDEX_CRT_ORDER, H5_ITER_INC, NULL, list_one, &l) < 0) {
    l.count = 0;
    if (H5Literate(id, H5_INDEX_NAME, H5_ITER_INC, NULL, list_one, &l) < 0)
      return failure(r, group, "cannot be listed");
  }
  *tensors = fn_arena_take(r->arena, (size_t)(l.count + 1) * sizeof **tensors);
  for (int i = 0; i < l.count; i++) {
    const char *path = fn_arena_format(r->arena, "%s/%s", group, l.name[i]);
    FN_TRY(read_path(r, path, &(*tensors)[i]));
  }
  *count = l.count;
  return FN_OK;
}

fn_status fn_reference_group(fn_reference *reference, const char *group,
                             fn_reference_tensor **tensors, int *count) {
  *tensors = NULL;
  *count = 0;
  fn_status status = FN_OK;
  fn_hdf5_lock();
  if (path_exists(reference->file, group)) {
    const hid_t id = H5Gopen2(reference->file, group, H5P_DEFAULT);
    status = id < 0 ? failure(reference, group, "cannot be opened as a group")
                    : read_group(reference, group, id, tensors, count);
    if (id >= 0) H5Gclose(id);
  }
  fn_hdf5_unlock();
  return status;
}

/** Lock held. */
static const char *read_text(fn_reference *r, hid_t attribute) {
  const hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
  const char *text = NULL;
  if (H5Tis_variable_str(type) > 0) {
    char *read = NULL;
    if (H5Aread(attribute, type, &read) >= 0 && read) {
      text = fn_arena_text(r->arena, read);
      H5Dvlen_reclaim(type, space, H5P_DEFAULT, &read);
    }
  } else if (H5Tget_class(type) == H5T_STRING) {
    char *room = fn_arena_take(r->arena, H5Tget_size(type) + 1); // zeroed: ends in NUL
    if (H5Aread(attribute, type, room) >= 0) text = room;
  }
  H5Sclose(space);
  H5Tclose(type);
  return text;
}

const char *fn_reference_text(fn_reference *reference, const char *name) {
  const char *text = NULL;
  fn_hdf5_lock();
  if (H5Aexists(reference->file, name) > 0) {
    const hid_t attribute = H5Aopen(reference->file, name, H5P_DEFAULT);
    if (attribute >= 0) {
      text = read_text(reference, attribute);
      H5Aclose(attribute);
    }
  }
  fn_hdf5_unlock();
  return text;
}
