/** @file op_gradient.h
 *  First and second derivatives against central differences, in double precision on the reference
 *  backend.
 *
 *  With random r the scalar s = sum_o <r_o, y_o(x)> has gradients g_i = ds/dx_i; with random q the
 *  scalar z = sum_i <q_i, g_i> has gradients with respect to the x_i and the r_o, which exercise
 * the gradients of gradients.
 */
#ifndef TESTS_OP_GRADIENT_H
#define TESTS_OP_GRADIENT_H

#include <math.h>

#include "op_run.h"

typedef struct gradient_report {
  double worst;   /**< error / tolerance */
  char where[64]; /**< of the worst */
} gradient_report;

enum { MAX_LEAVES = 3 * FN_MAX_PORTS };

/** A case with projections; leaves are x_i, then r_o. */
typedef struct gradient_check {
  op_instance value; /**< program with outputs s and z */
  fn_program *full;  /**< program with all gradients */
  int leaf_count, q_count;
  const char *name[MAX_LEAVES];
  fn_value *leaf[MAX_LEAVES];
  double *data[MAX_LEAVES];
  bool is_x[MAX_LEAVES];
  fn_value *q[FN_MAX_PORTS];
  double *q_data[FN_MAX_PORTS];
  fn_value *s, *z, *ds[MAX_LEAVES], *dz[MAX_LEAVES];
} gradient_check;

/** sum + <a, b> */
static fn_value *add_product(fn_graph *graph, fn_value *sum, fn_value *a, fn_value *b) {
  fn_value *product = fn_sum(graph, fn_mul(graph, a, b), FN_ALL_AXES, false);
  return sum ? fn_add(graph, sum, product) : product;
}

static void add_leaf(gradient_check *k, fn_value *leaf, const char *name, double *data, bool is_x) {
  k->name[k->leaf_count] = name;
  k->leaf[k->leaf_count] = leaf;
  k->is_x[k->leaf_count] = is_x;
  k->data[k->leaf_count++] = data;
}

/** Append s, its gradients, z and its gradients to the graph of the case. */
static fn_status build_projections(gradient_check *k) {
  fn_graph *graph = k->value.graph;
  const op_case *c = k->value.c;
  for (int i = 0; i < c->input_count; i++)
    if (!is_absent(c, i))
      add_leaf(k, k->value.input[i], port_name('x', i), draw_input(c, i, FN_F64), true);
  const int x_count = k->leaf_count;
  for (int o = 0; o < c->output_count; o++) {
    if (!(c->projected >> o & 1)) continue;
    fn_value *r = fn_input(graph, port_name('r', o), &k->value.output[o]->shape);
    k->s = add_product(graph, k->s, k->value.output[o], r);
    FN_TRY(fn_graph_status(graph));
    add_leaf(k, r, port_name('r', o), draw_normals(c, (uint32_t)o, fn_shape_count(&r->shape)),
             false);
  }
  FN_TRY(fn_differentiate(graph, k->s, k->leaf, x_count, k->ds));
  for (int i = 0; i < x_count; i++) {
    fn_value *q = fn_input(graph, port_name('q', i), &k->leaf[i]->shape);
    FN_TRY(fn_graph_status(graph));
    k->q[i] = q;
    k->q_data[i] = draw_normals(c, 100 + (uint32_t)i, fn_shape_count(&q->shape));
    k->z = add_product(graph, k->z, k->ds[i], q);
  }
  k->q_count = x_count;
  FN_TRY(fn_graph_status(graph));
  return fn_differentiate(graph, k->z, k->leaf, k->leaf_count, k->dz);
}

static fn_status compile(gradient_check *k) {
  const fn_program_options options = {.backend = "reference", .precision = FN_F64, .check = true};
  fn_program_output output[2 + 2 * MAX_LEAVES] = {{"s", k->s}, {"z", k->z}};
  static char name[2 * MAX_LEAVES][8];
  FN_TRY(fn_program_create(k->value.graph, NULL, &options, output, 2, NULL, NULL, 0,
                           &k->value.program));
  int count = 0;
  for (int i = 0; i < k->leaf_count; i++) {
    snprintf(name[2 * i], sizeof name[0], "ds%d", i);
    snprintf(name[2 * i + 1], sizeof name[0], "dz%d", i);
    if (k->is_x[i]) output[count++] = (fn_program_output){name[2 * i], k->ds[i]};
    output[count++] = (fn_program_output){name[2 * i + 1], k->dz[i]};
  }
  return fn_program_create(k->value.graph, NULL, &options, output, count, NULL, NULL, 0, &k->full);
}

/** Write all leaves, leaf `moved` displaced by step times direction. */
static void write_leaves(gradient_check *k, op_instance *to, int moved, const double *direction,
                         double step) {
  for (int i = 0; i < k->leaf_count; i++) {
    const int64_t count = fn_shape_count(&k->leaf[i]->shape);
    double *x = malloc((size_t)count * sizeof *x);
    for (int64_t e = 0; e < count; e++)
      x[e] = k->data[i][e] + (i == moved ? step * direction[e] : 0);
    write_input(to, k->name[i], x);
    free(x);
  }
  for (int i = 0; i < k->q_count; i++)
    write_input(to, port_name('q', i), k->q_data[i]);
}

static fn_status evaluate(gradient_check *k, int moved, const double *direction, double step,
                          double *s, double *z) {
  write_leaves(k, &k->value, moved, direction, step);
  FN_TRY(fn_program_run(k->value.program, &test_context));
  *s = *(const double *)fn_program_output_data(k->value.program, "s");
  *z = *(const double *)fn_program_output_data(k->value.program, "z");
  return FN_OK;
}

/** Compare a difference quotient with <gradient, direction>. */
static void judge(gradient_report *report, const char *what, const char *leaf, double quotient,
                  double value, const double *gradient, const double *direction, int64_t count) {
  double slope = 0, norm = 0;
  for (int64_t i = 0; i < count; i++) {
    const double term = gradient[i] * direction[i];
    slope += term;
    norm += term * term;
  }
  // Truncation is h^2 of the third derivative, rounding u |value| / h with h = 1e-6.
  const double tolerance = 2e-6 * sqrt(norm) + 2e-8 * fabs(value);
  const double error = fabs(quotient - slope);
  const double excess = error == 0 ? 0 : isfinite(error) ? error / tolerance : (double)INFINITY;
  if (!(excess > report->worst)) return;
  report->worst = excess;
  snprintf(report->where, sizeof report->where, "%s/d%s", what, leaf);
}

static const double *gradient_data(const gradient_check *k, const char *kind, int leaf) {
  char name[16];
  snprintf(name, sizeof name, "%s%d", kind, leaf);
  return fn_program_output_data(k->full, name);
}

/** One direction of one leaf: dense, or a single element. */
static fn_status check_direction(gradient_check *k, int leaf, const double *direction,
                                 gradient_report *report) {
  const double h = 1e-6;
  const int64_t count = fn_shape_count(&k->leaf[leaf]->shape);
  double s[3], z[3];
  FN_TRY(evaluate(k, leaf, direction, 0, &s[0], &z[0]));
  FN_TRY(evaluate(k, leaf, direction, h, &s[1], &z[1]));
  FN_TRY(evaluate(k, leaf, direction, -h, &s[2], &z[2]));
  if (k->is_x[leaf])
    judge(report, "ds", k->name[leaf], (s[1] - s[2]) / (2 * h), s[0], gradient_data(k, "ds", leaf),
          direction, count);
  judge(report, "dz", k->name[leaf], (z[1] - z[2]) / (2 * h), z[0], gradient_data(k, "dz", leaf),
        direction, count);
  return FN_OK;
}

static fn_status check_leaf(gradient_check *k, int leaf, gradient_report *report) {
  const int64_t count = fn_shape_count(&k->leaf[leaf]->shape);
  double *direction = draw_normals(k->value.c, 200 + (uint32_t)leaf, count);
  fn_status status = check_direction(k, leaf, direction, report);
  // The first and the last element alone: corners, where windows are cut.
  for (int end = 0; status == FN_OK && end < 2; end++) {
    memset(direction, 0, (size_t)count * sizeof *direction);
    direction[end ? count - 1 : 0] = 1;
    status = check_direction(k, leaf, direction, report);
  }
  free(direction);
  return status;
}

static fn_status check_all(gradient_check *k, gradient_report *report) {
  FN_TRY(build_projections(k));
  FN_TRY(compile(k));
  op_instance full = k->value;
  full.program = k->full;
  write_leaves(k, &full, -1, NULL, 0);
  FN_TRY(fn_program_run(k->full, &test_context));
  for (int i = 0; i < k->leaf_count; i++)
    FN_TRY(check_leaf(k, i, report));
  return FN_OK;
}

/** Derivatives of a case against finite differences. */
static fn_status check_gradient(const op_case *c, gradient_report *report) {
  gradient_check k = {.leaf_count = 0};
  fn_status status = open_graph(&k.value, c, FN_F64);
  if (status == FN_OK) status = check_all(&k, report);
  for (int i = 0; i < k.leaf_count; i++)
    free(k.data[i]);
  for (int i = 0; i < FN_MAX_PORTS; i++)
    free(k.q_data[i]);
  fn_program_destroy(k.full);
  close_case(&k.value);
  return status;
}

#endif
