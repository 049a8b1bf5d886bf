# What holds for every file: layers, length, format, names.
set -u
cd "$SOURCE_DIR" || exit 1
failures=0
fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# A copy without git (an archive) has the same files, less what .gitignore names.
list() {
  if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    git ls-files --cached --others --exclude-standard -- "$@" | while read -r f; do [ -f "$f" ] && echo "$f"; done
  else
    find "$@" -type f -not -path './build/*' -not -path './.git/*'
  fi
}
mapfile -t sources < <(list src include tests configs | grep -E '\.(c|h)$')
[ ${#sources[@]} -ge 50 ] || fail "only ${#sources[@]} C files found"

# Rooms from the ground up: a file includes its own room and those before it. Ops, backends and
# models meet in graph, whose passes may therefore look at the operators they rewrite.
rooms=(base config field data graph ops backend models learn dist run report cli)
declare -A floor
for i in "${!rooms[@]}"; do floor[${rooms[$i]}]=$i; done
while IFS=: read -r file line include; do
  room=${file#src/}
  room=${room%%/*}
  used=${include%%/*}
  [ "$used" = "$include" ] && { [ "$include" = "report/event.pb-c.h" ] || fail "$file:$line: include \"$include\" without its room"; continue; }
  if [ -z "${floor[$room]:-}" ] || [ -z "${floor[$used]:-}" ]; then
    fail "$file:$line: \"$include\" belongs to no known room"
  elif [ "${floor[$used]}" -gt "${floor[$room]}" ] && [ "$room $include" != "graph ops/ops.h" ]; then
    fail "$file:$line: $room must not include \"$include\""
  fi
done < <(list src | grep -E '\.(c|h)$' | xargs grep -nE '^ *# *include "' | sed -E 's/^([^:]+):([0-9]+):[^"]*"([^"]*)".*/\1:\2:\3/')

# Public headers include public headers and the standard library only.
while IFS= read -r found; do
  fail "public header includes a private one: $found"
done < <(list include | xargs grep -nE '^ *# *include "')

for file in "${sources[@]}"; do
  length=$(wc -l <"$file")
  [ "$length" -le 800 ] || fail "$file: $length lines, at most 800"
done

# exit and assert belong to main; tests may do as they like.
while IFS= read -r found; do
  fail "exit and assert are for main only: $found"
done < <(list src | grep -E '\.(c|h)$' | grep -v '^src/cli/main\.c$' |
  xargs grep -nE '(^|[^_[:alnum:].>])(exit|_exit|assert) *\(' | grep -vE ':[0-9]+: *(\*|/\*|//)')

# Nothing in the repository may depend on one machine or on who made it.
while IFS= read -r found; do
  fail "a path of one machine, or a note to oneself: $found"
done < <(list . | sed 's,^\./,,' | grep -v '^tests/run_style.sh$' |
  xargs -d '\n' grep -nIE '(^|[^.[:alnum:]])/(home|work|root|Users)/|\b(TODO|FIXME|worktree)\b')

# Scripts parse.
while IFS= read -r script; do
  case "$(head -n 1 "$script")" in *bash*) bash -n "$script" || fail "$script does not parse" ;; esac
done < <(list tools tests | grep -E '^tools/[a-z-]+$|\.sh$')

if command -v clang-format-14 >/dev/null; then
  clang-format-14 --dry-run --Werror "${sources[@]}" 2>&1 | grep -m 20 'error:' && fail "clang-format 14 would change these"
else
  echo "skipped: format (clang-format-14 is not installed; other versions differ)"
fi

[ "$failures" -eq 0 ] && echo "${#sources[@]} C files keep the rules"
exit "$failures"
