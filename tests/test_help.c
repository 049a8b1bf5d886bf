/* help: what is generated from the tables, against the committed documents and other programs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/system.h"
#include "base/text.h"
#include "cli/commands.h"
#include "config/schema.h"

/* What a generator prints, malloc'ed. */
static char *printed(void (*print)(FILE *out)) {
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  assert_non_null(out);
  print(out);
  fclose(out);
  return text;
}

/* A file of the repository, malloc'ed; the test is skipped where the sources are not at hand. */
static void source_file(const char *name, char **bytes) {
  const char *folder = getenv("SOURCE_DIR");
  if (!folder) skip();
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  assert_int_equal(fn_file_read(path, bytes, NULL), FN_OK);
}

/* To renew it: fieldnet help --markdown > docs/configuration.md */
static void committed_reference_is_the_generated_one(void **state) {
  (void)state;
  char *committed, *generated = printed(fn_help_markdown);
  source_file("docs/configuration.md", &committed);
  assert_string_equal(committed, generated);
  free(committed);
  free(generated);
}

/* The options of map2map page, section 1. */
static const char *const map2map_options[] = {"in-norms",
                                              "tgt-norms",
                                              "crop",
                                              "crop-start",
                                              "crop-stop",
                                              "crop-step",
                                              "in-pad",
                                              "pad",
                                              "tgt-pad",
                                              "scale-factor",
                                              "model",
                                              "criterion",
                                              "load-state",
                                              "load-state-non-strict",
                                              "batch-size",
                                              "batches",
                                              "loader-workers",
                                              "callback-at",
                                              "misc-kwargs",
                                              "train-in-patterns",
                                              "train-tgt-patterns",
                                              "val-in-patterns",
                                              "val-tgt-patterns",
                                              "augment",
                                              "aug-shift",
                                              "aug-add",
                                              "aug-mul",
                                              "adv-model",
                                              "adv-model-spectral-norm",
                                              "adv-criterion",
                                              "adv-r1-reg-interval",
                                              "cgan",
                                              "adv-start",
                                              "adv-label-smoothing",
                                              "instance-noise",
                                              "instance-noise-batches",
                                              "optimizer",
                                              "lr",
                                              "optimizer-args",
                                              "adv-lr",
                                              "adv-optimizer-args",
                                              "reduce-lr-on-plateau",
                                              "scheduler-args",
                                              "init-weight-std",
                                              "epochs",
                                              "seed",
                                              "div-data",
                                              "div-shuffle-dist",
                                              "dist-backend",
                                              "log-interval",
                                              "detect-anomaly",
                                              "test-in-patterns",
                                              "test-tgt-patterns",
                                              "num-threads"};

static void every_map2map_option_is_documented(void **state) {
  (void)state;
  char *text;
  source_file("docs/map2map_options.md", &text);
  for (size_t i = 0; i < sizeof map2map_options / sizeof map2map_options[0]; i++) {
    char quoted[64];
    snprintf(quoted, sizeof quoted, "`--%s`", map2map_options[i]);
    if (!strstr(text, quoted)) print_error("%s is not documented\n", quoted);
    assert_non_null(strstr(text, quoted));
  }
  free(text);
}

/* Whatever looks like a key in that document is one. */
static void documented_keys_exist(void **state) {
  (void)state;
  char *text;
  source_file("docs/map2map_options.md", &text);
  int found = 0;
  for (const char *at = strchr(text, '`'); at; at = strchr(at, '`')) {
    const size_t length = strspn(++at, "abcdefghijklmnopqrstuvwxyz0123456789_.");
    char word[128];
    snprintf(word, sizeof word, "%.*s", (int)length, at);
    const char *dot = strchr(word, '.');
    at += strcspn(at, "`");
    if (*at == '`') at++;
    if (!dot || fn_text_starts(dot, ".h5") || fn_text_starts(dot, ".pt")) continue;
    char section[128];
    snprintf(section, sizeof section, "%.*s", (int)(dot - word), word);
    if (!fn_section_find(section)) continue; // a file name
    if (!fn_key_find(word)) print_error("%s is no key\n", word);
    assert_non_null(fn_key_find(word));
    found++;
  }
  assert_true(found > 40);
  free(text);
}

/* The schema's own cross references name options that map2map has. */
static void cross_references_are_map2map_options(void **state) {
  (void)state;
  for (int i = 0; i < fn_key_count(); i++) {
    const char *option = fn_key_at(i)->map2map;
    bool known = option == NULL;
    for (size_t j = 0; j < sizeof map2map_options / sizeof map2map_options[0] && !known; j++)
      known = strcmp(option, map2map_options[j]) == 0;
    if (!known) print_error("map2map has no --%s\n", option);
    assert_true(known);
  }
}

static void help_of_a_key(void **state) {
  (void)state;
  char *text = NULL;
  size_t size = 0;
  FILE *out = open_memstream(&text, &size);
  assert_int_equal(fn_help_key(out, "data.shuffle_distance"), FN_OK);
  fclose(out);
  assert_non_null(strstr(text, "type:    number\n"));
  assert_non_null(strstr(text, "default: 1\n"));
  assert_non_null(strstr(text, "unit:    files\n"));
  assert_non_null(strstr(text, "range:   at least 0\n"));
  free(text);
  out = open_memstream(&text, &size);
  assert_int_equal(fn_help_key(out, "checkpoint"), FN_OK);
  fclose(out);
  for (int i = 0; i < fn_key_count(); i++) {
    const char *path = fn_key_at(i)->path;
    assert_true((strstr(text, path) != NULL) == fn_text_starts(path, "checkpoint.") ||
                !strchr(path, '.'));
  }
  free(text);
  assert_int_equal(fn_help_key(stdout, "data.corp"), FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "did you mean 'data.crop'?"));
  assert_int_equal(fn_help_key(stdout, "batch-size"), FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "did you mean 'train.batch'?"));
}

static fn_status cli(const char *const *words) {
  char *argv[16];
  int argc = 0;
  argv[argc++] = strdup("fieldnet");
  for (; *words; words++)
    argv[argc++] = strdup(*words);
  argv[argc] = NULL;
  const fn_status status = fn_cli(argc, argv);
  for (int i = 0; i < argc; i++)
    free(argv[i]);
  return status;
}

#define REFUSED(part, ...)                                                                         \
  do {                                                                                             \
    assert_int_equal(cli((const char *[]){__VA_ARGS__, NULL}), FN_ERR_CONFIG);                     \
    if (!strstr(fn_error_message(), part)) print_error("found: %s\n", fn_error_message());         \
    assert_non_null(strstr(fn_error_message(), part));                                             \
  } while (0)

static void wrong_command_lines(void **state) {
  (void)state;
  REFUSED("unknown command 'trian', did you mean 'train'?", "trian");
  REFUSED("train: expected the run file", "train");
  REFUSED("train: unknown option '--sett', did you mean '--set'?", "train", "a.yaml", "--sett");
  REFUSED("train: unknown option '-x'", "train", "a.yaml", "-x");
  REFUSED("train: --set needs key=value after it", "train", "a.yaml", "--set");
  REFUSED("train: unexpected argument 'seed=1', did you mean '--set seed=1'?", "train", "a.yaml",
          "seed=1");
  REFUSED("verify: missing arguments", "verify", "a.yaml");
  REFUSED("help: --man takes no value", "help", "--man=3");
  REFUSED("help: unexpected argument 'b'", "help", "a", "b");
  REFUSED("unknown key or command 'optimizer.momentun', did you mean 'optimizer.momentum'?", "help",
          "optimizer.momentun");
}

/* What bash offers for a line, its words separated by spaces; true when `word` is among them. */
static bool completes(const char *script, const char *words, int index, const char *word) {
  fn_text command = {0};
  fn_text_add(&command,
              "bash -c '. %s; COMP_WORDS=(%s); COMP_CWORD=%d; _fieldnet; "
              "printf \"%%s\\n\" \"${COMPREPLY[@]}\"'",
              script, words, index);
  FILE *out = popen(command.data, "r");
  assert_non_null(out);
  char line[256];
  bool found = false;
  while (fgets(line, sizeof line, out)) {
    line[strcspn(line, "\n")] = '\0';
    found = found || strcmp(line, word) == 0;
  }
  pclose(out);
  fn_text_free(&command);
  return found;
}

static void completion_in_bash(void **state) {
  (void)state;
  char path[] = "/tmp/fieldnet_completion_XXXXXX";
  const int file = mkstemp(path);
  assert_true(file >= 0);
  FILE *out = fdopen(file, "w");
  fn_help_completion(out);
  fclose(out);
  const bool commands = completes(path, "fieldnet tr", 1, "train");
  const bool options = completes(path, "fieldnet verify a.yaml --fa", 3, "--factor");
  const bool no_set = completes(path, "fieldnet help --s", 2, "--set");
  const bool keys = completes(path, "fieldnet train a.yaml --set opt", 4, "optimizer.lr=");
  const bool choices =
      completes(path, "fieldnet train a.yaml --set compute.backend = re", 6, "reference");
  const bool empty = completes(path, "fieldnet train a.yaml --set compute.backend =", 5, "cpu");
  const bool flags = completes(path, "fieldnet train a.yaml --set data.augment = t", 6, "true");
  unlink(path);
  assert_true(commands && options && keys && choices && empty && flags);
  assert_false(no_set);
}

/* groff finds nothing to complain about and shows every key and exit code. */
static void manual_page(void **state) {
  (void)state;
  if (system("command -v groff >/dev/null 2>&1") != 0) skip();
  char path[] = "/tmp/fieldnet_man_XXXXXX", command[256];
  const int file = mkstemp(path);
  assert_true(file >= 0);
  FILE *page = fdopen(file, "w");
  fn_help_man(page);
  fclose(page);
  snprintf(command, sizeof command, "groff -man -Tascii -P-cbou -ww %s 2>&1", path);
  FILE *out = popen(command, "r");
  assert_non_null(out);
  fn_text text = {0};
  char line[1024];
  while (fgets(line, sizeof line, out))
    fn_text_add(&text, "%s", line);
  assert_int_equal(pclose(out), 0);
  unlink(path);
  assert_null(strstr(text.data, "warning:"));
  assert_null(strstr(text.data, "error:"));
  for (int i = 0; i < fn_key_count(); i++) {
    if (!strstr(text.data, fn_key_at(i)->path)) print_error("no %s\n", fn_key_at(i)->path);
    assert_non_null(strstr(text.data, fn_key_at(i)->path));
  }
  assert_non_null(strstr(text.data, "EXIT STATUS"));
  assert_non_null(strstr(text.data, "       75 "));
  fn_text_free(&text);
}

/* Words of the examples that look like commands, options and keys are those of the tables. */
static void examples_are_of_the_program(void **state) {
  (void)state;
  for (int i = 0; i < fn_command_count(); i++) {
    const fn_command_entry *command = fn_command_at(i);
    if (strcmp(command->name, "version") == 0) continue;
    assert_non_null(command->examples);
    char name[64], *text = strdup(command->examples);
    snprintf(name, sizeof name, "fieldnet %s ", command->name);
    assert_non_null(strstr(text, name));
    for (char *rest = NULL, *line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
      assert_true(strlen(line) <= 90);
      char *words = strstr(line, name), *next = NULL;
      if (!words) continue; // another program's
      char *end = strchr(words, '|');
      if (end) *end = 0;
      for (char *word = strtok_r(words, " ", &next); word; word = strtok_r(NULL, " ", &next)) {
        if (strcmp(word, "--set") == 0) {
          assert_true(command->takes_run);
          word = strtok_r(NULL, "=", &next);
          if (!fn_key_find(word)) fail_msg("%s: no key %s", name, word);
          strtok_r(NULL, " ", &next);
        } else if (strncmp(word, "--", 2) == 0) {
          const fn_command_option *o = command->option;
          while (o->name && strcmp(o->name, word + 2) != 0)
            o++;
          if (!o->name) fail_msg("%s: no option %s", name, word);
        }
      }
    }
    free(text);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(committed_reference_is_the_generated_one),
      cmocka_unit_test(every_map2map_option_is_documented),
      cmocka_unit_test(documented_keys_exist),
      cmocka_unit_test(cross_references_are_map2map_options),
      cmocka_unit_test(help_of_a_key),
      cmocka_unit_test(wrong_command_lines),
      cmocka_unit_test(completion_in_bash),
      cmocka_unit_test(manual_page),
      cmocka_unit_test(examples_are_of_the_program),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
