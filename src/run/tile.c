#include "run/tile.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"

/** What a field costs in tiles of one size. */
typedef struct cost {
  double flops; /**< of the busiest rank */
  size_t bytes;
} cost;

size_t fn_tile_memory(const fn_dist *dist) {
  const size_t limit = fn_memory_limit();
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  const double share = online > dist->cores ? (double)dist->cores / (double)online : 1;
  return limit == SIZE_MAX ? limit : (size_t)((double)limit * share);
}

static int64_t smaller(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/** Sizes of samples whose crop is `edge` instead of `crop`. */
static fn_dataset_info sizes_of(const fn_dataset_info *info, const int64_t *crop,
                                const int64_t *edge) {
  fn_dataset_info sizes = *info;
  for (int d = 0; d < info->spatial; d++) {
    sizes.input_extent[d] += edge[d] - crop[d];
    sizes.target_extent[d] += edge[d] - crop[d];
  }
  return sizes;
}

static double values_of(const fn_dataset_info *info, bool planes) {
  double in = (double)info->input_channels, out = (double)info->target_channels;
  for (int d = 0; d < info->spatial; d++) {
    const bool whole = planes && d > 0;
    in *= (double)(whole ? info->size[d] : info->input_extent[d]);
    out *= (double)(whole ? info->size[d] : info->target_extent[d]);
  }
  return in + out;
}

/** From the plan of a program that is never run. */
static fn_status find_cost(const fn_run *run, const fn_dist *dist, const fn_dataset_info *sizes,
                           bool target, cost *c) {
  fn_engine *engine;
  fn_program *program;
  FN_TRY(fn_engine_create(run, dist, sizes, &engine));
  fn_status status = fn_engine_program_with(engine, false, target, 1, false, true, &program);
  if (status == FN_OK) {
    fn_program_memory memory;
    fn_program_memory_info(program, &memory);
    *c = (cost){0};
    for (int k = 0; k < fn_program_kernel_count(program); k++) {
      fn_kernel_info info;
      fn_program_kernel_info(program, k, &info);
      c->flops += info.flops;
    }
    const double ahead = (double)(run->data.prefetch + run->data.readers + 2);
    c->bytes = memory.arena +
               (size_t)(4 * (ahead * values_of(sizes, false) + 1.5 * values_of(sizes, true)));
  }
  fn_engine_destroy(engine);
  return status;
}

/** The smallest edge from `least` on that divides the field and is a multiple of the stride. */
static int64_t dividing_edge(int64_t size, int64_t least, int64_t multiple) {
  for (int64_t edge = least; edge <= size; edge++)
    if (size % edge == 0 && edge % multiple == 0) return edge;
  return -1;
}

static bool may_choose(const fn_run *run, const fn_dataset_info *info, const fn_network_rule *rule,
                       const int64_t *crop) {
  const bool all = run->data.crop.count > 0 && run->data.crop_start.count == 0 &&
                   run->data.crop_stop.count == 0 && run->data.crop_step.count == 0;
  if (!all || rule->trim < 0 || run->data.scale_factor != 1) return false;
  for (int d = 0; d < info->spatial; d++)
    if (info->size[d] % crop[d] != 0 || crop[d] % rule->multiple != 0) return false;
  return true;
}

static int64_t tiles_of(const fn_dataset_info *info, const int64_t *edge) {
  int64_t tiles = 1;
  for (int d = 0; d < info->spatial; d++)
    tiles *= info->size[d] / edge[d];
  return tiles;
}

static fn_status choose(const fn_run *run, const fn_dist *dist, const fn_dataset_info *info,
                        bool target, int ranks, size_t memory, const fn_network_rule *rule,
                        const int64_t *crop, fn_tile *tile) {
  const int spatial = info->spatial;
  double first = 0, best = 0;
  int64_t parts = 1;
  for (int d = 0; d < spatial; d++)
    if (info->size[d] / crop[d] > parts) parts = info->size[d] / crop[d];
  // From the run's crop to the whole field, larger tiles until memory ends.
  for (; parts >= 1; parts--) {
    int64_t edge[FN_MAX_SPATIAL];
    bool found = true;
    for (int d = 0; d < spatial; d++) {
      const int64_t least = (info->size[d] + parts - 1) / parts;
      edge[d] = dividing_edge(info->size[d], least > crop[d] ? least : crop[d], rule->multiple);
      found &= edge[d] > 0;
    }
    if (!found) continue;
    const fn_dataset_info sizes = sizes_of(info, crop, edge);
    cost c;
    FN_TRY(find_cost(run, dist, &sizes, target, &c));
    if (first > 0 && c.bytes > memory) break;
    const int64_t tiles = tiles_of(info, edge);
    const double flops = c.flops * (double)((tiles + ranks - 1) / ranks);
    if (first > 0 && flops >= best) continue;
    if (first == 0) first = flops;
    best = flops;
    tile->given = memcmp(edge, crop, (size_t)spatial * sizeof *edge) != 0;
    memcpy(tile->edge, edge, (size_t)spatial * sizeof *edge);
  }
  if (!tile->given) return FN_OK;
  char text[96] = "";
  for (int d = 0; d < spatial; d++)
    snprintf(text + strlen(text), sizeof text - strlen(text), "%s%lld", d ? " x " : "",
             (long long)tile->edge[d]);
  fn_log(FN_INFO,
         "crops of %s cells: a field takes %.2f times as many operations as with data.crop "
         "(test.tile)",
         text, best / first);
  return FN_OK;
}

fn_status fn_tile_choose(const fn_run *run, const fn_dist *dist, const fn_dataset_info *info,
                         bool target, int ranks, size_t memory, fn_tile *tile) {
  *tile = (fn_tile){0};
  const fn_integers *wanted = &run->test.tile;
  const int spatial = info->spatial;
  if (wanted->count > 0) {
    if (wanted->count > 1 && wanted->count != spatial)
      return fn_run_fail(run, "test.tile",
                         "test.tile has %d values but the fields have %d axes; expected 1 or %d",
                         wanted->count, spatial, spatial);
    tile->given = wanted->value[0] > 0;
    for (int d = 0; d < spatial; d++) {
      tile->edge[d] = wanted->value[wanted->count > 1 ? d : 0];
      if ((tile->edge[d] > 0) != (tile->given > 0))
        return fn_run_fail(run, "test.tile", "test.tile: 0 stands for data.crop and stands alone");
      tile->edge[d] = smaller(tile->edge[d], info->size[d]);
    }
    return FN_OK;
  }
  fn_network_rule rule;
  int64_t crop[FN_MAX_SPATIAL] = {0};
  FN_TRY(fn_model_rule(run, &rule));
  if (rule.multiple < 1) rule.multiple = 1;
  for (int d = 0; d < spatial && run->data.crop.count > 0; d++)
    crop[d] = run->data.crop.value[run->data.crop.count > 1 ? d : 0];
  if (!may_choose(run, info, &rule, crop)) return FN_OK;
  return choose(run, dist, info, target, ranks, memory, &rule, crop, tile);
}
