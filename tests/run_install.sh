# cmake --install into a scratch prefix: the program runs from there, and a C program compiles, links
# and runs against what pkg-config says - with the build tree out of reach.
set -u
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
  echo "FAILED: $*"
  exit 1
}
prefix=$folder/prefix
cmake --install "$BUILD_DIR" --prefix "$prefix" >"$folder/out" 2>&1 || fail "install: $(cat "$folder/out")"

for file in bin/fieldnet include/fieldnet/fieldnet.h include/fieldnet/network.h \
  include/fieldnet/backend.h share/man/man1/fieldnet.1 share/bash-completion/completions/fieldnet; do
  [ -s "$prefix/$file" ] || fail "$file was not installed"
done
head -1 "$prefix/share/man/man1/fieldnet.1" | grep -q '^\.TH FIELDNET 1' || fail "manual page"
bash -c '. "$1" && complete -p fieldnet' - "$prefix/share/bash-completion/completions/fieldnet" \
  >/dev/null || fail "completion"

pc=$(find "$prefix" -name fieldnet.pc)
[ -n "$pc" ] || fail "no fieldnet.pc"
export PKG_CONFIG_PATH=${pc%/*}
version=$(pkg-config --modversion fieldnet) || fail "pkg-config"

# Nothing may be taken from the build tree.
for file in "$prefix/bin/fieldnet" "$(find "$prefix" -name 'libfieldnet.so.*' -type f)"; do
  ldd "$file" | grep -E 'not found' && fail "$file lacks libraries"
  ldd "$file" | grep -F "$SOURCE_DIR/build" && fail "$file uses the build tree"
done
"$prefix/bin/fieldnet" version >"$folder/out" || fail "the installed program does not run"
grep -qF "$version" "$folder/out" || fail "version $version, program says $(cat "$folder/out")"

cat >"$folder/user.c" <<'END'
#include <fieldnet/backend.h>
#include <fieldnet/fieldnet.h>
#include <fieldnet/network.h>
#include <stdio.h>
#include <string.h>

/* Prints the version, and checks a shape, an error message and a lookup by name. */
int main(void) {
  const int64_t edge[] = {1, 3, 104};
  const fn_shape shape = fn_shape_make(3, edge);
  char text[64];
  const fn_backend *backend;
  if (strcmp(fn_shape_text(&shape, text, sizeof text), "[1, 3, 104]") != 0) return 1;
  if (fn_shape_count(&shape) != 312) return 2;
  if (fn_backend_find("reference", &backend) != FN_OK || backend->missing) return 3;
  if (fn_backend_find("referense", &backend) != FN_ERR_CONFIG) return 4;
  if (!strstr(fn_error_message(), "reference")) return 5;
  puts(fn_version());
  return 0;
}
END
sanitizers=
nm -D "$(find "$prefix" -name 'libfieldnet.so.*' -type f)" | grep -q __asan_init && sanitizers=-fsanitize=address,undefined
# shellcheck disable=SC2046
cc -std=c11 -Wall -Werror $sanitizers -o "$folder/user" "$folder/user.c" $(pkg-config --cflags --libs fieldnet) \
  -Wl,-rpath,"$(pkg-config --variable=libdir fieldnet)" 2>"$folder/out" || fail "cc: $(cat "$folder/out")"
found=$("$folder/user") || fail "the user's program ends with $?"
[ "$found" = "$version" ] || fail "version $version, library says $found"

# C++ authors include the headers too.
if command -v c++ >/dev/null; then
  printf '#include <fieldnet/backend.h>\n#include <fieldnet/fieldnet.h>\nint main() { return fn_version()[0] == 0; }\n' |
    c++ -fsyntax-only -x c++ $(pkg-config --cflags fieldnet) - || fail "the headers are not C++"
fi

# The prefix may move.
mv "$prefix" "$folder/moved"
"$folder/moved/bin/fieldnet" version >/dev/null || fail "the program does not run from another place"
echo "fieldnet $version installs"
