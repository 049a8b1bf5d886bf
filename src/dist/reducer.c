/* Gradients summed over ranks in buckets, while the backward pass goes on.
 *
 * Buckets are slices of the flat gradient buffer, in which parameters lie in the order in which
 * their gradients become ready. Every rank starts bucket k after bucket k - 1, whatever the order
 * in which its own gradients become ready: collectives on one communicator match by order.
 *
 * The bits of a result depend on the values, the number of ranks, their nodes and the buckets
 * alone. Own sums (exchange.h) are made in a fixed order; of MPI_Iallreduce it is expected that it
 * applies a fixed sequence of additions for a given count and number of ranks, and gives every rank
 * the same bits. Open MPI's libnbc does: a schedule (binomial tree or ring, chosen by count and
 * ranks) fixes who adds what in which round, arrival times only delay it. The same calls are made
 * with and without the progress thread, so that both give the same bits.
 *
 * After fn_reducer_begin every rank must call fn_reducer_finish, also one whose backward pass
 * failed: the others wait for its buckets. What failed is agreed afterwards. Gradients reported
 * ready outside begin and finish (earlier micro-batches) are ignored.
 *
 * Gradients on a device: when the last gradient of a bucket was put on the compute stream, the copy
 * of the bucket to MPI's memory is put on FN_STREAM_COMM; the driving thread asks until it has
 * arrived, and finish puts the copies back. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "dist/device_gradients.h"
#include "dist/dist.h"
#include "dist/exchange.h"
#include "dist/mpi_status.h"
#include "dist/wire.h"

/** Buckets under way at once: each needs memory of its size, here or inside the MPI library. */
enum { IN_FLIGHT = 4 };

typedef struct bucket {
  int64_t offset, count; /**< elements of the flat gradients */
  int entries;           /**< parameters that overlap it */
  int pending;           /**< of those, not yet ready in this step */
  double ready;          /**< clock of this step; under lock */
  double start, end;     /**< likewise, the driving thread's */
} bucket;

/** Buckets a parameter overlaps: first .. last; first > last for a buffer. */
typedef struct span {
  int first, last;
  bool ready;
} span;

struct fn_reducer {
  const fn_dist *dist;
  fn_parameters *parameters;
  bucket *bucket; /**< shape [bucket_count] */
  int bucket_count;
  span *span;    /**< shape [entry_count] */
  double weight; /**< of this rank in the mean: samples / total */
  fn_reduction how;
  fn_device_gradients *on_device; /**< NULL: gradients are on the host */
  fn_exchange *exchange;          /**< NULL: MPI adds */

  // Only the driving thread (the progress thread, or whoever calls finish without one).
  int started, done;              /**< buckets started and completed in this step */
  MPI_Request request[IN_FLIGHT]; /**< without exchange */
  int64_t moves;                  /**< of the exchange; only to see that there were some */
  double flying_since;            /**< when the number of buckets under way left zero */

  // Under lock.
  pthread_mutex_t lock;
  pthread_cond_t work, finished;
  int front;      /**< buckets 0 .. front - 1 are ready to start */
  int reduced;    /**< buckets 0 .. reduced - 1 are complete */
  bool active;    /**< between begin and finish */
  bool finishing; /**< somebody waits */
  bool complete;  /**< all buckets of this step are reduced, or the reduction failed */
  bool stop;
  double busy, exposed;
  fn_status status;
  char message[4096];

  bool threaded;
  pthread_t thread;
};

/* ---- the driving thread -------------------------------------------------------------------- */

/** Where they are summed. */
static void *memory_of(const fn_reducer *r) {
  return r->on_device ? fn_device_gradients_memory(r->on_device) : r->parameters->gradients;
}

/** Their type there. */
static fn_dtype type_of(const fn_reducer *r) {
  return r->on_device ? r->how.type : r->parameters->dtype;
}

/** What is left to multiply a bucket by. A rank without samples contributes zero, whatever its
 *  gradients hold. */
static double weight_of(const fn_reducer *r) {
  return r->on_device && !fn_device_gradients_unweighted(r->on_device) ? 1 : r->weight;
}

static fn_status start_bucket(fn_reducer *r) {
  bucket *b = &r->bucket[r->started];
  const int slot = r->started % IN_FLIGHT;
  const fn_dtype type = type_of(r);
  char *slice = (char *)memory_of(r) + b->offset * (int64_t)fn_dtype_size(type);
  b->start = fn_clock();
  if (r->started == r->done) r->flying_since = b->start;
  if (r->exchange) {
    fn_exchange_start(r->exchange, slot, slice, b->count, weight_of(r));
  } else {
    fn_wire_write(slice, type, slice, type, b->count, weight_of(r));
    FN_TRY_MPI(MPI_Iallreduce(MPI_IN_PLACE, slice, (int)b->count,
                              type == FN_F64 ? MPI_DOUBLE : MPI_FLOAT, MPI_SUM,
                              r->dist->gradient_comm, &r->request[slot]),
               "starting a gradient reduction");
  }
  r->started++;
  return FN_OK;
}

/** Whether the oldest bucket under way is complete; the others get on meanwhile. */
static fn_status complete_oldest(fn_reducer *r, bool wait, bool *complete) {
  if (r->exchange) {
    *complete = false;
    bool moved = false;
    for (int k = r->done; k < r->started; k++) {
      bool done = r->bucket[k].end > 0;
      if (!done) FN_TRY(fn_exchange_advance(r->exchange, k % IN_FLIGHT, &moved, &done));
      if (done && r->bucket[k].end == 0) r->bucket[k].end = fn_clock();
      if (k == r->done) *complete = done;
    }
    r->moves += moved;
    if (wait && !moved) sched_yield(); // the ranks waited for may need the core
    return FN_OK;
  }
  MPI_Request *oldest = &r->request[r->done % IN_FLIGHT];
  int completed = 1;
  if (wait) {
    FN_TRY_MPI(MPI_Wait(oldest, MPI_STATUS_IGNORE), "reducing gradients");
  } else {
    FN_TRY_MPI(MPI_Test(oldest, &completed, MPI_STATUS_IGNORE), "reducing gradients");
  }
  *complete = completed != 0;
  if (*complete) r->bucket[r->done].end = fn_clock();
  return FN_OK;
}

/** Start what may start, up to bucket `front`, and complete what is complete; with `wait`, without
 *  keeping the core from others. */
static fn_status advance(fn_reducer *r, int front, bool wait) {
  while (r->started < front && r->started - r->done < IN_FLIGHT) {
    const bool idle = wait && r->started == r->done;
    if (r->on_device && !fn_device_gradients_arrived(r->on_device, r->started, idle)) break;
    FN_TRY(start_bucket(r));
  }
  bool complete = true;
  while (r->done < r->started) {
    FN_TRY(complete_oldest(r, wait, &complete));
    if (!complete) return FN_OK;
    wait = false;
    r->done++;
  }
  return FN_OK;
}

/** To be called with the lock held: advance and account for it. */
static void drive(fn_reducer *r, bool wait) {
  const int front = r->front, done = r->done;
  const bool was_flying = r->started > r->done;
  pthread_mutex_unlock(&r->lock);
  const fn_status status = advance(r, front, wait);
  const bool flew = was_flying || r->started > done;
  pthread_mutex_lock(&r->lock);
  if (flew && r->started == r->done) r->busy += fn_clock() - r->flying_since;
  if (status != FN_OK) {
    r->status = status;
    strncpy(r->message, fn_error_message(), sizeof r->message - 1);
  }
  const bool more = r->done > r->reduced;
  r->reduced = r->done;
  if (status != FN_OK || r->done == r->bucket_count) r->complete = true;
  if (r->complete || (more && r->on_device)) pthread_cond_signal(&r->finished);
}

static bool has_work(const fn_reducer *r) {
  return r->active && !r->complete && (r->started > r->done || r->front > r->started);
}

/** Nanoseconds between two looks at the network during the backward pass, when nobody waits for us:
 *  short after something was completed, longer and longer while another rank is late, for every
 *  look takes the core from the kernels. */
enum { PAUSE_LEAST = 50000, PAUSE_MOST = 800000 };

/** Let others use the core; in finish only other processes could. */
static void pause_between_tests(bool finishing, long *pause) {
  if (finishing) {
    sched_yield();
  } else {
    const struct timespec moment = {.tv_nsec = *pause};
    nanosleep(&moment, NULL);
    if (*pause < PAUSE_MOST) *pause *= 2;
  }
}

static void *progress(void *self) {
  fn_reducer *r = self;
  fn_thread_unpin();
  long pause = PAUSE_LEAST;
  pthread_mutex_lock(&r->lock);
  while (!r->stop) {
    if (!has_work(r)) {
      pthread_cond_wait(&r->work, &r->lock);
      continue;
    }
    const int64_t before = r->started + r->done + r->moves;
    drive(r, false);
    if (r->started + r->done + r->moves > before) pause = PAUSE_LEAST;
    if (r->started == r->done && r->front == r->started) continue;
    const bool finishing = r->finishing;
    pthread_mutex_unlock(&r->lock);
    pause_between_tests(finishing, &pause);
    pthread_mutex_lock(&r->lock);
  }
  pthread_mutex_unlock(&r->lock);
  return NULL;
}

/* ---- create and destroy ------------------------------------------------------------------------
 */

/** Elements of a bucket: whole groups of 16, so that slices start where vectors do; MPI counts are
 *  int. */
static int64_t bucket_elements(int64_t bytes, int64_t element_bytes) {
  const int64_t largest = (int64_t)1 << 28, count = (bytes / element_bytes + 15) / 16 * 16;
  return count < 16 ? 16 : count > largest ? largest : count;
}

/** Below this a reduction costs its latency, not its bytes. */
enum { BUCKET_LEAST = 1 << 18, BUCKETS_WANTED = 8 };

int64_t fn_reducer_bucket_bytes(const fn_parameters *parameters, int64_t wanted) {
  const int64_t part = parameters->count * (parameters->dtype == FN_F64 ? 8 : 4) / BUCKETS_WANTED;
  const int64_t most = part > BUCKET_LEAST ? part : BUCKET_LEAST;
  return wanted < most ? wanted : most;
}

static fn_status cut_buckets(fn_reducer *r, int64_t first_bytes, int64_t bucket_bytes) {
  const int64_t size = r->parameters->dtype == FN_F64 ? 8 : 4, count = r->parameters->count;
  const int64_t first = bucket_elements(first_bytes, size),
                other = bucket_elements(bucket_bytes, size);
  const int64_t buckets = 1 + (count > first ? (count - first + other - 1) / other : 0);
  FN_CHECK(buckets < 1 << 24, FN_ERR_CONFIG,
           "train.bucket_bytes: %lld bytes cut the gradients into %lld buckets; choose larger ones",
           (long long)bucket_bytes, (long long)buckets);
  r->bucket = calloc((size_t)buckets, sizeof *r->bucket);
  FN_CHECK(r->bucket, FN_ERR_MEMORY, "out of memory for %lld buckets", (long long)buckets);
  for (int64_t offset = 0; offset < count;) {
    const int64_t want = r->bucket_count == 0 ? first : other, left = count - offset;
    r->bucket[r->bucket_count++] = (bucket){.offset = offset, .count = left < want ? left : want};
    offset += want;
  }
  return FN_OK;
}

static fn_status map_entries(fn_reducer *r, int64_t first_bytes, int64_t bucket_bytes) {
  const fn_parameters *p = r->parameters;
  const int64_t size = p->dtype == FN_F64 ? 8 : 4;
  const int64_t first = bucket_elements(first_bytes, size),
                other = bucket_elements(bucket_bytes, size);
  r->span = calloc((size_t)p->entry_count + 1, sizeof *r->span);
  FN_CHECK(r->span, FN_ERR_MEMORY, "out of memory for the buckets of %d parameters",
           p->entry_count);
  for (int e = 0; e < p->entry_count; e++) {
    const fn_tensor_entry *entry = &p->entry[e];
    r->span[e] = (span){.first = 0, .last = -1};
    if (entry->is_buffer || entry->count == 0) continue;
    const int64_t low = entry->offset, high = entry->offset + entry->count - 1;
    r->span[e].first = low < first ? 0 : (int)(1 + (low - first) / other);
    r->span[e].last = high < first ? 0 : (int)(1 + (high - first) / other);
    for (int k = r->span[e].first; k <= r->span[e].last; k++)
      r->bucket[k].entries++;
  }
  return FN_OK;
}

static void start_thread(fn_reducer *r) {
  const int reason = fn_thread_start(&r->thread, progress, r);
  r->threaded = reason == 0;
  if (reason != 0)
    fn_log_once(FN_WARN,
                "cannot start the thread that reduces gradients during the backward pass (%s): "
                "they are reduced after it",
                strerror(reason));
}

/** What this rank needs for itself. */
static fn_status prepare(fn_reducer *r, int64_t first_bytes, int64_t bucket_bytes) {
  const fn_reduction *how = &r->how;
  const bool mpi = how->adder == FN_ADDER_MPI, direct = how->memory == FN_ALLREDUCE_DEVICE;
  FN_CHECK(how->type == r->parameters->dtype ||
               (how->type == FN_BF16 && r->parameters->dtype == FN_F32),
           FN_ERR_UNSUPPORTED, "gradients of type %s cannot be summed as %s",
           fn_dtype_name(r->parameters->dtype), fn_dtype_name(how->type));
  FN_CHECK(how->type != FN_BF16 || !(mpi || direct), FN_ERR_CONFIG,
           "train.gradient_dtype: bf16 goes with neither train.reduction: mpi, which would add in "
           "bf16, nor train.allreduce: device");
  FN_CHECK(!direct || mpi, FN_ERR_CONFIG,
           "train.allreduce: device goes with train.reduction: mpi or auto");
  FN_TRY(cut_buckets(r, first_bytes, bucket_bytes));
  FN_TRY(map_entries(r, first_bytes, bucket_bytes));
  if (r->parameters->device)
    FN_TRY(fn_device_gradients_create(r->parameters, r->bucket_count, direct, how->type,
                                      &r->on_device));
  return FN_OK;
}

static fn_status create_exchange(fn_reducer *r) {
  fn_exchange_options options = {.type = r->how.type,
                                 .data = type_of(r),
                                 .slots = IN_FLIGHT,
                                 .share_memory = r->how.adder != FN_ADDER_RANKS};
  for (int k = 0; k < r->bucket_count; k++)
    if (r->bucket[k].count > options.most) options.most = r->bucket[k].count;
  const fn_status status = fn_exchange_create(r->dist, &options, &r->exchange);
  if (status != FN_ERR_MEMORY || r->how.adder != FN_ADDER_AUTO) return status;
  if (r->dist->rank == 0)
    fn_log(FN_WARN, "%s; gradients are sent instead (train.reduction: ranks)", fn_error_message());
  options.share_memory = false;
  return fn_exchange_create(r->dist, &options, &r->exchange);
}

/** What was left open. */
static void choose(fn_reducer *r) {
  fn_reduction *how = &r->how;
  const bool there = r->parameters->device != NULL;
  if (how->memory == FN_ALLREDUCE_AUTO && there && how->adder == FN_ADDER_MPI &&
      how->type != FN_BF16 && fn_mpi_sums_device_memory())
    how->memory = FN_ALLREDUCE_DEVICE;
  if (how->memory == FN_ALLREDUCE_AUTO || !there) how->memory = FN_ALLREDUCE_HOST;
  if (how->memory == FN_ALLREDUCE_DEVICE && how->adder == FN_ADDER_AUTO) how->adder = FN_ADDER_MPI;
  if (how->type == FN_F32) how->type = r->parameters->dtype;
}

static fn_status create(fn_reducer *r, int64_t first_bytes, int64_t bucket_bytes) {
  if (r->dist->size == 1) return FN_OK;
  choose(r);
  FN_TRY(fn_dist_agree(r->dist, prepare(r, first_bytes, bucket_bytes)));
  if (r->how.adder != FN_ADDER_MPI) FN_TRY(create_exchange(r));
  if (r->dist->threads_multiple) start_thread(r);
  return FN_OK;
}

fn_status fn_reducer_create(const fn_dist *dist, fn_parameters *parameters, int64_t first_bytes,
                            int64_t bucket_bytes, fn_reduction how, fn_reducer **reducer) {
  *reducer = NULL;
  fn_reducer *r = calloc(1, sizeof *r);
  FN_CHECK(r, FN_ERR_MEMORY, "out of memory for the gradient reduction");
  r->dist = dist;
  r->parameters = parameters;
  r->how = how;
  pthread_mutex_init(&r->lock, NULL);
  pthread_cond_init(&r->work, NULL);
  pthread_cond_init(&r->finished, NULL);
  const fn_status status = create(r, first_bytes, bucket_bytes);
  if (status != FN_OK) {
    fn_reducer_destroy(r);
    return status;
  }
  *reducer = r;
  return FN_OK;
}

void fn_reducer_destroy(fn_reducer *r) {
  if (!r) return;
  if (r->threaded) {
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
  }
  fn_device_gradients_destroy(r->on_device);
  fn_exchange_destroy(r->exchange);
  pthread_cond_destroy(&r->finished);
  pthread_cond_destroy(&r->work);
  pthread_mutex_destroy(&r->lock);
  free(r->span);
  free(r->bucket);
  free(r);
}

/* ---- one step
 * ------------------------------------------------------------------------------------ */

/** weight := samples / sum over ranks; a negative count on any rank fails on all. */
static fn_status agree_weight(fn_reducer *r, int64_t samples) {
  int64_t mine[2] = {samples, samples < 0}, sum[2] = {samples, samples < 0};
  if (r->dist->size > 1)
    FN_TRY_MPI(MPI_Allreduce(mine, sum, 2, MPI_INT64_T, MPI_SUM, r->dist->comm),
               "counting the samples of a step");
  FN_CHECK(sum[1] == 0 && sum[0] > 0, FN_ERR_INTERNAL,
           "a step needs at least one sample over all ranks and none below zero, found %lld",
           (long long)sum[0]);
  r->weight = (double)samples / (double)sum[0];
  return FN_OK;
}

/** Bucket k is final on the device. */
static void send_bucket(fn_reducer *r, int k) {
  if (r->on_device)
    fn_device_gradients_send(r->on_device, k, r->bucket[k].offset, r->bucket[k].count, r->weight);
}

/** Leading buckets without pending gradients; lock held. Whether there are more than before. */
static bool move_front(fn_reducer *r) {
  const int before = r->front;
  const double now = fn_clock();
  while (r->front < r->bucket_count && r->bucket[r->front].pending == 0) {
    send_bucket(r, r->front);
    r->bucket[r->front++].ready = now;
  }
  if (r->front > before) pthread_cond_signal(&r->work);
  return r->front > before;
}

fn_status fn_reducer_begin(fn_reducer *r, int64_t samples) {
  FN_CHECK(!r->active, FN_ERR_INTERNAL, "fn_reducer_begin before the last step was finished");
  FN_TRY(agree_weight(r, samples));
  if (r->dist->size == 1) return FN_OK;
  pthread_mutex_lock(&r->lock);
  for (int k = 0; k < r->bucket_count; k++) {
    bucket *b = &r->bucket[k];
    b->pending = b->entries;
    b->ready = b->start = b->end = 0;
  }
  for (int e = 0; e < r->parameters->entry_count; e++)
    r->span[e].ready = false;
  r->started = r->done = r->front = r->reduced = 0;
  r->finishing = false;
  r->complete = r->bucket_count == 0;
  r->active = true;
  move_front(r);
  pthread_mutex_unlock(&r->lock);
  return FN_OK;
}

bool fn_reducer_ready(void *reducer, int entry) {
  fn_reducer *r = reducer;
  if (r->dist->size == 1 || entry < 0 || entry >= r->parameters->entry_count) return false;
  bool moved = false;
  pthread_mutex_lock(&r->lock);
  span *s = &r->span[entry];
  if (r->active && s->ready && r->status == FN_OK) {
    // The bucket may be on its way already: what was added after the first report is lost.
    r->status = FN_ERR_INTERNAL;
    snprintf(r->message, sizeof r->message, "gradient of %s was reported ready twice in a step",
             r->parameters->entry[entry].name);
  } else if (r->active && !s->ready) {
    s->ready = true;
    for (int k = s->first; k <= s->last; k++)
      r->bucket[k].pending--;
    moved = move_front(r);
  }
  pthread_mutex_unlock(&r->lock);
  return moved;
}

/** Complete buckets from *returned on go back to the device; lock held. */
static void return_buckets(fn_reducer *r, int *returned) {
  for (; *returned < r->reduced; ++*returned)
    if (r->on_device)
      fn_device_gradients_return(r->on_device, r->bucket[*returned].offset,
                                 r->bucket[*returned].count);
}

fn_status fn_reducer_finish(fn_reducer *r) {
  if (r->dist->size == 1) return FN_OK;
  FN_CHECK(r->active, FN_ERR_INTERNAL, "fn_reducer_finish without fn_reducer_begin");
  const double start = fn_clock();
  pthread_mutex_lock(&r->lock);
  // Whatever was not reported (parameters that nothing depends on) is taken as it is.
  while (r->front < r->bucket_count)
    send_bucket(r, r->front++);
  r->finishing = true;
  pthread_cond_signal(&r->work);
  int returned = 0;
  while (!r->complete) {
    if (r->threaded && r->reduced == returned) {
      pthread_cond_wait(&r->finished, &r->lock);
    } else if (!r->threaded) {
      drive(r, true);
    }
    return_buckets(r, &returned);
  }
  return_buckets(r, &returned);
  r->active = false;
  r->exposed += fn_clock() - start;
  const fn_status status = r->status;
  pthread_mutex_unlock(&r->lock);
  const fn_status joined = r->on_device ? fn_device_gradients_join(r->on_device) : FN_OK;
  if (status != FN_OK) return fn_error_set(status, __FILE__, __LINE__, "%s", r->message);
  return joined;
}

/* ---- what it is and was ------------------------------------------------------------------------
 */

fn_reduction fn_reduction_of(const fn_run *run) {
  static const char *const memories[] = {"auto", "host", "device"}, *const adders[] = {
                                                                        "auto", "mpi", "ranks",
                                                                        "node"};
  fn_reduction how = {.type = strcmp(run->train.gradient_dtype, "bf16") == 0 ? FN_BF16 : FN_F32};
  for (int k = 0; k < 3; k++)
    if (strcmp(run->train.allreduce, memories[k]) == 0) how.memory = (fn_allreduce)k;
  for (int k = 0; k < 4; k++)
    if (strcmp(run->train.reduction, adders[k]) == 0) how.adder = (fn_adder)k;
  return how;
}

static void describe_adder(const fn_reducer *r, char *text, size_t size) {
  if (!r->exchange) {
    snprintf(text, size, "summed over %d ranks by MPI%s", r->dist->size,
             r->how.memory == FN_ALLREDUCE_DEVICE ? " from device memory" : "");
    return;
  }
  fn_exchange_info info;
  fn_exchange_describe(r->exchange, &info);
  if (info.node_ranks_most == 1) {
    snprintf(text, size, "exchanged between %d ranks", r->dist->size);
  } else if (info.nodes == 1) {
    snprintf(text, size, "summed over %d ranks in shared memory", r->dist->size);
  } else {
    snprintf(text, size,
             "summed over up to %d ranks in shared memory, by %d rank%s of each of %d nodes",
             info.node_ranks_most, info.senders, info.senders > 1 ? "s" : "", info.nodes);
  }
}

void fn_reducer_describe(const fn_reducer *r, char *text, size_t size) {
  text[0] = '\0';
  if (r->dist->size == 1) return;
  char adder[160], bytes[32], memory[64] = "";
  fn_exchange_info info = {0};
  describe_adder(r, adder, sizeof adder);
  if (r->exchange) {
    fn_exchange_describe(r->exchange, &info);
    snprintf(memory, sizeof memory, ", %s of buffers",
             fn_text_bytes((double)info.memory, bytes, sizeof bytes));
  }
  const double all = (double)r->parameters->count * (double)fn_dtype_size(r->how.type);
  snprintf(text, size, "gradients: %s as %s in %d bucket%s, %s, %s the backward pass%s",
           fn_text_bytes(all, bytes, sizeof bytes), fn_dtype_name(r->how.type), r->bucket_count,
           r->bucket_count > 1 ? "s" : "", adder, r->threaded ? "beside" : "after", memory);
}

void fn_reducer_moved(const fn_reducer *r, fn_reducer_traffic *traffic) {
  *traffic = (fn_reducer_traffic){.sent = r->dist->size > 1 ? -1 : 0};
  if (!r->exchange) return;
  fn_exchange_info info;
  fn_exchange_describe(r->exchange, &info);
  *traffic = (fn_reducer_traffic){.sent = (double)info.sent, .shared = (double)info.shared};
}

int fn_reducer_bucket_count(const fn_reducer *reducer) {
  return reducer->bucket_count;
}

void fn_reducer_bucket(const fn_reducer *reducer, int index, fn_bucket_times *times) {
  const bucket *b = &reducer->bucket[index];
  *times = (fn_bucket_times){.bytes = b->count * (reducer->parameters->dtype == FN_F64 ? 8 : 4),
                             .ready = b->ready,
                             .start = b->start,
                             .end = b->end};
}

void fn_reducer_times(const fn_reducer *reducer, double *busy, double *exposed) {
  fn_reducer *r = (fn_reducer *)reducer; // for its lock
  pthread_mutex_lock(&r->lock);
  *busy = r->busy;
  *exposed = r->exposed < r->busy ? r->exposed : r->busy;
  pthread_mutex_unlock(&r->lock);
}
