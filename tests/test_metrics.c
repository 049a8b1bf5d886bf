/* Metrics of two classes: the cubes page's acceptance cases (Appendix A.4), numbers worked out by
 * hand, and brute force. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "learn/classes.h"

static void assert_near(double found, double wanted, double tolerance) {
  if (!(fabs(found - wanted) <= tolerance))
    fail_msg("%.12g, but %.12g was expected", found, wanted);
}

/* ---- A.4 ---------------------------------------------------------------------------------------
 */

static const int zeros[20] = {0};
static const int ones[20] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
static const int halves[20] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
static const int swapped[20] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

static fn_counts count(const int *labels, const int *predictions) {
  fn_counts counts = {0};
  for (int i = 0; i < 20; i++)
    fn_counts_add(&counts, predictions[i] ? 0.3 : -0.3, labels[i]);
  return counts;
}

static void assert_counts(const int *labels, const int *predictions, int64_t tp, int64_t tn,
                          int64_t fp, int64_t fn) {
  const fn_counts c = count(labels, predictions);
  assert_int_equal(c.true_positive, tp);
  assert_int_equal(c.true_negative, tn);
  assert_int_equal(c.false_positive, fp);
  assert_int_equal(c.false_negative, fn);
}

static void counts_are_those_of_the_page(void **state) {
  (void)state;
  assert_counts(ones, ones, 20, 0, 0, 0);
  assert_counts(zeros, zeros, 0, 20, 0, 0);
  assert_counts(halves, halves, 10, 10, 0, 0);
  assert_counts(halves, swapped, 0, 0, 10, 10);
  assert_counts(halves, zeros, 0, 10, 0, 10);
  assert_counts(halves, ones, 10, 0, 10, 0);
}

static void assert_ratios(const int *predictions, double accuracy, double precision, double recall,
                          double f1, double fpr) {
  const fn_counts counts = count(halves, predictions);
  fn_ratios r;
  fn_ratios_compute(&counts, &r);
  assert_near(r.accuracy, accuracy, 1e-7);
  assert_near(r.precision, precision, 1e-7);
  assert_near(r.recall, recall, 1e-7);
  assert_near(r.f1, f1, 1e-7);
  assert_near(r.fpr, fpr, 1e-7);
  assert_near(r.balanced, (recall + 1 - fpr) / 2, 1e-7);
}

static void ratios_are_those_of_the_page(void **state) {
  (void)state;
  assert_ratios(zeros, 0.5, 0, 0, 0, 0);
  assert_ratios(ones, 0.5, 0.5, 1, 2.0 / 3, 1);
  assert_ratios(halves, 1, 1, 1, 1, 0);
  assert_ratios(swapped, 0, 0, 0, 0, 1);
}

static void counts_do_not_end_where_floats_do(void **state) {
  (void)state;
  fn_counts counts = {0};
  const fn_counts many = {.true_positive = 16777217};
  fn_counts_merge(&counts, &many, 1);
  fn_counts_add(&counts, 0, 1); // a logit of exactly 0 is positive
  assert_int_equal(counts.true_positive, 16777218);
  fn_counts_merge(&counts, &many, 1000);
  assert_int_equal(counts.true_positive, 16777218 + INT64_C(16777217000));
}

static void losses_and_probabilities_stay_finite(void **state) {
  (void)state;
  assert_near(fn_probability(0), 0.5, 0);
  assert_near(fn_probability(log(3)), 0.75, 1e-15);
  assert_near(fn_probability(-800), 0, 1e-300);
  assert_near(fn_probability(800), 1, 0);
  assert_near(fn_logit_loss(log(3), 1), -log(0.75), 1e-15);
  assert_near(fn_logit_loss(log(3), 0), -log(0.25), 1e-15);
  assert_near(fn_logit_loss(1000, 0), 1000, 0);
  assert_near(fn_logit_loss(-1000, 0), 0, 0);
}

/* ---- ROC ---------------------------------------------------------------------------------------
 */

enum { MANY = 400 };

static void random_scores(fn_scored *s, int values, uint32_t stream) {
  fn_random random = fn_random_stream(5, FN_RANDOM_TEST, stream, 0);
  for (int i = 0; i < MANY; i++) {
    s[i].label = (uint8_t)fn_random_below(&random, 2);
    s[i].group = i % 8;
    s[i].score = (double)fn_random_below(&random, (uint64_t)values) + s[i].label * values / 5;
  }
  fn_scored_sort(s, MANY);
}

static double brute_force_auc(const fn_scored *s, const int32_t *weight) {
  double right = 0, pairs = 0;
  for (int i = 0; i < MANY; i++)
    for (int j = 0; j < MANY; j++) {
      if (!s[i].label || s[j].label) continue;
      const double w = weight ? (double)weight[s[i].group] * weight[s[j].group] : 1;
      right += w * (s[i].score > s[j].score ? 1 : s[i].score == s[j].score ? 0.5 : 0);
      pairs += w;
    }
  return right / pairs;
}

static double trapezoid(const fn_roc *roc) {
  double area = 0;
  for (int64_t i = 1; i < roc->points; i++)
    area += (roc->fpr[i] - roc->fpr[i - 1]) * (roc->tpr[i] + roc->tpr[i - 1]) / 2;
  return area;
}

static void area_is_the_rank_statistic_and_the_trapezoids(void **state) {
  (void)state;
  const int32_t weight[8] = {0, 3, 1, 1, 2, 0, 0, 5};
  static fn_scored s[MANY];
  const int values[] = {2, 10, 100, 1000000};
  for (uint32_t v = 0; v < 4; v++) {
    random_scores(s, values[v], v);
    const double auc = fn_auc(s, MANY, NULL);
    assert_near(auc, brute_force_auc(s, NULL), 1e-14);
    assert_near(fn_auc(s, MANY, weight), brute_force_auc(s, weight), 1e-14);
    fn_roc roc;
    assert_int_equal(fn_roc_create(s, MANY, MANY + 2, &roc), FN_OK);
    assert_near(trapezoid(&roc), auc, 1e-14);
    fn_roc_free(&roc);
  }
}

/** y = 0 0 1 1 with scores 0.1 0.4 0.35 0.8, worked out by hand. */
static void curve_goes_through_known_points(void **state) {
  (void)state;
  fn_scored s[] = {
      {.score = 0.1}, {.score = 0.4}, {.score = 0.35, .label = 1}, {.score = 0.8, .label = 1}};
  const double fpr[] = {0, 0, 0.5, 0.5, 1}, tpr[] = {0, 0.5, 0.5, 1, 1};
  const double threshold[] = {INFINITY, 0.8, 0.4, 0.35, 0.1};
  fn_scored_sort(s, 4);
  assert_near(fn_auc(s, 4, NULL), 0.75, 1e-15);
  fn_roc roc;
  assert_int_equal(fn_roc_create(s, 4, 100, &roc), FN_OK);
  assert_int_equal(roc.points, 5);
  for (int i = 0; i < 5; i++) {
    assert_near(roc.fpr[i], fpr[i], 1e-15);
    assert_near(roc.tpr[i], tpr[i], 1e-15);
    assert_true(roc.threshold[i] == threshold[i]);
  }
  fn_roc_free(&roc);
}

static void long_curves_are_thinned_and_reach_the_corner(void **state) {
  (void)state;
  static fn_scored s[MANY];
  random_scores(s, 1000000, 9);
  for (int most = 2; most < 60; most += 3) {
    fn_roc roc;
    assert_int_equal(fn_roc_create(s, MANY, most, &roc), FN_OK);
    assert_true(roc.points <= most && roc.points >= 2);
    assert_near(roc.fpr[roc.points - 1], 1, 0);
    assert_near(roc.tpr[roc.points - 1], 1, 0);
    fn_roc_free(&roc);
  }
}

static void one_class_has_no_area(void **state) {
  (void)state;
  const fn_scored s[] = {{.score = 2, .label = 1}, {.score = 1, .label = 1}};
  assert_true(isnan(fn_auc(s, 2, NULL)));
  fn_roc roc;
  assert_int_equal(fn_roc_create(s, 2, 10, &roc), FN_OK);
  assert_near(roc.fpr[roc.points - 1], 0, 0);
  fn_roc_free(&roc);
}

/* ---- threshold ---------------------------------------------------------------------------------
 */

static double balanced_at(const fn_scored *s, int n, double threshold, int sign) {
  fn_counts counts = {0};
  for (int i = 0; i < n; i++)
    fn_counts_add(&counts, sign * (s[i].score - threshold), s[i].label);
  fn_ratios r;
  fn_ratios_compute(&counts, &r);
  return r.balanced;
}

static void fitted_threshold_is_the_best_of_all(void **state) {
  (void)state;
  static fn_scored s[MANY];
  for (uint32_t stream = 20; stream < 26; stream++) {
    random_scores(s, 37, stream);
    for (int i = 0; i < MANY && stream % 2; i++) // positives below: the sign must turn
      s[i].label = !s[i].label;
    fn_threshold t;
    fn_threshold_fit(s, MANY, &t);
    double best = 0;
    for (double at = -0.5; at < 50; at += 1)
      for (int sign = -1; sign <= 1; sign += 2)
        best = fmax(best, balanced_at(s, MANY, at, sign));
    assert_near(t.balanced, best, 1e-12);
    assert_near(balanced_at(s, MANY, t.value, t.sign), best, 1e-12);
    assert_int_equal(t.sign, stream % 2 ? -1 : 1);
  }
}

static void threshold_lies_in_the_widest_gap(void **state) {
  (void)state;
  fn_scored s[] = {{.score = 0}, {.score = 1}, {.score = 5, .label = 1}, {.score = 6, .label = 1}};
  fn_scored_sort(s, 4);
  fn_threshold t;
  fn_threshold_fit(s, 4, &t);
  assert_near(t.value, 3, 1e-15);
  assert_near(t.balanced, 1, 0);
  fn_scored equal[] = {{.score = 2}, {.score = 2, .label = 1}};
  fn_threshold_fit(equal, 2, &t);
  assert_near(t.balanced, 0.5, 0);
}

/* ---- calibration -------------------------------------------------------------------------------
 */

static double logit_of(double p) {
  return log(p / (1 - p));
}

static void calibration_by_hand(void **state) {
  (void)state;
  fn_calibration c = {0};
  // four samples of probability 0.85, three positive; one of 0.25, negative; certainty is in range
  for (int i = 0; i < 4; i++)
    fn_calibration_add(&c, logit_of(0.85), i < 3);
  fn_calibration_add(&c, logit_of(0.25), 0);
  fn_calibration_add(&c, 1000, 1);
  fn_calibration_finish(&c);
  assert_int_equal(c.count[8], 4);
  assert_int_equal(c.count[2], 1);
  assert_int_equal(c.count[9], 1);
  assert_near(c.probability[8], 0.85, 1e-12);
  assert_near(c.fraction[8], 0.75, 1e-12);
  assert_true(isnan(c.fraction[0]));
  assert_near(c.expected_error, (4 * 0.1 + 0.25 + 0) / 6, 1e-12);
  assert_near(c.largest_error, 0.25, 1e-12);
  assert_near(c.brier, (3 * 0.15 * 0.15 + 0.85 * 0.85 + 0.25 * 0.25) / 6, 1e-12);
}

/* ---- cubes and seeds ---------------------------------------------------------------------------
 */

enum { CUBES = 6, PER_CUBE = 4 };
static const int64_t seeds[CUBES] = {11, 11, 4, 4, 30, 30};
static const int labels[CUBES] = {1, 0, 1, 0, 1, 0};
static const float logits[CUBES * PER_CUBE] = {
    2,  1,  3,  -2, // mean 1: positive; vote 3 of 4
    -1, -1, 1,  -3, // mean -1, vote 1 of 4; pairs of slices 1 1 1 1
    -1, -1, -1, 9,  // mean 1.5: positive, vote 1 of 4: negative
    2,  2,  -8, -8, // mean -3: negative, vote 2 of 4: positive; pairs 0 0 1 1
    -2, 1,  -2, 1,  // mean -0.5: negative, vote 2 of 4: positive
    -2, 2,  -1, 2,  // mean 0.25: positive; vote 2 of 4; pairs tie 0 0 0
};

static fn_classes *hand_made(void) {
  fn_classes *c = NULL;
  assert_int_equal(fn_classes_create(logits, CUBES, PER_CUBE, seeds, labels, &c), FN_OK);
  return c;
}

static void scores_of_cubes_and_seeds_by_hand(void **state) {
  (void)state;
  fn_classes *c = hand_made();
  assert_int_equal(c->seeds, 3);
  assert_int_equal(c->seed[0].seed, 4);
  assert_int_equal(c->seed[1].seed, 11);
  assert_near(c->cube[0].mean, 1, 1e-15);
  assert_near(c->cube[0].deviation, sqrt((1 + 0 + 4 + 9) / 4.0), 1e-15);
  assert_int_equal(c->cube[3].positive, 2);
  assert_near(c->seed[0].pairs_right, 2, 0);
  assert_near(c->seed[0].by_mean, 1, 0);
  assert_near(c->seed[0].by_vote, 0.5, 0);
  assert_near(c->seed[1].pairs_right, 4, 0);
  assert_near(c->seed[2].pairs_right, 0.5, 0);
  assert_near(c->seed[2].by_mean, 0, 0);
  double v[FN_STATISTICS];
  fn_classes_summarise(c, NULL, v);
  // true positives 3 + 1 + 2, true negatives 3 + 2 + 2
  assert_near(v[FN_SLICE_ACCURACY], 13.0 / 24, 1e-15);
  assert_near(v[FN_SLICE_PRECISION], 6.0 / 11, 1e-15);
  assert_near(v[FN_CUBE_ACCURACY], 4.0 / 6, 1e-15);
  assert_near(v[FN_CUBE_AUC], 8.0 / 9, 1e-15); // -0.5 below 0.25 is the one pair the wrong way
  assert_near(v[FN_VOTE_ACCURACY], 3.0 / 6, 1e-15);
  assert_near(v[FN_PAIR_MEAN], 2.0 / 3, 1e-15);
  assert_near(v[FN_PAIR_VOTE], 1.5 / 3, 1e-15);
  assert_near(v[FN_PAIR_SLICES], 6.5 / 12, 1e-15);
  double loss = 0;
  for (int i = 0; i < CUBES * PER_CUBE; i++)
    loss -= log(fn_probability((labels[i / PER_CUBE] ? 1 : -1) * (double)logits[i]));
  assert_near(v[FN_LOSS], loss / 24, 1e-14);
  fn_classes_destroy(c);
}

/** A seed that counts three times is three seeds with the same cubes. */
static void weights_stand_for_copies(void **state) {
  (void)state;
  const int copies[CUBES / 2] = {3, 0, 2}; // in the order of the cubes: seeds 11, 4, 30
  const int32_t weight[3] = {0, 3, 2};
  float copied[5 * 2 * PER_CUBE];
  int64_t copied_seed[10];
  int copied_label[10], n = 0;
  for (int s = 0; s < 3; s++)
    for (int k = 0; k < copies[s]; k++)
      for (int theory = 0; theory < 2; theory++, n++) {
        memcpy(copied + n * PER_CUBE, logits + (2 * s + theory) * PER_CUBE,
               PER_CUBE * sizeof *copied);
        copied_seed[n] = 100 * s + k;
        copied_label[n] = labels[theory];
      }
  fn_classes *c = hand_made(), *d = NULL;
  assert_int_equal(fn_classes_create(copied, n, PER_CUBE, copied_seed, copied_label, &d), FN_OK);
  double weighted[FN_STATISTICS], plain[FN_STATISTICS];
  fn_classes_summarise(c, weight, weighted);
  fn_classes_summarise(d, NULL, plain);
  for (int i = 0; i < FN_STATISTICS; i++)
    assert_near(weighted[i], plain[i], 1e-14);
  fn_classes_destroy(c);
  fn_classes_destroy(d);
}

static void pairs_need_both_cubes(void **state) {
  (void)state;
  fn_classes *c = NULL;
  assert_int_equal(fn_classes_create(logits, 1, PER_CUBE, seeds, labels, &c), FN_OK);
  double v[FN_STATISTICS];
  fn_classes_summarise(c, NULL, v);
  assert_true(isnan(v[FN_PAIR_MEAN]) && isnan(v[FN_PAIR_SLICES]) && isnan(v[FN_SLICE_AUC]));
  assert_near(v[FN_SLICE_ACCURACY], 0.75, 1e-15);
  fn_classes_destroy(c);
}

static void bad_scores_are_named(void **state) {
  (void)state;
  float bad[CUBES * PER_CUBE];
  memcpy(bad, logits, sizeof bad);
  bad[9] = NAN;
  fn_classes *c = NULL;
  assert_int_equal(fn_classes_create(bad, CUBES, PER_CUBE, seeds, labels, &c), FN_ERR_DIVERGED);
  assert_non_null(strstr(fn_error_message(), "sample 1 of the cube of seed 4"));
  assert_null(c);
  const int same[CUBES] = {1, 1, 1, 0, 1, 0};
  assert_int_equal(fn_classes_create(logits, CUBES, PER_CUBE, seeds, same, &c), FN_ERR_DATA);
}

/** Of 100 pairs 70 are right: the bootstrap draws from the binomial distribution (100, 0.7), whose
 *  2.5 % and 97.5 % points are 61 and 79. */
static void intervals_are_those_of_the_binomial(void **state) {
  (void)state;
  enum { PAIRS = 100 };
  float logit[2 * PAIRS];
  int64_t seed[2 * PAIRS];
  int label[2 * PAIRS];
  for (int i = 0; i < 2 * PAIRS; i++) {
    seed[i] = i / 2;
    label[i] = !(i % 2);
    logit[i] = (float)((label[i] ? 1 : -1) * (i / 2 < 70 ? 1 : -1));
  }
  fn_classes *c = NULL;
  assert_int_equal(fn_classes_create(logit, 2 * PAIRS, 1, seed, label, &c), FN_OK);
  double low[FN_STATISTICS], high[FN_STATISTICS], l[FN_STATISTICS], h[FN_STATISTICS];
  assert_int_equal(fn_classes_bootstrap(c, 4000, 0.95, 1, low, high), FN_OK);
  assert_near(low[FN_PAIR_MEAN], 0.61, 0.0101);
  assert_near(high[FN_PAIR_MEAN], 0.79, 0.0101);
  assert_near(low[FN_CUBE_ACCURACY], low[FN_PAIR_MEAN], 1e-12);
  assert_int_equal(fn_classes_bootstrap(c, 4000, 0.95, 1, l, h), FN_OK);
  assert_memory_equal(low, l, sizeof l);
  assert_memory_equal(high, h, sizeof h);
  assert_int_equal(fn_classes_bootstrap(c, 4000, 0.5, 1, l, h), FN_OK);
  assert_true(l[FN_PAIR_MEAN] > low[FN_PAIR_MEAN] && h[FN_PAIR_MEAN] < high[FN_PAIR_MEAN]);
  fn_classes_destroy(c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(counts_are_those_of_the_page),
      cmocka_unit_test(ratios_are_those_of_the_page),
      cmocka_unit_test(counts_do_not_end_where_floats_do),
      cmocka_unit_test(losses_and_probabilities_stay_finite),
      cmocka_unit_test(area_is_the_rank_statistic_and_the_trapezoids),
      cmocka_unit_test(curve_goes_through_known_points),
      cmocka_unit_test(long_curves_are_thinned_and_reach_the_corner),
      cmocka_unit_test(one_class_has_no_area),
      cmocka_unit_test(fitted_threshold_is_the_best_of_all),
      cmocka_unit_test(threshold_lies_in_the_widest_gap),
      cmocka_unit_test(calibration_by_hand),
      cmocka_unit_test(scores_of_cubes_and_seeds_by_hand),
      cmocka_unit_test(weights_stand_for_copies),
      cmocka_unit_test(pairs_need_both_cubes),
      cmocka_unit_test(bad_scores_are_named),
      cmocka_unit_test(intervals_are_those_of_the_binomial),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
