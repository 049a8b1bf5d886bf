/* Slices of a cube, turned and flipped: index maps only. Cubes page, sections 2.6, 2.7 and 2.9. */
#include <string.h>

#include "data/cube_parts.h"

int fn_cube_symmetry(uint64_t seed, int64_t epoch, int64_t sample) {
  fn_random random = fn_random_stream(seed, FN_RANDOM_AUGMENT, (uint32_t)epoch, (uint64_t)sample);
  return (int)fn_random_below(&random, 8);
}

int64_t fn_square_index(int element, int64_t n, int64_t i, int64_t j) {
  int64_t row = i, column = j;
  switch (element & 3) { // where a counter-clockwise rotation takes its values from
    case 1: row = j, column = n - 1 - i; break;
    case 2: row = n - 1 - i, column = n - 1 - j; break;
    case 3: row = n - 1 - j, column = i; break;
    default: break;
  }
  if (element & 4) column = n - 1 - column; // the flip comes before the rotation
  return row * n + column;
}

enum { TILE = 16 }; // values of a cache line

/** Edges of a tile that starts at `at`. */
static int64_t tile_edge(int64_t n, int64_t at) {
  return n - at < TILE ? n - at : TILE;
}

/** Neighbours in memory are neither in one row nor in one column, or only in one column: tiles keep
 *  lines that are read or written in pieces in the cache. */
static void copy_tiles(const float *in, int64_t row, int64_t column, int64_t n, float *out) {
  const bool down = (row < 0 ? -row : row) < (column < 0 ? -column : column);
  for (int64_t i0 = 0; i0 < n; i0 += TILE) {
    for (int64_t j0 = 0; j0 < n; j0 += TILE) {
      const int64_t rows = tile_edge(n, i0), columns = tile_edge(n, j0);
      const float *from = in + i0 * row + j0 * column;
      float *to = out + i0 * n + j0;
      if (down) {
        for (int64_t j = 0; j < columns; j++)
          for (int64_t i = 0; i < rows; i++)
            to[i * n + j] = from[i * row + j * column];
      } else {
        for (int64_t i = 0; i < rows; i++)
          for (int64_t j = 0; j < columns; j++)
            to[i * n + j] = from[i * row + j * column];
      }
    }
  }
}

void fn_copy_square(const float *in, int64_t first, int64_t row, int64_t column, int64_t n,
                    float *out) {
  in += first;
  if (column == 1) {
    for (int64_t i = 0; i < n; i++)
      memcpy(out + i * n, in + i * row, (size_t)n * sizeof *out);
  } else if (column == -1) {
    for (int64_t i = 0; i < n; i++)
      for (int64_t j = 0; j < n; j++)
        out[i * n + j] = in[i * row - j];
  } else {
    copy_tiles(in, row, column, n, out);
  }
}

/** Planes of a slice, each turned by the same group element. */
static void cut_slice(const fn_cubes *cubes, int group, int64_t position, int element, int64_t n,
                      const float *cells, float *out) {
  const int normal = cubes->axis[group];
  const int64_t step[3] = {n * n, n, 1};
  int64_t row = step[normal == 0 ? 1 : 0], column = step[normal == 2 ? 1 : 2];
  if (cubes->transposed[group]) {
    const int64_t swap = row;
    row = column;
    column = swap;
  }
  // The map is affine: where its first three corners come from says all.
  int64_t corner[3];
  for (int c = 0; c < 3; c++) {
    const int64_t at = fn_square_index(element, n, c == 1, c == 2);
    corner[c] = at / n * row + at % n * column;
  }
  for (int64_t plane = 0; plane < cubes->stride; plane++)
    fn_copy_square(cells + (position + plane) * step[normal], corner[0], corner[1] - corner[0],
                   corner[2] - corner[0], n, out + plane * n * n);
}

void fn_cubes_cut(const fn_dataset *dataset, int64_t epoch, int64_t sample, const float *cells,
                  float *input, float *target) {
  const fn_cubes *cubes = dataset->cubes;
  const fn_dataset_info *info = &dataset->info;
  fn_sample_key key;
  fn_dataset_key(dataset, sample, &key);
  if (target) *target = (float)cubes->targets[key.label];
  if (cubes->whole) {
    memcpy(input, cells, (size_t)(info->size[0] * info->size[1] * info->size[2]) * sizeof *input);
    return;
  }
  const int element =
      cubes->random ? fn_cube_symmetry(dataset->run->seed, epoch, sample) : key.transform;
  const int64_t n = info->size[0], slice = sample / cubes->transforms % cubes->slices;
  cut_slice(cubes, (int)(slice / (n / cubes->stride)), key.position, element, n, cells, input);
}
