/* Matrix products of one element of many tiles. A register tile is WINO_ROWS x WINO_PANEL. */
#include "backend/cpu/winograd.h"

/** c = a b for `rows` rows, a constant. */
static inline __attribute__((always_inline)) void rows_by_panel(int rows, int64_t depth,
                                                                const float *a, int64_t a_stride,
                                                                const float *b, float *c,
                                                                int64_t c_stride) {
  wino_vec sum[WINO_ROWS][2];
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
    sum[r][0] = sum[r][1] = (wino_vec){0};
#pragma GCC unroll 2
  for (int64_t k = 0; k < depth; k++) {
    const wino_vec b0 = *(const wino_vec *)(b + k * WINO_PANEL);
    const wino_vec b1 = *(const wino_vec *)(b + k * WINO_PANEL + WINO_LANES);
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
                     const float *b, float *c, int64_t c_stride) {
  for (int64_t j = 0; j < columns; j += WINO_PANEL) {
    for (int64_t i = 0; i < rows; i += WINO_ROWS)
      rows_by_panel(WINO_ROWS, depth, a + i * a_stride, a_stride, b + j * depth,
                    c + i * c_stride + j, c_stride);
  }
}

/** c += a^T b for `rows` rows, a constant. */
static inline __attribute__((always_inline)) void columns_by_panel(int rows, int64_t depth,
                                                                   const float *a, int64_t a_stride,
                                                                   const float *b, int64_t b_stride,
                                                                   float *c, int64_t c_stride) {
  wino_vec sum[WINO_ROWS][2];
#pragma GCC unroll 12
  for (int r = 0; r < rows; r++)
    sum[r][0] = sum[r][1] = (wino_vec){0};
#pragma GCC unroll 2
  for (int64_t t = 0; t < depth; t++) {
    const wino_vec b0 = *(const wino_vec *)(b + t * b_stride);
    const wino_vec b1 = *(const wino_vec *)(b + t * b_stride + WINO_LANES);
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
                          int64_t c_stride) {
  for (int64_t i = 0; i < rows; i += WINO_ROWS) {
    const int64_t left = fn_min_of(WINO_ROWS, rows - i);
    for (int64_t j = 0; j < columns; j += WINO_PANEL) {
      float *to = c + i * c_stride + j;
      if (left == WINO_ROWS) {
        columns_by_panel(WINO_ROWS, depth, a + i, a_stride, b + j, b_stride, to, c_stride);
        continue;
      }
      int64_t r = 0;
      for (; r + 4 <= left; r += 4)
        columns_by_panel(4, depth, a + i + r, a_stride, b + j, b_stride, to + r * c_stride,
                         c_stride);
      for (; r < left; r++)
        columns_by_panel(1, depth, a + i + r, a_stride, b + j, b_stride, to + r * c_stride,
                         c_stride);
    }
  }
}
