#include "dist/device_gradients.h"

#include <mpi.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct fn_device_gradients {
  fn_parameters *parameters;
  fn_device *device;
  void *memory; /**< [count]: pinned, or the device's own */
  bool direct;
  fn_dtype type;    /**< in memory */
  uint16_t *narrow; /**< [count] on the device, for bfloat16 */
  int buckets;
  fn_event **final, **arrived; /**< [buckets]: on the compute stream; in MPI's memory */
  fn_event *back;
  pthread_mutex_t lock; // of what follows
  fn_status status;     /**< first failure of this step */
  char message[1024];
};

bool fn_mpi_sums_device_memory(void) {
  // Open MPI, which defines both, takes such addresses in sends, receives and blocking collective
  // calls only (FAQ "Running CUDA-aware Open MPI", 1).
#if defined(MPIX_CUDA_AWARE_SUPPORT) && MPIX_CUDA_AWARE_SUPPORT && !defined(OPEN_MPI)
  return MPIX_Query_cuda_support() != 0;
#else
  return false;
#endif
}

/** Ranks wait for each other's buckets: what failed is kept and told at the end. */
static void keep(fn_device_gradients *g, fn_status status) {
  if (status == FN_OK) return;
  pthread_mutex_lock(&g->lock);
  if (g->status == FN_OK) {
    g->status = status;
    strncpy(g->message, fn_error_message(), sizeof g->message - 1);
  }
  pthread_mutex_unlock(&g->lock);
}

static fn_status create(fn_device_gradients *g) {
  fn_device *d = g->device;
  g->final = calloc((size_t)g->buckets + 1, sizeof(fn_event *));
  g->arrived = calloc((size_t)g->buckets + 1, sizeof(fn_event *));
  FN_CHECK(g->final && g->arrived, FN_ERR_MEMORY, "out of memory");
  for (int k = 0; k < g->buckets; k++) {
    FN_TRY(d->event_create(d, &g->final[k]));
    FN_TRY(d->event_create(d, &g->arrived[k]));
  }
  FN_TRY(d->event_create(d, &g->back));
  if (g->direct) {
    g->memory = fn_parameters_mirror(g->parameters, FN_MIRROR_GRADIENTS)->memory;
    return FN_OK;
  }
  const size_t bytes = (size_t)g->parameters->count * fn_dtype_size(g->type);
  if (g->type == FN_BF16) FN_TRY(d->allocate(d, bytes, (void **)&g->narrow));
  FN_TRY(d->allocate_pinned(d, bytes, &g->memory));
  memset(g->memory, 0, bytes);
  return FN_OK;
}

fn_status fn_device_gradients_create(fn_parameters *parameters, int buckets, bool direct,
                                     fn_dtype type, fn_device_gradients **gradients) {
  fn_device_gradients *g = *gradients = calloc(1, sizeof *g);
  FN_CHECK(g, FN_ERR_MEMORY, "out of memory");
  g->parameters = parameters;
  g->device = parameters->device;
  g->direct = direct;
  g->type = type;
  g->buckets = buckets;
  pthread_mutex_init(&g->lock, NULL);
  const fn_status status = create(g);
  if (status == FN_OK) return FN_OK;
  fn_device_gradients_destroy(g);
  *gradients = NULL;
  return fn_error_context(status, "pinned memory for gradients");
}

void fn_device_gradients_destroy(fn_device_gradients *g) {
  if (!g) return;
  fn_device *d = g->device;
  (void)d->synchronize(d, FN_STREAM_COMM); // copies on their way; a failed device makes none
  (void)d->synchronize(d, FN_STREAM_COMPUTE);
  for (int k = 0; k < g->buckets; k++) {
    if (g->final && g->final[k]) d->event_destroy(d, g->final[k]);
    if (g->arrived && g->arrived[k]) d->event_destroy(d, g->arrived[k]);
  }
  if (g->back) d->event_destroy(d, g->back);
  if (!g->direct && g->memory) d->release_pinned(d, g->memory);
  if (g->narrow) d->release(d, g->narrow);
  free(g->final);
  free(g->arrived);
  pthread_mutex_destroy(&g->lock);
  free(g);
}

void *fn_device_gradients_memory(const fn_device_gradients *gradients) {
  return gradients->memory;
}

bool fn_device_gradients_unweighted(const fn_device_gradients *gradients) {
  return !gradients->direct && gradients->type == FN_F32;
}

/** As the host does it: no sample, no gradient, whatever it holds. */
static fn_status weigh(fn_device *d, float *x, int64_t count, double weight) {
  if (weight == 1) return FN_OK;
  if (weight == 0) return d->clear(d, FN_STREAM_COMM, x, (size_t)count * sizeof *x);
  return d->add_scaled(d, FN_STREAM_COMM, x, x, (float)weight, 0, count);
}

static fn_status send(fn_device_gradients *g, int bucket, int64_t offset, int64_t count,
                      double weight) {
  fn_device *d = g->device;
  float *there = (float *)fn_parameters_mirror(g->parameters, FN_MIRROR_GRADIENTS)->memory + offset;
  FN_TRY(d->record(d, FN_STREAM_COMPUTE, g->final[bucket]));
  FN_TRY(d->wait(d, FN_STREAM_COMM, g->final[bucket]));
  if (g->direct) {
    FN_TRY(weigh(d, there, count, weight));
  } else if (g->type == FN_BF16) {
    FN_TRY(d->to_bf16(d, FN_STREAM_COMM, g->narrow + offset, there, (float)weight, count));
    FN_TRY(d->copy(d, FN_STREAM_COMM, (uint16_t *)g->memory + offset, g->narrow + offset,
                   (size_t)count * sizeof(uint16_t), FN_COPY_TO_HOST));
  } else {
    FN_TRY(d->copy(d, FN_STREAM_COMM, (float *)g->memory + offset, there,
                   (size_t)count * sizeof(float), FN_COPY_TO_HOST));
  }
  return d->record(d, FN_STREAM_COMM, g->arrived[bucket]);
}

void fn_device_gradients_send(fn_device_gradients *gradients, int bucket, int64_t offset,
                              int64_t count, double weight) {
  keep(gradients, send(gradients, bucket, offset, count, weight));
}

bool fn_device_gradients_arrived(fn_device_gradients *gradients, int bucket, bool wait) {
  fn_device *d = gradients->device;
  bool yes = true;
  const fn_status status = wait ? d->synchronize_event(d, gradients->arrived[bucket])
                                : d->passed(d, gradients->arrived[bucket], &yes);
  keep(gradients, status);
  return yes || status != FN_OK;
}

static fn_status bring_back(fn_device_gradients *g, int64_t offset, int64_t count) {
  fn_device *d = g->device;
  float *there = (float *)fn_parameters_mirror(g->parameters, FN_MIRROR_GRADIENTS)->memory + offset;
  if (g->type == FN_F32)
    return d->copy(d, FN_STREAM_COMM, there, (float *)g->memory + offset,
                   (size_t)count * sizeof(float), FN_COPY_TO_DEVICE);
  FN_TRY(d->copy(d, FN_STREAM_COMM, g->narrow + offset, (uint16_t *)g->memory + offset,
                 (size_t)count * sizeof(uint16_t), FN_COPY_TO_DEVICE));
  return d->from_bf16(d, FN_STREAM_COMM, there, g->narrow + offset, count);
}

void fn_device_gradients_return(fn_device_gradients *g, int64_t offset, int64_t count) {
  if (!g->direct) keep(g, bring_back(g, offset, count));
}

fn_status fn_device_gradients_join(fn_device_gradients *g) {
  fn_device *d = g->device;
  keep(g, d->record(d, FN_STREAM_COMM, g->back));
  keep(g, d->wait(d, FN_STREAM_COMPUTE, g->back));
  fn_parameters_changed_on_device(g->parameters, FN_MIRROR_GRADIENTS);
  pthread_mutex_lock(&g->lock);
  const fn_status status = g->status;
  g->status = FN_OK;
  pthread_mutex_unlock(&g->lock);
  return status == FN_OK ? FN_OK : fn_error_set(status, __FILE__, __LINE__, "%s", g->message);
}
