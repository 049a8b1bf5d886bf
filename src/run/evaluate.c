/* Test and prediction: crops through the network, norms undone, fields put together again, scores.
 * map2map page, section 10, with the fixes of 11.1. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "data/norms.h"
#include "data/spectrum.h"
#include "field/array.h"
#include "run/assemble.h"
#include "run/checkpoint.h"
#include "run/physical.h"
#include "run/run_loop.h"
#include "run/signals.h"
#include "run/tile.h"
#include "run/trained.h"

/** Sums per file, over the crops of all ranks. */
enum { SUM_LOSS, SUM_PHYSICAL, SUM_INPUT, SUM_COUNT, SUM_BAD, SUMS };
/** Sums of spectra over files. */
enum { POWER_INPUT, POWER_OUTPUT, POWER_TARGET, CROSS_OUTPUT, CROSS_INPUT, SPECTRA };

typedef struct tester {
  const fn_run *run;
  fn_dist *dist;
  bool predict;
  fn_dataset *dataset;
  fn_dataset_info info; /**< target channels filled in from the state when predicting */
  fn_progress progress;
  fn_engine *engine;
  fn_group group;
  fn_physical *physical;          /**< losses in physical units; NULL when predicting */
  int64_t window[FN_MAX_SPATIAL]; /**< cells of what is compared and pasted */
  int64_t whole[FN_MAX_SPATIAL]; /**< cells of the program's windows, of which that is the middle */
  int64_t offset[FN_MAX_SPATIAL]; /**< first of them from anchor * scale_factor */
  int64_t window_cells;
  fn_tile tile;             /**< crops instead of data.crop */
  int64_t batch;            /**< crops computed together */
  fn_field_writer **writer; /**< [target_fields] output files that crops go to as they come; NULL:
                               the field is put together in memory */
  bool
      has_input; /**< the input, interpolated if coarser, can stand for the output: same channels */
  int parts;     /**< canvases: output, and when testing target and input */
  double *sums;  /**< [files][SUMS] */
  double *power; /**< [SPECTRA][bins] */
  fn_spectrum *spectrum; /**< NULL: no spectra */
  double spectrum_files, written;
} tester;

/* ---- start --------------------------------------------------------------------------------------
 */

static fn_status open_data(tester *t) {
  FN_TRY(fn_dataset_create(t->run, t->predict ? FN_STAGE_PREDICT : FN_STAGE_TEST, &t->dataset));
  t->info = *fn_dataset_get_info(t->dataset);
  if (!t->predict) return FN_OK;
  FN_CHECK(t->progress.target_fields > 0, FN_ERR_CHECKPOINT,
           "the state does not say what the network's output is; it cannot be used for predict");
  t->info.target_fields = t->progress.target_fields;
  t->info.target_channels = 0;
  for (int f = 0; f < t->progress.target_fields; f++)
    t->info.target_channels += t->progress.target_field_channels[f];
  return FN_OK;
}

static int64_t pad_low(const fn_integers *pad, int spatial, int axis) {
  if (pad->count == 0) return 0;
  if (pad->count == 1) return pad->value[0];
  return pad->count == spatial ? pad->value[axis] : pad->value[2 * axis];
}

static int64_t pad_high(const fn_integers *pad, int spatial, int axis) {
  return pad->count == 2 * spatial && pad->count > 1 ? pad->value[2 * axis + 1]
                                                     : pad_low(pad, spatial, axis);
}

/** Where the compared window lies relative to a crop's anchor, in cells of the output. */
static fn_status find_window(tester *t) {
  const fn_run *run = t->run;
  const int spatial = t->info.spatial;
  const int64_t s = run->data.scale_factor;
  fn_program *program;
  FN_TRY(fn_engine_program_with(t->engine, false, !t->predict, 1, false, true, &program));
  const fn_shape *output = fn_program_output_shape(program, "output");
  const fn_shape *window = fn_program_output_shape(program, "output_window");
  FN_CHECK(output->ndim == 2 + spatial, FN_ERR_UNSUPPORTED,
           "%s: the network's output has no spatial axes; it cannot be re-assembled into fields",
           fn_run_where(run, "model.name"));
  t->window_cells = 1;
  for (int d = 0; d < spatial; d++) {
    const int64_t low = pad_low(&run->data.input_pad, spatial, d);
    const int64_t crop = t->info.input_extent[d] - low - pad_high(&run->data.input_pad, spatial, d);
    const int64_t step = run->data.crop_step.count && !t->tile.given
                             ? run->data.crop_step.value[run->data.crop_step.count > 1 ? d : 0]
                             : crop;
    // Without targets the network's output may reach beyond what a target would cover: cut to it,
    // so that crops do not overwrite each other's inner cells and predict gives what test does.
    t->whole[d] = t->window[d] = window->dim[2 + d];
    if (t->window[d] > t->info.target_extent[d]) t->window[d] = t->info.target_extent[d];
    t->offset[d] = -low * s + (t->info.input_extent[d] * s - output->dim[2 + d]) / 2 +
                   (output->dim[2 + d] - t->whole[d]) / 2 + (t->whole[d] - t->window[d]) / 2;
    t->window_cells *= t->window[d];
    const int64_t missing = step * s - t->window[d];
    FN_CHECK(missing <= 0, FN_ERR_CONFIG,
             "%s: crops are %lld cells apart along axis %d, but the network's output has only "
             "%lld: the field would have holes; raise data.input_pad by %lld",
             fn_run_where(run, run->data.crop_step.count ? "data.crop_step" : "data.input_pad"),
             (long long)(step * s), d, (long long)t->window[d],
             (long long)((missing + 2 * s - 1) / (2 * s)));
  }
  t->has_input = !t->predict && t->info.input_channels == t->info.target_channels;
  t->parts = t->predict ? 1 : t->has_input ? 3 : 2;
  return FN_OK;
}

static fn_status prepare_scores(tester *t) {
  t->sums = calloc((size_t)(t->info.files * SUMS), sizeof *t->sums);
  FN_CHECK(t->sums, FN_ERR_MEMORY, "out of memory");
  t->writer = calloc((size_t)t->info.target_fields + 1, sizeof(fn_field_writer *));
  FN_CHECK(t->writer, FN_ERR_MEMORY, "out of memory");
  if (t->predict) return FN_OK;
  FN_TRY(fn_physical_create(t->run, &t->info, t->window, &t->physical));
  // Spectra need whole fields.
  if (!t->run->test.spectra) return FN_OK;
  if (t->run->data.crop_start.count || t->run->data.crop_stop.count) return FN_OK;
  int64_t size[FN_MAX_SPATIAL], smallest = INT64_MAX;
  for (int d = 0; d < t->info.spatial; d++) {
    size[d] = t->info.size[d] * t->run->data.scale_factor;
    if (size[d] < smallest) smallest = size[d];
  }
  if (smallest < 2) return FN_OK;
  FN_TRY(fn_spectrum_create(t->info.spatial, size, t->run->test.box_size, &t->spectrum));
  t->power = calloc((size_t)(SPECTRA * t->spectrum->bins), sizeof *t->power);
  FN_CHECK(t->power, FN_ERR_MEMORY, "out of memory");
  return FN_OK;
}

/** Crops of the size that serves this field and machine best, the same on all ranks. */
static fn_status set_tile(tester *t) {
  const size_t memory = fn_tile_memory(t->dist);
  const int64_t files = t->info.files, size = t->dist->size;
  const int ranks = files < size ? (int)((size + files - 1) / files) : 1;
  fn_status status = FN_OK;
  if (t->dist->rank == 0)
    status = fn_tile_choose(t->run, t->dist, &t->info, !t->predict, ranks, memory / 2, &t->tile);
  FN_TRY(fn_dist_agree(t->dist, status));
  FN_TRY(fn_dist_broadcast(t->dist, &t->tile, sizeof t->tile));
  status = fn_dataset_stream(t->dataset, t->tile.given ? t->tile.edge : NULL, memory / 8);
  FN_TRY(fn_dist_agree(t->dist, status));
  const fn_dataset_info *cut = fn_dataset_get_info(t->dataset);
  t->info.crops = cut->crops;
  t->info.samples = cut->samples;
  memcpy(t->info.input_extent, cut->input_extent, sizeof cut->input_extent);
  memcpy(t->info.target_extent, cut->target_extent, sizeof cut->target_extent);
  t->batch = t->tile.given ? 1 : t->run->train.batch;
  return FN_OK;
}

static fn_status output_path(const tester *t, int64_t file, int field, char *path, size_t size) {
  const fn_run *run = t->run;
  const bool hdf5 = strcmp(run->test.format, "hdf5") == 0;
  const bool absolute = run->test.output[0] == '/';
  const char *name =
      fn_dataset_output_name(t->dataset, file, t->predict ? 0 : t->info.input_fields + field);
  char number[16] = "";
  // Without targets the fields are named after the first input, and numbered if there are several.
  if (t->predict && t->info.target_fields > 1) snprintf(number, sizeof number, "%d", field);
  const int length =
      snprintf(path, size, "%s%s%s/%s_out%s.%s", absolute ? "" : run->folder, absolute ? "" : "/",
               run->test.output, name, number, hdf5 ? "h5" : "npy");
  FN_CHECK(length > 0 && (size_t)length < size, FN_ERR_CONFIG, "output path too long: %s", name);
  return FN_OK;
}

static fn_status refuse_to_replace(const tester *t, const char *path) {
  if (!fn_file_exists(path)) return FN_OK;
  return fn_run_fail(t->run, "test.overwrite",
                     "%s exists and would be replaced: set test.overwrite to true, or choose %s",
                     path, t->predict ? "another test.output" : "another folder");
}

/** Nothing is overwritten without being asked: before hours are spent on what cannot be written. */
static fn_status check_outputs(const tester *t) {
  const fn_run *run = t->run;
  static const char *const table[] = {"test.csv", "test_spectra.csv", "plots/test_spectra.png"};
  char path[4096];
  if (run->test.overwrite) return FN_OK;
  for (size_t i = 0; i < sizeof table / sizeof table[0] && !t->predict; i++) {
    const int length = snprintf(path, sizeof path, "%s/%s", run->folder, table[i]);
    FN_CHECK((size_t)length < sizeof path, FN_ERR_CONFIG, "path too long: %s", run->folder);
    FN_TRY(refuse_to_replace(t, path));
  }
  if (!run->test.write_fields && !t->predict) return FN_OK;
  for (int64_t file = 0; file < t->info.files; file++) {
    for (int field = 0; field < t->info.target_fields; field++) {
      FN_TRY(output_path(t, file, field, path, sizeof path));
      FN_TRY(refuse_to_replace(t, path));
    }
  }
  return FN_OK;
}

static fn_status start(tester *t) {
  char *path = NULL;
  fn_status status = fn_dist_agree(
      t->dist, t->dist->rank == 0 ? fn_trained_find(t->run, &path, &t->progress) : FN_OK);
  if (status == FN_OK) status = fn_dist_broadcast(t->dist, &t->progress, sizeof t->progress);
  if (status == FN_OK) status = fn_dist_agree(t->dist, open_data(t));
  if (status == FN_OK)
    status = fn_dist_agree(t->dist, t->dist->rank == 0 ? check_outputs(t) : FN_OK);
  if (status == FN_OK) status = set_tile(t);
  if (status == FN_OK)
    status = fn_dist_agree(t->dist, fn_engine_create(t->run, t->dist, &t->info, &t->engine));
  if (status == FN_OK) status = fn_dist_agree(t->dist, fn_engine_take_raw(t->engine, t->dataset));
  if (status == FN_OK)
    status = fn_trained_load(t->run, t->dist, path, fn_engine_parameters(t->engine));
  free(path);
  FN_TRY(status);
  FN_TRY(fn_dist_agree(t->dist, find_window(t)));
  FN_TRY(fn_dist_agree(t->dist, prepare_scores(t)));
  return fn_group_create(t->dist, t->info.files, &t->group);
}

/* ---- one file
 * --------------------------------------------------------------------------------------- */

/** Crops of one file that this rank computes, one after another. */
typedef struct source {
  fn_loader *loader;
  const fn_batch *batch;
  int64_t row;
  fn_program *program;
} source;

static fn_status source_open(tester *t, int64_t file, source *s) {
  const int64_t crops = t->info.crops;
  int64_t *list = malloc((size_t)(crops + 1) * sizeof *list), count = 0;
  FN_CHECK(list, FN_ERR_MEMORY, "out of memory");
  for (int64_t c = t->group.rank; c < crops; c += t->group.size)
    list[count++] = file * crops + c;
  *s = (source){0};
  const fn_status status =
      fn_loader_create(t->dataset, 0, list, count, t->batch, 0, t->run->data.prefetch,
                       t->run->data.readers, &s->loader);
  free(list);
  return status;
}

static fn_status source_fill(tester *t, int64_t file, source *s) {
  FN_TRY(fn_loader_next(s->loader, &s->batch));
  FN_CHECK(s->batch, FN_ERR_INTERNAL, "the crops of a file ended early");
  FN_TRY(fn_engine_program(t->engine, false, !t->predict, s->batch->count, &s->program));
  FN_TRY(fn_engine_feed(s->program, s->batch));
  const fn_run_context context = {.seed = t->run->seed, .sample = s->batch->sample};
  FN_TRY(fn_program_run(s->program, &context));
  FN_TRY(fn_program_wait(s->program));
  s->row = 0;
  if (t->predict) return FN_OK;
  const double loss = (double)*(const float *)fn_program_output_data(s->program, "loss");
  t->sums[file * SUMS + SUM_LOSS] += loss * (double)s->batch->count;
  t->sums[file * SUMS + SUM_COUNT] += (double)s->batch->count;
  return FN_OK;
}

/** The window's part of one sample of an output: [channels, window...]. */
static void copy_row(const tester *t, const source *s, const char *name, float *out,
                     int64_t channels) {
  // Missing axes in front count as one cell.
  int64_t whole[3] = {1, 1, 1}, part[3] = {1, 1, 1}, first[3] = {0, 0, 0};
  for (int d = 0, i = 3 - t->info.spatial; d < t->info.spatial; d++, i++) {
    whole[i] = t->whole[d];
    part[i] = t->window[d];
    first[i] = (whole[i] - part[i]) / 2;
  }
  const int64_t cells = whole[0] * whole[1] * whole[2];
  const float *all = fn_program_output_data(s->program, name);
  for (int64_t c = 0; c < channels; c++) {
    const float *field = all + (s->row * channels + c) * cells;
    for (int64_t i = 0; i < part[0]; i++)
      for (int64_t j = 0; j < part[1]; j++, out += part[2])
        memcpy(out, field + ((first[0] + i) * whole[1] + first[1] + j) * whole[2] + first[2],
               (size_t)part[2] * sizeof *out);
  }
}

static bool is_finite(const float *values, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (!isfinite(values[i])) return false;
  return true;
}

/** Next crop of this rank: output, target, input windows in physical units, one after another. */
static fn_status source_next(tester *t, int64_t file, source *s, float *patch) {
  if (!s->batch || s->row == s->batch->count) FN_TRY(source_fill(t, file, s));
  const int64_t channels = t->info.target_channels, part = channels * t->window_cells;
  copy_row(t, s, "output_window", patch, channels);
  FN_TRY(fn_undo_target_norms(t->run, &t->info, t->progress.target_field_channels, patch,
                              t->window_cells));
  t->sums[file * SUMS + SUM_BAD] += !is_finite(patch, part);
  if (!t->predict) {
    double loss;
    float *target = patch + part, *input = patch + 2 * part;
    copy_row(t, s, "target_window", target, channels);
    FN_TRY(fn_undo_target_norms(t->run, &t->info, t->info.field_channels + t->info.input_fields,
                                target, t->window_cells));
    FN_TRY(fn_physical_loss(t->physical, patch, target, &loss));
    t->sums[file * SUMS + SUM_PHYSICAL] += loss;
    if (t->has_input) {
      copy_row(t, s, "input_window", input, channels);
      FN_TRY(fn_undo_input_norms(t->run, &t->info, input, t->window_cells));
      FN_TRY(fn_physical_loss(t->physical, input, target, &loss));
      t->sums[file * SUMS + SUM_INPUT] += loss;
    }
  }
  s->row++;
  return FN_OK;
}

static fn_status add_spectra(tester *t, const fn_canvas *canvas) {
  fn_spectrum *spectrum = t->spectrum;
  const int64_t bins = spectrum->bins, channels = t->info.target_channels;
  double *scratch = malloc((size_t)bins * sizeof *scratch);
  FN_CHECK(scratch, FN_ERR_MEMORY, "out of memory");
  for (int kind = 0; kind < SPECTRA; kind++) {
    const bool needs_input = kind == POWER_INPUT || kind == CROSS_INPUT;
    if (needs_input && !t->has_input) continue;
    switch (kind) {
      case POWER_OUTPUT: fn_spectrum_power(spectrum, canvas[0].values, 1, channels, scratch); break;
      case POWER_TARGET: fn_spectrum_power(spectrum, canvas[1].values, 1, channels, scratch); break;
      case POWER_INPUT: fn_spectrum_power(spectrum, canvas[2].values, 1, channels, scratch); break;
      case CROSS_OUTPUT:
        fn_spectrum_cross(spectrum, canvas[0].values, canvas[1].values, 1, channels, scratch);
        break;
      default:
        fn_spectrum_cross(spectrum, canvas[2].values, canvas[1].values, 1, channels, scratch);
        break;
    }
    for (int64_t b = 0; b < bins; b++)
      t->power[kind * bins + b] += scratch[b];
  }
  free(scratch);
  t->spectrum_files++;
  return FN_OK;
}

static const int64_t *output_channels(const tester *t) {
  return t->predict ? t->progress.target_field_channels
                    : t->info.field_channels + t->info.input_fields;
}

static fn_status open_path(const tester *t, int64_t file, int field, char *path, size_t size) {
  char folder[4096];
  FN_TRY(output_path(t, file, field, path, size));
  snprintf(folder, sizeof folder, "%s", path);
  *strrchr(folder, '/') = '\0';
  return fn_make_directories(folder);
}

/** A field that was put together in memory. */
static fn_status write_fields(tester *t, int64_t file, const fn_canvas *canvas) {
  const int64_t *channels = output_channels(t);
  int64_t shape[1 + FN_MAX_SPATIAL], cells = 1;
  for (int d = 0; d < canvas->spatial; d++) {
    shape[1 + d] = canvas->size[d];
    cells *= canvas->size[d];
  }
  const float *values = canvas->values;
  for (int f = 0; f < t->info.target_fields; f++) {
    char path[4096];
    FN_TRY(open_path(t, file, f, path, sizeof path));
    shape[0] = channels[f];
    FN_TRY(strcmp(t->run->test.format, "hdf5") == 0
               ? fn_hdf5_write(path, "output", values, 1 + canvas->spatial, shape)
               : fn_npy_write(path, values, 1 + canvas->spatial, shape));
    values += channels[f] * cells;
    t->written++;
  }
  return FN_OK;
}

static fn_status open_writers(tester *t, int64_t file) {
  const char *dataset = strcmp(t->run->test.format, "hdf5") == 0 ? "output" : NULL;
  int64_t size[FN_MAX_SPATIAL];
  for (int d = 0; d < t->info.spatial; d++)
    size[d] = t->info.size[d] * t->run->data.scale_factor;
  for (int f = 0; f < t->info.target_fields; f++) {
    char path[4096];
    FN_TRY(open_path(t, file, f, path, sizeof path));
    FN_TRY(fn_field_writer_create(path, dataset, output_channels(t)[f], t->info.spatial, size,
                                  &t->writer[f]));
  }
  return FN_OK;
}

/** Give the files their names when the field is `whole`, else leave nothing. */
static fn_status close_writers(tester *t, bool whole) {
  fn_status status = FN_OK;
  for (int f = 0; f < t->info.target_fields; f++) {
    if (t->writer[f] && whole && status == FN_OK) {
      status = fn_field_writer_commit(t->writer[f]);
      t->written++;
    }
    fn_field_writer_destroy(t->writer[f]);
    t->writer[f] = NULL;
  }
  return status;
}

/** Put a crop where it belongs: in memory, or in the files. */
static fn_status paste(const tester *t, int64_t crop, const float *patch, fn_canvas *canvas) {
  int64_t anchor[FN_MAX_SPATIAL], first[FN_MAX_SPATIAL];
  const int64_t part = t->info.target_channels * t->window_cells;
  fn_dataset_anchor(t->dataset, crop, anchor);
  for (int d = 0; d < t->info.spatial; d++)
    first[d] = anchor[d] * t->run->data.scale_factor + t->offset[d];
  for (int p = 0; p < t->parts && canvas[p].values; p++)
    fn_canvas_paste(&canvas[p], patch + p * part, t->window, first);
  for (int f = 0; f < t->info.target_fields && t->writer[f]; f++) {
    FN_TRY(fn_field_writer_put(t->writer[f], first, t->window, patch));
    patch += output_channels(t)[f] * t->window_cells;
  }
  return FN_OK;
}

/** The group's first rank takes the crops in order, its own and those of the others. A rank that
 *  fails, `status` says that it did already, sends an empty message in place of its crops; then
 *  *whole is false on the first rank and there is no field to write. */
static fn_status collect(tester *t, int64_t file, source *s, float *patch, fn_canvas *canvas,
                         fn_status status, bool *whole) {
  const int64_t count = t->parts * t->info.target_channels * t->window_cells;
  *whole = true;
  for (int64_t c = 0; c < t->info.crops; c++) {
    const int owner = (int)(c % t->group.size);
    if (owner == t->group.rank && status == FN_OK) status = source_next(t, file, s, patch);
    if (owner == t->group.rank && owner != 0) {
      MPI_Send(patch, status == FN_OK ? (int)count : 0, MPI_FLOAT, 0, 0, t->group.comm);
    } else if (t->group.rank == 0) {
      int received = (int)count;
      if (owner != 0) {
        MPI_Status info;
        MPI_Recv(patch, (int)count, MPI_FLOAT, owner, 0, t->group.comm, &info);
        MPI_Get_count(&info, MPI_FLOAT, &received);
      }
      *whole &= received > 0 && status == FN_OK;
      if (*whole) status = paste(t, c, patch, canvas);
      *whole &= status == FN_OK;
    }
  }
  return status;
}

static fn_status evaluate_file(tester *t, int64_t file, fn_canvas *canvas, float *patch) {
  source s = {0};
  bool whole = true;
  const bool write = (t->run->test.write_fields || t->predict) && t->group.rank == 0;
  fn_status status = source_open(t, file, &s);
  if (write && !t->spectrum && status == FN_OK) status = open_writers(t, file);
  status = collect(t, file, &s, patch, canvas, status, &whole);
  fn_loader_destroy(s.loader);
  whole &= status == FN_OK;
  const fn_status closed = close_writers(t, whole);
  if (status == FN_OK) status = closed;
  if (status != FN_OK || t->group.rank != 0 || !whole || !t->spectrum) return status;
  FN_TRY(add_spectra(t, canvas));
  return write ? write_fields(t, file, &canvas[0]) : FN_OK;
}

static fn_status evaluate_files(tester *t) {
  int64_t size[FN_MAX_SPATIAL];
  for (int d = 0; d < t->info.spatial; d++)
    size[d] = t->info.size[d] * t->run->data.scale_factor;
  const int64_t count = t->parts * t->info.target_channels * t->window_cells;
  FN_CHECK(count < INT32_MAX, FN_ERR_CONFIG, "crops of %lld values are too large; lower data.crop",
           (long long)count);
  fn_canvas canvas[3] = {{0}};
  float *patch = NULL;
  fn_status status = fn_pages_allocate((size_t)count * sizeof *patch, (void **)&patch);
  for (int p = 0; p < t->parts && status == FN_OK && t->spectrum && t->group.rank == 0; p++)
    status = fn_canvas_create(t->info.spatial, t->info.target_channels, size, &canvas[p]);
  status = fn_dist_agree(t->dist, status);
  for (int64_t f = t->group.index; f < t->info.files && status == FN_OK; f += t->group.groups)
    status = evaluate_file(t, f, canvas, patch);
  for (int p = 0; p < 3; p++)
    if (canvas[p].values) fn_canvas_destroy(&canvas[p]);
  fn_pages_free(patch, (size_t)count * sizeof *patch);
  return fn_dist_agree(t->dist, status);
}

/* ---- the result
 * ----------------------------------------------------------------------------------------- */

void fn_test_result_free(fn_test_result *result) {
  for (int64_t f = 0; result->name && f < result->files; f++)
    free(result->name[f]);
  double *arrays[] = {
      result->loss,     result->physical,    result->input_loss,     result->k,
      result->modes,    result->power_input, result->power_output,   result->power_target,
      result->transfer, result->correlation, result->input_transfer, result->input_correlation};
  for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
    free(arrays[i]);
  free(result->name);
  *result = (fn_test_result){0};
}

static double *array(int64_t count) {
  return calloc((size_t)count + 1, sizeof(double));
}

static fn_status fill_losses(const tester *t, fn_test_result *r) {
  const int64_t files = t->info.files;
  r->files = files;
  r->name = calloc((size_t)files + 1, sizeof *r->name);
  r->loss = array(files);
  r->physical = array(files);
  r->input_loss = array(files);
  FN_CHECK(r->name && r->loss && r->physical && r->input_loss, FN_ERR_MEMORY, "out of memory");
  double total[SUMS] = {0};
  for (int64_t f = 0; f < files; f++) {
    const double *sum = t->sums + f * SUMS;
    r->name[f] =
        strdup(fn_dataset_output_name(t->dataset, f, t->predict ? 0 : t->info.input_fields));
    r->loss[f] = sum[SUM_LOSS] / sum[SUM_COUNT];
    r->physical[f] = sum[SUM_PHYSICAL] / sum[SUM_COUNT];
    r->input_loss[f] = t->has_input ? sum[SUM_INPUT] / sum[SUM_COUNT] : (double)NAN;
    for (int i = 0; i < SUMS; i++)
      total[i] += sum[i];
  }
  r->has_input = t->has_input;
  r->mean_loss = total[SUM_LOSS] / total[SUM_COUNT];
  r->mean_physical = total[SUM_PHYSICAL] / total[SUM_COUNT];
  r->mean_input_loss = t->has_input ? total[SUM_INPUT] / total[SUM_COUNT] : (double)NAN;
  return FN_OK;
}

static fn_status fill_spectra(const tester *t, fn_test_result *r) {
  const int64_t bins = t->spectrum->bins;
  double **arrays[] = {
      &r->k,        &r->modes,       &r->power_input,    &r->power_output,     &r->power_target,
      &r->transfer, &r->correlation, &r->input_transfer, &r->input_correlation};
  for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
    *arrays[i] = array(bins);
    FN_CHECK(*arrays[i], FN_ERR_MEMORY, "out of memory");
  }
  r->bins = bins;
  const double *p = t->power;
  fn_transfer_function(bins, p + POWER_OUTPUT * bins, p + POWER_TARGET * bins, r->transfer);
  fn_cross_correlation(bins, p + CROSS_OUTPUT * bins, p + POWER_OUTPUT * bins,
                       p + POWER_TARGET * bins, r->correlation);
  fn_transfer_function(bins, p + POWER_INPUT * bins, p + POWER_TARGET * bins, r->input_transfer);
  fn_cross_correlation(bins, p + CROSS_INPUT * bins, p + POWER_INPUT * bins,
                       p + POWER_TARGET * bins, r->input_correlation);
  const double scale = t->spectrum->density / t->spectrum_files;
  for (int64_t b = 0; b < bins; b++) {
    r->k[b] = t->spectrum->k[b];
    r->modes[b] = (double)t->spectrum->modes[b];
    r->power_input[b] = p[POWER_INPUT * bins + b] * scale;
    r->power_output[b] = p[POWER_OUTPUT * bins + b] * scale;
    r->power_target[b] = p[POWER_TARGET * bins + b] * scale;
  }
  return FN_OK;
}

/** A network makes something of anything, and cells that are not finite spread. */
static void warn_of_outputs(const tester *t) {
  int64_t bad = 0, first = -1;
  for (int64_t f = t->info.files - 1; f >= 0; f--) {
    if (t->sums[f * SUMS + SUM_BAD] == 0) continue;
    bad++;
    first = f;
  }
  if (bad > 0)
    fn_log(FN_WARN,
           "%lld of %lld outputs have cells that are not finite, the first is that of %s: look for "
           "such cells in the inputs (fieldnet data inspect)",
           (long long)bad, (long long)t->info.files, fn_dataset_path(t->dataset, first, 0));
}

static fn_status finish(tester *t, fn_test_result *result) {
  double tail[2] = {t->spectrum_files, t->written};
  FN_TRY(fn_dist_sum(t->dist, t->sums, t->info.files * SUMS));
  if (t->spectrum) FN_TRY(fn_dist_sum(t->dist, t->power, SPECTRA * t->spectrum->bins));
  FN_TRY(fn_dist_sum(t->dist, tail, 2));
  t->spectrum_files = tail[0];
  if (t->dist->rank != 0) return FN_OK;
  warn_of_outputs(t);
  FN_TRY(fill_losses(t, result));
  result->written = (int64_t)tail[1];
  return t->spectrum ? fill_spectra(t, result) : FN_OK;
}

fn_status fn_evaluate(const fn_run *run, fn_dist *dist, bool predict, fn_test_result *result) {
  tester t = {.run = run, .dist = dist, .predict = predict, .group = {.comm = MPI_COMM_NULL}};
  *result = (fn_test_result){0};
  fn_status status = start(&t);
  if (status == FN_OK) status = evaluate_files(&t);
  if (status == FN_OK) status = fn_dist_agree(dist, finish(&t, result));
  fn_group_destroy(&t.group);
  fn_physical_destroy(t.physical);
  fn_spectrum_destroy(t.spectrum);
  fn_engine_destroy(t.engine);
  fn_dataset_destroy(t.dataset);
  free(t.sums);
  free(t.writer);
  free(t.power);
  return status;
}
