/** @file winograd.h
 *  Convolutions with kernels of 3 cells per axis by minimal filtering (Winograd 1980; Lavin & Gray
 *  2016, arXiv:1509.09308): a tile of x is transformed, the channels are summed by one matrix
 *  product per element of the tile, and the sums are transformed into a tile of results.
 *
 *  Along an axis F(2, 3) makes 2 results of 4 elements and F(4, 3) makes 4 results of 6, where a
 *  direct sum takes 6 and 12 products. The filters of several axes are nested.
 *
 *  Channels come in groups of WINO_LANES, the vector of this build; matrices hold one element of
 *  many tiles: [tile][channel].
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

enum {
  WINO_PANEL = 2 * WINO_LANES, /**< columns of a register tile; its rows: WINO_ROWS */
  WINO_POINTS = 6,             /**< most elements along an axis */
  WINO_STEP = 4,               /**< most results along an axis */
  WINO_ELEMENTS = WINO_POINTS * WINO_POINTS * WINO_POINTS,
  WINO_SPREAD = 16, /**< floats between matrices, lest they meet in the same cache sets */
};

typedef struct wino_axis {
  int points; /**< elements of a tile: 4 or 6; 1 without a kernel along this axis */
  int step;   /**< results of a tile: 2, 4 or 1 */
  int taps;   /**< 3 or 1 */
  int64_t in, out, pad;
  int64_t tiles;
} wino_axis;

/** A convolution in -> out, whatever the operator calls the two. */
typedef struct winograd {
  wino_axis axis[FN_MAX_SPATIAL]; /**< right-aligned */
  int elements, taps;             /**< of a tile, of the kernel */
  int64_t in_channels, out_channels;
  int64_t in_width, out_width; /**< channels in a row of the matrices */
  int64_t samples, tiles;      /**< tiles: of one sample */
} winograd;

/** Where tile t lies. */
typedef struct wino_place {
  int64_t sample, cell[FN_MAX_SPATIAL]; /**< first cell of the results */
} wino_place;

/** Fill everything from shapes; kernel [3]. Chooses the filters of the axes. */
void fn_wino_shape(winograd *w, const fn_shape *in, const fn_shape *out, const fn_shape *kernel,
                   const int64_t *pad);
wino_place fn_wino_place(const winograd *w, int64_t tile);

/** Cost of the whole convolution, transforms included, in products of two numbers. */
double fn_wino_cost(const winograd *w);

/** Elements of channel group `group` of a tile of in: to[e spread], e < elements. */
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
/** A tile of results of channel group `group` from the elements from[e spread]. */
void fn_wino_write(const winograd *w, const fn_tensor *out, const wino_place *at, int64_t group,
                   const float *from, int64_t spread, const wino_finish *finish);

/** How weights lie: in [out or in channel][..][taps]; taps run backwards for the data gradient. */
typedef struct wino_weights {
  float *data;
  int64_t in_stride, out_stride;
  bool backwards;
} wino_weights;
/** Floats of the transformed weights [e][panel][in channel][WINO_PANEL]. */
int64_t fn_wino_weight_count(const winograd *w);
int64_t fn_wino_weight_spread(const winograd *w); /**< between elements */
void fn_wino_weights(const winograd *w, const wino_weights *from, float *to);
/** The adjoint, from sums [e][in channel][out_width] to the plain gradient. */
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

/** First member of the states of such kernels. */
typedef struct wino_state {
  fn_cpu_state base;
  fn_status (*prepare_direct)(fn_kernel *kernel);
  fn_kernel direct; /**< oneDNN's, to be timed beside */
  void *memory;     /**< its workspace */
} wino_state;

/** A weight gradient: its state starts with wino_state. */
fn_status fn_wino_prepare_weight(fn_kernel *kernel, const winograd *shape);

#endif
