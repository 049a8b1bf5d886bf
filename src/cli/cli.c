/* From argv to one command. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/commands.h"

static int option_count(const fn_command_entry *command) {
  int count = 0;
  while (command->option[count].name)
    count++;
  return count;
}

static int option_index(const fn_command_entry *command, const char *name, size_t length) {
  for (int i = 0; command->option[i].name; i++)
    if (strlen(command->option[i].name) == length &&
        strncmp(command->option[i].name, name, length) == 0)
      return i;
  return -1;
}

/* ---- what commands ask ------------------------------------------------------------------------
 */

static const char *given(const fn_command_line *line, const char *option) {
  const int index = option_index(line->command, option, strlen(option));
  return index < 0 ? NULL : line->value[index];
}

bool fn_command_given(const fn_command_line *line, const char *option) {
  return given(line, option) != NULL;
}

const char *fn_command_text(const fn_command_line *line, const char *option, const char *fallback) {
  const char *text = given(line, option);
  return text ? text : fallback;
}

fn_status fn_command_integer(const fn_command_line *line, const char *option, int64_t min,
                             int64_t max, int64_t *value) {
  const char *text = given(line, option);
  if (!text) return FN_OK;
  char *end;
  errno = 0;
  const long long read = strtoll(text, &end, 10);
  FN_CHECK(errno == 0 && end != text && *end == '\0' && read >= min && read <= max, FN_ERR_CONFIG,
           "--%s: expected an integer from %lld to %lld, found '%s'", option, (long long)min,
           (long long)max, text);
  *value = read;
  return FN_OK;
}

fn_status fn_command_real(const fn_command_line *line, const char *option, double min, double max,
                          double *value) {
  const char *text = given(line, option);
  if (!text) return FN_OK;
  char *end;
  const double read = strtod(text, &end);
  FN_CHECK(end != text && *end == '\0' && isfinite(read) && read >= min && read <= max,
           FN_ERR_CONFIG, "--%s: expected a number from %g to %g, found '%s'", option, min, max,
           text);
  *value = read;
  return FN_OK;
}

fn_status fn_command_load(const fn_command_line *line, fn_command need, int rank, fn_run **run) {
  char *errors = NULL;
  const fn_status status =
      fn_run_load(line->run_path, line->set, line->set_count, need, run, &errors);
  if (errors && rank == 0) fputs(errors, stderr);
  if (rank != 0) fn_error_clear(); // one voice
  free(errors);
  return status;
}

/* ---- parsing ------------------------------------------------------------------------------------
 */

/* Room for all arguments, filled by one pass over argv. */
typedef struct arguments {
  fn_command_line line;
  const char **set, **extra;
  bool help;
} arguments;

static fn_status unknown_option(const fn_command_entry *command, const char *argument) {
  const char *names[FN_MAX_OPTIONS + 2];
  int count = option_count(command);
  for (int i = 0; i < count; i++)
    names[i] = command->option[i].name;
  names[count++] = "help";
  if (command->takes_run || command->takes_set) names[count++] = "set";
  const char *name = argument + strspn(argument, "-");
  const char *near = fn_text_closest(name, names, count);
  FN_CHECK(near == NULL, FN_ERR_CONFIG, "%s: unknown option '%s', did you mean '--%s'?",
           command->name, argument, near);
  FN_FAIL(FN_ERR_CONFIG, "%s: unknown option '%s' (fieldnet %s --help lists them)", command->name,
          argument, command->name);
}

/* The option at argv[*i]; *i moves to the last argument used. */
static fn_status parse_option(arguments *a, int argc, char **argv, int *i) {
  const fn_command_entry *command = a->line.command;
  const char *argument = argv[*i];
  if (strcmp(argument, "-h") == 0 || strcmp(argument, "--help") == 0) {
    a->help = true;
    return FN_OK;
  }
  if (strcmp(argument, "-o") == 0 && option_index(command, "output", 6) >= 0) argument = "--output";
  if (strncmp(argument, "--", 2) != 0) return unknown_option(command, argument);
  const char *name = argument + 2, *equals = strchr(name, '=');
  const size_t length = equals ? (size_t)(equals - name) : strlen(name);
  const bool may_set = command->takes_run || command->takes_set,
             is_set = may_set && length == 3 && strncmp(name, "set", 3) == 0;
  const int index = is_set ? -1 : option_index(command, name, length);
  if (!is_set && index < 0) return unknown_option(command, argument);
  if (!is_set && !command->option[index].value) {
    FN_CHECK(!equals, FN_ERR_CONFIG, "%s: --%s takes no value", command->name,
             command->option[index].name);
    a->line.value[index] = argument;
    return FN_OK;
  }
  const char *value = equals ? equals + 1 : NULL;
  if (!value) {
    FN_CHECK(*i + 1 < argc, FN_ERR_CONFIG, "%s: --%s needs %s after it", command->name, name,
             is_set ? "key=value" : command->option[index].value);
    value = argv[++*i];
  }
  if (is_set)
    a->set[a->line.set_count++] = value;
  else
    a->line.value[index] = value;
  return FN_OK;
}

static fn_status parse_argument(arguments *a, const char *argument) {
  const fn_command_entry *command = a->line.command;
  if (command->takes_run && !a->line.run_path) {
    a->line.run_path = argument;
    return FN_OK;
  }
  if (a->line.extra_count >= command->extra_max) {
    FN_CHECK(!command->takes_run || !strchr(argument, '='), FN_ERR_CONFIG,
             "%s: unexpected argument '%s', did you mean '--set %s'?", command->name, argument,
             argument);
    FN_FAIL(FN_ERR_CONFIG, "%s: unexpected argument '%s'", command->name, argument);
  }
  a->extra[a->line.extra_count++] = argument;
  return FN_OK;
}

static fn_status parse(arguments *a, int argc, char **argv) {
  const fn_command_entry *command = a->line.command;
  bool options = true;
  for (int i = 0; i < argc; i++) {
    if (options && strcmp(argv[i], "--") == 0)
      options = false;
    else if (options && argv[i][0] == '-' && argv[i][1] != '\0')
      FN_TRY(parse_option(a, argc, argv, &i));
    else
      FN_TRY(parse_argument(a, argv[i]));
  }
  if (a->help) return FN_OK;
  FN_CHECK(!command->takes_run || a->line.run_path, FN_ERR_CONFIG,
           "%s: expected the run file: fieldnet %s %s", command->name, command->name,
           command->synopsis);
  FN_CHECK(a->line.extra_count >= command->extra_min, FN_ERR_CONFIG,
           "%s: missing arguments: fieldnet %s %s", command->name, command->name,
           command->synopsis);
  return FN_OK;
}

static fn_status run_command(const fn_command_entry *command, int argc, char **argv) {
  arguments a = {.line = {.command = command}};
  const size_t room = sizeof(char *) * (size_t)(argc + 1);
  a.set = malloc(room);
  a.extra = malloc(room);
  fn_status status = FN_ERR_MEMORY;
  if (a.set && a.extra) status = parse(&a, argc, argv);
  a.line.set = a.set;
  a.line.extra = a.extra;
  if (status == FN_OK && a.help)
    fn_help_command(stdout, command);
  else if (status == FN_OK)
    status = command->function(&a.line);
  free(a.set);
  free(a.extra);
  return status;
}

static fn_status unknown_command(const char *word) {
  const char *names[32];
  int count = 0;
  for (; count < fn_command_count() && count < 32; count++)
    names[count] = fn_command_at(count)->name;
  const char *near = fn_text_closest(word, names, count);
  FN_CHECK(near == NULL, FN_ERR_CONFIG, "unknown command '%s', did you mean '%s'?", word, near);
  FN_FAIL(FN_ERR_CONFIG, "unknown command '%s' (fieldnet --help lists them)", word);
}

fn_status fn_cli(int argc, char **argv) {
  fn_error_clear();
  if (argc < 2) {
    fn_help_program(stderr);
    return FN_ERR_CONFIG;
  }
  const char *word = argv[1];
  if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) word = "help";
  if (strcmp(word, "--version") == 0) word = "version";
  const fn_command_entry *command = fn_command_find(word);
  const fn_status status =
      command ? run_command(command, argc - 2, argv + 2) : unknown_command(word);
  const char *message = fn_error_message();
  if (status != FN_OK && !fn_is_stop(status) && message[0])
    fprintf(stderr, "fieldnet: %s\n", message);
  return status;
}
