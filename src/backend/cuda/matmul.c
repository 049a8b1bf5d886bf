/* Matrix products by cuBLASLt. It counts columns first: what lies row by row is to it the
 * transpose, so y = a b is asked for as y^T = b^T a^T. Bias and ReLU are its epilogue: a number of
 * the bias belongs to a column of y, which is a row of y^T, as the library wants. It has no leaky
 * ReLU, and reads a bias in the type of the result: then both are left to fieldnet's own kernel. */
#include <cublasLt.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/cuda/cuda.h"
#include "ops/ops.h"

#define FN_CUBLASLT_FUNCTIONS(F)                                                                   \
  F(cublasLtGetStatusString)                                                                       \
  F(cublasLtCreate)                                                                                \
  F(cublasLtMatmulDescCreate)                                                                      \
  F(cublasLtMatmulDescDestroy)                                                                     \
  F(cublasLtMatmulDescSetAttribute)                                                                \
  F(cublasLtMatrixLayoutCreate)                                                                    \
  F(cublasLtMatrixLayoutDestroy)                                                                   \
  F(cublasLtMatrixLayoutSetAttribute)                                                              \
  F(cublasLtMatmulPreferenceCreate)                                                                \
  F(cublasLtMatmulPreferenceDestroy)                                                               \
  F(cublasLtMatmulPreferenceSetAttribute)                                                          \
  F(cublasLtMatmulAlgoGetHeuristic)                                                                \
  F(cublasLtMatmul)

struct fn_cublaslt {
#define FN_CUBLASLT_MEMBER(name) __typeof__(name) *name;
  FN_CUBLASLT_FUNCTIONS(FN_CUBLASLT_MEMBER)
#undef FN_CUBLASLT_MEMBER
  cublasLtHandle_t handle;
};

typedef struct product {
  cublasLtMatmulDesc_t operation;
  cublasLtMatrixLayout_t a, b, y;
  cublasLtMatmulAlgo_t algorithm;
  const void *bias; /**< that the operation has now */
} product;

#define STRING_OF(x) #x
#define VERSION_OF(x) STRING_OF(x)

fn_status fn_cublaslt_open(fn_cuda *cuda, fn_cublaslt **result) {
  (void)cuda;
  static const char *const names[] = {"libcublasLt.so." VERSION_OF(CUBLAS_VER_MAJOR),
                                      "libcublasLt.so", NULL};
  char why[512] = "";
  void *library = fn_cuda_library(names, FIELDNET_CUBLASLT_FOLDER, why, sizeof why);
  FN_CHECK(library, FN_ERR_DEVICE,
           "cuBLASLt %d cannot be loaded (%s): load the CUDA module or add its lib64 to "
           "LD_LIBRARY_PATH, or set compute.backend: cpu",
           CUBLAS_VER_MAJOR, why);
  fn_cublaslt *lt = calloc(1, sizeof *lt);
  FN_CHECK(lt, FN_ERR_MEMORY, "out of memory");
  *result = lt;
#define FN_CUBLASLT_LOAD(name)                                                                     \
  lt->name = (__typeof__(name) *)dlsym(library, #name);                                            \
  FN_CHECK(lt->name, FN_ERR_DEVICE, "this cuBLASLt has no %s: fieldnet needs that of CUDA %d",     \
           #name, CUBLAS_VER_MAJOR);
  FN_CUBLASLT_FUNCTIONS(FN_CUBLASLT_LOAD)
#undef FN_CUBLASLT_LOAD
  const cublasStatus_t code = lt->cublasLtCreate(&lt->handle);
  FN_CHECK(code == CUBLAS_STATUS_SUCCESS, FN_ERR_DEVICE, "cuBLASLt cannot be started: %s",
           lt->cublasLtGetStatusString(code));
  return FN_OK;
}

static fn_status check(const fn_cublaslt *lt, cublasStatus_t code, const char *what) {
  if (code == CUBLAS_STATUS_SUCCESS) return FN_OK;
  FN_FAIL(code == CUBLAS_STATUS_NOT_SUPPORTED ? FN_ERR_UNSUPPORTED : FN_ERR_INTERNAL,
          "cuBLASLt, %s: %s", what, lt->cublasLtGetStatusString(code));
}
#define TRY(lt, call, what) FN_TRY(check((lt), (call), (what)))

static cudaDataType_t type_of(fn_dtype dtype) {
  return dtype == FN_BF16 ? CUDA_R_16BF : dtype == FN_F16 ? CUDA_R_16F : CUDA_R_32F;
}

/** Rows and columns as they lie, the last two axes. */
static fn_status layout(const fn_cublaslt *lt, const fn_tensor *t, int64_t rows, int32_t batch,
                        bool shared, cublasLtMatrixLayout_t *d) {
  const int64_t columns = t->shape.dim[t->shape.ndim - 1];
  const int64_t stride = shared ? 0 : rows * columns;
  TRY(lt,
      lt->cublasLtMatrixLayoutCreate(d, type_of(t->dtype), (uint64_t)columns, (uint64_t)rows,
                                     columns),
      "describing a matrix");
  TRY(lt,
      lt->cublasLtMatrixLayoutSetAttribute(*d, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch,
                                           sizeof batch),
      "describing a matrix");
  TRY(lt,
      lt->cublasLtMatrixLayoutSetAttribute(*d, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                           sizeof stride),
      "describing a matrix");
  return FN_OK;
}

/** Bytes that an operand is sure to be aligned to. */
static uint32_t alignment_of(const fn_tensor *t) {
  const uintptr_t bits = (uintptr_t)t->data | 256;
  return (uint32_t)(bits & (~bits + 1));
}

static float slope_of(const fn_gpu_call *call) {
  return (float)((const fn_matmul_attrs *)call->node->attrs)->slope;
}

/** Whether cuBLASLt has an epilogue for bias and activation of the call. It reads a bias in words
 *  of 16 bytes, and its choice of an algorithm does not always heed an address that is none. */
static bool has_epilogue(const fn_gpu_call *call) {
  enum { WORD = 16 };
  const fn_tensor *bias = &call->input[2];
  const float slope = slope_of(call);
  const bool fits = bias->dtype == call->output[0].dtype && alignment_of(bias) >= WORD;
  return (slope == 0 || slope == 1) && (!call->present_in[2] || fits);
}

static fn_status set_bias(const fn_cublaslt *lt, product *p, const void *bias) {
  if (p->bias == bias) return FN_OK;
  TRY(lt,
      lt->cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                         sizeof bias),
      "describing a product");
  p->bias = bias;
  return FN_OK;
}

static fn_status set_epilogue(const fn_cublaslt *lt, const fn_gpu_call *call, product *p) {
  const bool bias = call->present_in[2], relu = slope_of(call) == 0;
  const cublasLtEpilogue_t epilogue = bias && relu ? CUBLASLT_EPILOGUE_RELU_BIAS
                                      : bias       ? CUBLASLT_EPILOGUE_BIAS
                                                   : CUBLASLT_EPILOGUE_RELU;
  TRY(lt,
      lt->cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                         sizeof epilogue),
      "describing a product");
  return bias ? set_bias(lt, p, call->input[2].data) : FN_OK;
}

static fn_status describe(fn_cuda *cuda, const fn_gpu_call *call, product *p) {
  const fn_cublaslt *lt = cuda->cublaslt;
  const fn_matmul_attrs *attrs = call->node->attrs;
  const fn_tensor *a = &call->input[0], *b = &call->input[1], *y = &call->output[0];
  int64_t batch = 1;
  for (int i = 0; i < a->shape.ndim - 2; i++)
    batch *= a->shape.dim[i];
  int64_t a_rows = a->shape.dim[a->shape.ndim - 2], y_rows = y->shape.dim[y->shape.ndim - 2];
  const bool shared = b->shape.ndim == 2;
  if (shared && !attrs->transpose_a) { // one b, rows of a in a row: the batch is only more rows
    a_rows *= batch;
    y_rows *= batch;
    batch = 1;
  }
  FN_CHECK(batch <= INT32_MAX, FN_ERR_UNSUPPORTED, "a batch of %lld products", (long long)batch);
  const bool single = a->dtype == FN_F32;
  const cublasComputeType_t compute =
      single && cuda->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  TRY(lt, lt->cublasLtMatmulDescCreate(&p->operation, compute, CUDA_R_32F), "describing a product");
  const cublasOperation_t first = attrs->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = attrs->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
  TRY(lt,
      lt->cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_TRANSA, &first,
                                         sizeof first),
      "describing a product");
  TRY(lt,
      lt->cublasLtMatmulDescSetAttribute(p->operation, CUBLASLT_MATMUL_DESC_TRANSB, &second,
                                         sizeof second),
      "describing a product");
  if (call->finish) FN_TRY(set_epilogue(lt, call, p));
  FN_TRY(layout(lt, a, a_rows, (int32_t)batch, false, &p->a));
  FN_TRY(layout(lt, b, b->shape.dim[b->shape.ndim - 2], (int32_t)batch, shared, &p->b));
  return layout(lt, y, y_rows, (int32_t)batch, false, &p->y);
}

/** The first algorithm of the heuristic that can be run: the same in every run, with sums in
 * float32.
 */
static fn_status choose(fn_cuda *cuda, fn_gpu_call *call, product *p) {
  enum { WORKSPACE = 32 << 20, PROPOSED = 8 };
  const fn_cublaslt *lt = cuda->cublaslt;
  const size_t most = WORKSPACE;
  // Reductions across blocks by atomic addition give other bits at every run.
  const uint32_t reductions =
      CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  cublasLtMatmulPreference_t preference = NULL;
  cublasLtMatmulHeuristicResult_t found[PROPOSED] = {0};
  int count = 0, chosen = 0;
  TRY(lt, lt->cublasLtMatmulPreferenceCreate(&preference), "choosing an algorithm");
  fn_status status =
      check(lt,
            lt->cublasLtMatmulPreferenceSetAttribute(
                preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most),
            "choosing an algorithm");
  if (status == FN_OK)
    status = check(
        lt,
        lt->cublasLtMatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions, sizeof reductions),
        "choosing an algorithm");
  static const cublasLtMatmulPreferenceAttributes_t alignment[] = {
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  const fn_tensor *operand[] = {&call->input[1], &call->input[0], &call->output[0],
                                &call->output[0]};
  for (int i = 0; i < 4 && status == FN_OK; i++) {
    const uint32_t bytes = alignment_of(operand[i]);
    status = check(
        lt,
        lt->cublasLtMatmulPreferenceSetAttribute(preference, alignment[i], &bytes, sizeof bytes),
        "choosing an algorithm");
  }
  if (status == FN_OK)
    status = check(lt,
                   lt->cublasLtMatmulAlgoGetHeuristic(lt->handle, p->operation, p->b, p->a, p->y,
                                                      p->y, preference, PROPOSED, found, &count),
                   "choosing an algorithm");
  lt->cublasLtMatmulPreferenceDestroy(preference);
  FN_TRY(status);
  while (chosen < count && found[chosen].state != CUBLAS_STATUS_SUCCESS)
    chosen++;
  FN_CHECK(chosen < count, FN_ERR_UNSUPPORTED, "cuBLASLt has no algorithm for this product");
  p->algorithm = found[chosen].algo;
  call->workspace = found[chosen].workspaceSize;
  return FN_OK;
}

static fn_status prepare(fn_cuda *cuda, fn_gpu_call *call) {
  product *p = calloc(1, sizeof *p);
  FN_CHECK(p, FN_ERR_MEMORY, "out of memory");
  call->state = p;
  fn_status status = describe(cuda, call, p);
  if (status == FN_OK) status = choose(cuda, call, p);
  if (status != FN_OK) fn_cublaslt_release(cuda, call);
  return status;
}

fn_status fn_cublaslt_prepare(fn_cuda *cuda, fn_gpu_call *call) {
  const fn_status status =
      !call->finish || has_epilogue(call) ? prepare(cuda, call) : FN_ERR_UNSUPPORTED;
  if (status != FN_ERR_UNSUPPORTED || !call->finish) return status;
  fn_error_clear();
  call->finish = false;
  fn_tensor *y = &call->output[0];
  if (y->dtype != FN_F32) y->data = NULL;
  y->dtype = FN_F32;
  return prepare(cuda, call);
}

fn_status fn_cublaslt_run(fn_cuda *cuda, const fn_gpu_call *call, const fn_gpu_addresses *at) {
  const fn_cublaslt *lt = cuda->cublaslt;
  product *p = call->state;
  if (call->finish && call->present_in[2]) FN_TRY(set_bias(lt, p, at->input[2]));
  const float one = 1, zero = 0;
  const cublasStatus_t code =
      lt->cublasLtMatmul(lt->handle, p->operation, &one, at->input[1], p->b, at->input[0], p->a,
                         &zero, at->output[0], p->y, at->output[0], p->y, &p->algorithm,
                         at->workspace, call->workspace, cuda->stream[FN_STREAM_COMPUTE]);
  if (code == CUBLAS_STATUS_SUCCESS) return FN_OK;
  FN_TRY(fn_cuda_check(cuda, cudaGetLastError(), "running a matrix product"));
  return check(lt, code, "running a product");
}

void fn_cublaslt_release(fn_cuda *cuda, fn_gpu_call *call) {
  const fn_cublaslt *lt = cuda->cublaslt;
  product *p = call->state;
  if (!p) return;
  if (p->operation) lt->cublasLtMatmulDescDestroy(p->operation);
  if (p->a) lt->cublasLtMatrixLayoutDestroy(p->a);
  if (p->b) lt->cublasLtMatrixLayoutDestroy(p->b);
  if (p->y) lt->cublasLtMatrixLayoutDestroy(p->y);
  free(p);
  call->state = NULL;
}
