/* field: npy files written byte by byte and HDF5 files of every kind, read against a modulo
 * reference; malformed files, one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <hdf5.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/random.h"
#include "base/system.h"
#include "field/array.h"
#include "field/hdf5.h"

#include "field_fixture.h"

static float encode(char kind, int item, int64_t i, uint64_t *bits) {
  static const struct {
    uint16_t bits;
    float value;
  } half[] = {{0x3C00, 1.0f},          {0xC000, -2.0f},           {0x7BFF, 65504.0f},
              {0x0001, 0x1p-24f},      {0x3555, 0.333251953125f}, {0x7C00, INFINITY},
              {0x83FF, -0x1.ff8p-15f}, {0x0400, 0x1p-14f},        {0x0000, 0.0f}};
  uint64_t raw = 0;
  float value = 0;
  if (kind == 'f' && item == 2) {
    raw = half[i % 9].bits;
    value = half[i % 9].value;
  } else if (kind == 'f') {
    const double v = i == 0 ? 1e-30 : i == 1 ? -3.4e38 : sin(1.0 + (double)i) * 100;
    value = (float)v;
    if (item == 4) memcpy(&raw, &value, 4);
    if (item == 8) memcpy(&raw, &v, 8);
  } else if (kind == 'b') {
    raw = (uint64_t)(i * 7 % 3 == 0);
    value = (float)raw;
  } else {
    const uint64_t mask = item == 8 ? UINT64_MAX : ((uint64_t)1 << (8 * item)) - 1;
    raw = (i == 0   ? (uint64_t)1 << (8 * item - 1)
           : i == 1 ? mask
                    : 0x9E3779B97F4A7C15u * (uint64_t)i) &
          mask;
    const int64_t as_signed = (int64_t)(raw << (64 - 8 * item)) >> (64 - 8 * item);
    value = kind == 'u' ? (float)raw : (float)as_signed;
  }
  *bits = raw;
  return value;
}

static void npy_every_type(void **state) {
  (void)state;
  const struct {
    char kind;
    int item;
  } types[] = {{'b', 1}, {'i', 1}, {'i', 2}, {'i', 4}, {'i', 8}, {'u', 1},
               {'u', 2}, {'u', 4}, {'u', 8}, {'f', 2}, {'f', 4}, {'f', 8}};
  const int64_t dim[4] = {2, 3, 4, 5}, total = 120;
  for (int t = 0; t < 12; t++) {
    for (int mode = 0; mode < 4; mode++) {
      const bool big = mode & 1, fortran = mode & 2;
      const int item = types[t].item;
      unsigned char bytes[120 * 8], image[2048];
      float reference[120];
      for (int64_t i = 0; i < total; i++) {
        // C index (a, b, c, d) of value i; in Fortran order a runs fastest.
        const int64_t a = i / 60, b = i / 20 % 3, c = i / 5 % 4, d = i % 5;
        const int64_t place = fortran ? ((d * 4 + c) * 3 + b) * 2 + a : i;
        uint64_t bits;
        reference[i] = encode(types[t].kind, item, i, &bits);
        if (big) bits = __builtin_bswap64(bits) >> (64 - 8 * item);
        memcpy(bytes + place * item, &bits, (size_t)item);
      }
      char dict[160], type[8];
      snprintf(type, sizeof type, "%c%c%d", item == 1 ? '|' : big ? '>' : '<', types[t].kind, item);
      snprintf(dict, sizeof dict,
               "{'descr': '%s', 'fortran_order': %s, 'shape': (2, 3, 4, 5), }  \n", type,
               fortran ? "True" : "False");
      const size_t size = npy_image(image, 1 + (t + mode) % 3, dict, bytes, (size_t)(total * item));
      write_file(at("type.npy"), image, size);
      fn_field *field;
      assert_int_equal(fn_field_open(at("type.npy"), false, &field), FN_OK);
      const fn_field_info *info = fn_field_get_info(field);
      assert_string_equal(info->type, type);
      assert_int_equal(info->fortran, fortran);
      assert_int_equal(info->channels, dim[0]);
      assert_int_equal(info->spatial, 3);
      assert_int_equal(info->bytes, total * item);
      check_block(field, 0, reference, (int64_t[]){0, 0, 0}, (int64_t[]){3, 4, 5});
      check_block(field, 0, reference, (int64_t[]){-7, 5, 13}, (int64_t[]){4, 9, 17});
      fn_field_close(field);
      // The same file as two packed samples of three channels and two axes.
      assert_int_equal(fn_field_open(at("type.npy"), true, &field), FN_OK);
      info = fn_field_get_info(field);
      assert_int_equal(info->packed, 2);
      assert_int_equal(info->channels, 3);
      for (int64_t s = 0; s < 2; s++)
        check_block(field, s, reference, (int64_t[]){3, -1}, (int64_t[]){6, 4});
      float one;
      assert_int_equal(fn_field_read(field, 2, (int64_t[]){0, 0}, (int64_t[]){1, 1}, &one),
                       FN_ERR_DATA);
      fn_field_close(field);
    }
  }
}

/** Random float32 array of 1 to 3 spatial axes in `reference`; shape into dim, returns ndim. */
static int random_array(fn_random *random, int spatial, int64_t *dim, float *reference,
                        int64_t *total) {
  *total = 1;
  for (int i = 0; i <= spatial; i++) {
    dim[i] = 1 + (int64_t)fn_random_below(random, i == 0 ? 3 : 9);
    *total *= dim[i];
  }
  for (int64_t i = 0; i < *total; i++)
    reference[i] = (float)fn_random_normal(random);
  return spatial + 1;
}

static void check_random_blocks(fn_random *random, fn_field *field, int64_t sample,
                                const float *reference, int blocks) {
  const int spatial = fn_field_get_info(field)->spatial;
  for (int k = 0; k < blocks; k++) {
    int64_t start[3], extent[3];
    for (int i = 0; i < spatial; i++) {
      start[i] = (int64_t)fn_random_below(random, 81) - 40;
      extent[i] = (int64_t)fn_random_below(random, 24);
    }
    check_block(field, sample, reference, start, extent);
  }
}

static void npy_random_blocks(void **state) {
  (void)state;
  fn_random random = fn_random_stream(11, FN_RANDOM_TEST, 0, 0);
  for (int round = 0; round < 30; round++) {
    int64_t dim[4], total;
    float reference[3 * 9 * 9 * 9];
    const int ndim = random_array(&random, 1 + round % 3, dim, reference, &total);
    assert_int_equal(fn_npy_write(at("random.npy"), reference, ndim, dim), FN_OK);
    fn_field *field;
    assert_int_equal(fn_field_open(at("random.npy"), false, &field), FN_OK);
    check_random_blocks(&random, field, 0, reference, 20);
    fn_field_close(field);
  }
}

/* A crop of a large file must not read the file: 2 GB, of which a crop touches 16 rows of pages. */
static void npy_touches_only_the_block(void **state) {
  (void)state;
  unsigned char image[256];
  const size_t size = npy_image(
      image, 1, "{'descr': '<f4', 'fortran_order': False, 'shape': (8, 400, 400, 400)}\n", NULL, 0);
  write_file(at("large.npy"), image, size);
  assert_int_equal(truncate(at("large.npy"), (off_t)size + 4LL * 8 * 400 * 400 * 400), 0);
  fn_field *field;
  const size_t before = fn_memory_now();
  assert_int_equal(fn_field_open(at("large.npy"), false, &field), FN_OK);
  float out[8 * 4 * 4 * 4];
  assert_int_equal(fn_field_read(field, 0, (int64_t[]){-2, 398, 50}, (int64_t[]){4, 4, 4}, out),
                   FN_OK);
  const size_t after = fn_memory_now();
  assert_true(after < before + (48u << 20));
  fn_field_close(field);
  unlink(at("large.npy"));
}

static void expect_open_error(const char *path, bool packed, const char *part) {
  fn_field *field;
  fn_error_clear();
  assert_int_equal(fn_field_open(path, packed, &field), FN_ERR_DATA);
  assert_null(field);
  if (!strstr(fn_error_message(), part)) fail_msg("\"%s\" lacks \"%s\"", fn_error_message(), part);
}

static void npy_malformed(void **state) {
  (void)state;
  static const struct {
    const char *dict, *message;
  } cases[] = {
      {"{'descr': '<c8', 'fortran_order': False, 'shape': (1, 2)}", "complex dtype '<c8'"},
      {"{'descr': '|O', 'fortran_order': False, 'shape': (1, 2)}", "object dtype '|O'"},
      {"{'descr': '<U4', 'fortran_order': False, 'shape': (1, 2)}", "text dtype '<U4'"},
      {"{'descr': '|V8', 'fortran_order': False, 'shape': (1, 2)}", "structured dtype '|V8'"},
      {"{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1, 2)}", "structured dtype;"},
      {"{'descr': '<f16', 'fortran_order': False, 'shape': (1, 2)}", "dtype '<f16'"},
      {"{'descr': '<f44', 'fortran_order': False, 'shape': (1, 2)}", "dtype '<f44'"},
      {"{'descr': '', 'fortran_order': False, 'shape': (1, 2)}", "dtype ''"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': ()}", "shape [] has 0 axes"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "shape [2] has 1 axes"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (2)}", "expected ','"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 0)}", "shape [1, 0] is empty"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, -2)}", "expected a size"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", "more than 8"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}",
       "is too large"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775808, 1)}", "below 2^63"},
      {"{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 2)}", "True or False, found \"0"},
      {"{'descr': '<f4', 'fortran_order': False}", "no key 'shape'"},
      {"{'descr': '<f4', 'shape': (1, 2)}", "no key 'fortran_order'"},
      {"{'descr': '<f4', 'descr': '<f4', 'shape': (1, 2)}", "repeated key 'descr'"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), 'x': 1}", "unknown key 'x'"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)} x", "nothing after '}'"},
      {"{'descr': '<f4' 'fortran_order': False}", "',' or '}'"},
      {"{'descr': '<f4", "a short quoted text"},
      {"import os", "expected '{', found \"import os\""},
      {"", "expected '{'"},
      {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 9)}",
       "truncated: shape [1, 9] of type <f4 needs 103 bytes with its header, the file has 75"},
  };
  unsigned char image[512];
  const float values[2] = {1, 2};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const size_t size = npy_image(image, 1, cases[i].dict, values, sizeof values);
    write_file(at("bad.npy"), image, size);
    expect_open_error(at("bad.npy"), false, cases[i].message);
    assert_non_null(strstr(fn_error_message(), "bad.npy"));
  }
  const char *good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}";
  const size_t size = npy_image(image, 1, good, values, sizeof values);
  write_file(at("bad.npy"), image, size);
  expect_open_error(at("bad.npy"), true, "shape [1, 2] has 2 axes; expected [sample, channel");
  write_file(at("bad.npy"), image, 40);
  expect_open_error(at("bad.npy"), false,
                    "truncated: the npy header ends at byte 67, the file has 40");
  write_file(at("bad.npy"), image, 8);
  expect_open_error(at("bad.npy"), false, "truncated");
  write_file(at("bad.npy"), image, 0);
  expect_open_error(at("bad.npy"), false, "not an npy file (0 bytes");
  image[6] = 4;
  write_file(at("bad.npy"), image, size);
  expect_open_error(at("bad.npy"), false, "npy format 4.0; expected 1.0, 2.0 or 3.0");
  write_file(at("bad.npy"), "PK\3\4 an archive of arrays", 25);
  expect_open_error(at("bad.npy"), false, "an archive (.npz) cannot be read");
  write_file(at("bad.npy"), "SIMPLE  =                    T", 30);
  expect_open_error(at("bad.npy"), false, "FITS files cannot be read yet");
  write_file(at("bad.npy"), "0.1 0.2 0.3", 11);
  expect_open_error(at("bad.npy"), false, "not an npy file (11 bytes");
  expect_open_error(at("absent.npy"), false, "absent.npy: No such file or directory");
  expect_open_error(folder, false, "Is a directory");
  expect_open_error("/dev/null", false, "not a regular file");
}

static void unreadable_files(void **state) {
  (void)state;
  const int64_t dim[2] = {1, 2};
  const float values[2] = {1, 2};
  assert_int_equal(fn_npy_write(at("secret.npy"), values, 2, dim), FN_OK);
  assert_int_equal(fn_hdf5_write(at("secret.h5"), "x", values, 2, dim), FN_OK);
  assert_int_equal(chmod(at("secret.npy"), 0) | chmod(at("secret.h5"), 0) | chmod(folder, 0755), 0);
  const bool root = geteuid() == 0;
  if (root) assert_int_equal(seteuid(65534), 0);
  expect_open_error(at("secret.npy"), false, "secret.npy: Permission denied");
  expect_open_error(at("secret.h5"), false, "secret.h5: Permission denied");
  if (root) assert_int_equal(seteuid(0), 0);
}

static void npy_shrinks_while_open(void **state) {
  (void)state;
  const int64_t dim[2] = {1, 4096};
  float *values = calloc(4096, sizeof *values), out[4];
  assert_int_equal(fn_npy_write(at("shrink.npy"), values, 2, dim), FN_OK);
  free(values);
  fn_field *field;
  assert_int_equal(fn_field_open(at("shrink.npy"), false, &field), FN_OK);
  assert_int_equal(truncate(at("shrink.npy"), 8000), 0);
  assert_int_equal(fn_field_read(field, 0, (int64_t[]){4000}, (int64_t[]){4}, out), FN_ERR_DATA);
  assert_non_null(strstr(fn_error_message(), "expected 16512 bytes, found 8000"));
  fn_field_close(field);
}

/* A file that another program cuts and writes again while it is read: reads succeed with values
 * that were in the file, or fail; nothing ends the process. */
static void *cut_and_restore(void *stop) {
  while (!*(volatile bool *)stop) {
    if (truncate(at("cut.npy"), 128) != 0 || truncate(at("cut.npy"), 128 + (4 << 20)) != 0) break;
    usleep(100);
  }
  return NULL;
}

static void npy_cut_while_reading(void **state) {
  (void)state;
  const int64_t dim[2] = {1, 1 << 20};
  float *values = calloc(1 << 20, sizeof *values), *out = malloc(sizeof *out << 20);
  assert_int_equal(fn_npy_write(at("cut.npy"), values, 2, dim), FN_OK);
  fn_field *field;
  assert_int_equal(fn_field_open(at("cut.npy"), false, &field), FN_OK);
  volatile bool stop = false;
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, cut_and_restore, (void *)&stop), 0);
  int failed = 0;
  for (int i = 0; i < 3000 && failed < 20; i++) {
    const fn_status status = fn_field_read(field, 0, (int64_t[]){0}, (int64_t[]){1 << 20}, out);
    if (status != FN_OK) {
      assert_int_equal(status, FN_ERR_DATA);
      assert_non_null(strstr(fn_error_message(), "cut.npy: "));
      failed++;
    }
  }
  stop = true;
  pthread_join(thread, NULL);
  assert_int_not_equal(failed, 0);
  fn_field_close(field);
  free(values);
  free(out);
}

/* Any damage to a header gives an error or an array that fits in the file, never a crash. */
static void npy_mutations(void **state) {
  (void)state;
  fn_random random = fn_random_stream(5, FN_RANDOM_TEST, 1, 0);
  const float values[60] = {1, 2, 3};
  int opened = 0;
  for (int round = 0; round < 2000; round++) {
    unsigned char image[1024];
    size_t size = npy_image(image, 1 + round % 3,
                            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4, 5), }   \n",
                            values, sizeof values);
    const int flips = 1 + (int)fn_random_below(&random, 3);
    for (int k = 0; k < flips; k++)
      image[fn_random_below(&random, 96)] ^= (unsigned char)(1u << fn_random_below(&random, 8));
    if (round % 5 == 0) size = fn_random_below(&random, size);
    write_file(at("mutant.npy"), image, size);
    fn_field *field;
    const fn_status status = fn_field_open(at("mutant.npy"), false, &field);
    if (status != FN_OK) {
      assert_int_equal(status, FN_ERR_DATA);
      continue;
    }
    const fn_field_info *info = fn_field_get_info(field);
    assert_true(info->bytes <= (int64_t)size);
    int64_t count = info->channels, start[FN_MAX_DIMS] = {-1, -1, -1, -1, -1, -1};
    for (int i = 0; i < info->spatial; i++)
      count *= info->size[i];
    float *out = malloc((size_t)count * sizeof *out);
    assert_int_equal(fn_field_read(field, 0, start, info->size, out), FN_OK);
    free(out);
    fn_field_close(field);
    opened++;
  }
  assert_true(opened > 100 && opened < 1900);
}

/* ---- HDF5 -------------------------------------------------------------------------------- */

/** One dataset of float32 values stored as `type`, chunked and compressed when chunk is not NULL.
 */
static void put_dataset(hid_t file, const char *name, hid_t type, int ndim, const int64_t *shape,
                        const hsize_t *chunk, const float *values) {
  hsize_t dim[8];
  for (int i = 0; i < ndim; i++)
    dim[i] = (hsize_t)shape[i];
  const hid_t links = H5Pcreate(H5P_LINK_CREATE), create = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_create_intermediate_group(links, 1);
  if (chunk) {
    H5Pset_chunk(create, ndim, chunk);
    H5Pset_deflate(create, 4);
  }
  const hid_t space = H5Screate_simple(ndim, dim, NULL);
  const hid_t set = H5Dcreate2(file, name, type, space, links, create, H5P_DEFAULT);
  assert_true(set >= 0);
  if (values)
    assert_true(H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
  H5Dclose(set);
  H5Sclose(space);
  H5Pclose(create);
  H5Pclose(links);
}

static hid_t new_file(const char *path) {
  const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  assert_true(file >= 0);
  return file;
}

static void hdf5_random_blocks(void **state) {
  (void)state;
  fn_random random = fn_random_stream(12, FN_RANDOM_TEST, 0, 0);
  for (int round = 0; round < 24; round++) {
    int64_t dim[4], total;
    float reference[3 * 9 * 9 * 9];
    const int ndim = random_array(&random, 1 + round % 3, dim, reference, &total);
    hsize_t chunk[4];
    for (int i = 0; i < ndim; i++)
      chunk[i] = dim[i] > 3 ? 3 : 1;
    const hid_t file = new_file(at("random.h5"));
    put_dataset(file, "/a/field", round % 4 < 2 ? H5T_IEEE_F32LE : H5T_IEEE_F64BE, ndim, dim,
                round % 2 ? chunk : NULL, reference);
    H5Fclose(file);
    fn_field *field;
    assert_int_equal(
        fn_field_open(at(round % 2 ? "random.h5" : "random.h5:/a/field"), false, &field), FN_OK);
    check_random_blocks(&random, field, 0, reference, 20);
    fn_field_close(field);
  }
}

static void hdf5_every_type(void **state) {
  (void)state;
  const hid_t half = H5Tcopy(H5T_IEEE_F32LE), flag = H5Tenum_create(H5T_STD_I8LE);
  H5Tset_fields(half, 15, 10, 5, 0, 10);
  H5Tset_size(half, 2);
  H5Tset_ebias(half, 15);
  const signed char no = 0, yes = 1;
  H5Tenum_insert(flag, "FALSE", &no);
  H5Tenum_insert(flag, "TRUE", &yes);
  const struct {
    hid_t type;
    const char *name;
  } types[] = {{H5T_STD_I8LE, "|i1"},   {H5T_STD_U8BE, "|u1"},   {H5T_STD_I16BE, ">i2"},
               {H5T_STD_U16LE, "<u2"},  {H5T_STD_I32LE, "<i4"},  {H5T_STD_U32BE, ">u4"},
               {H5T_STD_I64BE, ">i8"},  {H5T_STD_U64LE, "<u8"},  {half, "<f2"},
               {H5T_IEEE_F32BE, ">f4"}, {H5T_IEEE_F64LE, "<f8"}, {flag, "|b1"}};
  const int64_t shape[3] = {2, 2, 5};
  float values[20], bits[20];
  signed char raw[20];
  for (int i = 0; i < 20; i++) {
    values[i] = (float)(i * 5);
    raw[i] = i % 3 == 0;
    bits[i] = raw[i];
  }
  for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
    const bool is_flag = types[t].type == flag;
    const hid_t file = new_file(at("type.hdf5"));
    put_dataset(file, "x", types[t].type, 3, shape, NULL, is_flag ? NULL : values);
    if (is_flag) {
      const hid_t set = H5Dopen2(file, "x", H5P_DEFAULT);
      assert_true(H5Dwrite(set, flag, H5S_ALL, H5S_ALL, H5P_DEFAULT, raw) >= 0);
      H5Dclose(set);
    }
    H5Fclose(file);
    fn_field *field;
    assert_int_equal(fn_field_open(at("type.hdf5:x"), false, &field), FN_OK);
    assert_string_equal(fn_field_get_info(field)->type, types[t].name);
    check_block(field, 0, is_flag ? bits : values, (int64_t[]){-3, 4}, (int64_t[]){7, 11});
    fn_field_close(field);
  }
  H5Tclose(half);
  H5Tclose(flag);
}

static void hdf5_packed(void **state) {
  (void)state;
  const int64_t shape[4] = {4, 2, 3, 5};
  const hsize_t chunk[4] = {1, 2, 3, 2};
  float values[120];
  for (int i = 0; i < 120; i++)
    values[i] = (float)i * 0.5f;
  const hid_t file = new_file(at("packed.h5"));
  put_dataset(file, "/train/x", H5T_IEEE_F32LE, 4, shape, chunk, values);
  H5Fclose(file);
  int64_t samples;
  assert_int_equal(fn_field_samples(at("packed.h5"), 2, &samples), FN_OK);
  assert_int_equal(samples, 4);
  assert_int_equal(fn_field_samples(at("packed.h5"), 3, &samples), FN_OK);
  assert_int_equal(samples, 1);
  assert_int_equal(fn_field_samples(at("packed.h5"), 0, &samples), FN_OK);
  assert_int_equal(samples, 1);
  assert_int_equal(fn_field_samples(at("packed.h5"), 1, &samples), FN_ERR_DATA);
  assert_non_null(strstr(fn_error_message(), "expected 2, or 3 when packed"));
  fn_field *field;
  assert_int_equal(fn_field_open(at("packed.h5:/train/x"), true, &field), FN_OK);
  for (int64_t s = 0; s < 4; s++)
    check_block(field, s, values, (int64_t[]){-8, 3}, (int64_t[]){5, 12});
  fn_field_close(field);
}

static void hdf5_refused(void **state) {
  (void)state;
  const int64_t shape[2] = {2, 600};
  float values[1200] = {0};
  hid_t file = new_file(at("many.h5"));
  put_dataset(file, "/disp", H5T_IEEE_F32LE, 2, shape, NULL, values);
  put_dataset(file, "/snap/vel", H5T_IEEE_F32LE, 2, shape, NULL, values);
  const hid_t text = H5Tcopy(H5T_C_S1), pair = H5Tcreate(H5T_COMPOUND, 8);
  H5Tinsert(pair, "r", 0, H5T_IEEE_F32LE);
  H5Tinsert(pair, "i", 4, H5T_IEEE_F32LE);
  put_dataset(file, "/text", text, 2, shape, NULL, NULL);
  put_dataset(file, "/complex", pair, 2, shape, NULL, NULL);
  H5Tclose(text);
  H5Tclose(pair);
  const int64_t flat = 4;
  put_dataset(file, "/flat", H5T_IEEE_F32LE, 1, &flat, NULL, values);
  H5Fclose(file);
  expect_open_error(at("many.h5"), false,
                    "holds 5 datasets (/complex, /disp, /flat, /snap/vel, /text)");
  expect_open_error(at("many.h5:/snap/vle"), false, "no dataset /snap/vle; did you mean /snap/vel");
  expect_open_error(at("many.h5:/none_such_at_all"), false, "it holds /complex, /disp");
  expect_open_error(at("many.h5:/snap"), false, "no dataset /snap");
  expect_open_error(at("many.h5:/text"), false, "type string cannot be read");
  expect_open_error(at("many.h5:/complex"), false, "type compound (or complex) cannot be read");
  expect_open_error(at("many.h5:/flat"), false, "shape [4] has 1 axes");
  expect_open_error(at("absent.h5:/x"), false, "absent.h5: No such file or directory");
  file = new_file(at("empty.h5"));
  H5Fclose(file);
  expect_open_error(at("empty.h5"), false, "holds no dataset");
  write_file(at("text.h5"), "this is no HDF5 file", 20);
  expect_open_error(at("text.h5"), false, "as HDF5: ");
  char *bytes;
  size_t count;
  assert_int_equal(fn_file_read(at("many.h5"), &bytes, &count), FN_OK);
  write_file(at("short.h5"), bytes, count - 1000);
  free(bytes);
  expect_open_error(at("short.h5:/disp"), false, "truncated file");
  assert_int_equal(fn_npy_write(at("plain.npy"), values, 2, shape), FN_OK);
  rename(at("plain.npy"), at("plain"));
  expect_open_error(at("plain:/x"), false, "only HDF5 files hold named datasets");
}

/* Without a telling suffix the first bytes decide. */
static void format_by_magic(void **state) {
  (void)state;
  const int64_t shape[2] = {1, 4};
  const float values[4] = {1, 2, 3, 4};
  fn_field *field;
  const char *names[] = {"magic_npy", "magic_hdf5", "magic_hdf5:/x"};
  assert_int_equal(fn_npy_write(at(names[0]), values, 2, shape), FN_OK);
  assert_int_equal(fn_hdf5_write(at(names[1]), "x", values, 2, shape), FN_OK);
  for (int i = 0; i < 3; i++) {
    assert_int_equal(fn_field_open(at(names[i]), false, &field), FN_OK);
    check_block(field, 0, values, (int64_t[]){-6}, (int64_t[]){9});
    fn_field_close(field);
  }
}

static void *read_often(void *user) {
  fn_field *field = user;
  float out[3 * 30];
  for (int i = 0; i < 300; i++) {
    if (fn_field_read(field, 0, (int64_t[]){i - 200}, (int64_t[]){30}, out) != FN_OK) return field;
    for (int k = 0; k < 30; k++)
      if (out[60 + k] != (float)(40 + ((i - 200 + k) % 20 + 20) % 20)) return field;
  }
  return NULL;
}

static void threads_read_hdf5(void **state) {
  (void)state;
  const int64_t shape[2] = {3, 20};
  float values[60];
  for (int i = 0; i < 60; i++)
    values[i] = (float)i;
  pthread_t thread[4];
  fn_field *field[4];
  for (int i = 0; i < 4; i++) {
    char name[32];
    snprintf(name, sizeof name, "thread%d.h5", i / 2);
    assert_int_equal(fn_hdf5_write(at(name), "/x", values, 2, shape), FN_OK);
    assert_int_equal(fn_field_open(at(name), false, &field[i]), FN_OK);
  }
  for (int i = 0; i < 4; i++)
    pthread_create(&thread[i], NULL, read_often, field[i]);
  for (int i = 0; i < 4; i++) {
    void *bad;
    pthread_join(thread[i], &bad);
    assert_null(bad);
    fn_field_close(field[i]);
  }
}

/* ---- patterns and writing ---------------------------------------------------------------- */

static void check_glob(const char *pattern, const char *const *wanted, int count) {
  fn_arena *arena = fn_arena_create();
  const char **paths;
  int found;
  assert_int_equal(fn_field_glob(arena, at(pattern), &paths, &found), FN_OK);
  assert_int_equal(found, count);
  for (int i = 0; i < count; i++)
    assert_string_equal(paths[i], at(wanted[i]));
  fn_arena_destroy(arena);
}

static void expect_glob_error(const char *pattern, const char *part) {
  fn_arena *arena = fn_arena_create();
  const char **paths;
  int found;
  assert_int_equal(fn_field_glob(arena, at(pattern), &paths, &found), FN_ERR_DATA);
  if (!strstr(fn_error_message(), part)) fail_msg("\"%s\" lacks \"%s\"", fn_error_message(), part);
  fn_arena_destroy(arena);
}

static void patterns(void **state) {
  (void)state;
  const int64_t shape[2] = {1, 1};
  const float one = 1;
  const char *files[] = {"g/b.npy", "g/B.npy", "g/a10.npy", "g/a9.npy", "g/[x].npy"};
  mkdir(at("g"), 0777);
  for (int i = 0; i < 5; i++)
    assert_int_equal(fn_npy_write(at(files[i]), &one, 2, shape), FN_OK);
  check_glob("g/*.npy",
             (const char *[]){"g/B.npy", "g/[x].npy", "g/a10.npy", "g/a9.npy", "g/b.npy"}, 5);
  check_glob("g/a?.npy", (const char *[]){"g/a9.npy"}, 1);
  check_glob("g/[aB]*.npy", (const char *[]){"g/B.npy", "g/a10.npy", "g/a9.npy"}, 3);
  check_glob("g/[x].npy", (const char *[]){"g/[x].npy"}, 1);
  for (int i = 0; i < 2; i++) {
    const hid_t file = new_file(at(i ? "g/s1.h5" : "g/s0.h5"));
    put_dataset(file, "/t2/disp", H5T_IEEE_F32LE, 2, shape, NULL, &one);
    put_dataset(file, "/t1/disp", H5T_IEEE_F32LE, 2, shape, NULL, &one);
    put_dataset(file, "/t1/vel", H5T_IEEE_F32LE, 2, shape, NULL, &one);
    // A group that contains itself must not trap the walk.
    const hid_t group = H5Gopen2(file, "/t1", H5P_DEFAULT);
    H5Lcreate_hard(file, "/t1", group, "self", H5P_DEFAULT, H5P_DEFAULT);
    H5Lcreate_soft("/nowhere", file, "dangling", H5P_DEFAULT, H5P_DEFAULT);
    H5Gclose(group);
    H5Fclose(file);
  }
  check_glob("g/s?.h5:/t1/disp", (const char *[]){"g/s0.h5:/t1/disp", "g/s1.h5:/t1/disp"}, 2);
  check_glob("g/s?.h5:t*/disp",
             (const char *[]){"g/s0.h5:/t1/disp", "g/s0.h5:/t2/disp", "g/s1.h5:/t1/disp",
                              "g/s1.h5:/t2/disp"},
             4);
  check_glob("g/s1.h5:/t1/[v]*", (const char *[]){"g/s1.h5:/t1/vel"}, 1);
  check_glob("g/s*.h5", (const char *[]){"g/s0.h5", "g/s1.h5"}, 2);
  expect_glob_error("g/*.nyp", "no file matches");
  expect_glob_error("h/*.npy", "there is no folder");
  expect_glob_error("g/s0.h5:/t9/*", "no dataset matches");
}

static int count_files(const char *path) {
  char command[600];
  snprintf(command, sizeof command, "ls -A %s | wc -l", path);
  FILE *pipe = popen(command, "r");
  int count = -1;
  assert_int_equal(fscanf(pipe, "%d", &count), 1);
  pclose(pipe);
  return count;
}

static void written_bytes(void **state) {
  (void)state;
  const int64_t shape[2] = {2, 3};
  const float values[6] = {0, 1, 2, 3, 4, 5};
  char *bytes;
  size_t count;
  mkdir(at("w"), 0777);
  assert_int_equal(fn_npy_write(at("w/x.npy"), values, 2, shape), FN_OK);
  assert_int_equal(fn_file_read(at("w/x.npy"), &bytes, &count), FN_OK);
  assert_int_equal(count, 128 + 24);
  assert_memory_equal(bytes,
                      "\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, "
                      "'shape': (2, 3), }",
                      68);
  assert_int_equal(bytes[127], '\n');
  assert_memory_equal(bytes + 128, values, 24);
  free(bytes);
  assert_int_equal(count_files(at("w")), 1); // no temporary file is left
  assert_int_equal(fn_npy_write(at("none/x.npy"), values, 2, shape), FN_ERR_DATA);
  assert_non_null(strstr(fn_error_message(), "none/x.npy: No such file or directory"));
}

/* A write that fails leaves the old file and nothing else, and the process can go on with HDF5. */
static void writing_fails_whole(void **state) {
  (void)state;
  const int64_t shape[2] = {1, 50000};
  float *values = calloc(50000, sizeof *values);
  values[0] = 7;
  mkdir(at("f"), 0777);
  assert_int_equal(fn_npy_write(at("f/x.npy"), values, 2, shape), FN_OK);
  assert_int_equal(fn_hdf5_write(at("f/x.h5"), "x", values, 2, shape), FN_OK);
  struct rlimit old, small;
  getrlimit(RLIMIT_FSIZE, &old);
  small = old;
  small.rlim_cur = 100000;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  values[0] = 8;
  assert_int_equal(fn_npy_write(at("f/x.npy"), values, 2, shape), FN_ERR_DATA);
  assert_non_null(strstr(fn_error_message(), "File too large"));
  assert_int_equal(fn_hdf5_write(at("f/x.h5"), "x", values, 2, shape), FN_ERR_DATA);
  assert_non_null(strstr(fn_error_message(), "File too large"));
  setrlimit(RLIMIT_FSIZE, &old);
  values[0] = 7;
  assert_int_equal(count_files(at("f")), 2);
  for (int i = 0; i < 2; i++) {
    fn_field *field;
    assert_int_equal(fn_field_open(at(i ? "f/x.h5" : "f/x.npy"), false, &field), FN_OK);
    check_block(field, 0, values, (int64_t[]){0}, (int64_t[]){50000});
    fn_field_close(field);
  }
  assert_int_equal(fn_hdf5_write(at("f/x.h5"), "a/b/x", values, 2, shape), FN_OK);
  free(values);
}

/* numpy and h5py write what we read and read what we write. */
static void python_agrees(void **state) {
  (void)state;
  if (system("python3 -c 'import numpy, h5py' 2>/dev/null") != 0) {
    print_message("skipped: python3 with numpy and h5py is not available\n");
    skip();
  }
  char command[1200];
  snprintf(command, sizeof command,
           "cd %s && python3 -c \"\n"
           "import numpy as np, h5py\n"
           "x = np.arange(210).reshape(2, 3, 5, 7)\n"
           "np.save('py0.npy', x.astype('>f8'))\n"
           "np.save('py1.npy', np.asfortranarray(x.astype('<i2')))\n"
           "np.lib.format.write_array(open('py2.npy', 'wb'), x.astype('f2'), version=(2, 0))\n"
           "h5py.File('py3.h5', 'w').create_dataset('x', data=x, chunks=(1, 3, 2, 4), "
           "compression='gzip', shuffle=True)\n"
           "\"",
           folder);
  assert_int_equal(system(command), 0);
  float values[210];
  for (int i = 0; i < 210; i++)
    values[i] = (float)i;
  const char *names[] = {"py0.npy", "py1.npy", "py2.npy", "py3.h5"};
  for (int i = 0; i < 4; i++) {
    fn_field *field;
    assert_int_equal(fn_field_open(at(names[i]), false, &field), FN_OK);
    check_block(field, 0, values, (int64_t[]){-2, 4, 20}, (int64_t[]){7, 6, 9});
    fn_field_close(field);
  }
  const int64_t shape[4] = {2, 3, 5, 7};
  assert_int_equal(fn_npy_write(at("c.npy"), values, 4, shape), FN_OK);
  assert_int_equal(fn_hdf5_write(at("c.h5"), "/g/x", values, 4, shape), FN_OK);
  snprintf(command, sizeof command,
           "cd %s && python3 -c \"\n"
           "import numpy as np, h5py\n"
           "x = np.arange(210).reshape(2, 3, 5, 7)\n"
           "y, z = np.load('c.npy'), h5py.File('c.h5', 'r')['/g/x'][()]\n"
           "assert y.dtype == z.dtype == np.float32 and (x == y).all() and (x == z).all()\n\"",
           folder);
  assert_int_equal(system(command), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(npy_every_type),
      cmocka_unit_test(npy_random_blocks),
      cmocka_unit_test(npy_touches_only_the_block),
      cmocka_unit_test(npy_malformed),
      cmocka_unit_test(unreadable_files),
      cmocka_unit_test(npy_shrinks_while_open),
      cmocka_unit_test(npy_cut_while_reading),
      cmocka_unit_test(npy_mutations),
      cmocka_unit_test(hdf5_random_blocks),
      cmocka_unit_test(hdf5_every_type),
      cmocka_unit_test(hdf5_packed),
      cmocka_unit_test(hdf5_refused),
      cmocka_unit_test(format_by_magic),
      cmocka_unit_test(threads_read_hdf5),
      cmocka_unit_test(patterns),
      cmocka_unit_test(written_bytes),
      cmocka_unit_test(writing_fails_whole),
      cmocka_unit_test(python_agrees),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
