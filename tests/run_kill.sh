# Killed at random moments until five kills hit a running program (run_kill_slow: fifty): the newest complete
# state loads, the run goes on from it, and in the end it is the run that was never killed.
times=${KILLS:-5}
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/run.yaml"
settings=(train.epochs=60 train.log_interval=1 checkpoint.keep_last=3 report.verbosity=info)
expect 0 "whole run" train 2 "$folder/run.yaml" "$folder/whole" "${settings[@]}"
RANDOM=${SEED:-12345}
killed=0 # kills of this run
hits=0   # of all runs
ranks_of() { pgrep -f "^$FIELDNET train $folder/run.yaml --set folder=$folder/killed"; }
job_of() { pgrep -f "train $folder/run.yaml --set folder=$folder/killed"; }

compare() {
  same_state "$folder/whole/checkpoint.h5" "$folder/killed/checkpoint.h5" "after $killed kills"
  same_rows "$folder/whole" "$folder/killed" "after $killed kills"
  ls "$folder/killed" | grep -q "\.tmp$" && fail "temporary files are left"
}

# A run that ends before it is killed is compared, and another one begins.
for start in $(seq $((4 * times))); do
  [ $hits -ge "$times" ] && break
  train 2 "$folder/run.yaml" "$folder/killed" "${settings[@]}" &
  job=$!
  # a start, then up to 0.3 seconds of it
  begun() { { [ -n "$(ranks_of)" ] && grep -q "^epoch\|done\|fieldnet:" "$folder/log" 2>/dev/null; } || ! kill -0 $job 2>/dev/null; }
  wait_for "start $start" begun
  sleep "0.$(printf %03d $((RANDOM % 300)))"
  hit=no
  for pid in $(ranks_of); do kill -KILL "$pid" 2>/dev/null && hit=yes; done
  # The launcher of ranks that have ended by themselves ends, too, and tells how it went.
  [ $hit = no ] || for pid in $(job_of); do kill -KILL "$pid" 2>/dev/null; done
  status=0
  wait $job 2>/dev/null || status=$?
  grep -q "fieldnet: .*\(error\|refused\|another run\)" "$folder/log" && fail "start $start: the start before failed"
  if [ $status -eq 0 ]; then
    compare
    rm -rf "$folder/killed"
    killed=0
  elif [ $hit = yes ]; then
    killed=$((killed + 1))
    hits=$((hits + 1))
  else
    fail "start $start: exit status $status of a run that no kill hit"
  fi
done
[ $hits -ge "$times" ] || fail "only $hits kills hit the run, in $start starts"
expect 0 "after $killed kills" train 2 "$folder/run.yaml" "$folder/killed" "${settings[@]}"
compare
echo "killed $hits times in $start starts, nothing lost"
