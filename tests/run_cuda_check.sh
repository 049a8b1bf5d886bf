#!/bin/bash
# tools/gpu-check on the stand-ins for NVIDIA's libraries, packed as tools/gpu-pack would: parts in
# order, a readable summary, failures, time that is over, and going on from there.
set -u
if [ ! -x "$BUILD_DIR/standin/standin_main" ]; then
  echo "skipped: this build has no cuda backend"
  exit 77
fi
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/pack/bin"
for pair in fieldnet:standin/standin_main test_op:standin/standin_test_op \
  test_gpu_library:standin/standin_test_gpu_library state_compare:tests/state_compare; do
  printf '#!/bin/sh\nexport LD_LIBRARY_PATH=%s/standin\nexec %s "$@"\n' "$BUILD_DIR" "$BUILD_DIR/${pair#*:}" \
    >"$work/pack/bin/${pair%%:*}"
done
printf '#!/bin/sh\nexec %s "$@"\n' "$MPIRUN" >"$work/pack/bin/mpirun"
chmod +x "$work"/pack/bin/*
tar -C "$work" -cJf "$work/pack.tar.xz" pack
check() {
  local expected=$1
  shift
  output=$("$SOURCE_DIR/tools/gpu-check" --build "$work/build" --pack "$work/pack.tar.xz" "$@" 2>&1)
  local code=$?
  [ $code -eq "$expected" ] || fail "gpu-check $*: exit code $code, expected $expected: $(tail -25 <<<"$output")"
}
expect() { grep -Eq "$1" <<<"$output" || fail "no '$1' in: $(tail -25 <<<"$output")"; }

check 0 --only build,strided,memcheck
expect '^build +passed'
expect '^strided +passed'
expect '^memcheck +passed .*skipped: there is no compute-sanitizer'
check 0 --only build,strided
expect '^strided +passed +0 s  before'
check 0 --only strided --again
grep -q '^strided .*before' <<<"$output" && fail "--again runs it again"

# Time: what was begun is ended, the rest is left, and the next call has it to do.
rm -f "$work"/build/gpu-check/*.passed
check 3 --only strided,memcheck --minutes 0.001
expect '^strided +(unfinished|left)'
expect '^memcheck +left'
expect 'goes on from here'

# A GPU that fails: the first failure ends it, --keep-going does not.
export STANDIN_FAIL="20 214"
check 1 --only strided,memcheck
expect '^strided +FAILED .*strided.log'
expect '^memcheck +left'
check 1 --only strided,memcheck --keep-going
expect '^memcheck +passed'
unset STANDIN_FAIL
check 2 --only nothing
expect "no part nothing"
exit $failures
