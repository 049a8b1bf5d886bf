#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "report/sinks.h"

static const char STEPS_HEADER[] =
    "step,epoch,epoch_step,loss,lr,gradient_norm,gradient_first,gradient_last,"
    "samples_per_second,seconds,input_wait,exposed_communication,memory_peak";
static const char METRICS_HEADER[] = "epoch,step,train_loss,validation_loss,lr,seconds,best";
static const char CLASSES_HEADER[] = "epoch,step,train_loss,validation_loss,lr,seconds,best,"
                                     "validation_accuracy,validation_auc,validation_f1";

typedef struct table {
  const char *header;
  int column; // that holds the step
  int64_t resumed, last_epoch;
  bool seen_header, foreign;
} table;

static int commas(const char *line) {
  int count = 0;
  for (; (line = strchr(line, ',')); line++)
    count++;
  return count;
}

static int64_t step_of_row(void *user, const char *line) {
  table *t = user;
  if (!t->seen_header) {
    t->seen_header = true;
    t->foreign = strcmp(line, t->header) != 0;
    return FN_NO_STEP;
  }
  if (t->foreign) return FN_NO_STEP;
  if (commas(line) != commas(t->header)) return FN_NO_LINE; // torn, or two in one
  const char *field = line;
  for (int i = 0; i < t->column; i++)
    field = strchr(field, ',') + 1;
  const int64_t step = strtoll(field, NULL, 10);
  const int64_t epoch = strtoll(line, NULL, 10); // of metrics.csv
  if (step <= t->resumed && epoch > t->last_epoch) t->last_epoch = epoch;
  return step;
}

static fn_status put_row(FILE *file, const char *path, fn_text *row) {
  fn_text_add(row, "\n");
  const fn_status status = fn_report_put(file, path, row);
  fn_text_free(row);
  return status;
}

static fn_status open_table(const char *path, int64_t resumed_step, table *t, FILE **file) {
  t->resumed = resumed_step;
  FN_TRY(fn_report_trim(path, resumed_step, step_of_row, t));
  FN_CHECK(!t->foreign, FN_ERR_DATA,
           "%s: columns differ from \"%s\"; move the file away to go on logging", path, t->header);
  FN_TRY(fn_report_append(path, file));
  if (t->seen_header) return FN_OK;
  fn_text line = {0};
  fn_text_add(&line, "%s", t->header);
  return put_row(*file, path, &line);
}

fn_status fn_csv_open(const char *folder, int64_t resumed_step, bool classes, fn_csv *csv) {
  memset(csv, 0, sizeof *csv);
  csv->classes = classes;
  snprintf(csv->steps_path, sizeof csv->steps_path, "%s/steps.csv", folder);
  snprintf(csv->metrics_path, sizeof csv->metrics_path, "%s/metrics.csv", folder);
  table steps = {.header = STEPS_HEADER, .column = 0};
  table metrics = {.header = classes ? CLASSES_HEADER : METRICS_HEADER, .column = 1};
  FN_TRY(open_table(csv->steps_path, resumed_step, &steps, &csv->steps));
  FN_TRY(open_table(csv->metrics_path, resumed_step, &metrics, &csv->metrics));
  csv->epochs = metrics.last_epoch;
  return FN_OK;
}

static void add_number(fn_text *row, double value) {
  char number[40];
  fn_text_add(row, ",%s", fn_report_number(value, number, sizeof number));
}

fn_status fn_csv_step(fn_csv *csv, const fn_step_event *e) {
  fn_text row = {0};
  fn_text_add(&row, "%" PRId64 ",%" PRId64 ",%" PRId64, e->step, e->epoch, e->epoch_step);
  const double values[] = {e->loss,
                           e->lr,
                           e->gradient_norm,
                           e->gradient_first,
                           e->gradient_last,
                           (double)e->samples / e->seconds,
                           e->seconds,
                           e->input_wait,
                           e->exposed_communication};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
    add_number(&row, values[i]);
  fn_text_add(&row, ",%zu", e->memory_peak);
  return put_row(csv->steps, csv->steps_path, &row);
}

fn_status fn_csv_epoch(fn_csv *csv, const fn_epoch_event *e) {
  fn_text row = {0};
  fn_text_add(&row, "%" PRId64 ",%" PRId64, e->epoch, e->step);
  const double values[] = {e->train_loss, e->validation_loss, e->lr, e->seconds};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
    add_number(&row, values[i]);
  fn_text_add(&row, ",%d", e->best);
  const double metrics[] = {e->validation_accuracy, e->validation_auc, e->validation_f1};
  for (int i = 0; i < 3 && csv->classes; i++)
    add_number(&row, metrics[i]);
  return put_row(csv->metrics, csv->metrics_path, &row);
}

void fn_csv_close(fn_csv *csv) {
  if (csv->steps) fclose(csv->steps);
  if (csv->metrics) fclose(csv->metrics);
  csv->steps = csv->metrics = NULL;
}

fn_status fn_csv_history(const fn_csv *csv, double **values, int64_t *count) {
  char *bytes;
  size_t length;
  FN_TRY(fn_file_read(csv->metrics_path, &bytes, &length));
  int64_t rows = 0;
  for (size_t i = 0; i < length; i++)
    rows += bytes[i] == '\n';
  double *block = malloc(sizeof *block * 3 * (size_t)(rows + 1));
  if (!block) {
    free(bytes);
    FN_FAIL(FN_ERR_MEMORY, "no memory for %lld rows of %s", (long long)rows, csv->metrics_path);
  }
  rows = rows > 0 ? rows - 1 : 0; // the header
  char *line = strchr(bytes, '\n');
  for (int64_t i = 0; i < rows; i++, line = strchr(line, '\n')) {
    char *field = ++line;
    for (int column = 0; column < 4; column++) {
      char *end;
      const double value = strtod(field, &end);
      // epoch, (step,) train_loss, validation_loss; an empty field is NaN
      if (column != 1) {
        block[(column > 1 ? column - 1 : 0) * rows + i] = end == field ? (double)NAN : value;
      }
      field = strchr(field, ',');
      if (!field) break;
      field++;
    }
  }
  free(bytes);
  *values = block;
  *count = rows;
  return FN_OK;
}
