/* Backends by name. One that was not compiled still answers and says how to get it. */
#include <string.h>

#include "backend/backends.h"
#include "base/text.h"

static const fn_backend *const backends[] = {&fn_backend_reference, &fn_backend_cpu,
                                             &fn_backend_cuda, &fn_backend_emulated};

enum { BACKENDS = sizeof backends / sizeof *backends };

int fn_backend_count(void) {
  return BACKENDS;
}

const fn_backend *fn_backend_at(int index) {
  return backends[index];
}

fn_status fn_backend_find(const char *name, const fn_backend **backend) {
  const char *names[BACKENDS];
  fn_text list = {0};
  for (int i = 0; i < BACKENDS; i++) {
    names[i] = backends[i]->name;
    if (strcmp(name, names[i]) == 0) {
      *backend = backends[i];
      fn_text_free(&list);
      return FN_OK;
    }
    fn_text_add(&list, "%s%s", i ? ", " : "", names[i]);
  }
  const char *closest = fn_text_closest(name, names, BACKENDS);
  const fn_status status =
      closest ? fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                             "no backend is called '%s'; did you mean '%s'?", name, closest)
              : fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__,
                             "no backend is called '%s'; there are: %s", name, list.data);
  fn_text_free(&list);
  return status;
}
