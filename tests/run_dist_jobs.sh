#!/bin/bash
# Jobs that a test inside one job cannot start: one rank ends the job; fewer MPI threads; large broadcast.
set -u
dist=$BUILD_DIR/tests/mpi_dist
reducer=$BUILD_DIR/tests/mpi_reducer
failures=0

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# An abort on one rank ends all within seconds, with its status as exit code and one message.
start=$SECONDS
output=$(timeout 1000 "$MPIRUN" -n 3 "$dist" abort 2>&1)
code=$?
[ $code -eq 3 ] || fail "abort: expected exit code 3 (data error), found $code: $output"
[ $((SECONDS - start)) -le 15 ] || fail "abort: took $((SECONDS - start)) s"
messages=$(grep -c "error: .*rank 2 on .*data error: a file is gone" <<<"$output")
[ "$messages" -eq 1 ] || fail "abort: expected the message of rank 2 once, found $messages times: $output"

# Every thread level gives the same bits; only the full one uses the thread.
reference=
for level in multiple serialized funneled single; do
  line=$(FIELDNET_MPI_THREADS=$level timeout 1000 "$MPIRUN" -n 3 "$reducer" digest 2>&1 | grep '^digest')
  read -r _ digest _ threads <<<"$line"
  reference=${reference:-$digest}
  [ -n "$digest" ] && [ "$digest" = "$reference" ] || fail "$level: digest '$digest', not '$reference'"
  case $level/$threads in
    multiple/*) ;; # an MPI library without it is allowed
    */no) ;;
    *) fail "$level: threads '$threads', expected no" ;;
  esac
done

# More ranks than cores, on one node and on three: the promised bits, whoever is late.
for nodes in 8 3; do
  FIELDNET_NODE_RANKS=$nodes timeout 1000 "$MPIRUN" -n 8 "$reducer" digest >/dev/null 2>&1 || fail "8 ranks, $nodes on a node: exit code $?"
done
timeout 1000 "$MPIRUN" -n 8 "$BUILD_DIR/tests/mpi_exchange" >/dev/null 2>&1 || fail "sums of 8 ranks: exit code $?"

output=$(FIELDNET_MPI_THREADS=many timeout 1000 "$MPIRUN" -n 1 "$dist" 2>&1)
code=$?
[ $code -eq 2 ] || fail "FIELDNET_MPI_THREADS=many: expected exit code 2, found $code"
grep -q "found 'many'" <<<"$output" || fail "FIELDNET_MPI_THREADS=many: no message in: $output"

# 2^30 + 5 bytes: more than one message. Needs 2.2 GB.
if [ "$(awk '/MemAvailable/ {print int($2 / 1e6)}' /proc/meminfo)" -ge 4 ]; then
  timeout 1000 "$MPIRUN" -n 2 "$dist" large >/dev/null 2>&1 || fail "broadcast of 2^30 + 5 bytes: exit code $?"
else
  echo "skipped: broadcast of 2^30 + 5 bytes needs 4 GB of free memory"
fi

exit $failures
