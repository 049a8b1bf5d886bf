#include "graph/tape.h"

#include <stdio.h>

#include "base/log.h"

fn_status fn_tape_record(fn_device *d, fn_put put, void *user, void **recording) {
  *recording = NULL;
  FN_TRY(d->capture_begin(d));
  fn_status status = put(user);
  char why[512] = "";
  if (status != FN_OK) snprintf(why, sizeof why, "%s", fn_error_message());
  const fn_status ended = d->capture_end(d, recording);
  if (status == FN_OK || ended == FN_ERR_DEVICE)
    status = ended;
  else
    (void)fn_error_set(status, __FILE__, __LINE__, "%s", why); // what came first says more
  if (status == FN_OK) return FN_OK;
  if (*recording) d->recording_destroy(d, *recording);
  *recording = NULL;
  return status;
}

static fn_status record(fn_tape *tape, fn_device *device, fn_put put, void *user) {
  const fn_status status = fn_tape_record(device, put, user, &tape->recording);
  if (status == FN_OK || status == FN_ERR_DEVICE) return status;
  fn_log(FN_DETAIL, "work is put anew at every step, not recorded for replay: %s",
         fn_error_message());
  fn_error_clear();
  tape->cannot = true;
  return FN_OK;
}

fn_status fn_tape_play(fn_tape *tape, fn_device *device, fn_put put, void *user) {
  if (!device->capture_begin) tape->cannot = true;
  if (tape->plays++ > 0 && !tape->recording && !tape->cannot)
    FN_TRY(record(tape, device, put, user));
  return tape->recording ? device->replay(device, tape->recording) : put(user);
}

void fn_tape_destroy(fn_tape *tape, fn_device *device) {
  if (tape->recording) device->recording_destroy(device, tape->recording);
  *tape = (fn_tape){0};
}
