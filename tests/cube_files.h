/** @file cube_files.h
 *  For tests of cubes: small prepared files of the original layout, written through HDF5.
 */
#ifndef FN_TESTS_CUBE_FILES_H
#define FN_TESTS_CUBE_FILES_H

#include <hdf5.h>

#include "data/cubes.h"
#include "data_files.h"

/** Cell of a test cube: all differ within a file, exact in float32 for up to 16 cubes of 16^3. */
static inline float cell_at(int64_t seed, int theory, int64_t index) {
  return (float)((2 * seed + theory) * 4096 + index);
}

/** Root datasets gr_seedSSSS and newton_seedSSSS for seeds 0..seeds-1, edges size[3]. */
static inline void write_cubes(const char *path, int64_t seeds, const hsize_t *size) {
  const int64_t cells = (int64_t)(size[0] * size[1] * size[2]);
  float *values = malloc((size_t)cells * sizeof *values);
  const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(3, size, NULL);
  for (int64_t cube = 0; cube < 2 * seeds; cube++) {
    const int theory = cube % 2 == 0 ? FN_GR : FN_NEWTON;
    char name[32];
    snprintf(name, sizeof name, "%s_seed%04lld", theory == FN_GR ? "gr" : "newton",
             (long long)(cube / 2));
    for (int64_t i = 0; i < cells; i++)
      values[i] = cell_at(cube / 2, theory, i);
    const hid_t data =
        H5Dcreate2(file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(data);
  }
  H5Sclose(space);
  H5Fclose(file);
  free(values);
}

#endif
