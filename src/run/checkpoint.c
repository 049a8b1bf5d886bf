/* Saving and loading states. See the design page, promises 4 and 5: a state is complete under its
 * name or it is not there. */
#include "run/checkpoint.h"

#include <errno.h>
#include <mpi.h>
#include <oneapi/dnnl/dnnl_version.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/system.h"
#include "base/text.h"
#include "field/array.h"
#include "field/hdf5.h"
#include "field/safe_write.h"
#include "run/checkpoint_file.h"
#include "run/checkpoint_folder.h"

enum { FORMAT_VERSION = 1 };

/* ---- what plain structs hold, once for saving and loading ---------------------------------- */

typedef struct member {
  const char *name;
  size_t offset;
  enum { INTEGER, REAL } kind;
} member;

static const member progress_members[] = {
    {"epoch", offsetof(fn_progress, epoch), INTEGER},
    {"step", offsetof(fn_progress, step), INTEGER},
    {"epoch_step", offsetof(fn_progress, epoch_step), INTEGER},
    {"samples", offsetof(fn_progress, samples), INTEGER},
    {"loss_sum", offsetof(fn_progress, loss_sum), REAL},
    {"loss_count", offsetof(fn_progress, loss_count), REAL},
    {"best_metric", offsetof(fn_progress, best_metric), REAL},
    {"best_epoch", offsetof(fn_progress, best_epoch), INTEGER},
    {"train_loss", offsetof(fn_progress, train_loss), REAL},
    {"validation_loss", offsetof(fn_progress, validation_loss), REAL},
};

static const member schedule_members[] = {
    {"base_lr", offsetof(fn_schedule, base_lr), REAL},
    {"current", offsetof(fn_schedule, current), REAL},
    {"best", offsetof(fn_schedule, best), REAL},
    {"bad_epochs", offsetof(fn_schedule, bad_epochs), INTEGER},
    {"cooldown_left", offsetof(fn_schedule, cooldown_left), INTEGER},
    {"reductions", offsetof(fn_schedule, reductions), INTEGER},
};

enum {
  PROGRESS_MEMBERS = sizeof progress_members / sizeof progress_members[0],
  SCHEDULE_MEMBERS = sizeof schedule_members / sizeof schedule_members[0],
};

static fn_status save_members(hid_t file, const char *group_name, const member *members, int count,
                              const void *object) {
  hid_t group;
  FN_TRY(fn_state_group(file, group_name, &group));
  fn_status status = FN_OK;
  for (int i = 0; i < count && status == FN_OK; i++) {
    const char *at = (const char *)object + members[i].offset;
    status = members[i].kind == INTEGER
                 ? fn_state_set_integer(group, members[i].name, *(const int64_t *)at)
                 : fn_state_set_real(group, members[i].name, *(const double *)at);
  }
  H5Gclose(group);
  return status;
}

static fn_status load_members(hid_t file, const char *group_name, const member *members, int count,
                              void *object) {
  hid_t group = H5Gopen2(file, group_name, H5P_DEFAULT);
  FN_CHECK(group >= 0, FN_ERR_CHECKPOINT, "group %s is missing", group_name);
  fn_status status = FN_OK;
  for (int i = 0; i < count && status == FN_OK; i++) {
    char *at = (char *)object + members[i].offset;
    status = members[i].kind == INTEGER
                 ? fn_state_get_integer(group, members[i].name, (int64_t *)at)
                 : fn_state_get_real(group, members[i].name, (double *)at);
  }
  H5Gclose(group);
  return fn_error_context(status, "/%s", group_name);
}

_Static_assert(sizeof(fn_stretch) == 3 * sizeof(int64_t), "a stretch is a row of three integers");

/** What of the progress may be absent: the loss scale, and lists, rows of integers. */
static fn_status save_lists(hid_t group, const fn_progress *progress) {
  if (progress->loss_scale > 0) {
    FN_TRY(fn_state_set_real(group, "loss_scale", progress->loss_scale));
    FN_TRY(fn_state_set_integer(group, "scaled_steps", progress->scaled_steps));
  }
  if (progress->stretches > 0)
    FN_TRY(
        fn_state_set_rows(group, "stretches", progress->stretches, 3, &progress->stretch[0].ranks));
  if (progress->target_fields > 0)
    FN_TRY(fn_state_set_rows(group, "target_field_channels", progress->target_fields, 1,
                             progress->target_field_channels));
  return FN_OK;
}

static fn_status load_lists(hid_t group, fn_progress *progress) {
  if (H5Aexists(group, "loss_scale") > 0) {
    FN_TRY(fn_state_get_real(group, "loss_scale", &progress->loss_scale));
    FN_TRY(fn_state_get_integer(group, "scaled_steps", &progress->scaled_steps));
  }
  if (H5Aexists(group, "stretches") > 0)
    FN_TRY(fn_state_get_rows(group, "stretches", FN_STRETCHES_MOST, 3, &progress->stretches,
                             &progress->stretch[0].ranks));
  if (H5Aexists(group, "target_field_channels") > 0)
    FN_TRY(fn_state_get_rows(group, "target_field_channels", FN_TARGET_FIELDS_MOST, 1,
                             &progress->target_fields, progress->target_field_channels));
  return FN_OK;
}

static fn_status save_progress(hid_t file, const fn_progress *progress) {
  FN_TRY(save_members(file, "progress", progress_members, PROGRESS_MEMBERS, progress));
  hid_t group;
  FN_TRY(fn_state_group(file, "progress", &group));
  const fn_status status = save_lists(group, progress);
  H5Gclose(group);
  return status;
}

static fn_status load_progress(hid_t file, fn_progress *progress) {
  fn_progress p = {0};
  hid_t group;
  FN_TRY(load_members(file, "progress", progress_members, PROGRESS_MEMBERS, &p));
  FN_TRY(fn_state_group(file, "progress", &group));
  const fn_status status = load_lists(group, &p);
  H5Gclose(group);
  FN_TRY(status);
  *progress = p;
  return FN_OK;
}

/* ---- saving ------------------------------------------------------------------------------ */

enum { PARAMETERS = 1, BUFFERS = 2 };

static bool wanted(const fn_tensor_entry *entry, unsigned which) {
  return which & (entry->is_buffer ? BUFFERS : PARAMETERS);
}

/** Views of `values` (laid out as parameters->values; buffers come from the parameters) as one
 *  dataset per entry under `path`. */
static fn_status save_tensors(hid_t file, const char *parent_name, const char *name,
                              const fn_parameters *parameters, unsigned which, fn_dtype dtype,
                              const void *values) {
  hid_t parent, group;
  FN_TRY(fn_state_group(file, parent_name, &parent));
  fn_status status = fn_state_group(parent, name, &group);
  H5Gclose(parent);
  FN_TRY(status);
  for (int i = 0; i < parameters->entry_count && status == FN_OK; i++) {
    const fn_tensor_entry *entry = &parameters->entry[i];
    if (!wanted(entry, which)) continue;
    const char *base = entry->is_buffer ? parameters->buffers : values;
    status = fn_state_put_tensor(group, entry->name, dtype, &entry->shape,
                                 base + (size_t)entry->offset * fn_dtype_size(dtype));
  }
  H5Gclose(group);
  return status;
}

static fn_status save_optimizer(hid_t file, const fn_parameters *parameters,
                                fn_optimizer *optimizer) {
  for (int i = 0; i < fn_optimizer_state_count(optimizer); i++)
    FN_TRY(save_tensors(file, "optimizer", fn_optimizer_state_name(optimizer, i), parameters,
                        PARAMETERS, FN_F32, fn_optimizer_state(optimizer, i)));
  hid_t group;
  FN_TRY(fn_state_group(file, "optimizer", &group));
  fn_status status = fn_state_set_integer(group, "step", fn_optimizer_steps(optimizer));
  for (int i = 0; i < fn_optimizer_scalar_count(optimizer) && status == FN_OK; i++) {
    const char *name;
    const double *value = fn_optimizer_scalar(optimizer, i, &name);
    status = fn_state_set_real(group, name, *value);
  }
  H5Gclose(group);
  return status;
}

static fn_status save_version(hid_t file) {
  char hdf5[32], onednn[32], date[32], mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  unsigned major, minor, release;
  int length = 0;
  const time_t now = time(NULL);
  struct tm utc;
  H5get_libversion(&major, &minor, &release);
  MPI_Get_library_version(mpi, &length);
  snprintf(hdf5, sizeof hdf5, "%u.%u.%u", major, minor, release);
  snprintf(onednn, sizeof onednn, "%d.%d.%d", DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR,
           DNNL_VERSION_PATCH);
  strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  hid_t group;
  FN_TRY(fn_state_group(file, "version", &group));
  fn_status status = fn_state_set_integer(group, "format", FORMAT_VERSION);
  if (status == FN_OK) status = fn_state_set_text(group, "fieldnet", fn_version());
  if (status == FN_OK) status = fn_state_set_text(group, "hdf5", hdf5);
  if (status == FN_OK) status = fn_state_set_text(group, "onednn", onednn);
  if (status == FN_OK) status = fn_state_set_text(group, "mpi", mpi);
  if (status == FN_OK) status = fn_state_set_text(group, "date", date);
  H5Gclose(group);
  return status;
}

static fn_status save_contents(hid_t file, const fn_state *state) {
  const fn_parameters *parameters = state->parameters;
  FN_TRY(save_version(file));
  FN_TRY(save_tensors(file, "/", "model", parameters, PARAMETERS | BUFFERS, parameters->dtype,
                      parameters->values));
  if (state->optimizer) FN_TRY(save_optimizer(file, parameters, state->optimizer));
  if (state->ema)
    FN_TRY(save_tensors(file, "/", "ema", parameters, PARAMETERS, FN_F32, state->ema));
  if (state->schedule)
    FN_TRY(save_members(file, "schedule", schedule_members, SCHEDULE_MEMBERS, state->schedule));
  if (state->progress) FN_TRY(save_progress(file, state->progress));
  if (state->configuration) FN_TRY(fn_state_put_text(file, "configuration", state->configuration));
  return fn_state_stamp(file);
}

static fn_status verify(const char *path, fn_state_care care);

/** Build the state in memory, write it to `temporary`, read it back: the seal tells that its bytes
 *  are those built, values included. */
static fn_status write_state(const char *temporary, size_t bytes, const fn_state *state) {
  hid_t file = -1;
  fn_hdf5_lock();
  fn_status status = fn_hdf5_image_create(bytes, &file);
  if (status == FN_OK) status = save_contents(file, state);
  if (status == FN_OK) status = fn_hdf5_image_write(file, temporary, true);
  if (file >= 0) H5Fclose(file);
  fn_hdf5_unlock();
  if (status == FN_OK) status = verify(temporary, FN_STATE_GROUPS);
  return status;
}

/** Complete the message of a failed save with what would have been needed. */
static fn_status explain_failure(const char *path, const char *folder, size_t bytes) {
  struct statvfs disk;
  char needed[32], left[32] = "unknown";
  fn_text_bytes((double)bytes, needed, sizeof needed);
  if (statvfs(folder, &disk) == 0)
    fn_text_bytes((double)disk.f_bavail * (double)disk.f_frsize, left, sizeof left);
  FN_FAIL(FN_ERR_CHECKPOINT,
          "cannot save state %s: %s (about %s needed, %s free); earlier states are untouched", path,
          fn_error_message(), needed, left);
}

/** A file size limit must be an error of write, not a deadly signal; the old action is kept. */
static bool ignore_file_size_signal(struct sigaction *old) {
  const struct sigaction ignore = {.sa_handler = SIG_IGN};
  if (sigaction(SIGXFSZ, NULL, old) != 0 || old->sa_handler != SIG_DFL) return false;
  return sigaction(SIGXFSZ, &ignore, NULL) == 0;
}

fn_status fn_checkpoint_save(const char *folder, int64_t index, const fn_state *state) {
  char name[64], path[4096], temporary[4096];
  FN_CHECK(state->parameters && index >= 0, FN_ERR_INTERNAL,
           "a state needs parameters, index >= 0");
  snprintf(name, sizeof name, "state_%lld.h5", (long long)index);
  const int length = snprintf(path, sizeof path, "%s/%s", folder, name);
  FN_CHECK(length > 0 && length < (int)sizeof path - 64, FN_ERR_CHECKPOINT, "path too long: %s/%s",
           folder, name);
  FN_TRY(fn_temporary_name(path, temporary, sizeof temporary));
  const int arrays = state->optimizer ? fn_optimizer_state_count(state->optimizer) : 0;
  const size_t bytes = (size_t)fn_checkpoint_bytes(state->parameters, arrays, state->ema != NULL);
  fn_remove_leftovers(folder);
  struct sigaction old;
  const bool changed = ignore_file_size_signal(&old);
  fn_status status = write_state(temporary, bytes, state);
  if (status == FN_OK) {
    status = fn_commit_file(temporary, path);
  } else {
    unlink(temporary);
  }
  if (changed) sigaction(SIGXFSZ, &old, NULL);
  if (status != FN_OK) return explain_failure(path, folder, bytes);
  return fn_checkpoint_link(folder, "checkpoint.h5", name);
}

int64_t fn_checkpoint_bytes(const fn_parameters *parameters, int optimizer_arrays, bool ema) {
  // Object header, link and name of a dataset, and the groups with their attributes, measured.
  const int64_t per_dataset = 480, fixed = 12288;
  const int64_t copies = 1 + optimizer_arrays + (ema ? 1 : 0);
  int64_t bytes = fixed;
  for (int i = 0; i < parameters->entry_count; i++) {
    const fn_tensor_entry *entry = &parameters->entry[i];
    const int64_t times = entry->is_buffer ? 1 : copies;
    bytes += times * (entry->count * (int64_t)fn_dtype_size(parameters->dtype) + per_dataset);
  }
  return bytes;
}

/* ---- loading ----------------------------------------------------------------------------- */

/** Names that do not fit, gathered so that one message tells all. */
typedef struct misfits {
  fn_text missing, unexpected, shapes;
  int missing_count, unexpected_count, shape_count;
} misfits;

enum { SHOWN = 8 };

static void note(fn_text *text, int *count, const char *group, const char *name) {
  if (*count < SHOWN) fn_text_add(text, "%s%s/%s", *count ? ", " : "", group, name);
  if (*count == SHOWN) fn_text_add(text, ", ...");
  ++*count;
}

static void note_shape(misfits *m, const char *group, const fn_tensor_entry *entry,
                       const fn_shape *found) {
  char expected[128], text[128];
  if (m->shape_count < SHOWN)
    fn_text_add(&m->shapes, "%s%s/%s is %s, expected %s", m->shape_count ? ", " : "", group,
                entry->name, fn_dims_text(found->ndim, found->dim, text, sizeof text),
                fn_dims_text(entry->shape.ndim, entry->shape.dim, expected, sizeof expected));
  if (m->shape_count == SHOWN) fn_text_add(&m->shapes, ", ...");
  m->shape_count++;
}

static void misfits_free(misfits *m) {
  fn_text_free(&m->missing);
  fn_text_free(&m->unexpected);
  fn_text_free(&m->shapes);
}

/** One failure for everything, or warnings for what a lenient load passes over. */
static fn_status judge(const misfits *m, const char *path, bool strict) {
  FN_CHECK(m->shape_count == 0, FN_ERR_CHECKPOINT, "%s does not fit the network: %s", path,
           m->shapes.data);
  const bool any = m->missing_count || m->unexpected_count;
  if (!any) return FN_OK;
  const char *parts[4] = {"", "", "", ""};
  if (m->missing_count) {
    parts[0] = strict ? "it lacks " : "kept as they were, for it lacks them: ";
    parts[1] = m->missing.data;
  }
  if (m->unexpected_count) {
    parts[2] = strict ? "it holds unexpected " : "not used: ";
    parts[3] = m->unexpected.data;
  }
  const char *comma = m->missing_count && m->unexpected_count ? "; " : "";
  FN_CHECK(!strict, FN_ERR_CHECKPOINT, "%s does not fit the run: %s%s%s%s%s", path, parts[0],
           parts[1], comma, parts[2], parts[3]);
  fn_log(FN_WARN, "%s: %s%s%s%s%s", path, parts[0], parts[1], comma, parts[2], parts[3]);
  return FN_OK;
}

/** A group of tensors to be laid over `values`. */
typedef struct tensor_group {
  char name[128]; // path in the file
  const fn_parameters *parameters;
  unsigned which;
  fn_dtype dtype;
  void *values;
  misfits *misfits;
} tensor_group;

static fn_status note_unexpected(void *user, const char *name) {
  const tensor_group *g = user;
  for (int i = 0; i < g->parameters->entry_count; i++) {
    const fn_tensor_entry *entry = &g->parameters->entry[i];
    if (wanted(entry, g->which) && strcmp(entry->name, name) == 0) return FN_OK;
  }
  note(&g->misfits->unexpected, &g->misfits->unexpected_count, g->name, name);
  return FN_OK;
}

/** Gather misfits of one group (load false), or read its tensors (load true). */
static fn_status visit_tensors(hid_t file, const tensor_group *g, bool load) {
  const hid_t group = H5Gopen2(file, g->name, H5P_DEFAULT);
  if (group < 0) {
    if (!load) note(&g->misfits->missing, &g->misfits->missing_count, g->name, "*");
    return FN_OK;
  }
  fn_status status = FN_OK;
  for (int i = 0; i < g->parameters->entry_count && status == FN_OK; i++) {
    const fn_tensor_entry *entry = &g->parameters->entry[i];
    if (!wanted(entry, g->which)) continue;
    bool found;
    fn_shape shape = {0};
    status = fn_state_tensor_shape(group, entry->name, &found, &shape);
    if (status != FN_OK) break;
    if (load) {
      char *base = entry->is_buffer ? g->parameters->buffers : g->values;
      if (found)
        status = fn_state_get_tensor(group, entry->name, g->dtype,
                                     base + (size_t)entry->offset * fn_dtype_size(g->dtype));
    } else if (!found) {
      note(&g->misfits->missing, &g->misfits->missing_count, g->name, entry->name);
    } else if (!fn_shape_equal(&shape, &entry->shape)) {
      note_shape(g->misfits, g->name, entry, &shape);
    }
  }
  if (status == FN_OK && !load) status = fn_state_members(group, note_unexpected, (void *)g);
  H5Gclose(group);
  return status;
}

/** Optimizer states in the file that the run's optimizer does not have. */
typedef struct optimizer_names {
  fn_optimizer *optimizer;
  misfits *misfits;
} optimizer_names;

static fn_status note_unexpected_state(void *user, const char *name) {
  const optimizer_names *n = user;
  for (int i = 0; i < fn_optimizer_state_count(n->optimizer); i++)
    if (strcmp(fn_optimizer_state_name(n->optimizer, i), name) == 0) return FN_OK;
  note(&n->misfits->unexpected, &n->misfits->unexpected_count, "optimizer", name);
  return FN_OK;
}

static fn_status visit_optimizer(hid_t file, fn_state *state, misfits *m, bool load) {
  fn_optimizer *optimizer = state->optimizer;
  for (int i = 0; i < fn_optimizer_state_count(optimizer); i++) {
    tensor_group g = {.parameters = state->parameters,
                      .which = PARAMETERS,
                      .dtype = FN_F32,
                      .values = fn_optimizer_state(optimizer, i),
                      .misfits = m};
    snprintf(g.name, sizeof g.name, "optimizer/%s", fn_optimizer_state_name(optimizer, i));
    FN_TRY(visit_tensors(file, &g, load));
  }
  const hid_t group = H5Gopen2(file, "optimizer", H5P_DEFAULT);
  if (group < 0) {
    if (!load) note(&m->missing, &m->missing_count, "optimizer", "step");
    return FN_OK;
  }
  fn_status status = FN_OK;
  if (!load) {
    status = fn_state_members(group, note_unexpected_state, &(optimizer_names){optimizer, m});
    for (int i = 0; i < fn_optimizer_scalar_count(optimizer); i++) {
      const char *name;
      fn_optimizer_scalar(optimizer, i, &name);
      if (H5Aexists(group, name) <= 0) note(&m->missing, &m->missing_count, "optimizer", name);
    }
  } else {
    int64_t steps = 0;
    status = fn_state_get_integer(group, "step", &steps);
    if (status == FN_OK) fn_optimizer_set_steps(optimizer, steps);
    for (int i = 0; i < fn_optimizer_scalar_count(optimizer) && status == FN_OK; i++) {
      const char *name;
      double *value = fn_optimizer_scalar(optimizer, i, &name);
      if (H5Aexists(group, name) > 0) status = fn_state_get_real(group, name, value);
    }
  }
  H5Gclose(group);
  return status;
}

/** First pass (load false): gather what does not fit, touch nothing. Second: read. */
static fn_status visit_state(hid_t file, fn_state *state, misfits *m, bool load) {
  const fn_parameters *parameters = state->parameters;
  if (parameters) {
    const tensor_group model = {"model",           parameters,         PARAMETERS | BUFFERS,
                                parameters->dtype, parameters->values, m};
    FN_TRY(visit_tensors(file, &model, load));
    if (state->optimizer) FN_TRY(visit_optimizer(file, state, m, load));
    // Averaging may be switched on by a restart: then it starts from the weights.
    if (state->ema && H5Lexists(file, "ema", H5P_DEFAULT) > 0) {
      const tensor_group ema = {"ema", parameters, PARAMETERS, FN_F32, state->ema, m};
      FN_TRY(visit_tensors(file, &ema, load));
    } else if (state->ema && load && parameters->dtype == FN_F32) {
      memcpy(state->ema, parameters->values, (size_t)parameters->count * sizeof *state->ema);
    }
  }
  const bool schedule = H5Lexists(file, "schedule", H5P_DEFAULT) > 0;
  const bool progress = H5Lexists(file, "progress", H5P_DEFAULT) > 0;
  if (!load && state->schedule && !schedule) note(&m->missing, &m->missing_count, "", "schedule");
  if (!load && state->progress && !progress) note(&m->missing, &m->missing_count, "", "progress");
  if (load && state->schedule && schedule)
    FN_TRY(load_members(file, "schedule", schedule_members, SCHEDULE_MEMBERS, state->schedule));
  if (load && state->progress && progress) FN_TRY(load_progress(file, state->progress));
  return FN_OK;
}

static fn_status check_format(hid_t file, const char *path) {
  const hid_t group = H5Gopen2(file, "version", H5P_DEFAULT);
  FN_CHECK(group >= 0, FN_ERR_CHECKPOINT, "%s is not a fieldnet state: it has no /version", path);
  int64_t format = 0;
  const fn_status status = fn_state_get_integer(group, "format", &format);
  H5Gclose(group);
  FN_TRY(status);
  FN_CHECK(format == FORMAT_VERSION, FN_ERR_CHECKPOINT,
           "%s has state format %lld, this fieldnet reads format %d", path, (long long)format,
           FORMAT_VERSION);
  return FN_OK;
}

static fn_status load_contents(hid_t file, const char *path, bool strict, fn_state *state,
                               char **configuration) {
  FN_TRY(check_format(file, path));
  misfits m = {0};
  fn_status status = visit_state(file, state, &m, false);
  if (status == FN_OK) status = judge(&m, path, strict);
  misfits_free(&m);
  FN_TRY(status);
  if (state->parameters) fn_parameters_changed(state->parameters);
  FN_TRY(visit_state(file, state, NULL, true));
  if (configuration && H5Lexists(file, "configuration", H5P_DEFAULT) > 0)
    FN_TRY(fn_state_get_text(file, "configuration", configuration));
  return FN_OK;
}

fn_status fn_checkpoint_load(const char *path, bool strict, fn_state *state, char **configuration) {
  if (configuration) *configuration = NULL;
  hid_t file;
  fn_hdf5_lock();
  fn_status status = fn_state_open(path, FN_STATE_SEAL, &file);
  if (status == FN_OK) {
    status = load_contents(file, path, strict, state, configuration);
    H5Fclose(file);
  }
  fn_hdf5_unlock();
  return status == FN_OK ? FN_OK : fn_error_context(FN_ERR_CHECKPOINT, "cannot load state");
}

static fn_status verify(const char *path, fn_state_care care) {
  hid_t file;
  fn_hdf5_lock();
  fn_status status = fn_state_open(path, care, &file);
  if (status == FN_OK) {
    status = check_format(file, path);
    H5Fclose(file);
  }
  fn_hdf5_unlock();
  return status;
}

fn_status fn_checkpoint_verify(const char *path) {
  return verify(path, FN_STATE_VALUES);
}

int64_t fn_state_whole_epoch(const char *path) {
  fn_progress progress;
  int64_t epoch = -2;
  fn_hdf5_lock();
  const hid_t access = fn_hdf5_read_access();
  const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access);
  H5Pclose(access);
  if (file >= 0) {
    if (load_progress(file, &progress) == FN_OK)
      epoch = progress.epoch_step == 0 && progress.stretches == 0 ? progress.epoch : -1;
    else
      fn_error_clear(); // the answer tells it
    H5Fclose(file);
  }
  fn_hdf5_unlock();
  return epoch;
}
