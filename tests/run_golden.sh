#!/bin/bash
# fieldnet verify against files written by PyTorch (tools/reference-from-pytorch): every network
# passes on every backend, a changed number does not, and names and shapes must agree.
set -u
golden=$SOURCE_DIR/tests/golden
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

verify() { # YAML FILE OPTION...: all in $full, all but good tensors in $output, exit code in $code
  local yaml=$1 file=$2
  shift 2
  full=$(timeout 1000 "$FIELDNET" verify "$golden/$yaml.yaml" "$work/$file.h5" --set compute.threads=2 "$@" 2>&1)
  code=$?
  output=$(grep -v ' ok' <<<"$full") # what is interesting of it
}

for packed in "$golden"/*.h5.gz; do
  name=$(basename "$packed" .h5.gz)
  gunzip -c "$packed" >"$work/$name.h5"
  for backend in reference cpu; do
    verify "$name" "$name" --set compute.backend=$backend
    [ $code -eq 0 ] || fail "$name on $backend: exit code $code: $output"
    grep -q "in 15 groups, all within their limits" <<<"$output" || fail "$name on $backend: groups are missing: $output"
  done
done

# One gradient off by 1 %, one weight after three steps, one loss: code 7, and the tensor's name.
changed() { # DATASET FACTOR WHAT
  cp "$work/unet2d.h5" "$work/changed.h5"
  "$BUILD_DIR/tests/test_verify" change "$work/changed.h5" "$1" "$2" || fail "cannot change $1"
  verify unet2d changed --set compute.backend=cpu
  [ $code -eq 7 ] || fail "$1 changed: expected exit code 7, found $code: $output"
  grep -q "$3 .*OVER" <<<"$output" || fail "$1 changed: $3 is not named: $output"
  grep -q "1 of 295 tensors" <<<"$output" || fail "$1 changed: expected one tensor over: $output"
}
changed /grads64/conv_l1.convs.0.weight 1.01 conv_l1.convs.0.weight
changed /adam_l264/weights/conv_r0.convs.0.weight 1.0001 conv_r0.convs.0.weight
changed /sgd64/losses 1.0001 losses

# Another network: names and shapes on either side are listed.
verify vnet3d unet2d
[ $code -eq 7 ] || fail "vnet with a unet's file: expected exit code 7, found $code: $output"
verify unet2d unet2d --set model.options.width=6
[ $code -eq 7 ] || fail "other width: expected exit code 7, found $code: $output"
grep -q "/weights/conv_c.convs.0.weight: shape \[5, 5, 3, 3\] in the file, \[6, 6, 3, 3\] in the network" <<<"$output" ||
  fail "other width: no shapes: $output"

# bf16 needs a tolerance; with one it passes, and a hundredth of it does not.
verify vnet1d vnet1d --set compute.backend=cpu --set compute.precision=bf16
[ $code -eq 2 ] || fail "bf16 without --rtol: expected exit code 2, found $code: $output"
verify vnet1d vnet1d --set compute.backend=cpu --set compute.precision=bf16 --rtol 0.5
[ $code -eq 0 ] || fail "bf16: exit code $code: $output"
verify vnet1d vnet1d --set compute.backend=cpu --set compute.precision=bf16 --rtol 0.0005
[ $code -eq 7 ] || fail "bf16 with a narrow tolerance: expected exit code 7, found $code: $output"

# What one backend wrote, another compares with.
verify chain2d chain2d --set compute.backend=reference --write "$work/written.h5"
[ $code -eq 0 ] || fail "--write: exit code $code: $output"
verify chain2d written --set compute.backend=cpu --all
[ $code -eq 0 ] || fail "written by reference, read by cpu: exit code $code: $output"
verify chain2d chain2d --write "$work/written.h5"
[ $code -eq 2 ] || fail "--write over a file: expected exit code 2, found $code: $output"

verify chain2d absent
[ $code -eq 3 ] || fail "absent file: expected exit code 3, found $code: $output"

[ $failures -eq 0 ] && echo "all golden files agree"
exit $((failures > 0))
