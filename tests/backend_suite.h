/** @file backend_suite.h
 *  The kernels of a backend against the reference kernels, operator by operator: for backends that
 *  run all operators but convolutions. See backend_call.h for how and where.
 */
#ifndef BACKEND_SUITE_H
#define BACKEND_SUITE_H

#include <pthread.h>

#include "backend_call.h"
#include "base/system.h"

static const fn_shape absent = {.ndim = -1};

/** Sizes that are no multiples of anything, around one block and around one chunk of 4096. */
static const fn_shape activations[] = {
    {5, {1, 3, 3, 4, 5}}, {5, {3, 8, 5, 4, 7}},    {5, {2, 20, 3, 3, 3}}, {4, {3, 33, 5, 7}},
    {3, {1, 64, 13}},     {5, {1, 20, 9, 10, 11}}, {3, {2, 3, 5001}},     {2, {5, 7}},
};
enum { ACTIVATIONS = sizeof activations / sizeof *activations };

static fn_shape per_channel(const fn_shape *x) {
  return (fn_shape){1, {x->dim[1]}};
}

/* ---- batch norm
 * ---------------------------------------------------------------------------------- */

static void batch_norm(void **state) {
  (void)state;
  for (int i = 0; i < ACTIVATIONS; i++) {
    for (int kind = 0; kind < 8; kind++) {
      const bool fixed = kind & 1, residual = kind & 2;
      const fn_batch_norm_attrs attrs = {.eps = 1e-5, .slope = kind & 4 ? 0.01 : 1, .fixed = fixed};
      const fn_shape x = activations[i], c = per_channel(&x);
      const fn_shape shape[] = {
          x, c, c, residual ? x : absent, fixed ? c : absent, fixed ? c : absent};
      for (int variant = 0; variant < 16; variant++) {
        call b;
        call_make(&b, &fn_op_batch_norm, &attrs, 6, shape, 3);
        fill_inputs(&b, 3);
        // Errors of a mean scale with the spread: keep means of the same size.
        for (int64_t e = 0; e < call_in_count(&b, 0); e++)
          b.in[0][e] += 1;
        for (int64_t k = 0; fixed && k < c.dim[0]; k++)
          b.in[5][k] = 0.5 + fabs(b.in[5][k]);
        check_call(&b, &(manner){.block = variant & 1 ? 8 : 1,
                                 .strided = variant & 2,
                                 .half = variant & 4,
                                 .in_place = variant & 8,
                                 .full_in = 0x36,
                                 .full_out = 6});
        call_free(&b);
      }
    }
  }
}

static void batch_norm_gradient(void **state) {
  (void)state;
  for (int i = 0; i < ACTIVATIONS; i++) {
    for (int kind = 0; kind < 4; kind++) {
      const bool active = kind & 2;
      const fn_batch_norm_attrs attrs = {
          .eps = 1e-5, .slope = active ? 0.01 : 1, .fixed = kind & 1};
      const fn_shape x = activations[i], c = per_channel(&x);
      const fn_shape shape[] = {x, x, c, c, c, active ? x : absent};
      for (int variant = 0; variant < 16; variant++) {
        call b;
        call_make(&b, &fn_op_batch_norm_grad, &attrs, 6, shape, 4);
        fill_inputs(&b, 4);
        for (int64_t k = 0; k < c.dim[0]; k++)
          b.in[4][k] = 0.5 + fabs(b.in[4][k]);
        check_call(&b, &(manner){.block = variant & 1 ? 8 : 1,
                                 .strided = variant & 2,
                                 .half = variant & 4,
                                 .in_place = variant & 8,
                                 .full_in = 0x1c,
                                 .full_out = 6,
                                 .absent_out = variant == 9   ? 1
                                               : variant == 3 ? 8
                                                              : 0});
        call_free(&b);
      }
    }
  }
}

/** A mean 10^4 times the spread costs the variance few digits: the inputs are f32 already, so the
 *  reference sees the same numbers. */
static void large_mean(void **state) {
  (void)state;
  const fn_batch_norm_attrs attrs = {.eps = 0, .slope = 1};
  const fn_shape x = {5, {1, 8, 20, 20, 20}}, c = {1, {8}};
  call b;
  call_make(&b, &fn_op_batch_norm, &attrs, 6, (fn_shape[]){x, c, c, absent, absent, absent}, 3);
  fill_inputs(&b, 9);
  for (int64_t i = 0; i < fn_shape_count(&x); i++)
    b.in[0][i] += 1e4;
  check_call(&b, &(manner){.block = 8, .tolerance = 2e-6});
  call_free(&b);
}

static void threads_do_not_matter(void **state) {
  (void)state;
  const fn_batch_norm_attrs attrs = {.eps = 1e-5, .slope = 0.01};
  const fn_shape x = {5, {2, 20, 11, 13, 12}}, c = {1, {20}};
  const fn_reduce_attrs sums[] = {{0x1d, false}, {0x1f, false}, {0x1c, true}};
  const int threads = fn_threads_get();
  uint64_t first[5] = {0};
  for (int t = 1; t <= 5; t += 2) {
    fn_threads_set(t);
    uint64_t now[5];
    call b, g;
    call_make(&b, &fn_op_batch_norm, &attrs, 6, (fn_shape[]){x, c, c, absent, absent, absent}, 3);
    fill_inputs(&b, 11);
    now[0] = check_call(&b, &(manner){.block = 8});
    call_make(&g, &fn_op_batch_norm_grad, &attrs, 6, (fn_shape[]){x, x, c, c, c, x}, 4);
    fill_inputs(&g, 12);
    for (int k = 0; k < 20; k++)
      g.in[4][k] = 1 + fabs(g.in[4][k]);
    now[1] = check_call(&g, &(manner){.block = 8});
    for (int s = 0; s < 3; s++) {
      call r;
      call_make(&r, &fn_op_sum, &sums[s], 1, &x, 1);
      fill_inputs(&r, 13);
      now[2 + s] = check_call(&r, &(manner){.block = 8});
      call_free(&r);
    }
    for (int k = 0; k < 5 && t == 1; k++)
      first[k] = now[k];
    for (int k = 0; k < 5; k++)
      assert_true(first[k] == now[k]);
    call_free(&b);
    call_free(&g);
  }
  fn_threads_set(threads);
}

/* ---- synchronised: two threads play ranks
 * ---------------------------------------------------------- */

typedef struct team {
  pthread_barrier_t barrier;
  double part[2][64];
} team;

typedef struct member {
  team *team;
  int rank;
  call *call;
  fn_collectives all;
  fn_run_context context;
  fn_kernel kernel;
  held held[12];
  fn_tensor tensor[12];
} member;

static fn_status team_sum(void *self, double *values, int64_t count) {
  member *m = self;
  memcpy(m->team->part[m->rank], values, (size_t)count * sizeof(double));
  pthread_barrier_wait(&m->team->barrier);
  for (int64_t i = 0; i < count; i++)
    values[i] = m->team->part[0][i] + m->team->part[1][i];
  pthread_barrier_wait(&m->team->barrier);
  return FN_OK;
}

static void *member_run(void *self) {
  member *m = self;
  return m->kernel.run(&m->kernel, &m->context) == FN_OK ? m : NULL;
}

/** Prepare rank `rank` with rows [first, first + rows) of `whole`'s samples, f32. */
static void member_make(member *m, team *t, int rank, call *whole, call *own, int64_t first) {
  *m = (member){.team = t, .rank = rank, .call = own};
  m->all = (fn_collectives){.self = m, .rank = rank, .size = 2, .sum = team_sum};
  for (int i = 0; i < own->node.input_count + own->node.output_count; i++) {
    const bool is_input = i < own->node.input_count;
    const int p = is_input ? i : i - own->node.input_count;
    const fn_value *value = is_input ? own->input[p] : own->output[p];
    if (!value) continue;
    const int64_t count = fn_shape_count(&value->shape);
    const bool sliced = value->shape.ndim > 1;
    held_make(&m->held[i], &value->shape, FN_F32,
              tested_backend->channels_last && sliced ? value->shape.dim[1] : 1, false);
    m->tensor[i] = m->held[i].tensor;
    if (is_input)
      held_write(&m->held[i], whole->in[p] + (sliced ? first * (count / value->shape.dim[0]) : 0));
  }
  m->kernel = (fn_kernel){
      .node = &own->node, .input = m->tensor, .output = m->tensor + own->node.input_count};
  require(tested_backend->prepare(tested_backend, &m->kernel));
  m->context.collectives = &m->all;
  m->context.workspace = aligned_alloc(64, (m->kernel.workspace + 127) / 64 * 64);
}

static void member_free(member *m) {
  for (int i = 0; i < 12; i++)
    free(m->tensor[i].data);
  free(m->context.workspace);
  m->kernel.destroy(&m->kernel);
}

/** The outputs of two ranks with 1 and 2 samples against one call with 3; outputs in `summed` are
 *  per rank and add up. */
static void two_ranks(const fn_op *op, int inputs, const fn_shape *shape, int outputs,
                      unsigned summed) {
  const fn_batch_norm_attrs attrs = {.eps = 1e-5, .slope = 1, .sync = true};
  call whole, own[2];
  member m[2];
  team t;
  pthread_t thread[2];
  pthread_barrier_init(&t.barrier, NULL, 2);
  call_make(&whole, op, &attrs, inputs, shape, outputs);
  fill_inputs(&whole, 21);
  if (op == &fn_op_batch_norm_grad) {
    for (int k = 0; k < 5; k++)
      whole.in[4][k] = 1 + fabs(whole.in[4][k]);
  }
  call_run(&whole);
  for (int r = 0; r < 2; r++) {
    fn_shape part[6];
    for (int i = 0; i < inputs; i++) {
      part[i] = shape[i];
      if (shape[i].ndim > 1) part[i].dim[0] = 1 + r;
    }
    call_make(&own[r], op, &attrs, inputs, part, outputs);
    member_make(&m[r], &t, r, &whole, &own[r], r);
  }
  for (int r = 0; r < 2; r++)
    pthread_create(&thread[r], NULL, member_run, &m[r]);
  for (int r = 0; r < 2; r++) {
    void *done;
    pthread_join(thread[r], &done);
    assert_non_null(done);
  }
  for (int o = 0; o < outputs; o++) {
    const fn_tensor *a = &m[0].kernel.output[o], *b = &m[1].kernel.output[o];
    const int64_t channels = a->shape.ndim > 1 ? a->shape.dim[1] : 1;
    const int64_t count = call_out_count(&own[0], o), cells = count / channels;
    for (int64_t e = 0; e < count; e++) { // rank 0 has one row
      const int64_t at = a->shape.ndim > 1 ? held_offset(a, 0, e / cells, e % cells) : e;
      const double other = summed >> o & 1 ? held_get(b, at) : 0;
      assert_near(held_get(a, at) + other, whole.out[o][e], 2e-5);
    }
  }
  for (int r = 0; r < 2; r++) {
    member_free(&m[r]);
    call_free(&own[r]);
  }
  call_free(&whole);
  pthread_barrier_destroy(&t.barrier);
}

static void synchronised(void **state) {
  (void)state;
  const fn_shape x = {4, {3, 5, 4, 3}}, c = {1, {5}};
  two_ranks(&fn_op_batch_norm, 6, (fn_shape[]){x, c, c, absent, absent, absent}, 3, 0);
  two_ranks(&fn_op_batch_norm_grad, 6, (fn_shape[]){x, x, c, c, c, absent}, 4, 6);
}

static void running(void **state) {
  (void)state;
  const fn_running_attrs attrs = {.momentum = 0.1, .count = 12};
  const fn_shape c = {1, {5}};
  check_all(&fn_op_running, &attrs, 2, (fn_shape[]){c, c}, 1,
            &(manner){.full_in = 3, .full_out = 1});
}

/* ---- elementwise
 * --------------------------------------------------------------------------------- */

static void unary(void **state) {
  (void)state;
  for (int kind = FN_AFFINE; kind <= FN_CAST; kind++) {
    const bool positive = kind == FN_LOG || kind == FN_SQRT || kind == FN_RECIPROCAL;
    for (int i = 0; i < ACTIVATIONS; i++) {
      for (int variant = 0; variant < 16; variant++) {
        const fn_unary_attrs attrs = {.kind = (fn_unary)kind, .a = 0.3, .b = -0.7};
        call c;
        call_make(&c, &fn_op_unary, &attrs, 1, &activations[i], 1);
        fill_inputs(&c, 31);
        for (int64_t e = 0; positive && e < call_in_count(&c, 0); e++) {
          c.in[0][e] = 0.1 + fabs(c.in[0][e]);
        }
        check_call(&c, &(manner){.block = variant & 1 ? 8 : 1,
                                 .strided = variant & 2,
                                 .half = variant & 4,
                                 .in_place = variant & 8});
        call_free(&c);
      }
    }
  }
}

static void leaky_gradient(void **state) {
  (void)state;
  for (int i = 0; i < ACTIVATIONS; i++) {
    const fn_leaky_attrs attrs = {0.01};
    const fn_shape shape[] = {activations[i], activations[i]};
    check_all(&fn_op_leaky_grad, &attrs, 2, shape, 1, &(manner){0});
  }
}

/** Equal shapes, and every way of repeating one operand that networks use. */
static void binary(void **state) {
  (void)state;
  const fn_shape pairs[][2] = {
      {{5, {2, 20, 3, 4, 5}}, {5, {2, 20, 3, 4, 5}}},
      {{5, {2, 20, 3, 4, 5}}, {5, {1, 20, 1, 1, 1}}},
      {{5, {2, 20, 3, 4, 5}}, {0, {0}}},
      {{5, {2, 20, 3, 4, 5}}, {5, {2, 1, 3, 4, 5}}},
      {{5, {2, 1, 3, 4, 5}}, {5, {2, 16, 3, 1, 5}}},
      {{5, {2, 16, 3, 4, 5}}, {4, {16, 1, 1, 1}}},
      {{5, {2, 20, 3, 4, 5}}, {4, {20, 1, 1, 1}}},
      {{3, {2, 1, 1}}, {3, {1, 33, 7}}},
      {{4, {3, 8, 5, 6}}, {1, {6}}},
      {{2, {4, 5}}, {2, {4, 1}}},
      {{1, {5}}, {0, {0}}},
      {{0, {0}}, {0, {0}}},
      {{3, {1, 3, 9000}}, {3, {1, 3, 9000}}},
  };
  for (int kind = FN_ADD; kind <= FN_GREATER; kind++) {
    const fn_binary_attrs attrs = {(fn_binary)kind};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
      check_all(&fn_op_binary, &attrs, 2, pairs[i], 1, &(manner){.tolerance = 1e-6});
      const fn_shape swapped[] = {pairs[i][1], pairs[i][0]};
      check_all(&fn_op_binary, &attrs, 2, swapped, 1, &(manner){.tolerance = 1e-6});
    }
  }
}

static void fill_and_broadcast(void **state) {
  (void)state;
  for (int i = 0; i < ACTIVATIONS; i++) {
    const fn_fill_attrs attrs = {activations[i], 2.5};
    check_all(&fn_op_fill, &attrs, 0, NULL, 1, &(manner){0});
  }
  const fn_shape pairs[][2] = {
      {{5, {2, 3, 1, 1, 1}}, {5, {2, 3, 4, 5, 6}}},
      {{0, {0}}, {4, {2, 3, 4, 5}}},
      {{3, {20, 1, 4}}, {4, {2, 20, 3, 4}}},
  };
  for (int i = 0; i < 3; i++) {
    const fn_reshape_attrs attrs = {pairs[i][1]};
    check_all(&fn_op_broadcast, &attrs, 1, &pairs[i][0], 1, &(manner){0});
  }
}

/* ---- shape
 * --------------------------------------------------------------------------------------- */

static void windows(void **state) {
  (void)state;
  const struct {
    fn_shape whole, part;
    int64_t start[5];
  } cases[] = {
      {{5, {2, 20, 6, 7, 8}}, {5, {2, 20, 4, 3, 6}}, {0, 0, 1, 2, 1}},
      {{5, {2, 20, 3, 4, 3}}, {5, {2, 12, 3, 4, 3}}, {0, 8, 0, 0, 0}},
      {{5, {2, 40, 3, 4, 3}}, {5, {2, 5, 2, 4, 3}}, {0, 16, 1, 0, 0}},
      {{5, {2, 20, 3, 4, 3}}, {5, {2, 3, 3, 4, 2}}, {0, 5, 0, 0, 1}},
      {{3, {3, 8, 50}}, {3, {2, 8, 30}}, {1, 0, 7}},
      {{4, {1, 33, 9, 8}}, {4, {1, 33, 9, 4}}, {0, 0, 0, 4}},
      {{2, {5, 6}}, {2, {3, 2}}, {1, 3}},
      {{3, {1, 8, 2000}}, {3, {1, 8, 1999}}, {0, 0, 1}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fn_window_attrs attrs = {.shape = cases[i].part};
    memcpy(attrs.start, cases[i].start, sizeof cases[i].start);
    check_all(&fn_op_crop, &attrs, 1, &cases[i].whole, 1, &(manner){0});
    attrs.shape = cases[i].whole;
    check_all(&fn_op_pad_zero, &attrs, 1, &cases[i].part, 1, &(manner){0});
    attrs.shape = cases[i].part;
    const fn_shape both[] = {cases[i].whole, cases[i].part};
    check_all(&fn_op_add_window, &attrs, 2, both, 1, &(manner){0});
  }
}

static void concat(void **state) {
  (void)state;
  const struct {
    int axis, count;
    fn_shape part[3];
  } cases[] = {
      {1, 2, {{5, {2, 8, 3, 4, 5}}, {5, {2, 20, 3, 4, 5}}}},
      {1, 3, {{4, {1, 3, 4, 5}}, {4, {1, 3, 4, 5}}, {4, {1, 33, 4, 5}}}},
      {1, 3, {{3, {3, 16, 9}}, {3, {3, 8, 9}}, {3, {3, 5, 9}}}},
      {0, 2, {{4, {2, 20, 3, 5}}, {4, {1, 20, 3, 5}}}},
      {3, 2, {{4, {2, 20, 3, 5}}, {4, {2, 20, 3, 2}}}},
      {1, 2, {{2, {2, 3}}, {2, {2, 4}}}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const fn_concat_attrs attrs = {cases[i].axis};
    check_all(&fn_op_concat, &attrs, cases[i].count, cases[i].part, 1, &(manner){0});
  }
}

static void periodic(void **state) {
  (void)state;
  const struct {
    fn_shape inner, padded;
    int64_t start[5];
  } cases[] = {
      {{5, {2, 20, 3, 4, 5}}, {5, {2, 20, 5, 5, 9}}, {0, 0, 1, 0, 2}},
      {{3, {3, 3, 7}}, {3, {3, 3, 23}}, {0, 0, 9}}, // wraps more than once
      {{4, {1, 8, 600, 3}}, {4, {1, 8, 601, 4}}, {0, 0, 1, 1}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fn_window_attrs attrs = {.shape = cases[i].padded};
    memcpy(attrs.start, cases[i].start, sizeof cases[i].start);
    check_all(&fn_op_pad_periodic, &attrs, 1, &cases[i].inner, 1, &(manner){0});
    attrs.shape = cases[i].inner;
    check_all(&fn_op_pad_periodic_grad, &attrs, 1, &cases[i].padded, 1, &(manner){0});
  }
}

static void reshape_and_permute(void **state) {
  (void)state;
  const fn_shape x = {4, {2, 20, 3, 5}};
  check_all(&fn_op_reshape, &(fn_reshape_attrs){{2, {10, 60}}}, 1, &x, 1, &(manner){0});
  check_all(&fn_op_permute, &(fn_permute_attrs){{3, 1, 0, 2}}, 1, &x, 1, &(manner){0});
  check_all(&fn_op_permute, &(fn_permute_attrs){{0, 2, 3, 1}}, 1, &x, 1, &(manner){0});
}

static void sums(void **state) {
  (void)state;
  const unsigned axes[] = {0x1, 0x2, 0x3, 0x1d, 0x1c, 0x1f, 0x10, 0x0c, 0x15, 0xa};
  for (int i = 0; i < ACTIVATIONS; i++) {
    const fn_shape x = activations[i];
    for (size_t a = 0; a < sizeof axes / sizeof *axes; a++) {
      const fn_reduce_attrs attrs = {axes[a] & ((1u << x.ndim) - 1), a & 1};
      if (attrs.axes == 0) continue;
      check_all(&fn_op_sum, &attrs, 1, &x, 1, &(manner){.full_out = 1});
    }
  }
}

/* ---- pooling, resampling, products, random values
 * -------------------------------------------------- */

static void pooling(void **state) {
  (void)state;
  const struct {
    fn_shape x, y;
    fn_pool_attrs attrs;
  } cases[] = {
      {{5, {2, 20, 4, 6, 7}},
       {5, {2, 20, 2, 3, 3}},
       {.kernel = {2, 2, 2}, .geometry = {.stride = {2, 2, 2}}}},
      {{4, {3, 3, 9, 8}},
       {4, {3, 3, 5, 8}},
       {.kernel = {3, 3}, .geometry = {.stride = {2, 1}, .pad_low = {1, 1}, .pad_high = {1, 1}}}},
      {{3, {1, 33, 11}}, {3, {1, 33, 9}}, {.kernel = {3}, .geometry = {.stride = {1}}}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fn_pool_attrs attrs = cases[i].attrs;
    for (int d = 0; d < 3; d++)
      attrs.geometry.dilation[d] = 1;
    for (int d = 0; d < 3; d++) {
      if (attrs.geometry.stride[d] == 0) attrs.geometry.stride[d] = attrs.kernel[d] = 1;
    }
    attrs.geometry.groups = 1;
    attrs.extent = cases[i].x;
    const fn_shape x = cases[i].x, y = cases[i].y;
    check_all(&fn_op_average_pool, &attrs, 1, &x, 1, &(manner){0});
    check_all(&fn_op_average_pool_grad, &attrs, 1, &y, 1, &(manner){0});
    check_all(&fn_op_max_pool, &attrs, 1, &x, 1, &(manner){0});
    check_all(&fn_op_max_pool_grad, &attrs, 2, (fn_shape[]){y, x}, 1, &(manner){0});
    check_all(&fn_op_max_pool_gather, &attrs, 2, (fn_shape[]){x, x}, 1, &(manner){0});
  }
}

static void resampling(void **state) {
  (void)state;
  const struct {
    fn_shape x, y;
    double factor;
    int64_t trim;
  } cases[] = {
      {{5, {2, 20, 4, 3, 5}}, {5, {2, 20, 6, 4, 8}}, 2, 1},
      {{4, {1, 3, 9, 7}}, {4, {1, 3, 4, 3}}, 0.5, 0},
      {{3, {3, 33, 5}}, {3, {3, 33, 15}}, 3, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const fn_resample_attrs attrs = {cases[i].factor, cases[i].trim, cases[i].x};
    check_all(&fn_op_resample, &attrs, 1, &cases[i].x, 1, &(manner){0});
    check_all(&fn_op_resample_grad, &attrs, 1, &cases[i].y, 1, &(manner){0});
  }
}

static void products(void **state) {
  (void)state;
  for (int flags = 0; flags < 4; flags++) {
    const bool ta = flags & 1, tb = flags & 2;
    fn_matmul_attrs attrs = {ta, tb, 1};
    const fn_shape a = {4, {2, 3, ta ? 9 : 5, ta ? 5 : 9}};
    const fn_shape b = {4, {2, 3, tb ? 7 : 9, tb ? 9 : 7}};
    const fn_shape shared = {2, {b.dim[2], b.dim[3]}}, flat = {2, {a.dim[2], a.dim[3]}};
    check_all(&fn_op_matmul, &attrs, 2, (fn_shape[]){a, b}, 1, &(manner){0});
    check_all(&fn_op_matmul, &attrs, 2, (fn_shape[]){a, shared}, 1, &(manner){0});
    check_all(&fn_op_matmul, &attrs, 2, (fn_shape[]){flat, shared}, 1, &(manner){0});
    attrs.slope = 0.1;
    check_all(&fn_op_matmul, &attrs, 3, (fn_shape[]){a, shared, {1, {7}}}, 1,
              &(manner){.full_in = 4});
  }
  for (int i = 0; i < ACTIVATIONS; i++) {
    check_all(&fn_op_log_softmax, NULL, 1, &activations[i], 1, &(manner){0});
  }
}

static void random_values(void **state) {
  (void)state;
  const int64_t sample[] = {7, 123456, 2};
  const fn_run_context context = {.seed = 99, .epoch = 3, .sample = sample};
  const fn_random_attrs attrs = {{4, {3, 5, 33, 31}}, 0.3, 2};
  const manner m = {.context = &context, .tolerance = 1e-7};
  check_all(&fn_op_normal, &attrs, 0, NULL, 1, &m);
  check_all(&fn_op_dropout_mask, &attrs, 0, NULL, 1, &m);
}

/* ---- reorders and names
 * ---------------------------------------------------------------------------- */

/** One copy between layouts and types. */
static inline void reorder(const held *from, held *to) {
  fn_tensor input = from->tensor, output = to->tensor;
  if (tested_device) {
    input.data = call_upload(from->tensor.data, from->bytes);
    output.data = call_upload(to->tensor.data, to->bytes);
  }
  fn_kernel kernel = {.input = &input, .output = &output};
  require(tested_backend->prepare_reorder(tested_backend, &kernel));
  require(kernel.run(&kernel, &(fn_run_context){0}));
  if (tested_device) {
    call_download(to->tensor.data, output.data, to->bytes);
    call_download(from->tensor.data, input.data, from->bytes);
  }
  if (kernel.destroy) kernel.destroy(&kernel);
}

/** There and back through every pair of layouts and types. */
static void reorders(void **state) {
  (void)state;
  const int64_t blocks[] = {1, 8, 16};
  for (int i = 0; i < ACTIVATIONS; i++) {
    for (int b = 0; b < 3; b++) {
      for (int kind = 0; kind < 8; kind++) {
        const fn_shape x = activations[i];
        const fn_dtype near = kind & 1 ? tested_half : FN_F32;
        const fn_dtype far = kind & 2 ? tested_half : FN_F32;
        // A backend that wants channels last goes there, and then from there.
        const int64_t last = x.dim[1];
        const int64_t block = !tested_backend->channels_last ? blocks[b] : b == 1 ? last : 1;
        const int64_t outer = tested_backend->channels_last && b == 2 ? last : 1;
        held from, through, to;
        held_make(&from, &x, near, outer, kind & 4);
        held_make(&through, &x, far, block, kind & 4);
        held_make(&to, &x, near, outer, kind & 4);
        double *values = calloc((size_t)fn_shape_count(&x), sizeof *values);
        fn_random random = fn_random_stream(5, FN_RANDOM_TEST, 0, 0);
        fill_normal(&random, values, fn_shape_count(&x));
        held_write(&from, values);
        reorder(&from, &through);
        reorder(&through, &to);
        const double tolerance = near == FN_F32 && far != FN_F32 ? 0x1p-8 : 0;
        held_check(&through, values, tolerance, "reorder there", 0);
        held_check(&to, values, tolerance, "reorder back", 0);
        free(values);
        free(from.tensor.data);
        free(through.tensor.data);
        free(to.tensor.data);
      }
    }
  }
}

#endif
