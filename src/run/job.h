/** @file job.h
 *  Batch scripts for SLURM: one run, or each trial of a sweep, stopped before its time limit,
 *  requeued until it is done.
 */
#ifndef FN_RUN_JOB_H
#define FN_RUN_JOB_H

#include <fieldnet/fieldnet.h>

#include "base/text.h"

typedef struct fn_job {
  const char *program;    /**< absolute path of fieldnet */
  const char *command;    /**< train, test, predict or sweep run */
  const char *run_path;   /**< RUN.yaml, as given; relative to working_folder */
  const char *folder;     /**< for the script's output */
  const char *const *set; /**< "key=value", shape [set_count] */
  int set_count;
  const char *working_folder;
  const char *name; /**< of the job */
  int64_t tasks;    /**< of an array of jobs, which take the trial of their number; 0: one job */
  int64_t cap;      /**< tasks that run at the same time; 0: as many as fit */
  int64_t nodes, ranks_per_node;
  int64_t cpus_per_rank; /**< 0: left to the scheduler */
  int64_t gpus_per_node; /**< 0: none */
  const char *time;      /**< as SLURM writes it, e.g. "12:00:00"; NULL: the partition's */
  const char *partition, *account, *qos, *memory; /**< NULL: the site's default */
  int64_t warning;                                /**< seconds between SIGUSR1 and the time limit */
  int64_t retries;      /**< crashes in a row after which the job is not started again */
  bool requeue;         /**< go on in the same job; false: `chain` jobs after each other */
  const char *mpi;      /**< of srun --mpi */
  const char *launcher; /**< srun, or mpirun inside the allocation */
  const char *site;     /**< text of the site file (module loads, #SBATCH lines); may be NULL */
} fn_job;

/** The script. FN_ERR_CONFIG when a text cannot stand in it (line breaks). */
fn_status fn_job_script(const fn_job *job, fn_text *script);

#endif
