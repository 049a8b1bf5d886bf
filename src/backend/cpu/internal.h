/** @file internal.h
 *  Shared by the files of the cpu backend.
 *
 *  Vector kernels see a tensor as rows: row (n, k) is channel block k of sample n, `space * block`
 *  elements in one piece. A row is cut in chunks of FN_CHUNK elements whose bounds do not depend on
 *  the number of threads; sums are kept per chunk and combined in chunk order, so results do not
 *  depend on the number of threads either.
 */
#ifndef FN_BACKEND_CPU_INTERNAL_H
#define FN_BACKEND_CPU_INTERNAL_H

#include <string.h>

#include "backend/cpu/cpu.h"
#include "base/bf16.h"
#include "base/system.h"
#include "ops/ops.h"

/* ---- table of operators ---------------------------------------------------------------------- */

/** How the backend runs one operator. */
typedef struct fn_cpu_op {
  const fn_op *op;
  bool (*supports)(const fn_node *node); /**< NULL: always, given f32 or bf16 values */
  void (*plan)(const fn_node *node, const int64_t *current, fn_node_plan *plan);
  fn_status (*prepare)(fn_kernel *kernel);
} fn_cpu_op;

/** Tables of the files, each ended by an entry whose op is NULL. */
extern const fn_cpu_op fn_cpu_conv_ops[], fn_cpu_matmul_ops[], fn_cpu_norm_ops[], fn_cpu_fold_ops[],
    fn_cpu_elementwise_ops[], fn_cpu_window_ops[], fn_cpu_periodic_ops[], fn_cpu_shape_ops[],
    fn_cpu_reduce_ops[], fn_cpu_pool_ops[], fn_cpu_resample_ops[], fn_cpu_random_ops[];

fn_status fn_cpu_prepare_reorder(const fn_backend *backend, fn_kernel *kernel);

/** First member of every kernel's state. */
typedef struct fn_cpu_state {
  void *workspace; /**< of the last run */
  /** The kernel's own primitive of the library alone; NULL when it has none. */
  fn_status (*primitive)(const fn_kernel *kernel, void *workspace);
  /** Where a kernel of ours runs in its place: seconds of the library's; may be NULL. */
  fn_status (*time_library)(const fn_kernel *kernel, double *seconds);
  void (*release)(struct fn_cpu_state *state); /**< before the state is freed; may be NULL */
} fn_cpu_state;

/** Zeroed state of `size` bytes that starts with fn_cpu_state; sets kernel->destroy. */
fn_status fn_cpu_state_create(fn_kernel *kernel, size_t size, void **state);

/** Reserve `bytes` of workspace, 64-byte aligned; returns the offset. */
size_t fn_cpu_carve(fn_kernel *kernel, size_t bytes);

/* ---- sizes ----------------------------------------------------------------------------------- */

enum { FN_CHUNK = 4096, FN_LANES = 16 };

static inline int64_t fn_ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}
static inline int64_t fn_min_of(int64_t a, int64_t b) {
  return a < b ? a : b;
}
static inline int64_t fn_batch(const fn_shape *shape) {
  return shape->ndim > 0 ? shape->dim[0] : 1;
}
static inline int64_t fn_channels(const fn_shape *shape) {
  return shape->ndim > 1 ? shape->dim[1] : 1;
}
/** Cells per channel. */
static inline int64_t fn_space(const fn_shape *shape) {
  int64_t space = 1;
  for (int d = 2; d < shape->ndim; d++)
    space *= shape->dim[d];
  return space;
}
static inline bool fn_tensor_dense(const fn_tensor *t) {
  return fn_batch(&t->shape) <= 1 || t->batch_stride == fn_tensor_sample_count(&t->shape, t->block);
}

/** Rows of a tensor cut in chunks. */
typedef struct fn_rows {
  int64_t batch, blocks, cells; /**< samples, channel blocks, cells per row */
  int64_t block;
  int64_t length; /**< elements per row */
  int64_t chunks; /**< per row */
  int64_t items;  /**< batch * blocks * chunks */
} fn_rows;

static inline fn_rows fn_rows_of(const fn_shape *shape, int64_t block) {
  fn_rows r;
  r.batch = fn_batch(shape);
  r.block = block;
  r.blocks = fn_ceil_div(fn_channels(shape), block);
  r.cells = fn_space(shape);
  r.length = r.cells * block;
  r.chunks = fn_ceil_div(r.length, FN_CHUNK);
  r.items = r.batch * r.blocks * r.chunks;
  return r;
}

/** One chunk of a row. */
typedef struct fn_item {
  int64_t n, k, offset, count; /**< sample, channel block, first element in the sample, elements */
} fn_item;

static inline fn_item fn_item_at(const fn_rows *r, int64_t index) {
  const int64_t chunk = index % r->chunks, row = index / r->chunks;
  fn_item it;
  it.n = row / r->blocks;
  it.k = row % r->blocks;
  const int64_t first = chunk * FN_CHUNK;
  it.offset = it.k * r->length + first;
  it.count = fn_min_of(FN_CHUNK, r->length - first);
  return it;
}

/** A map over elements: the whole tensor as one run when all operands are dense, else a run per
 *  sample. */
typedef struct fn_runs {
  int64_t batch, count, chunks, items;
} fn_runs;

static inline fn_runs fn_runs_of(const fn_tensor *const *tensor, int count) {
  fn_runs r;
  bool dense = true;
  for (int i = 0; i < count; i++)
    dense = dense && fn_tensor_dense(tensor[i]);
  r.batch = fn_batch(&tensor[0]->shape);
  r.count = fn_tensor_sample_count(&tensor[0]->shape, tensor[0]->block);
  if (dense) {
    r.count *= r.batch;
    r.batch = 1;
  }
  r.chunks = fn_ceil_div(r.count, FN_CHUNK);
  r.items = r.batch * r.chunks;
  return r;
}

static inline fn_item fn_run_at(const fn_runs *r, int64_t index) {
  fn_item it;
  it.n = index / r->chunks;
  it.k = 0;
  it.offset = index % r->chunks * FN_CHUNK;
  it.count = fn_min_of(FN_CHUNK, r->count - it.offset);
  return it;
}

/* ---- elements -------------------------------------------------------------------------------- */

static inline int64_t fn_offset(const fn_tensor *t, const fn_item *it) {
  return it->n * t->batch_stride + it->offset;
}

/** `count` elements from `offset` as f32: in place, or converted into scratch [count]. */
static inline const float *fn_load(const fn_tensor *t, int64_t offset, int64_t count,
                                   float *scratch) {
  if (t->dtype == FN_F32) return (const float *)t->data + offset;
  const uint16_t *half = (const uint16_t *)t->data + offset;
#pragma omp simd
  for (int64_t i = 0; i < count; i++)
    scratch[i] = fn_bf16_to_f32(half[i]);
  return scratch;
}

/** Where to compute `offset...`: in place or scratch, to be followed by fn_store. */
static inline float *fn_target(const fn_tensor *t, int64_t offset, float *scratch) {
  return t->dtype == FN_F32 ? (float *)t->data + offset : scratch;
}

static inline void fn_store(const fn_tensor *t, int64_t offset, int64_t count, const float *tile) {
  if (t->dtype == FN_F32) return;
  uint16_t *half = (uint16_t *)t->data + offset;
#pragma omp simd
  for (int64_t i = 0; i < count; i++)
    half[i] = fn_bf16_from_f32(tile[i]);
}

static inline double fn_scalar(const fn_tensor *t, int64_t index) {
  return t->dtype == FN_BF16 ? (double)fn_bf16_to_f32(((const uint16_t *)t->data)[index])
                             : (double)((const float *)t->data)[index];
}
static inline void fn_scalar_set(const fn_tensor *t, int64_t index, double value) {
  if (t->dtype == FN_BF16)
    ((uint16_t *)t->data)[index] = fn_bf16_from_f32((float)value);
  else
    ((float *)t->data)[index] = (float)value;
}

/** Eight floats that gcc keeps in vector registers on any processor. */
typedef float fn_lane8 __attribute__((vector_size(32), aligned(4), may_alias));

/** Keep a value that is used several times in a register: gcc likes to read it from memory at every
 *  use, which costs more than the arithmetic. */
#if defined __AVX512F__
#define FN_KEEP(vector) __asm__("" : "+v"(vector))
#elif defined __AVX__
#define FN_KEEP(vector) __asm__("" : "+x"(vector))
#else
#define FN_KEEP(vector) (void)(vector)
#endif

/** What comparing fn_lane8 gives: all bits of a lane set, or none. */
typedef int32_t fn_mask8 __attribute__((vector_size(32), aligned(4), may_alias));

/** Eight floats to memory. stream: past the caches, 32-byte aligned; before others read them comes
 *  fn_stream_fence(). Large results that nobody reads soon are written so: an ordinary store would
 *  read the memory first, and what it writes would only push out what is used again. */
static inline void fn_lane8_put(float *to, const fn_lane8 *value, bool stream) {
#if defined __AVX__
  typedef float vector __attribute__((vector_size(32)));
  if (stream) {
    __builtin_ia32_movntps256(to, (vector)*value);
    return;
  }
#else
  (void)stream;
#endif
  *(fn_lane8 *)to = *value;
}

static inline void fn_stream_fence(void) {
#if defined __AVX__
  __builtin_ia32_sfence();
#endif
}

/** Whether an output is worth writing past the caches with fn_lane8_put(), and may be: f32, larger
 *  than the last cache, all rows 32-byte aligned. */
bool fn_cpu_streams(const fn_tensor *t);

/** Values of channel block k repeated to FN_LANES lanes: pattern[i % FN_LANES] belongs to element i
 *  of a row. value [channels]; lanes past the last channel get 0. */
static inline void fn_pattern(const float *value, int64_t channels, int64_t k, int64_t block,
                              float *pattern) {
  for (int64_t b = 0; b < block && b < FN_LANES; b++) {
    const float v = k * block + b < channels ? value[k * block + b] : 0;
    for (int64_t i = b; i < FN_LANES; i += block)
      pattern[i] = v;
  }
}

/* ---- layouts --------------------------------------------------------------------------------- */

/** The block that most operands have now: the first one larger than 1, else 1. */
int64_t fn_cpu_common_block(const fn_node *node, const int64_t *current);
/** All ports of three axes and more in `block`, the others plain; strided everywhere. */
void fn_cpu_plan_block(const fn_node *node, int64_t block, fn_node_plan *plan);
/** Whether input i and output o have equal shape and dtype, so that memory may be shared. */
bool fn_cpu_same(const fn_node *node, int input, int output);
/** Set the channels past the last one to zero (operators that do not map 0 to 0). */
void fn_cpu_zero_padding(const fn_tensor *t);
/** Zero everything in the tensor. */
void fn_cpu_zero(const fn_tensor *t);

#endif
