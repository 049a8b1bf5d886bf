/* fieldnet sweep: many trials of one run. */
#include "cli/command_sweep.h"

#include <string.h>

#include "base/text.h"

fn_status fn_command_sweep(const fn_command_line *line) {
  static const struct {
    const char *name;
    fn_status (*function)(const fn_command_line *line);
  } actions[] = {{"run", fn_sweep_command_run}, {"job", fn_sweep_command_job}};
  enum { COUNT = sizeof actions / sizeof actions[0] };
  const char *action = line->extra_count > 0 ? line->extra[0] : "", *names[COUNT];
  for (int i = 0; i < COUNT; i++) {
    names[i] = actions[i].name;
    if (strcmp(action, names[i]) == 0) return actions[i].function(line);
  }
  const char *closest = fn_text_closest(action, names, COUNT);
  FN_FAIL(FN_ERR_CONFIG, "sweep: expected run or job, found '%s'%s%s", action,
          closest ? "; did you mean " : "", closest ? closest : "");
}
