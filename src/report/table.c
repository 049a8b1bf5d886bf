#include "report/table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"

static int64_t occurrences(const char *text, const char *end, char c) {
  int64_t count = 0;
  for (; text < end; text++)
    count += *text == c;
  return count;
}

/** Cut the header into names. */
static void cut_names(fn_table *table, char *line) {
  for (int i = 0; i < table->columns; i++) {
    table->name[i] = line;
    char *comma = strchr(line, ',');
    if (!comma) break;
    *comma = '\0';
    line = comma + 1;
  }
}

/** A number and nothing else: strtod would look for one beyond the end of an empty line. */
static double number_at(const char *field) {
  char *end;
  if (!*field || !strchr("+-.0123456789nNiI", *field)) return (double)NAN;
  const double value = strtod(field, &end);
  return end > field ? value : (double)NAN;
}

static void read_rows(fn_table *table, const char *line) {
  for (int64_t row = 0; row < table->rows; row++) {
    for (int column = 0; column < table->columns; column++) {
      table->value[column * table->rows + row] = number_at(line);
      line += strcspn(line, ",\n");
      line += *line == ',';
    }
    line += strcspn(line, "\n"); // fields too many
    line += *line == '\n';
  }
}

fn_status fn_table_read(const char *path, fn_table *table) {
  *table = (fn_table){0};
  if (!fn_file_exists(path)) return FN_OK;
  size_t size;
  FN_TRY(fn_file_read(path, &table->text, &size));
  for (size_t i = 0; i < size; i++) // as a machine that lost its power may leave them
    if (table->text[i] == '\0') table->text[i] = ' ';
  char *end = memrchr(table->text, '\n', size);
  char *first = end ? strchr(table->text, '\n') : NULL;
  if (!end) {
    fn_table_free(table);
    return FN_OK;
  }
  *first = '\0';
  table->columns = 1 + (int)occurrences(table->text, first, ',');
  table->rows = occurrences(first + 1, end + 1, '\n');
  table->name = calloc((size_t)table->columns, sizeof *table->name);
  table->value = calloc((size_t)table->columns * (size_t)(table->rows + 1), sizeof(double));
  if (!table->name || !table->value) {
    fn_table_free(table);
    FN_FAIL(FN_ERR_MEMORY, "out of memory reading %s", path);
  }
  cut_names(table, table->text);
  read_rows(table, first + 1);
  return FN_OK;
}

const double *fn_table_column(const fn_table *table, const char *name) {
  for (int i = 0; i < table->columns; i++)
    if (table->name[i] && strcmp(table->name[i], name) == 0) return table->value + i * table->rows;
  return NULL;
}

void fn_table_free(fn_table *table) {
  free(table->name);
  free(table->value);
  free(table->text);
  *table = (fn_table){0};
}
