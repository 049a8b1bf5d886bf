/* Reading alone, and reductions alone. */
#include <stdlib.h>

#include "base/system.h"
#include "run/bench_internal.h"

enum { REDUCTIONS = 7 };

/* ---- reading -----------------------------------------------------------------------------------
 */

/** This rank's samples of the reader's epoch in whole batches; fields that have too few for one, or
 *  for what is to be measured, give theirs again. */
static fn_status list_samples(const bench_reader *r, int64_t **list, int64_t *listed) {
  const bench *b = r->bench;
  const int64_t all = fn_dataset_epoch_samples(b->dataset), batch = b->options->batch;
  int64_t begin, count;
  fn_rank_slice(all, b->dist->rank, b->dist->size, true, &begin, &count);
  FN_CHECK(count > 0, FN_ERR_CONFIG, "%lld training samples are fewer than %d ranks",
           (long long)all, b->dist->size);
  const bool cubes = fn_dataset_get_info(b->dataset)->cubes;
  FN_CHECK(count >= batch || !cubes, FN_ERR_CONFIG,
           "%lld training samples per rank are less than a batch of %lld", (long long)count,
           (long long)batch);
  int64_t batches = count / batch;
  if (!cubes && batches < r->least) batches = r->least;
  *listed = batches * batch;
  int64_t *order = malloc((size_t)all * sizeof *order);
  *list = malloc((size_t)*listed * sizeof **list);
  fn_status status = order && *list ? FN_OK
                                    : fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__,
                                                   "out of memory for a list of samples");
  if (status == FN_OK) status = fn_dataset_order(b->dataset, r->epoch, order);
  for (int64_t i = 0; i < *listed && status == FN_OK; i++)
    (*list)[i] = order[begin + i % count];
  free(order);
  return status;
}

static void on_read(void *user, int reader, int64_t sample, double start, double end) {
  fn_timeline_add(user, FN_TIMELINE_READER + reader, "input", start, end, "sample %lld",
                  (long long)sample);
}

static fn_status open_epoch(bench_reader *r) {
  const bench *b = r->bench;
  int64_t *list = NULL, listed = 0;
  fn_status status = fn_dist_agree(b->dist, list_samples(r, &list, &listed));
  if (status == FN_OK)
    status = fn_dist_agree(b->dist, fn_loader_create(b->dataset, r->epoch, list, listed,
                                                     b->options->batch, 0, b->run->data.prefetch,
                                                     b->run->data.readers, &r->loader));
  free(list);
  if (status == FN_OK && r->noted) fn_loader_on_read(r->loader, on_read, b->timeline);
  return status;
}

fn_status fn_bench_reader_open(const bench *b, int64_t least, bench_reader *reader) {
  *reader = (bench_reader){.bench = b, .least = least};
  return open_epoch(reader);
}

void fn_bench_reader_note(bench_reader *reader) {
  reader->noted = reader->bench->timeline != NULL;
  if (reader->noted) fn_loader_on_read(reader->loader, on_read, reader->bench->timeline);
}

fn_status fn_bench_reader_next(bench_reader *reader, const fn_batch **batch) {
  FN_TRY(fn_loader_next(reader->loader, batch));
  if (*batch) return FN_OK;
  fn_bench_reader_close(reader);
  reader->epoch++;
  FN_TRY(open_epoch(reader));
  FN_TRY(fn_loader_next(reader->loader, batch));
  FN_CHECK(*batch, FN_ERR_INTERNAL, "an epoch without batches");
  return FN_OK;
}

void fn_bench_reader_close(bench_reader *reader) {
  if (reader->loader && reader->noted) fn_loader_on_read(reader->loader, NULL, NULL);
  fn_loader_destroy(reader->loader);
  reader->loader = NULL;
}

static fn_status read_batch(const bench *b, bench_reader *reader, double *seconds, double *bytes) {
  const fn_batch *batch = NULL;
  const double start = fn_clock();
  FN_TRY(fn_bench_reader_next(reader, &batch));
  *seconds = fn_clock() - start;
  *bytes = (double)(batch->count * batch->sample_bytes);
  if (b->timeline)
    fn_timeline_add(b->timeline, FN_TIMELINE_MAIN, "phase", start, start + *seconds, "input_wait");
  return FN_OK;
}

static fn_status read_all(const bench *b, bench_reader *reader, double *seconds, double *bytes) {
  *seconds = *bytes = 0;
  double once, size = 0;
  for (int64_t i = 0; i < b->options->warmup; i++)
    FN_TRY(read_batch(b, reader, &once, &size));
  fn_bench_reader_note(reader);
  const double start = fn_clock();
  for (int64_t i = 0; i < b->options->steps; i++) {
    FN_TRY(read_batch(b, reader, &once, &size));
    *bytes += size;
  }
  *seconds = fn_clock() - start;
  return FN_OK;
}

/** Whoever takes batches as fast as they come finds nothing read ahead: from the arrival of the
 * last batch of the warm-up to that of the last one is the time of the readers. */
fn_status fn_bench_read(bench *b) {
  bench_reader reader;
  FN_TRY(fn_bench_reader_open(b, b->options->warmup + b->options->steps, &reader));
  double seconds, bytes;
  fn_status status = fn_dist_agree(b->dist, read_all(b, &reader, &seconds, &bytes));
  fn_bench_reader_close(&reader);
  bench_spread slowest, size;
  if (status == FN_OK) status = fn_bench_over_ranks(b->dist, seconds, &slowest);
  if (status == FN_OK) status = fn_bench_over_ranks(b->dist, bytes, &size);
  if (status != FN_OK) return status;
  const double steps = (double)b->options->steps, ranks = b->dist->size;
  b->io = (bench_io){.measured = true,
                     .seconds = slowest.most / steps,
                     .samples = ranks * steps * (double)b->options->batch / slowest.most,
                     .bytes = ranks * size.mean / slowest.most,
                     .sample_bytes = size.mean / (steps * (double)b->options->batch)};
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
  fn_reducer_traffic traffic;
  bench_spread spread;
  fn_reducer_moved(reducer, &traffic);
  FN_TRY(fn_bench_over_ranks(b->dist, traffic.sent / (REDUCTIONS + 1), &spread));
  result->sent = spread.most;
  FN_TRY(fn_bench_over_ranks(b->dist, traffic.shared / (REDUCTIONS + 1), &spread));
  result->shared = spread.most;
  return FN_OK;
}

static fn_status try_size(bench *b, int64_t bytes) {
  bench_comm *c = &b->comm;
  if (c->count == BENCH_BUCKETS_MOST) return FN_OK;
  fn_reducer *reducer = NULL;
  const int64_t first = b->run->train.first_bucket_bytes;
  fn_status status = fn_dist_agree(b->dist, fn_reducer_create(b->dist, b->parameters,
                                                              first < bytes ? first : bytes, bytes,
                                                              fn_reduction_of(b->run), &reducer));
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
  fn_reducer_describe(b->reducer, b->comm.how, sizeof b->comm.how);
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
