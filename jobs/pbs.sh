#!/bin/bash
# Train under PBS Pro or OpenPBS: qsub jobs/pbs.sh
#
# Edit: select (nodes, cores, ranks and GPUs of each), walltime, queue, project, modules, names.
#PBS -N fieldnet
#PBS -l select=2:ncpus=32:mpiprocs=2:ompthreads=16
#PBS -l walltime=04:00:00
##PBS -q my_queue
##PBS -A my_project
#PBS -j oe
#PBS -r y
cd "$PBS_O_WORKDIR" || exit 1
RUN=${RUN:-run.yaml}
FIELDNET=${FIELDNET:-fieldnet}

# module load openmpi hdf5

# PBS sends SIGTERM and soon after SIGKILL, which is late for a save: the run keeps its own clock.
# Keep this equal to walltime.
walltime=$((4 * 3600))
export FIELDNET_JOB_END=$(($(date +%s) + walltime)) OMP_WAIT_POLICY=passive

# An Open MPI built with PBS support finds the nodes itself; otherwise: --hostfile "$PBS_NODEFILE".
mpirun --map-by ppr:2:node:PE=16 "$FIELDNET" train "$RUN"
code=$?

# 75: stopped with a state to go on from; the next job takes over.
[ $code -ne 75 ] || qsub "$PBS_O_WORKDIR/jobs/pbs.sh"
exit $code
