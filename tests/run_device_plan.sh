# The plan of a training step on a GPU, made without one: streams are ordered, values share no memory that they must
# not, and the numbers of kernels and of copies between layouts are those of the day they were last looked at. More
# of either is a loss of speed that somebody must have wanted.
set -u
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
status=0

# plan NAME KERNELS REORDERS MODEL SPATIAL SIZE CHANNELS [key=value ...]
plan() {
  local name=$1 kernels=$2 reorders=$3 model=$4 spatial=$5 size=$6 channels=$7 settings=() found
  shift 7
  for setting in "$@"; do settings+=(--set "$setting"); done
  echo "model: $model" >"$folder/$name.yaml"
  if ! "$FIELDNET" describe "$folder/$name.yaml" --backend emulated --assume sm_90 --spatial "$spatial" --size "$size" \
    --channels "$channels" --set compute.recompute=none ${settings[@]+"${settings[@]}"} >"$folder/log" 2>&1; then
    cat "$folder/log"
    status=1
    return
  fi
  grep -q '^checked  *every access is ordered' "$folder/log" || { echo "$name: not checked"; status=1; }
  found=$(sed -n 's/^kernels  *\([0-9]*\), of them \([0-9]*\) reorders.*/\1 \2/p' "$folder/log")
  [ "$found" = "$kernels $reorders" ] || { echo "$name: $found kernels and reorders, expected $kernels $reorders"; status=1; }
}

# casts COUNT: kernels of the last plan that round the network's input
casts() {
  local found
  found=$(grep -c '^ *[0-9]*  *unary  *input  *bf16 ' "$folder/log")
  [ "$found" = "$1" ] || { echo "$found casts of the input, expected $1"; cat "$folder/log"; status=1; }
}

# The one reorder is the network's output for figures. Where the first layer reads 16 bits, the input is made in these,
# in the layout of the first layer; what adds its input to its output keeps that in float32, and casts it.
narrow=(compute.precision=bf16 compute.first_layer_f32=false)
plan vnet 137 1 '{name: vnet}' 3 128 3,3
plan vnet_bf16 144 1 '{name: vnet}' 3 128 3,3 compute.precision=bf16
plan vnet_narrow 140 1 '{name: vnet}' 3 128 3,3 "${narrow[@]}"
casts 1
plan vnet_alone 137 1 '{name: vnet, options: {bypass: false}}' 3 128 3,3 "${narrow[@]}"
casts 0
plan vnet_host 138 1 '{name: vnet, options: {bypass: false}}' 3 128 3,3 "${narrow[@]}" data.convert=host
casts 1
plan unet 112 1 '{name: unet}' 3 128 3,3
plan unet_alone 111 1 '{name: unet, options: {bypass: false}}' 3 128 3,3 "${narrow[@]}"
casts 0
plan racoon 44 2 '{name: racoon}' 2 128 1,1 loss.name=bce_with_logits
plan penguin 86 2 '{name: penguin}' 2 128 1,1 loss.name=bce_with_logits

if "$FIELDNET" describe "$folder/vnet.yaml" --assume sm_90 --size 128 --backend cpu >"$folder/log" 2>&1; then
  echo "the cpu backend was planned for a device"
  status=1
fi
"$FIELDNET" describe "$folder/vnet.yaml" --assume H100 --size 128 --backend emulated >"$folder/log" 2>&1
[ $? -eq 2 ] && grep -q 'sm_90' "$folder/log" || { echo "a wrong --assume is not told"; status=1; }
exit $status
