# Recomputation changes memory and time, nothing else: states of whole runs, of ranks with batch norm over all of them,
# and of runs that were stopped and went on with another setting are the same to the bit. And what micro-batches change.
. "$(dirname "$0")/train_common.sh"
make_data 1

write_network() { # NAME
  echo "seed: 3"
  echo "model: {name: $1, options: {width: 12, depth: 1}}"
  echo "data: {train: {input: '$folder/data/lin/*.npy', target: '$folder/data/lpt2/*.npy'}, crop: 8, input_pad: 8}"
  echo "train: {epochs: 2, batch: 2, log_interval: 1}"
  echo "optimizer: {name: adam, lr: 1e-3}"
  echo "compute: {threads: 1}"
  echo "report: {plots: false, tensorboard: false}"
}
write_network vnet >"$folder/vnet.yaml"
write_run "$folder/dropout.yaml" 'batch_norm: {}
    - dropout: 0.3'

# arena RUN [key=value ...]: bytes planned for a training step of one sample
arena() {
  local run=$1 set=()
  shift
  for pair in "$@"; do set+=(--set "$pair"); done
  "$FIELDNET" describe "$run" --json "${set[@]}" 2>"$folder/log" | sed -n 's/.*"training_arena": \([0-9]*\).*/\1/p'
}
plain=$(arena "$folder/vnet.yaml" compute.recompute=none)
small=$(arena "$folder/vnet.yaml" compute.recompute=all)
[ "$small" -gt 0 ] && [ "$small" -lt "$plain" ] || fail "recomputation saves nothing: $plain -> $small bytes"
echo "vnet: $plain bytes, with recomputation $small"

for run in vnet dropout; do
  for precision in f32 bf16; do
    name=$run.$precision
    expect 0 "$name none" train 1 "$folder/$run.yaml" "$folder/$name.none" compute.precision=$precision compute.recompute=none
    for mode in elementwise all; do
      expect 0 "$name $mode" train 1 "$folder/$run.yaml" "$folder/$name.$mode" compute.precision=$precision compute.recompute=$mode
      same_state "$folder/$name.none/state_2.h5" "$folder/$name.$mode/state_2.h5" "$name $mode"
      same_rows "$folder/$name.none" "$folder/$name.$mode" "$name $mode"
    done
  done
done
expect 0 "reference" train 1 "$folder/vnet.yaml" "$folder/reference.none" compute.backend=reference compute.recompute=none train.epochs=1
expect 0 "reference all" train 1 "$folder/vnet.yaml" "$folder/reference.all" compute.backend=reference compute.recompute=all train.epochs=1
same_state "$folder/reference.none/state_1.h5" "$folder/reference.all/state_1.h5" "reference backend"

# Batch norm over two ranks.
expect 0 "2 ranks none" train 2 "$folder/vnet.yaml" "$folder/sync.none" train.sync_batch_norm=true compute.recompute=none
expect 0 "2 ranks all" train 2 "$folder/vnet.yaml" "$folder/sync.all" train.sync_batch_norm=true compute.recompute=all
same_state "$folder/sync.none/state_2.h5" "$folder/sync.all/state_2.h5" "batch norm over ranks"

# Stopped inside an epoch, gone on with.
for mode in all none; do
  rm -rf "$folder/stop"
  expect 75 "stopped" train 1 "$folder/vnet.yaml" "$folder/stop" compute.recompute=all train.stop_after_steps=3
  expect 0 "went on with $mode" train 1 "$folder/vnet.yaml" "$folder/stop" compute.recompute=$mode
  same_state "$folder/vnet.f32.none/state_2.h5" "$folder/stop/state_2.h5" "resumed with $mode"
done

# A budget that cannot be: refused before anything is written, naming the key and the least.
"$FIELDNET" train "$folder/vnet.yaml" --set "folder=$folder/never" --set compute.memory_budget=1000 >"$folder/log" 2>&1 &&
  fail "a budget of 1000 bytes was accepted"
grep -q "compute.memory_budget: .* at least [0-9]* bytes" "$folder/log" || fail "the message about the budget"

# Micro-batches: the gradient of the whole batch without batch norm; with it, statistics are those of each micro-batch.
write_run "$folder/plain.yaml"
write_run "$folder/norm.yaml" "batch_norm: {}"
once="train.epochs=1 optimizer.name=sgd optimizer.lr=0.01 data.shuffle=false checkpoint.best=train"
for run in plain norm; do
  expect 0 "$run whole" train 1 "$folder/$run.yaml" "$folder/$run.whole" $once train.batch=8
  expect 0 "$run micro" train 1 "$folder/$run.yaml" "$folder/$run.micro" $once train.batch=2 train.accumulate=4
done
"$STATE_COMPARE" "$folder/plain.whole/state_1.h5" "$folder/plain.micro/state_1.h5" 2e-6 >"$folder/log" ||
  fail "micro-batches change the gradient"
"$STATE_COMPARE" "$folder/norm.whole/state_1.h5" "$folder/norm.micro/state_1.h5" 2e-6 >"$folder/log" &&
  fail "statistics of micro-batches cannot be those of the batch"
echo "recomputation keeps every bit"
