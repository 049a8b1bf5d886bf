/** @file conv.h
 *  Shared by the convolution files of the cpu backend.
 */
#ifndef FN_BACKEND_CPU_CONV_H
#define FN_BACKEND_CPU_CONV_H

#include "backend/cpu/internal.h"

typedef enum conv_role { CONV_FORWARD, CONV_DATA, CONV_WEIGHT } conv_role;

/** The values of a convolution y = w * x + bias by their meaning, whatever the operator. */
typedef struct conv_values {
  conv_role role;
  const fn_value *x, *y, *w, *bias; /**< bias may be NULL; CONV_WEIGHT: its gradient */
} conv_values;

/** Weight gradients that read few channels, plain, and blocks of dy. */
bool fn_cpu_conv_first_fits(const fn_node *node);
fn_status fn_cpu_conv_first_prepare(fn_kernel *kernel);

void fn_cpu_conv_ports(const fn_node *node, conv_values *v);

/** to = leaky(from + bias): conversion, bias [C] (NULL: none) and activation in one pass. `to` may
 *  be `from`. Channels past the last one stay zero. */
void fn_cpu_conv_finish(const fn_tensor *to, const fn_tensor *from, const float *bias,
                        double slope);

/** Windows that do not overlap: see patch.h. */
bool fn_cpu_patch_forward_fits(const fn_node *node);
bool fn_cpu_patch_data_fits(const fn_node *node);
bool fn_cpu_patch_weight_fits(const fn_node *node);
fn_status fn_cpu_patch_forward_prepare(fn_kernel *kernel);
fn_status fn_cpu_patch_data_prepare(fn_kernel *kernel);
fn_status fn_cpu_patch_weight_prepare(fn_kernel *kernel);

/** Kernels of 3 cells, or 4 with stride 2, whose products are worth saving (winograd.h). */
bool fn_cpu_winograd_fits(const fn_node *node);
fn_status fn_cpu_winograd_prepare(fn_kernel *kernel);

/** Seconds of oneDNN's primitive for the same convolution, alone, in layouts of oneDNN's choice and
 *  memory of its own (kept for the next call); 0 where it has only an unoptimised one. */
fn_status fn_cpu_conv_time_library(const fn_kernel *kernel, double *seconds);

#endif
