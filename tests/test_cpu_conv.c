/* The cpu backend's convolutions against the reference kernels: every role, 1 to 3 dimensions. */
#include "backend_call.h"

#include "backend/cpu/cpu.h"
#include "base/system.h"
#include "ops/geometry.h"

typedef struct problem {
  const char *name;
  int spatial;
  int64_t n, c, k, cells[3], kernel[3];
  fn_conv_geometry geometry;
} problem;

static const problem problems[] = {
    {"first layer", 3, 1, 3, 64, {7, 6, 9}, {3, 3, 3}, {.groups = 1}},
    {"wide", 3, 1, 64, 64, {5, 6, 7}, {3, 3, 3}, {.groups = 1}},
    {"last layer", 3, 3, 33, 3, {5, 4, 6}, {3, 3, 3}, {.groups = 1}},
    {"odd channels",
     3,
     2,
     20,
     33,
     {5, 5, 6},
     {3, 2, 3},
     {.pad_low = {1, 0, 1}, .pad_high = {0, 1, 1}}},
    {"pointwise", 3, 3, 20, 64, {3, 4, 5}, {1, 1, 1}, {.groups = 1}},
    {"pointwise from 3", 3, 1, 3, 64, {3, 4, 5}, {1, 1, 1}, {.groups = 1}},
    {"halving", 3, 3, 64, 20, {6, 4, 26}, {2, 2, 2}, {.stride = {2, 2, 2}}},
    {"halving, odd", 3, 1, 8, 8, {7, 4, 5}, {2, 2, 2}, {.stride = {2, 2, 2}}},
    {"unequal patches", 3, 1, 33, 16, {4, 6, 14}, {1, 3, 2}, {.stride = {1, 3, 2}}},
    {"strided",
     3,
     2,
     16,
     8,
     {7, 6, 9},
     {3, 3, 3},
     {.stride = {2, 2, 2}, .pad_low = {1, 1, 1}, .pad_high = {1, 1, 1}}},
    {"dilated", 3, 1, 8, 20, {9, 8, 7}, {3, 3, 3}, {.dilation = {2, 1, 2}, .pad_low = {1, 0, 2}}},
    {"grouped", 3, 2, 12, 8, {5, 4, 5}, {3, 3, 3}, {.groups = 4}},
    {"image", 2, 3, 3, 20, {9, 11}, {3, 3}, {.pad_low = {1, 1}, .pad_high = {1, 1}}},
    {"image, doubling", 2, 3, 20, 64, {10, 6}, {2, 2}, {.stride = {2, 2}}},
    {"image, patches of 4x4", 2, 5, 16, 40, {18, 20}, {4, 4}, {.stride = {4, 4}}},
    {"image, small planes", 2, 19, 12, 13, {8, 12}, {4, 4}, {.stride = {4, 4}}},
    {"image, patches of 3x3", 2, 3, 12, 20, {9, 12}, {3, 3}, {.stride = {3, 3}}},
    {"image, many patches", 2, 3, 12, 24, {64, 92}, {2, 2}, {.stride = {2, 2}}},
    {"image, depthwise", 2, 2, 16, 16, {8, 7}, {3, 3}, {.groups = 16}},
    {"image, 5x4 stride 3", 2, 1, 8, 33, {14, 13}, {5, 4}, {.stride = {3, 2}, .pad_low = {2, 1}}},
    {"image, halving by 4x4",
     2,
     3,
     20,
     33,
     {21, 18},
     {4, 4},
     {.stride = {2, 2}, .pad_low = {1, 1}, .pad_high = {1, 1}}},
    {"line", 1, 3, 8, 33, {19}, {3}, {.groups = 1}},
    {"line from 1 channel", 1, 3, 1, 8, {19}, {5}, {.pad_low = {2}, .pad_high = {2}}},
    {"line, doubling", 1, 2, 33, 8, {14}, {2}, {.stride = {2}}},
    {"line to 1 channel", 1, 1, 20, 1, {11}, {4}, {.stride = {2}}},
};

enum { PROBLEMS = sizeof problems / sizeof *problems };

static void shapes_of(const problem *p, fn_conv_attrs *attrs, fn_shape *x, fn_shape *w,
                      fn_shape *y) {
  attrs->geometry = fn_geometry_complete(&p->geometry, p->spatial);
  const fn_conv_geometry *g = &attrs->geometry;
  x->ndim = w->ndim = y->ndim = p->spatial + 2;
  x->dim[0] = y->dim[0] = p->n;
  x->dim[1] = p->c;
  y->dim[1] = w->dim[0] = p->k;
  w->dim[1] = p->c / g->groups;
  for (int d = 0; d < p->spatial; d++) {
    x->dim[2 + d] = p->cells[d];
    w->dim[2 + d] = p->kernel[d];
    y->dim[2 + d] = fn_geometry_length(g, d, p->cells[d], p->kernel[d]);
  }
}

/** All manners of one operator; weights, biases and weight gradients stay f32. */
static void check_role(const fn_op *op, const fn_conv_attrs *attrs, int inputs,
                       const fn_shape *shape, int outputs) {
  const manner m = {.never_in_place = true,
                    .full_in = op == &fn_op_conv_weight ? 0 : 6,
                    .full_out = op == &fn_op_conv_weight ? 3 : 0};
  check_all(op, attrs, inputs, shape, outputs, &m);
}

static void forward(void **state) {
  (void)state;
  for (int i = 0; i < PROBLEMS; i++) {
    for (int extras = 0; extras < 2; extras++) {
      fn_conv_attrs attrs = {.slope = extras ? 0.01 : 1};
      fn_shape x, w, y;
      shapes_of(&problems[i], &attrs, &x, &w, &y);
      const fn_shape shape[] = {x, w, {1, {y.dim[1]}}};
      check_role(&fn_op_conv, &attrs, extras ? 3 : 2, shape, 1);
    }
  }
}

static void data(void **state) {
  (void)state;
  for (int i = 0; i < PROBLEMS; i++) {
    for (int extras = 0; extras < 2; extras++) {
      fn_conv_attrs attrs = {.slope = extras ? 0.2 : 1};
      fn_shape x, w, y;
      shapes_of(&problems[i], &attrs, &x, &w, &y);
      attrs.extent = x;
      const fn_shape shape[] = {y, w, {1, {x.dim[1]}}};
      check_role(&fn_op_conv_data, &attrs, extras ? 3 : 2, shape, 1);
    }
  }
}

static void weight(void **state) {
  (void)state;
  for (int i = 0; i < PROBLEMS; i++) {
    fn_conv_attrs attrs = {.slope = 1};
    fn_shape x, w, y;
    shapes_of(&problems[i], &attrs, &x, &w, &y);
    attrs.extent = w;
    const fn_shape shape[] = {x, y};
    check_role(&fn_op_conv_weight, &attrs, 2, shape, 2);
    for (unsigned absent = 1; absent < 3; absent++) {
      call c;
      call_make(&c, &fn_op_conv_weight, &attrs, 2, shape, 2);
      fill_inputs(&c, 5);
      check_call(&c, &(manner){.block = 8, .absent_out = absent});
      call_free(&c);
    }
  }
}

/** Weight gradients over patches: any number of threads gives the same bits. */
static void threads_do_not_matter(void **state) {
  (void)state;
  const problem p = {"patches", 2, 3, 16, 40, {64, 72}, {2, 2}, {.stride = {2, 2}}};
  fn_conv_attrs attrs = {.slope = 1};
  fn_shape x, w, y;
  shapes_of(&p, &attrs, &x, &w, &y);
  attrs.extent = w;
  const int threads = fn_threads_get();
  uint64_t first = 0;
  for (int t = 1; t <= 5; t += 2) {
    fn_threads_set(t);
    call c;
    call_make(&c, &fn_op_conv_weight, &attrs, 2, (fn_shape[]){x, y}, 2);
    fill_inputs(&c, 8);
    const uint64_t now = check_call(&c, &(manner){.block = 8});
    if (t == 1) first = now;
    assert_true(now == first);
    call_free(&c);
  }
  fn_threads_set(threads);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(forward),
      cmocka_unit_test(data),
      cmocka_unit_test(weight),
      cmocka_unit_test(threads_do_not_matter),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
