/* fieldnet data stats, pack, verify and synth cubes. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/ranges.h"
#include "base/system.h"
#include "cli/command_data.h"
#include "cli/session.h"
#include "data/cube_synth.h"
#include "field/hdf5.h"
#include "report/bar.h"
#include "run/cube_jobs.h"

enum { MOST_SNAPS = 64, MOST_SEED = 999999999 };

/** What the options say; texts are the command line's or in the arena. */
typedef struct request {
  fn_arena *arena;
  fn_counter counter;
  fn_ticker ticker;
  fn_raw_cubes raw;
  fn_cube_source *source;
  int64_t *seeds, *train; // shapes [seed_count], [train_count]
  int64_t seed_count, train_count;
  const char *train_text;
  const char *snap[MOST_SNAPS];
  double redshift[MOST_SNAPS];
  int snaps;
  bool difference;
  char *seed_text; // of statistics read from a file
} request;

static void tick(void *user, const char *what, int64_t done, int64_t total) {
  fn_counter_show(user, what, done, total);
}

static void request_free(request *r) {
  fn_cube_source_destroy(r->source);
  free(r->seeds);
  free(r->train);
  free(r->seed_text);
  fn_arena_destroy(r->arena);
}

/* ---- options -----------------------------------------------------------------------------------
 */

/** "a,b,c" into parts in the arena. */
static fn_status split(fn_arena *arena, const char *what, const char *text, const char **part,
                       int most, int *count) {
  char *copy = fn_arena_text(arena, text), *save = NULL;
  *count = 0;
  for (char *word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
    FN_CHECK(*count < most, FN_ERR_CONFIG, "--%s: expected at most %d values, found '%s'", what,
             most, text);
    part[(*count)++] = word;
  }
  FN_CHECK(*count > 0, FN_ERR_CONFIG, "--%s: expected a value, found '%s'", what, text);
  return FN_OK;
}

static fn_status read_real(const char *what, const char *text, double *value) {
  char *end;
  *value = strtod(text, &end);
  FN_CHECK(end != text && *end == '\0' && isfinite(*value), FN_ERR_CONFIG,
           "--%s: expected a number, found '%s'", what, text);
  return FN_OK;
}

/** One redshift per snap, or NaN for all. */
static fn_status read_redshifts(request *r, const fn_command_line *line) {
  const char *text = fn_command_text(line, "redshift", NULL), *part[MOST_SNAPS];
  int count = 0;
  for (int i = 0; i < MOST_SNAPS; i++)
    r->redshift[i] = (double)NAN;
  if (!text) return FN_OK;
  FN_TRY(split(r->arena, "redshift", text, part, MOST_SNAPS, &count));
  FN_CHECK(count == r->snaps, FN_ERR_CONFIG, "--redshift: expected %d, one per snap, found '%s'",
           r->snaps, text);
  for (int i = 0; i < count; i++) {
    FN_TRY(read_real("redshift", part[i], &r->redshift[i]));
    FN_CHECK(r->redshift[i] > -1, FN_ERR_CONFIG, "--redshift: expected more than -1, found '%s'",
             part[i]);
  }
  return FN_OK;
}

/** --snap, or --difference and what comes with it. */
static fn_status read_snaps(request *r, const fn_command_line *line) {
  const char *difference = fn_command_text(line, "difference", NULL);
  const char *growth = fn_command_text(line, "growth", NULL);
  const char *snap = fn_command_text(line, "snap", NULL);
  r->difference = difference != NULL;
  FN_CHECK(!difference != !snap, FN_ERR_CONFIG,
           "data %s: expected --snap NNN, or --difference NNN,NNN", line->extra[0]);
  FN_TRY(split(r->arena, snap ? "snap" : "difference", snap ? snap : difference, r->snap,
               MOST_SNAPS, &r->snaps));
  FN_CHECK(snap || r->snaps == 2, FN_ERR_CONFIG, "--difference: expected two snaps, found '%s'",
           difference);
  FN_TRY(read_redshifts(r, line));
  if (snap) return FN_OK;
  FN_CHECK(!isnan(r->redshift[0]), FN_ERR_CONFIG,
           "--difference needs the redshifts of both snaps: --redshift Z,Z");
  FN_CHECK(growth, FN_ERR_CONFIG, "--difference needs --growth TABLE or --growth lcdm:OMEGA_M");
  for (int i = 0; i < 2; i++)
    FN_TRY(fn_growth_read(growth, r->redshift[i], &r->raw.growth[i]));
  return FN_OK;
}

static fn_status read_seeds(request *r, const fn_command_line *line) {
  const char *seeds = fn_command_text(line, "seeds", NULL);
  const char *train = fn_command_text(line, "train-seeds", NULL);
  FN_CHECK(seeds || (train && strcmp(train, "all") != 0), FN_ERR_CONFIG,
           "data %s: which seeds? --seeds 0-1999", line->extra[0]);
  if (seeds) FN_TRY(fn_ranges_parse("--seeds", seeds, MOST_SEED, &r->seeds, &r->seed_count));
  if (train && strcmp(train, "all") == 0) train = seeds;
  if (train) FN_TRY(fn_ranges_parse("--train-seeds", train, MOST_SEED, &r->train, &r->train_count));
  fn_text text = {0};
  fn_ranges_write(r->train, r->train_count, &text);
  r->train_text = train ? fn_arena_text(r->arena, text.data) : NULL;
  fn_text_free(&text);
  return FN_OK;
}

static fn_status request_begin(request *r, const fn_command_line *line) {
  *r = (request){.arena = fn_arena_create()};
  FN_CHECK(r->arena, FN_ERR_MEMORY, "no memory");
  r->ticker = (fn_ticker){tick, &r->counter};
  r->raw.pattern = fn_command_text(line, "pattern", FN_RAW_PATTERN);
  r->raw.dataset = fn_command_text(line, "dataset", "data");
  return FN_OK;
}

/** The source of snap `i`, or of the difference. */
static fn_status open_raw(request *r, int i) {
  r->raw.snap[0] = r->snap[i];
  r->raw.snap[1] = r->difference ? r->snap[i + 1] : NULL;
  const int64_t seeds = r->seed_count > r->train_count ? r->seed_count : r->train_count;
  return fn_raw_cubes_create(&r->raw, seeds > 1, &r->source);
}

static const char *describe_source(request *r) {
  fn_text text = {0};
  r->source->describe(r->source, &text);
  const char *kept = fn_arena_text(r->arena, text.data ? text.data : "");
  fn_text_free(&text);
  return kept;
}

/* ---- stats -------------------------------------------------------------------------------------
 */

static fn_status read_stats_request(request *r, const fn_command_line *line) {
  FN_CHECK(line->extra_count == 3, FN_ERR_CONFIG,
           "data stats: expected the folder of a set and a file to write");
  FN_TRY(request_begin(r, line));
  r->raw.folder = line->extra[1];
  FN_TRY(read_snaps(r, line));
  FN_TRY(read_seeds(r, line));
  if (r->train) return FN_OK;
  r->train = r->seeds;
  r->train_count = r->seed_count;
  r->seeds = NULL;
  return FN_OK;
}

static fn_status one_entry(request *r, const fn_dist *dist, int i, fn_statistics_entry *e) {
  FN_TRY(fn_dist_agree(dist, open_raw(r, i)));
  const char *name =
      r->difference ? fn_arena_format(r->arena, "%s-%s", r->snap[0], r->snap[1]) : r->snap[i];
  *e = (fn_statistics_entry){.snap = name,
                             .redshift = r->difference ? (double)NAN : r->redshift[i],
                             .seeds = r->train,
                             .count = r->train_count,
                             .origin = describe_source(r)};
  FN_TRY(fn_cube_sources_check(dist, r->source, r->train, r->train_count));
  FN_TRY(fn_cube_statistics_compute(dist, r->source, r->train, r->train_count, &r->ticker,
                                    &e->values));
  fn_log(FN_INFO, "snap %s: %lld cubes  mean %.17g  std %.17g  variance %.17g", name,
         (long long)e->values.cubes, e->values.mean, sqrt(e->values.variance), e->values.variance);
  fn_cube_source_destroy(r->source);
  r->source = NULL;
  return FN_OK;
}

static fn_status stats(const fn_command_line *line, fn_dist *dist) {
  request r = {0};
  fn_statistics_entry entries[MOST_SNAPS] = {0};
  fn_status status = read_stats_request(&r, line);
  const char *path = line->extra_count > 2 ? line->extra[2] : "";
  if (status == FN_OK && !fn_command_given(line, "force") && fn_file_exists(path))
    status = fn_error_set(FN_ERR_DATA, __FILE__, __LINE__, "%s exists; --force replaces it", path);
  status = fn_dist_agree(dist, status);
  const int count = r.difference ? 1 : r.snaps;
  for (int i = 0; i < count && status == FN_OK; i++)
    status = one_entry(&r, dist, i, &entries[i]);
  if (status == FN_OK)
    status = fn_dist_agree(dist, dist->rank == 0 ? fn_cube_statistics_write(path, entries, count)
                                                 : FN_OK);
  if (status == FN_OK) fn_log(FN_INFO, "%s", path);
  for (int i = 0; i < count; i++)
    fn_cube_statistics_free(&entries[i].values);
  request_free(&r);
  return status;
}

fn_status fn_data_stats(const fn_command_line *line) {
  return fn_cli_job(line, stats);
}

/* ---- pack --------------------------------------------------------------------------------------
 */

static fn_status read_choice(const fn_command_line *line, const char *option,
                             const char *const *choices, int count, int *choice) {
  const char *text = fn_command_text(line, option, choices[*choice]);
  for (*choice = 0; *choice < count; ++*choice)
    if (strcmp(text, choices[*choice]) == 0) return FN_OK;
  fn_text list = {0};
  for (int i = 0; i < count; i++)
    fn_text_add(&list, "%s%s", i ? ", " : "", choices[i]);
  fn_error_set(FN_ERR_CONFIG, __FILE__, __LINE__, "--%s: expected one of %s, found '%s'", option,
               list.data, text);
  fn_text_free(&list);
  return FN_ERR_CONFIG;
}

static fn_status read_chunk(request *r, const fn_command_line *line, fn_cube_plan *plan) {
  const char *text = fn_command_text(line, "chunk", "none"), *part[4];
  int count = 0;
  if (strcmp(text, "none") == 0) return FN_OK;
  FN_TRY(split(r->arena, "chunk", text, part, 4, &count));
  for (int i = 0; i < count; i++) {
    char *end;
    plan->chunk[i] = strtoll(part[i], &end, 10);
    FN_CHECK(*end == '\0' && plan->chunk[i] > 0, FN_ERR_CONFIG,
             "--chunk: expected cells along each axis, found '%s'", text);
  }
  FN_CHECK(count == 4, FN_ERR_CONFIG, "--chunk: expected CUBES,D,H,W, found '%s'", text);
  return FN_OK;
}

/** Statistics given, or whose seeds are; `compute_all`: without other word, of all seeds. */
static fn_status read_statistics(request *r, const fn_command_line *line, bool compute_all,
                                 fn_pack_job *job) {
  const char *text = fn_command_text(line, "statistics", "compute"), *part[2];
  fn_cube_plan *plan = &job->plan;
  plan->statistics = r->train_text;
  if (strcmp(text, "none") == 0) return FN_OK;
  if (strcmp(text, "compute") == 0) {
    FN_CHECK(r->train || compute_all, FN_ERR_CONFIG,
             "--statistics compute: which seeds are for training? --train-seeds 0-1499, or all");
    job->compute = r->train ? r->train : r->seeds;
    job->compute_count = r->train ? r->train_count : r->seed_count;
    return FN_OK;
  }
  int count = 0;
  plan->has_statistics = true;
  if (strchr(text, ',') && !fn_file_exists(text)) {
    FN_TRY(split(r->arena, "statistics", text, part, 2, &count));
    FN_CHECK(count == 2, FN_ERR_CONFIG, "--statistics: expected MEAN,STD, found '%s'", text);
    FN_TRY(read_real("statistics", part[0], &plan->mean));
    FN_TRY(read_real("statistics", part[1], &plan->std));
    plan->variance = plan->std * plan->std;
    FN_CHECK(plan->std > 0, FN_ERR_CONFIG, "--statistics: expected a std above 0, found '%s'",
             part[1]);
    return FN_OK;
  }
  const char *snap = r->snaps == 0   ? NULL
                     : r->difference ? fn_arena_format(r->arena, "%s-%s", r->snap[0], r->snap[1])
                                     : r->snap[0];
  FN_TRY(
      fn_cube_statistics_read(text, snap, &plan->mean, &plan->std, &plan->variance, &r->seed_text));
  if (!plan->statistics) plan->statistics = r->seed_text;
  return FN_OK;
}

/** Everything but shape and origin, which the source tells. */
static fn_status read_plan(request *r, const fn_command_line *line, fn_cube_plan *plan) {
  static const char *const layouts[] = {"packed", "original"}, *const types[] = {"f32", "f64"};
  int layout = 0, type = 0;
  int64_t compress = 0;
  if (strcmp(fn_command_text(line, "layout", ""), "raw") != 0)
    FN_TRY(read_choice(line, "layout", layouts, 2, &layout));
  FN_TRY(read_choice(line, "dtype", types, 2, &type));
  FN_TRY(fn_command_integer(line, "compress", 0, 9, &compress));
  FN_TRY(read_chunk(r, line, plan));
  plan->packed = layout == 0;
  plan->item = type == 0 ? 4 : 8;
  plan->compress = (int)compress;
  plan->remove_mean = fn_command_given(line, "remove-mean");
  plan->redshift[0] = r->redshift[0];
  plan->redshift[1] = r->difference ? r->redshift[1] : (double)NAN;
  memcpy(plan->growth, r->raw.growth, sizeof plan->growth);
  plan->box = plan->amplitude = (double)NAN;
  FN_TRY(fn_command_real(line, "box", 1e-3, 1e6, &plan->box));
  FN_TRY(fn_command_real(line, "amplitude", 1e-30, 1, &plan->amplitude));
  plan->cubes = 2 * r->seed_count;
  int64_t *seed = fn_arena_take(r->arena, sizeof *seed * (size_t)plan->cubes);
  uint8_t *theory = fn_arena_take(r->arena, (size_t)plan->cubes);
  for (int64_t i = 0; i < plan->cubes; i++) {
    seed[i] = r->seeds[i / 2];
    theory[i] = i % 2 ? FN_NEWTON : FN_GR;
  }
  plan->seed = seed;
  plan->theory = theory;
  return FN_OK;
}

/** Check sources, complete the plan, pack, tell. */
static fn_status run_pack(request *r, const fn_dist *dist, fn_pack_job *job) {
  fn_pack_figures figures;
  char bytes[32], duration[64];
  const double start = fn_clock();
  job->source = r->source;
  job->plan.origin = describe_source(r);
  FN_TRY(fn_cube_sources_check(dist, r->source, r->seeds, r->seed_count));
  memcpy(job->plan.size, r->source->size, sizeof job->plan.size);
  FN_TRY(fn_dist_agree(dist, fn_cube_plan_check(&job->plan)));
  FN_TRY(fn_cube_pack(dist, job, &r->ticker, &figures));
  const fn_cube_plan *plan = &job->plan;
  if (plan->has_statistics || job->compute)
    fn_log(FN_INFO, "mean %.17g  std %.17g%s%s", figures.mean, figures.std,
           plan->statistics ? "  of seeds " : "", plan->statistics ? plan->statistics : "");
  if (figures.kept > 0)
    fn_log(FN_INFO, "%" PRId64 " cubes were there from an earlier start", figures.kept);
  const double total =
      (double)plan->cubes * (double)fn_cube_source_cells(r->source) * (double)plan->item;
  fn_log(FN_INFO,
         "%s: %" PRId64 " cubes of %" PRId64 " x %" PRId64 " x %" PRId64 " cells, %s, in %s",
         job->path, plan->cubes, plan->size[0], plan->size[1], plan->size[2],
         fn_text_bytes(total, bytes, sizeof bytes),
         fn_text_duration(fn_clock() - start, duration, sizeof duration));
  return FN_OK;
}

static fn_status read_pack_request(request *r, const fn_command_line *line, fn_pack_job *job) {
  FN_CHECK(line->extra_count == 3, FN_ERR_CONFIG,
           "data pack: expected the folder of a set and a file to write");
  FN_TRY(request_begin(r, line));
  r->raw.folder = line->extra[1];
  *job = (fn_pack_job){.path = line->extra[2], .force = fn_command_given(line, "force")};
  FN_TRY(read_snaps(r, line));
  FN_CHECK(r->difference || r->snaps == 1, FN_ERR_CONFIG,
           "data pack: expected one snap, found %d: a prepared file holds one redshift", r->snaps);
  FN_TRY(read_seeds(r, line));
  FN_CHECK(r->seeds, FN_ERR_CONFIG, "data pack: which seeds? --seeds 0-1999");
  FN_TRY(read_plan(r, line, &job->plan));
  FN_TRY(read_statistics(r, line, false, job));
  return open_raw(r, 0);
}

static fn_status pack(const fn_command_line *line, fn_dist *dist) {
  request r = {0};
  fn_pack_job job = {0};
  fn_status status = fn_dist_agree(dist, read_pack_request(&r, line, &job));
  // Statistics may come from seeds that are not packed: they are looked for before anything else.
  if (status == FN_OK && job.compute)
    status = fn_cube_sources_check(dist, r.source, job.compute, job.compute_count);
  if (status == FN_OK) status = run_pack(&r, dist, &job);
  request_free(&r);
  return status;
}

fn_status fn_data_pack(const fn_command_line *line) {
  return fn_cli_job(line, pack);
}

/* ---- verify ------------------------------------------------------------------------------------
 */

/** Text attribute `origin` of a prepared file, in the arena; NULL when it has none. */
static fn_status read_origin(fn_arena *arena, const char *path, const char **origin) {
  hid_t file = -1;
  *origin = NULL;
  fn_hdf5_lock();
  const fn_status status = fn_hdf5_open_file(path, &file);
  if (status == FN_OK && H5Aexists(file, "origin") > 0) {
    const hid_t attribute = H5Aopen(file, "origin", H5P_DEFAULT), type = H5Aget_type(attribute);
    char *text = fn_arena_take(arena, H5Tget_size(type) + 1);
    if (H5Tget_class(type) == H5T_STRING && H5Tis_variable_str(type) == 0 &&
        H5Aread(attribute, type, text) >= 0)
      *origin = text;
    H5Tclose(type);
    H5Aclose(attribute);
  }
  if (file >= 0) H5Fclose(file);
  fn_hdf5_unlock();
  return status;
}

/** What was not told is as it was when the file was packed. */
static fn_status read_verify_request(request *r, const fn_command_line *line, fn_verify_job *job,
                                     char **memory) {
  FN_CHECK(line->extra_count == 2 || line->extra_count == 3, FN_ERR_CONFIG,
           "data verify: expected a prepared file and the folder of its set");
  FN_TRY(request_begin(r, line));
  job->path = line->extra[1];
  FN_TRY(fn_command_integer(line, "sample", 1, INT64_MAX, &job->sample));
  FN_TRY(fn_command_real(line, "tolerance", 0, 1e30, &job->tolerance));
  if (line->extra_count == 2) return FN_OK;
  const char *origin;
  FN_TRY(read_origin(r->arena, job->path, &origin));
  r->raw = (fn_raw_cubes){.folder = line->extra[2],
                          .pattern = fn_command_text(line, "pattern", NULL),
                          .dataset = fn_command_text(line, "dataset", NULL)};
  if (fn_command_given(line, "snap") || fn_command_given(line, "difference")) {
    FN_TRY(read_snaps(r, line));
    r->raw.snap[0] = r->snap[0];
    r->raw.snap[1] = r->difference ? r->snap[1] : NULL;
  }
  const bool known = fn_raw_cubes_recall(&r->raw, origin ? origin : "", memory);
  if (!r->raw.pattern) r->raw.pattern = FN_RAW_PATTERN;
  if (!r->raw.dataset) r->raw.dataset = "data";
  FN_CHECK(known || r->raw.snap[0], FN_ERR_CONFIG,
           "%s does not tell which raw files it was made from: name them with --snap, and "
           "--pattern where they are not in the usual places",
           job->path);
  FN_TRY(fn_raw_cubes_create(&r->raw, false, &r->source));
  job->source = r->source;
  return FN_OK;
}

static fn_status verify(const fn_command_line *line, fn_dist *dist) {
  request r = {0};
  fn_verify_job job = {0};
  fn_verify_figures figures;
  char *memory = NULL;
  fn_status status = fn_dist_agree(dist, read_verify_request(&r, line, &job, &memory));
  if (status == FN_OK) status = fn_cube_verify(dist, &job, &r.ticker, &figures);
  if (status == FN_OK)
    fn_log(FN_INFO, "%s: %" PRId64 " cubes are %s", job.path, figures.cubes,
           !job.source         ? "as they were written (checksums)"
           : job.tolerance > 0 ? "those of the sources, within the tolerance"
                               : "those of the sources, bit for bit");
  request_free(&r);
  free(memory);
  return status;
}

fn_status fn_data_verify(const fn_command_line *line) {
  return fn_cli_job(line, verify);
}

/* ---- synth cubes -------------------------------------------------------------------------------
 */

static fn_status read_potential(const fn_command_line *line, double redshift,
                                fn_potential_options *o) {
  int64_t seed = 1;
  *o = (fn_potential_options){.edge = 64,
                              .box = 320,
                              .omega_m = 0.31,
                              .redshift = isnan(redshift) ? 0 : redshift,
                              .difference = 0.01};
  FN_TRY(fn_command_integer(line, "edge", 4, 4096, &o->edge));
  FN_TRY(fn_command_real(line, "box", 1e-3, 1e6, &o->box));
  FN_TRY(fn_command_real(line, "omega-m", 0.1, 1, &o->omega_m));
  FN_TRY(fn_command_real(line, "difference", 0, 1e6, &o->difference));
  FN_TRY(fn_command_real(line, "mean-offset", -1e6, 1e6, &o->offset));
  FN_TRY(fn_command_integer(line, "seed", 0, INT64_MAX, &seed));
  o->seed = (uint64_t)seed;
  return FN_OK;
}

static fn_status read_synth_request(request *r, const fn_command_line *line, fn_pack_job *job) {
  fn_potential_options potential;
  FN_CHECK(line->extra_count == 3, FN_ERR_CONFIG,
           "data synth cubes: expected a folder, or with --layout packed or original a file");
  FN_TRY(request_begin(r, line));
  r->snaps = 1;
  r->snap[0] = fn_command_text(line, "snap", "000");
  FN_TRY(read_redshifts(r, line));
  FN_TRY(read_seeds(r, line));
  FN_CHECK(r->seeds, FN_ERR_CONFIG, "data synth cubes: which seeds? --seeds 0-9");
  *job = (fn_pack_job){.path = line->extra[2], .force = fn_command_given(line, "force")};
  FN_TRY(read_potential(line, r->redshift[0], &potential));
  FN_TRY(read_plan(r, line, &job->plan));
  job->plan.box = potential.box;
  job->plan.redshift[0] = potential.redshift;
  r->snaps = 0; // statistics of another file are not looked up by snap
  FN_TRY(read_statistics(r, line, true, job));
  return fn_synth_cubes_create(&potential, &r->source);
}

/** Files like those of a simulation. */
static fn_status write_raw(request *r, const fn_dist *dist, const fn_command_line *line) {
  r->raw.folder = line->extra[2];
  r->raw.snap[0] = r->snap[0];
  fn_cube_source *files = NULL; // only to have the pattern checked
  fn_status status = fn_raw_cubes_create(&r->raw, r->seed_count > 1, &files);
  fn_cube_source_destroy(files);
  FN_TRY(fn_dist_agree(dist, status));
  FN_TRY(fn_cube_sources_check(dist, r->source, r->seeds, r->seed_count));
  FN_TRY(fn_cube_write_raw(dist, r->source, &r->raw, r->seeds, r->seed_count,
                           fn_command_given(line, "force"), &r->ticker));
  fn_log(FN_INFO, "%s: %" PRId64 " pairs of cubes of %" PRId64 "^3 cells", line->extra[2],
         r->seed_count, r->source->size[0]);
  return FN_OK;
}

static fn_status synth_cubes(const fn_command_line *line, fn_dist *dist) {
  request r = {0};
  fn_pack_job job = {0};
  fn_status status = fn_dist_agree(dist, read_synth_request(&r, line, &job));
  if (status == FN_OK && strcmp(fn_command_text(line, "layout", "raw"), "raw") == 0)
    status = write_raw(&r, dist, line);
  else if (status == FN_OK)
    status = run_pack(&r, dist, &job);
  request_free(&r);
  return status;
}

fn_status fn_data_synth_cubes(const fn_command_line *line) {
  return fn_cli_job(line, synth_cubes);
}
