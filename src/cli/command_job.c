#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/system.h"
#include "cli/command_job.h"
#include "run/limits.h"

static const char *base_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash && slash[1] ? slash + 1 : path;
}

static fn_status one_of(const fn_command_line *line, const char *option, const char *names,
                        const char *const *name, int count, const char **value) {
  *value = fn_command_text(line, option, name[0]);
  for (int i = 0; i < count; i++)
    if (strcmp(*value, name[i]) == 0) return FN_OK;
  FN_FAIL(FN_ERR_CONFIG, "--%s: expected %s, found %s", option, names, *value);
}

/** Seconds of a time as SLURM writes it; INFINITY: none, negative: it is no such time. */
static double slurm_seconds(const char *text) {
  if (strcasecmp(text, "infinite") == 0 || strcasecmp(text, "unlimited") == 0 ||
      strcmp(text, "0") == 0)
    return (double)INFINITY;
  const double seconds = fn_duration_parse(text);
  return strpbrk(text, "-:") ? seconds : 60 * seconds; // a number alone is minutes
}

/** A signal that comes at once would stop each start, and put the job back, for ever. */
static fn_status read_time(const fn_command_line *line, fn_job *job) {
  const double limit = job->time ? slurm_seconds(job->time) : (double)INFINITY;
  FN_CHECK(limit > 0, FN_ERR_CONFIG,
           "--time: expected minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM or D-HH:MM:SS, found %s",
           job->time);
  if (limit / 5 < (double)job->warning) job->warning = limit > 25 ? (int64_t)(limit / 5) : 5;
  FN_TRY(fn_command_integer(line, "warning", 5, 65535, &job->warning));
  FN_CHECK((double)job->warning < limit, FN_ERR_CONFIG,
           "--warning: a signal %lld s before the time limit %s comes when the job starts",
           (long long)job->warning, job->time);
  return FN_OK;
}

static fn_status read_options(const fn_command_line *line, fn_job *job) {
  static const char *const commands[] = {"train", "test", "predict"}, *const launchers[] = {
                                                                          "srun", "mpirun"};
  job->name = fn_command_text(line, "name", base_name(job->folder));
  job->time = fn_command_text(line, "time", NULL);
  job->partition = fn_command_text(line, "partition", NULL);
  job->account = fn_command_text(line, "account", NULL);
  job->qos = fn_command_text(line, "qos", NULL);
  job->memory = fn_command_text(line, "mem", NULL);
  job->mpi = fn_command_text(line, "mpi", "pmix");
  if (!job->command)
    FN_TRY(one_of(line, "command", "train, test or predict", commands, 3, &job->command));
  FN_TRY(one_of(line, "launcher", "srun or mpirun", launchers, 2, &job->launcher));
  FN_TRY(fn_command_integer(line, "nodes", 1, 1000000, &job->nodes));
  FN_TRY(fn_command_integer(line, "gpus-per-node", 0, 1024, &job->gpus_per_node));
  if (job->gpus_per_node > 0) job->ranks_per_node = job->gpus_per_node;
  FN_TRY(fn_command_integer(line, "ranks-per-node", 1, 1024, &job->ranks_per_node));
  FN_TRY(fn_command_integer(line, "cpus-per-rank", 1, 4096, &job->cpus_per_rank));
  FN_TRY(read_time(line, job));
  return fn_command_integer(line, "retries", 0, 1000000, &job->retries);
}

/** Lines that this site needs in every script: --site FILE, $FIELDNET_SITE, or none. */
static fn_status read_site(const fn_command_line *line, char **site) {
  const char *path = fn_command_text(line, "site", getenv("FIELDNET_SITE"));
  *site = NULL;
  if (!path || fn_file_read(path, site, NULL) == FN_OK) return FN_OK;
  FN_FAIL(FN_ERR_CONFIG, "site file: %s", fn_error_message());
}

/** Start sbatch with its output into `output`; *child is its process. */
static fn_status start_sbatch(const char *script, const char *after, int output, pid_t *child) {
  char dependency[128];
  snprintf(dependency, sizeof dependency, "--dependency=afterany:%s", after ? after : "");
  const char *arguments[] = {"sbatch", "--parsable", after ? dependency : script,
                             after ? script : NULL, NULL};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
  const int failed =
      posix_spawnp(child, "sbatch", &actions, NULL, (char *const *)(uintptr_t)arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  FN_CHECK(failed == 0, FN_ERR_UNSUPPORTED,
           "sbatch cannot be started (%s): submit the script where SLURM is", strerror(failed));
  return FN_OK;
}

/** sbatch --parsable [--dependency=...] SCRIPT; *id is the job's number as printed. */
static fn_status submit(const char *script, const char *after, char *id, size_t size) {
  int ends[2], result = -1;
  pid_t child = -1;
  FN_CHECK(pipe2(ends, O_CLOEXEC) == 0, FN_ERR_INTERNAL, "no pipe to sbatch: %s", strerror(errno));
  const fn_status status = start_sbatch(script, after, ends[1], &child);
  close(ends[1]);
  size_t length = 0;
  for (ssize_t n; status == FN_OK && length + 1 < size; length += (size_t)n)
    if ((n = read(ends[0], id + length, size - 1 - length)) <= 0) break;
  close(ends[0]);
  FN_TRY(status);
  id[length] = '\0';
  id[strcspn(id, ";\n")] = '\0';
  waitpid(child, &result, 0);
  FN_CHECK(WIFEXITED(result) && WEXITSTATUS(result) == 0 && id[0], FN_ERR_CONFIG,
           "sbatch refused %s (its message is above)", script);
  return FN_OK;
}

/** `chain` jobs, each waiting for the end of the one before. */
static fn_status submit_all(const char *script, int64_t chain) {
  char id[128] = "", before[128];
  for (int64_t i = 0; i < chain; i++) {
    memcpy(before, id, sizeof before);
    FN_TRY(submit(script, i ? before : NULL, id, sizeof id));
    printf("submitted job %s%s%s\n", id, i ? " after " : "", i ? before : "");
  }
  return FN_OK;
}

static fn_status write_script(const fn_command_line *line, const fn_job *job, int64_t chain) {
  char path[4096];
  snprintf(path, sizeof path, "%s/job.sbatch", job->folder);
  const char *output = fn_command_text(line, "output", path);
  fn_text script = {0};
  fn_status status = fn_job_script(job, &script);
  if (status == FN_OK) status = fn_make_directories(job->folder);
  if (status == FN_OK) status = fn_file_replace_text(output, &script);
  fn_text_free(&script);
  FN_TRY(status);
  printf("wrote %s\n", output);
  if (fn_command_given(line, "submit")) return submit_all(output, chain);
  printf("submit it with: sbatch %s\n", output);
  return FN_OK;
}

fn_status fn_job_write(const fn_command_line *line, fn_job *job, int64_t chain) {
  char program[4096], folder[4096];
  const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
  FN_CHECK(length > 0 && getcwd(folder, sizeof folder), FN_ERR_INTERNAL,
           "the program's own path is unknown: %s", strerror(errno));
  program[length] = '\0';
  job->program = program;
  job->working_folder = folder;
  job->nodes = job->ranks_per_node = 1;
  job->warning = 300;
  job->retries = 3;
  FN_TRY(read_options(line, job));
  char *site;
  FN_TRY(read_site(line, &site));
  job->site = site;
  const fn_status status = write_script(line, job, chain);
  free(site);
  return status;
}

fn_status fn_command_job(const fn_command_line *line) {
  fn_run *run = NULL;
  FN_TRY(fn_command_load(line, FN_COMMAND_OTHER, 0, &run));
  int64_t chain = 0;
  fn_status status = fn_command_integer(line, "chain", 1, 1000, &chain);
  fn_job job = {.run_path = line->run_path,
                .set = line->set,
                .set_count = line->set_count,
                .folder = run->folder,
                .requeue = chain == 0};
  if (status == FN_OK) status = fn_job_write(line, &job, chain > 0 ? chain : 1);
  fn_run_destroy(run);
  return status;
}
