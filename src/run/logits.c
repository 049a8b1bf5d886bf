#include "run/logits.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"

static const double SAY_EVERY_SECONDS = 10;
enum { MESSAGE = 1 << 24 }; // logits in one MPI message, whose counts are ints

fn_status fn_logits_check(const fn_run *run, const fn_program *program, int64_t batch) {
  const fn_shape *shape = fn_program_output_shape(program, "output");
  char text[128];
  if (fn_shape_count(shape) == batch) return FN_OK;
  return fn_run_fail(run, "model.name",
                     "the network's output for %lld samples has shape %s, but two classes need one "
                     "number per sample",
                     (long long)batch, fn_shape_text(shape, text, sizeof text));
}

fn_status fn_logits_gather(const fn_dist *dist, int64_t samples, const float *part, float *whole) {
  for (int rank = 0; rank < dist->size; rank++) {
    int64_t begin, count;
    fn_rank_slice(samples, rank, dist->size, false, &begin, &count);
    if (rank == 0 && dist->rank == 0) memcpy(whole, part, (size_t)count * sizeof *whole);
    for (int64_t done = 0; done < count && rank > 0; done += MESSAGE) {
      const int some = (int)(count - done < MESSAGE ? count - done : MESSAGE);
      if (dist->rank == rank)
        MPI_Send(part + done, some, MPI_FLOAT, 0, 0, dist->comm);
      else if (dist->rank == 0)
        MPI_Recv(whole + begin + done, some, MPI_FLOAT, rank, 0, dist->comm, MPI_STATUS_IGNORE);
    }
  }
  return FN_OK;
}

/** Now and then, how far rank 0 is: all have about as much to do. */
static void say(double start, double *last, int64_t done, int64_t count) {
  const double now = fn_clock();
  if (now - *last < SAY_EVERY_SECONDS || done == count) return;
  char left[64];
  *last = now;
  fn_log(
      FN_INFO, "%.0f %% of the samples done, ETA %s", 100 * (double)done / (double)count,
      fn_text_duration((now - start) / (double)done * (double)(count - done), left, sizeof left));
}

static fn_status compute_batch(const fn_run *run, fn_engine *engine, const fn_batch *batch,
                               float *logit) {
  fn_program *program;
  FN_TRY(fn_engine_program(engine, false, false, batch->count, &program));
  FN_TRY(fn_logits_check(run, program, batch->count));
  FN_TRY(fn_engine_feed(program, batch));
  const fn_run_context context = {.seed = run->seed, .sample = batch->sample};
  FN_TRY(fn_program_run(program, &context));
  FN_TRY(fn_program_wait(program));
  memcpy(logit, fn_program_output_data(program, "output"), (size_t)batch->count * sizeof *logit);
  return FN_OK;
}

static fn_status compute_part(const fn_run *run, fn_engine *engine, fn_loader *loader,
                              int64_t count, float *part) {
  const double start = fn_clock();
  double last = start;
  int64_t done = 0;
  fn_status failed = FN_OK;
  // After a failure of its own a rank reads on: the others may need it to read.
  for (;;) {
    const fn_batch *batch;
    FN_TRY(fn_loader_next(loader, &batch));
    if (!batch) break;
    if (failed == FN_OK) failed = compute_batch(run, engine, batch, part + done);
    done += batch->count;
    say(start, &last, done, count);
  }
  FN_TRY(failed);
  FN_CHECK(done == count, FN_ERR_INTERNAL, "%lld of %lld samples were read", (long long)done,
           (long long)count);
  return FN_OK;
}

static fn_status compute_slice(const fn_run *run, fn_engine *engine, fn_dataset *dataset,
                               int64_t begin, int64_t count, float *part) {
  int64_t *list = malloc((size_t)(count + 1) * sizeof *list);
  FN_CHECK(list, FN_ERR_MEMORY, "out of memory");
  for (int64_t i = 0; i < count; i++)
    list[i] = begin + i;
  fn_loader *loader = NULL;
  // A rank without samples has a loader as well: reading may be collective.
  fn_status status = fn_loader_create(dataset, 0, list, count, run->train.batch, 0,
                                      run->data.prefetch, run->data.readers, &loader);
  if (status == FN_OK) status = compute_part(run, engine, loader, count, part);
  fn_loader_destroy(loader);
  free(list);
  return status;
}

fn_status fn_logits_compute(const fn_run *run, const fn_dist *dist, fn_engine *engine,
                            fn_dataset *dataset, float **logit) {
  const int64_t samples = fn_dataset_get_info(dataset)->samples;
  int64_t begin, count;
  fn_rank_slice(samples, dist->rank, dist->size, false, &begin, &count);
  *logit = NULL;
  float *part = malloc((size_t)(count + 1) * sizeof *part), *whole = NULL;
  if (dist->rank == 0) whole = malloc((size_t)samples * sizeof *whole);
  fn_status status = FN_OK;
  if (!part || (dist->rank == 0 && !whole))
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for %lld logits",
                          (long long)samples);
  status = fn_dist_agree(dist, status);
  if (status == FN_OK)
    status = fn_dist_agree(dist, compute_slice(run, engine, dataset, begin, count, part));
  if (status == FN_OK) status = fn_logits_gather(dist, samples, part, whole);
  free(part);
  if (status == FN_OK)
    *logit = whole;
  else
    free(whole);
  return status;
}
