# KILLS (100) random SIGKILLs, shared between a training run and a sweep in two groups: the newest complete state loads and is at
# most one checkpoint interval behind (and one more where a state was being written behind the steps as the kill came: these
# steps take a millisecond), nothing is run twice, no file is corrupt, and in the end the numbers are those of runs that were
# never killed.
times=${KILLS:-100}
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/run.yaml"
RANDOM=${SEED:-12345}
every=2 steps_per_epoch=6 # a state after every 12 steps of two ranks with two samples each
settings=(train.log_interval=1 checkpoint.every_epochs=$every checkpoint.best=null checkpoint.keep_last=3)

# write_sweep NAME: six trials that differ in rate and length
write_sweep() {
  {
    echo "run: run.yaml"
    echo "set: {train.log_interval: 1, checkpoint.every_epochs: $every, checkpoint.keep_last: 3}"
    echo "sweep:"
    echo "  folder: $folder/$1"
    echo "  metric: train"
    echo "  attempts: 1000000"
    echo "  parameters:"
    echo "    train.epochs: [30, 40]"
    echo "    optimizer.lr: [1e-3, 2e-3, 3e-3]"
  } >"$folder/$1.yaml"
}
trials=$(seq 0 5)
trial() { printf '%s/%s/trial_%04d' "$folder" "$1" "$2"; }

# start WHAT: the run or the sweep that is killed, in the background
start() {
  local set=() setting
  if [ "$1" = run ]; then
    for setting in "folder=$folder/killed" "${settings[@]}" train.epochs=60 checkpoint.background=$background; do set+=(--set "$setting"); done
    "$MPIRUN" -n 2 "$FIELDNET" train "$folder/run.yaml" "${set[@]}" >"$folder/log" 2>&1 &
  else
    "$MPIRUN" -n 2 "$FIELDNET" sweep run "$folder/killed.yaml" --group 1 >"$folder/log" 2>&1 &
  fi
  job=$!
}
# The ranks alone, and with their launcher.
ranks() { pgrep -f "^$FIELDNET (train $folder/run.yaml|sweep run $folder/killed.yaml)"; }
processes() { pgrep -f "$FIELDNET (train $folder/run.yaml|sweep run $folder/killed.yaml)"; }

# One rank, some rank, all of them or the launcher; the rest is taken down a moment later. Sets hit.
strike() {
  local victims
  hit=no
  case $((RANDOM % 4)) in
    0) victims=$(ranks | head -1) ;;
    1) victims=$(ranks | tail -1) ;;
    2) victims=$(ranks) ;;
    3) victims=$job ;;
  esac
  [ -n "$(ranks)" ] || return
  for pid in $victims; do kill -KILL "$pid" 2>/dev/null && hit=yes; done
  [ $hit = yes ] || return # they have ended by themselves: so will their launcher
  sleep "0.0$((RANDOM % 10))"
  for pid in $(processes); do kill -KILL "$pid" 2>/dev/null; done
}

# Steps per epoch of one rank are twice those of two. The next save waits for the one before, so that a state that was just
# being written costs one interval more.
check_folder() { # FOLDER STEPS_PER_EPOCH
  local done saved=0 limit=$((every * $2))
  [ $background = false ] || limit=$((2 * limit))
  ls "$1" | grep -q "^state_.*\.h5$" && [ ! -e "$1/checkpoint.h5" ] && [ "$(ls "$1" | grep -c "^state_.*\.h5$")" -gt 1 ] &&
    fail "$1: states, but no checkpoint.h5"
  [ -f "$1/steps.csv" ] || return
  if [ -e "$1/checkpoint.h5" ]; then
    saved=$(progress "$1" step) || fail "$1: the newest state does not load"
  fi
  done=$(tail -n +2 "$1/steps.csv" | grep -c "^[0-9].*,.*$")
  [ $((done - saved)) -le $limit ] || fail "$1: $done steps done, $saved saved, background $background"
  [ $((done - saved)) -le $((every * $2)) ] || during=$((during + 1))
  [ $((done - saved)) -le "$lost" ] || lost=$((done - saved))
}
lost=0 during=0
check_after_kill() {
  local t
  if [ "$1" = run ]; then
    check_folder "$folder/killed" $steps_per_epoch
    return
  fi
  for t in $trials; do
    [ -d "$(trial killed "$t")" ] && check_folder "$(trial killed "$t")" $((2 * steps_per_epoch))
  done
}

# Lines of the store: FINISHED once per trial and nothing claimed after it.
check_store() {
  python3 - "$1/trials.jsonl" <<'END' || fail "the store of $1"
import json, sys, zlib
finished, claims, damaged = {}, {}, 0
for line in open(sys.argv[1], "rb"):
    try:
        event = json.loads(line)
    except ValueError:
        damaged += 1  # torn by a kill: ignored
        continue
    trial = event.get("trial")
    if event["event"] == "claimed":
        claims[trial] = claims.get(trial, 0) + 1
        if trial in finished:
            sys.exit(f"trial {trial} claimed after its end")
    if event["event"] == "finished":
        if trial in finished:
            sys.exit(f"trial {trial} finished twice")
        finished[trial] = True
    if event["event"] in ("failed", "stopped"):
        sys.exit(f"trial {trial}: {event}")
if sorted(finished) != list(range(6)):
    sys.exit(f"finished: {sorted(finished)}")
print(f"claims of the six trials: {[claims[t] for t in range(6)]}, torn lines: {damaged}")
END
}

compare_end() {
  local t
  if [ "$1" = run ]; then
    same_state "$folder/whole/checkpoint.h5" "$folder/killed/checkpoint.h5" "the run, after $hits kills"
    same_rows "$folder/whole" "$folder/killed" "the run, after $hits kills"
    ls "$folder/killed" | grep -q "\.tmp" && fail "temporary files are left"
  else
    check_store "$folder/killed"
    for t in $trials; do
      same_rows "$(trial sweep "$t")" "$(trial killed "$t")" "trial $t, after $hits kills"
      same_state "$(trial sweep "$t")/checkpoint.h5" "$(trial killed "$t")/checkpoint.h5" "trial $t, after $hits kills"
      ls "$(trial killed "$t")" | grep -q "\.tmp" && fail "temporary files are left in trial $t"
    done
  fi
}

begun() { { [ -n "$(ranks)" ] && grep -q "^epoch\|^trial\|done\|fieldnet:" "$folder/log" 2>/dev/null; } || ! kill -0 $job 2>/dev/null; }

# batter WHAT TIMES: what ends before it is killed is compared, and another one begins
batter() {
  local what=$1 wanted=$2 status
  hits=0 starts=0 ends=0
  rm -rf "$folder/killed"
  while [ $hits -lt "$wanted" ]; do
    starts=$((starts + 1))
    [ $starts -le $((4 * wanted + 10)) ] || fail "$what: only $hits kills hit it, in $starts starts"
    background=true # one run in two without
    [ "$what" = sweep ] || [ $((starts % 2)) -eq 0 ] || background=false
    start "$what"
    wait_for "$what, start $starts" begun # then up to 0.8 seconds of it
    sleep "0.$(printf %03d $((RANDOM % 800)))"
    strike
    status=0
    wait $job 2>/dev/null || status=$?
    grep -q "fieldnet: .*\(error\|refused\|another run\)\|^trial [0-9]* failed" "$folder/log" && fail "$what, start $starts: the start before failed"
    if [ $status -eq 0 ]; then
      compare_end "$what"
      ends=$((ends + 1))
      rm -rf "$folder/killed"
    elif [ $hit = yes ]; then
      hits=$((hits + 1))
      check_after_kill "$what"
    else
      fail "$what, start $starts: exit status $status, and no kill hit it"
    fi
  done
  start "$what"
  wait $job || fail "$what: not gone on with after $hits kills"
  compare_end "$what"
  echo "$what: killed $hits times in $starts starts, $((ends + 1)) times complete with the same numbers; at most $lost steps lost; \
$during times more than an interval, with the state that was being written"
}

expect 0 "whole run" train 2 "$folder/run.yaml" "$folder/whole" "${settings[@]}" train.epochs=60
write_sweep sweep
"$MPIRUN" -n 2 "$FIELDNET" sweep run "$folder/sweep.yaml" --group 1 >"$folder/log" 2>&1 || fail "whole sweep"
write_sweep killed
batter run $((times * 2 / 5))
batter sweep $((times - times * 2 / 5))
echo "$times kills, nothing lost, nothing done twice"
