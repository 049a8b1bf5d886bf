#include "run/sweep_record.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/system.h"

static const char *const names[] = {"sweep",   "registered", "claimed",  "report", "finished",
                                    "stopped", "failed",     "released", "lost"};
enum { EVENTS = sizeof names / sizeof names[0], SEAL = 18 }; // ,"crc":"01234567"}

/* ---- writing -----------------------------------------------------------------------------------
 */

static void add_number(fn_text *line, const char *key, double value) {
  if (isfinite(value))
    fn_text_add(line, ",\"%s\":%.17g", key, value);
  else
    fn_text_add(line, ",\"%s\":null", key);
}

static void add_words(fn_text *line, const char *key, const char *words) {
  if (!words) return;
  fn_text_add(line, ",\"%s\":", key);
  fn_text_add_json(line, words);
}

void fn_sweep_record_write(const fn_sweep_record *record, fn_text *line) {
  const fn_sweep_event event = record->event;
  const size_t begin = line->length;
  fn_text_add(line, "{\"event\":\"%s\",\"time\":%.3f", names[event], record->time);
  if (event != FN_EVENT_SWEEP) fn_text_add(line, ",\"trial\":%" PRId64, record->trial);
  if (record->attempt > 0) fn_text_add(line, ",\"attempt\":%" PRId64, record->attempt);
  if (record->epoch > 0) fn_text_add(line, ",\"epoch\":%" PRId64, record->epoch);
  if (event == FN_EVENT_REPORT || event == FN_EVENT_FINISHED)
    add_number(line, "value", record->value);
  if (event == FN_EVENT_FINISHED) add_number(line, "seconds", record->seconds);
  if (event == FN_EVENT_FAILED)
    fn_text_add(line, ",\"status\":%" PRId64 ",\"final\":%s", record->status,
                record->final ? "true" : "false");
  add_words(line, "worker", record->worker);
  add_words(line, "message", record->message);
  if (record->set_count > 0) {
    for (int i = 0; i < record->set_count; i++) {
      fn_text_add(line, i == 0 ? ",\"set\":[" : ",");
      fn_text_add_json(line, record->set[i]);
    }
    fn_text_add(line, "]");
  }
  if (line->incomplete) return;
  const uint32_t crc = fn_crc32(0, line->data + begin, line->length - begin);
  fn_text_add(line, ",\"crc\":\"%08" PRIx32 "\"}\n", crc);
}

/* ---- reading -----------------------------------------------------------------------------------
 */

/** Where reading is; what is wrong makes `good` false, and nothing is read after that. */
typedef struct scanner {
  char *at, *end;
  bool good;
} scanner;

static bool eat(scanner *s, char c) {
  s->good = s->good && s->at < s->end && *s->at == c;
  if (s->good) s->at++;
  return s->good;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/** The character after \u; only those below 128 are ever written so. */
static char unicode(scanner *s) {
  int code = 0;
  for (int i = 0; i < 4; i++) {
    const int digit = s->at < s->end ? hex_digit(*s->at) : -1;
    s->good = s->good && digit >= 0;
    if (!s->good) return 0;
    code = 16 * code + digit;
    s->at++;
  }
  s->good = code > 0 && code < 128;
  return (char)code;
}

/** A text, unpacked where it stands. */
static char *text(scanner *s) {
  static const char letters[] = "nrtbf", meant[] = "\n\r\t\b\f";
  eat(s, '"');
  char *const begin = s->at, *out = begin;
  while (s->good && s->at < s->end && *s->at != '"') {
    char c = *s->at++;
    if (c == '\\') {
      s->good = s->at < s->end;
      if (!s->good) break;
      c = *s->at++;
      const char *letter = strchr(letters, c);
      if (c == 'u')
        c = unicode(s);
      else if (letter && c)
        c = meant[letter - letters];
    }
    *out++ = c;
  }
  if (!eat(s, '"')) return begin;
  *out = '\0'; // at most where the closing quote was
  return begin;
}

static double number(scanner *s) {
  char *end = s->at;
  if (s->good && s->end - s->at >= 4 && memcmp(s->at, "null", 4) == 0) {
    s->at += 4;
    return (double)NAN;
  }
  const double value = s->good ? strtod(s->at, &end) : 0;
  s->good = s->good && end != s->at && end <= s->end;
  s->at = end;
  return value;
}

static bool flag(scanner *s) {
  const bool yes = s->good && s->end - s->at >= 4 && memcmp(s->at, "true", 4) == 0;
  if (yes)
    s->at += 4;
  else
    for (const char *c = "false"; *c; c++)
      eat(s, *c);
  return yes;
}

static void set_list(scanner *s, fn_sweep_record *record) {
  eat(s, '[');
  while (s->good && s->at < s->end && *s->at != ']') {
    if (record->set_count > 0) eat(s, ',');
    s->good = s->good && record->set_count < FN_RECORD_SETS;
    if (s->good) record->set[record->set_count++] = text(s);
  }
  eat(s, ']');
}

static void set_event(scanner *s, fn_sweep_record *record) {
  const char *name = text(s);
  for (int i = 0; s->good && i < EVENTS; i++) {
    if (strcmp(name, names[i]) != 0) continue;
    record->event = (fn_sweep_event)i;
    return;
  }
  s->good = false;
}

static void set_field(scanner *s, const char *key, fn_sweep_record *record) {
  const struct {
    const char *name;
    int64_t *integer;
    double *real;
    const char **words;
  } fields[] = {
      {"trial", &record->trial, NULL, NULL},     {"attempt", &record->attempt, NULL, NULL},
      {"epoch", &record->epoch, NULL, NULL},     {"status", &record->status, NULL, NULL},
      {"time", NULL, &record->time, NULL},       {"value", NULL, &record->value, NULL},
      {"seconds", NULL, &record->seconds, NULL}, {"worker", NULL, NULL, &record->worker},
      {"message", NULL, NULL, &record->message}};
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
    if (strcmp(key, fields[i].name) != 0) continue;
    if (fields[i].words)
      *fields[i].words = text(s);
    else if (fields[i].real)
      *fields[i].real = number(s);
    else
      *fields[i].integer = (int64_t)number(s);
    return;
  }
  if (strcmp(key, "event") == 0)
    set_event(s, record);
  else if (strcmp(key, "set") == 0)
    set_list(s, record);
  else if (strcmp(key, "final") == 0)
    record->final = flag(s);
  else
    s->good = false;
}

bool fn_sweep_record_read(char *line, size_t length, fn_sweep_record *record) {
  *record = (fn_sweep_record){.value = (double)NAN};
  if (length < SEAL + 2) return false;
  char *seal = line + length - SEAL;
  char expected[SEAL + 1];
  snprintf(expected, sizeof expected, ",\"crc\":\"%08" PRIx32 "\"}",
           fn_crc32(0, line, length - SEAL));
  if (memcmp(seal, expected, SEAL) != 0) return false;
  scanner s = {.at = line, .end = seal, .good = true};
  eat(&s, '{');
  for (bool first = true; s.good && s.at < s.end; first = false) {
    if (!first) eat(&s, ',');
    const char *key = text(&s);
    eat(&s, ':');
    if (s.good) set_field(&s, key, record);
  }
  return s.good;
}
