# A rank that stands still, and one that is killed, end the job with a message; the next start goes on.
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/run.yaml"
settings=(train.log_interval=1 checkpoint.every_epochs=20 checkpoint.best=null report.verbosity=quiet)

expect 0 "whole run" train 3 "$folder/run.yaml" "$folder/whole" "${settings[@]}" train.epochs=100 run.hang_timeout=60

# strike SIGNAL: a job of three whose second rank gets the signal after the first state
strike() {
  local into=$folder/$1 arguments=() setting
  for setting in "folder=$into" "${settings[@]}" train.epochs=1000000 run.hang_timeout=8; do arguments+=(--set "$setting"); done
  mkdir -p "$into"
  cat >"$folder/rank.sh" <<END
echo \$\$ >"$into/pid.\$OMPI_COMM_WORLD_RANK"
exec "\$@"
END
  "$MPIRUN" -n 3 bash "$folder/rank.sh" "$FIELDNET" train "$folder/run.yaml" "${arguments[@]}" >"$folder/log" 2>&1 &
  local job=$!
  wait_for "a state before $1" test -e "$into/checkpoint.h5"
  sleep 1 # some beats
  local struck=$SECONDS
  kill "-$1" "$(cat "$into/pid.1")"
  wait $job
  status=$?
  took=$((SECONDS - struck))
  [ $status -ne 0 ] && [ $status -ne 75 ] || fail "$1: exit status $status"
  [ $took -le 120 ] || fail "$1: the job ended $took s after the signal"
}
strike STOP
grep -q "does not get on" "$folder/log" || fail "a rank that stands still: no message"
grep -Eq "^  rank 1 on [^ ]+, step [1-9][0-9]*, [a-z]" "$folder/log" || fail "the rank that stands still is not named"
grep -Eq "^  rank (0|2) on" "$folder/log" && fail "a rank that only waits is named"
[ $status -eq 9 ] || fail "a rank that stands still: exit status $status"
echo "stopped rank named after $took s: $(grep -E '^  rank 1 on' "$folder/log")"
strike KILL
echo "killed rank: the job ended after $took s"

for signal in STOP KILL; do
  epoch=$(progress "$folder/$signal" epoch)
  [ "$epoch" -ge 20 ] || fail "$signal: no state"
  expect 0 "after $signal" train 3 "$folder/run.yaml" "$folder/$signal" "${settings[@]}" train.epochs=$((epoch + 20))
  [ "$(progress "$folder/$signal" epoch)" -eq $((epoch + 20)) ] || fail "$signal: not gone on with"
done
if [ -e "$folder/STOP/state_100.h5" ]; then
  same_state "$folder/whole/state_100.h5" "$folder/STOP/state_100.h5" "with and without a watchdog that barks"
fi
echo "the watchdog is awake"
