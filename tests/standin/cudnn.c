/* cuDNN's backend interface on the host; see standin.h. Built as a libcudnn.so.9 that the program
 * opens. Four engines: 0 and 3 may always be used, 1 says that it is not deterministic, 2 that it
 * uses tensor cores. Convolutions are computed from the descriptors alone, by the definitions in
 * NVIDIA's documentation. */
#include <cudnn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "standin.h"

enum { ATTRIBUTES = 16, ENGINES = 4, DIMS = 5, VIRTUALS = 8 };

typedef struct attribute {
  cudnnBackendAttributeName_t name;
  cudnnBackendAttributeType_t type;
  int64_t count;
  char value[64];
} attribute;

typedef struct descriptor {
  cudnnBackendDescriptorType_t type;
  bool finished;
  attribute item[ATTRIBUTES];
  int count;
  int64_t engine; /**< of configurations that a heuristic gave */
} descriptor;

static size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_BOOLEAN: return sizeof(bool);
    case CUDNN_TYPE_CHAR: return 1;
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return sizeof(void *);
    case CUDNN_TYPE_INT64: return sizeof(int64_t);
    case CUDNN_TYPE_DOUBLE: return sizeof(double);
    default: return 4; // float and enumerations
  }
}

static const attribute *find(const descriptor *d, cudnnBackendAttributeName_t name) {
  for (int i = 0; i < d->count; i++)
    if (d->item[i].name == name) return &d->item[i];
  return NULL;
}
static int64_t number(const descriptor *d, cudnnBackendAttributeName_t name, int64_t otherwise) {
  const attribute *a = find(d, name);
  int64_t value;
  if (!a) return otherwise;
  if (size_of(a->type) == sizeof value) {
    memcpy(&value, a->value, sizeof value);
    return value;
  }
  int32_t small;
  memcpy(&small, a->value, sizeof small);
  return small;
}
static const int64_t *numbers(const descriptor *d, cudnnBackendAttributeName_t name) {
  return (const int64_t *)(const void *)find(d, name)->value;
}
static const descriptor *part(const descriptor *d, cudnnBackendAttributeName_t name, int index) {
  const attribute *a = find(d, name);
  const descriptor *found = NULL;
  if (a && index < a->count) memcpy(&found, a->value + (size_t)index * sizeof found, sizeof found);
  return found;
}

/** Whether STANDIN_ENGINES tells this engine to `what`. */
static bool told(const char *what, int64_t engine) {
  const char *text = getenv("STANDIN_ENGINES");
  const char *at = text ? strstr(text, what) : NULL;
  for (at = at ? at + strlen(what) : NULL; at && *at && *at != ','; at++)
    if (*at - '0' == engine) return true;
  return false;
}

/* ---- the interface -----------------------------------------------------------------------------
 */

size_t cudnnGetVersion(void) {
  return 91900;
}
const char *cudnnGetErrorString(cudnnStatus_t status) {
  return status == CUDNN_STATUS_EXECUTION_FAILED ? "CUDNN_STATUS_EXECUTION_FAILED"
                                                 : "CUDNN_STATUS_NOT_SUPPORTED";
}
struct cudnnContext {
  cudaStream_t stream;
};
cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
  *handle = calloc(1, sizeof **handle);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *made) {
  descriptor *d = calloc(1, sizeof *d);
  d->type = type;
  *made = d;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
  free(d);
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t to,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *values) {
  descriptor *d = to;
  const size_t bytes = size_of(type) * (size_t)count;
  attribute *a = &d->item[d->count];
  if (d->finished || d->count == ATTRIBUTES) return CUDNN_STATUS_BAD_PARAM;
  if (bytes > sizeof a->value) return CUDNN_STATUS_BAD_PARAM;
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
    for (int64_t i = 0; i < count; i++)
      if (!((descriptor *const *)values)[i]->finished) return CUDNN_STATUS_BAD_PARAM;
  *a = (attribute){.name = name, .type = type, .count = count};
  memcpy(a->value, values, bytes);
  d->count++;
  return CUDNN_STATUS_SUCCESS;
}

/** What a tensor must have: positive sizes, strides, and memory of its own unless it is virtual. */
static cudnnStatus_t check_tensor(const descriptor *d) {
  const attribute *dim = find(d, CUDNN_ATTR_TENSOR_DIMENSIONS),
                  *stride = find(d, CUDNN_ATTR_TENSOR_STRIDES);
  if (!dim || !stride || dim->count != stride->count || dim->count < 4 || dim->count > DIMS ||
      !find(d, CUDNN_ATTR_TENSOR_DATA_TYPE) || !find(d, CUDNN_ATTR_TENSOR_UNIQUE_ID) ||
      !find(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT))
    return CUDNN_STATUS_BAD_PARAM;
  for (int64_t i = 0; i < dim->count; i++)
    if (numbers(d, CUDNN_ATTR_TENSOR_DIMENSIONS)[i] < 1 ||
        numbers(d, CUDNN_ATTR_TENSOR_STRIDES)[i] < 1)
      return CUDNN_STATUS_BAD_PARAM;
  return CUDNN_STATUS_SUCCESS;
}

/** Whether an engine's graph has more than a convolution and a change of type. */
static bool is_fused(const descriptor *engine) {
  const descriptor *graph = part(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, 0), *operation;
  for (int i = 0; (operation = part(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, i)); i++) {
    const descriptor *how = part(operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, 0);
    if (how && number(how, CUDNN_ATTR_POINTWISE_MODE, -1) != CUDNN_POINTWISE_IDENTITY) return true;
  }
  return false;
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t of) {
  descriptor *d = of;
  cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
  if (d->type == CUDNN_BACKEND_TENSOR_DESCRIPTOR) status = check_tensor(d);
  if (d->type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR) {
    const descriptor *how = part(d, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
    const descriptor *engine = how ? part(how, CUDNN_ATTR_ENGINECFG_ENGINE, 0) : NULL;
    if (!engine || !find(d, CUDNN_ATTR_EXECUTION_PLAN_HANDLE)) return CUDNN_STATUS_BAD_PARAM;
    const int64_t index = number(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, -1);
    if (told("build", index) || (told("fuse", index) && is_fused(engine)))
      status = CUDNN_STATUS_NOT_SUPPORTED;
  }
  d->finished = status == CUDNN_STATUS_SUCCESS;
  return status;
}

/** Put what a heuristic found into descriptors that the caller has made. */
static int64_t propose(const descriptor *d, int64_t room, descriptor *const *found) {
  const bool fallback =
      number(d, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_HEUR_MODE_A) == CUDNN_HEUR_MODE_FALLBACK;
  const int first = fallback ? ENGINES - 1 : 0, last = fallback ? ENGINES : ENGINES - 1;
  int64_t count = 0;
  for (int e = first; e < last && count < room; e++) {
    found[count]->engine = e;
    found[count++]->finished = true;
  }
  return count;
}

static int64_t notes(const descriptor *engine, cudnnBackendNumericalNote_t *note) {
  switch (number(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, -1)) {
    case 1: note[0] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC; return 1;
    case 2: note[0] = CUDNN_NUMERICAL_NOTE_TENSOR_CORE; return 1;
    default: return 0;
  }
}

static void put_number(descriptor *d, cudnnBackendAttributeName_t name,
                       cudnnBackendAttributeType_t type, int64_t value) {
  attribute *a = &d->item[d->count++];
  const int32_t small = (int32_t)value;
  *a = (attribute){.name = name, .type = type, .count = 1};
  if (size_of(type) == sizeof value)
    memcpy(a->value, &value, sizeof value);
  else
    memcpy(a->value, &small, sizeof small);
  d->finished = true;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const of,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t room,
                                       int64_t *count, void *values) {
  const descriptor *d = of;
  descriptor *const *parts = values;
  if (!d->finished) return CUDNN_STATUS_BAD_PARAM;
  if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
    *count = propose(d, room, parts);
  } else if (name == CUDNN_ATTR_ENGINECFG_ENGINE) {
    put_number(parts[0], CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, d->engine);
    *count = 1;
  } else if (name == CUDNN_ATTR_ENGINECFG_KNOB_CHOICES) { // one knob
    put_number(parts[0], CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 3);
    put_number(parts[0], CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 10 + d->engine);
    *count = 1;
  } else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) {
    *count = notes(d, values);
  } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
    *(int64_t *)values = 4096;
    *count = 1;
  } else {
    const attribute *a = find(d, name);
    if (!a || a->type != type) return CUDNN_STATUS_BAD_PARAM;
    *count = a->count;
    memcpy(values, a->value, size_of(type) * (size_t)(a->count < room ? a->count : room));
  }
  return CUDNN_STATUS_SUCCESS;
}

/* ---- tensors -----------------------------------------------------------------------------------
 */

/** A tensor, spatial axes padded in front to three. */
typedef struct tensor {
  int64_t dim[DIMS], stride[DIMS];
  cudnnDataType_t type;
  char *data;
} tensor;

typedef struct place {
  int64_t uid;
  char *data;
} place;

typedef struct run {
  const descriptor *graph;
  place place[8];
  int places;
  place virtual[VIRTUALS];
  int virtuals;
  char *workspace;
} run;

static float load(const tensor *t, int64_t at) {
  uint16_t half;
  uint32_t bits;
  float value;
  if (t->type == CUDNN_DATA_FLOAT) {
    memcpy(&value, t->data + 4 * at, sizeof value);
    return value;
  }
  memcpy(&half, t->data + 2 * at, sizeof half);
  if (t->type == CUDNN_DATA_HALF) {
    _Float16 small;
    memcpy(&small, &half, sizeof small);
    return (float)small;
  }
  bits = (uint32_t)half << 16;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static void store(const tensor *t, int64_t at, float value) {
  if (t->type == CUDNN_DATA_FLOAT) {
    memcpy(t->data + 4 * at, &value, sizeof value);
  } else if (t->type == CUDNN_DATA_HALF) {
    const _Float16 small = (_Float16)value;
    memcpy(t->data + 2 * at, &small, sizeof small);
  } else {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (value == value) bits += 0x7fff + (bits >> 16 & 1); // to the nearest, ties to even
    const uint16_t half = (uint16_t)(bits >> 16);
    memcpy(t->data + 2 * at, &half, sizeof half);
  }
}

static char *address_of(run *r, const descriptor *d, int64_t bytes) {
  const int64_t uid = number(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, -1);
  for (int i = 0; i < r->places; i++)
    if (r->place[i].uid == uid) return r->place[i].data;
  for (int i = 0; i < r->virtuals; i++)
    if (r->virtual[i].uid == uid) return r->virtual[i].data;
  r->virtual[r->virtuals] = (place){uid, calloc(1, (size_t)bytes)};
  return r->virtual[r->virtuals++].data;
}

static tensor tensor_of(run *r, const descriptor *d) {
  tensor t = {.type = (cudnnDataType_t)number(d, CUDNN_ATTR_TENSOR_DATA_TYPE, 0)};
  const int axes = (int)find(d, CUDNN_ATTR_TENSOR_DIMENSIONS)->count;
  int64_t span = 1;
  for (int i = 0; i < DIMS; i++) {
    const int from = i < 2 ? i : i - (DIMS - axes);
    const bool there = i < 2 || from >= 2;
    t.dim[i] = there ? numbers(d, CUDNN_ATTR_TENSOR_DIMENSIONS)[from] : 1;
    t.stride[i] = there ? numbers(d, CUDNN_ATTR_TENSOR_STRIDES)[from] : 0;
    span += (t.dim[i] - 1) * t.stride[i];
  }
  t.data = address_of(r, d, 4 * span);
  return t;
}

/* ---- operations --------------------------------------------------------------------------------
 */

/** y[n, k, o] = sum over c, taps of x[n, c, o stride - pad + tap dilation] w[k, c, tap]; the
 * adjoints run over the same products. `sum` has a double per element of the result, in C order. */
typedef struct window {
  int64_t pad[3], stride[3], dilation[3];
} window;

static int64_t place_in(const tensor *t, int64_t a, int64_t b, const int64_t cell[3], bool dense) {
  int64_t at = dense ? a * t->dim[1] + b : a * t->stride[0] + b * t->stride[1];
  for (int d = 0; d < 3; d++)
    at = dense ? at * t->dim[2 + d] + cell[d] : at + cell[d] * t->stride[2 + d];
  return at;
}

static void add_products(const tensor *x, const tensor *w, const tensor *y, const int64_t in[3],
                         const int64_t tap[3], const int64_t out[3], int64_t n, int kind,
                         double *sum) {
  const int64_t groups = x->dim[1] / w->dim[1], share = w->dim[0] / groups;
  for (int64_t k = 0; k < w->dim[0]; k++)
    for (int64_t c = 0; c < w->dim[1]; c++) {
      const int64_t channel = k / share * w->dim[1] + c;
      const int64_t ax = place_in(x, n, channel, in, kind == 1),
                    aw = place_in(w, k, c, tap, kind == 2), ay = place_in(y, n, k, out, kind == 0);
      if (kind == 0) sum[ay] += (double)load(x, ax) * (double)load(w, aw);
      if (kind == 1) sum[ax] += (double)load(y, ay) * (double)load(w, aw);
      if (kind == 2) sum[aw] += (double)load(x, ax) * (double)load(y, ay);
    }
}

/** kind 0: forward, 1: data, 2: filter. */
static void convolve(const tensor *x, const tensor *w, const tensor *y, const window *g, int kind) {
  const tensor *to = kind == 0 ? y : kind == 1 ? x : w;
  int64_t count = 1, out[3], tap[3], in[3];
  for (int i = 0; i < DIMS; i++)
    count *= to->dim[i];
  double *sum = calloc((size_t)count, sizeof *sum);
  const int64_t outs = y->dim[2] * y->dim[3] * y->dim[4], taps = w->dim[2] * w->dim[3] * w->dim[4];
  for (int64_t n = 0; n < x->dim[0]; n++)
    for (int64_t o = 0; o < outs; o++)
      for (int64_t t = 0; t < taps; t++) {
        bool inside = true;
        for (int64_t d = 2, ro = o, rt = t; d >= 0; d--) {
          out[d] = ro % y->dim[2 + d], ro /= y->dim[2 + d];
          tap[d] = rt % w->dim[2 + d], rt /= w->dim[2 + d];
          in[d] = out[d] * g->stride[d] - g->pad[d] + tap[d] * g->dilation[d];
          inside &= in[d] >= 0 && in[d] < x->dim[2 + d];
        }
        if (inside) add_products(x, w, y, in, tap, out, n, kind, sum);
      }
  for (int64_t i = 0; i < count; i++) {
    int64_t cell[DIMS], rest = i, at = 0;
    for (int d = DIMS - 1; d >= 0; d--) {
      cell[d] = rest % to->dim[d];
      rest /= to->dim[d];
      at += cell[d] * to->stride[d];
    }
    store(to, at, (float)sum[i]);
  }
  free(sum);
}

static void run_convolution(run *r, const descriptor *operation, int kind) {
  static const cudnnBackendAttributeName_t names[3][4] = {
      {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC},
      {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC},
      {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC}};
  tensor t[3];
  window g;
  for (int i = 0; i < 3; i++)
    t[i] = tensor_of(r, part(operation, names[kind][i], 0));
  const descriptor *how = part(operation, names[kind][3], 0);
  const int axes = (int)number(how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, 0);
  for (int d = 0; d < 3; d++) {
    const int from = d - (3 - axes);
    g.pad[d] = from < 0 ? 0 : numbers(how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS)[from];
    g.stride[d] = from < 0 ? 1 : numbers(how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES)[from];
    g.dilation[d] = from < 0 ? 1 : numbers(how, CUDNN_ATTR_CONVOLUTION_DILATIONS)[from];
  }
  convolve(&t[0], &t[1], &t[2], &g, kind);
}

static void run_pointwise(run *r, const descriptor *operation) {
  const descriptor *how = part(operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, 0);
  const descriptor *second = part(operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, 0);
  const int64_t mode = number(how, CUDNN_ATTR_POINTWISE_MODE, -1);
  const attribute *clip = find(how, CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP_SLOPE);
  double slope = 0;
  if (clip) memcpy(&slope, clip->value, sizeof slope);
  const tensor x = tensor_of(r, part(operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, 0)),
               y = tensor_of(r, part(operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, 0)),
               b = second ? tensor_of(r, second) : x;
  int64_t count = 1;
  for (int d = 0; d < DIMS; d++)
    count *= y.dim[d];
  for (int64_t i = 0; i < count; i++) {
    int64_t rest = i, at[3] = {0};
    for (int d = DIMS - 1; d >= 0; d--) {
      const int64_t cell = rest % y.dim[d];
      rest /= y.dim[d];
      at[0] += cell * x.stride[d];
      at[1] += b.dim[d] == 1 ? 0 : cell * b.stride[d]; // broadcast
      at[2] += cell * y.stride[d];
    }
    float v = load(&x, at[0]);
    if (mode == CUDNN_POINTWISE_ADD) v += load(&b, at[1]);
    if (mode == CUDNN_POINTWISE_RELU_FWD && v < 0) v *= (float)slope;
    store(&y, at[2], v);
  }
}

static void run_graph(const void *what) {
  run r = *(const run *)what;
  const int64_t operations = find(r.graph, CUDNN_ATTR_OPERATIONGRAPH_OPS)->count;
  for (int i = 0; i < operations; i++) {
    const descriptor *operation = part(r.graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, i);
    switch (operation->type) {
      case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        run_convolution(&r, operation, 0);
        break;
      case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        run_convolution(&r, operation, 1);
        break;
      case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        run_convolution(&r, operation, 2);
        break;
      default: run_pointwise(&r, operation); break;
    }
  }
  for (int i = 0; i < r.virtuals; i++)
    free(r.virtual[i].data);
  memset(r.workspace, 0xFF, 4096); // it is the engine's, and nobody's result lies there
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t with,
                                  cudnnBackendDescriptor_t where) {
  const descriptor *plan = with, *pack = where;
  const descriptor *how = part(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, 0);
  const descriptor *engine = part(how, CUDNN_ATTR_ENGINECFG_ENGINE, 0);
  const int64_t index = number(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, -1);
  const attribute *uid = find(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS),
                  *data = find(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  run r = {.graph = part(engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, 0)};
  if (!plan->finished || !pack->finished || uid->count != data->count)
    return CUDNN_STATUS_BAD_PARAM;
  if (told("fail", index)) return CUDNN_STATUS_EXECUTION_FAILED;
  if (told("record", index) && standin_is_recording()) {
    standin_spoil_recording();
    return CUDNN_STATUS_EXECUTION_FAILED;
  }
  for (int64_t i = 0; i < uid->count; i++) {
    place *p = &r.place[r.places++];
    memcpy(&p->uid, uid->value + 8 * i, sizeof p->uid);
    memcpy(&p->data, data->value + 8 * i, sizeof p->data);
  }
  memcpy(&r.workspace, find(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE)->value, sizeof r.workspace);
  const char *log = getenv("STANDIN_LOG");
  FILE *file = log ? fopen(log, "a") : NULL;
  if (file) {
    fprintf(file, "engine %d, knob %d\n", (int)index,
            (int)number(part(how, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, 0),
                        CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, -1));
    fclose(file);
  }
  return standin_put(handle->stream, run_graph, &r, sizeof r) == cudaSuccess
             ? CUDNN_STATUS_SUCCESS
             : CUDNN_STATUS_EXECUTION_FAILED;
}
