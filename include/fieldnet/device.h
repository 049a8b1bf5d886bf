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

/** What becomes of a training step. */
typedef enum fn_step_verdict {
  FN_STEP_TAKEN,    /**< weights are updated */
  FN_STEP_LEFT_OUT, /**< the gradients exceed f16: the loss scale is to be lowered */
  FN_STEP_BAD,      /**< loss or gradients are not finite, and nobody knows better */
  FN_VERDICTS,
} fn_step_verdict;

/** What was found out about a step, where its gradients are: src/backend/judge.h. */
typedef struct fn_judgement {
  double squares[3]; /**< sums of squares: all gradients; those of two parameters, for reports */
  double norm;       /**< of the gradients, the loss scale taken out */
  double loss;       /**< as fn_step_facts.loss has it; 0 without */
  int64_t bad;       /**< a bad step: the last gradient that is not finite; -1: none */
  float scale;       /**< of the gradients in the update: clipping, loss scale */
  float next_scale;  /**< loss scale of the step to come */
  fn_step_verdict verdict;
} fn_judgement;

/** What a step is judged by. */
typedef struct fn_step_facts {
  const float *loss;             /**< where the gradients are; must be finite; NULL: the host knows
                                      that it is, or `bad` */
  bool bad;                      /**< a loss is not finite */
  bool lowers;                   /**< gradients that are not finite lower the loss scale */
  double clip;                   /**< largest norm; 0: any */
  double loss_scale;             /**< that the gradients were multiplied by */
  float next_scale[FN_VERDICTS]; /**< loss scale of the step to come, by verdict */
} fn_step_facts;

/** What changes in an update from step to step; see src/backend/update.h for what the rules make of
 *  it. */
typedef struct fn_update_factors {
  float scale;   /**< of the gradient: clipping */
  float decay;   /**< weight decay added to the gradient */
  float shrink;  /**< weight decay applied to the weight: 1 - lr decay (AdamW) */
  float rate;    /**< of the update; includes bias correction where the algorithm has one */
  float rate2;   /**< NAdam: of the first moment */
  float divisor; /**< of the second moment: its bias correction (Adam: the square root of it) */
  float blend;   /**< SGD: factor of the gradient in the momentum buffer */
} fn_update_factors;

/** One optimizer step over `count` float32 elements; arrays are the device's. */
typedef struct fn_update {
  fn_update_rule rule;
  int64_t count;
  float *weight;
  const float *gradient;
  float *state[3];
  const fn_judgement *judgement; /**< the device's: nothing happens unless the step was taken, and
                                      the scale is the judgement's; NULL: not judged */
  const fn_update_factors *factors; /**< the device's, which stand for `by`; NULL: none */
  fn_update_factors by;
  /** Constants of the rule. */
  float eps, blend1, keep2, blend2, momentum;
  bool nesterov, centered, amsgrad, has_buffer;
} fn_update;

/** Number types of files that a device reads; FN_RAW_NONE: another one. */
typedef enum fn_raw_type {
  FN_RAW_NONE = -1,
  FN_RAW_F32,
  FN_RAW_F64,
  FN_RAW_F16,
  FN_RAW_U8,
  FN_RAW_I16,
  FN_RAW_I32,
  FN_RAW_BF16,
  FN_RAW_I8,
  FN_RAW_U16,
  FN_RAW_U32,
  FN_RAW_I64,
  FN_RAW_U64,
  FN_RAW_TYPES,
} fn_raw_type;
/** Bytes of one number; 0 for FN_RAW_NONE. */
static inline size_t fn_raw_bytes(fn_raw_type type) {
  switch (type) {
    case FN_RAW_U8:
    case FN_RAW_I8: return 1;
    case FN_RAW_F16:
    case FN_RAW_BF16:
    case FN_RAW_I16:
    case FN_RAW_U16: return 2;
    case FN_RAW_F32:
    case FN_RAW_I32:
    case FN_RAW_U32: return 4;
    case FN_RAW_F64:
    case FN_RAW_I64:
    case FN_RAW_U64: return 8;
    default: return 0;
  }
}

/** A normalisation: what becomes of x, in double and rounded to float once. */
typedef enum fn_raw_norm {
  FN_RAW_SCALE, /**< factor x + shift */
  FN_RAW_EXP,   /**< exp(x) */
  FN_RAW_EXPM1, /**< exp(x) - 1 */
  FN_RAW_LOG,   /**< log(x + shift) */
  FN_RAW_LOG1P, /**< log(1 + x + shift) */
} fn_raw_norm;

/** What a sample has of its own where others of its batch differ, in the device's memory. */
typedef struct fn_raw_own {
  /** Numbers from the sample's first one on: to its first cell, and from cell to cell along its
   *  axes, of which the last are the last. */
  int64_t start, stride[FN_MAX_SPATIAL];
  double shift; /**< of the norm */
  float mul;    /**< random factor, or the cube's */
} fn_raw_own;

/** One field of a sample as it lies in a file, [channels, extent...] in C order and in the byte
 *  order of the machine, and what is to become of it. */
typedef struct fn_raw_field {
  const void *data; /**< the device's memory */
  fn_raw_type type;
  int spatial;
  int64_t channels, extent[FN_MAX_SPATIAL]; /**< along the file's axes */
  int permutation[FN_MAX_SPATIAL];          /**< axis a of the sample is axis permutation[a] */
  bool flip[FN_MAX_SPATIAL];                /**< axes of the file */
  bool vector;                              /**< channels are components and turn with the axes */
  fn_raw_norm norm;
  double factor, shift; /**< of the norm; a shift of -0.0 changes nothing, not even a sign */
  /** Random summands and factors per channel, or one for all; NULL: none. */
  const float *add, *mul;
  int factors; /**< entries of add and mul: 1 or channels */
  /** Samples of which all this is true, `step` numbers apart; 0 counts as 1. */
  int64_t samples, step;
  /** Not NULL: the first sample's, further ones as far apart as their numbers. It stands for
   *  permutation, flip, shift and mul; extent is along the sample's axes. */
  const fn_raw_own *own;
} fn_raw_field;
/** Bytes from the first number of the first sample to behind the last one of the last. */
static inline size_t fn_raw_field_bytes(const fn_raw_field *field) {
  int64_t numbers = field->channels;
  for (int d = 0; d < field->spatial; d++)
    numbers *= field->extent[d];
  if (field->samples > 1) numbers += (field->samples - 1) * field->step;
  return (size_t)numbers * fn_raw_bytes(field->type);
}
/** The same of field.own, in bytes from it on; 0 without. */
static inline size_t fn_raw_own_bytes(const fn_raw_field *field) {
  const size_t more = field->samples > 1 ? (size_t)(field->samples - 1) : 0;
  return field->own ? more * (size_t)field->step * fn_raw_bytes(field->type) + sizeof *field->own
                    : 0;
}

typedef struct fn_tensor fn_tensor;

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
  /** bfloat16 y := factor x, rounded to nearest even; with factor 0 zero, whatever x holds. */
  fn_status (*to_bf16)(fn_device *device, fn_stream stream, uint16_t *y, const float *x,
                       float factor, int64_t count);
  fn_status (*from_bf16)(fn_device *device, fn_stream stream, float *y, const uint16_t *x,
                         int64_t count);
  /** *result (device, double) := sum of squares in an order that depends on count alone. */
  fn_status (*sum_squares)(fn_device *device, fn_stream stream, const float *x, int64_t count,
                           double *result);
  fn_status (*update)(fn_device *device, fn_stream stream, const fn_update *update);
  /** Complete the judgement, whose squares[0] is the sum of squares of the gradients; all
   *  addresses are the device's. */
  fn_status (*judge)(fn_device *device, fn_stream stream, const fn_step_facts *facts,
                     const float *gradient, int64_t count, fn_judgement *judgement);
  /** add_scaled, and y := x, which happen if the device's `judgement` has this verdict. */
  fn_status (*add_scaled_if)(fn_device *device, fn_stream stream, const fn_judgement *judgement,
                             fn_step_verdict verdict, float *sum, const float *x, float keep,
                             float factor, int64_t count);
  fn_status (*copy_if)(fn_device *device, fn_stream stream, const fn_judgement *judgement,
                       fn_step_verdict verdict, float *y, const float *x, int64_t count);
  /** Normalise and turn a field on the compute stream: its channels become channels `at`, `at` + 1
   *  ... of row n of y [N, C, s...], further samples those of the rows behind it; y has room. The
   * descriptor is copied, the numbers are not. */
  fn_status (*convert)(fn_device *device, const fn_raw_field *field, const fn_tensor *y, int64_t n,
                       int64_t at);

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
