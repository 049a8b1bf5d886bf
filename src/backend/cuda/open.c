/* Finding, choosing and opening the device, with a remedy for everything that can be missing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "backend/cuda/cuda.h"
#include "backend/gpu/flat.h"
#include "base/log.h"
#include "base/system.h"

static void version_text(int version, char *text, size_t size) {
  snprintf(text, size, "%d.%d", version / 1000, version % 1000 / 10);
}

/** "580.65.06" from the kernel module, else the newest CUDA that the driver knows. */
static void driver_text(char *text, size_t size) {
  int version = 0;
  if (cudaDriverGetVersion(&version) != cudaSuccess) version = 0;
  char number[16];
  version_text(version, number, sizeof number);
  snprintf(text, size, "CUDA %s", number);
  FILE *file = fopen("/proc/driver/nvidia/version", "r");
  char line[256];
  if (file && fgets(line, sizeof line, file)) {
    for (char *word = strtok(line, " \t"); word; word = strtok(NULL, " \t"))
      if (strspn(word, "0123456789.") == strlen(word) && strchr(word, '.')) {
        snprintf(text, size, "%.31s", word);
        break;
      }
  }
  if (file) fclose(file);
}

/** Why no device can be counted. */
static fn_status no_device(cudaError_t code) {
  int driver = 0, runtime = 0;
  if (cudaDriverGetVersion(&driver) != cudaSuccess) driver = 0;
  if (cudaRuntimeGetVersion(&runtime) != cudaSuccess) runtime = 0;
  cudaGetLastError();
  char have[16], need[16];
  version_text(driver, have, sizeof have);
  version_text(runtime, need, sizeof need);
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (driver == 0)
    FN_FAIL(FN_ERR_DEVICE,
            "%s has no NVIDIA driver (libcuda.so.1): start the run on a node with a GPU, in a "
            "container with --nv (Apptainer) or --gpus all (Docker), or set compute.backend: cpu",
            fn_host_name());
  if (code == cudaErrorInsufficientDriver || driver / 1000 < runtime / 1000)
    FN_FAIL(FN_ERR_DEVICE,
            "the NVIDIA driver of %s knows CUDA up to %s, fieldnet was built with CUDA %s: update "
            "the driver, install the cuda-compat package of CUDA %s, or build fieldnet with CUDA "
            "%d",
            fn_host_name(), have, need, need, driver / 1000);
  if (code == cudaErrorNoDevice || code == cudaSuccess)
    FN_FAIL(FN_ERR_DEVICE,
            "no GPU of %s is visible to this process (CUDA_VISIBLE_DEVICES is %s%s%s): ask the "
            "batch system for GPUs (SLURM: --gpus-per-node or --gpus-per-task), or set "
            "compute.backend: cpu",
            fn_host_name(), visible ? "'" : "not set", visible ? visible : "", visible ? "'" : "");
  FN_FAIL(FN_ERR_DEVICE,
          "the GPUs of %s cannot be used: %s (%s); nvidia-smi on that node may say more, or set "
          "compute.backend: cpu",
          fn_host_name(), cudaGetErrorString(code), cudaGetErrorName(code));
}

/** Whether another rank of this node, started by the same parent, took the device before: ranks
 *  that see one device each cannot tell by their number. A name in the abstract socket space is
 *  taken by one process at a time and freed when it ends, however it ends. */
static bool taken_by_sibling(const struct cudaDeviceProp *properties) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "fieldnet-%d-%d-",
                        (int)getuid(), (int)getppid());
  for (int i = 0; i < 16; i++)
    length += snprintf(name.sun_path + 1 + length, sizeof name.sun_path - 1 - (size_t)length,
                       "%02x", (unsigned char)properties->uuid.bytes[i]);
  const int file = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (file < 0) return false;
  const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
  if (bind(file, (const struct sockaddr *)&name, size) == 0) return false; // kept until the end
  close(file);
  return true;
}

/** Ranks see all devices of the node, or the batch system shows each its own. */
static fn_status choose(const fn_device_choice *choice, int *index) {
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess || count == 0) return no_device(code);
  *index = 0;
  if (count == 1) return FN_OK;
  return fn_gpu_choose_device(choice, count, index);
}

static fn_status check_device(const fn_device_choice *choice, int index,
                              const struct cudaDeviceProp *properties) {
  enum { OLDEST = 8 }; // what kernels.cu is compiled for
  FN_CHECK(properties->major >= OLDEST, FN_ERR_DEVICE,
           "GPU %d of %s is a %s of compute capability %d.%d; fieldnet needs 8.0 (A100) or newer: "
           "use another GPU or set compute.backend: cpu",
           index, fn_host_name(), properties->name, properties->major, properties->minor);
  const bool shared = taken_by_sibling(properties);
  FN_CHECK(!shared || choice->share, FN_ERR_DEVICE,
           "another rank uses GPU %d of %s (%s) already: there are %d ranks on this node and fewer "
           "GPUs; start as many ranks per node as there are GPUs, or let ranks share them with "
           "compute.share_devices: true",
           index, fn_host_name(), properties->name, choice->node_size);
  return FN_OK;
}

static fn_status describe(fn_cuda *cuda, const struct cudaDeviceProp *properties) {
  fn_device_info *info = &cuda->platform.device.info;
  size_t available = 0, total = 0;
  FN_CUDA_TRY(cuda, cudaMemGetInfo(&available, &total), "asking for its memory");
  snprintf(info->name, sizeof info->name, "%.*s", (int)sizeof info->name - 1, properties->name);
  info->index = cuda->index;
  info->compute_major = properties->major;
  info->compute_minor = properties->minor;
  info->memory = total;
  info->memory_free = available;
  info->multiprocessors = properties->multiProcessorCount;
  driver_text(info->driver, sizeof info->driver);
  int runtime = 0;
  FN_CUDA_TRY(cuda, cudaRuntimeGetVersion(&runtime), "asking for the version");
  version_text(runtime, info->runtime, sizeof info->runtime);
  // Of the whole device, not of what is free: deterministic runs must choose the same twice.
  cuda->workspace_limit = total / 16;
  return FN_OK;
}

static fn_status create_streams(fn_cuda *cuda) {
  int least = 0, greatest = 0;
  FN_CUDA_TRY(cuda, cudaDeviceGetStreamPriorityRange(&least, &greatest), "asking for priorities");
  for (int s = 0; s < FN_STREAM_COUNT; s++) // copies are short and others wait for them
    FN_CUDA_TRY(cuda,
                cudaStreamCreateWithPriority(&cuda->stream[s], cudaStreamNonBlocking,
                                             s == FN_STREAM_COMPUTE ? least : greatest),
                "creating streams");
  for (int s = 0; s < FN_STREAM_COUNT; s++)
    FN_TRY(cuda->platform.device.allocate(
        &cuda->platform.device, FN_SQUARES_BLOCKS * sizeof(double), (void **)&cuda->partial[s]));
  return FN_OK;
}

fn_status fn_cuda_open(const fn_device_choice *choice) {
  fn_cuda *cuda = &fn_cuda_device;
  FN_TRY(choose(choice, &cuda->index));
  struct cudaDeviceProp properties;
  FN_CUDA_TRY(cuda, cudaGetDeviceProperties(&properties, cuda->index), "asking for its properties");
  FN_TRY(check_device(choice, cuda->index, &properties));
  FN_TRY(fn_cuda_enter(cuda));
  FN_TRY(describe(cuda, &properties));
  FN_TRY(create_streams(cuda));
  cuda->deterministic = choice->deterministic;
  cuda->tf32 = choice->tf32;
  const char *ranges = getenv("FIELDNET_NVTX");
  cuda->ranges = ranges && strcmp(ranges, "0") != 0;
  if (choice->cache) {
    cuda->cache = strdup(choice->cache);
    FN_CHECK(cuda->cache, FN_ERR_MEMORY, "out of memory");
  }
  // cuDNN asks the loader for cuBLASLt and the compiler by name alone: by then they are there.
  FN_TRY(fn_cublaslt_open(cuda, &cuda->cublaslt));
  fn_cuda_open_compiler();
  FN_TRY(fn_cudnn_open(cuda, &cuda->cudnn));
  fn_device_info *info = &cuda->platform.device.info;
  snprintf(info->library, sizeof info->library, "%s", fn_cudnn_version(cuda->cudnn));
  fn_log(FN_DETAIL, "GPU %d: %s, compute capability %d.%d, driver %s, CUDA %s, cuDNN %s",
         cuda->index, info->name, info->compute_major, info->compute_minor, info->driver,
         info->runtime, info->library);
  return FN_OK;
}
