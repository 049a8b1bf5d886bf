/** @file synth.h
 *  Displacement fields made from nothing: a Gaussian random density of a flat LCDM universe today
 *  and its first- and second-order Lagrangian displacements. Lengths in Mpc/h, wave numbers in
 * h/Mpc.
 */
#ifndef FN_DATA_SYNTH_H
#define FN_DATA_SYNTH_H

#include <fieldnet/fieldnet.h>

typedef struct fn_synth_options {
  const char *folder; /**< gets lin/NNN.npy and lpt2/NNN.npy */
  int64_t files;      /**< pairs to make */
  int64_t first;      /**< number of the first pair: pair i is a pure function of (seed, i) */
  int64_t edge;       /**< cells per axis */
  double box;         /**< edge of the periodic box, Mpc/h */
  double omega_m;     /**< matter density today */
  uint64_t seed;
  bool force; /**< replace files that exist */
} fn_synth_options;

/** folder NULL, 1 file, edge 64, box 128, omega_m 0.31, seed 1. */
fn_synth_options fn_synth_defaults(void);

/** Make pairs folder/lin/NNN.npy and folder/lpt2/NNN.npy, float32 [3, edge, edge, edge].
 *
 *  Each file is written whole or not at all. Without `force`, existing files are an error found
 *  before anything is written. Not collective.
 *  @return FN_OK; FN_ERR_CONFIG for values out of range; FN_ERR_DATA when a file exists or cannot
 * be written; FN_ERR_MEMORY */
fn_status fn_synth_displacement(const fn_synth_options *options);

/** Linear matter power spectrum today, (Mpc/h)^3, sigma_8 = 0.81, n_s = 0.965. */
typedef struct fn_linear_power {
  double omega_m;
  double amplitude;
} fn_linear_power;
fn_linear_power fn_linear_power_create(double omega_m);
/** P(k), k in h/Mpc; 0 at k <= 0. */
double fn_linear_power_at(const fn_linear_power *power, double k);

/** Density contrast of pair `index`, double [edge, edge, edge]. Modes at the Nyquist frequency of
 * an axis are empty: their gradients are not defined on the grid. */
fn_status fn_synth_density(const fn_synth_options *options, int64_t index, double *density);

/** Lagrangian displacements of a density contrast [edge, edge, edge]: `first` and the sum of first
 *  and second order, `second`, both float32 [3, edge, edge, edge], Mpc/h. Nyquist modes are left
 * out. */
fn_status fn_lagrangian_displacement(int64_t edge, double box, double omega_m,
                                     const double *density, float *first, float *second);

/** Newtonian potentials of pairs of cubes: one Gaussian random potential per seed, from which a
 *  second theory differs by a chosen amount. */
typedef struct fn_potential_options {
  int64_t edge;   /**< cells per axis */
  double box;     /**< Mpc/h */
  double omega_m; /**< matter density today */
  double redshift;
  uint64_t seed;     /**< of the whole set; pairs are told apart by their own */
  double difference; /**< rms of the difference field, in units of the potential's own rms */
  double offset;     /**< difference of the means, likewise */
} fn_potential_options;

/** Potential phi / c^2 of pair `index`, double [edge, edge, edge], dimensionless, zero mean.
 *
 *  k^2 phi = -3/2 omega_m (H0 / c)^2 (1 + z) D(z) delta with the density of
 *  fn_linear_power_at(). With `second` the other theory: phi + X s w + Y s, where s is the rms of
 *  phi, X and Y are difference and offset, and w is white noise of its own, brought to zero mean
 *  and unit rms cell by cell. A pure function of (seed, index). */
fn_status fn_synth_potential(const fn_potential_options *options, int64_t index, bool second,
                             double *potential);

#endif
