/* Kernels and operators with their times and what they could cost at best. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "run/bench_internal.h"

static double larger(double a, double b) {
  return a > b ? a : b;
}

static bench_row *kind_of(bench_steps *s, const char *op, const char *backend) {
  for (int i = 0; i < s->kind_count; i++)
    if (strcmp(s->kind[i].name, op) == 0 && strcmp(s->kind[i].backend, backend) == 0)
      return &s->kind[i];
  if (s->kind_count == BENCH_KINDS_MOST) return &s->kind[BENCH_KINDS_MOST - 1];
  bench_row *kind = &s->kind[s->kind_count++];
  snprintf(kind->name, sizeof kind->name, "%s", op);
  kind->backend = backend;
  return kind;
}

static void add_to_kind(bench_steps *s, const char *op, const bench_row *r) {
  bench_row *kind = kind_of(s, op, r->backend);
  kind->kernels++;
  kind->seconds += r->seconds;
  kind->alone += r->alone;
  kind->flops += r->flops;
  kind->bytes += r->bytes;
  kind->bound += r->bound;
  kind->least += r->least;
}

/** Seconds that an optimizer needs to read values, gradients and its arrays once and to write all
 *  but the gradients. */
static double optimizer_least(const bench *b) {
  const int arrays = fn_optimizer_state_count(b->optimizer);
  return (double)b->parameters->count * sizeof(float) * (3 + 2 * arrays) / b->machine.bytes;
}

/** The sum over operators of what each needs at least, by the primitives as timed beside one step.
 */
static double least_of_step(const bench *b, const bench_steps *s, int64_t step) {
  const double *alone = s->each + step * s->kernel_count;
  double sum = s->optimizer_least;
  for (int k = 0; k < s->kernel_count; k++)
    sum += larger(alone[k], s->kernel[k].bytes / b->machine.bytes);
  return sum;
}

static void fill_row(const bench *b, const bench_steps *s, int k, bench_row *r) {
  fn_kernel_info info;
  fn_program_kernel_info(b->program, k, &info);
  *r = (bench_row){.backend = info.backend,
                   .shape = info.shape,
                   .kernels = 1,
                   .seconds = info.runs > 0 ? info.seconds / (double)info.runs : 0,
                   .flops = info.flops,
                   .bytes = info.bytes};
  snprintf(r->name, sizeof r->name, "%s %s", info.op, info.label);
  for (int64_t i = 0; i < b->options->steps; i++)
    r->alone += s->each[i * s->kernel_count + k] / (double)b->options->steps;
  const double moved = r->bytes / b->machine.bytes;
  r->bound = larger(r->flops / b->machine.flops, moved);
  r->least = larger(r->alone, moved);
}

fn_status fn_bench_collect(bench *b, bench_steps *s) {
  for (int k = 0; k < s->kernel_count; k++) {
    fn_kernel_info info;
    fn_program_kernel_info(b->program, k, &info);
    fill_row(b, s, k, &s->kernel[k]);
    add_to_kind(s, info.op, &s->kernel[k]);
  }
  const int64_t steps = b->options->steps;
  s->optimizer_least = s->inference ? 0 : optimizer_least(b);
  for (int64_t i = 0; i < steps; i++) {
    if (b->dist->size > 1) continue;
    const double least = least_of_step(b, s, i);
    s->least += least / (double)steps;
    // Until here it holds the time of the step.
    s->bound_ratio[i] = least > 0 ? s->bound_ratio[i] / least : 0;
  }
  s->ratio_median = fn_bench_median(s->ratio, steps);
  s->bound_ratio_median = fn_bench_median(s->bound_ratio, steps);
  s->measured = true;
  return FN_OK;
}
