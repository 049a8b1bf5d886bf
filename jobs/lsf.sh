#!/bin/bash
# Train under LSF: bsub < jobs/lsf.sh
#
# Edit: ranks (-n), ranks per node (ptile), cores and GPUs per rank, -W, queue, project, modules.
#BSUB -J fieldnet
#BSUB -n 4
#BSUB -R "span[ptile=2] affinity[core(16)]"
##BSUB -gpu "num=2:mode=shared:j_exclusive=yes"
#BSUB -W 04:00
##BSUB -q my_queue
##BSUB -P my_project
#BSUB -o fieldnet-%J.out
# SIGUSR1 five minutes before the end: the ranks save and leave with exit code 75, which LSF then
# puts back into the queue.
#BSUB -wa USR1 -wt 5
#BSUB -Q "75"
#BSUB -r
RUN=${RUN:-run.yaml}
FIELDNET=${FIELDNET:-fieldnet}

# module load openmpi hdf5

export OMP_WAIT_POLICY=passive
# exec: the signal and the exit code are those of mpirun, which passes SIGUSR1 on to the ranks.
exec mpirun "$FIELDNET" train "$RUN"
