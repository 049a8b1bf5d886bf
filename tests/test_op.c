/* Every operator x backend x precision x {1D, 2D, 3D}.
 *
 *   test_op [test|tf32|grad|perf|support|tolerances] [part of a case's name [backend [precision]]]
 *
 * test compares every backend with the reference in double precision, tf32 the cuda backend where
 * TF32 is allowed (a process opens its device once), grad compares derivatives and
 * second derivatives with finite differences, perf times kernels, support prints what the backends
 * can do themselves. Without arguments: test and grad. A device that is lost fails one case: the
 * program starts again behind it. */
#include <math.h>
#include <omp.h>
#include <unistd.h>

#include "backend/backends.h"
#include "base/log.h"
#include "base/system.h"
#include "op_cases.h"
#include "op_gradient.h"
#include "op_run.h"
#include "op_tolerance.h"

/** A backend with a precision to be compared with the reference in double. */
typedef struct target {
  const char *backend;
  fn_dtype precision;
} target;

static const target targets[] = {
    {"reference", FN_F32}, {"reference", FN_BF16}, {"cpu", FN_F32},      {"cpu", FN_BF16},
    {"emulated", FN_F32},  {"emulated", FN_BF16},  {"emulated", FN_F16}, {"cuda", FN_F32},
    {"cuda", FN_BF16},     {"cuda", FN_F16}};
enum { TARGETS = sizeof targets / sizeof *targets };

/** What the command line asks for; NULL: all. */
static const char *only_backend, *only_precision;

/** The backend, or NULL when this build has none or this machine no device for it; says so once. */
static const fn_backend *usable(const target *t) {
  static const fn_backend *refused;
  const fn_backend *backend = NULL;
  fn_device *device;
  const fn_device_choice choice = {.node_size = 1,
                                   .deterministic = true,
                                   .tf32 = tolerate_tf32,
                                   .cache = getenv("FIELDNET_CACHE")};
  if (tolerate_tf32 && (strcmp(t->backend, "cuda") != 0 || t->precision != FN_F32)) return NULL;
  if (only_backend && strcmp(t->backend, only_backend) != 0) return NULL;
  if (only_precision && strcmp(fn_dtype_name(t->precision), only_precision) != 0) return NULL;
  if (fn_backend_find(t->backend, &backend) != FN_OK || backend->missing) return NULL;
  if (backend == refused) return NULL;
  if (!backend->device || backend->device(backend, &choice, &device) == FN_OK) return backend;
  printf("%s: %s\n", backend->name, fn_error_message());
  refused = backend;
  return NULL;
}

/* ---- test
 * ------------------------------------------------------------------------------------------ */

static void free_all(double **values, int count) {
  for (int i = 0; i < count; i++) {
    free(values[i]);
    values[i] = NULL;
  }
}

/** Run a case on given inputs; results in y. */
static fn_status run_instance(op_instance *t, double *const *x, double **y) {
  for (int i = 0; i < t->c->input_count; i++)
    if (!is_absent(t->c, i)) write_input(t, port_name('x', i), x[i]);
  FN_TRY(fn_program_run(t->program, &test_context));
  for (int o = 0; o < t->c->output_count; o++)
    y[o] = read_output(t, port_name('y', o));
  return FN_OK;
}

/** Small reference kernels lose more to threads than they win; other backends are run with as many
 *  as they get. */
static void use_threads(bool many) {
  static int given = 0;
  if (!given) given = omp_get_max_threads() < 4 ? omp_get_max_threads() : 4;
  omp_set_num_threads(many ? given : 1);
}

/** Worst error of all outputs in units of the tolerance. */
static fn_status compare(op_instance *exact, op_instance *t, const target *where, double *const *x,
                         double *excess) {
  double *ref[FN_MAX_PORTS] = {NULL}, *y[FN_MAX_PORTS] = {NULL};
  const op_case *c = t->c;
  const op_tolerance *row = find_tolerance(c);
  FN_CHECK(row, FN_ERR_INTERNAL, "no tolerance is called %s", c->tolerance);
  use_threads(false);
  fn_status status = run_instance(exact, x, ref);
  use_threads(strcmp(where->backend, "reference") != 0);
  if (status == FN_OK) status = run_instance(t, x, y);
  const double length = reduction_length(c, &t->output[0]->shape);
  *excess = 0;
  for (int o = 0; status == FN_OK && o < c->output_count; o++)
    *excess = fmax(*excess, worst_excess(row, &t->output[o]->shape, t->output[o]->dtype,
                                         t->precision, length, y[o], ref[o]));
  free_all(ref, c->output_count);
  free_all(y, c->output_count);
  return status;
}

static fn_status test_case(const op_case *c, const target *where, bool *own, double *excess) {
  op_instance exact = {0}, t = {0};
  double *x[FN_MAX_PORTS] = {NULL};
  for (int i = 0; i < c->input_count; i++)
    if (!is_absent(c, i)) x[i] = draw_input(c, i, where->precision);
  fn_status status = open_case(&exact, c, "reference", FN_F64, false);
  use_threads(strcmp(where->backend, "reference") != 0);
  if (status == FN_OK) status = open_case(&t, c, where->backend, where->precision, false);
  if (status == FN_OK) status = compare(&exact, &t, where, x, excess);
  if (status == FN_OK) *own = is_own(&t, usable(where));
  free_all(x, c->input_count);
  close_case(&exact);
  close_case(&t);
  return status;
}

static bool selected(const op_case *c, const char *filter) {
  return !filter || strstr(c->name, filter);
}

/** Where a test of all cases is: it goes on from there in a new process when a device was lost,
 *  which answers no call of this process again. */
typedef struct progress {
  int target, next, cases, owned, bad, failures, restarts;
  double worst;
  char worst_name[64];
} progress;

#define PROGRESS "%d %d %d %d %d %d %d %lg %63s"
static const char progress_name[] = "TEST_OP_PROGRESS";
enum { MOST_RESTARTS = 20 };
static char **arguments; // the program's

static progress read_progress(void) {
  progress p = {.worst_name = "none"};
  const char *text = getenv(progress_name);
  if (text)
    sscanf(text, PROGRESS, &p.target, &p.next, &p.cases, &p.owned, &p.bad, &p.failures, &p.restarts,
           &p.worst, p.worst_name);
  unsetenv(progress_name);
  return p;
}

static void start_again(progress *p) {
  char text[256];
  if (p->restarts++ == MOST_RESTARTS) return;
  snprintf(text, sizeof text, PROGRESS, p->target, p->next, p->cases, p->owned, p->bad, p->failures,
           p->restarts, p->worst, p->worst_name);
  setenv(progress_name, text, 1);
  printf("the device was lost: going on with the next case in a new process\n");
  execv("/proc/self/exe", arguments);
}

static void count_case(const op_case *c, const target *where, progress *p) {
  bool own = false;
  double excess = 0;
  const fn_status status = test_case(c, where, &own, &excess);
  p->cases++;
  p->owned += own;
  if (status != FN_OK || !(excess <= 1)) {
    printf("FAIL %s %s, %s: %s (error / tolerance %.3g)\n", where->backend,
           fn_dtype_name(where->precision), c->name,
           status != FN_OK ? fn_error_message() : "over tolerance", excess);
    p->bad++;
  }
  if (excess > p->worst) {
    p->worst = excess;
    snprintf(p->worst_name, sizeof p->worst_name, "%s", c->name);
    for (char *byte = p->worst_name; *byte; byte++)
      if (*byte == ' ') *byte = '_'; // a word of the progress
  }
  if (status == FN_ERR_DEVICE) start_again(p);
}

/** Returns the number of failures. */
static int mode_test(const op_suite *suite, const char *filter) {
  progress p = read_progress();
  for (; p.target < TARGETS; p.target++, p.next = 0) {
    const target *where = &targets[p.target];
    if (!usable(where)) continue;
    if (p.next == 0)
      p = (progress){p.target, .failures = p.failures, .restarts = p.restarts,
                     .worst_name = "none"};
    while (p.next < suite->count) {
      const op_case *c = &suite->item[p.next++];
      if (selected(c, filter)) count_case(c, where, &p);
    }
    printf("%-9s %-4s: %d cases, %d on own kernels, %d failed, worst error / tolerance %.3f (%s)\n",
           where->backend, fn_dtype_name(where->precision), p.cases, p.owned, p.bad, p.worst,
           p.worst_name);
    p.failures += p.bad;
  }
  return p.failures;
}

static int mode_tf32(const op_suite *suite, const char *filter) {
  tolerate_tf32 = true;
  return mode_test(suite, filter);
}

/** Every operator of the registry has a case in every number of dimensions. */
static int check_coverage(const op_suite *suite) {
  int missing = 0;
  for (int i = 0; i < fn_op_count(); i++)
    for (int d = 1; d <= FN_MAX_SPATIAL; d++) {
      bool found = false;
      for (int k = 0; !found && k < suite->count; k++)
        found = suite->item[k].op == fn_op_at(i) && suite->item[k].spatial == d;
      if (found) continue;
      printf("FAIL operator %s has no case in %dd\n", fn_op_at(i)->name, d);
      missing++;
    }
  return missing;
}

/* ---- grad
 * ------------------------------------------------------------------------------------------- */

static int mode_grad(const op_suite *suite, const char *filter) {
  int failures = 0, cases = 0;
  double worst = 0;
  use_threads(false);
  for (int i = 0; i < suite->count; i++) {
    const op_case *c = &suite->item[i];
    gradient_report report = {.worst = 0};
    if (!selected(c, filter) || c->flags & CASE_NO_GRADIENT || c->input_count == 0) continue;
    const fn_status status = check_gradient(c, &report);
    if (status != FN_OK || !(report.worst <= 1)) {
      printf("FAIL gradient, %s: %s (%s, error / tolerance %.3g)\n", c->name,
             status != FN_OK ? fn_error_message() : "differs from finite differences", report.where,
             report.worst);
      failures++;
    }
    worst = fmax(worst, report.worst);
    cases++;
  }
  printf("gradients: %d cases, %d failed, worst error / tolerance %.3f\n", cases, failures, worst);
  return failures;
}

/* ---- perf
 * ------------------------------------------------------------------------------------------- */

/** Add up the kernels of the operator under test. */
static fn_kernel_info total_of(const op_instance *t) {
  fn_kernel_info sum = {.op = t->c->op->name};
  for (int k = 0; k < fn_program_kernel_count(t->program); k++) {
    fn_kernel_info info;
    fn_program_kernel_info(t->program, k, &info);
    const fn_node *node = fn_program_kernel(t->program, k)->node;
    const bool cast = node->op == &fn_op_unary && ((fn_unary_attrs *)node->attrs)->kind == FN_CAST;
    if (strcmp(info.op, sum.op) != 0 || cast) continue; // casts only feed the operator
    sum.backend = info.backend;
    sum.flops += info.flops;
    sum.bytes += info.bytes;
    sum.seconds += info.seconds / (double)info.runs;
  }
  return sum;
}

static fn_status time_case(const op_case *c, const target *where) {
  op_instance t = {0};
  double *x[FN_MAX_PORTS] = {NULL};
  fn_status status = open_case(&t, c, where->backend, where->precision, true);
  for (int i = 0; status == FN_OK && i < c->input_count; i++) {
    if (is_absent(c, i)) continue;
    x[i] = draw_input(c, i, where->precision);
    write_input(&t, port_name('x', i), x[i]);
  }
  if (status == FN_OK)
    status = fn_program_run(t.program, &test_context); // not timed: pages, caches
  const double start = fn_clock();
  if (status == FN_OK) fn_program_profile_reset(t.program);
  for (int n = 0; status == FN_OK && (n == 0 || (n < 100 && fn_clock() - start < 0.2)); n++)
    status = fn_program_run(t.program, &test_context);
  if (status == FN_OK) {
    const fn_kernel_info info = total_of(&t);
    if (info.backend)
      printf("%-44s %-9s %-4s %-9s %10.3f ms %9.2f GFLOP/s %8.2f GB/s\n", c->name, where->backend,
             fn_dtype_name(where->precision), info.backend, 1e3 * info.seconds,
             1e-9 * info.flops / info.seconds, 1e-9 * info.bytes / info.seconds);
  }
  free_all(x, c->input_count);
  close_case(&t);
  return status;
}

static int mode_perf(const char *filter) {
  op_suite suite = {0};
  int failures = 0;
  for (int d = 1; d <= FN_MAX_SPATIAL; d++)
    add_perf_cases(&suite, d);
  printf("%-44s %-9s %-4s %-9s\n", "case", "backend", "type", "run by");
  for (int i = 0; i < suite.count; i++)
    for (int k = 0; k < TARGETS; k++) {
      const bool slow =
          strcmp(targets[k].backend, "reference") == 0 && targets[k].precision != FN_F32;
      if (!selected(&suite.item[i], filter) || !usable(&targets[k]) || slow) continue;
      if (time_case(&suite.item[i], &targets[k]) == FN_OK) continue;
      printf("FAIL %s: %s\n", suite.item[i].name, fn_error_message());
      failures++;
    }
  free(suite.item);
  return failures;
}

/* ---- support
 * ------------------------------------------------------------------------------------------ */

/** "all", "some" or "-": how many cases of an operator the backend has kernels for. */
static const char *support_of(const op_suite *suite, const fn_op *op, int d, const target *where) {
  int cases = 0, owned = 0;
  for (int i = 0; i < suite->count; i++) {
    const op_case *c = &suite->item[i];
    op_instance t = {0};
    if (c->op != op || c->spatial != d) continue;
    if (open_graph(&t, c, where->precision) == FN_OK) owned += is_own(&t, usable(where));
    cases++;
    close_case(&t);
  }
  return owned == 0 ? "-" : owned == cases ? "all" : "some";
}

static int mode_support(const op_suite *suite, const char *filter) {
  printf("%-18s", "operator");
  for (int k = 0; k < TARGETS; k++)
    if (usable(&targets[k]))
      printf(" %9s %-4s 1d/2d/3d", targets[k].backend, fn_dtype_name(targets[k].precision));
  printf("\n");
  for (int i = 0; i < fn_op_count(); i++) {
    const fn_op *op = fn_op_at(i);
    if (filter && !strstr(op->name, filter)) continue;
    printf("%-18s", op->name);
    for (int k = 0; k < TARGETS; k++) {
      if (!usable(&targets[k])) continue;
      printf("      ");
      for (int d = 1; d <= FN_MAX_SPATIAL; d++)
        printf(" %5s", support_of(suite, op, d, &targets[k]));
    }
    printf("\n");
  }
  return 0;
}

/* ---- tolerances
 * ------------------------------------------------------------------------------------------ */

static int mode_tolerances(void) {
  for (int i = 0; i < TOLERANCES; i++) {
    char line[512];
    tolerance_line(&tolerance_table[i], line, sizeof line);
    printf("%s\n", line);
  }
  return 0;
}

/** docs/tolerances.md shows the table that is used here. */
static int check_page(void) {
  const char *source = getenv("SOURCE_DIR");
  char path[4096];
  if (!source) {
    printf("docs/tolerances.md is not checked: SOURCE_DIR is not set\n");
    return 0;
  }
  snprintf(path, sizeof path, "%s/docs/tolerances.md", source);
  FILE *file = fopen(path, "r");
  if (!file) {
    printf("FAIL cannot read %s\n", path);
    return 1;
  }
  static char page[1 << 16];
  page[fread(page, 1, sizeof page - 1, file)] = '\0';
  fclose(file);
  int missing = 0;
  for (int i = 0; i < TOLERANCES; i++) {
    char line[512];
    tolerance_line(&tolerance_table[i], line, sizeof line);
    if (strstr(page, line)) continue;
    printf("FAIL %s lacks the line %s\n", path, line);
    missing++;
  }
  return missing;
}

/** Idle threads of small kernels must sleep, not spin: on a busy machine that is a factor of
 * twenty. OpenMP reads its variables when a program starts, so it is started again. */
static void start_again_passive(char **argv) {
  if (getenv("OMP_WAIT_POLICY")) return;
  setenv("OMP_WAIT_POLICY", "passive", 1);
  execv("/proc/self/exe", argv);
}

int main(int argc, char **argv) {
  start_again_passive(argv);
  setvbuf(stdout, NULL, _IOLBF, 0); // who ends this program sees what was found before
  arguments = argv;
  only_backend = argc > 3 ? argv[3] : NULL;
  only_precision = argc > 4 ? argv[4] : NULL;
  const char *mode = argc > 1 ? argv[1] : "";
  const char *filter = argc > 2 ? argv[2] : NULL;
  op_suite suite = {0};
  int failures = 0;
  for (int d = 1; d <= FN_MAX_SPATIAL; d++)
    add_all_cases(&suite, d);
  if (strcmp(mode, "") == 0)
    failures =
        check_coverage(&suite) + check_page() + mode_test(&suite, NULL) + mode_grad(&suite, NULL);
  else if (strcmp(mode, "test") == 0)
    failures = mode_test(&suite, filter);
  else if (strcmp(mode, "tf32") == 0)
    failures = mode_tf32(&suite, filter);
  else if (strcmp(mode, "grad") == 0)
    failures = mode_grad(&suite, filter);
  else if (strcmp(mode, "perf") == 0)
    failures = mode_perf(filter);
  else if (strcmp(mode, "support") == 0)
    failures = mode_support(&suite, filter);
  else if (strcmp(mode, "tolerances") == 0)
    failures = mode_tolerances();
  else {
    fprintf(stderr, "usage: test_op [test|tf32|grad|perf|support|tolerances] [part of a name "
                    "[backend [precision]]]\n");
    failures = 2;
  }
  free(suite.item);
  return failures > 0;
}
