/** @file cube_write.h
 *  Writing prepared files of cubes (field/cube_file.h): the file with room for every cube is made
 *  by one process, the cells are then written by any number of them, cube by cube in any order, and
 *  one process completes it.
 *
 *  Without compression the place of every chunk is known from the start, and cells are written
 *  there directly. Compressed chunks have no place before they are made: each cube becomes a file
 *  in the folder `path`.parts, and completing the file joins those.
 */
#ifndef FN_DATA_CUBE_WRITE_H
#define FN_DATA_CUBE_WRITE_H

#include <fieldnet/fieldnet.h>

#include "base/text.h"
#include "field/cube_file.h"

/** What a prepared file is to hold. */
typedef struct fn_cube_plan {
  bool packed;
  int item;         /**< bytes of a cell: 4 or 8 */
  int64_t size[3];  /**< D, H, W */
  int64_t chunk[4]; /**< of the packed dataset; chunk[0] 0: contiguous */
  int compress;     /**< 0: none; 1..9: byte shuffle and gzip of that level, needs chunks */
  int64_t cubes;
  const int64_t *seed;        /**< [cubes], by seed, GR before Newton */
  const uint8_t *theory;      /**< [cubes] */
  bool has_statistics;        /**< else cells are as in the source, less the mean if removed */
  double mean, std, variance; /**< of the raw training cubes */
  bool remove_mean;           /**< each cube's own mean is taken away, instead of the common one */
  double redshift[2];         /**< NaN: not told; the second of differences only */
  double growth[2];           /**< D(z) (1 + z) of differences, else 0 */
  double box;                 /**< Mpc/h; NaN: not told */
  double amplitude;           /**< A_s; NaN: not told */
  const char *statistics;     /**< ranges of seeds; NULL: not told */
  const char *origin;         /**< what fn_cube_source.describe says */
} fn_cube_plan;

/** FN_ERR_CONFIG for what the layouts cannot do. Fills in a chunk shape where compression needs
 *  one. */
fn_status fn_cube_plan_check(fn_cube_plan *plan);
/** All that decides what is in the file, but for the values of statistics, as lines of text. */
void fn_cube_plan_describe(const fn_cube_plan *plan, fn_text *text);
/** (cell - shift) / std in float64, then cast; float32 or float64 into `out`.
 *  FN_ERR_DATA when the result is not finite. */
fn_status fn_cube_standardise(const fn_cube_plan *plan, const double *cells, void *out);
/** Name of a dataset of the original layout. */
void fn_cube_name(int64_t seed, int theory, char *name, size_t size);

/** New file with room on disk for all cubes and `complete` 0, or the folder of parts. An existing
 *  file is replaced in one step. One process. FN_ERR_DATA with the system's reason. */
fn_status fn_cube_file_create(const fn_cube_plan *plan, const char *path);

typedef struct fn_cube_writer fn_cube_writer;

/** Places are found by one process and shared: fn_cube_places() fills fn_cube_place_count()
 *  offsets of an existing file that must fit the plan. */
int64_t fn_cube_place_count(const fn_cube_plan *plan);
fn_status fn_cube_places(const fn_cube_plan *plan, const char *path, int64_t *places);
/** `plan` and `places` must outlive the writer. Every process. */
fn_status fn_cube_writer_open(const fn_cube_plan *plan, const char *path, const int64_t *places,
                              fn_cube_writer **writer);
void fn_cube_writer_close(fn_cube_writer *writer);
/** Write the cells of one cube; *checksum: FNV-1a of them. */
fn_status fn_cube_writer_put(fn_cube_writer *writer, int64_t cube, const void *cells,
                             uint64_t *checksum);
/** What this process has put is on disk. */
fn_status fn_cube_writer_sync(fn_cube_writer *writer);
/** Whether a cube put earlier, perhaps by a process killed since, is whole on disk. */
fn_status fn_cube_writer_check(fn_cube_writer *writer, int64_t cube, uint64_t checksum, bool *good);

/** Write checksums and statistics and set `complete`. One process, when all cubes are written.
 *  Killed in between it can be called again. */
fn_status fn_cube_file_complete(const fn_cube_plan *plan, const char *path, const uint64_t *source,
                                const uint64_t *checksum);
/** Remove what the writing left beside the file. */
void fn_cube_file_clean(const char *path);

/* ---- inside the writer ------------------------------------------------------------------------
 */

/** Chunks per cube, and their number along each axis; 1 when contiguous. */
int64_t fn_cube_chunks(const fn_cube_plan *plan, int64_t number[3]);
/** Cells of chunk `index` of a cube in C order, padded with zeros to `chunk`. */
void fn_cube_gather(const fn_cube_plan *plan, const void *cells, int64_t index, void *chunk);
/** The other way round. */
void fn_cube_scatter(const fn_cube_plan *plan, void *chunk, int64_t index, void *cells);
/** Parts of compressed cubes. */
fn_status fn_cube_part_write(const fn_cube_plan *plan, const char *path, int64_t cube,
                             const void *cells);
fn_status fn_cube_part_check(const char *path, int64_t cube, bool *good);
/** The chunks of a part: sizes[chunks] and bytes, both in *bytes (malloc'ed). */
fn_status fn_cube_part_read(const fn_cube_plan *plan, const char *path, int64_t cube, char **bytes,
                            const int64_t **sizes, const char **data);
/** Bytes of all parts. */
fn_status fn_cube_parts_bytes(const fn_cube_plan *plan, const char *path, int64_t *bytes);
void fn_cube_parts_remove(const char *path);

#endif
