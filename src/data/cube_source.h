/** @file cube_source.h
 *  Where cubes come from before they are prepared: raw files of simulations, differences of two
 *  redshifts of them, or random fields. Specification: cubes page, 2.2 and 6.
 */
#ifndef FN_DATA_CUBE_SOURCE_H
#define FN_DATA_CUBE_SOURCE_H

#include <fieldnet/fieldnet.h>

#include "base/text.h"
#include "field/cube_file.h"

typedef struct fn_cube_source fn_cube_source;
/** A source of cubes by seed and theory (FN_GR, FN_NEWTON), all of one shape. */
struct fn_cube_source {
  int64_t size[3]; /**< D, H, W cells; 0 until fn_cube_source_shape() */
  /** Shape of a cube, from its header; FN_ERR_DATA naming the file when it cannot be read. */
  fn_status (*shape)(fn_cube_source *source, int64_t seed, int theory, int64_t size[3]);
  /** Cells, float64 [D, H, W], all finite; *checksum: FNV-1a of the bytes of the raw datasets as
   *  they are stored, in C order, one after another; 0 when there are none. */
  fn_status (*read)(fn_cube_source *source, int64_t seed, int theory, double *cells,
                    uint64_t *checksum);
  /** "what a cube is made of", one "name: value" a line, so that two sources can be compared. */
  void (*describe)(const fn_cube_source *source, fn_text *text);
  void (*destroy)(fn_cube_source *source);
};

/** "gr" or "newton". */
const char *fn_theory_name(int theory);
int64_t fn_cube_source_cells(const fn_cube_source *source);
/** Take the shape of the source from one cube. Not collective. */
fn_status fn_cube_source_measure(fn_cube_source *source, int64_t seed);
/** FN_ERR_DATA naming file and both shapes when a cube is absent or has another shape. */
fn_status fn_cube_source_check(fn_cube_source *source, int64_t seed, int theory);
void fn_cube_source_destroy(fn_cube_source *source);

/** Files of one set of simulations. */
typedef struct fn_raw_cubes {
  const char *folder;  /**< of the set */
  const char *pattern; /**< path in it with {seed}, {theory} and {snap}; {seed:N}: N digits */
  const char *dataset; /**< in each file */
  const char *snap[2]; /**< as in file names; the second NULL unless differences are wanted */
  double growth[2];    /**< of differences: D(z) (1 + z) of both */
} fn_raw_cubes;

#define FN_RAW_PATTERN "seed{seed}/{theory}/{theory}_snap{snap}_phi.h5"

/** With two snaps the cubes are snap[0] / growth[0] - snap[1] / growth[1]. Texts must outlive the
 *  source. FN_ERR_CONFIG for a pattern that cannot tell cubes apart. */
fn_status fn_raw_cubes_create(const fn_raw_cubes *raw, bool many_seeds, fn_cube_source **source);
/** Fill in what describe() of such a source said, where `raw` has no value yet. Texts are
 *  malloc'ed into *memory, to be freed once. False when it was another kind of source. */
bool fn_raw_cubes_recall(fn_raw_cubes *raw, const char *description, char **memory);
/** Path of one raw file. */
fn_status fn_raw_cubes_path(const fn_raw_cubes *raw, const char *snap, int64_t seed, int theory,
                            char *path, size_t size);

/** Mean and sum of squared deviations from it, of cells[count]: compensated sums over blocks, in
 *  two passes, always in the same order. */
void fn_cube_moments(const double *cells, int64_t count, double *mean, double *squares);

/** D(z) (1 + z) by `text`: "lcdm:OMEGA_M" for the flat universe without radiation, else the path
 *  of a table with columns z and D(z), ascending or descending in z, '#' comments; between its
 *  rows the cubic through the nearest four. FN_ERR_CONFIG, FN_ERR_DATA. */
fn_status fn_growth_read(const char *text, double z, double *growth);

#endif
