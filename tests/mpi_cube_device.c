/* Cubes of every type of number, as a device and as the host finish them: slices and whole cubes
 * have the bits that this file computes from the cells that HDF5 converts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <hdf5.h>
#include <math.h>

#include "backend/backends.h"
#include "data/cubes.h"
#include "data/raw.h"
#include "data_files.h"
#include "dist/dist.h"

enum { N = 8, CELLS = N * N * N, SEEDS = 3, CUBES = 2 * SEEDS, BATCH = 5, MOST = CELLS + 1 };

static fn_dist dist;
static fn_device *device;
static float cells[CUBES][CELLS]; /* of the file, as float32 */

static void must(fn_status status) {
  if (status != FN_OK) fail_msg("rank %d: %s", dist.rank, fn_error_message());
}

static int set_up(void **state) {
  int failed = 0;
  if (dist.rank == 0) failed = make_folder(state);
  if (fn_dist_broadcast(&dist, folder, sizeof folder) != FN_OK || failed) return -1;
  const fn_device_choice choice = {.node_size = 1};
  if (fn_backend_emulated.device(&fn_backend_emulated, &choice, &device) != FN_OK) return -1;
  return dist.rank == 0 ? 0 : chdir(folder);
}

static int tear_down(void **state) {
  fn_dist_max(&dist, 0); // nobody needs the files any more
  return dist.rank == 0 ? remove_folder(state) : 0;
}

/* ---- files -------------------------------------------------------------------------------------
 */

typedef enum kind {
  F32,
  F32_BIG,
  F64,
  F16,
  F16_BIG,
  BF16,
  I8,
  U8,
  I16_BIG,
  U16,
  I32,
  U32,
  I64,
  I12,
  KINDS
} kind;

typedef struct number {
  const char *name; /* as the run says it */
  fn_raw_type type; /* in memory */
  bool converted, is_signed, whole;
} number;

static const number numbers[KINDS] = {
    [F32] = {"float32", FN_RAW_F32, false, true, false},
    [F32_BIG] = {"float32", FN_RAW_F32, false, true, false},
    [F64] = {"float32 (the host converts from <f8)", FN_RAW_F32, true, true, false},
    [F16] = {"float16", FN_RAW_F16, false, true, false},
    [F16_BIG] = {"float16", FN_RAW_F16, false, true, false},
    [BF16] = {"bfloat16", FN_RAW_BF16, false, true, false},
    [I8] = {"int8", FN_RAW_I8, false, true, true},
    [U8] = {"uint8", FN_RAW_U8, false, false, true},
    [I16_BIG] = {"int16", FN_RAW_I16, false, true, true},
    [U16] = {"uint16", FN_RAW_U16, false, false, true},
    [I32] = {"int32", FN_RAW_I32, false, true, true},
    [U32] = {"uint32", FN_RAW_U32, false, false, true},
    [I64] = {"float32 (the host converts from <i8)", FN_RAW_F32, true, true, true},
    [I12] = {"float32 (the host converts from <i2)", FN_RAW_F32, true, true, true},
};

static hid_t small_float(size_t exponent, size_t fraction, H5T_order_t order) {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(type, 15, fraction, exponent, 0, fraction);
  H5Tset_precision(type, 16);
  H5Tset_size(type, 2);
  H5Tset_ebias(type, ((size_t)1 << (exponent - 1)) - 1);
  H5Tset_order(type, order);
  return type;
}

static hid_t twelve_bits(void) {
  const hid_t type = H5Tcopy(H5T_STD_I16LE);
  H5Tset_precision(type, 12);
  return type;
}

static hid_t type_of(kind k) {
  switch (k) {
    case F32: return H5Tcopy(H5T_IEEE_F32LE);
    case F32_BIG: return H5Tcopy(H5T_IEEE_F32BE);
    case F64: return H5Tcopy(H5T_IEEE_F64LE);
    case F16: return small_float(5, 10, H5T_ORDER_LE);
    case F16_BIG: return small_float(5, 10, H5T_ORDER_BE);
    case BF16: return small_float(8, 7, H5T_ORDER_LE);
    case I8: return H5Tcopy(H5T_STD_I8LE);
    case U8: return H5Tcopy(H5T_STD_U8LE);
    case I16_BIG: return H5Tcopy(H5T_STD_I16BE);
    case U16: return H5Tcopy(H5T_STD_U16LE);
    case I32: return H5Tcopy(H5T_STD_I32LE);
    case U32: return H5Tcopy(H5T_STD_U32LE);
    case I64: return H5Tcopy(H5T_STD_I64LE);
    default: return twelve_bits();
  }
}

/* Whole numbers within 8 bits, and what lies between where there is anything; zeros of both signs.
 */
static double value_of(const number *n, int cube, int64_t i) {
  const int64_t scattered = (i * 2654435761 + cube * 40503) % 1009;
  if (n->whole) return (double)(scattered % 120) - (n->is_signed ? 60 : 0);
  if (scattered % 37 == 0) return scattered % 2 ? -0.0 : 0.0;
  return ((double)scattered - 500) / 137 + cube * 0.01;
}

static void write_integers(hid_t file, const char *name, const int64_t *values) {
  const hsize_t count = CUBES;
  const hid_t space = H5Screate_simple(1, &count, NULL);
  const hid_t set =
      H5Dcreate2(file, name, H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
  H5Dclose(set);
  H5Sclose(space);
}

/* One dataset of all cubes; chunked and deflated, or contiguous. */
static void write_packed(hid_t file, hid_t type, const number *n, bool chunked) {
  static double values[CUBES][CELLS];
  const hsize_t shape[4] = {CUBES, N, N, N}, chunk[4] = {1, 3, N, 5};
  int64_t seed[CUBES], theory[CUBES];
  for (int c = 0; c < CUBES; c++) {
    seed[c] = c / 2;
    theory[c] = 1 - c % 2;
    for (int64_t i = 0; i < CELLS; i++)
      values[c][i] = value_of(n, c, i);
  }
  const hid_t create = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(4, shape, NULL);
  if (chunked) {
    H5Pset_chunk(create, 4, chunk);
    H5Pset_deflate(create, 1);
  }
  const hid_t set = H5Dcreate2(file, "cubes", type, space, H5P_DEFAULT, create, H5P_DEFAULT);
  assert_true(H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
  H5Dclose(set);
  H5Sclose(space);
  H5Pclose(create);
  write_integers(file, "seed", seed);
  write_integers(file, "theory", theory);
}

/* A dataset each. */
static void write_original(hid_t file, hid_t type, const number *n) {
  static double values[CELLS];
  const hsize_t shape[3] = {N, N, N};
  const hid_t space = H5Screate_simple(3, shape, NULL);
  for (int c = 0; c < CUBES; c++) {
    char name[32];
    snprintf(name, sizeof name, "%s_seed%04d", c % 2 ? "newton" : "gr", c / 2);
    for (int64_t i = 0; i < CELLS; i++)
      values[i] = value_of(n, c, i);
    const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
  }
  H5Sclose(space);
}

typedef enum layout { PACKED, CHUNKED, ORIGINAL, LAYOUTS } layout;

/* Rank 0 writes; all know the cells as HDF5 makes float32 of them. */
static void make_file(kind k, layout l) {
  if (dist.rank == 0) {
    unlink("cubes.h5");
    const hid_t file = H5Fcreate("cubes.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    const hid_t type = type_of(k);
    if (l == ORIGINAL)
      write_original(file, type, &numbers[k]);
    else
      write_packed(file, type, &numbers[k], l == CHUNKED);
    H5Tclose(type);
    H5Fclose(file);
  }
  fn_dist_max(&dist, 0);
  const hid_t file = H5Fopen("cubes.h5", H5F_ACC_RDONLY, H5P_DEFAULT);
  for (int c = 0; c < CUBES && l == ORIGINAL; c++) {
    char name[32];
    snprintf(name, sizeof name, "%s_seed%04d", c % 2 ? "newton" : "gr", c / 2);
    const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, cells[c]) >= 0);
    H5Dclose(set);
  }
  if (l != ORIGINAL) {
    const hid_t set = H5Dopen2(file, "cubes", H5P_DEFAULT);
    assert_true(H5Dread(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, cells) >= 0);
    H5Dclose(set);
  }
  H5Fclose(file);
}

/* ---- what samples are to be --------------------------------------------------------------------
 */

typedef struct setting {
  const char *text;
  bool whole, compat, remove_mean, random;
  int stride;
  float newton;
} setting;

static const setting settings[] = {
    {.text = "symmetry: none", .stride = 1, .newton = 1},
    {.text = "symmetry: random, remove_mean: true, newton_augmentation: 0.9",
     .remove_mean = true,
     .random = true,
     .stride = 1,
     .newton = 0.9f},
    {.text = "symmetry: all, stride: 2, slices_per_cube: 3", .stride = 2, .newton = 1},
    {.text = "symmetry: all, compat: true, remove_mean: true",
     .compat = true,
     .remove_mean = true,
     .stride = 1,
     .newton = 1},
    {.text = "sample: cube, remove_mean: true, newton_augmentation: 0.3",
     .whole = true,
     .remove_mean = true,
     .stride = 1,
     .newton = 0.3f},
};
enum { SETTINGS = sizeof settings / sizeof *settings };

static double mean_of(const float *cube) {
  double sum = 0;
  for (int row = 0; row < N * N; row++) {
    double part = 0;
    for (int i = 0; i < N; i++)
      part += (double)cube[row * N + i];
    sum += part;
  }
  return sum / CELLS;
}

/* By coordinates, one cell at a time. Returns the number of values. */
static int64_t expect(const fn_dataset *dataset, const setting *s, int64_t epoch, int64_t sample,
                      float *values) {
  fn_sample_key key;
  fn_dataset_key(dataset, sample, &key);
  const int own = (int)(2 * key.seed) + (key.label == FN_GR ? 0 : 1);
  const float *cube = cells[own];
  const double mean = s->remove_mean ? mean_of(cube) : 0;
  const int64_t count = s->whole ? CELLS : s->stride * N * N;
  const int element = s->random ? fn_cube_symmetry(9, epoch, sample) : key.transform;
  // The original's groups: x[:, i, :] transposed, x[i, :, :] transposed, x[i, :, :].
  const int64_t group = sample / 8 % (3 * N) / N;
  for (int64_t i = 0; i < count; i++) {
    int64_t at = i;
    if (!s->whole) {
      const int64_t from = fn_square_index(element, N, i / N % N, i % N);
      int64_t a = from / N, b = from % N;
      const int64_t p = key.position + i / (N * N);
      if (s->compat && group < 2) {
        const int64_t swap = a;
        a = b;
        b = swap;
      }
      at = key.axis == 0   ? (p * N + a) * N + b
           : key.axis == 1 ? (a * N + p) * N + b
                           : (a * N + b) * N + p;
    }
    values[i] = s->remove_mean ? (float)((double)cube[at] - mean) : cube[at];
    if (key.label == FN_NEWTON && s->newton != 1) values[i] *= s->newton;
  }
  values[count] = key.label == FN_GR ? 0.9f : 0.1f;
  return count;
}

/* ---- batches -----------------------------------------------------------------------------------
 */

/* The part of a batch's row [count + 1] that a device makes; the host has made the other one. */
static void take_batch(const fn_batch *batch, const setting *s, float *made, float *result) {
  const int64_t count = batch->input_values;
  if (!batch->raw) {
    for (int64_t n = 0; n < batch->count; n++) {
      memcpy(result + n * MOST, batch->input + n * count, (size_t)count * sizeof(float));
      result[n * MOST + count] = batch->target[n];
    }
    return;
  }
  float *target = made + BATCH * MOST;
  const fn_tensor to[] = {
      {made, FN_F32, {4, {batch->count, s->stride, N, N}}, 1, count, 1},
      {made, FN_F32, {5, {batch->count, 1, N, N, N}}, 1, count, 1},
      {target, FN_F32, {2, {batch->count, 1}}, 1, 1, 1},
  };
  must(fn_batch_send(batch));
  must(fn_batch_convert(batch, false, device, &to[s->whole]));
  must(fn_batch_convert(batch, true, device, &to[2]));
  for (int64_t n = 0; n < batch->count; n++) {
    must(device->copy(device, FN_STREAM_COMPUTE, result + n * MOST, made + n * count,
                      (size_t)count * sizeof(float), FN_COPY_TO_HOST));
    must(device->copy(device, FN_STREAM_COMPUTE, result + n * MOST + count, target + n,
                      sizeof(float), FN_COPY_TO_HOST));
  }
}

/* Batches from `first` on of what this rank has of an epoch, the last one short. */
static void take_epoch(fn_dataset *dataset, const setting *s, int64_t epoch, int64_t first) {
  const int64_t samples = fn_dataset_epoch_samples(dataset);
  int64_t *order = malloc((size_t)samples * sizeof *order), begin, count;
  float *made, *result, values[MOST];
  fn_loader *loader;
  must(fn_dataset_order(dataset, epoch, order));
  fn_rank_slice(samples, dist.rank, dist.size, true, &begin, &count);
  if (count % BATCH == 0) count--;
  if (count < BATCH) first = 0;
  int64_t row = first * BATCH;
  must(device->allocate(device, BATCH * (MOST + 1) * sizeof(float), (void **)&made));
  must(device->allocate_pinned(device, (size_t)count * MOST * sizeof(float), (void **)&result));
  must(fn_loader_create(dataset, epoch, order + begin, count, BATCH, first, 2, 2, &loader));
  for (;;) {
    const fn_batch *batch;
    must(fn_loader_next(loader, &batch));
    if (!batch) break;
    assert_true(row + batch->count <= count);
    take_batch(batch, s, made, result + row * MOST);
    must(fn_loader_send_ahead(loader));
    row += batch->count;
  }
  assert_int_equal(row, count);
  fn_loader_destroy(loader);
  must(device->synchronize(device, FN_STREAM_COMPUTE));
  for (int64_t i = first * BATCH; i < count; i++) {
    const int64_t length = expect(dataset, s, epoch, order[begin + i], values);
    assert_memory_equal(result + i * MOST, values, (size_t)(length + 1) * sizeof(float));
  }
  device->release(device, made);
  device->release_pinned(device, result);
  free(order);
}

static void compare(kind k, const setting *s, bool converts, bool joined, const char *read) {
  fn_run *run = run_of("seed: 9\ntrain: {batch: %d}\ndata: {kind: cubes, prefetch: 2, read: %s, "
                       "cubes: {file: cubes.h5, train_seeds: 0-2, window: 4, label_smoothing: 0.1, "
                       "%s}}",
                       BATCH, read, s->text);
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  if (joined) must(fn_dataset_join(dataset, dist.comm));
  if (converts) fn_dataset_set_device(dataset, device);
  const fn_cube_file_info *info = fn_cube_file_get_info(fn_dataset_cube_file(dataset));
  assert_int_equal(info->type, numbers[k].type);
  assert_int_equal(info->converted, numbers[k].converted);
  fn_text text = {0};
  must(fn_dataset_say_ways(dataset, &text));
  char said[128];
  snprintf(said, sizeof said, "%s: %s", s->whole ? "cubes" : "slices", numbers[k].name);
  if (converts && strncmp(text.data, said, strlen(said)) != 0) fail_msg("%s: %s", said, text.data);
  assert_true(converts || text.length == 0);
  fn_text_free(&text);
  for (int64_t epoch = 0; epoch < 2; epoch++)
    take_epoch(dataset, s, epoch, epoch); // the second one from its second batch on
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

static void every_type_has_the_bits(void **state) {
  (void)state;
  for (int k = 0; k < KINDS; k++) {
    make_file((kind)k, (layout)(k % LAYOUTS));
    for (int s = k % 2; s < SETTINGS; s += 2 - (k == F16 || k == F32))
      for (int converts = 0; converts < 2; converts++)
        compare((kind)k, &settings[s], converts, true, "auto");
    fn_dist_max(&dist, 0);
  }
}

/* Samples of a set that reads by itself, whatever the other ranks do. */
static void alone_too(void **state) {
  (void)state;
  static const kind some[] = {F32, BF16, U8, F64};
  for (int i = 0; i < 4; i++) {
    make_file(some[i], (layout)(i % LAYOUTS));
    for (int s = 0; s < SETTINGS; s += 1 + i)
      for (int converts = 0; converts < 2; converts++)
        compare(some[i], &settings[s], converts, false, "auto");
    fn_dist_max(&dist, 0);
  }
}

/* Every way to read what is not float32. */
static void every_way_to_read(void **state) {
  (void)state;
  static const kind some[] = {F16, U8, F16_BIG, U32};
  for (int i = 0; i < 4; i++) {
    for (int l = 0; l < LAYOUTS; l++) {
      make_file(some[i], (layout)l);
      const bool direct = l != CHUNKED && some[i] != F16_BIG;
      compare(some[i], &settings[1], true, true, "collective");
      compare(some[i], &settings[1], i % 2, true, "independent");
      if (direct) compare(some[i], &settings[1], true, true, "direct");
      fn_dist_max(&dist, 0);
    }
  }
}

int main(int argc, char **argv) {
  alarm(240); // whoever waits in a circle is to be seen
  if (fn_dist_init(&argc, &argv, &dist) != FN_OK) return 1;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_type_has_the_bits),
      cmocka_unit_test(alone_too),
      cmocka_unit_test(every_way_to_read),
  };
  const int failed = cmocka_run_group_tests(tests, set_up, tear_down);
  fn_dist_finalize(&dist);
  return failed;
}
