/* Numbers for programs, and two such files beside each other. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"
#include "config/options.h"
#include "run/bench_internal.h"

/* ---- writing -----------------------------------------------------------------------------------
 */

static void add_key(fn_text *text, const char *key) {
  fn_text_add_json(text, key);
  fn_text_add(text, ": ");
}

static void add_number(fn_text *text, const char *key, double value) {
  add_key(text, key);
  if (isfinite(value))
    fn_text_add(text, "%.9g", value);
  else
    fn_text_add(text, "null");
}

static void add_words(fn_text *text, const char *key, const char *value) {
  add_key(text, key);
  fn_text_add_json(text, value);
}

/** Numbers named by key, ended by NULL. */
typedef struct field {
  const char *key;
  double value;
} field;

static void add_fields(fn_text *text, const field *fields) {
  for (int i = 0; fields[i].key; i++) {
    if (i) fn_text_add(text, ", ");
    add_number(text, fields[i].key, fields[i].value);
  }
}

static void add_array(fn_text *text, const char *key, const double *values, int64_t count) {
  add_key(text, key);
  for (int64_t i = 0; i < count; i++)
    fn_text_add(text, "%s%.9g", i ? ", " : "[", values[i]);
  fn_text_add(text, "%s]", count ? "" : "[");
}

static void add_extent(fn_text *text, const char *key, int64_t channels, const int64_t *extent,
                       int spatial) {
  add_key(text, key);
  fn_text_add(text, "[%lld", (long long)channels);
  for (int d = 0; d < spatial; d++)
    fn_text_add(text, ", %lld", (long long)extent[d]);
  fn_text_add(text, "]");
}

static void add_rows(fn_text *text, const char *key, const bench_row *rows, int count) {
  char shape[96];
  fn_text_add(text, "   ");
  add_key(text, key);
  fn_text_add(text, "[");
  for (int i = 0; i < count; i++) {
    const bench_row *r = &rows[i];
    fn_text_add(text, "%s\n    {", i ? "," : "");
    add_words(text, "name", r->name);
    fn_text_add(text, ", ");
    add_words(text, "backend", r->backend);
    fn_text_add(text, ", \"shape\": %s, ",
                r->shape.ndim ? fn_shape_text(&r->shape, shape, sizeof shape) : "[]");
    add_fields(text, (const field[]){{"kernels", r->kernels},
                                     {"seconds", r->seconds},
                                     {"alone", r->alone},
                                     {"bound", r->bound},
                                     {"least", r->least},
                                     {"flops", r->flops},
                                     {"bytes", r->bytes},
                                     {NULL, 0}});
    fn_text_add(text, "}");
  }
  fn_text_add(text, "]");
}

static void add_phases(fn_text *text, const bench_steps *s) {
  fn_text_add(text, "   \"phases\": {");
  for (int p = 0; p < BENCH_PHASES; p++) {
    if (p) fn_text_add(text, ", ");
    add_number(text, fn_bench_phase_names[p], s->phase[p]);
  }
  const double hidden = s->busy - s->phase[BENCH_EXPOSED];
  fn_text_add(text, "},\n   \"communication\": {");
  add_fields(text, (const field[]){{"busy", s->busy},
                                   {"hidden", hidden > 0 ? hidden : 0},
                                   {"exposed", s->phase[BENCH_EXPOSED]},
                                   {"exposed_last_rank", s->exposed_least},
                                   {"exposed_first_rank", s->exposed_most},
                                   {NULL, 0}});
  fn_text_add(text, "},\n");
}

static void add_chain(fn_text *text, const bench_chain *c) {
  if (c->steps == 0) return;
  fn_text_add(text, "   \"chain\": {\"launch_bound\": %s, ",
              fn_bench_is_launch_bound(c) ? "true" : "false");
  add_fields(text, (const field[]){{"steps", (double)c->steps},
                                   {"step", c->step},
                                   {"device", c->device},
                                   {"host", c->host},
                                   {"input_wait", c->input_wait},
                                   {NULL, 0}});
  fn_text_add(text, "},\n");
}

static void add_steps(fn_text *text, const bench *b, const bench_steps *s) {
  fn_text_add(text, "  \"%s\": {\n   \"inference\": %s, ", fn_bench_mode_name(s->mode),
              s->inference ? "true" : "false");
  add_fields(text, (const field[]){{"samples", (double)s->batch},
                                   {"step", s->step_time},
                                   {"step_mean", s->step_mean},
                                   {"compute", s->compute_time},
                                   {"samples_per_second", (double)s->batch / fn_bench_pace(s)},
                                   {"primitives", s->alone},
                                   {"ratio", s->ratio_median},
                                   {"least", s->least},
                                   {"optimizer_least", s->optimizer_least},
                                   {"bound_ratio", s->bound_ratio_median},
                                   {"arena", (double)s->memory.arena},
                                   {"unplanned", (double)s->memory.naive},
                                   {"workspace", (double)s->memory.workspace},
                                   {"reorders", s->memory.reorders},
                                   {"peak_resident", (double)s->peak},
                                   {NULL, 0}});
  fn_text_add(text, ",\n");
  add_chain(text, &s->chain);
  add_phases(text, s);
  fn_text_add(text, "   ");
  add_array(text, "steps_ascending", s->step, b->options->steps);
  fn_text_add(text, ",\n");
  add_rows(text, "operators", s->kind, s->kind_count);
  fn_text_add(text, ",\n");
  add_rows(text, "kernels", s->kernel, s->kernel_count);
  fn_text_add(text, "}");
}

static void add_comm(fn_text *text, const bench_comm *c) {
  fn_text_add(text, "  \"comm\": {");
  add_fields(text, (const field[]){{"gradient_bytes", (double)c->gradient_bytes},
                                   {"best", (double)c->bucket[c->best].bytes},
                                   {NULL, 0}});
  fn_text_add(text, ", ");
  add_words(text, "reduction", c->how);
  fn_text_add(text, ",\n   \"sizes\": [");
  for (int i = 0; i < c->count; i++) {
    fn_text_add(text, "%s\n    {", i ? "," : "");
    add_fields(text, (const field[]){{"bucket_bytes", (double)c->bucket[i].bytes},
                                     {"buckets", c->bucket[i].buckets},
                                     {"seconds", c->bucket[i].seconds},
                                     {"sent_bytes", c->bucket[i].sent},
                                     {"shared_bytes", c->bucket[i].shared},
                                     {NULL, 0}});
    fn_text_add(text, "}");
  }
  fn_text_add(text, "]}");
}

static void add_device(fn_text *text, const fn_device_info *info) {
  fn_text_add(text, "  \"device\": {");
  add_words(text, "name", info->name);
  fn_text_add(text, ", ");
  add_words(text, "driver", info->driver);
  fn_text_add(text, ", ");
  add_words(text, "cuda", info->runtime);
  fn_text_add(text, ", ");
  add_words(text, "cudnn", info->library);
  fn_text_add(text, ", ");
  add_number(text, "memory", (double)info->memory);
  fn_text_add(text, "},\n");
}

static void add_modes(fn_text *text, const bench *b) {
  const char *separator = "\n";
  fn_text_add(text, " \"modes\": {");
  for (int i = 0; i < 2; i++) {
    if (!b->steps[i].measured) continue;
    fn_text_add(text, "%s", separator);
    add_steps(text, b, &b->steps[i]);
    separator = ",\n";
  }
  if (b->io.measured) {
    fn_text_add(text, "%s  \"io\": {", separator);
    add_fields(text, (const field[]){{"batch", b->io.seconds},
                                     {"samples_per_second", b->io.samples},
                                     {"bytes_per_second", b->io.bytes},
                                     {"bytes_per_sample", b->io.sample_bytes},
                                     {NULL, 0}});
    fn_text_add(text, "}");
    separator = ",\n";
  }
  if (b->comm.measured) {
    fn_text_add(text, "%s", separator);
    add_comm(text, &b->comm);
  }
  fn_text_add(text, "}\n");
}

static void add_setting(fn_text *text, const bench *b) {
  fn_text_add(text, "{");
  const char *const words[][2] = {{"version", fn_version()},
                                  {"host", fn_host_name()},
                                  {"model", b->run->model.layers ? "layers" : b->run->model.name},
                                  {"backend", b->run->compute.backend},
                                  {"precision", b->run->compute.precision},
                                  {"optimizer", b->run->optimizer.name},
                                  {"sizes_from", b->source}};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    add_words(text, words[i][0], words[i][1]);
    fn_text_add(text, ", ");
  }
  add_fields(text, (const field[]){{"ranks", b->dist->size},
                                   {"threads", fn_threads_get()},
                                   {"batch", (double)b->options->batch},
                                   {"steps", (double)b->options->steps},
                                   {"warmup", (double)b->options->warmup},
                                   {"parameters", (double)b->parameters->parameter_total},
                                   {NULL, 0}});
  fn_text_add(text, ",\n ");
  add_extent(text, "input", b->info.input_channels, b->info.input_extent, b->info.spatial);
  fn_text_add(text, ", ");
  add_extent(text, "target", b->info.target_channels, b->info.target_extent,
             b->info.target_spatial);
  fn_text_add(text, ",\n");
  if (b->device) add_device(text, &b->device->info);
}

static void add_checkpoint(fn_text *text, const bench_checkpoint *c) {
  fn_text_add(text, " \"checkpoint\": {\"background\": %s, \"within_one_step\": %s,\n  ",
              c->background ? "true" : "false", c->extra <= c->step ? "true" : "false");
  add_fields(text, (const field[]){{"bytes", (double)c->bytes},
                                   {"snapshot", c->snapshot},
                                   {"write", c->write},
                                   {"bytes_per_second", (double)c->bytes / c->write},
                                   {"step", c->step},
                                   {"saving_step", c->saving_step},
                                   {"stall", c->extra},
                                   {"stall_steps", c->extra / c->step},
                                   {"turns", (double)c->rounds},
                                   {"steps_per_turn", (double)c->steps},
                                   {NULL, 0}});
  fn_text_add(text, "},\n");
}

void fn_bench_write_json(const bench *b, fn_text *text) {
  add_setting(text, b);
  if (b->machine.flops > 0) {
    fn_text_add(text, " \"machine\": {");
    add_fields(text, (const field[]){{"flops_per_second", b->machine.flops},
                                     {"copy_bytes_per_second", b->machine.bytes},
                                     {NULL, 0}});
    fn_text_add(text, ", ");
    add_words(text, "convolution", b->machine.conv);
    fn_text_add(text, "},\n");
  }
  if (b->start.first_step > 0) {
    fn_text_add(text, " \"start\": {");
    add_fields(text, (const field[]){{"launch", b->start.launch},
                                     {"data", b->start.data},
                                     {"plan", b->start.plan},
                                     {"prepare", b->start.prepare},
                                     {"first_batch", b->start.read},
                                     {"first_step", b->start.first_step},
                                     {NULL, 0}});
    fn_text_add(text, "},\n");
  }
  if (b->checkpoint.measured) add_checkpoint(text, &b->checkpoint);
  add_modes(text, b);
  fn_text_add(text, "}\n");
}
