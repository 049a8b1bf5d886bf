/** @file parameters.h
 *  All parameters and buffers of a model in flat memory: slices are buckets, views are checkpoints.
 */
#ifndef FN_GRAPH_PARAMETERS_H
#define FN_GRAPH_PARAMETERS_H

#include "graph/graph.h"
#include "graph/mirror.h"

typedef struct fn_tensor_entry {
  const char *name;
  fn_shape shape;
  fn_role role;
  fn_init init;
  int64_t offset; /**< elements into values and gradients (parameters) or buffers */
  int64_t count;  /**< elements */
  bool is_buffer;
} fn_tensor_entry;

/** The arrays of fn_parameters that have a twin on the device. */
typedef enum fn_mirrored {
  FN_MIRROR_VALUES,
  FN_MIRROR_GRADIENTS,
  FN_MIRROR_BUFFERS,
  FN_MIRRORS
} fn_mirrored;

/** Parameters lie in reverse creation order, so that gradients become ready from the front to the
 *  back during the backward pass; every parameter starts at a multiple of 16 elements (gaps are
 *  zero and stay zero). */
typedef struct fn_parameters {
  fn_dtype dtype;  /**< FN_F32, or FN_F64 in tests of the reference backend */
  int entry_count; /**< parameters and buffers, creation order */
  fn_tensor_entry *entry;
  int64_t count;                /**< elements of values and gradients, gaps included */
  int64_t buffer_count;         /**< elements of buffers */
  int64_t parameter_total;      /**< elements of parameters without gaps */
  void *values;                 /**< shape [count] */
  void *gradients;              /**< shape [count] */
  void *buffers;                /**< shape [buffer_count] */
  uint64_t version;             /**< see fn_parameters_changed() */
  fn_device *device;            /**< where programs and optimizer find them; NULL: the host */
  fn_mirror mirror[FN_MIRRORS]; /**< with a device: values, gradients, buffers there */
  fn_arena *arena;
} fn_parameters;

/** Entries of all parameters and buffers of the graph; memory is zero. */
fn_status fn_parameters_create(const fn_graph *graph, fn_dtype dtype, fn_parameters **parameters);
void fn_parameters_destroy(fn_parameters *parameters);
/** Entry by name, or NULL. */
const fn_tensor_entry *fn_parameters_find(const fn_parameters *parameters, const char *name);
/** First element of the entry in values or buffers. */
void *fn_parameters_data(const fn_parameters *parameters, const fn_tensor_entry *entry);
void *fn_parameters_gradient(const fn_parameters *parameters, const fn_tensor_entry *entry);
/** To be called by whoever has written values or buffers on the host: programs that keep what they
 * computed from them (folded batch norms) compute it again at their next run. */
void fn_parameters_changed(fn_parameters *parameters);
/** The same for buffers alone, which spares a device the copy of all values. */
void fn_parameters_buffers_changed(fn_parameters *parameters);

/* ---- on a device -------------------------------------------------------------------------------
 */

/** Keep values, gradients and buffers on a device from now on. The host's arrays stay where they
 *  are and become copies: who reads them calls fn_parameters_to_host before, who writes them
 *  fn_parameters_changed after. Nothing happens when they are there already; FN_ERR_INTERNAL when
 *  they are on another device, FN_ERR_UNSUPPORTED for float64. */
fn_status fn_parameters_attach(fn_parameters *parameters, fn_device *device);
fn_mirror *fn_parameters_mirror(fn_parameters *parameters, fn_mirrored which);
/** To be called by whoever has put a write of the device's array on the compute stream. */
void fn_parameters_changed_on_device(fn_parameters *parameters, fn_mirrored which);
/** Upload what was written on the host; called by programs and optimizers. */
fn_status fn_parameters_to_device(fn_parameters *parameters);
/** Bring values and buffers on the host up to date; waits for the device if it wrote them. */
fn_status fn_parameters_to_host(fn_parameters *parameters);
fn_status fn_parameters_buffers_to_host(fn_parameters *parameters);
fn_status fn_parameters_gradients_to_host(fn_parameters *parameters);
/** As fn_parameters_data and fn_parameters_gradient: where programs find them. */
void *fn_parameters_place(fn_parameters *parameters, const fn_tensor_entry *entry);
void *fn_parameters_gradient_place(fn_parameters *parameters, const fn_tensor_entry *entry);

/** Draw initial values: a pure function of (seed, name). With weight_std >= 0: weights
 *  N(0, std), norm scales N(1, std), norm shifts 0, biases as by default. */
void fn_parameters_initialise(fn_parameters *parameters, uint64_t seed, double weight_std);

#endif
