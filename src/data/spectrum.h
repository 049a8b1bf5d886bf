/** @file spectrum.h
 *  Power spectra of fields on a periodic grid, and how alike two fields are scale by scale.
 *  Specification: map2map page, section 5.9; the cross-power is ours.
 */
#ifndef FN_DATA_SPECTRUM_H
#define FN_DATA_SPECTRUM_H

#include <fieldnet/network.h>

/** Bins of one grid and the transform that fills them. Bin i of the arrays holds the modes with
 *  i < |n| <= i + 1, n the integer frequencies (the zero mode is left out). */
typedef struct fn_spectrum {
  int spatial;
  int64_t size[FN_MAX_SPATIAL];
  int64_t bins;   /**< floor(smallest edge / 2) */
  double *k;      /**< [bins] mean wave number: 2 pi / box_size, or in units of the fundamental */
  int64_t *modes; /**< [bins] number of modes, both of each Hermitian pair counted */
  double density; /**< times the power below: power per unit wave number, box_size^spatial /
                     cells^2; 1 without a box size */
  struct fn_spectrum_transform *transform;
} fn_spectrum;

/** Bins and transform for fields of `size` cells.
 *
 *  Frequencies are integers per axis whatever the edges: the box is taken to be cubic, of edge
 *  box_size (<= 0: wave numbers in units of the fundamental). Not collective.
 *  @return FN_OK; FN_ERR_DATA for a size without any mode to measure; FN_ERR_MEMORY */
fn_status fn_spectrum_create(int spatial, const int64_t *size, double box_size,
                             fn_spectrum **spectrum);
void fn_spectrum_destroy(fn_spectrum *spectrum);

/** Mean over modes of |F|^2, F the unnormalised discrete Fourier transform; summed over channels,
 *  mean over the batch.
 *  @param[in]  field  [batch, channels, size...]
 *  @param[out] power  [bins] */
void fn_spectrum_power(fn_spectrum *spectrum, const float *field, int64_t batch, int64_t channels,
                       double *power);
/** The same of Re(F_a conj(F_b)). */
void fn_spectrum_cross(fn_spectrum *spectrum, const float *a, const float *b, int64_t batch,
                       int64_t channels, double *power);

/** T = sqrt(P_out / P_target); NaN where the target has no power. All arrays [bins]. */
void fn_transfer_function(int64_t bins, const double *power_out, const double *power_target,
                          double *transfer);
/** r = P_cross / sqrt(P_a P_b); NaN where either has no power. All arrays [bins]. */
void fn_cross_correlation(int64_t bins, const double *cross, const double *power_a,
                          const double *power_b, double *correlation);

/** FFTW's planner is not thread-safe: hold this around every call of it. */
void fn_fft_planner_lock(void);
void fn_fft_planner_unlock(void);

#endif
