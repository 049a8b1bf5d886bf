/* Optimizers against PyTorch, and the properties a resumed or differently threaded run relies on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/judge.h"
#include "base/system.h"
#include "learn/learn.h"

/* Two parameters of 3 and 2 elements, the second at offset 16; what lies between is a gap. */
enum { COUNT = 32 };
static const int place[5] = {0, 1, 2, 16, 17};
static const float initial[5] = {0.5f, -1.25f, 2.0f, 0.1f, -0.3f};

typedef struct problem {
  fn_tensor_entry entry[2];
  fn_parameters parameters;
  float values[COUNT], gradients[COUNT];
} problem;

static void problem_init(problem *p) {
  memset(p, 0, sizeof *p);
  p->entry[0] = (fn_tensor_entry){.name = "late.weight", .offset = 16, .count = 2};
  p->entry[1] = (fn_tensor_entry){.name = "early.weight", .offset = 0, .count = 3};
  p->parameters = (fn_parameters){.dtype = FN_F32,
                                  .entry_count = 2,
                                  .entry = p->entry,
                                  .count = COUNT,
                                  .parameter_total = 5,
                                  .values = p->values,
                                  .gradients = p->gradients};
  for (int i = 0; i < 5; i++)
    p->values[place[i]] = initial[i];
}

/** Gradient of step t = 1, 2, ...: multiples of 1/8, exact in float32. */
static void problem_gradient(problem *p, int t, float factor) {
  for (int i = 0; i < 5; i++)
    p->gradients[place[i]] = factor * (float)((7 * i + 5 * t) % 11 - 5) / 8.0f;
}

/** PyTorch's defaults; -1 where the optimizer has its own. */
static fn_run defaults(const char *name, double lr) {
  fn_run run = {0};
  run.optimizer.name = name;
  run.optimizer.lr = lr;
  run.optimizer.weight_decay = -1;
  run.optimizer.eps = -1;
  run.optimizer.betas[0] = 0.9;
  run.optimizer.betas[1] = 0.999;
  run.optimizer.alpha = 0.99;
  run.optimizer.rho = 0.9;
  run.optimizer.momentum_decay = 4e-3;
  return run;
}

static fn_run sgd(void) {
  return defaults("sgd", 0.1);
}
static fn_run sgd_momentum(void) {
  fn_run run = defaults("sgd", 0.1);
  run.optimizer.momentum = 0.9;
  run.optimizer.dampening = 0.25;
  run.optimizer.weight_decay = 0.05;
  return run;
}
static fn_run sgd_nesterov(void) {
  fn_run run = defaults("sgd", 0.1);
  run.optimizer.momentum = 0.8;
  run.optimizer.nesterov = true;
  return run;
}
static fn_run adam(void) {
  return defaults("adam", 1e-3);
}
static fn_run adam_amsgrad(void) {
  fn_run run = defaults("adam", 0.1);
  run.optimizer.betas[0] = 0.3;
  run.optimizer.betas[1] = 0.5;
  run.optimizer.eps = 1e-3;
  run.optimizer.weight_decay = 0.1;
  run.optimizer.amsgrad = true;
  return run;
}
static fn_run adamw(void) {
  return defaults("adamw", 0.1);
}
static fn_run adamw_options(void) {
  fn_run run = defaults("adamw", 0.1);
  run.optimizer.betas[0] = 0.8;
  run.optimizer.betas[1] = 0.95;
  run.optimizer.eps = 1e-6;
  run.optimizer.weight_decay = 0.3;
  return run;
}
static fn_run rmsprop(void) {
  return defaults("rmsprop", 1e-2);
}
static fn_run rmsprop_options(void) {
  fn_run run = defaults("rmsprop", 0.05);
  run.optimizer.alpha = 0.9;
  run.optimizer.eps = 1e-4;
  run.optimizer.weight_decay = 0.1;
  run.optimizer.momentum = 0.7;
  run.optimizer.centered = true;
  return run;
}
static fn_run rmsprop_momentum(void) {
  fn_run run = defaults("rmsprop", 0.05);
  run.optimizer.momentum = 0.5;
  return run;
}
static fn_run adadelta(void) {
  return defaults("adadelta", 1.0);
}
static fn_run adadelta_options(void) {
  fn_run run = defaults("adadelta", 2.0);
  run.optimizer.rho = 0.7;
  run.optimizer.eps = 1e-3;
  run.optimizer.weight_decay = 0.1;
  return run;
}
static fn_run adagrad(void) {
  return defaults("adagrad", 1e-2);
}
static fn_run adagrad_options(void) {
  fn_run run = defaults("adagrad", 0.1);
  run.optimizer.lr_decay = 0.2;
  run.optimizer.weight_decay = 0.1;
  run.optimizer.initial_accumulator = 0.3;
  run.optimizer.eps = 1e-4;
  return run;
}
static fn_run nadam(void) {
  return defaults("nadam", 2e-3);
}
static fn_run nadam_options(void) {
  fn_run run = defaults("nadam", 0.1);
  run.optimizer.betas[0] = 0.7;
  run.optimizer.betas[1] = 0.9;
  run.optimizer.eps = 1e-5;
  run.optimizer.weight_decay = 0.2;
  run.optimizer.momentum_decay = 0.05;
  return run;
}

/* PyTorch 2.15.0 (CPU, float32), weights after five steps, printed with %.9g:
 *
 *   w = torch.tensor([0.5, -1.25, 2.0, 0.1, -0.3], requires_grad=True)
 *   o = torch.optim.<text>                        # with foreach=False
 *   for t in range(1, 6):
 *       w.grad = torch.tensor([((7 * i + 5 * t) % 11 - 5) / 8 for i in range(5)])
 *       o.step()
 *   print(w.tolist())
 */
typedef struct torch_case {
  const char *text;
  fn_run (*run)(void);
  float expected[5];
} torch_case;

static const torch_case torch_cases[] = {
    {"SGD([w], lr=0.1)",
     sgd,
     {0.424999982f, -1.2125001f, 2.01250005f, 0.0874999985f, -0.337500036f}},
    {"SGD([w], lr=0.1, momentum=0.9, dampening=0.25, weight_decay=0.05)",
     sgd_momentum,
     {0.286346674f, -0.933519185f, 1.84801078f, 0.0426404104f, -0.177983552f}},
    {"SGD([w], lr=0.1, momentum=0.8, nesterov=True)",
     sgd_nesterov,
     {0.249799982f, -1.03555596f, 2.013412f, 0.0278359931f, -0.313419998f}},
    {"Adam([w], lr=1e-3)",
     adam,
     {0.497818589f, -1.24715066f, 1.99915206f, 0.0999066308f, -0.298662186f}},
    {"Adam([w], lr=0.1, betas=(0.3, 0.5), eps=1e-3, weight_decay=0.1, amsgrad=True)",
     adam_amsgrad,
     {0.217809141f, -1.0403167f, 1.8180635f, 0.111559659f, -0.313304305f}},
    {"AdamW([w], lr=0.1)",
     adamw,
     {0.279737592f, -0.959585428f, 1.90564227f, 0.089992404f, -0.165303394f}},
    {"AdamW([w], lr=0.1, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)",
     adamw_options,
     {0.224219084f, -0.827094674f, 1.65997458f, 0.0726244673f, -0.167659774f}},
    {"RMSprop([w], lr=1e-2)",
     rmsprop,
     {0.387397557f, -1.15853286f, 1.97710013f, 0.140124291f, -0.306345403f}},
    {"RMSprop([w], lr=0.05, alpha=0.9, eps=1e-4, weight_decay=0.1, momentum=0.7, centered=True)",
     rmsprop_options,
     {-0.440528959f, -0.563715816f, 1.51048875f, 0.208126023f, -0.124114752f}},
    {"RMSprop([w], lr=0.05, momentum=0.5)",
     rmsprop_momentum,
     {-0.581856787f, -0.140069827f, 1.72926819f, 0.371352911f, -0.0941185132f}},
    {"Adadelta([w], lr=1.0)",
     adadelta,
     {0.496547848f, -1.2480135f, 2.00039268f, 0.101656348f, -0.302112162f}},
    {"Adadelta([w], lr=2.0, rho=0.7, eps=1e-3, weight_decay=0.1)",
     adadelta_options,
     {0.263462573f, -1.09669554f, 1.82296574f, 0.153739721f, -0.368256748f}},
    {"Adagrad([w], lr=1e-2)",
     adagrad,
     {0.488737911f, -1.24081862f, 1.99769449f, 0.103989549f, -0.300557584f}},
    {"Adagrad([w], lr=0.1, lr_decay=0.2, weight_decay=0.1, initial_accumulator_value=0.3, "
     "eps=1e-4)",
     adagrad_options,
     {0.411192566f, -1.14479983f, 1.91457188f, 0.0804204345f, -0.276125789f}},
    {"NAdam([w], lr=2e-3)",
     nadam,
     {0.497197479f, -1.2477901f, 1.9995209f, 0.100814089f, -0.300259799f}},
    {"NAdam([w], lr=0.1, betas=(0.7, 0.9), eps=1e-5, weight_decay=0.2, momentum_decay=0.05)",
     nadam_options,
     {0.193237185f, -1.00413799f, 1.70598876f, 0.120100982f, -0.302046061f}},
};
enum { TORCH_CASES = sizeof torch_cases / sizeof torch_cases[0] };

static fn_optimizer *create(const fn_run *run, problem *p) {
  fn_optimizer *optimizer = NULL;
  if (fn_optimizer_create(run, &p->parameters, &optimizer) != FN_OK)
    fail_msg("%s", fn_error_message());
  return optimizer;
}

/* Five float32 updates may each round differently (fused multiply-add or not): half a unit in the
 * last place of the largest value that the weight had, and no update here is larger than one half.
 */
static void same_weights_as_torch(void **state) {
  (void)state;
  for (int c = 0; c < TORCH_CASES; c++) {
    problem p;
    problem_init(&p);
    const fn_run run = torch_cases[c].run();
    fn_optimizer *optimizer = create(&run, &p);
    for (int t = 1; t <= 5; t++) {
      problem_gradient(&p, t, 1);
      fn_optimizer_step(optimizer, run.optimizer.lr, 1);
    }
    for (int i = 0; i < 5; i++) {
      const double found = (double)p.values[place[i]],
                   expected = (double)torch_cases[c].expected[i];
      const double largest = fmax(fmax(fabs(expected), fabs((double)initial[i])), 0.5);
      if (!(fabs(found - expected) <= 5 * 0x1p-24 * largest))
        fail_msg("%s: weight %d: expected %.9g, found %.9g", torch_cases[c].text, i, expected,
                 found);
    }
    assert_int_equal(fn_optimizer_steps(optimizer), 5);
    fn_optimizer_destroy(optimizer);
  }
}

/* By hand. SGD: w - lr g. Adam's first step: m = (1-b1) g and v = (1-b2) g^2 are divided by 1-b1
 * and 1-b2, which leaves w - lr g / (|g| + eps): lr times the sign of g. */
static void first_step_by_hand(void **state) {
  (void)state;
  problem p;
  problem_init(&p);
  fn_run run = sgd();
  fn_optimizer *optimizer = create(&run, &p);
  p.gradients[1] = 0.75f;
  fn_optimizer_step(optimizer, 0.1, 1);
  assert_true(fabsf(p.values[1] - (-1.25f - 0.075f)) < 2e-7f);
  assert_true(p.values[0] == 0.5f);
  fn_optimizer_destroy(optimizer);
  problem_init(&p);
  run = adam();
  optimizer = create(&run, &p);
  p.gradients[0] = 3e-3f;
  p.gradients[2] = -70.0f;
  fn_optimizer_step(optimizer, 0.01, 1);
  assert_true(fabsf(p.values[0] - 0.49f) < 2e-7f);
  assert_true(fabsf(p.values[2] - 2.01f) < 4e-7f);
  fn_optimizer_destroy(optimizer);
}

/* Clipping: a step with scale 1/2 is the step of half the gradient, bit for bit. */
static void scale_is_a_factor_of_the_gradient(void **state) {
  (void)state;
  for (int c = 0; c < TORCH_CASES; c++) {
    problem a, b;
    problem_init(&a);
    problem_init(&b);
    const fn_run run = torch_cases[c].run();
    fn_optimizer *oa = create(&run, &a), *ob = create(&run, &b);
    for (int t = 1; t <= 3; t++) {
      problem_gradient(&a, t, 1);
      problem_gradient(&b, t, 0.5f);
      fn_optimizer_step(oa, run.optimizer.lr, 0.5);
      fn_optimizer_step(ob, run.optimizer.lr, 1);
    }
    assert_memory_equal(a.values, b.values, sizeof a.values);
    fn_optimizer_destroy(oa);
    fn_optimizer_destroy(ob);
  }
}

/* What a checkpoint holds is enough: steps, state arrays and scalars carried into a new optimizer
 * give the bits of the uninterrupted run. */
static void resumed_equals_uninterrupted(void **state) {
  (void)state;
  for (int c = 0; c < TORCH_CASES; c++) {
    problem whole, part;
    problem_init(&whole);
    problem_init(&part);
    const fn_run run = torch_cases[c].run();
    fn_optimizer *a = create(&run, &whole), *b = create(&run, &part);
    for (int t = 1; t <= 6; t++) {
      problem_gradient(&whole, t, 1);
      problem_gradient(&part, t, 1);
      fn_optimizer_step(a, run.optimizer.lr, 1);
      fn_optimizer_step(b, run.optimizer.lr, 1);
      if (t != 3) continue;
      fn_optimizer *resumed = create(&run, &part);
      fn_optimizer_set_steps(resumed, fn_optimizer_steps(b));
      for (int s = 0; s < fn_optimizer_state_count(b); s++)
        memcpy(fn_optimizer_state(resumed, s), fn_optimizer_state(b, s), sizeof part.values);
      for (int s = 0; s < fn_optimizer_scalar_count(b); s++)
        *fn_optimizer_scalar(resumed, s, NULL) = *fn_optimizer_scalar(b, s, NULL);
      fn_optimizer_destroy(b);
      b = resumed;
    }
    assert_memory_equal(whole.values, part.values, sizeof whole.values);
    fn_optimizer_destroy(a);
    fn_optimizer_destroy(b);
  }
}

/* Names of torch's state_dict, in any order there; the order here is that of the checkpoint. */
static void state_names(void **state) {
  (void)state;
  static const struct {
    fn_run (*run)(void);
    const char *names;
  } cases[] = {
      {sgd, ""},
      {sgd_momentum, "momentum_buffer "},
      {adam, "exp_avg exp_avg_sq "},
      {adam_amsgrad, "exp_avg exp_avg_sq max_exp_avg_sq "},
      {rmsprop, "square_avg "},
      {rmsprop_options, "square_avg grad_avg momentum_buffer "},
      {adadelta, "square_avg acc_delta "},
      {adagrad, "sum "},
      {nadam, "exp_avg exp_avg_sq "},
  };
  for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
    problem p;
    problem_init(&p);
    const fn_run run = cases[c].run();
    fn_optimizer *optimizer = create(&run, &p);
    char names[256] = "";
    for (int s = 0; s < fn_optimizer_state_count(optimizer); s++) {
      strcat(names, fn_optimizer_state_name(optimizer, s));
      strcat(names, " ");
    }
    assert_string_equal(names, cases[c].names);
    const bool is_nadam = cases[c].run == nadam;
    assert_int_equal(fn_optimizer_scalar_count(optimizer), is_nadam);
    const char *scalar = NULL;
    if (is_nadam) {
      assert_non_null(fn_optimizer_scalar(optimizer, 0, &scalar));
      assert_string_equal(scalar, "mu_product");
    }
    fn_optimizer_destroy(optimizer);
  }
}

/* Gaps stay zero whatever the options; eps 0 is where an update of nothing is 0 / 0. */
static void gaps_stay_zero(void **state) {
  (void)state;
  for (int c = 0; c < TORCH_CASES; c++) {
    for (int zero_eps = 0; zero_eps < 2; zero_eps++) {
      problem p;
      problem_init(&p);
      fn_run run = torch_cases[c].run();
      if (zero_eps) run.optimizer.eps = 0;
      fn_optimizer *optimizer = create(&run, &p);
      for (int t = 1; t <= 3; t++) {
        problem_gradient(&p, t, 1);
        fn_optimizer_step(optimizer, 0.1, 1);
      }
      for (int i = 0; i < COUNT; i++) {
        const bool gap = (i > 2 && i < 16) || i > 17;
        if (gap) assert_true(p.values[i] == 0.0f);
      }
      fn_optimizer_destroy(optimizer);
    }
  }
}

/* ---- many elements: independence of the number of threads
 * ------------------------------------------ */

enum { MANY = 100016, MANY_USED = 100003 };

typedef struct big_problem {
  fn_tensor_entry entry[1];
  fn_parameters parameters;
} big_problem;

static void big_init(big_problem *p) {
  p->entry[0] = (fn_tensor_entry){.name = "w", .count = MANY_USED};
  p->parameters =
      (fn_parameters){.dtype = FN_F32, .entry_count = 1, .entry = p->entry, .count = MANY};
  float *values = calloc(MANY, sizeof *values), *gradients = calloc(MANY, sizeof *gradients);
  assert_true(values && gradients);
  for (int i = 0; i < MANY_USED; i++) {
    values[i] = sinf(0.37f * (float)i);
    gradients[i] = cosf(0.11f * (float)i) * expf(-1e-5f * (float)i);
  }
  p->parameters.values = values;
  p->parameters.gradients = gradients;
}

static void big_free(big_problem *p) {
  free(p->parameters.values);
  free(p->parameters.gradients);
}

/* Clipping as torch.nn.utils.clip_grad_norm_ does it, of gradients without their loss scale. */
static void clipped(void **state) {
  (void)state;
  fn_judgement judgement;
  fn_step_facts facts = {.clip = 2, .loss_scale = 8};
  fn_judge_decide(&facts, 32, &judgement);
  assert_true(judgement.norm == 4 && judgement.scale == (float)(2 / (4 + 1e-6) / 8));
  fn_judge_decide(&facts, 16, &judgement);
  assert_true(judgement.norm == 2 && judgement.scale == 0.125f);
}

/* Steps 1 .. 6 as a judge with clipping lets them be, step 2 and 5 with a gradient that is not
 * finite; or, without a judge, those that count, by the scales that it found. */
static void take_six(const fn_run *run, problem *p, bool judged, bool replay, float *scale,
                     fn_optimizer **optimizer) {
  fn_judge *judge;
  fn_judgement judgement;
  const fn_step_facts facts = {.clip = 0.5, .loss_scale = 1};
  const fn_tensor_entry *watched[2] = {&p->entry[1], &p->entry[0]};
  assert_int_equal(fn_optimizer_create(run, &p->parameters, optimizer), FN_OK);
  assert_int_equal(fn_judge_create(&p->parameters, fn_optimizer_obey, *optimizer, replay, &judge),
                   FN_OK);
  for (int t = 1; t <= 6; t++) {
    const bool bad = t == 2 || t == 5;
    if (!judged && bad) continue;
    problem_gradient(p, t, 1);
    if (bad) p->gradients[place[4]] = p->gradients[place[1]] = NAN;
    fn_mirror_changed(fn_parameters_mirror(&p->parameters, FN_MIRROR_GRADIENTS));
    if (!judged) {
      assert_int_equal(fn_optimizer_step(*optimizer, 0.1, (double)scale[t]), FN_OK);
      continue;
    }
    assert_int_equal(fn_optimizer_begin(*optimizer, 0.1, judge), FN_OK);
    assert_int_equal(fn_judge_put(judge, &facts, fn_optimizer_factors(*optimizer), watched), FN_OK);
    assert_int_equal(fn_judge_read(judge, &judgement), FN_OK);
    assert_int_equal(judgement.verdict, bad ? FN_STEP_BAD : FN_STEP_TAKEN);
    scale[t] = judgement.scale;
    if (bad) fn_optimizer_undo(*optimizer);
    // in order of creation
    if (bad) assert_string_equal(fn_gradient_name(&p->parameters, judgement.bad), "late.weight");
    if (bad) continue;
    double squares = 0;
    for (int i = 0; i < 3; i++)
      squares += (double)p->gradients[i] * (double)p->gradients[i];
    assert_true(judgement.squares[1] == squares && scale[t] < 1);
    assert_true(judgement.squares[0] == judgement.squares[1] + judgement.squares[2]);
  }
  fn_judge_destroy(judge);
  assert_int_equal(fn_parameters_to_host(&p->parameters), FN_OK);
  assert_int_equal(fn_optimizer_to_host(*optimizer), FN_OK);
}

/* On the host, on a device kernel by kernel, and there replayed: what is judged bad leaves weights,
 * states and counts alone. */
static void steps_are_judged(void **state) {
  (void)state;
  const fn_backend *backend;
  fn_device *device;
  const fn_device_choice choice = {.node_size = 1};
  assert_int_equal(fn_backend_find("emulated", &backend), FN_OK);
  assert_int_equal(backend->device(backend, &choice, &device), FN_OK);
  for (int c = 0; c < 3 * TORCH_CASES; c++) {
    problem p[2];
    fn_optimizer *o[2];
    float scale[7] = {0};
    const fn_run run = torch_cases[c / 3].run();
    for (int k = 0; k < 2; k++) {
      problem_init(&p[k]);
      if (c % 3) assert_int_equal(fn_parameters_attach(&p[k].parameters, device), FN_OK);
      take_six(&run, &p[k], k == 0, c % 3 == 2, scale, &o[k]);
    }
    assert_int_equal(fn_optimizer_steps(o[0]), 4);
    assert_int_equal(fn_optimizer_steps(o[1]), 4);
    assert_memory_equal(p[0].values, p[1].values, sizeof p[0].values);
    for (int i = 0; i < fn_optimizer_state_count(o[0]); i++)
      assert_memory_equal(fn_optimizer_state(o[0], i), fn_optimizer_state(o[1], i),
                          COUNT * sizeof(float));
    if (fn_optimizer_scalar_count(o[0]))
      assert_true(*fn_optimizer_scalar(o[0], 0, NULL) == *fn_optimizer_scalar(o[1], 0, NULL));
    for (int k = 0; k < 2; k++) {
      fn_optimizer_destroy(o[k]);
      for (int m = 0; m < FN_MIRRORS; m++)
        fn_mirror_destroy(&p[k].parameters.mirror[m]);
    }
  }
}

static void threads_do_not_change_bits(void **state) {
  (void)state;
  const int threads = fn_threads_get();
  for (int c = 0; c < TORCH_CASES; c++) {
    float *first = NULL;
    for (int n = 1; n <= 4; n++) {
      fn_threads_set(n);
      big_problem p;
      big_init(&p);
      const fn_run run = torch_cases[c].run();
      fn_optimizer *optimizer = NULL;
      assert_int_equal(fn_optimizer_create(&run, &p.parameters, &optimizer), FN_OK);
      for (int t = 0; t < 2; t++)
        fn_optimizer_step(optimizer, 0.01, 0.7);
      fn_optimizer_destroy(optimizer);
      if (!first) {
        first = malloc(MANY * sizeof *first);
        assert_non_null(first);
        memcpy(first, p.parameters.values, MANY * sizeof *first);
      } else if (memcmp(first, p.parameters.values, MANY * sizeof *first) != 0) {
        fail_msg("%s: %d threads give other bits than one", torch_cases[c].text, n);
      }
      big_free(&p);
    }
    free(first);
  }
  fn_threads_set(threads);
}

static void norm_in_fixed_order(void **state) {
  (void)state;
  const int threads = fn_threads_get();
  big_problem p;
  big_init(&p);
  const float *gradient = p.parameters.gradients;
  long double exact = 0;
  for (int i = 0; i < MANY; i++)
    exact += (long double)gradient[i] * (long double)gradient[i];
  fn_threads_set(1);
  const double norm = fn_gradient_norm(&p.parameters);
  assert_true(fabs(norm - (double)sqrtl(exact)) < 1e-14 * norm);
  for (int n = 2; n <= 5; n++) {
    fn_threads_set(n);
    assert_true(fn_gradient_norm(&p.parameters) == norm);
  }
  big_free(&p);
  problem small;
  problem_init(&small);
  small.gradients[1] = 3;
  small.gradients[17] = -4;
  assert_true(fn_gradient_norm(&small.parameters) == 5);
  fn_threads_set(threads);
}

static void not_finite_is_named(void **state) {
  (void)state;
  problem p;
  problem_init(&p);
  problem_gradient(&p, 1, 1);
  assert_int_equal(fn_gradient_not_finite(&p.parameters), -1);
  p.gradients[2] = INFINITY;
  assert_string_equal(fn_gradient_name(&p.parameters, fn_gradient_not_finite(&p.parameters)),
                      "early.weight");
  assert_false(isfinite(fn_gradient_norm(&p.parameters)));
  p.gradients[17] = NAN;
  assert_string_equal(fn_gradient_name(&p.parameters, fn_gradient_not_finite(&p.parameters)),
                      "late.weight");
}

/* ---- what is refused
 * --------------------------------------------------------------------------------- */

static void refused(void **state) {
  (void)state;
  problem p;
  problem_init(&p);
  fn_optimizer *optimizer = NULL;
  fn_run run = defaults("adma", 0.1);
  assert_int_equal(fn_optimizer_create(&run, &p.parameters, &optimizer), FN_ERR_CONFIG);
  assert_non_null(strstr(fn_error_message(), "did you mean 'adam'"));
  run = sgd_nesterov();
  run.optimizer.dampening = 0.1;
  assert_int_equal(fn_optimizer_create(&run, &p.parameters, &optimizer), FN_ERR_CONFIG);
  run = sgd();
  p.parameters.dtype = FN_F64;
  assert_int_equal(fn_optimizer_create(&run, &p.parameters, &optimizer), FN_ERR_UNSUPPORTED);
  assert_null(optimizer);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(same_weights_as_torch),
      cmocka_unit_test(first_step_by_hand),
      cmocka_unit_test(scale_is_a_factor_of_the_gradient),
      cmocka_unit_test(resumed_equals_uninterrupted),
      cmocka_unit_test(state_names),
      cmocka_unit_test(gaps_stay_zero),
      cmocka_unit_test(clipped),
      cmocka_unit_test(steps_are_judged),
      cmocka_unit_test(threads_do_not_change_bits),
      cmocka_unit_test(norm_in_fixed_order),
      cmocka_unit_test(not_finite_is_named),
      cmocka_unit_test(refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
