/* Loops over several tensors of different layouts. */
#include "backend/cpu/grid.h"

int64_t fn_cpu_axis_stride(const fn_tensor *t, int axis) {
  if (axis == 0) return t->batch_stride;
  int64_t stride = t->block;
  for (int d = t->shape.ndim - 1; d > axis; d--)
    stride *= t->shape.dim[d];
  return stride;
}

/** Strides of tensor t over the memory axes of `whole`: [N][C or C / b][s...] and the lane. */
static void strides_of(const fn_tensor *t, const fn_tensor *whole, int64_t *stride) {
  const int lead = whole->shape.ndim - t->shape.ndim;
  const int64_t block = whole->block;
  for (int a = 0; a < whole->shape.ndim; a++) {
    const int own = a - lead;
    const bool repeated = own < 0 || (t->shape.dim[own] == 1 && whole->shape.dim[a] != 1);
    stride[a] = repeated ? 0 : fn_cpu_axis_stride(t, own);
    if (a != 1 || block == 1) continue;
    // A plain operand of a blocked grid: lanes are its channels.
    const bool split = t->block == 1 && !repeated;
    // The only channel of a plain operand serves every lane: it has no second one to step to.
    const bool single = split && t->shape.dim[own] == 1;
    stride[whole->shape.ndim] = repeated || single ? 0 : split ? stride[a] : 1;
    if (split) stride[a] *= block;
  }
}

static void join_axes(fn_grid *g) {
  int n = 0;
  for (int a = 1; a < g->ndim; a++) {
    bool joined = g->dim[n] == 1 || g->dim[a] == 1;
    if (!joined) {
      joined = true;
      for (int t = 0; t < g->tensors; t++) {
        joined = joined && g->stride[t][n] == g->stride[t][a] * g->dim[a];
      }
    }
    if (joined) {
      for (int t = 0; t < g->tensors; t++) {
        if (g->dim[a] != 1) g->stride[t][n] = g->stride[t][a];
      }
      g->dim[n] *= g->dim[a];
    } else {
      n++;
      g->dim[n] = g->dim[a];
      for (int t = 0; t < g->tensors; t++)
        g->stride[t][n] = g->stride[t][a];
    }
  }
  g->ndim = n + 1;
}

fn_grid fn_cpu_grid(const fn_tensor *const *tensor, int tensors) {
  const fn_tensor *whole = tensor[0];
  fn_grid g = {.ndim = whole->shape.ndim, .tensors = tensors};
  for (int a = 0; a < g.ndim; a++)
    g.dim[a] = whole->shape.dim[a];
  for (int t = 0; t < tensors; t++)
    strides_of(tensor[t], whole, g.stride[t]);
  if (whole->block > 1) {
    g.dim[1] = fn_ceil_div(g.dim[1], whole->block);
    g.dim[g.ndim++] = whole->block;
  }
  if (g.ndim == 0) g.dim[g.ndim++] = 1;
  fn_cpu_grid_finish(&g);
  return g;
}

void fn_cpu_grid_finish(fn_grid *grid) {
  join_axes(grid);
  grid->outer = 1;
  for (int a = 0; a < grid->ndim - 1; a++)
    grid->outer *= grid->dim[a];
  grid->chunks = fn_ceil_div(grid->dim[grid->ndim - 1], FN_CHUNK);
  grid->items = grid->outer * grid->chunks;
}

int64_t fn_cpu_grid_at(const fn_grid *grid, int64_t index, int64_t *offset) {
  const int last = grid->ndim - 1;
  const int64_t first = index % grid->chunks * FN_CHUNK;
  int64_t rest = index / grid->chunks;
  for (int t = 0; t < grid->tensors; t++)
    offset[t] = first * grid->stride[t][last];
  for (int a = last - 1; a >= 0; a--) {
    const int64_t i = rest % grid->dim[a];
    rest /= grid->dim[a];
    for (int t = 0; t < grid->tensors; t++)
      offset[t] += i * grid->stride[t][a];
  }
  return fn_min_of(FN_CHUNK, grid->dim[last] - first);
}

const float *fn_cpu_load_strided(const fn_tensor *t, int64_t offset, int64_t stride, int64_t count,
                                 float *scratch) {
  if (stride == 1) return fn_load(t, offset, count, scratch);
  if (stride == 0) {
    const float value = (float)fn_scalar(t, offset);
    for (int64_t i = 0; i < count; i++)
      scratch[i] = value;
  } else if (t->dtype == FN_F32) {
    const float *from = (const float *)t->data + offset;
    for (int64_t i = 0; i < count; i++)
      scratch[i] = from[i * stride];
  } else {
    const uint16_t *from = (const uint16_t *)t->data + offset;
    for (int64_t i = 0; i < count; i++)
      scratch[i] = fn_bf16_to_f32(from[i * stride]);
  }
  return scratch;
}

bool fn_cpu_grid_fits(const fn_shape *whole, const fn_shape *part, int64_t block,
                      int64_t *part_block) {
  *part_block = 1;
  if (block == 1) return true;
  const int channel = 1 - (whole->ndim - part->ndim); // axis of `part` under the channels
  if (channel < 0 || part->dim[channel] == 1) return whole->dim[1] != 1 || channel < 0;
  if (part->ndim == whole->ndim) {
    *part_block = block;
    return true;
  }
  return whole->dim[1] % block == 0; // lanes past the last channel do not exist in a plain operand
}
