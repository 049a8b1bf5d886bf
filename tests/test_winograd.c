/* Convolutions by minimal filtering against the reference kernels: kernels of 3 cells, and of 4
 * cells with stride 2, in random shapes and every role with ragged tiles, padding, odd channel
 * counts, batches, windows of larger tensors; the same bits with any number of threads; the rule
 * that chooses them. */
#include "backend_call.h"

#include "backend/cpu/conv.h"
#include "base/system.h"
#include "ops/geometry.h"

enum { SHAPES = 100, CASES = 3 * SHAPES };

/** A number from..to. */
static int64_t draw(fn_random *random, int64_t from, int64_t to) {
  return from + (int64_t)(fn_random_uniform(random) * (double)(to - from + 1));
}

typedef struct problem {
  const fn_op *op;
  fn_conv_attrs attrs;
  fn_shape x, w, y, input[4];
  int inputs, outputs;
} problem;

/** Sizes of x, w and the geometry are set: the rest of a problem for one operator. */
static void complete(problem *p, const fn_op *op, bool bias, bool residual, double slope) {
  const int spatial = p->x.ndim - 2;
  p->op = op;
  p->y = p->x;
  p->y.dim[1] = p->w.dim[0];
  for (int d = 0; d < spatial; d++)
    p->y.dim[2 + d] = fn_geometry_length(&p->attrs.geometry, d, p->x.dim[2 + d], p->w.dim[2 + d]);
  p->outputs = 1;
  p->attrs.slope = slope;
  const fn_shape none = {.ndim = -1};
  if (op == &fn_op_conv) {
    const fn_shape shape[] = {p->x, p->w, bias ? (fn_shape){1, {p->y.dim[1]}} : none, p->y};
    memcpy(p->input, shape, sizeof shape);
    p->inputs = residual ? 4 : bias ? 3 : 2;
  } else if (op == &fn_op_conv_data) {
    const fn_shape shape[] = {p->y, p->w, (fn_shape){1, {p->x.dim[1]}}};
    memcpy(p->input, shape, sizeof shape);
    p->attrs.extent = p->x;
    p->inputs = bias ? 3 : 2;
  } else {
    const fn_shape shape[] = {p->x, p->y};
    memcpy(p->input, shape, sizeof shape);
    p->attrs.extent = p->w;
    p->attrs.slope = 1;
    p->inputs = p->outputs = 2;
  }
}

static void random_problem(fn_random *random, const fn_op *op, problem *p) {
  memset(p, 0, sizeof *p);
  const int spatial = (int)draw(random, 1, 3);
  fn_conv_geometry g = {.groups = 1};
  p->x.ndim = p->w.ndim = spatial + 2;
  p->x.dim[0] = draw(random, 1, 3);
  p->x.dim[1] = p->w.dim[1] = draw(random, 1, 40);
  p->w.dim[0] = draw(random, 1, 40);
  const int64_t always = draw(random, 0, spatial - 1);
  const bool phases = draw(random, 0, 1);
  for (int d = 0; d < spatial; d++) {
    const bool strided = phases && (d == always || draw(random, 0, 2));
    p->w.dim[2 + d] = strided ? 4 : d == always || draw(random, 0, 3) ? 3 : 1;
    g.stride[d] = strided ? 2 : 1;
    p->x.dim[2 + d] = draw(random, 4, spatial == 3 ? 11 : 21);
    g.pad_low[d] = draw(random, 0, 2);
    g.pad_high[d] = draw(random, 0, 2);
  }
  p->attrs.geometry = fn_geometry_complete(&g, spatial);
  complete(p, op, draw(random, 0, 1), draw(random, 0, 1), draw(random, 0, 1) ? 0.1 : 1);
}

static uint64_t check_problem(const problem *p, bool strided, unsigned absent, bool in_place) {
  call c;
  call_make(&c, p->op, &p->attrs, p->inputs, p->input, p->outputs);
  assert_true(fn_cpu_winograd_fits(&c.node));
  fill_inputs(&c, 7);
  const uint64_t sum = check_call(
      &c, &(manner){.block = 8, .strided = strided, .absent_out = absent, .in_place = in_place});
  call_free(&c);
  return sum;
}

static const fn_op *const ops[] = {&fn_op_conv, &fn_op_conv_data, &fn_op_conv_weight};

static void random_shapes(void **state) {
  (void)state;
  fn_random random = fn_random_stream(3, FN_RANDOM_TEST, 0, 0);
  fn_cpu_set_winograd(FN_WINOGRAD_ALWAYS);
  for (int i = 0; i < CASES; i++) {
    problem p;
    random_problem(&random, ops[i % 3], &p);
    check_problem(&p, i & 1, i % 3 == 2 ? (unsigned)(i / 3 % 3) : 0, i & 2);
  }
}

/** A layer with enough cells for tiles of 6 along every axis and several blocks of tiles. */
static problem layer(int spatial, int64_t n, int64_t c, int64_t k, int64_t cells) {
  problem p = {.x = {spatial + 2, {n, c}}, .w = {spatial + 2, {k, c}}};
  p.attrs.geometry = fn_geometry_complete(NULL, spatial);
  for (int d = 0; d < spatial; d++)
    p.x.dim[2 + d] = cells, p.w.dim[2 + d] = 3;
  return p;
}

/** The same with kernels of 4 cells and stride 2, padded as a PENGUIN has them. */
static problem halving(int spatial, int64_t n, int64_t c, int64_t k, int64_t cells) {
  problem p = layer(spatial, n, c, k, cells);
  for (int d = 0; d < spatial; d++) {
    p.w.dim[2 + d] = 4;
    p.attrs.geometry.stride[d] = 2;
    p.attrs.geometry.pad_low[d] = p.attrs.geometry.pad_high[d] = 1;
  }
  return p;
}

static void threads_do_not_matter(void **state) {
  (void)state;
  const int before = fn_threads_get(), counts[] = {1, 2, 3, 4, 7, 13};
  for (int i = 0; i < 6; i++) {
    problem p = i < 3 ? layer(3, 2, 24, 20, 19) : halving(2, 5, 24, 20, 45);
    complete(&p, ops[i % 3], true, false, 0.5);
    fn_cpu_set_winograd(FN_WINOGRAD_ALWAYS);
    uint64_t first = 0;
    for (size_t t = 0; t < sizeof counts / sizeof *counts; t++) {
      fn_threads_set(counts[t]);
      const uint64_t sum = check_problem(&p, false, 0, false);
      if (t == 0) first = sum;
      assert_int_equal(sum, first);
    }
  }
  fn_threads_set(before);
}

static bool chosen(const problem *p, fn_winograd_mode mode) {
  call c;
  call_make(&c, p->op, &p->attrs, p->inputs, p->input, p->outputs);
  fn_cpu_set_winograd(mode);
  const bool fits = fn_cpu_winograd_fits(&c.node);
  call_free(&c);
  return fits;
}

/** What cannot be done so, or is not worth it, stays with the direct sum. */
static void rule(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) {
    problem p = layer(3, 1, 64, 64, 22);
    complete(&p, ops[i], true, false, 1);
    assert_false(chosen(&p, FN_WINOGRAD_NO));
    assert_true(chosen(&p, FN_WINOGRAD_ALWAYS));
    problem few = layer(3, 1, 3, 64, 22);
    complete(&few, ops[i], true, false, 1);
    assert_false(chosen(&few, FN_WINOGRAD_AUTO));
    problem small = layer(2, 1, 512, 512, 4); // transforming the weights costs more
    complete(&small, ops[i], true, false, 1);
    assert_false(chosen(&small, FN_WINOGRAD_AUTO));
    problem strided = layer(2, 1, 16, 16, 22);
    strided.attrs.geometry.stride[1] = 2;
    complete(&strided, ops[i], true, false, 1);
    assert_false(chosen(&strided, FN_WINOGRAD_ALWAYS));
    problem dilated = halving(2, 1, 16, 16, 22);
    dilated.attrs.geometry.dilation[0] = 2;
    complete(&dilated, ops[i], true, false, 1);
    assert_false(chosen(&dilated, FN_WINOGRAD_ALWAYS));
    problem wide = halving(2, 1, 16, 16, 22);
    wide.attrs.geometry.stride[1] = 1;
    complete(&wide, ops[i], true, false, 1);
    assert_false(chosen(&wide, FN_WINOGRAD_ALWAYS));
    problem grouped = layer(2, 1, 16, 16, 22);
    grouped.attrs.geometry.groups = 2;
    grouped.w.dim[1] = 8;
    complete(&grouped, ops[i], true, false, 1);
    assert_false(chosen(&grouped, FN_WINOGRAD_ALWAYS));
  }
}

/** PENGUIN's layers behind the first one, unless they are asked for otherwise or kept in bf16. */
static void halving_layers(void **state) {
  (void)state;
#if !(defined(__AVX2__) && defined(__FMA__))
  skip();
#endif
  static const int64_t shape[][3] = {{16, 32, 128}, {32, 64, 64}, {64, 96, 32}, {96, 128, 16}};
  const size_t from = fn_cpu_block() > 8 ? 2 : 0; // wider vectors, wider layers
  for (size_t l = from; l < sizeof shape / sizeof *shape; l++) {
    for (int i = 0; i < 3; i++) {
      problem p = halving(2, 24, shape[l][0], shape[l][1], shape[l][2]);
      complete(&p, ops[i], true, false, 1);
      assert_true(chosen(&p, FN_WINOGRAD_AUTO));
      assert_false(chosen(&p, FN_WINOGRAD_NO));
      problem first = halving(2, 24, 1, 16, 256);
      complete(&first, ops[i], true, false, 1);
      assert_false(chosen(&first, FN_WINOGRAD_AUTO));
    }
  }
}

static bool chosen_in_half(const problem *p) {
  call c;
  call_make(&c, p->op, &p->attrs, p->inputs, p->input, p->outputs);
  fn_cpu_set_winograd(FN_WINOGRAD_ALWAYS);
  c.node.input[0]->dtype = FN_BF16;
  const bool fits = fn_cpu_winograd_fits(&c.node);
  call_free(&c);
  return fits;
}

static void half_declines(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) {
    problem p = halving(2, 2, 32, 32, 22);
    complete(&p, ops[i], true, false, 1);
    assert_false(chosen_in_half(&p));
  }
}

/** The layers of a VNet and of a PENGUIN: the largest error of a forward pass and of both
 * gradients, relative to the largest value, beside that of direct sums. */
static void errors(void **state) {
  (void)state;
  for (int i = 0; i < 6; i++) {
    problem p = i < 3 ? layer(3, 1, 64, 64, 14) : halving(2, 1, 64, 64, 32);
    complete(&p, ops[i % 3], false, false, 1);
    for (fn_winograd_mode mode = FN_WINOGRAD_NO; mode <= FN_WINOGRAD_ALWAYS; mode++) {
      call c;
      fn_cpu_set_winograd(mode);
      call_make(&c, p.op, &p.attrs, p.inputs, p.input, p.outputs);
      fill_inputs(&c, 7);
      check_call(&c, &(manner){.block = 8, .tolerance = mode == FN_WINOGRAD_NO ? 4e-6 : 1e-5});
      call_free(&c);
    }
  }
}

static int restore(void **state) {
  (void)state;
  fn_cpu_set_winograd(FN_WINOGRAD_AUTO);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_shapes), cmocka_unit_test(threads_do_not_matter),
      cmocka_unit_test(rule),          cmocka_unit_test(halving_layers),
      cmocka_unit_test(half_declines), cmocka_unit_test(errors),
  };
  return cmocka_run_group_tests(tests, NULL, restore);
}
