/** @file library.h
 *  oneDNN's engine, status codes and memory descriptors for the files that call it.
 */
#ifndef FN_BACKEND_CPU_LIBRARY_H
#define FN_BACKEND_CPU_LIBRARY_H

#include <dnnl.h>

#include "backend/cpu/internal.h"

/** The one engine and stream of this process. */
fn_status fn_cpu_engine(dnnl_engine_t *engine, dnnl_stream_t *stream);
/** Turn a library status into ours, naming the call. */
fn_status fn_cpu_library_status(dnnl_status_t status, const char *call);
#define FN_LIBRARY(call) FN_TRY(fn_cpu_library_status((call), #call))

/** Instead of a block: the layout is oneDNN's to choose. */
enum { FN_LIBRARY_BLOCK = -1 };

/** Descriptor of an activation [N, C, s...] in the plain or blocked layout, dense. */
dnnl_status_t fn_cpu_activation(const fn_shape *shape, int64_t samples, int64_t block,
                                dnnl_data_type_t type, dnnl_memory_desc_t *desc);
dnnl_data_type_t fn_cpu_type(fn_dtype dtype);

#endif
