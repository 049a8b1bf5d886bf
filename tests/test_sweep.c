/* Sweeps: the section of a file, the trials it makes, the Sobol sequence, and all that can be
 * wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "run/sweep_plan.h"

static char folder[] = "/tmp/fieldnet_sweep_XXXXXX";

#define RUN                                                                                        \
  "model: {name: vnet}\n"                                                                          \
  "data: {train: {input: a, target: b}, validation: {input: c, target: d}}\n"                      \
  "train: {batch: 2}\n"                                                                            \
  "optimizer: {lr: 1e-4}\n"

static void write_file(const char *name, const char *text) {
  char path[256];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static fn_status open_text(const char *text, fn_sweep **sweep, char **errors) {
  char path[256];
  write_file("sweep.yaml", text);
  snprintf(path, sizeof path, "%s/sweep.yaml", folder);
  return fn_sweep_open(path, sweep, errors);
}

/* A sweep of its own file: `section` is what stands below "sweep:", each line indented by two. */
static fn_sweep *good(const char *section) {
  char text[4096];
  fn_sweep *sweep;
  char *errors;
  snprintf(text, sizeof text, "run: run.yaml\nsweep:\n%s", section);
  const fn_status status = open_text(text, &sweep, &errors);
  if (status != FN_OK) print_error("%s\n%s", fn_error_message(), errors ? errors : "");
  assert_int_equal(status, FN_OK);
  assert_null(errors);
  return sweep;
}

/* All settings of a trial in one line. */
static char *line_of(const fn_sweep *sweep, int64_t id) {
  static char line[1024];
  fn_arena *arena = fn_arena_create();
  fn_trial trial;
  assert_int_equal(fn_sweep_trial_make(sweep, id, arena, &trial), FN_OK);
  line[0] = '\0';
  for (int i = 0; i < trial.set_count; i++) {
    strcat(line, i > 0 ? " " : "");
    strcat(line, trial.set[i]);
  }
  fn_arena_destroy(arena);
  return line;
}

static double value_of(const fn_sweep *sweep, int64_t id, const char *path) {
  fn_arena *arena = fn_arena_create();
  fn_trial trial;
  assert_int_equal(fn_sweep_trial_make(sweep, id, arena, &trial), FN_OK);
  const char *text = fn_trial_value(&trial, path);
  assert_non_null(text);
  const double value = strtod(text, NULL);
  fn_arena_destroy(arena);
  return value;
}

/* ---- Sobol -------------------------------------------------------------------------------------
 */

/* The first ten points in three dimensions that come with the direction numbers new-joe-kuo-6
 * (Joe & Kuo 2008), which are in Gray code order. */
static void sobol_begins_as_published(void **state) {
  (void)state;
  static const double points[10][3] = {{0, 0, 0},
                                       {0.5, 0.5, 0.5},
                                       {0.75, 0.25, 0.25},
                                       {0.25, 0.75, 0.75},
                                       {0.375, 0.375, 0.625},
                                       {0.875, 0.875, 0.125},
                                       {0.625, 0.125, 0.875},
                                       {0.125, 0.625, 0.375},
                                       {0.1875, 0.3125, 0.9375},
                                       {0.6875, 0.8125, 0.4375}};
  for (uint32_t n = 0; n < 10; n++)
    for (int d = 0; d < 3; d++)
      assert_true(fn_sobol_point(d, n ^ n >> 1) * 0x1p-32 == points[n][d]);
}

/* Point 1000 in Gray code order of dimensions 4, 16 and 32, from PyTorch's SobolEngine. */
static void sobol_agrees_in_high_dimensions(void **state) {
  (void)state;
  static const struct {
    int dimension;
    double value;
  } known[] = {{3, 0.6767578125}, {15, 0.3701171875}, {31, 0.1455078125}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    assert_true(fn_sobol_point(known[i].dimension, 1000u ^ 1000u >> 1) * 0x1p-32 == known[i].value);
}

/* Every interval of length 2^-k holds one of the first 2^k points, in each dimension, and in the
 * first two also every elementary box of area 2^-k, scrambled or not. */
static void sobol_is_balanced(void **state) {
  (void)state;
  enum { BITS = 8, POINTS = 1 << BITS };
  for (int scrambled = 0; scrambled < 3; scrambled++) {
    for (int d = 0; d < FN_SOBOL_DIMENSIONS; d++) {
      unsigned char seen[POINTS] = {0};
      for (uint32_t n = 0; n < POINTS; n++) {
        const uint32_t x =
            scrambled ? fn_sobol_scrambled((uint64_t)scrambled, d, n) : fn_sobol_point(d, n);
        assert_int_equal(seen[x >> (32 - BITS)]++, 0);
      }
    }
    for (int cut = 1; cut < BITS; cut++) {
      unsigned char seen[POINTS] = {0};
      for (uint32_t n = 0; n < POINTS; n++) {
        const uint32_t x = scrambled ? fn_sobol_scrambled((uint64_t)scrambled, 0, n)
                                     : fn_sobol_point(0, n),
                       y = scrambled ? fn_sobol_scrambled((uint64_t)scrambled, 1, n)
                                     : fn_sobol_point(1, n);
        assert_int_equal(seen[(x >> (32 - cut)) << (BITS - cut) | y >> (32 - BITS + cut)]++, 0);
      }
    }
  }
  assert_int_not_equal(fn_sobol_scrambled(1, 0, 0), fn_sobol_scrambled(2, 0, 0));
}

/* ---- grids -------------------------------------------------------------------------------------
 */

static void grid_is_nested_loops(void **state) {
  (void)state;
  fn_sweep *s = good("  parameters:\n"
                     "    optimizer.lr: {log: [1.e-4, 1.e-2], points: 3}\n"
                     "    train.batch: {integer: [2, 3]}\n"
                     "    optimizer.betas: [[0.5, 0.999], [0.9, 0.999]]\n");
  assert_int_equal(fn_sweep_trial_count(s), 12);
  assert_string_equal(line_of(s, 0),
                      "optimizer.lr=0.0001 train.batch=2 optimizer.betas=[0.5, 0.999]");
  assert_string_equal(line_of(s, 1),
                      "optimizer.lr=0.0001 train.batch=2 optimizer.betas=[0.9, 0.999]");
  assert_string_equal(line_of(s, 6),
                      "optimizer.lr=0.001 train.batch=3 optimizer.betas=[0.5, 0.999]");
  assert_string_equal(line_of(s, 11),
                      "optimizer.lr=0.01 train.batch=3 optimizer.betas=[0.9, 0.999]");
  fn_arena *arena = fn_arena_create();
  fn_trial trial;
  assert_int_equal(fn_sweep_trial_make(s, 12, arena, &trial), FN_ERR_CONFIG);
  fn_arena_destroy(arena);
  fn_sweep_destroy(s);
}

/* Momentum exists for sgd only, nesterov with momentum 0.9 only: 1 + (1 + 2) settings, not 2 2 2.
 */
static void conditions_add_no_copies(void **state) {
  (void)state;
  fn_sweep *s =
      good("  parameters:\n"
           "    optimizer.name: [adam, sgd]\n"
           "    optimizer.momentum: {choices: [0.1, 0.9], when: {optimizer.name: sgd}}\n"
           "    optimizer.nesterov: {choices: [false, true], when: {optimizer.momentum: 0.9}}\n"
           "    train.batch: [1, 2]\n");
  assert_int_equal(fn_sweep_trial_count(s), 8);
  assert_string_equal(line_of(s, 0), "optimizer.name=adam train.batch=1");
  assert_string_equal(line_of(s, 1), "optimizer.name=adam train.batch=2");
  assert_string_equal(line_of(s, 2), "optimizer.name=sgd optimizer.momentum=0.1 train.batch=1");
  assert_string_equal(
      line_of(s, 7),
      "optimizer.name=sgd optimizer.momentum=0.9 optimizer.nesterov=true train.batch=2");
  for (int i = 0; i < 8; i++) {
    char one[256];
    strcpy(one, line_of(s, i));
    for (int j = 0; j < i; j++)
      assert_string_not_equal(one, line_of(s, j));
  }
  fn_sweep_destroy(s);
}

/* Rounded points of an integer range that coincide are one. */
static void integers_are_not_doubled(void **state) {
  (void)state;
  fn_sweep *s = good("  parameters: {train.batch: {log_integer: [1, 8], points: 7}}\n");
  // 8^(i/6): 1, 1.41, 2, 2.83, 4, 5.66, 8
  static const char *const lines[] = {"train.batch=1", "train.batch=2", "train.batch=3",
                                      "train.batch=4", "train.batch=6", "train.batch=8"};
  assert_int_equal(fn_sweep_trial_count(s), 6);
  for (int i = 0; i < 6; i++)
    assert_string_equal(line_of(s, i), lines[i]);
  fn_sweep_destroy(s);
}

/* ---- draws -------------------------------------------------------------------------------------
 */

static void check_draws(const char *method) {
  char text[1024];
  enum { COUNT = 512 };
  snprintf(text, sizeof text,
           "  method: %s\n  trials: %d\n  seed: 3\n"
           "  parameters:\n"
           "    optimizer.lr: {log: [1.e-5, 1.e-1]}\n"
           "    optimizer.momentum: {uniform: [0.25, 0.75]}\n"
           "    train.batch: {integer: [3, 6]}\n"
           "    train.accumulate: {log_integer: [1, 255]}\n"
           "    optimizer.name: [adam, sgd, rmsprop]\n",
           method, COUNT);
  fn_sweep *s = good(text);
  assert_int_equal(fn_sweep_trial_count(s), COUNT);
  int decade[4] = {0}, batch[4] = {0}, small = 0;
  double sum = 0;
  for (int i = 0; i < COUNT; i++) {
    const double lr = value_of(s, i, "optimizer.lr"),
                 momentum = value_of(s, i, "optimizer.momentum");
    assert_true(lr >= 1e-5 && lr <= 1e-1);
    assert_true(momentum >= 0.25 && momentum <= 0.75);
    decade[(int)fmin(3, floor(log10(lr) + 5))]++;
    sum += momentum;
    const double n = value_of(s, i, "train.batch"), m = value_of(s, i, "train.accumulate");
    assert_true(n == floor(n) && n >= 3 && n <= 6);
    batch[(int)n - 3]++;
    assert_true(m == floor(m) && m >= 1 && m <= 255);
    small += m < 16; // half of it: 16^2 = 256
  }
  // 512 draws: 128 +- 10 (one sigma) in each class of a random draw; Sobol points nearly exact.
  const int slack = strcmp(method, "sobol") == 0 ? 2 : 45;
  for (int i = 0; i < 4; i++) {
    assert_true(abs(decade[i] - COUNT / 4) <= slack);
    assert_true(abs(batch[i] - COUNT / 4) <= slack);
  }
  assert_true(abs(small - COUNT / 2) <= slack);
  assert_true(fabs(sum / COUNT - 0.5) < 0.03);
  fn_sweep_destroy(s);
}

static void draws_fill_their_ranges(void **state) {
  (void)state;
  check_draws("random");
  check_draws("sobol");
}

/* Trials depend on file and seed only, and more of them change none of the first. */
static void draws_are_a_function_of_the_file(void **state) {
  (void)state;
  static const char *const methods[] = {"random", "sobol"};
  for (int m = 0; m < 2; m++) {
    char text[3][512], lines[10][256];
    for (int i = 0; i < 3; i++)
      snprintf(text[i], sizeof text[i],
               "  method: %s\n  trials: %d\n  seed: %d\n  parameters: {optimizer.lr: {log: [1.e-5, "
               "1.e-1]}, train.batch: [1, 2, 3, 4]}\n",
               methods[m], i == 1 ? 20 : 10, i == 2 ? 8 : 7);
    fn_sweep *s = good(text[0]);
    for (int i = 0; i < 10; i++)
      strcpy(lines[i], line_of(s, i));
    fn_sweep_destroy(s);
    s = good(text[1]);
    for (int i = 0; i < 10; i++)
      assert_string_equal(line_of(s, i), lines[i]);
    fn_sweep_destroy(s);
    s = good(text[2]);
    int same = 0;
    for (int i = 0; i < 10; i++)
      same += strcmp(line_of(s, i), lines[i]) == 0;
    assert_int_equal(same, 0);
    fn_sweep_destroy(s);
  }
}

static void seeds_repeat_settings(void **state) {
  (void)state;
  fn_sweep *s = good("  seeds: [5, 9]\n  parameters: {train.batch: [1, 2]}\n");
  assert_int_equal(fn_sweep_trial_count(s), 4);
  assert_string_equal(line_of(s, 0), "train.batch=1 seed=5");
  assert_string_equal(line_of(s, 1), "train.batch=1 seed=9");
  assert_string_equal(line_of(s, 3), "train.batch=2 seed=9");
  fn_arena *arena = fn_arena_create();
  fn_trial trial;
  assert_int_equal(fn_sweep_trial_make(s, 3, arena, &trial), FN_OK);
  assert_int_equal(trial.setting, 1);
  assert_int_equal(trial.repeat, 1);
  fn_arena_destroy(arena);
  fn_sweep_destroy(s);
  s = good("  seeds: 3\n  parameters: {train.batch: [1, 2]}\n");
  assert_string_equal(line_of(s, 2), "train.batch=1 seed=2");
  fn_sweep_destroy(s);
}

/* ---- runs --------------------------------------------------------------------------------------
 */

static void trials_are_runs(void **state) {
  (void)state;
  fn_sweep *sweep;
  char *errors;
  assert_int_equal(open_text("run: run.yaml\n"
                             "set: {train.epochs: 7}\n"
                             "sweep:\n"
                             "  folder: \"out/12: a\"\n"
                             "  parameters: {optimizer.lr: [1.e-3, 2.e-3]}\n",
                             &sweep, &errors),
                   FN_OK);
  fn_arena *arena = fn_arena_create();
  fn_trial trial;
  fn_run *run;
  assert_int_equal(fn_sweep_trial_make(sweep, 1, arena, &trial), FN_OK);
  assert_int_equal(fn_sweep_trial_load(sweep, &trial, FN_COMMAND_TRAIN, &run, &errors), FN_OK);
  assert_true(run->optimizer.lr == 2e-3);
  assert_int_equal(run->train.epochs, 7);
  assert_string_equal(run->folder, "out/12: a/trial_0001");
  assert_string_equal(run->checkpoint.best, "validation");
  fn_run_destroy(run);
  fn_arena_destroy(arena);
  fn_sweep_destroy(sweep);
}

/* A run file with a section: it trains as before, and its trials do not see the section. */
static void a_run_may_hold_its_sweep(void **state) {
  (void)state;
  fn_sweep *sweep;
  char *errors, path[256];
  fn_run *run;
  assert_int_equal(
      open_text(RUN "sweep: {parameters: {optimizer.lr: [1.e-3, 2.e-3]}}\n", &sweep, &errors),
      FN_OK);
  assert_int_equal(fn_sweep_trial_count(sweep), 2);
  assert_string_equal(sweep->folder, "sweep_sweep");
  fn_sweep_destroy(sweep);
  snprintf(path, sizeof path, "%s/sweep.yaml", folder);
  assert_int_equal(fn_run_load(path, NULL, 0, FN_COMMAND_TRAIN, &run, &errors), FN_OK);
  assert_null(strstr(run->resolved, "sweep:"));
  fn_run_destroy(run);
}

/* ---- mistakes ----------------------------------------------------------------------------------
 */

static void expect(const char *text, int count, const char *const *parts) {
  fn_sweep *sweep;
  char *errors;
  assert_int_equal(open_text(text, &sweep, &errors), FN_ERR_CONFIG);
  assert_null(sweep);
  if (!errors) print_error("%s: %s", text, fn_error_message());
  assert_non_null(errors);
  for (int i = 0; i < count; i++) {
    if (!strstr(errors, parts[i])) print_error("no \"%s\" in:\n%s", parts[i], errors);
    assert_non_null(strstr(errors, parts[i]));
  }
  free(errors);
}

static void all_mistakes_in_one_pass(void **state) {
  (void)state;
  static const char *const parts[] = {
      "sweep.yaml:4:11: method: expected grid, random, sobol or ask, found the text 'gird', did "
      "you "
      "mean 'grid'?",
      "sweep.yaml:5:3: unknown key 'trails' in 'sweep', did you mean 'trials'?",
      "sweep.yaml:6:9: stop: expected none, median or asha, found the text 'mode'",
      "sweep.yaml:8:5: unknown key 'optimizer.rl', did you mean 'optimizer.lr'?",
      "sweep.yaml:9:19: train.batch: expected an integer, found the number 1.5",
      "sweep.yaml:9:24: train.batch must be",
      "sweep.yaml:10:35: optimizer.weight_decay: a logarithmic range must begin above 0",
      "sweep.yaml:11:29: train.sync_batch_norm takes true or false: give a list",
      "sweep.yaml:12:20: train.epochs takes integers: use integer or log_integer",
      "sweep.yaml:13:5: 'optimizer' is a section", "sweep.yaml:14:5: 'folder' cannot be set",
      "sweep.yaml:15:45: optimizer.eps: a condition must name a parameter with choices above it, "
      "found 'optimizer.name'",
      "sweep.yaml:2:21: train.epochs: expected an integer, found the text 'many'",
      // and what is wrong with the run itself
      "run_bad.yaml:1:9: "};
  write_file("run_bad.yaml", "model: {nome: vnet}\n");
  expect("run: run_bad.yaml\n"
         "set: {train.epochs: many}\n"
         "sweep:\n"
         "  method: gird\n"
         "  trails: 5\n"
         "  stop: mode\n"
         "  parameters:\n"
         "    optimizer.rl: [1, 2]\n"
         "    train.batch: [1.5, 0]\n"
         "    optimizer.weight_decay: {log: [0, 1], points: 3}\n"
         "    train.sync_batch_norm: {uniform: [0, 1]}\n"
         "    train.epochs: {uniform: [1, 9]}\n"
         "    optimizer: [adam]\n"
         "    folder: [a, b]\n"
         "    optimizer.eps: {choices: [1, 2], when: {optimizer.name: adam}}\n",
         sizeof parts / sizeof parts[0], parts);
}

static void single_mistakes(void **state) {
  (void)state;
  static const struct {
    const char *section, *part;
  } cases[] = {
      {"sweep: {parameters: {train.batch: {uniform: [1, 2], points: 2}}}", "use integer"},
      {"sweep: {parameters: {optimizer.lr: {log: [1, 2]}}}", "a grid needs 'points: N'"},
      {"sweep: {parameters: {optimizer.lr: {log: [2, 1]}}}", "the smaller first"},
      {"sweep: {parameters: {optimizer.lr: {log: [1, 2], uniform: [1, 2]}}}", "exclude each other"},
      {"sweep: {parameters: {optimizer.lr: []}}", "a list of values to choose from"},
      {"sweep: {parameters: {optimizer.lr: [1, 1]}}", "the choice 1 is there twice"},
      {"sweep: {parameters: {}}", "missing 'sweep.parameters'"},
      {"sweep: {method: sobol, parameters: {optimizer.lr: [1, 2]}}", "missing 'sweep.trials'"},
      {"sweep: {seeds: 2, parameters: {seed: [1, 2]}}", "'seed' varies already"},
      {"sweep: {seeds: [1, 1], parameters: {optimizer.lr: [1]}}", "1 is there twice"},
      {"sweep: {stop: {rule: median, reduction: 2}, parameters: {optimizer.lr: [1]}}",
       "'reduction' belongs to the rule asha"},
      {"sweep: {parameters: {optimizer.name: [adam], optimizer.eps: {choices: [1], when: "
       "{optimizer.name: adm}}}}",
       "'optimizer.name' is never adm"},
      {"swep: 1", "unknown key 'swep'"},
      {"", "missing section 'sweep'"},
      // what only a whole trial shows
      {"sweep: {metric: accuracy, parameters: {optimizer.lr: [1, 2]}}",
       "needs data with two classes"},
      {"set: {data.validation.input: null, data.validation.target: null}\n"
       "sweep: {parameters: {optimizer.lr: [1, 2]}}",
       "--set checkpoint.best=validation"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    char text[512];
    snprintf(text, sizeof text, "run: run.yaml\n%s\n", cases[i].section);
    expect(text, 1, &cases[i].part);
  }
  static const char *const gone[] = {"run: no file "};
  expect("run: gone.yaml\nsweep: {parameters: {optimizer.lr: [1]}}\n", 1, gone);
}

/* The same complaint about all trials is printed once. */
static void complaints_are_not_repeated(void **state) {
  (void)state;
  fn_sweep *sweep;
  char *errors;
  write_file("run_bad.yaml", RUN "report: {plots: maybe}\n");
  assert_int_equal(open_text("run: run_bad.yaml\nsweep: {parameters: {optimizer.lr: [1, 2, 3]}}\n",
                             &sweep, &errors),
                   FN_ERR_CONFIG);
  const char *first = strstr(errors, "report.plots");
  assert_non_null(first);
  assert_null(strstr(strchr(first, '\n') + 1, "report.plots:"));
  free(errors);
}

/* ---- values from outside -----------------------------------------------------------------------
 */

static void values_from_outside_are_checked(void **state) {
  (void)state;
  fn_sweep *s = good("  method: ask\n  parameters:\n"
                     "    optimizer.name: [adam, sgd]\n"
                     "    optimizer.lr: {log: [1.e-5, 1.e-1]}\n"
                     "    optimizer.momentum: {uniform: [0, 1], when: {optimizer.name: sgd}}\n");
  assert_int_equal(fn_sweep_trial_count(s), 0);
  static const struct {
    const char *part;
    const char *set[4];
  } cases[] = {
      {NULL, {"optimizer.name=adam", "optimizer.lr=0.5"}},
      {NULL, {"optimizer.momentum=0.3", "optimizer.name=sgd", "optimizer.lr=1e-3"}},
      {"a value for 'optimizer.lr' is missing", {"optimizer.name=adam"}},
      {"a value for 'optimizer.momentum' is missing", {"optimizer.name=sgd", "optimizer.lr=1"}},
      {"does not exist with that of 'optimizer.name'",
       {"optimizer.name=adam", "optimizer.lr=1", "optimizer.momentum=0"}},
      {"expected a number", {"optimizer.name=adam", "optimizer.lr=fast"}},
      {"did you mean 'optimizer.name'?",
       {"optimizer.nam=adam", "optimizer.name=adam", "optimizer.lr=1"}},
      {"two values", {"optimizer.name=adam", "optimizer.lr=1", "optimizer.lr=2"}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    int count = 0;
    while (count < 4 && cases[i].set[count])
      count++;
    const fn_status status = fn_sweep_check_values(s, cases[i].set, count);
    assert_int_equal(status, cases[i].part ? FN_ERR_CONFIG : FN_OK);
    if (cases[i].part && !strstr(fn_error_message(), cases[i].part))
      fail_msg("case %zu: %s", i, fn_error_message());
  }
  fn_sweep_destroy(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sobol_begins_as_published),
      cmocka_unit_test(sobol_agrees_in_high_dimensions),
      cmocka_unit_test(sobol_is_balanced),
      cmocka_unit_test(grid_is_nested_loops),
      cmocka_unit_test(conditions_add_no_copies),
      cmocka_unit_test(integers_are_not_doubled),
      cmocka_unit_test(draws_fill_their_ranges),
      cmocka_unit_test(draws_are_a_function_of_the_file),
      cmocka_unit_test(seeds_repeat_settings),
      cmocka_unit_test(trials_are_runs),
      cmocka_unit_test(a_run_may_hold_its_sweep),
      cmocka_unit_test(all_mistakes_in_one_pass),
      cmocka_unit_test(single_mistakes),
      cmocka_unit_test(complaints_are_not_repeated),
      cmocka_unit_test(values_from_outside_are_checked),
  };
  if (!mkdtemp(folder)) return 1;
  write_file("run.yaml", RUN);
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  static const char *const files[] = {"run.yaml", "run_bad.yaml", "sweep.yaml"};
  for (int i = 0; i < 3; i++) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, files[i]);
    unlink(path);
  }
  rmdir(folder);
  return failed;
}
