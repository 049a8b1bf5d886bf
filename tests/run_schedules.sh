# Every optimizer runs; the learning rate of every step follows its schedule's formula; backends, precisions and
# networks run with guarded and poisoned memory; both backends agree.
. "$(dirname "$0")/train_common.sh"
make_data
write_run "$folder/run.yaml"

for name in sgd adam adamw rmsprop adadelta adagrad nadam; do
  expect 0 "$name" train 1 "$folder/run.yaml" "$folder/$name" "optimizer.name=$name" optimizer.lr=1e-3 train.epochs=1
  for other in sgd adam adamw rmsprop adadelta adagrad; do
    [ "$other" = "$name" ] && break
    "$STATE_COMPARE" "$folder/$other/state_1.h5" "$folder/$name/state_1.h5" >/dev/null && fail "$name is $other"
  done
done
expect 0 "all options" train 1 "$folder/run.yaml" "$folder/options" optimizer.name=adam optimizer.amsgrad=true train.clip_norm=0.1 \
  optimizer.weight_decay=0.1 train.epochs=1

# rates NAME FORMULA [key=value ...]: column lr of steps.csv; awk knows s (step from 0) and e (epoch from 0); 12 steps each
rates() {
  local name=$1 formula=$2
  shift 2
  expect 0 "$name" train 1 "$folder/run.yaml" "$folder/$name" "schedule.name=${name%%-*}" optimizer.lr=0.01 train.epochs=4 \
    train.clip_norm=0.1 "$@"
  awk -F, -v name="$name" 'NR > 1 { s = $1 - 1; e = $2 - 1; pi = atan2(0, -1); wanted = '"$formula"'
      if ($5 < wanted * (1 - 1e-6) || $5 > wanted * (1 + 1e-6)) { print name ": step " $1 ": " $5 ", not " wanted; exit 1 } }
    END { if (NR != 49) { print NR " rows"; exit 1 } }' "$folder/$name/steps.csv" || fail "rates of $name"
}
rates none 0.01
rates none-warm 's < 19 ? 0.01 * (s + 1) / 20 : 0.01' schedule.warmup_steps=20
rates step '0.01 * (e < 2 ? 1 : 0.3)' schedule.step_size=2 schedule.factor=0.3
rates exponential '0.01 * 0.5 ^ e' schedule.factor=0.5
rates cosine '0.001 + 0.009 * (1 + cos(pi * e / 4)) / 2' schedule.min_lr=0.001
rates cosine-warm '(0.01 * (1 + cos(pi * e / 5)) / 2) * (s < 4 ? (s + 1) / 5 : 1)' schedule.t_max=5 schedule.warmup_steps=5
# 48 steps: up to step 0.3 * 48 - 1, down to step 47
rates one_cycle 's <= 13.4 ? 0.02 + (0.002 - 0.02) * (1 + cos(pi * s / 13.4)) / 2 \
  : 2e-5 + (0.02 - 2e-5) * (1 + cos(pi * (s - 13.4) / 33.6)) / 2' schedule.max_lr=0.02 schedule.div_factor=10 schedule.final_div_factor=100
rates cyclic '0.01 + 0.01 * (s % 10 <= 4 ? (s % 10) / 4 : (10 - s % 10) / 6)' schedule.max_lr=0.02 schedule.step_size=4 \
  schedule.step_size_down=6
expect 0 plateau train 1 "$folder/run.yaml" "$folder/plateau" schedule.name=plateau schedule.patience=0 schedule.threshold=0.999 \
  schedule.factor=0.5 optimizer.lr=0.01 train.epochs=4 train.clip_norm=0.1
[ "$(awk -F, 'NR > 1 && $3 == 1 { printf "%g ", $5 }' "$folder/plateau/steps.csv")" = "0.01 0.01 0.005 0.0025 " ] ||
  fail "plateau: $(cut -d, -f2,3,5 "$folder/plateau/steps.csv")"
echo "schedules are followed"
