/** @file backend_call.h
 *  One operator run by a backend on hand-made tensors and compared with its reference kernel in
 *  double precision: layouts, strides, types, in place, channel padding, nothing written outside.
 */
#ifndef BACKEND_CALL_H
#define BACKEND_CALL_H

#include "op_call.h"

#include <math.h>

#include "backend/backends.h"
#include "backend/gpu/kernels/element.h"
#include "base/bf16.h"

/** The backend under test, and its device; NULL: the kernels' memory is the host's. */
static const fn_backend *tested_backend = &fn_backend_cpu;
static fn_device *tested_device = NULL;
/** The type that `half` stands for. */
static fn_dtype tested_half = FN_BF16;
/** Checksum over all results so far. */
static uint64_t tested_sum = 14695981039346656037u;

/** How to run it. */
typedef struct manner {
  int64_t block;       /**< layout in which the inputs with channels are said to lie */
  bool strided;        /**< gaps between samples wherever the plan allows it */
  bool half;           /**< 16-bit activations */
  bool in_place;       /**< outputs over inputs wherever the plan allows it */
  bool never_in_place; /**< check_all leaves that out */
  unsigned full_in;    /**< ports that stay f32 when half */
  unsigned full_out;
  unsigned absent_out; /**< outputs nobody reads */
  double tolerance;    /**< of f32 results, relative to the largest value; 0: 1e-5 */
  const fn_run_context *context;
} manner;

enum { GAP = 24 }; // elements between samples and behind the last one

typedef struct held {
  fn_tensor tensor;
  size_t bytes;
  int shared; /**< input whose memory it is, or -1 */
} held;

static inline int64_t held_cells(const fn_tensor *t) {
  int64_t cells = 1;
  for (int d = 2; d < t->shape.ndim; d++)
    cells *= t->shape.dim[d];
  return cells;
}

static inline int64_t held_offset(const fn_tensor *t, int64_t n, int64_t c, int64_t s) {
  return n * t->batch_stride + (c / t->block * held_cells(t) + s) * t->pitch + c % t->block;
}

/** Strided: gaps between samples and, where the backend's layout has them, between cells. */
static inline void held_make(held *h, const fn_shape *shape, fn_dtype dtype, int64_t block,
                             bool strided) {
  h->tensor = (fn_tensor){.dtype = dtype, .shape = *shape, .block = shape->ndim < 3 ? 1 : block};
  h->shared = -1;
  fn_tensor *t = &h->tensor;
  const bool last = tested_backend->channels_last && shape->ndim >= 3 && t->block == shape->dim[1];
  t->pitch = t->block + (last && strided ? (t->block % 4 == 0 ? 4 : 3) : 0);
  const int64_t sample = last ? held_cells(t) * t->pitch : fn_tensor_sample_count(shape, t->block);
  t->batch_stride = sample + (strided && shape->ndim > 1 ? GAP : 0);
  const int64_t batch = shape->ndim > 0 ? shape->dim[0] : 1;
  h->bytes = (size_t)(batch * t->batch_stride + GAP) * fn_dtype_size(dtype);
  h->bytes = (h->bytes + 63) / 64 * 64;
  t->data = aligned_alloc(64, h->bytes);
  memset(t->data, 0xff, h->bytes); // NaN in every type
}

static inline double held_get(const fn_tensor *t, int64_t at) {
  return (double)fn_read(t->data, (int)t->dtype, at);
}

static inline void held_set(const fn_tensor *t, int64_t at, double value) {
  fn_write(t->data, (int)t->dtype, at, (float)value);
}

/** Copy plain doubles in, padding channels zero, gaps NaN; values are rounded to the type. */
static inline void held_write(const held *h, double *values) {
  const fn_tensor *t = &h->tensor;
  const int64_t n = t->shape.ndim > 0 ? t->shape.dim[0] : 1;
  const int64_t c = t->shape.ndim > 1 ? t->shape.dim[1] : 1;
  const int64_t cells = n * c > 0 ? fn_shape_count(&t->shape) / (n * c) : 0;
  const int64_t padded = (c + t->block - 1) / t->block * t->block;
  memset(t->data, 0xff, h->bytes);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t k = 0; k < padded; k++) {
      for (int64_t s = 0; s < cells; s++) {
        const int64_t at = held_offset(t, i, k, s);
        if (k >= c) {
          held_set(t, at, 0);
          continue;
        }
        double *value = &values[(i * c + k) * cells + s];
        held_set(t, at, *value);
        *value = held_get(t, at);
      }
    }
  }
}

/** Compare with plain doubles; padding must be zero and gaps untouched. */
static inline void held_check(const held *h, const double *expected, double tolerance,
                              const char *name, int port) {
  const fn_tensor *t = &h->tensor;
  const int64_t n = t->shape.ndim > 0 ? t->shape.dim[0] : 1;
  const int64_t c = t->shape.ndim > 1 ? t->shape.dim[1] : 1;
  const int64_t cells = fn_shape_count(&t->shape) / (n * c);
  const int64_t all = (int64_t)(h->bytes / fn_dtype_size(t->dtype));
  bool *used = calloc((size_t)all, sizeof *used);
  double largest = 1e-30;
  for (int64_t i = 0; i < n * c * cells; i++)
    if (fabs(expected[i]) > largest) largest = fabs(expected[i]);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t k = 0; k < (c + t->block - 1) / t->block * t->block; k++) {
      for (int64_t s = 0; s < cells; s++) {
        const int64_t at = held_offset(t, i, k, s);
        const double found = held_get(t, at);
        const double wanted = k < c ? expected[(i * c + k) * cells + s] : 0;
        const double allowed = k < c ? tolerance * largest : 0;
        used[at] = true;
        if (isnan(found) && isnan(wanted)) continue;
        if (t->dtype == FN_F16 && isinf(found) && fabs(wanted) > 65000) continue;
        if (!(fabs(found - wanted) <= allowed))
          fail_msg("%s output %d, sample %d channel %d cell %d: %.9g, expected %.9g within %g",
                   name, port, (int)i, (int)k, (int)s, found, wanted, allowed);
      }
    }
  }
  const unsigned char *bytes = t->data;
  for (int64_t at = 0; at < all; at++)
    for (size_t b = 0; b < fn_dtype_size(t->dtype) && !used[at]; b++)
      if (bytes[(size_t)at * fn_dtype_size(t->dtype) + b] != 0xff)
        fail_msg("%s wrote into a gap or past the end", name);
  free(used);
}

static inline void require(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

/** Memory for output o: its own, or that of an input when `in_place` and the plan allow it. */
static inline void place_output(const call *c, const manner *m, const fn_node_plan *plan, int o,
                                const held *in, unsigned *taken, held *out) {
  const bool full = !m->half || (m->full_out >> o & 1);
  held_make(out, &c->output[o]->shape, full ? FN_F32 : tested_half, plan->out_block[o],
            m->strided && plan->strided_out[o]);
  for (int i = 0; m->in_place && i < c->node.input_count; i++) {
    if (!(plan->in_place[o] >> i & 1) || (*taken >> i & 1) || !c->input[i]) continue;
    assert_int_equal(in[i].tensor.block, out->tensor.block);
    assert_int_equal(in[i].tensor.dtype, out->tensor.dtype);
    assert_true(fn_shape_equal(&in[i].tensor.shape, &out->tensor.shape));
    if (in[i].tensor.batch_stride != out->tensor.batch_stride) continue;
    if (in[i].tensor.pitch != out->tensor.pitch) continue;
    free(out->tensor.data);
    out->tensor.data = in[i].tensor.data;
    out->shared = i;
    *taken |= 1u << i;
    return;
  }
}

/* ---- memory of a device
 * -------------------------------------------------------------------------- */

static inline void *call_upload(const void *host, size_t bytes) {
  void *memory = NULL;
  require(tested_device->allocate(tested_device, bytes + 1, &memory));
  require(tested_device->copy(tested_device, FN_STREAM_COMPUTE, memory, host, bytes,
                              FN_COPY_TO_DEVICE));
  require(tested_device->synchronize(tested_device, FN_STREAM_COMPUTE));
  return memory;
}

static inline void call_download(void *host, void *memory, size_t bytes) {
  require(
      tested_device->copy(tested_device, FN_STREAM_COMPUTE, host, memory, bytes, FN_COPY_TO_HOST));
  require(tested_device->synchronize(tested_device, FN_STREAM_COMPUTE));
  tested_device->release(tested_device, memory);
}

/** Seed, epoch and the samples of `rows` rows in the device's memory. */
static inline void *call_context(const fn_run_context *context, int64_t rows) {
  const size_t bytes = sizeof(fn_gpu_context) + (size_t)rows * sizeof(int64_t);
  fn_gpu_context *host = calloc(1, bytes);
  host->seed = context->seed;
  host->epoch = context->epoch;
  for (int64_t n = 0; n < rows; n++)
    host->sample[n] = context->sample ? context->sample[n] : n;
  void *memory = call_upload(host, bytes);
  free(host);
  return memory;
}

/** Prepare and run c on tensors that lie in the host's memory. */
static inline void call_on_backend(const call *c, const manner *m, const held *in, held *out,
                                   fn_tensor *input, fn_tensor *output) {
  const int inputs = c->node.input_count, outputs = c->node.output_count;
  for (int i = 0; tested_device && i < inputs; i++)
    if (input[i].data) input[i].data = call_upload(in[i].tensor.data, in[i].bytes);
  for (int o = 0; tested_device && o < outputs; o++) {
    if (!output[o].data) continue;
    const int shared = out[o].shared;
    output[o].data =
        shared >= 0 ? input[shared].data : call_upload(out[o].tensor.data, out[o].bytes);
  }
  fn_kernel kernel = {.node = &c->node, .input = input, .output = output};
  require(tested_backend->prepare(tested_backend, &kernel));
  fn_run_context context = m->context ? *m->context : (fn_run_context){0};
  const size_t workspace = (kernel.workspace + 127) / 64 * 64;
  void *host = aligned_alloc(64, workspace);
  memset(host, 0xff, workspace);
  context.workspace = tested_device ? call_upload(host, workspace) : host;
  if (tested_device)
    context.device =
        call_context(&context, outputs && output[0].shape.ndim ? output[0].shape.dim[0] : 0);
  require(kernel.run(&kernel, &context));
  for (int o = 0; tested_device && o < outputs; o++)
    if (output[o].data && out[o].shared < 0)
      call_download(out[o].tensor.data, output[o].data, out[o].bytes);
  for (int i = 0; tested_device && i < inputs; i++)
    if (input[i].data) call_download(in[i].tensor.data, input[i].data, in[i].bytes);
  if (tested_device) {
    tested_device->release(tested_device, context.workspace);
    tested_device->release(tested_device, (void *)(uintptr_t)context.device);
  }
  if (kernel.destroy) kernel.destroy(&kernel);
  free(host);
}

/** Run c on the backend and compare all outputs with the reference. c's inputs are rounded to the
 *  types used. Returns a checksum of the bytes of all outputs. */
static inline uint64_t check_call(call *c, const manner *m) {
  const fn_backend *backend = tested_backend;
  const char *name = c->node.op->name;
  held in[CALL_PORTS], out[CALL_PORTS];
  fn_tensor input[CALL_PORTS] = {{0}}, output[CALL_PORTS] = {{0}};
  int64_t current[CALL_PORTS] = {0};
  const int inputs = c->node.input_count, outputs = c->node.output_count;
  for (int i = 0; i < inputs; i++) {
    if (!c->input[i]) continue;
    c->input[i]->dtype = m->half && !(m->full_in >> i & 1) ? tested_half : FN_F32;
    const fn_shape *shape = &c->input[i]->shape;
    current[i] = shape->ndim < 3 || m->block == 1 ? 1
                 : backend->channels_last         ? shape->dim[1]
                                                  : m->block;
  }
  for (int o = 0; o < outputs; o++)
    c->output[o]->dtype = m->half && !(m->full_out >> o & 1) ? tested_half : FN_F32;
  assert_true(backend->supports(backend, &c->node));
  fn_node_plan plan;
  require(backend->plan(backend, &c->node, current, &plan));
  for (int i = 0; i < inputs; i++) {
    if (!c->input[i]) continue;
    held_make(&in[i], &c->input[i]->shape, c->input[i]->dtype, plan.in_block[i],
              m->strided && plan.strided_in[i]);
    held_write(&in[i], c->in[i]);
    input[i] = in[i].tensor;
  }
  call_run_in(c, m->context ? m->context : &(fn_run_context){0});
  unsigned taken = 0;
  for (int o = 0; o < outputs; o++) {
    place_output(c, m, &plan, o, in, &taken, &out[o]);
    output[o] = out[o].tensor;
    if (m->absent_out >> o & 1) output[o].data = NULL;
  }
  call_on_backend(c, m, in, out, input, output);
  uint64_t sum = 14695981039346656037u;
  for (int o = 0; o < outputs; o++) {
    const double f32 = m->tolerance > 0 ? m->tolerance : 1e-5;
    // bf16 rounds by at most 2^-8; twice that for what was rounded on the way.
    const double tolerance = out[o].tensor.dtype == FN_F32 ? f32 : 8e-3;
    if (output[o].data) {
      held_check(&out[o], c->out[o], tolerance, name, o);
      for (size_t b = 0; b < out[o].bytes; b++)
        sum = (sum ^ ((unsigned char *)out[o].tensor.data)[b]) * 1099511628211u;
    }
    if (out[o].shared < 0) free(out[o].tensor.data);
  }
  for (int i = 0; i < inputs; i++)
    if (c->input[i]) free(in[i].tensor.data);
  tested_sum = (tested_sum ^ sum) * 1099511628211u;
  return sum;
}

/** Normal values in all inputs. */
static inline void fill_inputs(call *c, uint64_t seed) {
  fn_random random = fn_random_stream(seed, FN_RANDOM_TEST, 0, 0);
  for (int i = 0; i < c->node.input_count; i++)
    if (c->input[i]) fill_normal(&random, c->in[i], call_in_count(c, i));
}

/** Make, fill, and check in both layouts, dense and strided, f32 and bf16, in place and not. */
static inline void check_all(const fn_op *op, const void *attrs, int inputs, const fn_shape *shape,
                             int outputs, const manner *base) {
  const int64_t block = 8;
  for (int variant = 0; variant < (base->never_in_place ? 8 : 16); variant++) {
    call c;
    call_make(&c, op, attrs, inputs, shape, outputs);
    fill_inputs(&c, 1 + (uint64_t)variant);
    manner m = *base;
    m.block = variant & 1 ? block : 1;
    m.strided = variant & 2;
    m.half = variant & 4;
    m.in_place = variant & 8;
    check_call(&c, &m);
    call_free(&c);
  }
}

#endif
