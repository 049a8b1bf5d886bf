/** @file parts.h
 *  The data set from inside: shared by the files of this room.
 */
#ifndef FN_DATA_PARTS_H
#define FN_DATA_PARTS_H

#include "base/random.h"
#include "base/text.h"
#include "data/dataset.h"
#include "data/handles.h"
#include "data/slabs.h"

/** Header of a field file, shared by all files with equal headers. */
typedef struct fn_kind {
  int64_t channels;
  int spatial;
  int64_t size[FN_MAX_DIMS];
  char type[16];
  fn_raw_type raw; /**< what the device reads; FN_RAW_NONE: numbers of another type */
  bool fortran;
} fn_kind;

/** One field: a whole file, or one sample of a packed dataset. */
typedef struct fn_source {
  const char *path;
  const char *shown;  /**< path, with [sample] when packed */
  const char *output; /**< name of outputs, see fn_dataset_output_name() */
  int64_t key;        /**< equal for samples of one packed dataset */
  int64_t sample;     /**< -1: not packed */
  int kind;           /**< index into fn_dataset.kind; -1: the file could not be opened */
} fn_source;

/** All files of one pattern, in pairing order. */
typedef struct fn_column {
  const char *pattern;
  bool target;
  const char *what; /**< key of the configuration, e.g. "data.train.input[0]" */
  fn_source *source;
  int64_t count;
  int64_t channels;
  const fn_norm *norm;
  bool vector;   /**< components turn with the axes */
  fn_slab *slab; /**< planes that crops in order of their anchors share; NULL: read from the file */
} fn_column;

typedef struct fn_margins {
  int64_t low[FN_MAX_SPATIAL], high[FN_MAX_SPATIAL];
} fn_margins;

struct fn_dataset {
  const fn_run *run;
  fn_stage stage;
  fn_arena *arena;
  fn_dataset_info info;
  fn_column *column; /**< input fields, then target fields */
  int columns;
  fn_kind *kind;
  int kinds;
  int found_axes; /**< spatial axes of the last file looked at, packed ones counted as unpacked */
  int64_t crop[FN_MAX_SPATIAL], start[FN_MAX_SPATIAL], step[FN_MAX_SPATIAL];
  int64_t anchors[FN_MAX_SPATIAL];  /**< per axis */
  fn_margins input_pad, target_pad; /**< input resolution */
  int64_t *output_channels;         /**< per target field, for undoing norms */
  int output_fields;
  fn_handles *handles;
  struct fn_cubes *cubes; /**< NULL: fields; see cube_parts.h */
  fn_device *device;      /**< that converts samples; NULL: the host does */
  struct fn_ring *ring;   /**< kept from loader to loader; NULL: none, or lent to one */
};

/** Several messages in one: the first 20, then how many more there are. */
typedef struct fn_problem_list {
  fn_text text;
  int64_t count;
} fn_problem_list;
void fn_problem_note(fn_problem_list *list, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/** FN_OK when the list is empty, else `status` with all messages after `where` (may be NULL);
 *  empties the list. */
fn_status fn_problem_raise(fn_problem_list *list, fn_status status, const char *where);

/** "train", "validation", "test", "prediction". */
const char *fn_stage_name(fn_stage stage);
/** Find and open all files of the stage; fills columns, kinds and info's counts and sizes. */
fn_status fn_dataset_find(fn_dataset *dataset);
/** Pair columns by position: equal counts, or an error naming files without partner. */
void fn_dataset_pair(fn_dataset *dataset, fn_problem_list *problems);
/** Crops, pads, anchors and extents. */
fn_status fn_dataset_set_geometry(fn_dataset *dataset);
/** Crops of `tile` cells, as far apart, instead of data.crop and data.crop_step. */
fn_status fn_dataset_set_tile(fn_dataset *dataset, const int64_t *tile);
/** Spatial axes that lists of the configuration speak of, and the key of the first one; 0 and NULL
 *  when they leave it open. */
fn_status fn_dataset_axes_wanted(const fn_run *run, int *axes, const char **key);

/** Random choices for one training sample. Axes are those of the file; axis a of the sample is axis
 *  permutation[a] of the file. */
typedef struct fn_augmentation {
  int64_t shift[FN_MAX_SPATIAL]; /**< of the anchor, input resolution */
  int permutation[FN_MAX_SPATIAL];
  bool flip[FN_MAX_SPATIAL];
  fn_random noise; /**< stream for additive and multiplicative factors */
} fn_augmentation;

/** The augmentation of a sample; identity outside training. */
void fn_augmentation_draw(const fn_dataset *dataset, int64_t epoch, int64_t sample,
                          fn_augmentation *augmentation);
/** Flip axes in the flip set, then permute: map2map page, section 2.6.
 *  @param[in]  in       [channels, extent...], extents of the file's axes
 *  @param[out] out      [channels, extent of permutation[0], ...]
 *  @param[in]  vector   channels (== spatial) are components and turn with the axes */
void fn_augmentation_apply(const fn_augmentation *augmentation, int spatial, int64_t channels,
                           const int64_t *extent, bool vector, const float *in, float *out);
/** Random summands of a sample, and as many factors: one per channel when all fields have as many
 *  channels as the first, else one for all; 0 when the run wants neither. */
int fn_augmentation_factor_count(const fn_dataset *dataset);
/** Draw them. @param[in,out] add, mul  room for `count` each; NULL on return: none wanted */
void fn_augmentation_factors(const fn_dataset *dataset, const fn_augmentation *augmentation,
                             int count, float **add, float **mul);
/** Add and multiply by random factors, in place. */
void fn_augmentation_scale(const fn_dataset *dataset, const fn_augmentation *augmentation,
                           float *input, float *target);

/* ---- samples: sample.c -------------------------------------------------------------------------
 */

/** Block of the file to be read for one side (input or target), along the file's axes. */
typedef struct fn_region {
  int64_t start[FN_MAX_SPATIAL], extent[FN_MAX_SPATIAL];
} fn_region;
int64_t fn_region_cells(const fn_region *region, int spatial);

/** FN_ERR_INTERNAL for a sample that is not there. */
fn_status fn_dataset_check_sample(const fn_dataset *dataset, int64_t sample);
/** What is read for a sample of fields, and how it is turned. */
void fn_sample_locate(const fn_dataset *dataset, int64_t epoch, int64_t sample,
                      fn_augmentation *augmentation, fn_region *input, fn_region *target);
/** Read a block as float32 [channels, extent...]. Thread-safe. */
fn_status fn_source_read(fn_dataset *dataset, const fn_column *column, int64_t file,
                         const fn_region *region, float *out);
/** The same in the type of the file, which its kind names. */
fn_status fn_source_read_raw(fn_dataset *dataset, const fn_column *column, int64_t file,
                             const fn_region *region, void *out);

#endif
