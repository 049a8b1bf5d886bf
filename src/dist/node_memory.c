/* Files in /dev/shm, mapped by all ranks of a node and removed as soon as they are. Not
 * MPI_Win_allocate_shared: where space is short, that of Open MPI returns on one rank and leaves
 * the others waiting (seen with 4.1.4), and it reserves no space, so that a write may end the
 * process. */
#include "dist/node_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/text.h"
#include "dist/mpi_status.h"

typedef struct file_name {
  char text[96];
} file_name;

/** Success only if all ranks of the node had it; else the message of the first that had not. */
static fn_status agree(MPI_Comm node, fn_status status) {
  int rank, size, first;
  char message[512] = "";
  MPI_Comm_rank(node, &rank);
  MPI_Comm_size(node, &size);
  const int failing = status == FN_OK ? size : rank;
  FN_TRY_MPI(MPI_Allreduce(&failing, &first, 1, MPI_INT, MPI_MIN, node), "sharing memory");
  if (first == size) return FN_OK;
  if (rank == first) snprintf(message, sizeof message, "%s", fn_error_message());
  FN_TRY_MPI(MPI_Bcast(message, (int)sizeof message, MPI_CHAR, first, node), "sharing memory");
  FN_FAIL(FN_ERR_MEMORY, "%s", message);
}

/** A new file; another process may have the same number in a container of its own. */
static int open_new(file_name *name) {
  static int count;
  int file = -1;
  for (int attempt = 0; file < 0 && attempt < 1000; attempt++) {
    snprintf(name->text, sizeof name->text, "/dev/shm/fieldnet-%ld-%ld-%d", (long)getuid(),
             (long)getpid(), count++);
    file = open(name->text, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0 && errno != EEXIST) break;
  }
  return file;
}

/** A file of this rank, its space reserved where this rank runs. */
static fn_status make_file(size_t bytes, file_name *name) {
  char text[32];
  const int file = open_new(name);
  int reason = errno;
  if (file >= 0) {
    do
      reason = posix_fallocate(file, 0, (off_t)bytes);
    while (reason == EINTR);
    close(file);
    if (reason == 0) return FN_OK;
    unlink(name->text);
  }
  FN_FAIL(FN_ERR_MEMORY, "no %s of memory can be shared in /dev/shm: %s",
          fn_text_bytes((double)bytes, text, sizeof text), strerror(reason));
}

static fn_status map_file(const file_name *name, size_t bytes, void **start) {
  const int file = open(name->text, O_RDWR | O_CLOEXEC);
  FN_CHECK(file >= 0, FN_ERR_MEMORY, "%s, memory of another rank, cannot be opened: %s", name->text,
           strerror(errno));
  void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int reason = errno;
  close(file);
  FN_CHECK(mapped != MAP_FAILED, FN_ERR_MEMORY, "memory of another rank cannot be mapped: %s",
           strerror(reason));
  *start = mapped;
  return FN_OK;
}

static fn_status map_all(fn_node_memory *m, const file_name *names, int slots) {
  m->counters = calloc((size_t)m->ranks, sizeof(fn_node_counters *));
  m->area = calloc((size_t)m->ranks, sizeof(char *));
  FN_CHECK(m->counters && m->area, FN_ERR_MEMORY, "out of memory");
  for (int r = 0; r < m->ranks; r++) {
    void *start = NULL;
    FN_TRY(map_file(&names[r], m->bytes, &start));
    m->counters[r] = start;
    m->area[r] = (char *)start + (size_t)slots * sizeof(fn_node_counters);
  }
  return FN_OK;
}

fn_status fn_node_memory_create(MPI_Comm node, int slots, int64_t slot_bytes,
                                fn_node_memory *memory) {
  *memory =
      (fn_node_memory){.bytes = (size_t)slots * (sizeof(fn_node_counters) + (size_t)slot_bytes)};
  MPI_Comm_size(node, &memory->ranks);
  file_name mine;
  const fn_status made = make_file(memory->bytes, &mine);
  fn_status status = made;
  file_name *names = calloc((size_t)memory->ranks, sizeof *names);
  if (status == FN_OK && !names)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory");
  status = agree(node, status);
  if (status == FN_OK)
    status = fn_mpi_status(
        MPI_Allgather(&mine, (int)sizeof mine, MPI_BYTE, names, (int)sizeof mine, MPI_BYTE, node),
        "sharing memory");
  // A new file reads zero: no counter has counted yet.
  if (status == FN_OK) status = agree(node, map_all(memory, names, slots));
  if (made == FN_OK) unlink(mine.text);
  free(names);
  if (status != FN_OK) fn_node_memory_destroy(memory);
  return status;
}

void fn_node_memory_destroy(fn_node_memory *memory) {
  for (int r = 0; memory->counters && r < memory->ranks; r++)
    if (memory->counters[r]) munmap(memory->counters[r], memory->bytes);
  free(memory->counters);
  free(memory->area);
  *memory = (fn_node_memory){0};
}
