# The number of ranks changes who computes, not what is computed.
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/plain.yaml"
write_run "$folder/norm.yaml" "batch_norm: {}"

close() { "$STATE_COMPARE" "$1" "$2" "$3" >"$folder/log" || fail "$4"; }

# One step of plain descent over all 24 samples, however they are cut: ranks, batches, micro-batches with a short last one.
once="train.epochs=1 optimizer.name=sgd optimizer.lr=0.01 data.shuffle=false checkpoint.best=train"
expect 0 "1 rank" train 1 "$folder/plain.yaml" "$folder/p1" $once train.batch=24
for cut in "1 10 3" "2 12 1" "2 5 3" "3 8 1" "3 3 3" "4 6 1" "4 1 6"; do
  set -- $cut
  expect 0 "cut $cut" train "$1" "$folder/plain.yaml" "$folder/p" $once "train.batch=$2" "train.accumulate=$3"
  [ "$(progress "$folder/p" step)" -eq 1 ] || fail "cut $cut: not one step"
  close "$folder/p1/state_1.h5" "$folder/p/state_1.h5" 2e-6 "gradients of $cut (ranks, batch, micro-batches) differ"
  rm -r "$folder/p"
done
expect 0 "1 rank, norm" train 1 "$folder/norm.yaml" "$folder/n1" $once train.batch=24 train.sync_batch_norm=true
for cut in "2 12" "3 8" "4 6"; do
  set -- $cut
  expect 0 "norm $cut" train "$1" "$folder/norm.yaml" "$folder/n" $once "train.batch=$2" train.sync_batch_norm=true
  close "$folder/n1/state_1.h5" "$folder/n/state_1.h5" 2e-6 "synchronised batch norm: gradients of $cut (ranks, batch) differ"
  rm -r "$folder/n"
done
expect 0 "norm, not synchronised" train 4 "$folder/norm.yaml" "$folder/n" $once train.batch=6
"$STATE_COMPARE" "$folder/n1/state_1.h5" "$folder/n/state_1.h5" 2e-6 >"$folder/log" &&
  fail "statistics per rank cannot give the statistics of all ranks"

# Batch norm per rank: after a step on two ranks the running statistics are the mean of what each rank alone would have.
whole="$once data.crop=16 train.batch=1"
for file in 000 001; do
  expect 0 "file $file alone" train 1 "$folder/norm.yaml" "$folder/alone$file" $whole \
    "data.train.input=$folder/data/lin/$file.npy" "data.train.target=$folder/data/lpt2/$file.npy"
done
expect 0 "both files" train 2 "$folder/norm.yaml" "$folder/both" $whole \
  "data.train.input=$folder/data/lin/00[01].npy" "data.train.target=$folder/data/lpt2/00[01].npy"
for name in running_mean running_var; do
  "$STATE_COMPARE" --mean "$folder"/{alone000,alone001,both}/state_1.h5 "model/1.$name" >"$folder/log" ||
    fail "$name of two ranks is not the mean of both"
done

# Stopped inside an epoch, gone on with by other numbers of ranks: every sample once, losses near.
expect 75 "2 ranks stopped" train 2 "$folder/plain.yaml" "$folder/base" train.epochs=2 train.batch=1 train.stop_after_steps=5
for ranks in 1 2 3 4; do
  cp -r "$folder/base" "$folder/on$ranks"
  expect 0 "went on with $ranks" train $ranks "$folder/plain.yaml" "$folder/on$ranks" train.epochs=2 train.batch=1
  # 24 samples: 10 were done; 14 are left, of which 3 and 4 ranks drop 2
  [ $ranks -lt 3 ] && seen=48 || seen=46
  [ "$(progress "$folder/on$ranks" samples)" -eq "$seen" ] ||
    fail "$ranks ranks saw $(progress "$folder/on$ranks" samples) samples, not $seen"
  [ "$(wc -l <"$folder/on$ranks/metrics.csv")" -eq 3 ] || fail "$ranks ranks: epochs in metrics.csv"
  awk -F, -v r=$ranks 'NR > 1 { loss[FILENAME, $1] = $3 } END { d = loss[ARGV[1], 1] / loss[ARGV[2], 1] - 1
    if (d * d > 0.04) { print r " ranks: first epoch differs by " d; exit 1 } }' \
    "$folder/on$ranks/metrics.csv" "$folder/on1/metrics.csv" || fail "losses after going on with $ranks ranks"
done
same_state "$folder/on2/state_2.h5" "$folder/on2/checkpoint.h5" "the last state is not the checkpoint"

# Whoever adds the gradients: on one node, and on nodes of one rank, the same bits; on two nodes of two ranks, in bf16,
# and interrupted, the same as not interrupted.
steps="train.epochs=1 train.batch=1 train.bucket_bytes=400 train.first_bucket_bytes=100"
expect 0 "node" train 4 "$folder/plain.yaml" "$folder/node" $steps
grep -q "summed over 4 ranks in shared memory" "$folder/log" || fail "the log does not tell how gradients are summed"
expect 0 "sent" train 4 "$folder/plain.yaml" "$folder/sent" $steps train.reduction=ranks
same_state "$folder/node/state_1.h5" "$folder/sent/state_1.h5" "added in shared memory, and by messages"
export FIELDNET_NODE_RANKS=2
for type in f32 bf16; do
  expect 0 "two nodes, $type" train 4 "$folder/plain.yaml" "$folder/whole$type" $steps train.gradient_dtype=$type
  grep -q "as $type in .*by 2 ranks of each of 2 nodes" "$folder/log" || fail "the log does not tell of two nodes"
  expect 75 "two nodes, $type, stopped" train 4 "$folder/plain.yaml" "$folder/cut$type" $steps train.gradient_dtype=$type \
    train.stop_after_steps=2
  expect 0 "two nodes, $type, went on" train 4 "$folder/plain.yaml" "$folder/cut$type" $steps train.gradient_dtype=$type
  same_state "$folder/whole$type/state_1.h5" "$folder/cut$type/state_1.h5" "two nodes, $type, resumed"
done
unset FIELDNET_NODE_RANKS
close "$folder/node/state_1.h5" "$folder/wholef32/state_1.h5" 2e-6 "two nodes"
"$STATE_COMPARE" "$folder/wholef32/state_1.h5" "$folder/wholebf16/state_1.h5" >"$folder/log" &&
  fail "gradients are not rounded to bf16"
echo "ranks agree"
