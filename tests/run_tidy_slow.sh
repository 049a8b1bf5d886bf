# clang-tidy over every source with the checks of .clang-tidy; minutes, hence slow.
set -u
tidy=$(command -v clang-tidy-14 || command -v clang-tidy) || {
  echo "skipped: clang-tidy is not installed"
  exit 77
}
cd "$SOURCE_DIR" || exit 1
find src -name '*.c' -print0 |
  xargs -0 -n 8 -P "$(nproc)" "$tidy" -p "$BUILD_DIR" --quiet >"${TMPDIR:-/tmp}/fieldnet-tidy.$$" 2>/dev/null
status=$?
grep -E '(warning|error):' "${TMPDIR:-/tmp}/fieldnet-tidy.$$" | sort -u
rm -f "${TMPDIR:-/tmp}/fieldnet-tidy.$$"
[ $status -eq 0 ] && echo "nothing to complain about"
exit $status
