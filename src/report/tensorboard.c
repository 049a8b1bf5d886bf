/* TensorBoard's event files: records as TensorFlow frames them, holding protobuf messages. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/system.h"
#include "report/event.pb-c.h"
#include "report/sinks.h"

struct fn_tensorboard {
  FILE *file;
  char path[4096];
};

enum { HEAD = 12, TAIL = 4, MAX_SCALARS = 16 };

/* ---- checksum
 * -------------------------------------------------------------------------------------- */

static uint32_t crc_table[256];
static pthread_once_t crc_once = PTHREAD_ONCE_INIT;

static void crc_prepare(void) {
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t crc = i;
    // Castagnoli's polynomial 0x1EDC6F41, bits reversed (RFC 3720, appendix B.4)
    for (int bit = 0; bit < 8; bit++)
      crc = crc & 1 ? crc >> 1 ^ 0x82F63B78u : crc >> 1;
    crc_table[i] = crc;
  }
}

uint32_t fn_crc32c(const void *bytes, size_t count) {
  pthread_once(&crc_once, crc_prepare);
  const unsigned char *b = bytes;
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t i = 0; i < count; i++)
    crc = crc >> 8 ^ crc_table[(crc ^ b[i]) & 0xFF];
  return ~crc;
}

/** TFRecord stores checksums masked: a checksum of data that holds checksums would be weak. */
static uint32_t masked_crc(const void *bytes, size_t count) {
  const uint32_t crc = fn_crc32c(bytes, count);
  return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

static void put_little(unsigned char *out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++)
    out[i] = (unsigned char)(value >> 8 * i);
}

static uint64_t get_little(const unsigned char *in, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; i++)
    value |= (uint64_t)in[i] << 8 * i;
  return value;
}

/* ---- writing
 * ---------------------------------------------------------------------------------------- */

static fn_status put_event(fn_tensorboard *board, FnEvent__Event *event) {
  event->wall_time = fn_time_now();
  const size_t length = fn_event__event__get_packed_size(event);
  unsigned char *record = malloc(HEAD + length + TAIL);
  FN_CHECK(record, FN_ERR_MEMORY, "no memory for an event of %zu bytes", length);
  put_little(record, length, 8);
  put_little(record + 8, masked_crc(record, 8), 4);
  fn_event__event__pack(event, record + HEAD);
  put_little(record + HEAD + length, masked_crc(record + HEAD, length), 4);
  const bool written =
      fwrite(record, HEAD + length + TAIL, 1, board->file) == 1 && fflush(board->file) == 0;
  free(record);
  FN_CHECK(written, FN_ERR_DATA, "cannot write %s: %s", board->path, strerror(errno));
  return FN_OK;
}

static fn_status put_values(fn_tensorboard *board, int64_t step, FnEvent__Value **values,
                            size_t count) {
  FnEvent__Summary summary = FN_EVENT__SUMMARY__INIT;
  summary.value = values;
  summary.n_value = count;
  FnEvent__Event event = FN_EVENT__EVENT__INIT;
  event.step = step;
  event.what_case = FN_EVENT__EVENT__WHAT_SUMMARY;
  event.summary = &summary;
  return put_event(board, &event);
}

fn_status fn_tensorboard_scalars(fn_tensorboard *board, int64_t step, const fn_scalar *scalars,
                                 int count) {
  FnEvent__Value values[MAX_SCALARS], *pointers[MAX_SCALARS];
  size_t used = 0;
  for (int i = 0; i < count && used < MAX_SCALARS; i++) {
    if (isnan(scalars[i].value)) continue;
    fn_event__value__init(&values[used]);
    values[used].tag = (char *)scalars[i].tag;
    values[used].value_case = FN_EVENT__VALUE__VALUE_SIMPLE_VALUE;
    values[used].simple_value = (float)scalars[i].value;
    pointers[used] = &values[used];
    used++;
  }
  return used > 0 ? put_values(board, step, pointers, used) : FN_OK;
}

fn_status fn_tensorboard_image(fn_tensorboard *board, const char *tag, int64_t step, int width,
                               int height, const unsigned char *png, size_t count) {
  FnEvent__Image image = FN_EVENT__IMAGE__INIT;
  image.width = width;
  image.height = height;
  image.colorspace = 3;
  image.encoded_image_string = (ProtobufCBinaryData){.len = count, .data = (uint8_t *)png};
  FnEvent__Value value = FN_EVENT__VALUE__INIT, *pointer = &value;
  value.tag = (char *)tag;
  value.value_case = FN_EVENT__VALUE__VALUE_IMAGE;
  value.image = &image;
  return put_values(board, step, &pointer, 1);
}

/* ---- trimming what earlier starts wrote
 * --------------------------------------------------------------- */

typedef struct limits {
  int64_t step, epochs;
} limits;

static bool counts_epochs(const char *tag) {
  return strstr(tag, "/epoch/") || fn_text_starts(tag, "fig/");
}

static bool keep_event(const FnEvent__Event *event, const limits *limit) {
  if (event->what_case != FN_EVENT__EVENT__WHAT_SUMMARY || event->summary->n_value == 0)
    return true;
  // an event of ours holds tags of one kind
  const bool epochs = counts_epochs(event->summary->value[0]->tag);
  return event->step <= (epochs ? limit->epochs : limit->step);
}

/** Copy the intact records within the limits; returns how many summaries are among them. */
static int64_t filter_records(const unsigned char *bytes, size_t count, const limits *limit,
                              fn_text *kept) {
  int64_t summaries = 0;
  size_t at = 0;
  while (count - at >= HEAD + TAIL) {
    const uint64_t length = get_little(bytes + at, 8);
    if (masked_crc(bytes + at, 8) != get_little(bytes + at + 8, 4)) break;
    if (length > count - at - HEAD - TAIL) break; // torn by a kill
    const unsigned char *data = bytes + at + HEAD;
    FnEvent__Event *event = fn_event__event__unpack(NULL, length, data);
    if (!event) break;
    if (keep_event(event, limit)) {
      fn_text_add_bytes(kept, (const char *)bytes + at, HEAD + length + TAIL);
      summaries += event->what_case == FN_EVENT__EVENT__WHAT_SUMMARY;
    }
    fn_event__event__free_unpacked(event, NULL);
    at += HEAD + length + TAIL;
  }
  return summaries;
}

static fn_status trim_file(const char *path, const limits *limit) {
  char *bytes;
  size_t count;
  FN_TRY(fn_file_read(path, &bytes, &count));
  fn_text kept = {0};
  const int64_t summaries = filter_records((unsigned char *)bytes, count, limit, &kept);
  fn_status status = FN_OK;
  if (summaries == 0) {
    FN_CHECK(unlink(path) == 0, FN_ERR_DATA, "cannot remove %s: %s", path, strerror(errno));
  } else if (kept.length != count) {
    status = fn_file_replace_text(path, &kept);
  }
  fn_text_free(&kept);
  free(bytes);
  return status;
}

static fn_status trim_start(const char *folder, const limits *limit) {
  DIR *directory = opendir(folder);
  if (!directory) return FN_OK; // not a folder: none of ours
  fn_status status = FN_OK;
  struct dirent *entry;
  char path[4096];
  while (status == FN_OK && (entry = readdir(directory))) {
    const char *name = entry->d_name;
    if (!fn_text_starts(name, "events.out.tfevents.") || !fn_text_ends(name, ".fieldnet")) continue;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    status = trim_file(path, limit);
  }
  closedir(directory);
  rmdir(folder); // only succeeds when nothing is left in it
  return status;
}

static fn_status trim_all(const char *folder, const limits *limit) {
  DIR *directory = opendir(folder);
  if (!directory) return FN_OK;
  fn_status status = FN_OK;
  struct dirent *entry;
  char path[4096];
  while (status == FN_OK && (entry = readdir(directory))) {
    if (entry->d_name[0] == '.') continue;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    status = trim_start(path, limit);
  }
  closedir(directory);
  return status;
}

/* ---- opening
 * ------------------------------------------------------------------------------------------ */

/** A folder per start, named by its time. */
static fn_status start_folder(const char *parent, char *folder, size_t size) {
  char stamp[64];
  fn_report_time("%Y-%m-%d_%H-%M-%S", stamp, sizeof stamp);
  snprintf(folder, size, "%s/%s", parent, stamp);
  for (int i = 2; fn_file_exists(folder); i++) {
    snprintf(folder, size, "%s/%s_%d", parent, stamp, i);
  }
  return fn_make_directories(folder);
}

static fn_status open_file(const char *folder, fn_tensorboard *board) {
  char host[256];
  snprintf(host, sizeof host, "%s", fn_host_name());
  snprintf(board->path, sizeof board->path, "%s/events.out.tfevents.%010" PRId64 ".%s.%ld.fieldnet",
           folder, (int64_t)time(NULL), host, (long)getpid());
  board->file = fopen(board->path, "wx");
  FN_CHECK(board->file, FN_ERR_DATA, "cannot create %s: %s", board->path, strerror(errno));
  FnEvent__Event event = FN_EVENT__EVENT__INIT;
  event.what_case = FN_EVENT__EVENT__WHAT_FILE_VERSION;
  event.file_version = (char *)"brain.Event:2";
  return put_event(board, &event);
}

fn_status fn_tensorboard_open(const char *folder, int64_t resumed_step, int64_t epochs,
                              fn_tensorboard **board) {
  char parent[4096 - 256], start[4096 - 192];
  const limits limit = {.step = resumed_step, .epochs = epochs};
  *board = NULL;
  snprintf(parent, sizeof parent, "%s/tensorboard", folder);
  FN_TRY(trim_all(parent, &limit));
  FN_TRY(start_folder(parent, start, sizeof start));
  fn_tensorboard *made = calloc(1, sizeof *made);
  FN_CHECK(made, FN_ERR_MEMORY, "no memory for an event file");
  const fn_status status = open_file(start, made);
  if (status != FN_OK) {
    fn_tensorboard_close(made);
    return status;
  }
  *board = made;
  return FN_OK;
}

void fn_tensorboard_close(fn_tensorboard *board) {
  if (!board) return;
  if (board->file) fclose(board->file);
  free(board);
}
