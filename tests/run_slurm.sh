# The batch scripts of `fieldnet job` on a SLURM cluster of two nodes: time limit, requeue, resume, lost ranks.
. "$(dirname "$0")/train_common.sh"
shopt -s extglob
cluster=$(realpath "$(dirname "$0")/slurm/cluster") # the script changes its folder
scratch=$(mktemp -d /tmp/fieldnet-slurm.XXXXXX) # short: socket names have a limit
stop_cluster() {
  "$cluster" stop "$scratch" >/dev/null 2>&1 || echo "the cluster in $scratch does not stop"
  rm -rf "$scratch"
  cleanup
}
trap stop_cluster EXIT
trap "exit 1" TERM INT HUP
"$cluster" start "$scratch" >"$folder/log" 2>&1
case $? in
  0) ;;
  77) cat "$folder/log"; exit 77 ;;
  *) fail "the cluster does not start" ;;
esac
export SLURM_CONF=$scratch/slurm.conf
# Both nodes are this machine, where Open MPI's shared memory would take ranks of one number for each other.
printf '%s\n' '#SBATCH --comment=from-the-site-file' 'export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo' >"$folder/site"
export FIELDNET_SITE=$folder/site
cd "$folder"
# What the jobs said, the latest last, beside what the command at fault did.
fail() {
  local output
  echo "FAILED: $*"
  for output in $(ls -tr "$folder"/*.out "$folder"/*/*.out 2>/dev/null | tail -4); do tail -n 12 -v "$output"; done
  tail -20 "$folder/log"
  exit 1
}
make_data
write_run "$folder/run.yaml"
settings=(train.epochs=400 train.log_interval=1 checkpoint.every_epochs=1000 checkpoint.best=null)

# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ $SECONDS -lt $limit ] || {
      squeue
      fail "waited in vain for $what"
    }
    sleep 0.3
  done
}
# A controller that is busy may give no answer, which says nothing of the job.
ended() { case $(scontrol -o show job "$1" 2>/dev/null) in *JobState=@(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL)" "*) ;; *) false ;; esac; }
rows_beyond() { [ -f "$1/steps.csv" ] && [ "$(wc -l <"$1/steps.csv")" -gt "$2" ]; }

# job FOLDER OPTION... -- key=value...: number of the job submitted
job() {
  local into=$1 options=() set=() setting
  shift
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  for setting in "folder=$into" "$@"; do set+=(--set "$setting"); done
  "$FIELDNET" job "$folder/run.yaml" --nodes 2 --ranks-per-node 2 "${options[@]}" "${set[@]}" --submit >"$folder/log" 2>&1 ||
    fail "job"
  sed -n 's/^submitted job \([0-9]*\).*/\1/p' "$folder/log"
}

# Gradients are added by nodes: without SLURM, too, two ranks are a node.
FIELDNET_NODE_RANKS=2 expect 0 "whole run" train 4 "$folder/run.yaml" "$folder/whole" "${settings[@]}"

# Processes that do not know each other are told so, once.
srun --mpi=none -n 3 "$FIELDNET" check "$folder/run.yaml" >"$folder/log" 2>&1
[ "$(grep -c 'each of them is alone: use srun --mpi=pmix' "$folder/log")" -eq 1 ] || fail "srun without PMIx: no message, or many"
grep -q "exit code 2" "$folder/log" || fail "srun without PMIx: exit code"

# A time limit of a minute, all but a few seconds of which are kept back: several starts, each put back by itself.
FIELDNET_NODE_RANKS=2 expect 0 "long run" train 4 "$folder/run.yaml" "$folder/long" "${settings[@]}" train.epochs=1000
own=$(job "$folder/own" --time 1 -- "${settings[@]}" train.epochs=1000 run.time_margin=46)
wait_for 600 "the job that stops by its own clock" ended "$own"
same_state "$folder/long/state_1000.h5" "$folder/own/state_1000.h5" "requeued by its own clock"
same_rows "$folder/long" "$folder/own" "requeued by its own clock"
grep -Eq "^0-1 +[^ ]+ \(n1\) +cpu" "$folder/own/slurm-$own.out" || fail "the table of ranks does not name the node"
starts=$(grep -c "time limit is near" "$folder/own/slurm-$own.out")
[ "$starts" -ge 1 ] || fail "it never stopped"
grep -q "4 ranks" "$folder/own/slurm-$own.out" || fail "not one job of 4 ranks"
echo "stopped by its own clock $starts times, same numbers"

# A node's ranks killed: the job is put back and goes on from the last state.
lost=$(job "$folder/lost" --time 10 -- "${settings[@]}" checkpoint.every_epochs=20)
wait_for 120 "a state" test -e "$folder/lost/checkpoint.h5"
victims=$(pgrep -f "folder=$folder/lost" | while read -r pid; do
  tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qx SLURM_NODEID=1 && echo "$pid"
done)
[ -n "$victims" ] || fail "no ranks on the second node"
kill -KILL $victims
wait_for 400 "the job that lost a node" ended "$lost"
grep -q "failure 1 in a row" "$folder/lost/slurm-$lost.out" || fail "the loss was not noticed"
same_state "$folder/whole/state_400.h5" "$folder/lost/state_400.h5" "ranks of a node killed"
echo "lost $(echo $victims | wc -w) processes of a node, same numbers"

# The template in jobs/, submitted as its comment says; the site's lines through the environment.
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo
sed "s|^folder:.*||; s|^train:.*|train: {epochs: 400, batch: 2, log_interval: 1, stop_after_steps: 700}|" "$folder/run.yaml" >"$folder/template.yaml"
printf 'folder: %s\ncheckpoint: {every_epochs: 1000, best: null}\n\n' "$folder/template" \
  >>"$folder/template.yaml"
template=$(sbatch --parsable --time=10 --export="ALL,RUN=$folder/template.yaml,FIELDNET=$FIELDNET" "$SOURCE_DIR/jobs/slurm.sbatch")
wait_for 400 "the template's job" ended "$template"
same_state "$folder/whole/state_400.h5" "$folder/template/state_400.h5" "the template's job"
echo "the template's job is done, same numbers"

# A chain of jobs that may not be put back, by the command and by the template.
sed "s|$folder/template|$folder/chain|" "$folder/template.yaml" >"$folder/chain.yaml"
RUN=$folder/chain.yaml FIELDNET=$FIELDNET "$SOURCE_DIR/jobs/slurm-chain.sh" 2 --time=10 >"$folder/log" || fail "slurm-chain.sh"
last=$(awk 'END { print $2 }' "$folder/log")
chain=$(job "$folder/links" --time 10 --chain 3 -- "${settings[@]}" train.stop_after_steps=500 | tail -1)
wait_for 400 "the chains" ended "$chain"
wait_for 400 "the chains" ended "$last"
same_state "$folder/whole/state_400.h5" "$folder/links/state_400.h5" "a chain of jobs"
same_state "$folder/whole/state_400.h5" "$folder/chain/state_400.h5" "the chain of the template"
echo "chains are done, same numbers"

# A halt file ends a job that would put itself back, and all jobs of a chain; blanks and % in the folder's name.
halted=$(job "$folder/50% halted" --time 10 -- "${settings[@]}" train.epochs=100000000)
links=$(job "$folder/halted" --time 10 --chain 3 -- "${settings[@]}" train.epochs=100000000 | tail -1)
wait_for 120 "steps before the halt file" rows_beyond "$folder/50% halted" 20
wait_for 120 "steps before the halt file" rows_beyond "$folder/halted" 20
touch "$folder/50% halted/halt" "$folder/halted/halt"
wait_for 60 "the halted job" ended "$halted"
wait_for 60 "the halted chain" ended "$links"
scontrol show job "$halted" | grep -q "Restarts=0.* ExitCode=76:0" || fail "the halted job was put back, or ended otherwise"
grep -q "halt found" "$folder/halted/slurm-$links.out" || fail "the last job of the chain does not know of the halt file"
[ "$(grep -c "going on from" "$folder"/halted/slurm-*.out | awk -F: '{ n += $2 } END { print n }')" -eq 2 ] || fail "not three starts"
[ "$(cut -d, -f1 "$folder/halted/steps.csv" | tail -1)" -eq "$(progress "$folder/halted" step)" ] || fail "steps after the halt file"
echo "halted jobs stay where they are"

# SLURM's own signal before the time limit, which comes within half a minute of its time.
limit=$(job "$folder/signal" --time 1 --warning 45 -- "${settings[@]}" train.epochs=100000000 run.time_limit=none)
wait_for 120 "SIGUSR1 before the time limit" grep -qs "interrupted after" "$folder/signal/slurm-$limit.out"
pending() { [ "$(squeue -h -j "$1" -o %T)" = PENDING ]; }
wait_for 30 "the requeue" pending "$limit"
scancel "$limit"
[ "$(progress "$folder/signal" step)" -gt 0 ] || fail "nothing was saved at the signal"
echo "the signal before the time limit is heeded"
