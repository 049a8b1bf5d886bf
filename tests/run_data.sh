# fieldnet data: synth writes pairs once, inspect describes them, both refuse what they cannot do.
set -u
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() { echo "FAILED: $*"; exit 1; }

"$FIELDNET" data synth displacement --folder "$folder/a" --files 2 --first 3 --edge 12 --box 100 --seed 9 \
  || fail "synth"
for name in lin/003 lin/004 lpt2/003 lpt2/004; do
  [ -f "$folder/a/$name.npy" ] || fail "$name.npy was not written"
done

# the same seed, one file at a time: the same bytes
"$FIELDNET" data synth displacement --folder "$folder/b" --first 4 --edge 12 --box 100 --seed 9 || fail "synth again"
cmp "$folder/a/lpt2/004.npy" "$folder/b/lpt2/004.npy" || fail "a file depends on its neighbours"
OMP_NUM_THREADS=3 "$FIELDNET" data synth displacement --folder "$folder/b" --first 4 --edge 12 --box 100 --seed 9 --force \
  || fail "--force"
cmp "$folder/a/lin/004.npy" "$folder/b/lin/004.npy" || fail "a file depends on the number of threads"

# existing files are kept, with a message that names the first of them
"$FIELDNET" data synth displacement --folder "$folder/a" --first 4 --edge 16 >"$folder/out" 2>&1
[ $? -eq 3 ] || fail "existing files: exit code"
grep -q "lin/004.npy exists" "$folder/out" || fail "existing files: $(cat "$folder/out")"
cmp "$folder/a/lin/004.npy" "$folder/b/lin/004.npy" || fail "an existing file was touched"

"$FIELDNET" data synth displacement --folder "$folder/c" --edge 2 >"$folder/out" 2>&1
[ $? -eq 2 ] || fail "edge 2: exit code"
grep -q "edge" "$folder/out" || fail "edge 2: message"
[ -e "$folder/c" ] && fail "edge 2 left a folder"
"$FIELDNET" data synth displacment --folder "$folder/c" >"$folder/out" 2>&1
[ $? -eq 2 ] || fail "misspelt kind: exit code"

"$FIELDNET" data inspect "$folder/a/lin/003.npy" >"$folder/out" || fail "inspect"
grep -q "type <f4  shape 3 x 12 x 12 x 12" "$folder/out" || fail "inspect: $(cat "$folder/out")"
[ "$(grep -c 'channel [0-2] .*min .*max .*mean .*std' "$folder/out")" -eq 3 ] || fail "inspect: channels"
head -c 1000 "$folder/a/lin/003.npy" >"$folder/short.npy"
"$FIELDNET" data inspect "$folder/short.npy" "$folder/a/lin/004.npy" >"$folder/out" 2>&1
[ $? -eq 3 ] || fail "truncated file: exit code"
grep -q "004.npy" "$folder/out" || fail "a bad file hid the good one"

# values of known statistics: -1, 0, 1, 2 in one channel, written by hand as an npy file
{ printf '\x93NUMPY\x01\x00\x46\x00'; printf '%-69s\n' "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }"
  printf '\x00\x00\x80\xbf\x00\x00\x00\x00\x00\x00\x80\x3f\x00\x00\x00\x40'; } >"$folder/known.npy"
"$FIELDNET" data inspect "$folder/known.npy" >"$folder/out" || fail "inspect known.npy: $(cat "$folder/out")"
grep -q "min -1 *max 2 *mean 0.5 *std 1.11803" "$folder/out" || fail "statistics: $(cat "$folder/out")"
echo "data commands behave"
