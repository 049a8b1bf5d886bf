/* What a prepared file holds, and how cells become its numbers. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "data/cube_source.h"
#include "data/cube_write.h"

void fn_cube_name(int64_t seed, int theory, char *name, size_t size) {
  snprintf(name, size, "%s_seed%04lld", fn_theory_name(theory), (long long)seed);
}

fn_status fn_cube_plan_check(fn_cube_plan *plan) {
  const bool chunked = plan->chunk[0] > 0;
  FN_CHECK(plan->packed || (!chunked && plan->compress == 0), FN_ERR_CONFIG,
           "the original layout is contiguous: chunks and compression need the packed one");
  if (plan->compress > 0 && !chunked) {
    const int64_t planes = plan->size[0] < 16 ? plan->size[0] : 16;
    memcpy(plan->chunk, (int64_t[4]){1, planes, plan->size[1], plan->size[2]}, sizeof plan->chunk);
  }
  FN_CHECK(plan->compress == 0 || plan->chunk[0] == 1, FN_ERR_CONFIG,
           "chunk: with compression a chunk holds cells of one cube, found %lld cubes",
           (long long)plan->chunk[0]);
  if (plan->chunk[0] == 0) return FN_OK;
  int64_t bytes = plan->item;
  for (int i = 0; i < 4; i++) {
    const int64_t most = i ? plan->size[i - 1] : plan->cubes;
    FN_CHECK(plan->chunk[i] >= 1 && plan->chunk[i] <= most, FN_ERR_CONFIG,
             "chunk: expected 1 to %lld along axis %d, found %lld", (long long)most, i,
             (long long)plan->chunk[i]);
    // Each factor is at most 2^31 here, and HDF5 wants chunks below 4 GiB.
    bytes = bytes < (int64_t)1 << 32 ? bytes * plan->chunk[i] : bytes;
  }
  FN_CHECK(bytes < (int64_t)1 << 32, FN_ERR_CONFIG, "chunk: expected fewer than 2^32 bytes");
  return FN_OK;
}

void fn_cube_plan_describe(const fn_cube_plan *plan, fn_text *text) {
  fn_text_add(text, "layout: %s, %d bytes a cell\nshape: %lld, %lld, %lld\n",
              plan->packed ? "packed" : "original", plan->item, (long long)plan->size[0],
              (long long)plan->size[1], (long long)plan->size[2]);
  fn_text_add(text, "chunk: %lld, %lld, %lld, %lld\ncompression: %d\n", (long long)plan->chunk[0],
              (long long)plan->chunk[1], (long long)plan->chunk[2], (long long)plan->chunk[3],
              plan->compress);
  fn_text_add(text, "remove mean: %d\nredshift: %.17g, %.17g\nbox: %.17g\nA_s: %.17g\n",
              plan->remove_mean, plan->redshift[0], plan->redshift[1], plan->box, plan->amplitude);
  fn_text_add(text, "statistics from: %s\n%s", plan->statistics ? plan->statistics : "not told",
              plan->origin);
}

fn_status fn_cube_standardise(const fn_cube_plan *plan, const double *cells, void *out) {
  const int64_t count = plan->size[0] * plan->size[1] * plan->size[2];
  double shift = plan->has_statistics ? plan->mean : 0, squares, bad = 0;
  const double std = plan->has_statistics ? plan->std : 1;
  if (plan->remove_mean) fn_cube_moments(cells, count, &shift, &squares);
  float *f32 = out;
  double *f64 = out;
  for (int64_t i = 0; i < count; i++) {
    const double value = (cells[i] - shift) / std;
    if (plan->item == 4) {
      f32[i] = (float)value;
      bad += isfinite(f32[i]) ? 0 : 1;
    } else {
      f64[i] = value;
      bad += isfinite(value) ? 0 : 1;
    }
  }
  FN_CHECK(bad == 0, FN_ERR_DATA,
           "standardised with mean %g and std %g, %.0f cells are beyond the range of float%d",
           shift, std, bad, 8 * plan->item);
  return FN_OK;
}

int64_t fn_cube_chunks(const fn_cube_plan *plan, int64_t number[3]) {
  int64_t count = 1;
  for (int i = 0; i < 3; i++) {
    number[i] = plan->chunk[0] ? (plan->size[i] + plan->chunk[i + 1] - 1) / plan->chunk[i + 1] : 1;
    count *= number[i];
  }
  return count;
}

/** Copy between a cube and one of its chunks. */
static void copy_chunk(const fn_cube_plan *plan, char *cells, int64_t index, char *chunk,
                       bool gather) {
  int64_t number[3], first[3], extent[3];
  const int64_t *c = plan->chunk + 1, *n = plan->size;
  fn_cube_chunks(plan, number);
  first[2] = index % number[2] * c[2];
  first[1] = index / number[2] % number[1] * c[1];
  first[0] = index / number[2] / number[1] * c[0];
  for (int i = 0; i < 3; i++)
    extent[i] = n[i] - first[i] < c[i] ? n[i] - first[i] : c[i];
  const size_t item = (size_t)plan->item, line = (size_t)extent[2] * item;
  for (int64_t i = 0; i < extent[0]; i++) {
    for (int64_t j = 0; j < extent[1]; j++) {
      char *cell =
          cells + (size_t)(((first[0] + i) * n[1] + first[1] + j) * n[2] + first[2]) * item;
      char *other = chunk + (size_t)((i * c[1] + j) * c[2]) * item;
      memcpy(gather ? other : cell, gather ? cell : other, line);
    }
  }
}

void fn_cube_gather(const fn_cube_plan *plan, const void *cells, int64_t index, void *chunk) {
  const int64_t *c = plan->chunk + 1;
  memset(chunk, 0, (size_t)(c[0] * c[1] * c[2] * plan->item)); // beyond the cube's edge
  copy_chunk(plan, (void *)cells, index, chunk, true);
}

void fn_cube_scatter(const fn_cube_plan *plan, void *chunk, int64_t index, void *cells) {
  copy_chunk(plan, cells, index, chunk, false);
}
