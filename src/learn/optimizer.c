/* Optimizers with PyTorch's definitions (torch.optim, single-tensor float32 path): every product
 * and sum is float32, factors that depend on the step alone are computed in double first. A step is
 * one pass over weights, gradients and states. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "learn/learn.h"

enum { MAX_STATES = 3 };

/** Elements handled at once. Threads share out whole blocks, so that the way an element is computed
 *  (vector or remainder loop) depends on its place alone, not on the number of threads. */
enum { BLOCK = 4096 };

/** Factors of one step. */
typedef struct factors {
  float scale;   /**< of the gradient: clipping */
  float decay;   /**< weight decay added to the gradient */
  float shrink;  /**< weight decay applied to the weight: 1 - lr decay (AdamW) */
  float rate;    /**< of the update; includes bias correction where the algorithm has one */
  float rate2;   /**< NAdam: of the first moment */
  float divisor; /**< of the second moment: its bias correction (Adam: the square root of it) */
  float blend;   /**< SGD: factor of the gradient in the momentum buffer */
} factors;

/** A block: weights, gradients and states of n elements. */
typedef struct block {
  float *restrict weight;
  const float *restrict gradient;
  float *restrict state[MAX_STATES];
  int64_t n;
} block;

typedef struct algorithm {
  const char *name;
  double eps;          /**< default */
  double weight_decay; /**< default */
  fn_status (*check)(const fn_run *run);
  void (*layout)(fn_optimizer *optimizer);
  void (*prepare)(fn_optimizer *optimizer, double lr, factors *f);
  void (*apply)(const fn_optimizer *optimizer, const factors *f, const block *b);
} algorithm;

struct fn_optimizer {
  const algorithm *algorithm;
  fn_parameters *parameters;
  int64_t steps;
  int state_count;
  const char *state_name[MAX_STATES];
  float *state[MAX_STATES];
  double mu_product; /**< NAdam: product of the momentum factors so far */
  double eps, weight_decay, beta1, beta2, momentum, dampening, alpha, rho, lr_decay, momentum_decay;
  double initial_accumulator;
  bool nesterov, centered, amsgrad, has_scalar;
};

static int add_state(fn_optimizer *o, const char *name) {
  o->state_name[o->state_count] = name;
  return o->state_count++;
}

/** a + weight (b - a), in the form that PyTorch's lerp uses on either side of one half. */
static inline float lerp(float a, float b, float weight) {
  return weight < 0.5f ? a + weight * (b - a) : b - (b - a) * (1.0f - weight);
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

static void sgd_prepare(fn_optimizer *o, double lr, factors *f) {
  f->rate = (float)lr;
  // The first gradient enters the (empty) buffer whole, dampening or not.
  f->blend = o->steps == 1 ? 1.0f : (float)(1 - o->dampening);
}

static void sgd_plain(const factors *f, const block *b) {
  const float scale = f->scale, decay = f->decay, rate = f->rate;
  float *restrict weight = b->weight;
  const float *restrict gradient = b->gradient;
  for (int64_t i = 0; i < b->n; i++)
    weight[i] -= rate * (scale * gradient[i] + decay * weight[i]);
}

static void sgd_momentum(const fn_optimizer *o, const factors *f, const block *b) {
  const float momentum = (float)o->momentum, scale = f->scale, decay = f->decay, rate = f->rate,
              blend = f->blend;
  const bool nesterov = o->nesterov;
  float *restrict weight = b->weight, *restrict buffer = b->state[0];
  const float *restrict gradient = b->gradient;
  for (int64_t i = 0; i < b->n; i++) {
    const float g = scale * gradient[i] + decay * weight[i];
    const float m = momentum * buffer[i] + blend * g;
    buffer[i] = m;
    weight[i] -= rate * (nesterov ? g + momentum * m : m);
  }
}

static void sgd_apply(const fn_optimizer *o, const factors *f, const block *b) {
  if (o->momentum == 0) {
    sgd_plain(f, b);
  } else {
    sgd_momentum(o, f, b);
  }
}

/* Adam and AdamW: Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019; amsgrad Reddi et al.
 * 2018 */

static void adam_layout(fn_optimizer *o) {
  add_state(o, "exp_avg");
  add_state(o, "exp_avg_sq");
  if (o->amsgrad) add_state(o, "max_exp_avg_sq");
}

static void adam_prepare(fn_optimizer *o, double lr, factors *f) {
  const double steps = (double)o->steps;
  f->rate = (float)(lr / (1 - pow(o->beta1, steps)));
  f->divisor = (float)sqrt(1 - pow(o->beta2, steps));
}

static void adamw_prepare(fn_optimizer *o, double lr, factors *f) {
  adam_prepare(o, lr, f);
  f->decay = 0;
  f->shrink = (float)(1 - lr * o->weight_decay);
}

static void adam_apply(const fn_optimizer *o, const factors *f, const block *b) {
  const float scale = f->scale, decay = f->decay, shrink = f->shrink, rate = f->rate,
              divisor = f->divisor, eps = (float)o->eps, blend1 = (float)(1 - o->beta1),
              keep2 = (float)o->beta2, blend2 = (float)(1 - o->beta2);
  float *restrict weight = b->weight, *restrict first = b->state[0], *restrict second = b->state[1],
                  *restrict highest = b->state[2];
  const float *restrict gradient = b->gradient;
  const bool amsgrad = o->amsgrad;
  for (int64_t i = 0; i < b->n; i++) {
    const float w = shrink * weight[i], g = scale * gradient[i] + decay * weight[i];
    const float m = lerp(first[i], g, blend1);
    float v = second[i] * keep2 + blend2 * (g * g);
    first[i] = m;
    second[i] = v;
    if (amsgrad) {
      v = v > highest[i] ? v : highest[i];
      highest[i] = v;
    }
    weight[i] = w - rate * (m / (sqrtf(v) / divisor + eps));
  }
}

/* NAdam: Dozat 2016, with the momentum schedule of torch.optim.NAdam */

static void nadam_layout(fn_optimizer *o) {
  add_state(o, "exp_avg");
  add_state(o, "exp_avg_sq");
  o->has_scalar = true;
  o->mu_product = 1;
}

static void nadam_prepare(fn_optimizer *o, double lr, factors *f) {
  const double step = (double)o->steps;
  const double mu = o->beta1 * (1 - 0.5 * pow(0.96, step * o->momentum_decay));
  const double mu_next = o->beta1 * (1 - 0.5 * pow(0.96, (step + 1) * o->momentum_decay));
  // PyTorch keeps the product in a float32 scalar.
  o->mu_product = (double)(float)(o->mu_product * mu);
  f->divisor = (float)(1 - pow(o->beta2, step));
  f->rate = (float)(lr * (1 - mu) / (1 - o->mu_product));
  f->rate2 = (float)(lr * mu_next / (1 - o->mu_product * mu_next));
}

static void nadam_apply(const fn_optimizer *o, const factors *f, const block *b) {
  const float scale = f->scale, decay = f->decay, rate = f->rate, rate2 = f->rate2,
              divisor = f->divisor, eps = (float)o->eps, blend1 = (float)(1 - o->beta1),
              keep2 = (float)o->beta2, blend2 = (float)(1 - o->beta2);
  float *restrict weight = b->weight, *restrict first = b->state[0], *restrict second = b->state[1];
  const float *restrict gradient = b->gradient;
  for (int64_t i = 0; i < b->n; i++) {
    const float g = scale * gradient[i] + decay * weight[i];
    const float m = lerp(first[i], g, blend1);
    const float v = second[i] * keep2 + blend2 * (g * g);
    const float root = sqrtf(v / divisor) + eps;
    first[i] = m;
    second[i] = v;
    weight[i] = weight[i] - rate * (g / root) - rate2 * (m / root);
  }
}

/* RMSprop: Hinton's lecture 6e; centred form Graves 2013; torch.optim.RMSprop */

static void rmsprop_layout(fn_optimizer *o) {
  add_state(o, "square_avg");
  if (o->centered) add_state(o, "grad_avg");
  if (o->momentum > 0) add_state(o, "momentum_buffer");
}

static void constant_rate(fn_optimizer *o, double lr, factors *f) {
  (void)o;
  f->rate = (float)lr;
}

static void rmsprop_apply(const fn_optimizer *o, const factors *f, const block *b) {
  const float scale = f->scale, decay = f->decay, rate = f->rate, eps = (float)o->eps,
              keep = (float)o->alpha, blend = (float)(1 - o->alpha), momentum = (float)o->momentum;
  const bool centered = o->centered, has_buffer = o->momentum > 0;
  float *restrict weight = b->weight, *restrict square = b->state[0], *restrict mean = b->state[1],
                  *restrict buffer = b->state[centered ? 2 : 1];
  const float *restrict gradient = b->gradient;
  for (int64_t i = 0; i < b->n; i++) {
    const float g = scale * gradient[i] + decay * weight[i];
    const float s = square[i] * keep + blend * (g * g);
    float variance = s;
    square[i] = s;
    if (centered) {
      const float m = lerp(mean[i], g, blend);
      mean[i] = m;
      variance = s - m * m;
    }
    float update = g / (sqrtf(variance) + eps);
    if (has_buffer) {
      update = momentum * buffer[i] + update;
      buffer[i] = update;
    }
    weight[i] -= rate * update;
  }
}

/* Adadelta: Zeiler 2012, algorithm 1 */

static void adadelta_layout(fn_optimizer *o) {
  add_state(o, "square_avg");
  add_state(o, "acc_delta");
}

static void adadelta_apply(const fn_optimizer *o, const factors *f, const block *b) {
  const float scale = f->scale, decay = f->decay, rate = f->rate, eps = (float)o->eps,
              keep = (float)o->rho, blend = (float)(1 - o->rho);
  float *restrict weight = b->weight, *restrict square = b->state[0], *restrict moved = b->state[1];
  const float *restrict gradient = b->gradient;
  for (int64_t i = 0; i < b->n; i++) {
    const float g = scale * gradient[i] + decay * weight[i];
    const float s = square[i] * keep + blend * (g * g);
    const float delta = sqrtf(moved[i] + eps) / sqrtf(s + eps) * g;
    square[i] = s;
    moved[i] = moved[i] * keep + blend * (delta * delta);
    weight[i] -= rate * delta;
  }
}

/* Adagrad: Duchi et al. 2011, figure 1; torch.optim.Adagrad */

static void adagrad_layout(fn_optimizer *o) {
  add_state(o, "sum");
}

static void adagrad_prepare(fn_optimizer *o, double lr, factors *f) {
  f->rate = (float)(lr / (1 + (double)(o->steps - 1) * o->lr_decay));
}

static void adagrad_apply(const fn_optimizer *o, const factors *f, const block *b) {
  const float scale = f->scale, decay = f->decay, rate = f->rate, eps = (float)o->eps;
  float *restrict weight = b->weight, *restrict sum = b->state[0];
  const float *restrict gradient = b->gradient;
  for (int64_t i = 0; i < b->n; i++) {
    const float g = scale * gradient[i] + decay * weight[i];
    const float s = sum[i] + g * g;
    sum[i] = s;
    weight[i] -= rate * (g / (sqrtf(s) + eps));
  }
}

/* the table */

static const algorithm algorithms[] = {
    {"sgd", 0, 0, sgd_check, sgd_layout, sgd_prepare, sgd_apply},
    {"adam", 1e-8, 0, NULL, adam_layout, adam_prepare, adam_apply},
    {"adamw", 1e-8, 1e-2, NULL, adam_layout, adamw_prepare, adam_apply},
    {"rmsprop", 1e-8, 0, NULL, rmsprop_layout, constant_rate, rmsprop_apply},
    {"adadelta", 1e-6, 0, NULL, adadelta_layout, constant_rate, adadelta_apply},
    {"adagrad", 1e-10, 0, NULL, adagrad_layout, adagrad_prepare, adagrad_apply},
    {"nadam", 1e-8, 0, NULL, nadam_layout, nadam_prepare, nadam_apply},
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
  for (int s = 0; s < o->state_count; s++) {
    void *memory = NULL;
    FN_TRY(fn_pages_allocate((size_t)count * sizeof(float), &memory));
    o->state[s] = memory;
  }
  if (o->initial_accumulator != 0 && strcmp(o->algorithm->name, "adagrad") == 0) {
    const float fill = (float)o->initial_accumulator;
    for (int64_t i = 0; i < count; i++)
      o->state[0][i] = fill;
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
    fn_pages_free(optimizer->state[s], (size_t)optimizer->parameters->count * sizeof(float));
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

void fn_optimizer_step(fn_optimizer *o, double lr, double scale) {
  o->steps++;
  fn_parameters_changed(o->parameters);
  factors f = {.scale = (float)scale, .decay = (float)o->weight_decay, .shrink = 1};
  o->algorithm->prepare(o, lr, &f);
  float *weight = o->parameters->values;
  const float *gradient = o->parameters->gradients;
  const int64_t count = o->parameters->count, blocks = (count + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < blocks; i++) {
    const int64_t start = i * BLOCK;
    block b = {.weight = weight + start,
               .gradient = gradient + start,
               .n = count - start < BLOCK ? count - start : BLOCK};
    for (int s = 0; s < o->state_count; s++)
      b.state[s] = o->state[s] + start;
    o->algorithm->apply(o, &f, &b);
  }
  if (o->eps == 0) clear_gaps(o->parameters);
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
  return optimizer->state[index];
}

int fn_optimizer_scalar_count(const fn_optimizer *optimizer) {
  return optimizer->has_scalar;
}

double *fn_optimizer_scalar(fn_optimizer *optimizer, int index, const char **name) {
  if (!optimizer->has_scalar || index != 0) return NULL;
  if (name) *name = "mu_product";
  return &optimizer->mu_product;
}
