/** @file program.h
 *  A graph made runnable: a flat list of prepared kernels over one arena.
 */
#ifndef FN_GRAPH_PROGRAM_H
#define FN_GRAPH_PROGRAM_H

#include "graph/parameters.h"
#include "graph/recorder.h"

typedef struct fn_program fn_program;

/** What may be computed twice to save memory. Results have the same bits in every mode. */
typedef enum fn_recompute {
  FN_RECOMPUTE_NONE,
  FN_RECOMPUTE_AUTO, /**< with a budget all that it takes; without one what lowers the peak for at
                        most one percent of the time, convolutions never */
  FN_RECOMPUTE_ELEMENTWISE, /**< all but convolutions and matrix products */
  FN_RECOMPUTE_ALL,
} fn_recompute;

typedef struct fn_program_options {
  const char *backend; /**< "reference", "cpu", ... */
  fn_dtype precision;  /**< FN_F32, FN_BF16 (activations), FN_F64 (reference only) */
  bool check;          /**< poison released memory with NaN, guard slots; slow */
  bool profile;        /**< time every kernel; a device is waited for after each */
  bool plan_only;      /**< stop after planning: no memory, no kernels; for check and describe */
  fn_recompute recompute;
  size_t memory_budget; /**< bytes of the arena; 0: none, as small as `recompute` makes it */
  fn_program *donor; /**< NULL, or a program that never runs at the same time and outlives this one:
                        its arena is used where it is large enough. Inputs and outputs of one are
                        then overwritten by a run of the other. */
  fn_recorder *recorder; /**< NULL, or the device to plan for: nothing is computed, and a run writes
                              down what a device would be told. Of a backend with a device */
  bool made_inputs; /**< on a device: large inputs are mostly made there (fn_program_make_input);
                       what copies from the host need is reserved when it is asked for */
  bool replay;      /**< on a device that can: record the second run and replay it from then on */
} fn_program_options;

/** A value to be kept readable after the run. */
typedef struct fn_program_output {
  const char *name;
  fn_value *value;
} fn_program_output;

/** Compile. On a backend with a device of its own, values live there, and so do the parameters from
 *  then on (fn_parameters_attach); operators without a kernel there are FN_ERR_UNSUPPORTED.
 *  outputs are readable by name after a run. gradients[i] (may be NULL) is written into
 *  parameters->gradients for the parameter leaf wrt[i]. The graph must outlive the program.
 *  Not collective; the graph must be the same on all ranks when collectives are used. */
fn_status fn_program_create(fn_graph *graph, fn_parameters *parameters,
                            const fn_program_options *options, const fn_program_output *outputs,
                            int output_count, fn_value *const *wrt, fn_value *const *gradients,
                            int gradient_count, fn_program **program);
void fn_program_destroy(fn_program *program);

/** Memory of input `name`, float32 (float64 in f64 programs), plain dense; write before a run. On a
 *  device it is one of two pinned buffers in turn: ask again for every run that is given other
 *  values, and write all of them. NULL: no such input or, with options.made_inputs, no memory. */
void *fn_program_input(fn_program *program, const char *name);
/** On a device: the next run's input `name` is not copied from the host; make() puts what writes it
 *  on the compute stream (fn_device.convert), when the run begins. For one run: every later one is
 *  given its input anew, either way. FN_ERR_INTERNAL without a device or such an input. */
typedef fn_status (*fn_input_make)(void *user, fn_device *device, const fn_tensor *input);
fn_status fn_program_make_input(fn_program *program, const char *name, fn_input_make make,
                                void *user);
const fn_shape *fn_program_input_shape(const fn_program *program, const char *name);
/** Memory of output `name` after a run, plain dense float32 (float64 in f64 programs). On a device
 *  small outputs were put on their way to the host at the end of the run, and the first call for a
 *  large one puts it; either waits for that copy alone. What could not be had is NaN: see
 *  fn_program_wait. */
const void *fn_program_output_data(const fn_program *program, const char *name);
const fn_shape *fn_program_output_shape(const fn_program *program, const char *name);

/** Wait for the last run and its small outputs. On a device a run returns when everything was put
 * on its streams, and what went wrong there shows here. */
fn_status fn_program_wait(fn_program *program);
/** Where programs run that this one shares streams with; NULL: the host. */
fn_device *fn_program_device(const fn_program *program);
/** Address of output `name` on the device, valid on the compute stream until the next run of any
 *  program that shares memory with this one. */
const void *fn_program_output_place(const fn_program *program, const char *name);

/** Called inside fn_program_run, in order of completion, when the gradient of
 *  parameters->entry[entry] is final; on a device: when all that makes it so was put on the compute
 *  stream. Returns whether somebody waits for it: a recorded run is cut there. */
typedef bool (*fn_gradient_ready)(void *user, int entry);
void fn_program_on_gradient(fn_program *program, fn_gradient_ready ready, void *user);

/** Called inside fn_program_run once per kernel, in order; times of fn_clock(). On the host after
 * the kernel; on a device at the end of the run, which then waits: events of the device have taken
 * the times, and nothing is recorded for replay. */
typedef void (*fn_kernel_done)(void *user, int kernel, double start, double end);
void fn_program_on_kernel(fn_program *program, fn_kernel_done done, void *user);

/** Run all kernels. Collective over context->collectives when the graph synchronises batch norm. */
fn_status fn_program_run(fn_program *program, const fn_run_context *context);

/* ---- what is known about a program ------------------------------------------------------------
 */

typedef struct fn_kernel_info {
  const char *op;      /**< operator name or "reorder" */
  const char *label;   /**< label of the first output, or scope of its weight, or "" */
  const char *backend; /**< who runs it */
  double flops;        /**< per run */
  double bytes;        /**< read and written per run */
  double seconds;      /**< sum over profiled runs */
  int64_t runs;
  bool repeats;   /**< computes again what was dropped */
  fn_shape shape; /**< of output 0 */
} fn_kernel_info;

int fn_program_kernel_count(const fn_program *program);
void fn_program_kernel_info(const fn_program *program, int index, fn_kernel_info *info);
const fn_kernel *fn_program_kernel(const fn_program *program, int index);
/** What kernels get as fn_run_context.workspace. */
void *fn_program_workspace(const fn_program *program);
void fn_program_profile_reset(fn_program *program);

typedef struct fn_program_memory {
  size_t arena;     /**< bytes planned for all values */
  size_t naive;     /**< bytes if every value had its own memory */
  size_t workspace; /**< bytes of shared scratch (0 when plan_only) */
  int reorders;     /**< reorder kernels inserted */
  int repeats;      /**< kernels that compute again what was dropped */
  double extra;     /**< their part of a run's time, estimated from FLOPs and bytes */
} fn_program_memory;
/** Whether no two values that live at the same time share memory: the plan, against the list of
 *  kernels. FN_ERR_INTERNAL names two that do. */
fn_status fn_program_check_plan(const fn_program *program);
void fn_program_memory_info(const fn_program *program, fn_program_memory *memory);

/** Seconds that fn_program_create spent until memory was planned, and from there (allocation,
 * kernels).
 */
void fn_program_create_times(const fn_program *program, double *plan, double *prepare);

#endif
