/* Datasets, attributes and checksums of a state file. */
#include "run/checkpoint_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "field/hdf5.h"

static const char crc_name[] = "crc32";

/** Checksums take longer than HDF5 does: meanwhile others may have it. HDF5 lock held before and
 * after. */
static uint32_t crc_unlocked(const void *bytes, size_t count) {
  fn_hdf5_unlock();
  const uint32_t crc = fn_crc32(0, bytes, count);
  fn_hdf5_lock();
  return crc;
}

/** Fail with HDF5's reason. */
#define H5_CHECK(condition, ...)                                                                   \
  do {                                                                                             \
    if (!(condition)) return hdf5_failure(__VA_ARGS__);                                            \
  } while (0)

static fn_status hdf5_failure(const char *what, const char *name) {
  char text[512];
  fn_hdf5_reason(text, sizeof text);
  FN_FAIL(FN_ERR_CHECKPOINT, "cannot %s %s: %s", what, name, text);
}

/* ---- attributes -------------------------------------------------------------------------- */

static fn_status set_in_space(hid_t object, const char *name, hid_t type, hid_t space,
                              const void *value) {
  const hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  H5Sclose(space);
  H5_CHECK(attribute >= 0, "create attribute", name);
  const herr_t result = H5Awrite(attribute, type, value);
  H5Aclose(attribute);
  H5_CHECK(result >= 0, "write attribute", name);
  return FN_OK;
}

static fn_status set_attribute(hid_t object, const char *name, hid_t type, const void *value) {
  return set_in_space(object, name, type, H5Screate(H5S_SCALAR), value);
}

fn_status fn_state_set_rows(hid_t object, const char *name, int rows, int columns,
                            const int64_t *values) {
  const hsize_t dim[2] = {(hsize_t)rows, (hsize_t)columns};
  return set_in_space(object, name, H5T_STD_I64LE, H5Screate_simple(2, dim, NULL), values);
}

fn_status fn_state_get_rows(hid_t object, const char *name, int most, int columns, int *rows,
                            int64_t *values) {
  const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
  FN_CHECK(attribute >= 0, FN_ERR_CHECKPOINT, "attribute %s is missing", name);
  const hid_t space = H5Aget_space(attribute);
  hsize_t dim[H5S_MAX_RANK] = {0};
  const bool fits = H5Sget_simple_extent_dims(space, dim, NULL) == 2 &&
                    dim[1] == (hsize_t)columns && dim[0] <= (hsize_t)most;
  H5Sclose(space);
  const herr_t result = fits ? H5Aread(attribute, H5T_NATIVE_INT64, values) : -1;
  H5Aclose(attribute);
  FN_CHECK(result >= 0, FN_ERR_CHECKPOINT, "attribute %s is not of shape [at most %d, %d]", name,
           most, columns);
  *rows = (int)dim[0];
  return FN_OK;
}

fn_status fn_state_set_integer(hid_t object, const char *name, int64_t value) {
  return set_attribute(object, name, H5T_STD_I64LE, &value);
}

fn_status fn_state_set_real(hid_t object, const char *name, double value) {
  return set_attribute(object, name, H5T_IEEE_F64LE, &value);
}

/** Fixed-length UTF-8; HDF5 wants at least one byte. */
static hid_t text_type(size_t length) {
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, length ? length : 1);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

fn_status fn_state_set_text(hid_t object, const char *name, const char *text) {
  const hid_t type = text_type(strlen(text));
  const fn_status status = set_attribute(object, name, type, text);
  H5Tclose(type);
  return status;
}

static fn_status get_attribute(hid_t object, const char *name, hid_t type, void *value) {
  const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
  FN_CHECK(attribute >= 0, FN_ERR_CHECKPOINT, "attribute %s is missing", name);
  const herr_t result = H5Aread(attribute, type, value);
  H5Aclose(attribute);
  H5_CHECK(result >= 0, "read attribute", name);
  return FN_OK;
}

fn_status fn_state_get_integer(hid_t object, const char *name, int64_t *value) {
  return get_attribute(object, name, H5T_NATIVE_INT64, value);
}

fn_status fn_state_get_real(hid_t object, const char *name, double *value) {
  return get_attribute(object, name, H5T_NATIVE_DOUBLE, value);
}

/* ---- groups and datasets ----------------------------------------------------------------- */

fn_status fn_state_group(hid_t parent, const char *name, hid_t *group) {
  const bool exists = H5Lexists(parent, name, H5P_DEFAULT) > 0;
  *group = exists ? H5Gopen2(parent, name, H5P_DEFAULT)
                  : H5Gcreate2(parent, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5_CHECK(*group >= 0, exists ? "open group" : "create group", name);
  return FN_OK;
}

/** Create, write and checksum one dataset whose bytes in memory are its bytes in the file. */
static fn_status put_dataset(hid_t group, const char *name, hid_t type, hid_t space,
                             const void *values, size_t bytes) {
  const hid_t create = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_obj_track_times(create, false); // equal states are equal files
  const hid_t set = H5Dcreate2(group, name, type, space, H5P_DEFAULT, create, H5P_DEFAULT);
  H5Pclose(create);
  H5_CHECK(set >= 0, "create dataset", name);
  fn_status status = FN_OK;
  if (H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
    status = hdf5_failure("write dataset", name);
  if (status == FN_OK) {
    const uint32_t crc = crc_unlocked(values, bytes);
    status = set_attribute(set, crc_name, H5T_STD_U32LE, &crc);
  }
  H5Dclose(set);
  return status;
}

fn_status fn_state_put_tensor(hid_t group, const char *name, fn_dtype dtype, const fn_shape *shape,
                              const void *values) {
  hsize_t dim[FN_MAX_DIMS];
  size_t bytes = dtype == FN_F64 ? 8 : 4;
  for (int i = 0; i < shape->ndim; i++) {
    dim[i] = (hsize_t)shape->dim[i];
    bytes *= (size_t)dim[i];
  }
  const hid_t space =
      shape->ndim ? H5Screate_simple(shape->ndim, dim, NULL) : H5Screate(H5S_SCALAR);
  const fn_status status = put_dataset(
      group, name, dtype == FN_F64 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE, space, values, bytes);
  H5Sclose(space);
  return status;
}

fn_status fn_state_put_text(hid_t group, const char *name, const char *text) {
  const hid_t type = text_type(strlen(text)), space = H5Screate(H5S_SCALAR);
  const fn_status status = put_dataset(group, name, type, space, text, H5Tget_size(type));
  H5Sclose(space);
  H5Tclose(type);
  return status;
}

fn_status fn_state_get_text(hid_t group, const char *name, char **text) {
  *text = NULL;
  const hid_t set = H5Dopen2(group, name, H5P_DEFAULT);
  H5_CHECK(set >= 0, "open dataset", name);
  const hid_t type = H5Dget_type(set);
  const bool is_text = H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0;
  const size_t length = H5Tget_size(type);
  char *copy = is_text ? calloc(length + 1, 1) : NULL;
  const herr_t result = copy ? H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, copy) : -1;
  H5Tclose(type);
  H5Dclose(set);
  if (result < 0) {
    free(copy);
    FN_FAIL(FN_ERR_CHECKPOINT, "dataset %s is not a text of fixed length", name);
  }
  *text = copy;
  return FN_OK;
}

fn_status fn_state_get_tensor(hid_t group, const char *name, fn_dtype dtype, void *values) {
  const hid_t set = H5Dopen2(group, name, H5P_DEFAULT);
  H5_CHECK(set >= 0, "open dataset", name);
  const herr_t result = H5Dread(set, dtype == FN_F64 ? H5T_NATIVE_DOUBLE : H5T_NATIVE_FLOAT,
                                H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
  H5Dclose(set);
  H5_CHECK(result >= 0, "read dataset", name);
  return FN_OK;
}

fn_status fn_state_tensor_shape(hid_t group, const char *name, bool *found, fn_shape *shape) {
  *found = H5Lexists(group, name, H5P_DEFAULT) > 0;
  if (!*found) return FN_OK;
  const hid_t set = H5Dopen2(group, name, H5P_DEFAULT);
  H5_CHECK(set >= 0, "open dataset", name);
  const hid_t space = H5Dget_space(set), type = H5Dget_type(set);
  const H5T_class_t class = H5Tget_class(type);
  hsize_t dim[H5S_MAX_RANK] = {0};
  const int ndim = H5Sget_simple_extent_dims(space, dim, NULL);
  H5Tclose(type);
  H5Sclose(space);
  H5Dclose(set);
  FN_CHECK(ndim >= 0 && ndim <= FN_MAX_DIMS && (class == H5T_FLOAT || class == H5T_INTEGER),
           FN_ERR_CHECKPOINT, "dataset %s is not an array of numbers of at most %d axes", name,
           FN_MAX_DIMS);
  shape->ndim = ndim;
  for (int i = 0; i < ndim; i++)
    shape->dim[i] = (int64_t)dim[i];
  return FN_OK;
}

fn_status fn_state_members(hid_t group, fn_status (*visit)(void *user, const char *name),
                           void *user) {
  H5G_info_t info;
  H5_CHECK(H5Gget_info(group, &info) >= 0, "list", "group");
  for (hsize_t i = 0; i < info.nlinks; i++) {
    char name[1024];
    H5_CHECK(H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name,
                                H5P_DEFAULT) >= 0,
             "list", "group");
    FN_TRY(visit(user, name));
  }
  return FN_OK;
}

/* ---- checksums --------------------------------------------------------------------------- */

/** A walk that writes the checksums of groups, or compares them; with or without those of datasets.
 */
typedef struct walk {
  bool stamp, values;
  int depth;
  const char *path; // of the group
  hid_t group;
  uint32_t crc; // of the group so far
} walk;

static fn_status read_dataset_crc(hid_t set, const char *path, uint32_t *crc) {
  const hid_t type = H5Dget_type(set), space = H5Dget_space(set);
  const hssize_t points = H5Sget_simple_extent_npoints(space);
  const size_t item = H5Tget_size(type);
  const hsize_t stored = H5Dget_storage_size(set);
  // A damaged shape must not ask for absurd memory: the bytes must be in the file.
  const bool sound =
      points >= 0 && item > 0 && H5Tget_class(type) != H5T_VLEN && (hsize_t)points <= stored / item;
  unsigned char *bytes = sound ? malloc((size_t)points * item + 1) : NULL;
  const herr_t result = bytes ? H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) : -1;
  if (result >= 0) *crc = crc_unlocked(bytes, (size_t)points * item);
  free(bytes);
  H5Sclose(space);
  H5Tclose(type);
  FN_CHECK(result >= 0, FN_ERR_CHECKPOINT, "dataset %s cannot be read", path);
  return FN_OK;
}

static fn_status stored_crc(hid_t object, const char *path, uint32_t *stored) {
  return fn_error_context(get_attribute(object, crc_name, H5T_NATIVE_UINT32, stored), "%s", path);
}

static fn_status compare_crc(hid_t object, const char *path, uint32_t found) {
  uint32_t stored = 0;
  FN_TRY(stored_crc(object, path, &stored));
  FN_CHECK(stored == found, FN_ERR_CHECKPOINT, "%s: its checksum is %08x, stored is %08x", path,
           found, stored);
  return FN_OK;
}

/** Continue crc over one attribute: name and bytes of the value. */
static herr_t add_attribute(hid_t object, const char *name, const H5A_info_t *info, void *user) {
  (void)info;
  uint32_t *crc = user;
  if (strcmp(name, crc_name) == 0) return 0;
  const hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
  if (attribute < 0) return -1;
  unsigned char value[4096];
  const hid_t type = H5Aget_type(attribute);
  const size_t bytes = (size_t)H5Aget_storage_size(attribute);
  herr_t result = bytes <= sizeof value ? H5Aread(attribute, type, value) : -1;
  if (result >= 0) {
    *crc = fn_crc32(*crc, name, strlen(name) + 1);
    *crc = fn_crc32(*crc, value, bytes);
  }
  H5Tclose(type);
  H5Aclose(attribute);
  return result < 0 ? -1 : 0;
}

static fn_status walk_group(hid_t group, const char *path, const walk *above, uint32_t *crc);

static fn_status visit_member(void *user, const char *name) {
  walk *w = user;
  char path[2048];
  snprintf(path, sizeof path, "%s/%s", w->path, name);
  const hid_t object = H5Oopen(w->group, name, H5P_DEFAULT);
  FN_CHECK(object >= 0, FN_ERR_CHECKPOINT, "%s cannot be opened", path);
  uint32_t crc = 0;
  fn_status status;
  if (H5Iget_type(object) == H5I_GROUP) {
    status = walk_group(object, path, w, &crc);
  } else if (H5Iget_type(object) == H5I_DATASET && !w->values) {
    status = stored_crc(object, path, &crc);
  } else if (H5Iget_type(object) == H5I_DATASET) {
    status = read_dataset_crc(object, path, &crc);
    if (status == FN_OK) status = compare_crc(object, path, crc);
  } else {
    status = fn_error_set(FN_ERR_CHECKPOINT, __FILE__, __LINE__, "%s is no dataset", path);
  }
  H5Oclose(object);
  w->crc = fn_crc32(w->crc, name, strlen(name) + 1);
  w->crc = fn_crc32(w->crc, &crc, sizeof crc);
  return status;
}

static fn_status walk_group(hid_t group, const char *path, const walk *above, uint32_t *crc) {
  FN_CHECK(above->depth < 8, FN_ERR_CHECKPOINT, "%s: groups are nested too deep", path);
  walk w = {.stamp = above->stamp,
            .values = above->values,
            .depth = above->depth + 1,
            .path = path,
            .group = group};
  hsize_t index = 0;
  H5_CHECK(H5Aiterate2(group, H5_INDEX_NAME, H5_ITER_INC, &index, add_attribute, &w.crc) >= 0,
           "read attributes of group", *path ? path : "/");
  FN_TRY(fn_state_members(group, visit_member, &w));
  *crc = w.crc;
  if (w.stamp) return set_attribute(group, crc_name, H5T_STD_U32LE, crc);
  return compare_crc(group, *path ? path : "/", w.crc);
}

static fn_status walk_file(hid_t file, bool stamp, bool values) {
  uint32_t crc;
  const hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
  H5_CHECK(root >= 0, "open group", "/");
  const fn_status status = walk_group(root, "", &(walk){.stamp = stamp, .values = values}, &crc);
  H5Gclose(root);
  return status;
}

fn_status fn_state_stamp(hid_t file) {
  return walk_file(file, true, false);
}

fn_status fn_state_open(const char *path, fn_state_care care, hid_t *file) {
  *file = -1;
  bool sealed;
  fn_hdf5_unlock();
  const fn_status seal = fn_hdf5_check_seal(path, &sealed);
  fn_hdf5_lock();
  if (seal != FN_OK) return FN_ERR_CHECKPOINT;
  const hid_t access = fn_hdf5_read_access();
  *file = H5Fopen(path, H5F_ACC_RDONLY, access);
  char text[512] = "";
  if (*file < 0) fn_hdf5_reason(text, sizeof text);
  H5Pclose(access);
  FN_CHECK(*file >= 0, FN_ERR_CHECKPOINT, "%s is not a complete HDF5 file: %s", path, text);
  if (sealed && care == FN_STATE_SEAL) return FN_OK;
  const fn_status status = walk_file(*file, false, !sealed || care == FN_STATE_VALUES);
  if (status == FN_OK) return FN_OK;
  H5Fclose(*file);
  *file = -1;
  return fn_error_context(status, "%s", path);
}
