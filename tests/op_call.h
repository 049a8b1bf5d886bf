/** @file op_call.h
 *  One operator called by hand, without a graph: shapes from infer, memory, reference kernel.
 */
#ifndef OP_CALL_H
#define OP_CALL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "ops/ops.h"

enum { CALL_PORTS = 7 };

/** Not to be moved after call_make: the node points into it. */
typedef struct call {
  fn_node node;
  fn_value value[2 * CALL_PORTS];
  fn_value *input[CALL_PORTS], *output[CALL_PORTS];
  double *in[CALL_PORTS], *out[CALL_PORTS];
} call;

/** Inputs of the given shapes; ndim -1: absent. Returns the status of infer. */
static inline fn_status call_infer(call *c, const fn_op *op, const void *attrs, int inputs,
                                   const fn_shape *shape, int outputs) {
  memset(c, 0, sizeof *c);
  c->node = (fn_node){.op = op,
                      .input_count = inputs,
                      .output_count = outputs,
                      .input = c->input,
                      .output = c->output,
                      .attrs = (void *)(uintptr_t)attrs};
  for (int i = 0; i < inputs; i++) {
    c->value[i].shape = shape[i];
    c->input[i] = shape[i].ndim < 0 ? NULL : &c->value[i];
  }
  fn_shape result[CALL_PORTS];
  const fn_status status = op->infer(&c->node, result);
  for (int i = 0; status == FN_OK && i < outputs; i++) {
    c->output[i] = &c->value[CALL_PORTS + i];
    c->output[i]->shape = result[i];
    c->output[i]->node = &c->node;
    c->output[i]->output = i;
  }
  return status;
}

/** The same with zeroed memory for all tensors; infer must succeed. attrs must outlive the call. */
static inline void call_make(call *c, const fn_op *op, const void *attrs, int inputs,
                             const fn_shape *shape, int outputs) {
  const fn_status status = call_infer(c, op, attrs, inputs, shape, outputs);
  if (status != FN_OK) fail_msg("%s", fn_error_message());
  for (int i = 0; i < inputs; i++) {
    if (c->input[i]) c->in[i] = calloc((size_t)fn_shape_count(&shape[i]) + 1, sizeof(double));
  }
  for (int i = 0; i < outputs; i++) {
    c->out[i] = calloc((size_t)fn_shape_count(&c->output[i]->shape) + 1, sizeof(double));
  }
}

static inline void call_run_in(call *c, const fn_run_context *context) {
  const double *in[CALL_PORTS];
  for (int i = 0; i < CALL_PORTS; i++)
    in[i] = c->in[i];
  if (c->node.op->reference(&c->node, in, c->out, context) != FN_OK) {
    fail_msg("%s", fn_error_message());
  }
}

static inline void call_run(call *c) {
  call_run_in(c, &(fn_run_context){0});
}

static inline void call_free(call *c) {
  for (int i = 0; i < CALL_PORTS; i++) {
    free(c->in[i]);
    free(c->out[i]);
  }
}

static inline int64_t call_in_count(const call *c, int i) {
  return fn_shape_count(&c->input[i]->shape);
}

static inline int64_t call_out_count(const call *c, int i) {
  return fn_shape_count(&c->output[i]->shape);
}

static inline void fill_normal(fn_random *random, double *values, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    values[i] = fn_random_normal(random);
}

static inline double inner(const double *a, const double *b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++)
    sum += a[i] * b[i];
  return sum;
}

static inline void assert_near(double found, double expected, double tolerance) {
  const double difference = found > expected ? found - expected : expected - found;
  if (!(difference <= tolerance)) {
    fail_msg("found %.17g, expected %.17g within %g", found, expected, tolerance);
  }
}

static inline void assert_values(const double *found, const double *expected, int count,
                                 double tolerance) {
  for (int i = 0; i < count; i++)
    assert_near(found[i], expected[i], tolerance);
}

#endif
