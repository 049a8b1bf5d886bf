#include "run/scores.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "base/text.h"
#include "field/hdf5.h"
#include "field/safe_write.h"
#include "run/checkpoint_file.h"

enum { CHUNK = 1 << 16 }; // rows of a column written at a time

static const char *theory(int label) {
  return label == FN_GR ? "gr" : "newton";
}

/* ---- scores.h5 ---------------------------------------------------------------------------------
 */

typedef enum column {
  SEED,
  THEORY,
  CUBE,
  AXIS,
  POSITION,
  TRANSFORM,
  LABEL,
  INTEGERS,
  LOGIT = INTEGERS,
  PROBABILITY,
  NO_MEAN,
  COLUMNS
} column;
static const char *const column_names[COLUMNS] = {"seed",        "theory",       "cube",  "axis",
                                                  "position",    "transform",    "label", "logit",
                                                  "probability", "logit_no_mean"};

typedef struct source {
  const fn_dataset *dataset;
  int64_t samples;
  const float *logit, *no_mean;
} source;

static int64_t integer_of(column c, const fn_sample_key *key) {
  switch (c) {
    case SEED: return key->seed;
    case CUBE: return key->cube;
    case AXIS: return key->axis;
    case POSITION: return key->position;
    case TRANSFORM: return key->transform;
    default: return key->label; // a theory is 1 for GR, as its label
  }
}

static void fill(const source *s, column c, int64_t first, int64_t count, int64_t *integers,
                 float *reals) {
  fn_sample_key key;
  for (int64_t i = 0; i < count; i++) {
    const int64_t sample = first + i;
    if (c < INTEGERS) {
      fn_dataset_key(s->dataset, sample, &key);
      integers[i] = integer_of(c, &key);
    } else {
      reals[i] = c == NO_MEAN ? s->no_mean[sample] : s->logit[sample];
      if (c == PROBABILITY) reals[i] = (float)fn_probability((double)reals[i]);
    }
  }
}

static hid_t file_type(column c) {
  switch (c) {
    case SEED:
    case CUBE: return H5T_STD_I64LE;
    case AXIS: return H5T_STD_I8LE;
    case POSITION: return H5T_STD_I32LE;
    case THEORY:
    case TRANSFORM:
    case LABEL: return H5T_STD_U8LE;
    default: return H5T_IEEE_F32LE;
  }
}

/** Columns of keys repeat themselves: compressed where the library can. */
static hid_t column_layout(int64_t samples) {
  const hsize_t chunk = (hsize_t)(samples < CHUNK ? samples : CHUNK);
  const hid_t layout = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(layout, 1, &chunk);
  H5Pset_obj_track_times(layout, false); // equal scores are equal files
  if (H5Zfilter_avail(H5Z_FILTER_DEFLATE) > 0) {
    H5Pset_shuffle(layout);
    H5Pset_deflate(layout, 1);
  }
  return layout;
}

static bool write_rows(const source *s, column c, hid_t data, void *buffer) {
  const hsize_t whole = (hsize_t)s->samples;
  const hid_t space = H5Screate_simple(1, &whole, NULL);
  bool good = space >= 0;
  for (int64_t first = 0; first < s->samples && good; first += CHUNK) {
    const int64_t count = s->samples - first < CHUNK ? s->samples - first : CHUNK;
    const hsize_t start = (hsize_t)first, rows = (hsize_t)count;
    fill(s, c, first, count, buffer, buffer);
    const hid_t memory = H5Screate_simple(1, &rows, NULL);
    good = H5Sselect_hyperslab(space, H5S_SELECT_SET, &start, NULL, &rows, NULL) >= 0 &&
           H5Dwrite(data, c < INTEGERS ? H5T_NATIVE_INT64 : H5T_NATIVE_FLOAT, memory, space,
                    H5P_DEFAULT, buffer) >= 0;
    H5Sclose(memory);
  }
  H5Sclose(space);
  return good;
}

static fn_status write_column(const source *s, column c, hid_t file, void *buffer) {
  const hsize_t whole = (hsize_t)s->samples;
  const hid_t space = H5Screate_simple(1, &whole, NULL), layout = column_layout(s->samples);
  const hid_t data =
      H5Dcreate2(file, column_names[c], file_type(c), space, H5P_DEFAULT, layout, H5P_DEFAULT);
  const bool good = data >= 0 && write_rows(s, c, data, buffer);
  if (data >= 0) H5Dclose(data);
  H5Pclose(layout);
  H5Sclose(space);
  char reason[512];
  FN_CHECK(good, FN_ERR_DATA, "cannot write column %s of the scores: %s", column_names[c],
           fn_hdf5_reason(reason, sizeof reason));
  return FN_OK;
}

static fn_status write_columns(const source *s, const fn_class_result *result, hid_t file) {
  void *buffer = malloc(CHUNK * sizeof(int64_t));
  FN_CHECK(buffer, FN_ERR_MEMORY, "out of memory");
  fn_status status = FN_OK;
  for (column c = 0; c < COLUMNS && status == FN_OK; c++)
    if (c != NO_MEAN || s->no_mean) status = write_column(s, c, file, buffer);
  free(buffer);
  FN_TRY(status);
  FN_TRY(fn_state_set_text(file, "state", result->state));
  FN_TRY(fn_state_set_integer(file, "epoch", result->epoch));
  return fn_state_set_text(file, "labels", "1 = GR, 0 = Newton; positive when logit >= 0");
}

static fn_status write_hdf5(const char *folder, const source *s, const fn_class_result *result) {
  char path[4096];
  snprintf(path, sizeof path, "%s/scores.h5", folder);
  hid_t file;
  fn_hdf5_lock();
  fn_status status = fn_hdf5_image_create((size_t)s->samples * 12 + 65536, &file);
  if (status == FN_OK) {
    status = write_columns(s, result, file);
    if (status == FN_OK) status = fn_hdf5_image_write(file, path, false);
    H5Fclose(file);
  }
  fn_hdf5_unlock();
  return status;
}

/* ---- tables ------------------------------------------------------------------------------------
 */

/** A table being written beside its place. */
typedef struct table {
  char path[4096], temporary[4200];
  FILE *file;
} table;

static fn_status table_open(const char *folder, const char *name, table *t) {
  snprintf(t->path, sizeof t->path, "%s/%s", folder, name);
  FN_TRY(fn_temporary_name(t->path, t->temporary, sizeof t->temporary));
  t->file = fopen(t->temporary, "w");
  FN_CHECK(t->file, FN_ERR_DATA, "cannot write %s: %s", t->path, strerror(errno));
  return FN_OK;
}

static fn_status table_close(table *t) {
  const bool failed = ferror(t->file) != 0;
  if (fclose(t->file) != 0 || failed) {
    const int reason = errno;
    remove(t->temporary);
    FN_FAIL(FN_ERR_DATA, "cannot write %s: %s", t->path, strerror(reason));
  }
  return fn_commit_file(t->temporary, t->path);
}

static fn_status write_samples(const char *folder, const source *s) {
  table t;
  FN_TRY(table_open(folder, "scores.csv", &t));
  fprintf(t.file, "seed,theory,cube,axis,position,transform,label,logit,probability%s\n",
          s->no_mean ? ",logit_no_mean" : "");
  fn_sample_key key;
  for (int64_t i = 0; i < s->samples; i++) {
    fn_dataset_key(s->dataset, i, &key);
    fprintf(t.file, "%" PRId64 ",%s,%" PRId64 ",%d,%" PRId64 ",%d,%d,%.9g,%.9g", key.seed,
            theory(key.label), key.cube, key.axis, key.position, key.transform, key.label,
            (double)s->logit[i], fn_probability((double)s->logit[i]));
    if (s->no_mean) fprintf(t.file, ",%.9g", (double)s->no_mean[i]);
    fputc('\n', t.file);
  }
  return table_close(&t);
}

static fn_status write_cubes(const char *folder, const fn_class_result *r) {
  const fn_classes *c = r->by[FN_NETWORK].classes, *baseline = r->by[FN_BASELINE].classes;
  const fn_classes *no_mean = r->by[FN_NETWORK_NO_MEAN].classes;
  table t;
  FN_TRY(table_open(folder, "cubes.csv", &t));
  fprintf(t.file,
          "cube,seed,theory,label,slices,mean_logit,deviation,called_by_mean,"
          "positive_slices,called_by_vote%s%s\n",
          no_mean ? ",mean_logit_no_mean" : "", baseline ? ",cube_mean,called_by_baseline" : "");
  for (int64_t i = 0; i < c->cubes; i++) {
    const fn_cube_score *k = &c->cube[i];
    fprintf(t.file, "%" PRId64 ",%" PRId64 ",%s,%d,%" PRId64 ",%.9g,%.9g,%d,%" PRId64 ",%d", i,
            k->seed, theory(k->label), k->label, k->slices, k->mean, k->deviation, k->mean >= 0,
            k->positive, 2 * k->positive >= k->slices);
    if (no_mean) fprintf(t.file, ",%.9g", no_mean->cube[i].mean);
    if (baseline) fprintf(t.file, ",%.9g,%d", r->cube_mean[i], baseline->cube[i].mean >= 0);
    fputc('\n', t.file);
  }
  return table_close(&t);
}

static fn_status write_seeds(const char *folder, const fn_class_result *r) {
  const fn_classes *c = r->by[FN_NETWORK].classes, *baseline = r->by[FN_BASELINE].classes;
  table t;
  FN_TRY(table_open(folder, "seeds.csv", &t));
  fprintf(t.file,
          "seed,slices,slices_right,loss,gr_mean_logit,newton_mean_logit,pair_by_mean,"
          "slice_pairs,slice_pairs_right,pair_by_vote%s\n",
          baseline ? ",pair_by_baseline" : "");
  for (int64_t i = 0; i < c->seeds; i++) {
    const fn_seed_score *s = &c->seed[i];
    const fn_counts *n = &s->slices;
    const int64_t right = n->true_positive + n->true_negative;
    const int64_t all = right + n->false_positive + n->false_negative;
    double mean[2];
    for (int label = 0; label < 2; label++)
      mean[label] = s->cube[label] >= 0 ? c->cube[s->cube[label]].mean : (double)NAN;
    fprintf(t.file, "%" PRId64 ",%" PRId64 ",%" PRId64 ",%.9g,%.9g,%.9g,%g,%" PRId64 ",%g,%g",
            s->seed, all, right, s->loss / (double)all, mean[1], mean[0], s->by_mean, s->pairs,
            s->pairs_right, s->by_vote);
    if (baseline) fprintf(t.file, ",%g", baseline->seed[i].by_mean);
    fputc('\n', t.file);
  }
  return table_close(&t);
}

fn_status fn_scores_write(const char *folder, const fn_dataset *dataset,
                          const fn_class_result *result, const float *logit, const float *no_mean) {
  const source s = {dataset, fn_dataset_get_info(dataset)->samples, logit, no_mean};
  FN_TRY(write_hdf5(folder, &s, result));
  FN_TRY(write_samples(folder, &s));
  FN_TRY(write_cubes(folder, result));
  return write_seeds(folder, result);
}
