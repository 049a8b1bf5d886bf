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

/* Bytes are moved, whatever they mean. */
typedef uint8_t cell1;
typedef uint16_t __attribute__((may_alias)) cell2;
typedef uint32_t __attribute__((may_alias)) cell4;

/* Copy a square with rows `row` and columns `column` cells apart from `in` on: out is dense, shape
 * [n, n]. Neighbours in memory are neither in one row nor in one column, or only in one column:
 * tiles keep lines that are read or written in pieces in the cache. */
#define COPY_SQUARE(cell)                                                                          \
  static void copy_tiles_##cell(const cell *in, int64_t row, int64_t column, int64_t n,            \
                                cell *out) {                                                       \
    const bool down = (row < 0 ? -row : row) < (column < 0 ? -column : column);                    \
    for (int64_t i0 = 0; i0 < n; i0 += TILE) {                                                     \
      for (int64_t j0 = 0; j0 < n; j0 += TILE) {                                                   \
        const int64_t rows = tile_edge(n, i0), columns = tile_edge(n, j0);                         \
        const cell *from = in + i0 * row + j0 * column;                                            \
        cell *to = out + i0 * n + j0;                                                              \
        if (down) {                                                                                \
          for (int64_t j = 0; j < columns; j++)                                                    \
            for (int64_t i = 0; i < rows; i++)                                                     \
              to[i * n + j] = from[i * row + j * column];                                          \
        } else {                                                                                   \
          for (int64_t i = 0; i < rows; i++)                                                       \
            for (int64_t j = 0; j < columns; j++)                                                  \
              to[i * n + j] = from[i * row + j * column];                                          \
        }                                                                                          \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  static void copy_square_##cell(const cell *in, int64_t row, int64_t column, int64_t n,           \
                                 cell *out) {                                                      \
    if (column == 1) {                                                                             \
      for (int64_t i = 0; i < n; i++)                                                              \
        memcpy(out + i * n, in + i * row, (size_t)n * sizeof *out);                                \
    } else if (column == -1) {                                                                     \
      for (int64_t i = 0; i < n; i++)                                                              \
        for (int64_t j = 0; j < n; j++)                                                            \
          out[i * n + j] = in[i * row - j];                                                        \
    } else {                                                                                       \
      copy_tiles_##cell(in, row, column, n, out);                                                  \
    }                                                                                              \
  }
COPY_SQUARE(cell1)
COPY_SQUARE(cell2)
COPY_SQUARE(cell4)

/** A turned square as it lies in memory: element [i, j] at first + i row + j column. */
typedef struct square {
  int64_t first, row, column;
} square;

/** The group element of a square whose own rows and columns are so many cells apart. */
static square turn(int element, int64_t n, int64_t row, int64_t column, bool transposed) {
  int64_t corner[3];
  if (transposed) {
    const int64_t swap = row;
    row = column;
    column = swap;
  }
  // The map is affine: where its first three corners come from says all.
  for (int c = 0; c < 3; c++) {
    const int64_t at = fn_square_index(element, n, c == 1, c == 2);
    corner[c] = at / n * row + at % n * column;
  }
  return (square){corner[0], corner[1] - corner[0], corner[2] - corner[0]};
}

/** `planes` planes of a cube of edge n from `position` on, each turned alike: out is dense. */
static void cut_slice(int normal, int64_t position, int64_t planes, int element, bool transposed,
                      int64_t n, size_t item, const char *cells, char *out) {
  const int64_t step[3] = {n * n, n, 1}, bytes = (int64_t)item;
  const square s =
      turn(element, n, step[normal == 0 ? 1 : 0], step[normal == 2 ? 1 : 2], transposed);
  for (int64_t plane = 0; plane < planes; plane++) {
    const void *from = cells + ((position + plane) * step[normal] + s.first) * bytes;
    void *to = out + plane * n * n * bytes;
    switch (item) {
      case 1: copy_square_cell1(from, s.row, s.column, n, to); break;
      case 2: copy_square_cell2(from, s.row, s.column, n, to); break;
      default: copy_square_cell4(from, s.row, s.column, n, to); break;
    }
  }
}

/** What a network sees of a cell, each step rounded to float: the order of the device's convert. */
static void finish(const fn_dataset *dataset, int theory, double mean, int64_t count,
                   float *cells) {
  const fn_run *run = dataset->run;
  const float factor = (float)run->data.cubes.newton_augmentation;
  for (int64_t i = 0; i < count && run->data.cubes.remove_mean; i++)
    cells[i] = (float)((double)cells[i] - mean);
  if (theory != FN_NEWTON || factor == 1.0f) return;
  for (int64_t i = 0; i < count; i++)
    cells[i] *= factor;
}

/** For the device: what finish() would do, and how the sample lies in its row. */
static void describe(const fn_dataset *dataset, int theory, double mean, int element,
                     bool transposed, fn_raw_own *own) {
  const fn_run *run = dataset->run;
  const int64_t *size = dataset->info.size;
  // A shift of -0.0 changes nothing, not even a sign.
  *own = (fn_raw_own){.stride = {size[1] * size[2], size[2], 1},
                      .shift = run->data.cubes.remove_mean ? -mean : -0.0,
                      .mul = theory == FN_NEWTON ? (float)run->data.cubes.newton_augmentation : 1};
  if (dataset->cubes->whole) return;
  const square s = turn(element, size[0], size[0], 1, transposed);
  own->start = s.first;
  own->stride[1] = s.row;
  own->stride[2] = s.column;
}

void fn_cubes_cut(const fn_dataset *dataset, int64_t epoch, int64_t sample, const void *cells,
                  double mean, const fn_cube_room *room) {
  const fn_cubes *cubes = dataset->cubes;
  const fn_dataset_info *info = &dataset->info;
  const fn_raw_type type = fn_cube_file_get_info(cubes->file)->type;
  const size_t item = fn_raw_bytes(type);
  const int64_t n = info->size[0];
  const int64_t count = cubes->whole ? n * info->size[1] * info->size[2] : cubes->stride * n * n;
  fn_sample_key key;
  fn_dataset_key(dataset, sample, &key);
  const int element =
      cubes->random ? fn_cube_symmetry(dataset->run->seed, epoch, sample) : key.transform;
  const int64_t slice = sample / cubes->transforms % cubes->slices;
  const bool transposed = !cubes->whole && cubes->transposed[slice / (n / cubes->stride)];
  // Narrow cells are widened from the end of their room, front to back.
  char *out =
      room->input ? (char *)room->input + (size_t)count * (sizeof(float) - item) : room->raw;
  const bool turned = room->input != NULL;
  if (room->target) *room->target = (float)cubes->targets[key.label];
  if (cubes->whole)
    memcpy(out, cells, (size_t)count * item);
  else
    cut_slice(key.axis, key.position, cubes->stride, turned ? element : 0, turned && transposed, n,
              item, cells, out);
  if (!room->input) {
    describe(dataset, key.label, mean, element, transposed, room->own);
    return;
  }
  if (type != FN_RAW_F32) fn_cube_file_widen(cubes->file, out, count, room->input);
  finish(dataset, key.label, mean, count, room->input);
}
