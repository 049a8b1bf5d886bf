/* Every operator by name. */
#include <string.h>

#include "ops/ops.h"

static const fn_op *const operators[] = {
    &fn_op_conv,         &fn_op_conv_data,     &fn_op_conv_weight,
    &fn_op_matmul,       &fn_op_batch_norm,    &fn_op_batch_norm_grad,
    &fn_op_running,      &fn_op_fold_norm,     &fn_op_unary,
    &fn_op_binary,       &fn_op_leaky_grad,    &fn_op_fill,
    &fn_op_concat,       &fn_op_crop,          &fn_op_pad_zero,
    &fn_op_add_window,   &fn_op_pad_periodic,  &fn_op_pad_periodic_grad,
    &fn_op_reshape,      &fn_op_permute,       &fn_op_sum,
    &fn_op_broadcast,    &fn_op_average_pool,  &fn_op_average_pool_grad,
    &fn_op_max_pool,     &fn_op_max_pool_grad, &fn_op_max_pool_gather,
    &fn_op_resample,     &fn_op_resample_grad, &fn_op_normal,
    &fn_op_dropout_mask, &fn_op_log_softmax,
};

int fn_op_count(void) {
  return (int)(sizeof operators / sizeof operators[0]);
}

const fn_op *fn_op_at(int index) {
  return index >= 0 && index < fn_op_count() ? operators[index] : NULL;
}

const fn_op *fn_op_find(const char *name) {
  for (int i = 0; i < fn_op_count(); i++) {
    if (strcmp(operators[i]->name, name) == 0) return operators[i];
  }
  return NULL;
}
