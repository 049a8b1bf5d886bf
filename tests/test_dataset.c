/* dataset: anchors, crops, pads, formats, pairing, every error, real data. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "data/handles.h"
#include "data_files.h"

static int64_t wrap(int64_t index, int64_t size) {
  return ((index % size) + size) % size;
}

/** Assert block[c, x...] = value_at(file, cell of start + x) for a cube field. */
static void check_block(const float *block, int file, int spatial, int64_t channels, int64_t edge,
                        const int64_t *start, const int64_t *extent) {
  const int64_t cells = count_of(spatial, extent);
  for (int64_t i = 0; i < channels * cells; i++) {
    int64_t rest = i % cells, index = 0, stride = 1;
    for (int d = spatial - 1; d >= 0; d--) {
      index += wrap(start[d] + rest % extent[d], edge) * stride;
      rest /= extent[d];
      stride *= edge;
    }
    index += i / cells * stride;
    if (block[i] != value_at(file, index)) // NOLINT: exact
      fail_msg("value %lld is %g, expected %g", (long long)i, (double)block[i],
               (double)value_at(file, index));
  }
}

static float *room_for(int64_t channels, int spatial, const int64_t *extent) {
  return malloc((size_t)(channels * count_of(spatial, extent) + 1) * sizeof(float));
}

/* Edge 12, crop 8: anchors {0, 8}^3, the last axis fastest; the second crop wraps. */
static void anchors_of_the_specification(void **state) {
  (void)state;
  write_field(1, 4, cube(3, 1, 12), "anchor/in.npy");
  fn_run *run = run_of("data: {train: {input: anchor/in.npy, target: anchor/in.npy}, crop: 8}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  assert_int_equal(info->crops, 8);
  assert_int_equal(info->samples, 8);
  float input[512], target[512];
  for (int i = 0; i < 8; i++) {
    int64_t anchor[3];
    const int64_t expected[] = {i / 4 * 8, i / 2 % 2 * 8, i % 2 * 8};
    fn_dataset_anchor(dataset, i, anchor);
    for (int d = 0; d < 3; d++)
      assert_int_equal(anchor[d], expected[d]);
    assert_int_equal(fn_dataset_sample(dataset, 0, i, input, target), FN_OK);
    check_block(input, 1, 3, 1, 12, expected, (int64_t[]){8, 8, 8});
    assert_memory_equal(input, target, sizeof input);
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* start, stop, step: ceil((stop - start) / step) anchors, stop does not limit where crops end. */
static void anchor_ranges(void **state) {
  (void)state;
  write_field(1, 3, cube(2, 1, 10), "range/in.npy");
  fn_run *run = run_of("data: {train: {input: range/in.npy, target: range/in.npy}, crop: [4, 3],"
                       " crop_start: [1, 0], crop_stop: [8, 9], crop_step: [3, 4]}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  assert_int_equal(fn_dataset_get_info(dataset)->crops, 9);
  const int64_t first[] = {1, 4, 7}, second[] = {0, 4, 8};
  for (int i = 0; i < 9; i++) {
    int64_t anchor[2];
    fn_dataset_anchor(dataset, i, anchor);
    assert_int_equal(anchor[0], first[i / 3]);
    assert_int_equal(anchor[1], second[i % 3]);
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* Pads written as one number, one per axis, and low and high per axis. */
static void pads(void **state) {
  (void)state;
  const char *text[] = {"2", "[1, 3, 2]", "[1, 2, 3, 4, 15, 0]"};
  const int64_t low[][3] = {{2, 2, 2}, {1, 3, 2}, {1, 3, 15}};
  const int64_t high[][3] = {{2, 2, 2}, {1, 3, 2}, {2, 4, 0}};
  for (int file = 0; file < 3; file++) {
    write_field(file, 4, cube(3, 2, 6), "pad/in%d.npy", file);
    write_field(file + 3, 4, cube(3, 1, 6), "pad/out%d.npy", file);
  }
  for (int p = 0; p < 3; p++) {
    fn_run *run = run_of("data: {validation: {input: 'pad/in*.npy', target: 'pad/out*.npy'}, "
                         "crop: 3, input_pad: %s, target_pad: %s}",
                         text[p], text[(p + 1) % 3]);
    fn_dataset *dataset = dataset_of(run, FN_STAGE_VALIDATION);
    const fn_dataset_info *info = fn_dataset_get_info(dataset);
    assert_int_equal(info->samples, 3 * 8);
    float *input = room_for(2, 3, info->input_extent);
    float *target = room_for(1, 3, info->target_extent);
    for (int i = 0; i < 24; i++) {
      int64_t anchor[3], from[3], target_from[3];
      fn_dataset_anchor(dataset, i % 8, anchor);
      for (int d = 0; d < 3; d++) {
        from[d] = anchor[d] - low[p][d];
        target_from[d] = anchor[d] - low[(p + 1) % 3][d];
        assert_int_equal(info->input_extent[d], low[p][d] + 3 + high[p][d]);
      }
      assert_int_equal(fn_dataset_sample(dataset, 4, i, input, target), FN_OK);
      check_block(input, i / 8, 3, 2, 6, from, info->input_extent);
      check_block(target, 3 + i / 8, 3, 1, 6, target_from, info->target_extent);
    }
    free(input);
    free(target);
    fn_dataset_destroy(dataset);
    fn_run_destroy(run);
  }
}

/* Super-resolution: anchors, crops and pads of the target are multiples of those of the input. */
static void scale_factor(void **state) {
  (void)state;
  write_field(1, 3, cube(2, 1, 6), "scale/in.npy");
  write_field(2, 3, cube(2, 3, 12), "scale/out.npy");
  fn_run *run = run_of("data: {train: {input: scale/in.npy, target: scale/out.npy}, crop: 3, "
                       "scale_factor: 2, input_pad: 1, target_pad: [1, 0, 0, 2]}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  assert_int_equal(info->target_extent[0], 8);
  assert_int_equal(info->target_extent[1], 10);
  float *input = room_for(1, 2, info->input_extent), *target = room_for(3, 2, info->target_extent);
  assert_int_equal(fn_dataset_sample(dataset, 0, 3, input, target), FN_OK);
  check_block(input, 1, 2, 1, 6, (int64_t[]){2, 2}, info->input_extent);
  check_block(target, 2, 2, 3, 12, (int64_t[]){4, 6}, info->target_extent);
  free(input);
  free(target);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/** Rewrite a float32 C-order npy field as big-endian f8 or in Fortran order, byte by byte. */
static void rewrite(const char *path, const float *values, const int64_t *dim, bool big,
                    bool fortran) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  char dict[118];
  const int length =
      snprintf(dict, sizeof dict,
               "{'descr': '%s', 'fortran_order': %s, 'shape': (%lld, %lld, %lld, %lld), }",
               big ? ">f8" : "<f4", fortran ? "True" : "False", (long long)dim[0],
               (long long)dim[1], (long long)dim[2], (long long)dim[3]);
  memset(dict + length, ' ', sizeof dict - (size_t)length);
  dict[117] = '\n';
  fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, file);
  fwrite(dict, 1, 118, file);
  for (int64_t n = 0; n < count_of(4, dim); n++) {
    int64_t index = n;
    if (fortran) { // first axis fastest
      int64_t rest = n, stride = count_of(4, dim);
      index = 0;
      for (int a = 0; a < 4; a++) {
        stride /= dim[a];
        index += rest % dim[a] * stride;
        rest /= dim[a];
      }
    }
    if (big) {
      const double value = (double)values[index];
      uint64_t bits;
      memcpy(&bits, &value, 8);
      bits = __builtin_bswap64(bits);
      fwrite(&bits, 8, 1, file);
    } else {
      fwrite(&values[index], 4, 1, file);
    }
  }
  fclose(file);
}

static void other_formats_give_the_same_samples(void **state) {
  (void)state;
  const int64_t dim[] = {3, 6, 5, 4};
  float values[360], plain[3 * 7 * 7 * 7], other[3 * 7 * 7 * 7], unused[3 * 27];
  write_field(1, 4, dim, "format/a.npy");
  for (int i = 0; i < 360; i++)
    values[i] = value_at(1, i);
  rewrite("format/big.npy", values, dim, true, false);
  rewrite("format/fortran.npy", values, dim, false, true);
  rewrite("format/both.npy", values, dim, true, true);
  assert_int_equal(fn_hdf5_write("format/h.h5", "/group/x", values, 4, dim), FN_OK);
  const char *name[] = {"a.npy", "big.npy", "fortran.npy", "both.npy", "h.h5", "h.h5:/group/x"};
  for (int n = 0; n < 6; n++) {
    fn_run *run = run_of("{seed: 3, data: {train: {input: 'format/%s', target: format/a.npy}, "
                         "crop: 3, input_pad: 2, augment: true, shift: 3}}",
                         name[n]);
    fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
    float *out = n ? other : plain;
    for (int i = 0; i < 8; i++) {
      assert_int_equal(fn_dataset_sample(dataset, 1, 5, out, unused), FN_OK);
      if (n) assert_memory_equal(other, plain, sizeof plain);
    }
    fn_dataset_destroy(dataset);
    fn_run_destroy(run);
  }
}

static void packed_hdf5(void **state) {
  (void)state;
  const int64_t dim[] = {5, 2, 8, 8}, count = 5 * 2 * 64;
  float values[5 * 2 * 64], input[2 * 64], target[2 * 64];
  for (int i = 0; i < count; i++)
    values[i] = value_at(0, i);
  assert_int_equal(fn_make_directories("packed"), FN_OK);
  assert_int_equal(fn_hdf5_write("packed/maps.h5", "/dm/z0", values, 4, dim), FN_OK);
  fn_run *run = run_of("data: {train: {input: 'packed/maps.h5:/dm/z0', "
                       "target: 'packed/maps.h5:/dm/z*'}, crop: [8, 8]}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  assert_int_equal(info->files, 5);
  assert_int_equal(info->spatial, 2);
  assert_int_equal(info->input_channels, 2);
  assert_string_equal(fn_dataset_path(dataset, 3, 0), "packed/maps.h5:/dm/z0[3]");
  assert_string_equal(fn_dataset_output_name(dataset, 3, 1), "3");
  for (int i = 0; i < 5; i++) {
    assert_int_equal(fn_dataset_sample(dataset, 0, i, input, target), FN_OK);
    assert_memory_equal(input, values + i * 128, sizeof input);
    assert_memory_equal(target, input, sizeof input);
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
  // Without a list that tells the number of axes, four dimensions are channels and three axes.
  run = run_of("data: {train: {input: 'packed/maps.h5:/dm/z0', target: 'packed/maps.h5:/dm/z0'}}");
  dataset = dataset_of(run, FN_STAGE_TRAIN);
  assert_int_equal(fn_dataset_get_info(dataset)->files, 1);
  assert_int_equal(fn_dataset_get_info(dataset)->spatial, 3);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

static void output_names(void **state) {
  (void)state;
  const char *sims[] = {"simA", "simB"};
  for (int i = 0; i < 2; i++) {
    write_field(i, 4, cube(3, 1, 4), "names/linear/%s/dis.v1.npy", sims[i]);
    write_field(i, 4, cube(3, 1, 4), "names/nonlin/%s/dis.npy", sims[i]);
  }
  fn_run *run = run_of("data: {test: {input: './names/linear/*/*.npy', target: "
                       "'%s/names/x/../nonlin/*/dis.npy'}}",
                       folder);
  assert_int_equal(fn_make_directories("names/x"), FN_OK);
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TEST);
  assert_string_equal(fn_dataset_output_name(dataset, 1, 1), "nonlin/simB/dis");
  assert_string_equal(fn_dataset_output_name(dataset, 0, 0), "linear/simA/dis.v1");
  fn_dataset_destroy(dataset);
  dataset = dataset_of(run, FN_STAGE_PREDICT);
  assert_string_equal(fn_dataset_output_name(dataset, 1, 0), "simB/dis.v1");
  assert_int_equal(fn_dataset_get_info(dataset)->target_channels, 0);
  float x[64];
  assert_int_equal(fn_dataset_undo_target(dataset, x, 32), FN_ERR_INTERNAL);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* Norms per field on the way in, undone on the way out. */
static void norms_per_field(void **state) {
  (void)state;
  write_field(0, 3, cube(2, 2, 4), "norm/a.npy");
  write_field(0, 3, cube(2, 1, 4), "norm/b.npy");
  fn_run *run = run_of("data: {train: {input: norm/a.npy, target: [norm/a.npy, norm/b.npy]}, "
                       "input_norms: log, target_norms: [dis, log1p], norm_options: {eps: 0.5}}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  float input[32], target[48];
  assert_int_equal(fn_dataset_sample(dataset, 0, 0, input, target), FN_OK);
  for (int i = 0; i < 48; i++) {
    if (i < 32) assert_float_equal(input[i], (float)log(i + 1.5), 1e-6f);
    assert_float_equal(target[i], (float)(i < 32 ? (i + 1) / 6.0 : log(i - 32 + 2.5)), 1e-6f);
  }
  assert_int_equal(fn_dataset_undo_target(dataset, target, 16), FN_OK);
  for (int i = 0; i < 48; i++)
    assert_float_equal(target[i], (float)(i % 32 + 1), 1e-5f);
  fn_dataset_destroy(dataset);
  // Predictions learn their channels from the caller.
  fn_run *predict = run_of("data: {test: {input: norm/a.npy}, target_norms: [dis, identity]}");
  dataset = dataset_of(predict, FN_STAGE_PREDICT);
  assert_int_equal(fn_dataset_set_outputs(dataset, 1, (int64_t[]){2}), FN_ERR_CONFIG);
  assert_int_equal(fn_dataset_set_outputs(dataset, 2, (int64_t[]){1, 2}), FN_OK);
  float output[6] = {1, 1, 1, 1, 1, 1};
  assert_int_equal(fn_dataset_undo_target(dataset, output, 2), FN_OK);
  for (int i = 0; i < 6; i++)
    assert_float_equal(output[i], i < 2 ? 6.0f : 1.0f, 1e-6f);
  fn_dataset_destroy(dataset);
  fn_run_destroy(predict);
  fn_run_destroy(run);
}

/* ---- errors ---------------------------------------------------------------------------------- */

/** Creation must fail with this status, the message holding every text of the NULL-ended list. */
static void expect(const fn_run *run, fn_stage stage, fn_status status, ...) {
  fn_dataset *dataset;
  fn_error_clear();
  const fn_status found = fn_dataset_create(run, stage, &dataset);
  if (found != status) fail_msg("status %d: %s", found, fn_error_message());
  assert_null(dataset);
  va_list texts;
  va_start(texts, status);
  for (const char *text; (text = va_arg(texts, const char *));)
    if (!strstr(fn_error_message(), text)) fail_msg("'%s' is not in: %s", text, fn_error_message());
  va_end(texts);
}

static void config_error(const char *data, const char *text, const char *more) {
  fn_run *run =
      run_of("data: {train: {input: [err/v.npy], target: [err/v.npy, err/s.npy]}, %s}", data);
  expect(run, FN_STAGE_TRAIN, FN_ERR_CONFIG, text, more, NULL);
  if (!strstr(fn_error_message(), "run.yaml")) fail_msg("no place in: %s", fn_error_message());
  fn_run_destroy(run);
}

static void configuration_errors(void **state) {
  (void)state;
  write_field(0, 4, cube(3, 3, 4), "err/v.npy");
  write_field(0, 4, cube(3, 1, 4), "err/s.npy");
  config_error("crop: [2, 2]", "data.crop", "3");
  config_error("crop: 2, input_pad: [1, 2]", "data.input_pad", "6");
  config_error("crop: 2, target_pad: [1, 2, 3, 4]", "data.target_pad", "6");
  config_error("crop: 2, crop_start: 5", "data.crop_start", "data.crop_stop");
  config_error("target_norms: [dis, cosmolgy.vel]", "cosmolgy.vel", "cosmology.vel");
  config_error("input_norms: [dis], norm_options: {dis_sdt: 4}", "dis_sdt", "dis_std");
  config_error("input_norms: [dis], norm_options: {z: -3}", "redshift", "data.input_norms");
  config_error("target_vector: [yes, yes]", "1 channels", "data.target_vector");
  fn_run *run = run_of("data: {train: {input: err/v.npy, target: err/v.npy}}");
  expect(run, FN_STAGE_VALIDATION, FN_ERR_CONFIG, "data.validation.input", NULL);
  fn_run_destroy(run);
  run = run_of("data: {test: {input: err/v.npy}}");
  expect(run, FN_STAGE_TEST, FN_ERR_CONFIG, "data.test.target", NULL);
  fn_run_destroy(run);
  write_field(0, 2, cube(1, 1, 4), "err/one.npy");
  run = run_of("data: {train: {input: err/one.npy, target: err/one.npy}, augment: true}");
  expect(run, FN_STAGE_TRAIN, FN_ERR_CONFIG, "data.augment", "axes", NULL);
  fn_run_destroy(run);
}

/** 10 inputs and targets in a folder of their own. */
static fn_run *ten_files(const char *name) {
  for (int i = 0; i < 10; i++) {
    write_field(i, 4, cube(3, 3, 4), "%s/lin/%03d.npy", name, i);
    write_field(i, 4, cube(3, 3, 4), "%s/nbody/%03d.npy", name, i);
  }
  return run_of("data: {train: {input: '%s/lin/*.npy', target: '%s/nbody/*.npy'}}", name, name);
}

static void unequal_lists(void **state) {
  (void)state;
  fn_run *run = ten_files("unequal");
  remove("unequal/nbody/004.npy");
  expect(run, FN_STAGE_TRAIN, FN_ERR_DATA, "has 10 fields", "has 9",
         "without a partner in data.train.target: unequal/lin/004.npy", NULL);
  remove("unequal/lin/007.npy");
  remove("unequal/lin/008.npy");
  expect(run, FN_STAGE_TRAIN, FN_ERR_DATA, "data.train.target: unequal/lin/004.npy",
         "data.train.input: unequal/nbody/007.npy, unequal/nbody/008.npy", NULL);
  fn_run_destroy(run);
  // Names that have nothing in common: those past the end.
  run = run_of("data: {train: {input: 'unequal/lin/*.npy', target: 'unequal/other/*.npy'}}");
  write_field(0, 4, cube(3, 3, 4), "unequal/other/a.npy");
  expect(run, FN_STAGE_TRAIN, FN_ERR_DATA, "past the end", "unequal/lin/001.npy", NULL);
  fn_run_destroy(run);
}

static void missing_files(void **state) {
  (void)state;
  fn_run *run = ten_files("missing");
  fn_run_destroy(run);
  run = run_of("data: {train: {input: 'missing/lin/*.npy', target: 'missing/nbdy/*.npy'}}");
  expect(run, FN_STAGE_TRAIN, FN_ERR_DATA, "data.train.target", "missing/nbdy/*.npy", NULL);
  fn_run_destroy(run);
}

/* Several faults at once are all named. */
static void faulty_files(void **state) {
  (void)state;
  fn_run *run = ten_files("faulty");
  write_field(0, 4, cube(3, 2, 4), "faulty/lin/006.npy");
  expect(run, FN_STAGE_TRAIN, FN_ERR_DATA, "train data", "faulty/lin/006.npy has 2 channels",
         "expected 3 as in faulty/lin/000.npy", NULL);
  write_field(0, 4, cube(3, 3, 5), "faulty/nbody/002.npy");
  assert_int_equal(truncate("faulty/nbody/003.npy", 500), 0);
  write_field(0, 3, cube(2, 3, 4), "faulty/nbody/008.npy");
  FILE *text = fopen("faulty/lin/009.npy", "w");
  fputs("not a field", text);
  fclose(text);
  expect(run, FN_STAGE_TRAIN, FN_ERR_DATA, "5 problems", "faulty/lin/006.npy has 2 channels",
         "faulty/nbody/002.npy has [5, 5, 5] cells; expected [4, 4, 4]",
         "faulty/nbody/003.npy: truncated", "faulty/nbody/008.npy has 2 spatial axes; expected 3",
         "faulty/lin/009.npy", NULL);
  fn_run_destroy(run);
}

static void scale_mismatch(void **state) {
  (void)state;
  write_field(0, 3, cube(2, 1, 4), "scaled/in.npy");
  write_field(0, 3, cube(2, 1, 6), "scaled/out.npy");
  fn_run *run = run_of("data: {train: {input: scaled/in.npy, target: scaled/out.npy}}");
  expect(run, FN_STAGE_TRAIN, FN_ERR_DATA, "scaled/out.npy has [6, 6] cells; expected [4, 4]",
         NULL);
  fn_run_destroy(run);
  run = run_of("data: {train: {input: scaled/in.npy, target: scaled/out.npy}, scale_factor: 2}");
  expect(run, FN_STAGE_TRAIN, FN_ERR_DATA, "expected [8, 8], data.scale_factor 2 times", NULL);
  fn_run_destroy(run);
}

static void many_problems_are_cut(void **state) {
  (void)state;
  for (int i = 0; i < 26; i++)
    write_field(0, 3, cube(2, i ? 2 : 1, 4), "many/%02d.npy", i);
  fn_run *run = run_of("data: {test: {input: 'many/*.npy'}}");
  expect(run, FN_STAGE_PREDICT, FN_ERR_DATA, "25 problems", "many/20.npy", "and 5 more", NULL);
  assert_null(strstr(fn_error_message(), "many/21.npy"));
  fn_run_destroy(run);
}

static void changed_after_the_check(void **state) {
  (void)state;
  write_field(0, 3, cube(2, 1, 8), "change/a.npy");
  fn_run *run = run_of("data: {test: {input: change/a.npy}}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_PREDICT);
  write_field(0, 3, cube(2, 2, 8), "change/a.npy");
  float input[128];
  assert_int_equal(fn_dataset_sample(dataset, 0, 0, input, NULL), FN_ERR_DATA);
  assert_non_null(strstr(fn_error_message(), "change/a.npy"));
  remove("change/a.npy");
  fn_dataset_destroy(dataset);
  dataset = NULL;
  fn_run_destroy(run);
}

/* ---- what people read ------------------------------------------------------------------------ */

/** Run `speak` with standard output or error going to a file, and read what it wrote. */
static char *listen(int stream, void (*speak)(void *), void *argument) {
  char *text;
  fflush(NULL);
  const int before = dup(stream);
  FILE *file = fopen("heard.txt", "w");
  assert_non_null(file);
  dup2(fileno(file), stream);
  speak(argument);
  fflush(NULL);
  dup2(before, stream);
  close(before);
  fclose(file);
  assert_int_equal(fn_file_read("heard.txt", &text, NULL), FN_OK);
  return text;
}

static void print(void *argument) {
  fn_dataset *dataset = dataset_of(argument, FN_STAGE_TRAIN);
  fn_dataset_print(dataset, "train");
  fn_dataset_destroy(dataset);
}

/* Files with equal headers share a line; another type gets a line of its own. */
static void table_groups_files(void **state) {
  (void)state;
  fn_run *run = ten_files("table");
  float values[192] = {0};
  rewrite("table/lin/004.npy", values, cube(3, 3, 4), true, true);
  char *text = listen(1, print, run);
  assert_non_null(strstr(text, "train: 10 samples = 10 tuples of fields x 1 crop"));
  assert_non_null(strstr(text, " 9 x [3, 4, 4, 4] <f4  table/lin/000.npy ... table/lin/009.npy"));
  assert_non_null(strstr(text, " 1 x [3, 4, 4, 4] >f8 Fortran order  table/lin/004.npy\n"));
  assert_non_null(strstr(text, "10 x [3, 4, 4, 4] <f4  table/nbody/000.npy"));
  free(text);
  fn_run_destroy(run);
}

static void create(void *argument) {
  fn_dataset_destroy(dataset_of(argument, FN_STAGE_TRAIN));
}

/* Pairing goes by position alone, but a shifted list is suspicious and said so. */
static void crossed_names_are_reported(void **state) {
  (void)state;
  fn_run *run = ten_files("crossed");
  char *text = listen(2, create, run);
  assert_string_equal(text, "");
  free(text);
  remove("crossed/lin/003.npy");
  remove("crossed/nbody/005.npy");
  text = listen(2, create, run);
  assert_non_null(strstr(text, "crossed/lin/004.npy goes with crossed/nbody/003.npy"));
  free(text);
  fn_run_destroy(run);
  // Names that never agree are meant so.
  write_field(0, 4, cube(3, 3, 4), "crossed/a/x1.npy");
  write_field(0, 4, cube(3, 3, 4), "crossed/a/y1.npy");
  run = run_of("data: {train: {input: 'crossed/a/x*.npy', target: 'crossed/a/*1.npy'}}");
  remove("crossed/a/x1.npy");
  write_field(0, 4, cube(3, 3, 4), "crossed/a/x2.npy");
  text = listen(2, create, run);
  assert_string_equal(text, "");
  free(text);
  fn_run_destroy(run);
}

/* ---- open files ------------------------------------------------------------------------------ */

static void open_files_are_limited(void **state) {
  (void)state;
  enum { FILES = 20, LIMIT = 5 };
  fn_handles *handles;
  fn_field *field[FILES];
  char path[FILES][32];
  assert_int_equal(fn_handles_create(LIMIT, &handles), FN_OK);
  for (int i = 0; i < FILES; i++) {
    snprintf(path[i], sizeof path[i], "open/%02d.npy", i);
    write_field(i, 2, cube(1, 1, 4), "%s", path[i]);
    assert_int_equal(fn_handles_take(handles, i, path[i], false, &field[i]), FN_OK);
    fn_handles_return(handles, field[i]);
    assert_in_range(fn_handles_open(handles), 1, LIMIT);
  }
  // The last ones used are still open: the same handle comes back; the first one was closed.
  fn_field *again, *twice;
  assert_int_equal(fn_handles_take(handles, FILES - 1, path[FILES - 1], false, &again), FN_OK);
  assert_ptr_equal(again, field[FILES - 1]);
  // Lent once more, it is a handle of its own.
  assert_int_equal(fn_handles_take(handles, FILES - 1, path[FILES - 1], false, &twice), FN_OK);
  assert_ptr_not_equal(again, twice);
  fn_handles_return(handles, again);
  fn_handles_return(handles, twice);
  // More lent than the limit: allowed, and closed when they come back.
  for (int i = 0; i < FILES; i++)
    assert_int_equal(fn_handles_take(handles, i, path[i], false, &field[i]), FN_OK);
  for (int i = 0; i < FILES; i++)
    assert_string_equal(fn_field_path(field[i]), path[i]);
  for (int i = 0; i < FILES; i++)
    fn_handles_return(handles, field[i]);
  assert_in_range(fn_handles_open(handles), 1, LIMIT);
  assert_int_equal(fn_handles_take(handles, 99, "open/none.npy", false, &again), FN_ERR_DATA);
  fn_handles_destroy(handles);
}

/* ---- real data ------------------------------------------------------------------------------- */

/* The error of a linear displacement taken as the nonlinear one, over all validation crops:
 * 1.313 (Mpc/h)^2, and 1/36 of it in units of cosmology.dis at z = 0. */
static void baseline_of_real_fields(void **state) {
  (void)state;
  const char *data = getenv("FIELDNET_DATA");
  char path[4096];
  snprintf(path, sizeof path, "%s/nbody/val/lin", data ? data : "");
  if (!data || !fn_is_directory(path)) {
    print_message("no nbody fields below FIELDNET_DATA\n");
    skip();
  }
  const char *norm[] = {"identity", "cosmology.dis"};
  for (int n = 0; n < 2; n++) {
    fn_run *run = run_of("data: {validation: {input: '%s/nbody/val/lin/*.npy', target: "
                         "'%s/nbody/val/nbody/*.npy'}, crop: 32, input_pad: 20, input_norms: %s, "
                         "target_norms: %s}",
                         data, data, norm[n], norm[n]);
    fn_dataset *dataset = dataset_of(run, FN_STAGE_VALIDATION);
    const fn_dataset_info *info = fn_dataset_get_info(dataset);
    assert_int_equal(info->samples, 2 * 8);
    assert_int_equal(info->input_extent[2], 72);
    assert_int_equal(info->target_extent[0], 32);
    float *input = room_for(3, 3, info->input_extent),
          *target = room_for(3, 3, info->target_extent);
    double sum = 0;
    for (int64_t i = 0; i < info->samples; i++) {
      assert_int_equal(fn_dataset_sample(dataset, 0, i, input, target), FN_OK);
      for (int64_t v = 0; v < 3 * 32768; v++) {
        const int64_t c = v / 32768, x = v / 1024 % 32 + 20, y = v / 32 % 32 + 20, z = v % 32 + 20;
        const double d = (double)input[((c * 72 + x) * 72 + y) * 72 + z] - (double)target[v];
        sum += d * d;
      }
    }
    const double error = sum / (double)(info->samples * 3 * 32768);
    assert_true(fabs(error * (n ? 36 : 1) - 1.313) < 1e-3);
    free(input);
    free(target);
    fn_dataset_destroy(dataset);
    fn_run_destroy(run);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(anchors_of_the_specification),
      cmocka_unit_test(anchor_ranges),
      cmocka_unit_test(pads),
      cmocka_unit_test(scale_factor),
      cmocka_unit_test(other_formats_give_the_same_samples),
      cmocka_unit_test(packed_hdf5),
      cmocka_unit_test(output_names),
      cmocka_unit_test(norms_per_field),
      cmocka_unit_test(configuration_errors),
      cmocka_unit_test(unequal_lists),
      cmocka_unit_test(missing_files),
      cmocka_unit_test(faulty_files),
      cmocka_unit_test(scale_mismatch),
      cmocka_unit_test(many_problems_are_cut),
      cmocka_unit_test(changed_after_the_check),
      cmocka_unit_test(table_groups_files),
      cmocka_unit_test(crossed_names_are_reported),
      cmocka_unit_test(open_files_are_limited),
      cmocka_unit_test(baseline_of_real_fields),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
