/** @file learn.h
 *  Optimizers and learning-rate schedules with PyTorch's definitions and defaults.
 */
#ifndef FN_LEARN_LEARN_H
#define FN_LEARN_LEARN_H

#include "config/run.h"
#include "graph/parameters.h"

typedef struct fn_optimizer fn_optimizer;

/** State arrays (zero) over the flat parameters. */
fn_status fn_optimizer_create(const fn_run *run, fn_parameters *parameters,
                              fn_optimizer **optimizer);
void fn_optimizer_destroy(fn_optimizer *optimizer);
/** One fused pass: gradients are multiplied by `scale` (clipping), then applied with rate lr. On a
 *  device it is put on the compute stream; on the host it cannot fail. */
fn_status fn_optimizer_step(fn_optimizer *optimizer, double lr, double scale);
int64_t fn_optimizer_steps(const fn_optimizer *optimizer);
void fn_optimizer_set_steps(fn_optimizer *optimizer, int64_t steps);

/** State arrays, parallel to parameters->values (count elements each, float32), named as PyTorch
 *  names them: exp_avg, exp_avg_sq, momentum_buffer, ... They are the host's: where a device works,
 *  fn_optimizer_to_host before reading, fn_optimizer_changed after writing. */
int fn_optimizer_state_count(const fn_optimizer *optimizer);
const char *fn_optimizer_state_name(const fn_optimizer *optimizer, int index);
float *fn_optimizer_state(fn_optimizer *optimizer, int index);
fn_status fn_optimizer_to_host(fn_optimizer *optimizer);
void fn_optimizer_changed(fn_optimizer *optimizer);
/** Scalars beyond the step count (NAdam's mu_product): name and pointer, count may be 0. */
int fn_optimizer_scalar_count(const fn_optimizer *optimizer);
double *fn_optimizer_scalar(fn_optimizer *optimizer, int index, const char **name);

/** L2 norm of all gradients on the host, summed in fixed order in double. */
double fn_gradient_norm(const fn_parameters *parameters);
/** The same where the gradients are, in an order that depends on nothing but their number. A device
 *  is waited for: all that was put on its compute stream is done. */
fn_status fn_gradient_norm_wait(fn_parameters *parameters, double *norm);
/** Of one parameter's gradient, for reports; NaN when its device has failed. */
double fn_gradient_norm_of(fn_parameters *parameters, const fn_tensor_entry *entry);
/** Name of the first parameter whose gradient on the host is not finite, or NULL; see
 *  fn_parameters_gradients_to_host. */
const char *fn_gradient_not_finite(const fn_parameters *parameters);

/* ---- schedules
 * ---------------------------------------------------------------------------------------- */

/** Learning rate as a function of progress; plateau also has state. Plain data: saved whole. */
typedef struct fn_schedule {
  double base_lr; /**< optimizer.lr */
  double current; /**< rate of the plateau schedule */
  double best;    /**< plateau */
  int64_t bad_epochs, cooldown_left;
  int64_t reductions; /**< times the plateau schedule lowered the rate */
} fn_schedule;

void fn_schedule_init(const fn_run *run, fn_schedule *schedule);
/** Rate for optimizer step `step` (0-based, whole run) in epoch `epoch` (0-based) of a run of
 *  `total_steps`. */
double fn_schedule_rate(const fn_run *run, const fn_schedule *schedule, int64_t step, int64_t epoch,
                        int64_t total_steps);
/** After an epoch, with the metric of schedule.metric; true when the rate was lowered. */
bool fn_schedule_epoch(const fn_run *run, fn_schedule *schedule, double metric);

#endif
