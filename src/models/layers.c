/* A network spelled in YAML: a list of layers, each `type`, `type: value` or `type: {options}`,
 * with an optional `name` beside it. Values are kept by `save: NAME` and used again by `add`,
 * `concat`. */
#include <string.h>

#include "base/text.h"
#include "config/options.h"
#include "models/builtin.h"

enum { SAVED_MOST = 64 };

typedef struct builder {
  fn_graph *graph;
  fn_value *x;
  int64_t out_channels;
  const char *saved_name[SAVED_MOST];
  fn_value *saved[SAVED_MOST];
  int saved_count;
} builder;

typedef struct layer {
  const char *type;
  /** `options` is the value after the colon; NULL when there is none. */
  fn_status (*build)(builder *b, const fn_options *options);
} layer;

static fn_status fail_at(const fn_options *node, const char *message, const char *detail) {
  FN_FAIL(FN_ERR_CONFIG, "%s: %s%s", fn_options_where(node), message, detail);
}

/** Sizes beyond what any memory holds would overflow the arithmetic of shapes. */
static fn_status in_range(const fn_options *node, const char *key, int64_t least, int64_t value) {
  FN_CHECK(value >= least && value <= INT32_MAX, FN_ERR_CONFIG,
           "%s: %s must be from %lld to %d, found %lld", fn_options_where(node), key,
           (long long)least, INT32_MAX, (long long)value);
  return FN_OK;
}

/** One integer for all axes, or one per axis, at least `least`. */
static fn_status edges(const builder *b, const fn_options *options, const char *key,
                       int64_t fallback, int64_t least, int64_t *value) {
  const fn_options *node = fn_options_get(options, key);
  const int spatial = fn_spatial(b->x);
  for (int d = 0; d < FN_MAX_SPATIAL; d++)
    value[d] = fallback;
  if (!node) return FN_OK;
  int64_t list[FN_MAX_SPATIAL];
  int count;
  FN_TRY(fn_options_as_integers(node, FN_MAX_SPATIAL, list, &count));
  if (count != 1 && count != spatial)
    return fail_at(node, "expected one value, or one per axis", "");
  for (int d = 0; d < spatial; d++) {
    value[d] = list[count == 1 ? 0 : d];
    FN_TRY(in_range(node, key, least, value[d]));
  }
  return FN_OK;
}

static fn_status geometry(const builder *b, const fn_options *options, int64_t stride,
                          fn_conv_geometry *g) {
  *g = (fn_conv_geometry){.groups = fn_option_integer(options, "groups", 1)};
  FN_TRY(in_range(options, "groups", 1, g->groups));
  FN_TRY(edges(b, options, "stride", stride, 1, g->stride));
  FN_TRY(edges(b, options, "pad", 0, 0, g->pad_low));
  FN_TRY(edges(b, options, "dilation", 1, 1, g->dilation));
  memcpy(g->pad_high, g->pad_low, sizeof g->pad_high);
  return FN_OK;
}

/** Channel count of a layer: an integer, or `out` for the run's number of target channels. */
static fn_status channels_of(const builder *b, const fn_options *options, int64_t *channels) {
  const fn_options *node = fn_options_get(options, "channels");
  *channels = fn_dim(b->x, 1);
  if (!node) return FN_OK;
  const char *text = fn_options_scalar(node);
  if (text && strcmp(text, "out") == 0) {
    *channels = b->out_channels;
    return FN_OK;
  }
  FN_TRY(fn_options_as_integer(node, channels));
  return in_range(node, "channels", 1, *channels);
}

static fn_status build_conv(builder *b, const fn_options *options, bool transpose) {
  int64_t channels, kernel[FN_MAX_SPATIAL];
  fn_conv_geometry g;
  FN_TRY(channels_of(b, options, &channels));
  FN_TRY(edges(b, options, "kernel", transpose ? 2 : 3, 1, kernel));
  FN_TRY(geometry(b, options, transpose ? 2 : 1, &g));
  const bool bias = fn_option_flag(options, "bias", true);
  b->x = transpose ? fn_layer_conv_transpose(b->graph, b->x, channels, kernel, &g, bias)
                   : fn_layer_conv(b->graph, b->x, channels, kernel, &g, bias);
  return FN_OK;
}

static fn_status conv(builder *b, const fn_options *o) {
  return build_conv(b, o, false);
}
static fn_status conv_transpose(builder *b, const fn_options *o) {
  return build_conv(b, o, true);
}

/** All channels and cells of a sample in one row, channels slowest, times a matrix. */
static fn_status linear(builder *b, const fn_options *options) {
  int64_t channels;
  FN_TRY(channels_of(b, options, &channels));
  const bool bias = fn_option_flag(options, "bias", true);
  fn_shape row = {2, {fn_dim(b->x, 0), 1}};
  for (int d = 1; d < fn_ndim(b->x); d++)
    row.dim[1] *= fn_dim(b->x, d);
  if (fn_ndim(b->x) > 2) b->x = fn_reshape(b->graph, b->x, &row);
  b->x = fn_layer_dense(b->graph, b->x, channels, bias);
  return FN_OK;
}

static fn_status batch_norm(builder *b, const fn_options *options) {
  const double eps = fn_option_real(options, "eps", 1e-5);
  const double momentum = fn_option_real(options, "momentum", 0.1);
  if (!(eps > 0)) return fail_at(options, "batch_norm needs eps above 0", "");
  if (!(momentum >= 0 && momentum <= 1))
    return fail_at(options, "batch_norm needs a momentum from 0 to 1", "");
  b->x = fn_layer_batch_norm(b->graph, b->x, eps, momentum);
  return FN_OK;
}

static fn_status leaky_relu(builder *b, const fn_options *options) {
  double slope = 0.01;
  if (options && fn_options_get_kind(options) == FN_OPTIONS_SCALAR)
    FN_TRY(fn_options_as_real(options, &slope));
  else
    slope = fn_option_real(options, "slope", slope);
  b->x = fn_leaky_relu(b->graph, b->x, slope);
  return FN_OK;
}

static fn_status relu(builder *b, const fn_options *options) {
  (void)options;
  b->x = fn_relu(b->graph, b->x);
  return FN_OK;
}

static fn_status sigmoid(builder *b, const fn_options *options) {
  (void)options;
  b->x = fn_sigmoid(b->graph, b->x);
  return FN_OK;
}

static fn_status hyperbolic(builder *b, const fn_options *options) {
  (void)options;
  b->x = fn_tanh(b->graph, b->x);
  return FN_OK;
}

static fn_status dropout(builder *b, const fn_options *options) {
  double p = 0.5;
  if (options && fn_options_get_kind(options) == FN_OPTIONS_SCALAR)
    FN_TRY(fn_options_as_real(options, &p));
  else
    p = fn_option_real(options, "p", p);
  if (!(p >= 0 && p < 1)) return fail_at(options, "dropout needs a probability in [0, 1)", "");
  b->x = fn_dropout(b->graph, b->x, p);
  return FN_OK;
}

static fn_status build_pool(builder *b, const fn_options *options, bool maximum) {
  int64_t kernel[FN_MAX_SPATIAL];
  fn_conv_geometry g;
  FN_TRY(edges(b, options, "kernel", 2, 1, kernel));
  FN_TRY(geometry(b, options, 0, &g));
  for (int d = 0; d < FN_MAX_SPATIAL; d++)
    if (g.stride[d] == 0) g.stride[d] = kernel[d];
  b->x = maximum ? fn_max_pool(b->graph, b->x, kernel, &g)
                 : fn_average_pool(b->graph, b->x, kernel, &g);
  return FN_OK;
}

static fn_status average_pool(builder *b, const fn_options *o) {
  return build_pool(b, o, false);
}
static fn_status max_pool(builder *b, const fn_options *o) {
  return build_pool(b, o, true);
}

static fn_status pad(builder *b, const fn_options *options) {
  int64_t low[FN_MAX_SPATIAL], high[FN_MAX_SPATIAL];
  const char *mode = fn_option_text(options, "mode", "periodic");
  FN_TRY(edges(b, options, "size", 1, 0, low));
  memcpy(high, low, sizeof high);
  if (fn_options_get(options, "low")) FN_TRY(edges(b, options, "low", 0, 0, low));
  if (fn_options_get(options, "high")) FN_TRY(edges(b, options, "high", 0, 0, high));
  if (strcmp(mode, "periodic") != 0 && strcmp(mode, "zero") != 0)
    return fail_at(options, "pad mode must be periodic or zero, not ", mode);
  b->x = fn_pad(b->graph, b->x, low, high, mode[0] == 'z' ? FN_PAD_ZERO : FN_PAD_PERIODIC);
  return FN_OK;
}

static fn_status resample(builder *b, const fn_options *options) {
  b->x = fn_resample(b->graph, b->x, fn_option_real(options, "factor", 2),
                     fn_option_flag(options, "narrow", true));
  return FN_OK;
}

static fn_status crop(builder *b, const fn_options *options) {
  int64_t size[FN_MAX_SPATIAL], length[FN_MAX_SPATIAL];
  FN_TRY(edges(b, options, "size", 1, 0, size));
  for (int d = 0; d < fn_spatial(b->x); d++) {
    const int64_t cells = fn_dim(b->x, 2 + d);
    if (size[d] > (cells - 1) / 2) return fail_at(options, "crop removes the whole field", "");
    length[d] = cells - 2 * size[d];
  }
  b->x = fn_crop(b->graph, b->x, size, length);
  return FN_OK;
}

static fn_status save(builder *b, const fn_options *options) {
  const char *name;
  FN_TRY(fn_options_as_text(options, &name));
  for (int i = 0; i < b->saved_count; i++)
    if (strcmp(b->saved_name[i], name) == 0) return fail_at(options, "saved twice: ", name);
  if (b->saved_count == SAVED_MOST) return fail_at(options, "too many saved values", "");
  b->saved_name[b->saved_count] = name;
  b->saved[b->saved_count++] = b->x;
  return FN_OK;
}

static fn_status saved_value(const builder *b, const fn_options *options, fn_value **value) {
  const char *name;
  FN_TRY(fn_options_as_text(options, &name));
  for (int i = 0; i < b->saved_count; i++) {
    if (strcmp(b->saved_name[i], name) != 0) continue;
    *value = b->saved[i];
    return FN_OK;
  }
  const char *closest = fn_text_closest(name, b->saved_name, b->saved_count);
  FN_FAIL(FN_ERR_CONFIG, "%s: nothing was saved as '%s'%s%s%s", fn_options_where(options), name,
          closest ? "; did you mean '" : "", closest ? closest : "", closest ? "'?" : "");
}

/** Narrowed to the size of the running value, as in UNet. */
static fn_status add(builder *b, const fn_options *options) {
  fn_value *other = NULL;
  FN_TRY(saved_value(b, options, &other));
  b->x = fn_add(b->graph, b->x, fn_crop_like(b->graph, other, b->x));
  return FN_OK;
}

static fn_status concat(builder *b, const fn_options *options) {
  fn_value *other = NULL;
  FN_TRY(saved_value(b, options, &other));
  fn_value *both[2] = {fn_crop_like(b->graph, other, b->x), b->x};
  b->x = fn_concat(b->graph, both, 2, 1);
  return FN_OK;
}

static const layer layers[] = {
    {"conv", conv},
    {"conv_transpose", conv_transpose},
    {"linear", linear},
    {"batch_norm", batch_norm},
    {"leaky_relu", leaky_relu},
    {"relu", relu},
    {"sigmoid", sigmoid},
    {"tanh", hyperbolic},
    {"dropout", dropout},
    {"average_pool", average_pool},
    {"max_pool", max_pool},
    {"pad", pad},
    {"crop", crop},
    {"resample", resample},
    {"save", save},
    {"add", add},
    {"concat", concat},
};
enum { LAYER_COUNT = (int)(sizeof layers / sizeof layers[0]) };

static fn_status unknown_layer(const fn_options *item, const char *type) {
  const char *names[LAYER_COUNT];
  for (int i = 0; i < LAYER_COUNT; i++)
    names[i] = layers[i].type;
  const char *closest = fn_text_closest(type, names, LAYER_COUNT);
  FN_FAIL(FN_ERR_CONFIG, "%s: unknown layer '%s'%s%s%s", fn_options_where(item), type,
          closest ? "; did you mean '" : "", closest ? closest : "", closest ? "'?" : "");
}

static fn_status build_layer(builder *b, const fn_options *item, int index) {
  const char *type = fn_options_scalar(item), *name = NULL;
  const fn_options *options = NULL;
  for (int i = 0; !type && i < fn_options_count(item); i++) {
    const char *key = fn_options_key_at(item, i);
    if (key && strcmp(key, "name") != 0) {
      type = key;
      options = fn_options_at(item, i);
    }
  }
  if (!type) return fail_at(item, "expected a layer: 'type', or 'type: options'", "");
  const bool is_mapping = fn_options_get_kind(item) == FN_OPTIONS_MAPPING;
  const fn_options *label = is_mapping ? fn_options_get(item, "name") : NULL;
  if (label) FN_TRY(fn_options_as_text(label, &name));
  for (int i = 0; i < LAYER_COUNT; i++) {
    if (strcmp(layers[i].type, type) != 0) continue;
    if (name)
      fn_scope_push(b->graph, "%s", name);
    else
      fn_scope_push(b->graph, "%d", index);
    const fn_status status = layers[i].build(b, options);
    fn_scope_pop(b->graph);
    FN_TRY(status);
    return fn_error_context(fn_graph_status(b->graph), "%s", fn_options_where(item));
  }
  return unknown_layer(item, type);
}

fn_value *fn_layers_build(fn_graph *graph, fn_value *x, int64_t out_channels,
                          const fn_options *list) {
  builder b = {.graph = graph, .x = x, .out_channels = out_channels};
  if (fn_options_get_kind(list) != FN_OPTIONS_LIST || fn_options_count(list) == 0) {
    fn_graph_fail(graph, FN_ERR_CONFIG, "%s: model.layers must be a list of layers",
                  fn_options_where(list));
    return NULL;
  }
  for (int i = 0; i < fn_options_count(list); i++) {
    const fn_status status = build_layer(&b, fn_options_at(list, i), i);
    if (status == FN_OK) continue;
    if (fn_graph_status(graph) == FN_OK) fn_graph_fail(graph, status, "%s", fn_error_message());
    return NULL;
  }
  return b.x;
}
