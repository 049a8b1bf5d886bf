/** @file test_report.h
 *  Table, CSV files and plots of a finished test. Rank 0 only.
 */
#ifndef FN_REPORT_TEST_REPORT_H
#define FN_REPORT_TEST_REPORT_H

#include "run/run_loop.h"

/** Print the table; write test.csv, test_spectra.csv and plots/test_spectra.png in the run folder.
 *  After a prediction only say what was written. */
fn_status fn_report_test(const fn_run *run, const fn_test_result *result, bool predict);

#endif
