#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "field/hdf5.h"
#include "run/reference_internal.h"

struct fn_reference_writer {
  hid_t file;    /**< in memory */
  hid_t ordered; /**< creation list of groups that keep the order of their members */
};

static fn_status failure(const char *what) {
  char reason[512];
  FN_FAIL(FN_ERR_DATA, "%s: %s", what, fn_hdf5_reason(reason, sizeof reason));
}

static herr_t copy_attribute(hid_t from, const char *name, const H5A_info_t *info, void *user) {
  (void)info;
  const hid_t to = *(const hid_t *)user;
  const hid_t old = H5Aopen(from, name, H5P_DEFAULT);
  if (old < 0) return -1;
  const hid_t type = H5Aget_type(old), space = H5Aget_space(old);
  const hid_t new = H5Acreate2(to, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
  const size_t bytes = H5Tget_size(type) * (size_t)H5Sget_simple_extent_npoints(space);
  void *value = calloc(1, bytes + 1);
  herr_t result = value && new >= 0 ? H5Aread(old, type, value) : -1;
  if (result >= 0) {
    result = H5Awrite(new, type, value);
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, value);
  }
  free(value);
  if (new >= 0) H5Aclose(new);
  H5Sclose(space);
  H5Tclose(type);
  H5Aclose(old);
  return result;
}

/** Lock held. */
static fn_status start(fn_reference *source, fn_reference_writer *w) {
  FN_TRY(fn_hdf5_image_create((size_t)16 << 20, &w->file));
  w->ordered = H5Pcreate(H5P_GROUP_CREATE);
  H5Pset_link_creation_order(w->ordered, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
  if (H5Aiterate2(source->file, H5_INDEX_NAME, H5_ITER_INC, NULL, copy_attribute, &w->file) < 0)
    return failure("the attributes of the reference cannot be copied");
  const char *const groups[] = {"inputs", "targets", "weights", "buffers"};
  for (int i = 0; i < 4; i++)
    if (H5Lexists(source->file, groups[i], H5P_DEFAULT) > 0 &&
        H5Ocopy(source->file, groups[i], w->file, groups[i], H5P_DEFAULT, H5P_DEFAULT) < 0)
      return failure("the weights of the reference cannot be copied");
  return FN_OK;
}

fn_status fn_reference_write_start(fn_reference *source, fn_reference_writer **writer) {
  fn_reference_writer *w = calloc(1, sizeof *w);
  FN_CHECK(w, FN_ERR_MEMORY, "out of memory");
  w->file = w->ordered = H5I_INVALID_HID;
  fn_hdf5_lock();
  const fn_status status = start(source, w);
  fn_hdf5_unlock();
  if (status != FN_OK) {
    fn_reference_writer_destroy(w);
    return status;
  }
  *writer = w;
  return FN_OK;
}

/** Make the groups above a dataset one by one, so that each keeps its order. Lock held. */
static bool make_groups(fn_reference_writer *w, const char *path) {
  char part[1024];
  for (const char *end = strchr(path, '/'); end; end = strchr(end + 1, '/')) {
    const size_t length = (size_t)(end - path);
    if (length >= sizeof part) return false;
    memcpy(part, path, length);
    part[length] = '\0';
    if (H5Lexists(w->file, part, H5P_DEFAULT) > 0) continue;
    const hid_t group = H5Gcreate2(w->file, part, H5P_DEFAULT, w->ordered, H5P_DEFAULT);
    if (group < 0) return false;
    H5Gclose(group);
  }
  return true;
}

static bool mark_noise(hid_t dataset) {
  const int one = 1;
  const hid_t space = H5Screate(H5S_SCALAR);
  const hid_t attribute =
      H5Acreate2(dataset, "noise", H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT);
  const bool good = attribute >= 0 && H5Awrite(attribute, H5T_NATIVE_INT, &one) >= 0;
  if (attribute >= 0) H5Aclose(attribute);
  H5Sclose(space);
  return good;
}

/** Lock held. */
static bool write_tensor(fn_reference_writer *w, const char *path, const fn_shape *shape,
                         const float *values, bool noise) {
  if (!make_groups(w, path)) return false;
  hsize_t dim[FN_MAX_DIMS];
  for (int d = 0; d < shape->ndim; d++)
    dim[d] = (hsize_t)shape->dim[d];
  const hid_t space =
      shape->ndim > 0 ? H5Screate_simple(shape->ndim, dim, NULL) : H5Screate(H5S_SCALAR);
  const hid_t dataset =
      H5Dcreate2(w->file, path, H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  bool good = dataset >= 0 &&
              H5Dwrite(dataset, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
  if (good && noise) good = mark_noise(dataset);
  if (dataset >= 0) H5Dclose(dataset);
  H5Sclose(space);
  return good;
}

fn_status fn_reference_write_tensor(fn_reference_writer *writer, const char *path,
                                    const fn_shape *shape, const float *values, bool noise) {
  fn_hdf5_lock();
  const fn_status status = write_tensor(writer, path, shape, values, noise) ? FN_OK : failure(path);
  fn_hdf5_unlock();
  return status;
}

fn_status fn_reference_write_finish(fn_reference_writer *writer, const char *path) {
  FN_CHECK(!fn_file_exists(path), FN_ERR_CONFIG, "--write %s: the file exists", path);
  fn_hdf5_lock();
  const fn_status status = fn_hdf5_image_write(writer->file, path, false);
  fn_hdf5_unlock();
  return status;
}

void fn_reference_writer_destroy(fn_reference_writer *writer) {
  if (!writer) return;
  fn_hdf5_lock();
  if (writer->ordered >= 0) H5Pclose(writer->ordered);
  if (writer->file >= 0) H5Fclose(writer->file);
  fn_hdf5_unlock();
  free(writer);
}
