/* oneDNN: engine, errors, descriptors. */
#include "backend/cpu/library.h"

#include <pthread.h>

static dnnl_engine_t the_engine;
static dnnl_stream_t the_stream;
static dnnl_status_t start_status;

static void start(void) {
  start_status = dnnl_engine_create(&the_engine, dnnl_cpu, 0);
  if (start_status == dnnl_success) {
    start_status = dnnl_stream_create(&the_stream, the_engine, dnnl_stream_default_flags);
  }
}

fn_status fn_cpu_library_status(dnnl_status_t status, const char *call) {
  if (status == dnnl_success) return FN_OK;
  if (status == dnnl_out_of_memory) FN_FAIL(FN_ERR_MEMORY, "oneDNN is out of memory in %s", call);
  FN_FAIL(FN_ERR_INTERNAL, "oneDNN answers %d to %s", (int)status, call);
}

fn_status fn_cpu_engine(dnnl_engine_t *engine, dnnl_stream_t *stream) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, start);
  FN_LIBRARY(start_status);
  *engine = the_engine;
  *stream = the_stream;
  return FN_OK;
}

dnnl_data_type_t fn_cpu_type(fn_dtype dtype) {
  return dtype == FN_BF16 ? dnnl_bf16 : dnnl_f32;
}

dnnl_status_t fn_cpu_activation(const fn_shape *shape, int64_t samples, int64_t block,
                                dnnl_data_type_t type, dnnl_memory_desc_t *desc) {
  static const dnnl_format_tag_t plain[] = {dnnl_ncw, dnnl_nchw, dnnl_ncdhw};
  static const dnnl_format_tag_t by8[] = {dnnl_nCw8c, dnnl_nChw8c, dnnl_nCdhw8c};
  static const dnnl_format_tag_t by16[] = {dnnl_nCw16c, dnnl_nChw16c, dnnl_nCdhw16c};
  const dnnl_format_tag_t *tags = block == 16 ? by16 : block == 8 ? by8 : plain;
  const dnnl_format_tag_t tag =
      block == FN_LIBRARY_BLOCK ? dnnl_format_tag_any : tags[shape->ndim - 3];
  dnnl_dims_t dims = {samples};
  for (int d = 1; d < shape->ndim; d++)
    dims[d] = shape->dim[d];
  return dnnl_memory_desc_create_with_tag(desc, shape->ndim, dims, type, tag);
}
