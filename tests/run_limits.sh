# A time limit, the end of a batch job and a halt file end a run with a state that goes on exactly.
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/run.yaml"
settings=(train.epochs=300 train.log_interval=1 checkpoint.every_epochs=1000 checkpoint.best=null)

expect 0 "whole run" train 2 "$folder/run.yaml" "$folder/whole" "${settings[@]}" run.time_limit=1-00:00:00
first=$SECONDS
expect 75 "time limit" train 2 "$folder/run.yaml" "$folder/limit" "${settings[@]}" train.epochs=1000000 \
  run.time_limit=00:06 run.time_margin=1
took=$((SECONDS - first))
# It leaves as much as its longest step took, which on a busy machine may be seconds.
[ $took -ge 2 ] && [ $took -le 120 ] || fail "a limit of 6 s took $took s"
grep -q "time limit is near" "$folder/log" || fail "the log does not say why"
[ -e "$folder/limit/checkpoint.h5" ] || fail "no state at the limit"

FIELDNET_JOB_END=$(($(date +%s) + 4)) expect 75 "end of the job" train 2 "$folder/run.yaml" "$folder/job" \
  "${settings[@]}" train.epochs=1000000 run.time_margin=1
# A limit that is over already: one step each start, and the same end.
for i in 1 2 3; do
  expect 75 "no time left" train 2 "$folder/run.yaml" "$folder/steps" "${settings[@]}" run.time_limit=1
  [ "$(progress "$folder/steps" step)" -eq $i ] || fail "start $i ended at step $(progress "$folder/steps" step)"
done
expect 0 "with time again" train 2 "$folder/run.yaml" "$folder/steps" "${settings[@]}" run.time_limit=none
same_state "$folder/whole/state_300.h5" "$folder/steps/state_300.h5" "stopped by limits"

"$FIELDNET" train "$folder/run.yaml" --set "folder=$folder/halt" --set train.epochs=1000000 --set train.log_interval=1 \
  --set checkpoint.every_epochs=1000000 --set checkpoint.best=null >"$folder/log" 2>&1 &
job=$!
wait_for "steps before the halt file" rows_beyond "$folder/halt" 1
touch "$folder/halt/halt"
wait $job
[ $? -eq 76 ] || fail "halt file: exit status"
[ -e "$folder/halt/checkpoint.h5" ] || fail "no state after the halt file"
# It holds for the next job in the queue too, until it is removed.
step=$(progress "$folder/halt" step)
expect 76 "halt file still there" train 2 "$folder/run.yaml" "$folder/halt" "${settings[@]}" train.epochs=1000000
grep -q "$folder/halt/halt found.*Remove it" "$folder/log" || fail "the log does not tell of the halt file"
[ "$(progress "$folder/halt" step)" -eq "$step" ] || fail "a halted run went on"
"$FIELDNET" status "$folder/halt" | grep -q "stopped.*halt file" || fail "status does not tell of the halt file"
rm "$folder/halt/halt"
expect 75 "halt file removed" train 2 "$folder/run.yaml" "$folder/halt" "${settings[@]}" train.epochs=1000000 train.stop_after_steps=2
[ "$(progress "$folder/halt" step)" -eq $((step + 2)) ] || fail "it did not go on"
expect 76 "halt file before the first start" sh -c "mkdir $folder/early && touch $folder/early/halt && '$FIELDNET' train $folder/run.yaml --set folder=$folder/early"

# Started once in a job of several tasks, without srun: told, but not refused.
for started in 0 1; do
  [ $started -eq 0 ] || export SLURM_STEP_NUM_TASKS=1
  SLURM_NTASKS=4 expect 0 "one of four tasks" train 1 "$folder/run.yaml" "$folder/alone$started" train.epochs=1
  [ "$(grep -c "warning: this job has 4 tasks, but fieldnet was started once" "$folder/log")" -eq $((1 - started)) ] || fail "one of four tasks"
done
unset SLURM_STEP_NUM_TASKS

for wrong in 1:2:3:4 -5 4x "1-" ""; do
  "$FIELDNET" train "$folder/run.yaml" --set "folder=$folder/wrong" --set "run.time_limit=\"$wrong\"" >"$folder/log" 2>&1
  [ $? -eq 2 ] || fail "run.time_limit '$wrong' was taken"
  grep -q "run.time_limit" "$folder/log" || fail "run.time_limit '$wrong': no message"
done
echo "limits are kept"
