/* Random potentials as a source of cubes. */
#include "data/cube_synth.h"

#include <stdlib.h>

typedef struct synth_source {
  fn_cube_source source;
  fn_potential_options options;
} synth_source;

static fn_status synth_shape(fn_cube_source *source, int64_t seed, int theory, int64_t size[3]) {
  (void)theory;
  FN_CHECK(seed <= UINT32_MAX, FN_ERR_CONFIG, "seed: expected at most %lld, found %lld",
           (long long)UINT32_MAX, (long long)seed);
  for (int i = 0; i < 3; i++)
    size[i] = ((const synth_source *)source)->options.edge;
  return FN_OK;
}

static fn_status synth_read(fn_cube_source *source, int64_t seed, int theory, double *cells,
                            uint64_t *checksum) {
  *checksum = 0;
  return fn_synth_potential(&((const synth_source *)source)->options, seed, theory == FN_GR, cells);
}

static void synth_describe(const fn_cube_source *source, fn_text *text) {
  const fn_potential_options *o = &((const synth_source *)source)->options;
  fn_text_add(text,
              "synthetic: edge %lld, box %.17g, omega_m %.17g, redshift %.17g, seed %llu\n"
              "difference: %.17g\nmean offset: %.17g\n",
              (long long)o->edge, o->box, o->omega_m, o->redshift, (unsigned long long)o->seed,
              o->difference, o->offset);
}

static void synth_destroy(fn_cube_source *source) {
  free(source);
}

fn_status fn_synth_cubes_create(const fn_potential_options *options, fn_cube_source **source) {
  synth_source *s = calloc(1, sizeof *s);
  *source = NULL;
  FN_CHECK(s, FN_ERR_MEMORY, "no memory");
  s->options = *options;
  s->source = (fn_cube_source){.shape = synth_shape,
                               .read = synth_read,
                               .describe = synth_describe,
                               .destroy = synth_destroy};
  *source = &s->source;
  return FN_OK;
}
