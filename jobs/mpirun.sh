#!/bin/bash
# Train without a batch system: on a workstation, or on the hosts of a host file. Starts again after
# a stop (exit codes 75 and 76 come from a signal, a limit or a halt file: then it ends) and after a crash.
#
# Edit: ranks (one per GPU, or one per socket), cores of each, the two names.
#     RANKS=4 CORES=8 HOSTFILE=hosts RUN=my_run.yaml jobs/mpirun.sh
set -u
RUN=${RUN:-run.yaml}
FIELDNET=${FIELDNET:-fieldnet}
RANKS=${RANKS:-1}
CORES=${CORES:-}
TRIES=${TRIES:-3}

export OMP_WAIT_POLICY=passive
launch=(mpirun -n "$RANKS")
[ -z "${HOSTFILE:-}" ] || launch+=(--hostfile "$HOSTFILE")
# Each rank gets its own cores; without CORES Open MPI divides sockets.
[ -z "$CORES" ] || launch+=(--map-by "slot:PE=$CORES" --bind-to core)

for try in $(seq "$TRIES"); do
  "${launch[@]}" "$FIELDNET" train "$RUN"
  code=$?
  case $code in
    0 | 75 | 76 | 2 | 3 | 4 | 8 | 130 | 143) exit $code ;;
  esac
  echo "mpirun.sh: exit code $code, try $try of $TRIES" >&2
done
exit $code
