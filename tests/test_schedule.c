/* Learning-rate schedules against torch.optim.lr_scheduler. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "learn/learn.h"

enum { COUNT = 20 };

/** PyTorch's defaults; rate 0.1. */
static fn_run defaults(const char *name) {
  fn_run run = {0};
  run.optimizer.lr = 0.1;
  run.train.epochs = COUNT;
  run.schedule.name = name;
  run.schedule.factor = 0.1;
  run.schedule.patience = 10;
  run.schedule.threshold = 1e-4;
  run.schedule.threshold_mode = "rel";
  run.schedule.eps = 1e-8;
  run.schedule.step_size = 1;
  run.schedule.pct_start = 0.3;
  run.schedule.div_factor = 25;
  run.schedule.final_div_factor = 1e4;
  run.schedule.mode = "triangular";
  run.schedule.gamma = 1;
  return run;
}

static fn_run step(void) {
  fn_run run = defaults("step");
  run.schedule.step_size = 3;
  run.schedule.factor = 0.5;
  return run;
}
static fn_run exponential(void) {
  fn_run run = defaults("exponential");
  run.schedule.factor = 0.9;
  return run;
}
static fn_run cosine(void) {
  fn_run run = defaults("cosine");
  run.schedule.t_max = 12;
  run.schedule.min_lr = 0.01;
  return run;
}
static fn_run one_cycle(void) {
  fn_run run = defaults("one_cycle");
  run.schedule.max_lr = 0.5;
  return run;
}
static fn_run one_cycle_options(void) {
  fn_run run = defaults("one_cycle");
  run.schedule.max_lr = 0.5;
  run.schedule.pct_start = 0.45;
  run.schedule.div_factor = 10;
  run.schedule.final_div_factor = 100;
  return run;
}
static fn_run triangular(void) {
  fn_run run = defaults("cyclic");
  run.schedule.max_lr = 0.5;
  run.schedule.step_size = 4;
  return run;
}
static fn_run triangular2(void) {
  fn_run run = defaults("cyclic");
  run.schedule.max_lr = 0.5;
  run.schedule.step_size = 3;
  run.schedule.step_size_down = 5;
  run.schedule.mode = "triangular2";
  return run;
}
static fn_run exp_range(void) {
  fn_run run = defaults("cyclic");
  run.schedule.max_lr = 0.5;
  run.schedule.step_size = 3;
  run.schedule.mode = "exp_range";
  run.schedule.gamma = 0.95;
  return run;
}
static fn_run warmup_LinearLR(void) {
  fn_run run = defaults("none");
  run.schedule.warmup_steps = 5;
  return run;
}
static fn_run plateau_rel(void) {
  fn_run run = defaults("plateau");
  run.schedule.patience = 2;
  return run;
}
static fn_run plateau_cooldown(void) {
  fn_run run = defaults("plateau");
  run.schedule.patience = 1;
  run.schedule.threshold = 0.01;
  run.schedule.threshold_mode = "abs";
  run.schedule.factor = 0.5;
  run.schedule.cooldown = 3;
  run.schedule.min_lr = 0.02;
  return run;
}
static fn_run plateau_eps(void) {
  fn_run run = defaults("plateau");
  run.schedule.patience = 0;
  run.schedule.factor = 0.5;
  run.schedule.eps = 0.02;
  return run;
}

/* PyTorch 2.15.0, the first twenty rates, printed with %.15g:
 *
 *   w = torch.zeros(1, requires_grad=True); o = torch.optim.SGD([w], lr=0.1)
 *   s = <text>            # OneCycleLR and CyclicLR with cycle_momentum=False
 *   for e in range(20):
 *       print(o.param_groups[0]["lr"]); o.step(); s.step()      # plateau: s.step(metric[e])
 */
typedef struct torch_case {
  const char *text;
  fn_run (*run)(void);
  double expected[COUNT];
} torch_case;

static const torch_case torch_cases[] = {
    {"StepLR(o, step_size=3, gamma=0.5)",
     step,
     {0.1,     0.1,      0.1,      0.05,     0.05,      0.05,     0.025,
      0.025,   0.025,    0.0125,   0.0125,   0.0125,    0.00625,  0.00625,
      0.00625, 0.003125, 0.003125, 0.003125, 0.0015625, 0.0015625}},
    {"ExponentialLR(o, gamma=0.9)",
     exponential,
     {0.1,
      0.09,
      0.081,
      0.0729,
      0.06561,
      0.059049,
      0.0531441,
      0.04782969,
      0.043046721,
      0.0387420489,
      0.03486784401,
      0.031381059609,
      0.0282429536481,
      0.02541865828329,
      0.022876792454961,
      0.0205891132094649,
      0.0185302018885184,
      0.0166771816996666,
      0.0150094635296999,
      0.0135085171767299}},
    {"CosineAnnealingLR(o, T_max=12, eta_min=0.01)",
     cosine,
     {0.1,
      0.0984666621830081,
      0.0939711431702998,
      0.0868198051533946,
      0.0775,
      0.0666468570296135,
      0.055,
      0.0433531429703866,
      0.0325,
      0.0231801948466054,
      0.0160288568297003,
      0.0115333378169919,
      0.01,
      0.0115333378169919,
      0.0160288568297003,
      0.0231801948466053,
      0.0325,
      0.0433531429703866,
      0.055,
      0.0666468570296134}},
    {"OneCycleLR(o, max_lr=0.5, total_steps=20)",
     one_cycle,
     {0.02,
      0.0658359213500126,
      0.185835921350013,
      0.334164078649987,
      0.454164078649987,
      0.5,
      0.493732003117544,
      0.475242316006737,
      0.445458088785525,
      0.405872826974882,
      0.35847150089565,
      0.305631010968145,
      0.250001,
      0.194370989031855,
      0.14153049910435,
      0.0941291730251185,
      0.054543911214475,
      0.0247596839932631,
      0.00626999688245628,
      2e-06}},
    {"OneCycleLR(o, max_lr=0.5, total_steps=20, pct_start=0.45, div_factor=10, "
     "final_div_factor=100)",
     one_cycle_options,
     {0.05,
      0.0671271051849605,
      0.115900974233027,
      0.188896227717855,
      0.275,
      0.361103772282145,
      0.434099025766973,
      0.48287289481504,
      0.5,
      0.489883370160221,
      0.460353069824588,
      0.413801468302835,
      0.353999899497221,
      0.285793130858753,
      0.214706869141247,
      0.146500100502779,
      0.0866985316971651,
      0.0401469301754125,
      0.0106166298397793,
      0.0005}},
    {"CyclicLR(o, base_lr=0.1, max_lr=0.5, step_size_up=4)",
     triangular,
     {0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1, 0.2,
      0.3, 0.4, 0.5, 0.4, 0.3, 0.2, 0.1, 0.2, 0.3, 0.4}},
    {"CyclicLR(o, base_lr=0.1, max_lr=0.5, step_size_up=3, step_size_down=5, mode='triangular2')",
     triangular2,
     {0.1, 0.233333333333333, 0.366666666666667, 0.5, 0.42, 0.34, 0.26, 0.18,
      0.1, 0.166666666666667, 0.233333333333333, 0.3, 0.26, 0.22, 0.18, 0.14,
      0.1, 0.133333333333333, 0.166666666666667, 0.2}},
    {"CyclicLR(o, base_lr=0.1, max_lr=0.5, step_size_up=3, mode='exp_range', gamma=0.95)",
     exp_range,
     {0.1,
      0.226666666666667,
      0.340666666666667,
      0.44295,
      0.317201666666667,
      0.203170791666667,
      0.1,
      0.193111639479167,
      0.276912115010416,
      0.352099763889844,
      0.259663183796901,
      0.175840012303528,
      0.1,
      0.168445611103934,
      0.230046661097475,
      0.285316492063901,
      0.217367111640471,
      0.155749378029224,
      0.1,
      0.150313813671374}},
    {"LinearLR(o, start_factor=1/5, total_iters=4)",
     warmup_LinearLR,
     {0.02, 0.04, 0.06, 0.08, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1,
      0.1,  0.1,  0.1,  0.1,  0.1, 0.1, 0.1, 0.1, 0.1, 0.1}},
};

static const torch_case plateau_cases[] = {
    {"ReduceLROnPlateau(o, patience=2, factor=0.1)",
     plateau_rel,
     {0.1,   0.1,   0.1,    0.1,    0.1,    0.01,   0.01,  0.01,  0.01,  0.001,
      0.001, 0.001, 0.0001, 0.0001, 0.0001, 0.0001, 1e-05, 1e-05, 1e-05, 1e-06}},
    {"ReduceLROnPlateau(o, patience=1, threshold=0.01, threshold_mode='abs', factor=0.5, "
     "cooldown=3, min_lr=0.02)",
     plateau_cooldown,
     {0.1,   0.1,   0.1,   0.1,   0.05,  0.05, 0.05, 0.05, 0.05, 0.025,
      0.025, 0.025, 0.025, 0.025, 0.025, 0.02, 0.02, 0.02, 0.02, 0.02}},
    {"ReduceLROnPlateau(o, patience=0, factor=0.5, eps=0.02)",
     plateau_eps,
     {0.1,   0.1,   0.1,   0.05,  0.025, 0.025, 0.025, 0.025, 0.025, 0.025,
      0.025, 0.025, 0.025, 0.025, 0.025, 0.025, 0.025, 0.025, 0.025, 0.025}},
};

/** Metric of each epoch for the plateau cases: improvements below, at and above the threshold. */
static const double metric[COUNT] = {5, 4, 3.9999, 3.9999, 3.9998, 3,   3,   3,   3,   3,
                                     3, 3, 2.9,    2.9,    2.9,    2.9, 2.9, 2.9, 2.9, 2.9};

static void expect(const char *text, int at, double expected, double found) {
  if (!(fabs(found - expected) <= 2e-14 + 1e-13 * expected))
    fail_msg("%s at %d: expected %.15g, found %.15g", text, at, expected, found);
}

/* Step and epoch run alike here, as scheduler.step() does not know which of the two it counts. */
static void same_rates_as_torch(void **state) {
  (void)state;
  for (size_t c = 0; c < sizeof torch_cases / sizeof torch_cases[0]; c++) {
    const fn_run run = torch_cases[c].run();
    fn_schedule schedule;
    fn_schedule_init(&run, &schedule);
    for (int i = 0; i < COUNT; i++) {
      expect(torch_cases[c].text, i, torch_cases[c].expected[i],
             fn_schedule_rate(&run, &schedule, i, i, COUNT));
      assert_false(fn_schedule_epoch(&run, &schedule, 1));
    }
  }
}

static void same_plateaus_as_torch(void **state) {
  (void)state;
  for (size_t c = 0; c < sizeof plateau_cases / sizeof plateau_cases[0]; c++) {
    const fn_run run = plateau_cases[c].run();
    fn_schedule schedule;
    fn_schedule_init(&run, &schedule);
    int lowered = 0;
    for (int e = 0; e < COUNT; e++) {
      const double rate = fn_schedule_rate(&run, &schedule, 7 * e, e, 7 * COUNT);
      expect(plateau_cases[c].text, e, plateau_cases[c].expected[e], rate);
      if (fn_schedule_epoch(&run, &schedule, metric[e])) {
        lowered++;
        assert_true(schedule.current < rate);
      } else {
        assert_true(schedule.current == rate);
      }
    }
    assert_int_equal(schedule.reductions, lowered);
  }
}

/* The rate drops after patience + 1 epochs without improvement, and a metric that is not a number
 * is none. */
static void plateau_patience(void **state) {
  (void)state;
  const fn_run run = defaults("plateau");
  fn_schedule schedule;
  fn_schedule_init(&run, &schedule);
  assert_false(fn_schedule_epoch(&run, &schedule, 1.0));
  for (int e = 0; e < 10; e++)
    assert_false(fn_schedule_epoch(&run, &schedule, e % 2 ? (double)NAN : 1.0));
  assert_true(fn_schedule_epoch(&run, &schedule, 1.0));
  assert_true(fabs(schedule.current - 0.01) < 1e-15);
}

/* Which counter each schedule follows: one_cycle, cyclic and warm-up the step, the others the
 * epoch. */
static void counters(void **state) {
  (void)state;
  for (size_t c = 0; c < sizeof torch_cases / sizeof torch_cases[0]; c++) {
    const fn_run run = torch_cases[c].run();
    fn_schedule schedule;
    fn_schedule_init(&run, &schedule);
    const bool by_epoch = c < 3;
    const double a = fn_schedule_rate(&run, &schedule, by_epoch ? 0 : 4, 4, COUNT),
                 b = fn_schedule_rate(&run, &schedule, by_epoch ? 11 : 4, by_epoch ? 4 : 9, COUNT);
    assert_true(a == b);
    expect(torch_cases[c].text, 4, torch_cases[c].expected[4], a);
  }
}

/* Warm-up multiplies: by hand, steps 0, 1 and 3 of four on an exponential decay in epoch 2, and
 * after the plateau has lowered the rate. */
static void warmup_multiplies(void **state) {
  (void)state;
  fn_run run = exponential();
  run.schedule.warmup_steps = 4;
  fn_schedule schedule;
  fn_schedule_init(&run, &schedule);
  const double rate = 0.1 * 0.9 * 0.9;
  assert_true(fabs(fn_schedule_rate(&run, &schedule, 0, 2, 100) - rate / 4) < 1e-16);
  assert_true(fabs(fn_schedule_rate(&run, &schedule, 1, 2, 100) - rate / 2) < 1e-16);
  assert_true(fabs(fn_schedule_rate(&run, &schedule, 3, 2, 100) - rate) < 1e-16);
  run = plateau_rel();
  run.schedule.warmup_steps = 10;
  schedule.current = 0.02;
  assert_true(fabs(fn_schedule_rate(&run, &schedule, 4, 0, 100) - 0.01) < 1e-16);
}

/* Ends that need no step count of their own: cosine falls to min_lr at the run's last epoch + 1
 * when t_max is not given; one_cycle stays at its end after the planned steps and survives a run of
 * one. */
static void ends(void **state) {
  (void)state;
  fn_run run = defaults("cosine");
  run.schedule.min_lr = 0.003;
  fn_schedule schedule;
  fn_schedule_init(&run, &schedule);
  assert_true(fabs(fn_schedule_rate(&run, &schedule, 0, COUNT, 1) - 0.003) < 1e-16);
  run = one_cycle();
  assert_true(fabs(fn_schedule_rate(&run, &schedule, 25, 0, 20) - 0.5 / 25 / 1e4) < 1e-18);
  assert_true(isfinite(fn_schedule_rate(&run, &schedule, 0, 0, 1)));
  run.schedule.pct_start = 0.05; // the peak is step 0 exactly
  assert_true(fabs(fn_schedule_rate(&run, &schedule, 0, 0, 20) - 0.5) < 1e-15);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(same_rates_as_torch), cmocka_unit_test(same_plateaus_as_torch),
      cmocka_unit_test(plateau_patience),    cmocka_unit_test(counters),
      cmocka_unit_test(warmup_multiplies),   cmocka_unit_test(ends),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
