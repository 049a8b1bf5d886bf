/* How oneDNN sees a convolution.
 *
 * Layouts: activations are blocked by channels wherever oneDNN has a generated kernel for that; few
 * channels (the first layer's input) stay plain where it has one for that. Candidates are tried in
 * order of preference and oneDNN's slow "ref" implementations are passed over. */
#include "backend/cpu/conv_choice.h"

const int fn_conv_argument[][4] = {
    [CONV_FORWARD] = {DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS},
    [CONV_DATA] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS},
    [CONV_WEIGHT] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS}};

const_dnnl_memory_desc_t fn_cpu_conv_argument(const_dnnl_primitive_desc_t pd, int index) {
  return dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, index);
}

conv_role fn_cpu_conv_role(const fn_node *node) {
  if (node->op == &fn_op_conv) return CONV_FORWARD;
  return node->op == &fn_op_conv_data ? CONV_DATA : CONV_WEIGHT;
}

void fn_cpu_conv_ports(const fn_node *node, conv_values *v) {
  v->role = fn_cpu_conv_role(node);
  v->bias = NULL;
  switch (v->role) {
    case CONV_FORWARD:
      v->x = node->input[0], v->w = node->input[1], v->y = node->output[0];
      v->bias = node->input_count > 2 ? node->input[2] : NULL;
      break;
    case CONV_DATA:
      v->y = node->input[0], v->w = node->input[1], v->x = node->output[0];
      v->bias = node->input_count > 2 ? node->input[2] : NULL;
      break;
    case CONV_WEIGHT:
      v->x = node->input[0], v->y = node->input[1], v->w = node->output[0];
      v->bias = node->output[1];
      break;
  }
}

/* ---- descriptors -------------------------------------------------------------------------------
 */

dnnl_status_t fn_cpu_conv_weights(const conv_values *v, int64_t groups, bool plain,
                                  dnnl_data_type_t type, dnnl_memory_desc_t *desc) {
  static const dnnl_format_tag_t tags[] = {dnnl_abc, dnnl_abcd, dnnl_abcde, dnnl_abcdef};
  const fn_shape *w = &v->w->shape;
  dnnl_dims_t dims;
  int ndim = 0;
  if (groups > 1) dims[ndim++] = groups;
  dims[ndim++] = w->dim[0] / groups;
  for (int d = 1; d < w->ndim; d++)
    dims[ndim++] = w->dim[d];
  return dnnl_memory_desc_create_with_tag(desc, ndim, dims, type,
                                          plain ? tags[ndim - 3] : dnnl_format_tag_any);
}

const fn_value *fn_cpu_conv_residual(const fn_node *node) {
  return node->op == &fn_op_conv && node->input_count > 3 ? node->input[3] : NULL;
}

/** The activation is the primitive's unless something is added in between by a pass of our own. */
static bool activates(const fn_node *node, const conv_choice *c) {
  return node->op == &fn_op_conv && (c->sum || !fn_cpu_conv_residual(node));
}

static dnnl_status_t attributes(const conv_choice *c, double slope, dnnl_primitive_attr_t *attr) {
  dnnl_status_t status = dnnl_primitive_attr_create(attr);
  if (status == dnnl_success) {
    status = dnnl_primitive_attr_set_scratchpad_mode(*attr, dnnl_scratchpad_mode_user);
  }
  if (status == dnnl_success && (c->sum || slope != 1)) {
    dnnl_post_ops_t ops = NULL;
    status = dnnl_post_ops_create(&ops);
    if (status == dnnl_success && c->sum) {
      status = dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef);
    }
    if (status == dnnl_success && slope != 1) {
      status = dnnl_post_ops_append_eltwise(ops, dnnl_eltwise_relu, (float)slope, 0);
    }
    if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(*attr, ops);
    dnnl_post_ops_destroy(ops);
  }
  return status;
}

dnnl_status_t fn_cpu_conv_describe(const fn_node *node, const conv_choice *c,
                                   dnnl_primitive_desc_t *pd) {
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  const fn_conv_attrs *attrs = node->attrs;
  const fn_conv_geometry *g = &attrs->geometry;
  const int spatial = v.x->shape.ndim - 2;
  dnnl_dims_t stride, dilate, low, high;
  for (int d = 0; d < spatial; d++) {
    stride[d] = g->stride[d];
    dilate[d] = g->dilation[d] - 1;
    low[d] = g->pad_low[d];
    high[d] = g->pad_high[d];
  }
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  if (fn_cpu_engine(&engine, &stream) != FN_OK) return dnnl_runtime_error;
  dnnl_memory_desc_t x = NULL, y = NULL, w = NULL, b = NULL;
  dnnl_primitive_attr_t attr = NULL;
  // Weight gradients are f32 always; packed weights follow the activations.
  const dnnl_data_type_t w_type =
      v.role == CONV_WEIGHT ? dnnl_f32 : c->type[v.role == CONV_FORWARD ? X : Y];
  dnnl_dims_t channels = {v.role == CONV_DATA ? v.x->shape.dim[1] : v.y->shape.dim[1]};
  dnnl_status_t status = fn_cpu_activation(&v.x->shape, c->samples, c->block[X], c->type[X], &x);
  if (!status) status = fn_cpu_activation(&v.y->shape, c->samples, c->block[Y], c->type[Y], &y);
  if (!status) status = fn_cpu_conv_weights(&v, g->groups, false, w_type, &w);
  if (!status && c->bias) {
    status = dnnl_memory_desc_create_with_tag(&b, 1, channels, dnnl_f32, dnnl_a);
  }
  if (!status) status = attributes(c, activates(node, c) ? attrs->slope : 1, &attr);
  if (!status) {
    switch (v.role) {
      case CONV_FORWARD:
        status = dnnl_convolution_forward_primitive_desc_create(pd, engine, dnnl_forward_training,
                                                                dnnl_convolution_direct, x, w, b, y,
                                                                stride, dilate, low, high, attr);
        break;
      case CONV_DATA:
        status = dnnl_convolution_backward_data_primitive_desc_create(
            pd, engine, dnnl_convolution_direct, x, w, y, stride, dilate, low, high, NULL, attr);
        break;
      case CONV_WEIGHT:
        status = dnnl_convolution_backward_weights_primitive_desc_create(
            pd, engine, dnnl_convolution_direct, x, w, b, y, stride, dilate, low, high, NULL, attr);
        break;
    }
  }
  dnnl_memory_desc_destroy(x);
  dnnl_memory_desc_destroy(y);
  dnnl_memory_desc_destroy(w);
  dnnl_memory_desc_destroy(b);
  dnnl_primitive_attr_destroy(attr);
  return status;
}

bool fn_cpu_conv_is_slow(const_dnnl_primitive_desc_t pd) {
  const char *name = "";
  dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
  return strncmp(name, "ref", 3) == 0;
}

/** The first candidate with a fast implementation; see fn_cpu_conv_choose(). */
static bool find_fast(const fn_node *node, conv_choice *c, dnnl_primitive_desc_t *pd) {
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  const int64_t block = fn_cpu_block();
  const fn_dtype own[2] = {v.x->dtype, v.y->dtype};
  const int64_t fixed[2] = {c->block[X], c->block[Y]};
  // Below half a block, padding costs more than what the plain layout loses.
  const int64_t first_x = v.x->shape.dim[1] < block / 2 ? 1 : block;
  const int64_t other_x = first_x == 1 ? block : 1;
  const int64_t candidate[][2] = {{first_x, block}, {other_x, block}, {first_x, 1}, {other_x, 1}};
  const int candidates = fixed[X] ? 1 : 4;
  const bool want_sum = c->sum;
  const bool half = own[X] == FN_BF16 || own[Y] == FN_BF16;
  for (int pass = half ? 0 : 1; pass < 2; pass++) {
    for (int i = 0; i < candidates; i++) {
      for (int a = 0; a < 2; a++) {
        c->block[a] = fixed[a] ? fixed[a] : candidate[i][a];
        c->type[a] = pass == 0 ? fn_cpu_type(own[a]) : dnnl_f32;
      }
      // Copies in f32 are added to by the pass that converts.
      c->sum = want_sum && c->type[Y] == fn_cpu_type(own[Y]);
      if (fn_cpu_conv_describe(node, c, pd) != dnnl_success) continue;
      if (!fn_cpu_conv_is_slow(*pd)) return true;
      dnnl_primitive_desc_destroy(*pd);
    }
  }
  for (int a = 0; a < 2; a++)
    c->block[a] = fixed[a];
  return false;
}

dnnl_status_t fn_cpu_conv_choose(const fn_node *node, conv_choice *c, dnnl_primitive_desc_t *pd) {
  if (fn_cpu_conv_residual(node)) {
    c->sum = true;
    if (find_fast(node, c, pd)) return dnnl_success;
  }
  c->sum = false;
  if (find_fast(node, c, pd)) return dnnl_success;
  for (int a = 0; a < 2; a++) {
    c->block[a] = c->block[a] ? c->block[a] : 1;
    c->type[a] = dnnl_f32;
  }
  return fn_cpu_conv_describe(node, c, pd);
}
