/* Help for people at a terminal, from the tables of commands and keys. */
#include <string.h>

#include "base/text.h"
#include "cli/commands.h"
#include "config/schema.h"

enum { WIDTH = 92 };

/* Words of `text` wrapped to the width, each line after `indent` spaces; the first line goes on at
 * column `at`. A newline in the text ends a paragraph. */
static void wrap(FILE *out, const char *text, int indent, int at) {
  int column = at;
  while (*text) {
    if (*text == '\n') {
      fprintf(out, "\n%*s", text[1] == '\n' || text[1] == '\0' ? 0 : indent, "");
      column = indent;
      text++;
      continue;
    }
    const size_t word = strcspn(text, " \n");
    if (column > indent && column + 1 + (int)word > WIDTH) {
      fprintf(out, "\n%*s", indent, "");
      column = indent;
    }
    if (column > indent) {
      fputc(' ', out);
      column++;
    }
    fwrite(text, 1, word, out);
    column += (int)word;
    text += word;
    while (*text == ' ')
      text++;
  }
  fputc('\n', out);
}

void fn_help_program(FILE *out) {
  fprintf(out,
          "fieldnet %s trains and runs convolutional networks on scientific fields.\n\n"
          "Usage: fieldnet COMMAND ...\n\nCommands:\n",
          fn_version());
  for (int i = 0; i < fn_command_count(); i++) {
    const fn_command_entry *command = fn_command_at(i);
    fprintf(out, "  %-10s %s\n", command->name, command->summary);
  }
  fprintf(out, "\nMore:\n"
               "  fieldnet COMMAND --help    arguments and options of a command\n"
               "  fieldnet help KEY          type, default, unit, range and meaning of a "
               "configuration key\n"
               "  fieldnet help SECTION      all keys of a section:");
  for (int i = 0; i < fn_section_count(); i++)
    if (!strchr(fn_section_at(i)->path, '.')) fprintf(out, " %s", fn_section_at(i)->path);
  fprintf(out, "\n\nExit codes:\n");
  for (int i = 0; i < fn_exit_code_count(); i++)
    fprintf(out, "  %-4d %s\n", (int)fn_exit_code_at(i)->status, fn_exit_code_at(i)->meaning);
}

static void print_option(FILE *out, const char *name, const char *value, const char *meaning) {
  char label[64];
  snprintf(label, sizeof label, "--%s%s%s", name, value ? " " : "", value ? value : "");
  fprintf(out, "  %-20s ", label);
  wrap(out, meaning, 23, 23);
}

void fn_help_command(FILE *out, const fn_command_entry *command) {
  fprintf(out, "Usage: fieldnet %s%s%s\n\n", command->name, command->synopsis[0] ? " " : "",
          command->synopsis);
  fprintf(out, "%c%s.\n", command->summary[0] - 'a' + 'A', command->summary + 1);
  if (command->details[0]) {
    fputc('\n', out);
    wrap(out, command->details, 0, 0);
  }
  fprintf(out, "\nOptions:\n");
  for (const fn_command_option *o = command->option; o->name; o++)
    print_option(out, o->name, o->value, o->meaning);
  if (command->takes_run)
    print_option(out, "set", "KEY=VALUE",
                 "set a configuration key over the run file; VALUE is YAML; may be repeated");
  if (command->takes_set)
    print_option(out, "set", "KEY=VALUE", "ask: a value chosen outside; VALUE is YAML; repeated");
  print_option(out, "help", NULL, "print this text");
  if (!command->examples) return;
  fprintf(out, "\nExamples:\n");
  for (const char *line = command->examples; *line;) {
    const size_t length = strcspn(line, "\n");
    fprintf(out, "  %.*s\n", (int)length, line);
    line += length + (line[length] == '\n');
  }
}

static void print_key(FILE *out, const fn_key *key) {
  char range[160];
  fprintf(out, "%s\n    ", key->path);
  wrap(out, key->meaning, 4, 4);
  fprintf(out, "    type:    %s%s\n", fn_key_type_text(key), key->nullable ? ", or null" : "");
  fprintf(out, "    default: %s\n", fn_key_default_text(key));
  if (key->unit && key->unit[0]) fprintf(out, "    unit:    %s\n", key->unit);
  if (fn_key_range_text(key, range, sizeof range)[0]) fprintf(out, "    range:   %s\n", range);
  if (key->map2map) fprintf(out, "    map2map: --%s\n", key->map2map);
}

static bool in_section(const char *path, const char *section) {
  const size_t length = strlen(section);
  return strncmp(path, section, length) == 0 && path[length] == '.';
}

fn_status fn_help_key(FILE *out, const char *path) {
  const fn_key *key = fn_key_find(path);
  if (key) {
    print_key(out, key);
    return FN_OK;
  }
  const fn_section *section = fn_section_find(path);
  if (section) {
    fprintf(out, "%s: %s\n", section->path, section->meaning);
    for (int i = 0; i < fn_key_count(); i++) {
      if (!in_section(fn_key_at(i)->path, path)) continue;
      fputc('\n', out);
      print_key(out, fn_key_at(i));
    }
    return FN_OK;
  }
  // The keys of a sweep's file are no keys of a run.
  if (in_section(path, "sweep"))
    FN_FAIL(FN_ERR_CONFIG,
            "help: '%s' is no key of a run: fieldnet sweep --help tells of the keys of a sweep's "
            "file, docs/sweeps.md of all of them",
            path);
  const char *names[512];
  int count = 0;
  for (int i = 0; i < fn_key_count() && count < 256; i++)
    names[count++] = fn_key_at(i)->path;
  for (int i = 0; i < fn_section_count() && count < 384; i++)
    names[count++] = fn_section_at(i)->path;
  for (int i = 0; i < fn_command_count() && count < 512; i++)
    names[count++] = fn_command_at(i)->name;
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "no memory");
  // A bare last component, or the name of a map2map option, leads to its key.
  const char *near = fn_key_meant(arena, "", path);
  if (!near) near = fn_text_closest(path, names, count);
  fn_status status;
  if (near)
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                          "help: unknown key or command '%s', did you mean '%s'?", path, near);
  else
    status = fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                          "help: unknown key or command '%s' (fieldnet --help lists commands and "
                          "sections)",
                          path);
  fn_arena_destroy(arena);
  return status;
}
