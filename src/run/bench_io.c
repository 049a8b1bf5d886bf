/* Reading alone, and reductions alone. */
#include <stdlib.h>

#include "base/system.h"
#include "run/bench_internal.h"

enum { REDUCTIONS = 7 };

/* ---- reading -----------------------------------------------------------------------------------
 */

/** This rank's samples of the first epoch, again and again, for `batches` batches. */
static fn_status list_samples(const bench *b, int64_t batches, int64_t **list) {
  const fn_run *run = b->run;
  const fn_dataset_info *info = fn_dataset_get_info(b->dataset);
  int64_t begin, count;
  fn_rank_slice(info->samples, b->dist->rank, b->dist->size, true, &begin, &count);
  FN_CHECK(count > 0, FN_ERR_CONFIG, "%s: %lld samples are fewer than %d ranks",
           fn_run_where(run, "data.train.input"), (long long)info->samples, b->dist->size);
  int64_t *order = malloc((size_t)info->samples * sizeof *order);
  const int64_t wanted = batches * b->options->batch;
  *list = malloc((size_t)(wanted + 1) * sizeof **list);
  fn_status status = order && *list ? FN_OK
                                    : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__,
                                                   "out of memory for a list of samples");
  if (status == FN_OK)
    status = fn_epoch_order(run->seed, 0, info->files, info->crops, run->data.shuffle,
                            run->data.divide, run->data.shuffle_distance, order);
  for (int64_t i = 0; i < wanted && status == FN_OK; i++)
    (*list)[i] = order[begin + i % count];
  free(order);
  return status;
}

fn_status fn_bench_open_loader(const bench *b, int64_t batches, fn_loader **loader) {
  int64_t *list = NULL;
  fn_status status = list_samples(b, batches, &list);
  if (status == FN_OK)
    status = fn_loader_create(b->dataset, 0, list, batches * b->options->batch, b->options->batch,
                              0, b->run->data.prefetch, b->run->data.readers, loader);
  free(list);
  return status;
}

static fn_status read_batch(const bench *b, fn_loader *loader, double *seconds, double *bytes) {
  const fn_batch *batch = NULL;
  const double start = fn_clock();
  FN_TRY(fn_loader_next(loader, &batch));
  FN_CHECK(batch, FN_ERR_INTERNAL, "the list of samples ended early");
  *seconds = fn_clock() - start;
  *bytes = (double)(batch->count * (batch->input_values + batch->target_values)) * sizeof(float);
  if (b->timeline)
    fn_timeline_add(b->timeline, FN_TIMELINE_MAIN, "phase", start, start + *seconds, "input_wait");
  return FN_OK;
}

static void on_read(void *user, int reader, int64_t sample, double start, double end) {
  fn_timeline_add(user, FN_TIMELINE_READER + reader, "input", start, end, "sample %lld",
                  (long long)sample);
}

static fn_status read_all(const bench *b, fn_loader *loader, double *seconds, double *bytes) {
  *seconds = *bytes = 0;
  double once, size = 0;
  for (int64_t i = 0; i < b->options->warmup; i++)
    FN_TRY(read_batch(b, loader, &once, &size));
  if (b->timeline) fn_loader_on_read(loader, on_read, b->timeline);
  const double start = fn_clock();
  for (int64_t i = 0; i < b->options->steps; i++) {
    FN_TRY(read_batch(b, loader, &once, &size));
    *bytes += size;
  }
  *seconds = fn_clock() - start;
  return FN_OK;
}

/** Whoever takes batches as fast as they come finds nothing read ahead: from the arrival of the
 * last batch of the warm-up to that of the last one is the time of the readers. */
fn_status fn_bench_read(bench *b) {
  fn_loader *loader = NULL;
  FN_TRY(fn_dist_agree(b->dist,
                       fn_bench_open_loader(b, b->options->warmup + b->options->steps, &loader)));
  double seconds, bytes;
  fn_status status = fn_dist_agree(b->dist, read_all(b, loader, &seconds, &bytes));
  fn_loader_destroy(loader);
  bench_spread slowest, size;
  if (status == FN_OK) status = fn_bench_over_ranks(b->dist, seconds, &slowest);
  if (status == FN_OK) status = fn_bench_over_ranks(b->dist, bytes, &size);
  if (status != FN_OK) return status;
  const double steps = (double)b->options->steps, ranks = b->dist->size;
  b->io = (bench_io){.measured = true,
                     .seconds = slowest.most / steps,
                     .samples = ranks * steps * (double)b->options->batch / slowest.most,
                     .bytes = ranks * size.mean / slowest.most};
  return FN_OK;
}

/* ---- reductions
 * ------------------------------------------------------------------------------------ */

/** All gradients at once, several times. */
static fn_status reduce_all(const bench *b, fn_reducer *reducer, bench_bucket *result) {
  double seconds[REDUCTIONS];
  result->buckets = fn_reducer_bucket_count(reducer);
  for (int i = -1; i < REDUCTIONS; i++) {
    bench_spread spread;
    FN_TRY(fn_reducer_begin(reducer, b->options->batch));
    const double start = fn_clock();
    FN_TRY(fn_reducer_finish(reducer));
    FN_TRY(fn_bench_over_ranks(b->dist, fn_clock() - start, &spread));
    if (i >= 0) seconds[i] = spread.most;
  }
  result->seconds = fn_bench_median(seconds, REDUCTIONS);
  return FN_OK;
}

static fn_status try_size(bench *b, int64_t bytes) {
  bench_comm *c = &b->comm;
  if (c->count == BENCH_BUCKETS_MOST) return FN_OK;
  fn_reducer *reducer = NULL;
  const int64_t first = b->run->train.first_bucket_bytes;
  fn_status status =
      fn_dist_agree(b->dist, fn_reducer_create(b->dist, b->parameters,
                                               first < bytes ? first : bytes, bytes, &reducer));
  bench_bucket result = {.bytes = bytes};
  if (status == FN_OK) status = reduce_all(b, reducer, &result);
  fn_reducer_destroy(reducer);
  if (status != FN_OK) return status;
  c->bucket[c->count] = result;
  if (result.seconds < c->bucket[c->best].seconds) c->best = c->count;
  c->count++;
  return FN_OK;
}

fn_status fn_bench_reduce(bench *b) {
  const int64_t bytes = b->parameters->count * (int64_t)sizeof(float);
  const int64_t configured = b->run->train.bucket_bytes;
  b->comm = (bench_comm){.gradient_bytes = bytes};
  bool tried = false;
  for (int64_t size = 1 << 18; size <= 1 << 26; size *= 4) {
    if (configured < size && !tried) {
      FN_TRY(try_size(b, configured));
      tried = true;
    }
    tried |= configured == size;
    if (size < bytes) FN_TRY(try_size(b, size));
  }
  if (!tried || b->comm.count == 0) FN_TRY(try_size(b, configured));
  b->comm.measured = true;
  return FN_OK;
}
