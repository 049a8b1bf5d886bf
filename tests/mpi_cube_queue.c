/* Cubes read ahead on several ranks: three paths, both layouts, errors that reach everybody. */
#include "cube_fixture.h"

#include <math.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/system.h"
#include "data/cube_queue.h"
#include "field/hdf5.h"
#include "mpi_test.h"

static char folder[64];

static const char *at(const char *name) {
  static char path[8][512];
  static int next;
  next = (next + 1) % 8;
  snprintf(path[next], sizeof path[next], "%s/%s", folder, name);
  return path[next];
}

/** Written by rank 0, opened by all from rank 0's metadata. */
static fn_cube_file *shared_file(const char *path, const cube_spec *spec) {
  fn_cube_file *file = NULL;
  void *bytes = NULL;
  int64_t size = 0;
  if (dist.rank == 0) {
    if (spec) write_cubes(path, spec);
    const fn_status status = fn_cube_file_open(path, &file);
    if (status != FN_OK) fail_msg("%s", fn_error_message());
    size_t count;
    assert_int_equal(fn_cube_file_pack(file, &bytes, &count), FN_OK);
    fn_cube_file_close(file);
    size = (int64_t)count;
  }
  assert_int_equal(fn_dist_broadcast(&dist, &size, sizeof size), FN_OK);
  if (dist.rank) bytes = malloc((size_t)size);
  assert_int_equal(fn_dist_broadcast(&dist, bytes, size), FN_OK);
  assert_int_equal(fn_cube_file_unpack(bytes, (size_t)size, &file), FN_OK);
  free(bytes);
  return file;
}

static const char *const paths[] = {"auto", "collective", "independent", "direct"};

static fn_cube_queue *start(fn_cube_file *file, fn_cube_path path, const int64_t *list,
                            int64_t count, int64_t resident) {
  const fn_cube_queue_options options = {.path = path, .resident = resident};
  fn_cube_queue *queue = NULL;
  const fn_status status = fn_cube_queue_create(file, dist.comm, list, count, &options, &queue);
  if (status != FN_OK) fail_msg("%s: %s", paths[path], fn_error_message());
  return queue;
}

/** Take every cube of the list and compare all cells; sum of wrong ones. */
static int64_t consume(fn_cube_file *file, const cube_spec *spec, fn_cube_queue *queue,
                       const int64_t *list, int64_t count) {
  const fn_cube_file_info *info = fn_cube_file_get_info(file);
  int64_t wrong = 0;
  for (int64_t i = 0; i < count; i++) {
    const void *cells;
    if (fn_cube_queue_get(queue, i, &cells) != FN_OK) fail_msg("%s", fn_error_message());
    const fn_cube *cube = &info->cube[list[i]];
    wrong += wrong_cells(spec, cube->seed, cube->theory, cells);
    fn_cube_queue_release(queue, i);
  }
  return wrong;
}

/** Uneven lists with repetitions, also near each other; the last rank has no cube when there are
 *  several. */
static int64_t make_list(int64_t cubes, int64_t *list) {
  const int64_t count = dist.size > 1 && dist.rank == dist.size - 1 ? 0 : 6 * dist.rank + 7;
  for (int64_t i = 0; i < count; i++)
    list[i] = (i * i * 3 + i / 4 + dist.rank * 3 + 1) % cubes;
  return count;
}

static const cube_spec specs[] = {
    {.seeds = 4, .size = {6, 5, 7}},
    {.seeds = 4, .size = {3, 9, 4}}, // fewer planes than ranks
    {.seeds = 4, .size = {6, 5, 7}, .chunk = {0, 4, 4, 4}, .gzip = 1},
    {.seeds = 4, .size = {6, 5, 7}, .packed = true, .backwards = true},
    {.seeds = 4, .size = {6, 5, 7}, .packed = true, .f64 = true},
    {.seeds = 4, .size = {6, 5, 7}, .packed = true, .chunk = {1, 2, 5, 7}},
    {.seeds = 4, .size = {6, 5, 7}, .packed = true, .chunk = {3, 4, 4, 4}, .gzip = 4},
};
enum { SPECS = sizeof specs / sizeof specs[0] };

/* Every path gives the same bytes from every layout; collective means what it says. */
static void all_paths_give_the_cells_that_were_written(void **state) {
  (void)state;
  for (int s = 0; s < SPECS; s++) {
    fn_cube_file *file = shared_file(at("paths.h5"), &specs[s]);
    const fn_cube_file_info *info = fn_cube_file_get_info(file);
    int64_t list[32];
    const int64_t count = make_list(info->cubes, list);
    for (int turn = 0; turn < 8; turn++) { // a small ring, and one that takes several at a time
      const fn_cube_path path = (fn_cube_path)(turn / 2);
      if (path == FN_CUBES_DIRECT && !info->direct) continue;
      fn_cube_queue *queue = start(file, path, list, count, turn % 2 ? 11 : 2);
      assert_int_equal(consume(file, &specs[s], queue, list, count), 0);
      fn_cube_queue_figures figures;
      fn_cube_queue_get_figures(queue, &figures);
      assert_int_equal(figures.cubes, count);
      assert_int_equal(figures.bytes, count * spec_cells(&specs[s]) * 4);
      if (path != FN_CUBES_AUTO) assert_int_equal(figures.path, path);
      assert_int_equal(fn_cube_queue_destroy(queue), FN_OK);
    }
    fn_cube_file_close(file);
    MPI_Barrier(dist.comm);
  }
}

/* HDF5 itself says that it read collectively: on every rank, also those that wanted nothing, in
 * every round, for every layout. */
static void collective_is_collective(void **state) {
  (void)state;
  for (int s = 0; s < SPECS; s++) {
    fn_cube_file *file = shared_file(at("collective.h5"), &specs[s]);
    const fn_cube_file_info *info = fn_cube_file_get_info(file);
    int64_t list[32], most, wanted;
    int64_t count = make_list(info->cubes, list);
    MPI_Allreduce(&count, &most, 1, MPI_INT64_T, MPI_MAX, dist.comm);
    MPI_Allreduce(&count, &wanted, 1, MPI_INT64_T, MPI_SUM, dist.comm);
    fn_cube_queue *queue = start(file, FN_CUBES_COLLECTIVE, list, count, 5);
    assert_int_equal(consume(file, &specs[s], queue, list, count), 0);
    assert_int_equal(fn_dist_agree(&dist, FN_OK), FN_OK);
    // Ranks without cubes count the last round a little later. Packed cubes in one piece are read
    // several at a time, by all ranks alike.
    const bool several = info->packed && info->direct;
    fn_cube_queue_figures figures;
    int64_t reads[2], range[2];
    for (int tries = 0; tries < 60000; tries++) {
      fn_cube_queue_get_figures(queue, &figures);
      reads[0] = figures.collective_reads + figures.independent_reads;
      reads[1] = -reads[0];
      MPI_Allreduce(reads, range, 2, MPI_INT64_T, MPI_MIN, dist.comm);
      if (range[0] == -range[1] && (several || range[0] >= (info->packed ? most : wanted))) break;
      usleep(1000);
    }
    if (figures.cause[0]) fail_msg("case %d: %s", s, figures.cause);
    assert_int_equal(figures.independent_reads, 0);
    assert_int_equal(range[0], -range[1]);
    if (several) {
      assert_true(figures.collective_reads >= (most + 15) / 16 && figures.collective_reads <= most);
    } else {
      assert_int_equal(figures.collective_reads, info->packed ? most : wanted);
    }
    fn_cube_queue_destroy(queue);
    fn_cube_file_close(file);
    MPI_Barrier(dist.comm);
  }
}

/* What cannot be read collectively is read all the same, counted, and its cause named: big-endian
 * numbers have to be converted. */
static void a_fall_back_is_told(void **state) {
  (void)state;
  const cube_spec spec = {.seeds = 2, .size = {4, 4, 4}, .packed = true};
  const char *path = at("swapped.h5");
  if (dist.rank == 0) {
    write_cubes(path, &spec);
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    const hsize_t dim[4] = {4, 4, 4, 4};
    const hid_t old = H5Dopen2(file, "cubes", H5P_DEFAULT), space = H5Screate_simple(4, dim, NULL);
    float cells[256];
    H5Dread(old, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, cells);
    H5Dclose(old);
    H5Ldelete(file, "cubes", H5P_DEFAULT);
    const hid_t set =
        H5Dcreate2(file, "cubes", H5T_IEEE_F32BE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, cells);
    H5Dclose(set);
    H5Sclose(space);
    H5Fclose(file);
  }
  fn_cube_file *file = shared_file(path, NULL);
  assert_false(fn_cube_file_get_info(file)->direct);
  const int64_t list[2] = {dist.rank % 4, 3 - dist.rank % 4};
  fn_cube_queue *queue = start(file, FN_CUBES_COLLECTIVE, list, 2, 2);
  assert_int_equal(consume(file, &spec, queue, list, 2), 0);
  fn_cube_queue_figures figures;
  fn_cube_queue_get_figures(queue, &figures);
  assert_int_equal(figures.collective_reads, 0);
  assert_in_range(figures.independent_reads, 1, 2);
  assert_non_null(strstr(figures.cause, "converted"));
  fn_cube_queue_destroy(queue);
  fn_cube_file_close(file);
}

static void the_choice_and_its_reason(void **state) {
  (void)state;
  fn_cube_file_info info = {.packed = true, .direct = true};
  const char *reason = NULL;
  assert_int_equal(fn_cube_path_choose(&info, 4, true, &reason), FN_CUBES_COLLECTIVE);
  assert_non_null(reason);
  assert_int_equal(fn_cube_path_choose(&info, 1, true, &reason), FN_CUBES_DIRECT);
  assert_int_equal(fn_cube_path_choose(&info, 4, false, &reason), FN_CUBES_DIRECT);
  assert_non_null(strstr(reason, "MPI_THREAD_MULTIPLE"));
  info.direct = false;
  assert_int_equal(fn_cube_path_choose(&info, 4, false, &reason), FN_CUBES_INDEPENDENT);
  assert_int_equal(fn_cube_path_choose(&info, 1, true, &reason), FN_CUBES_INDEPENDENT);
  info.packed = false;
  assert_int_equal(fn_cube_path_choose(&info, 4, true, &reason), FN_CUBES_INDEPENDENT);
  info.direct = true;
  assert_int_equal(fn_cube_path_choose(&info, 4, true, &reason), FN_CUBES_DIRECT);
}

static void direct_is_refused_where_it_cannot_be(void **state) {
  (void)state;
  fn_cube_file *file = shared_file(at("refused.h5"), &specs[6]);
  const fn_cube_queue_options options = {.path = FN_CUBES_DIRECT, .resident = 2};
  fn_cube_queue *queue = NULL;
  const int64_t list[1] = {0};
  assert_int_equal(fn_cube_queue_create(file, dist.comm, list, 1, &options, &queue), FN_ERR_CONFIG);
  assert_null(queue);
  assert_non_null(strstr(fn_error_message(), "shuffle+gzip"));
  fn_cube_file_close(file);
}

/* ---- order, release, destruction ---------------------------------------------------------------
 */

static void twice(void *user, int64_t position, int64_t cube, void *cells) {
  int64_t *seen = user;
  assert_int_equal((position + dist.rank) % 8, cube);
  seen[cube]++;
  for (int i = 0; i < 6 * 5 * 7; i++)
    ((float *)cells)[i] *= 2;
}

/* The callback sees each cube once before the consumer; cubes stay while others are released out of
 * order; no more than `resident` are there at once. */
static void cubes_stay_until_released(void **state) {
  (void)state;
  fn_cube_file *file = shared_file(at("stay.h5"), &specs[3]);
  int64_t seen[8] = {0}, list[8];
  for (int i = 0; i < 8; i++)
    list[i] = (i + dist.rank) % 8;
  const fn_cube_queue_options options = {.resident = 3, .prepare = twice, .user = seen};
  fn_cube_queue *queue = NULL;
  assert_int_equal(fn_cube_queue_create(file, dist.comm, list, 8, &options, &queue), FN_OK);
  const void *first, *cells;
  assert_int_equal(fn_cube_queue_get(queue, 0, &first), FN_OK);
  const fn_cube *cube = &fn_cube_file_get_info(file)->cube[list[0]];
  const float value = 2 * cell_value(cube->seed, cube->theory, 5);
  for (int i = 1; i < 8; i++) { // position 0 stays, two others take turns
    assert_int_equal(fn_cube_queue_get(queue, i, &cells), FN_OK);
    assert_true(cells != first && ((const float *)first)[5] == value);
    const fn_cube *other = &fn_cube_file_get_info(file)->cube[list[i]];
    assert_true(((const float *)cells)[9] == 2 * cell_value(other->seed, other->theory, 9));
    fn_cube_queue_release(queue, i);
  }
  assert_int_equal(fn_cube_queue_get(queue, 3, &cells), FN_ERR_INTERNAL); // released
  assert_int_equal(fn_cube_queue_get(queue, 8, &cells), FN_ERR_INTERNAL);
  fn_cube_queue_release(queue, 0);
  fn_cube_queue_destroy(queue);
  for (int i = 0; i < 8; i++)
    assert_int_equal(seen[i], 1);
  fn_cube_file_close(file);
}

/* Ranks stop at different places of an epoch, with full rings, and one of them much later. */
static void destroyed_in_the_middle(void **state) {
  (void)state;
  for (int s = 0; s < SPECS; s += 3) {
    fn_cube_file *file = shared_file(at("middle.h5"), &specs[s]);
    const fn_cube_file_info *info = fn_cube_file_get_info(file);
    for (fn_cube_path path = FN_CUBES_COLLECTIVE; path <= FN_CUBES_DIRECT; path++) {
      if (path == FN_CUBES_DIRECT && !info->direct) continue;
      int64_t list[400];
      for (int i = 0; i < 400; i++)
        list[i] = (i * 3 + dist.rank) % info->cubes;
      for (int taken = 0; taken < 6; taken += 5) {
        fn_cube_queue *queue = start(file, path, list, 400, 2);
        // The last rank needs more than the others, who are at destroy by then.
        const int64_t count = dist.rank == dist.size - 1 ? taken + 4 : taken;
        assert_int_equal(consume(file, &specs[s], queue, list, count), 0);
        assert_int_equal(fn_cube_queue_destroy(queue), FN_OK);
      }
    }
    fn_cube_file_close(file);
    MPI_Barrier(dist.comm);
  }
}

/* Two queues at once, and the main threads busy with HDF5: locks are taken in an order. */
static void two_queues_and_a_writer(void **state) {
  (void)state;
  fn_cube_file *file[2];
  file[0] = shared_file(at("two.h5"), &specs[3]);
  file[1] = shared_file(at("three.h5"), &specs[0]);
  for (int repeat = 0; repeat < 5; repeat++) {
    int64_t list[40];
    for (int i = 0; i < 40; i++)
      list[i] = (i * 5 + dist.rank) % 8;
    fn_cube_queue *queue[2];
    for (int q = 0; q < 2; q++)
      queue[q] = start(file[q], FN_CUBES_COLLECTIVE, list, 40, 2);
    for (int i = 0; i < 40; i++) {
      for (int j = 0; j < 2; j++) { // ranks ask in different orders
        const int q = (i + j + dist.rank) % 2;
        const void *cells;
        assert_int_equal(fn_cube_queue_get(queue[q], i, &cells), FN_OK);
        const fn_cube *cube = &fn_cube_file_get_info(file[q])->cube[list[i]];
        assert_int_equal(wrong_cells(&specs[q ? 0 : 3], cube->seed, cube->theory, cells), 0);
        fn_cube_queue_release(queue[q], i);
      }
      if (i % 8 == 0 && dist.rank == 0) { // a state is written, the others wait for the next step
        fn_hdf5_lock();
        usleep(2000);
        fn_hdf5_unlock();
      }
      if (i % 8 == 0) MPI_Barrier(dist.comm);
    }
    for (int q = 0; q < 2; q++)
      fn_cube_queue_destroy(queue[q]);
  }
  for (int q = 0; q < 2; q++)
    fn_cube_file_close(file[q]);
}

/* ---- failures ----------------------------------------------------------------------------------
 */

/** Take cubes until one fails; its position. */
static int64_t consume_until_failure(fn_cube_queue *queue, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    const void *cells;
    const fn_status status = fn_cube_queue_get(queue, i, &cells);
    if (status != FN_OK) {
      assert_int_equal(status, FN_ERR_DATA);
      return i;
    }
    fn_cube_queue_release(queue, i);
  }
  return -1;
}

/** All ranks have the same message, and it holds `part`. */
static void same_message(const char *part) {
  char mine[1024] = "", first[1024];
  snprintf(mine, sizeof mine, "%s", fn_error_message());
  memcpy(first, mine, sizeof mine);
  fn_dist_broadcast(&dist, first, sizeof first);
  assert_string_equal(mine, first);
  if (!strstr(mine, part)) fail_msg("'%s' expected in: %s", part, mine);
}

/* One rank reads a cube with a NaN in its third round: everybody hears of it, at the same round. */
static void one_bad_cube_is_everybodys_error(void **state) {
  (void)state;
  for (int s = 0; s < SPECS; s++) {
    if (dist.rank == 0) {
      write_cubes(at("nan.h5"), &specs[s]);
      spoil_cell(at("nan.h5"), specs[s].packed ? "cubes" : "newton_seed0005",
                 specs[s].backwards ? 2 : 5, 17, NAN);
    }
    fn_cube_file *file = shared_file(at("nan.h5"), NULL);
    const fn_cube_file_info *info = fn_cube_file_get_info(file);
    const int64_t bad = fn_cube_file_find(file, 5, FN_NEWTON);
    for (fn_cube_path path = FN_CUBES_COLLECTIVE; path <= FN_CUBES_DIRECT; path++) {
      if (path == FN_CUBES_DIRECT && !info->direct) continue;
      int64_t list[30];
      for (int i = 0; i < 30; i++)
        list[i] = i == 2 && dist.rank == dist.size - 1 ? bad : (bad + 1 + i % 4) % info->cubes;
      fn_cube_queue *queue = start(file, path, list, 30, 2);
      // Cubes of the round in which it failed are nobody's; the first may be in a round before it.
      const int64_t failed = consume_until_failure(queue, 30);
      assert_in_range(failed, 0, 2);
      same_message("cube newton_seed0005 is not finite: cell [");
      same_message("nan.h5");
      char rank[64];
      snprintf(rank, sizeof rank, "rank %d on %s: ", dist.size - 1, fn_host_name());
      if (dist.size > 1) same_message(rank);
      fn_cube_queue_destroy(queue);
    }
    fn_cube_file_close(file);
    MPI_Barrier(dist.comm);
  }
}

/* The file shrinks while it is read. */
static void a_file_cut_while_it_is_read(void **state) {
  (void)state;
  const cube_spec large[2] = {{.seeds = 8, .size = {32, 16, 16}},
                              {.seeds = 8, .size = {32, 16, 16}, .packed = true}};
  for (int s = 0; s < 2; s++) {
    for (fn_cube_path path = FN_CUBES_COLLECTIVE; path <= FN_CUBES_DIRECT; path++) {
      fn_cube_file *file = shared_file(at("cut.h5"), &large[s]);
      int64_t list[600];
      for (int i = 0; i < 600; i++)
        list[i] = (15 - i % 16 + dist.rank) % 16;
      fn_cube_queue *queue = start(file, path, list, 600, 2);
      const void *cells;
      assert_int_equal(fn_cube_queue_get(queue, 0, &cells), FN_OK);
      fn_cube_queue_release(queue, 0);
      MPI_Barrier(dist.comm);
      if (dist.rank == 0) assert_int_equal(truncate(at("cut.h5"), 20000), 0);
      MPI_Barrier(dist.comm);
      for (int i = 1; i < 600; i++) {
        if (fn_cube_queue_get(queue, i, &cells) != FN_OK) break;
        assert_true(i < 599);
        fn_cube_queue_release(queue, i);
      }
      same_message("truncated while open");
      same_message("cut.h5");
      fn_cube_queue_destroy(queue);
      fn_cube_file_close(file);
      MPI_Barrier(dist.comm);
    }
  }
}

/* Gone before it is opened for reading, and where a folder should be is a file. */
static void a_file_that_cannot_be_opened(void **state) {
  (void)state;
  for (fn_cube_path path = FN_CUBES_COLLECTIVE; path <= FN_CUBES_DIRECT; path++) {
    fn_cube_file *file = shared_file(at("gone.h5"), &specs[3]);
    MPI_Barrier(dist.comm);
    if (dist.rank == 0) unlink(at("gone.h5"));
    MPI_Barrier(dist.comm);
    const fn_cube_queue_options options = {.path = path, .resident = 2};
    fn_cube_queue *queue = NULL;
    const int64_t list[2] = {0, 1};
    fn_status status = fn_cube_queue_create(file, dist.comm, list, 2, &options, &queue);
    if (status == FN_OK) {
      const void *cells;
      status = fn_cube_queue_get(queue, 0, &cells);
    }
    assert_int_equal(status, FN_ERR_DATA);
    same_message("gone.h5: No such file");
    fn_cube_queue_destroy(queue);
    fn_cube_file_close(file);
    MPI_Barrier(dist.comm);
  }
}

/* ---- memory ------------------------------------------------------------------------------------
 */

/* 48 cubes of 2 MB go through a ring of 3: what is resident does not grow with what is read. */
static void memory_stays_in_its_budget(void **state) {
  (void)state;
  const cube_spec spec = {.seeds = 24, .size = {128, 64, 64}, .packed = true};
  fn_cube_file *file = shared_file(at("large.h5"), &spec);
  const double budget = 3 * 2e6 * 1.1;
  for (fn_cube_path path = FN_CUBES_COLLECTIVE; path <= FN_CUBES_DIRECT; path++) {
    int64_t list[48];
    for (int i = 0; i < 48; i++)
      list[i] = (i * 5 + dist.rank * 11) % 48;
    const double before = (double)fn_memory_now();
    fn_cube_queue *queue = start(file, path, list, 48, 3);
    double most = 0, early = 0;
    for (int64_t i = 0; i < 48; i++) {
      const void *cells;
      assert_int_equal(fn_cube_queue_get(queue, i, &cells), FN_OK);
      const fn_cube *cube = &fn_cube_file_get_info(file)->cube[list[i]];
      assert_true(((const float *)cells)[123456] == cell_value(cube->seed, cube->theory, 123456));
      fn_cube_queue_release(queue, i);
      const double now = (double)fn_memory_now();
      most = now > most ? now : most;
      if (i == 8) early = most;
    }
    // Libraries take some room at their first use; 96 MB of cubes went through in the end.
    if (most - before > budget + 16e6 || most - early > 8e6)
      fail_msg("%s: resident %.1f MB before, %.1f MB early, %.1f MB at most", paths[path],
               1e-6 * before, 1e-6 * early, 1e-6 * most);
    fn_cube_queue_destroy(queue);
  }
  fn_cube_file_close(file);
}

int main(int argc, char **argv) {
  if (!join_job(&argc, &argv)) return 2;
  snprintf(folder, sizeof folder, "/tmp/fieldnet_queue_XXXXXX");
  if (dist.rank == 0 && !mkdtemp(folder)) return 2;
  fn_dist_broadcast(&dist, folder, sizeof folder);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_choice_and_its_reason),
      cmocka_unit_test(all_paths_give_the_cells_that_were_written),
      cmocka_unit_test(collective_is_collective),
      cmocka_unit_test(a_fall_back_is_told),
      cmocka_unit_test(direct_is_refused_where_it_cannot_be),
      cmocka_unit_test(cubes_stay_until_released),
      cmocka_unit_test(destroyed_in_the_middle),
      cmocka_unit_test(two_queues_and_a_writer),
      cmocka_unit_test(one_bad_cube_is_everybodys_error),
      cmocka_unit_test(a_file_cut_while_it_is_read),
      cmocka_unit_test(a_file_that_cannot_be_opened),
      cmocka_unit_test(memory_stays_in_its_budget),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  MPI_Barrier(dist.comm);
  if (dist.rank == 0) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    failed += system(command) != 0;
  }
  fn_dist_finalize(&dist);
  return failed;
}
