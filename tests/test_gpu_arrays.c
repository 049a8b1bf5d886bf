/* Kernels of a device outside of programs, on the host executor with several grids and orders of
 * threads: the end of a step (norm, judge, optimizer, sums, roundings to bf16), and inputs made of
 * what files hold.
 */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "gpu_host.h"

#include "backend/gpu/flat.h"
#include "backend/gpu/strides.h"
#include "backend/update.h"
#include "base/random.h"
#include "data/parts.h"

/* ---- arrays
 * -------------------------------------------------------------------------- */

enum { GUARDS = 8 };

/** count floats with guards behind, `shift` elements from an aligned address. */
static float *guarded(int64_t count, int shift, float **memory) {
  *memory = aligned_alloc(64, (size_t)(count + shift + GUARDS + 16) / 16 * 64);
  for (int64_t i = 0; i < count + shift + GUARDS; i++)
    (*memory)[i] = -12345;
  return *memory + shift;
}

static void check_guards(const float *x, int64_t count) {
  for (int i = 0; i < GUARDS; i++)
    assert_true(x[count + i] == -12345);
}

/** A pass that only copies leaves the sign of zero. */
static void negative_zeros(void **state) {
  (void)state;
  for (int width = 1; width <= 4; width += 3) {
    float values[8] = {-0.0f, 0.0f, 1, -0.0f, -2, 0.0f, -0.0f, -0.0f}, bits[8];
    memcpy(bits, values, sizeof bits);
    const fn_cells cells = {values, FN_F32, 4, 4};
    const fn_finish_args args = {.x = cells,
                                 .y = cells,
                                 .slope = 1,
                                 .width = width,
                                 .count = 8 / width,
                                 .channels = fn_gpu_divider(4 / width),
                                 .cells = fn_gpu_divider(1)};
    require(fn_gpu_launch(&platform, finish, 1, &args));
    assert_memory_equal(values, bits, sizeof bits);
  }
}

static void scaled_sums(void **state) {
  (void)state;
  const int64_t counts[] = {1, 3, 4, 257, 4099};
  for (int k = 0; k < 5; k++)
    for (int shift = 0; shift < 2; shift++)
      for (int blocks = 1; blocks < 6; blocks += 4) {
        const int64_t count = counts[k];
        float *memory[2], *sum = guarded(count, shift, &memory[0]);
        float *x = guarded(count, 0, &memory[1]);
        for (int64_t i = 0; i < count; i++) {
          sum[i] = (float)(i % 7) - 3;
          x[i] = (float)(i % 11);
        }
        fn_add_scaled_args args = fn_gpu_add_scaled_args(sum, x, 0.5f, 2, count);
        forced_blocks = blocks;
        require(fn_gpu_launch(&platform, add_scaled, 1, &args));
        forced_blocks = 0;
        for (int64_t i = 0; i < count; i++)
          assert_true(sum[i] == 0.5f * ((float)(i % 7) - 3) + 2 * (float)(i % 11));
        sum[0] = NAN; // what is dropped is not read
        args.keep = 0;
        require(fn_gpu_launch(&platform, add_scaled, 1, &args));
        assert_true(sum[0] == 0);
        check_guards(sum, count);
        free(memory[0]);
        free(memory[1]);
      }
}

/* A table of facts, in shuffled orders of threads; the last gradient that is not finite is found.
 */
static void judgements(void **state) {
  (void)state;
  enum { COUNT = 1000, STEP_COUNT = 7 };
  const struct {
    float loss, gradient; // of element 700; 300 has it too
    bool has_loss, bad, lowers;
    double clip, loss_scale;
    fn_step_verdict verdict;
    float scale;
    int64_t place;
  } step[STEP_COUNT] = {
      {1, 2, true, false, false, 0, 1, FN_STEP_TAKEN, 1, -1},
      {1, 2, true, false, true, 0, 4, FN_STEP_TAKEN, 0.25f, -1},
      {1, 2, false, true, true, 0, 1, FN_STEP_BAD, 1, -1},
      {NAN, 2, true, false, true, 0, 1, FN_STEP_BAD, 1, -1},
      {1, INFINITY, true, false, true, 0, 1, FN_STEP_LEFT_OUT, 1, -1},
      {1, -INFINITY, true, false, false, 0, 1, FN_STEP_BAD, 1, 700},
      {INFINITY, NAN, true, false, true, 0, 1, FN_STEP_BAD, 1, 700},
  };
  float gradient[COUNT] = {0}, sum[2] = {3, 4}, x[2] = {1, -0.0f};
  for (int i = 0; i < STEP_COUNT; i++) {
    const double g = (double)(gradient[300] = gradient[700] = step[i].gradient);
    fn_judgement judgement = {.squares = {2 * g * g}, .bad = 5};
    const fn_step_facts facts = {step[i].has_loss ? &step[i].loss : NULL,
                                 step[i].bad,
                                 step[i].lowers,
                                 step[i].clip,
                                 step[i].loss_scale,
                                 {10, 11, 12}};
    const fn_judge_args args = {&facts, gradient, COUNT, &judgement};
    fn_gpu_executor_shuffle((uint64_t)i);
    require(fn_gpu_launch(&platform, judge, 1, &args));
    fn_gpu_executor_shuffle(0);
    assert_int_equal(judgement.verdict, step[i].verdict);
    assert_int_equal(judgement.bad, step[i].place);
    assert_true(judgement.next_scale == 10 + (float)step[i].verdict);
    if (step[i].verdict == FN_STEP_TAKEN) {
      assert_true(judgement.norm == sqrt(8) / step[i].loss_scale);
      assert_true(judgement.scale == step[i].scale && judgement.loss == 1);
    }
    fn_scale_args copy = fn_gpu_scale_args(sum, FN_F32, x, FN_F32, 1, 2);
    copy.judgement = &judgement, copy.verdict = FN_STEP_BAD;
    const bool copied = step[i].verdict == FN_STEP_BAD;
    require(fn_gpu_launch(&platform, scale, 1, &copy));
    assert_true(sum[0] == (copied ? 1 : 3) && (signbit(sum[1]) != 0) == copied);
    sum[0] = 3, sum[1] = 4;
  }
}

/* To bfloat16 and back, aligned and not: rounded to nearest even, weighted before, nothing beyond
 * the end; with weight 0 zero of anything. */
static void bf16_and_back(void **state) {
  (void)state;
  const int64_t counts[] = {1, 3, 4, 257, 4099};
  for (int k = 0; k < 5; k++)
    for (int shift = 0; shift < 2; shift++)
      for (int blocks = 1; blocks < 6; blocks += 4) {
        const int64_t count = counts[k];
        float *memory[3], *x = guarded(count, 0, &memory[0]);
        float *back = guarded(count, shift, &memory[1]);
        uint16_t *narrow = (uint16_t *)guarded(count / 2 + 1, 0, &memory[2]) + shift;
        for (int64_t i = 0; i < count; i++)
          x[i] = (float)(i - 100) * 1.37f;
        x[0] = 2 + 0x1p-7f; // half of it lies between two and becomes the even one
        forced_blocks = blocks;
        fn_scale_args to = fn_gpu_scale_args(narrow, FN_BF16, x, FN_F32, 0.5f, count);
        require(fn_gpu_launch(&platform, scale, 1, &to));
        fn_scale_args from = fn_gpu_scale_args(back, FN_F32, narrow, FN_BF16, 1, count);
        require(fn_gpu_launch(&platform, scale, 1, &from));
        assert_true(back[0] == 1);
        for (int64_t i = 0; i < count; i++)
          assert_true(back[i] == fn_bf16_to_f32(fn_bf16_from_f32(0.5f * x[i])) &&
                      fabsf(back[i] - 0.5f * x[i]) <= 0x1p-8f * fabsf(0.5f * x[i]));
        x[0] = NAN;
        to.factor = 0;
        require(fn_gpu_launch(&platform, scale, 1, &to));
        forced_blocks = 0;
        for (int64_t i = 0; i < count; i++)
          assert_true(narrow[i] == 0);
        check_guards(x, count);
        check_guards(back, count);
        for (int g = 0; g < 3; g++)
          free(memory[g]);
      }
}

static double squares(const float *x, int64_t count) {
  double *partial = malloc(FN_SQUARES_BLOCKS * sizeof *partial), result = NAN;
  const int64_t blocks = fn_gpu_squares_blocks(count);
  const fn_sum_squares_args args = fn_gpu_sum_squares_args(x, count, partial);
  const fn_sum_squares_finish_args finish = fn_gpu_sum_squares_finish_args(count, partial, &result);
  require(fn_gpu_launch(&platform, sum_squares, blocks, &args));
  require(fn_gpu_launch(&platform, sum_squares_finish, 1, &finish));
  free(partial);
  return result;
}

/** Right, and the same bits wherever the array lies and whoever comes first. */
static void sums_of_squares(void **state) {
  (void)state;
  const int64_t counts[] = {1, 5, 1023, 100003, 1 << 20};
  for (int k = 0; k < 5; k++) {
    const int64_t count = counts[k];
    float *memory, *x = guarded(count + 1, 0, &memory);
    fn_random random = fn_random_stream(3, FN_RANDOM_TEST, 0, 0);
    double exact = 0;
    for (int64_t i = 0; i < count; i++) {
      x[i] = (float)fn_random_normal(&random);
      exact += (double)x[i] * (double)x[i];
    }
    const double found = squares(x, count);
    assert_near(found, exact, 1e-12 * exact);
    fn_gpu_executor_shuffle(99);
    assert_true(squares(x, count) == found);
    fn_gpu_executor_shuffle(0);
    memmove(x + 1, x, (size_t)count * sizeof *x);
    assert_true(squares(x + 1, count) == found);
    free(memory);
  }
}

/** Every element exactly once, whatever the rule. */
static void optimizer_steps(void **state) {
  (void)state;
  enum { COUNT = 3001 };
  for (int rule = FN_UPDATE_SGD; rule <= FN_UPDATE_ADAGRAD; rule++)
    for (int flags = 0; flags < 4; flags++) {
      float *memory[10], *array[2][5];
      for (int i = 0; i < 10; i++) {
        float *x = guarded(COUNT, i % 3, &memory[i]);
        array[i / 5][i % 5] = x;
        for (int64_t e = 0; e < COUNT; e++)
          x[e] = 0.5f + (float)((e * 7 + i % 5) % 13) / 13;
      }
      fn_update u[2];
      const fn_update_factors by = {0.5f, 0.01f, 0.99f, 0.1f, 0.05f, 0.9f, 0.8f};
      for (int k = 0; k < 2; k++)
        u[k] = (fn_update){.rule = (fn_update_rule)rule,
                           .count = COUNT,
                           .weight = array[k][0],
                           .gradient = array[k][1],
                           .state = {array[k][2], array[k][3], array[k][4]},
                           .by = by,
                           .eps = 1e-8f,
                           .blend1 = 0.1f,
                           .keep2 = 0.99f,
                           .blend2 = 0.01f,
                           .momentum = 0.9f,
                           .nesterov = flags & 1,
                           .centered = flags & 1,
                           .amsgrad = flags & 1,
                           .has_buffer = flags & 2};
      forced_blocks = flags & 1 ? 1 : 5;
      if (flags & 2) u[0].by = (fn_update_factors){0}, u[0].factors = &by; // as if recorded
      require(fn_gpu_launch(&platform, update, 1, &u[0]));
      forced_blocks = 0;
      for (int64_t e = 0; e < COUNT; e++)
        fn_update_element(&u[1], &u[1], e);
      assert_true(array[0][0][5] != 0.5f + (float)(35 % 13) / 13);
      for (int i = 0; i < 5; i++) {
        for (int64_t e = 0; e < COUNT; e++)
          if (!isnan(array[0][i][e]) || !isnan(array[1][i][e])) // a variance may be negative
            assert_near((double)array[0][i][e], (double)array[1][i][e],
                        1e-6 * fabs((double)array[1][i][e]));
        check_guards(array[0][i], COUNT);
      }
      for (int i = 0; i < 10; i++)
        free(memory[i]);
    }
}

/* ---- inputs
 * --------------------------------------------------------------------------------------- */

/** `values` small whole numbers as the given type. */
static void *make_raw(fn_raw_type type, int64_t count, float *values) {
  unsigned char *raw = malloc((size_t)count * fn_raw_bytes(type));
  const bool is_unsigned =
      type == FN_RAW_U8 || type == FN_RAW_U16 || type == FN_RAW_U32 || type == FN_RAW_U64;
  for (int64_t i = 0; i < count; i++) {
    const int number = (int)((i * 37) % 101) - (is_unsigned ? 0 : 50);
    values[i] = (float)number;
    switch (type) {
      case FN_RAW_F32: ((float *)(void *)raw)[i] = (float)number; break;
      case FN_RAW_F64: ((double *)(void *)raw)[i] = number; break;
      case FN_RAW_F16: ((uint16_t *)(void *)raw)[i] = fn_to_f16((float)number); break;
      case FN_RAW_U8: raw[i] = (uint8_t)number; break;
      case FN_RAW_I16: ((int16_t *)(void *)raw)[i] = (int16_t)number; break;
      case FN_RAW_I32: ((int32_t *)(void *)raw)[i] = number; break;
      case FN_RAW_BF16: ((uint16_t *)(void *)raw)[i] = fn_bf16_from_f32((float)number); break;
      case FN_RAW_I8: ((int8_t *)(void *)raw)[i] = (int8_t)number; break;
      case FN_RAW_U16: ((uint16_t *)(void *)raw)[i] = (uint16_t)number; break;
      case FN_RAW_U32: ((uint32_t *)(void *)raw)[i] = (uint32_t)number; break;
      case FN_RAW_I64: ((int64_t *)(void *)raw)[i] = number; break;
      case FN_RAW_U64: ((uint64_t *)(void *)raw)[i] = (uint64_t)number; break;
      default: fail();
    }
  }
  return raw;
}

/** One field of a sample as src/data makes it, against the kernel's, bit for bit. */
static void check_input(fn_raw_type type, const fn_augmentation *augmentation, int spatial,
                        int64_t channels, bool vector, bool last) {
  const int64_t extent[] = {5, 4, 6};
  fn_shape shape = {spatial + 2, {2, channels + 3}};
  int64_t cells = 1;
  for (int a = 0; a < spatial; a++) {
    shape.dim[2 + a] = extent[augmentation->permutation[a]];
    cells *= extent[a];
  }
  float *values = malloc((size_t)(channels * cells) * sizeof *values);
  float *expected = malloc((size_t)(channels * cells) * sizeof *expected);
  void *raw = make_raw(type, channels * cells, values);
  const double factor = 1 / 7.3;
  float add[80], mul[80];
  for (int64_t i = 0; i < channels * cells; i++)
    values[i] = (float)((double)values[i] * factor);
  fn_augmentation_apply(augmentation, spatial, channels, extent, vector, values, expected);
  for (int64_t c = 0; c < channels; c++) {
    add[c] = 0.01f * (float)c;
    mul[c] = 1 + 0.03f * (float)c;
    for (int64_t i = 0; i < cells; i++) {
      expected[c * cells + i] += add[c];
      expected[c * cells + i] *= mul[c];
    }
  }
  held y;
  held_make(&y, &shape, FN_F32, last ? shape.dim[1] : 1, true);
  fn_raw_field from = {.data = raw,
                       .type = type,
                       .spatial = spatial,
                       .channels = channels,
                       .vector = vector,
                       .factor = factor,
                       .add = add,
                       .mul = mul,
                       .factors = (int)channels};
  for (int d = 0; d < spatial; d++) {
    from.extent[d] = extent[d];
    from.permutation[d] = augmentation->permutation[d];
    from.flip[d] = augmentation->flip[d];
  }
  for (int64_t first = 0; first < channels; first += FN_CONVERT_CHANNELS) {
    fn_convert_args args;
    require(fn_gpu_convert_args(&from, first, &y.tensor, 1, 2, &args));
    require(fn_gpu_launch(&platform, convert, fn_gpu_flat_blocks(args.count), &args));
  }
  for (int64_t n = 0; n < 2; n++)
    for (int64_t c = 0; c < channels + 3; c++)
      for (int64_t i = 0; i < cells; i++) {
        const double found = held_get(&y.tensor, held_offset(&y.tensor, n, c, i));
        const bool own = n == 1 && c >= 2 && c < channels + 2;
        if (own)
          assert_true(found == (double)expected[(c - 2) * cells + i]);
        else
          assert_true(isnan(found)); // other rows and channels are others' affair
      }
  free(y.tensor.data);
  free(raw);
  free(values);
  free(expected);
}

/* Three samples of one kernel, each with its own turn, shift and factor, as one by one without. */
static void inputs_of_their_own(void **state) {
  (void)state;
  enum { CHANNELS = 2, CELLS = 25, SAMPLES = 3, STEP = 128 }; // 2 x 25 numbers, then their own
  static const struct {
    int permutation[2];
    bool flip[2];
    double shift;
    float mul;
  } how[SAMPLES] = {{{0, 1}, {true, false}, -0.25, 1},
                    {{1, 0}, {false, true}, -0.0, 0.9f},
                    {{1, 0}, {true, true}, 1.0 / 3, 0}};
  const fn_shape shape = {4, {SAMPLES, CHANNELS, 5, 5}};
  _Alignas(16) uint16_t raw[SAMPLES * STEP];
  for (int n = 0; n < SAMPLES; n++) {
    uint16_t *row = raw + n * STEP;
    for (int i = 0; i < CHANNELS * CELLS; i++)
      row[i] = fn_bf16_from_f32((float)(n * 100 + i) - 60);
    // Axis a of the sample is axis permutation[a] of the file, which may run backwards.
    fn_raw_own own = {.shift = how[n].shift, .mul = how[n].mul};
    for (int a = 0; a < 2; a++) {
      const int d = how[n].permutation[a];
      const int64_t stride = d == 0 ? 5 : 1;
      own.stride[1 + a] = how[n].flip[d] ? -stride : stride;
      if (how[n].flip[d]) own.start += 4 * stride;
    }
    memcpy(row + 64, &own, sizeof own);
  }
  fn_raw_field field = {.data = raw,
                        .type = FN_RAW_BF16,
                        .spatial = 2,
                        .channels = CHANNELS,
                        .extent = {5, 5},
                        .permutation = {0, 1},
                        .factor = 1,
                        .samples = SAMPLES,
                        .step = STEP,
                        .own = (const void *)(raw + 64)};
  assert_int_equal(fn_raw_own_bytes(&field), 2 * 2 * STEP + sizeof(fn_raw_own));
  for (int last = 0; last < 2; last++) {
    held y[2];
    fn_convert_args args;
    for (int way = 0; way < 2; way++)
      held_make(&y[way], &shape, FN_F32, last ? CHANNELS : 1, true);
    require(fn_gpu_convert_args(&field, 0, &y[0].tensor, 0, 0, &args));
    require(fn_gpu_launch(&platform, convert, fn_gpu_flat_blocks(args.count), &args));
    for (int n = 0; n < SAMPLES; n++) {
      fn_raw_field one = field;
      one.data = raw + n * STEP;
      one.own = NULL;
      one.samples = 0;
      one.shift = how[n].shift;
      one.mul = &how[n].mul;
      one.factors = 1;
      memcpy(one.permutation, how[n].permutation, sizeof how[n].permutation);
      memcpy(one.flip, how[n].flip, sizeof how[n].flip);
      require(fn_gpu_convert_args(&one, 0, &y[1].tensor, n, 0, &args));
      require(fn_gpu_launch(&platform, convert, fn_gpu_flat_blocks(args.count), &args));
    }
    for (int64_t n = 0; n < SAMPLES; n++)
      for (int64_t c = 0; c < CHANNELS; c++)
        for (int64_t i = 0; i < CELLS; i++) {
          const int64_t at = held_offset(&y[0].tensor, n, c, i);
          assert_true(held_get(&y[0].tensor, at) == held_get(&y[1].tensor, at));
        }
    for (int way = 0; way < 2; way++)
      free(y[way].tensor.data);
  }
}

/* Samples a row apart by one kernel, as one by one: rows 1 and 2 of four, three numbers between. */
static void several_inputs(void **state) {
  (void)state;
  enum { CHANNELS = 3, CELLS = 20, STEP = CHANNELS * CELLS + 3 };
  const fn_shape shape = {4, {4, CHANNELS + 1, 4, 5}};
  float raw[2 * STEP];
  for (int i = 0; i < 2 * STEP; i++)
    raw[i] = (float)i - 50;
  fn_raw_field field = {.data = raw,
                        .type = FN_RAW_F32,
                        .spatial = 2,
                        .channels = CHANNELS,
                        .extent = {5, 4},
                        .permutation = {1, 0},
                        .flip = {true, false},
                        .factor = 0.3,
                        .shift = -0.0,
                        .samples = 2,
                        .step = STEP};
  assert_int_equal(fn_raw_field_bytes(&field), (STEP + CHANNELS * CELLS) * sizeof(float));
  for (int last = 0; last < 2; last++) {
    held y[2];
    fn_convert_args args;
    for (int way = 0; way < 2; way++)
      held_make(&y[way], &shape, FN_F32, last ? CHANNELS + 1 : 1, true);
    require(fn_gpu_convert_args(&field, 0, &y[0].tensor, 1, 1, &args));
    require(fn_gpu_launch(&platform, convert, fn_gpu_flat_blocks(args.count), &args));
    for (int n = 0; n < 2; n++) {
      fn_raw_field one = field;
      one.data = raw + n * STEP;
      one.samples = 0;
      require(fn_gpu_convert_args(&one, 0, &y[1].tensor, 1 + n, 1, &args));
      require(fn_gpu_launch(&platform, convert, fn_gpu_flat_blocks(args.count), &args));
    }
    for (int64_t n = 0; n < 4; n++)
      for (int64_t c = 0; c <= CHANNELS; c++)
        for (int64_t i = 0; i < CELLS; i++) {
          const int64_t at = held_offset(&y[0].tensor, n, c, i);
          const double found = held_get(&y[0].tensor, at), wanted = held_get(&y[1].tensor, at);
          assert_int_equal(isnan(found), n == 0 || n == 3 || c == 0);
          assert_true(found == wanted || (isnan(found) && isnan(wanted)));
        }
    for (int way = 0; way < 2; way++)
      free(y[way].tensor.data);
  }
}

static void inputs(void **state) {
  (void)state;
  static const int order[][3] = {{0, 1, 2}, {1, 0, 2}, {2, 0, 1}, {2, 1, 0}};
  for (int type = FN_RAW_F32; type < FN_RAW_TYPES; type++)
    for (int kind = 0; kind < 4; kind++)
      for (int flips = 0; flips<8; flips += type> FN_RAW_F32 ? 3 : 1) {
        const int spatial = kind == 0 ? 1 : kind == 1 ? 2 : 3;
        fn_augmentation a = {.permutation = {order[kind][0], order[kind][1], order[kind][2]}};
        for (int d = 0; d < spatial; d++)
          a.flip[d] = flips >> d & 1;
        check_input((fn_raw_type)type, &a, spatial, spatial, true, flips & 1);
        check_input((fn_raw_type)type, &a, spatial, flips == 3 ? 70 : 4, false, kind & 1);
      }
}

/** Nobody else launches these. */
static void all_kernels_ran(void **state) {
  (void)state;
  int count = 0;
  for (int k = 0; k < fn_gpu_kernel_count(); k++) {
    if (!is_array_kernel(fn_gpu_kernel_at(k)->name)) continue;
    count++;
    if (!launched[k]) fail_msg("kernel %s has no test", fn_gpu_kernel_at(k)->name);
  }
  assert_int_equal(count, ARRAY_KERNELS);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(negative_zeros),
      cmocka_unit_test(scaled_sums),
      cmocka_unit_test(judgements),
      cmocka_unit_test(bf16_and_back),
      cmocka_unit_test(sums_of_squares),
      cmocka_unit_test(optimizer_steps),
      cmocka_unit_test(inputs),
      cmocka_unit_test(several_inputs),
      cmocka_unit_test(inputs_of_their_own),
      cmocka_unit_test(all_kernels_ran),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
