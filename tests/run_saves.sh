# States written beside training: the same as those that training waits for, an older one when the writer is killed,
# another try when the disk is full; and a start that dies twice on a state takes the one before it.
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/run.yaml" "batch_norm: {}"
# start RUN FOLDER [key=value ...]: one rank in the background; its process id in $job
start() {
  local run=$1 into=$2 settings=()
  shift 2
  for setting in "$@"; do settings+=(--set "$setting"); done
  "$FIELDNET" train "$run" --set "folder=$into" ${settings[@]+"${settings[@]}"} >"$folder/log" 2>&1 &
  job=$!
}
logged() { grep -q -- "$1" "$folder/log"; }

# ---- beside training or not, after every step or not: the same states
often="checkpoint.every_minutes=1e-9 train.ema_decay=0.9 train.epochs=3 optimizer.name=nadam"
for ranks in 1 2; do
  expect 0 "states waited for" train $ranks "$folder/run.yaml" "$folder/waits$ranks" $often checkpoint.background=false
  expect 0 "states beside training" train $ranks "$folder/run.yaml" "$folder/beside$ranks" $often report.verbosity=detail
  says "state_3.h5: .* s copied, .* s written"
  for epoch in 1 2 3; do
    same_state "$folder/waits$ranks/state_$epoch.h5" "$folder/beside$ranks/state_$epoch.h5" "beside training on $ranks ranks"
  done
  [ "$(readlink "$folder/waits$ranks/best.h5")" = "$(readlink "$folder/beside$ranks/best.h5")" ] || fail "another best state"
  # what is told as saved is on disk: one line for each save, each with a name that is there
  steps=$(($(lines "$folder/beside$ranks/steps.csv") - 1))
  told=$(grep -c '"event": *"saved"' "$folder/beside$ranks/metrics.jsonl")
  [ "$told" -eq "$steps" ] || fail "$told states told as saved in $steps steps"
done
# stopped in the middle of an epoch by a state that is being written, and gone on with
expect 75 "stopped" train 2 "$folder/run.yaml" "$folder/stop" $often train.stop_after_steps=8
expect 0 "gone on with" train 2 "$folder/run.yaml" "$folder/stop" $often
same_state "$folder/waits2/state_3.h5" "$folder/stop/state_3.h5" "stopped and gone on with"

# ---- beside threads that read through HDF5
"$FIELDNET" data synth cubes "$folder/cubes.h5" --seeds 0-5 --edge 16 --layout packed >"$folder/log" 2>&1 || fail "synth cubes"
cat >"$folder/cubes.yaml" <<END
seed: 3
model:
  layers:
    - conv: {channels: 4, kernel: 4, stride: 4}
    - leaky_relu: 0.2
    - linear: {channels: out}
data: {kind: cubes, prefetch: 2, cubes: {file: $folder/cubes.h5, train_seeds: 0-3, validation_seeds: 4-5, sample: cube}}
loss: {name: bce_with_logits}
train: {epochs: 20, batch: 2, log_interval: 1}
optimizer: {name: adam, lr: 1e-3}
compute: {threads: 1}
report: {plots: false, tensorboard: false}
END
for read in independent collective; do
  expect 0 "cubes, $read" train 2 "$folder/cubes.yaml" "$folder/cubes.waits" data.read=$read checkpoint.every_minutes=1e-9 \
    checkpoint.background=false
  expect 0 "cubes beside training, $read" train 2 "$folder/cubes.yaml" "$folder/cubes.beside" data.read=$read \
    checkpoint.every_minutes=1e-9
  same_state "$folder/cubes.waits/state_20.h5" "$folder/cubes.beside/state_20.h5" "cubes, $read"
  same_rows "$folder/cubes.waits" "$folder/cubes.beside" "cubes, $read"
  rm -r "$folder/cubes.waits" "$folder/cubes.beside"
done

# ---- killed while a state is written: the one before it is there, whole
write_run "$folder/large.yaml"
sed -i -e 's/channels: 4, kernel: 3/channels: 256, kernel: 8, stride: 8/' -e 's/input_pad: 2/input_pad: 0/' \
  -e 's/conv: {channels: out, kernel: 3}/conv_transpose: {channels: out, kernel: 8, stride: 8}/' "$folder/large.yaml"
expect 0 "never killed" train 1 "$folder/large.yaml" "$folder/whole" train.epochs=8
being_written() { compgen -G "$1/state_*.h5.*.tmp" >/dev/null || ! kill -0 $job 2>/dev/null; }
second_being_written() { [ -e "$1/state_1.h5" ] && being_written "$1"; }
for attempt in $(seq 10); do
  rm -rf "$folder/killed"
  start "$folder/large.yaml" "$folder/killed" train.epochs=8
  wait_for "a state being written" second_being_written "$folder/killed"
  kill -KILL $job
  wait $job 2>/dev/null
  compgen -G "$folder/killed/state_*.h5.*.tmp" >/dev/null && break
done
[ $attempt -lt 10 ] || fail "no kill met the writer"
[ "$("$STATE_COMPARE" --print "$folder/killed/checkpoint.h5" progress/epoch)" -ge 1 ] || fail "no state after a kill"
expect 0 "after a kill" train 1 "$folder/large.yaml" "$folder/killed" train.epochs=8
says "going on from .*state_[1-8].h5"
logged "refused" && fail "a kill damaged a state"
same_state "$folder/whole/state_8.h5" "$folder/killed/state_8.h5" "killed while a state was written"
compgen -G "$folder/killed/*.tmp" >/dev/null && fail "temporary files are left"

# ---- no room: the run goes on, tries again, and saves when there is room
late=(train.epochs=100000 checkpoint.every_epochs=100000 checkpoint.best=null)
room() {
  python3 -c "import sys; from resource import prlimit, RLIMIT_FSIZE as size; pid = int(sys.argv[1])
prlimit(pid, size, (prlimit(pid, size)[1],) * 2)" "$1"
}
for background in true false; do
  into=$folder/full.$background
  ulimit -S -f 8000 # kB, below a state of 9 MB; the hard limit stays
  start "$folder/large.yaml" "$into" "${late[@]}" checkpoint.retry_seconds=0.3 checkpoint.background=$background
  ulimit -S -f unlimited
  wait_for "steps" rows_beyond "$into" 5
  kill -USR2 $job
  two_tries() { [ "$(grep -c "warning: cannot save state .*File too large.*training goes on" "$folder/log")" -ge 2 ]; }
  wait_for "a second try, background $background" two_tries
  [ -e "$into/checkpoint.h5" ] && fail "a link to a state that could not be written"
  compgen -G "$into/state_*" >/dev/null && fail "a failed save left $(ls "$into")"
  before=$(lines "$into/steps.csv")
  wait_for "steps beside a full disk" rows_beyond "$into" $((before + 3))
  room $job
  wait_for "the state when there is room, background $background" test -e "$into/checkpoint.h5"
  kill -USR1 $job
  wait $job
  [ $? -eq 75 ] || fail "after a full disk, background $background: exit status"
  # the last state makes up for one that failed, which is not why the run stopped
  rm -r "$into"
  ulimit -S -f 8000
  start "$folder/large.yaml" "$into" "${late[@]}" checkpoint.retry_seconds=1000 checkpoint.background=$background
  ulimit -S -f unlimited
  wait_for "steps" rows_beyond "$into" 2
  kill -USR2 $job
  wait_for "a failed state, background $background" logged "warning: cannot save state"
  room $job
  kill -USR1 $job
  wait $job
  [ $? -eq 75 ] || fail "stopped after a failed state, background $background: exit status"
  grep '"event":"finish"' "$into/metrics.jsonl" >"$folder/finish" || fail "a run that stopped does not say so"
  grep -q "cannot save" "$folder/finish" && fail "stopped because of a state that failed: $(cat "$folder/finish")"
done

# ---- a start that died from the same state twice
expect 0 "three states" train 1 "$folder/run.yaml" "$folder/crash" train.epochs=3
expect 75 "an orderly stop" train 1 "$folder/run.yaml" "$folder/crash" "${late[@]}" train.stop_after_steps=1
[ -e "$folder/crash/starts.txt" ] && fail "an orderly stop is counted"
crash() { # FOLDER: a start that is killed after some steps
  rm -f "$1/steps.csv"
  start "$folder/run.yaml" "$1" "${late[@]}"
  wait_for "steps of a start to be killed" rows_beyond "$1" 3
  kill -KILL $job
  wait $job 2>/dev/null
}
crash "$folder/crash"
says "going on from .*state_4.h5"
grep -q "^state_4.h5 [0-9]* 1$" "$folder/crash/starts.txt" || fail "one start counted as $(cat "$folder/crash/starts.txt")"
expect 3 "data are missing" train 1 "$folder/run.yaml" "$folder/crash" "${late[@]}" "data.train.input=$folder/none/*.npy"
crash "$folder/crash"
says "going on from .*state_4.h5"
cp -rp "$folder/crash" "$folder/override"
cp -rp "$folder/crash" "$folder/further"
"$FIELDNET" check "$folder/run.yaml" --set "folder=$folder/crash" >"$folder/log" 2>&1
says "start .*from $folder/crash/state_3.h5"
expect 75 "the third start" train 1 "$folder/run.yaml" "$folder/crash" "${late[@]}" train.stop_after_steps=1
says "warning: 2 starts from .*state_4.h5 ended before a later state was written: going back to .*state_3.h5"
says "going on from .*state_3.h5: 3 epochs"
[ -e "$folder/crash/starts.txt" ] && fail "a saved state did not end the count"
[ "$(progress "$folder/crash" step)" -eq 37 ] || fail "gone on from step $(progress "$folder/crash" step)"
expect 75 "asked not to" train 1 "$folder/run.yaml" "$folder/override" "${late[@]}" train.stop_after_steps=1 checkpoint.fall_back_after=0
says "going on from .*state_4.h5"
crash "$folder/further"
says "going on from .*state_3.h5"
crash "$folder/further"
expect 75 "two states further back" train 1 "$folder/run.yaml" "$folder/further" "${late[@]}" train.stop_after_steps=1
says "going on from .*state_2.h5"
# nothing to go back to: the only state, again and again; and no state at all
expect 75 "one state" train 1 "$folder/run.yaml" "$folder/only" "${late[@]}" train.stop_after_steps=1
crash "$folder/only"
crash "$folder/only"
expect 75 "the only state" train 1 "$folder/run.yaml" "$folder/only" "${late[@]}" train.stop_after_steps=1
says "2 starts from .*state_1.h5 ended before .*no older state"
says "going on from .*state_1.h5"
for i in 1 2 3; do crash "$folder/none"; done
logged "warning" && fail "starts without any state are counted"
echo "states are written beside training"
