/* fieldnet data: make and look at field files. */
#include <string.h>

#include "base/log.h"
#include "base/text.h"
#include "cli/command_data.h"
#include "data/synth.h"

/* ---- synth ------------------------------------------------------------------------------------
 */

static fn_status synth(const fn_command_line *line) {
  const char *kind = line->extra_count > 1 ? line->extra[1] : "";
  if (strcmp(kind, "cubes") == 0) return fn_data_synth_cubes(line);
  FN_CHECK(strcmp(kind, "displacement") == 0, FN_ERR_CONFIG,
           "data synth: expected displacement or cubes, found %s%s%s", *kind ? "'" : "",
           *kind ? kind : "nothing", *kind ? "'" : "");
  FN_CHECK(line->extra_count == 2, FN_ERR_CONFIG,
           "data synth displacement: unexpected argument '%s' (the folder goes after --folder)",
           line->extra[2]);
  fn_synth_options options = fn_synth_defaults();
  int64_t seed = (int64_t)options.seed;
  options.folder = fn_command_text(line, "folder", NULL);
  FN_CHECK(options.folder, FN_ERR_CONFIG, "data synth displacement: --folder DIR is missing");
  FN_TRY(fn_command_integer(line, "files", 1, INT32_MAX, &options.files));
  FN_TRY(fn_command_integer(line, "first", 0, INT32_MAX, &options.first));
  FN_TRY(fn_command_integer(line, "edge", 4, 8192, &options.edge));
  FN_TRY(fn_command_integer(line, "seed", 0, INT64_MAX, &seed));
  FN_TRY(fn_command_real(line, "box", 1e-3, 1e6, &options.box));
  FN_TRY(fn_command_real(line, "omega-m", 0.1, 1, &options.omega_m));
  options.seed = (uint64_t)seed;
  options.force = fn_command_given(line, "force");
  FN_TRY(fn_synth_displacement(&options));
  fn_log(FN_INFO, "%lld pair%s of %lld^3 cells in a box of %g Mpc/h, seed %lld: %s/{lin,lpt2}",
         (long long)options.files, options.files == 1 ? "" : "s", (long long)options.edge,
         options.box, (long long)seed, options.folder);
  return FN_OK;
}

fn_status fn_command_data(const fn_command_line *line) {
  static const struct {
    const char *name;
    fn_status (*function)(const fn_command_line *line);
  } actions[] = {{"stats", fn_data_stats},
                 {"pack", fn_data_pack},
                 {"verify", fn_data_verify},
                 {"inspect", fn_data_inspect},
                 {"synth", synth}};
  enum { COUNT = sizeof actions / sizeof actions[0] };
  const char *action = line->extra_count > 0 ? line->extra[0] : "", *names[COUNT];
  for (int i = 0; i < COUNT; i++) {
    names[i] = actions[i].name;
    if (strcmp(action, names[i]) == 0) return actions[i].function(line);
  }
  const char *closest = fn_text_closest(action, names, COUNT);
  FN_FAIL(FN_ERR_CONFIG, "data: expected stats, pack, verify, inspect or synth, found '%s'%s%s",
          action, closest ? "; did you mean " : "", closest ? closest : "");
}
