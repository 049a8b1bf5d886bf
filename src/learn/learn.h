/** @file learn.h
 *  Optimizers and learning-rate schedules with PyTorch's definitions and defaults.
 */
#ifndef FN_LEARN_LEARN_H
#define FN_LEARN_LEARN_H

#include "config/run.h"
#include "graph/parameters.h"
#include "learn/judge.h"

typedef struct fn_optimizer fn_optimizer;

/** State arrays (zero) over the flat parameters. */
fn_status fn_optimizer_create(const fn_run *run, fn_parameters *parameters,
                              fn_optimizer **optimizer);
void fn_optimizer_destroy(fn_optimizer *optimizer);
/** One fused pass: gradients are multiplied by `scale` (clipping), then applied with rate lr. On a
 *  device it is put on the compute stream; on the host it cannot fail. */
fn_status fn_optimizer_step(fn_optimizer *optimizer, double lr, double scale);
/** The same step as the judge says, once that is known where the gradients are: with its scale, or
 *  not at all. It counts from fn_optimizer_begin on, in either case: see fn_optimizer_undo. Give
 * the factors to fn_judge_put, and have fn_optimizer_obey among what obeys the judge. */
fn_status fn_optimizer_begin(fn_optimizer *optimizer, double lr, const fn_judge *judge);
const fn_update_factors *fn_optimizer_factors(const fn_optimizer *optimizer);
fn_status fn_optimizer_obey(void *optimizer);
/** Begin and judge, for a judge that nobody else obeys. */
fn_status fn_optimizer_step_judged(fn_optimizer *optimizer, double lr, fn_judge *judge,
                                   const fn_step_facts *facts);
/** The last step was not taken: it does not count. */
void fn_optimizer_undo(fn_optimizer *optimizer);
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

/** L2 norm of all gradients on the host, summed in fixed order in double; its square; the square of
 *  one parameter's. */
double fn_gradient_norm(const fn_parameters *parameters);
double fn_gradient_squares(const fn_parameters *parameters);
double fn_gradient_squares_of(fn_parameters *parameters, const fn_tensor_entry *entry);
/** Place of the last gradient on the host that is not finite, -1: none; see
 *  fn_parameters_gradients_to_host. Parameters lie in reverse order of creation: the first of them
 *  that has such gradients has this one. */
int64_t fn_gradient_not_finite(const fn_parameters *parameters);
/** Name of the parameter at a place among the gradients; NULL: none. */
const char *fn_gradient_name(const fn_parameters *parameters, int64_t place);

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
