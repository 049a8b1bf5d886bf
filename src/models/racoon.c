/* RACOON and PENGUIN, classifiers of slices through cubes (specification page of the cubes, section
 * 1): strided convolutions, each with batch norm and activation, then dense layers. The output is a
 * logit per target channel, [N, K]. Parameter names are those of the PyTorch modules. */
#include <string.h>

#include "models/builtin.h"

typedef struct settings {
  int64_t width;  /**< `layer_param` of the original */
  int64_t kernel; /**< RACOON: 4, or 7 as in its version 5 */
  bool conv_bias, fc_bias;
  bool first_version; /**< PENGUIN: version 0, small kernels and pooling */
  bool relu;
  double slope, dropout;
} settings;

/** Options of both networks. The activation's name is checked by check_settings(). */
static settings read_settings(const fn_options *options, bool first_version) {
  settings s = {
      .width = fn_option_integer(options, "width", first_version ? 4 : 64),
      .first_version = first_version,
      .relu = strcmp(fn_option_text(options, "activation", "leaky_relu"), "relu") == 0,
      .fc_bias = fn_option_flag(options, "fc_bias", true),
      .dropout = fn_option_real(options, "dropout", first_version ? 0.25 : 0.5),
  };
  s.slope = s.relu ? 0 : fn_option_real(options, "slope", first_version ? 0.01 : 0.2);
  return s;
}

static settings racoon_settings(const fn_options *options) {
  settings s = read_settings(options, false);
  s.kernel = fn_option_integer(options, "kernel", 4);
  s.conv_bias = fn_option_flag(options, "conv_bias", s.kernel == 7);
  return s;
}

static settings penguin_settings(const fn_options *options) {
  const char *version = fn_option_text(options, "version", "V6");
  settings s = read_settings(options, strcmp(version, "V0") == 0);
  s.kernel = 4;
  s.conv_bias = fn_option_flag(options, "conv_bias", strcmp(version, "V5") == 0);
  return s;
}

static bool check_settings(fn_graph *graph, const fn_value *x, const fn_options *options,
                           const settings *s) {
  const char *activation = fn_option_text(options, "activation", "leaky_relu");
  if (fn_spatial(x) != 2) {
    char text[128];
    fn_graph_fail(graph, FN_ERR_CONFIG,
                  "the network takes slices, [N, C, rows, columns], but its input is %s",
                  fn_shape_text(fn_value_shape(x), text, sizeof text));
  } else if (s->width < 1) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.width must be positive, not %lld",
                  (long long)s->width);
  } else if (s->kernel != 4 && s->kernel != 7) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.kernel must be 4 or 7, not %lld",
                  (long long)s->kernel);
  } else if (!s->relu && strcmp(activation, "leaky_relu") != 0) {
    fn_graph_fail(graph, FN_ERR_CONFIG,
                  "model.options.activation must be leaky_relu or relu, not %s", activation);
  } else if (!s->relu && !(s->slope > 0 && s->slope < 1)) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.slope must be in (0, 1), not %g", s->slope);
  } else if (!(s->dropout >= 0 && s->dropout < 1)) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.dropout must be in [0, 1), not %g",
                  s->dropout);
  }
  return fn_graph_status(graph) == FN_OK;
}

static fn_value *activate(fn_graph *graph, fn_value *x, const settings *s) {
  return s->relu ? fn_relu(graph, x) : fn_leaky_relu(graph, x, s->slope);
}

static fn_value *conv(fn_graph *graph, fn_value *x, int position, int64_t channels, int64_t kernel,
                      int64_t stride, int64_t pad, bool bias) {
  const fn_conv_geometry geometry = {
      .stride = {stride, stride}, .pad_low = {pad, pad}, .pad_high = {pad, pad}};
  fn_scope_push(graph, "%d", position);
  x = fn_layer_conv(graph, x, channels, (const int64_t[]){kernel, kernel}, &geometry, bias);
  fn_scope_pop(graph);
  return x;
}

static fn_value *norm(fn_graph *graph, fn_value *x, int position) {
  fn_scope_push(graph, "%d", position);
  x = fn_layer_batch_norm(graph, x, 1e-5, 0.1);
  fn_scope_pop(graph);
  return x;
}

static fn_value *dense(fn_graph *graph, fn_value *x, int position, int64_t features, bool bias) {
  fn_scope_push(graph, "%d", position);
  x = fn_layer_dense(graph, x, features, bias);
  fn_scope_pop(graph);
  return x;
}

/** conv2d<number>: convolution, batch norm, activation. */
static fn_value *conv_block(fn_graph *graph, fn_value *x, int number, int64_t channels,
                            int64_t stride, int64_t pad, const settings *s) {
  fn_scope_push(graph, "conv2d%d", number);
  x = conv(graph, x, 0, channels, s->kernel, stride, pad, s->conv_bias);
  x = activate(graph, norm(graph, x, 1), s);
  fn_scope_pop(graph);
  return x;
}

/** conv2d<number> of PENGUIN's version 0: convolution, maximum of 2 x 2, batch norm, activation,
 *  dropout. */
static fn_value *pool_block(fn_graph *graph, fn_value *x, int number, int64_t channels,
                            const settings *s) {
  const int64_t two[] = {2, 2};
  fn_scope_push(graph, "conv2d%d", number);
  x = conv(graph, x, 0, channels, 3, 1, 1, s->conv_bias);
  x = fn_max_pool(graph, x, two, &(fn_conv_geometry){.stride = {2, 2}});
  x = fn_dropout(graph, activate(graph, norm(graph, x, 2), s), s->dropout);
  fn_scope_pop(graph);
  return x;
}

static fn_value *flatten(fn_graph *graph, fn_value *x) {
  const fn_shape shape = {2, {fn_dim(x, 0), fn_dim(x, 1) * fn_dim(x, 2) * fn_dim(x, 3)}};
  return fn_reshape(graph, x, &shape);
}

/** <name>: dense layer at `position` of its module, batch norm if asked, activation, dropout. */
static fn_value *dense_block(fn_graph *graph, fn_value *x, const char *name, int position,
                             int64_t features, bool norms, const settings *s) {
  fn_scope_push(graph, "%s", name);
  x = dense(graph, x, position, features, s->fc_bias);
  if (norms) x = norm(graph, x, position + 1);
  x = fn_dropout(graph, activate(graph, x, s), s->dropout);
  fn_scope_pop(graph);
  return x;
}

static fn_value *output(fn_graph *graph, fn_value *x, int64_t out_channels, const settings *s) {
  fn_scope_push(graph, "output");
  x = dense(graph, x, 0, out_channels, s->fc_bias);
  fn_scope_pop(graph);
  return x;
}

static fn_value *build_racoon(fn_graph *graph, fn_value *x, int64_t out_channels,
                              const fn_options *options) {
  const settings s = racoon_settings(options);
  const int64_t times[] = {1, 4, 8}, pad = s.kernel == 7 ? 2 : 0;
  if (!check_settings(graph, x, options, &s)) return NULL;
  for (int i = 0; i < 3; i++)
    x = conv_block(graph, x, i + 1, times[i] * s.width, 4, pad, &s);
  x = dense_block(graph, flatten(graph, x), "fc1", 1, s.width, false, &s);
  return output(graph, x, out_channels, &s);
}

static fn_value *build_penguin(fn_graph *graph, fn_value *x, int64_t out_channels,
                               const fn_options *options) {
  const settings s = penguin_settings(options);
  const char *version = fn_option_text(options, "version", "V6");
  if (!check_settings(graph, x, options, &s)) return NULL;
  if (strlen(version) != 2 || version[0] != 'V' || version[1] < '0' || version[1] > '6') {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.version must be V0 to V6, not %s", version);
    return NULL;
  }
  for (int i = 0; i < 4 && s.first_version; i++)
    x = pool_block(graph, x, i + 1, (4 + 2 * i) * s.width, &s);
  for (int i = 0; i < 6 && !s.first_version; i++)
    x = conv_block(graph, x, i + 1, (i ? 2 * i : 1) * s.width, 2, 1, &s);
  x = dense_block(graph, flatten(graph, x), "fc1", 1, 10 * s.width, true, &s);
  x = dense_block(graph, x, "fc2", 0, s.width, true, &s);
  return output(graph, x, out_channels, &s);
}

static void rule_racoon(const fn_options *options, fn_network_rule *rule) {
  (void)options;
  *rule = (fn_network_rule){.multiple = 64, .minimum = 64, .trim = -1, .spatial = 2};
}

/** Batch norm after the dense layers has one value per sample and channel. */
static void rule_penguin(const fn_options *options, fn_network_rule *rule) {
  const int64_t edge = penguin_settings(options).first_version ? 16 : 64;
  *rule =
      (fn_network_rule){.multiple = edge, .minimum = edge, .trim = -1, .spatial = 2, .samples = 2};
}

const fn_network fn_network_racoon = {
    "racoon", "classifier of slices: three convolutions of stride 4, two dense layers",
    build_racoon, rule_racoon};
const fn_network fn_network_penguin = {
    "penguin", "classifier of slices: six convolutions of stride 2, three dense layers",
    build_penguin, rule_penguin};
