/** @file step.h
 *  One optimizer step of training, put on its way and accounted for.
 *
 *  On a device a step is put on the streams and the next one begun while it runs: its loss, the
 * norm of its gradients and what became of it are read when the next one's backward pass was put
 * there. What the host decides, it decides with all earlier steps accounted for; what cannot wait
 * for it, whether and by which factor gradients are applied, is decided by the judge
 * (learn/judge.h).
 */
#ifndef FN_RUN_STEP_H
#define FN_RUN_STEP_H

#include "run/session.h"

/** Put the next step, of `micro` batches of the loader, on its way, and account for the one before.
 *  *save: a rank was asked to save. Collective, and so are failures. */
fn_status fn_step_take(fn_session *session, fn_loader *loader, int64_t micro, bool *save);
/** Account for the step on its way, if any: progress and schedule are those after it. Before
 *  whatever reads them or ends the loader. Collective, and so are failures. */
fn_status fn_step_settle(fn_session *session);

/** Tell the watchdog what this rank is about to do. */
void fn_step_enter(const fn_session *session, fn_phase phase);
void fn_step_tell_progress(const fn_session *session);
/** Whether this rank wants the run to end after this step: a signal or, on rank 0, a limit that the
 *  next step, with the validation that may follow it, and a save would miss. */
bool fn_step_wants_stop(fn_session *session);

#endif
