/** @file judge.h
 *  Whether the gradients of a step are applied and by which factor, decided where they are. On a
 *  device that is a kernel, which what follows on the stream obeys; the host hears of it later. Not
 *  collective: ranks that hold the same gradients and give the same facts come to the same result.
 *
 *  On a device the end of a step (judge, optimizer, averages) is the same work at every step: what
 *  changes, the facts and the optimizer's factors, lies in memory there, written by a copy that is
 *  part of that work. So it is recorded and replayed with one call.
 */
#ifndef FN_LEARN_JUDGE_H
#define FN_LEARN_JUDGE_H

#include "graph/parameters.h"
#include "graph/tape.h"

typedef struct fn_judge fn_judge;

/** `obey` puts what follows from a judgement on the compute stream, the same at every step, or does
 *  it at once where there is no device; it is called inside fn_judge_put. `replay`: on a device
 * that can, record what the second step puts and replay it from then on. */
fn_status fn_judge_create(fn_parameters *parameters, fn_put obey, void *user, bool replay,
                          fn_judge **judge);
void fn_judge_destroy(fn_judge *judge);

/** Judge the gradients as they will be when the compute stream gets there; without a device at
 *  once. Then what obeys. The arrays that obey must be on the device already. `factors`: copied,
 * for fn_judge_factors. `watched`: two parameters whose sums of squares are wanted, or NULL. The
 *  judgement before must have been read. */
fn_status fn_judge_put(fn_judge *judge, const fn_step_facts *facts,
                       const fn_update_factors *factors, const fn_tensor_entry *const watched[2]);
/** Whether a judgement comes later than fn_judge_put: on a device. */
bool fn_judge_defers(const fn_judge *judge);
/** Wait for the last judgement, and for nothing that was put on the compute stream after it. */
fn_status fn_judge_read(fn_judge *judge, fn_judgement *judgement);
/** The last judgement where the gradients are: for fn_update, fn_device.add_scaled_if... */
const fn_judgement *fn_judge_place(const fn_judge *judge);
/** The last factors there; NULL without a device. */
const fn_update_factors *fn_judge_factors(const fn_judge *judge);

#endif
