#include "run/validate_labels.h"

#include <math.h>
#include <stdlib.h>

#include "data/cubes.h"
#include "learn/metrics.h"
#include "run/logits.h"

/** Rank 0; metric: accuracy, area, F1. */
static fn_status measure(const fn_dataset *dataset, const float *logit, int64_t samples,
                         double metric[3]) {
  fn_scored *s = malloc((size_t)(samples + 1) * sizeof *s);
  FN_CHECK(s, FN_ERR_MEMORY, "no memory for %lld scores", (long long)samples);
  fn_counts counts = {0};
  fn_sample_key key;
  bool finite = true;
  for (int64_t i = 0; i < samples; i++) {
    fn_dataset_key(dataset, i, &key);
    finite = finite && isfinite(logit[i]);
    fn_counts_add(&counts, (double)logit[i], key.label);
    s[i] = (fn_scored){.score = (double)logit[i], .label = (uint8_t)key.label};
  }
  if (finite) {
    fn_ratios r;
    fn_ratios_compute(&counts, &r);
    fn_scored_sort(s, samples);
    metric[0] = r.accuracy;
    metric[1] = fn_auc(s, samples, NULL);
    metric[2] = r.f1;
  }
  free(s);
  return FN_OK;
}

fn_status fn_validate_labels(const fn_session *session, const float *part, fn_validation *result) {
  const fn_dist *dist = session->dist;
  const int64_t samples = fn_dataset_get_info(session->validation)->samples;
  double metric[3] = {NAN, NAN, NAN};
  float *whole = dist->rank == 0 ? malloc((size_t)(samples + 1) * sizeof *whole) : NULL;
  fn_status status = FN_OK;
  if (dist->rank == 0 && !whole)
    status = fn_error_set(FN_ERR_MEMORY, __FILE__, __LINE__, "no memory for %lld logits",
                          (long long)samples);
  status = fn_dist_agree(dist, status);
  if (status == FN_OK) status = fn_logits_gather(dist, samples, part, whole);
  if (status == FN_OK)
    status = fn_dist_agree(
        dist, dist->rank == 0 ? measure(session->validation, whole, samples, metric) : FN_OK);
  free(whole);
  FN_TRY(status);
  FN_TRY(fn_dist_broadcast(dist, metric, sizeof metric));
  result->accuracy = metric[0];
  result->auc = metric[1];
  result->f1 = metric[2];
  return FN_OK;
}
