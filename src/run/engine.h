/** @file engine.h
 *  A run's network on this rank: parameters and the programs that train and evaluate it.
 */
#ifndef FN_RUN_ENGINE_H
#define FN_RUN_ENGINE_H

#include "data/dataset.h"
#include "dist/dist.h"
#include "graph/program.h"
#include "models/models.h"

typedef struct fn_engine fn_engine;

/** Check sizes against the network's rule, build graph and parameters (initial values drawn).
 *  `info` gives channels and extents. Not collective. */
fn_status fn_engine_create(const fn_run *run, const fn_dist *dist, const fn_dataset_info *info,
                           fn_engine **engine);
void fn_engine_destroy(fn_engine *engine);

/** Before the first program: plan for a device that only writes down what it is told. The recorder
 *  must outlive the engine. */
fn_status fn_engine_assume(fn_engine *engine, fn_recorder *recorder);

/** Before the first program: training programs have "output", too. */
void fn_engine_keep_output(fn_engine *engine);

fn_parameters *fn_engine_parameters(fn_engine *engine);

/** Whether a device that can is to record steps and replay them: compute.graphs. */
bool fn_engine_replays(const fn_run *run);
/** Whether the run's backend has a device that is to convert batches: data.convert. */
bool fn_engine_converts(const fn_run *run);
/** Before the first program: batches of this data set (NULL: of any) are converted by the engine's
 * device, where it has one and data.convert allows it. FN_ERR_CONFIG for data.convert: device
 * without one. */
fn_status fn_engine_take_raw(fn_engine *engine, fn_dataset *dataset);

/** Program for batches of `batch` samples; made at the first call, kept, sharing memory with the
 *  others. Inputs "input" and "target"; outputs "loss" and "output_window" (what the loss sees of
 *  the network's output), of evaluation programs also "output" and, with targets, "target_window"
 *  and, where the output has spatial axes, "input_window": both in float32 whatever the precision.
 *  Training programs write parameters->gradients; evaluation programs without target (has_target
 *  false) have no loss. */
fn_status fn_engine_program(fn_engine *engine, bool training, bool has_target, int64_t batch,
                            fn_program **program);
/** Same with kernels timed, or only planned. */
fn_status fn_engine_program_with(fn_engine *engine, bool training, bool has_target, int64_t batch,
                                 bool profile, bool plan_only, fn_program **program);
/** Programs for a rank's training batches: `samples` samples, train.batch at a time, the last batch
 *  shorter. So that a batch that cannot be trained on (batch norm over one value) is found before
 *  the first step. FN_ERR_CONFIG says which batch it is. */
fn_status fn_engine_plan_batches(fn_engine *engine, int64_t samples, bool plan_only);
/** Shape of the network's output for one sample, [1, channels, edges...] or [1, channels]. */
fn_status fn_engine_output_shape(fn_engine *engine, fn_shape *shape);
/** Fewest samples that a training step of the run's network takes. */
fn_status fn_engine_fewest_samples(const fn_run *run, int64_t *samples);
/** Warn, once, when the network's output is smaller than the target: the loss then compares only
 * the target's centre, which is legal but seldom meant. */
fn_status fn_engine_warn_narrow(fn_engine *engine);

/** Give a program one batch: copied into its inputs, or on its way to the device to be converted by
 *  the next run; it must then stay until that was put on the streams. A training program in f16 has
 * one input more, the scalar "loss_scale", which is set to 1 here: gradients are those of the loss
 * times it. FN_ERR_INTERNAL when it is not of the program's sizes.
 */
fn_status fn_engine_feed(fn_program *program, const fn_batch *batch);

/** Sizes of input, pad and target against each other and the network's rule, named by key and
 *  position in the YAML. Returns FN_ERR_CONFIG with all complaints. */
fn_status fn_engine_check_sizes(const fn_run *run, const fn_dataset_info *info);

#endif
