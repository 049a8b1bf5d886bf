/* slices of cubes: which planes, which way up, of which class. Cubes page, 2.5 to 2.9, A.5. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cube_files.h"

enum { N = 8, SEEDS = 3, LARGE = 24 };

static int set_up(void **state) {
  if (make_folder(state) != 0) return -1;
  write_cubes("cubes.h5", SEEDS, (const hsize_t[]){N, N, N});
  write_cubes("flat.h5", 1, (const hsize_t[]){2, 4, 4});
  return 0;
}

static fn_run *cubes_run(const char *settings) {
  return run_of("data: {kind: cubes, cubes: {file: cubes.h5, train_seeds: 0-1, test_seeds: 2, %s}}",
                settings);
}

static int64_t flat(int64_t a0, int64_t a1, int64_t a2) {
  return (a0 * N + a1) * N + a2;
}

/* x[i,:,:], x[:,i,:], x[:,:,i]: value of row r and column c. */
static float plane(int64_t seed, int theory, int axis, int64_t position, int64_t r, int64_t c) {
  return cell_at(seed, theory,
                 axis == 0   ? flat(position, r, c)
                 : axis == 1 ? flat(r, position, c)
                             : flat(r, c, position));
}

/* Every sample of the data set against plain loops over cubes, axes and positions. */
static void compare_all(const char *settings, int axes, const int *axis, int stride) {
  fn_run *run = cubes_run(settings);
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  assert_int_equal(info->spatial, 2);
  assert_int_equal(info->target_spatial, 0);
  assert_int_equal(info->input_channels, stride);
  assert_int_equal(info->target_channels, 1);
  assert_int_equal(info->input_extent[0], N);
  assert_int_equal(info->files, 4);
  assert_int_equal(info->crops, axes * N / stride);
  float input[N * N * N], target;
  int64_t sample = 0;
  for (int64_t cube = 0; cube < 4; cube++)
    for (int a = 0; a < axes; a++)
      for (int64_t j = 0; j < N / stride; j++, sample++) {
        const int theory = cube % 2 == 0 ? FN_GR : FN_NEWTON;
        assert_int_equal(fn_dataset_sample(dataset, 0, sample, input, &target), FN_OK);
        assert_float_equal(target, theory, 0);
        for (int64_t channel = 0; channel < stride; channel++)
          for (int64_t r = 0; r < N; r++)
            for (int64_t c = 0; c < N; c++)
              assert_float_equal(input[(channel * N + r) * N + c],
                                 plane(cube / 2, theory, axis[a], j * stride + channel, r, c), 0);
        fn_sample_key key;
        fn_dataset_key(dataset, sample, &key);
        assert_int_equal(key.seed, cube / 2);
        assert_int_equal(key.label, theory);
        assert_int_equal(key.cube, cube);
        assert_int_equal(key.axis, axis[a]);
        assert_int_equal(key.position, j * stride);
        assert_int_equal(key.transform, 0);
      }
  assert_int_equal(info->samples, sample);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

static void slices_of_any_axes_and_stride(void **state) {
  (void)state;
  const int all[] = {0, 1, 2}, some[] = {2, 0}, one[] = {1}, last[] = {2};
  compare_all("symmetry: none", 3, all, 1);
  compare_all("symmetry: none, stride: 4", 3, all, 4);
  compare_all("symmetry: none, stride: 8", 3, all, 8);
  compare_all("symmetry: none, axes: [2, 0], stride: 2", 2, some, 2);
  compare_all("symmetry: none, axes: [1]", 1, one, 1);
  compare_all("symmetry: none, axes: 2, stride: 2", 1, last, 2);
}

/* The table of 2.6, row by row. */
static void compat_gives_the_original_slices(void **state) {
  (void)state;
  fn_run *run = cubes_run("symmetry: none, compat: true");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  float input[N * N], target;
  for (int64_t i = 0; i < N; i++) {
    assert_int_equal(fn_dataset_sample(dataset, 0, i, input, &target), FN_OK);
    for (int64_t r = 0; r < N; r++)
      for (int64_t c = 0; c < N; c++)
        assert_float_equal(input[r * N + c], cell_at(0, FN_GR, flat(c, i, r)), 0); // x[:,i,:]^T
    assert_int_equal(fn_dataset_sample(dataset, 0, N + i, input, &target), FN_OK);
    for (int64_t r = 0; r < N; r++)
      for (int64_t c = 0; c < N; c++)
        assert_float_equal(input[r * N + c], cell_at(0, FN_GR, flat(i, c, r)), 0); // x[i,:,:]^T
    assert_int_equal(fn_dataset_sample(dataset, 0, 2 * N + i, input, &target), FN_OK);
    for (int64_t r = 0; r < N; r++)
      for (int64_t c = 0; c < N; c++)
        assert_float_equal(input[r * N + c], cell_at(0, FN_GR, flat(i, r, c)), 0); // x[i,:,:]
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* ---- symmetry ---------------------------------------------------------------------------- */

/* Turn a square of any size counter-clockwise, or flip it left to right, as one would on paper. */
static void turn(int64_t *square, int64_t n) {
  int64_t old[LARGE * LARGE];
  memcpy(old, square, (size_t)(n * n) * sizeof *old);
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n; j++)
      square[(n - 1 - j) * n + i] = old[i * n + j]; // the right column becomes the top row
}

static void flip(int64_t *square, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    for (int64_t j = 0; j < n / 2; j++) {
      const int64_t swap = square[i * n + j];
      square[i * n + j] = square[i * n + n - 1 - j];
      square[i * n + n - 1 - j] = swap;
    }
}

static void symmetry_is_the_group_of_the_square(void **state) {
  (void)state;
  for (int64_t n = 1; n <= LARGE; n += 1 + n / 3) {
    for (int element = 0; element < 8; element++) {
      int64_t square[LARGE * LARGE];
      int seen[LARGE * LARGE] = {0};
      for (int64_t i = 0; i < n * n; i++)
        square[i] = i;
      if (element >= 4) flip(square, n);
      for (int t = 0; t < element % 4; t++)
        turn(square, n);
      for (int64_t i = 0; i < n * n; i++) {
        assert_int_equal(fn_square_index(element, n, i / n, i % n), square[i]);
        assert_int_equal(seen[square[i]]++, 0);
      }
    }
  }
}

/* One element after another is again one of the eight, and no two are equal. */
static void symmetry_is_closed(void **state) {
  (void)state;
  enum { EDGE = 5 };
  int product[8][8];
  for (int a = 0; a < 8; a++) {
    for (int b = 0; b < 8; b++) {
      product[a][b] = -1;
      for (int c = 0; c < 8; c++) {
        bool same = true;
        for (int64_t i = 0; i < EDGE * EDGE && same; i++) {
          const int64_t from = fn_square_index(a, EDGE, i / EDGE, i % EDGE);
          same = fn_square_index(b, EDGE, from / EDGE, from % EDGE) ==
                 fn_square_index(c, EDGE, i / EDGE, i % EDGE);
        }
        if (same) {
          assert_int_equal(product[a][b], -1);
          product[a][b] = c;
        }
      }
      assert_in_range(product[a][b], 0, 7);
    }
  }
  for (int a = 0; a < 8; a++) {
    int seen[8] = {0};
    for (int b = 0; b < 8; b++)
      seen[product[a][b]]++;
    for (int c = 0; c < 8; c++)
      assert_int_equal(seen[c], 1);
  }
}

/* Tiled copies through any axis against fn_square_index, with edges that are no multiple of a tile.
 */
static void all_symmetries_are_samples(void **state) {
  (void)state;
  write_cubes("odd.h5", 1, (const hsize_t[]){LARGE - 3, LARGE - 3, LARGE - 3});
  const int64_t n = LARGE - 3;
  fn_run *run = run_of("data: {kind: cubes, cubes: {file: odd.h5, train_seeds: 0, symmetry: all}}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  assert_int_equal(fn_dataset_get_info(dataset)->samples, 2 * 3 * n * 8);
  float *input = malloc((size_t)(n * n) * sizeof *input), target;
  for (int64_t sample = 0; sample < 3 * n * 8; sample++) {
    fn_sample_key key;
    fn_dataset_key(dataset, sample, &key);
    assert_int_equal(key.transform, sample % 8);
    assert_int_equal(fn_dataset_sample(dataset, 3, sample, input, &target), FN_OK);
    for (int64_t i = 0; i < n * n; i++) {
      const int64_t from = fn_square_index(key.transform, n, i / n, i % n), r = from / n,
                    c = from % n, p = key.position;
      const int64_t at = key.axis == 0   ? (p * n + r) * n + c
                         : key.axis == 1 ? (r * n + p) * n + c
                                         : (r * n + c) * n + p;
      assert_float_equal(input[i], cell_at(0, FN_GR, at), 0);
    }
  }
  free(input);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

static void random_symmetry_is_keyed(void **state) {
  (void)state;
  enum { DRAWS = 8000 };
  int count[8] = {0}, same_epoch = 0, same_seed = 0;
  for (int64_t s = 0; s < DRAWS; s++) {
    const int element = fn_cube_symmetry(7, 2, s);
    assert_in_range(element, 0, 7);
    assert_int_equal(fn_cube_symmetry(7, 2, s), element);
    same_epoch += fn_cube_symmetry(7, 3, s) == element;
    same_seed += fn_cube_symmetry(8, 2, s) == element;
    count[element]++;
  }
  for (int e = 0; e < 8; e++) // 1000 expected, sigma 30
    assert_in_range(count[e], 850, 1150);
  assert_in_range(same_epoch, 850, 1150);
  assert_in_range(same_seed, 850, 1150);
}

/* In training a sample is its slice turned by the element of (seed, epoch, sample); in validation
 * and test it is the slice. */
static void random_symmetry_only_in_training(void **state) {
  (void)state;
  fn_run *run = run_of("seed: 11\ndata: {kind: cubes, cubes: {file: cubes.h5, train_seeds: 0, "
                       "validation_seeds: 1, test_seeds: 2}}");
  fn_dataset *train = dataset_of(run, FN_STAGE_TRAIN);
  fn_dataset *validation = dataset_of(run, FN_STAGE_VALIDATION);
  float input[N * N], target;
  int turned = 0;
  for (int64_t sample = 0; sample < 3 * N; sample++) {
    const int64_t axis = sample / N, p = sample % N;
    const int element = fn_cube_symmetry(11, 4, sample);
    turned += element != 0;
    assert_int_equal(fn_dataset_sample(train, 4, sample, input, &target), FN_OK);
    for (int64_t i = 0; i < N * N; i++) {
      const int64_t from = fn_square_index(element, N, i / N, i % N);
      assert_float_equal(input[i], plane(0, FN_GR, (int)axis, p, from / N, from % N), 0);
    }
    assert_int_equal(fn_dataset_sample(validation, 4, sample, input, &target), FN_OK);
    for (int64_t i = 0; i < N * N; i++)
      assert_float_equal(input[i], plane(1, FN_GR, (int)axis, p, i / N, i % N), 0);
  }
  assert_true(turned > 10);
  fn_dataset_destroy(train);
  fn_dataset_destroy(validation);
  fn_run_destroy(run);
}

/* ---- cells and labels ---------------------------------------------------------------------- */

static void whole_cubes_are_samples(void **state) {
  (void)state;
  fn_run *run = cubes_run("sample: cube");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  assert_int_equal(info->spatial, 3);
  assert_int_equal(info->samples, 4);
  float input[N * N * N], target;
  for (int64_t s = 0; s < 4; s++) {
    assert_int_equal(fn_dataset_sample(dataset, 1, s, input, &target), FN_OK);
    for (int64_t i = 0; i < N * N * N; i++)
      assert_float_equal(input[i], cell_at(s / 2, s % 2 ? FN_NEWTON : FN_GR, i), 0);
    fn_sample_key key;
    fn_dataset_key(dataset, s, &key);
    assert_int_equal(key.axis, -1);
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

static void newton_factor_and_own_mean(void **state) {
  (void)state;
  fn_run *run = cubes_run("symmetry: none, axes: 0, newton_augmentation: 0.25, remove_mean: true");
  for (int stage = 0; stage < 2; stage++) {
    fn_dataset *dataset = dataset_of(run, stage ? FN_STAGE_TEST : FN_STAGE_TRAIN);
    const int64_t seed = stage ? 2 : 1, first = stage ? 0 : 2 * N;
    float input[N * N], target;
    for (int theory = 0; theory < 2; theory++) {
      // The cells of a cube count up: their mean is between the middle two.
      const double mean =
          0.5 * ((double)cell_at(seed, theory, 0) + (double)cell_at(seed, theory, N * N * N - 1));
      for (int64_t p = 0; p < N; p++) {
        const int64_t sample = first + (theory == FN_GR ? 0 : N) + p;
        assert_int_equal(fn_dataset_sample(dataset, 0, sample, input, &target), FN_OK);
        for (int64_t i = 0; i < N * N; i++) {
          const double cell = (double)cell_at(seed, theory, p * N * N + i) - mean;
          assert_float_equal(input[i], theory == FN_GR ? cell : 0.25 * cell, 0);
        }
      }
    }
    fn_dataset_destroy(dataset);
  }
  fn_run_destroy(run);
}

static void smoothing_is_for_training_targets_only(void **state) {
  (void)state;
  fn_run *run = cubes_run("label_smoothing: 0.01");
  float input[N * N], target;
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  assert_int_equal(fn_dataset_sample(dataset, 0, 0, input, &target), FN_OK);
  assert_float_equal(target, 0.99f, 0);
  assert_int_equal(fn_dataset_sample(dataset, 0, 3 * N, input, &target), FN_OK);
  assert_float_equal(target, 0.01f, 0);
  fn_dataset_destroy(dataset);
  dataset = dataset_of(run, FN_STAGE_TEST);
  assert_int_equal(fn_dataset_sample(dataset, 0, 0, input, &target), FN_OK);
  assert_float_equal(target, 1, 0);
  assert_int_equal(fn_dataset_sample(dataset, 0, 3 * N, input, &target), FN_OK);
  assert_float_equal(target, 0, 0);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* ---- acceptance vectors ---------------------------------------------------------------------- */

/* A.5 with a file of 256^3 would take gigabytes: a file of the right shape without a byte of data.
 */
static void numbers_of_the_original(void **state) {
  (void)state;
  const hsize_t size[] = {256, 256, 256};
  const hid_t file = H5Fcreate("large.h5", H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(3, size, NULL), list = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_alloc_time(list, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(list, H5D_FILL_TIME_NEVER);
  for (int cube = 0; cube < 8; cube++) {
    char name[32];
    snprintf(name, sizeof name, "%s_seed%04d", cube % 2 ? "newton" : "gr", cube / 2 + 5);
    H5Dclose(H5Dcreate2(file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, list, H5P_DEFAULT));
  }
  H5Pclose(list);
  H5Sclose(space);
  H5Fclose(file);
  fn_run *run = run_of("data: {kind: cubes, cubes: {file: large.h5, train_seeds: 5-6, "
                       "test_seeds: 7, symmetry: all}}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  assert_int_equal(info->samples, 24576);
  assert_int_equal(info->samples / 8, 3072);
  // The original's index i = t * 3072 + r with i = 5000: t 1, r 1928. Here transforms count
  // fastest.
  fn_sample_key key;
  fn_dataset_key(dataset, 1928 * 8 + 1, &key);
  assert_int_equal(key.transform, 1);
  assert_int_equal(key.cube, 2);
  assert_int_equal(key.seed, 6);
  assert_int_equal(key.label, FN_GR);
  assert_int_equal(key.axis, 1);
  assert_int_equal(key.position, 136);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
  // Element 7 of the whole cubes of seeds s0, s1, ... is the Newton cube of s3.
  run = run_of("data: {kind: cubes, cubes: {file: large.h5, train_seeds: 5-8, sample: cube}}");
  dataset = dataset_of(run, FN_STAGE_TRAIN);
  fn_dataset_key(dataset, 7, &key);
  assert_int_equal(key.seed, 8);
  assert_int_equal(key.label, FN_NEWTON);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void refused(const char *data, fn_status status, const char *message) {
  fn_run *run = run_of("data: {kind: cubes, cubes: {%s}}", data);
  fn_dataset *dataset;
  assert_int_equal(fn_dataset_create(run, FN_STAGE_TRAIN, &dataset), status);
  assert_null(dataset);
  if (!strstr(fn_error_message(), message))
    fail_msg("expected '%s' in: %s", message, fn_error_message());
  fn_run_destroy(run);
}

static void what_does_not_fit_is_refused(void **state) {
  (void)state;
  refused("file: cubes.h5, train_seeds: 1-4", FN_ERR_DATA, "newton_seed0003 is not in cubes.h5");
  refused("file: cubes.h5, train_seeds: 1-4", FN_ERR_DATA, "gr_seed0004");
  refused("file: cubes.h5, train_seeds: 0, stride: 3", FN_ERR_CONFIG, "must divide the edge");
  refused("file: flat.h5, train_seeds: 0", FN_ERR_CONFIG, "2 x 4 x 4");
  refused("file: none.h5, train_seeds: 0", FN_ERR_DATA, "none.h5");
}

/* Part of an error message of a configuration. */
static void complains(const char *text, const char *message) {
  fn_run *run;
  char *errors;
  assert_int_equal(fn_run_parse(text, "run.yaml", NULL, 0, FN_COMMAND_OTHER, &run, &errors),
                   FN_ERR_CONFIG);
  if (!strstr(errors, message)) fail_msg("expected '%s' in: %s", message, errors);
  free(errors);
}

static void wrong_settings_are_named(void **state) {
  (void)state;
  complains("data: {kind: cubes, crop: 8}", "data.crop belongs to data.kind: fields");
  complains("data: {kind: cubes, train: {input: a.npy}}",
            "data.train.input belongs to data.kind: fields");
  complains("data: {crop: 8, cubes: {stride: 2}}",
            "data.cubes.stride belongs to data.kind: cubes, but data.kind is fields");
  complains("data: {read_memory: 1000}", "data.read_memory belongs to data.kind: cubes");
  complains("data: {kind: cubes, cubes: {train_seeds: 0-9, validation_seeds: '12,9'}}",
            "data.cubes.validation_seeds: seed 9 is in data.cubes.train_seeds too");
  complains("data: {kind: cubes, cubes: {train_seeds: [0-3, 2]}}", "2 is there twice");
  complains("data: {kind: cubes, cubes: {test_seeds: some}}", "expected numbers and ranges");
  complains("data: {kind: cubes, cubes: {window: 3}}", "must be even");
  complains("data: {kind: cubes, cubes: {axes: [0, 3]}}", "data.cubes.axes");
  complains("data: {kind: cubes, cubes: {axes: [0, 0]}}", "axis 0 twice");
  complains("data: {kind: cubes, cubes: {compat: true, stride: 2}}", "data.cubes.compat");
  complains("data: {kind: cubes, cubes: {sample: cube, stride: 2}}", "no meaning");
  complains("data: {kind: cubes}\ncheckpoint: {best: validation}",
            "needs data.cubes.validation_seeds");
}

/* A resolved run file spells keys of both kinds, and can be read back. */
static void resolved_runs_are_readable(void **state) {
  (void)state;
  fn_run *run = cubes_run("stride: 2, symmetry: all"), *again;
  char *errors;
  assert_int_equal(
      fn_run_parse(run->resolved, "resolved.yaml", NULL, 0, FN_COMMAND_OTHER, &again, &errors),
      FN_OK);
  assert_string_equal(run->resolved, again->resolved);
  fn_run_destroy(run);
  fn_run_destroy(again);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(slices_of_any_axes_and_stride),
      cmocka_unit_test(compat_gives_the_original_slices),
      cmocka_unit_test(symmetry_is_the_group_of_the_square),
      cmocka_unit_test(symmetry_is_closed),
      cmocka_unit_test(all_symmetries_are_samples),
      cmocka_unit_test(random_symmetry_is_keyed),
      cmocka_unit_test(random_symmetry_only_in_training),
      cmocka_unit_test(whole_cubes_are_samples),
      cmocka_unit_test(newton_factor_and_own_mean),
      cmocka_unit_test(smoothing_is_for_training_targets_only),
      cmocka_unit_test(numbers_of_the_original),
      cmocka_unit_test(what_does_not_fit_is_refused),
      cmocka_unit_test(wrong_settings_are_named),
      cmocka_unit_test(resolved_runs_are_readable),
  };
  return cmocka_run_group_tests(tests, set_up, remove_folder);
}
