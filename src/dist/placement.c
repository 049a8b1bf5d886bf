#include "dist/placement.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "dist/mpi_status.h"

typedef struct seat {
  char host[64], node[64]; /**< node: what the batch system calls the host, or "" */
  char cores[128], numa[64], device[64];
  int threads;
} seat;

static int number_of(const char *variable) {
  const char *text = getenv(variable);
  return text ? atoi(text) : 0;
}

/** One of many processes that all fail alike: the first one's message is enough. */
static fn_status once(fn_status status) {
  if (number_of("SLURM_PROCID") || number_of("PMI_RANK") || number_of("OMPI_COMM_WORLD_RANK"))
    fn_error_clear();
  return status;
}

static fn_status check_srun(bool alone) {
  const int started = number_of("SLURM_STEP_NUM_TASKS");
  // Under mpirun inside an allocation SLURM's numbers are those of mpirun's own daemons.
  const bool by_mpirun = getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE");
  FN_CHECK(by_mpirun || started <= 1 || !alone, FN_ERR_CONFIG,
           "srun started %d processes, but each of them is alone: use srun --mpi=pmix (srun "
           "--mpi=list shows what there is), or mpirun inside the allocation",
           started);
  return FN_OK;
}

static fn_status check_launch(void) {
  FN_TRY(check_srun(true));
  const char *const variables[] = {"PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS"};
  for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
    FN_CHECK(number_of(variables[i]) <= 1, FN_ERR_CONFIG,
             "a launcher started %d processes (%s), but each of them is alone: use the mpirun that "
             "belongs to the MPI library fieldnet was built with",
             number_of(variables[i]), variables[i]);
  return FN_OK;
}

static bool launched = true;

fn_status fn_launch_foresee(void) {
  // Now: MPI_Init of a process that nobody launched sets such variables by itself.
  launched = getenv("SLURM_STEP_NUM_TASKS") || getenv("OMPI_COMM_WORLD_SIZE") ||
             getenv("PMI_SIZE") || getenv("PMIX_RANK");
#ifdef OMPI_MAJOR_VERSION // which ends the process by itself, with a page about its own building
  return once(check_srun(!getenv("PMIX_RANK")));
#else
  return FN_OK;
#endif
}

fn_status fn_launch_check(int size) {
  return size > 1 ? FN_OK : once(check_launch());
}

void fn_launch_doubt(int size) {
  const int tasks = number_of("SLURM_NTASKS"); // of the step where there is one, else of the job
  if (size == 1 && tasks > 1 && !launched)
    fn_log(FN_WARN,
           "this job has %d tasks, but fieldnet was started once and runs on one rank: srun or "
           "mpirun starts it on all of them",
           tasks);
}

char *fn_ranges_text(const unsigned char *flag, int count, char *text, size_t size) {
  size_t length = 0;
  text[0] = '\0';
  for (int i = 0; i < count; i++) {
    if (!flag[i]) continue;
    const int first = i;
    while (i + 1 < count && flag[i + 1])
      i++;
    const char *comma = length ? "," : "";
    const int written = i > first
                            ? snprintf(text + length, size - length, "%s%d-%d", comma, first, i)
                            : snprintf(text + length, size - length, "%s%d", comma, first);
    if ((size_t)written >= size - length) break;
    length += (size_t)written;
  }
  return text;
}

/** NUMA nodes whose cores this process may use, from the kernel's lists; "?" when unknown. */
static void numa_nodes(const unsigned char *cores, char *text, size_t size) {
  unsigned char used[FN_CORES_MOST] = {0};
  bool known = false;
  for (int node = 0; node < FN_CORES_MOST; node++) {
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
    FILE *file = fopen(path, "r");
    if (!file) break;
    int first, last;
    while (fscanf(file, "%d", &first) == 1) {
      last = first;
      int next = fgetc(file);
      if (next == '-') {
        if (fscanf(file, "%d", &last) != 1) break;
        next = fgetc(file);
      }
      for (int c = first; c <= last && c < FN_CORES_MOST; c++)
        used[node] |= cores[c];
      if (next != ',') break;
    }
    fclose(file);
    known = true;
  }
  if (known)
    fn_ranges_text(used, FN_CORES_MOST, text, size);
  else
    snprintf(text, size, "?");
}

static seat my_seat(const char *device) {
  unsigned char cores[FN_CORES_MOST] = {0};
  const char *node = getenv("SLURMD_NODENAME");
  seat s = {.threads = fn_threads_get()};
  fn_cores_allowed(cores, FN_CORES_MOST);
  snprintf(s.host, sizeof s.host, "%s", fn_host_name());
  snprintf(s.node, sizeof s.node, "%s", node ? node : "");
  fn_ranges_text(cores, FN_CORES_MOST, s.cores, sizeof s.cores);
  numa_nodes(cores, s.numa, sizeof s.numa);
  snprintf(s.device, sizeof s.device, "%s", device);
  return s;
}

static void add_line(fn_text *table, int first, int last, const seat *s) {
  char ranks[48], host[160];
  if (last > first)
    snprintf(ranks, sizeof ranks, "%d-%d", first, last);
  else
    snprintf(ranks, sizeof ranks, "%d", first);
  const bool named = s->node[0] && strncmp(s->node, s->host, strlen(s->node)) != 0;
  snprintf(host, sizeof host, named ? "%s (%s)" : "%s", s->host, s->node);
  fn_text_add(table, "%-9s %-24s %-14s %-16s %-6s %d\n", ranks, host, s->device, s->cores, s->numa,
              s->threads);
}

fn_status fn_placement_table(const fn_dist *dist, const char *device, fn_text *table) {
  const seat mine = my_seat(device);
  seat *all = dist->rank == 0 ? calloc((size_t)dist->size, sizeof *all) : NULL;
  FN_TRY(fn_dist_agree(dist, dist->rank != 0 || all ? FN_OK
                                                    : fn_error_set(FN_ERR_MEMORY, __FILE__,
                                                                   __LINE__, "out of memory")));
  fn_status status = fn_mpi_status(
      MPI_Gather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, 0, dist->comm),
      "asking the ranks where they are");
  if (all && status == FN_OK) {
    fn_text_add(table, "%-9s %-24s %-14s %-16s %-6s %s\n", "rank", "host", "device", "cores",
                "NUMA", "threads");
    for (int first = 0, last; first < dist->size; first = last + 1) {
      last = first;
      while (last + 1 < dist->size && memcmp(&all[first], &all[last + 1], sizeof *all) == 0)
        last++;
      add_line(table, first, last, &all[first]);
    }
  }
  free(all);
  return status;
}
