# The example plug-in and the example list of layers, as a user would build and run them.
set -u
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
fail() {
  echo "FAILED: $*"
  exit 1
}
cd "$folder" || exit 1

# The paths of the shipped configurations, filled with the smallest fields that will do.
for set in "train 2 0" "validation 1 8" "test 1 9"; do
  read -r name files first <<<"$set"
  "$FIELDNET" data synth displacement --folder build/demo/data/"$name" --files "$files" \
    --first "$first" --edge 24 --box 96 >out || fail "synth: $(cat out)"
done

# Against the public headers alone.
cc -std=c11 -Wall -Wextra -Werror -shared -fPIC -I"$SOURCE_DIR/include" \
  -o build/demo/example_plugin.so "$SOURCE_DIR/configs/example_plugin.c" -lm || fail "cc"

describe() { # name, parameters
  "$FIELDNET" describe "$SOURCE_DIR/configs/$1.yaml" >out 2>&1 || fail "describe $1: $(cat out)"
  tr -d ' ,_' <out | grep -q "$2" || fail "describe $1: no $2 parameters in: $(cat out)"
}
# residual: lift 3x8+8, three times 8x8x27+8, project 8x3+3
describe plugin $((32 + 3 * 1736 + 27))
# layers: 3^3 from 3, 12 and 24 channels, 2^3 down and up, batch norms, 3^3 to 3 channels
describe layers $((3 * 12 * 27 + 12 + 2 * (12 * 12 * 8 + 12) + 12 * 12 * 27 + 12 + 24 * 12 * 27 + 12 + 12 * 3 * 27 + 3 + 2 * 24))

for name in plugin layers; do
  "$FIELDNET" train "$SOURCE_DIR/configs/$name.yaml" --set train.epochs=16 --set report.plots=false \
    --set report.tensorboard=false --set optimizer.lr=5e-3 >out 2>&1 || fail "train $name: $(cat out)"
  # 16 epochs on two crops: they are learnt, at least in part.
  awk -F, 'NR == 2 { first = $3 } { last = $3 } END { exit !(last > 0 && last < 0.6 * first) }' \
    build/demo/$name/metrics.csv || fail "$name does not learn: $(cat build/demo/$name/metrics.csv)"
  "$FIELDNET" test "$SOURCE_DIR/configs/$name.yaml" >out 2>&1 || fail "test $name: $(cat out)"
done


# What the norm did is undone in the written field, and the loss is ln cosh(d / 0.1) of the
# normalised fields: recomputed from files by other means.
python3 - <<'END' || fail "the loss of the test set is not the plug-in's"
import array, csv, glob, math, struct
def values(path):
    content = open(path, "rb").read()
    assert b"'<f4'" in content[:128]
    return array.array("f", content[10 + struct.unpack("<H", content[8:10])[0] :])
target = values("build/demo/data/test/lpt2/009.npy")
output = values(glob.glob("build/demo/plugin/outputs/**/*.npy", recursive=True)[0])
def log_cosh(d):
    return d + math.log1p(math.exp(-2 * d)) - math.log(2)
terms = [log_cosh(abs(math.asinh(o / 10) - math.asinh(t / 10)) / 0.1) for o, t in zip(output, target)]
expected = math.fsum(terms) / len(terms)
found = float(list(csv.DictReader(open("build/demo/plugin/test.csv")))[-1]["loss"])
print(f"loss {found:.8g}, from {len(terms)} values of the files {expected:.8g}")
raise SystemExit(len(terms) != 3 * 24**3 or abs(found - expected) > 1e-4 * expected)
END

refused() { # expected text, arguments
  "$FIELDNET" train "$SOURCE_DIR/configs/plugin.yaml" "${@:2}" --set folder=other >out 2>&1
  [ $? -eq 2 ] && grep -q "$1" out || fail "expected exit code 2 and '$1': $(cat out)"
}
refused "did you mean 'residual'" --set model.name=residuel
refused "did you mean 'log_cosh'" --set loss.name=logcosh
refused "did you mean 'arsinh'" --set data.input_norms=arsin
refused "dept" --set 'model.options={dept: 2}'
refused "scal" --set 'loss.options={scal: 2}'
refused "norm option unit must be positive" --set 'data.norm_options={unit: -1}'
refused "cannot load plug-in" --set plugin=build/demo/absent.so
echo 'int nothing;' | cc -shared -fPIC -x c -o nothing.so -
refused "does not export fieldnet_register" --set plugin=nothing.so
echo "plug-in and layers work"
