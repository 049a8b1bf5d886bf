/* oneDNN's convolution beside a kernel of our own: for the bench, which puts a step beside the
 * library's primitives. Layouts are oneDNN's choice, its memory is one region of the process that
 * grows to the largest convolution, so that it is touched for the first time once only. */
#include <stdlib.h>

#include "backend/cpu/conv_choice.h"

enum { ALIGNMENT = 2 << 20, MEMORIES = 5 };

static struct region {
  char *data;
  size_t bytes;
} region;

/** Make the region as large as that. It holds floats (and bf16s) of about 0.7: no zeros, nothing
 *  that overflows. */
static fn_status reserve(size_t bytes) {
  if (bytes <= region.bytes) return FN_OK;
  free(region.data);
  region = (struct region){0};
  bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  region.data = aligned_alloc(ALIGNMENT, bytes);
  FN_CHECK(region.data, FN_ERR_MEMORY, "no memory to time oneDNN's convolutions (%zu bytes)",
           bytes);
  region.bytes = bytes;
  memset(region.data, 0x3f, bytes);
  return FN_OK;
}

/** What oneDNN takes for the convolution, in f32 where it has nothing fast in the values' types;
 *  *pd stays NULL where it has nothing fast at all. */
static fn_status describe(const fn_node *node, dnnl_primitive_desc_t *pd) {
  conv_values v;
  fn_cpu_conv_ports(node, &v);
  for (int pass = 0; pass < 2 && !*pd; pass++) {
    const conv_choice c = {.block = {FN_LIBRARY_BLOCK, FN_LIBRARY_BLOCK},
                           .type = {pass == 0 ? fn_cpu_type(v.x->dtype) : dnnl_f32,
                                    pass == 0 ? fn_cpu_type(v.y->dtype) : dnnl_f32},
                           .samples = v.x->shape.dim[0],
                           .bias = v.bias && v.role != CONV_DATA};
    const dnnl_status_t status = fn_cpu_conv_describe(node, &c, pd);
    if (status == dnnl_unimplemented) {
      *pd = NULL;
      continue;
    }
    FN_TRY(fn_cpu_library_status(status, "a convolution's descriptor"));
    if (!fn_cpu_conv_is_slow(*pd)) continue;
    dnnl_primitive_desc_destroy(*pd);
    *pd = NULL;
  }
  return FN_OK;
}

typedef struct alone {
  dnnl_primitive_t primitive;
  dnnl_stream_t stream;
  dnnl_exec_arg_t args[MEMORIES];
  int count;
} alone;

static fn_status make_memories(const_dnnl_primitive_desc_t pd, const int *argument, alone *a) {
  dnnl_engine_t engine;
  FN_TRY(fn_cpu_engine(&engine, &a->stream));
  const_dnnl_memory_desc_t desc[MEMORIES];
  size_t at[MEMORIES], bytes = 0;
  for (int m = 0; m < MEMORIES; m++) {
    desc[m] = m < 4 ? fn_cpu_conv_argument(pd, argument[m])
                    : dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    at[m] = bytes;
    if (desc[m]) bytes += (dnnl_memory_desc_get_size(desc[m]) + 4095) / 4096 * 4096;
  }
  FN_TRY(reserve(bytes));
  for (int m = 0; m < MEMORIES; m++) {
    if (!desc[m] || dnnl_memory_desc_get_size(desc[m]) == 0) continue;
    dnnl_exec_arg_t *arg = &a->args[a->count];
    arg->arg = m < 4 ? argument[m] : DNNL_ARG_SCRATCHPAD;
    FN_LIBRARY(dnnl_memory_create(&arg->memory, desc[m], engine, region.data + at[m]));
    a->count++;
  }
  return FN_OK;
}

static fn_status run_alone(alone *a, double *seconds) {
  for (int run = 0; run < 2; run++) { // the first one warms up
    const double start = fn_clock();
    FN_LIBRARY(dnnl_primitive_execute(a->primitive, a->stream, a->count, a->args));
    FN_LIBRARY(dnnl_stream_wait(a->stream));
    *seconds = fn_clock() - start;
  }
  return FN_OK;
}

fn_status fn_cpu_conv_time_library(const fn_kernel *kernel, double *seconds) {
  *seconds = 0;
  dnnl_primitive_desc_t pd = NULL;
  FN_TRY(describe(kernel->node, &pd));
  if (!pd) return FN_OK;
  alone a = {0};
  fn_status status =
      fn_cpu_library_status(dnnl_primitive_create(&a.primitive, pd), "dnnl_primitive_create");
  if (status == FN_OK)
    status = make_memories(pd, fn_conv_argument[fn_cpu_conv_role(kernel->node)], &a);
  if (status == FN_OK) status = run_alone(&a, seconds);
  for (int m = 0; m < a.count; m++)
    dnnl_memory_destroy(a.args[m].memory);
  if (a.primitive) dnnl_primitive_destroy(a.primitive);
  dnnl_primitive_desc_destroy(pd);
  return status;
}
