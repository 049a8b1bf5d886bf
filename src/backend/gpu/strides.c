/* Arguments of kernels made from tensors. */
#include "backend/gpu/strides.h"

fn_divider fn_gpu_divider(int64_t by) {
  fn_divider d = {.by = by, .shift = -1};
  if (by >= INT64_C(1) << 31) return d;
  d.shift = 0;
  while (INT64_C(1) << d.shift < by)
    d.shift++;
  const uint64_t power = UINT64_C(1) << d.shift;
  d.multiplier = (uint32_t)(((power - (uint64_t)by) << 32) / (uint64_t)by + 1);
  return d;
}

bool fn_gpu_aligned(const void *data, fn_dtype dtype) {
  return (uintptr_t)data % (FN_GPU_WIDTH * fn_dtype_size(dtype)) == 0;
}

fn_operand fn_gpu_operand(const fn_tensor *t) {
  fn_operand operand = {.data = t->data, .dtype = t->dtype};
  const int ndim = t->shape.ndim;
  const int64_t pitch = t->pitch > 0 ? t->pitch : t->block > 0 ? t->block : 1;
  int64_t step = ndim >= 3 ? pitch : 1;
  for (int a = ndim - 1; a >= 2; a--) {
    operand.stride[a] = step;
    step *= t->shape.dim[a];
  }
  if (ndim >= 2) operand.stride[1] = t->block > 1 ? 1 : step;
  if (ndim >= 2) operand.stride[0] = t->batch_stride;
  if (ndim == 1) operand.stride[0] = 1;
  return operand;
}

fn_operand fn_gpu_operand_broadcast(const fn_tensor *tensor, const fn_shape *shape) {
  const fn_operand own = fn_gpu_operand(tensor);
  fn_operand operand = {.data = own.data, .dtype = own.dtype};
  const int lead = shape->ndim - tensor->shape.ndim;
  for (int a = lead; a < shape->ndim; a++)
    operand.stride[a] = tensor->shape.dim[a - lead] == 1 ? 0 : own.stride[a - lead];
  return operand;
}

void fn_gpu_operand_move(fn_operand *operand, int axes, const int64_t *start) {
  int64_t elements = 0;
  for (int a = 0; a < axes; a++)
    elements += start[a] * operand->stride[a];
  operand->data = (char *)operand->data + elements * (int64_t)fn_dtype_size(operand->dtype);
}

/* ---- loops
 * --------------------------------------------------------------------------------------- */

/** An axis of a loop while it is made. */
typedef struct axis {
  int64_t size, stride[FN_LOOP_OPERANDS];
} axis;

/** Axes longer than one, in the order of operand 0, fastest first; axes that no operand can tell
 *  from one longer axis are joined. */
static int make_axes(const fn_shape *shape, int operands, const fn_operand *operand, axis *axes) {
  int count = 0;
  for (int a = shape->ndim - 1; a >= 0; a--) {
    if (shape->dim[a] == 1) continue;
    axis next = {.size = shape->dim[a]};
    for (int k = 0; k < operands; k++)
      next.stride[k] = operand[k].stride[a];
    int at = count++;
    for (; at > 0 && axes[at - 1].stride[0] > next.stride[0]; at--)
      axes[at] = axes[at - 1];
    axes[at] = next;
  }
  int kept = 0;
  for (int a = 0; a < count; a++) {
    bool joined = kept > 0;
    for (int k = 0; k < operands && joined; k++)
      joined = axes[a].stride[k] == axes[kept - 1].stride[k] * axes[kept - 1].size;
    if (joined)
      axes[kept - 1].size *= axes[a].size;
    else
      axes[kept++] = axes[a];
  }
  return kept;
}

/** Whether the operand can be moved in fours along axis 0. */
static bool in_fours(const axis *axes, int count, int k, const fn_operand *operand) {
  if (axes[0].stride[k] == 0) return true;
  if (axes[0].stride[k] != 1) return false;
  if (!fn_gpu_aligned(operand->data, operand->dtype)) return false;
  for (int a = 1; a < count; a++)
    if (axes[a].stride[k] % FN_GPU_WIDTH != 0) return false;
  return true;
}

static fn_loop loop_of(const axis *axes, int count, int operands, const fn_operand *operand,
                       bool wide) {
  fn_loop loop = {.count = 1, .axes = count, .width = 1};
  wide = wide && count > 0 && axes[0].size % FN_GPU_WIDTH == 0 && axes[0].stride[0] == 1;
  for (int k = 0; k < operands && wide; k++)
    wide = in_fours(axes, count, k, &operand[k]);
  if (wide) loop.width = FN_GPU_WIDTH;
  for (int a = 0; a < count; a++) {
    const int64_t step = a == 0 ? loop.width : 1;
    loop.size[a] = fn_gpu_divider(axes[a].size / step);
    loop.count *= axes[a].size / step;
    for (int k = 0; k < operands; k++)
      loop.stride[k][a] = axes[a].stride[k] * step;
  }
  for (int k = 0; k < operands && count > 0; k++)
    loop.repeated[k] = axes[0].stride[k] == 0;
  return loop;
}

fn_loop fn_gpu_loop(const fn_shape *shape, int operands, const fn_operand *operand, bool wide) {
  axis axes[FN_MAX_DIMS] = {{0}};
  const int count = make_axes(shape, operands, operand, axes);
  return loop_of(axes, count, operands, operand, wide);
}

/* ---- cells
 * --------------------------------------------------------------------------------------- */

fn_view fn_gpu_view(const fn_tensor *t) {
  const int ndim = t->shape.ndim;
  const int64_t pitch = t->pitch > 0 ? t->pitch : t->block > 0 ? t->block : 1;
  fn_view cells = {.data = t->data,
                   .dtype = (int)t->dtype,
                   .row = t->batch_stride,
                   .pitch = ndim >= 3 ? pitch : t->shape.dim[ndim - 1],
                   .size = {1, 1, 1}};
  for (int a = 2; a < ndim; a++)
    cells.size[3 - (ndim - a)] = t->shape.dim[a];
  return cells;
}

bool fn_gpu_view_wide(const fn_tensor *t) {
  const fn_view cells = fn_gpu_view(t);
  return t->shape.dim[1] % FN_GPU_WIDTH == 0 && cells.row % FN_GPU_WIDTH == 0 &&
         cells.pitch % FN_GPU_WIDTH == 0 && fn_gpu_aligned(t->data, t->dtype);
}

fn_cell_loop fn_gpu_cell_loop(const fn_shape *shape, bool wide) {
  fn_cell_loop loop = {.width = wide ? FN_GPU_WIDTH : 1};
  loop.channels = fn_gpu_divider(shape->dim[1] / loop.width);
  loop.count = fn_shape_count(shape) / loop.width;
  for (int d = 0; d < 3; d++)
    loop.size[d] = fn_gpu_divider(1);
  for (int a = 2; a < shape->ndim; a++)
    loop.size[3 - (shape->ndim - a)] = fn_gpu_divider(shape->dim[a]);
  return loop;
}

/* ---- copies
 * -------------------------------------------------------------------------------------- */

static int64_t at_most(int64_t value, int64_t most) {
  return value < most ? value : most;
}

/** Take axis `from` out of the list. */
static int without(axis *axes, int count, int from) {
  for (int a = from; a + 1 < count; a++)
    axes[a] = axes[a + 1];
  return count - 1;
}

/** Axis 0 is the fastest of y, axis p that of x. */
static void make_tile(axis *axes, int count, int p, const fn_operand operand[2],
                      fn_gpu_copy_plan *copy) {
  enum { EDGE = 32 };
  fn_transpose_args *a = &copy->tile;
  const axis fast_x = axes[p], fast_y = axes[0];
  count = without(axes, count, p);
  count = without(axes, count, 0);
  int64_t tile_p = at_most(fast_x.size, EDGE), tile_q = at_most(fast_y.size, EDGE);
  if (tile_p < EDGE) tile_q = at_most(fast_y.size, FN_TILE_ELEMENTS / tile_p);
  if (tile_q < EDGE) tile_p = at_most(fast_x.size, FN_TILE_ELEMENTS / tile_q);
  *a = (fn_transpose_args){
      .y = operand[0].data,
      .x = operand[1].data,
      .y_dtype = (int)operand[0].dtype,
      .x_dtype = (int)operand[1].dtype,
      .p = fast_x.size,
      .q = fast_y.size,
      .x_step = fast_y.stride[1],
      .y_step = fast_x.stride[0],
      .tile_p = (int)tile_p,
      .tile_q = (int)tile_q,
      .tiles_p = fn_gpu_divider((fast_x.size + tile_p - 1) / tile_p),
      .tiles_q = fn_gpu_divider((fast_y.size + tile_q - 1) / tile_q),
      .outer = loop_of(axes, count, 2, operand, false),
  };
  copy->tiled = true;
  copy->blocks = a->tiles_p.by * a->tiles_q.by * a->outer.count;
}

fn_gpu_copy_plan fn_gpu_copy_make(const fn_shape *shape, const fn_operand *y, const fn_operand *x) {
  const fn_operand operand[2] = {*y, *x};
  fn_gpu_copy_plan copy = {.tiled = false};
  axis axes[FN_MAX_DIMS] = {{0}};
  const int count = make_axes(shape, 2, operand, axes);
  for (int p = 1; p < count; p++)
    if (axes[0].stride[0] == 1 && axes[0].stride[1] > 1 && axes[p].stride[1] == 1) {
      make_tile(axes, count, p, operand, &copy);
      return copy;
    }
  copy.map = (fn_map_args){.y = y->data,
                           .x = x->data,
                           .y_dtype = (int)y->dtype,
                           .x_dtype = (int)x->dtype,
                           .kind = FN_CAST,
                           .loop = loop_of(axes, count, 2, operand, true)};
  copy.blocks = fn_gpu_blocks(copy.map.loop.count, 1);
  return copy;
}

fn_status fn_gpu_copy_run(fn_gpu_platform *platform, const fn_gpu_copy_plan *copy) {
  if (copy->tiled) return fn_gpu_launch(platform, transpose, copy->blocks, &copy->tile);
  return fn_gpu_launch(platform, map, copy->blocks, &copy->map);
}

/* ---- kernels
 * ------------------------------------------------------------------------------------- */

bool fn_gpu_same(const fn_node *node, int i, int o) {
  const fn_value *in = node->input[i], *out = node->output[o];
  return in && in->dtype == out->dtype && fn_shape_equal(&in->shape, &out->shape);
}

size_t fn_gpu_carve(fn_kernel *kernel, size_t bytes) {
  const size_t at = (kernel->workspace + 63) / 64 * 64;
  kernel->workspace = at + bytes;
  return at;
}
