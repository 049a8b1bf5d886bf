/* Cells that no network can take. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "data/norms.h"
#include "data/parts.h"

static int64_t first_bad(const float *values, int64_t count) {
  int64_t i = 0;
  while (i < count && isfinite(values[i]))
    i++;
  return i;
}

/** A block of one field as its file has it, and what its norm makes of that. */
typedef struct block {
  const fn_column *column;
  const fn_kind *kind;
  int64_t file;
  const fn_region *region;
  int64_t cells, count; /**< of one channel; of all */
  float *value;         /**< [count] */
} block;

/** "cell [3, 0, 12]" of the file, and its channel if there are others; `at` is the value's place in
 *  the block. */
static const char *cell_text(const block *b, int spatial, int64_t at, char *text, size_t size) {
  int64_t index[FN_MAX_SPATIAL], rest = at % b->cells;
  for (int d = spatial - 1; d >= 0; d--) {
    const int64_t edge = b->kind->size[d];
    index[d] = ((b->region->start[d] + rest % b->region->extent[d]) % edge + edge) % edge;
    rest /= b->region->extent[d];
  }
  int used = snprintf(text, size, "cell [");
  for (int d = 0; d < spatial; d++)
    used += snprintf(text + used, size - (size_t)used, d ? ", %lld" : "%lld", (long long)index[d]);
  used += snprintf(text + used, size - (size_t)used, "]");
  if (b->column->channels > 1)
    snprintf(text + used, size - (size_t)used, " of channel %lld", (long long)(at / b->cells));
  return text;
}

static const char *number_text(float value, char *text, size_t size) {
  snprintf(text, size, isnan(value) ? "nan" : "%g", (double)value);
  return text;
}

static fn_status check_block(fn_dataset *dataset, const block *b) {
  const int spatial = dataset->info.spatial;
  const fn_source *source = &b->column->source[b->file];
  char cell[160], number[32], made[32];
  FN_TRY(fn_source_read(dataset, b->column, b->file, b->region, b->value));
  int64_t at = first_bad(b->value, b->count);
  FN_CHECK(at == b->count, FN_ERR_DIVERGED, "%s: %s is %s", source->shown,
           cell_text(b, spatial, at, cell, sizeof cell),
           number_text(b->value[at], number, sizeof number));
  FN_TRY(fn_norm_apply(b->column->norm, b->value, b->column->channels, b->cells, false,
                       dataset->run->data.norm_options));
  at = first_bad(b->value, b->count);
  if (at == b->count) return FN_OK;
  number_text(b->value[at], made, sizeof made);
  FN_TRY(fn_source_read(dataset, b->column, b->file, b->region, b->value));
  FN_FAIL(FN_ERR_DIVERGED, "%s: %s is %s, of which the norm %s makes %s", source->shown,
          cell_text(b, spatial, at, cell, sizeof cell),
          number_text(b->value[at], number, sizeof number), b->column->norm->name, made);
}

fn_status fn_dataset_check_finite(fn_dataset *dataset, int64_t epoch, int64_t sample) {
  FN_TRY(fn_dataset_check_sample(dataset, sample));
  if (dataset->cubes) return FN_OK; // whoever reads them checks them
  fn_augmentation random;
  fn_region region[2];
  fn_sample_locate(dataset, epoch, sample, &random, &region[0], &region[1]);
  fn_status status = FN_OK;
  for (int f = 0; f < dataset->columns && status == FN_OK; f++) {
    const fn_column *column = &dataset->column[f];
    const int64_t file = sample / dataset->info.crops;
    const fn_region *r = &region[column->target];
    const int64_t cells = fn_region_cells(r, dataset->info.spatial);
    block b = {.column = column,
               .kind = &dataset->kind[column->source[file].kind],
               .file = file,
               .region = r,
               .cells = cells,
               .count = column->channels * cells};
    b.value = malloc((size_t)b.count * sizeof *b.value);
    FN_CHECK(b.value, FN_ERR_MEMORY, "no memory for a sample of %lld values", (long long)b.count);
    status = check_block(dataset, &b);
    free(b.value);
  }
  return status;
}
