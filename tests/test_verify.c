/* The reader of reference files, and a helper for run_golden.sh:
 *
 *   test_verify change FILE DATASET FACTOR    multiply the largest element of a dataset */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run/reference_file.h"

static int change(const char *path, const char *dataset, double factor) {
  const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t data = H5Dopen2(file, dataset, H5P_DEFAULT);
  if (data < 0) return 1;
  const hid_t space = H5Dget_space(data);
  const size_t count = (size_t)H5Sget_simple_extent_npoints(space);
  double *value = calloc(count, sizeof *value);
  if (!value || H5Dread(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, value) < 0)
    return 1;
  size_t largest = 0;
  for (size_t i = 1; i < count; i++)
    if (fabs(value[i]) > fabs(value[largest])) largest = i;
  value[largest] *= factor;
  const herr_t result = H5Dwrite(data, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, value);
  free(value);
  H5Sclose(space);
  H5Dclose(data);
  return H5Fclose(file) < 0 || result < 0;
}

static const char *file_name = "test_verify.h5";

/** A file in which "weights" was made in the order b, a. */
static void make_file(void) {
  const hid_t file = H5Fcreate(file_name, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t ordered = H5Pcreate(H5P_GROUP_CREATE);
  H5Pset_link_creation_order(ordered, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
  const hid_t group = H5Gcreate2(file, "weights", H5P_DEFAULT, ordered, H5P_DEFAULT);
  const hsize_t dim[2] = {2, 3};
  const float value[6] = {1, 2, 3, 4, 5, -6.5F};
  const char *const names[] = {"b", "a"};
  for (int i = 0; i < 2; i++) {
    const hid_t space = H5Screate_simple(2, dim, NULL);
    const hid_t data =
        H5Dcreate2(group, names[i], H5T_IEEE_F32BE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(data, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, value);
    H5Dclose(data);
    H5Sclose(space);
  }
  const hid_t text = H5Tcopy(H5T_C_S1), scalar = H5Screate(H5S_SCALAR);
  H5Tset_size(text, 4);
  const hid_t attribute = H5Acreate2(file, "model", text, scalar, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, text, "unet");
  H5Aclose(attribute);
  H5Sclose(scalar);
  H5Tclose(text);
  H5Gclose(group);
  H5Pclose(ordered);
  H5Fclose(file);
}

static void test_read(void **state) {
  (void)state;
  make_file();
  fn_reference *reference;
  assert_int_equal(fn_reference_open(file_name, &reference), FN_OK);
  fn_reference_tensor *tensor, one;
  int count;
  assert_int_equal(fn_reference_group(reference, "weights", &tensor, &count), FN_OK);
  assert_int_equal(count, 2);
  assert_string_equal(tensor[0].name, "b"); // creation order, not alphabetical
  assert_string_equal(tensor[1].name, "a");
  assert_int_equal(tensor[0].shape.ndim, 2);
  assert_int_equal(tensor[0].count, 6);
  assert_true(tensor[0].value[5] == -6.5);
  assert_true(isnan(tensor[0].err_max) && !tensor[0].noise);
  assert_int_equal(fn_reference_group(reference, "eval/outputs", &tensor, &count), FN_OK);
  assert_int_equal(count, 0);
  assert_int_equal(fn_reference_read(reference, "weights/c", &one), FN_OK);
  assert_null(one.name);
  assert_string_equal(fn_reference_text(reference, "model"), "unet"); // not NUL-terminated on disk
  assert_null(fn_reference_text(reference, "loss"));
  fn_reference_close(reference);
  remove(file_name);
}

static void test_refuses(void **state) {
  (void)state;
  fn_reference *reference;
  assert_int_equal(fn_reference_open("absent.h5", &reference), FN_ERR_DATA);
  assert_non_null(strstr(fn_error_message(), "absent.h5"));
}

static void test_write(void **state) {
  (void)state;
  make_file();
  fn_reference *source, *copy;
  fn_reference_writer *writer;
  const char *written = "test_verify_written.h5";
  remove(written);
  const float values[2] = {0.25F, 7};
  const fn_shape shape = {.ndim = 1, .dim = {2}};
  assert_int_equal(fn_reference_open(file_name, &source), FN_OK);
  assert_int_equal(fn_reference_write_start(source, &writer), FN_OK);
  assert_int_equal(fn_reference_write_tensor(writer, "adam/weights/z", &shape, values, true),
                   FN_OK);
  assert_int_equal(fn_reference_write_tensor(writer, "adam/weights/y", &shape, values, false),
                   FN_OK);
  assert_int_equal(fn_reference_write_finish(writer, written), FN_OK);
  assert_int_equal(fn_reference_write_finish(writer, written), FN_ERR_CONFIG); // it exists now
  fn_reference_writer_destroy(writer);
  fn_reference_close(source);
  assert_int_equal(fn_reference_open(written, &copy), FN_OK);
  fn_reference_tensor *tensor;
  int count;
  assert_int_equal(fn_reference_group(copy, "adam/weights", &tensor, &count), FN_OK);
  assert_int_equal(count, 2);
  assert_string_equal(tensor[0].name, "z");
  assert_true(tensor[0].noise && !tensor[1].noise);
  assert_true(tensor[1].value[0] == 0.25 && tensor[1].value[1] == 7);
  assert_int_equal(fn_reference_group(copy, "weights", &tensor, &count), FN_OK);
  assert_string_equal(tensor[0].name, "b");
  assert_string_equal(fn_reference_text(copy, "model"), "unet");
  fn_reference_close(copy);
  remove(written);
  remove(file_name);
}

int main(int argc, char **argv) {
  if (argc == 5 && strcmp(argv[1], "change") == 0)
    return change(argv[2], argv[3], strtod(argv[4], NULL));
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_read), cmocka_unit_test(test_refuses),
                                     cmocka_unit_test(test_write)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
