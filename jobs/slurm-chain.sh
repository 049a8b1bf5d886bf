#!/bin/bash
# Where jobs may not be put back into the queue: N jobs, each waiting for the one before.
#     RUN=my_run.yaml jobs/slurm-chain.sh 5 [sbatch options]
# A job that finds the run finished ends at once. Edit jobs/slurm.sbatch, beside this file.
set -euo pipefail
jobs=${1:?how many jobs}
shift
after=()
for _ in $(seq "$jobs"); do
  id=$(sbatch --parsable --no-requeue ${after[@]+"${after[@]}"} "$@" "$(dirname "$0")/slurm.sbatch")
  id=${id%%;*}
  echo "submitted $id"
  after=("--dependency=afterany:$id")
done
