#include "cli/sizes.h"

#include <stdlib.h>
#include <string.h>

static fn_status read_channels(const char *text, int64_t *channels) {
  const char *rest = text;
  for (int i = 0; i < 2; i++) {
    char *end;
    channels[i] = strtoll(rest, &end, 10);
    FN_CHECK(
        end != rest && channels[i] > 0 && channels[i] < 100000 && *end == (i == 0 ? ',' : '\0'),
        FN_ERR_CONFIG, "--channels: expected two numbers IN,OUT such as 3,3, found '%s'", text);
    rest = end + 1;
  }
  return FN_OK;
}

fn_status fn_command_sizes(const fn_command_line *line, fn_size_options *options) {
  *options = (fn_size_options){.synthetic = fn_command_given(line, "synthetic")};
  int64_t spatial = 0;
  FN_TRY(fn_command_integer(line, "size", 1, 100000, &options->edge));
  FN_TRY(fn_command_integer(line, "spatial", 1, FN_MAX_SPATIAL, &spatial));
  options->spatial = (int)spatial;
  const char *channels = fn_command_text(line, "channels", NULL);
  return channels ? read_channels(channels, options->channels) : FN_OK;
}
