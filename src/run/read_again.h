/** @file read_again.h
 *  The samples of a step that is over.
 */
#ifndef FN_RUN_READ_AGAIN_H
#define FN_RUN_READ_AGAIN_H

#include "run/session.h"

/** This rank's last batch once more, float32 on the host; the loader may have gone on. To be freed
 *  also after a failure. Not collective. */
fn_status fn_read_again(fn_session *session, fn_batch *batch);
void fn_read_again_free(fn_batch *batch);

#endif
