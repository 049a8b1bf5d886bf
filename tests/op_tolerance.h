/** @file op_tolerance.h
 *  How far a backend may be from the reference: one table, printed into docs/tolerances.md by
 *  `test_op tolerances` (the test fails when the page and the table differ).
 *
 *  |y - ref| <= rounding u |ref| + spread u' sqrt(L) S
 *
 *  u is the unit roundoff of the type y is kept in, u' that of the arithmetic. An error of u' per
 *  step of a sum of L terms, of either sign, grows with sqrt(L) (Higham & Mary 2019, theorem 2.4).
 *  S is the largest |ref| of the tensor; sums, whose terms are of order one, may cancel, so there S
 *  is at least sqrt(L).
 */
#ifndef TESTS_OP_TOLERANCE_H
#define TESTS_OP_TOLERANCE_H

#include <math.h>

#include "op_case.h"

typedef struct op_tolerance {
  const char *name;
  double rounding, spread;
  bool sums;   /**< S >= sqrt(L) */
  bool narrow; /**< u' is u of the precision of the run: values between operators are rounded */
  const char *length, *reason;
} op_tolerance;

static const op_tolerance tolerance_table[] = {
    {"conv", 2, 4, true, false, "C/g k", "sums of products"},
    {"conv_data", 2, 4, true, false, "K/g k", "sums of products"},
    {"conv_weight", 2, 4, true, false, "N o", "sums of products"},
    {"matmul", 2, 4, true, false, "k", "sums of products"},
    {"batch_norm", 2, 4, false, false, "N s", "statistics are sums, the result is of order one"},
    {"batch_norm_grad", 2, 4, true, false, "N s", "sums of products"},
    {"running", 2, 2, false, false, "1", "two products and a sum"},
    {"fold_norm", 1, 0, false, false, "1", "computed in double precision, rounded once"},
    {"exact", 0, 0, false, false, "1", "values are moved or chosen"},
    {"rounded", 1, 0, false, false, "1", "one IEEE operation"},
    {"affine", 1, 2, false, false, "1", "a product and a sum that may cancel"},
    {"leaky", 2, 0, false, false, "1", "the slope and one product are rounded"},
    {"transcendental", 2, 4, false, false, "1", "vector approximations of a few ulp"},
    {"concat", 0, 0, false, false, "1", "values are moved"},
    {"crop", 0, 0, false, false, "1", "values are moved"},
    {"pad_zero", 0, 0, false, false, "1", "values are moved"},
    {"pad_periodic", 0, 0, false, false, "1", "values are moved"},
    {"pad_periodic_grad", 1, 2, true, false, "cells that wrap onto one", "sums"},
    {"reshape", 0, 0, false, false, "1", "values are moved"},
    {"permute", 0, 0, false, false, "1", "values are moved"},
    {"broadcast", 0, 0, false, false, "1", "values are moved"},
    {"fill", 1, 0, false, false, "1", "the constant is rounded"},
    {"sum", 1, 2, true, false, "terms", "sums"},
    {"average_pool", 2, 2, false, false, "k", "sums"},
    {"average_pool_grad", 2, 2, false, false, "k", "sums"},
    {"max_pool", 0, 0, false, false, "1", "values are chosen"},
    {"max_pool_grad", 1, 2, true, false, "k", "sums of the windows that meet in a cell"},
    {"max_pool_gather", 0, 0, false, false, "1", "values are chosen"},
    {"resample", 2, 4, false, false, "2^d", "weights are rounded too"},
    {"resample_grad", 2, 4, true, false, "cells that read one", "weights are rounded too"},
    {"normal", 1, 0, false, false, "1", "drawn in double precision, rounded once"},
    {"dropout_mask", 1, 0, false, false, "1", "1 / (1 - p) is rounded"},
    {"log_softmax", 2, 4, false, false, "C", "exponentials and their sum"},
    {"composed", 2, 8, false, true, "elements", "several operators in a row"},
};

enum { TOLERANCES = sizeof tolerance_table / sizeof *tolerance_table };

static const op_tolerance *find_tolerance(const op_case *c) {
  for (int i = 0; i < TOLERANCES; i++)
    if (strcmp(tolerance_table[i].name, c->tolerance) == 0) return &tolerance_table[i];
  return NULL;
}

static void tolerance_line(const op_tolerance *t, char *line, size_t size) {
  snprintf(line, size, "| %s | %g | %g | %s | %s | %s |", t->name, t->rounding, t->spread,
           t->length, t->sums ? "max(max \\|ref\\|, sqrt(L))" : "max \\|ref\\|", t->reason);
}

/* ---- lengths of the reductions -----------------------------------------------------------------
 */

static double cells_of(const fn_shape *shape) {
  double cells = 1;
  for (int a = 2; a < shape->ndim; a++)
    cells *= (double)shape->dim[a];
  return cells;
}

static double kernel_cells(const int64_t *kernel, int spatial) {
  double cells = 1;
  for (int d = 0; d < spatial; d++)
    cells *= (double)kernel[d];
  return cells;
}

/** Terms that enter one element of the result; y: shape of output 0. */
static double reduction_length(const op_case *c, const fn_shape *y) {
  const fn_shape *x = &c->shape[0];
  const double in = c->input_count ? (double)fn_shape_count(x) : 1;
  const double out = (double)fn_shape_count(y);
  if (strcmp(c->tolerance, "composed") == 0) return in;
  if (c->op == &fn_op_conv) return (double)c->shape[1].dim[1] * cells_of(&c->shape[1]);
  if (c->op == &fn_op_conv_data) return (double)x->dim[1] * cells_of(&c->shape[1]);
  if (c->op == &fn_op_conv_weight) return (double)x->dim[0] * cells_of(&c->shape[1]);
  if (c->op == &fn_op_batch_norm || c->op == &fn_op_batch_norm_grad)
    return (double)x->dim[0] * cells_of(x);
  if (c->op == &fn_op_matmul) {
    const fn_matmul_attrs *attrs = (const fn_matmul_attrs *)c->attrs;
    return (double)x->dim[x->ndim - (attrs->transpose_a ? 2 : 1)];
  }
  if (c->op == &fn_op_sum) return in / out;
  if (c->op == &fn_op_pad_periodic_grad) return pow(2, c->spatial) * ceil(in / out);
  if (c->op == &fn_op_average_pool || c->op == &fn_op_average_pool_grad ||
      c->op == &fn_op_max_pool_grad)
    return kernel_cells(((const fn_pool_attrs *)c->attrs)->kernel, c->spatial);
  if (c->op == &fn_op_resample) return pow(2, c->spatial);
  if (c->op == &fn_op_resample_grad)
    return pow(2 * ceil(((const fn_resample_attrs *)c->attrs)->factor), c->spatial);
  if (c->op == &fn_op_log_softmax) return (double)x->dim[1];
  return 1;
}

/** For 16 bits a little more than half a unit: values may be rounded to float32 first. */
static double unit_roundoff(fn_dtype dtype) {
  switch (dtype) {
    case FN_BF16: return 0x1.001p-8;
    case FN_F16: return 0x1.001p-11;
    case FN_F32: return 0x1p-24;
    default: return 0x1p-53;
  }
}

/** Whether products of float32 numbers may be rounded to TF32 (10 bits of mantissa). */
static bool tolerate_tf32;
static bool is_product(const op_tolerance *t) {
  return strncmp(t->name, "conv", 4) == 0 || strcmp(t->name, "matmul") == 0;
}

/** Numbers of f16 below 2^-14 are multiples of 2^-24. */
static double smallest_step(fn_dtype dtype) {
  return dtype == FN_F16 ? 0x1p-25 : 0;
}

/** Largest error of y over its bound: at most 1 when all is well; infinite when something is not
 *  finite or should be exact and is not. `kept`: type of the tensor in memory. */
static double worst_excess(const op_tolerance *t, const fn_shape *shape, fn_dtype kept,
                           fn_dtype precision, double length, const double *y, const double *ref) {
  const int64_t count = fn_shape_count(shape);
  double scale = t->sums ? sqrt(length) : 0, worst = 0;
  for (int64_t i = 0; i < count; i++)
    scale = fmax(scale, fabs(ref[i]));
  const double arithmetic = tolerate_tf32 && is_product(t)
                                ? unit_roundoff(FN_F16)
                                : unit_roundoff(t->narrow ? precision : FN_F32);
  const double floor = t->spread * arithmetic * sqrt(length) * scale;
  for (int64_t i = 0; i < count; i++) {
    const double error = fabs(y[i] - ref[i]);
    const double bound =
        t->rounding * (unit_roundoff(kept) * fabs(ref[i]) + smallest_step(kept)) + floor;
    if (!isfinite(y[i]) || !isfinite(ref[i])) return (double)INFINITY;
    if (error > 0) worst = fmax(worst, bound > 0 ? error / bound : (double)INFINITY);
  }
  return worst;
}

#endif
