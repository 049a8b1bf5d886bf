/** @file session_arrays.h
 *  What a training run keeps beside parameters and optimizer: averaged weights, sums of
 *  micro-batches, running statistics to go back to. All of it lies where the parameters do, on the
 *  host or on their device; there everything here is put on the compute stream. Not collective.
 */
#ifndef FN_RUN_SESSION_ARRAYS_H
#define FN_RUN_SESSION_ARRAYS_H

#include "run/session.h"

fn_status fn_session_arrays_create(fn_session *session);
void fn_session_arrays_destroy(fn_session *session);

/** After micro-batch `micro` of `samples` samples ran in `program`: add its gradients and, on a
 *  device, its loss, both times samples; the first replaces what was there. */
fn_status fn_session_accumulate(fn_session *session, const fn_program *program, int64_t micro,
                                int64_t samples);
/** Gradients := their sums over micro-batches / samples. */
fn_status fn_session_take_accumulated(fn_session *session, double samples);
/** Sum over the micro-batches of loss times samples, kept on a device. Waits. */
fn_status fn_session_loss_sum(fn_session *session, double *loss);

/** Remember the running statistics if a step may be undone. */
fn_status fn_session_keep_buffers(fn_session *session);
/** The end of a step: judge the gradients; then, as judged, one optimizer step at the rate of the
 *  flight, ema := decay ema + (1 - decay) values where there is one, and the running statistics
 *  back. `watched` as for fn_judge_put. */
fn_status fn_session_apply(fn_session *session, const fn_step_facts *facts,
                           const fn_tensor_entry *const watched[2]);

/** Keep a failure of this rank alone for the next time that ranks agree. */
void fn_session_note(fn_session *session, fn_status status);
fn_status fn_session_noted(const fn_session *session);

/** Everything a state holds brought to the host, before it is saved; and told to be newer there,
 *  after it was loaded. */
fn_status fn_session_to_host(fn_session *session);
void fn_session_changed(fn_session *session);

#endif
