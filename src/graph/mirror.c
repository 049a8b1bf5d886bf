#include "graph/mirror.h"

#include <string.h>

#include "base/arena.h"

/** Pinned memory of an array: what is larger goes in parts. */
enum { PART = 1 << 22 };

static size_t part_of(const fn_mirror *m, size_t start) {
  return m->bytes - start < PART ? m->bytes - start : PART;
}

fn_status fn_mirror_attach(fn_device *device, void *host, size_t bytes, fn_mirror *mirror) {
  *mirror = (fn_mirror){.device = device, .bytes = bytes, .host = host, .borrowed = true};
  if (!device || bytes == 0) return FN_OK;
  fn_status status = device->allocate(device, bytes, &mirror->memory);
  if (status == FN_OK)
    status = device->allocate_pinned(device, part_of(mirror, 0), &mirror->pinned);
  if (status == FN_OK) status = device->event_create(device, &mirror->copied);
  if (status != FN_OK) fn_mirror_destroy(mirror);
  mirror->host_newer = true;
  return status;
}

fn_status fn_mirror_create(fn_device *device, size_t bytes, fn_mirror *mirror) {
  void *host = NULL;
  *mirror = (fn_mirror){0};
  FN_TRY(fn_pages_allocate(bytes, &host));
  const fn_status status = fn_mirror_attach(device, host, bytes, mirror);
  mirror->borrowed = false;
  if (status != FN_OK) fn_pages_free(host, bytes);
  return status;
}

void fn_mirror_destroy(fn_mirror *m) {
  // Copies on their way need both ends; a device that has failed makes none.
  if (m->device && m->memory) (void)m->device->synchronize(m->device, FN_STREAM_COMPUTE);
  if (m->device && m->copied) m->device->event_destroy(m->device, m->copied);
  if (m->device && m->memory) m->device->release(m->device, m->memory);
  if (m->device && m->pinned) m->device->release_pinned(m->device, m->pinned);
  if (!m->borrowed && m->host) fn_pages_free(m->host, m->bytes);
  *m = (fn_mirror){0};
}

void fn_mirror_changed(fn_mirror *mirror) {
  mirror->host_newer = mirror->device != NULL;
  mirror->device_newer = false;
}

void fn_mirror_changed_on_device(fn_mirror *mirror) {
  mirror->device_newer = mirror->device != NULL;
  mirror->host_newer = false;
}

fn_status fn_mirror_to_device(fn_mirror *m) {
  if (!m->host_newer || m->bytes == 0) return FN_OK;
  fn_device *device = m->device;
  for (size_t start = 0; start < m->bytes; start += PART) {
    const size_t bytes = part_of(m, start);
    // The copy before this one, also that of an earlier call, reads the same memory.
    FN_TRY(device->synchronize_event(device, m->copied));
    memcpy(m->pinned, (const char *)m->host + start, bytes);
    FN_TRY(device->copy(device, FN_STREAM_COMPUTE, (char *)m->memory + start, m->pinned, bytes,
                        FN_COPY_TO_DEVICE));
    FN_TRY(device->record(device, FN_STREAM_COMPUTE, m->copied));
  }
  m->host_newer = false;
  return FN_OK;
}

fn_status fn_mirror_to_host(fn_mirror *m) {
  if (!m->device_newer || m->bytes == 0) return FN_OK;
  fn_device *device = m->device;
  for (size_t start = 0; start < m->bytes; start += PART) {
    const size_t bytes = part_of(m, start);
    // A copy to the device that reads the same memory comes before on the same stream.
    FN_TRY(device->copy(device, FN_STREAM_COMPUTE, m->pinned, (const char *)m->memory + start,
                        bytes, FN_COPY_TO_HOST));
    FN_TRY(device->synchronize(device, FN_STREAM_COMPUTE));
    memcpy((char *)m->host + start, m->pinned, bytes);
  }
  m->device_newer = false;
  return FN_OK;
}
