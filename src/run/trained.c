#include "run/trained.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "field/array.h"

static fn_status find_state(const fn_run *run, char **path) {
  if (run->test.state && run->test.state[0]) {
    FN_CHECK(fn_file_exists(run->test.state), FN_ERR_CHECKPOINT, "%s: state %s does not exist",
             fn_run_where(run, "test.state"), run->test.state);
    *path = strdup(run->test.state);
    FN_CHECK(*path, FN_ERR_MEMORY, "out of memory");
    return FN_OK;
  }
  FN_TRY(fn_checkpoint_find(run->folder, path));
  FN_CHECK(*path, FN_ERR_CHECKPOINT,
           "no state in folder %s: train first, or name one with test.state", run->folder);
  return FN_OK;
}

/** Settings that give the network's numbers their meaning: others than in training are possible,
 *  but seldom meant. */
static void on_change(void *user, const char *key, const char *before, const char *after) {
  static const char *const meaning[] = {"data.input_norms",       "data.target_norms",
                                        "data.norm_options",      "data.scale_factor",
                                        "data.cubes.sample",      "data.cubes.stride",
                                        "data.cubes.compat",      "data.cubes.newton_augmentation",
                                        "data.cubes.remove_mean", "model."};
  for (size_t i = 0; i < sizeof meaning / sizeof meaning[0]; i++)
    if (fn_text_starts(key, meaning[i]))
      fn_log(FN_WARN, "%s is not as in training: %s was %s in %s", key, after, before,
             (const char *)user);
}

fn_status fn_trained_find(const fn_run *run, char **path, fn_progress *progress) {
  fn_state state = {.progress = progress};
  char *configuration = NULL;
  FN_TRY(find_state(run, path));
  FN_TRY(fn_checkpoint_load(*path, true, &state, &configuration));
  if (configuration && fn_run_compare(configuration, run, on_change, *path) != FN_OK)
    fn_error_clear(); // a state is used without knowing how it was made
  free(configuration);
  return FN_OK;
}

/** A run that keeps a moving average may go on from a state without one, a test of it may not. */
static fn_status check_average(const char *path) {
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory");
  const char **name = NULL;
  int count = 0;
  bool found = false;
  const fn_status status = fn_hdf5_list(path, arena, &name, &count);
  for (int i = 0; i < count && !found; i++)
    found = fn_text_starts(name[i], "/ema/");
  fn_arena_destroy(arena);
  FN_TRY(status);
  FN_CHECK(found, FN_ERR_CHECKPOINT,
           "test.use_ema: %s holds no moving average of the weights; train.ema_decay makes one",
           path);
  return FN_OK;
}

static fn_status read_weights(const fn_run *run, const char *path, fn_parameters *p) {
  const size_t bytes = (size_t)p->count * sizeof(float);
  fn_progress progress = {0};
  fn_state state = {.parameters = p, .progress = &progress};
  if (run->test.use_ema) FN_TRY(check_average(path));
  if (run->test.use_ema) FN_TRY(fn_pages_allocate(bytes, (void **)&state.ema));
  const fn_status status = fn_checkpoint_load(path, run->train.load_strict, &state, NULL);
  if (status == FN_OK && state.ema) memcpy(p->values, state.ema, bytes);
  if (state.ema) fn_pages_free(state.ema, bytes);
  if (status == FN_OK)
    fn_log(FN_INFO, "%s of %s, epoch %lld", run->test.use_ema ? "averaged weights" : "weights",
           path, (long long)progress.epoch);
  return status;
}

fn_status fn_trained_load(const fn_run *run, const fn_dist *dist, const char *path,
                          fn_parameters *p) {
  FN_TRY(fn_dist_agree(dist, dist->rank == 0 ? read_weights(run, path, p) : FN_OK));
  fn_parameters_changed(p);
  FN_TRY(fn_dist_broadcast(dist, p->values, p->count * (int64_t)sizeof(float)));
  return fn_dist_broadcast(dist, p->buffers, p->buffer_count * (int64_t)sizeof(float));
}
