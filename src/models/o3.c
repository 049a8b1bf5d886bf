/* o3, a larger classifier of slices (specification page of the cubes, section 6): six stages of
 * two periodic 3 x 3 convolutions and a halving one, a 4 x 4 convolution, two dense layers. The
 * output is a logit per target channel, [N, K]. */
#include <math.h>

#include "models/builtin.h"

enum { STAGES = 6, LAST_KERNEL = 4 };

typedef struct settings {
  int64_t width; /**< h */
  double dropout, slope;
} settings;

static bool check_settings(fn_graph *graph, const fn_value *x, const settings *s) {
  if (fn_spatial(x) != 2) {
    char text[128];
    fn_graph_fail(graph, FN_ERR_CONFIG,
                  "the network takes slices, [N, C, rows, columns], but its input is %s",
                  fn_shape_text(fn_value_shape(x), text, sizeof text));
  } else if (s->width < 1) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.width must be positive, not %lld",
                  (long long)s->width);
  } else if (!(s->dropout >= 0 && s->dropout < 1)) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.dropout must be in [0, 1), not %g",
                  s->dropout);
  } else if (!(s->slope > 0 && s->slope < 1)) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.slope must be in (0, 1), not %g", s->slope);
  }
  return fn_graph_status(graph) == FN_OK;
}

/** Weight of N(0, sqrt(2 / fan_in)) (He et al. 2015, equation 10), bias as by PyTorch's default. */
static fn_value *parameters(fn_graph *graph, const fn_shape *shape, fn_value **bias) {
  const double fan_in = (double)(fn_shape_count(shape) / shape->dim[0]), bound = 1 / sqrt(fan_in);
  fn_value *weight = fn_parameter(graph, "weight", shape,
                                  (fn_init){FN_INIT_NORMAL, 0, sqrt(2 / fan_in)}, FN_ROLE_WEIGHT);
  *bias = fn_parameter(graph, "bias", &(fn_shape){1, {shape->dim[0]}},
                       (fn_init){FN_INIT_UNIFORM, -bound, bound}, FN_ROLE_BIAS);
  return weight;
}

static fn_value *conv(fn_graph *graph, fn_value *x, int position, int64_t channels, int64_t kernel,
                      int64_t stride) {
  const fn_shape shape = {4, {channels, fn_dim(x, 1), kernel, kernel}};
  const int64_t one[] = {1, 1};
  fn_value *bias;
  fn_scope_push(graph, "%d", position);
  fn_value *weight = parameters(graph, &shape, &bias);
  if (kernel == 3) x = fn_pad(graph, x, one, one, FN_PAD_PERIODIC);
  x = fn_conv(graph, x, weight, bias, &(fn_conv_geometry){.stride = {stride, stride}});
  fn_scope_pop(graph);
  return x;
}

static fn_value *norm_and_activate(fn_graph *graph, fn_value *x, int position, const settings *s) {
  fn_scope_push(graph, "%d", position);
  x = fn_layer_batch_norm(graph, x, 1e-5, 0.1);
  fn_scope_pop(graph);
  return fn_leaky_relu(graph, x, s->slope);
}

/** The original has a batch norm after the first convolution that it never applies: its parameters
 *  are kept, so that states can be exchanged and counts agree. */
static void unused_norm(fn_graph *graph, int position, int64_t channels) {
  const fn_shape shape = {1, {channels}}, scalar = {0};
  fn_scope_push(graph, "%d", position);
  fn_parameter(graph, "weight", &shape, FN_INIT_ONE, FN_ROLE_NORM_SCALE);
  fn_parameter(graph, "bias", &shape, FN_INIT_ZERO, FN_ROLE_NORM_SHIFT);
  fn_buffer(graph, "running_mean", &shape, 0);
  fn_buffer(graph, "running_var", &shape, 1);
  fn_buffer(graph, "num_batches_tracked", &scalar, 0);
  fn_scope_pop(graph);
}

/** Two convolutions of the same size and one that halves it. */
static fn_value *stage(fn_graph *graph, fn_value *x, int number, const settings *s) {
  const int64_t channels = ((int64_t)2 << number) * s->width;
  fn_scope_push(graph, "stage%d", number);
  x = conv(graph, x, 0, channels, 3, 1);
  if (number == 0) {
    unused_norm(graph, 1, channels);
    x = fn_leaky_relu(graph, x, s->slope);
  } else {
    x = norm_and_activate(graph, x, 1, s);
  }
  x = norm_and_activate(graph, conv(graph, x, 3, channels, 3, 1), 4, s);
  x = norm_and_activate(graph, conv(graph, x, 6, channels, 2, 2), 7, s);
  fn_scope_pop(graph);
  return x;
}

static fn_value *dense(fn_graph *graph, const char *name, fn_value *x, int64_t features) {
  const fn_shape shape = {2, {features, fn_dim(x, 1)}};
  fn_value *bias;
  fn_scope_push(graph, "%s", name);
  fn_value *weight = parameters(graph, &shape, &bias);
  x = fn_add(graph, fn_matmul(graph, x, weight, false, true), bias);
  fn_scope_pop(graph);
  return x;
}

static fn_value *build(fn_graph *graph, fn_value *x, int64_t out_channels,
                       const fn_options *options) {
  const settings s = {.width = fn_option_integer(options, "width", 6),
                      .dropout = fn_option_real(options, "dropout", 0.5),
                      .slope = fn_option_real(options, "slope", 0.2)};
  if (!check_settings(graph, x, &s)) return NULL;
  for (int i = 0; i < STAGES; i++)
    x = stage(graph, x, i, &s);
  fn_scope_push(graph, "last");
  x = norm_and_activate(graph, conv(graph, x, 0, 128 * s.width, LAST_KERNEL, 1), 1, &s);
  fn_scope_pop(graph);
  const fn_shape flat = {2, {fn_dim(x, 0), fn_dim(x, 1) * fn_dim(x, 2) * fn_dim(x, 3)}};
  x = fn_dropout(graph, fn_reshape(graph, x, &flat), s.dropout);
  x = fn_leaky_relu(graph, dense(graph, "fc1", x, 64 * s.width), s.slope);
  return dense(graph, "fc2", fn_dropout(graph, x, s.dropout), out_channels);
}

/** At the smallest edge the last batch norm has one value per sample and channel. */
static void rule(const fn_options *options, fn_network_rule *r) {
  (void)options;
  *r = (fn_network_rule){.multiple = 1 << STAGES,
                         .minimum = LAST_KERNEL << STAGES,
                         .trim = -1,
                         .spatial = 2,
                         .samples = 2};
}

const fn_network fn_network_o3 = {
    "o3", "classifier of slices: six stages of periodic convolutions, two dense layers", build,
    rule};
