/* The CUDA runtime on the host; see standin.h. Linked in its place. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/gpu/gpu.h"
#include "standin.h"

enum { BLOCKS = 4096, KERNELS = 256 };

typedef enum space { FREE, ON_DEVICE, PINNED } space;

typedef struct chunk {
  space space;
  char *memory;
  size_t bytes;
} chunk;

typedef struct operation {
  void (*work)(const void *what);
  void *what;
} operation;

typedef struct CUgraph_st recording;
struct CUgraph_st {
  operation *item;
  int count, capacity;
};

struct CUstream_st {
  int number;
};

struct CUevent_st {
  bool timed, recorded;
  double time;
};

static struct {
  pthread_mutex_t lock;
  chunk chunk[BLOCKS];
  const void *stub[KERNELS]; /**< kernel by the address of its host function */
  int kernel[KERNELS], kernels;
  cudaError_t last, failed;
  long long operations;
  pthread_t recorder;
  cudaStream_t recorded;
  recording *recording; /**< NULL: none under way */
  bool spoilt;
} s = {.lock = PTHREAD_MUTEX_INITIALIZER};

static long long setting(const char *name, long long otherwise) {
  const char *text = getenv(name);
  return text && text[0] ? (long long)strtod(text, NULL) : otherwise;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static cudaError_t keep(cudaError_t code) {
  if (code != cudaSuccess) s.last = code;
  return code;
}

/** What any call that reaches the device answers: the error that it did not survive. */
static cudaError_t reach(bool is_operation) {
  const char *fail = getenv("STANDIN_FAIL");
  if (is_operation) s.operations++;
  if (fail && s.failed == cudaSuccess) {
    char *code;
    const long long after = strtoll(fail, &code, 10);
    if (s.operations >= after) s.failed = (cudaError_t)strtol(code, NULL, 10);
  }
  return keep(s.failed);
}

/** Calls that a thread must not make while it records. */
static cudaError_t not_while_recording(void) {
  if (!s.recording || !pthread_equal(s.recorder, pthread_self())) return reach(false);
  s.spoilt = true;
  return keep(cudaErrorStreamCaptureUnsupported);
}

/* ---- errors ------------------------------------------------------------------------------------
 */

const char *cudaGetErrorName(cudaError_t code) {
  switch (code) {
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorECCUncorrectable: return "cudaErrorECCUncorrectable";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    default: return "cudaErrorOther";
  }
}
const char *cudaGetErrorString(cudaError_t code) {
  return code == cudaSuccess ? "no error" : "text of the stand-in";
}
cudaError_t cudaGetLastError(void) {
  const cudaError_t last = s.last;
  s.last = s.failed;
  return last;
}

/* ---- devices -----------------------------------------------------------------------------------
 */

cudaError_t cudaDriverGetVersion(int *version) {
  *version = (int)setting("STANDIN_DRIVER", 13000);
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count) {
  const long long driver = setting("STANDIN_DRIVER", 13000);
  *count = 0;
  if (driver / 1000 < CUDART_VERSION / 1000) return keep(cudaErrorInsufficientDriver);
  *count = (int)setting("STANDIN_DEVICES", 1);
  return *count > 0 ? reach(false) : keep(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= setting("STANDIN_DEVICES", 1)) return keep(cudaErrorInvalidDevice);
  return reach(false);
}
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
  const int capability = (int)setting("STANDIN_CAPABILITY", 90);
  *p = (struct cudaDeviceProp){.major = capability / 10,
                               .minor = capability % 10,
                               .multiProcessorCount = 132,
                               .totalGlobalMem = (size_t)setting("STANDIN_MEMORY", 1000000000)};
  snprintf(p->name, sizeof p->name, "Stand-in");
  snprintf(p->uuid.bytes, sizeof p->uuid.bytes, "%d standin", device);
  return cudaSuccess;
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return reach(false);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static size_t used(space kind) {
  size_t bytes = 0;
  for (int b = 0; b < BLOCKS; b++)
    if (s.chunk[b].space == kind) bytes += s.chunk[b].bytes;
  return bytes;
}

static cudaError_t allocate(space kind, size_t limit, size_t bytes, void **memory) {
  cudaError_t code = not_while_recording();
  if (code != cudaSuccess) return code;
  pthread_mutex_lock(&s.lock);
  code = cudaErrorMemoryAllocation;
  const bool fits = used(kind) + bytes <= limit;
  for (int b = 0; b < BLOCKS && fits; b++) {
    if (s.chunk[b].space != FREE) continue;
    s.chunk[b] = (chunk){kind, aligned_alloc(512, (bytes + 511) / 512 * 512), bytes};
    memset(s.chunk[b].memory, 0xFF, bytes); // NaN
    *memory = s.chunk[b].memory;
    code = cudaSuccess;
    break;
  }
  pthread_mutex_unlock(&s.lock);
  return keep(code);
}

static cudaError_t release(space kind, void *memory) {
  const cudaError_t code = not_while_recording();
  if (code != cudaSuccess) return code;
  for (int b = 0; b < BLOCKS; b++) {
    if (s.chunk[b].space != kind || s.chunk[b].memory != memory) continue;
    free(memory);
    s.chunk[b] = (chunk){0};
    return cudaSuccess;
  }
  return keep(cudaErrorInvalidValue);
}

static bool lies_in(space kind, const void *memory, size_t bytes) {
  const char *at = memory;
  for (int b = 0; b < BLOCKS; b++)
    if (s.chunk[b].space == kind && at >= s.chunk[b].memory &&
        at + bytes <= s.chunk[b].memory + s.chunk[b].bytes)
      return true;
  return false;
}

cudaError_t cudaMalloc(void **memory, size_t bytes) {
  return allocate(ON_DEVICE, (size_t)setting("STANDIN_MEMORY", 1000000000), bytes, memory);
}
cudaError_t cudaFree(void *memory) {
  return release(ON_DEVICE, memory);
}
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags) {
  (void)flags;
  return allocate(PINNED, (size_t)setting("STANDIN_LOCKED", 1000000000), bytes, memory);
}
cudaError_t cudaFreeHost(void *memory) {
  return release(PINNED, memory);
}
cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  *total = (size_t)setting("STANDIN_MEMORY", 1000000000);
  *available = *total - used(ON_DEVICE);
  return reach(false);
}

/* ---- streams and recordings --------------------------------------------------------------------
 */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
  static int streams;
  (void)priority;
  if (flags != cudaStreamNonBlocking) return keep(cudaErrorInvalidValue);
  *stream = calloc(1, sizeof **stream);
  (*stream)->number = ++streams;
  return reach(false);
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  (void)stream;
  const cudaError_t code = not_while_recording();
  return code == cudaSuccess ? reach(true) : code;
}

bool standin_is_recording(void) {
  return s.recording != NULL;
}
void standin_spoil_recording(void) {
  s.spoilt = true;
}

cudaError_t standin_put(cudaStream_t stream, void (*work)(const void *), const void *what,
                        size_t bytes) {
  if (!s.recording || stream != s.recorded) {
    const cudaError_t code = reach(true);
    if (code == cudaSuccess) work(what);
    return code;
  }
  recording *r = s.recording;
  if (r->count == r->capacity) {
    r->capacity = r->capacity ? 2 * r->capacity : 64;
    r->item = realloc(r->item, (size_t)r->capacity * sizeof *r->item);
  }
  r->item[r->count] = (operation){work, malloc(bytes)};
  memcpy(r->item[r->count++].what, what, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
  if (s.recording || mode != cudaStreamCaptureModeThreadLocal) return keep(cudaErrorInvalidValue);
  s.recording = calloc(1, sizeof *s.recording);
  s.recorded = stream;
  s.recorder = pthread_self();
  s.spoilt = false;
  return reach(false);
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
  if (!s.recording || stream != s.recorded) return keep(cudaErrorIllegalState);
  *graph = s.recording;
  s.recording = NULL;
  if (!s.spoilt) return reach(false);
  cudaGraphDestroy(*graph);
  *graph = NULL;
  return keep(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph,
                                 unsigned long long flags) {
  (void)flags;
  recording *copy = calloc(1, sizeof *copy);
  *made = (cudaGraphExec_t)(void *)copy;
  if (!graph) return keep(cudaErrorInvalidValue);
  *copy = *graph;
  graph->count = 0; // the operations are the executable's now
  graph->item = NULL;
  return reach(false);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  if (!graph) return keep(cudaErrorInvalidValue);
  for (int i = 0; i < graph->count; i++)
    free(graph->item[i].what);
  free(graph->item);
  free(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t graph, cudaStream_t stream) {
  (void)graph;
  (void)stream;
  return reach(true);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  (void)stream;
  const recording *r = (const recording *)(void *)graph;
  const cudaError_t code = reach(true);
  for (int i = 0; i < r->count && code == cudaSuccess; i++)
    r->item[i].work(r->item[i].what);
  return code;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  return cudaGraphDestroy((cudaGraph_t)(void *)graph);
}

/* ---- copies ------------------------------------------------------------------------------------
 */

typedef struct transfer {
  void *to;
  const void *from;
  int value;
  size_t bytes;
} transfer;

static void copy(const void *what) {
  const transfer *t = what;
  memmove(t->to, t->from, t->bytes);
}
static void fill(const void *what) {
  const transfer *t = what;
  memset(t->to, t->value, t->bytes);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
  const bool to_host = kind == cudaMemcpyDeviceToHost, to_device = kind == cudaMemcpyHostToDevice;
  const transfer t = {to, from, 0, bytes};
  // The real one takes any memory of the host, but waits for it: that is a fault here.
  if (!lies_in(to_host ? PINNED : ON_DEVICE, to, bytes) ||
      !lies_in(to_device ? PINNED : ON_DEVICE, from, bytes))
    return keep(cudaErrorInvalidValue);
  return standin_put(stream, copy, &t, sizeof t);
}
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
  const transfer t = {memory, NULL, value, bytes};
  if (!lies_in(ON_DEVICE, memory, bytes)) return keep(cudaErrorInvalidValue);
  return standin_put(stream, fill, &t, sizeof t);
}
cudaError_t cudaMemset(void *memory, int value, size_t bytes) {
  const cudaError_t code = not_while_recording();
  if (code != cudaSuccess) return code;
  if (!lies_in(ON_DEVICE, memory, bytes)) return keep(cudaErrorInvalidValue);
  memset(memory, value, bytes);
  return cudaSuccess;
}

/* ---- events ------------------------------------------------------------------------------------
 */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
  *event = calloc(1, sizeof **event);
  (*event)->timed = !(flags & cudaEventDisableTiming);
  return reach(false);
}
cudaError_t cudaEventCreate(cudaEvent_t *event) {
  return cudaEventCreateWithFlags(event, 0);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  free(event);
  return reach(false);
}
static void pass(const void *what) {
  const cudaEvent_t event = *(cudaEvent_t const *)what;
  event->recorded = true;
  event->time = now();
}
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  const bool inside = s.recording && stream == s.recorded;
  if ((flags == cudaEventRecordExternal) != inside) return keep(cudaErrorInvalidValue);
  return standin_put(stream, pass, &event, sizeof event);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, cudaEventRecordDefault);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  const bool inside = s.recording && stream == s.recorded;
  (void)event;
  if ((flags == cudaEventWaitExternal) != inside) return keep(cudaErrorInvalidValue);
  return reach(true);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  (void)event;
  return not_while_recording();
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  (void)event;
  const cudaError_t code = not_while_recording();
  return code == cudaSuccess ? reach(true) : code;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to) {
  if (!from->timed || !to->timed || !from->recorded || !to->recorded)
    return keep(cudaErrorInvalidResourceHandle);
  *milliseconds = (float)(1e3 * (to->time - from->time));
  return reach(false);
}

/* ---- kernels -----------------------------------------------------------------------------------
 */

void **__cudaRegisterFatBinary(void *code);
void __cudaRegisterFatBinaryEnd(void **handle);
void __cudaUnregisterFatBinary(void **handle);
char __cudaInitModule(void **handle);
void __cudaRegisterFunction(void **handle, const char *stub, char *name, const char *same,
                            int threads, uint3 *tid, uint3 *bid, dim3 *block, dim3 *grid,
                            int *size);
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream);
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream);
cudaError_t __cudaGetKernel(void **kernel, const void *stub);
cudaError_t __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **args, size_t shared,
                               cudaStream_t stream);

void **__cudaRegisterFatBinary(void *code) {
  static void *handle;
  (void)code;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void **handle) {
  (void)handle;
}
void __cudaUnregisterFatBinary(void **handle) {
  (void)handle;
}
char __cudaInitModule(void **handle) {
  (void)handle;
  return 0;
}

/** "_Z14kernel_convert15fn_convert_args" is kernel `convert`. */
void __cudaRegisterFunction(void **handle, const char *stub, char *name, const char *same,
                            int threads, uint3 *tid, uint3 *bid, dim3 *block, dim3 *grid,
                            int *size) {
  (void)handle, (void)same, (void)threads, (void)tid, (void)bid, (void)block, (void)grid,
      (void)size;
  const char *start = strstr(name, "kernel_");
  for (int k = 0; start && k < fn_gpu_kernel_count() && s.kernels < KERNELS; k++) {
    char mangled[128];
    const char *own = fn_gpu_kernel_at(k)->name;
    snprintf(mangled, sizeof mangled, "%zukernel_%s", strlen(own) + 7, own);
    const char *found = strstr(name, mangled), *after = found ? found + strlen(mangled) : NULL;
    if (!found || (*after >= 'a' && *after <= 'z') || *after == '_') continue;
    s.stub[s.kernels] = stub;
    s.kernel[s.kernels++] = k;
    return;
  }
}

/** Never used: kernels are launched by cudaLaunchKernel(). */
cudaError_t __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
  (void)grid, (void)block, (void)shared, (void)stream;
  return cudaErrorNotSupported;
}
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
  (void)grid, (void)block, (void)shared, (void)stream;
  return 1;
}
cudaError_t __cudaGetKernel(void **kernel, const void *stub) {
  (void)kernel, (void)stub;
  return cudaErrorNotSupported;
}
cudaError_t __cudaLaunchKernel(void *kernel, dim3 grid, dim3 block, void **args, size_t shared,
                               cudaStream_t stream) {
  (void)kernel, (void)grid, (void)block, (void)args, (void)shared, (void)stream;
  return cudaErrorNotSupported;
}

typedef struct launch {
  const fn_gpu_kernel *kernel;
  int64_t blocks;
  int threads;
  max_align_t args[4096 / sizeof(max_align_t)];
} launch;

static void run_kernel(const void *what) {
  const launch *l = what;
  l->kernel->host(l->args, l->blocks, l->threads);
}

cudaError_t cudaLaunchKernel(const void *stub, dim3 grid, dim3 block, void **args, size_t shared,
                             cudaStream_t stream) {
  launch l = {0};
  for (int i = 0; i < s.kernels; i++)
    if (s.stub[i] == stub) l.kernel = fn_gpu_kernel_at(s.kernel[i]);
  if (!l.kernel || l.kernel->args_size > sizeof l.args) return keep(cudaErrorInvalidDeviceFunction);
  if (grid.x < 1 || grid.x > 0x7fffffff || grid.y != 1 || grid.z != 1 || block.x < 1 ||
      block.x > FN_GPU_THREADS || shared != 0)
    return keep(cudaErrorInvalidConfiguration);
  l.blocks = grid.x;
  l.threads = (int)block.x;
  memcpy(l.args, args[0], l.kernel->args_size);
  return standin_put(stream, run_kernel, &l, sizeof l);
}
