# Trials of a sweep in one process and in groups of ranks: the same numbers whichever way; failures recorded, stops resumed,
# nothing done twice.
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/run.yaml"
sed -i "s|^train:.*|train: {epochs: 4, batch: 2, log_interval: 1}|" "$folder/run.yaml"

# sweep NAME EPOCHS [LINE...]: a sweep of 2 x 3 trials, two of which diverge, in folder NAME
sweep() {
  local name=$1 epochs=$2
  shift 2
  {
    echo "run: run.yaml"
    echo "set: {train.epochs: $epochs}"
    echo "sweep:"
    echo "  folder: $folder/$name"
    echo "  metric: train"
    printf '  %s\n' "$@"
    echo "  parameters:"
    echo "    optimizer.lr: [${RATES:-1e-3, 3e-3, 1e+30}]"
    echo "    seed: [1, 2]"
  } >"$folder/$name.yaml"
}

# work RANKS NAME [OPTION...]: exit status; output in $folder/log
work() {
  local ranks=$1 name=$2
  shift 2
  if [ "$ranks" -eq 1 ]; then
    "$FIELDNET" sweep run "$folder/$name.yaml" "$@" >"$folder/log" 2>&1
  else
    "$MPIRUN" -n "$ranks" "$FIELDNET" sweep run "$folder/$name.yaml" "$@" >"$folder/log" 2>&1
  fi
}
trial() { printf '%s/%s/trial_%04d' "$folder" "$1" "$2"; }
same_trials() { # NAME NAME WHAT TRIAL...
  local a=$1 b=$2 what=$3 t
  shift 3
  for t in "$@"; do same_rows "$(trial "$a" "$t")" "$(trial "$b" "$t")" "$what, trial $t"; done
}
said() { [ "$(grep -c "$1" "$folder/log")" -eq "$2" ] || fail "not $2 times in the log: $1"; }

# One process. The trials with a learning rate of 1e30 fail, the others go on; the second start has nothing to do.
sweep one 4
expect 0 "one process" work 1 one
said "^trial [0-9]* starts" 6
said "^trial [45] failed: .*not finite" 2
said "^trial [0-3] finished in .*train .* in epoch" 4
said "^6 trials: 4 finished, 0 stopped early, 2 failed, 0 left" 1
grep -q "not finite" "$(trial one 4)/trial.log" || fail "the log of a trial that failed does not say why"
grep -q "epoch 4/4 done" "$(trial one 0)/trial.log" || fail "no epochs in the log of a trial"
expect 0 "nothing left" work 1 one
said "starts" 0
expect 4 "a trial that failed, named" work 1 one --trial 4
expect 0 "a trial that is done, named" work 1 one --trial 3
said "starts" 0
expect 2 "a trial that does not exist" work 1 one --trial 6
expect 2 "a trial that does not exist" work 1 one --trials 0,9

# Trials whose data are missing fail by themselves; values that no trial may have are refused before anything starts.
cat >"$folder/wrong.yaml" <<END
run: run.yaml
set: {train.epochs: 1}
sweep:
  folder: $folder/wrong
  metric: train
  parameters:
    data.crop: [8, 6]
    data.train.input: ['$folder/data/lin/*.npy', '$folder/data/absent/*.npy']
END
expect 0 "trials with wrong data" work 2 wrong --group 1
said "^4 trials: 2 finished, 0 stopped early, 2 failed, 0 left" 1
said "^trial [13] failed: .*absent" 2
grep -q '"event":"failed".*absent' "$folder/wrong/trials.jsonl" || fail "the store does not know why a trial failed"
sed "s|/wrong\$|/nothing|; s|'[^']*lin/[^']*', ||" "$folder/wrong.yaml" >"$folder/nothing.yaml"
expect 3 "no trial comes to anything" work 2 nothing --group 1
said "all 2 trials failed: trial [01] failed: .*absent" 1
sed 's/data.crop: .*/data.crop: [8, none]/' "$folder/wrong.yaml" >"$folder/refused.yaml"
expect 2 "a value that cannot be" work 2 refused --group 1
grep -q "refused.yaml:7:.*data.crop" "$folder/log" || fail "a value that cannot be: its place"

# Values chosen outside reach all ranks of a group.
sed 's|metric: train|metric: train\n  method: ask|; s|folder: .*|folder: '"$folder"'/asked|; s/data.train.input/seed/; s/\[.*absent.*\]/[1, 2]/' "$folder/wrong.yaml" >"$folder/asked.yaml"
"$FIELDNET" sweep ask "$folder/asked.yaml" --set data.crop=8 --set seed=2 --queue >"$folder/log" 2>&1 || fail "ask"
expect 0 "a trial that was asked for" work 2 asked --group 2
said "^trial 0 starts on ranks 0-1: data.crop=8 seed=2" 1
said "^trial 0 finished" 1

# Groups of one rank: the same numbers. Groups of two: those of separate runs on two ranks.
sweep four 4
expect 0 "four groups of one" work 4 four --group 1
said "starts on rank [0-3]:" 6
same_trials one four "four groups of one rank" 0 1 2 3
sweep pairs 4
expect 0 "two groups of two" work 4 pairs --group 2
said "starts on ranks" 6
expect 0 "a separate run" train 2 "$folder/run.yaml" "$folder/separate" train.epochs=4 optimizer.lr=3e-3 seed=2 checkpoint.best=train
same_rows "$folder/separate" "$(trial pairs 3)" "a trial of two ranks and a separate run"
same_state "$folder/separate/state_4.h5" "$(trial pairs 3)/state_4.h5" "a trial of two ranks and a separate run"
expect 2 "groups that do not fit" work 3 pairs --group 2
grep -q "3 ranks are no multiple of 2" "$folder/log" || fail "groups that do not fit: message"

# Named ones only, and the rest; without MPI_THREAD_MULTIPLE, where each leader speaks to the store itself.
sweep named 4
expect 0 "named trials" work 1 named --trials 1-2
said "^trial [12] finished" 2
said "starts" 2
export FIELDNET_MPI_THREADS=serialized
expect 0 "the rest of them" work 3 named --group 1
unset FIELDNET_MPI_THREADS
said "starts on rank" 4
same_trials one named "without MPI_THREAD_MULTIPLE" 0 1 2 3

# Two jobs at the same time on one sweep: each trial once.
sweep shared 4
"$FIELDNET" sweep run "$folder/shared.yaml" >"$folder/log.second" 2>&1 &
second=$!
expect 0 "the first of two jobs" work 2 shared --group 1
wait $second || fail "the second of two jobs: $(cat "$folder/log.second")"
cat "$folder/log.second" >>"$folder/log"
said "^trial [0-9]* starts" 6
said "^trial [0-9]* finished" 4
same_trials one shared "two jobs" 0 1 2 3

# Stopped by signal, by halt file and by the time limit: all groups stop, and are gone on with to the same end.
sweep long 200
expect 0 "long" work 4 long --group 2
for ranks in 0-1 2-3; do
  grep -q "starts on ranks $ranks:" "$folder/log" || fail "the group of ranks $ranks had no trial"
done
sweep stopped 200
work 4 stopped --group 2 &
job=$!
wait_for "steps of the first trial" rows_beyond "$(trial stopped 0)" 20
wait_for "steps of the second trial" rows_beyond "$(trial stopped 1)" 20
ranks=$(pgrep -f "^$FIELDNET sweep run $folder/stopped.yaml")
kill -USR1 "$(echo "$ranks" | tail -1)" # one rank of one group
wait $job
[ $? -eq 75 ] || fail "a signal: exit status"
said "^trial [01] stopped after epoch .*gone on with" 2
said "6 trials: 0 finished, 0 stopped early, 0 failed, 6 left" 1
work 4 stopped --group 2 &
job=$!
wait_for "steps before the halt file" rows_beyond "$(trial stopped 1)" 100
touch "$folder/stopped/halt"
wait $job
[ $? -eq 76 ] || fail "a halt file: exit status"
expect 76 "a start with the halt file in place" work 4 stopped --group 2
said "^trial [0-9]* starts" 0
rm "$folder/stopped/halt"
touch "$(trial stopped 0)/halt"
expect 76 "a halt file in a trial's folder" work 4 stopped --group 2
said "^trial 0 halted after epoch .* when the halt file in its folder is removed" 1
rm "$(trial stopped 0)/halt"
sed "s|^set:.*|set: {train.epochs: 200, run.time_limit: 1, run.time_margin: 0.2}|" "$folder/stopped.yaml" >"$folder/timed.yaml"
for start in $(seq 100); do
  status=0
  [ "$start" -le 4 ] && limited=timed || limited=stopped
  work 2 $limited --group 2 || status=$?
  [ $status -eq 75 ] || break
done
[ $status -eq 0 ] || fail "with a time limit: exit status $status"
[ "$start" -gt 1 ] || fail "the time limit stopped nothing"
same_trials long stopped "stopped and gone on with" 0 1 2 3
grep -q "attempt 2" "$(trial stopped 0)/trial.log" || fail "no second attempt at trial 0"
echo "stopped by signal, halt file and time limit, gone on with"

# A rank killed: the job ends, the next start finds its trials abandoned and goes on with them.
sweep killed 200
work 4 killed --group 2 &
job=$!
wait_for "steps" rows_beyond "$(trial killed 1)" 40
kill -KILL "$(pgrep -f "^$FIELDNET sweep run $folder/killed.yaml" | tail -1)"
wait $job && fail "a killed rank did not end the job"
for pid in $(pgrep -f "^$FIELDNET sweep run $folder/killed.yaml"); do kill -KILL "$pid" 2>/dev/null; done
expect 0 "after a kill" work 4 killed --group 2
said "^trial [01] starts on ranks .*attempt 2:" 2
said "^6 trials: 4 finished" 1
same_trials long killed "after a kill" 0 1 2 3
echo "a killed job is gone on with"

# A worker of a machine that no lock tells of: while its claim is touched its trial is left to it, and waited for in vain; once
# it is silent for the lease the trial is gone on with.
RATES=1e-3 sweep near 60
expect 0 "near" work 1 near
RATES=1e-3 sweep distant 60 "lease: 3"
work 1 distant &
job=$!
wait_for "steps" rows_beyond "$(trial distant 0)" 40
kill -KILL $(pgrep -f "^$FIELDNET sweep run $folder/distant.yaml")
wait $job && fail "a killed sweep ended well"
claim=$folder/distant/claims/0.1
sed -i 's/^host .*/host elsewhere/; s/^boot .*/boot elsewhere/; s/^space .*/space elsewhere/' "$claim"
while sleep 0.5; do touch "$claim"; done &
worker=$!
begin=$SECONDS
expect 0 "a trial that lives elsewhere" work 1 distant
said "^trial 0 starts" 0
said "^2 trials: 1 finished, 0 stopped early, 0 failed, 1 left" 1
[ $((SECONDS - begin)) -ge 4 ] || fail "not waited for the lease"
expect 75 "the same, named" work 1 distant --trial 0
kill -KILL $worker
wait $worker 2>/dev/null
touch "$claim"
begin=$SECONDS
expect 0 "a trial of a dead machine" work 1 distant
[ $((SECONDS - begin)) -ge 2 ] || fail "taken before the lease was over"
said "^trial 0 starts, attempt 2" 1
said "^2 trials: 2 finished" 1
same_trials near distant "a dead machine" 0 1
echo "trials of a dead machine are waited for and gone on with"

# Successive halving stops those that begin worse.
RATES="1e-2, 1e-3, 1e-4" sweep halved 9 "stop: {rule: asha, min_epochs: 1, reduction: 3}"
expect 0 "successive halving" work 2 halved --group 1
[ "$(grep -c "stopped early after epoch" "$folder/log")" -ge 1 ] || fail "no trial was stopped early"
said "^trial [0-9]* finished" "$(sed -n 's/^6 trials: \([0-9]*\) finished.*/\1/p' "$folder/log")"
said "^trial [0-9]* stopped early" "$(sed -n 's/^6 trials: .* \([0-9]*\) stopped early.*/\1/p' "$folder/log")"
echo "sweeps run"
