/** @file table.h
 *  A CSV file of numbers as columns. Inside the report room only.
 */
#ifndef FN_REPORT_TABLE_H
#define FN_REPORT_TABLE_H

#include <fieldnet/fieldnet.h>

/** Zeros when the file does not exist or holds no whole line. Free with fn_table_free. */
typedef struct fn_table {
  int columns;
  int64_t rows;
  char **name;   /**< shape [columns] */
  double *value; /**< shape [columns][rows]; NaN where a field is empty or no number */
  char *text;    /**< the file, cut into names */
} fn_table;

/** Read what is there: a last line without its end is still being written and left out. */
fn_status fn_table_read(const char *path, fn_table *table);
/** Column of that name, shape [rows]; NULL when there is none. */
const double *fn_table_column(const fn_table *table, const char *name);
void fn_table_free(fn_table *table);

#endif
