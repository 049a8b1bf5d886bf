/* A plug-in: a network, a loss and a norm of one's own, used by configs/plugin.yaml.
 *
 * Build it with fieldnet installed (in the source tree: -Iinclude instead of pkg-config):
 *   cc -shared -fPIC -o example_plugin.so example_plugin.c $(pkg-config --cflags fieldnet)
 */
#include <math.h>

#include <fieldnet/network.h>

/* ---- network: `depth` residual 3^d convolutions ----------------------------------------------
 */

static int64_t depth_of(const fn_options *options) {
  return fn_option_integer(options, "depth", 3);
}

static fn_value *layer(fn_graph *graph, const char *name, fn_value *x, int64_t channels,
                       int64_t edge) {
  const int64_t kernel[FN_MAX_SPATIAL] = {edge, edge, edge};
  fn_scope_push(graph, "%s", name);
  x = fn_layer_conv(graph, x, channels, kernel, NULL, true);
  fn_scope_pop(graph);
  return x;
}

/* x [N, C, s...] -> [N, out_channels, s - 2 depth...]. A NULL value after a failure may be passed
 * on: builder functions return NULL then and the graph keeps the message. */
static fn_value *build_residual(fn_graph *graph, fn_value *x, int64_t out_channels,
                                const fn_options *options) {
  const int64_t width = fn_option_integer(options, "width", 8), depth = depth_of(options);
  fn_value *input = x;
  x = layer(graph, "lift", x, width, 1);
  for (int64_t i = 0; i < depth; i++) {
    fn_scope_push(graph, "block%d", (int)i);
    fn_value *y = layer(graph, "conv", fn_tanh(graph, x), width, 3);
    x = fn_add(graph, fn_crop_like(graph, x, y), y);
    fn_scope_pop(graph);
  }
  x = layer(graph, "project", x, out_channels, 1);
  // Learn the difference to the input where there is such a thing.
  return fn_dim(input, 1) == out_channels ? fn_add(graph, x, fn_crop_like(graph, input, x)) : x;
}

/* Each convolution takes one cell per side. */
static void residual_rule(const fn_options *options, fn_network_rule *rule) {
  const int64_t depth = depth_of(options);
  *rule = (fn_network_rule){.multiple = 1, .minimum = 2 * depth + 1, .trim = depth};
}

static const fn_network residual = {"residual", "residual convolutions without down-sampling",
                                    build_residual, residual_rule};

/* ---- loss: ln cosh, quadratic near zero and linear far away ----------------------------------
 */

/* ln cosh d = softplus(2 d) - d - ln 2, which does not overflow. */
static fn_value *build_log_cosh(fn_graph *graph, fn_value *output, fn_value *target,
                                const fn_options *options) {
  const double scale = fn_option_real(options, "scale", 1);
  fn_value *d = fn_affine(graph, fn_sub(graph, output, target), 1 / scale, 0);
  fn_value *twice = fn_softplus(graph, fn_affine(graph, d, 2, 0));
  return fn_mean(graph, fn_affine(graph, fn_sub(graph, twice, d), 1, -log(2)), FN_ALL_AXES, false);
}

static const fn_loss log_cosh = {"log_cosh", "mean of ln cosh((output - target) / scale)",
                                 build_log_cosh};

/* ---- norm: arsinh, which compresses large values of either sign ------------------------------
 */

static fn_status apply_arsinh(float *values, int64_t channels, int64_t cells, bool undo,
                              const fn_options *options) {
  const double unit = fn_option_real(options, "unit", 1);
  FN_CHECK(unit > 0, FN_ERR_CONFIG, "norm option unit must be positive, found %g", unit);
  for (int64_t i = 0; i < channels * cells; i++) {
    const double x = (double)values[i];
    values[i] = (float)(undo ? unit * sinh(x) : asinh(x / unit));
  }
  return FN_OK;
}

static const fn_norm arsinh = {"arsinh", "asinh(x / unit)", apply_arsinh};

/* The one function fieldnet looks for. */
fn_status fieldnet_register(void);
fn_status fieldnet_register(void) {
  FN_TRY(fn_register_network(&residual));
  FN_TRY(fn_register_loss(&log_cosh));
  return fn_register_norm(&arsinh);
}
