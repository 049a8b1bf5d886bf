/* Convolutions: which engine, and running it.
 *
 * Deterministic runs take the first engine in cuDNN's order that builds and gives the same bits at
 * every run. Others time the first few and keep the fastest, also on disk. A plan that fails to
 * build or to run makes way for the next. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cudnn.h"
#include "base/log.h"
#include "base/text.h"
#include "ops/ops.h"

enum { TIMED = 6, REPEATS = 3, LEAST_WORKSPACE = 1 << 20 };

typedef struct conv {
  fn_cudnn_form form;
  fn_cudnn_pool graph_pool, plan_pool, pack_pool;
  cudnnBackendDescriptor_t graph, plan, pack;
  char *key;           /**< of the graph, on this device */
  fn_gpu_addresses at; /**< that the pack was made for */
  fn_algorithm list[FN_CUDNN_CANDIDATES];
  int count, current;
} conv;

static void shape_text(const fn_shape *shape, fn_text *text) {
  for (int a = 0; a < shape->ndim; a++)
    fn_text_add(text, "%s%lld", a ? "x" : "", (long long)shape->dim[a]);
}

static void layout_text(const fn_tensor *t, fn_text *text) {
  shape_text(&t->shape, text);
  fn_text_add(text, "+%lld+%lld", (long long)t->pitch, (long long)t->batch_stride);
  const int64_t alignment = fn_cudnn_alignment(t);
  if (alignment < 16) fn_text_add(text, "@%lld", (long long)alignment);
}

/** Everything that the choice of an engine, and its plan, depend on. */
static void key_of(const fn_cuda *cuda, const fn_gpu_call *call, const fn_cudnn_form *form,
                   fn_text *key) {
  const fn_conv_attrs *attrs = call->node->attrs;
  const fn_conv_geometry *g = &attrs->geometry;
  fn_text_add(key, "%s, cuDNN %s, %s%s", cuda->platform.device.info.name, cuda->cudnn->version,
              cuda->tf32 ? "tf32, " : "", call->node->op->name);
  for (int i = 0; i < 4; i++) {
    if (!call->present_in[i] || (i >= 2 && !form->finish)) continue;
    const fn_tensor *t = &call->input[i];
    fn_text_add(key, "%s %s ", i == 3 ? " +" : "", fn_dtype_name(t->dtype));
    layout_text(t, key);
  }
  fn_text_add(key, " > %s ", fn_dtype_name(form->result));
  layout_text(&call->output[0], key);
  for (int d = 0; d < call->input[0].shape.ndim - 2; d++)
    fn_text_add(key, " s%lld p%lld,%lld d%lld", (long long)g->stride[d], (long long)g->pad_low[d],
                (long long)g->pad_high[d], (long long)g->dilation[d]);
  if (form->finish) fn_text_add(key, " leaky %.9g", attrs->slope);
}

/** A plan that fails may have been the first to see that the device has. */
static fn_status check_alive(fn_cuda *cuda) {
  if (fn_cuda_check(cuda, cudaGetLastError(), "running a convolution") == FN_ERR_DEVICE)
    return FN_ERR_DEVICE;
  fn_error_clear();
  return FN_OK;
}

/* ---- timing ------------------------------------------------------------------------------------
 */

static size_t span_of(const fn_tensor *t) {
  const int64_t rows = t->shape.ndim < 3 ? 1 : t->shape.dim[0];
  const int64_t count = t->shape.ndim < 3 ? fn_shape_count(&t->shape) : rows * t->batch_stride;
  return ((size_t)count * fn_dtype_size(t->dtype) + 511) / 256 * 256;
}

/** Memory of its own for every tensor of the call and for a workspace, half of it or less where the
 *  device is nearly full; NULL when there is not enough for the tensors. */
static void *scratch(const fn_gpu_call *call, size_t *workspace, fn_gpu_addresses *at) {
  size_t bytes = 0;
  for (int i = 0; i < 4; i++)
    if (call->present_in[i]) bytes += span_of(&call->input[i]);
  // The result may be asked for in float32.
  const size_t result = span_of(&call->output[0]) * 2;
  char *memory = NULL;
  while (cudaMalloc((void **)&memory, bytes + result + *workspace) != cudaSuccess) {
    cudaGetLastError();
    if (*workspace == 0) return NULL;
    *workspace = *workspace > LEAST_WORKSPACE ? *workspace / 2 : 0;
  }
  memset(at, 0, sizeof *at);
  char *next = memory;
  for (int i = 0; i < 4; i++) {
    if (!call->present_in[i]) continue;
    at->input[i] = next;
    next += span_of(&call->input[i]);
  }
  at->output[0] = next;
  at->workspace = next + result;
  cudaMemset(memory, 0, bytes + result + *workspace);
  return memory;
}

/** Milliseconds of the fastest of a few runs; infinite when it does not run. */
static float time_plan(fn_cuda *cuda, const fn_gpu_call *call, const conv *c,
                       cudnnBackendDescriptor_t plan, const fn_gpu_addresses *at) {
  const fn_cudnn *cudnn = cuda->cudnn;
  cudaStream_t stream = cuda->stream[FN_STREAM_COMPUTE];
  float best = (float)INFINITY;
  fn_cudnn_pool pool = {.api = cudnn};
  cudnnBackendDescriptor_t pack;
  cudaEvent_t start = NULL, end = NULL;
  if (fn_cudnn_pack(&pool, call, c->form.finish, at, &pack) == FN_OK &&
      cudaEventCreate(&start) == cudaSuccess && cudaEventCreate(&end) == cudaSuccess) {
    for (int r = 0; r <= REPEATS; r++) { // the first one warms up
      float time;
      cudaEventRecord(start, stream);
      if (cudnn->cudnnBackendExecute(cudnn->handle, plan, pack) != CUDNN_STATUS_SUCCESS) break;
      cudaEventRecord(end, stream);
      if (cudaEventSynchronize(end) != cudaSuccess ||
          cudaEventElapsedTime(&time, start, end) != cudaSuccess)
        break;
      if (r > 0 && time < best) best = time;
    }
  }
  if (start) cudaEventDestroy(start);
  if (end) cudaEventDestroy(end);
  fn_cudnn_clear(&pool);
  return best;
}

/** Put the fastest of the first engines that build in front. */
static fn_status order_by_time(fn_cuda *cuda, const fn_gpu_call *call, conv *c) {
  fn_algorithm known;
  int best = -1;
  if (fn_algorithms_find(cuda->cudnn->algorithms, c->key, &known)) {
    if (c->count == FN_CUDNN_CANDIDATES) c->count--;
    memmove(c->list + 1, c->list, (size_t)c->count++ * sizeof *c->list);
    c->list[0] = known;
    return FN_OK;
  }
  fn_gpu_addresses at;
  size_t limit = cuda->workspace_limit;
  void *memory = scratch(call, &limit, &at);
  float least = (float)INFINITY;
  for (int i = 0, built = 0; memory && i < c->count && built < TIMED; i++) {
    fn_cudnn_pool pool = {.api = cuda->cudnn};
    cudnnBackendDescriptor_t plan;
    size_t workspace;
    if (fn_cudnn_plan(&pool, c->graph, &c->list[i], c->key, limit, &plan, &workspace) == FN_OK) {
      const float time = time_plan(cuda, call, c, plan, &at);
      fn_log(FN_DEBUG, "%s: engine %lld, %.3f ms, %zu bytes of workspace", c->key,
             (long long)c->list[i].engine, (double)time, workspace);
      if (time < least) {
        least = time;
        best = i;
      }
      built++;
    }
    fn_cudnn_clear(&pool);
  }
  fn_error_clear();
  if (memory) cudaFree(memory);
  fn_status status = check_alive(cuda);
  if (best >= 0 && status == FN_OK) {
    known = c->list[best];
    memmove(c->list + 1, c->list, (size_t)best * sizeof *c->list);
    status = fn_algorithms_add(cuda->cudnn->algorithms, c->key, &known);
    c->list[0] = known;
  } else if (!memory) {
    fn_log_once(FN_WARN, "no memory to time convolutions: cuDNN's first choice is taken");
  }
  return status;
}

/* ---- prepare -----------------------------------------------------------------------------------
 */

static void drop(conv *c) {
  fn_cudnn_clear(&c->pack_pool);
  fn_cudnn_clear(&c->plan_pool);
  fn_cudnn_clear(&c->graph_pool);
  c->pack = NULL;
  free(c->key);
  c->key = NULL;
}

/** Build the plan of the first engine from `from` on that can be built. */
static fn_status build_from(conv *c, int from, size_t limit, size_t *workspace) {
  for (c->current = from; c->current < c->count; c->current++) {
    fn_cudnn_clear(&c->plan_pool);
    const fn_algorithm *a = &c->list[c->current];
    if (fn_cudnn_plan(&c->plan_pool, c->graph, a, c->key, limit, &c->plan, workspace) == FN_OK)
      return FN_OK;
    fn_log(FN_DEBUG, "engine %lld of cuDNN cannot be used: %s", (long long)a->engine,
           fn_error_message());
  }
  FN_FAIL(FN_ERR_UNSUPPORTED, "none of %d engines of cuDNN can be used", c->count);
}

static fn_status try_form(fn_cuda *cuda, fn_gpu_call *call, conv *c) {
  fn_text key = {0};
  drop(c);
  key_of(cuda, call, &c->form, &key);
  c->key = key.data;
  FN_CHECK(!key.incomplete, FN_ERR_MEMORY, "out of memory");
  FN_TRY(fn_cudnn_graph(&c->graph_pool, call, &c->form, &c->graph));
  FN_TRY(fn_cudnn_list(cuda, c->graph, call, c->list, &c->count));
  if (!cuda->deterministic && c->count > 0) FN_TRY(order_by_time(cuda, call, c));
  return build_from(c, 0, cuda->workspace_limit, &call->workspace);
}

int fn_cudnn_forms(const fn_gpu_call *call, fn_cudnn_form form[3]) {
  const fn_dtype own = call->input[0].dtype, wanted = call->output[0].dtype;
  int count = 0;
  form[count++] = (fn_cudnn_form){call->finish, wanted};
  if (call->finish) form[count++] = (fn_cudnn_form){false, FN_F32};
  // The gradient of a filter, or a result before bias and activation, rounded once more.
  if (own != FN_F32) form[count++] = (fn_cudnn_form){false, own};
  return count;
}

/** Where a form leaves its result: in the call's tensor, or, when that is of another dtype, in the
 *  workspace, which has room for a tensor without gaps. */
static fn_tensor result_of(const fn_tensor *wanted, fn_dtype dtype) {
  fn_tensor t = *wanted;
  if (dtype == wanted->dtype) return t;
  t.dtype = dtype;
  t.data = NULL;
  t.pitch = t.block;
  t.batch_stride = fn_tensor_sample_count(&t.shape, t.block);
  return t;
}

fn_status fn_cudnn_prepare(fn_cuda *cuda, fn_gpu_call *call) {
  conv *c = calloc(1, sizeof *c);
  FN_CHECK(c, FN_ERR_MEMORY, "out of memory");
  c->graph_pool.api = c->plan_pool.api = c->pack_pool.api = cuda->cudnn;
  fn_cudnn_form form[3];
  const int forms = fn_cudnn_forms(call, form);
  const fn_tensor wanted = call->output[0];
  fn_status status = FN_ERR_UNSUPPORTED;
  for (int f = 0; f < forms && status == FN_ERR_UNSUPPORTED; f++) {
    c->form = form[f];
    call->output[0] = result_of(&wanted, form[f].result);
    status = try_form(cuda, call, c);
  }
  if (status != FN_OK) {
    drop(c);
    free(c);
    return status;
  }
  fn_error_clear();
  call->finish = call->finish && c->form.finish;
  call->state = c;
  return FN_OK;
}

/* ---- run ---------------------------------------------------------------------------------------
 */

/** A plan failed: take the next that needs no more workspace than there is. FN_ERR_UNSUPPORTED when
 *  it was the last. */
static fn_status fall_back(fn_cuda *cuda, const fn_gpu_call *call, conv *c, cudnnStatus_t code) {
  const long long failed = (long long)c->list[c->current].engine;
  // It ran before: the step is not recorded then, and runs kernel by kernel.
  FN_CHECK(!cuda->capturing, FN_ERR_INTERNAL, "engine %lld of cuDNN cannot be recorded (%s)",
           failed, cuda->cudnn->cudnnGetErrorString(code));
  size_t workspace;
  FN_TRY(fn_error_context(build_from(c, c->current + 1, call->workspace, &workspace),
                          "engine %lld of cuDNN failed (%s)", failed,
                          cuda->cudnn->cudnnGetErrorString(code)));
  fn_text shape = {0};
  shape_text(&call->input[0].shape, &shape);
  fn_log(FN_WARN, "%s of %s: engine %lld of cuDNN failed (%s), engine %lld takes its place",
         call->node->op->name, shape.data, failed, cuda->cudnn->cudnnGetErrorString(code),
         (long long)c->list[c->current].engine);
  fn_text_free(&shape);
  return FN_OK;
}

fn_status fn_cudnn_run(fn_cuda *cuda, const fn_gpu_call *call, const fn_gpu_addresses *at) {
  conv *c = call->state;
  const fn_cudnn *cudnn = cuda->cudnn;
  if (!c->pack || memcmp(&c->at, at, sizeof *at) != 0) { // once: addresses stay
    fn_cudnn_clear(&c->pack_pool);
    c->pack = NULL;
    FN_TRY(fn_cudnn_pack(&c->pack_pool, call, c->form.finish, at, &c->pack));
    c->at = *at;
  }
  for (;;) {
    const cudnnStatus_t code = cudnn->cudnnBackendExecute(cudnn->handle, c->plan, c->pack);
    if (code == CUDNN_STATUS_SUCCESS) return FN_OK;
    FN_TRY(check_alive(cuda));
    FN_TRY(fall_back(cuda, call, c, code));
  }
}

void fn_cudnn_release(fn_cuda *cuda, fn_gpu_call *call) {
  (void)cuda;
  conv *c = call->state;
  if (!c) return;
  drop(c);
  free(c);
  call->state = NULL;
}
