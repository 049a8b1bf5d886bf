/** @file cube_fixture.h
 *  Cube files of both layouts written with plain HDF5 calls; every cell tells where it belongs.
 */
#ifndef FN_TESTS_CUBE_FIXTURE_H
#define FN_TESTS_CUBE_FIXTURE_H

#include <hdf5.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct cube_spec {
  int seeds;       /**< 2 cubes each; numbers 3, 4, 5, ... */
  int64_t size[3]; /**< D, H, W */
  bool packed;
  hsize_t chunk[4]; /**< packed; chunk[0] 0: contiguous. Original: chunk[1..3] */
  int gzip;         /**< level; 0: none */
  bool f64;
  bool backwards; /**< rows from the last seed to the first */
} cube_spec;

enum { FIRST_SEED = 3 };

/** Cell `cell` of a cube: exact in float32. */
static float cell_value(int64_t seed, int theory, int64_t cell) {
  return (float)((seed * 2 + theory) * 1000 + cell % 997) + 0.25f * (float)(cell % 3);
}

static int64_t spec_cells(const cube_spec *spec) {
  return spec->size[0] * spec->size[1] * spec->size[2];
}

static hid_t spec_create(const cube_spec *spec) {
  const hid_t create = H5Pcreate(H5P_DATASET_CREATE);
  const int axes = spec->packed ? 4 : 3;
  if (spec->chunk[3]) H5Pset_chunk(create, axes, spec->chunk + 4 - axes);
  if (spec->gzip) H5Pset_shuffle(create);
  if (spec->gzip) H5Pset_deflate(create, (unsigned)spec->gzip);
  return create;
}

static void add_integers(hid_t file, const char *name, hid_t type, int count, const int64_t *v) {
  const hsize_t dim = (hsize_t)count;
  const hid_t space = H5Screate_simple(1, &dim, NULL);
  const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, v) >= 0);
  H5Dclose(set);
  H5Sclose(space);
}

static inline void add_number(const char *path, const char *name, double value) {
  const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT), space = H5Screate(H5S_SCALAR);
  const hid_t a = H5Acreate2(file, name, H5T_NATIVE_DOUBLE, space, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(H5Awrite(a, H5T_NATIVE_DOUBLE, &value) >= 0);
  H5Aclose(a);
  H5Sclose(space);
  H5Fclose(file);
}

static void write_original(hid_t file, const cube_spec *spec, float *cells) {
  hsize_t dim[3];
  for (int i = 0; i < 3; i++)
    dim[i] = (hsize_t)spec->size[i];
  const hid_t create = spec_create(spec), space = H5Screate_simple(3, dim, NULL);
  for (int s = 0; s < spec->seeds; s++) {
    for (int theory = 1; theory >= 0; theory--) {
      char name[64];
      snprintf(name, sizeof name, "%s_seed%04d", theory ? "gr" : "newton", FIRST_SEED + s);
      const hid_t set = H5Dcreate2(file, name, spec->f64 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE, space,
                                   H5P_DEFAULT, create, H5P_DEFAULT);
      for (int64_t i = 0; i < spec_cells(spec); i++)
        cells[i] = cell_value(FIRST_SEED + s, theory, i);
      assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, cells) >= 0);
      H5Dclose(set);
    }
  }
  H5Pclose(create);
  H5Sclose(space);
}

static void write_packed(hid_t file, const cube_spec *spec, float *cells) {
  const int count = 2 * spec->seeds;
  const hsize_t dim[4] = {(hsize_t)count, (hsize_t)spec->size[0], (hsize_t)spec->size[1],
                          (hsize_t)spec->size[2]};
  const hid_t create = spec_create(spec), space = H5Screate_simple(4, dim, NULL);
  const hid_t memory = H5Screate_simple(3, dim + 1, NULL);
  const hid_t set = H5Dcreate2(file, "cubes", spec->f64 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE, space,
                               H5P_DEFAULT, create, H5P_DEFAULT);
  int64_t *seed = calloc((size_t)count, sizeof *seed), *theory = calloc((size_t)count, 8);
  for (int row = 0; row < count; row++) {
    const int s = spec->backwards ? spec->seeds - 1 - row / 2 : row / 2;
    seed[row] = FIRST_SEED + s;
    theory[row] = spec->backwards ? row % 2 : 1 - row % 2;
    for (int64_t i = 0; i < spec_cells(spec); i++)
      cells[i] = cell_value(seed[row], (int)theory[row], i);
    const hsize_t start[4] = {(hsize_t)row, 0, 0, 0}, block[4] = {1, dim[1], dim[2], dim[3]};
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, block, NULL);
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, cells) >= 0);
  }
  add_integers(file, "seed", H5T_STD_I64LE, count, seed);
  add_integers(file, "theory", H5T_STD_U8LE, count, theory);
  free(seed);
  free(theory);
  H5Dclose(set);
  H5Sclose(memory);
  H5Sclose(space);
  H5Pclose(create);
}

static void write_cubes(const char *path, const cube_spec *spec) {
  const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(file >= 0);
  float *cells = malloc((size_t)spec_cells(spec) * sizeof *cells);
  assert_non_null(cells);
  if (spec->packed) {
    write_packed(file, spec, cells);
  } else {
    write_original(file, spec, cells);
  }
  free(cells);
  assert_true(H5Fclose(file) >= 0);
}

/** Overwrite one cell of a cube by name (original) or row (packed). */
static inline void spoil_cell(const char *path, const char *name, int64_t row, int64_t cell,
                              float value) {
  const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t set = H5Dopen2(file, name, H5P_DEFAULT), space = H5Dget_space(set);
  hsize_t dim[4], at[4] = {0};
  const int axes = H5Sget_simple_extent_dims(space, dim, NULL);
  for (int i = axes - 1; i >= axes - 3; i--) {
    at[i] = (hsize_t)cell % dim[i];
    cell /= (int64_t)dim[i];
  }
  if (axes == 4) at[0] = (hsize_t)row;
  H5Sselect_elements(space, H5S_SELECT_SET, 1, at);
  const hid_t memory = H5Screate(H5S_SCALAR);
  assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, &value) >= 0);
  H5Sclose(memory);
  H5Sclose(space);
  H5Dclose(set);
  H5Fclose(file);
}

/** Number of cells that are not what they should be. */
static int64_t wrong_cells(const cube_spec *spec, int64_t seed, int theory, const float *cells) {
  int64_t wrong = 0;
  for (int64_t i = 0; i < spec_cells(spec); i++)
    wrong += cells[i] != cell_value(seed, theory, i);
  return wrong;
}

#endif
