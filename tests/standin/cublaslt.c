/* cuBLASLt on the host; see standin.h. Built as a libcublasLt that the program opens. Matrices lie
 * column by column. */
#include <cublasLt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "standin.h"

enum { ALGORITHM = 7 };

typedef struct operation {
  cublasComputeType_t compute;
  cublasOperation_t a, b;
  cublasLtEpilogue_t epilogue;
  const void *bias;
} operation;

typedef struct layout {
  cudaDataType type;
  int64_t rows, columns, ld, stride;
  int32_t batch;
} layout;

typedef struct product {
  operation how;
  layout a, b, d;
  const char *from[2];
  char *to;
  float alpha;
} product;

const char *cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "CUBLAS_STATUS of the stand-in";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
  *handle = calloc(1, 1);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *made, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  operation *o = calloc(1, sizeof *o);
  *o = (operation){compute, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, NULL};
  *made = (cublasLtMatmulDesc_t)(void *)o;
  return scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  free(d);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t of,
                                              cublasLtMatmulDescAttributes_t name,
                                              const void *value, size_t size) {
  operation *o = (operation *)(void *)of;
  void *to;
  size_t expected;
  switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA: to = &o->a, expected = sizeof o->a; break;
    case CUBLASLT_MATMUL_DESC_TRANSB: to = &o->b, expected = sizeof o->b; break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: to = &o->epilogue, expected = sizeof o->epilogue; break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: to = &o->bias, expected = sizeof o->bias; break;
    default: return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  if (size != expected) return CUBLAS_STATUS_INVALID_VALUE;
  memcpy(to, value, size);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *made, cudaDataType type,
                                          uint64_t rows, uint64_t columns, int64_t ld) {
  layout *l = calloc(1, sizeof *l);
  *l = (layout){type, (int64_t)rows, (int64_t)columns, ld, 0, 1};
  *made = (cublasLtMatrixLayout_t)(void *)l;
  return ld >= (int64_t)rows ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  free(l);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t of,
                                                cublasLtMatrixLayoutAttribute_t name,
                                                const void *value, size_t size) {
  layout *l = (layout *)(void *)of;
  if (name == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT)
    memcpy(&l->batch, value, size);
  else if (name == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET)
    memcpy(&l->stride, value, size);
  else
    return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *made) {
  *made = calloc(1, 8);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) {
  free(p);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t of,
                                                    cublasLtMatmulPreferenceAttributes_t name,
                                                    const void *value, size_t size) {
  (void)of, (void)name, (void)value, (void)size;
  return CUBLAS_STATUS_SUCCESS;
}

static int64_t rows_of(const layout *l, cublasOperation_t o) {
  return o == CUBLAS_OP_N ? l->rows : l->columns;
}
static int64_t columns_of(const layout *l, cublasOperation_t o) {
  return o == CUBLAS_OP_N ? l->columns : l->rows;
}

static bool adds_bias(const operation *o) {
  return o->epilogue == CUBLASLT_EPILOGUE_BIAS || o->epilogue == CUBLASLT_EPILOGUE_RELU_BIAS;
}
static bool cuts_negatives(const operation *o) {
  return o->epilogue == CUBLASLT_EPILOGUE_RELU || o->epilogue == CUBLASLT_EPILOGUE_RELU_BIAS;
}
static bool has_epilogue(const operation *o) {
  if (o->epilogue == CUBLASLT_EPILOGUE_DEFAULT) return true;
  const char *text = getenv("STANDIN_EPILOGUES");
  return (!text || strcmp(text, "0") != 0) && (adds_bias(o) || cuts_negatives(o));
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t how,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t found[], int *count) {
  const operation *o = (const operation *)(void *)how;
  const layout *x = (const layout *)(void *)a, *y = (const layout *)(void *)b,
               *z = (const layout *)(void *)d;
  (void)handle, (void)c, (void)preference;
  *count = 0;
  if (rows_of(x, o->a) != z->rows || columns_of(y, o->b) != z->columns ||
      columns_of(x, o->a) != rows_of(y, o->b) || x->batch != z->batch || y->batch != z->batch ||
      x->type != y->type || (z->type != x->type && z->type != CUDA_R_32F))
    return CUBLAS_STATUS_INVALID_VALUE;
  if (!has_epilogue(o)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (wanted < 2) return CUBLAS_STATUS_NOT_SUPPORTED;
  memset(found, 0, 2 * sizeof *found);
  found[0].state = CUBLAS_STATUS_NOT_SUPPORTED; // proposed, and then not to be had
  found[1].algo.data[0] = ALGORITHM;
  *count = 2;
  return CUBLAS_STATUS_SUCCESS;
}

static float load(const char *data, cudaDataType type, int64_t at) {
  uint16_t half;
  float value;
  if (type == CUDA_R_32F) {
    memcpy(&value, data + 4 * at, sizeof value);
    return value;
  }
  memcpy(&half, data + 2 * at, sizeof half);
  if (type == CUDA_R_16F) {
    _Float16 small;
    memcpy(&small, &half, sizeof small);
    return (float)small;
  }
  const uint32_t bits = (uint32_t)half << 16;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void store(char *data, cudaDataType type, int64_t at, float value) {
  if (type == CUDA_R_32F) {
    memcpy(data + 4 * at, &value, sizeof value);
  } else if (type == CUDA_R_16F) {
    const _Float16 small = (_Float16)value;
    memcpy(data + 2 * at, &small, sizeof small);
  } else {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value == value) bits += 0x7fff + (bits >> 16 & 1);
    const uint16_t half = (uint16_t)(bits >> 16);
    memcpy(data + 2 * at, &half, sizeof half);
  }
}

static void multiply(const void *what) {
  const product *p = what;
  const int64_t inner = columns_of(&p->a, p->how.a);
  for (int64_t n = 0; n < p->d.batch; n++)
    for (int64_t j = 0; j < p->d.columns; j++)
      for (int64_t i = 0; i < p->d.rows; i++) {
        double sum = 0;
        for (int64_t k = 0; k < inner; k++) {
          const int64_t a = p->how.a == CUBLAS_OP_N ? i + k * p->a.ld : k + i * p->a.ld,
                        b = p->how.b == CUBLAS_OP_N ? k + j * p->b.ld : j + k * p->b.ld;
          sum += (double)load(p->from[0], p->a.type, n * p->a.stride + a) *
                 (double)load(p->from[1], p->b.type, n * p->b.stride + b);
        }
        float value = p->alpha * (float)sum;
        // The bias has the type of D, a number for a row of D, the same in every batch.
        if (adds_bias(&p->how)) value += load(p->how.bias, p->d.type, i);
        if (cuts_negatives(&p->how) && value < 0) value = 0;
        store(p->to, p->d.type, n * p->d.stride + i + j * p->d.ld, value);
      }
}

static void write_log(const operation *o) {
  const char *log = getenv("STANDIN_LOG");
  FILE *file = log ? fopen(log, "a") : NULL;
  if (!file) return;
  fprintf(file, "epilogue %d\n", (int)o->epilogue);
  fclose(file);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t how, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                              cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                              cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_size, cudaStream_t stream) {
  (void)handle, (void)c, (void)c_layout, (void)workspace, (void)workspace_size;
  if (algorithm->data[0] != ALGORITHM) return CUBLAS_STATUS_INVALID_VALUE;
  product p = {.how = *(const operation *)(const void *)how,
               .a = *(const layout *)(const void *)a_layout,
               .b = *(const layout *)(const void *)b_layout,
               .d = *(const layout *)(const void *)d_layout,
               .from = {a, b},
               .to = d,
               .alpha = *(const float *)alpha};
  if (*(const float *)beta != 0 || !has_epilogue(&p.how)) return CUBLAS_STATUS_NOT_SUPPORTED;
  if (adds_bias(&p.how) && (!p.how.bias || (uintptr_t)p.how.bias % 16 != 0)) // read in such words
    return CUBLAS_STATUS_INVALID_VALUE;
  write_log(&p.how);
  return standin_put(stream, multiply, &p, sizeof p) == cudaSuccess
             ? CUBLAS_STATUS_SUCCESS
             : CUBLAS_STATUS_EXECUTION_FAILED;
}
