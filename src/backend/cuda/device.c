/* Memory, streams, events and recordings of a device by the CUDA runtime. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "backend/gpu/flat.h"
#include "backend/gpu/kernels.h"
#include "base/log.h"
#include "base/system.h"
#include "base/text.h"

static fn_cuda *cuda_of(fn_device *device) {
  return (fn_cuda *)device;
}

/* ---- errors ------------------------------------------------------------------------------------
 */

/** Errors of a call, after which the device works as before. */
static bool is_harmless(cudaError_t code) {
  switch (code) {
    case cudaErrorInvalidValue:
    case cudaErrorMemoryAllocation:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorNotReady:
    case cudaErrorNotSupported:
    case cudaErrorNotPermitted:
    case cudaErrorLaunchOutOfResources:
    case cudaErrorCapturedEvent:
    case cudaErrorStreamCaptureWrongThread:
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorStreamCaptureMerge:
    case cudaErrorStreamCaptureUnmatched:
    case cudaErrorStreamCaptureUnjoined:
    case cudaErrorStreamCaptureIsolation:
    case cudaErrorStreamCaptureImplicit: return true;
    default: return false;
  }
}

static const char *remedy(cudaError_t code) {
  switch (code) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorDevicesUnavailable:
    case cudaErrorHardwareStackError:
    case cudaErrorNoDevice:
      return "the GPU or its driver failed (nvidia-smi, dmesg | grep Xid): leave this node out and "
             "start again, the run goes on from its last state";
    case cudaErrorNoKernelImageForDevice:
      return "this build has no code for this GPU: configure with -DCMAKE_CUDA_ARCHITECTURES= its "
             "compute capability";
    case cudaErrorInsufficientDriver: return "update the NVIDIA driver";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorAssert:
      return "a kernel went wrong: run tools/gpu-check --sanitize and report it with the "
             "configuration; starting again goes on from the last state";
    default: return "start again, the run goes on from its last state; nvidia-smi may say more";
  }
}

fn_status fn_cuda_check(fn_cuda *cuda, cudaError_t code, const char *what) {
  if (code == cudaSuccess) return FN_OK;
  cudaGetLastError();
  if (is_harmless(code))
    FN_FAIL(code == cudaErrorMemoryAllocation ? FN_ERR_MEMORY : FN_ERR_INTERNAL,
            "GPU %d, %s: %s (%s)", cuda->index, what, cudaGetErrorString(code),
            cudaGetErrorName(code));
  pthread_mutex_lock(&cuda->lock);
  if (!cuda->failed) {
    snprintf(cuda->failure, sizeof cuda->failure, "GPU %d of %s failed, %s: %s (%s); %s",
             cuda->index, fn_host_name(), what, cudaGetErrorString(code), cudaGetErrorName(code),
             remedy(code));
    cuda->failed = true;
  }
  pthread_mutex_unlock(&cuda->lock);
  FN_FAIL(FN_ERR_DEVICE, "%s", cuda->failure);
}

fn_status fn_cuda_enter(fn_cuda *cuda) {
  static _Thread_local int current = -1;
  FN_CHECK(!cuda->failed, FN_ERR_DEVICE, "%s", cuda->failure);
  if (current == cuda->index) return FN_OK;
  FN_CUDA_TRY(cuda, cudaSetDevice(cuda->index), "taking it");
  current = cuda->index;
  return FN_OK;
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static fn_status allocate(fn_device *device, size_t bytes, void **memory) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  *memory = NULL;
  const cudaError_t code = cudaMalloc(memory, bytes > 0 ? bytes : 1);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    size_t available = 0, total = 0;
    cudaMemGetInfo(&available, &total);
    char want[32], have[32], all[32];
    FN_FAIL(FN_ERR_MEMORY,
            "GPU %d of %s has no memory for %s: %s of %s are free; lower the batch or the crop, "
            "set compute.precision: bf16 or compute.recompute: all, or see that nothing else uses "
            "the GPU (nvidia-smi)",
            cuda->index, fn_host_name(), fn_text_bytes((double)bytes, want, sizeof want),
            fn_text_bytes((double)available, have, sizeof have),
            fn_text_bytes((double)total, all, sizeof all));
  }
  return fn_cuda_check(cuda, code, "reserving memory");
}

static void release(fn_device *device, void *memory) {
  fn_cuda *cuda = cuda_of(device);
  if (!memory || fn_cuda_enter(cuda) != FN_OK) return;
  if (fn_cuda_check(cuda, cudaFree(memory), "releasing memory") != FN_OK)
    fn_log(FN_WARN, "%s", fn_error_message());
}

static fn_status allocate_pinned(fn_device *device, size_t bytes, void **memory) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  *memory = NULL;
  const cudaError_t code = cudaHostAlloc(memory, bytes > 0 ? bytes : 1, cudaHostAllocPortable);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    char want[32];
    FN_FAIL(FN_ERR_MEMORY,
            "%s has no %s of host memory to be locked for copies to the GPU: see the job's memory "
            "limit and `ulimit -l`",
            fn_host_name(), fn_text_bytes((double)bytes, want, sizeof want));
  }
  return fn_cuda_check(cuda, code, "reserving locked host memory");
}

static void release_pinned(fn_device *device, void *memory) {
  fn_cuda *cuda = cuda_of(device);
  if (!memory || fn_cuda_enter(cuda) != FN_OK) return;
  if (fn_cuda_check(cuda, cudaFreeHost(memory), "releasing host memory") != FN_OK)
    fn_log(FN_WARN, "%s", fn_error_message());
}

static fn_status copy(fn_device *device, fn_stream stream, void *to, const void *from, size_t bytes,
                      fn_copy direction) {
  static const enum cudaMemcpyKind kinds[] = {[FN_COPY_TO_DEVICE] = cudaMemcpyHostToDevice,
                                              [FN_COPY_TO_HOST] = cudaMemcpyDeviceToHost,
                                              [FN_COPY_WITHIN] = cudaMemcpyDeviceToDevice};
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  return fn_cuda_check(
      cuda, cudaMemcpyAsync(to, from, bytes, kinds[direction], cuda->stream[stream]), "copying");
}

static fn_status clear(fn_device *device, fn_stream stream, void *memory, size_t bytes) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  return fn_cuda_check(cuda, cudaMemsetAsync(memory, 0, bytes, cuda->stream[stream]), "clearing");
}

/* ---- events ------------------------------------------------------------------------------------
 */

static cudaEvent_t event_of(fn_event *event) {
  return (cudaEvent_t)(void *)event;
}

static fn_status make_event(fn_device *device, unsigned flags, const char *what, fn_event **event) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  cudaEvent_t made = NULL;
  // Whoever waits on the host sleeps: its core is needed for reading and sending.
  FN_CUDA_TRY(cuda, cudaEventCreateWithFlags(&made, flags | cudaEventBlockingSync), what);
  *event = (fn_event *)(void *)made;
  return FN_OK;
}

static fn_status event_create(fn_device *device, fn_event **event) {
  return make_event(device, cudaEventDisableTiming, "creating an event", event);
}

static fn_status create_timer(fn_device *device, fn_event **event) {
  return make_event(device, 0, "creating a timer", event);
}

static fn_status elapsed(fn_device *device, fn_event *from, fn_event *to, double *seconds) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  float milliseconds = 0;
  FN_CUDA_TRY(cuda, cudaEventElapsedTime(&milliseconds, event_of(from), event_of(to)),
              "reading a timer");
  *seconds = 1e-3 * (double)milliseconds;
  return FN_OK;
}

static void event_destroy(fn_device *device, fn_event *event) {
  fn_cuda *cuda = cuda_of(device);
  if (event && fn_cuda_enter(cuda) == FN_OK &&
      fn_cuda_check(cuda, cudaEventDestroy(event_of(event)), "destroying an event") != FN_OK)
    fn_log(FN_WARN, "%s", fn_error_message());
}

/** Inside a recording, events mean the same to other streams at every replay: they are external. */
static bool is_recorded(const fn_cuda *cuda, fn_stream stream) {
  return cuda->capturing && stream == FN_STREAM_COMPUTE;
}

static fn_status record(fn_device *device, fn_stream stream, fn_event *event) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  return fn_cuda_check(cuda,
                       cudaEventRecordWithFlags(event_of(event), cuda->stream[stream],
                                                is_recorded(cuda, stream) ? cudaEventRecordExternal
                                                                          : cudaEventRecordDefault),
                       "recording an event");
}

static fn_status wait_for(fn_device *device, fn_stream stream, fn_event *event) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  return fn_cuda_check(
      cuda,
      cudaStreamWaitEvent(cuda->stream[stream], event_of(event),
                          is_recorded(cuda, stream) ? cudaEventWaitExternal : cudaEventWaitDefault),
      "waiting for an event");
}

static fn_status passed(fn_device *device, fn_event *event, bool *yes) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  const cudaError_t code = cudaEventQuery(event_of(event));
  *yes = code == cudaSuccess;
  if (code == cudaErrorNotReady) {
    cudaGetLastError();
    return FN_OK;
  }
  return fn_cuda_check(cuda, code, "running the step");
}

static fn_status synchronize_event(fn_device *device, fn_event *event) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  return fn_cuda_check(cuda, cudaEventSynchronize(event_of(event)), "running the step");
}

static fn_status synchronize(fn_device *device, fn_stream stream) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  return fn_cuda_check(cuda, cudaStreamSynchronize(cuda->stream[stream]), "running the step");
}

/* ---- kernels -----------------------------------------------------------------------------------
 */

static fn_status launch_on(fn_cuda *cuda, fn_stream stream, int id, int64_t blocks, int threads,
                           const void *args) {
  FN_TRY(fn_cuda_enter(cuda));
  const cudaError_t code =
      (cudaError_t)fn_cuda_launch(id, args, blocks, threads, cuda->stream[stream]);
  return code == cudaSuccess ? FN_OK : fn_cuda_check(cuda, code, fn_gpu_kernel_at(id)->name);
}

static fn_status launch(fn_gpu_platform *platform, const fn_gpu_kernel *kernel, int64_t blocks,
                        int threads, const void *args) {
  fn_cuda *cuda = (fn_cuda *)platform;
  fn_cuda_range_begin(cuda, kernel->name);
  const fn_status status = launch_on(cuda, FN_STREAM_COMPUTE, kernel->id, blocks, threads, args);
  fn_cuda_range_end(cuda);
  return status;
}

static fn_status add_scaled(fn_device *device, fn_stream stream, float *sum, const float *x,
                            float keep, float factor, int64_t count) {
  const fn_add_scaled_args args = fn_gpu_add_scaled_args(sum, x, keep, factor, count);
  return launch_on(cuda_of(device), stream, FN_GPU_add_scaled, fn_gpu_flat_blocks(count),
                   FN_GPU_THREADS, &args);
}

static fn_status to_bf16(fn_device *device, fn_stream stream, uint16_t *y, const float *x,
                         float factor, int64_t count) {
  const fn_scale_args args = fn_gpu_scale_args(y, FN_BF16, x, FN_F32, factor, count);
  return launch_on(cuda_of(device), stream, FN_GPU_scale, fn_gpu_flat_blocks(count), FN_GPU_THREADS,
                   &args);
}

static fn_status from_bf16(fn_device *device, fn_stream stream, float *y, const uint16_t *x,
                           int64_t count) {
  const fn_scale_args args = fn_gpu_scale_args(y, FN_F32, x, FN_BF16, 1, count);
  return launch_on(cuda_of(device), stream, FN_GPU_scale, fn_gpu_flat_blocks(count), FN_GPU_THREADS,
                   &args);
}

static fn_status sum_squares(fn_device *device, fn_stream stream, const float *x, int64_t count,
                             double *result) {
  fn_cuda *cuda = cuda_of(device);
  const int64_t blocks = fn_gpu_squares_blocks(count);
  double *partial = cuda->partial[stream];
  const fn_sum_squares_args squares = fn_gpu_sum_squares_args(x, count, partial);
  FN_TRY(launch_on(cuda, stream, FN_GPU_sum_squares, blocks, FN_GPU_THREADS, &squares));
  const fn_sum_squares_finish_args sum = fn_gpu_sum_squares_finish_args(count, partial, result);
  return launch_on(cuda, stream, FN_GPU_sum_squares_finish, 1, FN_GPU_THREADS, &sum);
}

static fn_status add_scaled_if(fn_device *device, fn_stream stream, const fn_judgement *judgement,
                               fn_step_verdict verdict, float *sum, const float *x, float keep,
                               float factor, int64_t count) {
  fn_add_scaled_args args = fn_gpu_add_scaled_args(sum, x, keep, factor, count);
  args.judgement = judgement;
  args.verdict = verdict;
  return launch_on(cuda_of(device), stream, FN_GPU_add_scaled, fn_gpu_flat_blocks(count),
                   FN_GPU_THREADS, &args);
}

static fn_status copy_if(fn_device *device, fn_stream stream, const fn_judgement *judgement,
                         fn_step_verdict verdict, float *y, const float *x, int64_t count) {
  fn_scale_args args = fn_gpu_scale_args(y, FN_F32, x, FN_F32, 1, count);
  args.judgement = judgement;
  args.verdict = verdict;
  return launch_on(cuda_of(device), stream, FN_GPU_scale, fn_gpu_flat_blocks(count), FN_GPU_THREADS,
                   &args);
}

static fn_status judge(fn_device *device, fn_stream stream, const fn_step_facts *facts,
                       const float *gradient, int64_t count, fn_judgement *judgement) {
  const fn_judge_args args = {facts, gradient, count, judgement};
  return launch_on(cuda_of(device), stream, FN_GPU_judge, 1, FN_GPU_THREADS, &args);
}

static fn_status update(fn_device *device, fn_stream stream, const fn_update *u) {
  return launch_on(cuda_of(device), stream, FN_GPU_update, fn_gpu_flat_blocks(u->count),
                   FN_GPU_THREADS, u);
}

static fn_status convert(fn_device *device, const fn_raw_field *field, const fn_tensor *y,
                         int64_t n, int64_t at) {
  fn_convert_args args;
  for (int64_t first = 0; first < field->channels; first += FN_CONVERT_CHANNELS) {
    FN_TRY(fn_gpu_convert_args(field, first, y, n, at, &args));
    FN_TRY(launch_on(cuda_of(device), FN_STREAM_COMPUTE, FN_GPU_convert,
                     fn_gpu_flat_blocks(args.count), FN_GPU_THREADS, &args));
  }
  return FN_OK;
}

/* ---- recordings --------------------------------------------------------------------------------
 */

static fn_status capture_begin(fn_device *device) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  // Other threads (input, reduction) go on as usual meanwhile.
  FN_CUDA_TRY(
      cuda,
      cudaStreamBeginCapture(cuda->stream[FN_STREAM_COMPUTE], cudaStreamCaptureModeThreadLocal),
      "starting to record a step");
  cuda->capturing = true;
  return FN_OK;
}

static fn_status capture_end(fn_device *device, void **recording) {
  fn_cuda *cuda = cuda_of(device);
  *recording = NULL;
  cuda->capturing = false;
  FN_TRY(fn_cuda_enter(cuda));
  cudaGraph_t graph = NULL;
  FN_CUDA_TRY(cuda, cudaStreamEndCapture(cuda->stream[FN_STREAM_COMPUTE], &graph),
              "recording a step");
  cudaGraphExec_t made = NULL;
  fn_status status = fn_cuda_check(cuda, cudaGraphInstantiate(&made, graph, 0), "recording a step");
  cudaGraphDestroy(graph);
  if (status == FN_OK)
    status = fn_cuda_check(cuda, cudaGraphUpload(made, cuda->stream[FN_STREAM_COMPUTE]),
                           "keeping a recorded step");
  *recording = made;
  return status;
}

static fn_status replay(fn_device *device, void *recording) {
  fn_cuda *cuda = cuda_of(device);
  FN_TRY(fn_cuda_enter(cuda));
  return fn_cuda_check(cuda,
                       cudaGraphLaunch((cudaGraphExec_t)recording, cuda->stream[FN_STREAM_COMPUTE]),
                       "replaying a step");
}

static void recording_destroy(fn_device *device, void *recording) {
  fn_cuda *cuda = cuda_of(device);
  if (recording && fn_cuda_enter(cuda) == FN_OK &&
      fn_cuda_check(cuda, cudaGraphExecDestroy((cudaGraphExec_t)recording),
                    "dropping a recorded step") != FN_OK)
    fn_log(FN_WARN, "%s", fn_error_message());
}

/* ---- library calls -----------------------------------------------------------------------------
 */

static bool is_product(const fn_gpu_call *call) {
  return strcmp(call->node->op->name, "matmul") == 0;
}

static fn_status prepare_call(fn_gpu_platform *platform, fn_gpu_call *call) {
  fn_cuda *cuda = (fn_cuda *)platform;
  FN_TRY(fn_cuda_enter(cuda));
  return is_product(call) ? fn_cublaslt_prepare(cuda, call) : fn_cudnn_prepare(cuda, call);
}

static fn_status run_call(fn_gpu_platform *platform, const fn_gpu_call *call,
                          const fn_gpu_addresses *at) {
  fn_cuda *cuda = (fn_cuda *)platform;
  FN_TRY(fn_cuda_enter(cuda));
  fn_cuda_range_begin(cuda, call->node->op->name);
  const fn_status status =
      is_product(call) ? fn_cublaslt_run(cuda, call, at) : fn_cudnn_run(cuda, call, at);
  fn_cuda_range_end(cuda);
  return status;
}

static void release_call(fn_gpu_platform *platform, fn_gpu_call *call) {
  fn_cuda *cuda = (fn_cuda *)platform;
  if (is_product(call))
    fn_cublaslt_release(cuda, call);
  else
    fn_cudnn_release(cuda, call);
}

fn_cuda fn_cuda_device = {
    .platform = {.device = {.info = {.index = -1},
                            .allocate = allocate,
                            .release = release,
                            .allocate_pinned = allocate_pinned,
                            .release_pinned = release_pinned,
                            .copy = copy,
                            .clear = clear,
                            .event_create = event_create,
                            .event_destroy = event_destroy,
                            .record = record,
                            .wait = wait_for,
                            .passed = passed,
                            .synchronize_event = synchronize_event,
                            .synchronize = synchronize,
                            .timer_create = create_timer,
                            .elapsed = elapsed,
                            .add_scaled = add_scaled,
                            .to_bf16 = to_bf16,
                            .from_bf16 = from_bf16,
                            .sum_squares = sum_squares,
                            .update = update,
                            .judge = judge,
                            .add_scaled_if = add_scaled_if,
                            .copy_if = copy_if,
                            .convert = convert,
                            .capture_begin = capture_begin,
                            .capture_end = capture_end,
                            .replay = replay,
                            .recording_destroy = recording_destroy},
                 .launch = launch,
                 .prepare = prepare_call,
                 .run = run_call,
                 .release = release_call},
    .lock = PTHREAD_MUTEX_INITIALIZER,
};
