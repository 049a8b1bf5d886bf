/** @file plans.h
 *  Plans that the library compiled, as it writes them: a kernel made for one shape takes seconds to
 *  compile and milliseconds to load.
 *
 *  In memory for the next call that is alike, and a file per plan for the next start. Files appear
 *  whole or not at all; ranks and runs share them.
 */
#ifndef FN_BACKEND_CUDA_PLANS_H
#define FN_BACKEND_CUDA_PLANS_H

#include <fieldnet/fieldnet.h>

typedef struct fn_plans fn_plans;

/** folder: NULL keeps all in memory. One that cannot be made or read is no error. */
fn_status fn_plans_open(const char *folder, fn_plans **plans);
void fn_plans_close(fn_plans *plans);
/** What was kept under a key (a line of text); NULL: nothing. It stays the plans' own. */
const char *fn_plans_find(fn_plans *plans, const char *key, size_t *size);
/** Keep a copy, in place of what there was. */
fn_status fn_plans_add(fn_plans *plans, const char *key, const char *text, size_t size);

#endif
