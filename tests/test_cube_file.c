/* Cube files of both layouts: what they hold, what is refused, and with which words. */
#include "cube_fixture.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/system.h"
#include "field/cube_file.h"

static char folder[] = "/tmp/fieldnet_cubes_XXXXXX";

static const char *at(const char *name) {
  static char path[8][512];
  static int next;
  next = (next + 1) % 8;
  snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
  return path[next];
}

static int make_folder(void **state) {
  (void)state;
  return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
  (void)state;
  char command[600];
  snprintf(command, sizeof command, "rm -rf %s", folder);
  return system(command);
}

#define SIZE                                                                                       \
  { 6, 5, 7 }

static fn_cube_file *open_good(const char *path) {
  fn_cube_file *file = NULL;
  const fn_status status = fn_cube_file_open(path, &file);
  if (status != FN_OK) fail_msg("%s", fn_error_message());
  return file;
}

/** Opening fails as data with a message that holds `part`. */
static void refused(const char *path, const char *part) {
  fn_cube_file *file = NULL;
  assert_int_equal(fn_cube_file_open(path, &file), FN_ERR_DATA);
  assert_null(file);
  if (!strstr(fn_error_message(), part) || !strstr(fn_error_message(), path))
    fail_msg("'%s' expected in: %s", part, fn_error_message());
}

static void check_all(fn_cube_file *file, const cube_spec *spec) {
  const fn_cube_file_info *info = fn_cube_file_get_info(file);
  float *cells = malloc((size_t)spec_cells(spec) * sizeof *cells);
  assert_int_equal(info->cubes, 2 * spec->seeds);
  assert_int_equal(info->packed, spec->packed);
  for (int i = 0; i < 3; i++)
    assert_int_equal(info->size[i], spec->size[i]);
  for (int64_t i = 0; i < info->cubes; i++) {
    const int64_t seed = FIRST_SEED + i / 2;
    const int theory = i % 2 ? FN_NEWTON : FN_GR;
    char name[64];
    snprintf(name, sizeof name, "%s_seed%04lld", theory ? "gr" : "newton", (long long)seed);
    assert_int_equal(info->cube[i].seed, seed);
    assert_int_equal(info->cube[i].theory, theory);
    assert_string_equal(info->cube[i].name, name);
    assert_int_equal(fn_cube_file_find(file, seed, theory), i);
    assert_int_equal(fn_cube_file_read(file, i, cells), FN_OK);
    assert_int_equal(wrong_cells(spec, seed, theory, cells), 0);
  }
  assert_int_equal(fn_cube_file_find(file, 2, FN_GR), -1);
  assert_int_equal(fn_cube_file_find(file, FIRST_SEED + spec->seeds, FN_NEWTON), -1);
  free(cells);
}

static void both_layouts_give_the_cells_that_were_written(void **state) {
  (void)state;
  static const struct {
    cube_spec spec;
    bool direct;
    const char *filter;
  } cases[] = {
      {{.seeds = 3, .size = SIZE}, true, "none"},
      {{.seeds = 3, .size = SIZE, .f64 = true}, false, "none"},
      {{.seeds = 2, .size = SIZE, .chunk = {0, 4, 4, 4}, .gzip = 4}, false, "shuffle+gzip"},
      {{.seeds = 3, .size = SIZE, .packed = true}, true, "none"},
      {{.seeds = 3, .size = SIZE, .packed = true, .backwards = true}, true, "none"},
      {{.seeds = 3, .size = SIZE, .packed = true, .f64 = true}, false, "none"},
      {{.seeds = 3, .size = SIZE, .packed = true, .chunk = {1, 2, 5, 7}}, false, "none"},
      {{.seeds = 3, .size = SIZE, .packed = true, .chunk = {4, 3, 4, 4}, .gzip = 1},
       false,
       "shuffle+gzip"},
  };
  for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
    const cube_spec *spec = &cases[c].spec;
    write_cubes(at("good.h5"), spec);
    fn_cube_file *file = open_good(at("good.h5"));
    const fn_cube_file_info *info = fn_cube_file_get_info(file);
    assert_int_equal(info->direct, cases[c].direct);
    assert_string_equal(info->filter, cases[c].filter);
    for (int i = 0; i < 4; i++)
      assert_int_equal(info->chunk[i], spec->packed ? spec->chunk[i] : 0);
    check_all(file, spec);
    fn_cube_file_close(file);
  }
}

/** Cubes under any names, in the order of the file, and nothing known of them. */
static void cubes_without_labels(void **state) {
  (void)state;
  fn_cube_file *file = NULL;
  for (int packed = 0; packed < 2; packed++) {
    const cube_spec spec = {.seeds = 3, .size = SIZE, .packed = packed, .backwards = packed};
    write_cubes(at("known.h5"), &spec);
    fn_cube_file *known = open_good(at("known.h5"));
    if (packed) {
      const hid_t id = H5Fopen(at("known.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
      assert_true(H5Ldelete(id, "theory", H5P_DEFAULT) >= 0);
      H5Fclose(id);
      refused(at("known.h5"), "no dataset theory");
    }
    assert_int_equal(fn_cube_file_open_unlabelled(at("known.h5"), &file), FN_OK);
    const fn_cube_file_info *info = fn_cube_file_get_info(file);
    const fn_cube_file_info *labelled = fn_cube_file_get_info(known);
    assert_int_equal(info->cubes, 6);
    float cells[6 * 5 * 7];
    for (int64_t i = 0; i < 6; i++) {
      const fn_cube *cube = &info->cube[i];
      assert_int_equal(cube->theory, FN_UNLABELLED);
      if (packed) assert_int_equal(cube->row, i);
      // The same bytes belong to one cube in either view.
      int64_t same = 0;
      while (labelled->cube[same].offset != cube->offset)
        same++;
      assert_int_equal(cube->seed, labelled->cube[same].seed);
      assert_int_equal(fn_cube_file_read(file, i, cells), FN_OK);
      assert_int_equal(wrong_cells(&spec, cube->seed, labelled->cube[same].theory, cells), 0);
    }
    assert_string_equal(info->cube[0].name, packed ? "cubes[0]" : "gr_seed0003");
    fn_cube_file_close(file);
    fn_cube_file_close(known);
  }
}

static void offsets_are_where_the_bytes_lie(void **state) {
  (void)state;
  for (int packed = 0; packed < 2; packed++) {
    const cube_spec spec = {.seeds = 3, .size = SIZE, .packed = packed, .backwards = packed};
    write_cubes(at("offset.h5"), &spec);
    fn_cube_file *file = open_good(at("offset.h5"));
    const fn_cube_file_info *info = fn_cube_file_get_info(file);
    FILE *raw = fopen(at("offset.h5"), "rb");
    for (int64_t i = 0; i < info->cubes; i++) {
      float first[2];
      fseek(raw, (long)info->cube[i].offset, SEEK_SET);
      assert_int_equal(fread(first, sizeof *first, 2, raw), 2);
      assert_true(first[0] == cell_value(info->cube[i].seed, info->cube[i].theory, 0));
      assert_true(first[1] == cell_value(info->cube[i].seed, info->cube[i].theory, 1));
    }
    fclose(raw);
    fn_cube_file_close(file);
  }
}

static void attributes_of_the_root(void **state) {
  (void)state;
  const cube_spec spec = {.seeds = 1, .size = SIZE};
  const char *path = at("attributes.h5");
  write_cubes(path, &spec);
  fn_cube_file *file = open_good(path);
  assert_false(fn_cube_file_get_info(file)->has_statistics);
  assert_false(fn_cube_file_get_info(file)->mean_removed);
  assert_true(isnan(fn_cube_file_get_info(file)->redshift));
  assert_true(isnan(fn_cube_file_get_info(file)->box));
  fn_cube_file_close(file);
  add_number(path, "mean", -2.5e-8);
  add_number(path, "std", 7.5e-7);
  add_number(path, "redshift", 1);
  add_number(path, "box", 320);
  add_number(path, "remove_mean", 1);
  add_number(path, "complete", 1);
  file = open_good(path);
  const fn_cube_file_info *info = fn_cube_file_get_info(file);
  assert_true(info->has_statistics && info->mean_removed);
  assert_true(info->mean == -2.5e-8 && info->std == 7.5e-7);
  assert_true(info->redshift == 1 && info->box == 320);
  fn_cube_file_close(file);
  add_number(path, "version", 2);
  refused(path, "version 2");
}

static void metadata_travel_as_bytes(void **state) {
  (void)state;
  const cube_spec spec = {.seeds = 5, .size = SIZE, .packed = true, .chunk = {1, 2, 5, 7}};
  const char *path = at("pack.h5");
  write_cubes(path, &spec);
  add_number(path, "box", 320);
  fn_cube_file *file = open_good(path), *copy = NULL;
  void *bytes = NULL;
  size_t size = 0;
  assert_int_equal(fn_cube_file_pack(file, &bytes, &size), FN_OK);
  fn_cube_file_close(file);
  assert_int_equal(fn_cube_file_unpack(bytes, size - 1, &copy), FN_ERR_INTERNAL);
  assert_int_equal(fn_cube_file_unpack(bytes, size, &copy), FN_OK);
  free(bytes);
  assert_string_equal(fn_cube_file_get_info(copy)->path, path);
  assert_true(fn_cube_file_get_info(copy)->box == 320);
  assert_int_equal(fn_cube_file_get_info(copy)->chunk[1], 2);
  check_all(copy, &spec);
  fn_cube_file_close(copy);
}

static void rename_link(const char *path, const char *from, const char *to) {
  const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
  if (to) {
    assert_true(H5Lmove(file, from, file, to, H5P_DEFAULT, H5P_DEFAULT) >= 0);
  } else {
    assert_true(H5Ldelete(file, from, H5P_DEFAULT) >= 0);
  }
  H5Fclose(file);
}

/** A dataset of the given shape and type, written or not. */
static void add_dataset(const char *path, const char *name, hid_t type, int axes,
                        const hsize_t *dim, bool written) {
  const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t space = H5Screate_simple(axes, dim, NULL);
  const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  static const float cells[4096];
  if (written) H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, cells);
  H5Dclose(set);
  H5Sclose(space);
  H5Fclose(file);
}

static void bad_original_files_are_refused(void **state) {
  (void)state;
  const cube_spec spec = {.seeds = 2, .size = SIZE};
  const hsize_t size[3] = SIZE, other[3] = {6, 5, 8}, flat[2] = {6, 5};
  const char *path = at("bad.h5");
  refused(at("missing.h5"), "No such file");
  refused(folder, "not a regular file");
  FILE *text = fopen(at("text.h5"), "w");
  fputs("no HDF5 at all, only words", text);
  fclose(text);
  refused(at("text.h5"), "cannot open");
  refused(at("text.h5/data.h5"), "Not a directory"); // root may read any folder, but no file is one
  write_cubes(path, &spec);
  add_dataset(path, "gr_seed0009", H5T_IEEE_F32LE, 3, other, true);
  refused(path, "gr_seed0009 has shape [6, 5, 8]");
  write_cubes(path, &spec);
  add_dataset(path, "gr_seed0009", H5T_IEEE_F32LE, 2, flat, true);
  refused(path, "expected 3 axes");
  write_cubes(path, &spec);
  add_dataset(path, "gr_seed0009", H5T_STD_B32LE, 3, size, true);
  refused(path, "expected numbers, found type not numeric");
  write_cubes(path, &spec);
  add_dataset(path, "gr_seed0009", H5T_IEEE_F32LE, 3, size, false);
  refused(path, "gr_seed0009 was created but never written");
  write_cubes(path, &spec);
  add_dataset(path, "gr_seed3", H5T_IEEE_F32LE, 3, size, true);
  refused(path, "GR cube of seed 3 twice");
  write_cubes(path, &spec);
  add_dataset(path, "gr_seed0009b", H5T_IEEE_F32LE, 3, size, true);
  refused(path, "expected a name like gr_seed0007");
  write_cubes(path, &spec);
  add_number(path, "complete", 0);
  refused(path, "incomplete");
  const hid_t empty = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  H5Fclose(empty);
  refused(path, "no file of cubes");
  add_dataset(path, "phi", H5T_IEEE_F32LE, 3, size, true);
  refused(path, "it holds /phi");
}

static void bad_packed_files_are_refused(void **state) {
  (void)state;
  const cube_spec spec = {.seeds = 2, .size = SIZE, .packed = true};
  const char *path = at("bad.h5");
  write_cubes(path, &spec);
  rename_link(path, "seed", NULL);
  refused(path, "no dataset seed");
  const struct {
    const char *name;
    int count;
    int64_t value[4];
    const char *words;
  } cases[] = {{"seed", 3, {3, 3, 4}, "expected 4 integers, one per cube, found 3"},
               {"theory", 4, {1, 0, 1, 2}, "theory[3] is 2"},
               {"seed", 4, {3, 3, 3, 3}, "of seed 3 twice"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    write_cubes(path, &spec);
    rename_link(path, cases[i].name, NULL);
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    add_integers(file, cases[i].name, H5T_STD_I64LE, cases[i].count, cases[i].value);
    H5Fclose(file);
    refused(path, cases[i].words);
  }
  // A chunked dataset of which some rows were never written.
  const cube_spec chunked = {.seeds = 2, .size = SIZE, .packed = true, .chunk = {1, 6, 5, 7}};
  write_cubes(path, &chunked);
  const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
  H5Ldelete(file, "cubes", H5P_DEFAULT);
  const hsize_t dim[4] = {4, 6, 5, 7}, from[4] = {0}, row[4] = {1, 6, 5, 7};
  static const float cells[6 * 5 * 7];
  const hid_t create = spec_create(&chunked), space = H5Screate_simple(4, dim, NULL);
  const hid_t set =
      H5Dcreate2(file, "cubes", H5T_IEEE_F32LE, space, H5P_DEFAULT, create, H5P_DEFAULT);
  const hid_t memory = H5Screate_simple(4, row, NULL);
  H5Sselect_hyperslab(space, H5S_SELECT_SET, from, NULL, row, NULL);
  H5Dwrite(set, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, cells);
  H5Sclose(memory);
  H5Sclose(space);
  H5Pclose(create);
  H5Dclose(set);
  H5Fclose(file);
  refused(path, "holds 1 of its 4 chunks");
}

static void a_file_cut_short_is_refused(void **state) {
  (void)state;
  for (int packed = 0; packed < 2; packed++) {
    const cube_spec spec = {.seeds = 2, .size = {16, 16, 16}, .packed = packed};
    const char *path = at("short.h5");
    write_cubes(path, &spec);
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(truncate(path, info.st_size - 1000), 0);
    refused(path, "truncated");
    assert_int_equal(truncate(path, 100), 0);
    refused(path, "cannot open");
  }
}

static void a_file_cut_while_open_is_noticed(void **state) {
  (void)state;
  const cube_spec specs[] = {
      {.seeds = 2, .size = {16, 16, 16}},
      {.seeds = 2, .size = {16, 16, 16}, .packed = true, .f64 = true},
  };
  for (int c = 0; c < 2; c++) {
    const char *path = at("cut.h5");
    float cells[16 * 16 * 16];
    write_cubes(path, &specs[c]);
    fn_cube_file *file = open_good(path);
    assert_int_equal(fn_cube_file_read(file, 3, cells), FN_OK);
    // Cubes lie at the end of the file, or indices of the packed layout do.
    assert_int_equal(truncate(path, 4096), 0);
    assert_int_equal(fn_cube_file_read(file, 3, cells), FN_ERR_DATA);
    assert_non_null(strstr(fn_error_message(), "truncated while open"));
    fn_cube_file_close(file);
  }
}

static void a_cell_that_is_not_finite_is_named(void **state) {
  (void)state;
  const cube_spec specs[] = {
      {.seeds = 2, .size = SIZE},
      {.seeds = 2, .size = SIZE, .packed = true},
      {.seeds = 2, .size = SIZE, .packed = true, .chunk = {1, 6, 5, 7}, .gzip = 1},
  };
  for (int c = 0; c < 3; c++) {
    for (int bad = 0; bad < 3; bad++) {
      static const float values[] = {NAN, INFINITY, -INFINITY};
      static const char *const shown[] = {"nan", "inf", "-inf"};
      float cells[6 * 5 * 7];
      char words[128];
      write_cubes(at("nan.h5"), &specs[c]);
      // Row 3 of the packed file is the Newton cube of the second seed.
      spoil_cell(at("nan.h5"), specs[c].packed ? "cubes" : "newton_seed0004", 3,
                 (3 * 5 + 2) * 7 + 4, values[bad]);
      fn_cube_file *file = open_good(at("nan.h5"));
      assert_int_equal(fn_cube_file_read(file, 2, cells), FN_OK);
      assert_int_equal(fn_cube_file_read(file, 3, cells), FN_ERR_DATA);
      snprintf(words, sizeof words,
               "nan.h5: cube newton_seed0004 is not finite: cell [3, 2, 4] is %s", shown[bad]);
      if (!strstr(fn_error_message(), words)) fail_msg("%s", fn_error_message());
      fn_cube_file_close(file);
    }
  }
  // Finite in the file, but beyond what float32 holds.
  const cube_spec wide = {.seeds = 1, .size = SIZE, .f64 = true};
  float cells[6 * 5 * 7];
  write_cubes(at("nan.h5"), &wide);
  const hid_t h = H5Fopen(at("nan.h5"), H5F_ACC_RDWR, H5P_DEFAULT);
  const hid_t set = H5Dopen2(h, "gr_seed0003", H5P_DEFAULT);
  double large[6 * 5 * 7] = {0};
  large[7] = 1e200;
  H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, large);
  H5Dclose(set);
  H5Fclose(h);
  fn_cube_file *file = open_good(at("nan.h5"));
  assert_int_equal(fn_cube_file_read(file, 0, cells), FN_ERR_DATA);
  assert_non_null(strstr(fn_error_message(), "cell [0, 1, 0] is inf"));
  fn_cube_file_close(file);
}

/* 4000 datasets as in the original files: about a quarter of a second of the processor, not
 * several. */
static void thousands_of_datasets_open_quickly(void **state) {
  (void)state;
  const cube_spec spec = {.seeds = 2000, .size = {2, 2, 2}};
  write_cubes(at("many.h5"), &spec);
  const clock_t start = clock(); // of this process alone: other programs do not count
  fn_cube_file *file = open_good(at("many.h5"));
  const double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
  print_message("4000 datasets: %.3f s\n", seconds);
  assert_true(seconds < 5);
  assert_int_equal(fn_cube_file_get_info(file)->cubes, 4000);
  assert_int_equal(fn_cube_file_find(file, FIRST_SEED + 1999, FN_NEWTON), 3999);
  fn_cube_file_close(file);
}

int main(void) {
  alarm(900);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(both_layouts_give_the_cells_that_were_written),
      cmocka_unit_test(offsets_are_where_the_bytes_lie),
      cmocka_unit_test(cubes_without_labels),
      cmocka_unit_test(attributes_of_the_root),
      cmocka_unit_test(metadata_travel_as_bytes),
      cmocka_unit_test(bad_original_files_are_refused),
      cmocka_unit_test(bad_packed_files_are_refused),
      cmocka_unit_test(a_file_cut_short_is_refused),
      cmocka_unit_test(a_file_cut_while_open_is_noticed),
      cmocka_unit_test(a_cell_that_is_not_finite_is_named),
      cmocka_unit_test(thousands_of_datasets_open_quickly),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
