/* Background of a flat universe of matter and a cosmological constant: growth of linear
 * perturbations and expansion rate, in closed form. */
#include <float.h>
#include <math.h>

#include "data/dataset.h"

/** Gauss's hypergeometric series 2F1(a, b; c; w) for 0 <= w < 1 and positive a, b, c: all terms are
 *  positive, so the sum loses no digits. */
static double hypergeometric(double a, double b, double c, double w) {
  enum { MOST_TERMS = 10000000 }; // only reached for w -> 1, far in the future
  double sum = 1, term = 1;
  for (int n = 0; n < MOST_TERMS && term > sum * (DBL_EPSILON / 16) * (1 - w); n++) {
    term *= (a + n) * (b + n) / ((c + n) * (1 + n)) * w;
    sum += term;
  }
  return sum;
}

/** x = Omega_Lambda a^3 / Omega_m, the ratio of the two densities. */
static double density_ratio(double z, double omega_m) {
  const double a = 1 / (1 + z);
  return (1 - omega_m) / omega_m * a * a * a;
}

// The series in -x diverge for x > 1; Pfaff's transformation turns them into series in
// x / (1 + x) < 1 (Abramowitz & Stegun 15.3.4).

/** 2F1(1, 1/3; 11/6; -x). */
static double growth_series(double x) {
  return pow(1 + x, -1.0 / 3) * hypergeometric(5.0 / 6, 1.0 / 3, 11.0 / 6, x / (1 + x));
}

double fn_growth_factor(double z, double omega_m) {
  return growth_series(density_ratio(z, omega_m)) / growth_series(density_ratio(0, omega_m)) /
         (1 + z);
}

double fn_growth_rate(double z, double omega_m) {
  const double x = density_ratio(z, omega_m), w = x / (1 + x);
  // The ratio of the two prefactors of Pfaff's transformation is 1 / (1 + x).
  return 1 - 6.0 / 11 * w * hypergeometric(5.0 / 6, 4.0 / 3, 17.0 / 6, w) /
                 hypergeometric(5.0 / 6, 1.0 / 3, 11.0 / 6, w);
}

double fn_hubble(double z, double omega_m) {
  return 100 * sqrt(omega_m * (1 + z) * (1 + z) * (1 + z) + 1 - omega_m);
}
