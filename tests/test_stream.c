/* Fields read in planes and written in blocks: the same numbers as whole, each plane read once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>

#include "data/slabs.h"
#include "data_files.h"

static void must(fn_status status) {
  if (status != FN_OK) fail_msg("%s", fn_error_message());
}

/** File number 0 with channels [2], every cell different, in both formats. */
static void write_both(int spatial, const int64_t *size) {
  int64_t dim[4] = {2};
  memcpy(dim + 1, size, (size_t)spatial * sizeof *size);
  const int64_t count = count_of(1 + spatial, dim);
  float *values = malloc((size_t)count * sizeof *values);
  for (int64_t i = 0; i < count; i++)
    values[i] = value_at(0, i);
  must(fn_npy_write("field.npy", values, 1 + spatial, dim));
  must(fn_hdf5_write("field.h5", "x", values, 1 + spatial, dim));
  free(values);
}

static int64_t wrapped(int64_t i, int64_t n) {
  return ((i % n) + n) % n;
}

/** Whether `block` [2, extent...] is that block of the field. */
static bool is_block(const float *block, int spatial, const int64_t *size, const int64_t *start,
                     const int64_t *extent) {
  const int64_t cells = count_of(spatial, extent);
  for (int64_t i = 0; i < 2 * cells; i++) {
    int64_t rest = i % cells, at[3], index = i / cells;
    for (int d = spatial - 1; d >= 0; d--) {
      at[d] = wrapped(start[d] + rest % extent[d], size[d]);
      rest /= extent[d];
    }
    for (int d = 0; d < spatial; d++)
      index = index * size[d] + at[d];
    if (block[i] != value_at(0, index)) return false;
  }
  return true;
}

/** All crops of edge 4 with margin 3 in order of their anchors, then some out of order. */
static void planes_are_read_once(void **state) {
  (void)state;
  const int64_t sizes[3][3] = {{40, 0, 0}, {40, 12, 0}, {40, 12, 8}};
  const char *const paths[] = {"field.npy", "field.h5:/x"};
  for (int spatial = 1; spatial <= 3; spatial++) {
    const int64_t *size = sizes[spatial - 1], extent[3] = {10, 10, 10};
    write_both(spatial, size);
    for (int p = 0; p < 2; p++) {
      fn_field *field;
      fn_slab *slab;
      must(fn_field_open(paths[p], false, &field));
      must(fn_slab_create(fn_field_get_info(field), extent, 1 << 20, &slab));
      assert_non_null(slab);
      float *out = malloc(2000 * sizeof *out);
      const int64_t tiles[3] = {size[0] / 4, spatial > 1 ? size[1] / 4 : 1,
                                spatial > 2 ? size[2] / 4 : 1};
      for (int64_t t = 0; t < tiles[0] * tiles[1] * tiles[2]; t++) {
        const int64_t start[3] = {t / (tiles[1] * tiles[2]) * 4 - 3,
                                  t / tiles[2] % tiles[1] * 4 - 3, t % tiles[2] * 4 - 3};
        must(fn_slab_read(slab, field, 0, 0, start, extent, out));
        assert_true(is_block(out, spatial, size, start, extent));
      }
      // The field and the margins before and after it, along axis 0 only.
      assert_int_equal(fn_slab_planes_read(slab), 40 + 6);
      const int64_t back[3] = {5, 1, 2}, far[3] = {300, 1, 2};
      must(fn_slab_read(slab, field, 0, 0, back, extent, out));
      assert_true(is_block(out, spatial, size, back, extent));
      must(fn_slab_read(slab, field, 0, 0, far, extent, out));
      assert_true(is_block(out, spatial, size, far, extent));
      must(fn_slab_read(slab, field, 1, 0, back, extent, out)); // another field
      assert_true(is_block(out, spatial, size, back, extent));
      free(out);
      fn_slab_destroy(slab);
      fn_field_close(field);
    }
  }
}

/** More than allowed, or nothing to share: blocks come from the file. */
static void slabs_that_do_not_pay(void **state) {
  (void)state;
  const fn_field_info info = {.channels = 3, .spatial = 3, .size = {64, 64, 64}};
  const int64_t part[3] = {16, 16, 16}, whole[3] = {64, 64, 64};
  fn_slab *slab;
  must(fn_slab_create(&info, whole, SIZE_MAX, &slab));
  assert_null(slab);
  must(fn_slab_create(&info, part, 3 * 16 * 64 * 64 * 4, &slab));
  assert_null(slab);
}

/** Batches of a set prepared for streaming, with two readers, against samples one by one. */
static void samples_are_the_same(void **state) {
  (void)state;
  const int64_t size[3] = {24, 12, 16};
  write_both(3, size);
  fn_run *run = run_of("data: {test: {input: field.npy, target: 'field.h5:/x'}, crop: [4, 6, 8], "
                       "input_pad: [3, 1, 0, 0, 2, 2], target_pad: 1}");
  fn_dataset *plain = dataset_of(run, FN_STAGE_TEST), *streamed = dataset_of(run, FN_STAGE_TEST);
  must(fn_dataset_stream(streamed, NULL, 1 << 20));
  const fn_dataset_info *info = fn_dataset_get_info(plain);
  int64_t list[256];
  for (int64_t i = 0; i < info->samples; i++)
    list[i] = i;
  for (int round = 0; round < 20; round++) {
    fn_loader *loader[2];
    const fn_batch *batch[2];
    for (int i = 0; i < 2; i++)
      must(fn_loader_create(i ? streamed : plain, 0, list, info->samples, 5, 0, 2, 3, &loader[i]));
    for (;;) {
      for (int i = 0; i < 2; i++)
        must(fn_loader_next(loader[i], &batch[i]));
      assert_true(!batch[0] == !batch[1]);
      if (!batch[0]) break;
      assert_int_equal(batch[0]->count, batch[1]->count);
      assert_memory_equal(batch[0]->input, batch[1]->input,
                          (size_t)(batch[0]->count * batch[0]->input_values) * sizeof(float));
      assert_memory_equal(batch[0]->target, batch[1]->target,
                          (size_t)(batch[0]->count * batch[0]->target_values) * sizeof(float));
    }
    for (int i = 0; i < 2; i++)
      fn_loader_destroy(loader[i]);
  }
  fn_dataset_destroy(streamed);
  // Other crops than the run's: anchors, sizes and cells.
  streamed = dataset_of(run, FN_STAGE_TEST);
  must(fn_dataset_stream(streamed, (int64_t[]){12, 12, 16}, 1 << 20));
  info = fn_dataset_get_info(streamed);
  assert_int_equal(info->crops, 2);
  assert_int_equal(info->input_extent[0], 16);
  assert_int_equal(info->target_extent[2], 18);
  float *input = malloc(2 * 16 * 12 * 20 * sizeof *input);
  for (int64_t i = 0; i < 2; i++) {
    must(fn_dataset_sample(streamed, 0, i, input, NULL));
    assert_true(is_block(input, 3, size, (int64_t[]){12 * i - 3, 0, -2}, info->input_extent));
  }
  free(input);
  fn_dataset_destroy(streamed);
  fn_dataset_destroy(plain);
  fn_run_destroy(run);
}

/* ---- writing
 * ------------------------------------------------------------------------------------- */

static int files_here(void) {
  int count = 0;
  DIR *here = opendir(".");
  for (struct dirent *entry; (entry = readdir(here));)
    count += entry->d_name[0] != '.';
  closedir(here);
  return count;
}

/** A field written in blocks that overlap and wrap, compared with what a reader finds. */
static void blocks_make_a_field(void **state) {
  (void)state;
  const int64_t sizes[3][3] = {{12, 0, 0}, {12, 8, 0}, {12, 8, 6}};
  for (int spatial = 1; spatial <= 3; spatial++) {
    const int64_t *size = sizes[spatial - 1];
    write_both(spatial, size);
    fn_field *source;
    must(fn_field_open("field.npy", false, &source));
    for (int format = 0; format < 2; format++) {
      const char *path = format ? "out.h5" : "out.npy";
      fn_field_writer *writer;
      must(fn_field_writer_create(path, format ? "a/b" : NULL, 2, spatial, size, &writer));
      assert_false(fn_file_exists(path));
      float *block = malloc(2 * 12 * 8 * 6 * sizeof *block);
      for (int64_t first = -3; first < 9; first += 4) {
        // whole rows, then two parts that overlap, then rows that wrap
        for (int way = 0; way < 3; way++) {
          const int64_t start[3] = {first, way ? -2 : 0, way == 2 ? 3 : 0};
          const int64_t extent[3] = {5, way == 1 ? 5 : 8, 6};
          must(fn_field_read(source, 0, start, extent, block));
          must(fn_field_writer_put(writer, start, extent, block));
        }
      }
      must(fn_field_writer_commit(writer));
      fn_field_writer_destroy(writer);
      fn_field *made;
      must(fn_field_open(format ? "out.h5:/a/b" : "out.npy", false, &made));
      assert_int_equal(fn_field_get_info(made)->channels, 2);
      assert_int_equal(fn_field_get_info(made)->spatial, spatial);
      const int64_t origin[3] = {0};
      must(fn_field_read(made, 0, origin, size, block));
      assert_true(is_block(block, spatial, size, origin, size));
      free(block);
      fn_field_close(made);
      unlink(path);
    }
    fn_field_close(source);
  }
}

static void unwritten_cells_are_zero(void **state) {
  (void)state;
  const int64_t size[2] = {6, 5}, start[2] = {2, 3}, extent[2] = {1, 2};
  for (int format = 0; format < 2; format++) {
    fn_field_writer *writer;
    const char *path = format ? "zero.h5" : "zero.npy";
    must(fn_field_writer_create(path, format ? "x" : NULL, 1, 2, size, &writer));
    must(fn_field_writer_put(writer, start, extent, (float[]){7, 8}));
    must(fn_field_writer_commit(writer));
    fn_field_writer_destroy(writer);
    fn_field *made;
    float all[30];
    must(fn_field_open(path, false, &made));
    must(fn_field_read(made, 0, (int64_t[]){0, 0}, size, all));
    for (int i = 0; i < 30; i++)
      assert_true(all[i] == (i == 13 ? 7 : i == 14 ? 8 : 0));
    fn_field_close(made);
    unlink(path);
  }
}

/** What is not committed leaves nothing and keeps what was there; no room is told at the start. */
static void uncommitted(void **state) {
  (void)state;
  const int64_t size[1] = {4}, huge[2] = {INT64_C(1) << 30, INT64_C(1) << 30};
  must(fn_npy_write("kept.npy", (float[]){1, 2, 3, 4}, 2, (int64_t[]){1, 4}));
  const int before = files_here();
  for (int format = 0; format < 2; format++) {
    fn_field_writer *writer;
    must(fn_field_writer_create("kept.npy", format ? "x" : NULL, 1, 1, size, &writer));
    fn_field_writer_destroy(writer);
    assert_int_equal(files_here(), before);
    assert_int_equal(fn_field_writer_create("large", format ? "x" : NULL, 1, 2, huge, &writer),
                     FN_ERR_DATA);
    assert_non_null(strstr(fn_error_message(), "large"));
    assert_int_equal(files_here(), before);
    fn_error_clear();
  }
  fn_field *kept;
  float values[4];
  must(fn_field_open("kept.npy", false, &kept));
  must(fn_field_read(kept, 0, (int64_t[]){0}, size, values));
  assert_true(values[0] == 1 && values[3] == 4);
  fn_field_close(kept);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(planes_are_read_once),     cmocka_unit_test(slabs_that_do_not_pay),
      cmocka_unit_test(samples_are_the_same),     cmocka_unit_test(blocks_make_a_field),
      cmocka_unit_test(unwritten_cells_are_zero), cmocka_unit_test(uncommitted),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
