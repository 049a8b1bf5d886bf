#include "report/class_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "report/sinks.h"

/* ---- table -------------------------------------------------------------------------------------
 */

/** "0.9521" or "-". */
static const char *number(double x, char *text, size_t size) {
  if (isfinite(x)) snprintf(text, size, "%.4f", x);
  return isfinite(x) ? text : "-";
}

/** "0.93 to 0.97", "" without an interval. */
static const char *interval(const fn_verdict *v, fn_statistic s, char *text, size_t size) {
  text[0] = '\0';
  if (isfinite(v->low[s])) snprintf(text, size, "%.4f to %.4f", v->low[s], v->high[s]);
  return text;
}

static void print_ratios(const char *name, const fn_verdict *v, fn_statistic first) {
  char text[6][32], range[48];
  const char *shown[6];
  for (int i = 0; i < 6; i++)
    shown[i] = number(v->value[first + i], text[i], sizeof text[i]);
  fn_log(FN_INFO, "%-20s %9s %10s %7s %7s %7s %7s   %s", name, shown[0], shown[1], shown[2],
         shown[3], shown[4], shown[5], interval(v, first, range, sizeof range));
}

static void print_network(const fn_verdict *v) {
  char a[48];
  fn_log(FN_INFO, "%-20s %9s %10s %7s %7s %7s %7s   %s", "", "accuracy", "precision", "recall",
         "F1", "FPR", "AUC", "95 % of the accuracy");
  print_ratios("slices", v, FN_SLICE_ACCURACY);
  print_ratios("cubes by mean logit", v, FN_CUBE_ACCURACY);
  print_ratios("cubes by vote", v, FN_VOTE_ACCURACY);
  fn_log(FN_INFO, "loss %.6g   calibration error %.4f (largest %.4f)   Brier score %.4f",
         v->value[FN_LOSS], v->calibration.expected_error, v->calibration.largest_error,
         v->calibration.brier);
  if (!isfinite(v->value[FN_PAIR_MEAN])) return;
  fn_log(FN_INFO,
         "GR above Newton of the same seed: cubes %.4f by mean logit%s%s%s, %.4f by vote; slices "
         "%.4f",
         v->value[FN_PAIR_MEAN], isfinite(v->low[FN_PAIR_MEAN]) ? " (" : "",
         interval(v, FN_PAIR_MEAN, a, sizeof a), isfinite(v->low[FN_PAIR_MEAN]) ? ")" : "",
         v->value[FN_PAIR_VOTE], v->value[FN_PAIR_SLICES]);
}

/** The network's cubes beside those of the baseline. */
static void print_comparison(const fn_class_result *r) {
  fn_log(FN_INFO, "%-30s %9s %7s %7s   %s", "cubes", "accuracy", "AUC", "pairs",
         "95 % of the accuracy");
  for (int j = 0; j < FN_JUDGED; j++) {
    const fn_verdict *v = &r->by[j];
    char a[32], b[32], c[32], range[48];
    if (!v->classes) continue;
    fn_log(FN_INFO, "%-30s %9s %7s %7s   %s", fn_judged_name((fn_judged)j),
           number(v->value[FN_CUBE_ACCURACY], a, sizeof a),
           number(v->value[FN_CUBE_AUC], b, sizeof b), number(v->value[FN_PAIR_MEAN], c, sizeof c),
           interval(v, FN_CUBE_ACCURACY, range, sizeof range));
  }
  const fn_verdict *baseline = &r->by[FN_BASELINE];
  if (!baseline->classes) return;
  fn_log(FN_INFO,
         "the cube mean calls GR what is %s %.4g, fitted to %" PRId64
         " training cubes (balanced accuracy there %.4f)",
         baseline->threshold.sign > 0 ? "at least" : "at most", baseline->threshold.value,
         r->baseline_cubes, baseline->threshold.balanced);
}

static void print_table(const fn_class_result *r) {
  const fn_classes *c = r->by[FN_NETWORK].classes;
  fn_log(FN_INFO, "%" PRId64 " samples of %" PRId64 " cubes, %" PRId64 " seeds%s", c->samples,
         c->cubes, c->seeds, r->mean_removed ? "; cube means removed" : "");
  print_network(&r->by[FN_NETWORK]);
  if (r->by[FN_NETWORK_NO_MEAN].classes) {
    fn_log(FN_INFO, "with each cube's own mean removed:");
    print_network(&r->by[FN_NETWORK_NO_MEAN]);
  }
  if (r->by[FN_NETWORK_NO_MEAN].classes || r->by[FN_BASELINE].classes) print_comparison(r);
}

/* ---- report.json -------------------------------------------------------------------------------
 */

static const char *const keys[FN_JUDGED] = {"network", "network_no_mean", "baseline",
                                            "baseline_no_mean"};

static void add_number(fn_text *text, const char *key, double value) {
  char buffer[40];
  fn_text_add(text, "\"%s\": %s", key,
              isfinite(value) ? fn_report_number(value, buffer, sizeof buffer) : "null");
}

static void add_string(fn_text *text, const char *key, const char *value) {
  fn_text_add(text, "\"%s\": ", key);
  fn_text_add_json_utf8(text, value);
}

/** A baseline has one number per cube: nothing to say about slices and votes. */
static bool is_told(fn_judged j, int statistic) {
  if (j == FN_NETWORK || j == FN_NETWORK_NO_MEAN) return true;
  return (statistic >= FN_CUBE_ACCURACY && statistic <= FN_CUBE_AUC) || statistic == FN_PAIR_MEAN;
}

static void add_statistics(fn_text *text, fn_judged j, const fn_verdict *v) {
  const char *separator = "";
  fn_text_add(text, "      \"statistics\": {");
  for (int s = 0; s < FN_STATISTICS; s++) {
    if (!is_told(j, s)) continue;
    fn_text_add(text, "%s\n        \"%s\": {", separator, fn_statistic_name((fn_statistic)s));
    add_number(text, "value", v->value[s]);
    fn_text_add(text, ", ");
    add_number(text, "low", v->low[s]);
    fn_text_add(text, ", ");
    add_number(text, "high", v->high[s]);
    fn_text_add(text, "}");
    separator = ",";
  }
  fn_text_add(text, "\n      }");
}

static void add_confusion(fn_text *text, fn_judged j, const fn_verdict *v) {
  static const char *const names[] = {"slice", "cube", "vote"};
  fn_counts counts[3];
  const char *separator = "";
  fn_classes_confusion(v->classes, counts);
  fn_text_add(text, ",\n      \"confusion\": {");
  for (int i = 0; i < 3; i++) {
    if (i != 1 && !is_told(j, FN_SLICE_ACCURACY)) continue;
    fn_text_add(text,
                "%s\n        \"%s\": {\"true_positive\": %" PRId64 ", \"true_negative\": %" PRId64
                ", \"false_positive\": %" PRId64 ", \"false_negative\": %" PRId64 "}",
                separator, names[i], counts[i].true_positive, counts[i].true_negative,
                counts[i].false_positive, counts[i].false_negative);
    separator = ",";
  }
  fn_text_add(text, "\n      }");
}

static void add_list(fn_text *text, const char *key, const double *values) {
  char buffer[40];
  fn_text_add(text, ", \"%s\": [", key);
  for (int b = 0; b < FN_CALIBRATION_BINS; b++)
    fn_text_add(text, "%s%s", b ? ", " : "",
                isfinite(values[b]) ? fn_report_number(values[b], buffer, sizeof buffer) : "null");
  fn_text_add(text, "]");
}

static void add_calibration(fn_text *text, const fn_calibration *c) {
  fn_text_add(text, ",\n      \"calibration\": {");
  add_number(text, "expected_error", c->expected_error);
  fn_text_add(text, ", ");
  add_number(text, "largest_error", c->largest_error);
  fn_text_add(text, ", ");
  add_number(text, "brier", c->brier);
  fn_text_add(text, ", \"count\": [");
  for (int b = 0; b < FN_CALIBRATION_BINS; b++)
    fn_text_add(text, "%s%" PRId64, b ? ", " : "", c->count[b]);
  fn_text_add(text, "]");
  add_list(text, "probability", c->probability);
  add_list(text, "fraction", c->fraction);
  fn_text_add(text, "}");
}

static void add_threshold(fn_text *text, const fn_class_result *r, const fn_threshold *t) {
  fn_text_add(text, ",\n      \"fit\": {");
  add_number(text, "threshold", t->value);
  fn_text_add(text, ", \"sign\": %d, ", t->sign);
  add_number(text, "balanced_accuracy", t->balanced);
  fn_text_add(text, ", \"cubes\": %" PRId64 "}", r->baseline_cubes);
}

static void add_head(fn_text *text, const fn_run *run, const fn_class_result *r) {
  const fn_classes *c = r->by[FN_NETWORK].classes;
  fn_text_add(text, "{\n  ");
  add_string(text, "version", fn_version());
  fn_text_add(text, ",\n  ");
  add_string(text, "state", r->state);
  fn_text_add(text,
              ",\n  \"epoch\": %" PRId64 ",\n  \"samples\": %" PRId64 ",\n  \"cubes\": %" PRId64
              ",\n  \"seeds\": %" PRId64 ",\n  ",
              r->epoch, c->samples, c->cubes, c->seeds);
  add_number(text, "newton_augmentation", run->data.cubes.newton_augmentation);
  fn_text_add(text,
              ",\n  \"mean_removed\": %s,\n  \"bootstrap\": {\"replicates\": %" PRId64
              ", \"confidence\": 0.95},\n  \"judged\": {",
              r->mean_removed ? "true" : "false", run->test.bootstrap);
}

static fn_status write_json(const fn_run *run, const fn_class_result *r) {
  fn_text text = {0};
  const char *separator = "";
  add_head(&text, run, r);
  for (int j = 0; j < FN_JUDGED; j++) {
    const fn_verdict *v = &r->by[j];
    if (!v->classes) continue;
    fn_text_add(&text, "%s\n    \"%s\": {\n", separator, keys[j]);
    add_statistics(&text, (fn_judged)j, v);
    add_confusion(&text, (fn_judged)j, v);
    if (is_told((fn_judged)j, FN_LOSS))
      add_calibration(&text, &v->calibration);
    else
      add_threshold(&text, r, &v->threshold);
    fn_text_add(&text, "\n    }");
    separator = ",";
  }
  fn_text_add(&text, "\n  }\n}\n");
  char path[4200];
  snprintf(path, sizeof path, "%s/test/report.json", run->folder);
  const fn_status status = fn_file_replace_text(path, &text);
  fn_text_free(&text);
  return status;
}

/* ---- figures -----------------------------------------------------------------------------------
 */

static fn_status save(const fn_run *run, const char *name, fn_status drawn, fn_picture *picture) {
  char path[4200];
  snprintf(path, sizeof path, "%s/test/%s.png", run->folder, name);
  const fn_status status = drawn == FN_OK ? fn_picture_save(picture, path) : drawn;
  fn_picture_destroy(picture);
  return status;
}

static fn_status draw(const fn_run *run, const fn_class_result *r) {
  static const struct {
    const char *name;
    fn_status (*plot)(const fn_class_result *result, fn_picture **picture);
  } figures[] = {{"roc", fn_plot_roc},
                 {"confusion", fn_plot_confusion},
                 {"scores", fn_plot_scores},
                 {"calibration", fn_plot_calibration},
                 {"saliency", fn_plot_saliency}};
  for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
    if (figures[i].plot == fn_plot_saliency && r->maps == 0) continue;
    fn_picture *picture = NULL;
    const fn_status drawn = figures[i].plot(r, &picture);
    FN_TRY(save(run, figures[i].name, drawn, picture));
  }
  return FN_OK;
}

fn_status fn_report_classes(const fn_run *run, const fn_class_result *r) {
  print_table(r);
  FN_TRY(write_json(run, r));
  if (run->report.plots) FN_TRY(draw(run, r));
  fn_log(FN_INFO, "report.json%s in %s/test", run->report.plots ? " and figures" : "", run->folder);
  return FN_OK;
}
