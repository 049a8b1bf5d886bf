/** @file all.h
 *  The bodies and arguments of all kernels.
 */
#ifndef FN_BACKEND_GPU_KERNELS_ALL_H
#define FN_BACKEND_GPU_KERNELS_ALL_H

#include "backend/gpu/kernels/cells.h"
#include "backend/gpu/kernels/conv.h"
#include "backend/gpu/kernels/convert.h"
#include "backend/gpu/kernels/flat.h"
#include "backend/gpu/kernels/judge.h"
#include "backend/gpu/kernels/map.h"
#include "backend/gpu/kernels/norm.h"
#include "backend/gpu/kernels/pool.h"
#include "backend/gpu/kernels/random.h"
#include "backend/gpu/kernels/reduce.h"
#include "backend/gpu/kernels/resample.h"
#include "backend/gpu/kernels/transpose.h"
#include "backend/gpu/kernels/window.h"

#endif
