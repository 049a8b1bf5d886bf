/* From the number of a setting to values: grids, draws, and the Sobol sequence. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "run/sweep_plan.h"

/* ---- Sobol sequence ----------------------------------------------------------------------------
 */

enum { BITS = 32, LONGEST = 7 };

/** Primitive polynomial and first direction numbers of one dimension. */
typedef struct direction {
  int degree;
  uint32_t polynomial; // inner coefficients
  uint32_t first[LONGEST];
} direction;

// Joe & Kuo 2008, SIAM J. Sci. Comput. 30, 2635: new-joe-kuo-6, dimensions 2 to 32. The first
// dimension is van der Corput's.
static const direction directions[FN_SOBOL_DIMENSIONS - 1] = {
    {1, 0, {1}},
    {2, 1, {1, 3}},
    {3, 1, {1, 3, 1}},
    {3, 2, {1, 1, 1}},
    {4, 1, {1, 1, 3, 3}},
    {4, 4, {1, 3, 5, 13}},
    {5, 2, {1, 1, 5, 5, 17}},
    {5, 4, {1, 1, 5, 5, 5}},
    {5, 7, {1, 1, 7, 11, 19}},
    {5, 11, {1, 1, 5, 1, 1}},
    {5, 13, {1, 1, 1, 3, 11}},
    {5, 14, {1, 3, 5, 5, 31}},
    {6, 1, {1, 3, 3, 9, 7, 49}},
    {6, 13, {1, 1, 1, 15, 21, 21}},
    {6, 16, {1, 3, 1, 13, 27, 49}},
    {6, 19, {1, 1, 1, 15, 7, 5}},
    {6, 22, {1, 3, 1, 15, 13, 25}},
    {6, 25, {1, 1, 5, 5, 19, 61}},
    {7, 1, {1, 3, 7, 11, 23, 15, 103}},
    {7, 4, {1, 3, 7, 13, 13, 15, 69}},
    {7, 7, {1, 1, 3, 13, 7, 35, 63}},
    {7, 8, {1, 3, 5, 9, 1, 25, 53}},
    {7, 14, {1, 3, 1, 13, 9, 35, 107}},
    {7, 19, {1, 3, 1, 5, 27, 61, 31}},
    {7, 21, {1, 1, 5, 11, 19, 41, 61}},
    {7, 28, {1, 3, 5, 3, 3, 13, 69}},
    {7, 31, {1, 1, 7, 13, 1, 19, 1}},
    {7, 32, {1, 3, 7, 5, 13, 19, 59}},
    {7, 37, {1, 1, 3, 9, 25, 29, 41}},
    {7, 41, {1, 3, 5, 13, 23, 1, 55}},
    {7, 42, {1, 3, 7, 3, 13, 59, 17}},
};

/** v[k] := direction number of bit k of the index, as a fraction of 2^32; shape [BITS]. */
static void direction_numbers(int dimension, uint32_t *v) {
  if (dimension <= 0 || dimension >= FN_SOBOL_DIMENSIONS) {
    for (int k = 0; k < BITS; k++)
      v[k] = UINT32_C(1) << (BITS - 1 - k);
    return;
  }
  const direction *d = &directions[dimension - 1];
  const int s = d->degree;
  for (int k = 0; k < s; k++)
    v[k] = d->first[k] << (BITS - 1 - k);
  // Bratley & Fox 1988, equation 2, in fractions.
  for (int k = s; k < BITS; k++) {
    v[k] = v[k - s] ^ (v[k - s] >> s);
    for (int i = 1; i < s; i++)
      if (d->polynomial >> (s - 1 - i) & 1) v[k] ^= v[k - i];
  }
}

uint32_t fn_sobol_point(int dimension, uint32_t index) {
  uint32_t v[BITS], x = 0;
  direction_numbers(dimension, v);
  for (int k = 0; k < BITS; k++)
    if (index >> k & 1) x ^= v[k];
  return x;
}

static int parity(uint32_t word) {
  int bits = 0;
  for (; word; word &= word - 1)
    bits ^= 1;
  return bits;
}

uint32_t fn_sobol_scrambled(uint64_t seed, int dimension, uint32_t index) {
  const uint32_t x = fn_sobol_point(dimension, index);
  fn_random random = fn_random_stream(seed, FN_RANDOM_SWEEP, UINT32_MAX, (uint64_t)dimension);
  uint32_t y = 0;
  // Row `bit` of a lower triangular matrix over the digits of x, the first digit the highest bit.
  for (int bit = 0; bit < BITS; bit++) {
    const uint32_t diagonal = UINT32_C(1) << (BITS - 1 - bit), above = ~(diagonal | (diagonal - 1));
    const uint32_t row = diagonal | (fn_random_word(&random) & above);
    if (parity(row & x)) y |= diagonal;
  }
  return y ^ fn_random_word(&random);
}

/* ---- one value ---------------------------------------------------------------------------------
 */

/** The shortest spelling with `digits` significant ones that does not leave the range. */
static const char *real_text(fn_arena *arena, const fn_sweep_parameter *p, double value) {
  if (value < p->low) value = p->low;
  if (value > p->high) value = p->high;
  char text[40];
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(text, sizeof text, "%.*g", digits, value);
    const double back = strtod(text, NULL);
    if (back >= p->low && back <= p->high) break;
  }
  char *exponent = strchr(text, 'e');
  // YAML 1.1 readers take 1e-05 for a text.
  if (exponent && !strchr(text, '.'))
    return fn_arena_format(arena, "%.*s.0%s", (int)(exponent - text), text, exponent);
  return fn_arena_text(arena, text);
}

static const char *integer_text(fn_arena *arena, const fn_sweep_parameter *p, double value) {
  if (value < p->low) value = p->low;
  if (value > p->high) value = p->high;
  return fn_arena_format(arena, "%.0f", value);
}

/** The value at u in (0, 1), equally likely everywhere (in the logarithm). */
static const char *value_at(fn_arena *arena, const fn_sweep_parameter *p, double u) {
  switch (p->kind) {
    case FN_RANGE_CHOICES: {
      const int64_t index = (int64_t)(u * (double)p->count);
      return p->choice[index < p->count ? index : p->count - 1];
    }
    case FN_RANGE_UNIFORM: return real_text(arena, p, p->low + u * (p->high - p->low));
    case FN_RANGE_LOG: return real_text(arena, p, p->low * pow(p->high / p->low, u));
    case FN_RANGE_INTEGER:
      return integer_text(arena, p, floor(p->low + u * (p->high - p->low + 1)));
    case FN_RANGE_LOG_INTEGER: // an integer n stands for [n, n + 1)
      return integer_text(arena, p, floor(p->low * pow((p->high + 1) / p->low, u)));
  }
  return "";
}

static bool is_integer_kind(const fn_sweep_parameter *p) {
  return p->kind == FN_RANGE_INTEGER || p->kind == FN_RANGE_LOG_INTEGER;
}

/** Point i of `count` of a range, ends included. */
static double grid_value(const fn_sweep_parameter *p, int64_t i) {
  const double t = (double)i / (double)(p->count - 1);
  const bool log = p->kind == FN_RANGE_LOG || p->kind == FN_RANGE_LOG_INTEGER;
  const double value = log ? p->low * pow(p->high / p->low, t) : p->low + t * (p->high - p->low);
  return is_integer_kind(p) ? round(value) : value;
}

/** Whether rounding makes point i the same as the one before. */
static bool is_double(const fn_sweep_parameter *p, int64_t i) {
  return i > 0 && is_integer_kind(p) && grid_value(p, i) == grid_value(p, i - 1);
}

static int64_t grid_points(const fn_sweep_parameter *p) {
  if (p->kind == FN_RANGE_CHOICES) return p->count;
  if (p->count == 0) return (int64_t)(p->high - p->low) + 1;
  int64_t points = 0;
  for (int64_t i = 0; i < p->count; i++)
    points += !is_double(p, i);
  return points;
}

static const char *grid_text(fn_arena *arena, const fn_sweep_parameter *p, int64_t index) {
  if (p->kind == FN_RANGE_CHOICES) return p->choice[index];
  if (p->count == 0) return integer_text(arena, p, p->low + (double)index);
  int64_t i = 0;
  for (int64_t seen = -1; i < p->count; i++) {
    seen += !is_double(p, i);
    if (seen == index) break;
  }
  const double value = grid_value(p, i);
  return is_integer_kind(p) ? integer_text(arena, p, value) : real_text(arena, p, value);
}

/* ---- settings ----------------------------------------------------------------------------------
 */

/** Whether parameter p exists, given the values of those above it (NULL: it does not). */
static bool exists(const fn_sweep *sweep, int p, const char *const *value) {
  const fn_sweep_parameter *parameter = &sweep->parameter[p];
  if (parameter->parent < 0) return true;
  const char *parent = value[parameter->parent];
  for (int i = 0; parent && i < parameter->when.count; i++)
    if (strcmp(parameter->when.text[i], parent) == 0) return true;
  return false;
}

/** How many settings the parameters from p on have, given the values above. Stops counting at
 *  `limit`. A parameter matters to those below only if one of them has a condition on it. */
static int64_t count_from(const fn_sweep *sweep, int p, const char **value, int64_t limit) {
  if (p == sweep->parameter_count) return 1;
  value[p] = NULL;
  if (!exists(sweep, p, value)) return count_from(sweep, p + 1, value, limit);
  const fn_sweep_parameter *parameter = &sweep->parameter[p];
  bool matters = false;
  for (int q = p + 1; q < sweep->parameter_count; q++)
    matters = matters || sweep->parameter[q].parent == p;
  const int64_t points = grid_points(parameter);
  if (!matters) {
    const int64_t below = count_from(sweep, p + 1, value, limit);
    return below > limit / points ? limit : below * points;
  }
  int64_t total = 0;
  for (int64_t i = 0; i < points && total < limit; i++) {
    value[p] = parameter->choice[i]; // conditions are on choices
    total += count_from(sweep, p + 1, value, limit);
  }
  return total < limit ? total : limit;
}

enum { GRID_LIMIT = 10000000 };

int64_t fn_sweep_grid_size(const fn_sweep *sweep) {
  const char **value = calloc((size_t)sweep->parameter_count + 1, sizeof *value);
  if (!value) return 0;
  int64_t size = count_from(sweep, 0, value, GRID_LIMIT);
  free(value);
  if (sweep->trials > 0 && sweep->trials < size) size = sweep->trials;
  return size;
}

/** The last parameter varies fastest, as in nested loops. */
static void grid_setting(const fn_sweep *sweep, int64_t index, fn_arena *arena,
                         const char **value) {
  const char **below = fn_arena_take(arena, sizeof *below * (size_t)(sweep->parameter_count + 1));
  for (int p = 0; p < sweep->parameter_count; p++) {
    const fn_sweep_parameter *parameter = &sweep->parameter[p];
    value[p] = NULL;
    if (!exists(sweep, p, value)) continue;
    const int64_t points = grid_points(parameter);
    for (int64_t i = 0; i < points; i++) {
      value[p] = grid_text(arena, parameter, i);
      memcpy(below, value, sizeof *below * (size_t)(p + 1));
      const int64_t count = count_from(sweep, p + 1, below, GRID_LIMIT);
      if (index < count) break;
      index -= count;
    }
  }
}

static void drawn_setting(const fn_sweep *sweep, int64_t index, fn_arena *arena,
                          const char **value) {
  for (int p = 0; p < sweep->parameter_count; p++) {
    const fn_sweep_parameter *parameter = &sweep->parameter[p];
    value[p] = NULL;
    if (!exists(sweep, p, value)) continue;
    double u;
    if (sweep->method == FN_SWEEP_SOBOL) {
      // The middle of the cell, never 0 or 1.
      u = ((double)fn_sobol_scrambled(sweep->seed, p, (uint32_t)index) + 0.5) * 0x1p-32;
    } else {
      fn_random random = fn_random_stream(sweep->seed, FN_RANDOM_SWEEP, (uint32_t)index,
                                          fn_hash_text(parameter->path));
      u = fn_random_uniform(&random);
    }
    value[p] = value_at(arena, parameter, u);
  }
}

fn_status fn_sweep_setting(const fn_sweep *sweep, int64_t index, fn_arena *arena, const char **set,
                           int *count) {
  const char **value = fn_arena_take(arena, sizeof *value * (size_t)(sweep->parameter_count + 1));
  FN_CHECK(sweep->method != FN_SWEEP_ASK, FN_ERR_INTERNAL,
           "settings of method 'ask' come from outside");
  if (sweep->method == FN_SWEEP_GRID)
    grid_setting(sweep, index, arena, value);
  else
    drawn_setting(sweep, index, arena, value);
  for (int p = 0; p < sweep->parameter_count; p++)
    if (value[p])
      set[(*count)++] = fn_arena_format(arena, "%s=%s", sweep->parameter[p].path, value[p]);
  return FN_OK;
}
