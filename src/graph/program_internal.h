/** @file program_internal.h
 *  A program while it is made: steps on places, places in storages.
 *
 *  A place is a value lying in memory in one layout. A place may be a window of another place (a
 *  channel range of a concat, a reshape, the result of an operator that overwrites its input); the
 *  outermost one owns a storage, which the planner gives an address.
 */
#ifndef FN_GRAPH_PROGRAM_INTERNAL_H
#define FN_GRAPH_PROGRAM_INTERNAL_H

#include "graph/internal.h"
#include "graph/program.h"

typedef struct place {
  fn_shape shape;
  fn_dtype dtype;
  int64_t block;
  int64_t batch_stride; /**< elements */
  int64_t pitch;        /**< elements from cell to cell: block, or more in a channels-last window */
  int parent;           /**< place this is a window of; -1: owns storage */
  int64_t offset;       /**< elements into the parent */
  int children;         /**< windows of this place */
  int writer;           /**< step that writes it; -1: none */
  bool strided_out;     /**< its writer honours batch_stride */
  /* owners only: */
  void *external;  /**< memory that is not in the arena */
  bool constant;   /**< computed from parameters and buffers alone: kept from run to run */
  bool pinned;     /**< lives through the whole run; never overwritten in place */
  int first, last; /**< steps of its life */
  size_t bytes, address;
} place;

typedef struct step {
  fn_node *node; /**< for reorders: a node of its own with one input and one output */
  const fn_backend *backend;
  bool is_reorder;
  bool repeats;     /**< of an earlier step, for one of its storages */
  bool is_constant; /**< runs only when the parameters have changed */
  const char *label;
  int *input, *output; /**< places; -1: absent */
  fn_node_plan plan;
  fn_kernel kernel;
  double seconds;
  int64_t runs;
} step;

typedef struct named_place {
  const char *name;
  int place;
} named_place;

/** After step `step` the gradient of parameters->entry[entry] is final. */
typedef struct landing {
  int step, entry;
  bool awaited; /**< what fn_gradient_ready answered last */
} landing;

/** What a program has on a device beside its arena; program_device.c. */
typedef struct device_part device_part;

struct fn_program {
  fn_arena *tables;
  fn_program_options options;
  const fn_backend *backend, *reference;
  fn_device *device; /**< NULL: the host */
  device_part *part; /**< NULL: the host, or plan_only */
  fn_parameters *parameters;
  fn_graph *graph;

  place *place;
  int place_count, place_capacity;
  step *step;
  int step_count, step_capacity;

  named_place *input, *output;
  int input_count, output_count;

  landing *landing; /**< ascending steps */
  int landing_count;

  int *value_place; /**< [graph values]: primary place or -1 */
  int *value_copy;  /**< [graph values]: place in the other layout, or -1 */

  void *arena;
  bool arena_borrowed, workspace_borrowed; /**< they belong to options.donor */
  size_t arena_bytes, naive_bytes, workspace_bytes;
  void *workspace;
  void
      *constants; /**< outputs of constant steps: other programs of the arena must not touch them */
  size_t constants_bytes;
  uint64_t constants_version; /**< of the parameters they were computed from */
  int reorders;
  double extra_share; /**< time of repetitions / time of a run, estimated */

  fn_gradient_ready ready;
  void *ready_user;
  fn_kernel_done done;
  void *done_user;
  double plan_seconds, prepare_seconds;
  unsigned char *guards, *poison; /**< check mode on a device: pinned */
};

/** Owner of a place, and the place's offset in it (elements of its dtype). */
int fn_place_owner(const fn_program *program, int index, int64_t *offset);
size_t fn_place_bytes(const place *p);
/** Whether all steps that read the place so far honour a batch stride beyond the sample. */
bool fn_readers_allow_strides(const fn_program *program, int index);

/** Nodes to steps: layouts, views, reorders. */
fn_status fn_program_lower(fn_program *program, const fn_program_output *outputs, int output_count,
                           fn_value *const *wrt, fn_value *const *gradients, int gradient_count);
/** Address of a place: the device's, where the program has one. */
void *fn_place_data(const fn_program *program, int index);
/** A place as kernels see it; zeros for -1. */
fn_tensor fn_place_tensor(const fn_program *program, int index);
/** Run one step; landings after it are the caller's. */
fn_status fn_program_step(fn_program *program, int index, const fn_run_context *context);
/** Whether somebody wants to know how long kernels take. */
bool fn_program_is_timed(const fn_program *program);
/** One run of a step; times of fn_clock(). */
void fn_program_note_time(fn_program *program, int index, double start, double end);
/** Tell of the gradients that are final after step `index`, from landing *landed on. */
void fn_program_land(fn_program *program, int index, int *landed);

/* ---- on a device: program_device.c, program_check.c ---------------------------------------------
 */

/** Memory on the device or, without one, on the host; zero there. */
fn_status fn_program_allocate(const fn_program *program, size_t bytes, void **memory);
void fn_program_release(const fn_program *program, void *memory, size_t bytes);
fn_status fn_device_part_create(fn_program *program);
void fn_device_part_destroy(fn_program *program);
fn_status fn_device_run(fn_program *program, const fn_run_context *context);
void *fn_device_input(fn_program *program, int index);
void fn_device_make_input(fn_program *program, int index, fn_input_make make, void *user);
const void *fn_device_output(fn_program *program, int index);
fn_status fn_device_wait(fn_program *program);
/** For options.recorder: what the step's kernel would touch. */
fn_status fn_device_record_step(fn_program *program, int index);

/** Check mode: guards behind every storage; after a step, see to them and poison what died. */
fn_status fn_check_start(fn_program *program);
fn_status fn_check_step(fn_program *program, int index);
void fn_check_end(fn_program *program);

/** Order of steps, what is computed twice, and the memory plan. */
fn_status fn_program_schedule(fn_program *program);
/** Addresses of the constants in a buffer of their own; returns its size. */
size_t fn_program_plan_constants(fn_program *program);
/** Lifetimes, in-place results and addresses. */
fn_status fn_program_plan_memory(fn_program *program);

#endif
