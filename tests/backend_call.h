/** @file backend_call.h
 *  One operator run by the cpu backend on hand-made tensors and compared with its reference kernel
 *  in double precision: layouts, strides, types, in place, channel padding, nothing written
 * outside.
 */
#ifndef BACKEND_CALL_H
#define BACKEND_CALL_H

#include "op_call.h"

#include <math.h>

#include "backend/backends.h"
#include "backend/bf16.h"

/** How to run it. */
typedef struct manner {
  int64_t block;       /**< layout in which the inputs with channels are said to lie */
  bool strided;        /**< gaps between samples wherever the plan allows it */
  bool half;           /**< bf16 activations */
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

static inline int64_t held_offset(const fn_tensor *t, int64_t n, int64_t c, int64_t s) {
  int64_t cells = 1;
  for (int d = 2; d < t->shape.ndim; d++)
    cells *= t->shape.dim[d];
  return n * t->batch_stride + (c / t->block * cells + s) * t->block + c % t->block;
}

static inline void held_make(held *h, const fn_shape *shape, fn_dtype dtype, int64_t block,
                             bool strided) {
  h->tensor = (fn_tensor){.dtype = dtype, .shape = *shape, .block = shape->ndim < 3 ? 1 : block};
  h->shared = -1;
  const int64_t sample = fn_tensor_sample_count(shape, h->tensor.block);
  h->tensor.batch_stride = sample + (strided && shape->ndim > 1 ? GAP : 0);
  const int64_t batch = shape->ndim > 0 ? shape->dim[0] : 1;
  h->bytes = (size_t)(batch * h->tensor.batch_stride + GAP) * fn_dtype_size(dtype);
  h->bytes = (h->bytes + 63) / 64 * 64;
  h->tensor.data = aligned_alloc(64, h->bytes);
  memset(h->tensor.data, 0xff, h->bytes); // NaN in every type
}

static inline double held_get(const fn_tensor *t, int64_t at) {
  return t->dtype == FN_BF16 ? (double)fn_bf16_to_f32(((uint16_t *)t->data)[at])
                             : (double)((float *)t->data)[at];
}

static inline void held_set(const fn_tensor *t, int64_t at, double value) {
  if (t->dtype == FN_BF16)
    ((uint16_t *)t->data)[at] = fn_bf16_from_f32((float)value);
  else
    ((float *)t->data)[at] = (float)value;
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
  const int64_t sample = fn_tensor_sample_count(&t->shape, t->block);
  double largest = 1e-30;
  for (int64_t i = 0; i < n * c * cells; i++)
    if (fabs(expected[i]) > largest) largest = fabs(expected[i]);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t k = 0; k < (c + t->block - 1) / t->block * t->block; k++) {
      for (int64_t s = 0; s < cells; s++) {
        const double found = held_get(t, held_offset(t, i, k, s));
        const double wanted = k < c ? expected[(i * c + k) * cells + s] : 0;
        const double allowed = k < c ? tolerance * largest : 0;
        if (isnan(found) && isnan(wanted)) continue;
        if (!(fabs(found - wanted) <= allowed))
          fail_msg("%s output %d, sample %d channel %d cell %d: %.9g, expected %.9g within %g",
                   name, port, (int)i, (int)k, (int)s, found, wanted, allowed);
      }
    }
    for (int64_t g = sample; g < t->batch_stride; g++)
      if (!isnan(held_get(t, i * t->batch_stride + g))) fail_msg("%s wrote into a gap", name);
  }
  for (int64_t g = 0; g < GAP; g++)
    if (!isnan(held_get(t, n * t->batch_stride + g))) fail_msg("%s wrote past the end", name);
}

static inline void require(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

/** Memory for output o: its own, or that of an input when `in_place` and the plan allow it. */
static inline void place_output(const call *c, const manner *m, const fn_node_plan *plan, int o,
                                const held *in, unsigned *taken, held *out) {
  const bool full = !m->half || (m->full_out >> o & 1);
  held_make(out, &c->output[o]->shape, full ? FN_F32 : FN_BF16, plan->out_block[o],
            m->strided && plan->strided_out[o]);
  for (int i = 0; m->in_place && i < c->node.input_count; i++) {
    if (!(plan->in_place[o] >> i & 1) || (*taken >> i & 1) || !c->input[i]) continue;
    assert_int_equal(in[i].tensor.block, out->tensor.block);
    assert_int_equal(in[i].tensor.dtype, out->tensor.dtype);
    assert_true(fn_shape_equal(&in[i].tensor.shape, &out->tensor.shape));
    if (in[i].tensor.batch_stride != out->tensor.batch_stride) continue;
    free(out->tensor.data);
    out->tensor.data = in[i].tensor.data;
    out->shared = i;
    *taken |= 1u << i;
    return;
  }
}

/** Run c on the cpu backend and compare all outputs with the reference. c's inputs are rounded to
 *  the types used. Returns a checksum of the bytes of all outputs. */
static inline uint64_t check_call(call *c, const manner *m) {
  const fn_backend *cpu = &fn_backend_cpu;
  const char *name = c->node.op->name;
  held in[CALL_PORTS], out[CALL_PORTS];
  fn_tensor input[CALL_PORTS] = {{0}}, output[CALL_PORTS] = {{0}};
  int64_t current[CALL_PORTS];
  const int inputs = c->node.input_count, outputs = c->node.output_count;
  for (int i = 0; i < inputs; i++) {
    if (!c->input[i]) continue;
    c->input[i]->dtype = m->half && !(m->full_in >> i & 1) ? FN_BF16 : FN_F32;
    current[i] = c->input[i]->shape.ndim < 3 ? 1 : m->block;
  }
  for (int o = 0; o < outputs; o++)
    c->output[o]->dtype = m->half && !(m->full_out >> o & 1) ? FN_BF16 : FN_F32;
  assert_true(cpu->supports(cpu, &c->node));
  fn_node_plan plan;
  require(cpu->plan(cpu, &c->node, current, &plan));
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
  fn_kernel kernel = {.node = &c->node, .input = input, .output = output};
  require(cpu->prepare(cpu, &kernel));
  fn_run_context context = m->context ? *m->context : (fn_run_context){0};
  const size_t workspace = (kernel.workspace + 127) / 64 * 64;
  context.workspace = aligned_alloc(64, workspace);
  memset(context.workspace, 0xff, workspace);
  require(kernel.run(&kernel, &context));
  uint64_t sum = 14695981039346656037u;
  for (int o = 0; o < outputs; o++) {
    const double f32 = m->tolerance > 0 ? m->tolerance : 1e-5;
    // bf16 rounds by at most 2^-8; twice that for what was rounded on the way.
    const double tolerance = output[o].dtype == FN_BF16 ? 8e-3 : f32;
    if (output[o].data) {
      held_check(&out[o], c->out[o], tolerance, name, o);
      for (size_t b = 0; b < out[o].bytes; b++)
        sum = (sum ^ ((unsigned char *)output[o].data)[b]) * 1099511628211u;
    }
    if (out[o].shared < 0) free(out[o].tensor.data);
  }
  for (int i = 0; i < inputs; i++)
    if (c->input[i]) free(in[i].tensor.data);
  if (kernel.destroy) kernel.destroy(&kernel);
  free(context.workspace);
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
