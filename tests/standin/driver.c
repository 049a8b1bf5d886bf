/* A libcuda.so.1 with which cuDNN compiles for a device that is only described: cuDNN wants to load
 * what it has compiled. The rest is answered as the toolkit's stub library does; nothing can be
 * run. Handles are addresses, and codes of type CUresult are ints: cuda.h, whose names change from
 * version to version, is not needed. */
#include <stdlib.h>

enum { SUCCESS = 0, STUB_LIBRARY = 34 };

int cuLibraryLoadData(void **library) {
  *library = malloc(1);
  return SUCCESS;
}
int cuLibraryUnload(void *library) {
  free(library);
  return SUCCESS;
}
int cuLibraryGetKernel(void **kernel, void *library) {
  *kernel = library;
  return SUCCESS;
}
int cuKernelGetAttribute(int *value) {
  *value = 0;
  return SUCCESS;
}
int cuKernelSetAttribute(void) {
  return SUCCESS;
}
int cuOccupancyMaxPotentialClusterSize(int *size) {
  *size = 8;
  return SUCCESS;
}

#define ABSENT(name)                                                                               \
  int name(void) {                                                                                 \
    return STUB_LIBRARY;                                                                           \
  }
ABSENT(cuInit)
ABSENT(cuDriverGetVersion)
ABSENT(cuGetExportTable)
ABSENT(cuGetProcAddress)
ABSENT(cuGetProcAddress_v2)
ABSENT(cuGetErrorName)
ABSENT(cuGetErrorString)
ABSENT(cuDeviceGet)
ABSENT(cuDeviceGetCount)
ABSENT(cuCtxGetCurrent)
ABSENT(cuCtxGetLimit)
ABSENT(cuCtxPopCurrent)
ABSENT(cuCtxPopCurrent_v2)
ABSENT(cuCtxPushCurrent)
ABSENT(cuCtxPushCurrent_v2)
ABSENT(cuLaunchCooperativeKernel)
ABSENT(cuLaunchKernel)
ABSENT(cuLaunchKernelEx)
ABSENT(cuLibraryLoadFromFile)
ABSENT(cuLinkAddData)
ABSENT(cuLinkAddData_v2)
ABSENT(cuLinkComplete)
ABSENT(cuLinkCreate)
ABSENT(cuLinkCreate_v2)
ABSENT(cuLinkDestroy)
ABSENT(cuStreamGetCtx)
