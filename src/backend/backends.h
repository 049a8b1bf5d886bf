/** @file backends.h
 *  The backends this build knows; src/backend/registry.c lists them.
 */
#ifndef FN_BACKEND_BACKENDS_H
#define FN_BACKEND_BACKENDS_H

#include <fieldnet/backend.h>

extern const fn_backend fn_backend_reference;
extern const fn_backend fn_backend_cpu, fn_backend_emulated, fn_backend_cuda;

int fn_backend_count(void);
const fn_backend *fn_backend_at(int index);

#endif
