/** @file op_run.h
 *  Running cases: graph, program, inputs, outputs as double.
 */
#ifndef TESTS_OP_RUN_H
#define TESTS_OP_RUN_H

#include "backend/gpu/kernels/element.h"
#include "base/bf16.h"
#include "base/random.h"
#include "op_case.h"

/** Compiled case. */
typedef struct op_instance {
  fn_graph *graph;
  fn_program *program;
  const op_case *c;
  fn_dtype precision;
  fn_value *input[FN_MAX_PORTS];  /**< leaves */
  fn_value *output[FN_MAX_PORTS]; /**< values under test */
} op_instance;

static const int64_t test_samples[] = {5, 1000003, 2};
static const fn_run_context test_context = {.seed = 7, .epoch = 3, .sample = test_samples};

/** Numbered names that live as long as the program. */
static const char *port_name(char kind, int index) {
  static char text[128][FN_MAX_PORTS][4];
  char *name = text[(unsigned char)kind & 127][index];
  snprintf(name, 4, "%c%d", kind, index);
  return name;
}

/* ---- values -------------------------------------------------------------------------------------
 */

static double draw(fn_random *random, op_fill fill) {
  const double u = fn_random_uniform(random);
  switch (fill) {
    case FILL_NORMAL: return fn_random_normal(random);
    case FILL_AWAY: return fn_random_word(random) & 1 ? 0.2 + 1.3 * u : -0.2 - 1.3 * u;
    case FILL_POSITIVE: return 0.5 + 1.5 * u;
    case FILL_PROBABILITY: return u;
    case FILL_DISTINCT: break;
  }
  return 0;
}

/** Values of input `index`, rounded to `precision`; a pure function of the case's name. */
static double *draw_input(const op_case *c, int index, fn_dtype precision) {
  const int64_t count = fn_shape_count(&c->shape[index]);
  fn_random random = fn_random_stream(1, FN_RANDOM_TEST, (uint32_t)index, fn_hash_text(c->name));
  double *x = malloc((size_t)count * sizeof *x);
  for (int64_t i = 0; i < count; i++)
    x[i] = c->fill[index] == FILL_DISTINCT ? 4.0 * ((double)i + 0.5) / (double)count - 2
                                           : draw(&random, c->fill[index]);
  for (int64_t i = count - 1; c->fill[index] == FILL_DISTINCT && i > 0; i--) {
    const int64_t j = (int64_t)fn_random_below(&random, (uint64_t)i + 1);
    const double swap = x[i];
    x[i] = x[j];
    x[j] = swap;
  }
  for (int64_t i = 0; i < count; i++) {
    const float single = (float)x[i];
    if (precision == FN_F32) x[i] = (double)single;
    if (precision == FN_BF16) x[i] = (double)fn_bf16_to_f32(fn_bf16_from_f32(single));
    if (precision == FN_F16) x[i] = (double)fn_from_f16(fn_to_f16(single));
  }
  return x;
}

/** Standard normal values of the given stream. */
static double *draw_normals(const op_case *c, uint32_t stream, int64_t count) {
  fn_random random = fn_random_stream(2, FN_RANDOM_TEST, stream, fn_hash_text(c->name));
  double *x = malloc((size_t)count * sizeof *x);
  for (int64_t i = 0; i < count; i++)
    x[i] = fn_random_normal(&random);
  return x;
}

static void write_input(const op_instance *t, const char *name, const double *x) {
  void *memory = fn_program_input(t->program, name);
  if (!memory) return; // nothing depends on it
  const int64_t count = fn_shape_count(fn_program_input_shape(t->program, name));
  for (int64_t i = 0; i < count; i++) {
    if (t->precision == FN_F64)
      ((double *)memory)[i] = x[i];
    else
      ((float *)memory)[i] = (float)x[i];
  }
}

/** Copy of output `name`; the caller frees it. */
static double *read_output(const op_instance *t, const char *name) {
  const void *memory = fn_program_output_data(t->program, name);
  const int64_t count = fn_shape_count(fn_program_output_shape(t->program, name));
  double *y = malloc((size_t)count * sizeof *y);
  for (int64_t i = 0; i < count; i++)
    y[i] =
        t->precision == FN_F64 ? ((const double *)memory)[i] : (double)((const float *)memory)[i];
  return y;
}

/* ---- graph and program
 * ---------------------------------------------------------------------------- */

static void close_case(op_instance *t) {
  fn_program_destroy(t->program);
  fn_graph_destroy(t->graph);
  *t = (op_instance){0};
}

static bool is_half(fn_dtype precision) {
  return precision == FN_BF16 || precision == FN_F16;
}

/** In a 16-bit run what has space is kept in 16 bits, kernels of convolutions are not. */
static fn_value *narrow_input(fn_graph *graph, const op_case *c, int index, fn_value *leaf,
                              fn_dtype half) {
  const bool kernel = (index == 1 && (c->op == &fn_op_conv || c->op == &fn_op_conv_data)) ||
                      c->op == &fn_op_fold_norm;
  if (leaf->shape.ndim < 3 || kernel) return leaf;
  const fn_unary_attrs attrs = {.kind = FN_CAST};
  fn_value *x = fn_node_append(graph, &fn_op_unary, &leaf, 1, 1, &attrs, 0);
  if (x) x->dtype = half;
  return x;
}

/** Leaves and values under test. */
static fn_status open_graph(op_instance *t, const op_case *c, fn_dtype precision) {
  *t = (op_instance){.c = c, .precision = precision};
  const fn_graph_options options = {.training = c->flags & CASE_TRAINING};
  fn_value *input[FN_MAX_PORTS] = {NULL};
  FN_TRY(fn_graph_create(&options, &t->graph));
  for (int i = 0; i < c->input_count; i++) {
    if (is_absent(c, i)) continue;
    t->input[i] = fn_input(t->graph, port_name('x', i), &c->shape[i]);
    input[i] = is_half(precision) && t->input[i]
                   ? narrow_input(t->graph, c, i, t->input[i], precision)
                   : t->input[i];
  }
  build_case(t->graph, c, input, t->output);
  FN_TRY(fn_graph_status(t->graph));
  for (int o = 0; o < c->output_count; o++)
    FN_CHECK(t->output[o], FN_ERR_INTERNAL, "the case built nothing");
  return is_half(precision) ? fn_graph_apply_half(t->graph, precision, false) : FN_OK;
}

static fn_status open_program(op_instance *t, const char *backend, bool profile) {
  fn_program_output output[FN_MAX_PORTS];
  const fn_program_options options = {
      .backend = backend, .precision = t->precision, .check = !profile, .profile = profile};
  for (int o = 0; o < t->c->output_count; o++)
    output[o] = (fn_program_output){port_name('y', o), t->output[o]};
  return fn_program_create(t->graph, NULL, &options, output, t->c->output_count, NULL, NULL, 0,
                           &t->program);
}

/** Graph and program of a case; to be closed in any case. */
static fn_status open_case(op_instance *t, const op_case *c, const char *backend,
                           fn_dtype precision, bool profile) {
  FN_TRY(open_graph(t, c, precision));
  return open_program(t, backend, profile);
}

/** Whether the backend itself has kernels for the operator under test, everywhere in the case. */
static bool is_own(const op_instance *t, const fn_backend *backend) {
  for (int n = 0; n < fn_graph_node_count(t->graph); n++) {
    const fn_node *node = fn_graph_node(t->graph, n);
    if (node->op == t->c->op && !backend->supports(backend, node)) return false;
  }
  return true;
}

#endif
