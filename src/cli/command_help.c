/* fieldnet help, fieldnet version */
#include <stdio.h>

#include "cli/commands.h"
#include "config/schema.h"

fn_status fn_command_help(const fn_command_line *line) {
  if (fn_command_given(line, "man")) {
    fn_help_man(stdout);
  } else if (fn_command_given(line, "markdown")) {
    fn_help_markdown(stdout);
  } else if (fn_command_given(line, "completion")) {
    fn_help_completion(stdout);
  } else if (line->extra_count == 0) {
    fn_help_program(stdout);
  } else {
    const char *word = line->extra[0];
    const fn_command_entry *command = fn_command_find(word);
    const bool section = fn_section_find(word) != NULL;
    if (command && !section) {
      fn_help_command(stdout, command);
      return FN_OK;
    }
    if (command) printf("%s is also a command: fieldnet %s --help\n\n", word, word);
    FN_TRY(fn_help_key(stdout, word));
  }
  return FN_OK;
}

fn_status fn_command_version(const fn_command_line *line) {
  (void)line;
  printf("fieldnet %s\n", fn_version());
  return FN_OK;
}
