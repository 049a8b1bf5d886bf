/* UNet and VNet of map2map (specification page, sections 5.2 to 5.4), for 1, 2 and 3 dimensions and
 * any depth, width and kernel. Parameter names are those of the PyTorch modules. */
#include <string.h>

#include "models/builtin.h"

typedef struct settings {
  int64_t depth; /**< number of down-sampling levels */
  int64_t width;
  int64_t kernel;
  double slope;
  bool residual; /**< VNet */
} settings;

static settings read_settings(const fn_options *options, bool residual) {
  return (settings){
      .depth = fn_option_integer(options, "depth", 2),
      .width = fn_option_integer(options, "width", 64),
      .kernel = fn_option_integer(options, "kernel", 3),
      .slope = fn_option_real(options, "slope", 0.01),
      .residual = residual,
  };
}

static int64_t larger(int64_t a, int64_t b) {
  return a > b ? a : b;
}

static int convolutions(const char *sequence) {
  int count = 0;
  for (; *sequence; sequence++)
    count += strchr("CUD", *sequence) != NULL;
  return count;
}

/** Layers read from left to right: C convolution, U and D factor-two transposed and strided
 *  convolutions, B batch norm, A leaky ReLU. Without `last_activation` a trailing A is left out. */
static fn_value *conv_block(fn_graph *graph, fn_value *x, int64_t out_channels,
                            const char *sequence, bool last_activation, const settings *s) {
  const int total = convolutions(sequence);
  const int64_t middle = larger(fn_dim(x, 1), out_channels);
  const int64_t kernel[3] = {s->kernel, s->kernel, s->kernel}, two[3] = {2, 2, 2};
  const fn_conv_geometry halve = {.stride = {2, 2, 2}};
  int done = 0;
  for (int i = 0; sequence[i]; i++) {
    const bool is_conv = strchr("CUD", sequence[i]) != NULL;
    if (sequence[i] == 'A' && !sequence[i + 1] && !last_activation) break;
    const int64_t channels = is_conv && ++done == total ? out_channels : middle;
    fn_scope_push(graph, "convs.%d", i);
    switch (sequence[i]) {
      case 'C': x = fn_layer_conv(graph, x, channels, kernel, NULL, true); break;
      case 'D': x = fn_layer_conv(graph, x, channels, two, &halve, true); break;
      case 'U': x = fn_layer_conv_transpose(graph, x, channels, two, &halve, true); break;
      case 'B': x = fn_layer_batch_norm(graph, x, 1e-5, 0.1); break;
      default: x = fn_leaky_relu(graph, x, s->slope); break;
    }
    fn_scope_pop(graph);
  }
  return x;
}

/** A convolution block; in a VNet with a 1x1 skip beside it. The input is narrowed before the skip,
 *  not after it: the same numbers for less work. */
static fn_value *block(fn_graph *graph, const char *name, fn_value *x, int64_t out_channels,
                       const char *sequence, const settings *s) {
  const int64_t one[3] = {1, 1, 1};
  const bool activate = sequence[strlen(sequence) - 1] == 'A';
  fn_scope_push(graph, "%s", name);
  fn_value *y = conv_block(graph, x, out_channels, sequence, !s->residual, s);
  if (s->residual) {
    fn_scope_push(graph, "skip");
    fn_value *skip = fn_layer_conv(graph, fn_crop_like(graph, x, y), out_channels, one, NULL, true);
    fn_scope_pop(graph);
    y = fn_add(graph, y, skip);
    if (activate) y = fn_leaky_relu(graph, y, s->slope);
  }
  fn_scope_pop(graph);
  return y;
}

static fn_value *resize(fn_graph *graph, const char *name, int level, fn_value *x, bool up,
                        const settings *s) {
  fn_scope_push(graph, "%s%d", name, level);
  x = conv_block(graph, x, s->width, up ? "UBA" : "DBA", true, s);
  fn_scope_pop(graph);
  return x;
}

enum { DEEPEST = 8 };

static bool check_settings(fn_graph *graph, const settings *s) {
  if (s->depth < 1 || s->depth > DEEPEST) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.depth must be 1 to %d, not %lld", DEEPEST,
                  (long long)s->depth);
  } else if (s->kernel < 1 || s->kernel % 2 == 0) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.kernel must be odd, not %lld",
                  (long long)s->kernel);
  } else if (s->width < 1) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.width must be positive, not %lld",
                  (long long)s->width);
  } else if (!(s->slope > 0 && s->slope < 1)) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "model.options.slope must be in (0, 1), not %g", s->slope);
  }
  return fn_graph_status(graph) == FN_OK;
}

static fn_value *build(fn_graph *graph, fn_value *x, int64_t out_channels,
                       const fn_options *options, bool residual) {
  const settings s = read_settings(options, residual);
  const bool bypass = fn_option_flag(options, "bypass", fn_dim(x, 1) == out_channels);
  if (!check_settings(graph, &s)) return NULL;
  const int depth = (int)s.depth;
  fn_value *input = x, *saved[DEEPEST];
  char name[32] = "conv_l0";
  for (int level = 0; level < depth; level++) {
    name[6] = (char)('0' + level);
    saved[level] = x = block(graph, name, x, s.width, level == 0 ? "CACBA" : "CBACBA", &s);
    x = resize(graph, "down_l", level, x, false, &s);
  }
  x = block(graph, "conv_c", x, s.width, "CBACBA", &s);
  strcpy(name, "conv_r0");
  for (int level = depth - 1; level >= 0; level--) {
    name[6] = (char)('0' + level);
    x = resize(graph, "up_r", level, x, true, &s);
    fn_value *both[2] = {fn_crop_like(graph, saved[level], x), x};
    x = fn_concat(graph, both, 2, 1);
    x = block(graph, name, x, level ? s.width : out_channels, level ? "CBACBA" : "CAC", &s);
  }
  return bypass ? fn_add(graph, x, fn_crop_like(graph, input, x)) : x;
}

/** Output edge for input edge n, or -1 when n does not fit. */
static int64_t output_edge(const settings *s, int64_t n) {
  const int64_t trim = 2 * (s->kernel - 1);
  int64_t saved[DEEPEST], edge = n;
  for (int level = 0; level < s->depth; level++) {
    saved[level] = edge -= trim;
    if (edge <= 0 || edge % 2 != 0) return -1;
    edge /= 2;
  }
  edge -= trim;
  for (int level = (int)s->depth - 1; level >= 0; level--) {
    edge *= 2;
    // The skip is narrowed symmetrically only if the excess is even.
    if (edge <= 0 || edge > saved[level] || (saved[level] - edge) % 2 != 0) return -1;
    edge -= trim;
  }
  return edge > 0 ? edge : -1;
}

static void rule(const fn_options *options, bool residual, fn_network_rule *r) {
  const settings s = read_settings(options, residual);
  *r = (fn_network_rule){.multiple = 1, .trim = -1};
  if (s.depth < 1 || s.depth > DEEPEST || s.kernel < 1 || s.kernel % 2 == 0) return;
  int64_t n = 1;
  while (output_edge(&s, n) < 0)
    n++;
  r->multiple = (int64_t)1 << s.depth;
  r->remainder = n % r->multiple;
  r->minimum = n;
  r->trim = (n - output_edge(&s, n)) / 2;
}

static fn_value *build_unet(fn_graph *graph, fn_value *x, int64_t out, const fn_options *options) {
  return build(graph, x, out, options, false);
}

static fn_value *build_vnet(fn_graph *graph, fn_value *x, int64_t out, const fn_options *options) {
  return build(graph, x, out, options, true);
}

static void rule_unet(const fn_options *options, fn_network_rule *r) {
  rule(options, false, r);
}
static void rule_vnet(const fn_options *options, fn_network_rule *r) {
  rule(options, true, r);
}

const fn_network fn_network_unet = {
    "unet", "convolutional encoder and decoder with skip connections (map2map's UNet)", build_unet,
    rule_unet};
const fn_network fn_network_vnet = {"vnet", "UNet of residual blocks (map2map's VNet)", build_vnet,
                                    rule_vnet};
