/** @file all.h
 *  The bodies and arguments of all kernels.
 */
#ifndef FN_BACKEND_GPU_KERNELS_ALL_H
#define FN_BACKEND_GPU_KERNELS_ALL_H

#include "backend/gpu/kernels/cells.h"
#include "backend/gpu/kernels/conv.h"
#include "backend/gpu/kernels/fill.h"

#endif
