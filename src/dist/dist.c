#include "dist/dist.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "dist/mpi_status.h"
#include "dist/placement.h"

/** What travels when an error is agreed. */
typedef struct verdict {
  int32_t status;
  char message[4096];
} verdict;

/** Doubles gathered at once by fn_dist_sum; up to this many (values x ranks) need no allocation. */
enum { GATHER = 4096 };

fn_status fn_mpi_status(int code, const char *doing) {
  if (code == MPI_SUCCESS) return FN_OK;
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0;
  MPI_Error_string(code, text, &length);
  FN_FAIL(FN_ERR_INTERNAL, "MPI failed while %s: %s", doing, text);
}

/* ---- start and end of the job -------------------------------------------------------------- */

/** Thread level to ask for: the highest, or less when FIELDNET_MPI_THREADS says so. */
static fn_status wanted_level(int *level) {
  *level = MPI_THREAD_MULTIPLE;
  const char *name = getenv("FIELDNET_MPI_THREADS");
  if (!name || !*name || strcmp(name, "multiple") == 0) return FN_OK;
  if (strcmp(name, "serialized") == 0) {
    *level = MPI_THREAD_SERIALIZED;
  } else if (strcmp(name, "funneled") == 0) {
    *level = MPI_THREAD_FUNNELED;
  } else if (strcmp(name, "single") == 0) {
    *level = MPI_THREAD_SINGLE;
  } else {
    FN_FAIL(FN_ERR_CONFIG,
            "environment variable FIELDNET_MPI_THREADS: expected single, funneled, serialized or "
            "multiple, found '%s'",
            name);
  }
  return FN_OK;
}

/** Cores to which threads can be pinned without meeting those of another rank: all of the mask when
 *  no other rank has them, a part of it when all ranks of the node have the same mask. */
static void list_own_cores(fn_dist *dist, const unsigned char *mine, const int *users) {
  int list[FN_CORES_MOST], count = 0, alone = 0, shared = 0, used = 0;
  for (int c = 0; c < FN_CORES_MOST; c++) {
    used += users[c] > 0;
    if (!mine[c]) continue;
    alone += users[c] == 1;
    shared += users[c] == dist->node_size;
    list[count++] = c;
  }
  dist->core_count = 0;
  dist->cores_given = count < fn_cores_online();
  int first = 0, last = count;
  if (alone < count) {
    if (shared < count || used > count || count < dist->node_size) return;
    first = (int)((int64_t)count * dist->node_rank / dist->node_size);
    last = (int)((int64_t)count * (dist->node_rank + 1) / dist->node_size);
  }
  for (int c = first; c < last; c++)
    dist->core[dist->core_count++] = list[c];
}

/** Cores of this rank's affinity mask, each divided by the number of the node's ranks that may run
 * on it: right for bound ranks, for ranks that share a node unbound, and for anything between. */
static fn_status count_cores(fn_dist *dist, MPI_Comm node) {
  unsigned char mine[FN_CORES_MOST] = {0};
  int users[FN_CORES_MOST], flags[FN_CORES_MOST];
  fn_cores_allowed(mine, FN_CORES_MOST);
  for (int c = 0; c < FN_CORES_MOST; c++)
    flags[c] = mine[c];
  FN_TRY_MPI(MPI_Allreduce(flags, users, FN_CORES_MOST, MPI_INT, MPI_SUM, node), "counting cores");
  double share = 0;
  for (int c = 0; c < FN_CORES_MOST; c++)
    if (mine[c]) share += 1.0 / users[c];
  dist->cores = share < 1 ? 1 : (int)(share + 1e-6);
  list_own_cores(dist, mine, users);
  return FN_OK;
}

static fn_status find_node(fn_dist *dist) {
  MPI_Comm node = MPI_COMM_NULL;
  FN_TRY_MPI(
      MPI_Comm_split_type(dist->comm, MPI_COMM_TYPE_SHARED, dist->rank, MPI_INFO_NULL, &node),
      "finding the ranks of this node");
  MPI_Comm_rank(node, &dist->node_rank);
  MPI_Comm_size(node, &dist->node_size);
  FN_TRY(count_cores(dist, node));
  return fn_mpi_status(MPI_Comm_free(&node), "finding the ranks of this node");
}

static fn_status sum_for_programs(void *self, double *values, int64_t count) {
  return fn_dist_sum(self, values, count);
}

fn_status fn_dist_init(int *argc, char ***argv, fn_dist *dist) {
  *dist = (fn_dist){.comm = MPI_COMM_NULL, .gradient_comm = MPI_COMM_NULL};
  int wanted = 0, provided = 0;
  FN_TRY(wanted_level(&wanted));
  FN_TRY(fn_launch_foresee());
  // Open MPI's own MPI-IO gathers collective reads on one rank in eight and sends them on, also
  // where every rank reads one long piece, which makes them up to ten times slower. It can be told
  // better only here; who set it, keeps it. ROMIO takes a hint, see data/cube_reader.c.
  setenv("OMPI_MCA_fcoll_individual_priority", "95", 0);
  FN_TRY_MPI(MPI_Init_thread(argc, argv, wanted, &provided), "starting");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  // Communicators made from now on inherit the handler.
  FN_TRY_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &dist->comm), "making communicators");
  FN_TRY_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &dist->gradient_comm), "making communicators");
  MPI_Comm_rank(dist->comm, &dist->rank);
  MPI_Comm_size(dist->comm, &dist->size);
  dist->threads_multiple = wanted == MPI_THREAD_MULTIPLE && provided == MPI_THREAD_MULTIPLE;
  dist->collectives = (fn_collectives){
      .self = dist, .rank = dist->rank, .size = dist->size, .sum = sum_for_programs};
  fn_log_identify(dist->rank, dist->size);
  FN_TRY(fn_launch_check(dist->size));
  return find_node(dist);
}

void fn_dist_finalize(fn_dist *dist) {
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  if (!initialised || finalised) return;
  fn_dist_release(dist);
  MPI_Finalize();
}

fn_status fn_dist_split(const fn_dist *parent, int color, int key, fn_dist *group) {
  *group = *parent; // also its place on the node: who takes which device and core must not change
  group->comm = group->gradient_comm = MPI_COMM_NULL;
  FN_TRY_MPI(MPI_Comm_split(parent->comm, color, key, &group->comm), "making groups of ranks");
  FN_TRY_MPI(MPI_Comm_dup(group->comm, &group->gradient_comm), "making groups of ranks");
  MPI_Comm_rank(group->comm, &group->rank);
  MPI_Comm_size(group->comm, &group->size);
  group->collectives = (fn_collectives){
      .self = group, .rank = group->rank, .size = group->size, .sum = sum_for_programs};
  return FN_OK;
}

void fn_dist_release(fn_dist *group) {
  if (group->comm != MPI_COMM_NULL) MPI_Comm_free(&group->comm);
  if (group->gradient_comm != MPI_COMM_NULL) MPI_Comm_free(&group->gradient_comm);
}

void fn_dist_abort(const fn_dist *dist, fn_status status) {
  (void)dist;
  fn_log(FN_ERROR, "%s: %s", fn_status_name(status), fn_error_message());
  MPI_Abort(MPI_COMM_WORLD, status);
}

/* ---- agreement ------------------------------------------------------------------------------- */

/** Record an agreed message. FN_ERR_INTERNAL would have this place added to it, but it names the
 *  place where it failed already: record it as another kind, the message is the same. */
static fn_status record(fn_status status, const char *message) {
  fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "%s", message);
  return status;
}

/** This rank's failure with rank and host, unless an earlier agreement put them there. */
static void describe_failure(const fn_dist *dist, fn_status status, verdict *v) {
  int rank = 0;
  char host[8] = "";
  const char *message = fn_error_message();
  const bool agreed = sscanf(message, "rank %d on %7s", &rank, host) == 2;
  v->status = status;
  if (agreed) {
    snprintf(v->message, sizeof v->message, "%s", message);
  } else {
    snprintf(v->message, sizeof v->message, "rank %d on %s: %s", dist->rank, fn_host_name(),
             message);
  }
}

fn_status fn_dist_agree(const fn_dist *dist, fn_status status) {
  if (dist->size == 1) return status;
  int failing = status == FN_OK ? dist->size : dist->rank, first = dist->size;
  FN_TRY_MPI(MPI_Allreduce(&failing, &first, 1, MPI_INT, MPI_MIN, dist->comm),
             "agreeing on errors");
  if (first == dist->size) return FN_OK;
  verdict v = {0};
  if (dist->rank == first) describe_failure(dist, status, &v);
  FN_TRY_MPI(MPI_Bcast(&v, (int)sizeof v, MPI_BYTE, first, dist->comm), "agreeing on errors");
  return record((fn_status)v.status, v.message);
}

int fn_dist_max(const fn_dist *dist, int flag) {
  if (dist->size == 1) return flag;
  int largest = flag;
  const fn_status status = fn_mpi_status(
      MPI_Allreduce(&flag, &largest, 1, MPI_INT, MPI_MAX, dist->comm), "agreeing on a flag");
  if (status != FN_OK) {
    // Nothing can be agreed any more, and the caller has no way to hear of it.
    fn_log(FN_ERROR, "%s: %s", fn_status_name(status), fn_error_message());
    MPI_Abort(MPI_COMM_WORLD, status);
  }
  return largest;
}

/* ---- sums and broadcasts ------------------------------------------------------------------------
 */

/** Sum n values in place; gathered is scratch, shape [size, n]. */
static fn_status sum_part(const fn_dist *dist, double *values, int n, double *gathered) {
  // Gathered and added in rank order here, rather than left to MPI_Allreduce: the order in which
  // that adds depends on the library, the network and the process layout.
  FN_TRY_MPI(MPI_Allgather(values, n, MPI_DOUBLE, gathered, n, MPI_DOUBLE, dist->comm),
             "summing over ranks");
  for (int i = 0; i < n; i++) {
    double sum = gathered[i];
    for (int r = 1; r < dist->size; r++)
      sum += gathered[(int64_t)r * n + i];
    values[i] = sum;
  }
  return FN_OK;
}

fn_status fn_dist_sum(const fn_dist *dist, double *values, int64_t n) {
  if (dist->size == 1 || n <= 0) return FN_OK;
  double few[GATHER], *gathered = few, *many = NULL;
  int64_t part = GATHER / dist->size;
  if (n > part) {
    part = part > GATHER / 4 ? part : GATHER / 4;
    many = malloc((size_t)(part * dist->size) * sizeof *many);
    gathered = many;
  }
  fn_status status = FN_OK;
  if (!gathered)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "out of memory summing over ranks");
  for (int64_t i = 0; i < n && status == FN_OK; i += part)
    status = sum_part(dist, values + i, (int)(n - i < part ? n - i : part), gathered);
  free(many);
  return status;
}

fn_status fn_dist_average_buffers(const fn_dist *dist, fn_parameters *parameters) {
  if (dist->size == 1) return FN_OK;
  FN_TRY(fn_parameters_buffers_to_host(parameters));
  fn_parameters_buffers_changed(parameters);
  float *f32 = parameters->buffers;
  double *f64 = parameters->buffers, part[1024];
  const bool is_double = parameters->dtype == FN_F64;
  for (int64_t start = 0; start < parameters->buffer_count; start += 1024) {
    const int64_t left = parameters->buffer_count - start, n = left < 1024 ? left : 1024;
    for (int64_t i = 0; i < n; i++)
      part[i] = is_double ? f64[start + i] : (double)f32[start + i];
    FN_TRY(fn_dist_sum(dist, part, n));
    for (int64_t i = 0; i < n; i++) {
      const double mean = part[i] / dist->size;
      if (is_double) {
        f64[start + i] = mean;
      } else {
        f32[start + i] = (float)mean;
      }
    }
  }
  return FN_OK;
}

fn_status fn_dist_broadcast(const fn_dist *dist, void *bytes, int64_t count) {
  if (dist->size == 1) return FN_OK;
  // MPI counts are int.
  const int64_t largest = (int64_t)1 << 30;
  for (int64_t start = 0; start < count; start += largest) {
    const int64_t left = count - start;
    FN_TRY_MPI(MPI_Bcast((char *)bytes + start, (int)(left < largest ? left : largest), MPI_BYTE, 0,
                         dist->comm),
               "broadcasting");
  }
  return FN_OK;
}
