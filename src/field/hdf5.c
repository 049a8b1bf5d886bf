/* Reading datasets of HDF5 files: any numeric type, any layout, converted by HDF5 itself. */
#include "field/hdf5.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "field/array.h"

/** Tickets: a mutex alone mostly goes to the thread that has just given it up. */
static struct {
  pthread_mutex_t guard;
  pthread_cond_t turn;
  uint64_t next, served;
} lock = {.guard = PTHREAD_MUTEX_INITIALIZER, .turn = PTHREAD_COND_INITIALIZER};

void fn_hdf5_lock(void) {
  pthread_mutex_lock(&lock.guard);
  const uint64_t ticket = lock.next++;
  while (ticket != lock.served)
    pthread_cond_wait(&lock.turn, &lock.guard);
  pthread_mutex_unlock(&lock.guard);
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

void fn_hdf5_unlock(void) {
  pthread_mutex_lock(&lock.guard);
  lock.served++;
  pthread_cond_broadcast(&lock.turn);
  pthread_mutex_unlock(&lock.guard);
}

typedef struct reason {
  char *text;
  size_t size;
} reason;

static herr_t keep_innermost(unsigned n, const H5E_error2_t *error, void *user) {
  const reason *r = user;
  char *minor = H5Eget_minor(error->min_num);
  if (n == 0) {
    snprintf(r->text, r->size, "%s%s%s", minor ? minor : "",
             minor && error->desc && *error->desc ? ": " : "", error->desc ? error->desc : "");
  }
  H5free_memory(minor);
  return 0;
}

char *fn_hdf5_reason(char *text, size_t size) {
  text[0] = '\0';
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &(reason){text, size});
  return text;
}

hid_t fn_hdf5_read_access(void) {
  const hid_t access = H5Pcreate(H5P_FILE_ACCESS);
#if H5_VERSION_GE(1, 10, 7)
  H5Pset_file_locking(access, false, true);
#endif
  return access;
}

bool fn_hdf5_type_name(hid_t type, char *name, size_t size) {
  const H5T_class_t class = H5Tget_class(type);
  const char order = H5Tget_size(type) == 1 ? '|' : H5Tget_order(type) == H5T_ORDER_BE ? '>' : '<';
  const unsigned bytes = (unsigned)H5Tget_size(type);
  switch (class) {
    case H5T_INTEGER:
      snprintf(name, size, "%c%c%u", order, H5Tget_sign(type) == H5T_SGN_NONE ? 'u' : 'i', bytes);
      return true;
    case H5T_FLOAT: snprintf(name, size, "%cf%u", order, bytes); return true;
    case H5T_ENUM: snprintf(name, size, "%cb%u", order, bytes); return bytes == 1; // h5py's bool
    case H5T_STRING: snprintf(name, size, "string"); return false;
    case H5T_COMPOUND: snprintf(name, size, "compound (or complex)"); return false;
    case H5T_ARRAY: snprintf(name, size, "array"); return false;
    case H5T_VLEN: snprintf(name, size, "variable-length"); return false;
    default: snprintf(name, size, "not numeric"); return false;
  }
}

/* ---- names of datasets ------------------------------------------------------------------- */

typedef struct listing {
  fn_arena *arena;
  const char **name;
  int count, capacity;
  int visited; // bounds the walk: hard links can form cycles
} listing;

static void listing_add(listing *list, const char *name) {
  if (list->count == list->capacity) {
    const int capacity = list->capacity ? 2 * list->capacity : 16;
    const char **grown = fn_arena_take(list->arena, (size_t)capacity * sizeof *grown);
    if (list->count) memcpy(grown, list->name, (size_t)list->count * sizeof *grown);
    list->name = grown;
    list->capacity = capacity;
  }
  list->name[list->count++] = fn_arena_text(list->arena, name);
}

enum { MAX_DEPTH = 16, MAX_VISITED = 1000000 };

/** Datasets of a group and its hard-linked subgroups; soft links are followed to datasets only. */
static void list_group(hid_t group, const char *prefix, int depth, listing *list) {
  H5G_info_t info;
  if (depth > MAX_DEPTH || H5Gget_info(group, &info) < 0) return;
  for (hsize_t i = 0; i < info.nlinks && list->visited < MAX_VISITED; i++) {
    list->visited++;
    char name[1024], path[2048];
    if (H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name, sizeof name,
                           H5P_DEFAULT) < 0)
      continue;
    if (snprintf(path, sizeof path, "%s/%s", prefix, name) >= (int)sizeof path) continue;
    H5L_info_t link;
    const hid_t object = H5Oopen(group, name, H5P_DEFAULT);
    if (object < 0) continue; // a dangling link
    const H5I_type_t type = H5Iget_type(object);
    if (type == H5I_DATASET) listing_add(list, path);
    if (type == H5I_GROUP && H5Lget_info(group, name, &link, H5P_DEFAULT) >= 0 &&
        link.type == H5L_TYPE_HARD)
      list_group(object, path, depth + 1, list);
    H5Oclose(object);
  }
}

static int compare_names(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void list_datasets(hid_t file, listing *list) {
  const hid_t root = H5Gopen2(file, "/", H5P_DEFAULT);
  if (root < 0) return;
  list_group(root, "", 0, list);
  H5Gclose(root);
  if (list->count) qsort(list->name, (size_t)list->count, sizeof *list->name, compare_names);
}

/* ---- opening ----------------------------------------------------------------------------- */

typedef struct hdf5_array {
  fn_array array;
  hid_t file, dataset;
  hid_t raw_type; // the file's in the byte order of the machine; -1: none
  char *file_path;
  char *path; // as in messages: file:/dataset
  fn_file_mark mark;
} hdf5_array;

/** Why the system will not give us the file, in its words, before HDF5 says it in its own. */
static fn_status check_readable(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && errno == EMFILE) {
    // Every open file keeps a descriptor: take what the hard limit allows.
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
      limit.rlim_cur = limit.rlim_max;
      setrlimit(RLIMIT_NOFILE, &limit);
      fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    }
  }
  FN_CHECK(fd >= 0, FN_ERR_DATA, "cannot open %s: %s", path, strerror(errno));
  struct stat info;
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  close(fd);
  FN_CHECK(regular, FN_ERR_DATA, "cannot read %s: not a regular file", path);
  return FN_OK;
}

fn_status fn_hdf5_open_file(const char *path, hid_t *file) {
  FN_TRY(check_readable(path));
  const hid_t access = fn_hdf5_read_access();
  *file = H5Fopen(path, H5F_ACC_RDONLY, access);
  char reason_text[512] = "";
  if (*file < 0) fn_hdf5_reason(reason_text, sizeof reason_text);
  H5Pclose(access);
  FN_CHECK(*file >= 0, FN_ERR_DATA, "cannot open %s as HDF5: %s", path, reason_text);
  return FN_OK;
}

/** "/a, /b, /c, ..." of at most five names. */
static char *join_names(const listing *list, char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (int i = 0; i < list->count && used < size; i++) {
    if (i == 5) {
      snprintf(text + used, size - used, ", ...");
      break;
    }
    used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", list->name[i]);
  }
  return text;
}

/** Find the dataset meant by `name` ("" the only one) and write its full name into `full`. */
static fn_status choose_dataset(hid_t file, const char *path, const char *name, char *full,
                                size_t size) {
  if (*name) {
    snprintf(full, size, "%s%s", *name == '/' ? "" : "/", name);
    return FN_OK;
  }
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory opening %s", path);
  listing list = {.arena = arena};
  list_datasets(file, &list);
  fn_status status = FN_OK;
  char names[512];
  if (list.count == 0) {
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "%s holds no dataset", path);
  } else if (list.count > 1) {
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__,
                          "%s holds %d datasets (%s): name one, as in %s:%s", path, list.count,
                          join_names(&list, names, sizeof names), path, list.name[0]);
  } else {
    snprintf(full, size, "%s", list.name[0]);
  }
  fn_arena_destroy(arena);
  return status;
}

/** The chunk cache must hold the chunks that pieces of one block share: at least two of them. */
static hid_t dataset_access(hid_t dataset) {
  const hid_t access = H5Pcreate(H5P_DATASET_ACCESS), create = H5Dget_create_plist(dataset);
  hsize_t chunk[H5S_MAX_RANK];
  if (H5Pget_layout(create) == H5D_CHUNKED) {
    const int ndim = H5Pget_chunk(create, H5S_MAX_RANK, chunk);
    const hid_t type = H5Dget_type(dataset);
    size_t bytes = H5Tget_size(type);
    for (int i = 0; i < ndim; i++)
      bytes *= (size_t)chunk[i];
    H5Tclose(type);
    const size_t least = 1 << 20, most = 256 << 20;
    const size_t cache = 2 * bytes < least ? least : 2 * bytes > most ? most : 2 * bytes;
    H5Pset_chunk_cache(access, 521, cache, 0.75);
  }
  H5Pclose(create);
  return access;
}

static fn_status not_found(const hdf5_array *h, const char *path, const char *name) {
  char reason_text[512], names[512];
  fn_hdf5_reason(reason_text, sizeof reason_text);
  fn_arena *arena = fn_arena_create();
  FN_CHECK(arena, FN_ERR_MEMORY, "out of memory opening %s", path);
  listing list = {.arena = arena};
  list_datasets(h->file, &list);
  bool listed = false;
  for (int i = 0; i < list.count; i++)
    listed |= strcmp(list.name[i], name) == 0;
  const char *near = fn_text_closest(name, list.name, list.count);
  const fn_status status =
      listed ? fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "cannot open %s:%s: %s", path, name,
                            reason_text)
             : fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "%s holds no dataset %s; %s%s", path,
                            name, near ? "did you mean " : "it holds ",
                            near         ? near
                            : list.count ? join_names(&list, names, sizeof names)
                                         : "none at all");
  fn_arena_destroy(arena);
  return status;
}

/** Whether a float has these fields, as IEEE 754 and its relatives do: sign, exponent, fraction. */
static bool is_float(hid_t type, size_t exponent, size_t fraction) {
  size_t sign, at, bits, from, size;
  return H5Tget_fields(type, &sign, &at, &bits, &from, &size) >= 0 && bits == exponent &&
         size == fraction && from == 0 && at == fraction && sign == fraction + exponent &&
         H5Tget_ebias(type) == ((size_t)1 << (exponent - 1)) - 1 &&
         H5Tget_norm(type) == H5T_NORM_IMPLIED;
}

static fn_raw_type raw_float(hid_t type) {
  switch (H5Tget_size(type)) {
    case 2:
      return is_float(type, 5, 10) ? FN_RAW_F16 : is_float(type, 8, 7) ? FN_RAW_BF16 : FN_RAW_NONE;
    case 4: return is_float(type, 8, 23) ? FN_RAW_F32 : FN_RAW_NONE;
    case 8: return is_float(type, 11, 52) ? FN_RAW_F64 : FN_RAW_NONE;
    default: return FN_RAW_NONE;
  }
}

fn_raw_type fn_hdf5_raw(hid_t type) {
  const H5T_class_t class = H5Tget_class(type);
  const H5T_order_t order = H5Tget_order(type);
  if (H5Tget_precision(type) != 8 * H5Tget_size(type) || H5Tget_offset(type) != 0 ||
      (H5Tget_size(type) > 1 && order != H5T_ORDER_LE && order != H5T_ORDER_BE))
    return FN_RAW_NONE;
  if (class == H5T_FLOAT) return raw_float(type);
  if (class != H5T_INTEGER) return FN_RAW_NONE;
  fn_raw_type found;
  fn_convert_find_raw(H5Tget_sign(type) == H5T_SGN_NONE ? 'u' : 'i', (int)H5Tget_size(type), false,
                      &found);
  return found;
}

static void find_raw(hdf5_array *h, hid_t type) {
  h->array.raw = fn_hdf5_raw(type);
  if (h->array.raw == FN_RAW_NONE) return;
  h->raw_type = H5Tcopy(type);
  if (h->raw_type < 0 || H5Tset_order(h->raw_type, H5T_ORDER_LE) < 0) h->array.raw = FN_RAW_NONE;
}

static fn_status describe_dataset(hdf5_array *h) {
  fn_array *array = &h->array;
  const hid_t type = H5Dget_type(h->dataset), space = H5Dget_space(h->dataset);
  char name[32] = "unreadable";
  const bool numeric = type >= 0 && fn_hdf5_type_name(type, name, sizeof name);
  const int item = type >= 0 ? (int)H5Tget_size(type) : 0;
  const int ndim = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
  hsize_t dim[H5S_MAX_RANK];
  const bool shaped = ndim >= 0 && H5Sget_simple_extent_dims(space, dim, NULL) == ndim;
  if (numeric) find_raw(h, type);
  if (type >= 0) H5Tclose(type);
  if (space >= 0) H5Sclose(space);
  FN_CHECK(numeric, FN_ERR_DATA, "%s: type %s cannot be read; expected a number per cell", h->path,
           name);
  FN_CHECK(shaped, FN_ERR_DATA, "%s: the shape cannot be read", h->path);
  FN_CHECK(ndim <= FN_ARRAY_DIMS, FN_ERR_DATA, "%s: dataset has %d axes, at most %d can be read",
           h->path, ndim, FN_ARRAY_DIMS);
  array->ndim = ndim;
  for (int i = 0; i < ndim; i++)
    array->dim[i] = (int64_t)dim[i];
  snprintf(array->type, sizeof array->type, "%s", name);
  FN_CHECK(fn_dims_bytes(ndim, array->dim, item, &array->bytes), FN_ERR_DATA,
           "%s: the shape is too large", h->path);
  return FN_OK;
}

static fn_status open_dataset(hdf5_array *h, const char *path, const char *wanted) {
  char name[2048];
  FN_TRY(fn_hdf5_open_file(path, &h->file));
  FN_TRY(choose_dataset(h->file, path, wanted, name, sizeof name));
  struct stat info;
  if (stat(path, &info) == 0) h->mark = (fn_file_mark){info.st_dev, info.st_ino, info.st_size};
  h->file_path = strdup(path);
  h->path = malloc(strlen(path) + strlen(name) + 2);
  FN_CHECK(h->file_path && h->path, FN_ERR_MEMORY, "out of memory opening %s", path);
  sprintf(h->path, "%s:%s", path, name);
  h->dataset = H5Dopen2(h->file, name, H5P_DEFAULT);
  if (h->dataset < 0) return not_found(h, path, name);
  const hid_t access = dataset_access(h->dataset);
  H5Dclose(h->dataset);
  h->dataset = H5Dopen2(h->file, name, access);
  H5Pclose(access);
  if (h->dataset < 0) return not_found(h, path, name);
  return describe_dataset(h);
}

/* ---- reading ----------------------------------------------------------------------------- */

/** A block of at most one period per axis is up to two pieces per axis. */
typedef struct pieces {
  int64_t from[FN_ARRAY_DIMS][2], to[FN_ARRAY_DIMS][2], count[FN_ARRAY_DIMS][2];
  int number[FN_ARRAY_DIMS];
} pieces;

static void split(const fn_array *array, const int64_t *start, const int64_t *extent, pieces *p) {
  for (int a = 0; a < array->ndim; a++) {
    const int64_t size = array->dim[a], first = fn_wrap(start[a], size);
    const int64_t total = extent[a] < size ? extent[a] : size;
    const int64_t head = total < size - first ? total : size - first;
    p->from[a][0] = first;
    p->to[a][0] = 0;
    p->count[a][0] = head;
    p->from[a][1] = 0;
    p->to[a][1] = head;
    p->count[a][1] = total - head;
    p->number[a] = total > head ? 2 : 1;
  }
}

/** Read every piece with one hyperslab in the file and one in `out`, of type `type`; text: reason
 * of a failure. */
static herr_t read_pieces(const hdf5_array *h, const pieces *p, const int64_t *extent, hid_t type,
                          void *out, char *text, size_t size) {
  const int ndim = h->array.ndim;
  hsize_t block[FN_ARRAY_DIMS], from[FN_ARRAY_DIMS], to[FN_ARRAY_DIMS], count[FN_ARRAY_DIMS];
  for (int a = 0; a < ndim; a++)
    block[a] = (hsize_t)extent[a];
  const hid_t memory = H5Screate_simple(ndim, block, NULL), space = H5Dget_space(h->dataset);
  herr_t result = memory < 0 || space < 0 ? -1 : 0;
  int which[FN_ARRAY_DIMS] = {0};
  while (result >= 0) {
    for (int a = 0; a < ndim; a++) {
      from[a] = (hsize_t)p->from[a][which[a]];
      to[a] = (hsize_t)p->to[a][which[a]];
      count[a] = (hsize_t)p->count[a][which[a]];
    }
    result = H5Sselect_hyperslab(space, H5S_SELECT_SET, from, NULL, count, NULL);
    if (result >= 0) result = H5Sselect_hyperslab(memory, H5S_SELECT_SET, to, NULL, count, NULL);
    if (result >= 0) result = H5Dread(h->dataset, type, memory, space, H5P_DEFAULT, out);
    int a = ndim - 1;
    while (a >= 0 && ++which[a] == p->number[a])
      which[a--] = 0;
    if (a < 0) break;
  }
  // The reason must be taken before the next call clears HDF5's error stack.
  if (result < 0) fn_hdf5_reason(text, size);
  if (memory >= 0) H5Sclose(memory);
  if (space >= 0) H5Sclose(space);
  return result;
}

/** Fill what lies beyond one period by copying from one period before, fastest axis first. */
static void repeat(const fn_array *array, const int64_t *extent, size_t item, char *out) {
  int64_t row = (int64_t)item; // bytes per index of the axis
  for (int a = array->ndim - 1; a >= 0; a--) {
    const int64_t size = array->dim[a];
    int64_t slower = 1;
    for (int b = 0; b < a; b++)
      slower *= extent[b] < array->dim[b] ? extent[b] : array->dim[b];
    for (int64_t s = 0; s < slower && extent[a] > size; s++) {
      // Index s over the slower axes, each limited to one period, as an offset in out.
      int64_t rest = s, offset = 0, stride = row * extent[a];
      for (int b = a - 1; b >= 0; b--) {
        const int64_t limit = extent[b] < array->dim[b] ? extent[b] : array->dim[b];
        offset += rest % limit * stride;
        rest /= limit;
        stride *= extent[b];
      }
      char *line = out + offset;
      for (int64_t k = size; k < extent[a]; k++)
        memcpy(line + k * row, line + (k - size) * row, (size_t)row);
    }
    row *= extent[a];
  }
}

static fn_status read_as(const hdf5_array *h, const int64_t *start, const int64_t *extent,
                         hid_t type, size_t item, void *out) {
  const fn_array *array = &h->array;
  for (int a = 0; a < array->ndim; a++)
    if (extent[a] == 0) return FN_OK;
  pieces p;
  split(array, start, extent, &p);
  char text[512] = "";
  fn_hdf5_lock();
  const bool failed = read_pieces(h, &p, extent, type, out, text, sizeof text) < 0;
  fn_hdf5_unlock();
  FN_CHECK(!failed, FN_ERR_DATA, "cannot read %s: %s", h->path, text);
  FN_TRY(fn_file_check_mark(h->file_path, &h->mark));
  repeat(array, extent, item, out);
  return FN_OK;
}

static fn_status hdf5_read(fn_array *array, const int64_t *start, const int64_t *extent,
                           float *out) {
  return read_as((const hdf5_array *)array, start, extent, H5T_NATIVE_FLOAT, sizeof *out, out);
}

static fn_status hdf5_read_raw(fn_array *array, const int64_t *start, const int64_t *extent,
                               void *out) {
  const hdf5_array *h = (const hdf5_array *)array;
  return read_as(h, start, extent, h->raw_type, fn_raw_bytes(array->raw), out);
}

static void close_ids(hdf5_array *h) {
  if (h->raw_type >= 0) H5Tclose(h->raw_type);
  if (h->dataset >= 0) H5Dclose(h->dataset);
  if (h->file >= 0) H5Fclose(h->file);
  free(h->file_path);
  free(h->path);
  free(h);
}

static void hdf5_close(fn_array *array) {
  fn_hdf5_lock();
  close_ids((hdf5_array *)array);
  fn_hdf5_unlock();
}

fn_status fn_hdf5_open(const char *file, const char *dataset, fn_array **array) {
  *array = NULL;
  hdf5_array *h = calloc(1, sizeof *h);
  FN_CHECK(h, FN_ERR_MEMORY, "out of memory opening %s", file);
  h->file = h->dataset = h->raw_type = -1;
  h->array.raw = FN_RAW_NONE;
  h->array.read = hdf5_read;
  h->array.read_raw = hdf5_read_raw;
  h->array.close = hdf5_close;
  fn_hdf5_lock();
  const fn_status status = open_dataset(h, file, dataset);
  if (status != FN_OK) close_ids(h);
  fn_hdf5_unlock();
  if (status == FN_OK) *array = &h->array;
  return status;
}

fn_status fn_hdf5_list(const char *file, fn_arena *arena, const char ***names, int *count) {
  listing list = {.arena = arena};
  hid_t id = -1;
  fn_hdf5_lock();
  const fn_status status = fn_hdf5_open_file(file, &id);
  if (status == FN_OK) {
    list_datasets(id, &list);
    H5Fclose(id);
  }
  fn_hdf5_unlock();
  *names = list.name;
  *count = list.count;
  return status;
}
