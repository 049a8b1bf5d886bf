/** @file winograd.h
 *  Convolutions by minimal filtering (Winograd 1980; Lavin & Gray 2016, arXiv:1509.09308): a tile
 * of x is transformed, the channels are summed by one matrix product per element of the tile, and
 * the sums are transformed into a tile of results.
 *
 *  Along an axis F(m, r) makes m results of a kernel of r cells from m + r - 1 elements, where a
 *  direct sum takes m r products. The filters of several axes are nested.
 *
 *  Kernels of 3 cells: F(2, 3) or F(4, 3). Kernels of 4 cells and stride 2 are, along an axis, two
 *  kernels of 2 cells and stride 1 over the even and the odd cells of x, its phases: F(3, 2) or
 *  F(4, 2). All phases of x (four in two dimensions) are summed in one product, as more channels;
 *  the data gradient has as many phases of results.
 *
 *  Channels come in groups of WINO_LANES, the vector of this build; matrices hold one element of
 *  many tiles: [tile][phase][channel].
 */
#ifndef FN_BACKEND_CPU_WINOGRAD_H
#define FN_BACKEND_CPU_WINOGRAD_H

#include "backend/cpu/conv.h"

#ifdef __AVX512F__
enum { WINO_LANES = 16, WINO_ROWS = 12 };
typedef float wino_vec __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t wino_bits __attribute__((vector_size(64)));
#else
enum { WINO_LANES = 8, WINO_ROWS = 6 };
typedef float wino_vec __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t wino_bits __attribute__((vector_size(32)));
#endif

typedef enum wino_filter { WINO_NONE, WINO_2_3, WINO_4_3, WINO_3_2, WINO_4_2 } wino_filter;

enum {
  WINO_PANEL = 2 * WINO_LANES, /**< columns of a register tile; its rows: WINO_ROWS */
  WINO_POINTS = 6,             /**< most elements along an axis */
  WINO_STEP = 4,               /**< most results along an axis */
  WINO_TAPS = 3,               /**< most taps along an axis */
  WINO_ELEMENTS = WINO_POINTS * WINO_POINTS * WINO_POINTS,
  WINO_SPREAD = 16, /**< floats between matrices, lest they meet in the same cache sets */
};

/** Element i of the window of result r and phase q is cell in_stride (r + i) + q - in_pad of in;
 *  result r is cell out_stride r + q - out_pad of out. */
typedef struct wino_axis {
  wino_filter filter;
  int points;                /**< elements of a tile */
  int step;                  /**< results of a tile */
  int taps;                  /**< of a phase */
  int in_stride, out_stride; /**< one of them is 2 where there are phases */
  /** Only with phases of results: tiles begin at the first result of each, and read windows of
   *  their own; else they share windows, some of whose results may lie outside. */
  bool apart;
  int64_t first[2]; /**< result of the first tile, by phase if apart */
  int64_t in, out, in_pad, out_pad;
  int64_t tiles;
} wino_axis;

/** A convolution in -> out, whatever the operator calls the two. */
typedef struct winograd {
  wino_axis axis[FN_MAX_SPATIAL]; /**< right-aligned */
  int elements;                   /**< of a tile */
  int kernel;                     /**< cells of the plain kernel */
  int in_phases, out_phases;      /**< summed together; written from the same windows */
  int groups;                     /**< of phases of results, by window */
  int phase[8][FN_MAX_SPATIAL];   /**< along the axes; of phase q of group g: [g out_phases + q] */
  int64_t in_channels, out_channels;
  int64_t in_width, out_width; /**< channels of a phase in a row of the matrices */
  int64_t rows;                /**< of the matrices of weights: phases and channels of in */
  int64_t columns;             /**< phases and channels of out */
  int64_t samples, tiles;      /**< tiles: of one sample and group of phases */
} winograd;

/** Where a tile lies. */
typedef struct wino_place {
  int group;
  int64_t sample, cell[FN_MAX_SPATIAL]; /**< first result */
} wino_place;

/** By address: returned in registers it would wait for all stores before. */
void fn_wino_place(const winograd *w, int group, int64_t tile, wino_place *at);

/** Elements of channel group `group` of a tile of in: those of phase q to[q in_width + e spread].
 */
void fn_wino_read(const winograd *w, const fn_tensor *in, const wino_place *at, int64_t group,
                  float *to, int64_t spread);
/** The adjoint of fn_wino_write for a tile of gradients; sum [WINO_LANES]: of the tile's cells. */
void fn_wino_read_back(const winograd *w, const fn_tensor *out, const wino_place *at, int64_t group,
                       float *to, int64_t spread, float *sum);

/** What happens to results before they are written. */
typedef struct wino_finish {
  const float *bias;         /**< [groups * WINO_LANES] or NULL */
  const fn_tensor *residual; /**< like out, or NULL */
  float slope;
} wino_finish;
/** A tile of results of channel group `group`: phase q from the elements
 *  from[q out_width + e spread]. */
void fn_wino_write(const winograd *w, const fn_tensor *out, const wino_place *at, int64_t group,
                   const float *from, int64_t spread, const wino_finish *finish);

/** How weights lie: in [out or in channel][..][kernel]; they run backwards for the data gradient.
 */
typedef struct wino_weights {
  float *data;
  int64_t in_stride, out_stride;
  bool backwards;
} wino_weights;
/** Floats of the transformed weights [group][e][panel][row][WINO_PANEL]. */
int64_t fn_wino_weight_count(const winograd *w);
int64_t fn_wino_weight_spread(const winograd *w); /**< between elements */
void fn_wino_weights(const winograd *w, const wino_weights *from, float *to);
/** The adjoint, from sums [e][row][out_width] to the plain gradient. */
void fn_wino_weights_back(const winograd *w, const float *from, int64_t spread,
                          const wino_weights *to);

/** c[rows][columns] = a[rows][depth] b[column panel][depth][WINO_PANEL]. rows: a multiple of
 *  WINO_ROWS; columns: of WINO_PANEL. Row lengths a_stride, c_stride. The next product's a and c
 * lie a_next and c_next floats further. */
void fn_wino_product(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t a_stride,
                     const float *b, float *c, int64_t c_stride, int64_t a_next, int64_t c_next);
/** c[rows][columns] += sum over t of a[t][rows] b[t][columns]. columns: a multiple of WINO_PANEL.
 *  The next product's a and b lie a_next and b_next floats further. */
void fn_wino_product_back(int64_t rows, int64_t columns, int64_t depth, const float *a,
                          int64_t a_stride, const float *b, int64_t b_stride, float *c,
                          int64_t c_stride, int64_t a_next, int64_t b_next);

/** A weight gradient: its state starts with wino_state. */
fn_status fn_wino_prepare_weight(fn_kernel *kernel, const winograd *shape);

#endif
