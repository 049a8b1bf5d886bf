/** @file op_case.h
 *  One case of the operator test program: an operator with attributes, the shapes of its inputs and
 *  how they are filled.
 */
#ifndef TESTS_OP_CASE_H
#define TESTS_OP_CASE_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/program.h"
#include "ops/ops.h"

/** How the values of an input are drawn; all are of order one. */
typedef enum op_fill {
  FILL_NORMAL,
  FILL_AWAY,        /**< |x| in [0.2, 1.5]: away from the kink at zero */
  FILL_POSITIVE,    /**< in [0.5, 2] */
  FILL_DISTINCT,    /**< a permutation of equally spaced values: away from ties */
  FILL_PROBABILITY, /**< in [0, 1] */
} op_fill;

/** Properties of a case. */
enum {
  CASE_NO_GRADIENT = 1, /**< the operator is a state update or cuts the gradient on purpose */
  CASE_TRAINING = 2,    /**< graph made for training */
};

typedef struct op_case op_case;
/** Builds the value under test from the inputs; fills output[case->output_count]. */
typedef void (*op_build)(fn_graph *graph, const op_case *c, fn_value *const *input,
                         fn_value **output);

struct op_case {
  char name[128];
  const fn_op *op;       /**< operator covered; for composed cases too, where build appends it */
  const char *tolerance; /**< row of the tolerance table */
  int spatial;           /**< 1, 2, 3 */
  int input_count, output_count;
  fn_shape shape[FN_MAX_PORTS]; /**< of inputs; ndim -1: absent */
  op_fill fill[FN_MAX_PORTS];
  unsigned projected; /**< outputs whose derivative is tested */
  unsigned flags;
  op_build build; /**< NULL: append op with attrs */
  _Alignas(16) unsigned char attrs[512];
};

typedef struct op_suite {
  op_case *item;
  int count, capacity;
} op_suite;

static const fn_shape absent_shape = {.ndim = -1};

static inline bool is_absent(const op_case *c, int input) {
  return c->shape[input].ndim < 0;
}

/** New case named "<op> <d>d <text>" with one output and all inputs normal; valid until the next
 *  call. Ends the program when memory is exhausted. */
static op_case *add_case(op_suite *suite, const fn_op *op, int spatial, const void *attrs,
                         int input_count, const fn_shape *shape, const char *format, ...)
    __attribute__((format(printf, 7, 8)));

static op_case *add_case(op_suite *suite, const fn_op *op, int spatial, const void *attrs,
                         int input_count, const fn_shape *shape, const char *format, ...) {
  if (suite->count == suite->capacity) {
    suite->capacity = suite->capacity ? 2 * suite->capacity : 256;
    suite->item = realloc(suite->item, (size_t)suite->capacity * sizeof *suite->item);
    if (!suite->item) {
      fprintf(stderr, "out of memory\n");
      exit(1);
    }
  }
  op_case *c = &suite->item[suite->count++];
  memset(c, 0, sizeof *c);
  c->op = op;
  c->tolerance = op->name;
  c->spatial = spatial;
  c->input_count = input_count;
  c->output_count = 1;
  c->projected = ~0u;
  if (input_count) memcpy(c->shape, shape, (size_t)input_count * sizeof *shape);
  if (attrs) memcpy(c->attrs, attrs, op->attrs_size);
  const int used = snprintf(c->name, sizeof c->name, "%s %dd ", op->name, spatial);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(c->name + used, sizeof c->name - (size_t)used, format, arguments);
  va_end(arguments);
  return c;
}

/** Shape of output 0 of op on inputs of the given shapes (ndim -1: absent). */
static fn_shape infer_shape(const fn_op *op, const void *attrs, int input_count,
                            const fn_shape *shape) {
  fn_value value[FN_MAX_PORTS];
  fn_value *input[FN_MAX_PORTS];
  unsigned char copy[512];
  if (attrs) memcpy(copy, attrs, op->attrs_size);
  for (int i = 0; i < input_count; i++) {
    value[i] = (fn_value){.shape = shape[i]};
    input[i] = shape[i].ndim < 0 ? NULL : &value[i];
  }
  const fn_node node = {
      .op = op, .input_count = input_count, .output_count = 1, .input = input, .attrs = copy};
  fn_shape result[FN_MAX_PORTS] = {{0}};
  if (op->infer(&node, result) != FN_OK) {
    fprintf(stderr, "case of %s: %s\n", op->name, fn_error_message());
    exit(1);
  }
  return result[0];
}

/** Build the values under test. */
static void build_case(fn_graph *graph, const op_case *c, fn_value *const *input,
                       fn_value **output) {
  if (c->build) {
    c->build(graph, c, input, output);
    return;
  }
  unsigned optional = 0;
  for (int i = 0; i < c->input_count; i++)
    optional |= is_absent(c, i) ? 1u << i : 0;
  fn_value *first = fn_node_append(graph, c->op, input, c->input_count, c->output_count,
                                   c->op->attrs_size ? c->attrs : NULL, optional);
  for (int o = 0; first && o < c->output_count; o++)
    output[o] = first->node->output[o];
}

/* ---- shapes
 * -------------------------------------------------------------------------------------- */

/** Odd edges, unequal along the axes, larger than a vector register in total. */
static const int64_t small_edges[4][3] = {{0}, {37, 0, 0}, {11, 8, 0}, {7, 6, 5}};
static const int64_t large_edges[4][3] = {{0}, {32768, 0, 0}, {181, 181, 0}, {32, 32, 32}};

static fn_shape field_shape(int64_t n, int64_t channels, int spatial, const int64_t *edge) {
  fn_shape shape = {2 + spatial, {n, channels}};
  for (int d = 0; d < spatial; d++)
    shape.dim[2 + d] = edge[d];
  return shape;
}

/** [n, channels, small edges...] */
static fn_shape small_field(int64_t n, int64_t channels, int spatial) {
  return field_shape(n, channels, spatial, small_edges[spatial]);
}

static fn_shape vector_shape(int64_t n) {
  return (fn_shape){1, {n}};
}

/** [k, c, kernel...] with one edge for all axes. */
static fn_shape kernel_shape(int64_t k, int64_t c, int spatial, int64_t edge) {
  return field_shape(k, c, spatial, (int64_t[3]){edge, edge, edge});
}

/** Complete geometry, the same along all axes. */
static fn_conv_geometry even_geometry(int64_t stride, int64_t low, int64_t high, int64_t dilation,
                                      int64_t groups) {
  fn_conv_geometry g = {.groups = groups};
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    g.stride[d] = stride;
    g.pad_low[d] = low;
    g.pad_high[d] = high;
    g.dilation[d] = dilation;
  }
  return g;
}

#endif
