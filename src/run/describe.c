#include "run/describe.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "ops/ops.h"

/** A line of the table. */
typedef struct row {
  const fn_node *node;
  const char *name, *op;
  fn_shape shape;
  int64_t parameters;
  double flops, bytes;
} row;

typedef struct table {
  row *rows;
  int count;
} table;

/* ---- totals ------------------------------------------------------------------------------------
 */

/** Convolutions and matrix products: what FLOP counts of the literature mean. */
static bool is_product(const char *op) {
  return fn_text_starts(op, "conv") || fn_text_starts(op, "matmul");
}

static double product_flops(const fn_program *program) {
  double flops = 0;
  for (int k = 0; k < fn_program_kernel_count(program); k++) {
    fn_kernel_info info;
    fn_program_kernel_info(program, k, &info);
    if (is_product(info.op) && !info.repeats) flops += info.flops;
  }
  return flops;
}

/** "3 batch_norm, 1 conv": the operators that are computed twice. */
static void list_repeats(const fn_program *program, char *text, size_t size) {
  const int kernels = fn_program_kernel_count(program);
  size_t used = 0;
  text[0] = '\0';
  for (int k = 0; k < kernels; k++) {
    fn_kernel_info info, other;
    fn_program_kernel_info(program, k, &info);
    int count = info.repeats;
    bool first = count > 0;
    for (int j = 0; j < kernels && first; j++) {
      fn_program_kernel_info(program, j, &other);
      if (j == k || !other.repeats || strcmp(other.op, info.op) != 0) continue;
      first = j > k;
      count++;
    }
    if (!first || used >= size) continue;
    used += (size_t)snprintf(text + used, size - used, used ? ", %d %s" : "%d %s", count, info.op);
  }
}

fn_status fn_network_totals_find(fn_engine *engine, int64_t batch, fn_network_totals *totals) {
  fn_program *training, *evaluation;
  FN_TRY(fn_engine_program_with(engine, true, true, batch, false, true, &training));
  FN_TRY(fn_engine_program_with(engine, false, false, batch, false, true, &evaluation));
  fn_program_memory memory[2];
  fn_program_memory_info(training, &memory[0]);
  fn_program_memory_info(evaluation, &memory[1]);
  *totals = (fn_network_totals){.parameters = fn_engine_parameters(engine)->parameter_total,
                                .forward_flops = product_flops(evaluation),
                                .training_flops = product_flops(training),
                                .training_arena = memory[0].arena,
                                .evaluation_arena = memory[1].arena,
                                .kernels = fn_program_kernel_count(training),
                                .repeats = memory[0].repeats,
                                .extra = memory[0].extra};
  list_repeats(training, totals->repeated, sizeof totals->repeated);
  return FN_OK;
}

/* ---- rows --------------------------------------------------------------------------------------
 */

static const char *name_of(const fn_node *node) {
  return node->output_count > 0 && node->output[0]->label ? node->output[0]->label : "";
}

/** The function, where one operator stands for several. */
static const char *op_of(const fn_node *node) {
  static const char *const unary[] = {"affine", "leaky_relu", "sigmoid",    "tanh",     "exp",
                                      "log",    "sqrt",       "square",     "abs",      "step",
                                      "sign",   "softplus",   "reciprocal", "identity", "cast"};
  static const char *const binary[] = {"add", "sub", "mul", "div", "minimum", "maximum", "greater"};
  size_t kind = 0;
  if (node->op == &fn_op_unary && node->attrs) {
    kind = (size_t)((const fn_unary_attrs *)node->attrs)->kind;
    if (kind < sizeof unary / sizeof *unary) return unary[kind];
  } else if (node->op == &fn_op_binary && node->attrs) {
    kind = (size_t)((const fn_binary_attrs *)node->attrs)->kind;
    if (kind < sizeof binary / sizeof *binary) return binary[kind];
  }
  return node->op->name;
}

static bool is_leaf(const fn_node *node) {
  return (node->op->flags & FN_OP_LEAF) != 0;
}

static row row_of_node(const fn_node *node) {
  row r = {.node = node, .name = name_of(node), .op = op_of(node)};
  if (node->output_count > 0) r.shape = node->output[0]->shape;
  r.flops = node->op->flops ? node->op->flops(node) : (double)fn_shape_count(&r.shape);
  for (int o = 0; o < node->output_count; o++)
    r.bytes += (double)fn_shape_count(&node->output[o]->shape) *
               (double)fn_dtype_size(node->output[o]->dtype);
  for (int i = 0; i < node->input_count; i++)
    if (node->input[i] && is_leaf(node->input[i]->node) &&
        fn_value_leaf(node->input[i])->kind == FN_LEAF_PARAMETER)
      r.parameters += fn_shape_count(&node->input[i]->shape);
  return r;
}

/** What the output depends on; not the updates of running statistics. */
static fn_status rows_of_graph(const fn_graph *graph, const fn_value *output, table *t) {
  const int nodes = fn_graph_node_count(graph);
  bool *needed = calloc((size_t)nodes + 1, sizeof *needed);
  t->rows = calloc((size_t)nodes + 1, sizeof *t->rows);
  if (!needed || !t->rows) {
    free(needed);
    FN_FAIL(FN_ERR_MEMORY, "out of memory");
  }
  needed[output->node->id] = true;
  for (int n = nodes - 1; n >= 0; n--) { // producers come before their readers
    const fn_node *node = fn_graph_node(graph, n);
    for (int i = 0; needed[n] && i < node->input_count; i++)
      if (node->input[i]) needed[node->input[i]->node->id] = true;
  }
  for (int n = 0; n < nodes; n++) {
    const fn_node *node = fn_graph_node(graph, n);
    if (needed[n] && !is_leaf(node)) t->rows[t->count++] = row_of_node(node);
  }
  free(needed);
  return FN_OK;
}

static fn_status rows_of_program(const fn_program *program, table *t) {
  const int kernels = fn_program_kernel_count(program);
  t->rows = calloc((size_t)kernels + 1, sizeof *t->rows);
  FN_CHECK(t->rows, FN_ERR_MEMORY, "out of memory");
  for (int k = 0; k < kernels; k++) {
    fn_kernel_info info;
    fn_program_kernel_info(program, k, &info);
    row *r = &t->rows[t->count++];
    *r = row_of_node(fn_program_kernel(program, k)->node);
    if (strcmp(info.op, "reorder") == 0) r->op = info.op;
    r->name = info.label;
    r->flops = info.flops;
    r->bytes = info.bytes;
    r->shape = info.shape;
    if (strcmp(info.op, "reorder") == 0) r->parameters = 0;
  }
  return FN_OK;
}

/* ---- forms -------------------------------------------------------------------------------------
 */

static void print_table(const table *t, bool training, FILE *out) {
  char shape[96], bytes[32];
  fprintf(out, "%-28s %-16s %-26s %11s %10s %10s\n", "name", "operator", "output", "parameters",
          "MFLOP", training ? "traffic" : "memory");
  for (int i = 0; i < t->count; i++) {
    const row *r = &t->rows[i];
    fprintf(out, "%-28s %-16s %-26s %11lld %10.3f %10s\n", r->name, r->op,
            fn_shape_text(&r->shape, shape, sizeof shape), (long long)r->parameters,
            r->flops * 1e-6, fn_text_bytes(r->bytes, bytes, sizeof bytes));
  }
}

static void print_totals(const fn_run *run, const fn_network_totals *totals, int64_t samples,
                         const char *source, FILE *out) {
  char a[32], b[32];
  fprintf(out, "\n%s; %lld sample%s, backend %s, precision %s\n", source, (long long)samples,
          samples > 1 ? "s" : "", run->compute.backend, run->compute.precision);
  fprintf(out, "parameters      %lld\n", (long long)totals->parameters);
  fprintf(out, "forward         %.2f GFLOP in convolutions and matrix products\n",
          totals->forward_flops * 1e-9);
  fprintf(out, "training step   %.2f GFLOP, %d kernels\n", totals->training_flops * 1e-9,
          totals->kernels);
  fprintf(out, "memory          training %s, evaluation %s, without parameters and scratch\n",
          fn_text_bytes((double)totals->training_arena, a, sizeof a),
          fn_text_bytes((double)totals->evaluation_arena, b, sizeof b));
  if (totals->repeats > 0)
    fprintf(out, "computed twice  %s: about %.1f %% more time\n", totals->repeated,
            100 * totals->extra);
}

/** `words` as in JSON, without the quotes around it; DOT has the same rules. */
static void print_escaped(const char *words, FILE *out) {
  fn_text text = {0};
  fn_text_add_json_utf8(&text, words);
  if (text.length > 2) fwrite(text.data + 1, 1, text.length - 2, out);
  fn_text_free(&text);
}

static void print_json(const table *t, const fn_network_totals *totals, FILE *out) {
  char shape[96];
  fprintf(out,
          "{\"parameters\": %lld, \"forward_flops\": %.0f, \"training_flops\": %.0f,\n"
          " \"training_arena\": %zu, \"evaluation_arena\": %zu, \"kernels\": %d,\n"
          " \"repeats\": %d, \"repeats_share\": %.4g,\n \"layers\": [",
          (long long)totals->parameters, totals->forward_flops, totals->training_flops,
          totals->training_arena, totals->evaluation_arena, totals->kernels, totals->repeats,
          totals->extra);
  for (int i = 0; i < t->count; i++) {
    const row *r = &t->rows[i];
    fprintf(out, "%s\n  {\"name\": \"", i ? "," : "");
    print_escaped(r->name, out);
    fprintf(out,
            "\", \"operator\": \"%s\", \"output\": %s, \"parameters\": %lld, "
            "\"flops\": %.0f, \"bytes\": %.0f}",
            r->op, r->shape.ndim ? fn_shape_text(&r->shape, shape, sizeof shape) : "[]",
            (long long)r->parameters, r->flops, r->bytes);
  }
  fprintf(out, "]}\n");
}

static bool is_input(const fn_node *node) {
  return is_leaf(node) && fn_value_leaf(node->output[0])->kind == FN_LEAF_INPUT;
}

static void print_dot_edges(const row *r, FILE *out) {
  for (int i = 0; i < r->node->input_count; i++) {
    const fn_value *value = r->node->input[i];
    if (!value || (is_leaf(value->node) && !is_input(value->node))) continue;
    if (is_leaf(value->node))
      fprintf(out, "  n%d [label=\"%s\", shape=ellipse];\n", value->node->id,
              fn_value_leaf(value)->name);
    fprintf(out, "  n%d -> n%d;\n", value->node->id, r->node->id);
  }
}

static void print_dot(const table *t, FILE *out) {
  char shape[96];
  fprintf(out, "digraph network {\n  node [shape=box, fontname=\"sans-serif\"];\n");
  for (int i = 0; i < t->count; i++) {
    const row *r = &t->rows[i];
    if (strcmp(r->op, "reorder") == 0) continue;
    fprintf(out, "  n%d [label=\"", r->node->id);
    print_escaped(r->name, out);
    fprintf(out, "\\n%s\\n%s\"];\n", r->op, fn_shape_text(&r->shape, shape, sizeof shape));
    print_dot_edges(r, out);
  }
  fprintf(out, "}\n");
}

/* ---- all of it ----------------------------------------------------------------------------------
 */

static fn_status describe_rows(const fn_run *run, fn_engine *engine, const fn_dataset_info *info,
                               int64_t samples, bool training, fn_graph **graph, table *t) {
  if (training) {
    fn_program *program;
    FN_TRY(fn_engine_program_with(engine, true, true, samples, false, true, &program));
    return rows_of_program(program, t);
  }
  const fn_graph_options options = {.training = false};
  fn_model model;
  FN_TRY(fn_graph_create(&options, graph));
  FN_TRY(fn_model_build(run, *graph, info->spatial, samples, info->input_channels,
                        info->target_channels, info->input_extent, NULL, &model));
  return rows_of_graph(*graph, model.output, t);
}

fn_status fn_describe(const fn_run *run, const fn_dist *dist, const fn_size_options *sizes,
                      fn_describe_form form, bool training, FILE *out) {
  fn_dataset_info info;
  fn_size_source source;
  int64_t samples;
  FN_TRY(fn_engine_fewest_samples(run, &samples));
  FN_TRY(fn_sizes_find(run, dist, sizes, &info, &source));
  fn_engine *engine;
  FN_TRY(fn_engine_create(run, dist, &info, &engine));
  fn_graph *graph = NULL;
  table t = {0};
  fn_network_totals totals;
  fn_status status = describe_rows(run, engine, &info, samples, training, &graph, &t);
  if (status == FN_OK) status = fn_network_totals_find(engine, samples, &totals);
  if (status == FN_OK && form == FN_DESCRIBE_DOT) print_dot(&t, out);
  if (status == FN_OK && form == FN_DESCRIBE_JSON) print_json(&t, &totals, out);
  if (status == FN_OK && form == FN_DESCRIBE_TABLE) {
    print_table(&t, training, out);
    print_totals(run, &totals, samples, source.text, out);
  }
  free(t.rows);
  fn_graph_destroy(graph);
  fn_engine_destroy(engine);
  return status;
}
