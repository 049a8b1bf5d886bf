/** @file device_gradients.h
 *  Gradients on a device on their way to MPI and back: for the reducer.
 *
 *  Either through pinned memory on the host, or handed to an MPI library that takes addresses of a
 *  device. Through pinned memory they may go as bfloat16, rounded on the device, which halves the
 *  copies. What the device does is put on FN_STREAM_COMM; nothing here waits but where it says so.
 *  All functions but _arrived belong to the thread that runs programs.
 */
#ifndef FN_DIST_DEVICE_GRADIENTS_H
#define FN_DIST_DEVICE_GRADIENTS_H

#include "graph/parameters.h"

typedef struct fn_device_gradients fn_device_gradients;

/** direct: MPI takes addresses of the device, of float32 numbers; else they go through the host as
 *  `type`, FN_F32 or FN_BF16. */
fn_status fn_device_gradients_create(fn_parameters *parameters, int buckets, bool direct,
                                     fn_dtype type, fn_device_gradients **gradients);
void fn_device_gradients_destroy(fn_device_gradients *gradients);
/** Where MPI finds all gradients. */
void *fn_device_gradients_memory(const fn_device_gradients *gradients);
/** Whether gradients in that memory are still to be weighted, by the host. */
bool fn_device_gradients_unweighted(const fn_device_gradients *gradients);

/** Bucket (count elements from offset on) is what the compute stream holds so far: bring it to
 * MPI's memory. */
void fn_device_gradients_send(fn_device_gradients *gradients, int bucket, int64_t offset,
                              int64_t count, double weight);
/** Whether it is there; `wait`: until it is. After a failure: true. Any thread. */
bool fn_device_gradients_arrived(fn_device_gradients *gradients, int bucket, bool wait);
/** The sum is there: bring it back. */
void fn_device_gradients_return(fn_device_gradients *gradients, int64_t offset, int64_t count);
/** What is put on the compute stream from now on sees the sums. Tells of the first failure of all
 *  calls of this step. */
fn_status fn_device_gradients_join(fn_device_gradients *gradients);

/** Whether the MPI library says that it sums what lies on an NVIDIA device without blocking. */
bool fn_mpi_sums_device_memory(void);

#endif
