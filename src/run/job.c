#include "run/job.h"

#include <stdio.h>
#include <string.h>

/** 'text' for a POSIX shell. */
static void add_quoted(fn_text *script, const char *text) {
  fn_text_add(script, "'");
  for (const char *c = text; *c; c++) {
    if (*c == '\'')
      fn_text_add(script, "'\\''");
    else
      fn_text_add_bytes(script, c, 1);
  }
  fn_text_add(script, "'");
}

/** A value as sbatch reads it: bare where it is one plain word, else in quotes. */
static void add_value(fn_text *script, const char *value) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "_-+.,:;/=@%^~()[]{}";
  if (value[0] && !value[strspn(value, plain)]) {
    fn_text_add(script, "%s", value);
    return;
  }
  fn_text_add(script, "\"");
  for (const char *c = value; *c; c++) {
    if (*c == '"' || *c == '\\') fn_text_add(script, "\\");
    fn_text_add_bytes(script, c, 1);
  }
  fn_text_add(script, "\"");
}

static fn_status check_line(const char *what, const char *text) {
  FN_CHECK(!text || !strpbrk(text, "\n\r"), FN_ERR_CONFIG, "the %s of the job holds a line break",
           what);
  return FN_OK;
}

static fn_status check_lines(const fn_job *job) {
  FN_TRY(check_line("name", job->name));
  FN_TRY(check_line("time", job->time));
  FN_TRY(check_line("partition", job->partition));
  FN_TRY(check_line("account", job->account));
  FN_TRY(check_line("qos", job->qos));
  FN_TRY(check_line("memory", job->memory));
  FN_TRY(check_line("MPI type", job->mpi));
  FN_TRY(check_line("program's path", job->program));
  FN_TRY(check_line("working folder", job->working_folder));
  FN_TRY(check_line("output folder", job->folder));
  return check_line("configuration file's path", job->run_path);
}

static void add_directive(fn_text *script, const char *option, const char *value) {
  if (!value) return;
  fn_text_add(script, "#SBATCH --%s=", option);
  add_value(script, value);
  fn_text_add(script, "\n");
}

static void add_number(fn_text *script, const char *option, int64_t value) {
  if (value > 0) fn_text_add(script, "#SBATCH --%s=%lld\n", option, (long long)value);
}

/** Lines of the site file: #SBATCH lines belong above the first command, the rest below. */
static void add_site(fn_text *script, const char *site, bool directives) {
  for (const char *line = site; line && *line;) {
    const char *end = strchr(line, '\n');
    const size_t length = end ? (size_t)(end - line) : strlen(line);
    if (fn_text_starts(line, "#SBATCH") == directives) {
      fn_text_add_bytes(script, line, length);
      fn_text_add(script, "\n");
    }
    line = end ? end + 1 : NULL;
  }
}

/** --array=0-11%3: trial numbers, at most 3 of them at a time. */
static void add_array(const fn_job *job, fn_text *script) {
  if (job->tasks == 0) return;
  fn_text_add(script, "#SBATCH --array=0-%lld", (long long)job->tasks - 1);
  if (job->cap > 0) fn_text_add(script, "%%%lld", (long long)job->cap);
  fn_text_add(script, "\n");
}

/** Where the script's own output goes. % stands for the job's number and the like, in the working
 *  folder too, which SLURM puts before a relative path. */
static void add_output(const fn_job *job, fn_text *script) {
  fn_text path = {0}, output = {0};
  if (job->folder[0] != '/') fn_text_add(&path, "%s/", job->working_folder);
  fn_text_add(&path, "%s", job->folder);
  for (const char *c = path.data; c && *c; c++) {
    fn_text_add_bytes(&output, c, 1);
    if (*c == '%') fn_text_add_bytes(&output, c, 1);
  }
  fn_text_add(&output, "/slurm-%s.out", job->tasks ? "%A_%a" : "%j");
  add_directive(script, "output", output.data);
  fn_text_free(&output);
  fn_text_free(&path);
}

static void add_header(const fn_job *job, fn_text *script) {
  fn_text_add(script, "#!/bin/bash\n");
  add_directive(script, "job-name", job->name);
  add_array(job, script);
  add_number(script, "nodes", job->nodes);
  add_number(script, "ntasks-per-node", job->ranks_per_node);
  add_number(script, "cpus-per-task", job->cpus_per_rank);
  add_number(script, "gpus-per-node", job->gpus_per_node);
  add_directive(script, "time", job->time);
  add_directive(script, "partition", job->partition);
  add_directive(script, "account", job->account);
  add_directive(script, "qos", job->qos);
  add_directive(script, "mem", job->memory);
  add_directive(script, "chdir", job->working_folder);
  add_output(job, script);
  fn_text_add(script, "#SBATCH --open-mode=append\n");
  // Without "B:" the signal goes to the ranks, not to this script.
  fn_text_add(script, "#SBATCH --signal=USR1@%lld\n", (long long)job->warning);
  fn_text_add(script, job->requeue ? "#SBATCH --requeue\n" : "#SBATCH --no-requeue\n");
  add_site(script, job->site, true);
}

static void add_launch(const fn_job *job, fn_text *script) {
  if (strcmp(job->launcher, "mpirun") == 0) {
    fn_text_add(script, "mpirun --map-by ppr:%lld:node", (long long)job->ranks_per_node);
    if (job->cpus_per_rank > 0) fn_text_add(script, ":PE=%lld", (long long)job->cpus_per_rank);
  } else {
    // srun does not take --cpus-per-task over from sbatch since SLURM 22.05.
    fn_text_add(script, "srun --mpi=");
    add_quoted(script, job->mpi);
    fn_text_add(script, " --kill-on-bad-exit=1");
    if (job->cpus_per_rank > 0)
      fn_text_add(script, " --cpus-per-task=%lld --cpu-bind=cores", (long long)job->cpus_per_rank);
    if (job->gpus_per_node > 0) fn_text_add(script, " --gpu-bind=none");
  }
  fn_text_add(script, " \\\n  ");
  add_quoted(script, job->program);
  fn_text_add(script, " %s ", job->command);
  add_quoted(script, job->run_path);
  if (job->tasks) fn_text_add(script, " --trial \"$SLURM_ARRAY_TASK_ID\"");
  for (int i = 0; i < job->set_count; i++) {
    fn_text_add(script, " \\\n  --set ");
    add_quoted(script, job->set[i]);
  }
  fn_text_add(script, "\ncode=$?\n");
}

/** What to do with the exit code; the numbers are the program's own. */
static void add_ending(const fn_job *job, fn_text *script) {
  fn_text_add(script, "\nfailures=");
  char file[4096];
  snprintf(file, sizeof file, "%s/job-failures", job->folder);
  add_quoted(script, file);
  if (job->tasks) fn_text_add(script, "-\"$SLURM_ARRAY_TASK_ID\"");
  fn_text_add(script,
              "\ncase $code in\n"
              "  0) rm -f \"$failures\" ;;\n"
              "  %d) # stopped before its end, with a state to go on from\n"
              "    rm -f \"$failures\"\n",
              FN_INTERRUPTED);
  if (job->requeue) fn_text_add(script, "    scontrol requeue \"$job\"\n");
  fn_text_add(script,
              "    ;;\n"
              "  %d) # a halt file is there: not before it is removed\n"
              "    rm -f \"$failures\"\n"
              "    ;;\n"
              "  %d | %d | %d | %d) # a mistake that another try will not mend\n"
              "    echo \"fieldnet ended with exit code $code\" >&2\n"
              "    ;;\n"
              "  *) # a crash: a rank or a node lost, no answer in time\n"
              "    count=$(($(cat \"$failures\" 2>/dev/null || echo 0) + 1))\n"
              "    echo $count >\"$failures\"\n"
              "    echo \"fieldnet ended with exit code $code, failure $count in a row\" >&2\n",
              FN_HALTED, FN_ERR_CONFIG, FN_ERR_DATA, FN_ERR_DIVERGED, FN_ERR_UNSUPPORTED);
  if (job->requeue)
    fn_text_add(script,
                "    if [ $count -gt %lld ]; then\n"
                "      rm -f \"$failures\" # whoever submits it again has mended something\n"
                "    else\n"
                "      scontrol requeue \"$job\"\n"
                "    fi\n",
                (long long)job->retries);
  fn_text_add(script, "    ;;\nesac\nexit $code\n");
}

fn_status fn_job_script(const fn_job *job, fn_text *script) {
  FN_TRY(check_lines(job));
  add_header(job, script);
  // The last task of an array shares its job number with the whole array: name the task.
  if (job->tasks)
    fn_text_add(
        script,
        "\n# Written by: fieldnet sweep job. Each task takes one trial, and goes on from its "
        "last state\n# whenever it starts; a trial that is done ends at once.\n\n"
        "job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID\n");
  else
    fn_text_add(script, "\n# Written by: fieldnet job. The run goes on from its last state "
                        "whenever this job starts.\n\njob=$SLURM_JOB_ID\n");
  add_site(script, job->site, false);
  fn_text_add(script, "# When this job ends, for run.time_limit: auto.\n"
                      "end=$(squeue --noheader --job \"$job\" --format %%e) && end=$(date "
                      "-d \"$end\" +%%s) &&\n"
                      "  export FIELDNET_JOB_END=$end\n");
  fn_text_add(script, "# Idle threads leave their core to others; fieldnet pins its own threads.\n"
                      "export OMP_WAIT_POLICY=passive\n\n");
  add_launch(job, script);
  add_ending(job, script);
  FN_CHECK(!script->incomplete, FN_ERR_MEMORY, "out of memory");
  return FN_OK;
}
