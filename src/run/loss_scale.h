/** @file loss_scale.h
 *  The factor of the loss in an f16 run, without which small gradients would vanish; Micikevicius
 * et al. 2018, section 3.2, with the numbers of PyTorch's GradScaler.
 */
#ifndef FN_RUN_LOSS_SCALE_H
#define FN_RUN_LOSS_SCALE_H

#include "config/run.h"
#include "run/checkpoint.h"

/** 1 where the loss is not scaled. */
double fn_loss_scale(const fn_progress *progress);
/** At the start of a run, after its state was loaded: as saved, 65536 at first, none unless f16. */
void fn_loss_scale_start(const fn_run *run, fn_progress *progress);
/** After a step whose gradients were finite or not. True when the step is to be left out because
 * the scale was too large: it was halved. It doubles after 2000 good steps. At 2^-10 gradients that
 * are not finite have another reason: false. */
bool fn_loss_scale_update(fn_progress *progress, bool finite);

#endif
