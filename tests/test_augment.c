/* augment: the symmetries of the cube against their formula, alignment, shifts, factors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "data/parts.h"
#include "data_files.h"

static int permutations(int spatial, int (*list)[3]) {
  static const int all[][3] = {{0, 1, 2}, {1, 0, 2}, {0, 2, 1}, {2, 1, 0}, {1, 2, 0}, {2, 0, 1}};
  const int count = spatial == 3 ? 6 : 2;
  memcpy(list, all, (size_t)count * sizeof *list);
  return count;
}

/* y[j][i] = s_{p_j} x[p_j][k], k_{p_a} = i_a, then k_d -> S_d - 1 - k_d and s_d = -1 for d in the
 * flip set; scalars keep channel and sign. `size` are the extents of x. */
static void by_formula(const int *p, int flips, int spatial, int64_t channels, bool vector,
                       const int64_t *size, const float *x, float *y) {
  int64_t out[3], cells = 1;
  for (int a = 0; a < spatial; a++) {
    out[a] = size[p[a]];
    cells *= out[a];
  }
  for (int64_t j = 0; j < channels; j++) {
    for (int64_t n = 0; n < cells; n++) {
      int64_t rest = n, k[3], at = 0;
      for (int a = spatial - 1; a >= 0; a--) {
        k[p[a]] = rest % out[a];
        rest /= out[a];
      }
      for (int d = 0; d < spatial; d++)
        at = at * size[d] + (flips >> d & 1 ? size[d] - 1 - k[d] : k[d]);
      const int64_t from = vector ? p[j] : j;
      const float sign = vector && (flips >> p[j] & 1) ? -1 : 1;
      y[j * cells + n] = sign * x[from * cells + at];
    }
  }
}

static fn_augmentation element(const int *p, int flips) {
  fn_augmentation a = {.permutation = {p[0], p[1], p[2]}};
  for (int d = 0; d < 3; d++)
    a.flip[d] = flips >> d & 1;
  return a;
}

/* Every element, on blocks with unequal edges. */
static void elements_follow_the_formula(void **state) {
  (void)state;
  const int64_t size[] = {3, 4, 5};
  float x[3 * 60], y[3 * 60], z[3 * 60];
  for (int i = 0; i < 180; i++)
    x[i] = (float)(i + 1);
  for (int spatial = 1; spatial <= 3; spatial++) {
    int p[6][3];
    const int count = spatial == 1 ? 1 : permutations(spatial, p);
    if (spatial == 1) p[0][0] = 0, p[0][1] = 1, p[0][2] = 2;
    for (int e = 0; e < count << spatial; e++) {
      for (int vector = 0; vector < 2; vector++) {
        const int flips = e % (1 << spatial), *order = p[e >> spatial];
        const fn_augmentation a = element(order, flips);
        const int64_t cells = count_of(spatial, size);
        by_formula(order, flips, spatial, spatial, vector, size, x, y);
        fn_augmentation_apply(&a, spatial, spatial, size, vector, x, z);
        assert_memory_equal(y, z, (size_t)(spatial * cells) * sizeof *y);
      }
    }
  }
}

/* All samples that training can draw from one vector and one scalar field: exactly the 48 (in the
 * plane 8) composites, and the same one for input and target. */
static void all_elements_occur(void **state) {
  (void)state;
  for (int spatial = 2; spatial <= 3; spatial++) {
    const int64_t size[] = {4, 4, 4}, cells = count_of(spatial, size);
    write_field(1, spatial + 1, cube(spatial, spatial, 4), "all/v.npy");
    write_field(2, spatial + 1, cube(spatial, 1, 4), "all/s.npy");
    fn_run *run = run_of("{seed: 8, data: {train: {input: [all/v.npy, all/s.npy], "
                         "target: [all/s.npy, all/v.npy]}, augment: true}}");
    fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
    float v[192], s[64], input[256], target[256], expected[48][256];
    for (int i = 0; i < 192; i++)
      v[i] = value_at(1, i);
    for (int i = 0; i < 64; i++)
      s[i] = value_at(2, i);
    int p[6][3], seen[48] = {0}, kinds = permutations(spatial, p) << spatial;
    for (int e = 0; e < kinds; e++) {
      by_formula(p[e >> spatial], e % (1 << spatial), spatial, spatial, true, size, v, expected[e]);
      by_formula(p[e >> spatial], e % (1 << spatial), spatial, 1, false, size, s,
                 expected[e] + spatial * cells);
    }
    const int draws = 40 * kinds;
    for (int epoch = 0; epoch < draws; epoch++) {
      assert_int_equal(fn_dataset_sample(dataset, epoch, 0, input, target), FN_OK);
      assert_memory_equal(target, input + spatial * cells, (size_t)cells * sizeof *s);
      assert_memory_equal(target + cells, input, (size_t)(spatial * cells) * sizeof *s);
      int matches = 0;
      for (int e = 0; e < kinds; e++) {
        if (memcmp(expected[e], input, (size_t)((spatial + 1) * cells) * sizeof *s) != 0) continue;
        seen[e]++;
        matches++;
      }
      assert_int_equal(matches, 1); // so the elements are distinct
    }
    // 40 expected per element; chi-squared with kinds - 1 degrees of freedom within 5 sigma.
    double chi2 = 0;
    for (int e = 0; e < kinds; e++)
      chi2 += (seen[e] - 40.0) * (seen[e] - 40.0) / 40;
    assert_true(fabs(chi2 - (kinds - 1)) < 5 * sqrt(2.0 * (kinds - 1)));
    fn_dataset_destroy(dataset);
    fn_run_destroy(run);
  }
}

/* Physics is equivariant: the gradient of an augmented scalar is the augmented gradient. */
static void gradient_commutes(void **state) {
  (void)state;
  enum { N = 6, CELLS = N * N * N };
  static float scalar[CELLS], gradient[3 * CELLS], values[4 * CELLS];
  fn_random random = fn_random_stream(5, FN_RANDOM_TEST, 0, 0);
  for (int i = 0; i < CELLS; i++)
    scalar[i] = (float)fn_random_below(&random, 1000);
  const int stride[] = {N * N, N, 1};
  for (int pass = 0; pass < 49; pass++) {
    if (pass > 0) {
      // Augment the fields of the first pass, then compare the gradient computed afresh.
      int p[6][3];
      permutations(3, p);
      const fn_augmentation a = element(p[(pass - 1) / 8], (pass - 1) % 8);
      const int64_t size[] = {N, N, N};
      fn_augmentation_apply(&a, 3, 1, size, false, values, scalar);
      fn_augmentation_apply(&a, 3, 3, size, true, values + CELLS, gradient);
    }
    for (int i = 0; i < CELLS; i++) {
      for (int d = 0; d < 3; d++) {
        const int x = i / stride[d] % N, up = i + ((x + 1) % N - x) * stride[d];
        const int down = i + ((x + N - 1) % N - x) * stride[d];
        const float slope = scalar[up] - scalar[down];
        if (pass == 0) gradient[d * CELLS + i] = slope;
        assert_true(gradient[d * CELLS + i] == slope); // NOLINT: exact integers
      }
    }
    if (pass == 0) {
      memcpy(values, scalar, sizeof scalar);
      memcpy(values + CELLS, gradient, sizeof gradient);
    }
  }
}

/** Draw `count` epochs of sample 0 and count those whose first channel differs from the file by
 *  more than a rearrangement: sorted by absolute value they are compared, the sign is counted. */
static int negative_values(const char *rule) {
  write_field(1, 3, cube(2, 2, 4), "vector/a.npy");
  fn_run *run = run_of("data: {train: {input: vector/a.npy, target: vector/a.npy}, augment: true, "
                       "input_vector: [%s]}",
                       rule);
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  float input[32], target[32];
  int count = 0;
  for (int epoch = 0; epoch < 20; epoch++) {
    assert_int_equal(fn_dataset_sample(dataset, epoch, 0, input, target), FN_OK);
    for (int i = 0; i < 32; i++)
      count += input[i] < 0;
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
  return count;
}

static void vectors_may_be_declared(void **state) {
  (void)state;
  assert_true(negative_values("auto") > 0);
  assert_true(negative_values("yes") > 0);
  assert_int_equal(negative_values("no"), 0);
}

/* Asymmetric pads: whatever the flips, the target is the same window of the input. */
static void pads_stay_aligned(void **state) {
  (void)state;
  write_field(1, 4, cube(3, 1, 9), "align/a.npy");
  fn_run *run = run_of("data: {train: {input: align/a.npy, target: align/a.npy}, crop: 3, "
                       "input_pad: [2, 3, 1, 4, 5, 2], target_pad: [1, 2, 0, 3, 2, 0], "
                       "augment: true, shift: [2, 3, 1]}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  const fn_dataset_info *info = fn_dataset_get_info(dataset);
  const int64_t offset[] = {1, 1, 3}, extent[] = {8, 8, 10}, window[] = {6, 6, 5};
  float input[640], target[180];
  for (int d = 0; d < 3; d++) {
    assert_int_equal(info->input_extent[d], extent[d]);
    assert_int_equal(info->target_extent[d], window[d]);
  }
  for (int n = 0; n < 300; n++) {
    assert_int_equal(fn_dataset_sample(dataset, n / 27, n % 27, input, target), FN_OK);
    for (int i = 0; i < 180; i++) {
      const int64_t x = i / 30 + offset[0], y = i / 5 % 6 + offset[1], z = i % 5 + offset[2];
      assert_true(target[i] == input[(x * 8 + y) * 10 + z]); // NOLINT: exact
    }
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* Crops with equal edges stay in their nominal cell: data held back is not seen. */
static void cubes_stay_in_their_cell(void **state) {
  (void)state;
  write_field(0, 4, cube(3, 1, 8), "cell/a.npy");
  fn_run *run = run_of("data: {train: {input: cell/a.npy, target: cell/a.npy}, crop: 4, "
                       "crop_stop: [4, 8, 8], augment: true}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  assert_int_equal(fn_dataset_get_info(dataset)->crops, 4);
  float input[64], target[64];
  for (int n = 0; n < 400; n++) {
    int64_t anchor[3];
    fn_dataset_anchor(dataset, n % 4, anchor);
    assert_int_equal(fn_dataset_sample(dataset, n / 4, n % 4, input, target), FN_OK);
    for (int i = 0; i < 64; i++) {
      const int64_t cell = (int64_t)input[i] - 1, x[] = {cell / 64, cell / 8 % 8, cell % 8};
      for (int d = 0; d < 3; d++)
        assert_in_range(x[d], anchor[d], anchor[d] + 3);
    }
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* Crops with unequal edges turn with their anchors: a sample is the nominal cell of the turned
 * field, and for each permutation all crops together see every cell once. */
static void slabs_turn_with_their_anchor(void **state) {
  (void)state;
  enum { N = 4 };
  const int64_t size[] = {N, N, N};
  write_field(0, 4, cube(3, 1, N), "slab/a.npy");
  fn_run *run = run_of("data: {train: {input: slab/a.npy, target: slab/a.npy}, "
                       "crop: [1, 2, 4], augment: true}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  float field[64], turned[48][64], input[8], target[8];
  int p[6][3], seen[48] = {0};
  for (int i = 0; i < 64; i++)
    field[i] = value_at(0, i);
  permutations(3, p);
  for (int e = 0; e < 48; e++)
    by_formula(p[e / 8], 0, 3, 1, false, size, field, turned[e]);
  assert_int_equal(fn_dataset_get_info(dataset)->crops, 8);
  for (int n = 0; n < 2400; n++) {
    const int sample = n % 8;
    int64_t anchor[3];
    fn_dataset_anchor(dataset, sample, anchor);
    assert_int_equal(fn_dataset_sample(dataset, n / 8, sample, input, target), FN_OK);
    int matches = 0;
    for (int e = 0; e < 48; e++) { // the cell of the turned field, flipped in itself
      bool same = true;
      for (int i = 0; i < 8 && same; i++) {
        const int64_t in[] = {0, i / 4, i % 4}, edge[] = {1, 2, 4};
        int64_t at = 0;
        for (int a = 0; a < 3; a++) {
          const bool flipped = e % 8 >> p[e / 8][a] & 1;
          at = at * N + anchor[a] + (flipped ? edge[a] - 1 - in[a] : in[a]);
        }
        same = input[i] == turned[e][at]; // NOLINT: exact
      }
      if (same) seen[e]++;
      matches += same;
    }
    assert_int_equal(matches, 2); // flipping the axis of edge 1 changes nothing
  }
  for (int e = 0; e < 48; e++)
    assert_true(seen[e] > 50);
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* Shifts are uniform in [0, bound), drawn afresh: no walk, and repeatable in any order. */
static void shifts_do_not_accumulate(void **state) {
  (void)state;
  write_field(0, 3, cube(2, 1, 16), "shift/a.npy");
  fn_run *run = run_of("data: {train: {input: shift/a.npy, target: shift/a.npy}, crop: 4, "
                       "shift: [3, 1]}");
  fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
  float input[16], target[16];
  int64_t drawn[300], counts[3] = {0};
  for (int epoch = 0; epoch < 300; epoch++) {
    assert_int_equal(fn_dataset_sample(dataset, epoch, 5, input, target), FN_OK);
    const int64_t cell = (int64_t)input[0] - 1;
    assert_int_equal(cell % 16, 4);
    assert_in_range(cell / 16, 4, 6);
    drawn[epoch] = cell / 16 - 4;
    counts[drawn[epoch]]++;
  }
  for (int i = 0; i < 3; i++)
    assert_in_range(counts[i], 60, 140); // 100 expected, sigma 8
  for (int epoch = 299; epoch >= 0; epoch -= 7) {
    assert_int_equal(fn_dataset_sample(dataset, epoch, 5, input, target), FN_OK);
    assert_int_equal(((int64_t)input[0] - 1) / 16 - 4, drawn[epoch]);
  }
  fn_dataset_destroy(dataset);
  fn_run_destroy(run);
}

/* Samples depend on seed, epoch and index; validation samples on the index only. */
static void seed_epoch_and_stage(void **state) {
  (void)state;
  write_field(0, 4, cube(3, 1, 8), "seed/a.npy");
  float sample[5][64], target[64];
  const int seed[] = {1, 1, 2, 1, 1}, epoch[] = {0, 1, 0, 0, 3}, validation[] = {0, 0, 0, 1, 1};
  for (int i = 0; i < 5; i++) {
    fn_run *run = run_of("{seed: %d, data: {train: {input: seed/a.npy, target: seed/a.npy}, "
                         "validation: {input: seed/a.npy, target: seed/a.npy}, crop: 4, "
                         "augment: true, shift: 4, add_std: 0.5, mul_std: 0.5}}",
                         seed[i]);
    fn_dataset *dataset = dataset_of(run, validation[i] ? FN_STAGE_VALIDATION : FN_STAGE_TRAIN);
    assert_int_equal(fn_dataset_sample(dataset, epoch[i], 0, sample[i], target), FN_OK);
    fn_dataset_destroy(dataset);
    fn_run_destroy(run);
  }
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < i; j++)
      assert_memory_not_equal(sample[i], sample[j], sizeof sample[0]);
  assert_memory_equal(sample[3], sample[4], sizeof sample[3]);
  assert_true(sample[3][63] == value_at(0, 3 * 64 + 3 * 8 + 3)); // NOLINT: exact
}

/** Mean and variance of `count` values. */
static void moments(const double *x, int count, double *mean, double *variance) {
  *mean = *variance = 0;
  for (int i = 0; i < count; i++)
    *mean += x[i] / count;
  for (int i = 0; i < count; i++)
    *variance += (x[i] - *mean) * (x[i] - *mean) / count;
}

/* Normal summands and log-normal factors: one per channel when all fields have the same number of
 * channels, else one per sample; the same for input and target. */
static void summands_and_factors(void **state) {
  (void)state;
  enum { DRAWS = 2000 };
  write_field(0, 3, cube(2, 2, 2), "factor/two.npy");
  write_field(0, 3, cube(2, 1, 2), "factor/one.npy");
  static double add[2][DRAWS], factor[2][DRAWS];
  for (int mixed = 0; mixed < 2; mixed++) {
    fn_run *run = run_of("data: {train: {input: factor/two.npy, target: factor/%s.npy}, "
                         "add_std: 0.5, mul_std: 0.25}",
                         mixed ? "one" : "two");
    fn_dataset *dataset = dataset_of(run, FN_STAGE_TRAIN);
    float x[8], y[8];
    for (int n = 0; n < DRAWS; n++) {
      assert_int_equal(fn_dataset_sample(dataset, n, 0, x, y), FN_OK);
      for (int c = 0; c < 2; c++) { // channel c holds 4 c + 1, ..., 4 c + 4
        factor[c][n] = (double)(x[4 * c + 3] - x[4 * c]) / 3;
        add[c][n] = (double)x[4 * c] / factor[c][n] - (4 * c + 1);
      }
      assert_memory_equal(y, x, (mixed ? 4 : 8) * sizeof *x);
      for (int c = 0; c < 2; c++)
        factor[c][n] = log(factor[c][n]);
      if (mixed) {
        assert_true(fabs(factor[0][n] - factor[1][n]) < 1e-5);
        assert_true(fabs(add[0][n] - add[1][n]) < 1e-4);
      }
    }
    double mean, variance, product = 0;
    for (int c = 0; c < 2; c++) {
      moments(add[c], DRAWS, &mean, &variance);
      assert_true(fabs(mean) < 5 * 0.5 / sqrt(DRAWS));
      assert_true(fabs(variance / 0.25 - 1) < 5 * sqrt(2.0 / DRAWS));
      moments(factor[c], DRAWS, &mean, &variance);
      assert_true(fabs(mean) < 5 * 0.25 / sqrt(DRAWS));
      assert_true(fabs(variance / 0.0625 - 1) < 5 * sqrt(2.0 / DRAWS));
    }
    for (int n = 0; n < DRAWS; n++)
      product += add[0][n] * add[1][n] / 0.25 / DRAWS;
    assert_true(fabs(product - mixed) < 5 * (mixed ? sqrt(2) : 1) / sqrt(DRAWS));
    fn_dataset_destroy(dataset);
    fn_run_destroy(run);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(elements_follow_the_formula),
      cmocka_unit_test(all_elements_occur),
      cmocka_unit_test(gradient_commutes),
      cmocka_unit_test(vectors_may_be_declared),
      cmocka_unit_test(pads_stay_aligned),
      cmocka_unit_test(cubes_stay_in_their_cell),
      cmocka_unit_test(slabs_turn_with_their_anchor),
      cmocka_unit_test(shifts_do_not_accumulate),
      cmocka_unit_test(seed_epoch_and_stage),
      cmocka_unit_test(summands_and_factors),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
