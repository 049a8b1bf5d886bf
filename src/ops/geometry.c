#include "ops/geometry.h"

fn_conv_geometry fn_geometry_complete(const fn_conv_geometry *given, int spatial) {
  fn_conv_geometry full = {0};
  if (given) full = *given;
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    if (d >= spatial) full.pad_low[d] = full.pad_high[d] = full.stride[d] = full.dilation[d] = 0;
    if (full.stride[d] == 0) full.stride[d] = 1;
    if (full.dilation[d] == 0) full.dilation[d] = 1;
  }
  if (full.groups == 0) full.groups = 1;
  return full;
}

fn_status fn_geometry_check(const char *what, const fn_conv_geometry *geometry, int spatial) {
  FN_CHECK(geometry->groups >= 1, FN_ERR_CONFIG, "%s: groups is %lld, must be at least 1", what,
           (long long)geometry->groups);
  for (int d = 0; d < spatial; d++) {
    const long long stride = geometry->stride[d], dilation = geometry->dilation[d];
    const long long low = geometry->pad_low[d], high = geometry->pad_high[d];
    FN_CHECK(stride >= 1, FN_ERR_CONFIG, "%s: stride of spatial axis %d is %lld, must be positive",
             what, d, stride);
    FN_CHECK(dilation >= 1, FN_ERR_CONFIG,
             "%s: dilation of spatial axis %d is %lld, must be positive", what, d, dilation);
    FN_CHECK(low >= 0 && high >= 0, FN_ERR_CONFIG,
             "%s: padding of spatial axis %d is %lld and %lld, must not be negative", what, d, low,
             high);
  }
  return FN_OK;
}

int64_t fn_geometry_length(const fn_conv_geometry *geometry, int axis, int64_t cells,
                           int64_t kernel) {
  const int64_t room = cells + geometry->pad_low[axis] + geometry->pad_high[axis] -
                       geometry->dilation[axis] * (kernel - 1) - 1;
  return room < 0 ? 0 : room / geometry->stride[axis] + 1;
}

fn_status fn_shape_check(const char *what, const char *name, const fn_shape *found,
                         const fn_shape *expected) {
  char found_text[FN_SHAPE_TEXT], expected_text[FN_SHAPE_TEXT];
  FN_CHECK(fn_shape_equal(found, expected), FN_ERR_CONFIG, "%s: %s is %s, expected %s", what, name,
           fn_shape_text(found, found_text, sizeof found_text),
           fn_shape_text(expected, expected_text, sizeof expected_text));
  return FN_OK;
}

bool fn_worth_threads(const fn_node *node) {
  return node->op->flops(node) > 1e5; // about the time in which a team of threads starts
}

void fn_spatial_sizes(const fn_shape *shape, int64_t sizes[FN_MAX_SPATIAL]) {
  const int missing = FN_MAX_SPATIAL - (shape->ndim - 2);
  for (int d = 0; d < FN_MAX_SPATIAL; d++) {
    sizes[d] = d < missing ? 1 : shape->dim[2 + d - missing];
  }
}
