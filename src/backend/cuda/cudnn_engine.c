/* Engines of cuDNN for an operation graph: which there are, which may be used, plans. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cudnn.h"
#include "base/log.h"
#include "base/system.h"
#include "base/text.h"

/* Elements of an attribute; 0 when it cannot be read. */
static int64_t get(const fn_cudnn *cudnn, cudnnBackendDescriptor_t d,
                   cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t room,
                   void *values) {
  int64_t count = 0;
  const cudnnStatus_t code = cudnn->cudnnBackendGetAttribute(d, name, type, room, &count, values);
  return code == CUDNN_STATUS_SUCCESS ? count < room ? count : room : 0;
}

/** TF32 where it is wanted and right: 9.10.2 to 9.15 have a kernel with wrong results for three
 *  spatial axes, of which no more is known (github.com/pytorch/pytorch/pull/167024). */
static bool may_round(const fn_cuda *cuda, const fn_gpu_call *call) {
  const size_t version = cuda->cudnn->cudnnGetVersion();
  const bool wrong =
      call->input[0].shape.ndim == 5 && version >= 91002 && version < 91600 && cuda->tf32;
  if (wrong)
    fn_log_once(FN_WARN,
                "cuDNN %s has wrong results in TF32 with three spatial axes: these convolutions "
                "stay in float32, and slow; update cuDNN to 9.16 or newer",
                cuda->cudnn->version);
  return cuda->tf32 && !wrong;
}

/** Numerical notes that rule an engine out. */
static bool is_excluded(const fn_cuda *cuda, cudnnBackendDescriptor_t engine,
                        const fn_gpu_call *call) {
  const fn_dtype dtype = call->input[0].dtype;
  cudnnBackendNumericalNote_t note[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  const int64_t count = get(cuda->cudnn, engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                            CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, note);
  for (int64_t i = 0; i < count; i++) {
    switch (note[i]) {
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
        if (cuda->deterministic) return true;
        break;
      // float32 on tensor cores is TF32.
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
        if (dtype == FN_F32 && !may_round(cuda, call)) return true;
        break;
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
        if (dtype == FN_F32) return true;
        break;
      // Beyond the table of tolerances: sums in 16 bits, large Winograd tiles.
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13: return true;
      default: break;
    }
  }
  return false;
}

/** Index and knobs of a configuration; false when the engine may not be used or has too many. */
static fn_status read_configuration(fn_cuda *cuda, cudnnBackendDescriptor_t configuration,
                                    const fn_gpu_call *call, fn_algorithm *algorithm,
                                    bool *usable) {
  const fn_cudnn *cudnn = cuda->cudnn;
  fn_cudnn_pool pool = {.api = cudnn};
  cudnnBackendDescriptor_t engine, knob[FN_ALGORITHM_KNOBS];
  *usable = false;
  fn_status status = fn_cudnn_new(&pool, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine);
  for (int i = 0; status == FN_OK && i < FN_ALGORITHM_KNOBS; i++)
    status = fn_cudnn_new(&pool, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[i]);
  if (status == FN_OK &&
      get(cudnn, configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
          &engine) == 1 &&
      get(cudnn, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &algorithm->engine) ==
          1 &&
      !is_excluded(cuda, engine, call)) {
    *usable = true;
    algorithm->knobs = (int)get(cudnn, configuration, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
                                CUDNN_TYPE_BACKEND_DESCRIPTOR, FN_ALGORITHM_KNOBS, knob);
    for (int i = 0; i < algorithm->knobs; i++) {
      cudnnBackendKnobType_t type = 0;
      *usable &= get(cudnn, knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1,
                     &type) == 1 &&
                 get(cudnn, knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1,
                     &algorithm->value[i]) == 1;
      algorithm->type[i] = type;
    }
  }
  fn_cudnn_clear(&pool);
  return status;
}

static bool is_known(const fn_algorithm *list, int count, const fn_algorithm *a) {
  for (int i = 0; i < count; i++)
    if (list[i].engine == a->engine && list[i].knobs == a->knobs &&
        memcmp(list[i].type, a->type, (size_t)a->knobs * sizeof *a->type) == 0 &&
        memcmp(list[i].value, a->value, (size_t)a->knobs * sizeof *a->value) == 0)
      return true;
  return false;
}

/** For a device that is only described. */
static cudnnStatus_t assume(const fn_cudnn *cudnn, cudnnBackendDescriptor_t d,
                            cudnnBackendAttributeName_t name) {
  if (!cudnn->assumed) return CUDNN_STATUS_SUCCESS;
  return cudnn->cudnnBackendSetAttribute(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                         &cudnn->assumed);
}
#if CUDNN_VERSION >= 90800
enum {
  HEURISTIC_DEVICE = CUDNN_ATTR_ENGINEHEUR_DEVICEPROP,
  ENGINE_DEVICE = CUDNN_ATTR_ENGINE_DEVICEPROP,
  PLAN_DEVICE = CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP
};
#else
enum { HEURISTIC_DEVICE, ENGINE_DEVICE, PLAN_DEVICE }; // never used
#endif

/** Append what one heuristic proposes. One that does not answer is no error. */
static fn_status ask(fn_cuda *cuda, cudnnBackendDescriptor_t graph, cudnnBackendHeurMode_t mode,
                     const fn_gpu_call *call, fn_algorithm *list, int *count) {
  const fn_cudnn *cudnn = cuda->cudnn;
  fn_cudnn_pool pool = {.api = cudnn};
  cudnnBackendDescriptor_t heuristic, found[FN_CUDNN_CANDIDATES];
  fn_status status = fn_cudnn_new(&pool, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristic);
  for (int i = 0; status == FN_OK && i < FN_CUDNN_CANDIDATES; i++)
    status = fn_cudnn_new(&pool, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &found[i]);
  if (status == FN_OK &&
      cudnn->cudnnBackendSetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                                      CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
                                      &graph) == CUDNN_STATUS_SUCCESS &&
      cudnn->cudnnBackendSetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE,
                                      1, &mode) == CUDNN_STATUS_SUCCESS &&
      assume(cudnn, heuristic, (cudnnBackendAttributeName_t)HEURISTIC_DEVICE) ==
          CUDNN_STATUS_SUCCESS &&
      cudnn->cudnnBackendFinalize(heuristic) == CUDNN_STATUS_SUCCESS) {
    const int64_t answers = get(cudnn, heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                CUDNN_TYPE_BACKEND_DESCRIPTOR, FN_CUDNN_CANDIDATES, found);
    for (int64_t i = 0; status == FN_OK && i < answers && *count < FN_CUDNN_CANDIDATES; i++) {
      fn_algorithm *a = &list[*count];
      bool usable;
      memset(a, 0, sizeof *a);
      status = read_configuration(cuda, found[i], call, a, &usable);
      if (usable && !is_known(list, *count, a)) ++*count;
    }
  }
  fn_cudnn_clear(&pool);
  return status;
}

fn_status fn_cudnn_list(fn_cuda *cuda, cudnnBackendDescriptor_t graph, const fn_gpu_call *call,
                        fn_algorithm *list, int *count) {
  *count = 0;
  FN_TRY(ask(cuda, graph, CUDNN_HEUR_MODE_A, call, list, count));
  return ask(cuda, graph, CUDNN_HEUR_MODE_FALLBACK, call, list, count);
}

static fn_status set(const fn_cudnn *cudnn, cudnnBackendDescriptor_t d,
                     cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                     int64_t count, const void *value) {
  const cudnnStatus_t code = cudnn->cudnnBackendSetAttribute(d, name, type, count, value);
  FN_CHECK(code == CUDNN_STATUS_SUCCESS, FN_ERR_UNSUPPORTED, "%s",
           cudnn->cudnnGetErrorString(code));
  return FN_OK;
}

static fn_status finalize(const fn_cudnn *cudnn, cudnnBackendDescriptor_t d) {
  const cudnnStatus_t code = cudnn->cudnnBackendFinalize(d);
  FN_CHECK(code == CUDNN_STATUS_SUCCESS, FN_ERR_UNSUPPORTED, "%s",
           cudnn->cudnnGetErrorString(code));
  return FN_OK;
}

/** Where a plan is to run. */
static fn_status set_device(const fn_cudnn *cudnn, cudnnBackendDescriptor_t plan) {
  if (!cudnn->assumed)
    return set(cudnn, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &cudnn->handle);
  FN_CHECK(assume(cudnn, plan, (cudnnBackendAttributeName_t)PLAN_DEVICE) == CUDNN_STATUS_SUCCESS,
           FN_ERR_UNSUPPORTED, "no plan for an assumed device");
  return FN_OK;
}

static fn_status build(fn_cudnn_pool *pool, cudnnBackendDescriptor_t graph,
                       const fn_algorithm *algorithm, cudnnBackendDescriptor_t *plan) {
  const fn_cudnn *cudnn = pool->api;
  cudnnBackendDescriptor_t engine, configuration, knob[FN_ALGORITHM_KNOBS];
  FN_TRY(fn_cudnn_new(pool, CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine));
  FN_TRY(set(cudnn, engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
             &graph));
  FN_TRY(
      set(cudnn, engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &algorithm->engine));
  FN_CHECK(assume(cudnn, engine, (cudnnBackendAttributeName_t)ENGINE_DEVICE) ==
               CUDNN_STATUS_SUCCESS,
           FN_ERR_UNSUPPORTED, "no engine for an assumed device");
  FN_TRY(finalize(cudnn, engine));
  for (int i = 0; i < algorithm->knobs; i++) {
    const cudnnBackendKnobType_t type = (cudnnBackendKnobType_t)algorithm->type[i];
    FN_TRY(fn_cudnn_new(pool, CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, &knob[i]));
    FN_TRY(set(cudnn, knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, &type));
    FN_TRY(set(cudnn, knob[i], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1,
               &algorithm->value[i]));
    FN_TRY(finalize(cudnn, knob[i]));
  }
  FN_TRY(fn_cudnn_new(pool, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configuration));
  FN_TRY(set(cudnn, configuration, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1,
             &engine));
  if (algorithm->knobs > 0)
    FN_TRY(set(cudnn, configuration, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES,
               CUDNN_TYPE_BACKEND_DESCRIPTOR, algorithm->knobs, knob));
  FN_TRY(finalize(cudnn, configuration));
  FN_TRY(fn_cudnn_new(pool, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, plan));
  FN_TRY(set_device(cudnn, *plan));
  FN_TRY(set(cudnn, *plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR,
             1, &configuration));
  return finalize(cudnn, *plan);
}

/** A plan from what the library wrote of one. */
static fn_status load(fn_cudnn_pool *pool, const char *text, size_t size,
                      cudnnBackendDescriptor_t *plan) {
  const fn_cudnn *cudnn = pool->api;
  FN_TRY(fn_cudnn_new(pool, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, plan));
  FN_TRY(set_device(cudnn, *plan));
  FN_TRY(set(cudnn, *plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
             (int64_t)size, text));
  return finalize(cudnn, *plan);
}

/** Keep what took long to build. A library that does not write it down builds it again. */
static fn_status keep(const fn_cudnn *cudnn, cudnnBackendDescriptor_t plan, const char *key) {
  int64_t size = 0, written = 0;
  if (cudnn->cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                      CUDNN_TYPE_CHAR, 0, &size, NULL) != CUDNN_STATUS_SUCCESS ||
      size < 1)
    return FN_OK;
  char *text = malloc((size_t)size);
  FN_CHECK(text, FN_ERR_MEMORY, "out of memory");
  fn_status status = FN_OK;
  if (cudnn->cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_JSON_REPRESENTATION,
                                      CUDNN_TYPE_CHAR, size, &written,
                                      text) == CUDNN_STATUS_SUCCESS &&
      written == size)
    status = fn_plans_add(cudnn->plans, key, text, (size_t)size);
  free(text);
  return status;
}

static fn_status build_and_keep(fn_cudnn_pool *pool, cudnnBackendDescriptor_t graph,
                                const fn_algorithm *algorithm, const char *key,
                                cudnnBackendDescriptor_t *plan) {
  static const double long_time = 0.05; // seconds: only what is compiled takes that
  size_t size;
  const char *text = fn_plans_find(pool->api->plans, key, &size);
  if (text && load(pool, text, size, plan) == FN_OK) return FN_OK;
  const double start = fn_clock();
  FN_TRY(build(pool, graph, algorithm, plan));
  const double seconds = fn_clock() - start;
  if (seconds < long_time) return FN_OK;
  fn_log_once(FN_INFO, "cuDNN compiles kernels for this GPU, which takes seconds for each");
  fn_log(FN_DEBUG, "compiled in %.1f s: %s", seconds, key);
  return keep(pool->api, *plan, key);
}

fn_status fn_cudnn_plan(fn_cudnn_pool *pool, cudnnBackendDescriptor_t graph,
                        const fn_algorithm *algorithm, const char *key, size_t limit,
                        cudnnBackendDescriptor_t *plan, size_t *workspace) {
  const fn_cudnn *cudnn = pool->api;
  fn_text name = {0};
  fn_text_add(&name, "%s; engine %" PRId64, key, algorithm->engine);
  for (int i = 0; i < algorithm->knobs; i++)
    fn_text_add(&name, " %" PRId64 "=%" PRId64, algorithm->type[i], algorithm->value[i]);
  const fn_status status = name.incomplete
                               ? fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory")
                               : build_and_keep(pool, graph, algorithm, name.data, plan);
  fn_text_free(&name);
  FN_TRY(status);
  int64_t bytes = 0;
  FN_CHECK(get(cudnn, *plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
               &bytes) == 1 &&
               (size_t)bytes <= limit,
           FN_ERR_UNSUPPORTED, "it wants %lld bytes of workspace, the limit is %zu",
           (long long)bytes, limit);
  *workspace = (size_t)bytes;
  return FN_OK;
}
