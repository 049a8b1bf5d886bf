# SIGTERM, SIGINT and SIGUSR1 end a run on all ranks with a state that goes on exactly; SIGUSR2 saves only.
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/run.yaml"

# One rank of a job: leaves its process id and, at the end, its exit status.
cat >"$folder/rank.sh" <<'END'
trap '' TERM INT USR1 USR2
"$@" &
echo $! >"$RECORD/pid.$OMPI_COMM_WORLD_RANK.new"
mv "$RECORD/pid.$OMPI_COMM_WORLD_RANK.new" "$RECORD/pid.$OMPI_COMM_WORLD_RANK"
wait $!
status=$?
echo $status >"$RECORD/status.$OMPI_COMM_WORLD_RANK"
exit $status
END

settings=(train.epochs=300 train.log_interval=1 checkpoint.every_epochs=100 checkpoint.best=null report.verbosity=quiet)
expect 0 "whole run" train 2 "$folder/run.yaml" "$folder/whole" "${settings[@]}"

# strike SIGNAL launcher|rank EPOCHS PATIENCE: a job of two, signalled after some steps, then ended; its exit status in $status
strike() {
  local signal=$1 to=$2 into=$folder/$1.$2 arguments=() launch=() setting patience=$4
  for setting in "folder=$into" "${settings[@]}" "train.epochs=$3"; do arguments+=(--set "$setting"); done
  rm -rf "$into"
  mkdir -p "$into"
  [ "$to" = rank ] && launch=(bash "$folder/rank.sh")
  RECORD=$into "$MPIRUN" -x RECORD -n 2 --mca odls_base_sigkill_timeout $patience ${launch[@]+"${launch[@]}"} \
    "$FIELDNET" train "$folder/run.yaml" "${arguments[@]}" >"$folder/log" 2>&1 &
  local job=$!
  wait_for "steps before $signal" rows_beyond "$into" 20
  if [ "$to" = rank ]; then
    kill "-$signal" "$(cat "$into/pid.1")" # the other one hears of it from its neighbour
  else
    kill "-$signal" $job
  fi
  status=0
  wait $job || status=$?
}
# The newest state is that of the last step.
saved_when_stopped() { [ -e "$1/checkpoint.h5" ] && [ "$(progress "$1" step)" -eq $(($(lines "$1/steps.csv") - 1)) ]; }
# On a busy machine the run may be over before its signal comes, or mpirun may lose its patience with ranks that are slow to
# end: then once more.
stop() {
  local signal=$1 to=$2 into=$folder/$1.$2 patience steps
  for patience in 1 4 16 60; do
    strike "$signal" "$to" "$3" $patience
    [ $status -eq 0 ] && continue
    if [ "$to" = rank ]; then
      [ -e "$into/status.0" ] && [ -e "$into/status.1" ] && break
    else
      saved_when_stopped "$into" && break
    fi
  done
  [ $status -ne 0 ] || fail "$signal to $to: the run was over before it"
  if [ "$to" = rank ]; then
    [ "$(cat "$into"/status.[01] | tr '\n' ' ')" = "75 75 " ] || fail "$signal: exit statuses $(cat "$into"/status.*)"
  fi
  saved_when_stopped "$into" || fail "$signal to $to: $(lines "$into/steps.csv") lines of steps, but a state of step $(progress "$into" step)"
  steps=$(progress "$into" step)
  [ "$steps" -ge 20 ] && [ "$steps" -lt $((6 * $3)) ] || fail "$signal to $to: stopped at step '$steps'"
}
# and gone on with: the end is that of the whole run
stop_and_go_on() {
  stop "$1" "$2" 300
  expect 0 "after $1" train 2 "$folder/run.yaml" "$folder/$1.$2" "${settings[@]}"
  same_state "$folder/whole/state_300.h5" "$folder/$1.$2/state_300.h5" "$1 to $2"
  same_rows "$folder/whole" "$folder/$1.$2" "$1 to $2"
}
stop_and_go_on TERM rank
stop_and_go_on INT rank
stop_and_go_on USR1 rank
stop_and_go_on USR1 launcher
# mpirun sends SIGCONT, waits, SIGTERM, waits, SIGKILL, and meanwhile passes on no output (hence the quiet runs)
stop TERM launcher 100000
steps_at_term=$(progress "$folder/TERM.launcher" step)
expect 75 "after TERM" train 2 "$folder/run.yaml" "$folder/TERM.launcher" "${settings[@]}" train.epochs=100000 \
  train.stop_after_steps=1
[ "$(progress "$folder/TERM.launcher" step)" -eq $((steps_at_term + 1)) ] || fail "TERM: not gone on with"

# SIGUSR2: a state appears, the run goes on
"$FIELDNET" train "$folder/run.yaml" --set "folder=$folder/save" --set train.epochs=100000 --set train.log_interval=1 \
  --set checkpoint.every_epochs=100000 --set checkpoint.best=null >"$folder/log" 2>&1 &
job=$!
wait_for "steps before USR2" rows_beyond "$folder/save" 20
[ -e "$folder/save/checkpoint.h5" ] && fail "a state before it was asked for"
kill -USR2 $job
wait_for "the state asked for" test -e "$folder/save/checkpoint.h5"
saved=$(progress "$folder/save" step)
wait_for "steps after the save" rows_beyond "$folder/save" $((saved + 20))
[ "$(progress "$folder/save" step)" -eq "$saved" ] || fail "one request, more than one state"
kill -INT $job
wait $job
[ $? -eq 75 ] || fail "SIGINT: exit status"
[ "$(progress "$folder/save" step)" -gt "$saved" ] || fail "nothing saved when stopped"

# SIGUSR2 when every step is the last of its epoch: one state, and the run goes on
"$FIELDNET" train "$folder/run.yaml" --set "folder=$folder/last" --set train.epochs=100000 --set train.batch=24 \
  --set train.log_interval=1 --set checkpoint.every_epochs=100000 --set checkpoint.best=null >"$folder/log" 2>&1 &
job=$!
wait_for "steps before USR2" rows_beyond "$folder/last" 20
kill -USR2 $job
wait_for "the state asked for in an epoch's last step" test -e "$folder/last/checkpoint.h5"
saved=$(progress "$folder/last" step)
wait_for "steps after the save" rows_beyond "$folder/last" $((saved + 20))
[ "$(progress "$folder/last" step)" -eq "$saved" ] || fail "one request in the last step, more than one state"
kill -INT $job
wait $job
[ $? -eq 75 ] || fail "SIGINT: exit status"

# a stop during validation, which is far longer than the 3 steps before it: no step more
mkdir -p "$folder/many/lin" "$folder/many/lpt2"
for i in $(seq 1000 1599); do
  ln -s "$folder/data/lin/000.npy" "$folder/many/lin/$i.npy"
  ln -s "$folder/data/lpt2/000.npy" "$folder/many/lpt2/$i.npy"
done
# (A signal may also land in the few milliseconds of the steps: then once more.)
for attempt in $(seq 8); do
  rm -rf "$folder/long"
  "$MPIRUN" -n 2 "$FIELDNET" train "$folder/run.yaml" --set "folder=$folder/long" --set train.batch=4 --set train.log_interval=1 \
    --set "data.validation.input=$folder/many/lin/*.npy" --set "data.validation.target=$folder/many/lpt2/*.npy" \
    --set checkpoint.every_epochs=100 --set checkpoint.best=null --set train.epochs=100 >"$folder/log" 2>&1 &
  job=$!
  wait_for "the last step of the first epoch" rows_beyond "$folder/long" 3
  kill -USR1 $job
  wait $job
  step=$(progress "$folder/long" step)
  [ "$step" -eq $((3 * $(progress "$folder/long" epoch))) ] && break
done
[ "$step" -eq $((3 * $(progress "$folder/long" epoch))) ] ||
  fail "stopped during validation at step $step, epoch $(progress "$folder/long" epoch)"
echo "signals are met"
