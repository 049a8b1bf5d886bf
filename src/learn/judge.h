/** @file judge.h
 *  Whether the gradients of a step are applied and by which factor, decided where they are. On a
 *  device that is a kernel, which what follows on the stream obeys; the host hears of it later. Not
 *  collective: ranks that hold the same gradients and give the same facts come to the same result.
 */
#ifndef FN_LEARN_JUDGE_H
#define FN_LEARN_JUDGE_H

#include "graph/parameters.h"

typedef struct fn_judge fn_judge;

fn_status fn_judge_create(fn_parameters *parameters, fn_judge **judge);
void fn_judge_destroy(fn_judge *judge);

/** Judge the gradients as they will be when the compute stream gets there; without a device at
 * once. gradient, count and judgement of the facts are filled in. `watched`: two parameters whose
 * sums of squares are wanted, or NULL. The judgement before must have been read, or is lost. */
fn_status fn_judge_put(fn_judge *judge, fn_step_facts facts,
                       const fn_tensor_entry *const watched[2]);
/** Whether a judgement comes later than fn_judge_put: on a device. */
bool fn_judge_defers(const fn_judge *judge);
/** Wait for the last judgement, and for nothing that was put on the compute stream after it. */
fn_status fn_judge_read(fn_judge *judge, fn_judgement *judgement);
/** The last judgement where the gradients are: for fn_update, fn_device.add_scaled_if... */
const fn_judgement *fn_judge_place(const fn_judge *judge);

#endif
