/** @file device.h
 *  A device with memory of its own: what programs, parameters, optimizers and the reduction of
 *  gradients need of it. Kernels and library calls are the backend's own affair.
 *
 *  Everything on a stream runs in the order it was put there and behind the caller's back; streams
 *  are ordered among each other by events alone. Host memory given to a copy must be pinned and
 *  stay untouched until the copy is done. No function here is collective. A device that has failed
 *  (FN_ERR_DEVICE) answers every later call with the same status and the first message. `passed`
 *  may be called from any thread at any time; all else from one thread, which opened the device.
 */
#ifndef FIELDNET_DEVICE_H
#define FIELDNET_DEVICE_H

#include <fieldnet/network.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What runs at the same time on a device. */
typedef enum fn_stream {
  FN_STREAM_COMPUTE, /**< kernels */
  FN_STREAM_IN,      /**< inputs, host to device */
  FN_STREAM_OUT,     /**< outputs, device to host */
  FN_STREAM_COMM,    /**< gradients, both ways */
  FN_STREAM_COUNT,
} fn_stream;

typedef enum fn_copy { FN_COPY_TO_DEVICE, FN_COPY_TO_HOST, FN_COPY_WITHIN } fn_copy;

/** A point in a stream. */
typedef struct fn_event fn_event;

/** How a weight is updated; names and formulas are those of src/learn/optimizer.c. */
typedef enum fn_update_rule {
  FN_UPDATE_SGD,
  FN_UPDATE_ADAM,
  FN_UPDATE_NADAM,
  FN_UPDATE_RMSPROP,
  FN_UPDATE_ADADELTA,
  FN_UPDATE_ADAGRAD,
} fn_update_rule;

/** One optimizer step over `count` float32 elements; arrays are the device's. */
typedef struct fn_update {
  fn_update_rule rule;
  int64_t count;
  float *weight;
  const float *gradient;
  float *state[3];
  /** Factors of the step; see src/backend/update.h for what the rules make of them. */
  float scale;   /**< of the gradient: clipping */
  float decay;   /**< weight decay added to the gradient */
  float shrink;  /**< weight decay applied to the weight: 1 - lr decay (AdamW) */
  float rate;    /**< of the update; includes bias correction where the algorithm has one */
  float rate2;   /**< NAdam: of the first moment */
  float divisor; /**< of the second moment: its bias correction (Adam: the square root of it) */
  float blend;   /**< SGD: factor of the gradient in the momentum buffer */
  /** Constants of the rule. */
  float eps, blend1, keep2, blend2, momentum;
  bool nesterov, centered, amsgrad, has_buffer;
} fn_update;

typedef struct fn_device_info {
  char name[128];
  int index; /**< among the visible ones; -1: emulated or assumed */
  int compute_major, compute_minor;
  size_t memory, memory_free; /**< bytes */
  int multiprocessors;
  char driver[32], runtime[32], library[32]; /**< versions: driver, CUDA, cuDNN */
} fn_device_info;

typedef struct fn_device fn_device;
struct fn_device {
  fn_device_info info;
  fn_status (*allocate)(fn_device *device, size_t bytes, void **memory);
  void (*release)(fn_device *device, void *memory);
  /** Host memory that copies can use. */
  fn_status (*allocate_pinned)(fn_device *device, size_t bytes, void **memory);
  void (*release_pinned)(fn_device *device, void *memory);

  fn_status (*copy)(fn_device *device, fn_stream stream, void *to, const void *from, size_t bytes,
                    fn_copy direction);
  fn_status (*clear)(fn_device *device, fn_stream stream, void *memory, size_t bytes);

  fn_status (*event_create)(fn_device *device, fn_event **event);
  void (*event_destroy)(fn_device *device, fn_event *event);
  fn_status (*record)(fn_device *device, fn_stream stream, fn_event *event);
  /** Work put on `stream` from now on starts after `event` (its last record; none: at once). */
  fn_status (*wait)(fn_device *device, fn_stream stream, fn_event *event);
  /** Whether the event's last record was passed; does not wait. */
  fn_status (*passed)(fn_device *device, fn_event *event, bool *yes);
  /** The host waits. */
  fn_status (*synchronize_event)(fn_device *device, fn_event *event);
  fn_status (*synchronize)(fn_device *device, fn_stream stream);
  /** An event that keeps the time at which it was passed; else like event_create. NULL functions:
   * the device has no clock. */
  fn_status (*timer_create)(fn_device *device, fn_event **event);
  /** Seconds on the device's clock between two such events, both passed. */
  fn_status (*elapsed)(fn_device *device, fn_event *from, fn_event *to, double *seconds);

  /** float32 arrays on the device. sum := keep sum + factor x. */
  fn_status (*add_scaled)(fn_device *device, fn_stream stream, float *sum, const float *x,
                          float keep, float factor, int64_t count);
  /** *result (device, double) := sum of squares in an order that depends on count alone. */
  fn_status (*sum_squares)(fn_device *device, fn_stream stream, const float *x, int64_t count,
                           double *result);
  fn_status (*update)(fn_device *device, fn_stream stream, const fn_update *update);

  /** Record what is put on the compute stream from now on instead of running it, until capture_end,
   *  which hands out the whole to be replayed with one call. NULL functions: the device cannot.
   *  Events recorded and waited for inside keep their meaning for other streams at every replay. */
  fn_status (*capture_begin)(fn_device *device);
  fn_status (*capture_end)(fn_device *device, void **recording);
  fn_status (*replay)(fn_device *device, void *recording);
  void (*recording_destroy)(fn_device *device, void *recording);
};

#ifdef __cplusplus
}
#endif
#endif
