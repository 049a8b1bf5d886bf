/* Networks against the numbers of map2map's specification page (sections 5.4, 13.1, 13.2), and
 * networks spelled as a list of layers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "graph/parameters.h"
#include "models/models.h"
#include "run/describe.h"

static fn_run *parse(const char *text) {
  fn_run *run = NULL;
  char *errors = NULL;
  const fn_status status = fn_run_parse(text, "net.yaml", NULL, 0, FN_COMMAND_OTHER, &run, &errors);
  if (status != FN_OK) print_error("%s\n", errors ? errors : fn_error_message());
  assert_int_equal(status, FN_OK);
  free(errors);
  return run;
}

/** Build the network alone for one sample of edge n. */
static fn_status build(const fn_run *run, int spatial, int64_t in, int64_t out, int64_t n,
                       fn_graph **graph, fn_model *model) {
  const fn_graph_options options = {.training = true};
  const int64_t extent[3] = {n, n, n};
  assert_int_equal(fn_graph_create(&options, graph), FN_OK);
  return fn_model_build(run, *graph, spatial, 1, in, out, extent, NULL, model);
}

static int64_t count_parameters(const char *name, int64_t in, int64_t out) {
  char text[64];
  snprintf(text, sizeof text, "model: {name: %s}", name);
  fn_run *run = parse(text);
  fn_graph *graph;
  fn_model model;
  fn_parameters *parameters;
  assert_int_equal(build(run, 3, in, out, 44, &graph, &model), FN_OK);
  assert_int_equal(fn_parameters_create(graph, FN_F32, &parameters), FN_OK);
  const int64_t count = parameters->parameter_total;
  fn_parameters_destroy(parameters);
  fn_graph_destroy(graph);
  fn_run_destroy(run);
  return count;
}

static void parameter_counts(void **state) {
  (void)state;
  assert_int_equal(count_parameters("unet", 3, 3), 1808003);
  assert_int_equal(count_parameters("vnet", 3, 3), 1825222);
  assert_int_equal(count_parameters("unet", 1, 1), 1797633);
  assert_int_equal(count_parameters("vnet", 1, 1), 1814466);
  assert_int_equal(count_parameters("unet", 6, 6), 1823558);
  assert_int_equal(count_parameters("vnet", 6, 6), 1841356);
  assert_int_equal(count_parameters("unet", 3, 1), 1801089);
  assert_int_equal(count_parameters("vnet", 3, 1), 1818050);
}

/** Edges that fit give n - 40, others fail: the builder itself, in every number of dimensions. */
static void output_edges(void **state) {
  (void)state;
  const char *const texts[] = {"model: {name: unet, options: {width: 2}}",
                               "model: {name: vnet, options: {width: 2}}"};
  const int64_t good[] = {44, 48, 72, 104}, bad[] = {40, 42, 43, 46, 70, 73};
  for (int t = 0; t < 2; t++) {
    fn_run *run = parse(texts[t]);
    fn_network_rule rule;
    assert_int_equal(fn_model_rule(run, &rule), FN_OK);
    assert_int_equal(rule.multiple, 4);
    assert_int_equal(rule.remainder, 0);
    assert_int_equal(rule.minimum, 44);
    assert_int_equal(rule.trim, 20);
    for (int spatial = 1; spatial <= 3; spatial++)
      for (int i = 0; i < 4; i++) {
        fn_graph *graph;
        fn_model model;
        assert_int_equal(build(run, spatial, 2, 2, good[i], &graph, &model), FN_OK);
        assert_int_equal(fn_ndim(model.output), 2 + spatial);
        assert_int_equal(fn_dim(model.output, 1), 2);
        for (int d = 0; d < spatial; d++)
          assert_int_equal(fn_dim(model.output, 2 + d), good[i] - 40);
        fn_graph_destroy(graph);
      }
    fn_run_destroy(run);
    for (int i = 0; i < 6; i++)
      assert_true(bad[i] < rule.minimum || bad[i] % rule.multiple != rule.remainder);
  }
}

/** The rule is applied before data are read, naming the sizes that would fit. */
static void wrong_edges(void **state) {
  (void)state;
  fn_run *run = parse("model: {name: vnet}\ndata: {crop: 4, input_pad: 20}\n");
  const int64_t bad[] = {40, 42, 46};
  for (int i = 0; i < 3; i++) {
    fn_dataset_info info = {
        .spatial = 3, .target_spatial = 3, .input_channels = 3, .target_channels = 3};
    for (int d = 0; d < 3; d++) {
      info.input_extent[d] = bad[i];
      info.target_extent[d] = 4;
    }
    assert_int_equal(fn_engine_check_sizes(run, &info), FN_ERR_CONFIG);
    assert_non_null(strstr(fn_error_message(), "0 modulo 4 and at least 44"));
    assert_non_null(strstr(fn_error_message(), "net.yaml:2:14"));
  }
  fn_run_destroy(run);
}

static void names_in_order(void **state) {
  (void)state;
  fn_run *run = parse("model: {name: vnet}");
  fn_graph *graph;
  fn_model model;
  fn_parameters *p;
  assert_int_equal(build(run, 3, 3, 3, 44, &graph, &model), FN_OK);
  assert_int_equal(fn_parameters_create(graph, FN_F32, &p), FN_OK);
  const char *const first[] = {
      "conv_l0.convs.0.weight",
      "conv_l0.convs.0.bias",
      "conv_l0.convs.2.weight",
      "conv_l0.convs.2.bias",
      "conv_l0.convs.3.weight",
      "conv_l0.convs.3.bias",
      "conv_l0.convs.3.running_mean",
      "conv_l0.convs.3.running_var",
      "conv_l0.convs.3.num_batches_tracked",
      "conv_l0.skip.weight",
      "conv_l0.skip.bias",
      "down_l0.convs.0.weight",
  };
  for (int i = 0; i < 12; i++)
    assert_string_equal(p->entry[i].name, first[i]);
  assert_string_equal(p->entry[p->entry_count - 2].name, "conv_r0.skip.weight");
  // 18 convolutions and 11 norms (two tensors each), 11 x 3 buffers
  int buffers = 0;
  for (int i = 0; i < p->entry_count; i++)
    buffers += p->entry[i].is_buffer;
  assert_int_equal(buffers, 33);
  assert_int_equal(p->entry_count - buffers, 60);
  const fn_tensor_entry *up = fn_parameters_find(p, "up_r1.convs.0.weight");
  assert_non_null(up);
  const fn_shape expected = {.ndim = 5, .dim = {64, 64, 2, 2, 2}};
  assert_true(fn_shape_equal(&up->shape, &expected));
  // Lowest layer to the highest: the concatenation has 128 channels.
  const fn_tensor_entry *wide = fn_parameters_find(p, "conv_r0.convs.0.weight");
  assert_int_equal(wide->shape.dim[0], 128);
  assert_int_equal(wide->shape.dim[1], 128);
  fn_parameters_destroy(p);
  fn_graph_destroy(graph);
  fn_run_destroy(run);
}

static bool ends_in_sum_with_input(const fn_model *model) {
  for (int i = 0; i < model->output->node->input_count; i++) {
    const fn_value *v = model->output->node->input[i];
    if (v->node->input_count > 0 && v->node->input[0] == model->input) return true;
  }
  return false;
}

/** The network's input is added to its output when channels agree, unless told otherwise. */
static void bypass(void **state) {
  (void)state;
  const struct {
    const char *text;
    int64_t in, out;
    bool expected;
  } cases[] = {{"model: {name: unet, options: {width: 2}}", 2, 2, true},
               {"model: {name: unet, options: {width: 2}}", 2, 1, false},
               {"model: {name: vnet, options: {width: 2, bypass: false}}", 2, 2, false},
               {"model: {name: unet, options: {width: 2, bypass: false}}", 2, 2, false}};
  for (int i = 0; i < 4; i++) {
    fn_run *run = parse(cases[i].text);
    fn_graph *graph;
    fn_model model;
    assert_int_equal(build(run, 2, cases[i].in, cases[i].out, 44, &graph, &model), FN_OK);
    assert_int_equal(ends_in_sum_with_input(&model), cases[i].expected);
    fn_graph_destroy(graph);
    fn_run_destroy(run);
  }
}

static fn_network_totals totals_of(const char *text, int64_t n) {
  fn_run *run = parse(text);
  const fn_dist dist = {.size = 1, .node_size = 1};
  fn_dataset_info info = {
      .spatial = 3, .target_spatial = 3, .input_channels = 3, .target_channels = 3};
  for (int d = 0; d < 3; d++) {
    info.input_extent[d] = n;
    info.target_extent[d] = n - 40;
  }
  fn_engine *engine;
  fn_network_totals totals;
  assert_int_equal(fn_engine_create(run, &dist, &info, &engine), FN_OK);
  assert_int_equal(fn_network_totals_find(engine, 1, &totals), FN_OK);
  fn_engine_destroy(engine);
  fn_run_destroy(run);
  return totals;
}

/** Operations of a 1x1 skip at edge `whole` less those at edge `narrow`. */
static double saved(double in, double out, double whole, double narrow) {
  return 2 * in * out * (pow(whole, 3) - pow(narrow, 3));
}

/** Section 13.1, n = 72, to the last digit printed there. VNet's skips, but the last one with its
 *  three channels, are narrowed before their convolution here, after it there: what that saves is
 *  added. */
static void operations(void **state) {
  (void)state;
  const fn_network_totals unet = totals_of("model: {name: unet}", 72);
  assert_true(fabs(unet.forward_flops * 1e-9 - 135.48) < 0.005);
  assert_true(fabs(unet.training_flops * 1e-9 - 402.89) < 0.005);
  const double deep = saved(64, 64, 34, 30) + saved(64, 64, 15, 11) + saved(128, 64, 22, 18),
               first = saved(3, 64, 72, 68);
  const fn_network_totals vnet = totals_of("model: {name: vnet}", 72);
  assert_true(fabs((vnet.forward_flops + deep + first) * 1e-9 - 136.18) < 0.005);
  // the gradient by the network's input is not needed
  assert_true(fabs((vnet.training_flops + 3 * deep + 2 * first) * 1e-9 - 404.85) < 0.005);
}

static const fn_node *find_conv(const fn_graph *graph, const char *label) {
  for (int n = 0; n < fn_graph_node_count(graph); n++) {
    const fn_node *node = fn_graph_node(graph, n);
    if (fn_text_starts(node->op->name, "conv") && node->output[0]->label &&
        strcmp(node->output[0]->label, label) == 0)
      return node;
  }
  return NULL;
}

/** Section 13.2, column n = 72. */
static void operations_by_layer(void **state) {
  (void)state;
  const struct {
    const char *label;
    double gflop;
    int64_t edge;
  } layers[] = {
      {"conv_l0.convs.0", 3.56, 70},  {"conv_l0.convs.2", 69.55, 68}, {"down_l0.convs.0", 2.58, 34},
      {"conv_l1.convs.0", 7.25, 32},  {"conv_l1.convs.3", 5.97, 30},  {"down_l1.convs.0", 0.22, 15},
      {"conv_c.convs.0", 0.49, 13},   {"conv_c.convs.3", 0.29, 11},   {"up_r1.convs.0", 0.09, 22},
      {"conv_r1.convs.0", 7.08, 20},  {"conv_r1.convs.3", 2.58, 18},  {"up_r0.convs.0", 0.38, 36},
      {"conv_r0.convs.0", 34.77, 34}, {"conv_r0.convs.2", 0.68, 32}};
  fn_run *run = parse("model: {name: vnet}");
  fn_graph *graph;
  fn_model model;
  assert_int_equal(build(run, 3, 3, 3, 72, &graph, &model), FN_OK);
  for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
    const fn_node *node = find_conv(graph, layers[i].label);
    assert_non_null(node);
    assert_int_equal(node->output[0]->shape.dim[4], layers[i].edge);
    assert_true(fabs(node->op->flops(node) * 1e-9 - layers[i].gflop) < 0.00501);
  }
  fn_graph_destroy(graph);
  fn_run_destroy(run);
}

/* ---- layers ------------------------------------------------------------------------------------
 */

static void layers_of_a_classifier(void **state) {
  (void)state;
  fn_run *run = parse("model:\n"
                      "  layers:\n"
                      "    - conv: {channels: 4, kernel: 4, stride: 4}\n"
                      "    - {name: hidden, linear: {channels: 5}}\n"
                      "    - {name: end, linear: {channels: out, bias: false}}\n");
  fn_graph *graph;
  fn_model model;
  fn_parameters *p;
  assert_int_equal(build(run, 3, 2, 1, 8, &graph, &model), FN_OK);
  assert_int_equal(fn_ndim(model.output), 2);
  assert_int_equal(fn_dim(model.output, 1), 1);
  assert_int_equal(fn_parameters_create(graph, FN_F32, &p), FN_OK);
  const char *const names[] = {"0.weight", "0.bias", "hidden.weight", "hidden.bias", "end.weight"};
  assert_int_equal(p->entry_count, 5);
  for (int i = 0; i < 5; i++)
    assert_string_equal(p->entry[i].name, names[i]);
  assert_int_equal(p->entry[2].shape.dim[0], 5);
  assert_int_equal(p->entry[2].shape.dim[1], 4 * 2 * 2 * 2);
  fn_parameters_destroy(p);
  fn_graph_destroy(graph);
  fn_run_destroy(run);
}

static void layers_with_skip(void **state) {
  (void)state;
  fn_run *run = parse("model:\n"
                      "  layers:\n"
                      "    - {name: one, conv: {channels: 4, kernel: 3}}\n"
                      "    - relu\n"
                      "    - save: early\n"
                      "    - conv: {channels: 6}\n"
                      "    - concat: early\n"
                      "    - {name: end, conv: {channels: out, kernel: 1, bias: false}}\n");
  fn_graph *graph;
  fn_model model;
  fn_parameters *p;
  assert_int_equal(build(run, 2, 2, 3, 20, &graph, &model), FN_OK);
  assert_int_equal(fn_dim(model.output, 1), 3);
  assert_int_equal(fn_dim(model.output, 2), 16);
  assert_int_equal(fn_parameters_create(graph, FN_F32, &p), FN_OK);
  const char *const names[] = {"one.weight", "one.bias", "3.weight", "3.bias", "end.weight"};
  assert_int_equal(p->entry_count, 5);
  for (int i = 0; i < 5; i++)
    assert_string_equal(p->entry[i].name, names[i]);
  assert_int_equal(p->entry[4].shape.dim[1], 10); // 4 saved and 6 running channels
  fn_parameters_destroy(p);
  fn_graph_destroy(graph);
  fn_run_destroy(run);
}

static void expect_error(const char *text, const char *place, const char *words) {
  fn_run *run = parse(text);
  fn_graph *graph;
  fn_model model;
  assert_int_equal(build(run, 2, 2, 3, 20, &graph, &model), FN_ERR_CONFIG);
  const char *message = fn_error_message();
  if (!strstr(message, place) || !strstr(message, words))
    fail_msg("expected %s and '%s' in: %s", place, words, message);
  fn_graph_destroy(graph);
  fn_run_destroy(run);
}

static void layer_errors(void **state) {
  (void)state;
  expect_error("model:\n  layers:\n    - conv: {channels: out}\n    - leaky_rleu: 0.1\n",
               "net.yaml:4:7", "did you mean 'leaky_relu'?");
  expect_error("model:\n  layers:\n    - save: early\n    - conv: {channels: out}\n"
               "    - add: erly\n",
               "net.yaml:5:12", "did you mean 'early'?");
  expect_error("model:\n  layers:\n    - conv: {channels: out, kernal: 3}\n",
               "net.yaml:3:", "kernel");
  expect_error("model:\n  layers:\n    - conv: {channels: 5}\n", "[1, 5, 18, 18]", "3 channels");
  static const char *const values[][2] = {
      {"conv: {channels: out, stride: 0}", "stride must be from 1"},
      {"conv: {channels: out, dilation: [1, 0]}", "dilation must be from 1"},
      {"conv: {channels: out, groups: 0}", "groups must be from 1"},
      {"conv: {channels: 9223372036854775807}", "channels must be from 1"},
      {"max_pool: {stride: 0}", "stride must be from 1"},
      {"pad: {size: 9223372036854775807}", "size must be from 0"},
      {"pad: {high: -1}", "high must be from 0"},
      {"crop: {size: 10}", "crop removes the whole field"},
      {"batch_norm: {eps: 0}", "eps above 0"},
      {"batch_norm: {momentum: 2}", "momentum from 0 to 1"},
  };
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    char text[200];
    snprintf(text, sizeof text, "model:\n  layers:\n    - %s\n", values[i][0]);
    expect_error(text, "net.yaml:3:", values[i][1]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(parameter_counts),
                                     cmocka_unit_test(output_edges),
                                     cmocka_unit_test(wrong_edges),
                                     cmocka_unit_test(names_in_order),
                                     cmocka_unit_test(bypass),
                                     cmocka_unit_test(operations),
                                     cmocka_unit_test(operations_by_layer),
                                     cmocka_unit_test(layers_of_a_classifier),
                                     cmocka_unit_test(layers_with_skip),
                                     cmocka_unit_test(layer_errors)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
