/* The outcome of a test: table on screen, CSV files, plots of spectra. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "report/plot.h"
#include "report/test_report.h"

/** Without the sign that a NaN may have. */
static double plain(double x) {
  return isnan(x) ? (double)NAN : x;
}

static void print_row(const fn_test_result *r, int width, const char *name, double loss,
                      double physical, double input) {
  char last[32] = "";
  if (r->has_input) snprintf(last, sizeof last, "  %14.6g", plain(input));
  fn_log(FN_INFO, "%-*s  %12.6g  %14.6g%s", width, name, plain(loss), plain(physical), last);
}

/** Losses as in training and in physical units; the latter also for the input in the output's
 *  place, which a network has to beat. */
static void print_table(const fn_test_result *r) {
  int width = 4;
  for (int64_t f = 0; f < r->files; f++)
    if ((int)strlen(r->name[f]) > width) width = (int)strlen(r->name[f]);
  fn_log(FN_INFO, "%-*s  %12s  %14s%s", width, "file", "loss", "in data units",
         r->has_input ? "  of input alone" : "");
  for (int64_t f = 0; f < r->files; f++)
    print_row(r, width, r->name[f], r->loss[f], r->physical[f], r->input_loss[f]);
  if (r->files > 1) print_row(r, width, "mean", r->mean_loss, r->mean_physical, r->mean_input_loss);
}

static fn_status write_losses(const char *folder, const fn_test_result *r) {
  fn_text text = {0};
  fn_text_add(&text, "file,loss,loss_physical,input_loss_physical\n");
  for (int64_t f = 0; f < r->files; f++)
    fn_text_add(&text, "%s,%.9g,%.9g,%.9g\n", r->name[f], plain(r->loss[f]), plain(r->physical[f]),
                plain(r->input_loss[f]));
  fn_text_add(&text, "mean,%.9g,%.9g,%.9g\n", plain(r->mean_loss), plain(r->mean_physical),
              plain(r->mean_input_loss));
  char path[4096];
  snprintf(path, sizeof path, "%s/test.csv", folder);
  const fn_status status = fn_file_replace_text(path, &text);
  fn_text_free(&text);
  return status;
}

static fn_status write_spectra(const char *folder, const fn_test_result *r) {
  fn_text text = {0};
  fn_text_add(&text, "k,modes,power_input,power_output,power_target,transfer,correlation,"
                     "input_transfer,input_correlation\n");
  for (int64_t b = 0; b < r->bins; b++)
    fn_text_add(&text, "%.9g,%.0f,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g,%.9g\n", r->k[b], r->modes[b],
                r->power_input[b], r->power_output[b], r->power_target[b], r->transfer[b],
                r->correlation[b], r->input_transfer[b], r->input_correlation[b]);
  char path[4096];
  snprintf(path, sizeof path, "%s/test_spectra.csv", folder);
  const fn_status status = fn_file_replace_text(path, &text);
  fn_text_free(&text);
  return status;
}

static fn_status draw_spectra(const fn_run *run, const fn_test_result *r) {
  const fn_spectra spectra = {
      .bins = r->bins,
      .k = r->k,
      .physical = run->test.box_size > 0,
      .normalised = run->test.box_size > 0,
      .input = r->has_input ? r->power_input : NULL,
      .output = r->power_output,
      .target = r->power_target,
      .transfer = r->transfer,
      .correlation = r->correlation,
      .input_transfer = r->has_input ? r->input_transfer : NULL,
      .input_correlation = r->has_input ? r->input_correlation : NULL,
  };
  char path[4096];
  snprintf(path, sizeof path, "%s/plots", run->folder);
  FN_TRY(fn_make_directories(path));
  fn_picture *picture = NULL;
  FN_TRY(fn_plot_spectra("test set", &spectra, &picture));
  snprintf(path, sizeof path, "%s/plots/test_spectra.png", run->folder);
  const fn_status status = fn_picture_save(picture, path);
  fn_picture_destroy(picture);
  if (status == FN_OK) fn_log(FN_INFO, "spectra drawn in %s", path);
  return status;
}

fn_status fn_report_test(const fn_run *run, const fn_test_result *result, bool predict) {
  if (result->written > 0)
    fn_log(FN_INFO, "%lld field%s written below %s%s%s", (long long)result->written,
           result->written == 1 ? "" : "s", run->test.output[0] == '/' ? "" : run->folder,
           run->test.output[0] == '/' ? "" : "/", run->test.output);
  if (predict) return FN_OK;
  print_table(result);
  if (!isfinite(result->mean_loss) || !isfinite(result->mean_physical))
    fn_log(FN_WARN, "the loss is not finite: look for values in the fields that their norms cannot "
                    "take (fieldnet data inspect), or a diverged state");
  FN_TRY(write_losses(run->folder, result));
  if (result->bins == 0) return FN_OK;
  FN_TRY(write_spectra(run->folder, result));
  return run->report.plots ? draw_spectra(run, result) : FN_OK;
}
