/* Copies between layouts and dtypes. */
#include "backend/gpu/kernels.h"

fn_status fn_gpu_prepare_reorder(fn_gpu_platform *platform, fn_kernel *kernel) {
  (void)platform;
  FN_FAIL(FN_ERR_UNSUPPORTED, "no kernel for a reorder of %s", kernel->node->op->name);
}
