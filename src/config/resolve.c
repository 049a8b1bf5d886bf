/* The run description as YAML: every key, readable back to an equal run. */
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "config/parts.h"

typedef struct writer {
  yaml_emitter_t emitter;
  bool good;
} writer;

static int append(void *user, unsigned char *bytes, size_t count) {
  fn_text_add_bytes(user, (const char *)bytes, count);
  return 1;
}

static void emit(writer *w, yaml_event_t *event, int made) {
  // The emitter takes over the event, failed or not.
  w->good = made && w->good && yaml_emitter_emit(&w->emitter, event);
}

static void emit_scalar(writer *w, const char *text, bool quoted) {
  yaml_event_t event;
  const yaml_scalar_style_t style =
      quoted ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE;
  emit(w, &event,
       yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text,
                                    (int)strlen(text), 1, 1, style));
}

/* `block`: how many levels are written over several lines. */
static void emit_node(writer *w, const fn_options *node, int block) {
  yaml_event_t event;
  if (node->kind == FN_OPTIONS_SCALAR) {
    // An empty plain scalar would be written as an empty text.
    emit_scalar(w, fn_tree_is_null(node) ? "null" : node->text, node->quoted);
    return;
  }
  if (node->kind == FN_OPTIONS_LIST) {
    emit(w, &event,
         yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
                                              block > 0 ? YAML_BLOCK_SEQUENCE_STYLE
                                                        : YAML_FLOW_SEQUENCE_STYLE));
    for (const fn_options *c = node->first; c && w->good; c = c->next)
      emit_node(w, c, block - 1);
    emit(w, &event, yaml_sequence_end_event_initialize(&event));
    return;
  }
  emit(w, &event,
       yaml_mapping_start_event_initialize(
           &event, NULL, NULL, 1, block > 0 ? YAML_BLOCK_MAPPING_STYLE : YAML_FLOW_MAPPING_STYLE));
  for (const fn_options *c = node->first; c && w->good; c = c->next) {
    emit_scalar(w, c->key, false);
    emit_node(w, c, block - 1);
  }
  emit(w, &event, yaml_mapping_end_event_initialize(&event));
}

/* Length of the sections that two dotted paths share, with the last dot. */
static size_t common_sections(const char *a, const char *b) {
  size_t common = 0;
  for (size_t i = 0; a[i] && a[i] == b[i]; i++)
    if (a[i] == '.') common = i + 1;
  return common;
}

static int count_dots(const char *path, size_t length) {
  int dots = 0;
  for (size_t i = 0; i < length; i++)
    dots += path[i] == '.';
  return dots;
}

static void open_mapping(writer *w) {
  yaml_event_t event;
  emit(w, &event,
       yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE));
}

static void close_mapping(writer *w) {
  yaml_event_t event;
  emit(w, &event, yaml_mapping_end_event_initialize(&event));
}

/* Keys of one section lie together in the table, so sections open and close as paths change. */
static void emit_run(writer *w, fn_arena *arena, const fn_run *run) {
  const char *before = "";
  open_mapping(w);
  for (int i = 0; i < fn_key_count() && w->good; i++) {
    const fn_key *key = fn_key_at(i);
    const size_t common = common_sections(before, key->path);
    for (int d = count_dots(before + common, strlen(before + common)); d > 0; d--)
      close_mapping(w);
    const char *rest = key->path + common;
    for (const char *dot = strchr(rest, '.'); dot; rest = dot + 1, dot = strchr(rest, '.')) {
      char *section = fn_arena_text(arena, rest);
      section[dot - rest] = '\0';
      emit_scalar(w, section, false);
      open_mapping(w);
    }
    emit_scalar(w, rest, false);
    emit_node(w, fn_key_node(arena, key, run), key->type == FN_KEY_LIST ? 1 : 0);
    before = key->path;
  }
  for (int d = count_dots(before, strlen(before)); d >= 0; d--)
    close_mapping(w);
}

static fn_status write_document(fn_text *text, fn_arena *arena, const fn_run *run,
                                const fn_options *node) {
  writer w = {.good = true};
  yaml_event_t event;
  FN_CHECK(yaml_emitter_initialize(&w.emitter), FN_ERR_MEMORY, "no memory to write YAML");
  yaml_emitter_set_output(&w.emitter, append, text);
  yaml_emitter_set_unicode(&w.emitter, 1);
  yaml_emitter_set_width(&w.emitter, -1);
  emit(&w, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
  emit(&w, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
  if (node)
    emit_node(&w, node, 0);
  else
    emit_run(&w, arena, run);
  emit(&w, &event, yaml_document_end_event_initialize(&event, 1));
  emit(&w, &event, yaml_stream_end_event_initialize(&event));
  fn_status status = FN_OK;
  if (!w.good)
    status = fn_error_set(FN_ERR_INTERNAL, __FILE__, __LINE__, "cannot write YAML: %s",
                          w.emitter.problem ? w.emitter.problem : "out of memory");
  yaml_emitter_delete(&w.emitter);
  return status;
}

fn_status fn_tree_write(const fn_options *node, fn_text *text) {
  FN_TRY(write_document(text, NULL, NULL, node));
  while (text->length > 0 && text->data[text->length - 1] == '\n')
    text->data[--text->length] = '\0';
  // A plain scalar document is closed by "..." so that it cannot be mistaken for an open one.
  if (text->length > 4 && strcmp(text->data + text->length - 4, "\n...") == 0)
    text->data[text->length -= 4] = '\0';
  return FN_OK;
}

fn_status fn_run_resolve(fn_run_parts *parts) {
  fn_text text = {0};
  const fn_status status = write_document(&text, parts->run.arena, &parts->run, NULL);
  if (status == FN_OK) parts->run.resolved = fn_arena_text(parts->run.arena, text.data);
  fn_text_free(&text);
  return status;
}
