/* Transforms of tiles and weights, one axis after the other. For the points p_j = 0, +-a, ... and
 * infinity, with N_j the product of p_j - p_l over the other finite points (Toom-Cook):
 *   elements of x:      row j holds the coefficients of the product of (z - p_l) over l != j
 *   elements of w:      (w0 + p_j w1 + p_j^2 w2) / N_j, and the last w for infinity
 *   result i:           sum over j of p_j^i m_j, and m of infinity for the last i
 * F(2, 3) and F(3, 2) take 0, +-1. F(4, 3) takes 0, +-3/4, +-3/2 instead of the usual 0, +-1, +-2:
 * its errors are a third in three dimensions (docs/tolerances.md). F(4, 2) takes +-1/2, +-5/4: half
 * the errors of 0, +-1, 2. */
#include "backend/cpu/winograd.h"

#define INLINE static inline __attribute__((always_inline))
#define A 0.75F
#define B 1.5F
#define A2 (A * A)
#define B2 (B * B)
#define N0 (A2 * B2)
#define NA (2 * A2 * (A2 - B2))
#define NB (2 * B2 * (B2 - A2))

#define C 0.5F
#define D 1.25F
#define C2 (C * C)
#define D2 (D * D)

/* ---- one axis: a filter, a constant ---------------------------------------------------------- */

INLINE void line_read(wino_filter f, const wino_vec *d, wino_vec *v) {
  if (f == WINO_2_3 || f == WINO_3_2) {
    v[0] = d[2] - d[0];
    v[1] = d[2] + d[1];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  } else if (f == WINO_4_2) {
    const wino_vec oc = d[3] - D2 * d[1], ec = C * d[2] - (C * D2) * d[0];
    const wino_vec od = d[3] - C2 * d[1], ed = D * d[2] - (D * C2) * d[0];
    v[0] = oc + ec;
    v[1] = oc - ec;
    v[2] = od + ed;
    v[3] = od - ed;
    v[4] = (C2 * D2) * d[0] + (d[4] - (C2 + D2) * d[2]);
  } else if (f == WINO_4_3) {
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

INLINE void line_write(wino_filter f, const wino_vec *m, wino_vec *y) {
  if (f == WINO_2_3 || f == WINO_3_2) {
    const wino_vec s = m[1] + m[2], d = m[1] - m[2];
    y[0] = m[0] + s;
    y[1] = d;
    if (f == WINO_2_3)
      y[1] += m[3];
    else
      y[2] = s + m[3];
  } else if (f == WINO_4_2) {
    const wino_vec sc = m[0] + m[1], dc = m[0] - m[1], sd = m[2] + m[3], dd = m[2] - m[3];
    y[0] = sc + sd;
    y[1] = C * dc + D * dd;
    y[2] = C2 * sc + D2 * sd;
    y[3] = (C2 * C) * dc + (D2 * D) * dd + m[4];
  } else if (f == WINO_4_3) {
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
INLINE void line_read_back(wino_filter f, const wino_vec *y, wino_vec *v) {
  if (f == WINO_2_3) {
    v[0] = y[0];
    v[1] = y[0] + y[1];
    v[2] = y[0] - y[1];
    v[3] = y[1];
  } else if (f == WINO_3_2) {
    const wino_vec e = y[0] + y[2];
    v[0] = y[0];
    v[1] = e + y[1];
    v[2] = e - y[1];
    v[3] = y[2];
  } else if (f == WINO_4_2) {
    const wino_vec ec = y[0] + C2 * y[2], oc = C * y[1] + (C2 * C) * y[3];
    const wino_vec ed = y[0] + D2 * y[2], od = D * y[1] + (D2 * D) * y[3];
    v[0] = ec + oc;
    v[1] = ec - oc;
    v[2] = ed + od;
    v[3] = ed - od;
    v[4] = y[3];
  } else if (f == WINO_4_3) {
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

INLINE void line_weights(wino_filter f, const wino_vec *g, wino_vec *u) {
  if (f == WINO_2_3) {
    const wino_vec e = 0.5F * (g[0] + g[2]), o = 0.5F * g[1];
    u[0] = -g[0];
    u[1] = e + o;
    u[2] = e - o;
    u[3] = g[2];
  } else if (f == WINO_3_2) {
    u[0] = -g[0];
    u[1] = 0.5F * (g[0] + g[1]);
    u[2] = 0.5F * (g[0] - g[1]);
    u[3] = g[1];
  } else if (f == WINO_4_2) {
    const wino_vec ec = (0.5F / (C2 - D2)) * g[1], oc = (0.5F / (C2 - D2) / C) * g[0];
    const wino_vec ed = (0.5F / (D2 - C2)) * g[1], od = (0.5F / (D2 - C2) / D) * g[0];
    u[0] = ec + oc;
    u[1] = ec - oc;
    u[2] = ed + od;
    u[3] = ed - od;
    u[4] = g[1];
  } else if (f == WINO_4_3) {
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
INLINE void line_weights_back(wino_filter f, const wino_vec *u, wino_vec *g) {
  if (f == WINO_2_3) {
    const wino_vec s = 0.5F * (u[1] + u[2]);
    g[0] = s - u[0];
    g[1] = 0.5F * (u[1] - u[2]);
    g[2] = s + u[3];
  } else if (f == WINO_3_2) {
    g[0] = 0.5F * (u[1] + u[2]) - u[0];
    g[1] = 0.5F * (u[1] - u[2]) + u[3];
  } else if (f == WINO_4_2) {
    g[0] = (0.5F / (C2 - D2) / C) * (u[0] - u[1]) + (0.5F / (D2 - C2) / D) * (u[2] - u[3]);
    g[1] = (0.5F / (C2 - D2)) * (u[0] + u[1]) + (0.5F / (D2 - C2)) * (u[2] + u[3]) + u[4];
  } else if (f == WINO_4_3) {
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

INLINE int points_of(wino_filter f) {
  return f == WINO_NONE ? 1 : f == WINO_4_3 ? 6 : f == WINO_4_2 ? 5 : 4;
}
INLINE int step_of(wino_filter f) {
  return f == WINO_NONE ? 1 : f == WINO_2_3 ? 2 : f == WINO_3_2 ? 3 : 4;
}
/** Cells before and after. */
INLINE int length_in(transform kind, wino_filter f) {
  if (kind == WEIGHTS) return points_of(f) - step_of(f) + 1;
  return kind == READ_BACK ? step_of(f) : points_of(f);
}
INLINE int length_out(transform kind, wino_filter f) {
  if (kind == WEIGHTS_BACK) return points_of(f) - step_of(f) + 1;
  return kind == WRITE ? step_of(f) : points_of(f);
}

INLINE void line(transform kind, wino_filter f, const wino_vec *from, wino_vec *to) {
  switch (kind) {
    case READ: line_read(f, from, to); break;
    case WRITE: line_write(f, from, to); break;
    case READ_BACK: line_read_back(f, from, to); break;
    case WEIGHTS: line_weights(f, from, to); break;
    case WEIGHTS_BACK: line_weights_back(f, from, to); break;
  }
}

/** `count` lines: cell i of line j lies at from + j next_in + i step_in, likewise the results.
 *  from and to may be the same memory with equal steps. */
INLINE void lines_of(transform kind, wino_filter f, int count, const float *from, int64_t next_in,
                     int64_t step_in, float *to, int64_t next_out, int64_t step_out) {
  for (int j = 0; j < count; j++) {
    wino_vec in[WINO_POINTS], out[WINO_POINTS];
#pragma GCC unroll 6
    for (int i = 0; i < length_in(kind, f); i++)
      in[i] = *(const wino_vec *)(from + j * next_in + i * step_in);
    line(kind, f, in, out);
#pragma GCC unroll 6
    for (int i = 0; i < length_out(kind, f); i++)
      *(wino_vec *)(to + j * next_out + i * step_out) = out[i];
  }
}

#define LINES(filter)                                                                              \
  case filter: lines_of(kind, filter, count, from, next_in, step_in, to, next_out, step_out); break

INLINE void lines(transform kind, wino_filter f, int count, const float *from, int64_t next_in,
                  int64_t step_in, float *to, int64_t next_out, int64_t step_out) {
  switch (f) {
    LINES(WINO_2_3);
    LINES(WINO_4_3);
    LINES(WINO_3_2);
    LINES(WINO_4_2);
    LINES(WINO_NONE);
  }
}

enum { L = WINO_LANES, LINE = 16 }; // LINE: floats of a cache line

/** Floats between neighbours along the axes. */
typedef struct steps {
  int64_t plane, row, cell;
} steps;

/** PLANE for constants where these two filters are usual, so that the loops over a tile unroll. */
#define PLANES(f1, f2)                                                                             \
  switch (f1 * 8 + f2) {                                                                           \
    case WINO_4_3 * 8 + WINO_4_3: PLANE(WINO_4_3, WINO_4_3); break;                                \
    case WINO_3_2 * 8 + WINO_3_2: PLANE(WINO_3_2, WINO_3_2); break;                                \
    case WINO_3_2 * 8 + WINO_4_2: PLANE(WINO_3_2, WINO_4_2); break;                                \
    case WINO_4_2 * 8 + WINO_3_2: PLANE(WINO_4_2, WINO_3_2); break;                                \
    case WINO_4_2 * 8 + WINO_4_2: PLANE(WINO_4_2, WINO_4_2); break;                                \
    default: PLANE(f1, f2);                                                                        \
  }

/** Two axes, the last one first; results are `spread` apart. */
INLINE void plane(transform kind, wino_filter f1, wino_filter f2, const float *from,
                  const steps *by, float *to, int64_t spread) {
  float one[WINO_POINTS * WINO_POINTS * L];
  const int o2 = length_out(kind, f2);
  lines(kind, f2, length_in(kind, f1), from, by->row, by->cell, one, o2 * L, L);
  lines(kind, f1, o2, one, L, o2 * L, to, spread, o2 * spread);
}

/** All axes, the last one first; results are `spread` apart. */
INLINE void all_axes(transform kind, const winograd *w, const float *from, const steps *by,
                     float *to, int64_t spread) {
  const wino_filter f0 = w->axis[0].filter, f1 = w->axis[1].filter, f2 = w->axis[2].filter;
  if (f0 == WINO_NONE) {
#define PLANE(a, b) plane(kind, a, b, from, by, to, spread)
    PLANES(f1, f2)
#undef PLANE
    return;
  }
  float one[WINO_ELEMENTS * L], two[WINO_ELEMENTS * L];
  const int i0 = length_in(kind, f0), i1 = length_in(kind, f1);
  const int o1 = length_out(kind, f1), o2 = length_out(kind, f2);
  for (int z = 0; z < i0; z++) {
    lines(kind, f2, i1, from + z * by->plane, by->row, by->cell, one + z * i1 * o2 * L, o2 * L, L);
    lines(kind, f1, o2, one + z * i1 * o2 * L, L, o2 * L, two + z * o1 * o2 * L, L, o2 * L);
  }
  lines(kind, f0, o1 * o2, two, L, o1 * o2 * L, to, spread, o1 * o2 * spread);
}

/** plane() in the other order, from cells `spread` apart to dense ones. */
INLINE void plane_back(transform kind, wino_filter f1, wino_filter f2, const float *from,
                       int64_t spread, float *to) {
  float one[WINO_POINTS * WINO_POINTS * L];
  const int i2 = length_in(kind, f2), o2 = length_out(kind, f2);
  one[0] = 0; // the compiler does not know that no length is 0
  lines(kind, f1, i2, from, spread, i2 * spread, one, L, i2 * L);
  lines(kind, f2, length_out(kind, f1), one, i2 * L, L, to, o2 * L, L);
}

/** all_axes() in the other order, from cells `spread` apart to dense ones. */
INLINE void all_axes_back(transform kind, const winograd *w, const float *from, int64_t spread,
                          float *to) {
  const wino_filter f0 = w->axis[0].filter, f1 = w->axis[1].filter, f2 = w->axis[2].filter;
  if (f0 == WINO_NONE) {
#define PLANE(a, b) plane_back(kind, a, b, from, spread, to)
    PLANES(f1, f2)
#undef PLANE
    return;
  }
  float one[WINO_ELEMENTS * L], two[WINO_ELEMENTS * L];
  const int i1 = length_in(kind, f1), i2 = length_in(kind, f2);
  const int o0 = length_out(kind, f0), o1 = length_out(kind, f1), o2 = length_out(kind, f2);
  two[0] = 0; // the compiler does not know that no length is 0
  lines(kind, f0, i1 * i2, from, spread, i1 * i2 * spread, one, L, i1 * i2 * L);
  for (int z = 0; z < o0; z++)
    lines(kind, f1, i2, one + z * i1 * i2 * L, L, i2 * L, two + z * o1 * i2 * L, L, i2 * L);
  lines(kind, f2, o0 * o1, two, i2 * L, L, to, o2 * L, L);
}

/* ---- tiles -------------------------------------------------------------------------------------
 */

/** First lane of cell 0 of a channel group. */
static float *group_at(const fn_tensor *t, int64_t sample, int64_t group) {
  const int64_t channel = group * WINO_LANES;
  return (float *)t->data + sample * t->batch_stride +
         channel / t->block * fn_space(&t->shape) * t->block + channel % t->block;
}

/** A box of cells of a channel group, every stride-th one; cells outside are zero. */
typedef struct box {
  int64_t first[FN_MAX_SPATIAL], cells[FN_MAX_SPATIAL];
  int edge[FN_MAX_SPATIAL], stride[FN_MAX_SPATIAL];
} box;

/** Cells [low, high) of a box lie inside; false: all of them. */
INLINE bool cut(const box *b, int64_t low[FN_MAX_SPATIAL], int64_t high[FN_MAX_SPATIAL]) {
  bool some = false;
#pragma GCC unroll 3
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    const int64_t past = b->cells[d] - b->first[d];
    low[d] = 0, high[d] = b->edge[d];
    if (b->first[d] >= 0 && past > (b->edge[d] - 1) * b->stride[d]) continue;
    some = true;
    if (b->first[d] < 0) low[d] = fn_ceil_div(-b->first[d], b->stride[d]);
    high[d] = past <= 0 ? 0 : fn_min_of(b->edge[d], fn_ceil_div(past, b->stride[d]));
  }
  return some;
}

INLINE steps box_steps(const box *b, int64_t block) {
  const int64_t row = b->cells[2] * block, plane = b->cells[1] * row;
  return (steps){b->stride[0] * plane, b->stride[1] * row, b->stride[2] * block};
}

/** The first cell of a box when that lies inside. */
INLINE const float *box_corner(const box *b, const float *from, int64_t block) {
  return from + ((b->first[0] * b->cells[1] + b->first[1]) * b->cells[2] + b->first[2]) * block;
}

/** A copy of a box some of whose cells are outside. */
static void copy_box(const box *b, const float *from, int64_t block, float *copy, steps *by) {
  int64_t low[FN_MAX_SPATIAL], high[FN_MAX_SPATIAL];
  const steps own = box_steps(b, block);
  from = box_corner(b, from, block);
  *by = (steps){b->edge[1] * b->edge[2] * L, b->edge[2] * L, L};
  memset(copy, 0, (size_t)(b->edge[0] * by->plane) * sizeof *copy);
  cut(b, low, high);
  for (int64_t z = low[0]; z < high[0]; z++) {
    for (int64_t y = low[1]; y < high[1]; y++) {
      const float *at = from + z * own.plane + y * own.row;
      float *to = copy + z * by->plane + y * by->row;
      for (int64_t x = low[2]; x < high[2]; x++)
        *(wino_vec *)(to + x * L) = *(const wino_vec *)(at + x * own.cell);
    }
  }
}

/** Whether `extent` cells from the first one on lie inside along all axes. */
INLINE bool whole(const box *b, const int64_t extent[FN_MAX_SPATIAL]) {
  bool all = true;
#pragma GCC unroll 3
  for (int d = 0; d < FN_MAX_SPATIAL; d++)
    all &= (b->first[d] >= 0) & (b->first[d] + extent[d] <= b->cells[d]);
  return all;
}

/** Ask for the cells that the next tile reads and this one does not: in's, or out's when read back.
 *  The processor does not see so many short runs coming. */
INLINE void ask_ahead(const winograd *w, bool back, const fn_tensor *t, const wino_place *at,
                      const float *from) {
  const wino_axis *a = w->axis;
  int64_t cell[] = {at->cell[0], at->cell[1], at->cell[2] + a[2].step};
  const bool wraps = cell[2] >= a[2].first[1] + a[2].tiles * a[2].step;
  if (wraps) cell[2] = a[2].first[1], cell[1] += a[1].step;
  int64_t first[FN_MAX_SPATIAL], past[FN_MAX_SPATIAL];
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    const int64_t stride = back ? 1 : a[d].in_stride, points = back ? a[d].step : a[d].points;
    first[d] = stride * cell[d] - (back ? 0 : a[d].in_pad);
    past[d] = fn_min_of(first[d] + stride * points, back ? a[d].out : a[d].in);
    if (d == 2 && !wraps) first[d] += stride * (points - a[d].step);
    first[d] = first[d] > 0 ? first[d] : 0;
  }
  const int64_t length = (past[2] - first[2]) * t->block;
  const int64_t row = (back ? a[2].out : a[2].in) * t->block, rows = back ? a[1].out : a[1].in;
  for (int64_t z = first[0]; z < past[0]; z++) {
    const float *next = from + (z * rows + first[1]) * row + first[2] * t->block;
    for (int64_t y = first[1]; y < past[1]; y++, next += row)
      for (int64_t i = 0; i < length; i += LINE)
        __builtin_prefetch(next + i);
  }
}

void fn_wino_read(const winograd *w, const fn_tensor *in, const wino_place *at, int64_t group,
                  float *to, int64_t spread) {
  const float *from = group_at(in, at->sample, group);
  ask_ahead(w, false, in, at, from);
  box b;
  int64_t extent[FN_MAX_SPATIAL];
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    const wino_axis *a = &w->axis[d];
    b.stride[d] = a->in_stride;
    b.first[d] = a->in_stride * at->cell[d] - a->in_pad;
    b.cells[d] = a->in;
    b.edge[d] = a->points;
    extent[d] = a->in_stride * a->points; // of all phases
  }
  const steps by = box_steps(&b, in->block);
  const float *corner = box_corner(&b, from, in->block);
  const bool inside = whole(&b, extent);
  for (int q = 0; q < w->in_phases; q++, to += w->in_width) {
    const int *phase = w->phase[q];
    if (inside) {
      box one = b;
      for (int d = 0; d < FN_MAX_SPATIAL; d++)
        one.first[d] = phase[d];
      all_axes(READ, w, box_corner(&one, corner, in->block), &by, to, spread);
    } else {
      float copy[WINO_ELEMENTS * L];
      steps dense;
      box one = b;
      for (int d = 0; d < FN_MAX_SPATIAL; d++)
        one.first[d] += phase[d];
      copy_box(&one, from, in->block, copy, &dense);
      all_axes(READ, w, copy, &dense, to, spread);
    }
  }
}

void fn_wino_read_back(const winograd *w, const fn_tensor *out, const wino_place *at, int64_t group,
                       float *to, int64_t spread, float *sum) {
  float copy[WINO_STEP * WINO_STEP * WINO_STEP * L];
  box b;
  int64_t extent[FN_MAX_SPATIAL];
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    b.stride[d] = 1;
    b.first[d] = at->cell[d];
    b.cells[d] = w->axis[d].out;
    b.edge[d] = w->axis[d].step;
    extent[d] = b.edge[d];
  }
  const float *from = group_at(out, at->sample, group), *cells = copy;
  ask_ahead(w, true, out, at, from);
  steps by;
  if (whole(&b, extent)) {
    by = box_steps(&b, out->block);
    cells = box_corner(&b, from, out->block);
  } else {
    copy_box(&b, from, out->block, copy, &by);
  }
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

/** Bias and activation. */
INLINE void finish_cell(wino_vec *v, const wino_vec *bias, const wino_vec *slope, bool leaks) {
  *v += *bias;
  if (leaks) leaky(v, slope);
}

/** A box of results, some of which may lie outside. */
static void write_box(const fn_tensor *out, const box *b, float *base, const float *cells,
                      const float *more, int64_t more_block, const wino_vec *bias,
                      const wino_vec *slope) {
  int64_t low[FN_MAX_SPATIAL], high[FN_MAX_SPATIAL];
  cut(b, low, high);
  const int64_t step = b->stride[2] * out->block, more_step = b->stride[2] * more_block;
  for (int64_t z = low[0]; z < high[0]; z++) {
    for (int64_t y = low[1]; y < high[1]; y++) {
      const int64_t plane = (b->first[0] + z * b->stride[0]) * b->cells[1];
      const int64_t row = (plane + b->first[1] + y * b->stride[1]) * b->cells[2] + b->first[2];
      const float *from = cells + (z * b->edge[1] + y) * b->edge[2] * L;
      float *to = base + row * out->block;
      for (int64_t x = low[2]; x < high[2]; x++) {
        wino_vec v = *(const wino_vec *)(from + x * L);
        if (more) v += *(const wino_vec *)(more + row * more_block + x * more_step);
        finish_cell(&v, bias, slope, true);
        *(wino_vec *)(to + x * step) = v;
      }
    }
  }
}

/** plane_back() straight to where the results lie. */
INLINE void write_plane(wino_filter f1, wino_filter f2, const float *from, int64_t spread,
                        const steps *by, float *to, const wino_vec *bias, const wino_vec *slope,
                        bool leaks) {
  float one[WINO_POINTS * WINO_POINTS * L];
  const int i2 = points_of(f2);
  one[0] = 0;
  lines(WRITE, f1, i2, from, spread, i2 * spread, one, L, i2 * L);
  for (int y = 0; y < step_of(f1); y++) {
    wino_vec in[WINO_POINTS], out[WINO_POINTS];
#pragma GCC unroll 6
    for (int x = 0; x < i2; x++)
      in[x] = *(const wino_vec *)(one + (y * i2 + x) * L);
    line_write(f2, in, out);
#pragma GCC unroll 4
    for (int x = 0; x < step_of(f2); x++) {
      finish_cell(&out[x], bias, slope, leaks);
      *(wino_vec *)(to + y * by->row + x * by->cell) = out[x];
    }
  }
}

/** Ask for the rows that the next tile along the last axis writes. */
INLINE void ask_to_write(const box *b, const steps *by, const float *to) {
  const int64_t length = b->edge[2] * by->cell;
  for (int z = 0; z < b->edge[0]; z++)
    for (int y = 0; y < b->edge[1]; y++)
      for (int64_t i = 0; i < length; i += LINE)
        __builtin_prefetch(to + z * by->plane + y * by->row + length + i, 1);
}

void fn_wino_write(const winograd *w, const fn_tensor *out, const wino_place *at, int64_t group,
                   const float *from, int64_t spread, const wino_finish *finish) {
  const wino_filter f1 = w->axis[1].filter, f2 = w->axis[2].filter;
  const wino_vec bias =
      finish->bias ? *(const wino_vec *)(finish->bias + group * L) : (wino_vec){0};
  const wino_vec slope = (wino_vec){0} + finish->slope;
  const bool leaks = finish->slope != 1;
  const fn_tensor *r = finish->residual;
  float *base = group_at(out, at->sample, group);
  for (int q = 0; q < w->out_phases; q++, from += w->out_width) {
    const int *phase = w->phase[at->group * w->out_phases + q];
    box b;
    int64_t extent[FN_MAX_SPATIAL];
    for (int d = 0; d < FN_MAX_SPATIAL; d++) {
      const wino_axis *a = &w->axis[d];
      b.stride[d] = a->out_stride;
      b.first[d] = a->out_stride * at->cell[d] - a->out_pad + (a->out_stride > 1 ? phase[d] : 0);
      b.cells[d] = a->out;
      b.edge[d] = a->step;
      extent[d] = (b.edge[d] - 1) * b.stride[d] + 1;
    }
    const steps by = box_steps(&b, out->block);
    float *to = (float *)box_corner(&b, base, out->block);
    if (phase[2] == 0 || w->axis[2].apart) ask_to_write(&b, &by, to);
    if (w->axis[0].filter == WINO_NONE && !r && whole(&b, extent)) {
#define PLANE(f1, f2) write_plane(f1, f2, from, spread, &by, to, &bias, &slope, leaks)
      PLANES(f1, f2)
#undef PLANE
      continue;
    }
    float cells[WINO_STEP * WINO_STEP * WINO_STEP * L];
    all_axes_back(WRITE, w, from, spread, cells);
    write_box(out, &b, base, cells, r ? group_at(r, at->sample, group) : NULL, r ? r->block : 0,
              &bias, &slope);
  }
}

/* ---- weights -----------------------------------------------------------------------------------
 */

enum { TAPS = WINO_TAPS * WINO_TAPS * WINO_TAPS };

int64_t fn_wino_weight_spread(const winograd *w) {
  return w->columns * w->rows + WINO_SPREAD;
}

int64_t fn_wino_weight_count(const winograd *w) {
  return w->groups * w->elements * fn_wino_weight_spread(w);
}

/** Where the taps of a phase lie in the plain kernel; returns their number. */
static int kernel_cells(const winograd *w, int group, int phase, bool backwards, int cell[TAPS]) {
  const wino_axis *a = w->axis;
  const int *digit = w->phase[group * w->out_phases + phase];
  const int taps = a[0].taps * a[1].taps * a[2].taps;
  for (int t = 0; t < taps; t++) {
    const int tap[] = {t / a[2].taps / a[1].taps, t / a[2].taps % a[1].taps, t % a[2].taps};
    cell[t] = 0;
    for (int d = 0; d < FN_MAX_SPATIAL; d++) {
      const int stride = a[d].in_stride * a[d].out_stride;
      const int along = backwards ? a[d].taps - 1 - tap[d] : tap[d];
      cell[t] = cell[t] * a[d].taps * stride + along * stride + digit[d];
    }
  }
  return taps;
}

static void weights_of_group(const winograd *w, const wino_weights *from, int group, float *to) {
  const int64_t panels = w->columns / L, spread = fn_wino_weight_spread(w);
  const int64_t row = w->axis[2].taps * L;
  const steps by = {w->axis[1].taps * row, row, L};
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t g = 0; g < panels; g++) {
    for (int64_t i = 0; i < w->rows; i++) {
      float taps[TAPS * L] = {0};
      int cell[TAPS];
      const int phase = (int)(w->in_phases > 1 ? i / w->in_width : g * L / w->out_width);
      const int count = kernel_cells(w, group, phase, from->backwards, cell);
      const int64_t c = i % w->in_width, k = g * L % w->out_width;
      const int64_t lanes = c < w->in_channels ? fn_min_of(L, w->out_channels - k) : 0;
      for (int64_t l = 0; l < lanes; l++) {
        const float *own = from->data + c * from->in_stride + (k + l) * from->out_stride;
        for (int t = 0; t < count; t++)
          taps[t * L + l] = own[cell[t]];
      }
      float *first = to + (g * L / WINO_PANEL * w->rows + i) * WINO_PANEL + g * L % WINO_PANEL;
      all_axes(WEIGHTS, w, taps, &by, first, spread);
    }
  }
}

void fn_wino_weights(const winograd *w, const wino_weights *from, float *to) {
  for (int group = 0; group < w->groups; group++)
    weights_of_group(w, from, group, to + group * w->elements * fn_wino_weight_spread(w));
}

void fn_wino_weights_back(const winograd *w, const float *from, int64_t spread,
                          const wino_weights *to) {
  const int64_t groups = fn_ceil_div(w->out_channels, L);
#pragma omp parallel for schedule(static) collapse(2)
  for (int64_t g = 0; g < groups; g++) {
    for (int64_t i = 0; i < w->rows; i++) {
      const int64_t c = i % w->in_width;
      if (c >= w->in_channels) continue;
      float taps[TAPS * L];
      int cell[TAPS];
      const int count = kernel_cells(w, 0, (int)(i / w->in_width), false, cell);
      all_axes_back(WEIGHTS_BACK, w, from + i * w->out_width + g * L, spread, taps);
      for (int64_t l = 0; l < fn_min_of(L, w->out_channels - g * L); l++) {
        float *own = to->data + c * to->in_stride + (g * L + l) * to->out_stride;
        for (int t = 0; t < count; t++)
          own[cell[t]] = taps[t * L + l];
      }
    }
  }
}
