/** @file conv_choice.h
 *  Convolutions as oneDNN's primitives: descriptors, layouts, arguments.
 */
#ifndef FN_BACKEND_CPU_CONV_CHOICE_H
#define FN_BACKEND_CPU_CONV_CHOICE_H

#include "backend/cpu/conv.h"
#include "backend/cpu/library.h"

enum { X = 0, Y = 1, CONV_W = 2, CONV_B = 3 }; // of a convolution y = w * x + b

/** Arguments of the primitive of a role: [conv_role][X, Y, CONV_W, CONV_B]. */
extern const int fn_conv_argument[][4];

/** How the primitive sees the activations. */
typedef struct conv_choice {
  int64_t block[2];         /**< of x and y; FN_LIBRARY_BLOCK: as oneDNN likes it best */
  dnnl_data_type_t type[2]; /**< of x and y */
  int64_t samples;          /**< per execution */
  bool bias;                /**< inside the primitive */
  bool sum;                 /**< the primitive adds to what lies in y */
} conv_choice;

conv_role fn_cpu_conv_role(const fn_node *node);
/** Added to the result of a forward convolution; NULL: nothing. */
const fn_value *fn_cpu_conv_residual(const fn_node *node);

/** Weights [K, C/g, k...], or [g, K/g, C/g, k...] for groups. plain false: oneDNN chooses. */
dnnl_status_t fn_cpu_conv_weights(const conv_values *v, int64_t groups, bool plain,
                                  dnnl_data_type_t type, dnnl_memory_desc_t *desc);
/** The primitive for what *c says, whatever its speed. */
dnnl_status_t fn_cpu_conv_describe(const fn_node *node, const conv_choice *c,
                                   dnnl_primitive_desc_t *pd);
/** Descriptor of the first candidate with a fast implementation, else of the plain layout. Blocks
 *  that are set already in *c are kept. Activation types are those of the values when the processor
 *  has them, else f32. */
dnnl_status_t fn_cpu_conv_choose(const fn_node *node, conv_choice *c, dnnl_primitive_desc_t *pd);
/** One of oneDNN's unoptimised implementations. */
bool fn_cpu_conv_is_slow(const_dnnl_primitive_desc_t pd);
/** How the primitive wants its argument `index` (DNNL_ARG_...). */
const_dnnl_memory_desc_t fn_cpu_conv_argument(const_dnnl_primitive_desc_t pd, int index);

#endif
