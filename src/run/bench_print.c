/* What people read. */
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "run/bench_internal.h"

enum { SLOWEST = 15 };

static const char *plural(int64_t count) {
  return count == 1 ? "" : "s";
}

void fn_bench_print_head(const bench *b) {
  if (!b->out) return;
  fprintf(b->out, "batch %lld, input [%lld", (long long)b->options->batch,
          (long long)b->info.input_channels);
  for (int d = 0; d < b->info.spatial; d++)
    fprintf(b->out, ", %lld", (long long)b->info.input_extent[d]);
  fprintf(b->out, "], target [%lld", (long long)b->info.target_channels);
  for (int d = 0; d < b->info.target_spatial; d++)
    fprintf(b->out, ", %lld", (long long)b->info.target_extent[d]);
  fprintf(b->out, "] (%s)\n", b->source);
  fprintf(b->out,
          "backend %s, precision %s, %d rank%s of %d thread%s, %lld step%s after %lld; "
          "%lld parameters\n",
          b->run->compute.backend, b->run->compute.precision, b->dist->size, plural(b->dist->size),
          fn_threads_get(), plural(fn_threads_get()), (long long)b->options->steps,
          plural(b->options->steps), (long long)b->options->warmup,
          (long long)b->parameters->parameter_total);
}

/* ---- tables ------------------------------------------------------------------------------------
 */

static int slower(const void *a, const void *b) {
  const double x = ((const bench_row *)a)->seconds, y = ((const bench_row *)b)->seconds;
  return (x < y) - (x > y);
}

static double rate(double amount, double seconds) {
  return seconds > 0 ? amount / seconds * 1e-9 : 0;
}

static void print_row(const bench *b, const bench_steps *s, const bench_row *r, const char *name) {
  char alone[32] = "-";
  if (r->alone > 0) snprintf(alone, sizeof alone, "%.2f", 1e3 * r->alone);
  fprintf(b->out, "%-40.40s %3d %9.2f %5.1f %9s %9.2f %5.0f %8.1f %7.1f\n", name, r->kernels,
          1e3 * r->seconds, 100 * r->seconds / s->step_time, alone, 1e3 * r->bound,
          r->seconds > 0 ? 100 * r->bound / r->seconds : 0, rate(r->flops, r->seconds),
          rate(r->bytes, r->seconds));
}

static void print_rows(const bench *b, const bench_steps *s, const char *title,
                       const bench_row *rows, int count, int most, bool shapes) {
  bench_row *sorted = malloc((size_t)(count + 1) * sizeof *sorted);
  if (!sorted) return;
  memcpy(sorted, rows, (size_t)count * sizeof *sorted);
  qsort(sorted, (size_t)count, sizeof *sorted, slower);
  fprintf(b->out, "\n%-40s %3s %9s %5s %9s %9s %5s %8s %7s\n", title, "n", "ms", "%", "alone ms",
          "bound ms", "of it", "GFLOP/s", "GB/s");
  for (int i = 0; i < count && i < most; i++) {
    char name[2 * BENCH_NAME], shape[96];
    snprintf(name, sizeof name, "%s %s", sorted[i].name,
             shapes ? fn_shape_text(&sorted[i].shape, shape, sizeof shape) : sorted[i].backend);
    print_row(b, s, &sorted[i], name);
  }
  if (count > most) fprintf(b->out, "  ... and %d faster ones (--all lists them)\n", count - most);
  free(sorted);
}

/* ---- steps -------------------------------------------------------------------------------------
 */

static void print_phase(const bench *b, const bench_steps *s, bench_phase phase, const char *name,
                        const char *meaning) {
  if (s->phase[phase] == 0) return;
  fprintf(b->out, "  %-10s %10.2f ms %5.1f %%   %s\n", name, 1e3 * s->phase[phase],
          100 * s->phase[phase] / s->step_mean, meaning);
}

static void print_phases(const bench *b, const bench_steps *s) {
  fprintf(b->out, "mean step    %10.2f ms           of which\n", 1e3 * s->step_mean);
  print_phase(b, s, BENCH_WAIT, "input wait", "batch not read yet");
  print_phase(b, s, BENCH_FEED, "feed", "batch copied into the program");
  print_phase(b, s, BENCH_FORWARD, "forward", "");
  print_phase(b, s, BENCH_BACKWARD, "backward", "");
  print_phase(b, s, BENCH_EXPOSED, "exposed", "reductions waited for after the backward pass");
  print_phase(b, s, BENCH_AGREE, "agreement", "small collective calls");
  print_phase(b, s, BENCH_OPTIMIZER, "optimizer", b->run->optimizer.name);
  if (b->dist->size == 1 || s->inference) return;
  const double hidden = s->busy > s->phase[BENCH_EXPOSED] ? s->busy - s->phase[BENCH_EXPOSED] : 0;
  fprintf(b->out,
          "reductions   %10.2f ms   under way, %.2f of it (%.1f %%) hidden behind the backward "
          "pass\n",
          1e3 * s->busy, 1e3 * hidden, s->busy > 0 ? 100 * hidden / s->busy : 0);
  fprintf(b->out,
          "exposed      %10.2f ms   of the rank that came last, %.2f %% of the step; the first "
          "waited %.2f ms for it\n",
          1e3 * s->exposed_least, 100 * s->exposed_least / s->step_mean, 1e3 * s->exposed_most);
}

/** What steps cost that nobody waits for. */
static void print_chain(const bench *b, const bench_steps *s) {
  const bench_chain *c = &s->chain;
  if (c->steps == 0) return;
  fprintf(b->out,
          "chain        %10.2f ms   a step among %lld, each put behind the last; %.2f by the "
          "device's clock\n",
          1e3 * c->step, (long long)c->steps, 1e3 * c->device);
  if (s->mode == FN_BENCH_FULL)
    fprintf(b->out, "  %-10s %10.2f ms %5.1f %%   batch not read yet\n", "input wait",
            1e3 * c->input_wait, 100 * c->input_wait / c->step);
  fprintf(b->out, "  %-10s %10.2f ms %5.1f %%   until the step is on its way%s\n", "host",
          1e3 * c->host, 100 * c->host / c->step,
          fn_bench_is_launch_bound(c) ? ": launch bound" : "");
}

static void print_sums(const bench *b, const bench_steps *s) {
  const int64_t last = b->options->steps - 1;
  const char *counted = b->device ? "chain" : "computing";
  if (b->dist->size > 1) {
    fprintf(b->out, "primitives            -      are timed alone on one rank only\n");
    return;
  }
  if (s->alone > 0)
    fprintf(b->out,
            "primitives   %10.2f ms   %s convolutions and matrix products, alone\n"
            "ratio        %10.3f      %s / primitives, median; lowest %.3f, highest %.3f\n",
            1e3 * s->alone, b->device ? "the library's" : "oneDNN", s->ratio_median, counted,
            s->ratio[0], s->ratio[last]);
  else
    fprintf(b->out, "primitives            -      backend %s has none to compare with\n",
            b->run->compute.backend);
  fprintf(b->out,
          "least        %10.2f ms   per operator the larger of primitive alone and bytes at copy "
          "speed\n"
          "bound ratio  %10.3f      %s / least, median; lowest %.3f, highest %.3f\n",
          1e3 * s->least, s->bound_ratio_median, counted, s->bound_ratio[0], s->bound_ratio[last]);
}

static void print_memory(const bench *b, const bench_steps *s) {
  char text[4][32];
  fprintf(b->out, "memory       arena %s (unplanned: %s), workspace %s, peak resident %s\n",
          fn_text_bytes((double)s->memory.arena, text[0], 32),
          fn_text_bytes((double)s->memory.naive, text[1], 32),
          fn_text_bytes((double)s->memory.workspace, text[2], 32),
          fn_text_bytes((double)s->peak, text[3], 32));
  fprintf(b->out, "reorders     %d\n", s->memory.reorders);
  if (!b->device) return;
  const fn_device_info *info = &b->device->info;
  fprintf(b->out, "device       %s%s%s%s%s%s%s\n", info->name, info->driver[0] ? ", driver " : "",
          info->driver, info->runtime[0] ? ", CUDA " : "", info->runtime,
          info->library[0] ? ", cuDNN " : "", info->library);
}

void fn_bench_print_steps(const bench *b, const bench_steps *s) {
  if (!b->out || !s->measured) return;
  const int64_t last = b->options->steps - 1;
  fprintf(b->out, "\n%s: %s\n", fn_bench_mode_name(s->mode),
          s->inference               ? "the network's output for one batch"
          : s->mode == FN_BENCH_FULL ? "training steps on data"
                                     : "training steps on random numbers");
  fprintf(b->out, "peak: %.1f GFLOP/s (%s), copy %.2f GB/s read and written\n",
          1e-9 * b->machine.flops, b->machine.conv, 1e-9 * b->machine.bytes);
  print_rows(b, s, "operator", s->kind, s->kind_count, BENCH_KINDS_MOST, false);
  print_rows(b, s, "kernel", s->kernel, s->kernel_count,
             b->options->all ? s->kernel_count : (int)SLOWEST, true);
  fprintf(b->out, "\nstep         %10.2f ms   %smedian; fastest %.2f, slowest %.2f\n",
          1e3 * s->step_time, b->device ? "alone, waited for; " : "", 1e3 * s->step[0],
          1e3 * s->step[last]);
  print_phases(b, s);
  print_chain(b, s);
  print_sums(b, s);
  fprintf(b->out, "samples      %10.3f /s\n", (double)s->batch / fn_bench_pace(s));
  print_memory(b, s);
}

/* ---- the rest ----------------------------------------------------------------------------------
 */

void fn_bench_print_io(const bench *b) {
  if (!b->out || !b->io.measured) return;
  char text[32];
  fprintf(b->out,
          "\nio: batches read, %lld reading thread%s per rank\n"
          "batch        %10.2f ms\n"
          "samples      %10.3f /s   %.3f GB/s handed over, %s a sample %s\n",
          (long long)b->run->data.readers, plural(b->run->data.readers), 1e3 * b->io.seconds,
          b->io.samples, 1e-9 * b->io.bytes, fn_text_bytes(b->io.sample_bytes, text, sizeof text),
          fn_engine_converts(b->run) ? "for the device to convert" : "of float32");
}

void fn_bench_print_comm(const bench *b) {
  const bench_comm *c = &b->comm;
  if (!b->out || !c->measured) return;
  char text[32];
  fprintf(b->out, "\ncomm: all gradients (%s) summed over %d ranks, nothing else running\n",
          fn_text_bytes((double)c->gradient_bytes, text, sizeof text), b->dist->size);
  fprintf(b->out, "as trained: %s\n", c->how);
  fprintf(b->out, "%18s %8s %10s %13s %8s %9s %10s\n", "train.bucket_bytes", "buckets", "ms",
          "ms per bucket", "GB/s", "sent, MB", "shared, MB");
  for (int i = 0; i < c->count; i++) {
    const bench_bucket *k = &c->bucket[i];
    char sent[32] = "by MPI";
    if (k->sent >= 0) snprintf(sent, sizeof sent, "%.3f", 1e-6 * k->sent);
    fprintf(b->out, "%18lld %8d %10.3f %13.3f %8.2f %9s %10.3f%s\n", (long long)k->bytes,
            k->buckets, 1e3 * k->seconds, 1e3 * k->seconds / k->buckets,
            rate((double)c->gradient_bytes, k->seconds), sent, 1e-6 * k->shared,
            i == c->best ? "   best" : "");
  }
}

void fn_bench_print_start(const bench *b) {
  if (!b->out || b->start.first_step == 0) return;
  const bench_start *s = &b->start;
  fprintf(
      b->out,
      "\nstart        %10.0f ms   until the first step ends: launch %.0f, data %.0f, plan %.0f, "
      "prepare %.0f, first batch %.0f, first step %.0f\n",
      1e3 * (s->launch + s->data + s->plan + s->prepare + s->read + s->first_step), 1e3 * s->launch,
      1e3 * s->data, 1e3 * s->plan, 1e3 * s->prepare, 1e3 * s->read, 1e3 * s->first_step);
}

void fn_bench_print_all(const bench *b) {
  const bench_steps *full = &b->steps[0], *synthetic = &b->steps[1];
  if (!b->out || !full->measured || !synthetic->measured || !b->io.measured) return;
  const double reached = (double)full->batch / fn_bench_pace(full),
               computing = (double)synthetic->batch / fn_bench_pace(synthetic);
  fprintf(b->out, "\nfull / min(synthetic, io)   %.3f   samples/s: %.3f of min(%.3f, %.3f)\n",
          reached / (computing < b->io.samples ? computing : b->io.samples), reached, computing,
          b->io.samples);
}
