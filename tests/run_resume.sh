# A run that is stopped and resumed ends with exactly the states and metrics of one that is not.
. "$(dirname "$0")/train_common.sh"
make_data

# resumes NAME RANKS STEPS RUN [key=value ...]: 4 epochs at once, 2 + 2, and stopped after STEPS steps
resumes() {
  local name=$1 ranks=$2 steps=$3 run=$4
  shift 4
  expect 0 "$name whole" train "$ranks" "$run" "$folder/$name.whole" train.epochs=4 "$@"
  expect 0 "$name first half" train "$ranks" "$run" "$folder/$name.half" train.epochs=2 "$@"
  expect 0 "$name second half" train "$ranks" "$run" "$folder/$name.half" train.epochs=4 "$@"
  expect 75 "$name stopped" train "$ranks" "$run" "$folder/$name.stop" train.epochs=4 "train.stop_after_steps=$steps" "$@"
  [ "$(progress "$folder/$name.stop" step)" -eq "$steps" ] || fail "$name: not stopped at step $steps"
  [ "$(progress "$folder/$name.stop" epoch_step)" -gt 0 ] || fail "$name: not stopped inside an epoch"
  expect 0 "$name went on" train "$ranks" "$run" "$folder/$name.stop" train.epochs=4 "$@"
  for way in half stop; do
    for epoch in 1 2 3 4; do
      [ $epoch -lt 3 ] && [ $way = half ] && continue
      same_state "$folder/$name.whole/state_$epoch.h5" "$folder/$name.$way/state_$epoch.h5" "$name $way $ranks"
    done
    same_rows "$folder/$name.whole" "$folder/$name.$way" "$name $way $ranks"
    [ "$(wc -l <"$folder/$name.whole/metrics.csv")" -eq 5 ] || fail "$name: not 4 epochs in metrics.csv"
  done
}

write_run "$folder/plain.yaml"
write_run "$folder/norm.yaml" "batch_norm: {}"
write_run "$folder/dropout.yaml" 'dropout: 0.3'

validation="data.validation.input=$folder/data/lin/000.npy data.validation.target=$folder/data/lpt2/000.npy"
resumes plain1 1 17 "$folder/plain.yaml"
resumes norm2 2 8 "$folder/norm.yaml" $validation schedule.name=plateau schedule.metric=validation \
  schedule.patience=0 schedule.threshold=0.5
# 24 samples: 5 batches of 5, the last of 4; accumulated in twos, the last alone
resumes all1 1 5 "$folder/dropout.yaml" train.batch=5 train.accumulate=2 train.ema_decay=0.9 \
  data.augment=true data.shift=4 data.add_std=0.1 data.mul_std=0.1 schedule.name=plateau schedule.patience=0 \
  schedule.threshold=0.5 optimizer.name=nadam
resumes all2 2 3 "$folder/dropout.yaml" train.batch=5 train.accumulate=2 train.ema_decay=0.9 \
  data.augment=true data.shift=4 data.add_std=0.1 data.mul_std=0.1 optimizer.name=sgd optimizer.momentum=0.9
[ "$("$STATE_COMPARE" --print "$folder/norm2.whole/state_4.h5" schedule/reductions)" -gt 0 ] ||
  fail "the plateau schedule did nothing, its resume was not tested"
[ "$("$STATE_COMPARE" --print "$folder/all1.whole/state_4.h5" progress/step)" -eq 12 ] || fail "3 steps per epoch expected"

# The same run twice gives the same states, and so it does without threads inside MPI.
expect 0 again train 2 "$folder/norm.yaml" "$folder/again" train.epochs=2 $validation schedule.name=plateau \
  schedule.metric=validation schedule.patience=0 schedule.threshold=0.5
same_state "$folder/norm2.whole/state_2.h5" "$folder/again/state_2.h5" "the same run again"
FIELDNET_MPI_THREADS=single expect 0 "MPI single" train 3 "$folder/norm.yaml" "$folder/single" train.bucket_bytes=300 train.first_bucket_bytes=100
expect 0 "MPI multiple" train 3 "$folder/norm.yaml" "$folder/multiple" train.bucket_bytes=300 train.first_bucket_bytes=100
same_state "$folder/single/state_2.h5" "$folder/multiple/state_2.h5" "MPI single and multiple"
if "$STATE_COMPARE" "$folder/single/state_2.h5" "$folder/single/state_1.h5" >"$folder/log"; then
  fail "the comparison does not see differences"
fi
echo "interrupted runs equal uninterrupted ones"
