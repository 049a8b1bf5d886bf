/* Matrix products of one element of many tiles. A register tile is WINO_ROWS x WINO_PANEL. */
#include "backend/cpu/winograd.h"

/** c = a b for `rows` rows, a constant. What comes next is asked for meanwhile: the next panel of
 * b, and the same places of the next matrices, a_next and c_next floats further. */
static inline __attribute__((always_inline)) void
rows_by_panel(int rows, int64_t depth, const float *a, int64_t a_stride, const float *b, float *c,
              int64_t c_stride, const float *a_next, const float *c_next) {
  wino_vec sum[WINO_ROWS][2];
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++) {
    sum[r][0] = sum[r][1] = (wino_vec){0};
    __builtin_prefetch(a_next + r * a_stride);
    __builtin_prefetch(c_next + r * c_stride, 1);
  }
  for (int64_t k = 0; k < depth; k++) {
    __builtin_prefetch(b + (depth + k) * WINO_PANEL);
    wino_vec b0 = *(const wino_vec *)(b + k * WINO_PANEL);
    wino_vec b1 = *(const wino_vec *)(b + k * WINO_PANEL + WINO_LANES);
    FN_KEEP(b0);
    FN_KEEP(b1);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
      const float value = a[r * a_stride + k];
      sum[r][0] += b0 * value;
      sum[r][1] += b1 * value;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++) {
    *(wino_vec *)(c + r * c_stride) = sum[r][0];
    *(wino_vec *)(c + r * c_stride + WINO_LANES) = sum[r][1];
  }
}

void fn_wino_product(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t a_stride,
                     const float *b, float *c, int64_t c_stride, int64_t a_next, int64_t c_next) {
  for (int64_t j = 0; j < columns; j += WINO_PANEL) {
    for (int64_t i = 0; i < rows; i += WINO_ROWS) {
      float *to = c + i * c_stride + j;
      rows_by_panel(WINO_ROWS, depth, a + i * a_stride, a_stride, b + j * depth, to, c_stride,
                    a + a_next + i * a_stride + j, to + c_next);
    }
  }
}

/** c += a^T b for `rows` rows, a constant. `next` [depth] rows, next_stride floats apart, are asked
 *  for meanwhile. */
static inline __attribute__((always_inline)) void
columns_by_panel(int rows, int64_t depth, const float *a, int64_t a_stride, const float *b,
                 int64_t b_stride, float *c, int64_t c_stride, const float *next,
                 int64_t next_stride) {
  wino_vec sum[WINO_ROWS][2];
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++) {
    sum[r][0] = sum[r][1] = (wino_vec){0};
    __builtin_prefetch(c + r * c_stride, 1);
  }
  for (int64_t t = 0; t < depth; t++) {
    __builtin_prefetch(next + t * next_stride);
    wino_vec b0 = *(const wino_vec *)(b + t * b_stride);
    wino_vec b1 = *(const wino_vec *)(b + t * b_stride + WINO_LANES);
    FN_KEEP(b0);
    FN_KEEP(b1);
#pragma GCC unroll 12
    for (int r = 0; r < rows; r++) {
      const float value = a[t * a_stride + r];
      sum[r][0] += b0 * value;
      sum[r][1] += b1 * value;
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++) {
    *(wino_vec *)(c + r * c_stride) += sum[r][0];
    *(wino_vec *)(c + r * c_stride + WINO_LANES) += sum[r][1];
  }
}

void fn_wino_product_back(int64_t rows, int64_t columns, int64_t depth, const float *a,
                          int64_t a_stride, const float *b, int64_t b_stride, float *c,
                          int64_t c_stride, int64_t a_next, int64_t b_next) {
  for (int64_t i = 0; i < rows; i += WINO_ROWS) {
    const int64_t left = fn_min_of(WINO_ROWS, rows - i);
    for (int64_t j = 0; j < columns; j += WINO_PANEL) {
      float *to = c + i * c_stride + j;
      const float *next = i == 0 ? b + b_next + j : a + a_next + i;
      const int64_t next_stride = i == 0 ? b_stride : a_stride;
      if (left == WINO_ROWS) {
        columns_by_panel(WINO_ROWS, depth, a + i, a_stride, b + j, b_stride, to, c_stride, next,
                         next_stride);
        continue;
      }
      int64_t r = 0;
      for (; r + 4 <= left; r += 4)
        columns_by_panel(4, depth, a + i + r, a_stride, b + j, b_stride, to + r * c_stride,
                         c_stride, next, next_stride);
      for (; r < left; r++)
        columns_by_panel(1, depth, a + i + r, a_stride, b + j, b_stride, to + r * c_stride,
                         c_stride, next, next_stride);
    }
  }
}
