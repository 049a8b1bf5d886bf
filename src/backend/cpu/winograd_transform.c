/* Transforms of tiles and weights, one axis after the other. For the points p_j = 0, +-a, ... and
 * infinity, with N_j the product of p_j - p_l over the other finite points (Toom-Cook):
 *   elements of x:      row j holds the coefficients of the product of (z - p_l) over l != j
 *   elements of w:      (w0 + p_j w1 + p_j^2 w2) / N_j, and w2 for infinity
 *   result i:           sum over j of p_j^i m_j, and m of infinity for the last i
 * F(2, 3) takes 0, +-1. F(4, 3) takes 0, +-3/4, +-3/2 instead of the usual 0, +-1, +-2: its errors
 * are a third in three dimensions (docs/tolerances.md). */
#include "backend/cpu/winograd.h"

#define INLINE static inline __attribute__((always_inline))
#define A 0.75F
#define B 1.5F
#define A2 (A * A)
#define B2 (B * B)
#define N0 (A2 * B2)
#define NA (2 * A2 * (A2 - B2))
#define NB (2 * B2 * (B2 - A2))

/* ---- one axis: n elements, a constant -------------------------------------------------------- */

INLINE void line_read(int n, const wino_vec *d, wino_vec *v) {
  if (n == 4) {
    v[0] = d[2] - d[0];
    v[1] = d[2] + d[1];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  } else if (n == 6) {
    const wino_vec ea = d[4] - B2 * d[2], oa = A * d[3] - (A * B2) * d[1];
    const wino_vec eb = d[4] - A2 * d[2], ob = B * d[3] - (B * A2) * d[1];
    v[0] = N0 * d[0] - (A2 + B2) * d[2] + d[4];
    v[1] = ea + oa;
    v[2] = ea - oa;
    v[3] = eb + ob;
    v[4] = eb - ob;
    v[5] = N0 * d[1] - (A2 + B2) * d[3] + d[5];
  } else {
    v[0] = d[0];
  }
}

INLINE void line_write(int n, const wino_vec *m, wino_vec *y) {
  if (n == 4) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = (m[1] - m[2]) + m[3];
  } else if (n == 6) {
    const wino_vec sa = m[1] + m[2], da = m[1] - m[2], sb = m[3] + m[4], db = m[3] - m[4];
    y[0] = m[0] + (sa + sb);
    y[1] = A * da + B * db;
    y[2] = A2 * sa + B2 * sb;
    y[3] = (A2 * A) * da + (B2 * B) * db + m[5];
  } else {
    y[0] = m[0];
  }
}

/** Adjoint of line_write. */
INLINE void line_read_back(int n, const wino_vec *y, wino_vec *v) {
  if (n == 4) {
    v[0] = y[0];
    v[1] = y[0] + y[1];
    v[2] = y[0] - y[1];
    v[3] = y[1];
  } else if (n == 6) {
    const wino_vec ea = y[0] + A2 * y[2], oa = A * y[1] + (A2 * A) * y[3];
    const wino_vec eb = y[0] + B2 * y[2], ob = B * y[1] + (B2 * B) * y[3];
    v[0] = y[0];
    v[1] = ea + oa;
    v[2] = ea - oa;
    v[3] = eb + ob;
    v[4] = eb - ob;
    v[5] = y[3];
  } else {
    v[0] = y[0];
  }
}

INLINE void line_weights(int n, const wino_vec *g, wino_vec *u) {
  if (n == 4) {
    const wino_vec e = 0.5F * (g[0] + g[2]), o = 0.5F * g[1];
    u[0] = -g[0];
    u[1] = e + o;
    u[2] = e - o;
    u[3] = g[2];
  } else if (n == 6) {
    const wino_vec ea = (1 / NA) * g[0] + (A2 / NA) * g[2], oa = (A / NA) * g[1];
    const wino_vec eb = (1 / NB) * g[0] + (B2 / NB) * g[2], ob = (B / NB) * g[1];
    u[0] = (1 / N0) * g[0];
    u[1] = ea + oa;
    u[2] = ea - oa;
    u[3] = eb + ob;
    u[4] = eb - ob;
    u[5] = g[2];
  } else {
    u[0] = g[0];
  }
}

/** Adjoint of line_weights. */
INLINE void line_weights_back(int n, const wino_vec *u, wino_vec *g) {
  if (n == 4) {
    const wino_vec s = 0.5F * (u[1] + u[2]);
    g[0] = s - u[0];
    g[1] = 0.5F * (u[1] - u[2]);
    g[2] = s + u[3];
  } else if (n == 6) {
    const wino_vec sa = (1 / NA) * (u[1] + u[2]), da = (1 / NA) * (u[1] - u[2]);
    const wino_vec sb = (1 / NB) * (u[3] + u[4]), db = (1 / NB) * (u[3] - u[4]);
    g[0] = (1 / N0) * u[0] + sa + sb;
    g[1] = A * da + B * db;
    g[2] = A2 * sa + B2 * sb + u[5];
  } else {
    g[0] = u[0];
  }
}

/* ---- passes over many lines --------------------------------------------------------------------
 */

typedef enum transform { READ, WRITE, READ_BACK, WEIGHTS, WEIGHTS_BACK } transform;

/** Cells before and after. */
INLINE int length_in(transform kind, int n) {
  if (n == 1) return 1;
  return kind == READ || kind == WRITE || kind == WEIGHTS_BACK ? n : kind == WEIGHTS ? 3 : n - 2;
}
INLINE int length_out(transform kind, int n) {
  if (n == 1) return 1;
  return kind == WRITE ? n - 2 : kind == WEIGHTS_BACK ? 3 : n;
}

INLINE void line(transform kind, int n, const wino_vec *from, wino_vec *to) {
  switch (kind) {
    case READ: line_read(n, from, to); break;
    case WRITE: line_write(n, from, to); break;
    case READ_BACK: line_read_back(n, from, to); break;
    case WEIGHTS: line_weights(n, from, to); break;
    case WEIGHTS_BACK: line_weights_back(n, from, to); break;
  }
}

/** `count` lines: cell i of line j lies at from + j next_in + i step_in, likewise the results.
 *  from and to may be the same memory with equal steps. */
INLINE void lines_of(transform kind, int n, int count, const float *from, int64_t next_in,
                     int64_t step_in, float *to, int64_t next_out, int64_t step_out) {
  for (int j = 0; j < count; j++) {
    wino_vec in[WINO_POINTS], out[WINO_POINTS];
#pragma GCC unroll 6
    for (int i = 0; i < length_in(kind, n); i++)
      in[i] = *(const wino_vec *)(from + j * next_in + i * step_in);
    line(kind, n, in, out);
#pragma GCC unroll 6
    for (int i = 0; i < length_out(kind, n); i++)
      *(wino_vec *)(to + j * next_out + i * step_out) = out[i];
  }
}

INLINE void lines(transform kind, int n, int count, const float *from, int64_t next_in,
                  int64_t step_in, float *to, int64_t next_out, int64_t step_out) {
  switch (n) {
    case 4: lines_of(kind, 4, count, from, next_in, step_in, to, next_out, step_out); break;
    case 6: lines_of(kind, 6, count, from, next_in, step_in, to, next_out, step_out); break;
    default: lines_of(kind, 1, count, from, next_in, step_in, to, next_out, step_out); break;
  }
}

enum { L = WINO_LANES };

/** Floats between neighbours along the axes. */
typedef struct steps {
  int64_t plane, row, cell;
} steps;

/** All axes, the last one first; results are `spread` apart. */
INLINE void all_axes(transform kind, const winograd *w, const float *from, const steps *by,
                     float *to, int64_t spread) {
  float one[WINO_ELEMENTS * L], two[WINO_ELEMENTS * L];
  const int n0 = w->axis[0].points, n1 = w->axis[1].points, n2 = w->axis[2].points;
  const int i0 = length_in(kind, n0), i1 = length_in(kind, n1);
  const int o1 = length_out(kind, n1), o2 = length_out(kind, n2);
  for (int z = 0; z < i0; z++)
    lines(kind, n2, i1, from + z * by->plane, by->row, by->cell, one + z * i1 * o2 * L, o2 * L, L);
  if (n0 == 1) {
    lines(kind, n1, o2, one, L, o2 * L, to, spread, o2 * spread);
    return;
  }
  for (int z = 0; z < i0; z++)
    lines(kind, n1, o2, one + z * i1 * o2 * L, L, o2 * L, two + z * o1 * o2 * L, L, o2 * L);
  lines(kind, n0, o1 * o2, two, L, o1 * o2 * L, to, spread, o1 * o2 * spread);
}

/** The same in the other order, from cells `spread` apart to dense ones. */
INLINE void all_axes_back(transform kind, const winograd *w, const float *from, int64_t spread,
                          float *to) {
  float one[WINO_ELEMENTS * L], two[WINO_ELEMENTS * L];
  const int n0 = w->axis[0].points, n1 = w->axis[1].points, n2 = w->axis[2].points;
  const int i1 = length_in(kind, n1), i2 = length_in(kind, n2);
  const int o0 = length_out(kind, n0), o1 = length_out(kind, n1), o2 = length_out(kind, n2);
  two[0] = 0; // the compiler does not know that no length is 0
  if (n0 == 1) {
    lines(kind, n1, i2, from, spread, i2 * spread, two, L, i2 * L);
  } else {
    lines(kind, n0, i1 * i2, from, spread, i1 * i2 * spread, one, L, i1 * i2 * L);
    for (int z = 0; z < o0; z++)
      lines(kind, n1, i2, one + z * i1 * i2 * L, L, i2 * L, two + z * o1 * i2 * L, L, i2 * L);
  }
  lines(kind, n2, o0 * o1, two, i2 * L, L, to, o2 * L, L);
}

/* ---- tiles -------------------------------------------------------------------------------------
 */

/** First lane of cell 0 of a channel group. */
static float *group_at(const fn_tensor *t, int64_t sample, int64_t group) {
  const int64_t channel = group * WINO_LANES;
  return (float *)t->data + sample * t->batch_stride +
         channel / t->block * fn_space(&t->shape) * t->block + channel % t->block;
}

/** A box of cells of a channel group; cells outside are zero. */
typedef struct box {
  int64_t first[FN_MAX_SPATIAL], cells[FN_MAX_SPATIAL];
  int edge[FN_MAX_SPATIAL];
} box;

/** The cells of a box: where they lie, or a copy when some are outside. */
static const float *box_cells(const box *b, const float *from, int64_t block, float *copy,
                              steps *by) {
  const int64_t row = b->cells[2] * block, plane = b->cells[1] * row;
  bool whole = true;
  for (int d = 0; d < FN_MAX_SPATIAL; d++)
    whole &= b->first[d] >= 0 && b->first[d] + b->edge[d] <= b->cells[d];
  from += b->first[0] * plane + b->first[1] * row + b->first[2] * block;
  if (whole) {
    *by = (steps){plane, row, block};
    return from;
  }
  *by = (steps){b->edge[1] * b->edge[2] * L, b->edge[2] * L, L};
  memset(copy, 0, (size_t)(b->edge[0] * by->plane) * sizeof *copy);
  const int64_t low = b->first[2] < 0 ? -b->first[2] : 0;
  const int64_t high = fn_min_of(b->edge[2], b->cells[2] - b->first[2]);
  for (int z = 0; z < b->edge[0]; z++) {
    if (b->first[0] + z < 0 || b->first[0] + z >= b->cells[0]) continue;
    for (int y = 0; y < b->edge[1]; y++) {
      if (b->first[1] + y < 0 || b->first[1] + y >= b->cells[1]) continue;
      const float *at = from + z * plane + y * row;
      float *to = copy + z * by->plane + y * by->row;
      for (int64_t x = low; x < high; x++)
        *(wino_vec *)(to + x * L) = *(const wino_vec *)(at + x * block);
    }
  }
  return copy;
}

void fn_wino_read(const winograd *w, const fn_tensor *in, const wino_place *at, int64_t group,
                  float *to, int64_t spread) {
  float copy[WINO_ELEMENTS * L];
  box b;
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    b.first[d] = at->cell[d] - w->axis[d].pad;
    b.cells[d] = w->axis[d].in;
    b.edge[d] = w->axis[d].points;
  }
  steps by;
  const float *cells = box_cells(&b, group_at(in, at->sample, group), in->block, copy, &by);
  all_axes(READ, w, cells, &by, to, spread);
}

void fn_wino_read_back(const winograd *w, const fn_tensor *out, const wino_place *at, int64_t group,
                       float *to, int64_t spread, float *sum) {
  float copy[WINO_STEP * WINO_STEP * WINO_STEP * L];
  box b;
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    b.first[d] = at->cell[d];
    b.cells[d] = w->axis[d].out;
    b.edge[d] = w->axis[d].step;
  }
  steps by;
  const float *cells = box_cells(&b, group_at(out, at->sample, group), out->block, copy, &by);
  wino_vec all = {0};
  for (int z = 0; z < b.edge[0]; z++)
    for (int y = 0; y < b.edge[1]; y++)
      for (int x = 0; x < b.edge[2]; x++)
        all += *(const wino_vec *)(cells + z * by.plane + y * by.row + x * by.cell);
  *(wino_vec *)sum = all;
  all_axes(READ_BACK, w, cells, &by, to, spread);
}

/** By address: vectors as results are another calling convention without AVX. */
INLINE void leaky(wino_vec *v, const wino_vec *slope) {
  const wino_bits positive = *v > (wino_vec){0};
  *v = (wino_vec)((positive & (wino_bits)*v) | (~positive & (wino_bits)(*v * *slope)));
}

void fn_wino_write(const winograd *w, const fn_tensor *out, const wino_place *at, int64_t group,
                   const float *from, int64_t spread, const wino_finish *finish) {
  float cells[WINO_STEP * WINO_STEP * WINO_STEP * L];
  all_axes_back(WRITE, w, from, spread, cells);
  const wino_axis *axis = w->axis;
  int64_t edge[FN_MAX_SPATIAL];
  for (int d = 0; d < FN_MAX_SPATIAL; d++)
    edge[d] = fn_min_of(axis[d].step, axis[d].out - at->cell[d]);
  float *base = group_at(out, at->sample, group);
  const fn_tensor *r = finish->residual;
  const float *base_r = r ? group_at(r, at->sample, group) : NULL;
  const wino_vec bias =
      finish->bias ? *(const wino_vec *)(finish->bias + group * L) : (wino_vec){0};
  const wino_vec slope = (wino_vec){0} + finish->slope;
  for (int64_t z = 0; z < edge[0]; z++) {
    for (int64_t y = 0; y < edge[1]; y++) {
      const int64_t row = ((at->cell[0] + z) * axis[1].out + at->cell[1] + y) * axis[2].out;
      const float *cell = cells + (z * axis[1].step + y) * axis[2].step * L;
      for (int64_t x = 0; x < edge[2]; x++) {
        const int64_t i = row + at->cell[2] + x;
        wino_vec v = *(const wino_vec *)(cell + x * L) + bias;
        if (r) v += *(const wino_vec *)(base_r + i * r->block);
        leaky(&v, &slope);
        *(wino_vec *)(base + i * out->block) = v;
      }
    }
  }
}

/* ---- weights -----------------------------------------------------------------------------------
 */

int64_t fn_wino_weight_spread(const winograd *w) {
  return w->out_width * w->in_channels + WINO_SPREAD;
}

int64_t fn_wino_weight_count(const winograd *w) {
  return w->elements * fn_wino_weight_spread(w);
}

void fn_wino_weights(const winograd *w, const wino_weights *from, float *to) {
  const int64_t groups = w->out_width / L, spread = fn_wino_weight_spread(w);
  const int64_t row = w->axis[2].taps * L;
  const steps by = {w->axis[1].taps * row, row, L};
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t g = 0; g < groups; g++) {
    for (int64_t c = 0; c < w->in_channels; c++) {
      float taps[27 * L] = {0};
      for (int64_t l = 0; l < fn_min_of(L, w->out_channels - g * L); l++) {
        const float *own = from->data + c * from->in_stride + (g * L + l) * from->out_stride;
        for (int t = 0; t < w->taps; t++)
          taps[t * L + l] = own[from->backwards ? w->taps - 1 - t : t];
      }
      float *first =
          to + (g * L / WINO_PANEL * w->in_channels + c) * WINO_PANEL + g * L % WINO_PANEL;
      all_axes(WEIGHTS, w, taps, &by, first, spread);
    }
  }
}

void fn_wino_weights_back(const winograd *w, const float *from, int64_t spread,
                          const wino_weights *to) {
  const int64_t groups = fn_ceil_div(w->out_channels, L);
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t g = 0; g < groups; g++) {
    for (int64_t c = 0; c < w->in_channels; c++) {
      float taps[27 * L];
      all_axes_back(WEIGHTS_BACK, w, from + c * w->out_width + g * L, spread, taps);
      for (int64_t l = 0; l < fn_min_of(L, w->out_channels - g * L); l++) {
        float *own = to->data + c * to->in_stride + (g * L + l) * to->out_stride;
        for (int t = 0; t < w->taps; t++)
          own[t] = taps[t * L + l];
      }
    }
  }
}
