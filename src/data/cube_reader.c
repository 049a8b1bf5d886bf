/* One round of cubes, read collectively through parallel HDF5, each rank for itself through HDF5,
 * or by positioned reads.
 *
 * The HDF5 lock and collective calls. The lock is one per process, and it is held during collective
 * HDF5 calls, in which ranks wait for each other. Three rules keep that from becoming a circle:
 *
 * 1. Ranks meet before a collective read without any lock, each with room for its cube. Otherwise
 *    rank 0 might hold its lock while it waits for rank 1 to have room, which comes with the next
 *    step, which waits for rank 0's main thread, which waits for the lock to write a state.
 * 2. Rank 0 of the communicator takes its lock first and tells the others, which then take theirs.
 *    Two collective calls at a time (two queues, or one that is created while another reads) could
 *    otherwise each hold some ranks' locks and wait for the rest. As it is, whoever holds a lock on
 *    another rank for a collective call knows that rank 0 holds it for the same call.
 * 3. Nobody waits for other ranks while holding the lock, but for these calls. The thread of rank 0
 *    that writes a state takes it for one dataset at a time and never waits for a rank; the round
 *    waits for that dataset, and that is all.
 *
 * Ranks wait for each other asleep: MPI's own waiting would take a core from the training. */
#include "data/cube_reader.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/system.h"
#include "field/cube_read.h"

/** Bytes per rank and round: enough that the ranks' waiting for each other is small beside reading
 *  them, few enough that the check for finite values still finds them in the processor's cache. */
enum { ROUND_BYTES = 8 << 20 };

struct fn_cube_reader {
  fn_cube_file *file;
  fn_cube_ring ring;
  const fn_cube_file_info *info;
  MPI_Comm comm;
  int rank, size;
  fn_cube_path path;
  hid_t hdf5, dataset, transfer; // of the collective path; guarded by the HDF5 lock
  bool wide;                     // the packed dataset holds float64
  double *scratch64;             // one cube, when wide
  char *scratch;                 // slabs of a round, original layout
  MPI_Datatype plane;            // H * W cells
  int64_t *wanted;               // cube of every rank in this round, or -1
  hid_t *part;                   // its dataset, original layout
  int *counts;                   // 4 x size: counts and places of MPI_Alltoallv, in planes
  int64_t collective, independent;
  char cause[160];
};

/* ---- agreement ---------------------------------------------------------------------------------
 */

/** MPI's own failure as status. */
static fn_status check_mpi(int code, const char *doing) {
  if (code == MPI_SUCCESS) return FN_OK;
  char text[MPI_MAX_ERROR_STRING] = "unknown error";
  int length = 0;
  MPI_Error_string(code, text, &length);
  FN_FAIL(FN_ERR_INTERNAL, "MPI failed while %s: %s", doing, text);
}

/** Wait without taking a core for long. */
static fn_status wait_quietly(MPI_Request *request, const char *doing) {
  struct timespec pause = {.tv_nsec = 20000};
  for (int tries = 0;; tries++) {
    int done = 0;
    FN_TRY(check_mpi(MPI_Test(request, &done, MPI_STATUS_IGNORE), doing));
    if (done) return FN_OK;
    if (tries < 20) {
      sched_yield();
    } else {
      nanosleep(&pause, NULL);
      if (tries % 50 == 49 && pause.tv_nsec < 500000) pause.tv_nsec *= 2;
    }
  }
}

typedef struct verdict {
  int32_t status;
  char message[4092];
} verdict;

fn_status fn_cube_least(MPI_Comm comm, int value, int *least) {
  MPI_Request request = MPI_REQUEST_NULL;
  const char *doing = "waiting for the other ranks";
  *least = value;
  FN_TRY(check_mpi(MPI_Iallreduce(&value, least, 1, MPI_INT, MPI_MIN, comm, &request), doing));
  return wait_quietly(&request, doing);
}

fn_status fn_cube_agree(MPI_Comm comm, fn_status status) {
  int rank, size, failing;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  FN_TRY(fn_cube_least(comm, status == FN_OK ? size : rank, &failing));
  if (failing == size) return FN_OK;
  verdict v = {0};
  if (rank == failing) {
    int earlier = 0;
    char host[8] = "";
    v.status = status;
    // What was agreed before has rank and host already.
    if (size == 1 || sscanf(fn_error_message(), "rank %d on %7s", &earlier, host) == 2) {
      snprintf(v.message, sizeof v.message, "%s", fn_error_message());
    } else {
      snprintf(v.message, sizeof v.message, "rank %d on %s: %s", rank, fn_host_name(),
               fn_error_message());
    }
  }
  FN_TRY(check_mpi(MPI_Bcast(&v, (int)sizeof v, MPI_BYTE, failing, comm), "agreeing on errors"));
  // FN_ERR_INTERNAL would have this place added to the message, which names its own already.
  fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "%s", v.message);
  return (fn_status)v.status;
}

/** Take the HDF5 lock on all ranks for a collective call: rule 2.
 *  Taken also on failure. */
static fn_status lock_together(const fn_cube_reader *r) {
  char go = 1;
  MPI_Request request = MPI_REQUEST_NULL;
  if (r->rank == 0) fn_hdf5_lock();
  fn_status status =
      check_mpi(MPI_Ibcast(&go, 1, MPI_CHAR, 0, r->comm, &request), "starting to read");
  if (status == FN_OK) status = wait_quietly(&request, "starting to read");
  if (r->rank != 0) fn_hdf5_lock();
  return status;
}

/* ---- what HDF5 really did ----------------------------------------------------------------------
 */

static const char *const causes[] = {
    "independent transfer was asked for",
    "the type of the numbers has to be converted",
    "a data transform is set",
    "atomic mode is set",
    "the selection is no simple one",
    "the dataset is neither contiguous nor chunked",
    "parallel writing of filtered data is disabled",
    "a rank could not tell its selection",
    "an unknown reason",
};

static void describe_cause(uint32_t bits, char *text, size_t size) {
  size_t used = 0;
  for (int i = 0; i < 9 && used < size; i++)
    if (bits & (1u << i) || (i == 8 && bits >> 8))
      used += (size_t)snprintf(text + used, size - used, "%s%s", used ? "; " : "", causes[i]);
}

/** Count the read that was just made. HDF5 lock held. */
static void ask_what_happened(fn_cube_reader *r) {
  H5D_mpio_actual_io_mode_t mode = H5D_MPIO_NO_COLLECTIVE;
  uint32_t local = 0, global = 0;
  H5Pget_mpio_actual_io_mode(r->transfer, &mode);
  H5Pget_mpio_no_collective_cause(r->transfer, &local, &global);
  if (global == 0 && mode != H5D_MPIO_NO_COLLECTIVE && mode != H5D_MPIO_CHUNK_INDEPENDENT) {
    r->collective++;
    return;
  }
  r->independent++;
  if (r->cause[0]) return;
  if (global) {
    describe_cause(global, r->cause, sizeof r->cause);
  } else {
    snprintf(r->cause, sizeof r->cause, "HDF5 chose to read each chunk independently");
  }
  fn_log(FN_WARN, "%s: collective reading was asked for, but HDF5 reads independently: %s",
         r->info->path, r->cause);
}

/* ---- collective, packed ------------------------------------------------------------------------
 */

/** One H5Dread of what is selected in both spaces. Collective. HDF5 lock held; `text`: reason of a
 *  failure. */
static herr_t read_selected(fn_cube_reader *r, hid_t dataset, hid_t type, hid_t memory, hid_t space,
                            void *cells, char *text, size_t size) {
  static char nothing;
  const herr_t result =
      H5Dread(dataset, type, memory, space, r->transfer, cells ? cells : (void *)&nothing);
  if (result < 0) fn_hdf5_reason(text, size);
  if (result >= 0) ask_what_happened(r);
  return result;
}

/** Select the whole cubes row[0..count) of a space [n, D, H, W]; none when count is 0. */
static void select_rows(hid_t space, const int64_t *row, int count, const int64_t *size) {
  const hsize_t block[4] = {1, (hsize_t)size[0], (hsize_t)size[1], (hsize_t)size[2]};
  if (count == 0) H5Sselect_none(space);
  for (int i = 0; i < count; i++) {
    const hsize_t start[4] = {(hsize_t)row[i], 0, 0, 0};
    H5Sselect_hyperslab(space, i ? H5S_SELECT_OR : H5S_SELECT_SET, start, NULL, block, NULL);
  }
}

static int ascending(const void *a, const void *b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/** Rows and slots in ascending order, each row once: HDF5 goes through both selections in that
 *  order. Slots are exchanged accordingly; a cube that is wanted again keeps its slot and goes into
 *  `again`. Returns the number of rows. */
static int order_rows(const fn_cube_reader *r, fn_cube_round *round, int64_t *row, int64_t *slot,
                      int *again) {
  int rows = 0, found;
  for (int i = 0; i < round->count; i++) {
    again[i] = -1;
    if (round->cube[i] < 0) continue;
    for (found = 0; found < i && round->cube[found] != round->cube[i]; found++)
      continue;
    if (found < i) {
      again[i] = found;
      continue;
    }
    row[rows] = r->info->cube[round->cube[i]].row;
    slot[rows++] = round->slot[i];
  }
  qsort(row, (size_t)rows, sizeof *row, ascending);
  qsort(slot, (size_t)rows, sizeof *slot, ascending);
  for (int i = 0; i < round->count; i++)
    for (int j = 0; j < rows && round->cube[i] >= 0 && again[i] < 0; j++)
      if (row[j] == r->info->cube[round->cube[i]].row) round->slot[i] = (int32_t)slot[j];
  return rows;
}

static char *cells_of(const fn_cube_reader *r, const fn_cube_round *round, int i) {
  return r->ring.memory + round->slot[i] * fn_cube_file_bytes(r->file);
}

/** What is left to do on this rank with cubes that were read, in the order of the round. */
static fn_status check_round(fn_cube_reader *r, const fn_cube_round *round, const int *again) {
  for (int i = 0; i < round->count; i++) {
    if (round->cube[i] < 0) continue;
    char *cells = cells_of(r, round, i);
    // Converted here: HDF5 does not read collectively when it has to convert.
    for (int64_t c = 0; r->wide && c < r->file->cells; c++)
      ((float *)(void *)cells)[c] = (float)r->scratch64[c];
    if (again[i] >= 0)
      memcpy(cells, cells_of(r, round, again[i]), (size_t)fn_cube_file_bytes(r->file));
    FN_TRY(fn_cube_check_cells(r->file, round->cube[i], 0, cells, r->file->cells));
  }
  return FN_OK;
}

static fn_status round_packed(fn_cube_reader *r, fn_cube_round *round) {
  const int64_t *size = r->info->size, first = 0;
  int64_t row[FN_ROUND_MOST], slot[FN_ROUND_MOST];
  int again[FN_ROUND_MOST];
  const int rows = order_rows(r, round, row, slot, again);
  const int64_t slots = r->wide || r->ring.slots == 0 ? 1 : r->ring.slots;
  const hsize_t shape[4] = {(hsize_t)slots, (hsize_t)size[0], (hsize_t)size[1], (hsize_t)size[2]};
  char why[512] = "";
  const fn_status locked = lock_together(r);
  const hid_t space = H5Dget_space(r->dataset), memory = H5Screate_simple(4, shape, NULL);
  select_rows(space, row, rows, size);
  select_rows(memory, r->wide ? &first : slot, rows, size);
  void *to = r->wide ? (void *)r->scratch64 : (void *)r->ring.memory;
  const hid_t type =
      r->wide ? H5Tcopy(H5T_NATIVE_DOUBLE) : fn_cube_memory_type(r->info, r->dataset);
  const herr_t result =
      read_selected(r, r->dataset, type, memory, space, rows ? to : NULL, why, sizeof why);
  H5Tclose(type);
  H5Sclose(space);
  H5Sclose(memory);
  fn_hdf5_unlock();
  FN_TRY(locked);
  if (rows == 0) return FN_OK;
  FN_TRY(fn_cube_check_length(r->file));
  FN_CHECK(result >= 0, FN_ERR_DATA, "cannot read cubes of %s: %s", r->info->path, why);
  return check_round(r, round, again);
}

/* ---- collective, many datasets -----------------------------------------------------------------
 */

/** First plane of a rank's slab. */
static int64_t slab_start(const fn_cube_reader *r, int rank) {
  return r->info->size[0] * rank / r->size;
}

/** Open the datasets of the round, each rank for itself and all before the first is read: a rank
 *  that cannot must say so before the others wait for it in a read. HDF5 lock held. */
static fn_status open_datasets(fn_cube_reader *r) {
  char why[512] = "";
  int64_t failed = -1;
  for (int i = 0; i < r->size; i++) {
    r->part[i] = -1;
    if (r->wanted[i] < 0 || failed >= 0) continue;
    r->part[i] = H5Dopen2(r->hdf5, r->info->cube[r->wanted[i]].name, H5P_DEFAULT);
    if (r->part[i] >= 0) continue;
    failed = r->wanted[i];
    fn_hdf5_reason(why, sizeof why);
  }
  if (failed < 0) return FN_OK;
  FN_TRY(fn_cube_check_length(r->file));
  FN_FAIL(FN_ERR_DATA, "cannot open cube %s of %s: %s", r->info->cube[failed].name, r->info->path,
          why);
}

/** Read this rank's slab of every cube of the round, together with all ranks. HDF5 lock held. */
static fn_status read_parts(fn_cube_reader *r) {
  const int64_t *cells = r->info->size, first = slab_start(r, r->rank);
  const int64_t planes = slab_start(r, r->rank + 1) - first;
  const hsize_t start[3] = {(hsize_t)first, 0, 0};
  const hsize_t count[3] = {planes ? (hsize_t)planes : 1, (hsize_t)cells[1], (hsize_t)cells[2]};
  char why[512] = "", text[512] = "";
  int64_t failed = -1;
  const int64_t bytes = planes * cells[1] * cells[2] * (int64_t)fn_raw_bytes(r->info->type);
  char *to = r->scratch;
  for (int i = 0; i < r->size; i++) {
    if (r->wanted[i] < 0) continue;
    const hid_t space = H5Dget_space(r->part[i]), memory = H5Screate_simple(3, count, NULL);
    if (planes) {
      H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL);
    } else {
      H5Sselect_none(space);
      H5Sselect_none(memory);
    }
    const hid_t type = fn_cube_memory_type(r->info, r->part[i]);
    const herr_t result =
        read_selected(r, r->part[i], type, memory, space, planes ? to : NULL, text, sizeof text);
    H5Tclose(type);
    H5Sclose(space);
    H5Sclose(memory);
    // After a failure the others still need this rank to take part.
    if (result < 0 && failed < 0) {
      failed = r->wanted[i];
      memcpy(why, text, sizeof why);
    }
    to += bytes;
  }
  FN_TRY(fn_cube_check_length(r->file));
  FN_CHECK(failed < 0, FN_ERR_DATA, "cannot read cube %s of %s: %s", r->info->cube[failed].name,
           r->info->path, why);
  return FN_OK;
}

/** Every rank sends each other rank its slab of that rank's cube. */
static fn_status exchange(fn_cube_reader *r, int64_t cube, char *cells) {
  const int64_t mine = slab_start(r, r->rank + 1) - slab_start(r, r->rank);
  int *send = r->counts, *from = send + r->size, *receive = from + r->size, *to = receive + r->size;
  for (int i = 0, sent = 0; i < r->size; i++) {
    send[i] = r->wanted[i] < 0 ? 0 : (int)mine;
    from[i] = sent;
    sent += send[i];
    receive[i] = cube < 0 ? 0 : (int)(slab_start(r, i + 1) - slab_start(r, i));
    to[i] = (int)slab_start(r, i);
  }
  return check_mpi(
      MPI_Alltoallv(r->scratch, send, from, r->plane, cells, receive, to, r->plane, r->comm),
      "exchanging slabs of cubes");
}

static fn_status round_original(fn_cube_reader *r, int64_t cube, char *cells) {
  MPI_Request request = MPI_REQUEST_NULL;
  const char *doing = "telling which cubes to read";
  FN_TRY(check_mpi(
      MPI_Iallgather(&cube, 1, MPI_INT64_T, r->wanted, 1, MPI_INT64_T, r->comm, &request), doing));
  FN_TRY(wait_quietly(&request, doing));
  const fn_status locked = lock_together(r);
  fn_status status = fn_cube_agree(r->comm, open_datasets(r));
  const bool opened = status == FN_OK;
  if (opened) status = read_parts(r);
  for (int i = 0; i < r->size; i++)
    if (r->part[i] >= 0) H5Dclose(r->part[i]);
  fn_hdf5_unlock();
  FN_TRY(locked);
  // Every rank got here with the same answer to this; a failed read is told after the exchange.
  if (opened) FN_TRY(exchange(r, cube, cells));
  if (status != FN_OK || cube < 0) return status;
  return fn_cube_check_cells(r->file, cube, 0, cells, r->file->cells);
}

/* ---- opening for collective reads --------------------------------------------------------------
 */

/** What MPI-IO is told. Every rank reads long contiguous pieces, for which the exchange between
 *  aggregating ranks (collective buffering) only adds copies: measured, docs/cubes.md. Libraries
 *  ignore what they do not know; Open MPI's own MPI-IO takes it from the environment, see dist.c.
 */
static MPI_Info make_hints(void) {
  MPI_Info hints = MPI_INFO_NULL;
  if (MPI_Info_create(&hints) != MPI_SUCCESS) return MPI_INFO_NULL;
  MPI_Info_set(hints, "romio_cb_read", "disable");
  return hints;
}

static fn_status open_locked(fn_cube_reader *r) {
  char why[512];
  MPI_Info hints = make_hints();
  const hid_t access = fn_hdf5_read_access();
  H5Pset_fapl_mpio(access, r->comm, hints);
  // All ranks read together what tells where the data lie, so that it is fetched once. Not where
  // there are many datasets: a rank that fails to open one would leave the others waiting.
  H5Pset_all_coll_metadata_ops(access, r->info->packed);
  r->hdf5 = H5Fopen(r->info->path, H5F_ACC_RDONLY, access);
  if (r->hdf5 < 0) fn_hdf5_reason(why, sizeof why);
  H5Pclose(access);
  if (hints != MPI_INFO_NULL) MPI_Info_free(&hints);
  FN_CHECK(r->hdf5 >= 0, FN_ERR_DATA, "cannot open %s for collective reading: %s", r->info->path,
           why);
  r->transfer = H5Pcreate(H5P_DATASET_XFER);
  H5Pset_dxpl_mpio(r->transfer, H5FD_MPIO_COLLECTIVE);
  if (!r->info->packed) return FN_OK;
  const hid_t dataset_access = fn_cube_dataset_access(r->info);
  H5Pset_all_coll_metadata_ops(dataset_access, true);
  r->dataset = H5Dopen2(r->hdf5, "cubes", dataset_access);
  if (r->dataset < 0) fn_hdf5_reason(why, sizeof why);
  H5Pclose(dataset_access);
  FN_CHECK(r->dataset >= 0, FN_ERR_DATA, "cannot open %s:/cubes: %s", r->info->path, why);
  const hid_t type = H5Dget_type(r->dataset);
  r->wide = H5Tequal(type, H5T_NATIVE_DOUBLE) > 0;
  H5Tclose(type);
  return FN_OK;
}

/** MPI's name of as many bytes as a cell has. */
static MPI_Datatype cell_of(fn_raw_type type) {
  switch (fn_raw_bytes(type)) {
    case 1: return MPI_UINT8_T;
    case 2: return MPI_UINT16_T;
    default: return MPI_UINT32_T;
  }
}

static fn_status allocate(fn_cube_reader *r) {
  const int64_t plane = r->info->size[1] * r->info->size[2];
  const int64_t slab = (slab_start(r, r->rank + 1) - slab_start(r, r->rank)) * plane;
  FN_CHECK(plane <= INT32_MAX, FN_ERR_UNSUPPORTED, "%s: a plane of %lld cells is too large",
           r->info->path, (long long)plane);
  if (r->wide) r->scratch64 = malloc((size_t)r->file->cells * sizeof *r->scratch64);
  if (!r->info->packed)
    r->scratch = malloc((size_t)(r->size * slab + 1) * fn_raw_bytes(r->info->type));
  r->wanted = calloc((size_t)r->size, sizeof *r->wanted);
  r->part = calloc((size_t)r->size, sizeof *r->part);
  r->counts = calloc(4 * (size_t)r->size, sizeof *r->counts);
  FN_CHECK(r->wanted && r->part && r->counts && (!r->wide || r->scratch64) &&
               (r->info->packed || r->scratch),
           FN_ERR_MEMORY, "no memory for a cube of %lld cells", (long long)r->file->cells);
  FN_TRY(check_mpi(MPI_Type_contiguous((int)plane, cell_of(r->info->type), &r->plane),
                   "describing a plane"));
  return check_mpi(MPI_Type_commit(&r->plane), "describing a plane");
}

static fn_status open_together(fn_cube_reader *r) {
  // A file that one rank cannot open is found before HDF5 opens it together, and said in words.
  FN_TRY(fn_cube_agree(r->comm, fn_cube_check_length(r->file)));
  fn_status status = lock_together(r);
  if (status == FN_OK) status = open_locked(r);
  fn_hdf5_unlock();
  FN_TRY(fn_cube_agree(r->comm, status));
  return fn_cube_agree(r->comm, allocate(r));
}

fn_status fn_cube_reader_create(fn_cube_file *file, MPI_Comm comm, fn_cube_path path,
                                bool lock_step, fn_cube_ring ring, fn_cube_reader **reader) {
  fn_cube_reader *r = calloc(1, sizeof *r);
  fn_status status = FN_OK;
  *reader = r;
  if (!r) status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for reading cubes");
  if (lock_step) status = fn_cube_agree(comm, status);
  if (status == FN_OK) {
    *r = (fn_cube_reader){.file = file,
                          .ring = ring,
                          .info = fn_cube_file_get_info(file),
                          .comm = comm,
                          .size = 1,
                          .path = path,
                          .hdf5 = -1,
                          .dataset = -1,
                          .transfer = -1,
                          .plane = MPI_DATATYPE_NULL};
    if (path == FN_CUBES_COLLECTIVE) {
      MPI_Comm_rank(comm, &r->rank);
      MPI_Comm_size(comm, &r->size);
      status = open_together(r);
    }
    if (status == FN_OK) return FN_OK;
    fn_cube_reader_destroy(r);
    r = NULL;
  }
  free(r);
  *reader = NULL;
  return status;
}

void fn_cube_reader_destroy(fn_cube_reader *r) {
  if (!r) return;
  if (r->path == FN_CUBES_COLLECTIVE) {
    // Closing goes on whatever MPI says.
    int ignored;
    fn_status status = fn_cube_least(r->comm, 0, &ignored); // rule 1
    const fn_status locked = lock_together(r);
    if (status == FN_OK) status = locked;
    if (status != FN_OK) fn_log(FN_ERROR, "closing %s: %s", r->info->path, fn_error_message());
    if (r->dataset >= 0) H5Dclose(r->dataset);
    if (r->transfer >= 0) H5Pclose(r->transfer);
    if (r->hdf5 >= 0) H5Fclose(r->hdf5);
    fn_hdf5_unlock();
  }
  if (r->plane != MPI_DATATYPE_NULL) MPI_Type_free(&r->plane);
  free(r->scratch64);
  free(r->scratch);
  free(r->wanted);
  free(r->counts);
  free(r->part);
  free(r);
}

/* ---- all paths ---------------------------------------------------------------------------------
 */

int fn_cube_reader_batch(const fn_cube_reader *r) {
  // What is read several cubes at a time is one selection; elsewhere it is one after another, and
  // only the agreement is shared.
  if (r->path == FN_CUBES_COLLECTIVE && (!r->info->packed || r->info->chunk[0] || r->wide))
    return 1;
  const int64_t count = ROUND_BYTES / fn_cube_file_bytes(r->file);
  return count < 1 ? 1 : count > FN_ROUND_MOST ? FN_ROUND_MOST : (int)count;
}

static fn_status read_one(fn_cube_reader *r, const fn_cube_round *round, int i) {
  const int64_t cube = round->cube[i];
  char *cells = cube < 0 ? NULL : cells_of(r, round, i);
  if (r->path == FN_CUBES_COLLECTIVE) return round_original(r, cube, cells);
  if (cube < 0) return FN_OK;
  return r->path == FN_CUBES_DIRECT ? fn_cube_read_direct(r->file, cube, cells)
                                    : fn_cube_read_hdf5(r->file, cube, cells);
}

fn_status fn_cube_reader_round(fn_cube_reader *r, fn_cube_round *round) {
  if (r->path == FN_CUBES_COLLECTIVE && r->info->packed) return round_packed(r, round);
  for (int i = 0; i < round->count; i++)
    FN_TRY(read_one(r, round, i));
  return FN_OK;
}

void fn_cube_reader_figures(const fn_cube_reader *r, fn_cube_queue_figures *figures) {
  figures->path = r->path;
  figures->collective_reads = r->collective;
  figures->independent_reads = r->independent;
  memcpy(figures->cause, r->cause, sizeof figures->cause);
}
