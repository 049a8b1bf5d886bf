/* Convolution, its data gradient (= transposed convolution) and its weight gradient by oneDNN.
 * Weights come plain from the parameter buffer and are packed at every run, which costs one pass
 * over the weights. */
#include <stdlib.h>

#include "backend/cpu/cells.h"
#include "backend/cpu/conv_choice.h"
#include "base/log.h"

/** Whether the primitive adds the bias (or writes its gradient) itself. */
static bool bias_inside(const conv_values *v) {
  return v->bias && v->role != CONV_DATA;
}

/** Weight gradients for which oneDNN would have a few channels padded to blocks. */
static bool is_first(const fn_node *node) {
  if (!fn_cpu_conv_first_fits(node)) return false;
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  conv_choice c = {.samples = v.x->shape.dim[0], .bias = bias_inside(&v)};
  dnnl_primitive_desc_t pd = NULL;
  if (fn_cpu_conv_choose(node, &c, &pd) != dnnl_success) return true;
  const bool good = c.block[X] == 1 && c.block[Y] > 1 && !fn_cpu_conv_is_slow(pd);
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
  if (is_patch(node) || fn_cpu_winograd_fits(node) || is_first(node)) return true;
  conv_choice c = {.samples = v.x->shape.dim[0], .bias = bias_inside(&v)};
  dnnl_primitive_desc_t pd = NULL;
  if (fn_cpu_conv_choose(node, &c, &pd) != dnnl_success) return false;
  dnnl_primitive_desc_destroy(pd);
  return true;
}

static void plan(const fn_node *node, const int64_t *current, fn_node_plan *plan) {
  (void)current;
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  conv_choice c = {.samples = v.x->shape.dim[0], .bias = bias_inside(&v)};
  dnnl_primitive_desc_t pd = NULL;
  if (is_patch(node)) {
    // Few channels stay plain where they are read.
    const bool plain = v.role != CONV_DATA && v.x->shape.dim[1] < fn_cpu_block() / 2;
    c.block[X] = plain ? 1 : fn_cpu_block();
    c.block[Y] = fn_cpu_block();
  } else if (fn_cpu_winograd_fits(node)) {
    c.block[X] = c.block[Y] = fn_cpu_block();
  } else if (is_first(node)) {
    c.block[X] = 1, c.block[Y] = fn_cpu_block();
  } else if (fn_cpu_conv_choose(node, &c, &pd) == dnnl_success) {
    if (fn_cpu_conv_is_slow(pd)) {
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
    if (fn_cpu_conv_residual(node)) {
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

static fn_status make_memories(fn_kernel *kernel, conv_state *s, const conv_choice *c,
                               const_dnnl_primitive_desc_t pd) {
  conv_values v;
  fn_cpu_conv_ports(kernel->node, &v);
  const fn_conv_attrs *attrs = kernel->node->attrs;
  const_dnnl_memory_desc_t desc[2] = {fn_cpu_conv_argument(pd, fn_conv_argument[s->role][X]),
                                      fn_cpu_conv_argument(pd, fn_conv_argument[s->role][Y])};
  for (int a = 0; a < 2; a++) {
    const fn_tensor *t = s->tensor[a];
    s->convert[a] = fn_cpu_type(t->dtype) != c->type[a];
    if (s->convert[a]) s->copy_at[a] = fn_cpu_carve(kernel, dnnl_memory_desc_get_size(desc[a]));
    FN_TRY(make_memory(desc[a], s->convert[a] ? DNNL_MEMORY_NONE : t->data, &s->activation[a]));
  }
  const_dnnl_memory_desc_t packed = fn_cpu_conv_argument(pd, fn_conv_argument[s->role][CONV_W]);
  dnnl_memory_desc_t plain = NULL;
  FN_LIBRARY(fn_cpu_conv_weights(&v, attrs->geometry.groups, true, dnnl_f32, &plain));
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
  if (c->bias)
    FN_TRY(make_memory(fn_cpu_conv_argument(pd, fn_conv_argument[s->role][CONV_B]), s->extra->data,
                       &s->bias));
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
  dnnl_exec_arg_t args[5] = {{fn_conv_argument[s->role][X], s->activation[X]},
                             {fn_conv_argument[s->role][Y], s->activation[Y]},
                             {fn_conv_argument[s->role][CONV_W], s->packed},
                             {DNNL_ARG_SCRATCHPAD, s->scratch},
                             {fn_conv_argument[s->role][CONV_B], s->bias}};
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
      s->residual = fn_cpu_conv_residual(kernel->node) ? &kernel->input[3] : NULL;
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

static fn_status prepare_library(fn_kernel *kernel) {
  const fn_conv_attrs *attrs = kernel->node->attrs;
  conv_state *s = NULL;
  FN_TRY(fn_cpu_state_create(kernel, sizeof *s, (void **)&s));
  s->base.release = release;
  s->base.primitive = primitive_alone;
  s->role = fn_cpu_conv_role(kernel->node);
  set_tensors(kernel, s);
  s->slope = s->role == CONV_DATA ? attrs->slope : 1;
  const int64_t batch = s->tensor[X]->shape.dim[0];
  const bool dense = fn_tensor_dense(s->tensor[X]) && fn_tensor_dense(s->tensor[Y]);
  FN_CHECK(dense || s->role != CONV_WEIGHT || batch == 1, FN_ERR_INTERNAL,
           "a weight gradient of %lld samples needs dense inputs", (long long)batch);
  s->executions = dense ? 1 : batch;
  conv_choice c = {.block = {s->tensor[X]->block, s->tensor[Y]->block},
                   .samples = dense ? batch : 1,
                   .bias = s->extra && s->role != CONV_DATA};
  dnnl_engine_t engine;
  FN_TRY(fn_cpu_engine(&engine, &s->stream));
  dnnl_primitive_desc_t pd = NULL;
  FN_LIBRARY(fn_cpu_conv_choose(kernel->node, &c, &pd));
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

static fn_status prepare(fn_kernel *kernel) {
  if (fn_cpu_patch_forward_fits(kernel->node)) return fn_cpu_patch_forward_prepare(kernel);
  if (fn_cpu_patch_data_fits(kernel->node)) return fn_cpu_patch_data_prepare(kernel);
  if (fn_cpu_patch_weight_fits(kernel->node) && !fn_cpu_conv_first_fits(kernel->node))
    return fn_cpu_patch_weight_prepare(kernel);
  if (fn_cpu_winograd_fits(kernel->node)) return fn_cpu_winograd_prepare(kernel);
  if (is_first(kernel->node)) return fn_cpu_conv_first_prepare(kernel);
  return prepare_library(kernel);
}

const fn_cpu_op fn_cpu_conv_ops[] = {
    {&fn_op_conv, supports, plan, prepare},
    {&fn_op_conv_data, supports, plan, prepare},
    {&fn_op_conv_weight, supports, plan, prepare},
    {0},
};
