/** @file class_report.h
 *  The outcome of a test of a network with two classes: table, report.json, figures. Rank 0 only.
 */
#ifndef FN_REPORT_CLASS_REPORT_H
#define FN_REPORT_CLASS_REPORT_H

#include "report/plot.h"
#include "run/classify.h"

/** Print the table; write report.json and, with report.plots, roc.png, confusion.png, scores.png,
 *  calibration.png and saliency.png below <folder>/test. */
fn_status fn_report_classes(const fn_run *run, const fn_class_result *result);

/** True against false positive rate of slices, cubes and baseline, with areas. */
fn_status fn_plot_roc(const fn_class_result *result, fn_picture **picture);
/** Three 2 x 2 tables, rows true, columns called: slices, cubes by mean logit, cubes by vote. */
fn_status fn_plot_confusion(const fn_class_result *result, fn_picture **picture);
/** Histograms of the logits of both classes: of slices, of cubes (means). */
fn_status fn_plot_scores(const fn_class_result *result, fn_picture **picture);
/** Fraction of positives against predicted probability, and how many samples are in each bin. */
fn_status fn_plot_calibration(const fn_class_result *result, fn_picture **picture);
/** Rows of samples: the first channel (middle plane of a cube), |d logit / d cell| there, and its
 *  cells above the 95th and the 99th percentile of the sample. At most four of each class. */
fn_status fn_plot_saliency(const fn_class_result *result, fn_picture **picture);

#endif
