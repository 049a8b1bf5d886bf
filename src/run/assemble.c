#include "run/assemble.h"

#include <stdlib.h>
#include <string.h>

#include "base/arena.h"

fn_status fn_group_create(const fn_dist *dist, int64_t files, fn_group *group) {
  const int groups = files < dist->size ? (int)files : dist->size;
  *group = (fn_group){.comm = MPI_COMM_NULL, .index = dist->rank % groups, .groups = groups};
  FN_CHECK(MPI_Comm_split(dist->comm, group->index, dist->rank, &group->comm) == MPI_SUCCESS,
           FN_ERR_INTERNAL, "cannot split the job into %d groups", groups);
  MPI_Comm_rank(group->comm, &group->rank);
  MPI_Comm_size(group->comm, &group->size);
  return FN_OK;
}

void fn_group_destroy(fn_group *group) {
  if (group->comm != MPI_COMM_NULL) MPI_Comm_free(&group->comm);
}

static int64_t cells_of(int spatial, const int64_t *size) {
  int64_t cells = 1;
  for (int d = 0; d < spatial; d++)
    cells *= size[d];
  return cells;
}

fn_status fn_canvas_create(int spatial, int64_t channels, const int64_t *size, fn_canvas *canvas) {
  *canvas = (fn_canvas){.spatial = spatial, .channels = channels};
  memcpy(canvas->size, size, (size_t)spatial * sizeof *size);
  return fn_pages_allocate((size_t)(channels * cells_of(spatial, size)) * sizeof(float),
                           (void **)&canvas->values);
}

void fn_canvas_destroy(fn_canvas *canvas) {
  fn_pages_free(canvas->values,
                (size_t)(canvas->channels * cells_of(canvas->spatial, canvas->size)) *
                    sizeof(float));
  canvas->values = NULL;
}

static int64_t wrapped(int64_t i, int64_t n) {
  const int64_t r = i % n;
  return r < 0 ? r + n : r;
}

void fn_canvas_paste(fn_canvas *canvas, const float *patch, const int64_t *extent,
                     const int64_t *start) {
  // Missing axes in front count as one cell, so that one loop nest serves 1, 2 and 3 dimensions.
  int64_t size[3] = {1, 1, 1}, length[3] = {1, 1, 1}, first[3] = {0, 0, 0};
  const int lead = 3 - canvas->spatial;
  for (int d = 0; d < canvas->spatial; d++) {
    size[lead + d] = canvas->size[d];
    length[lead + d] = extent[d];
    first[lead + d] = start[d];
  }
  const int64_t cells = size[0] * size[1] * size[2];
  for (int64_t c = 0; c < canvas->channels; c++) {
    float *field = canvas->values + c * cells;
    for (int64_t i = 0; i < length[0]; i++) {
      const int64_t x = wrapped(first[0] + i, size[0]);
      for (int64_t j = 0; j < length[1]; j++) {
        const int64_t y = wrapped(first[1] + j, size[1]);
        float *row = field + (x * size[1] + y) * size[2];
        for (int64_t k = 0; k < length[2]; k++)
          row[wrapped(first[2] + k, size[2])] = *patch++;
      }
    }
  }
  canvas->covered += length[0] * length[1] * length[2];
}
