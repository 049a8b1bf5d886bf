/* Compares two states, or prints one number of a state; for the tests that run the program.
 *
 *   state_compare A B                 every dataset and attribute bit for bit
 *   state_compare A B RELATIVE        weights within RELATIVE of their largest value, steps equal;
 *                                 the optimizer's arrays may be of gradients that are noise around
 * 0
 *   state_compare --print A GROUP/ATTRIBUTE
 *   state_compare --mean A B C DATASET    DATASET of C is the mean of those of A and B, and A's and
 * B's differ
 *
 * Left out: /version (holds the date), /configuration, and checksums over groups that hold them.
 * Exit status 0: equal, 1: different, 2: cannot be read. */
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct comparison {
  hid_t other;
  double tolerance; // < 0: bit for bit
  int objects, tensors, differences;
  double worst;
  char worst_name[256];
} comparison;

static void differ(comparison *c, const char *name, const char *what) {
  if (c->differences++ < 10) printf("differs: %s: %s\n", name, what);
}

static int left_out(const char *name) {
  return strncmp(name, "version", 7) == 0 || strcmp(name, "configuration") == 0;
}

/* All values of a dataset or attribute in their own type; *bytes 0 on failure. */
static void *values_of(hid_t object, int is_attribute, size_t *bytes, H5T_class_t *class_of) {
  const hid_t type = is_attribute ? H5Aget_type(object) : H5Dget_type(object);
  const hid_t space = is_attribute ? H5Aget_space(object) : H5Dget_space(object);
  const hssize_t count = H5Sget_simple_extent_npoints(space);
  *bytes = (size_t)count * H5Tget_size(type);
  *class_of = H5Tget_class(type);
  void *values = calloc(1, *bytes + 1);
  const herr_t status = is_attribute ? H5Aread(object, type, values)
                                     : H5Dread(object, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
  if (status < 0) *bytes = 0;
  H5Sclose(space);
  H5Tclose(type);
  return values;
}

static void compare_close(comparison *c, const char *name, const float *a, const float *b,
                          size_t count) {
  double largest = 0, difference = 0;
  for (size_t i = 0; i < count; i++) {
    largest = fmax(largest, fabs((double)b[i]));
    const double d = fabs((double)a[i] - (double)b[i]);
    difference = isfinite(d) ? fmax(difference, d) : HUGE_VAL;
  }
  const double relative = largest > 0 ? difference / largest : difference;
  if (relative > c->worst) {
    c->worst = relative;
    snprintf(c->worst_name, sizeof c->worst_name, "%s", name);
  }
  if (relative > c->tolerance) differ(c, name, "values over the tolerance");
}

/* The attributes of one object of the first file are compared with those of `object`. */
typedef struct pair {
  comparison comparison;
  hid_t object;
} pair;

static herr_t compare_attribute(hid_t object, const char *name, const H5A_info_t *info,
                                void *user) {
  (void)info;
  comparison *c = &((pair *)user)->comparison;
  const hid_t b = ((pair *)user)->object;
  char where[600], path[256] = "";
  H5Iget_name(object, path, sizeof path);
  snprintf(where, sizeof where, "%s@%s", path, name);
  // With a tolerance only whole numbers of the progress are compared; checksums differ anyway.
  if (strcmp(name, "crc32") == 0) return 0;
  if (H5Aexists(b, name) <= 0) {
    differ(c, where, "only in the first");
    return 0;
  }
  const hid_t x = H5Aopen(object, name, H5P_DEFAULT), y = H5Aopen(b, name, H5P_DEFAULT);
  size_t n, m;
  H5T_class_t kind, other_kind;
  void *p = values_of(x, 1, &n, &kind), *q = values_of(y, 1, &m, &other_kind);
  const int skip = c->tolerance >= 0 && (kind != H5T_INTEGER || strcmp(name, "stretches") == 0);
  if (!skip && (n != m || n == 0 || memcmp(p, q, n) != 0)) {
    char text[100] = "values";
    if (n == 8 && m == 8 && kind == H5T_FLOAT)
      snprintf(text, sizeof text, "%.17g and %.17g", *(double *)p, *(double *)q);
    if (n == 8 && m == 8 && kind == H5T_INTEGER)
      snprintf(text, sizeof text, "%lld and %lld", *(long long *)p, *(long long *)q);
    differ(c, where, text);
  }
  free(p);
  free(q);
  H5Aclose(x);
  H5Aclose(y);
  return 0;
}

static void compare_datasets(comparison *c, const char *name, hid_t a, hid_t b) {
  size_t n, m;
  H5T_class_t kind, other_kind;
  void *p = values_of(a, 0, &n, &kind), *q = values_of(b, 0, &m, &other_kind);
  c->tensors++;
  if (n != m || kind != other_kind) {
    differ(c, name, "sizes");
  } else if (c->tolerance >= 0 && kind == H5T_FLOAT) {
    compare_close(c, name, p, q, n / sizeof(float));
  } else if (memcmp(p, q, n) != 0) {
    differ(c, name, "values");
  }
  free(p);
  free(q);
}

static herr_t compare_object(hid_t file, const char *name, const H5O_info_t *info, void *user) {
  pair *p = user;
  comparison *c = &p->comparison;
  if (left_out(name)) return 0;
  c->objects++;
  if (c->tolerance >= 0 && strncmp(name, "optimizer/", 10) == 0) return 0;
  if (strcmp(name, ".") != 0 && H5Oexists_by_name(c->other, name, H5P_DEFAULT) <= 0) {
    differ(c, name, "only in the first");
    return 0;
  }
  const hid_t a = H5Oopen(file, name, H5P_DEFAULT), b = H5Oopen(c->other, name, H5P_DEFAULT);
  p->object = b;
  H5Aiterate2(a, H5_INDEX_NAME, H5_ITER_INC, NULL, compare_attribute, p);
  if (info->type == H5O_TYPE_DATASET) compare_datasets(c, name, a, b);
  H5Oclose(a);
  H5Oclose(b);
  return 0;
}

static herr_t count_object(hid_t file, const char *name, const H5O_info_t *info, void *user) {
  (void)file;
  (void)info;
  if (!left_out(name)) ++*(int *)user;
  return 0;
}

static int compare(const char *first, const char *second, double tolerance) {
  const hid_t a = H5Fopen(first, H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t b = H5Fopen(second, H5F_ACC_RDONLY, H5P_DEFAULT);
  if (a < 0 || b < 0) {
    printf("cannot open %s\n", a < 0 ? first : second);
    return 2;
  }
  pair p = {.comparison = {.other = b, .tolerance = tolerance}};
  comparison *c = &p.comparison;
  int others = 0;
  H5Ovisit(a, H5_INDEX_NAME, H5_ITER_INC, compare_object, &p);
  H5Ovisit(b, H5_INDEX_NAME, H5_ITER_INC, count_object, &others);
  if (others != c->objects) differ(c, second, "number of objects");
  if (c->tensors == 0) differ(c, first, "no tensors");
  H5Fclose(a);
  H5Fclose(b);
  if (tolerance >= 0)
    printf("%d tensors, largest relative difference %.3g (%s)\n", c->tensors, c->worst,
           c->worst_name);
  if (c->differences) printf("%s and %s: %d differences\n", first, second, c->differences);
  return c->differences > 0;
}

static int print(const char *path, const char *name) {
  char group_name[256];
  const char *slash = strrchr(name, '/');
  if (!slash) return 2;
  snprintf(group_name, sizeof group_name, "%.*s", (int)(slash - name), name);
  const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
  if (file < 0) return 2;
  const hid_t attribute = H5Aopen_by_name(file, group_name, slash + 1, H5P_DEFAULT, H5P_DEFAULT);
  if (attribute < 0) return 2;
  size_t bytes;
  H5T_class_t kind;
  char *values = values_of(attribute, 1, &bytes, &kind);
  for (size_t i = 0; i < bytes / 8; i++) {
    if (kind == H5T_FLOAT)
      printf("%s%.17g", i ? " " : "", ((double *)values)[i]);
    else
      printf("%s%lld", i ? " " : "", ((long long *)values)[i]);
  }
  printf("\n");
  free(values);
  H5Aclose(attribute);
  H5Fclose(file);
  return 0;
}

static int mean_of(char **paths, const char *name) {
  float *values[3];
  size_t bytes[3];
  for (int i = 0; i < 3; i++) {
    H5T_class_t kind;
    const hid_t file = H5Fopen(paths[i], H5F_ACC_RDONLY, H5P_DEFAULT);
    const hid_t set = file < 0 ? -1 : H5Dopen2(file, name, H5P_DEFAULT);
    if (set < 0) {
      printf("cannot read %s of %s\n", name, paths[i]);
      return 2;
    }
    values[i] = values_of(set, 0, &bytes[i], &kind);
    H5Dclose(set);
    H5Fclose(file);
  }
  if (bytes[0] == 0 || bytes[0] != bytes[1] || bytes[0] != bytes[2]) return 2;
  double apart = 0, off = 0;
  for (size_t i = 0; i < bytes[0] / sizeof(float); i++) {
    const double a = (double)values[0][i], b = (double)values[1][i], c = (double)values[2][i];
    apart = fmax(apart, fabs(a - b));
    off = fmax(off, fabs((a + b) / 2 - c));
  }
  for (int i = 0; i < 3; i++)
    free(values[i]);
  printf("%s: %.3g apart, mean off by %.3g\n", name, apart, off);
  return !(apart > 0 && off <= 1e-6 * apart);
}

int main(int argc, char **argv) {
  H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
  if (argc == 4 && strcmp(argv[1], "--print") == 0) return print(argv[2], argv[3]);
  if (argc == 6 && strcmp(argv[1], "--mean") == 0) return mean_of(argv + 2, argv[5]);
  if (argc != 3 && argc != 4) return 2;
  return compare(argv[1], argv[2], argc == 4 ? strtod(argv[3], NULL) : -1);
}
