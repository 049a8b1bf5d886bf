#!/bin/bash
# A build with the cuda backend on a node without any NVIDIA library: nothing of theirs is needed to
# start and to compute on the processor; asking for the GPU is one message with a remedy and the exit
# code of devices.
set -u
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}
library=$(echo "$BUILD_DIR"/lib/libfieldnet.so.?)
needed=$(ldd "$library" "$FIELDNET" | grep -E 'libcuda|libcudart|libcudnn|libcublas|libnvrtc')
[ -z "$needed" ] || fail "the program needs libraries of CUDA to start: $needed"

# An empty library path, none of CUDA's folders: what a processor's run opens.
run() {
  env -u LD_LIBRARY_PATH -u CUDA_VISIBLE_DEVICES "$FIELDNET" bench "$SOURCE_DIR/configs/cosmoflow.yaml" --size 32 \
    --channels 4,4 --batch 1 --steps 1 --warmup 0 --mode synthetic --set "compute.backend=$1" 2>&1
}
opened=$(LD_DEBUG=files run cpu)
code=$?
[ $code -eq 0 ] || fail "cpu: exit code $code: $(tail -3 <<<"$opened")"
grep -E 'calling init:.*(libcuda|libcudnn|libcublas)' <<<"$opened" && fail "a run on the processor opens libraries of CUDA"

if ldconfig -p | grep -q 'libcuda\.so\.1'; then
  echo "skipped: this machine has a driver"
else
  output=$(run cuda)
  code=$?
  messages=$(grep -c '^fieldnet' <<<"$output")
  case $output in
    *"was made without the CUDA toolkit"*) [ $code -eq 8 ] || fail "a build without CUDA: exit code $code, expected 8" ;;
    *"has no NVIDIA driver"*"compute.backend: cpu"*) [ $code -eq 10 ] || fail "no driver: exit code $code, expected 10" ;;
    *) fail "no driver: no such message in: $output" ;;
  esac
  [ "$messages" -le 1 ] || fail "no driver: $messages messages: $output"
fi
exit $failures
