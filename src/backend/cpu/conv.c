/* Convolution, its data gradient (= transposed convolution) and its weight gradient by oneDNN.
 *
 * Layouts: activations are blocked by channels wherever oneDNN has a generated kernel for that; few
 * channels (the first layer's input) stay plain where it has one for that. Candidates are tried in
 * order of preference and oneDNN's slow "ref" implementations are passed over.
 * Weights come plain from the parameter buffer and are packed at every run, which costs one pass
 * over the weights. */
#include <stdlib.h>

#include "backend/cpu/cells.h"
#include "backend/cpu/conv.h"
#include "backend/cpu/library.h"
#include "base/log.h"

enum { X = 0, Y = 1 }; // the two activations of a convolution y = w * x

static conv_role role_of(const fn_node *node) {
  if (node->op == &fn_op_conv) return CONV_FORWARD;
  return node->op == &fn_op_conv_data ? CONV_DATA : CONV_WEIGHT;
}

void fn_cpu_conv_ports(const fn_node *node, conv_values *v) {
  v->role = role_of(node);
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

/** How the primitive sees the activations. */
typedef struct choice {
  int64_t block[2];         /**< of x and y */
  dnnl_data_type_t type[2]; /**< of x and y */
  int64_t samples;          /**< per execution */
  bool bias;                /**< inside the primitive */
  bool sum;                 /**< the primitive adds to what lies in y */
} choice;

/** Weights [K, C/g, k...], or [g, K/g, C/g, k...] for groups. plain false: oneDNN chooses. */
static dnnl_status_t weight_desc(const conv_values *v, int64_t groups, bool plain,
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

/** Added to the result of a forward convolution; NULL: nothing. */
static const fn_value *residual_of(const fn_node *node) {
  return node->op == &fn_op_conv && node->input_count > 3 ? node->input[3] : NULL;
}

/** The activation is the primitive's unless something is added in between by a pass of our own. */
static bool activates(const fn_node *node, const choice *c) {
  return node->op == &fn_op_conv && (c->sum || !residual_of(node));
}

static dnnl_status_t attributes(const choice *c, double slope, dnnl_primitive_attr_t *attr) {
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

static dnnl_status_t describe(const fn_node *node, const choice *c, dnnl_primitive_desc_t *pd) {
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
  if (!status) status = weight_desc(&v, g->groups, false, w_type, &w);
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

static bool is_slow(const_dnnl_primitive_desc_t pd) {
  const char *name = "";
  dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
  return strncmp(name, "ref", 3) == 0;
}

/** The first candidate with a fast implementation; see choose(). */
static bool find_fast(const fn_node *node, choice *c, dnnl_primitive_desc_t *pd) {
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
      if (describe(node, c, pd) != dnnl_success) continue;
      if (!is_slow(*pd)) return true;
      dnnl_primitive_desc_destroy(*pd);
    }
  }
  for (int a = 0; a < 2; a++)
    c->block[a] = fixed[a];
  return false;
}

/** Descriptor of the first candidate with a fast implementation, else of the plain layout. Blocks
 *  that are set already in *c are kept. Activation types are those of the values when the processor
 *  has them, else f32. */
static dnnl_status_t choose(const fn_node *node, choice *c, dnnl_primitive_desc_t *pd) {
  if (residual_of(node)) {
    c->sum = true;
    if (find_fast(node, c, pd)) return dnnl_success;
  }
  c->sum = false;
  if (find_fast(node, c, pd)) return dnnl_success;
  for (int a = 0; a < 2; a++) {
    c->block[a] = c->block[a] ? c->block[a] : 1;
    c->type[a] = dnnl_f32;
  }
  return describe(node, c, pd);
}

/** Whether the primitive adds the bias (or writes its gradient) itself. */
static bool bias_inside(const conv_values *v) {
  return v->bias && v->role != CONV_DATA;
}

/** Weight gradients for which oneDNN would have a few channels padded to blocks. */
static bool is_first(const fn_node *node) {
  if (!fn_cpu_conv_first_fits(node)) return false;
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  choice c = {.samples = v.x->shape.dim[0], .bias = bias_inside(&v)};
  dnnl_primitive_desc_t pd = NULL;
  if (choose(node, &c, &pd) != dnnl_success) return true;
  const bool good = c.block[X] == 1 && c.block[Y] > 1 && !is_slow(pd);
  dnnl_primitive_desc_destroy(pd);
  return !good;
}

/** Whether the operator runs over patches, with kernels of our own. */
static bool is_patch(const fn_node *node) {
  return fn_cpu_patch_forward_fits(node) || fn_cpu_patch_data_fits(node) ||
         (fn_cpu_patch_weight_fits(node) && !fn_cpu_conv_first_fits(node));
}

/* ---- plan
 * ---------------------------------------------------------------------------------------- */

static bool supports(const fn_node *node) {
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  if (v.x->shape.ndim < 3 || v.x->shape.ndim > 5) return false;
  if (v.w->dtype != FN_F32 || (v.bias && v.bias->dtype != FN_F32)) return false;
  if (is_patch(node) || is_first(node)) return true;
  choice c = {.samples = v.x->shape.dim[0], .bias = bias_inside(&v)};
  dnnl_primitive_desc_t pd = NULL;
  if (choose(node, &c, &pd) != dnnl_success) return false;
  dnnl_primitive_desc_destroy(pd);
  return true;
}

static void plan(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  choice c = {.samples = v.x->shape.dim[0], .bias = bias_inside(&v)};
  dnnl_primitive_desc_t pd = NULL;
  if (is_patch(node)) {
    // Few channels stay plain where they are read.
    const bool plain = v.role != CONV_DATA && v.x->shape.dim[1] < fn_cpu_block() / 2;
    c.block[X] = plain ? 1 : fn_cpu_block();
    c.block[Y] = fn_cpu_block();
  } else if (is_first(node)) {
    c.block[X] = 1, c.block[Y] = fn_cpu_block();
  } else if (choose(node, &c, &pd) == dnnl_success) {
    if (is_slow(pd)) {
      fn_log_once(FN_WARN, "oneDNN has no fast convolution for some layer (%s): it will be slow",
                  node->output[0]->label ? node->output[0]->label : node->op->name);
    }
    dnnl_primitive_desc_destroy(pd);
  } else {
    c.block[X] = c.block[Y] = 1;
  }
  fn_cpu_plan_block(node, 1, plan);
  // One execution per sample serves windows; weight gradients of several samples are one sum.
  const bool strided = v.role != CONV_WEIGHT || v.x->shape.dim[0] == 1;
  for (int i = 0; i < node->input_count; i++)
    plan->strided_in[i] = false;
  for (int o = 0; o < node->output_count; o++)
    plan->strided_out[o] = false;
  plan->strided_in[0] = strided;
  plan->in_block[0] = v.role == CONV_DATA ? c.block[Y] : c.block[X];
  if (v.role == CONV_WEIGHT) {
    plan->strided_in[1] = strided;
    plan->in_block[1] = c.block[Y];
    plan->out_block[0] = 1;
  } else {
    plan->in_block[1] = 1;
    plan->strided_out[0] = true;
    plan->out_block[0] = v.role == CONV_FORWARD ? c.block[Y] : c.block[X];
    if (residual_of(node)) {
      plan->strided_in[3] = true;
      plan->in_block[3] = c.block[Y];
      if (fn_cpu_same(node, 3, 0)) plan->in_place[0] = 1u << 3;
    }
  }
}

/* ---- state
 * --------------------------------------------------------------------------------------- */

typedef struct conv_state {
  fn_cpu_state base;
  conv_role role;
  dnnl_stream_t stream;
  dnnl_primitive_t primitive, pack; /**< pack: plain <-> packed weights */
  dnnl_memory_t activation[2], packed, plain, bias, scratch, pack_scratch;
  const fn_tensor *tensor[2];      /**< x, y */
  const fn_tensor *weight, *extra; /**< extra: bias or NULL */
  const fn_tensor *residual;       /**< added to y; NULL: nothing */
  bool sum;                        /**< by the primitive, to what lies in y */
  bool same_weights;               /**< packed is the plain layout: no copy */
  bool pack_nothing;               /**< no plain weights to write */
  bool convert[2];                 /**< through an f32 copy in the workspace */
  int64_t executions;              /**< samples run one by one, or 1 */
  double slope;                    /**< of the pass after the primitive; 1: none */
  size_t packed_at, scratch_at, copy_at[2], pack_scratch_at;
  size_t keep_at; /**< of a residual that lies in y; SIZE_MAX: it does not */
} conv_state;

static void release(fn_cpu_state *base) {
  conv_state *s = (conv_state *)base;
  dnnl_primitive_destroy(s->primitive);
  dnnl_primitive_destroy(s->pack);
  dnnl_memory_t memory[] = {s->activation[X], s->activation[Y], s->packed,      s->plain,
                            s->bias,          s->scratch,       s->pack_scratch};
  for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
    if (memory[i]) dnnl_memory_destroy(memory[i]);
  }
}

static fn_status make_memory(const_dnnl_memory_desc_t desc, void *data, dnnl_memory_t *memory) {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  FN_TRY(fn_cpu_engine(&engine, &stream));
  FN_LIBRARY(dnnl_memory_create(memory, desc, engine, data));
  return FN_OK;
}

static fn_status make_pack(fn_kernel *kernel, conv_state *s, const_dnnl_memory_desc_t packed,
                           const_dnnl_memory_desc_t plain) {
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  FN_TRY(fn_cpu_engine(&engine, &stream));
  dnnl_primitive_attr_t attr = NULL;
  FN_LIBRARY(dnnl_primitive_attr_create(&attr));
  dnnl_primitive_desc_t pd = NULL;
  dnnl_status_t status = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
  if (!status) {
    status = s->role == CONV_WEIGHT
                 ? dnnl_reorder_primitive_desc_create(&pd, packed, engine, plain, engine, attr)
                 : dnnl_reorder_primitive_desc_create(&pd, plain, engine, packed, engine, attr);
  }
  if (!status) status = dnnl_primitive_create(&s->pack, pd);
  fn_status result = fn_cpu_library_status(status, "dnnl_reorder_primitive_desc_create");
  if (result == FN_OK) {
    const_dnnl_memory_desc_t scratch =
        dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    s->pack_scratch_at = fn_cpu_carve(kernel, dnnl_memory_desc_get_size(scratch));
    result = make_memory(scratch, DNNL_MEMORY_NONE, &s->pack_scratch);
  }
  dnnl_primitive_desc_destroy(pd);
  dnnl_primitive_attr_destroy(attr);
  return result;
}

static const_dnnl_memory_desc_t argument(const_dnnl_primitive_desc_t pd, int index) {
  return dnnl_primitive_desc_query_md(pd, dnnl_query_exec_arg_md, index);
}

static const int x_argument[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_SRC, DNNL_ARG_SRC};
static const int y_argument[] = {DNNL_ARG_DST, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_DST};
static const int w_argument[] = {DNNL_ARG_WEIGHTS, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_WEIGHTS};
static const int b_argument[] = {DNNL_ARG_BIAS, DNNL_ARG_BIAS, DNNL_ARG_DIFF_BIAS};

static fn_status make_memories(fn_kernel *kernel, conv_state *s, const choice *c,
                               const_dnnl_primitive_desc_t pd) {
  conv_values v;
  fn_cpu_conv_ports(kernel->node, &v);
  const fn_conv_attrs *attrs = kernel->node->attrs;
  const_dnnl_memory_desc_t desc[2] = {argument(pd, x_argument[s->role]),
                                      argument(pd, y_argument[s->role])};
  for (int a = 0; a < 2; a++) {
    const fn_tensor *t = s->tensor[a];
    s->convert[a] = fn_cpu_type(t->dtype) != c->type[a];
    if (s->convert[a]) s->copy_at[a] = fn_cpu_carve(kernel, dnnl_memory_desc_get_size(desc[a]));
    FN_TRY(make_memory(desc[a], s->convert[a] ? DNNL_MEMORY_NONE : t->data, &s->activation[a]));
  }
  const_dnnl_memory_desc_t packed = argument(pd, w_argument[s->role]);
  dnnl_memory_desc_t plain = NULL;
  FN_LIBRARY(weight_desc(&v, attrs->geometry.groups, true, dnnl_f32, &plain));
  fn_status status = make_memory(plain, s->weight->data, &s->plain);
  // A weight gradient that nobody reads stays in the workspace.
  s->pack_nothing = !s->weight->data;
  s->same_weights = !s->pack_nothing && dnnl_memory_desc_equal(plain, packed);
  if (status == FN_OK) {
    status = make_memory(packed, s->same_weights ? s->weight->data : DNNL_MEMORY_NONE, &s->packed);
  }
  if (status == FN_OK && !s->same_weights) {
    s->packed_at = fn_cpu_carve(kernel, dnnl_memory_desc_get_size(packed));
    if (!s->pack_nothing) status = make_pack(kernel, s, packed, plain);
  }
  dnnl_memory_desc_destroy(plain);
  FN_TRY(status);
  if (c->bias) FN_TRY(make_memory(argument(pd, b_argument[s->role]), s->extra->data, &s->bias));
  const_dnnl_memory_desc_t scratch = dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
  s->scratch_at = fn_cpu_carve(kernel, dnnl_memory_desc_get_size(scratch));
  return make_memory(scratch, DNNL_MEMORY_NONE, &s->scratch);
}

/* ---- run
 * ----------------------------------------------------------------------------------------- */

static void *sample_data(const conv_state *s, int a, int64_t n, char *workspace) {
  const fn_tensor *t = s->tensor[a];
  if (s->convert[a]) return workspace + s->copy_at[a];
  return (char *)t->data + n * t->batch_stride * (int64_t)fn_dtype_size(t->dtype);
}

/** Set the addresses for sample n (all samples when there is one execution) and run. */
static fn_status execute(const conv_state *s, int64_t n, char *workspace) {
  for (int a = 0; a < 2; a++) {
    FN_LIBRARY(dnnl_memory_set_data_handle(s->activation[a], sample_data(s, a, n, workspace)));
  }
  if (!s->same_weights) {
    FN_LIBRARY(dnnl_memory_set_data_handle(s->packed, workspace + s->packed_at));
  }
  FN_LIBRARY(dnnl_memory_set_data_handle(s->scratch, workspace + s->scratch_at));
  dnnl_exec_arg_t args[5] = {{x_argument[s->role], s->activation[X]},
                             {y_argument[s->role], s->activation[Y]},
                             {w_argument[s->role], s->packed},
                             {DNNL_ARG_SCRATCHPAD, s->scratch},
                             {b_argument[s->role], s->bias}};
  FN_LIBRARY(dnnl_primitive_execute(s->primitive, s->stream, s->bias ? 5 : 4, args));
  return FN_OK;
}

static fn_status pack(const conv_state *s, char *workspace) {
  if (s->same_weights || s->pack_nothing) return FN_OK;
  FN_LIBRARY(dnnl_memory_set_data_handle(s->packed, workspace + s->packed_at));
  FN_LIBRARY(dnnl_memory_set_data_handle(s->pack_scratch, workspace + s->pack_scratch_at));
  const bool unpack = s->role == CONV_WEIGHT;
  dnnl_exec_arg_t args[3] = {{DNNL_ARG_FROM, unpack ? s->packed : s->plain},
                             {DNNL_ARG_TO, unpack ? s->plain : s->packed},
                             {DNNL_ARG_SCRATCHPAD, s->pack_scratch}};
  FN_LIBRARY(dnnl_primitive_execute(s->pack, s->stream, 3, args));
  return FN_OK;
}

static fn_status primitive_alone(const fn_kernel *kernel, void *workspace) {
  const conv_state *s = kernel->state;
  for (int64_t n = 0; n < s->executions; n++)
    FN_TRY(execute(s, n, workspace));
  return FN_OK;
}

/** Sample n of `t` (every sample when n < 0) as the tensor of the copy in f32. */
static void views(const conv_state *s, int a, int64_t n, char *workspace, fn_tensor *own,
                  fn_tensor *copy) {
  *own = *s->tensor[a];
  if (s->executions > 1) {
    own->data = (char *)own->data + n * own->batch_stride * (int64_t)fn_dtype_size(own->dtype);
    own->shape.dim[0] = 1;
  }
  *copy = *own;
  copy->dtype = FN_F32;
  copy->data = workspace + s->copy_at[a];
  copy->batch_stride = fn_tensor_sample_count(&own->shape, own->block);
}

/** y = leaky(from + residual) where the primitive cannot; from may be y. */
static void add_residual(const fn_tensor *y, const fn_tensor *from, const fn_tensor *residual,
                         float slope) {
  const fn_tensor *all[] = {y, from, residual};
  const fn_runs runs = fn_runs_of(all, 3);
#pragma omp parallel for schedule(static) if (runs.items > 1)
  for (int64_t i = 0; i < runs.items; i++) {
    const fn_item it = fn_run_at(&runs, i);
    const int64_t at = fn_offset(y, &it);
    float left[FN_CHUNK], right[FN_CHUNK], out[FN_CHUNK];
    const float *a = fn_load(from, fn_offset(from, &it), it.count, left);
    const float *b = fn_load(residual, fn_offset(residual, &it), it.count, right);
    float *to = fn_target(y, at, out);
#pragma omp simd
    for (int64_t e = 0; e < it.count; e++) {
      const float value = a[e] + b[e];
      to[e] = value > 0 ? value : slope * value;
    }
    fn_store(y, at, it.count, to);
  }
}

/** Forward convolution whose primitive leaves the residual to us. A residual that lies where the
 *  primitive writes waits in the workspace. */
static fn_status run_then_add(const conv_state *s, char *workspace) {
  fn_tensor residual = *s->residual;
  if (s->keep_at != SIZE_MAX) {
    residual.data = workspace + s->keep_at;
    residual.batch_stride = fn_tensor_sample_count(&residual.shape, residual.block);
    fn_cpu_copy(&residual, s->residual);
  }
  for (int64_t n = 0; n < s->executions; n++) {
    fn_tensor own, copy, part = residual;
    if (s->convert[X]) {
      views(s, X, n, workspace, &own, &copy);
      fn_cpu_conv_finish(&copy, &own, NULL, 1);
    }
    FN_TRY(execute(s, n, workspace));
    views(s, Y, n, workspace, &own, &copy);
    part.data = (char *)part.data + n * part.batch_stride * (int64_t)fn_dtype_size(part.dtype);
    part.shape = own.shape;
    add_residual(&own, s->convert[Y] ? &copy : &own, &part, (float)s->slope);
  }
  return FN_OK;
}

static fn_status run(const fn_kernel *kernel, const fn_run_context *context) {
  conv_state *s = kernel->state;
  char *workspace = s->base.workspace = context->workspace;
  const int result = s->role == CONV_FORWARD ? Y : s->role == CONV_DATA ? X : -1;
  const float *bias = s->role == CONV_DATA && s->extra ? s->extra->data : NULL;
  if (s->role != CONV_WEIGHT) FN_TRY(pack(s, workspace));
  if (s->residual && !s->sum) return run_then_add(s, workspace);
  if (s->sum && s->residual->data != s->tensor[Y]->data) fn_cpu_copy(s->tensor[Y], s->residual);
  for (int64_t n = 0; n < s->executions; n++) {
    fn_tensor own, copy;
    for (int a = 0; a < 2; a++) {
      if (!s->convert[a] || a == result) continue;
      views(s, a, n, workspace, &own, &copy);
      fn_cpu_conv_finish(&copy, &own, NULL, 1);
    }
    FN_TRY(execute(s, n, workspace));
    if (result < 0) continue;
    views(s, result, n, workspace, &own, &copy);
    if (s->convert[result])
      fn_cpu_conv_finish(&own, &copy, bias, s->slope);
    else if (bias || s->slope != 1)
      fn_cpu_conv_finish(&own, &own, bias, s->slope);
  }
  return s->role == CONV_WEIGHT ? pack(s, workspace) : FN_OK;
}

static void set_tensors(const fn_kernel *kernel, conv_state *s) {
  const int inputs = kernel->node->input_count;
  const fn_tensor *third = inputs > 2 && kernel->input[2].data ? &kernel->input[2] : NULL;
  switch (s->role) {
    case CONV_FORWARD:
      s->tensor[X] = &kernel->input[0], s->tensor[Y] = &kernel->output[0];
      s->weight = &kernel->input[1], s->extra = third;
      s->residual = residual_of(kernel->node) ? &kernel->input[3] : NULL;
      break;
    case CONV_DATA:
      s->tensor[Y] = &kernel->input[0], s->tensor[X] = &kernel->output[0];
      s->weight = &kernel->input[1], s->extra = third;
      break;
    case CONV_WEIGHT:
      s->tensor[X] = &kernel->input[0], s->tensor[Y] = &kernel->input[1];
      s->weight = &kernel->output[0];
      s->extra = kernel->output[1].data ? &kernel->output[1] : NULL;
      break;
  }
}

static fn_status prepare(fn_kernel *kernel) {
  if (fn_cpu_patch_forward_fits(kernel->node)) return fn_cpu_patch_forward_prepare(kernel);
  if (fn_cpu_patch_data_fits(kernel->node)) return fn_cpu_patch_data_prepare(kernel);
  if (fn_cpu_patch_weight_fits(kernel->node) && !fn_cpu_conv_first_fits(kernel->node))
    return fn_cpu_patch_weight_prepare(kernel);
  if (is_first(kernel->node)) return fn_cpu_conv_first_prepare(kernel);
  const fn_conv_attrs *attrs = kernel->node->attrs;
  conv_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  s->base.release = release;
  s->base.primitive = primitive_alone;
  s->role = role_of(kernel->node);
  set_tensors(kernel, s);
  s->slope = s->role == CONV_DATA ? attrs->slope : 1;
  const int64_t batch = s->tensor[X]->shape.dim[0];
  const bool dense = fn_tensor_dense(s->tensor[X]) && fn_tensor_dense(s->tensor[Y]);
  FN_CHECK(dense || s->role != CONV_WEIGHT || batch == 1, FN_ERR_INTERNAL,
           "a weight gradient of %lld samples needs dense inputs", (long long)batch);
  s->executions = dense ? 1 : batch;
  choice c = {.block = {s->tensor[X]->block, s->tensor[Y]->block},
              .samples = dense ? batch : 1,
              .bias = s->extra && s->role != CONV_DATA};
  dnnl_engine_t engine;
  FN_TRY(fn_cpu_engine(&engine, &s->stream));
  dnnl_primitive_desc_t pd = NULL;
  FN_LIBRARY(choose(kernel->node, &c, &pd));
  s->sum = c.sum;
  s->keep_at = SIZE_MAX;
  if (s->residual && !s->sum) {
    s->slope = attrs->slope;
    const fn_tensor *r = s->residual;
    const int64_t count = batch * fn_tensor_sample_count(&r->shape, r->block);
    if (r->data == s->tensor[Y]->data && c.type[Y] == fn_cpu_type(r->dtype))
      s->keep_at = fn_cpu_carve(kernel, (size_t)count * fn_dtype_size(r->dtype));
  }
  fn_status status = make_memories(kernel, s, &c, pd);
  if (status == FN_OK) {
    status =
        fn_cpu_library_status(dnnl_primitive_create(&s->primitive, pd), "dnnl_primitive_create");
  }
  const char *name = "";
  dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
  fn_log(FN_DEBUG, "%s: oneDNN %s, blocks %lld %lld", kernel->node->op->name, name,
         (long long)c.block[X], (long long)c.block[Y]);
  if (s->convert[X] || s->convert[Y]) {
    fn_log_once(FN_WARN, "this processor's oneDNN has no bf16 convolution: bf16 layers are "
                         "computed in f32, which is slower than precision f32");
  }
  dnnl_primitive_desc_destroy(pd);
  kernel->run = run;
  return status;
}

const fn_cpu_op fn_cpu_conv_ops[] = {
    {&fn_op_conv, supports, plan, prepare},
    {&fn_op_conv_data, supports, plan, prepare},
    {&fn_op_conv_weight, supports, plan, prepare},
    {0},
};
