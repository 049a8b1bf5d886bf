/* Operations of the emulated device: kept in queues, performed one by one. */
#include <stdlib.h>
#include <string.h>

#include "backend/gpu/emulated.h"
#include "backend/gpu/emulated_library.h"
#include "base/system.h"

fn_status fn_emulated_put(fn_emulated_queue *queue, const fn_emulated_operation *operation) {
  if (queue->first == queue->count) queue->first = queue->count = 0;
  if (queue->count == queue->capacity) {
    const int64_t capacity = queue->capacity > 0 ? 2 * queue->capacity : 256;
    fn_emulated_operation *more = realloc(queue->operation, (size_t)capacity * sizeof *more);
    FN_CHECK(more, FN_ERR_MEMORY, "out of memory");
    queue->operation = more;
    queue->capacity = capacity;
  }
  fn_emulated_operation *copy = &queue->operation[queue->count];
  *copy = *operation;
  if (operation->args) {
    copy->args = malloc(operation->kernel->args_size);
    FN_CHECK(copy->args, FN_ERR_MEMORY, "out of memory");
    memcpy(copy->args, operation->args, operation->kernel->args_size);
  }
  queue->count++;
  return FN_OK;
}

void fn_emulated_queue_clear(fn_emulated_queue *queue) {
  for (int64_t i = queue->first; i < queue->count; i++)
    free(queue->operation[i].args);
  free(queue->operation);
  *queue = (fn_emulated_queue){0};
}

fn_status fn_emulated_perform(fn_gpu_platform *platform, fn_emulated_operation *o) {
  switch (o->kind) {
    case FN_EMULATED_COPY: memmove(o->to, o->from, (size_t)o->count); break;
    case FN_EMULATED_CLEAR: memset(o->to, 0, (size_t)o->count); break;
    case FN_EMULATED_KERNEL: o->kernel->host(o->args, o->count, o->threads); break;
    case FN_EMULATED_CALL: return fn_emulated_call_run(platform, o->call, &o->at);
    case FN_EMULATED_RECORD:
      if (o->record > o->event->passed) o->event->passed = o->record;
      o->event->time = fn_clock();
      break;
    case FN_EMULATED_WAIT: break;
  }
  return FN_OK;
}
