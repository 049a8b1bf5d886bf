#include "run/loss_scale.h"

#include <string.h>

enum { GOOD_STEPS = 2000 };
static const double first = 65536, least = 0x1p-10, most = 0x1p24;

double fn_loss_scale(const fn_progress *progress) {
  return progress->loss_scale > 0 ? progress->loss_scale : 1;
}

void fn_loss_scale_start(const fn_run *run, fn_progress *progress) {
  if (strcmp(run->compute.precision, "f16") != 0) {
    progress->loss_scale = 0;
    progress->scaled_steps = 0;
  } else if (!(progress->loss_scale > 0)) {
    progress->loss_scale = first;
  }
}

bool fn_loss_scale_update(fn_progress *progress, bool finite) {
  if (!(progress->loss_scale > 0)) return false;
  if (!finite) {
    if (progress->loss_scale <= least) return false;
    progress->loss_scale /= 2;
    progress->scaled_steps = 0;
    return true;
  }
  if (++progress->scaled_steps < GOOD_STEPS) return false;
  progress->scaled_steps = 0;
  if (progress->loss_scale < most) progress->loss_scale *= 2;
  return false;
}
