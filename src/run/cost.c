#include "run/cost.h"

#include "data/raw.h"
#include "learn/learn.h"
#include "run/checkpoint.h"
#include "run/open_data.h"
#include "run/snapshot.h"

static int64_t ceil_divide(int64_t a, int64_t b) {
  return a / b + (a % b > 0);
}

static int64_t min_of(int64_t a, int64_t b) {
  return a < b ? a : b;
}

void fn_cost_steps(const fn_run *run, const fn_dataset *train, int ranks, fn_cost *cost) {
  int64_t begin;
  cost->samples = fn_dataset_epoch_samples(train);
  fn_rank_slice(cost->samples, 0, ranks, true, &begin, &cost->rank_samples);
  cost->batch = min_of(cost->rank_samples, run->train.batch);
  if (cost->batch < 1) cost->batch = 1;
  const int64_t batches = ceil_divide(cost->rank_samples, run->train.batch);
  cost->steps = ceil_divide(batches, run->train.accumulate);
  // A step takes no more than there is.
  cost->step_samples =
      min_of(min_of(run->train.accumulate, batches) * cost->batch, cost->rank_samples);
}

static void add_part(fn_cost *cost, const char *name, double bytes) {
  cost->part[cost->parts].name = name;
  cost->part[cost->parts++].bytes = bytes;
  cost->memory += bytes;
}

/** One more than is read ahead: the batch in use; an epoch may be shorter. A device may still be
 *  reading another one. `bytes`: of a sample in float32. */
static void add_batches(const fn_run *run, const fn_dataset *train, double bytes, fn_cost *cost) {
  const bool raw = fn_engine_converts(run);
  const int64_t batches = ceil_divide(cost->rank_samples, cost->batch),
                held = raw ? min_of(run->data.prefetch + 2, batches + 1)
                           : min_of(run->data.prefetch + 1, batches);
  fn_raw_layout layout = {0};
  if (raw && fn_raw_layout_make(train, &layout) == FN_OK)
    bytes = (double)layout.row;
  else if (raw)
    fn_error_clear(); // the run will say it
  fn_raw_layout_free(&layout);
  add_part(cost, "batches read ahead", (double)held * (double)cost->batch * bytes);
}

static void add_memory(const fn_run *run, const fn_dataset *train, const fn_parameters *p,
                       int states, int ranks, fn_cost *cost) {
  const fn_dataset_info *info = fn_dataset_get_info(train);
  const double weights = (double)p->count * sizeof(float);
  const int copies = states + (run->train.ema_decay > 0) + (run->train.accumulate > 1);
  double cells = (double)info->input_channels, target = (double)info->target_channels;
  for (int d = 0; d < info->spatial; d++) {
    cells *= (double)info->input_extent[d];
    if (d < info->target_spatial) target *= (double)info->target_extent[d];
  }
  add_part(cost, "activations", (double)cost->totals.training_arena);
  add_part(cost, "parameters", weights + (double)p->buffer_count * sizeof(float));
  add_part(cost, "gradients", weights);
  add_part(cost, "optimizer, copies", weights * copies);
  add_batches(run, train, (cells + target) * sizeof(float), cost);
  if (info->cubes) {
    const double least = (double)fn_dataset_held_bytes(train, ranks);
    add_part(cost, "cubes",
             run->data.read_memory > 0 ? (double)run->data.read_memory : 1.5 * least);
  }
  // Rank 0 builds the file in memory; beside training, from a copy.
  double saving = (double)cost->checkpoint_bytes;
  if (run->checkpoint.background)
    saving += (double)fn_snapshot_bytes(p, states, run->train.ema_decay > 0);
  add_part(cost, "state, on rank 0", saving);
}

fn_status fn_cost_find(const fn_run *run, const fn_dataset *train, fn_engine *engine, int ranks,
                       fn_cost *cost) {
  *cost = (fn_cost){0};
  fn_cost_steps(run, train, ranks, cost);
  FN_TRY(fn_network_totals_find(engine, cost->batch, &cost->totals));
  fn_parameters *parameters = fn_engine_parameters(engine);
  fn_optimizer *optimizer;
  FN_TRY(fn_optimizer_create(run, parameters, &optimizer));
  const int states = fn_optimizer_state_count(optimizer);
  fn_optimizer_destroy(optimizer);
  cost->checkpoint_bytes = fn_checkpoint_bytes(parameters, states, run->train.ema_decay > 0);
  add_memory(run, train, parameters, states, ranks, cost);
  return FN_OK;
}

fn_status fn_cost_estimate(const fn_run *run, fn_dist *dist, fn_cost *cost) {
  fn_dataset *train = NULL;
  fn_engine *engine = NULL;
  fn_status status = fn_data_open(run, FN_STAGE_TRAIN, dist, NULL, &train);
  if (status == FN_OK) status = fn_engine_create(run, dist, fn_dataset_get_info(train), &engine);
  if (status == FN_OK) status = fn_cost_find(run, train, engine, dist->size, cost);
  status = fn_dist_agree(dist, status);
  fn_engine_destroy(engine);
  fn_dataset_destroy(train);
  return status;
}
