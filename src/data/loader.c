/* Batches read ahead by threads, handed out in order. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/system.h"
#include "data/cube_feed.h"
#include "data/parts.h"
#include "data/raw.h"

/** Batch b lives in slot b modulo the number of slots. */
typedef struct slot {
  fn_batch batch;
  fn_raw_batch raw;
  int64_t done; /**< samples of the batch that are complete */
} slot;

struct fn_loader {
  fn_dataset *dataset;
  int64_t epoch, samples, batch; /**< of the list; samples per batch */
  int64_t *list;
  fn_cube_feed *feed; /**< of joined cubes; else NULL */
  int64_t fed_from;   /**< position in list of the feed's first sample */
  int64_t batches;
  slot *slot;
  int64_t slots;
  void *memory; /**< of all batches; with a ring, of all but what goes to the device */
  size_t memory_bytes;
  fn_ring *ring; /**< NULL: batches stay on the host */
  fn_raw_layout layout;
  int64_t input_values, target_values; /**< per sample */
  pthread_t *thread;
  int64_t threads;
  pthread_mutex_t lock;
  pthread_cond_t room, ready;
  // Guarded by lock.
  int64_t next_sample; /**< position in list to be read next */
  int64_t released;    /**< batches before this one are free to be overwritten */
  int64_t current;     /**< batch that fn_loader_next returns next */
  bool stop;
  int64_t failed; /**< first position in list that could not be read, or samples */
  fn_status status;
  char message[4096];
  double waited;
  int readers; /**< threads that have begun */
  fn_sample_read done;
  void *done_user;
};

/** Position of the next sample to be read, in order, once its slot is free; -1: no more. Locked. */
static int64_t next_job(fn_loader *loader) {
  for (;;) {
    if (loader->stop || loader->next_sample >= loader->failed) return -1;
    if (loader->next_sample / loader->batch < loader->released + loader->slots)
      return loader->next_sample++;
    pthread_cond_wait(&loader->room, &loader->lock);
  }
}

/** Record the result of one sample. Of several failures the first in order is kept, so that what
 * the caller sees does not depend on the threads. Locked. */
static void finish_job(fn_loader *loader, int64_t position, fn_status status) {
  slot *s = &loader->slot[position / loader->batch % loader->slots];
  s->done++;
  if (status != FN_OK && position < loader->failed) {
    loader->failed = position;
    loader->status = status;
    snprintf(loader->message, sizeof loader->message, "%s", fn_error_message());
  }
  if (status != FN_OK) pthread_cond_broadcast(&loader->room);
  // After a failure a batch is decided by whichever of its taken samples ends last, also a good
  // one.
  if (loader->failed < loader->samples || s->done == s->batch.count)
    pthread_cond_broadcast(&loader->ready);
}

static fn_status make_raw_sample(fn_loader *loader, int64_t position, const fn_raw_batch *raw) {
  const fn_raw_layout *layout = &loader->layout;
  const int64_t n = position % loader->batch;
  char *row = (char *)fn_ring_slot(raw->ring, raw->slot) + (size_t)n * layout->row;
  fn_raw_field *field = raw->field + n * layout->fields;
  if (!loader->feed)
    return fn_raw_sample(loader->dataset, layout, loader->epoch, loader->list[position], row, field,
                         raw->random + 2 * n * layout->factors);
  const fn_cube_room room = fn_raw_cube_room(layout, row);
  FN_TRY(fn_cube_feed_sample(loader->feed, position - loader->fed_from, &room));
  fn_raw_describe_cube(loader->dataset, layout, row, field);
  return FN_OK;
}

static fn_status make_sample(fn_loader *loader, int64_t position, const slot *s) {
  const int64_t row = position % loader->batch;
  if (loader->ring) return make_raw_sample(loader, position, &s->raw);
  float *input = s->batch.input + row * loader->input_values;
  float *target = s->batch.target ? s->batch.target + row * loader->target_values : NULL;
  if (loader->feed)
    return fn_cube_feed_sample(loader->feed, position - loader->fed_from,
                               &(fn_cube_room){.input = input, .target = target});
  return fn_dataset_sample(loader->dataset, loader->epoch, loader->list[position], input, target);
}

static void *read_samples(void *argument) {
  fn_loader *loader = argument;
  fn_thread_unpin();
  pthread_mutex_lock(&loader->lock);
  const int reader = loader->readers++;
  for (int64_t position; (position = next_job(loader)) >= 0;) {
    slot *s = &loader->slot[position / loader->batch % loader->slots];
    const int64_t row = position % loader->batch;
    const int64_t first = position - row, left = loader->samples - first;
    // Whoever comes first sets the count; it is the same for all.
    s->batch.count = left < loader->batch ? left : loader->batch;
    s->batch.sample[row] = loader->list[position];
    const fn_sample_read done = loader->done;
    void *user = loader->done_user;
    pthread_mutex_unlock(&loader->lock);
    const double start = done ? fn_clock() : 0;
    const fn_status status = make_sample(loader, position, s);
    if (done) done(user, reader, loader->list[position], start, fn_clock());
    pthread_mutex_lock(&loader->lock);
    finish_job(loader, position, status);
  }
  pthread_mutex_unlock(&loader->lock);
  return NULL;
}

/** sum += a * b, false when that is beyond a size_t. */
static bool add_product(size_t *sum, size_t a, size_t b) {
  size_t product;
  return !__builtin_mul_overflow(a, b, &product) && !__builtin_add_overflow(*sum, product, sum);
}

/** Bytes of a batch: each part is rounded up to a cache line. */
static fn_status part_bytes(const fn_loader *loader, int64_t values, size_t size, size_t *bytes) {
  size_t row = 0;
  *bytes = 63;
  FN_CHECK(add_product(&row, (size_t)values, size) &&
               add_product(bytes, row, (size_t)loader->batch) && *bytes < SIZE_MAX / 8,
           FN_ERR_MEMORY, "a batch of %lld samples of %lld values is more than any memory holds",
           (long long)loader->batch, (long long)values);
  *bytes = *bytes / 64 * 64;
  return FN_OK;
}

/** Memory of a slot and where its parts begin. */
typedef struct slot_size {
  size_t part[3]; /**< bytes: input, target; with a ring descriptors, random numbers; samples */
} slot_size;

static fn_status size_slot(fn_loader *loader, slot_size *size) {
  const fn_dataset_info *info = fn_dataset_get_info(loader->dataset);
  loader->input_values = info->input_channels;
  loader->target_values = info->target_channels;
  for (int d = 0; d < info->spatial; d++) {
    loader->input_values *= info->input_extent[d];
    if (d < info->target_spatial) loader->target_values *= info->target_extent[d];
  }
  FN_TRY(part_bytes(loader, 1, sizeof(int64_t), &size->part[2]));
  if (loader->ring) {
    const fn_raw_layout *layout = &loader->layout;
    FN_TRY(part_bytes(loader, layout->fields, sizeof(fn_raw_field), &size->part[0]));
    return part_bytes(loader, 2 * layout->factors, sizeof(float), &size->part[1]);
  }
  FN_TRY(part_bytes(loader, loader->input_values, sizeof(float), &size->part[0]));
  return part_bytes(loader, loader->target_values, sizeof(float), &size->part[1]);
}

static void set_slot(fn_loader *loader, int64_t index, const slot_size *size, char *at) {
  slot *s = &loader->slot[index];
  char *second = at + size->part[0];
  s->batch = (fn_batch){.input_values = loader->input_values,
                        .target_values = loader->target_values,
                        .sample = (int64_t *)(second + size->part[1])};
  if (loader->ring) {
    s->raw = (fn_raw_batch){.ring = loader->ring,
                            .slot = index,
                            .layout = &loader->layout,
                            .field = (fn_raw_field *)at,
                            .random = (float *)second};
    s->batch.raw = &s->raw;
    s->batch.sample_bytes = (int64_t)loader->layout.row;
    return;
  }
  s->batch.sample_bytes = (loader->input_values + loader->target_values) * (int64_t)sizeof(float);
  s->batch.input = (float *)at;
  if (size->part[1]) s->batch.target = (float *)second;
}

static fn_status allocate(fn_loader *loader) {
  slot_size size;
  size_t total = 0;
  FN_TRY(size_slot(loader, &size));
  const size_t each = size.part[0] + size.part[1] + size.part[2];
  loader->slot = calloc((size_t)loader->slots, sizeof *loader->slot);
  FN_CHECK(loader->slot, FN_ERR_MEMORY, "no memory for %lld batches", (long long)loader->slots);
  FN_CHECK(add_product(&total, each, (size_t)loader->slots), FN_ERR_MEMORY,
           "%lld batches of %lld samples are more than any memory holds", (long long)loader->slots,
           (long long)loader->batch);
  if (fn_pages_allocate(total, &loader->memory) != FN_OK)
    return fn_error_context(FN_ERR_MEMORY, "%lld batches of %lld samples", (long long)loader->slots,
                            (long long)loader->batch);
  loader->memory_bytes = total;
  for (int64_t i = 0; i < loader->slots; i++)
    set_slot(loader, i, &size, (char *)loader->memory + (size_t)i * each);
  return FN_OK;
}

/* ---- on the way to a device -------------------------------------------------------------------
 */

/** The data set's ring, if it is large enough and no other loader has it, or a new one. */
static fn_status take_ring(fn_loader *loader) {
  fn_dataset *dataset = loader->dataset;
  size_t bytes = 0;
  FN_TRY(fn_raw_layout_make(dataset, &loader->layout));
  FN_CHECK(add_product(&bytes, loader->layout.row, (size_t)loader->batch), FN_ERR_MEMORY,
           "a batch of %lld samples is more than any memory holds", (long long)loader->batch);
  if (!fn_ring_fits(dataset->ring, loader->slots, bytes)) {
    fn_ring_destroy(dataset->ring);
    dataset->ring = NULL;
    return fn_ring_create(dataset->device, loader->slots, bytes, &loader->ring);
  }
  loader->ring = dataset->ring;
  dataset->ring = NULL;
  // What another loader left there may still be read.
  for (int64_t i = 0; i < loader->slots; i++)
    FN_TRY(fn_ring_reclaim(loader->ring, i));
  return FN_OK;
}

static void return_ring(fn_loader *loader) {
  fn_dataset *dataset = loader->dataset;
  if (dataset->ring)
    fn_ring_destroy(loader->ring);
  else
    dataset->ring = loader->ring;
}

/** Batches before *released may be overwritten: the caller is done with all but `current`. The one
 * before may still be on its way; waiting for it is left to the next call unless it leaves no room.
 */
static fn_status find_released(fn_loader *loader, int64_t *released) {
  *released = loader->current;
  if (!loader->ring) return FN_OK;
  for (*released = loader->released; *released < loader->current; (*released)++) {
    const int64_t index = *released % loader->slots;
    bool read = true;
    if (*released == loader->current - 1 && loader->slots > 2)
      FN_TRY(fn_ring_was_read(loader->ring, index, &read));
    if (!read) return FN_OK;
    FN_TRY(fn_ring_reclaim(loader->ring, index));
  }
  return FN_OK;
}

static fn_status start_threads(fn_loader *loader, int64_t readers) {
  loader->thread = calloc((size_t)readers, sizeof *loader->thread);
  int error = loader->thread ? 0 : 12;
  for (int64_t i = 0; i < readers && !error; i++) {
    error = fn_thread_start(&loader->thread[i], read_samples, loader);
    if (!error) loader->threads++;
  }
  // Fewer readers than asked for are slower, not wrong.
  FN_CHECK(loader->threads > 0, FN_ERR_MEMORY, "cannot start a reading thread: %s",
           strerror(error));
  return FN_OK;
}

static fn_status set_up(fn_loader *loader, const int64_t *list, int64_t prefetch) {
  loader->list = malloc(((size_t)loader->samples + 1) * sizeof *list);
  FN_CHECK(loader->list, FN_ERR_MEMORY, "no memory for a list of %lld samples",
           (long long)loader->samples);
  if (loader->samples) memcpy(loader->list, list, (size_t)loader->samples * sizeof *list);
  const int64_t left = loader->batches - loader->current;
  if (left <= 0) return FN_OK;
  // One more than is read ahead: the batch that the caller is using. With a ring another one, which
  // the device may still be reading; no fewer at the end of an epoch, for the next one needs them.
  const int64_t ahead = prefetch < 1 ? 1 : prefetch;
  loader->slots = ahead + 1;
  if (loader->dataset->device) {
    loader->slots = ahead + 2 < loader->batches + 1 ? ahead + 2 : loader->batches + 1;
    FN_TRY(take_ring(loader));
  } else if (loader->slots > left) {
    loader->slots = left;
  }
  return allocate(loader);
}

/** Reading starts: the feed's, on all ranks together, then that of the threads. */
static fn_status start(fn_loader *loader, fn_status status, int64_t readers) {
  const int64_t jobs = loader->samples - loader->next_sample;
  const bool fed = fn_cube_feed_needed(loader->dataset);
  loader->fed_from = loader->next_sample;
  if (fed)
    status = fn_cube_feed_create(loader->dataset, status, loader->epoch,
                                 status == FN_OK ? loader->list + loader->fed_from : NULL, jobs,
                                 loader->batch, &loader->feed);
  if (status == FN_OK && jobs > 0)
    status = start_threads(loader, readers < 1 ? 1 : readers > jobs ? jobs : readers);
  return fed ? fn_cube_feed_agree(loader->dataset, status) : status;
}

fn_status fn_loader_create(fn_dataset *dataset, int64_t epoch, const int64_t *list, int64_t count,
                           int64_t batch, int64_t first, int64_t prefetch, int64_t readers,
                           fn_loader **loader) {
  *loader = NULL;
  FN_CHECK(batch > 0 && count >= 0 && first >= 0, FN_ERR_INTERNAL,
           "a loader needs a positive batch, found %lld for %lld samples from batch %lld",
           (long long)batch, (long long)count, (long long)first);
  fn_loader *made = calloc(1, sizeof *made);
  FN_CHECK(made, FN_ERR_MEMORY, "no memory for a loader");
  pthread_mutex_init(&made->lock, NULL);
  pthread_cond_init(&made->room, NULL);
  pthread_cond_init(&made->ready, NULL);
  made->dataset = dataset;
  made->epoch = epoch;
  made->samples = made->failed = count;
  made->batches = count / batch + (count % batch > 0);
  made->batch = batch < count ? batch : count > 0 ? count : 1; // no room for samples that are not
  made->current = made->released = first < made->batches ? first : made->batches;
  made->next_sample = made->current * made->batch < count ? made->current * made->batch : count;
  const fn_status status = start(made, set_up(made, list, prefetch), readers);
  if (status != FN_OK) {
    fn_loader_destroy(made);
    return status;
  }
  *loader = made;
  return FN_OK;
}

void fn_loader_destroy(fn_loader *loader) {
  if (!loader) return;
  pthread_mutex_lock(&loader->lock);
  loader->stop = true;
  pthread_cond_broadcast(&loader->room);
  pthread_mutex_unlock(&loader->lock);
  for (int64_t i = 0; i < loader->threads; i++)
    pthread_join(loader->thread[i], NULL);
  pthread_mutex_destroy(&loader->lock);
  pthread_cond_destroy(&loader->room);
  pthread_cond_destroy(&loader->ready);
  fn_cube_feed_destroy(loader->feed);
  if (loader->ring) return_ring(loader);
  fn_raw_layout_free(&loader->layout);
  if (loader->memory) fn_pages_free(loader->memory, loader->memory_bytes);
  free(loader->thread);
  free(loader->slot);
  free(loader->list);
  free(loader);
}

/** Whether the batch can be returned, or its failure reported. Locked. */
static bool is_decided(const fn_loader *loader, const slot *s) {
  const int64_t first = loader->current * loader->batch, left = loader->samples - first;
  const int64_t count = left < loader->batch ? left : loader->batch;
  // After a failure no more samples are taken, but those before it may still fail themselves.
  const int64_t taken = loader->next_sample - first;
  if (loader->failed < first + count) return s->done == (taken < count ? taken : count);
  return s->done == count;
}

fn_status fn_loader_next(fn_loader *loader, const fn_batch **batch) {
  *batch = NULL;
  if (loader->current >= loader->batches) return FN_OK;
  slot *s = &loader->slot[loader->current % loader->slots];
  int64_t released;
  FN_TRY(find_released(loader, &released));
  pthread_mutex_lock(&loader->lock);
  if (loader->released < released) { // the caller is done with the batches before
    while (loader->released < released)
      loader->slot[loader->released++ % loader->slots].done = 0;
    pthread_cond_broadcast(&loader->room);
  }
  if (!is_decided(loader, s)) {
    const double start = fn_clock();
    while (!is_decided(loader, s))
      pthread_cond_wait(&loader->ready, &loader->lock);
    loader->waited += fn_clock() - start;
  }
  const int64_t last = loader->current * loader->batch + loader->batch;
  fn_status status = FN_OK;
  if (loader->failed < loader->samples && loader->failed < last) {
    status = fn_error_set(loader->status, __FILE__, __LINE__, "%s", loader->message);
  } else {
    *batch = &s->batch;
    loader->current++;
  }
  pthread_mutex_unlock(&loader->lock);
  return status;
}

fn_status fn_loader_send_ahead(fn_loader *loader) {
  if (!loader->ring || loader->current >= loader->batches) return FN_OK;
  const slot *s = &loader->slot[loader->current % loader->slots];
  // The slot of a batch that is not being read yet may be that of an earlier one.
  pthread_mutex_lock(&loader->lock);
  const bool read = loader->current < loader->released + loader->slots &&
                    loader->failed >= loader->samples && s->done > 0 && is_decided(loader, s);
  pthread_mutex_unlock(&loader->lock);
  return read ? fn_batch_send(&s->batch) : FN_OK;
}

void fn_loader_on_read(fn_loader *loader, fn_sample_read done, void *user) {
  pthread_mutex_lock(&loader->lock);
  loader->done = done;
  loader->done_user = user;
  pthread_mutex_unlock(&loader->lock);
}

double fn_loader_waited(const fn_loader *loader) {
  return loader->waited;
}
