/* Optimizers with PyTorch's definitions (torch.optim, single-tensor float32 path): every product
 * and sum is float32, factors that depend on the step alone are computed in double first. A step is
 * one pass over weights, gradients and states. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend/update.h"
#include "base/text.h"
#include "learn/learn.h"

enum { MAX_STATES = 3 };

/** Elements handled at once. Threads share out whole blocks, so that the way an element is computed
 *  (vector or remainder loop) depends on its place alone, not on the number of threads. */
enum { BLOCK = 4096 };

typedef struct algorithm {
  const char *name;
  fn_update_rule rule;
  double eps;          /**< default */
  double weight_decay; /**< default */
  fn_status (*check)(const fn_run *run);
  void (*layout)(fn_optimizer *optimizer);
  void (*prepare)(fn_optimizer *optimizer, double lr, fn_update *u);
  void (*apply)(const fn_update *u);
} algorithm;

struct fn_optimizer {
  const algorithm *algorithm;
  fn_parameters *parameters;
  int64_t steps;
  int state_count;
  const char *state_name[MAX_STATES];
  fn_mirror state[MAX_STATES];
  double mu_product;     /**< NAdam: product of the momentum factors so far */
  double mu_before;      /**< the same before the last step */
  fn_update next;        /**< the last step that was begun: its factors */
  const fn_judge *judge; /**< of that step */
  double eps, weight_decay, beta1, beta2, momentum, dampening, alpha, rho, lr_decay, momentum_decay;
  double initial_accumulator;
  bool nesterov, centered, amsgrad, has_scalar;
};

static int add_state(fn_optimizer *o, const char *name) {
  o->state_name[o->state_count] = name;
  return o->state_count++;
}

/* SGD: torch.optim.SGD; Sutskever et al. 2013 in PyTorch's form (rate outside the buffer) */

static fn_status sgd_check(const fn_run *run) {
  FN_CHECK(!run->optimizer.nesterov ||
               (run->optimizer.momentum > 0 && run->optimizer.dampening == 0),
           FN_ERR_CONFIG,
           "optimizer.nesterov needs momentum > 0 and dampening 0, found momentum %g and "
           "dampening %g",
           run->optimizer.momentum, run->optimizer.dampening);
  return FN_OK;
}

static void sgd_layout(fn_optimizer *o) {
  if (o->momentum != 0) add_state(o, "momentum_buffer");
}

static void sgd_prepare(fn_optimizer *o, double lr, fn_update *u) {
  u->by.rate = (float)lr;
  u->has_buffer = o->momentum != 0;
  // The first gradient enters the (empty) buffer whole, dampening or not.
  u->by.blend = o->steps == 1 ? 1.0f : (float)(1 - o->dampening);
}

static void sgd_plain(const fn_update *update) {
  const fn_update u = *update; // no store below can change it
  float *restrict weight = u.weight;
  const float *restrict gradient = u.gradient;
  for (int64_t i = 0; i < u.count; i++)
    weight[i] = fn_update_sgd(&u, weight[i], gradient[i]);
}

static void sgd_momentum(const fn_update *update) {
  const fn_update u = *update; // no store below can change it
  float *restrict weight = u.weight;
  const float *restrict gradient = u.gradient;
  float *restrict buffer = u.state[0];
  for (int64_t i = 0; i < u.count; i++)
    weight[i] = fn_update_sgd_momentum(&u, weight[i], gradient[i], &buffer[i]);
}

static void sgd_apply(const fn_update *u) {
  if (u->has_buffer) {
    sgd_momentum(u);
  } else {
    sgd_plain(u);
  }
}

/** Factors of the moments of Adam and NAdam. */
static void set_moments(const fn_optimizer *o, fn_update *u) {
  u->blend1 = (float)(1 - o->beta1);
  u->keep2 = (float)o->beta2;
  u->blend2 = (float)(1 - o->beta2);
}

/* Adam and AdamW: Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019; amsgrad Reddi et al.
 * 2018 */

static void adam_layout(fn_optimizer *o) {
  add_state(o, "exp_avg");
  add_state(o, "exp_avg_sq");
  if (o->amsgrad) add_state(o, "max_exp_avg_sq");
}

static void adam_prepare(fn_optimizer *o, double lr, fn_update *u) {
  const double steps = (double)o->steps;
  set_moments(o, u);
  u->by.rate = (float)(lr / (1 - pow(o->beta1, steps)));
  u->by.divisor = (float)sqrt(1 - pow(o->beta2, steps));
}

static void adamw_prepare(fn_optimizer *o, double lr, fn_update *u) {
  adam_prepare(o, lr, u);
  u->by.decay = 0;
  u->by.shrink = (float)(1 - lr * o->weight_decay);
}

static void adam_apply(const fn_update *update) {
  const fn_update u = *update; // no store below can change it
  float *restrict weight = u.weight;
  const float *restrict gradient = u.gradient;
  float *restrict first = u.state[0], *restrict second = u.state[1],
                  *restrict highest = u.state[fn_update_adam_highest(&u)];
  for (int64_t i = 0; i < u.count; i++)
    weight[i] = fn_update_adam(&u, weight[i], gradient[i], &first[i], &second[i], &highest[i]);
}

/* NAdam: Dozat 2016, with the momentum schedule of torch.optim.NAdam */

static void nadam_layout(fn_optimizer *o) {
  add_state(o, "exp_avg");
  add_state(o, "exp_avg_sq");
  o->has_scalar = true;
  o->mu_product = 1;
}

static void nadam_prepare(fn_optimizer *o, double lr, fn_update *u) {
  const double step = (double)o->steps;
  const double mu = o->beta1 * (1 - 0.5 * pow(0.96, step * o->momentum_decay));
  const double mu_next = o->beta1 * (1 - 0.5 * pow(0.96, (step + 1) * o->momentum_decay));
  set_moments(o, u);
  // PyTorch keeps the product in a float32 scalar.
  o->mu_product = (double)(float)(o->mu_product * mu);
  u->by.divisor = (float)(1 - pow(o->beta2, step));
  u->by.rate = (float)(lr * (1 - mu) / (1 - o->mu_product));
  u->by.rate2 = (float)(lr * mu_next / (1 - o->mu_product * mu_next));
}

static void nadam_apply(const fn_update *update) {
  const fn_update u = *update; // no store below can change it
  float *restrict weight = u.weight;
  const float *restrict gradient = u.gradient;
  float *restrict first = u.state[0], *restrict second = u.state[1];
  for (int64_t i = 0; i < u.count; i++)
    weight[i] = fn_update_nadam(&u, weight[i], gradient[i], &first[i], &second[i]);
}

/* RMSprop: Hinton's lecture 6e; centred form Graves 2013; torch.optim.RMSprop */

static void rmsprop_layout(fn_optimizer *o) {
  add_state(o, "square_avg");
  if (o->centered) add_state(o, "grad_avg");
  if (o->momentum > 0) add_state(o, "momentum_buffer");
}

static void rmsprop_prepare(fn_optimizer *o, double lr, fn_update *u) {
  u->by.rate = (float)lr;
  u->keep2 = (float)o->alpha;
  u->blend2 = (float)(1 - o->alpha);
  u->has_buffer = o->momentum > 0;
}

static void rmsprop_apply(const fn_update *update) {
  const fn_update u = *update; // no store below can change it
  float *restrict weight = u.weight;
  const float *restrict gradient = u.gradient;
  float *restrict square = u.state[0], *restrict mean = u.state[fn_update_rmsprop_mean(&u)],
                  *restrict buffer = u.state[fn_update_rmsprop_buffer(&u)];
  for (int64_t i = 0; i < u.count; i++)
    weight[i] = fn_update_rmsprop(&u, weight[i], gradient[i], &square[i], &mean[i], &buffer[i]);
}

/* Adadelta: Zeiler 2012, algorithm 1 */

static void adadelta_layout(fn_optimizer *o) {
  add_state(o, "square_avg");
  add_state(o, "acc_delta");
}

static void adadelta_prepare(fn_optimizer *o, double lr, fn_update *u) {
  u->by.rate = (float)lr;
  u->keep2 = (float)o->rho;
  u->blend2 = (float)(1 - o->rho);
}

static void adadelta_apply(const fn_update *update) {
  const fn_update u = *update; // no store below can change it
  float *restrict weight = u.weight;
  const float *restrict gradient = u.gradient;
  float *restrict square = u.state[0], *restrict moved = u.state[1];
  for (int64_t i = 0; i < u.count; i++)
    weight[i] = fn_update_adadelta(&u, weight[i], gradient[i], &square[i], &moved[i]);
}

/* Adagrad: Duchi et al. 2011, figure 1; torch.optim.Adagrad */

static void adagrad_layout(fn_optimizer *o) {
  add_state(o, "sum");
}

static void adagrad_prepare(fn_optimizer *o, double lr, fn_update *u) {
  u->by.rate = (float)(lr / (1 + (double)(o->steps - 1) * o->lr_decay));
}

static void adagrad_apply(const fn_update *update) {
  const fn_update u = *update; // no store below can change it
  float *restrict weight = u.weight;
  const float *restrict gradient = u.gradient;
  float *restrict sum = u.state[0];
  for (int64_t i = 0; i < u.count; i++)
    weight[i] = fn_update_adagrad(&u, weight[i], gradient[i], &sum[i]);
}

/* the table */

static const algorithm algorithms[] = {
    {"sgd", FN_UPDATE_SGD, 0, 0, sgd_check, sgd_layout, sgd_prepare, sgd_apply},
    {"adam", FN_UPDATE_ADAM, 1e-8, 0, NULL, adam_layout, adam_prepare, adam_apply},
    {"adamw", FN_UPDATE_ADAM, 1e-8, 1e-2, NULL, adam_layout, adamw_prepare, adam_apply},
    {"rmsprop", FN_UPDATE_RMSPROP, 1e-8, 0, NULL, rmsprop_layout, rmsprop_prepare, rmsprop_apply},
    {"adadelta", FN_UPDATE_ADADELTA, 1e-6, 0, NULL, adadelta_layout, adadelta_prepare,
     adadelta_apply},
    {"adagrad", FN_UPDATE_ADAGRAD, 1e-10, 0, NULL, adagrad_layout, adagrad_prepare, adagrad_apply},
    {"nadam", FN_UPDATE_NADAM, 1e-8, 0, NULL, nadam_layout, nadam_prepare, nadam_apply},
};
enum { ALGORITHMS = sizeof algorithms / sizeof algorithms[0] };

static fn_status find_algorithm(const char *name, const algorithm **found) {
  const char *names[ALGORITHMS];
  for (int i = 0; i < ALGORITHMS; i++) {
    names[i] = algorithms[i].name;
    if (strcmp(name, names[i]) == 0) {
      *found = &algorithms[i];
      return FN_OK;
    }
  }
  const char *closest = fn_text_closest(name, names, ALGORITHMS);
  FN_FAIL(FN_ERR_CONFIG,
          "optimizer.name: expected sgd, adam, adamw, rmsprop, adadelta, adagrad or nadam, found "
          "'%s'%s%s%s",
          name, closest ? " (did you mean '" : "", closest ? closest : "", closest ? "'?)" : "");
}

/** eps and weight_decay below zero were not given: the algorithm's own default. */
static void read_options(fn_optimizer *o, const fn_run *run) {
  const algorithm *a = o->algorithm;
  o->eps = run->optimizer.eps < 0 ? a->eps : run->optimizer.eps;
  o->weight_decay = run->optimizer.weight_decay < 0 ? a->weight_decay : run->optimizer.weight_decay;
  o->beta1 = run->optimizer.betas[0];
  o->beta2 = run->optimizer.betas[1];
  o->momentum = run->optimizer.momentum;
  o->dampening = run->optimizer.dampening;
  o->nesterov = run->optimizer.nesterov;
  o->alpha = run->optimizer.alpha;
  o->centered = run->optimizer.centered;
  o->rho = run->optimizer.rho;
  o->lr_decay = run->optimizer.lr_decay;
  o->initial_accumulator = run->optimizer.initial_accumulator;
  o->momentum_decay = run->optimizer.momentum_decay;
  o->amsgrad = run->optimizer.amsgrad;
}

static fn_status allocate_states(fn_optimizer *o) {
  const int64_t count = o->parameters->count;
  for (int s = 0; s < o->state_count; s++)
    FN_TRY(fn_mirror_create(o->parameters->device, (size_t)count * sizeof(float), &o->state[s]));
  if (o->initial_accumulator != 0 && strcmp(o->algorithm->name, "adagrad") == 0) {
    const float fill = (float)o->initial_accumulator;
    float *sum = o->state[0].host;
    for (int64_t i = 0; i < count; i++)
      sum[i] = fill;
    fn_mirror_changed(&o->state[0]);
  }
  return FN_OK;
}

fn_status fn_optimizer_create(const fn_run *run, fn_parameters *parameters,
                              fn_optimizer **optimizer) {
  *optimizer = NULL;
  const algorithm *found = NULL;
  FN_TRY(find_algorithm(run->optimizer.name, &found));
  FN_CHECK(parameters->dtype == FN_F32, FN_ERR_UNSUPPORTED,
           "optimizers work on float32 parameters, found %s",
           parameters->dtype == FN_F64 ? "float64" : "bfloat16");
  if (found->check) FN_TRY(found->check(run));
  fn_optimizer *o = calloc(1, sizeof *o);
  FN_CHECK(o, FN_ERR_MEMORY, "out of memory for the optimizer");
  o->algorithm = found;
  o->parameters = parameters;
  read_options(o, run);
  found->layout(o);
  const fn_status status = allocate_states(o);
  if (status != FN_OK) {
    fn_optimizer_destroy(o);
    return fn_error_context(status, "state of optimizer %s", found->name);
  }
  *optimizer = o;
  return FN_OK;
}

void fn_optimizer_destroy(fn_optimizer *optimizer) {
  if (!optimizer) return;
  for (int s = 0; s < optimizer->state_count; s++)
    fn_mirror_destroy(&optimizer->state[s]);
  free(optimizer);
}

/** With eps 0 the gaps between parameters are 0 / 0: put their zeros back. */
static void clear_gaps(const fn_parameters *p) {
  float *weight = p->values;
  for (int e = 0; e < p->entry_count; e++) {
    const fn_tensor_entry *entry = &p->entry[e];
    if (entry->is_buffer) continue;
    for (int64_t i = entry->offset + entry->count; i % 16 != 0 && i < p->count; i++)
      weight[i] = 0;
  }
}

static void step_on_host(const fn_optimizer *o, const fn_update *all) {
  const int64_t count = o->parameters->count, blocks = (count + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < blocks; i++) {
    const int64_t start = i * BLOCK;
    fn_update u = *all;
    u.weight = (float *)o->parameters->values + start;
    u.gradient = (const float *)o->parameters->gradients + start;
    u.count = count - start < BLOCK ? count - start : BLOCK;
    for (int s = 0; s < o->state_count; s++)
      u.state[s] = (float *)o->state[s].host + start;
    o->algorithm->apply(&u);
  }
  if (o->eps == 0) clear_gaps(o->parameters);
}

static fn_status clear_gaps_on_device(const fn_parameters *p, float *weight) {
  for (int e = 0; e < p->entry_count; e++) {
    const fn_tensor_entry *entry = &p->entry[e];
    const int64_t end = entry->offset + entry->count, next = (end + 15) / 16 * 16;
    if (entry->is_buffer || next == end) continue;
    FN_TRY(p->device->clear(p->device, FN_STREAM_COMPUTE, weight + end,
                            (size_t)(next - end) * sizeof(float)));
  }
  return FN_OK;
}

/** Arrays are where the device works, and it is about to write them. */
static fn_status arrays_to_device(fn_optimizer *o) {
  fn_parameters *p = o->parameters;
  FN_TRY(fn_parameters_to_device(p));
  for (int s = 0; s < o->state_count; s++) {
    FN_TRY(fn_mirror_to_device(&o->state[s]));
    fn_mirror_changed_on_device(&o->state[s]);
  }
  fn_parameters_changed_on_device(p, FN_MIRROR_VALUES);
  return FN_OK;
}

static fn_status step_on_device(const fn_optimizer *o, fn_update u) {
  fn_parameters *p = o->parameters;
  for (int s = 0; s < o->state_count; s++)
    u.state[s] = o->state[s].memory;
  u.weight = fn_parameters_mirror(p, FN_MIRROR_VALUES)->memory;
  u.gradient = fn_parameters_mirror(p, FN_MIRROR_GRADIENTS)->memory;
  u.count = p->count;
  FN_TRY(p->device->update(p->device, FN_STREAM_COMPUTE, &u));
  return o->eps == 0 ? clear_gaps_on_device(p, u.weight) : FN_OK;
}

/** Factors of the next step, which counts from here on. */
static void next_step(fn_optimizer *o, double lr, double scale) {
  o->steps++;
  o->mu_before = o->mu_product;
  o->next = (fn_update){.rule = o->algorithm->rule,
                        .by = {.scale = (float)scale, .decay = (float)o->weight_decay, .shrink = 1},
                        .eps = (float)o->eps,
                        .momentum = (float)o->momentum,
                        .nesterov = o->nesterov,
                        .centered = o->centered,
                        .amsgrad = o->amsgrad};
  o->algorithm->prepare(o, lr, &o->next);
}

fn_status fn_optimizer_step(fn_optimizer *o, double lr, double scale) {
  next_step(o, lr, scale);
  if (o->parameters->device) {
    FN_TRY(arrays_to_device(o));
    return step_on_device(o, o->next);
  }
  fn_parameters_changed(o->parameters);
  step_on_host(o, &o->next);
  return FN_OK;
}

fn_status fn_optimizer_begin(fn_optimizer *o, double lr, const fn_judge *judge) {
  next_step(o, lr, 1);
  o->judge = judge;
  return o->parameters->device ? arrays_to_device(o) : FN_OK;
}

const fn_update_factors *fn_optimizer_factors(const fn_optimizer *optimizer) {
  return &optimizer->next.by;
}

fn_status fn_optimizer_obey(void *optimizer) {
  fn_optimizer *o = optimizer;
  const fn_judgement *judgement = fn_judge_place(o->judge);
  fn_update u = o->next;
  if (o->parameters->device) {
    u.judgement = judgement;
    u.factors = fn_judge_factors(o->judge);
    return step_on_device(o, u);
  }
  if (judgement->verdict != FN_STEP_TAKEN) return FN_OK;
  u.by.scale = judgement->scale;
  fn_parameters_changed(o->parameters);
  step_on_host(o, &u);
  return FN_OK;
}

fn_status fn_optimizer_step_judged(fn_optimizer *o, double lr, fn_judge *judge,
                                   const fn_step_facts *facts) {
  FN_TRY(fn_optimizer_begin(o, lr, judge));
  return fn_judge_put(judge, facts, fn_optimizer_factors(o), NULL);
}

void fn_optimizer_undo(fn_optimizer *o) {
  o->steps--;
  o->mu_product = o->mu_before;
}

int64_t fn_optimizer_steps(const fn_optimizer *optimizer) {
  return optimizer->steps;
}
void fn_optimizer_set_steps(fn_optimizer *optimizer, int64_t steps) {
  optimizer->steps = steps;
}
int fn_optimizer_state_count(const fn_optimizer *optimizer) {
  return optimizer->state_count;
}

const char *fn_optimizer_state_name(const fn_optimizer *optimizer, int index) {
  return optimizer->state_name[index];
}

float *fn_optimizer_state(fn_optimizer *optimizer, int index) {
  return optimizer->state[index].host;
}

fn_status fn_optimizer_to_host(fn_optimizer *optimizer) {
  for (int s = 0; s < optimizer->state_count; s++)
    FN_TRY(fn_mirror_to_host(&optimizer->state[s]));
  return FN_OK;
}

void fn_optimizer_changed(fn_optimizer *optimizer) {
  for (int s = 0; s < optimizer->state_count; s++)
    fn_mirror_changed(&optimizer->state[s]);
}

int fn_optimizer_scalar_count(const fn_optimizer *optimizer) {
  return optimizer->has_scalar;
}

double *fn_optimizer_scalar(fn_optimizer *optimizer, int index, const char **name) {
  if (!optimizer->has_scalar || index != 0) return NULL;
  if (name) *name = "mu_product";
  return &optimizer->mu_product;
}
