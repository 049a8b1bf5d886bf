/* What one key demands of another. Nothing here looks at data. */
#include <math.h>
#include <string.h>

#include "config/parts.h"

/* At the value of a key when it was written, else at its section, else about the whole file. */
static void about(fn_run_parts *parts, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void about(fn_run_parts *parts, const char *key, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const char *message = fn_arena_vformat(parts->run.arena, format, arguments);
  va_end(arguments);
  const fn_options *node = parts->node[fn_key_index(fn_key_find(key))];
  if (node) {
    fn_problem_value(&parts->problems, node, "%s", message);
    return;
  }
  const fn_options *section = parts->root;
  char *path = fn_arena_text(parts->run.arena, key), *rest = NULL;
  const fn_options *deepest = NULL;
  for (char *word = strtok_r(path, ".", &rest); word && section;
       word = strtok_r(NULL, ".", &rest)) {
    section = fn_tree_child(section, word);
    if (section) deepest = section;
  }
  if (deepest)
    fn_problem_key(&parts->problems, deepest, "%s", message);
  else
    fn_problem_add(&parts->problems, parts->file, 0, 0, "%s", message);
}

void fn_run_problem(fn_run_parts *parts, const char *key, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  about(parts, key, "%s", fn_arena_vformat(parts->run.arena, format, arguments));
  va_end(arguments);
}

/* ---- presence ---------------------------------------------------------------------------------
 */

/* Whether a misspelt key or section, reported already, was meant to give this key. */
static bool misspelt(const fn_run_parts *parts, const char *key) {
  for (const fn_unknown *u = parts->unknown; u; u = u->next)
    if (u->meant && strcmp(u->meant, key) == 0) return true;
  return false;
}

/* A key with a wrong value has its own message already: it only must not be absent or null. */
static void require(fn_run_parts *parts, const char *key, const char *purpose) {
  if (!fn_parts_given(parts, key) && !misspelt(parts, key))
    about(parts, key, "missing key '%s': %s", key, purpose);
}

static void require_model(fn_run_parts *parts) {
  const bool name = fn_parts_given(parts, "model.name"),
             layers = fn_parts_given(parts, "model.layers");
  if (!name && !layers && !misspelt(parts, "model.name"))
    about(parts, "model.name", "missing key 'model.name' (or 'model.layers'): the network");
}

static void require_cubes(fn_run_parts *parts, const char *seeds, const char *purpose) {
  require(parts, "data.cubes.file", "the prepared file of cubes");
  require(parts, seeds, purpose);
}

static void require_training(fn_run_parts *parts) {
  if (fn_run_has_cubes(&parts->run)) {
    require_cubes(parts, "data.cubes.train_seeds", "the seeds to train on");
  } else {
    require(parts, "data.train.input", "the fields to train on");
    require(parts, "data.train.target", "the fields to train on");
  }
  require(parts, "train.batch", "samples per rank and step");
  require(parts, "optimizer.lr", "the learning rate");
}

static void require_test(fn_run_parts *parts, bool target) {
  if (fn_run_has_cubes(&parts->run)) {
    if (target)
      require_cubes(parts, "data.cubes.test_seeds", "the seeds to test on");
    else if (!fn_parts_given(parts, "data.cubes.predict"))
      require(parts, "data.cubes.file", "the prepared file of cubes (or data.cubes.predict)");
  } else if (!target) {
    require(parts, "data.test.input", "the fields to predict from");
  } else {
    require(parts, "data.test.input", "the fields to test on");
    require(parts, "data.test.target",
            "the fields to compare with (fieldnet predict does without)");
  }
}

static bool tests_without_training(const fn_run_parts *parts) {
  if (fn_run_has_cubes(&parts->run))
    return (fn_parts_given(parts, "data.cubes.test_seeds") ||
            fn_parts_given(parts, "data.cubes.predict")) &&
           !fn_parts_given(parts, "data.cubes.train_seeds");
  return fn_parts_given(parts, "data.test.input") && !fn_parts_given(parts, "data.train.input") &&
         !fn_parts_given(parts, "data.train.target");
}

void fn_run_check_required(fn_run_parts *parts, fn_command command) {
  if (command != FN_COMMAND_OTHER) require_model(parts);
  switch (command) {
    case FN_COMMAND_TRAIN: require_training(parts); break;
    case FN_COMMAND_CHECK:
      if (!tests_without_training(parts)) require_training(parts);
      break;
    case FN_COMMAND_TEST: require_test(parts, true); break;
    case FN_COMMAND_PREDICT: require_test(parts, false); break;
    case FN_COMMAND_OTHER: break;
  }
}

/* ---- files, fields, axes ------------------------------------------------------------------------
 */

static void check_filesets(fn_run_parts *parts) {
  const fn_run *run = &parts->run;
  static const char *const stages[] = {"train", "validation", "test"};
  const fn_fileset *sets[] = {&run->data.train, &run->data.validation, &run->data.test};
  int first[2] = {-1, -1};
  for (int s = 0; s < 3; s++) {
    const fn_texts *lists[] = {&sets[s]->input, &sets[s]->target};
    static const char *const sides[] = {"input", "target"};
    for (int side = 0; side < 2; side++) {
      const char *key = fn_arena_format(run->arena, "data.%s.%s", stages[s], sides[side]);
      const int count = lists[side]->count;
      if (count == 0) continue;
      if (first[side] < 0) {
        first[side] = s;
        continue;
      }
      const int before =
          side == 0 ? sets[first[side]]->input.count : sets[first[side]]->target.count;
      if (count != before)
        about(parts, key, "%s has %d pattern%s, but data.%s.%s has %d: one per field, everywhere",
              key, count, count == 1 ? "" : "s", stages[first[side]], sides[side], before);
    }
  }
  const bool given_input = fn_parts_given(parts, "data.validation.input"),
             given_target = fn_parts_given(parts, "data.validation.target");
  if (given_input && !given_target)
    about(parts, "data.validation.input", "data.validation.input needs data.validation.target");
  if (given_target && !given_input)
    about(parts, "data.validation.target", "data.validation.target needs data.validation.input");
  if (fn_parts_given(parts, "data.test.target") && !fn_parts_given(parts, "data.test.input"))
    about(parts, "data.test.target", "data.test.target needs data.test.input");
  const bool validates = fn_run_has_data(run, "validation", true);
  const char *demands[] = {"schedule.metric", "checkpoint.best"};
  const char *values[] = {run->schedule.metric, run->checkpoint.best};
  for (int i = 0; i < 2; i++) {
    if (!validates && !given_input && !given_target && values[i] && values[i][0] &&
        strcmp(values[i], "train") != 0)
      about(parts, demands[i], "%s: %s needs %s", demands[i], values[i],
            fn_run_has_cubes(run) ? "data.cubes.validation_seeds"
                                  : "data.validation.input and .target");
  }
}

/* Patterns per side: of whichever stage has them. */
static int field_count(const fn_run *run, bool target) {
  const fn_fileset *sets[] = {&run->data.train, &run->data.validation, &run->data.test};
  for (int s = 0; s < 3; s++) {
    const int count = target ? sets[s]->target.count : sets[s]->input.count;
    if (count > 0) return count;
  }
  return 0;
}

static void check_per_field(fn_run_parts *parts) {
  const fn_run *run = &parts->run;
  const struct {
    const char *key;
    const fn_texts *list;
    bool target;
  } lists[] = {{"data.input_norms", &run->data.input_norms, false},
               {"data.target_norms", &run->data.target_norms, true},
               {"data.input_vector", &run->data.input_vector, false},
               {"data.target_vector", &run->data.target_vector, true}};
  for (int i = 0; i < 4; i++) {
    const int fields = field_count(run, lists[i].target), count = lists[i].list->count;
    if (fields > 0 && count > 0 && count != fields)
      about(parts, lists[i].key, "%s has %d value%s for %d %s field%s: one per field is needed",
            lists[i].key, count, count == 1 ? "" : "s", fields,
            lists[i].target ? "target" : "input", fields == 1 ? "" : "s");
  }
}

/* Numbers of spatial axes (bit d: d axes) that a list of `count` values may be meant for. */
static unsigned axes_of(int count, bool pads) {
  unsigned axes = 0;
  for (int d = 1; d <= FN_MAX_SPATIAL; d++)
    if (count <= 1 || count == d || (pads && count == 2 * d)) axes |= 1u << d;
  return axes;
}

/* All lists of cells must be meant for one number of axes. */
static void check_axes(fn_run_parts *parts) {
  const fn_run *run = &parts->run;
  const struct {
    const char *key;
    const fn_integers *list;
    bool pads;
  } lists[] = {
      {"data.crop", &run->data.crop, false},
      {"data.crop_start", &run->data.crop_start, false},
      {"data.crop_stop", &run->data.crop_stop, false},
      {"data.crop_step", &run->data.crop_step, false},
      {"data.shift", &run->data.shift, false},
      {"data.input_pad", &run->data.input_pad, true},
      {"data.target_pad", &run->data.target_pad, true},
  };
  unsigned axes = axes_of(0, false);
  const char *before = NULL;
  int before_count = 0;
  for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
    const int count = lists[i].list->count;
    const unsigned own = axes_of(count, lists[i].pads);
    if (own == 0) {
      about(parts, lists[i].key, "%s has %d values, expected %s", lists[i].key, count,
            lists[i].pads ? "1, one per axis, or two per axis (low, high)"
                          : "1 or one per axis (at most 3)");
    } else if ((axes & own) == 0) {
      about(parts, lists[i].key, "%s has %d values, which does not go with the %d of %s",
            lists[i].key, count, before_count, before);
    } else if (own != axes_of(0, false)) {
      axes &= own;
      before = lists[i].key;
      before_count = count;
    }
  }
}

static int64_t per_axis(const fn_integers *list, int axis, int64_t fallback) {
  if (list->count == 0) return fallback;
  return list->value[list->count == 1 ? 0 : axis];
}

static void check_anchors(fn_run_parts *parts) {
  const fn_integers *start = &parts->run.data.crop_start, *stop = &parts->run.data.crop_stop;
  const int most = start->count > stop->count ? start->count : stop->count;
  if (stop->count == 0 || most > FN_MAX_SPATIAL ||
      (start->count > 1 && stop->count > 1 && start->count != stop->count))
    return;
  for (int a = 0; a < most; a++) {
    const int64_t low = per_axis(start, a, 0), high = per_axis(stop, a, 0);
    if (low < high) continue;
    about(parts, "data.crop_stop",
          "data.crop_stop must exceed data.crop_start, found %lld and %lld", (long long)high,
          (long long)low);
    return;
  }
}

/* ---- training
 * ------------------------------------------------------------------------------------ */

static void check_model(fn_run_parts *parts) {
  const fn_run *run = &parts->run;
  if (run->model.name && run->model.layers)
    about(parts, "model.layers", "give model.name or model.layers, not both");
  if (run->model.layers && !run->model.name && run->model.options)
    about(parts, "model.options",
          "model.options go with model.name; layers hold their own options");
  if (run->train.fresh && run->train.load_state)
    about(parts, "train.fresh", "train.fresh: true contradicts train.load_state");
  if (run->train.first_bucket_bytes > run->train.bucket_bytes)
    about(parts, "train.first_bucket_bytes",
          "train.first_bucket_bytes must not exceed train.bucket_bytes, found %lld and %lld",
          (long long)run->train.first_bucket_bytes, (long long)run->train.bucket_bytes);
  const bool by_mpi = strcmp(run->train.reduction, "mpi") == 0,
             device = strcmp(run->train.allreduce, "device") == 0;
  if (strcmp(run->train.gradient_dtype, "bf16") == 0 && (by_mpi || device))
    about(parts, "train.gradient_dtype",
          "train.gradient_dtype: bf16 goes with neither train.reduction: mpi, which would add in "
          "bf16, nor train.allreduce: device");
  else if (device && !by_mpi && strcmp(run->train.reduction, "auto") != 0)
    about(parts, "train.reduction", "train.reduction: %s does not go with train.allreduce: device",
          run->train.reduction);
  const bool sgd = run->optimizer.name && strcmp(run->optimizer.name, "sgd") == 0;
  if (sgd && run->optimizer.nesterov &&
      (run->optimizer.momentum <= 0 || run->optimizer.dampening != 0))
    about(parts, "optimizer.nesterov",
          "optimizer.nesterov needs optimizer.momentum above 0 and optimizer.dampening 0");
}

static void check_schedule(fn_run_parts *parts) {
  const fn_run *run = &parts->run;
  const char *name = run->schedule.name;
  const bool plateau = strcmp(name, "plateau") == 0, cosine = strcmp(name, "cosine") == 0;
  const bool cyclic = strcmp(name, "cyclic") == 0, one_cycle = strcmp(name, "one_cycle") == 0;
  const double lr = run->optimizer.lr;
  if (strcmp(name, "step") == 0) require(parts, "schedule.step_size", "epochs between reductions");
  if (strcmp(name, "exponential") == 0) require(parts, "schedule.factor", "factor per epoch");
  if (cyclic || one_cycle) require(parts, "schedule.max_lr", "the highest rate of the cycle");
  if (cyclic && lr > 0 && run->schedule.max_lr > 0 && run->schedule.max_lr <= lr)
    about(parts, "schedule.max_lr", "schedule.max_lr must exceed optimizer.lr, found %g and %g",
          run->schedule.max_lr, lr);
  if (plateau && run->schedule.factor >= 1)
    about(parts, "schedule.factor", "schedule.factor must be below 1 for plateau, found %g",
          run->schedule.factor);
  if ((plateau || cosine) && lr > 0 && run->schedule.min_lr > lr)
    about(parts, "schedule.min_lr", "schedule.min_lr must not exceed optimizer.lr, found %g and %g",
          run->schedule.min_lr, lr);
}

static void check_compute(fn_run_parts *parts) {
  const char *backend = parts->run.compute.backend;
  if (strcmp(parts->run.compute.precision, "tf32") == 0 && strcmp(backend, "cuda") != 0 &&
      strcmp(backend, "emulated") != 0)
    about(parts, "compute.precision",
          "compute.precision: tf32 exists on GPUs only, compute.backend is %s", backend);
}

static void check_checkpoint(fn_run_parts *parts) {
  const fn_run *run = &parts->run;
  const int64_t every = run->checkpoint.keep_every;
  if (every > 0 && run->checkpoint.keep_last == 0)
    about(parts, "checkpoint.keep_every",
          "checkpoint.keep_every has no meaning while checkpoint.keep_last is 0 (keep all)");
  if (every > 0 && run->checkpoint.every_epochs > 0 && every % run->checkpoint.every_epochs != 0)
    about(
        parts, "checkpoint.keep_every",
        "checkpoint.keep_every must be a multiple of checkpoint.every_epochs, found %lld and %lld",
        (long long)every, (long long)run->checkpoint.every_epochs);
  const char *best = run->checkpoint.best;
  const bool metric =
      best && best[0] && strcmp(best, "train") != 0 && strcmp(best, "validation") != 0;
  if (metric && !fn_run_has_cubes(run))
    about(parts, "checkpoint.best",
          "checkpoint.best: %s needs data with two classes (data.kind: "
          "cubes)",
          best);
  const bool none = fn_parts_given(parts, "checkpoint.best") && (!best || !best[0]);
  if (none && run->train.stop_patience > 0)
    about(parts, "train.stop_patience", "train.stop_patience needs checkpoint.best, which is null");
  if (none && !isnan(run->train.stop_threshold))
    about(parts, "train.stop_threshold",
          "train.stop_threshold needs checkpoint.best, which is null");
}

void fn_run_check_consistent(fn_run_parts *parts) {
  check_model(parts);
  fn_run_check_data_kind(parts);
  check_filesets(parts);
  check_per_field(parts);
  check_axes(parts);
  check_anchors(parts);
  check_schedule(parts);
  check_checkpoint(parts);
  check_compute(parts);
}

/* ---- defaults that follow from other keys
 * --------------------------------------------------------- */

static char *name_of_file(fn_arena *arena, const char *path) {
  const char *slash = strrchr(path, '/');
  char *name = fn_arena_text(arena, slash ? slash + 1 : path);
  char *dot = strrchr(name, '.');
  if (dot && dot != name) *dot = '\0';
  if (name[0] == '\0') return fn_arena_text(arena, "run");
  return name;
}

/* One word for all fields. */
static void repeat(fn_run_parts *parts, const char *key, fn_texts *list, int fields) {
  const fn_options *node = fn_parts_given(parts, key);
  if (!node || node->kind != FN_OPTIONS_SCALAR || list->count != 1 || fields < 2) return;
  const char *word = list->text[0];
  list->text = fn_arena_take(parts->run.arena, sizeof(char *) * (size_t)fields);
  for (list->count = 0; list->count < fields; list->count++)
    list->text[list->count] = word;
}

void fn_run_derive(fn_run_parts *parts) {
  fn_run *run = &parts->run;
  if (!run->folder) run->folder = name_of_file(run->arena, run->path);
  const char *optimizer = run->optimizer.name;
  const fn_options *decay = fn_parts_given(parts, "optimizer.weight_decay");
  if (!decay) run->optimizer.weight_decay = strcmp(optimizer, "adamw") == 0 ? 0.01 : 0;
  // torch.optim: defaults of eps.
  if (!fn_parts_given(parts, "optimizer.eps"))
    run->optimizer.eps = strcmp(optimizer, "adadelta") == 0  ? 1e-6
                         : strcmp(optimizer, "adagrad") == 0 ? 1e-10
                                                             : 1e-8;
  if (run->schedule.step_size == 0 && strcmp(run->schedule.name, "cyclic") == 0)
    run->schedule.step_size = 2000; // torch.optim.lr_scheduler.CyclicLR
  if (run->schedule.t_max == 0) run->schedule.t_max = run->train.epochs;
  const bool asked = parts->node[fn_key_index(fn_key_find("checkpoint.best"))] != NULL;
  if (!asked)
    run->checkpoint.best = fn_run_has_data(run, "validation", true) ? "validation" : "train";
  repeat(parts, "data.input_vector", &run->data.input_vector, field_count(run, false));
  repeat(parts, "data.target_vector", &run->data.target_vector, field_count(run, true));
}
