#include "dist/node_memory.h"

#include <stdlib.h>
#include <string.h>

#include "dist/mpi_status.h"

static fn_status find_areas(fn_node_memory *m, MPI_Comm node, int slots) {
  MPI_Comm_size(node, &m->ranks);
  m->counters = calloc((size_t)m->ranks, sizeof(fn_node_counters *));
  m->area = calloc((size_t)m->ranks, sizeof(char *));
  FN_CHECK(m->counters && m->area, FN_ERR_MEMORY, "out of memory");
  for (int r = 0; r < m->ranks; r++) {
    MPI_Aint bytes;
    int unit;
    char *start = NULL;
    FN_TRY_MPI(MPI_Win_shared_query(m->window, r, &bytes, &unit, &start), "sharing memory");
    m->counters[r] = (fn_node_counters *)start;
    m->area[r] = start + (size_t)slots * sizeof(fn_node_counters);
  }
  return FN_OK;
}

static fn_status make_window(fn_node_memory *m, MPI_Comm node, size_t bytes, char **mine) {
  MPI_Info info;
  FN_TRY_MPI(MPI_Info_create(&info), "sharing memory");
  // Every rank's part begins on a page of its own and can lie in its part of the memory.
  MPI_Info_set(info, "alloc_shared_noncontig", "true");
  const int code = MPI_Win_allocate_shared((MPI_Aint)bytes, 1, info, node, mine, &m->window);
  MPI_Info_free(&info);
  if (code == MPI_SUCCESS)
    return fn_mpi_status(MPI_Win_lock_all(MPI_MODE_NOCHECK, m->window), "sharing memory");
  m->window = MPI_WIN_NULL;
  FN_TRY(fn_mpi_status(code, "sharing memory"));
  return FN_OK;
}

fn_status fn_node_memory_create(MPI_Comm node, int slots, int64_t slot_bytes,
                                fn_node_memory *memory) {
  *memory = (fn_node_memory){.window = MPI_WIN_NULL};
  const size_t bytes = (size_t)slots * (sizeof(fn_node_counters) + (size_t)slot_bytes);
  char *mine = NULL;
  fn_status status = make_window(memory, node, bytes, &mine);
  int failed = status != FN_OK, any = failed;
  FN_TRY_MPI(MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, node), "sharing memory");
  if (any) memory->window = MPI_WIN_NULL; // freeing it would wait for those that have none
  FN_CHECK(!any, FN_ERR_MEMORY, "the ranks of this node cannot share %zu bytes each%s%s", bytes,
           failed ? ": " : "", failed ? fn_error_message() : "");
  memset(mine, 0, bytes); // by its owner: pages lie near who touches them first
  status = find_areas(memory, node, slots);
  FN_TRY_MPI(MPI_Barrier(node), "sharing memory");
  return status;
}

void fn_node_memory_destroy(fn_node_memory *memory) {
  if (memory->window != MPI_WIN_NULL) {
    MPI_Win_unlock_all(memory->window);
    MPI_Win_free(&memory->window);
  }
  free(memory->counters);
  free(memory->area);
  *memory = (fn_node_memory){.window = MPI_WIN_NULL};
}
