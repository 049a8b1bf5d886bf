/* Two kinds of data: fields with target fields, and cubes with two classes. */
#include <stdlib.h>
#include <string.h>

#include "base/ranges.h"
#include "config/parts.h"

bool fn_run_has_cubes(const fn_run *run) {
  return run->data.kind && strcmp(run->data.kind, "cubes") == 0;
}

bool fn_run_has_logits(const fn_run *run) {
  const char *loss = run->loss.name;
  return strcmp(loss, "mse") != 0 && strcmp(loss, "l1") != 0 && strcmp(loss, "huber") != 0;
}

bool fn_run_has_data(const fn_run *run, const char *stage, bool target) {
  const bool train = strcmp(stage, "train") == 0, validation = strcmp(stage, "validation") == 0;
  if (fn_run_has_cubes(run)) {
    const fn_texts *seeds = train        ? &run->data.cubes.train_seeds
                            : validation ? &run->data.cubes.validation_seeds
                                         : &run->data.cubes.test_seeds;
    return run->data.cubes.file && seeds->count > 0;
  }
  const fn_fileset *files = train        ? &run->data.train
                            : validation ? &run->data.validation
                                         : &run->data.test;
  return files->input.count > 0 && (!target || files->target.count > 0);
}

/* ---- keys of the other kind ----------------------------------------------------------------- */

/* Whether a key was written with another value than its default: a resolved run file spells every
 * key, and must stay readable. */
static bool differs(const fn_run_parts *parts, const fn_key *key) {
  if (!fn_parts_given(parts, key->path)) return false;
  fn_run_parts plain = *parts; // only `run` is changed, and thrown away
  fn_text now = {0}, usual = {0};
  fn_key_set_default(&plain, key);
  fn_arena *arena = parts->run.arena;
  const bool same = fn_tree_write(fn_key_node(arena, key, &parts->run), &now) == FN_OK &&
                    fn_tree_write(fn_key_node(arena, key, &plain.run), &usual) == FN_OK &&
                    strcmp(now.data, usual.data) == 0;
  fn_text_free(&now);
  fn_text_free(&usual);
  return !same;
}

/* Keys for both kinds of data, and those of cubes beside data.cubes. */
static bool is_one_of(const char *path, const char *const *words) {
  for (; *words; words++)
    if (strcmp(path, *words) == 0) return true;
  return false;
}

static void refuse_other_kind(fn_run_parts *parts) {
  static const char *const common[] = {"data.kind",    "data.shuffle", "data.prefetch",
                                       "data.readers", "data.convert", NULL};
  static const char *const reading[] = {"data.read", "data.read_memory", "data.stage", NULL};
  const bool cubes = fn_run_has_cubes(&parts->run);
  for (int i = 0; i < fn_key_count(); i++) {
    const fn_key *key = fn_key_at(i);
    if (!fn_text_starts(key->path, "data.") || is_one_of(key->path, common)) continue;
    const bool of_cubes = fn_text_starts(key->path, "data.cubes.") || is_one_of(key->path, reading);
    if (of_cubes == cubes || !differs(parts, key)) continue;
    fn_run_problem(parts, key->path, "%s belongs to data.kind: %s, but data.kind is %s", key->path,
                   of_cubes ? "cubes" : "fields", parts->run.data.kind);
  }
}

/* ---- cubes ---------------------------------------------------------------------------------- */

static void check_seeds(fn_run_parts *parts) {
  static const char *const keys[] = {"data.cubes.train_seeds", "data.cubes.validation_seeds",
                                     "data.cubes.test_seeds"};
  const fn_run *run = &parts->run;
  const fn_texts *lists[] = {&run->data.cubes.train_seeds, &run->data.cubes.validation_seeds,
                             &run->data.cubes.test_seeds};
  fn_ranges seeds[3] = {0};
  for (int s = 0; s < 3; s++) {
    for (int i = 0; i < lists[s]->count; i++) {
      if (fn_ranges_add(&seeds[s], lists[s]->text[i]) == FN_OK) continue;
      fn_run_problem(parts, keys[s], "%s: %s", keys[s], fn_error_message());
      fn_error_clear();
      break;
    }
    for (int before = 0; before < s; before++) {
      const int64_t both = fn_ranges_common(&seeds[before], &seeds[s]);
      if (both >= 0)
        fn_run_problem(parts, keys[s], "%s: seed %lld is in %s too", keys[s], (long long)both,
                       keys[before]);
    }
  }
  for (int s = 0; s < 3; s++)
    fn_ranges_free(&seeds[s]);
}

static void check_slices(fn_run_parts *parts) {
  const fn_run *run = &parts->run;
  const fn_integers *axes = &run->data.cubes.axes;
  unsigned seen = 0;
  for (int i = 0; i < axes->count; i++) {
    const unsigned bit = 1u << (unsigned)axes->value[i];
    if (seen & bit) {
      fn_run_problem(parts, "data.cubes.axes", "data.cubes.axes has axis %lld twice",
                     (long long)axes->value[i]);
      break;
    }
    seen |= bit;
  }
  if (run->data.cubes.window % 2 != 0)
    fn_run_problem(parts, "data.cubes.window",
                   "data.cubes.window must be even, for both cubes of a seed are in one window; "
                   "found %lld",
                   (long long)run->data.cubes.window);
  if (run->data.cubes.compat && (axes->count > 0 || run->data.cubes.stride != 1))
    fn_run_problem(parts, "data.cubes.compat",
                   "data.cubes.compat goes with the original's slices only: all axes, stride 1");
}

/* What a whole cube has no use for. */
static void check_whole(fn_run_parts *parts) {
  static const char *const keys[] = {"data.cubes.axes", "data.cubes.stride", "data.cubes.compat",
                                     "data.cubes.slices_per_cube"};
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
    if (differs(parts, fn_key_find(keys[i])))
      fn_run_problem(parts, keys[i], "%s has no meaning with data.cubes.sample: cube", keys[i]);
  const char *symmetry = parts->run.data.cubes.symmetry;
  if (fn_parts_given(parts, "data.cubes.symmetry") && strcmp(symmetry, "none") != 0 &&
      differs(parts, fn_key_find("data.cubes.symmetry")))
    fn_run_problem(parts, "data.cubes.symmetry",
                   "data.cubes.symmetry turns slices; whole cubes are not turned");
}

void fn_run_check_data_kind(fn_run_parts *parts) {
  refuse_other_kind(parts);
  if (!fn_run_has_cubes(&parts->run)) return;
  check_seeds(parts);
  check_slices(parts);
  if (strcmp(parts->run.data.cubes.sample, "cube") == 0) check_whole(parts);
}
