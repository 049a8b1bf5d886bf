/* config: what a run file means, what is wrong with one and where, and the way back to YAML. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "config/options.h"
#include "config/schema.h"

#define MINIMAL                                                                                    \
  "model: {name: vnet}\n"                                                                          \
  "data: {train: {input: a, target: b}}\n"                                                         \
  "train: {batch: 2}\n"                                                                            \
  "optimizer: {lr: 1e-4}\n"

static fn_run *good(const char *text, fn_command command, int set_count, const char *const *set) {
  fn_run *run;
  char *errors;
  const fn_status status = fn_run_parse(text, "run.yaml", set, set_count, command, &run, &errors);
  if (errors) print_error("%s", errors);
  assert_int_equal(status, FN_OK);
  assert_null(errors);
  return run;
}

/* All errors of a text, malloc'ed. */
static char *bad(const char *text, fn_command command, int set_count, const char *const *set) {
  fn_run *run = NULL;
  char *errors = NULL;
  const fn_status status = fn_run_parse(text, "run.yaml", set, set_count, command, &run, &errors);
  assert_int_equal(status, FN_ERR_CONFIG);
  assert_null(run);
  return errors ? errors : strdup("no message");
}

static int count_errors(const char *errors) {
  int count = 0;
  for (const char *line = errors; *line;) {
    count += fn_text_starts(line, "run.yaml:") || fn_text_starts(line, "--set ");
    line += strcspn(line, "\n");
    line += *line == '\n';
  }
  return count;
}

static void expect_part(const char *errors, const char *part) {
  const bool found = strstr(errors, part) != NULL;
  if (!found) print_error("no \"%s\" in:\n%s", part, errors);
  assert_true(found);
}

/* The text, needing nothing, has exactly one error, which begins so. */
static void expect_error(const char *text, const char *begin) {
  char *errors = bad(text, FN_COMMAND_OTHER, 0, NULL);
  if (count_errors(errors) != 1 || !fn_text_starts(errors, begin))
    print_error("expected \"%s\", found:\n%s", begin, errors);
  assert_int_equal(count_errors(errors), 1);
  assert_true(fn_text_starts(errors, begin));
  free(errors);
}

static void expect_good(const char *text) {
  fn_run_destroy(good(text, FN_COMMAND_OTHER, 0, NULL));
}

/* ---- values --------------------------------------------------------------------------------- */

/* map2map page, section 1, and the PyTorch defaults it leans on (sections 6.2 and 6.3). */
static void defaults_are_those_of_map2map(void **state) {
  (void)state;
  fn_run *run = good(MINIMAL, FN_COMMAND_TRAIN, 0, NULL);
  assert_int_equal(run->train.epochs, 128);
  assert_int_equal(run->seed, 42);
  assert_true(run->data.shuffle_distance == 1);
  assert_false(run->data.divide);
  assert_false(run->data.augment);
  assert_int_equal(run->data.scale_factor, 1);
  assert_int_equal(run->data.crop.count, 0);
  assert_int_equal(run->data.input_pad.value[0], 0);
  assert_int_equal(run->data.shift.count, 0);
  assert_true(run->data.add_std < 0 && run->data.mul_std < 0);
  assert_string_equal(run->loss.name, "mse");
  assert_string_equal(run->optimizer.name, "adam");
  assert_true(run->optimizer.lr == 1e-4);
  assert_true(run->optimizer.betas[0] == 0.9 && run->optimizer.betas[1] == 0.999);
  assert_true(run->optimizer.eps == 1e-8 && run->optimizer.weight_decay == 0);
  assert_int_equal(run->train.log_interval, 100);
  assert_true(run->train.load_strict);
  assert_null(run->train.load_state);
  assert_true(run->model.init_weight_std < 0);
  assert_string_equal(run->schedule.name, "none");
  assert_string_equal(run->schedule.metric, "train");
  assert_true(run->schedule.factor == 0.1 && run->schedule.threshold == 1e-4);
  assert_int_equal(run->schedule.patience, 10);
  assert_string_equal(run->checkpoint.best, "train");
  assert_int_equal(run->checkpoint.keep_last, 0);
  assert_false(run->test.overwrite);       // nothing is overwritten without being asked
  assert_true(run->compute.deterministic); // what every backend there is does anyway
  assert_int_equal(run->train.batch, 2);
  assert_string_equal(run->folder, "run"); // run.yaml
  fn_run_destroy(run);
}

static void defaults_follow_other_keys(void **state) {
  (void)state;
  // torch.optim.AdamW, Adagrad, Adadelta
  fn_run *run = good("optimizer: {name: adamw}", FN_COMMAND_OTHER, 0, NULL);
  assert_true(run->optimizer.weight_decay == 0.01);
  fn_run_destroy(run);
  run = good("optimizer: {name: adagrad}", FN_COMMAND_OTHER, 0, NULL);
  assert_true(run->optimizer.eps == 1e-10);
  fn_run_destroy(run);
  run = good("optimizer: {name: adadelta, eps: 0.5}", FN_COMMAND_OTHER, 0, NULL);
  assert_true(run->optimizer.eps == 0.5);
  fn_run_destroy(run);
  run = good("data: {validation: {input: a, target: b}}\ntrain: {epochs: 9}", FN_COMMAND_OTHER, 0,
             NULL);
  assert_string_equal(run->checkpoint.best, "validation");
  assert_int_equal(run->schedule.t_max, 9);
  fn_run_destroy(run);
  run = good("checkpoint: {best: null}", FN_COMMAND_OTHER, 0, NULL);
  assert_string_equal(run->checkpoint.best, "");
  fn_run_destroy(run);
}

static void values_of_each_type(void **state) {
  (void)state;
  fn_run *run = good("seed: 18446744073709551615\n"
                     "folder: 2024\n"
                     "data:\n"
                     "  train: {input: [\"*.npy\", b], target: [c, d]}\n"
                     "  crop: 32\n"
                     "  crop_step: [8, 16, 32]\n"
                     "  input_pad: [1, 2, 3, 4, 5, 6]\n"
                     "  input_vector: [true, auto]\n"
                     "  target_vector: no\n"
                     "  augment: yes\n"
                     "  mul_std: .5\n"
                     "optimizer: {\"betas\": [0.5, 0.9], \"lr\": 2E-3}\n"
                     "train: {clip_norm: null, load_state: \"null\"}\n",
                     FN_COMMAND_OTHER, 0, NULL);
  assert_true(run->seed == UINT64_MAX);
  assert_string_equal(run->folder, "2024");
  assert_int_equal(run->data.train.input.count, 2);
  assert_string_equal(run->data.train.input.text[0], "*.npy");
  assert_int_equal(run->data.crop.count, 1);
  assert_int_equal(run->data.crop.value[0], 32);
  assert_int_equal(run->data.crop_step.value[2], 32);
  assert_int_equal(run->data.input_pad.count, 6);
  assert_string_equal(run->data.input_vector.text[0], "yes");
  assert_int_equal(run->data.target_vector.count, 2); // one word stands for all fields
  assert_string_equal(run->data.target_vector.text[1], "no");
  assert_true(run->data.augment);
  assert_true(run->data.mul_std == 0.5);
  assert_true(run->optimizer.betas[0] == 0.5 && run->optimizer.lr == 2e-3);
  assert_true(run->train.clip_norm <= 0);
  assert_string_equal(run->train.load_state, "null"); // quoted: a text
  fn_run_destroy(run);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void all_errors_in_one_pass(void **state) {
  (void)state;
  char *errors = bad("seed: 1\n"
                     "modle: {name: vnet}\n"
                     "data:\n"
                     "  train:\n"
                     "    inputt: a\n"
                     "    target: b\n"
                     "  crop: thirty\n"
                     "train:\n"
                     "  batch: 0\n"
                     "  batch: 1\n"
                     "optimizer: {name: adm}\n",
                     FN_COMMAND_TRAIN, 1, (const char *[]){"schedule.patience=soon"});
  const char *expected =
      "run.yaml:2:1: unknown key 'modle', did you mean 'model'?\n"
      "  modle: {name: vnet}\n"
      "  ^\n"
      "run.yaml:5:5: unknown key 'inputt' in 'data.train', did you mean 'input'?\n"
      "      inputt: a\n"
      "      ^\n"
      "run.yaml:7:9: data.crop: expected an integer, found the text 'thirty'\n"
      "    crop: thirty\n"
      "          ^\n"
      "run.yaml:9:10: train.batch must be at least 1, found 0\n"
      "    batch: 0\n"
      "           ^\n"
      "run.yaml:10:3: key 'batch' appears twice; it is first given in line 9\n"
      "    batch: 1\n"
      "    ^\n"
      "run.yaml:11:1: missing key 'optimizer.lr': the learning rate\n"
      "  optimizer: {name: adm}\n"
      "  ^\n"
      "run.yaml:11:19: optimizer.name: expected one of sgd, adam, adamw, rmsprop, adadelta, "
      "adagrad, nadam, found the text 'adm', did you mean 'adam'?\n"
      "  optimizer: {name: adm}\n"
      "                    ^\n"
      "--set schedule.patience=soon: schedule.patience: expected an integer, found the text "
      "'soon'\n";
  assert_string_equal(errors, expected);
  free(errors);
}

static void misspelt_keys_at_each_level(void **state) {
  (void)state;
  expect_error("optimiser: {lr: 1}", "run.yaml:1:1: unknown key 'optimiser', did you mean "
                                     "'optimizer'?");
  expect_error("data: {corp: 3}",
               "run.yaml:1:8: unknown key 'corp' in 'data', did you mean 'crop'");
  expect_error("data:\n  validation:\n    imput: x\n    input: x\n    target: y",
               "run.yaml:3:5: unknown key 'imput' in 'data.validation', did you mean 'input'?");
  expect_error("data: {tset: {input: a}}", "run.yaml:1:8: unknown key 'tset' in 'data', did you "
                                           "mean 'test'?");
  expect_error(
      "train: {epochs: 99999999999999999999}",
      "run.yaml:1:17: train.epochs: expected an integer that fits into 64 bits, found the integer");
  expect_error("epochs: 3", "run.yaml:1:1: unknown key 'epochs', did you mean 'train.epochs'?");
  expect_error("div-data: 3", "run.yaml:1:1: unknown key 'div-data', did you mean 'data.divide'?");
  expect_error("xylophone: 3", "run.yaml:1:1: unknown key 'xylophone'\n");
  expect_error("data.crop: 3", "run.yaml:1:1: unknown key 'data.crop'");
}

/* What a misspelt section holds is checked all the same. */
static void errors_inside_a_misspelt_section(void **state) {
  (void)state;
  char *errors = bad("optimiser: {lr: fast}", FN_COMMAND_OTHER, 0, NULL);
  expect_part(errors, "run.yaml:1:17: optimizer.lr: expected a number, found the text 'fast'");
  assert_int_equal(count_errors(errors), 2);
  free(errors);
}

static void wrong_types(void **state) {
  (void)state;
  expect_error("train: 3", "run.yaml:1:8: train: expected a mapping of keys, found the integer 3");
  expect_error("train: {epochs: 1.5}", "run.yaml:1:17: train.epochs: expected an integer, found "
                                       "the number 1.5");
  expect_error("train: {epochs: \"5\"}", "run.yaml:1:17: train.epochs: expected an integer, found "
                                         "the text '5'");
  expect_error("train: {epochs: }", "run.yaml:1:17: train.epochs: expected an integer, found "
                                    "nothing");
  expect_error("train: {epochs: [1, 2]}", "run.yaml:1:17: train.epochs: expected an integer, found "
                                          "a list of 2 values");
  expect_error("data: {augment: 1}", "run.yaml:1:17: data.augment: expected true or false, found "
                                     "the integer 1");
  expect_error("optimizer: {lr: 0x10}", "run.yaml:1:17: optimizer.lr: expected a number, found");
  expect_error("optimizer: {lr: nan}", "run.yaml:1:17: optimizer.lr: expected a number, found");
  expect_error("optimizer: {lr: 1e999}",
               "run.yaml:1:17: optimizer.lr: expected a number that fits into 64 bits, found");
  expect_error("optimizer: {betas: 0.9}", "run.yaml:1:20: optimizer.betas: expected a list of 2 "
                                          "numbers, found the number 0.9");
  expect_error("data: {crop: [32, x]}", "run.yaml:1:19: data.crop: expected an integer, found the "
                                        "text 'x'");
  expect_error("data: {train: {input: {a: b}}}", "run.yaml:1:23: data.train.input: expected a text "
                                                 "or a list of texts, found a mapping");
  expect_error("model: {options: [1]}", "run.yaml:1:18: model.options: expected a mapping, found a "
                                        "list of 1 value");
  expect_error("model: {layers: {a: 1}}", "run.yaml:1:17: model.layers: expected a list, found a "
                                          "mapping");
  expect_error("seed: -1", "run.yaml:1:7: seed: expected an integer from 0");
  expect_error("seed: 99999999999999999999", "run.yaml:1:7: seed: expected an integer from 0");
  expect_error("folder: ''", "run.yaml:1:9: folder: expected a text, found an empty one");
  expect_error("- a\n- b", "run.yaml:1:1: expected a mapping of keys, found a list of 2 values");
}

static void values_out_of_range(void **state) {
  (void)state;
  expect_error("train: {epochs: 0}", "run.yaml:1:17: train.epochs must be at least 1, found 0");
  expect_error("optimizer: {lr: 0}", "run.yaml:1:17: optimizer.lr must be above 0, found 0");
  expect_error("optimizer: {lr: -1e-3}", "run.yaml:1:17: optimizer.lr must be above 0");
  expect_error("optimizer: {betas: [0.9, 1]}", "run.yaml:1:26: optimizer.betas must be at least 0 "
                                               "and below 1, found 1");
  expect_error("train: {ema_decay: 1.0}", "run.yaml:1:20: train.ema_decay must be above 0 and "
                                          "below 1, found 1.0");
  expect_error("data: {shift: 0}", "run.yaml:1:15: data.shift must be at least 1, found 0");
  expect_error("data: {crop: [32, -1]}", "run.yaml:1:19: data.crop must be at least 1, found -1");
  expect_error("compute: {precision: f61}", "run.yaml:1:22: compute.precision: expected one of "
                                            "f32, tf32, bf16, f16, found the text 'f61', did you "
                                            "mean");
  expect_error("schedule: {name: 7}", "run.yaml:1:18: schedule.name: expected one of none, ");
}

static void missing_keys_depend_on_the_command(void **state) {
  (void)state;
  char *errors = bad("train: {epochs: 3}", FN_COMMAND_TRAIN, 0, NULL);
  expect_part(errors, "run.yaml:1:1: missing key 'model.name' (or 'model.layers')");
  expect_part(errors, "run.yaml:1:1: missing key 'data.train.input'");
  expect_part(errors, "run.yaml:1:1: missing key 'data.train.target'");
  expect_part(errors, "run.yaml:1:1: missing key 'train.batch'");
  expect_part(errors, "run.yaml:1:1: missing key 'optimizer.lr'");
  assert_int_equal(count_errors(errors), 5);
  free(errors);
  const char *predicts = "model: {name: vnet}\ndata: {test: {input: a}}";
  fn_run_destroy(good(predicts, FN_COMMAND_PREDICT, 0, NULL));
  errors = bad(predicts, FN_COMMAND_TEST, 0, NULL);
  assert_int_equal(count_errors(errors), 1);
  expect_part(errors, "run.yaml:2:8: missing key 'data.test.target'");
  free(errors);
  errors = bad(MINIMAL, FN_COMMAND_PREDICT, 0, NULL);
  assert_int_equal(count_errors(errors), 1);
  expect_part(errors, "missing key 'data.test.input'");
  free(errors);
  expect_good("");
  // null is as good as absent
  errors = bad(MINIMAL, FN_COMMAND_TRAIN, 1, (const char *[]){"optimizer.lr=null"});
  expect_part(errors, "--set optimizer.lr=null: missing key 'optimizer.lr'");
  free(errors);
}

static void keys_that_contradict_each_other(void **state) {
  (void)state;
  expect_error("data: {crop: [1, 2, 3, 4]}", "run.yaml:1:14: data.crop has 4 values, expected 1");
  expect_error("data: {input_pad: [1, 2, 3, 4, 5]}", "run.yaml:1:19: data.input_pad has 5 values");
  expect_error("data: {crop: [8, 8, 8], input_pad: [1, 2, 3, 4]}",
               "run.yaml:1:36: data.input_pad has 4 values, which does not go with the 3 of "
               "data.crop");
  expect_good("data: {crop: [8, 8, 8], input_pad: [1, 2, 3, 4, 5, 6], target_pad: [1, 2, 3]}");
  expect_good("data: {crop: [8, 8], input_pad: [1, 2, 3, 4], target_pad: 1}");
  expect_good("data: {crop: 8, input_pad: [1, 2]}"); // 2-d, or low and high in 1-d
  expect_error("data: {crop_start: 8, crop_stop: [9, 8]}",
               "run.yaml:1:34: data.crop_stop must exceed data.crop_start, found 8 and 8");
  expect_error("data: {train: {input: [a, b]}, input_norms: [identity]}",
               "run.yaml:1:45: data.input_norms has 1 value for 2 input fields");
  expect_error("data: {test: {input: a, target: b}, target_vector: [yes, no]}",
               "run.yaml:1:52: data.target_vector has 2 values for 1 target field");
  expect_error("data: {train: {input: [a, b]}, test: {input: c}}",
               "run.yaml:1:46: data.test.input has 1 pattern, but data.train.input has 2");
  expect_error("data: {validation: {input: a}}",
               "run.yaml:1:28: data.validation.input needs data.validation.target");
  expect_error("data: {validation: {target: a}}",
               "run.yaml:1:29: data.validation.target needs data.validation.input");
  expect_error("schedule: {name: plateau, metric: validation}",
               "run.yaml:1:35: schedule.metric: validation needs data.validation.input");
  expect_error("checkpoint: {best: validation}",
               "run.yaml:1:20: checkpoint.best: validation needs");
  expect_error("checkpoint: {keep_every: 4}",
               "run.yaml:1:26: checkpoint.keep_every has no meaning");
  expect_error("checkpoint: {keep_last: 2, keep_every: 5, every_epochs: 2}",
               "run.yaml:1:40: checkpoint.keep_every must be a multiple");
  expect_error("schedule: {name: one_cycle}", "run.yaml:1:1: missing key 'schedule.max_lr'");
  expect_error("schedule: {name: cyclic, max_lr: 1e-3}\noptimizer: {lr: 1e-2}",
               "run.yaml:1:34: schedule.max_lr must exceed optimizer.lr");
  expect_error("schedule: {name: step}", "run.yaml:1:1: missing key 'schedule.step_size'");
  expect_error("schedule: {name: exponential}", "run.yaml:1:1: missing key 'schedule.factor'");
  expect_error("schedule: {name: plateau, factor: 1}", "run.yaml:1:35: schedule.factor must be "
                                                       "below 1");
  expect_error("optimizer: {name: sgd, nesterov: true}", "run.yaml:1:34: optimizer.nesterov needs");
  expect_good("optimizer: {name: sgd, nesterov: true, momentum: 0.9}");
  expect_error("model: {name: vnet, layers: [{conv: 3}]}",
               "run.yaml:1:29: give model.name or model.layers, not both");
  expect_error("adversary: {model: patchgan}",
               "run.yaml:1:1: 'adversary': adversarial training is not available yet");
}

static void yaml_mistakes(void **state) {
  (void)state;
  expect_error("data:\n  train:\n    input: *.npy\n", "run.yaml:3:13: YAML syntax: ");
  char *errors = bad("data: {crop: *.npy}", FN_COMMAND_OTHER, 0, NULL);
  expect_part(errors, "must be quoted");
  free(errors);
  errors = bad("data:\n\tcrop: 3\n", FN_COMMAND_OTHER, 0, NULL);
  expect_part(errors, "run.yaml:2:1: ");
  expect_part(errors, "spaces, not with tabs");
  free(errors);
  expect_error("data: [1, 2\ntrain: 3\n", "run.yaml:2:6: YAML syntax: ");
  expect_error("seed: 'abc\n", "run.yaml:2:1: YAML syntax: ");
  expect_error("seed: &x 3", "run.yaml:1:7: YAML anchors (&name) and aliases (*name) are not");
  expect_error("seed: *x", "run.yaml:1:7: YAML anchors (&name) and aliases (*name) are not");
  expect_error("seed: !!int 3", "run.yaml:1:7: YAML tags (!name) are not supported");
  expect_error("? [1, 2]\n: 3", "run.yaml:1:3: a key must be a word, found a list of 2 values");
  expect_error("seed: 1\n---\nseed: 2\n", "run.yaml:2:1: expected one YAML document");
  expect_error("seed: \"a\\0b\"", "run.yaml:1:7: a text cannot hold the character NUL");
}

/* Nothing here may crash, hang or be accepted. */
static void hostile_texts(void **state) {
  (void)state;
  enum { LONG = 1 << 20 };
  fn_text text = {0};
  for (int i = 0; i < 100000; i++)
    fn_text_add_bytes(&text, "[", 1);
  char *errors = bad(text.data, FN_COMMAND_OTHER, 0, NULL);
  expect_part(errors, "nested deeper than 64 levels");
  free(errors);
  fn_text_free(&text);
  fn_text_add(&text, "seed: ");
  for (int i = 0; i < LONG; i++)
    fn_text_add_bytes(&text, "x", 1);
  errors = bad(text.data, FN_COMMAND_OTHER, 0, NULL);
  expect_part(errors, "found the text 'xxxx");
  assert_true(strlen(errors) < 1000); // the line is shown in part
  free(errors);
  fn_text_free(&text);
  for (int i = 0; i < 2000; i++)
    fn_text_add(&text, "k%d: {}\n", i);
  errors = bad(text.data, FN_COMMAND_OTHER, 0, NULL);
  assert_int_equal(count_errors(errors), 200);
  expect_part(errors, "... and 1800 more\n");
  free(errors);
  fn_text_free(&text);
  const char *garbage[] = {"\x01\x02\x03",
                           "\xff\xfe",
                           "a: \xc3(",
                           "\xef\xbb\xbf",
                           "%",
                           "@",
                           "`",
                           "- - - :",
                           "{",
                           "}",
                           "a: {b: [",
                           "? ?",
                           "!",
                           "&",
                           "*",
                           "|",
                           "--- |\n- "};
  for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
    fn_run *run;
    fn_status status =
        fn_run_parse(garbage[i], "run.yaml", NULL, 0, FN_COMMAND_TRAIN, &run, &errors);
    assert_int_equal(status, FN_ERR_CONFIG);
    assert_non_null(errors);
    free(errors);
  }
}

/* Every beginning of a good file is read or refused, never more than that. */
static void truncated_files(void **state) {
  (void)state;
  const char *whole = MINIMAL "schedule: {name: cyclic, max_lr: 1}\nfolder: \"a\\tb\"\n";
  for (size_t n = 0; n <= strlen(whole); n++) {
    char *part = strndup(whole, n), *errors;
    fn_run *run;
    const fn_status status =
        fn_run_parse(part, "run.yaml", NULL, 0, FN_COMMAND_TRAIN, &run, &errors);
    assert_int_equal(status, run ? FN_OK : FN_ERR_CONFIG);
    assert_true((run == NULL) == (errors != NULL));
    fn_run_destroy(run);
    free(errors);
    free(part);
  }
}

static void caret_under_wide_text(void **state) {
  (void)state;
  char *errors = bad("\xc3\xa9\xc3\xa9: {}\n", FN_COMMAND_OTHER, 0, NULL);
  assert_string_equal(errors, "run.yaml:1:1: unknown key '\xc3\xa9\xc3\xa9'\n"
                              "  \xc3\xa9\xc3\xa9: {}\n  ^\n");
  free(errors);
  errors = bad("data: {\xc3\xa9\xc3\xa9: 1, crop: x}\n", FN_COMMAND_OTHER, 0, NULL);
  expect_part(errors, "run.yaml:1:21: data.crop"); // columns count characters
  free(errors);
}

static void missing_file(void **state) {
  (void)state;
  fn_run *run;
  char *errors;
  assert_int_equal(fn_run_load("no/such.yaml", NULL, 0, FN_COMMAND_TRAIN, &run, &errors),
                   FN_ERR_CONFIG);
  expect_part(errors, "no/such.yaml");
  free(errors);
}

/* ---- --set --------------------------------------------------------------------------------------
 */

static void set_goes_over_the_file(void **state) {
  (void)state;
  const char *set[] = {"train.batch=5",   "data.crop=[8, 16]",      "model.options.deep.width=3",
                       "report.plots=no", "train.epochs=3",         "train.epochs=4",
                       "plugin=",         "data.test.input='*.npy'"};
  fn_run *run = good(MINIMAL "plugin: a.so\nreport:\n", FN_COMMAND_TRAIN, 8, set);
  assert_int_equal(run->train.batch, 5);
  assert_int_equal(run->data.crop.value[1], 16);
  assert_false(run->report.plots);
  assert_int_equal(run->train.epochs, 4); // the last one wins
  assert_null(run->plugin);
  assert_string_equal(run->data.test.input.text[0], "*.npy");
  const fn_options *deep = fn_options_get(run->model.options, "deep");
  assert_int_equal(fn_option_integer(deep, "width", 0), 3);
  assert_string_equal(fn_run_where(run, "train.batch"), "--set train.batch=5");
  assert_string_equal(fn_run_where(run, "optimizer.lr"), "run.yaml:4:17");
  assert_string_equal(fn_run_where(run, "data.shift"), "run.yaml: data.shift");
  fn_run_destroy(run);
}

static void errors_in_set(void **state) {
  (void)state;
  const char *set[] = {"train.batch",      "=3",           "train..batch=3", "data.corp=3",
                       "train.epochs.x=3", "data.crop=[1,"};
  char *errors = bad(MINIMAL "seed: 1\n", FN_COMMAND_TRAIN, 6, set);
  expect_part(errors, "--set train.batch: expected key.path=value\n");
  expect_part(errors, "--set =3: expected key.path=value\n");
  expect_part(errors, "--set train..batch=3: expected key.path=value\n");
  expect_part(errors, "--set data.corp=3: unknown key 'corp' in 'data', did you mean 'crop'?\n");
  expect_part(errors, "--set train.epochs.x=3: train.epochs: expected an integer, found a mapping");
  expect_part(errors, "--set data.crop=[1,: YAML syntax: ");
  assert_int_equal(count_errors(errors), 6);
  free(errors);
  errors = bad("train: {batch: 3}", FN_COMMAND_OTHER, 1, (const char *[]){"train.batch.x=1"});
  expect_part(errors, "--set train.batch.x=1: 'batch' (run.yaml:1:16) is the integer 3, not a");
  free(errors);
  // a wrong value in the file does not matter when --set replaces it
  fn_run_destroy(
      good("train: {batch: many}", FN_COMMAND_OTHER, 1, (const char *[]){"train.batch=1"}));
}

static void later_rooms_report_in_the_same_style(void **state) {
  (void)state;
  fn_run *run = good(MINIMAL "folder: x\n", FN_COMMAND_TRAIN, 0, NULL);
  assert_int_equal(fn_run_fail(run, "train.batch", "too large for %d samples", 1), FN_ERR_CONFIG);
  assert_string_equal(fn_error_message(), "run.yaml:3:16: too large for 1 samples\n"
                                          "  train: {batch: 2}\n"
                                          "                 ^");
  fn_run_destroy(run);
}

/* ---- resolved
 * ------------------------------------------------------------------------------------- */

static void note(void *user, const char *key, const char *before, const char *after) {
  fn_text_add(user, "%s: %s -> %s\n", key, before, after);
}

static void resolved_reads_back_to_an_equal_run(void **state) {
  (void)state;
  const char *set[] = {"model={layers: [{conv: 3, name: a}, {add: [a, \"x, y\", \"2\"]}]}",
                       "optimizer.eps=1.2345678901234567e-7",
                       "data.input_pad=[1, 2]",
                       "data.train.input=[\"~\", \"-x\", \"*\"]",
                       "data.input_vector=auto",
                       "train.clip_norm=0.1"};
  fn_run *run =
      good(MINIMAL "folder: \"a: 'b' # \\u00e9\\n\\tc\"\n"
                   "plugin: \"true\"\n"
                   "loss: {name: huber, options: {delta: 0.1, text: \"1\", none: , tilde: ~}}\n"
                   "compute: {threads: 3}\n"
                   "checkpoint: {best: null, every_minutes: 0.1}\n",
           FN_COMMAND_TRAIN, 6, set);
  fn_run *back = good(run->resolved, FN_COMMAND_TRAIN, 0, NULL);
  assert_string_equal(back->resolved, run->resolved);
  assert_string_equal(back->folder, "a: 'b' # \xc3\xa9\n\tc");
  assert_string_equal(back->plugin, "true");
  assert_true(back->optimizer.eps == 1.2345678901234567e-7);
  assert_string_equal(back->data.train.input.text[0], "~");
  assert_int_equal(back->data.input_vector.count, 3);
  assert_int_equal(back->data.input_pad.value[1], 2);
  assert_string_equal(back->checkpoint.best, "");
  const fn_options *add = fn_options_get(fn_options_at(back->model.layers, 1), "add");
  assert_int_equal(fn_options_count(add), 3);
  assert_string_equal(fn_options_scalar(fn_options_at(add, 1)), "x, y");
  int64_t number;
  assert_int_equal(fn_options_as_integer(fn_options_at(add, 2), &number), FN_ERR_CONFIG);
  fn_text differences = {0};
  assert_int_equal(fn_run_compare(run->resolved, back, note, &differences), FN_OK);
  assert_null(differences.data);
  fn_run_destroy(back);
  fn_run_destroy(run);
}

/* Every key of the table is in the resolved text, once. */
static void resolved_holds_every_key(void **state) {
  (void)state;
  fn_run *run = good("", FN_COMMAND_OTHER, 0, NULL);
  fn_options *tree;
  assert_int_equal(fn_options_from_text(run->resolved, "resolved", &tree), FN_OK);
  for (int i = 0; i < fn_key_count(); i++) {
    const fn_options *node = tree;
    char path[128], *rest = NULL;
    snprintf(path, sizeof path, "%s", fn_key_at(i)->path);
    char *word = strtok_r(path, ".", &rest);
    for (char *next = strtok_r(NULL, ".", &rest); next; next = strtok_r(NULL, ".", &rest)) {
      node = fn_options_get(node, word);
      assert_non_null(node);
      word = next;
    }
    bool found = false;
    for (int k = 0; k < fn_options_count(node); k++)
      found = found || strcmp(fn_options_key_at(node, k), word) == 0;
    if (!found) print_error("%s is not in the resolved text\n", fn_key_at(i)->path);
    assert_true(found);
  }
  fn_options_destroy(tree);
  fn_run_destroy(run);
}

static void differences_between_runs(void **state) {
  (void)state;
  fn_run *old = good(MINIMAL, FN_COMMAND_TRAIN, 0, NULL);
  fn_run *new = good(
      MINIMAL, FN_COMMAND_TRAIN, 3,
      (const char *[]){"optimizer.lr=1e-5", "model.options.width=8", "data.train.input=[a, c]"});
  fn_text differences = {0};
  assert_int_equal(fn_run_compare(old->resolved, new, note, &differences), FN_OK);
  assert_string_equal(differences.data, "model.options: null -> {width: 8}\n"
                                        "data.train.input: [a] -> [a, c]\n"
                                        "optimizer.lr: 0.0001 -> 1.0e-05\n");
  fn_text_free(&differences);
  // keys of another version are differences, not failures
  assert_int_equal(fn_run_compare("train: {batch: 2, warp: 9}", old, note, &differences), FN_OK);
  expect_part(differences.data, "train.warp: set -> unknown to this version\n");
  fn_text_free(&differences);
  assert_int_equal(fn_run_compare("train: [", old, note, &differences), FN_ERR_CONFIG);
  assert_null(differences.data);
  fn_run_destroy(new);
  fn_run_destroy(old);
}

/* ---- free-form options
 * ------------------------------------------------------------------------------ */

static void options_that_nobody_asked_for(void **state) {
  (void)state;
  fn_options *options;
  assert_int_equal(fn_options_from_text("width: 64\n"
                                        "slop: 0.1\n"
                                        "depth: two\n"
                                        "inner: {a: 1, b: 2}\n"
                                        "other: {a: 1, b: 2}\n"
                                        "kernel: [3, 3]\n",
                                        "o.yaml", &options),
                   FN_OK);
  assert_int_equal(fn_option_integer(options, "width", 1), 64);
  assert_true(fn_option_real(options, "slope", 0.5) == 0.5);
  assert_int_equal(fn_option_integer(options, "depth", 2), 2);
  assert_int_equal(fn_option_integer(fn_options_get(options, "inner"), "a", 0), 1);
  int64_t kernel[3];
  int count;
  assert_int_equal(fn_options_as_integers(fn_options_get(options, "kernel"), 3, kernel, &count),
                   FN_OK);
  assert_int_equal(count, 2);
  fn_text report = {0};
  assert_int_equal(fn_options_unused(options, &report), 4);
  assert_string_equal(report.data, "o.yaml:2:1: unknown option 'slop', did you mean 'slope'?\n"
                                   "  slop: 0.1\n"
                                   "  ^\n"
                                   "o.yaml:3:8: expected an integer, found the text 'two'\n"
                                   "  depth: two\n"
                                   "         ^\n"
                                   "o.yaml:4:15: unknown option 'b'\n"
                                   "  inner: {a: 1, b: 2}\n"
                                   "                ^\n"
                                   "o.yaml:5:1: unknown option 'other'\n"
                                   "  other: {a: 1, b: 2}\n"
                                   "  ^\n");
  fn_text_free(&report);
  assert_int_equal(fn_options_check(options), FN_ERR_CONFIG);
  expect_part(fn_error_message(), "o.yaml:5:1: unknown option 'other'");
  fn_options_destroy(options);
}

static void lookups_in_a_tree(void **state) {
  (void)state;
  fn_options *list;
  assert_int_equal(
      fn_options_from_text("- {conv: 3, stride: [2, 1]}\n- relu\n- [a, b]\n", "l.yaml", &list),
      FN_OK);
  assert_int_equal(fn_options_get_kind(list), FN_OPTIONS_LIST);
  assert_int_equal(fn_options_count(list), 3);
  const fn_options *conv = fn_options_at(list, 0);
  assert_string_equal(fn_options_key_at(conv, 1), "stride");
  assert_string_equal(fn_options_where(fn_options_get(conv, "stride")), "l.yaml:1:21");
  assert_string_equal(fn_options_scalar(fn_options_at(list, 1)), "relu");
  assert_null(fn_options_scalar(conv));
  assert_null(fn_options_at(list, 3));
  assert_null(fn_options_get(conv, "kernel"));
  int64_t one;
  int count;
  assert_int_equal(fn_options_as_integers(fn_options_get(conv, "conv"), 3, &one, &count), FN_OK);
  assert_int_equal(one, 3);
  assert_int_equal(fn_options_as_integers(fn_options_get(conv, "stride"), 1, &one, &count),
                   FN_ERR_CONFIG);
  expect_part(fn_error_message(), "l.yaml:1:21: expected an integer or a list of at most 1, found "
                                  "a list of 2 values");
  // asking a text for keys is a mistake of the file, reported with its place
  assert_true(fn_option_flag(fn_options_at(list, 1), "slope", true));
  assert_int_equal(fn_options_check(list), FN_ERR_CONFIG);
  expect_part(fn_error_message(), "l.yaml:2:3: expected a mapping with the key 'slope', found the "
                                  "text 'relu'");
  expect_part(fn_error_message(), "l.yaml:3:3: this entry is not used: a list of 2 values");
  fn_options_destroy(list);
  assert_int_equal(fn_option_integer(NULL, "x", 7), 7);
  assert_int_equal(fn_options_check(NULL), FN_OK);
  assert_int_equal(fn_options_from_text("a: [", "x", &list), FN_ERR_CONFIG);
  assert_null(list);
}

/* ---- the table
 * ------------------------------------------------------------------------------------------ */

static void table_is_well_formed(void **state) {
  (void)state;
  for (int i = 0; i < fn_key_count(); i++) {
    const fn_key *key = fn_key_at(i);
    assert_non_null(key->path);
    assert_non_null(key->fallback);
    assert_non_null(key->meaning);
    assert_true(fn_text_ends(key->meaning, "."));
    assert_int_equal(fn_key_index(fn_key_find(key->path)), i); // no path twice
    const bool choice = key->type == FN_KEY_CHOICE || key->type == FN_KEY_CHOICES;
    assert_true(choice == (key->choices != NULL));
    for (int j = 0; j < i; j++)
      assert_true(fn_key_at(j)->offset != key->offset);
    if (!strchr(key->path, '.')) continue;
    char section[128];
    snprintf(section, sizeof section, "%s", key->path);
    *strrchr(section, '.') = '\0';
    assert_non_null(fn_section_find(section));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(defaults_are_those_of_map2map),
      cmocka_unit_test(defaults_follow_other_keys),
      cmocka_unit_test(values_of_each_type),
      cmocka_unit_test(all_errors_in_one_pass),
      cmocka_unit_test(misspelt_keys_at_each_level),
      cmocka_unit_test(errors_inside_a_misspelt_section),
      cmocka_unit_test(wrong_types),
      cmocka_unit_test(values_out_of_range),
      cmocka_unit_test(missing_keys_depend_on_the_command),
      cmocka_unit_test(keys_that_contradict_each_other),
      cmocka_unit_test(yaml_mistakes),
      cmocka_unit_test(hostile_texts),
      cmocka_unit_test(truncated_files),
      cmocka_unit_test(caret_under_wide_text),
      cmocka_unit_test(missing_file),
      cmocka_unit_test(set_goes_over_the_file),
      cmocka_unit_test(errors_in_set),
      cmocka_unit_test(later_rooms_report_in_the_same_style),
      cmocka_unit_test(resolved_reads_back_to_an_equal_run),
      cmocka_unit_test(resolved_holds_every_key),
      cmocka_unit_test(differences_between_runs),
      cmocka_unit_test(options_that_nobody_asked_for),
      cmocka_unit_test(lookups_in_a_tree),
      cmocka_unit_test(table_is_well_formed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
