/** @file shared_code.h
 *  Functions written once for C, for C++ and for device code. They use what the three languages
 *  share: no designated initialisers, no compound literals, no arrays of variable length.
 */
#ifndef FN_BASE_SHARED_CODE_H
#define FN_BASE_SHARED_CODE_H

#ifdef __CUDACC__
#define FN_DEVICE static __host__ __device__ __forceinline__
#define FN_RESTRICT __restrict__
#else
#define FN_DEVICE static inline
#define FN_RESTRICT restrict
#endif

#endif
