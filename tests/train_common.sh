# Sourced by the scripts that train: a small run in $folder, and ways to start and compare runs.
set -u
folder=$(mktemp -d)
cleanup() {
  for job in $(jobs -p); do kill -KILL "$job" 2>/dev/null; done
  rm -rf "$folder"
}
trap cleanup EXIT

fail() {
  echo "FAILED: $*"
  [ -f "$folder/log" ] && tail -20 "$folder/log"
  exit 1
}

says() { grep -q -- "$1" "$folder/log" || fail "expected the message '$1'"; }

# wait_for WHAT COMMAND...: until it succeeds; five minutes at most, for machines that do much else
wait_for() {
  local what=$1 limit=$((SECONDS + 300))
  shift
  until "$@"; do
    [ $SECONDS -lt $limit ] || fail "waited in vain for $what"
    sleep 0.02
  done
}
lines() { if [ -f "$1" ]; then wc -l <"$1"; else echo 0; fi; }
rows_beyond() { [ "$(lines "$1/steps.csv")" -gt "$2" ]; }

# 3 files of 16^3 cells, 3 channels; with crop 8: 24 samples
make_data() {
  "$FIELDNET" data synth displacement --folder "$folder/data" --files "${1:-3}" --edge 16 --box 50 \
    >"$folder/log" 2>&1 || fail "synth"
}

# write_run FILE [LAYERS]: two convolutions with LAYERS between them
write_run() {
  {
    echo "seed: 7"
    echo "model:"
    echo "  layers:"
    echo "    - conv: {channels: 4, kernel: 3}"
    printf '%s' "${2:+    - $2
}"
    echo "    - leaky_relu: 0.1"
    echo "    - conv: {channels: out, kernel: 3}"
    echo "data:"
    echo "  train: {input: '$folder/data/lin/*.npy', target: '$folder/data/lpt2/*.npy'}"
    echo "  crop: 8"
    echo "  input_pad: 2"
    echo "train: {epochs: 2, batch: 2, log_interval: 1}"
    echo "optimizer: {name: adam, lr: 1e-3}"
    echo "compute: {threads: 1}"
    echo "report: {plots: false, tensorboard: false}"
  } >"$1"
}

# train RANKS RUN FOLDER [key=value ...]: exit status of the program; its output in $folder/log.
train() {
  local ranks=$1 run=$2 into=$3 settings=()
  shift 3
  for setting in "$@"; do settings+=(--set "$setting"); done
  if [ "$ranks" -eq 1 ]; then
    "$FIELDNET" train "$run" --set "folder=$into" ${settings[@]+"${settings[@]}"} >"$folder/log" 2>&1
  else
    # After a rank that ends with a failure, or stopped, mpirun would sleep for a second.
    OMPI_MCA_odls_base_sigkill_timeout=0 PRTE_MCA_odls_base_sigkill_timeout=0 \
      "$MPIRUN" -n "$ranks" "$FIELDNET" train "$run" --set "folder=$into" ${settings[@]+"${settings[@]}"} >"$folder/log" 2>&1
  fi
}

# expect STATUS WHAT train ...
expect() {
  local wanted=$1 what=$2 found=0
  shift 2
  "$@" || found=$?
  [ "$found" -eq "$wanted" ] || fail "$what: exit status $found, expected $wanted"
}

same_state() { "$STATE_COMPARE" "$1" "$2" || fail "$3: states differ"; }

# epoch, step, losses, rate and best of each epoch; seconds differ of course
rows() { cut -d, -f1-5,7 "$1/metrics.csv"; }
same_rows() { [ "$(rows "$1")" = "$(rows "$2")" ] || fail "$3: metrics differ: $(rows "$1") -- $(rows "$2")"; }

progress() { "$STATE_COMPARE" --print "$1/checkpoint.h5" "progress/$2"; }
