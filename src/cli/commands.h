/** @file commands.h
 *  The commands of the program and what a command is told.
 *
 *  A command is one entry of the table in commands.c and one file command_<name>.c, which exports
 *  fn_command_<name>. Help, man page, documentation and completion are made from the table.
 */
#ifndef FN_CLI_COMMANDS_H
#define FN_CLI_COMMANDS_H

#include <stdio.h>

#include "config/run.h"

/** An option of one command: --name, or --name VALUE when `value` is not NULL. */
typedef struct fn_command_option {
  const char *name;    /**< without dashes */
  const char *value;   /**< what the value stands for in help, e.g. "N"; NULL: a flag */
  const char *meaning; /**< one sentence */
} fn_command_option;

enum { FN_MAX_OPTIONS = 48 };

typedef struct fn_command_line fn_command_line;

typedef struct fn_command_entry {
  const char *name;
  const char *synopsis;     /**< what follows "fieldnet NAME" */
  const char *summary;      /**< one line */
  const char *details;      /**< paragraphs for the command's help, separated by empty lines */
  const char *examples;     /**< command lines, separated by newlines; NULL: none */
  bool takes_run;           /**< the first argument is RUN.yaml, and --set is accepted */
  bool takes_set;           /**< --set is accepted without RUN.yaml */
  int extra_min, extra_max; /**< further arguments */
  fn_command_option option[FN_MAX_OPTIONS + 1]; /**< ends with name NULL */
  fn_status (*function)(const fn_command_line *line);
} fn_command_entry;

/** Parsed arguments of a command; texts live as long as argv. */
struct fn_command_line {
  const fn_command_entry *command;
  const char *run_path;   /**< NULL when the command takes none */
  const char *const *set; /**< "key.path=value", shape [set_count] */
  int set_count;
  const char *const *extra; /**< arguments after RUN.yaml, shape [extra_count] */
  int extra_count;
  const char *value[FN_MAX_OPTIONS]; /**< by index in the table; flags: the option as given */
};

int fn_command_count(void);
const fn_command_entry *fn_command_at(int index);
/** NULL when there is none. */
const fn_command_entry *fn_command_find(const char *name);

/** Whether a flag, or an option with a value, was given. The name must be in the command's table:
 *  a name that is not is a defect and never given. */
bool fn_command_given(const fn_command_line *line, const char *option);
/** Value of an option, or the fallback when it was not given. */
const char *fn_command_text(const fn_command_line *line, const char *option, const char *fallback);
/** Numbers; FN_ERR_CONFIG naming option, value and range. *value holds the fallback on entry. */
fn_status fn_command_integer(const fn_command_line *line, const char *option, int64_t min,
                             int64_t max, int64_t *value);
fn_status fn_command_real(const fn_command_line *line, const char *option, double min, double max,
                          double *value);

/** fn_run_load with the line's RUN.yaml and --set arguments. Rank 0 prints all errors to standard
 *  error and keeps a message that says how many there were; the others clear theirs.
 *  Not collective: every rank reads the same file. */
fn_status fn_command_load(const fn_command_line *line, fn_command need, int rank, fn_run **run);

/** Find the command, parse its arguments, run it; the result is the exit code. What the command
 *  leaves in fn_error_message() is printed, so one that has told the user already, or that is not
 * on rank 0, clears it with fn_error_clear(). Does not touch MPI: commands that need it do. */
fn_status fn_cli(int argc, char **argv);

/* ---- help, all of it generated -------------------------------------------------------------- */

/** Overview of commands and exit codes. */
void fn_help_program(FILE *out);
void fn_help_command(FILE *out, const fn_command_entry *command);
/** One key, or all keys of a section; FN_ERR_CONFIG with the nearest name for other words. */
fn_status fn_help_key(FILE *out, const char *path);
/** Manual page fieldnet(1), roff. */
void fn_help_man(FILE *out);
/** docs/configuration.md */
void fn_help_markdown(FILE *out);
/** Completion for bash: commands, options, keys and choices after --set. */
void fn_help_completion(FILE *out);

/** What an exit code means; NULL past the end. */
typedef struct fn_exit_code {
  fn_status status;
  const char *meaning;
} fn_exit_code;
int fn_exit_code_count(void);
const fn_exit_code *fn_exit_code_at(int index);

/* ---- one file each ----------------------------------------------------------------------------
 */

fn_status fn_command_train(const fn_command_line *line);
fn_status fn_command_test(const fn_command_line *line);
fn_status fn_command_predict(const fn_command_line *line);
fn_status fn_command_check(const fn_command_line *line);
fn_status fn_command_describe(const fn_command_line *line);
fn_status fn_command_verify(const fn_command_line *line);
fn_status fn_command_bench(const fn_command_line *line);
/** bench --io */
fn_status fn_command_bench_cubes(const fn_command_line *line);
fn_status fn_command_data(const fn_command_line *line);
fn_status fn_command_job(const fn_command_line *line);
fn_status fn_command_status(const fn_command_line *line);
fn_status fn_command_report(const fn_command_line *line);
fn_status fn_command_sweep(const fn_command_line *line);
fn_status fn_command_help(const fn_command_line *line);
fn_status fn_command_version(const fn_command_line *line);

#endif
