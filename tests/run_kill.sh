# Killed at random moments, five times (run_kill_slow: fifty): the newest complete state loads, the run goes
# on from it, and in the end it is the run that was never killed.
times=${KILLS:-5}
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/run.yaml"
settings=(train.epochs=$((times * 12)) train.log_interval=1 checkpoint.keep_last=3 report.verbosity=info)
expect 0 "whole run" train 2 "$folder/run.yaml" "$folder/whole" "${settings[@]}"
RANDOM=${SEED:-12345}
killed=0
for i in $(seq "$times"); do
  train 2 "$folder/run.yaml" "$folder/killed" "${settings[@]}" &
  job=$!
  for wait in $(seq 600); do # a start, then up to 0.4 seconds of it
    sleep 0.02
    pids=$(pgrep -f "train $folder/run.yaml --set folder=$folder/killed" | tr '\n' ' ')
    [ -n "$pids" ] && grep -q "^epoch\|done\|fieldnet:" "$folder/log" 2>/dev/null && break
  done
  sleep "0.$(printf %03d $((RANDOM % 300)))"
  pids=$(pgrep -f "train $folder/run.yaml --set folder=$folder/killed")
  [ -n "$pids" ] && kill -KILL $pids 2>/dev/null && killed=$((killed + 1))
  wait $job 2>/dev/null
  grep -q "fieldnet: .*\(error\|refused\)" "$folder/log" && fail "kill $i: the start before failed"
done
[ $killed -ge $((times / 2)) ] || fail "only $killed of $times kills hit the run"
expect 0 "after $killed kills" train 2 "$folder/run.yaml" "$folder/killed" "${settings[@]}"
same_state "$folder/whole/checkpoint.h5" "$folder/killed/checkpoint.h5" "after $killed kills"
same_rows "$folder/whole" "$folder/killed" "after $killed kills"
ls "$folder/killed" | grep -q "\.tmp$" && fail "temporary files are left"
echo "killed $killed times, nothing lost"
