/* report: what a run leaves behind, above all that a resume leaves no step twice and none out.
 * With a folder as argument: write a run there for run_tensorboard.py. */
#include "report_files.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.h"
#include "report/event.pb-c.h"
#include "report/page.h"
#include "report/report.h"
#include "report/sinks.h"

enum { STEPS = 5, EPOCHS = 3, EDGE = 32, CELLS = EDGE * EDGE * EDGE };

/* ---- a run without a network ----------------------------------------------------------------- */

/* Values as functions of the step alone, so that any two runs over it must log the same. */
static void play_step(const fn_observer *observer, int64_t step) {
  const fn_step_event event = {.step = step,
                               .epoch = (step - 1) / STEPS + 1,
                               .epoch_step = (step - 1) % STEPS + 1,
                               .epoch_steps = STEPS,
                               .epochs = EPOCHS,
                               .loss = 1.0 / (double)step,
                               .lr = 1e-4,
                               .gradient_norm = 3.0 / (double)step,
                               .gradient_first = 0.5,
                               .gradient_last = 0.25,
                               .seconds = 0.5,
                               .samples = 2,
                               .memory_peak = 1 << 20};
  observer->step(observer->self, &event);
}

static void play_epoch(const fn_observer *observer, int64_t epoch) {
  static float input[3 * CELLS], output[3 * CELLS];
  for (int i = 0; i < 3 * CELLS; i++) {
    input[i] = (float)sin(0.4 * (i % EDGE) + 0.3 * (i / EDGE % EDGE));
    output[i] = 0.5f * input[i];
  }
  const fn_figure_event figure = {.stage = "train",
                                  .epoch = epoch,
                                  .spatial = 3,
                                  .batch = 1,
                                  .channels_in = 3,
                                  .channels_out = 3,
                                  .size = {EDGE, EDGE, EDGE},
                                  .input = input,
                                  .output = output,
                                  .target = input};
  observer->figure(observer->self, &figure);
  const fn_epoch_event event = {.epoch = epoch,
                                .validation_accuracy = NAN,
                                .epochs = EPOCHS,
                                .step = epoch * STEPS,
                                .train_loss = 1.0 / (double)epoch,
                                .validation_loss = epoch == 1 ? (double)NAN : 2.0 / (double)epoch,
                                .lr = 1e-4,
                                .seconds = 2.5};
  observer->epoch(observer->self, &event);
}

/* Steps first + 1 .. last, as one start of the program; it dies before the last epoch's end, with
 * `saves` after a state of its own was written. */
static void play_start(const char *folder, int64_t first, int64_t last, bool saves) {
  const fn_run run = {.folder = folder, .report = {.tensorboard = true, .plots = true}};
  fn_observer observer;
  assert_int_equal(fn_report_create(&run, &observer), FN_OK);
  observer.start(observer.self, &run, "a \"run\"\nof two lines", first);
  for (int64_t step = first + 1; step <= last; step++) {
    play_step(&observer, step);
    if (step % STEPS == 0) play_epoch(&observer, step / STEPS);
  }
  if (saves) observer.saved(observer.self, "state_1.h5", 0.1);
  if (last == EPOCHS * STEPS) observer.finish(observer.self, FN_OK);
  fn_report_destroy(&observer);
}

static void play(const char *folder, int64_t first, int64_t last) {
  play_start(folder, first, last, true);
}

static void append(const char *folder, const char *name, const char *text) {
  char path[1024];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "a");
  assert_non_null(file);
  fputs(text, file);
  fclose(file);
}

static void expect_same_tables(const char *one, const char *other) {
  static const char *const tables[] = {"steps.csv", "metrics.csv"};
  for (int i = 0; i < 2; i++) {
    char *a = content(one, tables[i]), *b = content(other, tables[i]);
    assert_string_equal(a, b);
    free(a);
    free(b);
  }
}

static int occurrences(const char *text, const char *what) {
  int count = 0;
  for (; (text = strstr(text, what)); text++)
    count++;
  return count;
}

/* ---- event files ----------------------------------------------------------------------------- */

typedef struct seen {
  int files, batch[EPOCHS * STEPS + 1], epoch[EPOCHS + 1], figures[EPOCHS + 1];
} seen;

static uint32_t unmask(uint32_t crc) {
  crc -= 0xA282EAD8u;
  return crc << 15 | crc >> 17;
}

static void read_values(const FnEvent__Event *event, seen *s) {
  for (size_t i = 0; i < event->summary->n_value; i++) {
    const FnEvent__Value *value = event->summary->value[i];
    if (strcmp(value->tag, "loss/batch/train") == 0) {
      assert_near((double)value->simple_value, 1.0 / (double)event->step, 1e-7);
      s->batch[event->step]++;
    } else if (strcmp(value->tag, "loss/epoch/train") == 0) {
      s->epoch[event->step]++;
    } else if (strcmp(value->tag, "fig/train/power/lag") == 0) {
      assert_memory_equal(value->image->encoded_image_string.data, "\x89PNG", 4);
      s->figures[event->step]++;
    }
  }
}

static void read_events(const char *path, seen *s) {
  char *bytes;
  size_t count;
  assert_int_equal(fn_file_read(path, &bytes, &count), FN_OK);
  s->files++;
  for (size_t at = 0; at < count;) {
    uint64_t length;
    uint32_t crc;
    assert_true(count - at >= 16);
    memcpy(&length, bytes + at, 8);
    memcpy(&crc, bytes + at + 8, 4);
    assert_int_equal(unmask(crc), fn_crc32c(bytes + at, 8));
    assert_true(length <= count - at - 16);
    memcpy(&crc, bytes + at + 12 + length, 4);
    assert_int_equal(unmask(crc), fn_crc32c(bytes + at + 12, length));
    FnEvent__Event *event = fn_event__event__unpack(NULL, length, (uint8_t *)bytes + at + 12);
    assert_non_null(event);
    if (at == 0) assert_string_equal(event->file_version, "brain.Event:2");
    if (event->what_case == FN_EVENT__EVENT__WHAT_SUMMARY) read_values(event, s);
    fn_event__event__free_unpacked(event, NULL);
    at += 16 + length;
  }
  free(bytes);
}

static void read_tree(const char *path, seen *s) {
  DIR *directory = opendir(path);
  if (!directory) {
    read_events(path, s);
    return;
  }
  struct dirent *entry;
  char below[1024];
  while ((entry = readdir(directory))) {
    if (entry->d_name[0] == '.') continue;
    snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
    read_tree(below, s);
  }
  closedir(directory);
}

/* RFC 3720, appendix B.4, and the check value of the CRC catalogue. */
static void crc32c_known_answers(void **state) {
  (void)state;
  const unsigned char zeros[32] = {0};
  unsigned char ones[32], rising[32];
  memset(ones, 0xFF, sizeof ones);
  for (int i = 0; i < 32; i++)
    rising[i] = (unsigned char)i;
  assert_int_equal(fn_crc32c("123456789", 9), 0xE3069283u);
  assert_int_equal(fn_crc32c(zeros, 32), 0x8A9136AAu);
  assert_int_equal(fn_crc32c(ones, 32), 0x62A8AB43u);
  assert_int_equal(fn_crc32c(rising, 32), 0x46DD794Eu);
}

/* Stopped after step 8 with the last state at step 5 (an epoch's end), a torn row at the end. */
static void a_resumed_run_logs_as_an_uninterrupted_one(void **state) {
  (void)state;
  char whole[64], parts[64];
  strcpy(whole, temporary_folder());
  play(whole, 0, EPOCHS * STEPS);
  strcpy(parts, temporary_folder());
  play(parts, 0, 13); // to be forgotten from step 6 on
  append(parts, "steps.csv", "14,3,4,0.07");
  append(parts, "metrics.csv", "3,15");
  append(parts, "metrics.jsonl", "{\"event\":\"step\",\"step\":14");
  play(parts, 5, EPOCHS * STEPS);
  expect_same_tables(whole, parts);
  char *lines = content(parts, "metrics.jsonl");
  assert_int_equal(occurrences(lines, "{\"event\":\"step\""), EPOCHS * STEPS);
  assert_int_equal(occurrences(lines, "{\"event\":\"start\""), 2);
  assert_non_null(strstr(lines, "\"summary\":\"a \\\"run\\\"\\u000aof two lines\""));
  free(lines);
  char board[128];
  snprintf(board, sizeof board, "%s/tensorboard", parts);
  seen s = {0};
  read_tree(board, &s);
  assert_int_equal(s.files, 2);
  for (int i = 1; i <= EPOCHS * STEPS; i++)
    assert_int_equal(s.batch[i], 1);
  for (int i = 1; i <= EPOCHS; i++) {
    assert_int_equal(s.epoch[i], 1);
    assert_int_equal(s.figures[i], 1);
  }
  remove_tree(whole);
  remove_tree(parts);
}

/* Two starts from the state at step 10 died, one from the state at step 5 logged two steps and
 * died, too; then the state at step 10 is taken after all. */
static void rows_of_a_state_taken_after_all_come_back(void **state) {
  (void)state;
  char whole[64], parts[64];
  strcpy(whole, temporary_folder());
  play(whole, 0, EPOCHS * STEPS);
  strcpy(parts, temporary_folder());
  play(parts, 0, 13);
  play_start(parts, 10, 10, false);
  play_start(parts, 5, 7, false);
  append(parts, "steps.csv", "8,2,3,0.1\n"); // damaged in whatever way
  append(parts, "metrics.csv", "2\n");
  play_start(parts, 0, 0, false); // even before the first state
  char *cut = content(parts, "metrics.csv");
  assert_int_equal(cut[strcspn(cut, "\n") + 1], '\0'); // the header alone
  free(cut);
  play(parts, 10, EPOCHS * STEPS);
  expect_same_tables(whole, parts);
  char *lines = content(parts, "metrics.jsonl");
  assert_int_equal(occurrences(lines, "{\"event\":\"step\""), EPOCHS * STEPS);
  free(lines);
  remove_tree(whole);
  remove_tree(parts);
}

/* After a state of its own the older start is the run: what it went back before never was. A later
 * start from step 12, which logged nothing from step 8 on, must not bring that back. */
static void rows_of_an_abandoned_past_stay_away(void **state) {
  (void)state;
  char folder[64];
  strcpy(folder, temporary_folder());
  play(folder, 0, 13);
  play(folder, 5, 7);
  play(folder, 12, 14);
  char *steps = content(folder, "steps.csv"), *lines = content(folder, "metrics.jsonl"),
       *metrics = content(folder, "metrics.csv");
  assert_non_null(strstr(steps, "\n7,2,2,"));
  assert_null(strstr(steps, "\n8,2,3,"));
  assert_null(strstr(steps, "\n12,3,2,"));
  assert_non_null(strstr(steps, "\n13,3,3,"));
  assert_null(strstr(lines, "{\"event\":\"step\",\"step\":8,"));
  assert_null(strstr(metrics, "\n2,10,"));
  free(steps);
  free(lines);
  free(metrics);
  remove_tree(folder);
}

/* No state was saved before the kill: the run begins again, and so do its files. */
static void a_run_started_again_begins_anew(void **state) {
  (void)state;
  char folder[64];
  strcpy(folder, temporary_folder());
  play(folder, 0, 7);
  play(folder, 0, 6);
  char board[128];
  snprintf(board, sizeof board, "%s/tensorboard", folder);
  seen s = {0};
  read_tree(board, &s);
  assert_int_equal(s.files, 1);
  assert_int_equal(s.batch[1], 1);
  assert_int_equal(s.batch[7], 0);
  remove_tree(folder);
}

/* The epoch was logged, then the run was killed while saving; the state at its last step remains.
 */
static void an_epoch_ended_twice_is_logged_once(void **state) {
  (void)state;
  char folder[64];
  strcpy(folder, temporary_folder());
  play(folder, 0, 5);
  const fn_run run = {.folder = folder, .report = {.tensorboard = true}};
  fn_observer observer;
  assert_int_equal(fn_report_create(&run, &observer), FN_OK);
  observer.start(observer.self, &run, "", 5);
  play_epoch(&observer, 1);
  fn_report_destroy(&observer);
  char *table = content(folder, "metrics.csv");
  assert_int_equal(occurrences(table, "\n"), 2); // header and epoch 1
  free(table);
  remove_tree(folder);
}

/* Trouble with the files never reaches the run: it goes on, one warning per kind of file. */
static void a_run_survives_an_unwritable_folder(void **state) {
  (void)state;
  char folder[64], path[128];
  strcpy(folder, temporary_folder());
  append(folder, "file", "");
  snprintf(path, sizeof path, "%s/file", folder);
  play(path, 0, 6);
  assert_string_equal(fn_error_message(), "");
  remove_tree(folder);
}

/** Lines of a table, all with as many commas as its first; how many lines. */
static int whole_lines(const char *text) {
  int lines = 0, expected = -1, commas = 0;
  for (; *text; text++) {
    commas += *text == ',';
    if (*text != '\n') continue;
    if (expected < 0) expected = commas;
    assert_int_equal(commas, expected);
    commas = 0;
    lines++;
  }
  return lines;
}

/* A line is torn when the disk is full; when it has room again, tables go on at the next epoch.
 * Steps whose rows are lost get none of an earlier start's. */
static void tables_go_on_after_a_full_disk(void **state) {
  (void)state;
  char folder[64], path[128];
  strcpy(folder, temporary_folder());
  play_start(folder, 0, 13, false);
  const fn_run run = {.folder = folder};
  fn_observer observer;
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(fn_report_create(&run, &observer), FN_OK);
  observer.start(observer.self, &run, "", 0);
  for (int64_t step = 1; step <= 5; step++)
    play_step(&observer, step);
  play_epoch(&observer, 1);
  struct stat info;
  struct rlimit before, full;
  snprintf(path, sizeof path, "%s/steps.csv", folder);
  assert_int_equal(stat(path, &info), 0);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  full = (struct rlimit){.rlim_cur = (rlim_t)info.st_size + 10, .rlim_max = before.rlim_max};
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
  play_step(&observer, 6);
  play_step(&observer, 7);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
  for (int64_t step = 8; step <= 15; step++) {
    play_step(&observer, step);
    if (step % STEPS == 0) play_epoch(&observer, step / STEPS);
  }
  observer.finish(observer.self, FN_OK);
  fn_report_destroy(&observer);
  char *steps = content(folder, "steps.csv"), *metrics = content(folder, "metrics.csv"),
       *lines = content(folder, "metrics.jsonl");
  assert_in_range(whole_lines(steps), 1 + 5 + 5, 1 + 15);
  assert_non_null(strstr(steps, "\n5,1,5,"));
  assert_null(strstr(steps, "\n8,2,3,"));
  assert_non_null(strstr(steps, "\n11,3,1,"));
  assert_int_equal(whole_lines(metrics), 1 + 3);
  assert_non_null(strstr(lines, "{\"event\":\"epoch\",\"epoch\":2,"));
  for (char *at = lines; (at = strchr(at, '\n')); at++)
    assert_true(at[-1] == '}' && (at[1] == '{' || at[1] == '\0'));
  free(steps);
  free(metrics);
  free(lines);
  remove_tree(folder);
}

/* The disk is full when a start would set aside what was logged beyond its state: that is done when
 * there is room, and its steps do not take the place of those that could not be logged. */
static void a_start_on_a_full_disk_divides_later(void **state) {
  (void)state;
  char folder[64];
  strcpy(folder, temporary_folder());
  play(folder, 0, 13);
  const fn_run run = {.folder = folder};
  fn_observer observer;
  struct rlimit before;
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
  const struct rlimit full = {.rlim_cur = 1, .rlim_max = before.rlim_max};
  assert_int_equal(fn_report_create(&run, &observer), FN_OK);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
  observer.start(observer.self, &run, "", 5);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
  for (int64_t step = 6; step <= 12; step++) {
    play_step(&observer, step);
    if (step % STEPS == 0) play_epoch(&observer, step / STEPS);
  }
  fn_report_destroy(&observer);
  char *steps = content(folder, "steps.csv"), *lines = content(folder, "metrics.jsonl");
  assert_non_null(strstr(steps, "\n5,1,5,"));
  assert_null(strstr(steps, "\n8,2,3,"));
  assert_non_null(strstr(steps, "\n12,3,2,"));
  assert_null(strstr(lines, "{\"event\":\"step\",\"step\":8,"));
  free(steps);
  free(lines);
  play_start(folder, 10, 10, false); // the state at step 10 after all
  steps = content(folder, "steps.csv");
  assert_non_null(strstr(steps, "\n8,2,3,"));
  free(steps);
  remove_tree(folder);
}

/* No section may rely on there being a text. */
static void a_page_without_memory_is_incomplete(void **state) {
  (void)state;
  char folder[64];
  strcpy(folder, temporary_folder());
  const char *const folders[] = {folder, folder};
  fn_text html = {.incomplete = true};
  assert_int_equal(fn_page_write(folders, 2, "title", &html), FN_OK);
  assert_true(html.incomplete && !html.data);
  remove_tree(folder);
}

static void tables_hold_exact_values(void **state) {
  (void)state;
  char text[40];
  assert_string_equal(fn_report_number(0.1, text, sizeof text), "0.1");
  assert_string_equal(fn_report_number((double)NAN, text, sizeof text), "");
  const double third = 1.0 / 3, tiny = 4.9e-324;
  assert_true(strtod(fn_report_number(third, text, sizeof text), NULL) == third);
  assert_true(strtod(fn_report_number(tiny, text, sizeof text), NULL) == tiny);
  char folder[64];
  strcpy(folder, temporary_folder());
  play(folder, 0, 15);
  fn_csv csv;
  assert_int_equal(fn_csv_open(folder, 15, false, &csv), FN_OK);
  assert_int_equal(csv.epochs, 3);
  double *values;
  int64_t count;
  assert_int_equal(fn_csv_history(&csv, &values, &count), FN_OK);
  assert_int_equal(count, 3);
  assert_true(values[2] == 3 && values[3 + 2] == third && values[6 + 1] == 1.0);
  assert_true(isnan(values[6]));
  free(values);
  fn_csv_close(&csv);
  remove_tree(folder);
}

static void progress_line_counts_down(void **state) {
  (void)state;
  const fn_console console = {.started = 100, .first_step = 5};
  const fn_step_event event = {.step = 10,
                               .epoch = 2,
                               .epoch_step = 5,
                               .epoch_steps = 5,
                               .epochs = 4,
                               .loss = 0.125,
                               .lr = 1e-4,
                               .seconds = 2,
                               .samples = 40,
                               .input_wait = 0.5};
  fn_text line = {0};
  // 5 steps in 50 s, 10 to go
  fn_console_line(&console, &event, 150, &line);
  char eta[80], duration[64];
  snprintf(eta, sizeof eta, "ETA %s", fn_text_duration(100, duration, sizeof duration));
  assert_non_null(strstr(line.data, "epoch 2/4  step 5/5  loss 0.125  lr 0.0001  20 samples/s"));
  assert_non_null(strstr(line.data, "25 % waiting for input"));
  assert_non_null(strstr(line.data, eta));
  fn_text_free(&line);
}

int main(int argc, char **argv) {
  fn_log_set_level(FN_ERROR);
  if (argc > 1) {
    // a run that was killed at step 13 and went on from step 5
    play(argv[1], 0, 13);
    play(argv[1], 5, EPOCHS * STEPS);
    return 0;
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(crc32c_known_answers),
      cmocka_unit_test(a_resumed_run_logs_as_an_uninterrupted_one),
      cmocka_unit_test(rows_of_a_state_taken_after_all_come_back),
      cmocka_unit_test(rows_of_an_abandoned_past_stay_away),
      cmocka_unit_test(a_run_started_again_begins_anew),
      cmocka_unit_test(an_epoch_ended_twice_is_logged_once),
      cmocka_unit_test(a_run_survives_an_unwritable_folder),
      cmocka_unit_test(tables_go_on_after_a_full_disk),
      cmocka_unit_test(a_start_on_a_full_disk_divides_later),
      cmocka_unit_test(a_page_without_memory_is_incomplete),
      cmocka_unit_test(tables_hold_exact_values),
      cmocka_unit_test(progress_line_counts_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
