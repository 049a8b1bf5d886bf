/** @file sweep_claims.h
 *  Inside the store of a sweep: the files that say who has which trial, and whether he lives.
 *  See sweep_store.h for the rules.
 */
#ifndef FN_RUN_SWEEP_CLAIMS_H
#define FN_RUN_SWEEP_CLAIMS_H

#include <fieldnet/fieldnet.h>

/** The claims of one process in one folder. */
typedef struct fn_sweep_claims fn_sweep_claims;

/** `folder` must exist when claims are made. */
fn_status fn_sweep_claims_create(const char *folder, double lease, fn_sweep_claims **claims);
/** Remove what killed processes left between making a claim's file and naming it. Before any claim
 *  is made. */
void fn_sweep_claims_tidy(fn_sweep_claims *claims);
/** Gives up the locks of all claims held; their files stay. */
void fn_sweep_claims_destroy(fn_sweep_claims *claims);

/** Make the file of an attempt, unless there is one. With `outside` it belongs to no process: it is
 *  neither locked nor held, and its worker counts as alive for `lease` seconds after the last
 *  touch, 0: for ever. */
fn_status fn_sweep_claims_make(fn_sweep_claims *claims, int64_t trial, int64_t attempt,
                               bool outside, double lease, bool *made);
/** Give up the lock of a claim held, if it is. */
void fn_sweep_claims_drop(fn_sweep_claims *claims, int64_t trial, int64_t attempt);
/** A sign of life for a claim from outside. */
void fn_sweep_claims_touch(fn_sweep_claims *claims, int64_t trial, int64_t attempt);
/** Whether the worker may live; false only when it certainly does not, or its lease is over. */
bool fn_sweep_claims_alive(fn_sweep_claims *claims, int64_t trial, int64_t attempt);
/** "host, process 12" or "..., job 34_5", of this process; for people. */
void fn_sweep_claims_worker(bool outside, char *text, size_t size);

#endif
