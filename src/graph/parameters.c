#include "graph/parameters.h"

#include <stdlib.h>
#include <string.h>

#include "base/random.h"

enum { ALIGN_ELEMENTS = 16 };

static int64_t aligned(int64_t count) {
  return (count + ALIGN_ELEMENTS - 1) / ALIGN_ELEMENTS * ALIGN_ELEMENTS;
}

static bool is_state(const fn_value *leaf) {
  return fn_value_leaf(leaf)->kind != FN_LEAF_INPUT;
}

static void list_entries(const fn_graph *graph, fn_parameters *p) {
  int index = 0;
  for (int l = 0; l < fn_graph_leaf_count(graph); l++) {
    const fn_value *value = fn_graph_leaf(graph, l);
    if (!is_state(value)) continue;
    const fn_leaf *leaf = fn_value_leaf(value);
    fn_tensor_entry *entry = &p->entry[index++];
    *entry = (fn_tensor_entry){
        .name = fn_arena_text(p->arena, leaf->name),
        .shape = value->shape,
        .role = leaf->role,
        .init = leaf->init,
        .count = fn_shape_count(&value->shape),
        .is_buffer = leaf->kind == FN_LEAF_BUFFER,
    };
    if (entry->is_buffer) {
      entry->init = (fn_init){FN_INIT_CONSTANT, leaf->fill, 0};
      entry->offset = p->buffer_count;
      p->buffer_count += aligned(entry->count);
    }
  }
  for (int i = p->entry_count - 1; i >= 0; i--) {
    fn_tensor_entry *entry = &p->entry[i];
    if (entry->is_buffer) continue;
    entry->offset = p->count;
    p->count += aligned(entry->count);
    p->parameter_total += entry->count;
  }
}

fn_status fn_parameters_create(const fn_graph *graph, fn_dtype dtype, fn_parameters **parameters) {
  *parameters = NULL;
  FN_TRY(fn_graph_status(graph));
  fn_parameters *p = calloc(1, sizeof *p);
  FN_CHECK(p, FN_ERR_MEMORY, "out of memory");
  p->arena = fn_arena_create();
  if (!p->arena) {
    free(p);
    FN_FAIL(FN_ERR_MEMORY, "out of memory");
  }
  p->dtype = dtype;
  for (int l = 0; l < fn_graph_leaf_count(graph); l++)
    p->entry_count += is_state(fn_graph_leaf(graph, l));
  p->entry = fn_arena_take(p->arena, (size_t)(p->entry_count + 1) * sizeof *p->entry);
  list_entries(graph, p);
  const size_t size = fn_dtype_size(dtype);
  fn_status status = fn_pages_allocate((size_t)p->count * size, &p->values);
  if (status == FN_OK) status = fn_pages_allocate((size_t)p->count * size, &p->gradients);
  if (status == FN_OK) status = fn_pages_allocate((size_t)p->buffer_count * size, &p->buffers);
  if (status != FN_OK) {
    fn_parameters_destroy(p);
    return status;
  }
  *parameters = p;
  return FN_OK;
}

void fn_parameters_destroy(fn_parameters *parameters) {
  if (!parameters) return;
  const size_t size = fn_dtype_size(parameters->dtype);
  for (int m = 0; m < FN_MIRRORS; m++)
    fn_mirror_destroy(&parameters->mirror[m]);
  fn_pages_free(parameters->values, (size_t)parameters->count * size);
  fn_pages_free(parameters->gradients, (size_t)parameters->count * size);
  fn_pages_free(parameters->buffers, (size_t)parameters->buffer_count * size);
  fn_arena_destroy(parameters->arena);
  free(parameters);
}

const fn_tensor_entry *fn_parameters_find(const fn_parameters *parameters, const char *name) {
  for (int i = 0; i < parameters->entry_count; i++)
    if (strcmp(parameters->entry[i].name, name) == 0) return &parameters->entry[i];
  return NULL;
}

void *fn_parameters_data(const fn_parameters *parameters, const fn_tensor_entry *entry) {
  char *base = entry->is_buffer ? parameters->buffers : parameters->values;
  return base + (size_t)entry->offset * fn_dtype_size(parameters->dtype);
}

void *fn_parameters_gradient(const fn_parameters *parameters, const fn_tensor_entry *entry) {
  if (entry->is_buffer) return NULL;
  return (char *)parameters->gradients + (size_t)entry->offset * fn_dtype_size(parameters->dtype);
}

void fn_parameters_changed(fn_parameters *parameters) {
  fn_mirror_changed(&parameters->mirror[FN_MIRROR_VALUES]);
  fn_parameters_buffers_changed(parameters);
}

void fn_parameters_buffers_changed(fn_parameters *parameters) {
  parameters->version++;
  fn_mirror_changed(&parameters->mirror[FN_MIRROR_BUFFERS]);
}

/* ---- on a device -------------------------------------------------------------------------------
 */

fn_status fn_parameters_attach(fn_parameters *p, fn_device *device) {
  if (p->device == device) return FN_OK;
  FN_CHECK(!p->device, FN_ERR_INTERNAL, "parameters cannot move from one device to another");
  FN_CHECK(p->dtype == FN_F32, FN_ERR_UNSUPPORTED, "a device keeps float32 parameters only");
  const size_t values = (size_t)p->count * sizeof(float);
  fn_status status = fn_mirror_attach(device, p->values, values, &p->mirror[FN_MIRROR_VALUES]);
  if (status == FN_OK)
    status = fn_mirror_attach(device, p->gradients, values, &p->mirror[FN_MIRROR_GRADIENTS]);
  if (status == FN_OK)
    status = fn_mirror_attach(device, p->buffers, (size_t)p->buffer_count * sizeof(float),
                              &p->mirror[FN_MIRROR_BUFFERS]);
  if (status != FN_OK) {
    for (int m = 0; m < FN_MIRRORS; m++)
      fn_mirror_destroy(&p->mirror[m]);
    return fn_error_context(status, "parameters and gradients on the device");
  }
  p->device = device;
  return FN_OK;
}

fn_mirror *fn_parameters_mirror(fn_parameters *parameters, fn_mirrored which) {
  return &parameters->mirror[which];
}

void fn_parameters_changed_on_device(fn_parameters *parameters, fn_mirrored which) {
  if (which != FN_MIRROR_GRADIENTS) parameters->version++;
  fn_mirror_changed_on_device(&parameters->mirror[which]);
}

fn_status fn_parameters_to_device(fn_parameters *parameters) {
  for (int m = 0; m < FN_MIRRORS; m++)
    FN_TRY(fn_mirror_to_device(&parameters->mirror[m]));
  return FN_OK;
}

fn_status fn_parameters_to_host(fn_parameters *parameters) {
  FN_TRY(fn_mirror_to_host(&parameters->mirror[FN_MIRROR_VALUES]));
  return fn_parameters_buffers_to_host(parameters);
}

fn_status fn_parameters_buffers_to_host(fn_parameters *parameters) {
  return fn_mirror_to_host(&parameters->mirror[FN_MIRROR_BUFFERS]);
}

fn_status fn_parameters_gradients_to_host(fn_parameters *parameters) {
  return fn_mirror_to_host(&parameters->mirror[FN_MIRROR_GRADIENTS]);
}

/** The device's twin of an address inside a host array. */
static void *twin(const fn_mirror *m, void *host) {
  return m->memory ? (char *)m->memory + ((char *)host - (char *)m->host) : host;
}

void *fn_parameters_place(fn_parameters *parameters, const fn_tensor_entry *entry) {
  return twin(&parameters->mirror[entry->is_buffer ? FN_MIRROR_BUFFERS : FN_MIRROR_VALUES],
              fn_parameters_data(parameters, entry));
}

void *fn_parameters_gradient_place(fn_parameters *parameters, const fn_tensor_entry *entry) {
  void *host = fn_parameters_gradient(parameters, entry);
  return host ? twin(&parameters->mirror[FN_MIRROR_GRADIENTS], host) : NULL;
}

static fn_init chosen_init(const fn_tensor_entry *entry, double weight_std) {
  if (weight_std < 0 || entry->is_buffer) return entry->init;
  switch (entry->role) {
    case FN_ROLE_WEIGHT: return (fn_init){FN_INIT_NORMAL, 0, weight_std};
    case FN_ROLE_NORM_SCALE: return (fn_init){FN_INIT_NORMAL, 1, weight_std};
    case FN_ROLE_NORM_SHIFT: return FN_INIT_ZERO;
    case FN_ROLE_BIAS: break;
  }
  return entry->init;
}

void fn_parameters_initialise(fn_parameters *parameters, uint64_t seed, double weight_std) {
  fn_parameters_changed(parameters);
  for (int i = 0; i < parameters->entry_count; i++) {
    const fn_tensor_entry *entry = &parameters->entry[i];
    const fn_init init = chosen_init(entry, weight_std);
    fn_random random = fn_random_stream(seed, FN_RANDOM_INIT, 0, fn_hash_text(entry->name));
    void *data = fn_parameters_data(parameters, entry);
    for (int64_t e = 0; e < entry->count; e++) {
      double x = init.a;
      if (init.kind == FN_INIT_UNIFORM) x += (init.b - init.a) * fn_random_uniform(&random);
      if (init.kind == FN_INIT_NORMAL) x += init.b * fn_random_normal(&random);
      if (parameters->dtype == FN_F64) {
        ((double *)data)[e] = x;
      } else {
        ((float *)data)[e] = (float)x;
      }
    }
  }
}
