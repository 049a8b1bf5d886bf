/* Batch normalisation: hand-computed values, finite differences, and two ranks against one. */
#include "op_call.h"

#include <math.h>
#include <pthread.h>

static const fn_shape absent = {.ndim = -1};

static void normalises_by_hand(void **state) {
  (void)state;
  // Variance 5/4 of four equidistant values, however far from zero they lie.
  const double offsets[] = {0, 1e8};
  for (int i = 0; i < 2; i++) {
    const fn_batch_norm_attrs attrs = {.eps = 0, .slope = 1};
    const fn_shape shapes[] = {{3, {2, 1, 2}}, {1, {1}}, {1, {1}}, absent, absent, absent};
    call c;
    call_make(&c, &fn_op_batch_norm, &attrs, 6, shapes, 3);
    for (int j = 0; j < 4; j++)
      c.in[0][j] = offsets[i] + 1 + j;
    c.in[1][0] = 2;
    c.in[2][0] = 10;
    call_run(&c);
    const double edge = 2 * 1.5 / sqrt(1.25), inside = 2 * 0.5 / sqrt(1.25);
    assert_values(c.out[0], (double[]){10 - edge, 10 - inside, 10 + inside, 10 + edge}, 4, 1e-14);
    assert_near(c.out[1][0], offsets[i] + 2.5, 0);
    assert_near(c.out[2][0], 1.25, 0);
    call_free(&c);
  }
}

static void fixed_statistics_residual_and_activation_by_hand(void **state) {
  (void)state;
  const fn_batch_norm_attrs attrs = {.eps = 0.25, .slope = 0.1, .fixed = true};
  const fn_shape x = {2, {2, 2}}, channels = {1, {2}};
  const fn_shape shapes[] = {x, channels, channels, x, channels, channels};
  call c;
  call_make(&c, &fn_op_batch_norm, &attrs, 6, shapes, 3);
  const double values[6][4] = {{1, 2, 3, 4}, {2, 3}, {0.5, -1}, {-4, 5, 6, -7}, {2, 1}, {0.75, 2}};
  for (int i = 0; i < 6; i++) {
    memcpy(c.in[i], values[i], (size_t)call_in_count(&c, i) * sizeof(double));
  }
  call_run(&c);
  // std is 1 and 3/2: -2 + .5 - 4, 2 - 1 + 5, 2 + .5 + 6, 6 - 1 - 7
  assert_values(c.out[0], (double[]){-0.55, 6, 8.5, -0.2}, 4, 1e-15);
  assert_values(c.out[1], values[4], 2, 0);
  assert_values(c.out[2], values[5], 2, 0);
  call_free(&c);
}

static void running_statistics_by_hand(void **state) {
  (void)state;
  const fn_running_attrs mean = {.momentum = 0.1}, var = {.momentum = 0.1, .count = 4};
  const fn_shape shapes[] = {{1, {1}}, {1, {1}}};
  call c;
  call_make(&c, &fn_op_running, &mean, 2, shapes, 1);
  c.in[0][0] = 3;
  c.in[1][0] = 1;
  call_run(&c);
  assert_near(c.out[0][0], 0.9 + 0.3, 1e-15);
  call_free(&c);
  call_make(&c, &fn_op_running, &var, 2, shapes, 1);
  c.in[0][0] = 3;
  c.in[1][0] = 1;
  call_run(&c);
  assert_near(c.out[0][0], 0.9 + 0.1 * 3 * 4 / 3, 1e-15); // unbiased: n / (n - 1)
  call_free(&c);
}

/* ---- gradient against finite differences
 * ---------------------------------------------------------- */

static double loss_of(call *forward, const double *dy) {
  call_run(forward);
  return inner(forward->out[0], dy, call_out_count(forward, 0));
}

/** Central difference of <dy, y> in element j of input i. */
static double difference(call *forward, const double *dy, int i, int64_t j) {
  const double step = 1e-5, saved = forward->in[i][j];
  forward->in[i][j] = saved + step;
  const double high = loss_of(forward, dy);
  forward->in[i][j] = saved - step;
  const double low = loss_of(forward, dy);
  forward->in[i][j] = saved;
  return (high - low) / (2 * step);
}

static void gradient_equals_finite_differences(void **state) {
  (void)state;
  fn_random random = fn_random_stream(7, FN_RANDOM_TEST, 0, 1);
  for (int variant = 0; variant < 4; variant++) {
    const bool fixed = variant & 1;
    const fn_batch_norm_attrs attrs = {.eps = 1e-3, .slope = variant & 2 ? 0.2 : 1, .fixed = fixed};
    const fn_shape x = {4, {3, 2, 3, 2}}, per = {1, {2}}, given = fixed ? per : absent;
    call forward, grad;
    call_make(&forward, &fn_op_batch_norm, &attrs, 6, (fn_shape[]){x, per, per, x, given, given},
              3);
    call_make(&grad, &fn_op_batch_norm_grad, &attrs, 6, (fn_shape[]){x, x, per, per, per, x}, 4);
    for (int i = 0; i < 4; i++)
      fill_normal(&random, forward.in[i], call_in_count(&forward, i));
    for (int j = 0; j < 2 && fixed; j++) {
      forward.in[4][j] = 0.3 * j;
      forward.in[5][j] = 1.5 - 0.7 * j;
    }
    fill_normal(&random, grad.in[0], call_in_count(&grad, 0));
    call_run(&forward);
    const double *const copies[] = {NULL,           forward.in[0],  forward.in[1],
                                    forward.out[1], forward.out[2], forward.out[0]};
    for (int i = 1; i < 6; i++) {
      memcpy(grad.in[i], copies[i], (size_t)call_in_count(&grad, i) * sizeof(double));
    }
    call_run(&grad);
    for (int i = 0; i < 4; i++) { // x, scale, shift, residual
      for (int64_t j = 0; j < call_in_count(&forward, i); j++) {
        assert_near(grad.out[i][j], difference(&forward, grad.in[0], i, j), 1e-8);
      }
    }
    call_free(&forward);
    call_free(&grad);
  }
}

/* ---- two ranks
 * -------------------------------------------------------------------------------------- */

/** Sums over threads that play ranks. */
typedef struct team {
  pthread_barrier_t barrier;
  double sum[64];
  pthread_mutex_t lock;
} team;

static fn_status team_sum(void *self, double *values, int64_t count) {
  team *t = self;
  if (pthread_barrier_wait(&t->barrier) == PTHREAD_BARRIER_SERIAL_THREAD) {
    memset(t->sum, 0, sizeof t->sum);
  }
  pthread_barrier_wait(&t->barrier);
  pthread_mutex_lock(&t->lock);
  for (int64_t i = 0; i < count; i++)
    t->sum[i] += values[i];
  pthread_mutex_unlock(&t->lock);
  pthread_barrier_wait(&t->barrier);
  memcpy(values, t->sum, (size_t)count * sizeof(double));
  pthread_barrier_wait(&t->barrier);
  return FN_OK;
}

enum { CHANNELS = 3, SPACE = 4, ROW = CHANNELS * SPACE };

/** A rank's rows of the batch: normalised forth and back, and the running variance. */
typedef struct member {
  team *team;
  int rows;
  call forward, grad, running;
} member;

static void member_make(member *m, const fn_batch_norm_attrs *attrs,
                        const fn_running_attrs *running, const double *x, const double *dy) {
  const fn_shape shape = {3, {m->rows, CHANNELS, SPACE}}, per = {1, {CHANNELS}};
  call_make(&m->forward, &fn_op_batch_norm, attrs, 6,
            (fn_shape[]){shape, per, per, absent, absent, absent}, 3);
  call_make(&m->grad, &fn_op_batch_norm_grad, attrs, 6,
            (fn_shape[]){shape, shape, per, per, per, absent}, 4);
  call_make(&m->running, &fn_op_running, running, 2, (fn_shape[]){per, per}, 1);
  memcpy(m->forward.in[0], x, (size_t)m->rows * ROW * sizeof(double));
  memcpy(m->grad.in[0], dy, (size_t)m->rows * ROW * sizeof(double));
  memcpy(m->grad.in[1], x, (size_t)m->rows * ROW * sizeof(double));
  for (int c = 0; c < CHANNELS; c++)
    m->forward.in[1][c] = m->grad.in[2][c] = 1 + c;
}

static void *member_run(void *self) {
  member *m = self;
  const fn_collectives collectives = {.self = m->team, .size = 2, .sum = team_sum};
  const fn_run_context context = {.collectives = m->team ? &collectives : NULL};
  call_run_in(&m->forward, &context);
  memcpy(m->grad.in[3], m->forward.out[1], CHANNELS * sizeof(double));
  memcpy(m->grad.in[4], m->forward.out[2], CHANNELS * sizeof(double));
  memcpy(m->running.in[0], m->forward.out[2], CHANNELS * sizeof(double));
  call_run_in(&m->grad, &context);
  call_run_in(&m->running, &context);
  return NULL;
}

static void two_ranks_equal_one(void **state) {
  (void)state;
  enum { FIRST = 2, SECOND = 3 };
  const fn_batch_norm_attrs attrs = {.eps = 1e-5, .slope = 1, .sync = true};
  double x[(FIRST + SECOND) * ROW], dy[(FIRST + SECOND) * ROW];
  fn_random random = fn_random_stream(8, FN_RANDOM_TEST, 0, 1);
  fill_normal(&random, x, (FIRST + SECOND) * ROW);
  fill_normal(&random, dy, (FIRST + SECOND) * ROW);
  team t;
  pthread_barrier_init(&t.barrier, NULL, 2);
  pthread_mutex_init(&t.lock, NULL);
  member all = {.rows = FIRST + SECOND},
         ranks[] = {{.team = &t, .rows = FIRST}, {.team = &t, .rows = SECOND}};
  const fn_running_attrs running[] = {{0.1, (FIRST + SECOND) * SPACE, true},
                                      {0.1, FIRST * SPACE, true},
                                      {0.1, SECOND * SPACE, true}};
  member_make(&all, &attrs, &running[0], x, dy);
  member_make(&ranks[0], &attrs, &running[1], x, dy);
  member_make(&ranks[1], &attrs, &running[2], x + FIRST * ROW, dy + FIRST * ROW);
  member_run(&all);
  pthread_t thread;
  pthread_create(&thread, NULL, member_run, &ranks[1]);
  member_run(&ranks[0]);
  pthread_join(thread, NULL);
  for (int rank = 0, row = 0; rank < 2; row += ranks[rank++].rows) {
    const int count = ranks[rank].rows * ROW;
    assert_values(ranks[rank].forward.out[0], all.forward.out[0] + row * ROW, count, 1e-13);
    assert_values(ranks[rank].forward.out[2], all.forward.out[2], CHANNELS, 1e-14);
    assert_values(ranks[rank].grad.out[0], all.grad.out[0] + row * ROW, count, 1e-13);
    assert_values(ranks[rank].running.out[0], all.running.out[0], CHANNELS, 1e-14);
  }
  for (int c = 0; c < CHANNELS; c++) { // gradients of scale and shift are each rank's own share
    for (int o = 1; o < 3; o++) {
      assert_near(ranks[0].grad.out[o][c] + ranks[1].grad.out[o][c], all.grad.out[o][c], 1e-13);
    }
  }
  member *members[] = {&all, &ranks[0], &ranks[1]};
  for (int i = 0; i < 3; i++) {
    call_free(&members[i]->forward);
    call_free(&members[i]->grad);
    call_free(&members[i]->running);
  }
  pthread_barrier_destroy(&t.barrier);
  pthread_mutex_destroy(&t.lock);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(normalises_by_hand),
      cmocka_unit_test(fixed_statistics_residual_and_activation_by_hand),
      cmocka_unit_test(running_statistics_by_hand),
      cmocka_unit_test(gradient_equals_finite_differences),
      cmocka_unit_test(two_ranks_equal_one),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
