/* Predictions of cubes on disk: a row per cube as text, all of it as HDF5. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "base/text.h"
#include "data/cubes.h"
#include "field/hdf5.h"
#include "learn/metrics.h"
#include "run/checkpoint_file.h"
#include "run/predict_cubes.h"

/* ---- predictions.csv --------------------------------------------------------------------------
 */

/** In quotes where it must be (RFC 4180). */
static void add_cell(fn_text *text, const char *words) {
  if (!strpbrk(words, ",\"\r\n")) {
    fn_text_add(text, "%s", words);
    return;
  }
  fn_text_add(text, "\"");
  for (; *words; words++) {
    if (*words == '"') fn_text_add_bytes(text, "\"", 1);
    fn_text_add_bytes(text, words, 1);
  }
  fn_text_add(text, "\"");
}

static void add_row(fn_text *text, const fn_prediction *p, const fn_predicted_cube *cube) {
  add_cell(text, p->file[cube->file]);
  fn_text_add(text, ",%" PRId64 ",", cube->cube);
  add_cell(text, cube->name);
  fn_text_add(text, ",");
  if (cube->seed >= 0) fn_text_add(text, "%" PRId64, cube->seed);
  fn_text_add(text, ",%" PRId64 ",%.9g,%.9g", p->samples, cube->mean, cube->deviation);
  if (p->classes)
    fn_text_add(text, ",%.9g,%.9g,%s,%" PRId64 ",%s", fn_probability(-cube->mean),
                fn_probability(cube->mean), cube->mean >= 0 ? "gr" : "newton", cube->positive,
                2 * cube->positive >= p->samples ? "gr" : "newton");
  fn_text_add(text, "\n");
}

static fn_status write_csv(const char *folder, const fn_prediction *p) {
  char path[4096];
  fn_text text = {0};
  snprintf(path, sizeof path, "%s/predictions.csv", folder);
  fn_text_add(&text, "file,cube,name,seed,samples,%s\n",
              p->classes ? "mean_logit,deviation,probability_newton,probability_gr,predicted,"
                           "positive_samples,predicted_by_vote"
                         : "value,deviation");
  for (int64_t c = 0; c < p->cubes; c++)
    add_row(&text, p, &p->cube[c]);
  const fn_status status = fn_file_replace_text(path, &text);
  fn_text_free(&text);
  return status;
}

/* ---- predictions.h5 ----------------------------------------------------------------------------
 */

/** A data set of `ndim` axes. HDF5 lock held. */
static fn_status put(hid_t file, const char *name, hid_t stored, hid_t type, int ndim,
                     const hsize_t *dim, const void *values) {
  const hid_t space = H5Screate_simple(ndim, dim, NULL), create = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_obj_track_times(create, false); // equal predictions are equal files
  const hid_t data = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, create, H5P_DEFAULT);
  const bool good = data >= 0 && H5Dwrite(data, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0;
  char reason[512] = "";
  if (!good) fn_hdf5_reason(reason, sizeof reason);
  if (data >= 0) H5Dclose(data);
  H5Pclose(create);
  H5Sclose(space);
  FN_CHECK(good, FN_ERR_DATA, "cannot write %s of the predictions: %s", name, reason);
  return FN_OK;
}

typedef enum column {
  FILE_NUMBER,
  CUBE,
  SEED,
  INTEGERS,
  MEAN = INTEGERS,
  DEVIATION,
  COLUMNS_OF_VALUES,
  PROBABILITY_NEWTON = COLUMNS_OF_VALUES,
  PROBABILITY_GR,
  REALS,
  PREDICTED = REALS,
  POSITIVE,
  BY_VOTE,
  COLUMNS
} column;

static const char *column_name(const fn_prediction *p, column c) {
  static const char *const names[COLUMNS] = {"file",
                                             "cube",
                                             "seed",
                                             "mean_logit",
                                             "deviation",
                                             "probability_newton",
                                             "probability_gr",
                                             "predicted",
                                             "positive_samples",
                                             "predicted_by_vote"};
  return c == MEAN && !p->classes ? "value" : names[c];
}

static double real_of(column c, const fn_predicted_cube *cube) {
  switch (c) {
    case DEVIATION: return cube->deviation;
    case PROBABILITY_NEWTON: return fn_probability(-cube->mean);
    case PROBABILITY_GR: return fn_probability(cube->mean);
    default: return cube->mean;
  }
}

static int64_t integer_of(const fn_prediction *p, column c, const fn_predicted_cube *cube) {
  switch (c) {
    case FILE_NUMBER: return cube->file;
    case CUBE: return cube->cube;
    case SEED: return cube->seed;
    case PREDICTED: return cube->mean >= 0;
    case POSITIVE: return cube->positive;
    default: return 2 * cube->positive >= p->samples;
  }
}

static fn_status put_column(hid_t file, const fn_prediction *p, column c, void *buffer) {
  const hsize_t count = (hsize_t)p->cubes;
  const bool real = c >= INTEGERS && c < REALS;
  double *reals = buffer;
  int64_t *integers = buffer;
  for (int64_t i = 0; i < p->cubes; i++) {
    if (real)
      reals[i] = real_of(c, &p->cube[i]);
    else
      integers[i] = integer_of(p, c, &p->cube[i]);
  }
  return put(file, column_name(p, c), real ? H5T_IEEE_F64LE : H5T_STD_I64LE,
             real ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64, 1, &count, buffer);
}

static fn_status put_columns(hid_t file, const fn_prediction *p) {
  void *buffer = malloc((size_t)p->cubes * sizeof(int64_t));
  FN_CHECK(buffer, FN_ERR_MEMORY, "out of memory");
  fn_status status = FN_OK;
  const column last = p->classes ? COLUMNS : COLUMNS_OF_VALUES;
  for (column c = FILE_NUMBER; c < last && status == FN_OK; c++)
    status = put_column(file, p, c, buffer);
  free(buffer);
  return status;
}

/** UTF-8 texts of one length, padded with NUL: h5py and numpy read them as bytes. */
static fn_status put_texts(hid_t file, const char *name, int64_t count,
                           const char *(*text_of)(const fn_prediction *p, int64_t i),
                           const fn_prediction *p) {
  size_t length = 1;
  const hsize_t dim = (hsize_t)count;
  for (int64_t i = 0; i < count; i++)
    if (strlen(text_of(p, i)) > length) length = strlen(text_of(p, i));
  char *all = calloc((size_t)count, length);
  FN_CHECK(all, FN_ERR_MEMORY, "out of memory");
  for (int64_t i = 0; i < count; i++)
    memcpy(all + (size_t)i * length, text_of(p, i), strlen(text_of(p, i)));
  const hid_t type = H5Tcopy(H5T_C_S1);
  H5Tset_size(type, length);
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  const fn_status status = put(file, name, type, type, 1, &dim, all);
  H5Tclose(type);
  free(all);
  return status;
}

static const char *file_text(const fn_prediction *p, int64_t i) {
  return p->file[i];
}

static const char *name_text(const fn_prediction *p, int64_t i) {
  return p->cube[i].name;
}

static fn_status put_all(hid_t file, const fn_prediction *p) {
  const hsize_t dim[] = {(hsize_t)p->cubes, (hsize_t)p->samples};
  FN_TRY(put_texts(file, "files", p->files, file_text, p));
  FN_TRY(put_texts(file, "name", p->cubes, name_text, p));
  FN_TRY(put_columns(file, p));
  FN_TRY(put(file, p->classes ? "logit" : "output", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 2, dim,
             p->output));
  FN_TRY(put(file, "axis", H5T_STD_I8LE, H5T_NATIVE_INT8, 1, &dim[1], p->axis));
  FN_TRY(put(file, "position", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, &dim[1], p->position));
  FN_TRY(fn_state_set_text(file, "state", p->state));
  FN_TRY(fn_state_set_integer(file, "epoch", p->epoch));
  if (!p->classes) return FN_OK;
  return fn_state_set_text(file, "classes", "1 = GR, 0 = Newton; GR when the mean logit is >= 0");
}

static fn_status write_hdf5(const char *folder, const fn_prediction *p) {
  char path[4096];
  hid_t file;
  snprintf(path, sizeof path, "%s/predictions.h5", folder);
  fn_hdf5_lock();
  fn_status status =
      fn_hdf5_image_create((size_t)(p->cubes * p->samples) * sizeof(float) + 65536, &file);
  if (status == FN_OK) {
    status = put_all(file, p);
    if (status == FN_OK) status = fn_hdf5_image_write(file, path, false);
    H5Fclose(file);
  }
  fn_hdf5_unlock();
  return status;
}

fn_status fn_prediction_write(const char *folder, const fn_prediction *prediction) {
  FN_TRY(write_hdf5(folder, prediction));
  return write_csv(folder, prediction);
}
