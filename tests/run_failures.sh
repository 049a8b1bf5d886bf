# What goes wrong in a run ends it with the right status and the names of what is wrong, and loses nothing.
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/run.yaml"
write_run "$folder/norm.yaml" "batch_norm: {}"

# ---- not finite
expect 4 "absurd rate" train 2 "$folder/run.yaml" "$folder/nan" optimizer.name=sgd optimizer.lr=1e30
says "step [0-9]* (epoch 1): the loss of rank 0 is not finite; first bad gradient: [0-9].*weight. No such cell was found"
grep -q "nan\|inf" "$folder/nan/steps.csv" && fail "a diverged step was logged as done"
# one rank's data: 8 crops of file 001 are all that rank 1 of 3 reads without shuffling
cp -r "$folder/data" "$folder/bad"
# float 3000 of the second input becomes NaN
printf '\x00\x00\xc0\x7f' | dd of="$folder/bad/lin/001.npy" bs=1 seek=$((128 + 4 * 3000)) conv=notrunc 2>/dev/null
bad="data.train.input=$folder/bad/lin/*.npy data.train.target=$folder/bad/lpt2/*.npy data.shuffle=false"
expect 4 "a bad file" train 3 "$folder/run.yaml" "$folder/one" $bad
says "the loss of rank 1 is not finite"
# 3000 = (11 * 16 + 11) * 16 + 8
cell="$folder/bad/lin/001.npy: cell \[11, 11, 8\] of channel 0 is nan"
says "rank 1 on [^:]*: $cell. Mend the file"
# turned and shifted; the last batch of several; in a target; a norm that makes it; the device's samples
for backend in cpu emulated; do
  for ranks in 1 2; do
    expect 4 "a bad file, $backend, $ranks ranks" train $ranks "$folder/run.yaml" "$folder/named" $bad data.augment=true \
      data.shift=8 compute.backend=$backend
    says "step .*not finite.*; .*$cell"
    expect 0 "a bad file, $backend, $ranks ranks, skipping" train $ranks "$folder/run.yaml" "$folder/named_skip" $bad \
      train.on_nan=skip train.accumulate=3 train.fresh=true compute.backend=$backend
    says "step .*not finite.*; .*$cell; step skipped"
    rm -r "$folder/named"* 
  done
done
expect 4 "a bad target" train 2 "$folder/run.yaml" "$folder/named" "data.train.target=$folder/bad/lin/*.npy"
says "; .*$cell"
expect 4 "a norm that does not fit" train 2 "$folder/run.yaml" "$folder/normed" data.input_norms=log
says "data/lin/00[0-2].npy: cell \[[0-9]*, [0-9]*, [0-9]*\] of channel [0-2] is -[0-9.e-]*, of which the norm log makes nan"
expect 0 "skipping" train 3 "$folder/norm.yaml" "$folder/skip" $bad train.on_nan=skip train.epochs=2
says "the loss of rank 1 is not finite.*step skipped"
skipped=$(grep -c "step skipped" "$folder/log")
[ "$skipped" -ge 2 ] && [ "$skipped" -lt 8 ] || fail "$skipped steps skipped of 8"
[ "$("$STATE_COMPARE" --print "$folder/skip/state_2.h5" optimizer/step)" -eq $((8 - skipped)) ] ||
  fail "skipped steps count for the optimizer"
expect 0 "skipping without batch norm" train 1 "$folder/run.yaml" "$folder/skip1" $bad train.on_nan=skip train.epochs=1
cut -d, -f3 "$folder/skip/metrics.csv" | grep -q "nan" && fail "a skipped step counts in the loss"
"$STATE_COMPARE" "$folder/skip/state_2.h5" "$folder/skip/state_2.h5" 0 >"$folder/log" || fail "skipping: NaN in the state"

# ---- validation that is not finite
valid="data.validation.input=$folder/bad/lin/*.npy data.validation.target=$folder/bad/lpt2/*.npy"
for ranks in 1 3; do
  expect 4 "bad validation data on $ranks ranks" train $ranks "$folder/run.yaml" "$folder/valid$ranks" $valid
  says "validation after epoch 1 .*the output for sample [0-9]*: $folder/bad/lin/001.npy, crop [0-7]; $cell"
  [ -e "$folder/valid$ranks/checkpoint.h5" ] && fail "a state after a validation that is not finite"
done
swapped="data.validation.input=$folder/data/lin/*.npy data.validation.target=$folder/bad/lin/*.npy"
expect 4 "bad validation targets" train 2 "$folder/run.yaml" "$folder/valid" $swapped
says "the target of sample [0-9]*: $folder/bad/lin/001.npy"
# plateau with no patience would lower the rate after the second epoch
expect 0 "skipping validation" train 2 "$folder/run.yaml" "$folder/validskip" $valid train.on_nan=skip train.epochs=4 \
  checkpoint.best=validation schedule.name=plateau schedule.metric=validation schedule.patience=0
[ "$(grep -c "warning: .*bad/lin/001.npy.*does not count" "$folder/log")" -eq 4 ] || fail "not one warning per epoch"
[ -e "$folder/validskip/best.h5" ] && fail "a best state without a finite validation loss"
[ "$(cut -d, -f5 "$folder/validskip/steps.csv" | sort -u | wc -l)" -eq 2 ] || fail "the plateau counted epochs without a loss"

# ---- resuming with other settings
expect 75 "inside an epoch" train 1 "$folder/run.yaml" "$folder/base" train.stop_after_steps=5
cp -r "$folder/base" "$folder/rate"
expect 0 "another rate" train 1 "$folder/run.yaml" "$folder/rate" optimizer.lr=5e-4
says "optimizer.lr: .* -> "
awk -F, 'NR > 1 { wanted = $1 <= 5 ? 1e-3 : 5e-4; if (($5 - wanted)^2 > 1e-20) exit 1 }' "$folder/rate/steps.csv" ||
  fail "the changed rate is not in steps.csv"
# refuses_check STATUS WHAT FOLDER SETTING...: what stops training is a problem that `check` tells
refuses_check() {
  local wanted=$1 what=$2 into=$3 settings=() setting found=0
  shift 3
  for setting in "$@"; do settings+=(--set "$setting"); done
  "$FIELDNET" check "$folder/run.yaml" --set "folder=$into" ${settings[@]+"${settings[@]}"} >"$folder/log" 2>&1 || found=$?
  [ "$found" -eq "$wanted" ] || fail "check of $what: exit status $found, expected $wanted"
  [ "$wanted" -eq 0 ] || says "1 problem: the run cannot start"
}
refuses() { # KEY SETTING...
  local key=$1
  shift
  expect 2 "changed $key" train 1 "$folder/run.yaml" "$folder/base" "$@"
  says "$key"
  says "cannot change on resume"
  refuses_check 2 "changed $key" "$folder/base" "$@"
  says "$key"
}
refuses_check 0 "a state to go on from" "$folder/base" optimizer.lr=5e-4
says "start .*from $folder/base/state_1.h5"
refuses optimizer.name optimizer.name=sgd
refuses data.crop data.crop=4
refuses seed seed=8
refuses data.shuffle data.shuffle=false
sed 's/channels: 4/channels: 5/' "$folder/run.yaml" >"$folder/other.yaml"
expect 2 "another network" train 1 "$folder/other.yaml" "$folder/base"
says "cannot change on resume"
refuses model.init_weight_std model.init_weight_std=0.5
expect 0 "first epochs" train 1 "$folder/run.yaml" "$folder/between" train.epochs=1
expect 0 "another crop between epochs" train 1 "$folder/run.yaml" "$folder/between" data.crop=4
says "going on from .*: 1 epoch and 12 steps done"
says "data.crop: .*8.* -> .*4"
expect 2 "fresh" train 1 "$folder/run.yaml" "$folder/base" train.fresh=true
says "train.fresh is set, but .*state_1.h5 exists"
refuses_check 2 "fresh" "$folder/base" train.fresh=true
says "train.fresh is set, but .*state_1.h5 exists"
[ "$(progress "$folder/base" step)" -eq 5 ] || fail "a refused start touched the state"

# ---- starting from another run's state
expect 0 "from another run" train 1 "$folder/run.yaml" "$folder/moved" "train.load_state=$folder/base/state_1.h5"
says "going on from $folder/base/state_1.h5: 0 epochs and 5 steps done"
cp -r "$folder/base" "$folder/here"
expect 0 "in its own folder" train 1 "$folder/run.yaml" "$folder/here"
same_state "$folder/here/state_2.h5" "$folder/moved/state_2.h5" "a run that moved to another folder"
expect 5 "missing state" train 1 "$folder/run.yaml" "$folder/none" "train.load_state=$folder/nothing.h5"
says "nothing.h5 does not exist"
refuses_check 5 "a missing state" "$folder/none" "train.load_state=$folder/nothing.h5"
says "nothing.h5 does not exist"
write_run "$folder/longer.yaml"
sed -i 's/    - conv: {channels: out, kernel: 3}/&\n    - {conv: {channels: out, kernel: 1}, name: extra}/' "$folder/longer.yaml"
expect 2 "a longer network" train 1 "$folder/longer.yaml" "$folder/longer" "train.load_state=$folder/moved/state_2.h5" train.epochs=3
says "model.layers"
expect 0 "a longer network, lenient" train 1 "$folder/longer.yaml" "$folder/longer" "train.load_state=$folder/moved/state_2.h5" \
  train.load_strict=false train.epochs=3
says "kept as they were, for it lacks them: .*extra"
[ -e "$folder/longer/state_3.h5" ] || fail "lenient start: no state"
expect 0 "and resumed" train 1 "$folder/longer.yaml" "$folder/longer" train.epochs=4

# ---- two runs in one folder
"$FIELDNET" train "$folder/run.yaml" --set "folder=$folder/shared" --set train.epochs=100000 >"$folder/first.log" 2>&1 &
first=$!
wait_for "the first run's first state" test -e "$folder/shared/checkpoint.h5"
for ranks in 1 2; do
  expect 2 "a second run in the folder" train $ranks "$folder/run.yaml" "$folder/shared"
  says "another run (.*process $first) is writing in folder $folder/shared"
  [ "$(grep -c "another run" "$folder/log")" -eq 1 ] || fail "a second run: the message comes more than once"
done
kill -0 $first || fail "a second run ended the first: $(cat "$folder/first.log")"
kill -KILL $first
wait $first 2>/dev/null
expect 75 "after the first was killed" train 2 "$folder/run.yaml" "$folder/shared" train.epochs=100000 train.stop_after_steps=1
says "going on from $folder/shared/"
[ -e "$folder/shared/.lock" ] && fail "a run that ended left its lock"
expect 5 "a new folder and a missing state" train 1 "$folder/run.yaml" "$folder/a/b" "train.load_state=$folder/nothing.h5"
[ -e "$folder/a" ] && fail "a refused start left its folder"

# ---- which states are kept
states() { (cd "$1" && ls state_*.h5 | sort -V | tr '\n' ' '); }
expect 0 "retention" train 1 "$folder/run.yaml" "$folder/keep" train.epochs=7 checkpoint.keep_last=2 checkpoint.keep_every=3 \
  optimizer.name=sgd schedule.name=cyclic schedule.step_size=60 schedule.max_lr=0.5 train.clip_norm=1
best=$(readlink "$folder/keep/best.h5")
[ "$(readlink "$folder/keep/checkpoint.h5")" = state_7.h5 ] || fail "checkpoint.h5 -> $(readlink "$folder/keep/checkpoint.h5")"
wanted=$(printf '%s\n' state_3.h5 state_6.h5 state_7.h5 "$best" | sort -Vu | tr '\n' ' ')
[ "$(states "$folder/keep")" = "$wanted" ] || fail "states kept: $(states "$folder/keep"), not $wanted"
lowest=$(awk -F, 'NR > 1 && (low == "" || $3 < low) { low = $3; epoch = $1 } END { print "state_" epoch ".h5" }' "$folder/keep/metrics.csv")
[ "$best" = "$lowest" ] || fail "best.h5 -> $best, the lowest loss is that of $lowest"
expect 0 "every few epochs" train 1 "$folder/run.yaml" "$folder/few" train.epochs=5 checkpoint.every_epochs=2 checkpoint.best=null
[ "$(states "$folder/few")" = "state_2.h5 state_4.h5 state_5.h5 " ] || fail "every_epochs: $(states "$folder/few")"
[ -e "$folder/few/best.h5" ] && fail "best.h5 was not wanted"
expect 75 "every few minutes" train 1 "$folder/run.yaml" "$folder/minutes" checkpoint.every_minutes=1e-9 train.stop_after_steps=3 \
  report.verbosity=detail
[ "$(grep -c '"saved"\|saved' "$folder/minutes/metrics.jsonl")" -ge 3 ] || fail "every_minutes: too few states"

# ---- no room on the disk
# The limit must leave room for what MPI keeps in files, 4 MB each, and be below a state, 9 MB.
write_run "$folder/large.yaml"
sed -i -e 's/channels: 4, kernel: 3/channels: 256, kernel: 8, stride: 8/' -e 's/input_pad: 2/input_pad: 0/' \
  -e 's/conv: {channels: out, kernel: 3}/conv_transpose: {channels: out, kernel: 8, stride: 8}/' "$folder/large.yaml"
limited() { (ulimit -f "$1"; shift; train "$@"); }
expect 0 "before the disk is full" train 1 "$folder/large.yaml" "$folder/full" train.epochs=2 train.log_interval=1000
cp "$folder/full/state_2.h5" "$folder/state_2.copy"
expect 5 "the last state cannot be written" limited 8000 1 "$folder/large.yaml" "$folder/full" train.epochs=4 train.log_interval=1000
says "warning: .*cannot save state .*state_3.h5.*\(training goes on\|the last state is written next\)"
says "cannot save state .*state_4.h5"
same_state "$folder/full/state_2.h5" "$folder/state_2.copy" "a full disk damaged an old state"
[ "$(states "$folder/full")" = "state_1.h5 state_2.h5 " ] || fail "a full disk left $(states "$folder/full")"
ls "$folder/full" | grep -q "\.tmp$" && fail "a full disk left temporary files"
expect 5 "on two ranks" limited 8000 2 "$folder/large.yaml" "$folder/full" train.epochs=3 train.log_interval=1000
expect 5 "no state at all" limited 8000 1 "$folder/large.yaml" "$folder/never" train.epochs=4 train.log_interval=1000
says "warning: .*cannot save state .*state_1.h5.*training goes on"
says "cannot save state .*state_4.h5"
[ "$(wc -l <"$folder/never/metrics.csv")" -eq 5 ] || fail "states that could not be written ended the run"
expect 4 "diverged while a state was written" limited 8000 1 "$folder/large.yaml" "$folder/diverged" train.epochs=4 \
  train.log_interval=1000 checkpoint.every_minutes=1e-9 optimizer.lr=1e30
says "warning: .*cannot save state .*state_1.h5.*; training has ended without that state"
says "is not finite"
expect 0 "with room again" train 1 "$folder/large.yaml" "$folder/full" train.epochs=4 train.log_interval=1000
expect 0 "never short of room" train 1 "$folder/large.yaml" "$folder/roomy" train.epochs=4 train.log_interval=1000
same_state "$folder/full/state_4.h5" "$folder/roomy/state_4.h5" "after a full disk"

# ---- damaged states
expect 0 "states to damage" train 1 "$folder/run.yaml" "$folder/damaged" train.epochs=4
cp -r "$folder/damaged" "$folder/whole"
printf 'x' | dd of="$folder/damaged/state_4.h5" bs=1 seek=9000 conv=notrunc 2>/dev/null
cp -r "$folder/damaged" "$folder/stopped"
expect 75 "stopped after a damaged state" train 2 "$folder/run.yaml" "$folder/stopped" train.epochs=5 train.stop_after_steps=1
says "warning: a state is refused: .*state_4.h5"
grep "^fieldnet: " "$folder/log" | grep -v "^fieldnet: warning" && fail "an error is told, but the run was only stopped"
expect 0 "a damaged state" train 2 "$folder/run.yaml" "$folder/damaged" train.epochs=4
says "state_4.h5"
says "going on from .*state_3.h5, the newest good state"
for i in 1 2 3 4; do head -c 3000 "$folder/whole/state_$i.h5" >"$folder/damaged/state_$i.h5"; done
expect 5 "nothing but damaged states" train 2 "$folder/run.yaml" "$folder/damaged" train.epochs=5
says "none of the 4 states"
echo "failures are met"
