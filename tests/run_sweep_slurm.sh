# A sweep as an array of batch jobs on a SLURM cluster of two nodes: a cap on running tasks, one call to the scheduler; a task
# killed, the scheduler restarted, time limits; every trial once to its end.
. "$(dirname "$0")/train_common.sh"
cluster=$(realpath "$(dirname "$0")/slurm/cluster")
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
printf '%s\n' 'export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo' >"$folder/site"
export FIELDNET_SITE=$folder/site
cd "$folder"
make_data
write_run "$folder/run.yaml"

# sweep NAME EPOCHS SETTINGS: 12 trials, two of which diverge
sweep() {
  {
    echo "run: run.yaml"
    echo "set: {train.epochs: $2, checkpoint.every_epochs: 10$3}"
    echo "sweep:"
    echo "  folder: $folder/$1"
    echo "  metric: train"
    echo "  parameters:"
    echo "    optimizer.lr: [1e-3, 2e-3, 3e-3, 5e-3, 8e-3, 1e+30]"
    echo "    seed: [1, 2]"
  } >"$folder/$1.yaml"
}
trial() { printf '%s/%s/trial_%04d' "$folder" "$1" "$2"; }
wait_for() { # SECONDS WHAT COMMAND...
  local limit=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    [ $SECONDS -lt $limit ] || {
      squeue
      tail -n 5 "$folder"/*/slurm-*.out
      fail "waited in vain for $what"
    }
    note_running
    sleep 0.3
  done
}
most=0 # tasks that ran at the same time; those that complete do not count for the cap
note_running() {
  local now
  now=$(squeue -h -t RUNNING -r -o %i 2>/dev/null | wc -l)
  [ "$now" -le "$most" ] || most=$now
}
# ended JOB TASKS: the scheduler says of each task that it is over. (It may also be silent for a while, or not know them yet.)
ended() {
  squeue -h -r -t all -j "$1" -o %T 2>/dev/null | awk -v tasks="$2" '
    /^(BOOT_FAIL|CANCELLED|COMPLETED|DEADLINE|FAILED|NODE_FAIL|OUT_OF_MEMORY|PREEMPTED|TIMEOUT)$/ { over++ }
    END { exit over != tasks }'
}
task_pids() { pgrep -f "^$FIELDNET sweep run $folder/$1.yaml --trial $2"; }
submit() { # NAME OPTION...: the number of the job in $job
  local name=$1
  shift
  "$FIELDNET" sweep job "$folder/$name.yaml" --submit "$@" >"$folder/log" 2>&1 || fail "sweep job"
  [ "$(grep -c "^submitted job" "$folder/log")" -eq 1 ] || fail "not one call to the scheduler"
  job=$(sed -n 's/^submitted job \([0-9]*\).*/\1/p' "$folder/log")
}

# What it comes to in one process, on as many ranks as a task has.
sweep whole 150 ""
"$MPIRUN" -n 2 "$FIELDNET" sweep run "$folder/whole.yaml" --group 2 >"$folder/log" 2>&1 || fail "the whole sweep"

sweep array 150 ""
submit array --cap 3 --ranks-per-node 2 --time 10
wait_for 300 "the second trial's first state" test -e "$(trial array 1)/checkpoint.h5"
victim=$(task_pids array 1 | tail -1)
[ -n "$victim" ] || fail "no process of trial 1"
kill -KILL "$victim"
wait_for 300 "the end of the third trial's first state" test -e "$(trial array 2)/checkpoint.h5"
"$cluster" restart "$scratch" >"$folder/log" 2>&1 || fail "the scheduler does not start again"
wait_for 1500 "the array's end" ended "$job" 12
[ "$most" -le 3 ] && [ "$most" -ge 2 ] || fail "$most tasks at the same time, the cap is 3"
cat "$folder"/array/slurm-*.out >"$folder/log"
for t in $(seq 0 9); do
  [ "$(cat "$folder"/array/slurm-*_"$t".out | grep -c "^trial $t finished")" -eq 1 ] || fail "trial $t did not finish exactly once"
  same_rows "$(trial whole $t)" "$(trial array $t)" "trial $t"
done
grep -q "failure 1 in a row" "$folder"/array/slurm-*_1.out || fail "the killed task was not noticed"
grep -q "^trial 1 starts.*attempt 2" "$folder"/array/slurm-*_1.out || fail "the killed trial was not gone on with"
for t in 10 11; do
  grep -q "^trial $t failed: .*not finite" "$folder"/array/slurm-*_"$t".out || fail "trial $t did not fail"
done
"$FIELDNET" sweep run "$folder/array.yaml" >"$folder/log" 2>&1 || fail "a start after the end"
grep -q "^12 trials: 10 finished, 0 stopped early, 2 failed, 0 left" "$folder/log" || fail "not all trials are done"
grep -q starts "$folder/log" && fail "a trial was done again"
echo "12 trials, at most $most at a time; a task killed, the scheduler restarted: each done once, same numbers"

# A halt file in the sweep's folder: the running tasks stop, those in the queue end without a step, none is put back.
sweep halted 1000000 ""
submit halted --cap 2 --time 10
wait_for 300 "a running task" test -s "$(trial halted 1)/steps.csv"
touch "$folder/halted/halt"
wait_for 900 "the halted array's end" ended "$job" 12
[ "$(grep -l "halt found" "$folder"/halted/slurm-*.out | wc -l)" -eq 12 ] || fail "not all tasks found the halt file"
[ ! -e "$(trial halted 2)" ] || fail "a task that was in the queue began its trial"
echo "a halted array stays where it is"

# The template, with a time limit that stops each task: put back by itself, done in the end.
sweep limited 600 ", run.time_margin: 50"
export OMPI_MCA_btl=self,tcp OMPI_MCA_btl_tcp_if_include=lo
sbatch --array=0-3%2 --time=1 --parsable --export="ALL,SWEEP=$folder/limited.yaml,FIELDNET=$FIELDNET" \
  "$SOURCE_DIR/jobs/slurm-sweep.sbatch" >"$folder/log" || fail "the template"
job=$(cut -d';' -f1 "$folder/log")
wait_for 1500 "the end of the template's array" ended "$job" 4
cat "$folder"/fieldnet-sweep-*.out >"$folder/log"
for t in 0 1 2 3; do
  [ "$(cat "$folder"/fieldnet-sweep-*_"$t".out | grep -c "^trial $t finished")" -eq 1 ] || fail "the template's trial $t did not finish once"
done
stops=$(grep -c "^trial [0-3] stopped after epoch" "$folder/log")
[ "$stops" -ge 1 ] || fail "the time limit stopped no task"
echo "tasks of the template stopped by their time limit $stops times and put back, all done"
