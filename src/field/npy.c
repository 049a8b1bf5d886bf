/* Reading npy files through a memory map: only the pages of the requested rows are touched. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "field/array.h"

typedef struct npy_array {
  fn_array array;
  fn_npy_header header;
  fn_convert convert, move; /**< to float32; as they are */
  const unsigned char *map;
  size_t map_size;
  fn_file_mark mark; // to notice that it shrank
  char *path;
} npy_array;

/* ---- pages that cannot be read -----------------------------------------------------------------
 * Touching a mapped page that the file no longer has, or that the disk cannot deliver, raises
 * SIGBUS in the thread that reads. The conversion loops below own no locks and no memory, so they
 * can be left by a jump; a SIGBUS from anywhere else goes to whoever handled it before. */

static _Thread_local sigjmp_buf *reading; // where to go on after a fault; NULL: not reading
static struct sigaction handler_before;

static void on_bus_error(int number, siginfo_t *info, void *context) {
  if (reading) siglongjmp(*reading, 1);
  if ((handler_before.sa_flags & SA_SIGINFO) && handler_before.sa_sigaction) {
    handler_before.sa_sigaction(number, info, context);
  } else if (handler_before.sa_handler != SIG_DFL && handler_before.sa_handler != SIG_IGN) {
    handler_before.sa_handler(number);
  } else { // the access is repeated on return, and ends the process as if we had not been here
    signal(number, SIG_DFL);
  }
}

/** At every opening, since other libraries may have put theirs in its place. */
static void install_handler(void) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  // Not deferred: the jump leaves the handler without the mask being restored.
  struct sigaction action = {.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  action.sa_sigaction = on_bus_error;
  sigemptyset(&action.sa_mask);
  pthread_mutex_lock(&lock);
  struct sigaction now;
  const bool ours = sigaction(SIGBUS, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) &&
                    now.sa_sigaction == on_bus_error;
  if (!ours) sigaction(SIGBUS, &action, &handler_before);
  pthread_mutex_unlock(&lock);
}

/* ---- reading ---------------------------------------------------------------------------------
 */

/** Where numbers go, and what becomes of them on the way. */
typedef struct sink {
  char *out;
  int64_t item; /**< bytes */
  fn_convert convert;
} sink;

/** One row along the fastest axis on disk, wrapped, to element `target` and on. */
static void read_row(const npy_array *npy, int64_t cell, int64_t start, int64_t extent,
                     int64_t size, const sink *to, int64_t target, int64_t stride) {
  char *out = to->out + target * to->item;
  const unsigned char *row = npy->map + npy->header.offset + cell * npy->header.item;
  int64_t from = fn_wrap(start, size);
  while (extent > 0) {
    const int64_t count = extent < size - from ? extent : size - from;
    to->convert(row + from * npy->header.item, count, out, stride);
    out += count * stride * to->item;
    extent -= count;
    from = 0;
  }
}

static void read_block(const npy_array *npy, const int64_t *start, const int64_t *extent,
                       const sink *to) {
  const fn_array *array = &npy->array;
  const int ndim = array->ndim, last = ndim - 1;
  // Axes in disk order, slowest first; axis[i] is the logical axis.
  int axis[FN_ARRAY_DIMS];
  int64_t disk_stride[FN_ARRAY_DIMS], out_stride[FN_ARRAY_DIMS], index[FN_ARRAY_DIMS] = {0};
  for (int i = 0; i < ndim; i++)
    axis[i] = array->fortran ? last - i : i;
  for (int i = last, a; i >= 0; i--) {
    a = axis[i];
    disk_stride[i] = i == last ? 1 : disk_stride[i + 1] * array->dim[axis[i + 1]];
    if (extent[a] == 0) return;
  }
  for (int a = last; a >= 0; a--)
    out_stride[a] = a == last ? 1 : out_stride[a + 1] * extent[a + 1];
  for (;;) {
    int64_t cell = 0, target = 0;
    for (int i = 0; i < last; i++) {
      const int a = axis[i];
      cell += fn_wrap(start[a] + index[i], array->dim[a]) * disk_stride[i];
      target += index[i] * out_stride[a];
    }
    const int fast = axis[last];
    read_row(npy, cell, start[fast], extent[fast], array->dim[fast], to, target, out_stride[fast]);
    int i = last - 1;
    while (i >= 0 && ++index[i] == extent[axis[i]])
      index[i--] = 0;
    if (i < 0) return;
  }
}

static fn_status read_guarded(const npy_array *npy, const int64_t *start, const int64_t *extent,
                              const sink *to) {
  sigjmp_buf after_fault;
  if (sigsetjmp(after_fault, 0) == 0) {
    reading = &after_fault;
    read_block(npy, start, extent, to);
    reading = NULL;
    // The rest of a last page reads as zeros when the file lost it: look after reading.
    return fn_file_check_mark(npy->path, &npy->mark);
  }
  reading = NULL;
  FN_TRY(fn_file_check_mark(npy->path, &npy->mark));
  FN_FAIL(FN_ERR_DATA,
          "%s: a part of the file could not be read (SIGBUS): input/output error, or "
          "the file was rewritten while open",
          npy->path);
}

static fn_status npy_read(fn_array *array, const int64_t *start, const int64_t *extent,
                          float *out) {
  const npy_array *npy = (const npy_array *)array;
  return read_guarded(npy, start, extent, &(sink){(char *)out, sizeof *out, npy->convert});
}

static fn_status npy_read_raw(fn_array *array, const int64_t *start, const int64_t *extent,
                              void *out) {
  const npy_array *npy = (const npy_array *)array;
  return read_guarded(npy, start, extent, &(sink){out, npy->header.item, npy->move});
}

static void npy_forget(fn_array *array) {
  const npy_array *npy = (const npy_array *)array;
  if (npy->map) madvise((void *)npy->map, npy->map_size, MADV_DONTNEED);
}

static void npy_close(fn_array *array) {
  npy_array *npy = (npy_array *)array;
  if (npy->map) munmap((void *)npy->map, npy->map_size);
  free(npy->path);
  free(npy);
}

/** Map the whole file; the descriptor is not kept, so that thousands of files can be open. */
static fn_status map_file(npy_array *npy, const char *path) {
  const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  FN_CHECK(fd >= 0, FN_ERR_DATA, "cannot open %s: %s", path, strerror(errno));
  struct stat info;
  int reason = fstat(fd, &info) == 0 ? 0 : errno;
  if (!reason && S_ISDIR(info.st_mode)) reason = EISDIR;
  if (!reason && !S_ISREG(info.st_mode)) reason = ENODEV;
  if (!reason && info.st_size > 0) {
    void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
      reason = errno;
    } else {
      npy->map = map;
      npy->map_size = (size_t)info.st_size;
      npy->mark = (fn_file_mark){.device = info.st_dev, .inode = info.st_ino};
    }
  }
  close(fd);
  FN_CHECK(reason != EISDIR, FN_ERR_DATA,
           "cannot read %s: Is a directory; name the files in it, as in %s/*.npy", path, path);
  FN_CHECK(!reason, FN_ERR_DATA, "cannot read %s: %s", path,
           reason == ENODEV ? "not a regular file" : strerror(reason));
  return FN_OK;
}

static fn_status describe(npy_array *npy, const char *path) {
  FN_TRY(map_file(npy, path));
  FN_TRY(fn_npy_parse(path, npy->map, npy->map_size, &npy->header));
  const fn_npy_header *header = &npy->header;
  fn_array *array = &npy->array;
  int64_t bytes;
  char text[128];
  FN_CHECK(fn_dims_bytes(header->ndim, header->dim, header->item, &bytes) &&
               bytes <= INT64_MAX - header->offset,
           FN_ERR_DATA, "%s: the shape %s in the npy header is too large", path,
           fn_dims_text(header->ndim, header->dim, text, sizeof text));
  FN_CHECK(header->offset + bytes <= (int64_t)npy->map_size, FN_ERR_DATA,
           "%s: truncated: shape %s of type %s needs %lld bytes with its header, the file has %zu",
           path, fn_dims_text(header->ndim, header->dim, text, sizeof text), header->type,
           (long long)(header->offset + bytes), npy->map_size);
  array->ndim = header->ndim;
  memcpy(array->dim, header->dim, sizeof header->dim);
  memcpy(array->type, header->type, sizeof header->type);
  array->fortran = header->fortran;
  array->bytes = bytes;
  npy->mark.bytes = header->offset + bytes;
  npy->convert = fn_convert_find(header->kind, header->item, header->swap);
  npy->move = fn_convert_find_raw(header->kind, header->item, header->swap, &array->raw);
  return FN_OK;
}

fn_status fn_npy_open(const char *path, fn_array **array) {
  *array = NULL;
  install_handler();
  npy_array *npy = calloc(1, sizeof *npy);
  FN_CHECK(npy && (npy->path = strdup(path)), FN_ERR_MEMORY, "out of memory opening %s", path);
  npy->array.read = npy_read;
  npy->array.read_raw = npy_read_raw;
  npy->array.close = npy_close;
  npy->array.forget = npy_forget;
  const fn_status status = describe(npy, path);
  if (status != FN_OK) {
    npy_close(&npy->array);
    return status;
  }
  *array = &npy->array;
  return FN_OK;
}
