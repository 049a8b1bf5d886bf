/* Stands in for the cuda backend in builds without the CUDA toolkit. */
#include "backend/backends.h"

const fn_backend fn_backend_cuda = {
    .name = "cuda",
    .missing =
        "this build was made without the CUDA toolkit and cuDNN; configure it where nvcc and "
        "cuDNN 9 are installed (docs/gpu.md), or use cpu",
};
