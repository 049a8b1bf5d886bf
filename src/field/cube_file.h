/** @file cube_file.h
 *  Prepared files of seed-paired cubes: one HDF5 file per redshift, two layouts.
 *
 *  `original` (cubes page, 2.4): root datasets `gr_seedSSSS` and `newton_seedSSSS`, float32
 *  [D, H, W], standardised, as a rule contiguous, no attributes needed.
 *
 *  `packed`: one dataset `cubes`, float32 or float64 [cube, D, H, W], any chunking, optionally
 *  compressed, and beside it `seed` int64 [cube] and `theory` uint8 [cube] (1 = GR, 0 = Newton).
 *  Attributes of the root group, all optional to a reader, in either layout: `layout` ("packed",
 *  "original"), `version` int, `mean`, `std`, `variance` (of the raw training cubes; the data are
 *  (raw - mean) / std), `redshift`, `box` (Mpc/h), `remove_mean` int (each cube's own mean was
 *  taken away), `statistics_seeds` (text of ranges), `complete` int (0 while being written), and a
 *  dataset `source_checksum` uint64 [cube] (0: none; FNV-1a of the raw dataset's bytes in file
 *  order; in the original layout an attribute of each dataset).
 *
 *  Cubes without labels, to be predicted: a dataset `cubes` without `theory` beside it, or root
 *  datasets of three axes under any names.
 */
#ifndef FN_FIELD_CUBE_FILE_H
#define FN_FIELD_CUBE_FILE_H

#include <fieldnet/device.h>
#include <stdint.h>

typedef struct fn_cube_file fn_cube_file;

enum { FN_NEWTON = 0, FN_GR = 1, FN_UNLABELLED = -1 };

typedef struct fn_cube {
  int64_t seed;     /**< -1: not told */
  int theory;       /**< FN_NEWTON or FN_GR: the label; or FN_UNLABELLED */
  int64_t row;      /**< of the packed dataset; -1 in the original layout */
  int64_t offset;   /**< byte offset of contiguous, unfiltered cells of info.type as they are in
                         memory; -1: none */
  const char *name; /**< of its dataset, e.g. "gr_seed0007"; also made up for packed rows:
                         "cubes[3]" without labels */
} fn_cube;

typedef struct fn_cube_file_info {
  const char *path;
  bool packed;
  int64_t cubes;
  int64_t size[3]; /**< D, H, W cells */
  char stored[16]; /**< type of the cells in the file, as numpy writes it; "several" */
  /** Of cells in memory: the file's where it is one of at most 32 bits that a device reads, else
   *  float32. */
  fn_raw_type type;
  bool converted;      /**< some cells in the file are of another type than that */
  const fn_cube *cube; /**< shape [cubes], by seed, GR before Newton; if `unlabelled`, as in the
                            file: by row, by name */
  bool unlabelled;     /**< opened by fn_cube_file_open_unlabelled() */
  bool direct;         /**< every cube has an offset: positioned reads will do */
  int64_t chunk[4];    /**< of the packed dataset; chunk[0] 0: contiguous */
  const char *filter;  /**< "none", "gzip", ... */
  bool has_statistics;
  double mean, std;     /**< of the raw data when has_statistics */
  double redshift, box; /**< NaN: not told */
  bool mean_removed;
} fn_cube_file_info;

/** Read all metadata and check it: every dataset of one shape and a float type, no seed twice, both
 *  layouts recognised by content, data inside the file (a file cut short is found here), `complete`
 *  not 0. Not collective; the metadata of thousands of datasets takes a while, so one rank reads
 *  and fn_cube_file_send() shares it. FN_ERR_DATA. */
fn_status fn_cube_file_open(const char *path, fn_cube_file **file);
/** The same for cubes of which nothing is known: labels are not asked for, and not looked at where
 *  they are. Every root dataset of three axes is a cube if there is none called `cubes`. */
fn_status fn_cube_file_open_unlabelled(const char *path, fn_cube_file **file);
void fn_cube_file_close(fn_cube_file *file);
const fn_cube_file_info *fn_cube_file_get_info(const fn_cube_file *file);

/** Index of the cube of a seed and theory, or -1. Of files with labels. */
int64_t fn_cube_file_find(const fn_cube_file *file, int64_t seed, int theory);

/** Read one whole cube, float32 [D, H, W], as it is in the file. Not collective, thread-safe.
 *  FN_ERR_DATA, also when a value is not finite (naming the first). */
fn_status fn_cube_file_read(fn_cube_file *file, int64_t cube, float *cells);
/** The same with cells of info.type, in the byte order of the machine. */
fn_status fn_cube_file_read_raw(fn_cube_file *file, int64_t cube, void *cells);
/** Bytes of one cube in memory, cells of info.type. */
int64_t fn_cube_file_bytes(const fn_cube_file *file);
/** `count` cells of info.type as float32. */
void fn_cube_file_widen(const fn_cube_file *file, const void *cells, int64_t count, float *out);

/** The metadata as bytes to send to other ranks (malloc'ed), and a file made from them, which opens
 *  the data only when it reads. */
fn_status fn_cube_file_pack(const fn_cube_file *file, void **bytes, size_t *size);
fn_status fn_cube_file_unpack(const void *bytes, size_t size, fn_cube_file **file);

#endif
