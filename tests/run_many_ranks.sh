# 32 ranks, more than any machine that runs the tests has cores: the division of samples, collective calls and states
# work at that count, and what comes out is what few ranks compute.
. "$(dirname "$0")/train_common.sh"
export OMP_NUM_THREADS=1
ranks=32
make_data 12 # of 8 crops each: 96 samples, 3 for each rank
write_run "$folder/plain.yaml"
write_run "$folder/norm.yaml" "batch_norm: {}"

# Status and error messages agreed over the ranks, sums in the same order everywhere, broadcasts.
"$MPIRUN" -n $ranks "$BUILD_DIR/tests/mpi_dist" >"$folder/log" 2>&1 || fail "mpi_dist on $ranks ranks"

# One step over all samples is their mean gradient: equal only if each was taken once. Statistics of batch norm are
# summed over the ranks inside the step; small buckets make many sums under way at once.
once="train.epochs=1 optimizer.name=sgd optimizer.lr=0.01 train.sync_batch_norm=true train.bucket_bytes=400
  train.first_bucket_bytes=100 data.validation.input=$folder/data/lin/00*.npy data.validation.target=$folder/data/lpt2/00*.npy"
one_file="data.train.input=$folder/data/lin/00?.npy data.train.target=$folder/data/lpt2/00?.npy"
set -f # the patterns are fieldnet's
expect 0 "1 rank" train 1 "$folder/norm.yaml" "$folder/one" $once train.batch=96
expect 0 "$ranks ranks" train $ranks "$folder/norm.yaml" "$folder/many" $once train.batch=3
expect 0 "1 rank, fewer samples" train 1 "$folder/norm.yaml" "$folder/fewer" $once $one_file train.batch=96
set +f
"$STATE_COMPARE" "$folder/one/state_1.h5" "$folder/many/state_1.h5" 2e-6 >"$folder/log" || fail "gradients of $ranks ranks"
"$STATE_COMPARE" "$folder/one/state_1.h5" "$folder/fewer/state_1.h5" 2e-6 >"$folder/log" &&
  fail "a step without some of the samples gives the same weights: the comparison says nothing"
[ "$(progress "$folder/many" samples)" -eq 96 ] || fail "$(progress "$folder/many" samples) samples, not 96"

# close FILE FILE TOLERANCE: numbers of two tables, but for columns of times
close() {
  awk -F, -v tolerance="$3" 'FNR == 1 { for (i = 1; i <= NF; i++) skip[i] = ($i == "seconds") } FNR == NR { for (i = 1; i <= NF; i++) v[FNR, i] = $i; next }
    { for (i = 1; i <= NF; i++) { d = $i - v[FNR, i]; if (d < 0) d = -d; s = $i < 0 ? -$i : $i
        if (!skip[i] && d > tolerance * s) { print FILENAME ": " $i " instead of " v[FNR, i]; bad = 1 } } } END { exit bad }' "$1" "$2" >"$folder/log"
}
close "$folder/one/metrics.csv" "$folder/many/metrics.csv" 1e-5 || fail "training and validation losses of $ranks ranks"

# Stopped inside an epoch and gone on with: bit for bit the run that was not stopped.
steps="train.epochs=2 train.batch=1 data.augment=true"
expect 0 "whole" train $ranks "$folder/plain.yaml" "$folder/whole" $steps
expect 75 "stopped" train $ranks "$folder/plain.yaml" "$folder/cut" $steps train.stop_after_steps=2
[ "$(progress "$folder/cut" epoch_step)" -eq 2 ] || fail "not stopped inside the first epoch"
cp -r "$folder/cut" "$folder/few"
expect 0 "went on" train $ranks "$folder/plain.yaml" "$folder/cut" $steps
same_state "$folder/whole/state_2.h5" "$folder/cut/state_2.h5" "resumed on $ranks ranks"
same_rows "$folder/whole" "$folder/cut" "resumed on $ranks ranks"

# The same state on one rank, and a state of one rank on 32: what is left of the epoch, each sample once.
expect 0 "went on with 1 rank" train 1 "$folder/plain.yaml" "$folder/few" $steps
[ "$(progress "$folder/few" samples)" -eq 192 ] || fail "1 rank after $ranks: $(progress "$folder/few" samples) samples, not 192"
[ "$(progress "$folder/few" step)" -eq $((2 + 32 + 96)) ] || fail "1 rank after $ranks: $(progress "$folder/few" step) steps"
expect 75 "1 rank stopped" train 1 "$folder/plain.yaml" "$folder/grown" $steps train.stop_after_steps=32
expect 0 "went on with $ranks" train $ranks "$folder/plain.yaml" "$folder/grown" $steps
[ "$(progress "$folder/grown" samples)" -eq 192 ] || fail "$ranks ranks after 1: $(progress "$folder/grown" samples) samples, not 192"
[ "$(progress "$folder/grown" step)" -eq $((32 + 2 + 3)) ] || fail "$ranks ranks after 1: $(progress "$folder/grown" step) steps"

# A test with fewer fields than ranks.
for n in 1 $ranks; do
  cp -r "$folder/whole" "$folder/test$n"
  set -- "$FIELDNET" test "$folder/plain.yaml" --set "folder=$folder/test$n" --set "data.test.input=$folder/data/lin/00[0-4].npy" \
    --set "data.test.target=$folder/data/lpt2/00[0-4].npy"
  [ $n -gt 1 ] && set -- "$MPIRUN" -n $n "$@"
  "$@" >"$folder/log" 2>&1 || fail "test on $n ranks"
done
[ "$(wc -l <"$folder/test1/test.csv")" -eq 7 ] || fail "5 files, their mean and a header expected in test.csv"
for table in test.csv test_spectra.csv; do
  close "$folder/test1/$table" "$folder/test$ranks/$table" 1e-5 || fail "$table of $ranks ranks"
done

# Cubes: 32 of them, read from one file by all ranks together, and judged.
"$FIELDNET" data synth cubes "$folder/cubes.h5" --seeds 0-31 --edge 16 --layout packed --difference 0.5 >"$folder/log" 2>&1 ||
  fail "synth cubes"
cat >"$folder/cubes.yaml" <<END
seed: 3
model: {layers: [{conv: {channels: 4, kernel: 4, stride: 4}}, {leaky_relu: 0.2}, {linear: {channels: out}}]}
data:
  kind: cubes
  cubes: {file: $folder/cubes.h5, train_seeds: 0-15, validation_seeds: 16-23, test_seeds: 24-31, window: 32, sample: cube}
loss: {name: bce_with_logits}
train: {epochs: 1, batch: 1, log_interval: 1}
optimizer: {name: sgd, lr: 0.01}
report: {plots: false, tensorboard: false}
END
expect 0 "cubes on 1 rank" train 1 "$folder/cubes.yaml" "$folder/cubes1" train.batch=32
expect 0 "cubes on $ranks ranks" train $ranks "$folder/cubes.yaml" "$folder/cubes$ranks"
"$STATE_COMPARE" "$folder/cubes1/state_1.h5" "$folder/cubes$ranks/state_1.h5" 2e-6 >"$folder/log" || fail "gradients of cubes"
close "$folder/cubes1/metrics.csv" "$folder/cubes$ranks/metrics.csv" 1e-5 || fail "accuracy, AUC and F1 of $ranks ranks"
echo "$ranks ranks do what one does"
