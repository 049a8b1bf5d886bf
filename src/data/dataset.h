/** @file dataset.h
 *  What a rank sees: files paired, cropped, normalised, augmented; the order of an epoch.
 *  Specification: map2map page, sections 2 to 4, with the fixes of 11.1.
 */
#ifndef FN_DATA_DATASET_H
#define FN_DATA_DATASET_H

#include <mpi.h>

#include <fieldnet/device.h>

#include "base/text.h"
#include "config/run.h"

typedef struct fn_dataset fn_dataset;

typedef enum fn_stage {
  FN_STAGE_TRAIN,
  FN_STAGE_VALIDATION,
  FN_STAGE_TEST,
  FN_STAGE_PREDICT
} fn_stage;

/** Find, open and check every file of the stage; keeps headers, not data. Checks shapes, channel
 *  counts and types of all files; all problems are listed in one message.
 *  Not collective (call on one rank and agree, or on all). */
fn_status fn_dataset_create(const fn_run *run, fn_stage stage, fn_dataset **dataset);
/** Destroy also what fn_dataset_join() made; collective over its communicator then. */
void fn_dataset_destroy(fn_dataset *dataset);

typedef struct fn_dataset_info {
  int64_t files;   /**< tuples of files */
  int64_t crops;   /**< per file tuple */
  int64_t samples; /**< files * crops */
  int spatial;
  int target_spatial; /**< 0: a target is [target_channels]; else the same as spatial */
  int64_t input_channels, target_channels; /**< target 0 when there is none */
  int64_t size[FN_MAX_SPATIAL];            /**< cells of a field, input resolution */
  int64_t input_extent[FN_MAX_SPATIAL];    /**< cells of a sample's input, pads included */
  int64_t target_extent[FN_MAX_SPATIAL];
  int input_fields, target_fields;
  const int64_t *field_channels; /**< shape [input_fields + target_fields] */
  int64_t bytes;                 /**< of all files */
  bool cubes; /**< cubes with two classes: files are cubes, crops their slices; see cubes.h */
} fn_dataset_info;
const fn_dataset_info *fn_dataset_get_info(const fn_dataset *dataset);

/** Batches of loaders made from now on go to this device as their files have them, through a ring
 * of pinned memory, and are converted there: see fn_batch.raw. NULL: batches are float32 on the
 * host. Loaders are then called by the thread that opened the device. */
void fn_dataset_set_device(fn_dataset *dataset, fn_device *device);
/** How each field gets to the data set's device: number type, and who normalises; lines of text,
 * the last one without its end. Nothing without a device. */
fn_status fn_dataset_say_ways(const fn_dataset *dataset, fn_text *text);

/** Prepare for samples that are asked for in order, as test and prediction do: files are then read
 *  a few planes at a time and each plane about once, whatever the crops' margins.
 *  @param[in] tile  crops of this size, side by side, instead of data.crop; NULL: as configured
 *  @param[in] most  bytes per field that may be kept; fields that would need more are read crop by
 *                   crop */
fn_status fn_dataset_stream(fn_dataset *dataset, const int64_t *tile, size_t most);

/** Anchor of crop `crop` per spatial axis, input resolution. */
void fn_dataset_anchor(const fn_dataset *dataset, int64_t crop, int64_t *anchor);
/** Path of input field `field` (target fields follow the input fields) of file tuple `file`. */
const char *fn_dataset_path(const fn_dataset *dataset, int64_t file, int field);
/** The same relative to the set's common folder, extension removed: names outputs. */
const char *fn_dataset_output_name(const fn_dataset *dataset, int64_t file, int field);

/** One normalised, augmented sample: a pure function of (seed, epoch, sample).
 *  Thread-safe.
 *  @param[out] input   float32 [input_channels, input_extent...]
 *  @param[out] target  float32 [target_channels, target_extent...], or NULL */
fn_status fn_dataset_sample(fn_dataset *dataset, int64_t epoch, int64_t sample, float *input,
                            float *target);

/** FN_ERR_DIVERGED naming the file and the first cell of a sample that is not finite, or of which
 *  the field's norm makes a number that is not; inputs come before targets. Reads the sample.
 *  Thread-safe. Cubes are checked when they are read: FN_OK. */
fn_status fn_dataset_check_finite(fn_dataset *dataset, int64_t epoch, int64_t sample);

/** Tell the channels of each output field where there are no target files (prediction), so that
 *  fn_dataset_undo_target() knows them. FN_ERR_CONFIG when data.target_norms has another count. */
fn_status fn_dataset_set_outputs(fn_dataset *dataset, int fields, const int64_t *channels);

/** Undo the target norms on `values` [target_channels, cells] (model output), in place. For
 *  predictions call fn_dataset_set_outputs() first. */
fn_status fn_dataset_undo_target(const fn_dataset *dataset, float *values, int64_t cells);

/** Print a table of files, shapes and types to standard output (fieldnet check, data inspect). */
void fn_dataset_print(const fn_dataset *dataset, const char *title);

/** Samples of one epoch: all of them, or fewer when only some slices of each cube are drawn. */
int64_t fn_dataset_epoch_samples(const fn_dataset *dataset);
/** Global sample order of one epoch by the rules of the run, identical on every rank.
 *  @param[out] order  shape [fn_dataset_epoch_samples] */
fn_status fn_dataset_order(const fn_dataset *dataset, int64_t epoch, int64_t *order);

/** Bytes of cubes that each of `ranks` ranks must hold at once in training; 0 for fields. */
int64_t fn_dataset_held_bytes(const fn_dataset *dataset, int ranks);

/** From now on the ranks of comm (duplicated) read together, where the data set gains from it
 *  (cubes): fn_loader_create(), fn_loader_destroy() and fn_dataset_destroy() of this data set are
 *  collective over comm, and a failure of the first is every rank's. Fields stay as they are.
 *  Collective over comm. FN_ERR_CONFIG when data.read_memory is too small. */
fn_status fn_dataset_join(fn_dataset *dataset, MPI_Comm comm);

/* ---- order ------------------------------------------------------------------------------------
 */

/** Global sample order of one epoch, identical on every rank: map2map page, section 3, but drawn
 *  from (seed, epoch) and with a stable sort.
 *  @param[out] order  sample indices, shape [files * crops] */
fn_status fn_epoch_order(uint64_t seed, int64_t epoch, int64_t files, int64_t crops, bool shuffle,
                         bool divide, double distance, int64_t *order);

/** Slice of rank `rank`: training drops samples mod size; evaluation spreads all, first ranks get
 *  one more. */
void fn_rank_slice(int64_t samples, int rank, int size, bool drop_tail, int64_t *begin,
                   int64_t *count);

/* ---- queue of batches ---------------------------------------------------------------------------
 */

typedef struct fn_loader fn_loader;

typedef struct fn_raw_batch fn_raw_batch;

typedef struct fn_batch {
  float *input;    /**< [count, input_channels, input_extent...]; NULL when `raw` is there */
  float *target;   /**< [count, target_channels, target_extent...]; NULL when there is none */
  int64_t count;   /**< samples; the last batch of an epoch may be short */
  int64_t *sample; /**< global sample indices, shape [count] */
  int64_t input_values, target_values; /**< of one sample; target 0 when there is none */
  int64_t sample_bytes; /**< of one sample between host and network: as files have it, or float32 */
  fn_raw_batch *raw;    /**< the batch as files have it, for the data set's device; else NULL */
} fn_batch;

/** Of a batch with `raw`: put it on its way to the device, unless it is; does not wait. */
fn_status fn_batch_send(const fn_batch *batch);
/** Of a batch that was sent: put on the compute stream what makes `to` [count, channels, extent...]
 *  of its input, or of its target. */
fn_status fn_batch_convert(const fn_batch *batch, bool target, fn_device *device,
                           const fn_tensor *to);

/** Read samples list[0..count) of `epoch` in order, `batch` at a time, `prefetch` batches ahead
 * with `readers` threads. list is copied. Starting at batch `first` (for a resumed epoch). */
fn_status fn_loader_create(fn_dataset *dataset, int64_t epoch, const int64_t *list, int64_t count,
                           int64_t batch, int64_t first, int64_t prefetch, int64_t readers,
                           fn_loader **loader);
void fn_loader_destroy(fn_loader *loader);
/** Next batch, owned by the loader until the next call; *batch NULL after the last one. */
fn_status fn_loader_next(fn_loader *loader, const fn_batch **batch);
/** With a device: put the batch that fn_loader_next() returns next on its way, if it was read. To
 * be called when the device has got work that takes a while. Does not wait. */
fn_status fn_loader_send_ahead(fn_loader *loader);
/** Seconds fn_loader_next has waited since creation. */
double fn_loader_waited(const fn_loader *loader);
/** From now on call done() after every sample read, on the thread `reader` (from 0) that read it
 * and with no lock held; times of fn_clock(). NULL: no more calls, though one may be under way. */
typedef void (*fn_sample_read)(void *user, int reader, int64_t sample, double start, double end);
void fn_loader_on_read(fn_loader *loader, fn_sample_read done, void *user);

/* ---- norms
 * ------------------------------------------------------------------------------------------ */

/** Built-in and registered norms by name; unknown: FN_ERR_CONFIG with the nearest name. */
fn_status fn_norm_find(const char *name, const fn_norm **norm);

/** Flat LCDM background; D, f, H to 1e-12 (map2map page, section 4). H in h km/s/Mpc. */
double fn_growth_factor(double z, double omega_m);
double fn_growth_rate(double z, double omega_m);
double fn_hubble(double z, double omega_m);

#endif
