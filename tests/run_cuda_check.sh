#!/bin/bash
# tools/gpu-check on the stand-ins for NVIDIA's libraries, packed as tools/gpu-pack would: every part
# runs to its end, failures do not keep others from running, time that is over, and going on from
# there, on another machine, too.
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
mkdir -p "$work"/pack/{bin,lib,real} "$work/tools"
for pair in fieldnet:standin/standin_main test_op:standin/standin_test_op \
  test_gpu_library:standin/standin_test_gpu_library state_compare:tests/state_compare; do
  ln -s "$BUILD_DIR/${pair#*:}" "$work/pack/real/${pair%%:*}"
done
printf '#!/bin/sh\nexec %s "$@"\n' "$MPIRUN" >"$work/pack/real/mpirun"
chmod +x "$work/pack/real/mpirun"
echo "export LD_LIBRARY_PATH=$BUILD_DIR/standin" >"$work/pack/environment"
# shellcheck disable=SC2016
for program in "$work"/pack/real/*; do
  printf '#!/bin/sh\nhere=$(cd "$(dirname "$0")/.." && pwd)\n. "$here/environment"\nexec "$here/real/$(basename "$0")" "$@"\n' \
    >"$work/pack/bin/$(basename "$program")"
done
chmod +x "$work"/pack/bin/*
ln -s "$BUILD_DIR/lib/libfieldnet.so" "$work/pack/lib/libfieldnet.so"
tar -C "$work" -cJf "$work/pack.tar.xz" pack
machine=here
check() {
  local expected=$1
  shift
  output=$(PATH="$work/tools:$PATH" "$SOURCE_DIR/tools/gpu-check" --build "$work/$machine" --results "$work/results" \
    --pack "$work/pack.tar.xz" "$@" 2>&1)
  local code=$?
  [ $code -eq "$expected" ] || fail "gpu-check $*: exit code $code, expected $expected: $(tail -25 <<<"$output")"
}
expect() { grep -Eq -- "$1" <<<"$output" || fail "no '$1' in: $(tail -25 <<<"$output")"; }
sanitizer() { # what it does: its text is in $what, its options in log.txt
  cat >"$work/tools/compute-sanitizer" <<'END'
#!/bin/sh
if [ "$1" = --help ]; then echo "  --kernel-name arg"; exit; fi
echo "sanitizer: $*"
END
  cat >>"$work/tools/compute-sanitizer"
  chmod +x "$work/tools/compute-sanitizer"
}

# All that a GPU would have to pass; operators of one kind, for there are many.
bench=(--networks vnet104 --size 44 --batch 1 --width 1 --pairs 3 --warmup 1 --calls 1 --python none --tasks training --precisions bf16)
check 0 --only build,golden,training,strided,memcheck,bench -- "${bench[@]}"
for part in build golden training strided; do expect "^$part +passed"; done
expect '^memcheck +passed .*skipped: there is no compute-sanitizer'
expect '^bench +passed'
[ "$(cd "$work/results" && echo *)" = "bench.json bench.md cache.tgz log.txt parts.txt summary.txt" ] || fail "results: $(ls "$work/results")"
tar -tzf "$work/results/cache.tgz" | grep -q algorithms.txt || fail "the cache: $(tar -tzf "$work/results/cache.tgz")"
grep -q '^| vnet104 | 1 | training | bf16 | alone | [0-9]' "$work/results/bench.md" || fail "no row in bench.md"

# Elsewhere, with the results of here: what passed is not run again, unless it is asked for.
machine=elsewhere
check 0 --only build,golden,training,strided
expect '^build +passed +[0-9]+ s  $'
for part in golden training strided; do expect "^$part +passed +0 s  before"; done
check 0 --only strided --again
grep -q '^strided .*before' <<<"$output" && fail "--again does not run it again"

# The sanitizer sees the program itself, and our kernels alone where it can choose.
# shellcheck disable=SC2016
sanitizer <<<'while [ "${1#--}" != "$1" ]; do [ "$1" = --print-limit ] && set -- x 30; shift; done
until [ -x "$1" ]; do shift; done
"$@" && echo "ERROR SUMMARY: 0 errors"'
check 0 --only memcheck,racecheck
expect '^racecheck +passed .*ERROR SUMMARY: 0 errors'
grep -Eq "^sanitizer: --tool racecheck --kernel-name kns=fn_ .*pack/real/fieldnet train" "$work/results/log.txt" || fail "racecheck: $(grep sanitizer: "$work/results/log.txt")"
grep -Eq "^sanitizer: --tool memcheck --target" "$work/results/log.txt" || fail "memcheck: $(grep sanitizer: "$work/results/log.txt")"
sanitizer <<<'echo "Error: Device not supported" && exit 1'
check 0 --only initcheck
expect '^initcheck +passed .*skipped: compute-sanitizer does not know this GPU'

# Time: what is running is ended with all its processes, the rest is left, and the next call has it to do.
rm "$work/results/parts.txt"
sanitizer <<<'exec sleep 987'
check 3 --only memcheck,strided --minutes 0.1
expect '^memcheck +unfinished'
expect '^strided +left'
expect 'goes on from here'
pgrep -f 'sleep 987' >/dev/null && fail "what was running goes on"
rm "$work/tools/compute-sanitizer"
check 0 --only memcheck,strided
expect '^strided +passed'

# A GPU that fails: others are run, --stop leaves them; next time what failed comes last.
rm "$work/results/parts.txt"
export STANDIN_FAIL="20 214"
check 1 --only golden,memcheck,strided --stop
expect '^golden +FAILED .*log.txt'
expect '^memcheck +left'
check 1 --only golden,memcheck,strided
[ "$(grep -Eo '^(golden|memcheck|strided) +FAILED' <<<"$output" | tr -s ' \n' ' ')" = "memcheck FAILED strided FAILED golden FAILED " ] ||
  [ "$(grep -Eo '^(golden|memcheck|strided) ' <<<"$output" | tr -s ' \n' ' ')" = "memcheck strided golden " ] ||
  fail "what failed comes last: $(tail -5 <<<"$output")"
expect '^memcheck +passed'
expect '^strided +FAILED'
grep -q '^FAILED: vnet3d' "$work/results/log.txt" || fail "golden vectors behind the first that failed"
unset STANDIN_FAIL
check 0 --only golden,strided
check 2 --only nothing
expect "no part nothing"
exit $failures
