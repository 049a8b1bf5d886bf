#include "models/builtin.h"

static fn_value *build_mse(fn_graph *graph, fn_value *output, fn_value *target,
                           const fn_options *options) {
  (void)options;
  return fn_mse(graph, output, target);
}

static fn_value *build_l1(fn_graph *graph, fn_value *output, fn_value *target,
                          const fn_options *options) {
  (void)options;
  return fn_l1(graph, output, target);
}

static fn_value *build_huber(fn_graph *graph, fn_value *output, fn_value *target,
                             const fn_options *options) {
  return fn_huber(graph, output, target, fn_option_real(options, "delta", 1));
}

static fn_value *build_bce(fn_graph *graph, fn_value *output, fn_value *target,
                           const fn_options *options) {
  (void)options;
  return fn_bce_with_logits(graph, output, target);
}

static fn_value *build_cross_entropy(fn_graph *graph, fn_value *output, fn_value *target,
                                     const fn_options *options) {
  (void)options;
  if (output && fn_dim(output, 1) < 2) {
    fn_graph_fail(graph, FN_ERR_CONFIG,
                  "cross_entropy: the output has one channel, whose softmax is 1 whatever it is; a "
                  "single logit goes with bce_with_logits");
    return NULL;
  }
  return fn_cross_entropy(graph, output, target);
}

const fn_loss fn_loss_mse = {"mse", "mean squared error", build_mse};
const fn_loss fn_loss_l1 = {"l1", "mean absolute error", build_l1};
const fn_loss fn_loss_huber = {"huber", "quadratic below delta, linear above", build_huber};
const fn_loss fn_loss_bce_with_logits = {"bce_with_logits",
                                         "binary cross-entropy of sigmoid(output)", build_bce};
const fn_loss fn_loss_cross_entropy = {
    "cross_entropy", "cross-entropy of softmax(output) over channels", build_cross_entropy};
